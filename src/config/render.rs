//! Problems as people read them: the line of the file, the place underlined, what to do. No colour unless
//! asked for, and never more of a line than fits.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthChar;

use super::error::{Diagnostics, Place, Problem, printable};
use crate::logs::escape::steers;

/// Columns of the file's text that are shown of a line.
const SHOWN: usize = 100;

/// Columns that stay visible before the place in a line that is cut.
const BEFORE: usize = 30;

struct Styles {
    error: Style,
    gutter: Style,
    bold: Style,
}

impl Styles {
    fn new(styled: bool) -> Styles {
        match styled {
            true => Styles {
                error: AnsiColor::Red.on_default().bold(),
                gutter: AnsiColor::Blue.on_default().bold(),
                bold: Style::new().bold(),
            },
            false => Styles { error: Style::new(), gutter: Style::new(), bold: Style::new() },
        }
    }
}

impl Diagnostics {
    /// Every problem with its line and the place underlined; `styled` with colours for a terminal.
    pub fn render(&self, styled: bool) -> String {
        let styles = Styles::new(styled);
        let mut out = String::new();
        for problem in &self.problems {
            self.render_one(problem, &styles, &mut out);
            out.push('\n');
        }
        let count = match self.count() {
            1 => "1 problem".to_owned(),
            n => format!("{n} problems"),
        };
        let shown = match self.omitted {
            0 => String::new(),
            _ => format!(", of which the first {} are shown", self.problems.len()),
        };
        let (error, end) = (styles.error, styles.error.render_reset());
        push(
            &mut out,
            format_args!(
                "{error}error{end}: {}: {count}{shown}: nothing was changed\n",
                printable(&self.source)
            ),
        );
        out
    }

    fn render_one(&self, problem: &Problem, styles: &Styles, out: &mut String) {
        let Styles { error, gutter, bold } = styles;
        let (error_end, gutter_end, bold_end) =
            (error.render_reset(), gutter.render_reset(), bold.render_reset());
        push(out, format_args!("{error}error{error_end}{bold}: {}{bold_end}\n", problem.sentence()));
        let source = printable(&self.source);
        let width = match &problem.place {
            Some(place) => place.line.to_string().len(),
            None => 1,
        };
        match &problem.place {
            Some(place) => {
                let (shown, indent, carets) = snippet(&self.text, place);
                push(
                    out,
                    format_args!(
                        "{:width$}{gutter}-->{gutter_end} {source}:{}:{}\n\
                         {gutter}{:width$} |{gutter_end}\n\
                         {gutter}{} |{gutter_end} {shown}\n\
                         {gutter}{:width$} |{gutter_end} {:indent$}{error}{}{error_end}\n",
                        "",
                        place.line,
                        place.column,
                        "",
                        place.line,
                        "",
                        "",
                        "^".repeat(carets)
                    ),
                );
            }
            None => push(out, format_args!("{:width$}{gutter}-->{gutter_end} {source}\n", "")),
        }
        if let Some(help) = &problem.help {
            push(out, format_args!("{gutter}{:width$} ={gutter_end} {bold}help{bold_end}: {help}\n", ""));
        }
    }
}

fn push(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("writing to a string cannot fail");
}

/// The line of a place as it is shown, how many columns stand before the carets, and how many carets.
fn snippet(text: &str, place: &Place) -> (String, usize, usize) {
    let line_start = text[..place.span.start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[place.span.start..].find('\n').map_or(text.len(), |at| place.span.start + at);
    let (mut shown, mut columns, mut skipped) = (String::new(), 0, 0);
    let (mut indent, mut carets) = (None, 0);
    let before = columns_of(&text[line_start..place.span.start]);
    let skip = if before > SHOWN - BEFORE { before - BEFORE } else { 0 };
    for (at, c) in text[line_start..line_end].trim_end_matches('\r').char_indices() {
        let at = line_start + at;
        let (piece, width) = cell(c);
        if skipped + width <= skip {
            skipped += width;
            continue;
        }
        if columns + width > SHOWN {
            shown.push('…');
            break;
        }
        if at >= place.span.start && indent.is_none() {
            indent = Some(columns);
        }
        if place.span.contains(&at) {
            carets += width;
        }
        shown.push_str(&piece);
        columns += width;
    }
    match skipped > 0 {
        true => (format!("…{shown}"), indent.unwrap_or(columns) + 1, carets.max(1)),
        false => (shown, indent.unwrap_or(columns), carets.max(1)),
    }
}

/// A character as it is shown, and its width in columns.
fn cell(c: char) -> (String, usize) {
    match c {
        '\t' => ("    ".to_owned(), 4),
        c if c.is_control() || steers(c) => {
            let escaped: String = c.escape_default().collect();
            let width = escaped.len();
            (escaped, width)
        }
        c => (c.to_string(), c.width().unwrap_or(0)),
    }
}

fn columns_of(text: &str) -> usize {
    text.chars().map(|c| cell(c).1).sum()
}

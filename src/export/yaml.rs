//! A tree and its text as YAML. Whatever a scalar or a remark holds, it stays one: text that is not plainly a word is
//! written in double quotes with escapes, and no remark leaves its line.

use std::fmt::Write as _;

use crate::logs::escape::steers;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Text, quoted where it has to be.
    Text(String),
    /// A number.
    Number(u64),
    /// `true` or `false`.
    Flag(bool),
    /// Values in a row.
    List(Vec<Node>),
    /// Keys and values.
    Map(Map),
}

/// Keys, values and remarks in the order in which they were put there.
#[derive(Clone, Debug, Default)]
pub(super) struct Map(Vec<Line>);

#[derive(Clone, Debug)]
enum Line {
    Entry(String, Node),
    Remark(String),
}

impl From<&str> for Node {
    fn from(text: &str) -> Node {
        Node::Text(text.to_owned())
    }
}

impl From<String> for Node {
    fn from(text: String) -> Node {
        Node::Text(text)
    }
}

impl From<u64> for Node {
    fn from(number: u64) -> Node {
        Node::Number(number)
    }
}

impl From<bool> for Node {
    fn from(flag: bool) -> Node {
        Node::Flag(flag)
    }
}

impl From<Map> for Node {
    fn from(map: Map) -> Node {
        Node::Map(map)
    }
}

impl<T: Into<Node>> From<Vec<T>> for Node {
    fn from(items: Vec<T>) -> Node {
        Node::List(items.into_iter().map(Into::into).collect())
    }
}

impl Map {
    pub(super) fn new() -> Map {
        Map::default()
    }

    /// One more key.
    pub(super) fn with(mut self, key: &str, value: impl Into<Node>) -> Map {
        self.0.push(Line::Entry(key.to_owned(), value.into()));
        self
    }

    /// One more key, where there is something to say.
    pub(super) fn with_some(self, key: &str, value: Option<impl Into<Node>>) -> Map {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// A remark at this place.
    pub(super) fn note(mut self, text: impl Into<String>) -> Map {
        self.0.push(Line::Remark(text.into()));
        self
    }

    /// A remark at this place, where there is something to say.
    pub(super) fn note_some(self, text: Option<String>) -> Map {
        match text {
            Some(text) => self.note(text),
            None => self,
        }
    }

    /// The text of a whole document.
    pub(super) fn document(&self) -> String {
        let mut text = self.lines().join("\n");
        text.push('\n');
        text
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for line in &self.0 {
            match line {
                Line::Remark(text) => lines.extend(remark(text)),
                Line::Entry(key, value) => {
                    let key = scalar(key);
                    match value.inline() {
                        Some(value) => lines.push(format!("{key}: {value}")),
                        None => {
                            lines.push(format!("{key}:"));
                            lines.extend(value.block().into_iter().map(|line| format!("  {line}")));
                        }
                    }
                }
            }
        }
        lines
    }
}

impl Node {
    /// On the line of its key; none for what needs lines of its own.
    fn inline(&self) -> Option<String> {
        match self {
            Node::Text(text) => Some(scalar(text)),
            Node::Number(number) => Some(number.to_string()),
            Node::Flag(flag) => Some(flag.to_string()),
            Node::List(items) => {
                let is_simple = |item: &Node| !matches!(item, Node::List(_) | Node::Map(_));
                let items: Option<Vec<String>> =
                    items.iter().map(|item| item.inline().filter(|_| is_simple(item))).collect();
                Some(format!("[{}]", items?.join(", ")))
            }
            Node::Map(Map(lines)) => lines.is_empty().then(|| "{}".to_owned()),
        }
    }

    fn block(&self) -> Vec<String> {
        match self {
            Node::Map(map) => map.lines(),
            Node::List(items) => items.iter().flat_map(Node::item).collect(),
            Node::Text(_) | Node::Number(_) | Node::Flag(_) => self.inline().into_iter().collect(),
        }
    }

    /// Behind a dash.
    fn item(&self) -> Vec<String> {
        let lines = match self.inline() {
            Some(line) => vec![line],
            None => self.block(),
        };
        let dash =
            |(at, line): (usize, String)| if at == 0 { format!("- {line}") } else { format!("  {line}") };
        lines.into_iter().enumerate().map(dash).collect()
    }
}

/// The widest line of a remark, but for what has no blank in it.
const WIDTH: usize = 100;

/// As lines that begin with `#`. Lines that begin with a blank are left as they are.
pub(super) fn remark(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let line = harmless(line);
        if line.starts_with(' ') || line.len() + 2 <= WIDTH {
            lines.push(format!("# {line}").trim_end().to_owned());
            continue;
        }
        let mut open = String::from("#");
        for word in line.split(' ') {
            if open.len() > 1 && open.len() + 1 + word.len() > WIDTH {
                lines.push(std::mem::replace(&mut open, String::from("#")));
            }
            open.push(' ');
            open.push_str(word);
        }
        lines.push(open.trim_end().to_owned());
    }
    lines
}

/// Without what a reader of lines, or a terminal, would take for something else.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if steers(character) || is_unprintable(character) || character == '\t' {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// What YAML does not take as it is (YAML 1.2, 5.1): the controls are [`steers`]'.
fn is_unprintable(character: char) -> bool {
    matches!(character, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Words that readers of YAML 1.1 or 1.2 take for something else than text.
const RESERVED: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];

fn is_plain(text: &str) -> bool {
    let begins = |c: char| c.is_ascii_alphabetic() || c == '/';
    let goes_on = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    text.starts_with(begins)
        && text.chars().all(goes_on)
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str())
}

/// One scalar that every reader takes for this very text.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted += "\\n",
            '\t' => quoted += "\\t",
            other if steers(other) || is_unprintable(other) => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(other));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_could_be_something_else_is_quoted() {
        for plain in ["api", "/app/a.toml", "RollingUpdate", "apps/v1"] {
            assert_eq!(scalar(plain), plain);
        }
        for (text, quoted) in [
            ("", r#""""#),
            ("no", r#""no""#),
            ("NULL", r#""NULL""#),
            ("8080", r#""8080""#),
            ("1e3", r#""1e3""#),
            ("-x", r#""-x""#),
            ("a: b #c", r#""a: b #c""#),
            ("a\"b\\c\nd\te", r#""a\"b\\c\nd\te""#),
            ("\u{85}\u{2028}\u{feff}\0", r#""\u0085\u2028\uFEFF\u0000""#),
            ("ä€😀", r#""ä€😀""#),
        ] {
            assert_eq!(scalar(text), quoted, "{text:?}");
        }
    }

    #[test]
    fn a_remark_stays_a_remark() {
        assert_eq!(remark("a\nb\rc\u{2028}d"), ["# a", "# b\\u{d}c\\u{2028}d"]);
        let long = "word ".repeat(50);
        assert!(remark(&long).iter().all(|line| line.starts_with("# word") && line.len() <= WIDTH));
    }

    #[test]
    fn a_tree_is_indented() {
        let inner = Map::new().note("why").with("a", 1).with("b", vec!["x", "no"]);
        let tree = Map::new().with("list", vec![inner.clone(), inner]).with("none", Map::new());
        assert_eq!(
            tree.document(),
            "list:\n  - # why\n    a: 1\n    b: [x, \"no\"]\n  - # why\n    a: 1\n    b: [x, \"no\"]\nnone: {}\n"
        );
    }
}

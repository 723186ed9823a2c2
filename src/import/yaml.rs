//! PM2's `.yaml` files: the parser's events → a tree. Anchors, aliases and merge keys (`<<`) are followed; an
//! alias is a copy, so that the whole is bounded. One document only.

use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::problems::{Problems, Said};
use super::tree::{MAX_DEPTH, Member, Node, Value, number, put};

/// Values in all, copies by aliases among them.
const MAX_NODES: usize = 100_000;

/// Reads the text; a mistake in it is in `problems`.
pub(super) fn read(text: &str, problems: &mut Problems<'_>) -> Option<Node> {
    let mut composer = Composer { places: Places::new(text), ..Composer::default() };
    for event in Parser::new_from_str(text) {
        let done = match event {
            Ok((event, span)) => composer.take(event, span),
            Err(error) => {
                let at = composer.places.byte(error.marker().index());
                problems.at(Some(at..at), Said::new(format!("this is not YAML: {}", error.info())));
                return None;
            }
        };
        if let Err(wrong) = done {
            problems.at(Some(wrong.span), Said::new(wrong.message));
            return None;
        }
    }
    if composer.root.is_none() {
        problems.at(Some(0..0), Said::new("this file is empty"));
    }
    composer.root
}

/// What the parser lets pass, and this does not.
struct Wrong {
    span: Range<usize>,
    message: String,
}

/// The parser counts characters, places are in bytes.
#[derive(Default)]
struct Places {
    /// Where each character begins; empty for ASCII, where it is the same.
    starts: Vec<usize>,
    length: usize,
}

impl Places {
    fn new(text: &str) -> Places {
        let starts = match text.is_ascii() {
            true => Vec::new(),
            false => text.char_indices().map(|(at, _)| at).collect(),
        };
        Places { starts, length: text.len() }
    }

    fn byte(&self, character: usize) -> usize {
        match self.starts.is_empty() {
            true => character.min(self.length),
            false => self.starts.get(character).copied().unwrap_or(self.length),
        }
    }

    fn bytes(&self, span: Span) -> Range<usize> {
        self.byte(span.start.index())..self.byte(span.end.index())
    }
}

/// A list or table that is not over yet.
struct Open {
    anchor: usize,
    start: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Table { members: Vec<Member>, merged: Vec<Member>, key: Option<Node> },
}

#[derive(Default)]
struct Composer {
    places: Places,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

impl Composer {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Wrong> {
        let place = self.places.bytes(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref());
                self.close(Node { value, span: Some(place) }, anchor, 1)
            }
            Event::SequenceStart(anchor, _) => self.open(anchor, place, Kind::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                let kind = Kind::Table { members: Vec::new(), merged: Vec::new(), key: None };
                self.open(anchor, place, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(&place),
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
                    return Err(Wrong { span: place, message: "this alias is inside its own anchor".into() });
                };
                self.close(node, 0, size)
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Wrong { span: place, message: "expected one YAML document, got another one here".into() })
            }
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => Ok(()),
        }
    }

    fn open(&mut self, anchor: usize, place: Range<usize>, kind: Kind) -> Result<(), Wrong> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Wrong { span: place, message: format!("there are more than {MAX_DEPTH} levels") });
        }
        self.open.push(Open { anchor, start: place.start, kind });
        Ok(())
    }

    fn end(&mut self, place: &Range<usize>) -> Result<(), Wrong> {
        let open = self.open.pop().expect("the parser ends only what it began");
        let value = match open.kind {
            Kind::List(nodes) => Value::List(nodes),
            Kind::Table { mut members, merged, .. } => {
                for member in merged {
                    if !members.iter().any(|known| known.name == member.name) {
                        members.push(member);
                    }
                }
                Value::Table(members)
            }
        };
        self.close(Node { value, span: Some(open.start..place.end.max(open.start)) }, open.anchor, 1)
    }

    /// A value is complete: where does it belong?
    fn close(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Wrong> {
        let place = node.span.clone().unwrap_or_default();
        self.nodes += size;
        if self.nodes > MAX_NODES {
            return Err(Wrong { span: place, message: format!("there are more than {MAX_NODES} values") });
        }
        if depth(&node) + self.open.len() > MAX_DEPTH {
            return Err(Wrong { span: place, message: format!("there are more than {MAX_DEPTH} levels") });
        }
        if anchor > 0 {
            let size = count(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(Kind::List(nodes)) => nodes.push(node),
            Some(Kind::Table { members, merged, key }) => match key.take() {
                None => *key = Some(node),
                Some(name) => add(members, merged, name, node)?,
            },
        }
        Ok(())
    }
}

fn add(members: &mut Vec<Member>, merged: &mut Vec<Member>, key: Node, node: Node) -> Result<(), Wrong> {
    let span = key.span.clone();
    let name = match &key.value {
        Value::Text(text) => text.clone(),
        Value::Whole(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Null => "null".to_owned(),
        Value::List(_) | Value::Table(_) => {
            return Err(Wrong { span: span.unwrap_or_default(), message: "a key must be a word".into() });
        }
    };
    if name != "<<" {
        put(members, Member { name, span, node });
        return Ok(());
    }
    let parts = match node.value {
        Value::List(nodes) => nodes,
        table => vec![Node { value: table, span: node.span }],
    };
    for part in parts {
        let Value::Table(more) = part.value else {
            let span = part.span.or(span).unwrap_or_default();
            return Err(Wrong { span, message: "`<<` merges mappings, and this is none".into() });
        };
        merged.extend(more);
    }
    Ok(())
}

fn children(node: &Node) -> Vec<&Node> {
    match &node.value {
        Value::List(nodes) => nodes.iter().collect(),
        Value::Table(members) => members.iter().map(|member| &member.node).collect(),
        Value::Null | Value::Flag(_) | Value::Whole(_) | Value::Real(_) | Value::Text(_) => Vec::new(),
    }
}

fn depth(node: &Node) -> usize {
    children(node).into_iter().map(|child| depth(child) + 1).max().unwrap_or(0)
}

fn count(node: &Node) -> usize {
    1 + children(node).into_iter().map(count).sum::<usize>()
}

/// YAML 1.2's core schema, which is what PM2's reader has.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    if style != ScalarStyle::Plain || is_text {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Flag(true),
        "false" | "False" | "FALSE" => Value::Flag(false),
        _ => figure(text).unwrap_or_else(|| Value::Text(text.to_owned())),
    }
}

fn figure(text: &str) -> Option<Value> {
    let radix = |prefix, radix| i64::from_str_radix(text.strip_prefix(prefix)?, radix).ok();
    if let Some(whole) = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| text.parse().ok()) {
        return Some(Value::Whole(whole));
    }
    // Rust would take "inf", "nan" and "infinity" for numbers, too.
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let has_digit = text.bytes().any(|b| b.is_ascii_digit());
    if plain && has_digit { text.parse().ok().map(number) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Node, String> {
        let mut problems = Problems::new(text, "a.yaml");
        let node = read(text, &mut problems);
        match problems.finish() {
            Some(wrong) => Err(wrong.to_string()),
            None => Ok(node.unwrap()),
        }
    }

    #[test]
    fn scalars_are_those_of_yaml_1_2() {
        let node = read_text("[yes, true, ~, 010, 0x10, 1e3, 1.5, '1', !!str 2, a b, inf, 1.2.3]").unwrap();
        let text = |text: &str| Value::Text(text.to_owned());
        let expected = [
            text("yes"),
            Value::Flag(true),
            Value::Null,
            Value::Whole(10),
            Value::Whole(16),
            Value::Whole(1000),
            Value::Real(1.5),
            text("1"),
            text("2"),
            text("a b"),
            text("inf"),
            text("1.2.3"),
        ];
        let Value::List(nodes) = node.value else { panic!() };
        let values: Vec<Value> = nodes.into_iter().map(|node| node.value).collect();
        assert_eq!(values, expected);
    }

    #[test]
    fn anchors_and_merge_keys_are_followed_and_the_tables_own_keys_win() {
        let text = "base: &b {kill_timeout: 5, name: x}\napps:\n  - <<: *b\n    name: a\n";
        let node = read_text(text).unwrap();
        let Value::List(apps) = &node.get("apps").unwrap().value else { panic!() };
        let app = &apps[0];
        assert_eq!(app.get("name").unwrap().text(), Some("a"));
        assert_eq!(app.get("kill_timeout").unwrap().value, Value::Whole(5));
    }

    #[test]
    fn places_are_in_bytes() {
        let text = "ä: ö\nname: x\n";
        let node = read_text(text).unwrap();
        let span = node.get("name").unwrap().span.clone().unwrap();
        assert_eq!(&text[span], "x");
    }

    #[test]
    fn mistakes_name_their_line() {
        assert!(read_text("a: 1\nb: [1\n").unwrap_err().contains("this is not YAML"));
        assert!(read_text("a: 1\n---\nb: 2\n").unwrap_err().starts_with("a.yaml:2:"));
        assert!(read_text("# nothing\n").unwrap_err().contains("empty"));
        assert!(read_text("? [a]\n: b\n").unwrap_err().contains("word"));
    }

    #[test]
    fn a_file_that_grows_by_its_aliases_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            text += &format!("a{level}: &a{level} [{before}]\n");
        }
        assert!(read_text(&text).unwrap_err().contains("values"));
        assert!(read_text(&"[".repeat(100_000)).is_err());
        assert!(read_text("a: &a [*a]\n").is_err());
    }
}

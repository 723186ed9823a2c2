//! PM2's `.json` files. PM2 evaluates them as JavaScript, so that comments, bare keys, single quotes and
//! trailing commas are common in them; those are read. What would have to be computed is refused.

use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::problems::{Problems, Said};
use super::tree::{MAX_DEPTH, Member, Node, Value, number, put};

/// Reads the text; a mistake in it is in `problems`.
pub(super) fn read(text: &str, problems: &mut Problems<'_>) -> Option<Node> {
    parsed(text, problems, Some("what has to be computed is evaluated by your own node with --run"))
}

/// Reads what nobody evaluates: package.json.
pub(super) fn read_plain(text: &str, problems: &mut Problems<'_>) -> Option<Node> {
    parsed(text, problems, None)
}

fn parsed(text: &str, problems: &mut Problems<'_>, help: Option<&str>) -> Option<Node> {
    let options = ParseOptions {
        allow_missing_commas: false,
        allow_non_finite_numbers: false,
        ..ParseOptions::default()
    };
    let parsed = match parse_to_ast(text, &CollectOptions::default(), &options) {
        Ok(parsed) => parsed.value,
        Err(error) => {
            let range = error.range();
            let message = error.kind().to_string();
            let said = Said::new(format!("this is not JSON: {}", lower(&message)));
            let said = match help {
                Some(help) => said.help(help),
                None => said,
            };
            problems.at(Some(range.start..range.end), said);
            return None;
        }
    };
    let Some(value) = parsed else {
        problems.at(Some(0..0), Said::new("this file is empty"));
        return None;
    };
    let node = node(&value, 0);
    if node.is_none() {
        problems.at(Some(0..0), Said::new(format!("there are more than {MAX_DEPTH} levels in it")));
    }
    node
}

fn lower(message: &str) -> String {
    let mut letters = message.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// None when it goes too deep.
fn node(value: &ast::Value<'_>, depth: usize) -> Option<Node> {
    if depth > MAX_DEPTH {
        return None;
    }
    let range = value.range();
    let value = match value {
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::BooleanLit(flag) => Value::Flag(flag.value),
        ast::Value::NumberLit(literal) => figure(literal.value),
        ast::Value::StringLit(text) => Value::Text(text.value.clone().into_owned()),
        ast::Value::Array(array) => {
            Value::List(array.elements.iter().map(|element| node(element, depth + 1)).collect::<Option<_>>()?)
        }
        ast::Value::Object(object) => {
            let mut members = Vec::new();
            for property in &object.properties {
                let range = property.name.range();
                let member = Member {
                    name: property.name.as_str().to_owned(),
                    span: Some(range.start..range.end),
                    node: node(&property.value, depth + 1)?,
                };
                put(&mut members, member);
            }
            Value::Table(members)
        }
    };
    Some(Node { value, span: Some(range.start..range.end) })
}

/// A number as it is written; the parser has seen that it is one.
fn figure(written: &str) -> Value {
    let (sign, digits) = match written.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, written.strip_prefix('+').unwrap_or(written)),
    };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return i64::from_str_radix(hex, 16).map_or(Value::Real(f64::MAX), |n| Value::Whole(sign * n));
    }
    match digits.parse::<i64>() {
        Ok(whole) => Value::Whole(sign * whole),
        Err(_) => number(sign as f64 * digits.parse().unwrap_or(f64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Node, String> {
        let mut problems = Problems::new(text, "a.json");
        let node = read(text, &mut problems);
        match problems.finish() {
            Some(wrong) => Err(wrong.to_string()),
            None => Ok(node.unwrap()),
        }
    }

    #[test]
    fn javascript_literals_are_read() {
        let text = "// head\n{apps: [{name: 'a', /* b */ n: 0x10, m: 1e3, 'x-y': .5, last: -3,},]}";
        let node = read_text(text).unwrap();
        let Value::List(apps) = &node.get("apps").unwrap().value else { panic!() };
        let app = &apps[0];
        assert_eq!(app.get("name").unwrap().text(), Some("a"));
        let value = |name| app.get(name).unwrap().value.clone();
        assert_eq!((value("n"), value("m")), (Value::Whole(16), Value::Whole(1000)));
        assert_eq!((value("x-y"), value("last")), (Value::Real(0.5), Value::Whole(-3)));
    }

    #[test]
    fn the_last_of_two_of_one_name_holds() {
        assert_eq!(read_text("{a: 1, a: 2}").unwrap().get("a").unwrap().value, Value::Whole(2));
    }

    #[test]
    fn what_must_be_computed_names_its_line_and_the_way() {
        for text in ["{\n  \"a\": process.env.HOME\n}", "{\n a: 1000 * 60 }", "{\n a: `x` }"] {
            let wrong = read_text(text).unwrap_err();
            assert!(wrong.starts_with("a.json:2:"), "{wrong}");
            assert!(wrong.contains("--run"), "{wrong}");
        }
        assert!(read_text("").unwrap_err().contains("empty"));
    }

    #[test]
    fn what_is_nested_without_end_is_refused() {
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(read_text(&deep).unwrap_err().contains("levels"));
        assert!(read_text(&"[".repeat(1_000_000)).is_err());
    }
}

//! The ecosystem file that is written: settings, and remarks at those that mean something else. What came
//! from outside cannot break out of its line, neither out of a string nor out of a remark.

use toml_writer::{ToTomlKey, ToTomlValue};

use super::tree::{Node, Value};

/// How wide remarks become.
const WIDTH: usize = 100;

/// A whole file.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// What stands above everything.
    pub(super) head: Vec<String>,
    /// Each app, in its order.
    pub(super) apps: Vec<Table>,
    /// What stands below everything.
    pub(super) tail: Vec<String>,
}

/// One app.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) remarks: Vec<String>,
    pub(super) lines: Vec<Line>,
    /// `[apps.<name>]` beneath it.
    pub(super) tables: Vec<(String, Vec<Line>)>,
}

/// One setting, and what there is to say about it. A remark alone has no setting.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) remarks: Vec<String>,
    pub(super) setting: Option<Setting>,
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: Value,
    /// Written as a remark: it has no effect.
    pub(super) is_off: bool,
}

impl Line {
    pub(super) fn new(key: &str, value: Value) -> Line {
        Line { remarks: Vec::new(), setting: Some(Setting { key: key.to_owned(), value, is_off: false }) }
    }

    /// A setting that stands there to be switched on.
    pub(super) fn off(key: &str, value: Value) -> Line {
        Line { remarks: Vec::new(), setting: Some(Setting { key: key.to_owned(), value, is_off: true }) }
    }

    pub(super) fn remark(remark: impl Into<String>) -> Line {
        Line { remarks: vec![remark.into()], setting: None }
    }

    pub(super) fn because(mut self, remark: impl Into<String>) -> Line {
        self.remarks.push(remark.into());
        self
    }
}

impl Document {
    /// As TOML.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        remarks(&mut out, &self.head);
        for app in &self.apps {
            out.push('\n');
            remarks(&mut out, &app.remarks);
            out.push_str("[[apps]]\n");
            lines(&mut out, &app.lines);
            for (name, entries) in &app.tables {
                out.push_str(&format!("\n[apps.{}]\n", name.to_toml_key()));
                lines(&mut out, entries);
            }
        }
        if !self.tail.is_empty() {
            out.push('\n');
            remarks(&mut out, &self.tail);
        }
        out
    }
}

fn lines(out: &mut String, lines: &[Line]) {
    for line in lines {
        remarks(out, &line.remarks);
        if let Some(Setting { key, value, is_off }) = &line.setting {
            let text = format!("{} = {}", key.to_toml_key(), toml(value));
            match is_off {
                true => out.push_str(&format!("# {}\n", single_line(&text))),
                false => out.push_str(&format!("{text}\n")),
            }
        }
    }
}

fn remarks(out: &mut String, remarks: &[String]) {
    for remark in remarks {
        for line in wrapped(&single_line(remark)) {
            out.push_str(&format!("# {line}\n"));
        }
    }
}

/// Control characters are not allowed in remarks of TOML, and a newline would end it.
pub(super) fn single_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

fn wrapped(text: &str) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in text.split(' ') {
        let row = rows.last_mut().expect("there is a first row");
        if !row.is_empty() && row.chars().count() + 1 + word.chars().count() > WIDTH {
            rows.push(word.to_owned());
        } else {
            if !row.is_empty() {
                row.push(' ');
            }
            row.push_str(word);
        }
    }
    rows
}

/// A value on one line. TOML has no null: it is left out of lists and tables.
fn toml(value: &Value) -> String {
    let present = |node: &&Node| !node.is_null();
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Flag(flag) => flag.to_toml_value(),
        Value::Whole(number) => number.to_toml_value(),
        Value::Real(number) => number.to_toml_value(),
        Value::Text(text) => quoted(text),
        Value::List(nodes) => {
            let items: Vec<String> = nodes.iter().filter(present).map(|node| toml(&node.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(members) => {
            let members = members.iter().filter(|member| !member.node.is_null());
            let items: Vec<String> = members
                .map(|member| format!("{} = {}", member.name.to_toml_key(), toml(&member.node.value)))
                .collect();
            match items.is_empty() {
                true => "{}".to_owned(),
                false => format!("{{ {} }}", items.join(", ")),
            }
        }
    }
}

/// In double quotes, on one line, whatever is in it.
fn quoted(text: &str) -> String {
    toml_writer::TomlStringBuilder::new(text).as_basic().to_toml_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::tree::Member;
    use proptest::prelude::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn a_file_reads_as_it_was_meant() {
        let mut app = Table { remarks: vec!["the first".into()], ..Table::default() };
        app.lines.push(Line::new("name", text("a \"b\"")).because("why"));
        app.lines.push(Line::off("watch", Value::Flag(true)));
        app.tables.push(("env".into(), vec![Line::new("A.B", Value::Whole(1))]));
        let document = Document { head: vec!["head".into()], apps: vec![app], tail: vec!["tail".into()] };
        let expected = "# head\n\n# the first\n[[apps]]\n# why\nname = \"a \\\"b\\\"\"\n# watch = true\n\n\
                        [apps.env]\n\"A.B\" = 1\n\n# tail\n";
        assert_eq!(document.text(), expected);
    }

    #[test]
    fn null_is_left_out() {
        let list = Value::List(vec![Node::made(Value::Null), Node::made(Value::Whole(1))]);
        let table = Value::Table(vec![Member::made("a", Value::Null), Member::made("b c", list)]);
        assert_eq!(toml(&table), "{ \"b c\" = [1] }");
    }

    #[test]
    fn long_remarks_are_wrapped() {
        let rows = wrapped(&"word ".repeat(50));
        assert!(rows.len() > 1 && rows.iter().all(|row| row.len() <= WIDTH), "{rows:?}");
    }

    proptest! {
        #[test]
        fn nothing_breaks_out_of_its_line(word in any::<String>(), key in "\\PC{1,20}") {
            let mut app = Table { remarks: vec![word.clone()], ..Table::default() };
            app.lines.push(Line::off(&key, text(&word)).because(word.clone()));
            app.lines.push(Line::new(&key, text(&word)));
            let document = Document { head: vec![word.clone()], apps: vec![app], tail: vec![word.clone()] };
            let parsed: toml::Table = toml::from_str(&document.text()).unwrap();
            let apps = parsed["apps"].as_array().unwrap();
            prop_assert_eq!(parsed.len(), 1);
            prop_assert_eq!(apps[0].as_table().unwrap().len(), 1);
            prop_assert_eq!(apps[0][&key].as_str(), Some(word.as_str()));
        }
    }
}

//! What JSON, YAML and JavaScript have in common: values, in the order of the file, with their places.

use std::ops::Range;

/// Levels of lists and tables: no setting needs as many, and what walks a tree may recurse.
pub(super) const MAX_DEPTH: usize = 64;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    /// In bytes of the file's text; none for what was evaluated or put together.
    pub(super) span: Option<Range<usize>>,
}

/// What JSON can say, with whole numbers apart from others.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Flag(bool),
    Whole(i64),
    Real(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<Member>),
}

/// One entry of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    /// Where its name stands.
    pub(super) span: Option<Range<usize>>,
    pub(super) node: Node,
}

impl Node {
    /// A value that stands nowhere in the file.
    pub(super) fn made(value: Value) -> Node {
        Node { value, span: None }
    }

    pub(super) fn table(&self) -> Option<&[Member]> {
        match &self.value {
            Value::Table(members) => Some(members),
            Value::Null
            | Value::Flag(_)
            | Value::Whole(_)
            | Value::Real(_)
            | Value::Text(_)
            | Value::List(_) => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null
            | Value::Flag(_)
            | Value::Whole(_)
            | Value::Real(_)
            | Value::List(_)
            | Value::Table(_) => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// The member of a table; null counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        member(self.table()?, name)
    }
}

impl Member {
    /// A member that stands nowhere in the file.
    pub(super) fn made(name: &str, value: Value) -> Member {
        Member { name: name.to_owned(), span: None, node: Node::made(value) }
    }
}

/// The member of this name; null counts as absent.
pub(super) fn member<'m>(members: &'m [Member], name: &str) -> Option<&'m Node> {
    members
        .iter()
        .find(|member| member.name == name)
        .map(|member| &member.node)
        .filter(|node| !node.is_null())
}

/// Adds a member; the last of several of one name holds, as in JavaScript.
pub(super) fn put(members: &mut Vec<Member>, new: Member) {
    match members.iter_mut().find(|member| member.name == new.name) {
        Some(known) => *known = new,
        None => members.push(new),
    }
}

/// A number as JavaScript has it: 1e3 and 10.0 are whole.
pub(super) fn number(real: f64) -> Value {
    // Beyond this a double is not exact any more (Number.MAX_SAFE_INTEGER).
    const EXACT: f64 = 9_007_199_254_740_991.0;
    match real.fract() == 0.0 && real.abs() <= EXACT {
        true => Value::Whole(real as i64),
        false => Value::Real(real),
    }
}

/// What a value is, for an error.
pub(super) fn shown(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Flag(flag) => flag.to_string(),
        Value::Whole(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => crate::config::error::quoted(text),
        Value::List(_) => "an array".to_owned(),
        Value::Table(_) => "an object".to_owned(),
    }
}

/// As JSON text: what PM2 makes of objects among the variables.
pub(super) fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Flag(flag) => (*flag).into(),
        Value::Whole(number) => (*number).into(),
        Value::Real(number) => (*number).into(),
        Value::Text(text) => text.clone().into(),
        Value::List(nodes) => nodes.iter().map(json).collect(),
        Value::Table(members) => members.iter().map(|m| (m.name.clone(), json(&m.node))).collect(),
    }
}

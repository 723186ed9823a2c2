//! A small reader of JSON schemas: the words that the ecosystem file's own schema uses, and an error for any other.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::cell::RefCell;
use std::collections::HashMap;

use regex_lite::Regex;
use serde_json::Value;

thread_local! {
    /// Patterns that were read already: most keys are held against all of them.
    static PATTERNS: RefCell<HashMap<String, Regex>> = RefCell::default();
}

/// What is wrong with a value, with its place; `Ok` where the schema takes it.
pub(crate) fn check(schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let schema = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Object(schema) => schema,
        other => return Err(format!("{place}: no schema: {other}")),
    };
    for (word, says) in schema {
        let holds = match word.as_str() {
            "$schema" | "title" | "description" | "default" => true,
            "type" => is_of_type(says, value),
            "enum" => says.as_array().is_some_and(|words| words.contains(value)),
            "const" => says == value,
            "minimum" => value.as_f64().is_none_or(|number| number >= says.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= says.as_f64().unwrap()),
            "pattern" => value.as_str().is_none_or(|text| fits(says.as_str().unwrap(), text)),
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= count(says)),
            "minItems" => value.as_array().is_none_or(|items| items.len() >= count(says)),
            "maxItems" => value.as_array().is_none_or(|items| items.len() <= count(says)),
            "minProperties" => value.as_object().is_none_or(|table| table.len() >= count(says)),
            "required" => value.as_object().is_none_or(|table| {
                says.as_array().unwrap().iter().all(|name| table.contains_key(name.as_str().unwrap()))
            }),
            "not" => check(says, value, place).is_err(),
            "anyOf" => says.as_array().unwrap().iter().any(|way| check(way, value, place).is_ok()),
            "items" => {
                for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(says, item, &format!("{place}[{at}]"))?;
                }
                true
            }
            "properties" | "patternProperties" | "additionalProperties" => true,
            other => panic!("{place}: the reader of the tests does not know \"{other}\""),
        };
        if !holds {
            return Err(format!("{place}: {value} is not {word} {says}"));
        }
    }
    value.as_object().into_iter().flatten().try_for_each(|(name, value)| member(schema, name, value, place))
}

fn member(
    schema: &serde_json::Map<String, Value>,
    name: &str,
    value: &Value,
    place: &str,
) -> Result<(), String> {
    let place = format!("{place}.{name}");
    let named = schema.get("properties").and_then(|properties| properties.get(name));
    let patterns = schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
    let fitting = patterns.filter(|(pattern, _)| fits(pattern, name));
    let mut known = named.into_iter().chain(fitting.map(|(_, schema)| schema)).peekable();
    if known.peek().is_none() && schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        return Err(format!("{place}: there is no such key"));
    }
    known.try_for_each(|schema| check(schema, value, &place))
}

fn is_of_type(says: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type: {other}"),
    };
    says.as_array().map_or_else(|| is(says), |names| names.iter().any(is))
}

fn fits(pattern: &str, text: &str) -> bool {
    PATTERNS.with_borrow_mut(|patterns| {
        let read = || Regex::new(pattern).unwrap();
        patterns.entry(pattern.to_owned()).or_insert_with(read).is_match(text)
    })
}

fn count(says: &Value) -> usize {
    usize::try_from(says.as_u64().unwrap()).unwrap()
}

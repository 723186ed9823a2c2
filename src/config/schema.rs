//! A JSON schema (draft 7, which editors of TOML read) of the ecosystem file, made of the table of keys. It takes
//! every file that the program takes. What it cannot say (names that are unique, keys that go together, files that are
//! there) it lets pass: `clusterd validate` has the last word.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::keys::{self, APP, AppKey, DAEMON, Key, Kind, MAX_INSTANCES, PROFILE_PREFIX};
use super::{http, listen, process, units, words};

/// What humantime reads, but for months and years, which the file refuses.
const TIME_UNITS: &str = "nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|mins|min|m|\
                          hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w";

/// The whole schema.
pub fn schema() -> Value {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "clusterd's ecosystem file",
        "description": "Apps for clusterd to run: [[apps]] tables, and [daemon] for clusterd itself. Times: a whole \
                        number is milliseconds; strings carry their unit, such as \"10s\", \"1m 30s\", \"1.5h\".",
        "type": "object",
        "additionalProperties": false,
        "required": ["apps"],
        "properties": {
            "apps": {
                "description": "One table for each app.",
                "type": "array",
                "minItems": 1,
                "items": app(),
            },
            "daemon": {
                "description": "clusterd itself.",
                "type": "object",
                "additionalProperties": false,
                "properties": properties(DAEMON),
                "patternProperties": other_names(DAEMON),
            },
        },
    })
}

fn app() -> Value {
    let mut others = other_names(APP);
    let profile = json!({
        "description": format!("Variables that `--env NAME`, by the end of this key's own name, adds to env, or sets in \
                                their place."),
        "type": "object",
    });
    others.insert(profile_names(), profile);
    let script = keys::row(APP, AppKey::Script);
    let ways = std::iter::once(&script.name).chain(script.aliases);
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties(APP),
        "patternProperties": others,
        "anyOf": ways.map(|name| json!({ "required": [name] })).collect::<Vec<_>>(),
    })
}

/// Every key under its usual name, which is what editors propose.
fn properties<K>(table: &'static [Key<K>]) -> Map<String, Value> {
    let mut properties: Map<String, Value> =
        table.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    // The exact argument vector has a name of its own.
    if let Some(script) = table.iter().find(|key| key.kind == Kind::Script) {
        properties.insert("command".to_owned(), property(script));
    }
    properties
}

fn property<K>(key: &Key<K>) -> Value {
    let mut property = takes(key.kind);
    let Value::Object(parts) = &mut property else { return property };
    let mut meaning = capital(key.meaning);
    meaning += &format!(".\nTakes {}.", key.kind.expected());
    match written(key.default) {
        Some(default) => {
            parts.insert("default".to_owned(), default);
        }
        None => meaning += &format!("\nDefault: {}.", key.default),
    }
    parts.insert("description".to_owned(), meaning.into());
    property
}

/// The default as a value, where it is written as one.
fn written(default: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("it = {default}")).ok()?;
    serde_json::to_value(table.get("it").filter(|_| table.len() == 1)?).ok()
}

/// With a capital at its beginning.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// PM2's names for the keys and the camelCase forms of all: taken, and not proposed.
fn other_names<K>(table: &'static [Key<K>]) -> Map<String, Value> {
    let mut others = Map::new();
    for key in table {
        let names = std::iter::once(&key.name).chain(key.aliases);
        let mut names: Vec<String> = names
            .flat_map(|name| [(*name).to_owned(), camel(name)])
            .filter(|name| name != key.name)
            .collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            continue;
        }
        let mut property = takes(key.kind);
        property["description"] = format!("Another name of `{}`.", key.name).into();
        others.insert(format!("^({})$", names.join("|")), property);
    }
    others
}

/// `kill_timeout` → `killTimeout`.
fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |camel, part| camel + &capital(part))
}

/// `env_production`, and no key that begins so itself: in a language without a look ahead.
fn profile_names() -> String {
    let taken = APP.iter().filter_map(|key| key.name.strip_prefix(PROFILE_PREFIX));
    let others: Vec<String> = taken.map(anything_but).collect();
    debug_assert_eq!(others.len(), 1, "a second key would need the cut of both");
    format!("^{PROFILE_PREFIX}{}$", others.concat())
}

/// A pattern for every text, the empty one excepted, that is not this word of plain letters.
fn anything_but(word: &str) -> String {
    let cuts = word.char_indices().map(|(at, letter)| {
        let shorter = if at == 0 { String::new() } else { format!("{}|", &word[..at]) };
        format!("{shorter}{}[^{letter}].*", &word[..at])
    });
    format!("({}|{word}.+)", cuts.collect::<Vec<_>>().join("|"))
}

/// What a value must look like.
fn takes(kind: Kind) -> Value {
    match kind {
        Kind::Name => json!({
            "type": "string",
            "pattern": "^[A-Za-z0-9._][A-Za-z0-9._-]{0,63}$",
            "not": { "pattern": r"^([0-9]+|all|\.|\.\.)$" },
        }),
        Kind::Script => either([path(), list(word(), words::MAX_WORDS)]),
        Kind::Interpreter | Kind::Folder | Kind::LogFile | Kind::File => path(),
        Kind::Words => either([json!({ "type": "string" }), list(word(), words::MAX_WORDS)]),
        Kind::JointLog => either([json!({ "type": "boolean" }), path()]),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Duration { min, max } => {
            let number = json!({ "type": "integer", "minimum": min.as_millis() as u64, "maximum": max.as_millis() as u64 });
            either([number, pattern(&format!("^{}$", time()))])
        }
        Kind::Count { min, max } => whole(i64::from(min), i64::from(max)),
        Kind::Whole { min, max } => whole(i64::from(min), i64::from(max)),
        Kind::Percent => pattern(r"^\s*\+?0*[1-9][0-9]?\s*%\s*$"),
        Kind::Instances => {
            let most = i64::from(MAX_INSTANCES);
            either([whole(-most, most), json!({ "const": "max" })])
        }
        Kind::Choice(words) => choice(words),
        Kind::Listen => several(
            either([json!({ "type": "integer", "minimum": 1, "maximum": 65535 }), address(), socket()]),
            listen::MAX_PER_APP,
        ),
        Kind::Http => {
            either([json!({ "type": "integer", "minimum": 1, "maximum": 65535 }), address(), endpoint()])
        }
        Kind::Environment => json!({ "type": "object" }),
        Kind::Signal => either([json!({ "type": "integer", "minimum": 1, "maximum": 64 }), signal()]),
        Kind::Memory => either([bytes(1024 * 1024), pattern(&format!("^{}$", size("%|")))]),
        Kind::Bytes => either([bytes(1024 * 1024), pattern(&format!("^{}$", size("")))]),
        Kind::FileSize => either([bytes(0), pattern(&format!("^{}$", size("")))]),
        Kind::LineRate => {
            let rate = format!(r"^\s*[0-9]+\s*/\s*({TIME_UNITS}|{})\s*$", time());
            either([whole(1, i64::from(u32::MAX)), pattern(&rate)])
        }
        Kind::Account => {
            either([json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX - 1 }), pattern("^[^:]+$")])
        }
        Kind::Umask => {
            either([json!({ "type": "integer", "minimum": 0, "maximum": 0o777 }), pattern("^(0o)?[0-7]+$")])
        }
        Kind::Limits => limits(),
        Kind::Limit => limit(),
        Kind::EnvFiles => several(path(), process::MAX_ENV_FILES),
        Kind::Filter => either([json!({ "type": "boolean" }), text(), list(text(), process::MAX_FILTERS)]),
        Kind::Variable => pattern("^[^=]+$"),
        Kind::Ready => pattern("^(auto|notify|ipc|listen|exec|http:(//[^/ ]+)?/([!-.0-~][!-~]*)?)$"),
        Kind::Health => health(),
        Kind::DatePattern | Kind::Schedule | Kind::Zone => text(),
        Kind::ExitCodes => several(whole(0, 255), 256),
        Kind::Apps => several(pattern(r"^([A-Za-z0-9._-]+/)?[A-Za-z0-9._-]+$"), 64),
        Kind::Watch => either([json!({ "type": "boolean" }), path(), list(path(), 100)]),
        Kind::Patterns => several(text(), 1000),
    }
}

fn either<const N: usize>(ways: [Value; N]) -> Value {
    json!({ "anyOf": ways.as_slice() })
}

fn list(item: Value, most: usize) -> Value {
    json!({ "type": "array", "items": item, "maxItems": most })
}

/// One, or an array of them.
fn several(item: Value, most: usize) -> Value {
    either([item.clone(), list(item, most)])
}

fn pattern(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

/// Nothing that a shell would have to expand.
fn path() -> Value {
    pattern("^([^~]|~[^/])")
}

fn word() -> Value {
    json!({ "type": ["string", "number", "boolean"] })
}

/// Digits in a string count, too.
fn whole(min: i64, max: i64) -> Value {
    either([json!({ "type": "integer", "minimum": min, "maximum": max }), pattern(r"^\s*[+-]?[0-9]+\s*$")])
}

fn bytes(least: u64) -> Value {
    json!({ "type": "integer", "minimum": least })
}

fn time() -> String {
    format!(r"\s*([0-9]+|([0-9]+(\.[0-9]*)?\s*({TIME_UNITS})\s*)+)\s*")
}

fn size(other: &str) -> String {
    format!(r"\s*[0-9]+(\.[0-9]*)?\s*({other}[Bb]|[KkMmGgTtPpEe]([Ii]?[Bb])?)?\s*")
}

/// PM2 says fork_mode and cluster_mode as well.
fn choice(words: &'static [&'static str]) -> Value {
    let plain = json!({ "enum": words });
    match words.contains(&"fork") {
        true => either([plain, pattern(&format!("^({})_mode$", words.join("|")))]),
        false => plain,
    }
}

fn address() -> Value {
    pattern(r"^(unix:.+|:?[0-9]{1,5}|[0-9.]+:[0-9]{1,5}|\[[0-9A-Fa-f:.]+\]:[0-9]{1,5})$")
}

fn socket() -> Value {
    let Kind::Count { min, max } = listen::BACKLOG else { return json!(true) };
    let mut socket = place();
    socket["properties"]["name"] = json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,255}$", "description": "In LISTEN_FDNAMES. Default: the app's name." });
    socket["properties"]["backlog"] = whole(i64::from(min), i64::from(max));
    socket
}

/// Where the supervisor answers over HTTP, and under which names.
fn endpoint() -> Value {
    let mut endpoint = place();
    endpoint["properties"]["hosts"] = list(pattern("^[A-Za-z0-9._-]{1,253}$"), http::MAX_HOSTS);
    endpoint
}

/// A table that says where to listen, and who may connect to the file of a Unix socket.
fn place() -> Value {
    let account = takes(Kind::Account);
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["address"],
        "properties": {
            "address": either([json!({ "type": "integer", "minimum": 1, "maximum": 65535 }), address()]),
            "mode": takes(Kind::Umask),
            "user": account,
            "group": account,
        },
    })
}

/// As signal(7) has them, with and without SIG, in capitals or not.
fn signal() -> Value {
    let sent = units::signal_names().filter(|name| !matches!(*name, "KILL" | "STOP" | "CONT"));
    let names: Vec<String> = sent.map(any_case).collect();
    let real_time = any_case("RTMIN");
    pattern(&format!(r"^([0-9]+|({})?({}|{real_time}(\+[0-9]{{1,2}})?))$", any_case("SIG"), names.join("|")))
}

/// `HUP` → `[Hh][Uu][Pp]`.
fn any_case(word: &str) -> String {
    let letter = |c: char| match c.is_ascii_alphabetic() {
        true => format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase()),
        false => c.to_string(),
    };
    word.chars().map(letter).collect()
}

/// The names for editors to propose; what each takes is said once, for all their spellings.
fn limits() -> Value {
    let names: Map<String, Value> =
        process::resource_names().map(|name| (name.to_owned(), true.into())).collect();
    let spellings: Vec<String> = process::resource_names().map(any_case).collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": names,
        "patternProperties": { format!("^({}_)?({})$", any_case("RLIMIT"), spellings.join("|")): limit() },
    })
}

fn limit() -> Value {
    let bound = either([bytes(0), pattern(&format!("^(unlimited|infinity|{})$", size("")))]);
    let both = json!({
        "type": "object",
        "additionalProperties": false,
        "minProperties": 1,
        "properties": { "soft": bound, "hard": bound },
    });
    either([bound, both])
}

fn health() -> Value {
    let day = Duration::from_secs(24 * 60 * 60);
    let time = |min, default: &str| {
        let mut time = takes(Kind::Duration { min, max: day });
        time["default"] = default.into();
        time
    };
    let least = Duration::from_millis(1);
    let mut port = whole(1, 65535);
    port["description"] = "The port at which the worker is asked.".into();
    json!({
        "type": "object",
        "additionalProperties": false,
        "anyOf": [{ "required": ["http"] }, { "required": ["tcp"] }, { "required": ["command"] }],
        "properties": {
            "http": { "type": "string", "pattern": "^/[!-~]*$", "description": "A GET of this path, to be answered with a status from 200 to 399." },
            "tcp": { "type": "boolean", "description": "A connection, to be accepted." },
            "command": { "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "array", "items": word(), "minItems": 1 }], "description": "A program, to end with code 0." },
            "port": port,
            "socket": { "type": "string", "minLength": 1, "description": "The name of the socket of `listen` at which the worker is asked." },
            "interval": time(least, "10s"),
            "timeout": time(least, "2s"),
            "retries": whole(1, 1000),
            "start_period": time(Duration::ZERO, "0s"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_for_all_but_one_word_takes_all_but_one_word() {
        let pattern = regex_lite::Regex::new(&profile_names()).expect("a pattern");
        for name in ["env_production", "env_f", "env_fil", "env_files", "env_x", "env_file_", "env_éfile"] {
            assert!(pattern.is_match(name), "{name}");
        }
        for name in ["env_file", "env_", "env", "envFile", "xenv_a"] {
            assert!(!pattern.is_match(name), "{name}");
        }
    }

    #[test]
    fn a_default_that_is_a_rule_is_no_value() {
        assert_eq!(written("\"30s\""), Some(json!("30s")));
        assert_eq!(written("[]"), Some(json!([])));
        assert_eq!(written("none: no limit"), None);
        assert_eq!(written("1\nname = 2"), None);
    }

    #[test]
    fn a_name_gets_its_camel() {
        assert_eq!(camel("exp_backoff_restart_delay"), "expBackoffRestartDelay");
        assert_eq!(camel("name"), "name");
    }
}

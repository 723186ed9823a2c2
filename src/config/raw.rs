//! Text → the tree of TOML with the place of every value, and tables → known keys. What this refuses: text
//! that is too long or not TOML, keys that nobody knows, and one key under two names.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Collector, Diagnostics, Problem, quoted};
use super::keys::{self, Key};

/// The longest file, in bytes: what a line of the control protocol can carry.
pub const MAX_TEXT: usize = 1024 * 1024;

/// The bytes of a file as text, or the place where they are none.
pub fn decode<'b>(bytes: &'b [u8], source: &str) -> Result<&'b str, Diagnostics> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let good = &bytes[..error.valid_up_to().min(MAX_TEXT)];
    let good = String::from_utf8_lossy(good);
    let mut collector = Collector::new(&good, source);
    let place = collector.place(good.len()..good.len());
    collector.add(Problem {
        place: Some(place),
        app: None,
        key: None,
        message: "expected UTF-8 text, got bytes that are none".to_owned(),
        expected: Some("UTF-8 text".to_owned()),
        help: Some("save the file as UTF-8".to_owned()),
    });
    Err(collector.finish().expect("a problem was added"))
}

/// Parses the text as far as it goes; syntax errors are in the collector.
pub(super) fn parse<'t>(text: &'t str, collector: &mut Collector<'t>) -> DeTable<'t> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        if collector.is_full() {
            break;
        }
        let place = collector.place(error.span().unwrap_or(text.len()..text.len()));
        let (message, help) = syntax_words(error.message());
        collector.add_broken(Problem {
            place: Some(place),
            app: None,
            key: None,
            message,
            expected: None,
            help,
        });
    }
    tree.into_inner()
}

fn syntax_words(message: &str) -> (String, Option<String>) {
    let help = if message.contains("recursion") || message.contains("recurse") {
        Some("no setting needs values that deep inside each other".to_owned())
    } else if message.contains("duplicate key") {
        Some("keep one of the two".to_owned())
    } else if message.contains("string values must be quoted") {
        Some("write strings in double quotes: key = \"value\"".to_owned())
    } else {
        None
    };
    (format!("not TOML: {message}"), help)
}

/// One key with its value.
#[derive(Clone)]
pub(super) struct Entry<'v> {
    /// As the file spells it.
    pub(super) written: &'v str,
    /// Where the key stands.
    pub(super) key_span: Range<usize>,
    /// What it is set to.
    pub(super) value: &'v Spanned<DeValue<'v>>,
}

impl<'v> Entry<'v> {
    pub(super) fn value(&self) -> &'v DeValue<'v> {
        self.value.get_ref()
    }
}

/// The entries of a table in the order of the file (the tree has them in the order of the alphabet).
pub(super) fn entries<'v>(table: &'v DeTable<'v>) -> Vec<Entry<'v>> {
    let mut entries: Vec<Entry<'v>> = table
        .iter()
        .map(|(key, value)| Entry { written: key.get_ref().as_ref(), key_span: key.span(), value })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    entries
}

/// The known keys of one table.
pub(super) struct Section<'v, K: 'static> {
    entries: Vec<(&'static Key<K>, Entry<'v>)>,
}

impl<'v, K: PartialEq + Copy> Section<'v, K> {
    /// Takes an entry under its row. Where the row was set before under another name, gives back that entry.
    pub(super) fn insert(&mut self, key: &'static Key<K>, entry: Entry<'v>) -> Option<&Entry<'v>> {
        match self.entries.iter().position(|(known, _)| known.id == key.id) {
            Some(at) => Some(&self.entries[at].1),
            None => {
                self.entries.push((key, entry));
                None
            }
        }
    }

    pub(super) fn remove(&mut self, id: K) {
        self.entries.retain(|(key, _)| key.id != id);
    }

    pub(super) fn new() -> Section<'v, K> {
        Section { entries: Vec::new() }
    }

    pub(super) fn get(&self, id: K) -> Option<&Entry<'v>> {
        self.entries.iter().find(|(key, _)| key.id == id).map(|(_, entry)| entry)
    }
}

/// Sorts the entries of a table by their keys. Entries that `others` takes are left to it; what nobody
/// knows is a problem.
pub(super) fn section<'v, K: PartialEq + Copy>(
    table: &'v DeTable<'v>,
    known: &'static [Key<K>],
    app: Option<&str>,
    collector: &mut Collector<'_>,
    others: &mut dyn FnMut(&Entry<'v>) -> Other,
) -> Section<'v, K> {
    let mut section = Section::new();
    for entry in entries(table) {
        let Some(key) = keys::find(known, entry.written) else {
            match others(&entry) {
                Other::Taken => {}
                Other::Unknown { help } => unknown(&entry, known, help, app, collector),
            }
            continue;
        };
        if let Some(first) = section.insert(key, entry.clone()) {
            let place = collector.place(entry.key_span.clone());
            let first_line = collector.place(first.key_span.clone()).line;
            let message = format!(
                "\"{}\" (line {first_line}) and \"{}\" are two names of the same key",
                first.written, entry.written
            );
            collector.add(Problem {
                place: Some(place),
                app: app.map(str::to_owned),
                key: Some(entry.written.to_owned()),
                message,
                expected: None,
                help: Some(format!("keep one of them; the usual one is \"{}\"", key.name)),
            });
        }
    }
    section
}

/// What became of a key that is not in the table.
pub(super) enum Other {
    /// It has a meaning of its own.
    Taken,
    /// It has none.
    Unknown {
        /// What to say in place of the nearest key.
        help: Option<String>,
    },
}

fn unknown<K>(
    entry: &Entry<'_>,
    known: &'static [Key<K>],
    help: Option<String>,
    app: Option<&str>,
    collector: &mut Collector<'_>,
) {
    if collector.is_full() {
        return;
    }
    let nearest = || keys::nearest(entry.written, keys::names(known));
    let help = help.or_else(|| nearest().map(|name| format!("did you mean \"{name}\"?")));
    let help = help.or_else(|| {
        let names: Vec<&str> = known.iter().map(|key| key.name).collect();
        (names.len() <= 8).then(|| format!("known keys are {}", names.join(", ")))
    });
    let place = collector.place(entry.key_span.clone());
    collector.add(Problem {
        place: Some(place),
        app: app.map(str::to_owned),
        key: None,
        message: format!("unknown key {}", quoted(entry.written)),
        expected: None,
        help,
    });
}

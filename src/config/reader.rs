//! Typed values out of one table, by the rows of its keys: what is refused is reported with app, key and
//! place, and reading goes on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::error::{Collector, Problem, printable};
use super::keys::{self, Key, Kind};
use super::raw::Section;
use super::value::{self, Refusal};
use super::words;

/// Reads the values of one table by the rows of its keys.
pub(super) struct Reader<'a, 'v, 't, K: 'static> {
    pub(super) section: Section<'v, K>,
    pub(super) table: &'static [Key<K>],
    pub(super) app: Option<String>,
    pub(super) collector: &'a mut Collector<'t>,
}

impl<'v, K: PartialEq + Copy> Reader<'_, 'v, '_, K> {
    pub(super) fn kind(&self, id: K) -> Kind {
        keys::row(self.table, id).kind
    }

    /// The value of a key; none when it is not set, or was refused and reported.
    pub(super) fn read<T>(
        &mut self,
        id: K,
        parse: impl FnOnce(&'v DeValue<'v>) -> Result<T, Refusal>,
    ) -> Option<T> {
        let entry = self.section.get(id)?.clone();
        match parse(entry.value()) {
            Ok(value) => Some(value),
            Err(refusal) => {
                self.refuse(self.kind(id), entry.written, entry.value, refusal);
                None
            }
        }
    }

    pub(super) fn refuse(&mut self, kind: Kind, key: &str, value: &Spanned<DeValue<'_>>, refusal: Refusal) {
        let sentence = value::sentence(kind, value.get_ref(), refusal);
        let place = Some(self.collector.place(value.span()));
        self.collector.add(Problem {
            place,
            app: self.app.clone(),
            key: Some(printable(key)),
            message: sentence.message,
            expected: Some(sentence.expected),
            help: sentence.help,
        });
    }

    pub(super) fn flag(&mut self, id: K) -> Option<bool> {
        self.read(id, value::flag)
    }

    pub(super) fn duration(&mut self, id: K) -> Option<Duration> {
        let Kind::Duration { min, max } = self.kind(id) else {
            return None;
        };
        self.read(id, |value| value::duration(value, min, max))
    }

    pub(super) fn count(&mut self, id: K) -> Option<u32> {
        let Kind::Count { min, max } = self.kind(id) else {
            return None;
        };
        self.read(id, |value| value::count(value, min, max))
    }

    pub(super) fn choice(&mut self, id: K) -> Option<&'static str> {
        let Kind::Choice(words) = self.kind(id) else {
            return None;
        };
        self.read(id, |value| value::choice(value, words))
    }

    /// A list of arguments.
    pub(super) fn words(&mut self, id: K) -> Vec<String> {
        let Some(entry) = self.section.get(id).cloned() else {
            return Vec::new();
        };
        let (good, refused) = words::read(entry.value);
        for (value, refusal) in refused {
            self.refuse(self.kind(id), entry.written, value, refusal);
        }
        good
    }

    /// Reports a key that is right by itself and has no meaning beside another one.
    pub(super) fn conflict(&mut self, id: K, message: &str, help: &str) {
        if let Some(entry) = self.section.get(id).cloned() {
            self.refuse(self.kind(id), entry.written, entry.value, Refusal::said(message, help));
        }
    }
}

/// `path` from `folder` on, without the steps `.`; links and `..` are left for each start.
pub(super) fn join(folder: &Path, path: &str) -> PathBuf {
    folder.join(path).components().collect()
}

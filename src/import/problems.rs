//! What is wrong with a file that is to be imported, in the form of the ecosystem file's own errors.

use std::ops::Range;

use crate::config::error::{Collector, Diagnostics, Problem};

/// Gathers problems, and what holds for each: the app that is being read.
pub(super) struct Problems<'t> {
    collector: Collector<'t>,
    app: Option<String>,
}

/// One problem.
pub(super) struct Said {
    key: Option<String>,
    message: String,
    expected: Option<String>,
    help: Option<String>,
}

impl Said {
    pub(super) fn new(message: impl Into<String>) -> Said {
        Said { key: None, message: message.into(), expected: None, help: None }
    }

    /// `expected …, got …`.
    pub(super) fn expected(expected: &str, got: &str) -> Said {
        let mut said = Said::new(format!("expected {expected}, got {got}"));
        said.expected = Some(expected.to_owned());
        said
    }

    pub(super) fn key(mut self, key: &str) -> Said {
        self.key = Some(key.to_owned());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Said {
        self.help = Some(help.into());
        self
    }
}

impl<'t> Problems<'t> {
    pub(super) fn new(text: &'t str, source: &'t str) -> Problems<'t> {
        Problems { collector: Collector::new(text, source), app: None }
    }

    /// From now on it is about this app.
    pub(super) fn within(&mut self, app: Option<String>) {
        self.app = app;
    }

    pub(super) fn at(&mut self, span: Option<Range<usize>>, said: Said) {
        let place = span.map(|span| self.collector.place(span));
        let Said { key, message, expected, help } = said;
        self.collector.add(Problem { place, app: self.app.clone(), key, message, expected, help });
    }

    pub(super) fn finish(self) -> Option<Diagnostics> {
        self.collector.finish()
    }
}

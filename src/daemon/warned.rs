//! What was told once, and is not told again.

use std::collections::HashSet;

use crate::supervisor::event::AppId;

/// By what it is, and about which app; none where it is the same for all.
#[derive(Debug, Default)]
pub(super) struct Warned {
    told: HashSet<(&'static str, Option<AppId>)>,
}

impl Warned {
    /// Whether it is to be told now: it is the first time.
    pub(super) fn first(&mut self, what: &'static str, about: Option<AppId>) -> bool {
        self.told.insert((what, about))
    }

    pub(super) fn knows(&self, what: &'static str, about: Option<AppId>) -> bool {
        self.told.contains(&(what, about))
    }

    pub(super) fn forget(&mut self, app: AppId) {
        self.told.retain(|(_, about)| *about != Some(app));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_app_is_told_of_once_and_again_when_it_is_a_new_one() {
        let mut warned = Warned::default();
        let (one, other) = (Some(AppId(1)), Some(AppId(2)));
        assert!(warned.first("inspect", one) && warned.first("inspect", other));
        assert!(!warned.first("inspect", one) && !warned.first("inspect", other));
        assert!(warned.first("hide", one) && warned.first("inspect", None));
        warned.forget(AppId(1));
        assert!(!warned.knows("inspect", one) && !warned.knows("hide", one));
        assert!(warned.knows("inspect", other) && warned.knows("inspect", None));
    }
}

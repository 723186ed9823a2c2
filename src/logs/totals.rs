//! Which log files belong together: those of one app, whose old files have a limit for all of them. Refuses to look
//! at any file: that is the archive's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::supervisor::event::AppId;
use crate::sys::behalf::Behalf;

/// Files of one app: each of a thousand workers may have three.
const FILE_LIMIT: usize = 4096;

/// The log files of one app, and what their old ones may take.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// Bytes; 0 for no limit.
    pub limit: u64,
    /// The files that are, or were, written to, and with whose rights.
    pub paths: Arc<BTreeMap<PathBuf, Behalf>>,
    /// Those of every app.
    pub all: Arc<BTreeSet<PathBuf>>,
}

/// Those of every app.
#[derive(Debug, Default)]
pub struct Totals {
    of: BTreeMap<AppId, Total>,
    all: Arc<BTreeSet<PathBuf>>,
}

impl Totals {
    /// An app writes to this file, too, and its limit is this one.
    pub fn add(&mut self, app: AppId, path: &Path, behalf: &Behalf, limit: u64) {
        let total = self.of.entry(app).or_default();
        total.limit = limit;
        if total.paths.len() < FILE_LIMIT && total.paths.get(path) != Some(behalf) {
            Arc::make_mut(&mut total.paths).insert(path.to_owned(), behalf.clone());
            Arc::make_mut(&mut self.all).insert(path.to_owned());
        }
    }

    /// One that was deleted: its files are nobody's.
    pub fn forget(&mut self, app: AppId) {
        let Some(gone) = self.of.remove(&app) else { return };
        let is_anothers = |path: &PathBuf| self.of.values().any(|total| total.paths.contains_key(path));
        let nobodys: Vec<&PathBuf> = gone.paths.keys().filter(|path| !is_anothers(path)).collect();
        let all = Arc::make_mut(&mut self.all);
        for path in nobodys {
            all.remove(path);
        }
    }

    /// Apps with a limit that write to this file.
    pub fn of(&self, path: &Path) -> impl Iterator<Item = (AppId, Total)> {
        let limited = self.of.iter().filter(|(_, total)| total.limit > 0);
        let with = |total: &Total| Total { all: Arc::clone(&self.all), ..total.clone() };
        limited
            .filter(move |(_, total)| total.paths.contains_key(path))
            .map(move |(app, total)| (*app, with(total)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_two_apps_counts_for_both_and_one_without_a_limit_for_none() {
        let mut totals = Totals::default();
        let (one, two, three) = (AppId(1), AppId(2), AppId(3));
        let [shared, own] = ["/var/log/all.log", "/var/log/own.log"].map(Path::new);
        let ours = Behalf::default();
        totals.add(one, shared, &ours, 100);
        totals.add(one, own, &ours, 200);
        totals.add(two, shared, &ours, 300);
        totals.add(three, shared, &ours, 0);
        let of = |totals: &Totals, path| totals.of(path).map(|(app, t)| (app, t.limit)).collect::<Vec<_>>();
        assert_eq!(of(&totals, shared), [(one, 200), (two, 300)]);
        assert_eq!(of(&totals, own), [(one, 200)]);
        let all = |totals: &Totals| totals.of(shared).next().map(|(_, total)| total.all.len());
        assert_eq!(all(&totals), Some(2), "whose files are whose is known of all apps");
        totals.forget(one);
        assert_eq!(all(&totals), Some(1));
        assert_eq!(of(&totals, own), []);
    }
}

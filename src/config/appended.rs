//! `append_env_to_name`: with `--env PROFILE` an app is called `<name>-<profile>`, so that two profiles of one file
//! run beside each other. `--only` and `depends_on` go by the names that the file has.

use std::collections::{BTreeMap, BTreeSet};

use super::app::Draft;
use super::error::{Collector, Problem, quoted};
use super::keys::AppKey;
use super::reader::Reader;
use super::value;
use crate::supervisor::policy::AppName;

impl Reader<'_, '_, '_, AppKey> {
    /// The name with the profile behind it, when the app wants that and there is one.
    pub(super) fn appended(&mut self, name: &str, profile: Option<&str>) -> Option<String> {
        let wanted = self.flag(AppKey::AppendEnvToName) == Some(true) && !name.is_empty();
        let appended = format!("{name}-{}", profile.filter(|_| wanted)?);
        if value::name_fault(&appended).is_none() {
            return Some(appended);
        }
        self.conflict(
            AppKey::AppendEnvToName,
            &format!("{} cannot be the name of an app", quoted(&appended)),
            "shorten the name or the profile, or leave this key out",
        );
        None
    }
}

fn name_of(draft: &Draft) -> AppName {
    AppName { namespace: draft.app.namespace.clone(), name: draft.app.name.clone() }
}

/// Gives the apps their new names, also where others depend on them.
pub(super) fn rename(drafts: &mut [Draft], collector: &mut Collector<'_>) {
    let renamed: BTreeMap<AppName, String> =
        drafts.iter().filter_map(|draft| Some((name_of(draft), draft.appended.clone()?))).collect();
    if renamed.is_empty() {
        return;
    }
    for draft in drafts.iter_mut() {
        for on in &mut draft.app.policy.depends_on {
            if let Some(name) = renamed.get(on) {
                on.name.clone_from(name);
            }
        }
        if let Some(name) = &draft.appended {
            draft.app.name.clone_from(name);
        }
    }
    let mut known = BTreeSet::new();
    for draft in drafts.iter() {
        if !known.insert(name_of(draft)) {
            collector.add(Problem {
                place: Some(collector.place(draft.place.clone())),
                app: Some(draft.app.name.clone()),
                key: Some("append_env_to_name".to_owned()),
                message: "another app of this file has this name already".to_owned(),
                expected: Some("a unique name".to_owned()),
                help: Some("choose another name".to_owned()),
            });
        }
    }
}

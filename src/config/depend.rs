//! `stop_exit_codes` and `depends_on`: lists of codes and names, and that no app waits for nobody, for itself
//! or, by whatever way, for one that waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::app::Draft;
use super::error::{Collector, Problem, listed, quoted};
use super::keys::{self, AppKey};
use super::reader::Reader;
use super::value::{self, Refusal};
use crate::supervisor::policy::AppName;

/// Apps that one can depend on.
const MAX_DEPENDENCIES: usize = 64;

/// Exit codes that there are.
const MAX_CODES: usize = 256;

impl<'v> Reader<'_, 'v, '_, AppKey> {
    /// The codes, in rising order and each once.
    pub(super) fn exit_codes(&mut self, id: AppKey) -> Vec<i32> {
        let code = |value: &DeValue<'_>| value::count(value, 0, 255).map(|code| code.cast_signed());
        let mut codes: Vec<i32> = self.each(id, MAX_CODES, code).into_iter().map(|(code, _)| code).collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    }

    /// The apps to wait for, each once, and where they were written. A name without a namespace is one of
    /// the app's own.
    pub(super) fn depends_on(&mut self, namespace: &str) -> Vec<(AppName, Range<usize>)> {
        let mut known: Vec<(AppName, Range<usize>)> = Vec::new();
        for (name, place) in
            self.each(AppKey::DependsOn, MAX_DEPENDENCIES, |value| app_name(value, namespace))
        {
            if known.iter().all(|(other, _)| *other != name) {
                known.push((name, place));
            }
        }
        known
    }

    /// The values of an array, or a value that stands alone for one.
    fn each<T>(
        &mut self,
        id: AppKey,
        most: usize,
        read: impl Fn(&'v DeValue<'v>) -> Result<T, Refusal>,
    ) -> Vec<(T, Range<usize>)> {
        let Some(entry) = self.section.get(id).cloned() else { return Vec::new() };
        let kind = keys::row(self.table, id).kind;
        let items: Vec<&'v Spanned<DeValue<'v>>> = match entry.value().as_array() {
            Some(items) => items.iter().collect(),
            None => vec![entry.value],
        };
        if items.len() > most {
            let message = format!("has {} entries; at most {most} are taken", items.len());
            self.refuse(kind, entry.written, entry.value, Refusal::said(message, "leave some out"));
            return Vec::new();
        }
        let mut good = Vec::new();
        for item in items {
            match read(item.get_ref()) {
                Ok(value) => good.push((value, item.span())),
                Err(refusal) => self.refuse(kind, entry.written, item, refusal),
            }
        }
        good
    }
}

/// `db`, or `shop/db`.
fn app_name(value: &DeValue<'_>, namespace: &str) -> Result<AppName, Refusal> {
    let text = value::text(value)?;
    let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
    let is_name = |part: &str| value::name_fault(part).is_none();
    if !is_name(namespace) || !is_name(name) {
        return Err(Refusal::WRONG);
    }
    Ok(AppName { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// Every app that another one waits for is in the file, and nobody waits in a circle.
pub(super) fn check(drafts: &[Draft], collector: &mut Collector<'_>) {
    let mut places: BTreeMap<AppName, usize> = BTreeMap::new();
    for (place, draft) in drafts.iter().enumerate() {
        places.entry(own_name(draft)).or_insert(place);
    }
    let mut complete = true;
    for draft in drafts {
        for (on, span) in draft.app.policy.depends_on.iter().zip(&draft.depends_places) {
            let wrong = if *on == own_name(draft) {
                Some(("is the app itself".to_owned(), "leave it out".to_owned()))
            } else if places.contains_key(on) {
                None
            } else {
                Some((
                    format!("no app of this file is called {}", quoted(&on.to_string())),
                    nearest(on, &places),
                ))
            };
            if let Some((message, help)) = wrong {
                complete = false;
                refuse(draft, span, message, help, collector);
            }
        }
    }
    if complete {
        check_circles(drafts, &places, collector);
    }
}

fn own_name(draft: &Draft) -> AppName {
    AppName { namespace: draft.app.namespace.clone(), name: draft.app.name.clone() }
}

fn nearest(on: &AppName, known: &BTreeMap<AppName, usize>) -> String {
    // One whose name was refused has none.
    let named = known.keys().filter(|app| !app.name.is_empty());
    let names: BTreeSet<String> = named.map(ToString::to_string).collect();
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    match keys::nearest(&on.to_string(), names.iter().copied()) {
        Some(near) => format!("did you mean {}? The file has {}", quoted(near), listed(&names)),
        None => format!("the file has {}", listed(&names)),
    }
}

/// Takes away apps that wait for none of those that are left; what then is left waits in circles, or for
/// such. Each circle is reported once, at its first app.
fn check_circles(drafts: &[Draft], places: &BTreeMap<AppName, usize>, collector: &mut Collector<'_>) {
    let needs =
        |place: usize| drafts[place].app.policy.depends_on.iter().filter_map(|on| places.get(on).copied());
    let mut left: BTreeSet<usize> = (0..drafts.len()).collect();
    loop {
        let free: Vec<usize> =
            left.iter().copied().filter(|place| !needs(*place).any(|on| left.contains(&on))).collect();
        if free.is_empty() {
            break;
        }
        left.retain(|place| !free.contains(place));
    }
    let mut told: BTreeSet<usize> = BTreeSet::new();
    for first in left.iter().copied() {
        let mut way = vec![first];
        // Everybody who is left waits for somebody who is: the way ends where it meets itself.
        while let Some(next) = needs(way[way.len() - 1]).find(|on| left.contains(on)) {
            if let Some(begin) = way.iter().position(|known| *known == next) {
                let circle = way.split_off(begin);
                if circle.iter().all(|place| told.insert(*place)) {
                    tell_circle(drafts, &circle, collector);
                }
                break;
            }
            way.push(next);
        }
    }
}

fn tell_circle(drafts: &[Draft], circle: &[usize], collector: &mut Collector<'_>) {
    let first =
        circle.iter().min().and_then(|least| circle.iter().position(|place| place == least)).unwrap_or(0);
    let turned = circle[first..].iter().chain(&circle[..=first]);
    let names: Vec<String> = turned.map(|place| own_name(&drafts[*place]).to_string()).collect();
    let draft = &drafts[circle[first]];
    let next = own_name(&drafts[circle[(first + 1) % circle.len()]]);
    let place = draft.app.policy.depends_on.iter().position(|on| *on == next).unwrap_or(0);
    let Some(span) = draft.depends_places.get(place) else { return };
    let message = format!("the apps wait for each other: {}", names.join(" -> "));
    refuse(
        draft,
        span,
        message,
        "one of them has to start first: leave its depends_on out".to_owned(),
        collector,
    );
}

fn refuse(draft: &Draft, span: &Range<usize>, message: String, help: String, collector: &mut Collector<'_>) {
    let place = Some(collector.place(span.clone()));
    collector.add(Problem {
        place,
        app: Some(draft.app.name.clone()),
        key: Some("depends_on".to_owned()),
        message,
        expected: Some("another app of this file, and no circle".to_owned()),
        help: Some(help),
    });
}

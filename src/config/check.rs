//! Rules that hold between the apps of a file, and between the file and what the command line asked of it.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::app::Draft;
use super::error::{Collector, Problem, listed, printable, quoted};
use super::{Host, Listen, depend, keys, listen};

/// Addresses that one file can declare: they are compared each with each.
const MAX_LISTEN: usize = 4096;

pub(super) fn all(drafts: &[Draft], host: &Host, collector: &mut Collector<'_>) {
    check_names(drafts, collector);
    check_addresses(drafts, collector);
    depend::check(drafts, collector);
    check_profile(drafts, host, collector);
    check_only(drafts, host, collector);
}

fn check_names(drafts: &[Draft], collector: &mut Collector<'_>) {
    let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
    for draft in drafts.iter().filter(|draft| !draft.app.name.is_empty()) {
        let app = &draft.app;
        let place = collector.place(draft.place.clone());
        if let Some(line) = seen.get(&(app.namespace.as_str(), app.name.as_str())) {
            collector.add(Problem {
                place: Some(place),
                app: Some(app.name.clone()),
                key: Some("name".to_owned()),
                message: format!(
                    "expected a name that is unique in namespace \"{}\", got that of the app in line {line}",
                    app.namespace
                ),
                expected: Some("a unique name".to_owned()),
                help: Some(
                    "choose another name or namespace; for more workers write instances = 2".to_owned(),
                ),
            });
            continue;
        }
        seen.insert((&app.namespace, &app.name), place.line);
    }
}

/// No two apps can serve one address: a client could not tell which it reaches.
fn check_addresses(drafts: &[Draft], collector: &mut Collector<'_>) {
    let all: Vec<(usize, &Listen, &Range<usize>)> = drafts
        .iter()
        .enumerate()
        .flat_map(|(at, draft)| {
            draft.app.spec.listen.iter().zip(&draft.listen_places).map(move |(l, p)| (at, l, p))
        })
        .collect();
    let problem = |place, at: usize, message, help: &str| Problem {
        place: Some(place),
        app: drafts.get(at).map(|draft| draft.app.name.clone()),
        key: Some("listen".to_owned()),
        message,
        expected: None,
        help: Some(help.to_owned()),
    };
    if let Some((at, _, span)) = all.get(MAX_LISTEN) {
        let message = format!("expected at most {MAX_LISTEN} addresses in one file, got {}", all.len());
        let place = collector.place((*span).clone());
        collector.add(problem(place, *at, message, "split the file"));
        return;
    }
    for (later, (at, socket, span)) in all.iter().enumerate() {
        let other = all[..later]
            .iter()
            .find(|(other, known, _)| other != at && known.address().overlaps(&socket.address()));
        if let Some((other, known, known_span)) = other {
            let message = format!(
                "{} overlaps with {} of app \"{}\" (line {})",
                listen::show(socket),
                listen::show(known),
                drafts[*other].app.name,
                collector.place((*known_span).clone()).line
            );
            let place = collector.place((*span).clone());
            collector.add(problem(place, *at, message, "give each app its own port"));
        }
    }
}

fn check_profile(drafts: &[Draft], host: &Host, collector: &mut Collector<'_>) {
    let Some(profile) = &host.profile else {
        return;
    };
    let known: BTreeSet<&str> =
        drafts.iter().flat_map(|draft| draft.profiles.iter().map(String::as_str)).collect();
    if known.contains(profile.as_str()) {
        return;
    }
    let help = match (keys::nearest(profile, known.iter().copied()), known.is_empty()) {
        (Some(near), _) => format!("did you mean {near}? The file has {}", listed(&known)),
        (None, false) => format!("the file has {}", listed(&known)),
        (None, true) => "the file has no env_<profile> table at all; leave out --env".to_owned(),
    };
    asked_for_unknown("--env", format!("no app has env_{}", printable(profile)), help, collector);
}

fn check_only(drafts: &[Draft], host: &Host, collector: &mut Collector<'_>) {
    let known: BTreeSet<&str> =
        drafts.iter().map(|draft| draft.app.name.as_str()).filter(|name| !name.is_empty()).collect();
    for name in host.only.iter().filter(|name| !known.contains(name.as_str())) {
        let help = match keys::nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near}? The file has {}", listed(&known)),
            None => format!("the file has {}", listed(&known)),
        };
        asked_for_unknown("--only", format!("no app is named {}", quoted(name)), help, collector);
    }
}

fn asked_for_unknown(option: &str, message: String, help: String, collector: &mut Collector<'_>) {
    let (key, help) = (Some(option.to_owned()), Some(help));
    collector.add(Problem { place: None, app: None, key, message, expected: None, help });
}

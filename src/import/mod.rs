//! Other tools' files → an ecosystem file: PM2's in each of its forms, its dump, and the Procfile. Text in,
//! text out; nothing is opened, run or asked of the host here. What means something else, or is left out, has
//! a remark that says so and why.
//!
//! `attributes` is the table of what PM2 knows, `app` and `program` carry one app over, `document` writes.

mod app;
mod attributes;
mod document;
mod dump;
mod json;
mod problems;
mod procfile;
mod program;
pub mod project;
mod python;
mod tree;
mod yaml;

use crate::config::error::Diagnostics;

use document::{Document, Table};
use problems::{Problems, Said};
use tree::{Member, Node, Value};

/// What a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PM2's `.json`, which may hold comments and bare keys; also a dump or `pm2 jlist`.
    Json,
    /// `package.json`.
    Package,
    /// PM2's `.yaml`, `.yml`.
    Yaml,
    /// PM2's `.config.js` and the like: what its user's node makes of it comes as [`Kind::Evaluated`].
    JavaScript,
    /// What a file evaluates to, as JSON.
    Evaluated,
    /// `dump.pm2`.
    Dump,
    /// Foreman's and Heroku's.
    Procfile,
}

/// The kind of a file of this name; none for one that is none of them.
pub fn kind_of(name: &str) -> Option<Kind> {
    let base = name.rsplit('/').next().unwrap_or(name);
    let ends = |endings: &[&str]| endings.iter().any(|ending| base.ends_with(ending));
    if base == "package.json" {
        Some(Kind::Package)
    } else if base == "Procfile" || base.starts_with("Procfile.") {
        Some(Kind::Procfile)
    } else if base == "-" || ends(&[".json"]) {
        Some(Kind::Json)
    } else if ends(&[".yaml", ".yml"]) {
        Some(Kind::Yaml)
    } else if ends(&[".js", ".cjs", ".mjs"]) {
        Some(Kind::JavaScript)
    } else if ends(&[".pm2", ".pm2.bak"]) {
        Some(Kind::Dump)
    } else {
        None
    }
}

/// What the meaning of a file depends on beside its text.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The home folder, for `~`.
    pub home: Option<String>,
    /// Whether a file `.env` stands beside it.
    pub has_env_file: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The ecosystem file.
    pub text: String,
    /// What could not be carried over at all: each with the reason, which the text has as well.
    pub left_out: Vec<String>,
}

/// Carries a file over. `source` is what it is called: its path, or `standard input`.
///
/// # Errors
/// Everything in it that cannot be understood, with its place.
pub fn import(kind: Kind, text: &str, source: &str, facts: &Facts) -> Result<Imported, Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut problems = Problems::new(text, source);
    let mut import = Import { document: Document::default(), left_out: Vec::new(), facts };
    import.head(kind, source);
    match kind {
        Kind::Procfile => import.procfile(text, &mut problems),
        Kind::Json | Kind::Package | Kind::Yaml | Kind::JavaScript | Kind::Evaluated | Kind::Dump => {
            let read = match kind {
                Kind::Yaml => yaml::read,
                Kind::Package => json::read_plain,
                Kind::Json | Kind::JavaScript | Kind::Evaluated | Kind::Dump | Kind::Procfile => json::read,
            };
            if let Some(mut root) = read(text, &mut problems) {
                if kind == Kind::Evaluated {
                    forget_places(&mut root);
                }
                import.pm2(kind, &root, &mut problems);
            }
        }
    }
    match problems.finish() {
        Some(wrong) => Err(wrong),
        None => Ok(Imported { text: import.document.text(), left_out: import.left_out }),
    }
}

struct Import<'f> {
    document: Document,
    left_out: Vec<String>,
    facts: &'f Facts,
}

impl Import<'_> {
    fn head(&mut self, kind: Kind, source: &str) {
        let base = source.rsplit('/').next().unwrap_or(source);
        let tool = if kind == Kind::Procfile { "foreman" } else { "PM2" };
        let head = &mut self.document.head;
        head.push(format!("From {base}, by `clusterd import`. Remarks say what differs from {tool}."));
        match kind {
            Kind::Procfile => {}
            Kind::Json | Kind::Package | Kind::Yaml | Kind::JavaScript | Kind::Evaluated | Kind::Dump => {
                head.push(
                    "Relative paths start from this file's folder; in PM2 from that of the shell.".to_owned(),
                );
                head.push(
                    "What no line speaks of: listen_timeout is 30 s (PM2: 3 s), and a worker that is later fails \
                     the start or reload; one that keeps crashing waits 0.1 s and longer from time to time (PM2: \
                     not at all)."
                        .to_owned(),
                );
            }
        }
        if kind == Kind::Evaluated {
            head.push(
                "The file was evaluated in the environment of the shell: what it took from there (process.env) \
                 stands here as a fixed value."
                    .to_owned(),
            );
        }
    }

    fn pm2(&mut self, kind: Kind, root: &Node, problems: &mut Problems<'_>) {
        if kind == Kind::Package && root.get("pm2").or(root.get("apps")).is_none() {
            let said = Said::new("there is no key \"pm2\" in it, so PM2 knows no app from it");
            let help = "for an ecosystem file made from its scripts: clusterd init";
            return problems.at(Some(0..0), said.help(help));
        }
        let apps = match &root.value {
            Value::List(nodes) => nodes.iter().collect(),
            Value::Table(members) => self.top(kind, root, members, problems),
            Value::Null | Value::Flag(_) | Value::Whole(_) | Value::Real(_) | Value::Text(_) => {
                let said = Said::expected("apps: an object or an array", &tree::shown(root));
                return problems.at(root.span.clone(), said);
            }
        };
        if dump::is_dump(&apps) {
            let merged = dump::merged(&apps, &mut self.document);
            self.apps(&merged.iter().collect::<Vec<_>>(), problems);
        } else {
            self.apps(&apps, problems);
        }
        if apps.is_empty() {
            let said = Said::expected("at least one app", "none").key("apps");
            problems.at(root.span.clone(), said);
        }
    }

    /// The apps of a file's outermost object, and remarks on what else is in it.
    fn top<'n>(
        &mut self,
        kind: Kind,
        root: &'n Node,
        members: &'n [Member],
        problems: &mut Problems<'_>,
    ) -> Vec<&'n Node> {
        let Some(apps) = root.get("apps").or_else(|| root.get("pm2")) else {
            return match attributes_in(members)
                || !["deploy", "static"].iter().any(|key| root.get(key).is_some())
            {
                true => vec![root],
                false => {
                    self.others(kind, members);
                    Vec::new()
                }
            };
        };
        self.others(kind, members);
        match &apps.value {
            Value::List(nodes) => nodes.iter().collect(),
            // In package.json the key `pm2` may hold a whole file.
            Value::Table(inner) => match apps.get("apps") {
                Some(_) => self.top(Kind::Json, apps, inner, problems),
                None => vec![apps],
            },
            Value::Null | Value::Flag(_) | Value::Whole(_) | Value::Real(_) | Value::Text(_) => {
                let said = Said::expected("an array of apps", &tree::shown(apps)).key("apps");
                problems.at(apps.span.clone(), said);
                Vec::new()
            }
        }
    }

    /// What stands beside the apps.
    fn others(&mut self, kind: Kind, members: &[Member]) {
        for member in members.iter().filter(|member| !member.node.is_null()) {
            let why = match member.name.as_str() {
                "apps" | "pm2" => continue,
                "deploy" => {
                    "clusterd runs what is there and does not fetch it; `clusterd reload` is what comes after a \
                     release was unpacked"
                }
                "static" => "PM2's own server of static files, which does not exist here",
                // The rest of package.json is nobody's business here.
                _ if kind == Kind::Package => continue,
                _ => "PM2 does not know it either, and ignores it",
            };
            self.leave(format!("{}: left out; {why}", member.name));
        }
    }

    fn leave(&mut self, remark: String) {
        let remark = document::single_line(&remark);
        self.left_out.push(remark.clone());
        self.document.tail.push(remark);
    }

    fn apps(&mut self, apps: &[&Node], problems: &mut Problems<'_>) {
        for (at, node) in apps.iter().enumerate() {
            let label = app::label(node, at + 1);
            problems.within(Some(label.clone()));
            match &node.value {
                Value::Table(members) => match app::read(members, node.span.clone(), self.facts, problems) {
                    Ok(table) => self.document.apps.push(table),
                    Err(why) => self.leave(format!("app \"{label}\": left out; {why}")),
                },
                Value::Null
                | Value::Flag(_)
                | Value::Whole(_)
                | Value::Real(_)
                | Value::Text(_)
                | Value::List(_) => {
                    let said = Said::expected("an app: an object", &tree::shown(node));
                    problems.at(node.span.clone(), said);
                }
            }
        }
        problems.within(None);
        tell_apart(&mut self.document.apps);
    }
}

/// Whether an object is an app itself rather than a file of apps.
fn attributes_in(members: &[Member]) -> bool {
    members.iter().any(|member| attributes::find(&member.name).is_some())
}

/// Names are not unique in PM2.
fn tell_apart(apps: &mut [Table]) {
    let mut taken = std::collections::BTreeSet::new();
    for table in apps {
        let namespace = text_of(table, "namespace").unwrap_or_else(|| "default".to_owned());
        let Some(name) = text_of(table, "name") else { continue };
        let free = (1..).map(|n| if n == 1 { name.clone() } else { format!("{name}-{n}") });
        let Some(unique) = free.into_iter().find(|name| !taken.contains(&(namespace.clone(), name.clone())))
        else {
            continue;
        };
        if unique != name {
            let line = table.lines.iter_mut().find(|line| is_key(line, "name"));
            if let Some(line) = line {
                line.remarks.push(format!("\"{name}\" in PM2, like another app; here a name means one app"));
                if let Some(setting) = &mut line.setting {
                    setting.value = Value::Text(unique.clone());
                }
            }
        }
        taken.insert((namespace, unique));
    }
}

fn is_key(line: &document::Line, key: &str) -> bool {
    line.setting.as_ref().is_some_and(|setting| setting.key == key)
}

fn text_of(table: &Table, key: &str) -> Option<String> {
    let line = table.lines.iter().find(|line| is_key(line, key))?;
    app::scalar_text(&line.setting.as_ref()?.value)
}

/// Places in what was evaluated are not places in the file.
fn forget_places(node: &mut Node) {
    node.span = None;
    match &mut node.value {
        Value::List(nodes) => nodes.iter_mut().for_each(forget_places),
        Value::Table(members) => {
            for member in members {
                member.span = None;
                forget_places(&mut member.node);
            }
        }
        Value::Null | Value::Flag(_) | Value::Whole(_) | Value::Real(_) | Value::Text(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_are_told_apart_by_their_names() {
        for (name, kind) in [
            ("ecosystem.json", Some(Kind::Json)),
            ("/srv/a/package.json", Some(Kind::Package)),
            ("process.yml", Some(Kind::Yaml)),
            ("ecosystem.config.cjs", Some(Kind::JavaScript)),
            ("/home/u/.pm2/dump.pm2", Some(Kind::Dump)),
            ("dump.pm2.bak", Some(Kind::Dump)),
            ("Procfile", Some(Kind::Procfile)),
            ("Procfile.dev", Some(Kind::Procfile)),
            ("-", Some(Kind::Json)),
            ("ecosystem.toml", None),
            ("README", None),
        ] {
            assert_eq!(kind_of(name), kind, "{name}");
        }
    }

    fn wrong(kind: Kind, text: &str) -> String {
        import(kind, text, "eco", &Facts::default()).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_name_line_app_and_key() {
        for (text, expected) in [
            ("{apps: [\n{name: 'a'}]}", "eco:2:1: app \"a\": script: expected what to run, got nothing"),
            (
                "{apps: [{script: 'a.js',\ninstances: 'many'}]}",
                "eco:2:12: app \"a\": instances: expected a whole",
            ),
            (
                "{script: 'a.js', kill_timeout: []}",
                "app \"a\": kill_timeout: expected a number of milliseconds",
            ),
            ("{apps: 3}", "apps: expected an array of apps, got 3"),
            ("{apps: [3]}", "app #1: expected an app: an object, got 3"),
            ("{apps: []}", "apps: expected at least one app, got none"),
            ("3", "expected apps: an object or an array, got 3"),
            ("{script: 'a.js', exec_mode: 'x'}", "exec_mode: expected \"fork\" or \"cluster\", got \"x\""),
            ("{script: 'a.js', env: 'x'}", "env: expected an object of variables"),
        ] {
            let wrong = wrong(Kind::Json, text);
            assert!(wrong.contains(expected), "{text}\n{wrong}");
        }
    }

    #[test]
    fn what_was_evaluated_has_no_places() {
        let wrong = wrong(Kind::Evaluated, "{\"apps\":[{\"script\":\"a.js\",\"instances\":{}}]}");
        assert!(wrong.starts_with("eco: app \"a\": instances: expected"), "{wrong}");
    }

    /// The text that an app with these members becomes.
    fn made(members: &str) -> String {
        let text = format!("{{script: 'a.js', {members}}}");
        match import(Kind::Json, &text, "eco.json", &Facts::default()) {
            Ok(imported) => imported.text,
            Err(wrong) => panic!("{text}\n{wrong}"),
        }
    }

    fn sample(row: &attributes::Attribute) -> &'static str {
        use attributes::{Form, Rule};
        match &row.rule {
            Rule::Dropped(_) => "true",
            Rule::Key { key, form, .. } => match form {
                Form::Flag => match *key {
                    "treekill" => "false",
                    _ => "true",
                },
                Form::Whole | Form::Time => "'2000'",
                Form::Size => "'300M'",
                Form::Text => "'5 4 * * *'",
                Form::Path => "'sub/x'",
                Form::Codes => "[0, 1]",
                Form::Account => "'www'",
                Form::Filter | Form::Paths => "['A']",
            },
            Rule::Joint => match row.name {
                "instances" => "'max'",
                "exec_mode" => "'fork_mode'",
                "max_restarts" | "exp_backoff_restart_delay" | "port" => "3",
                "env" => "{A: 1}",
                "source_map_support" | "execute_command" | "watch" | "log_file" => "true",
                _ => "'other'",
            },
        }
    }

    #[test]
    fn no_attribute_of_pm2s_vanishes_without_a_word() {
        for row in attributes::ATTRIBUTES {
            for name in std::iter::once(&row.name).chain(row.aliases) {
                let plain = if *name == "script" { String::new() } else { made("") };
                let text = made(&format!("{name}: {}", sample(row)));
                assert_ne!(text, plain, "{name}");
                assert!(text.contains("name = "), "{text}");
            }
        }
        assert!(made("restart_delai: 3").contains("# restart_delai: left out"));
    }

    #[test]
    fn names_that_two_apps_have_are_told_apart() {
        let text = "[{script: 'a.js', name: 'x'}, {script: 'b.js', name: 'x'}, {script: 'c.js', name: 'x', namespace: 'n'}]";
        let text = import(Kind::Json, text, "eco.json", &Facts::default()).unwrap().text;
        for expected in ["name = \"x\"", "name = \"x-2\"", "namespace = \"n\""] {
            assert!(text.contains(expected), "{text}");
        }
        assert!(!text.contains("x-3"), "{text}");
    }

    #[test]
    fn zero_restarts_do_not_become_endless_ones() {
        assert!(made("max_restarts: 0").contains("\nmax_restarts = 1\n"));
    }

    #[test]
    fn apps_that_are_no_cluster_in_pm2_stay_none() {
        let text = made("cmd: 'a.py', instances: 2");
        assert!(!text.contains("exec_mode"), "script and cmd are the same, the first holds: {text}");
        let text =
            import(Kind::Json, "{script: 'a.py', instances: 2}", "e.json", &Facts::default()).unwrap().text;
        assert!(text.contains("exec_mode = \"fork\"\ninstances = 2\n"), "{text}");
    }

    #[test]
    fn a_package_without_pm2_is_told_where_to_go() {
        assert!(wrong(Kind::Package, "{\"scripts\": {}}").contains("clusterd init"));
    }

    /// Any value that JSON can have, a few levels deep.
    fn any_value() -> impl Strategy<Value = serde_json::Value> {
        let scalar = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
            "[a-z ~/@.-]{0,12}(\\.js|\\.py|[0-9]+[smhKMG])?".prop_map(Into::into),
        ];
        scalar.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    /// Any attributes of PM2's, in an app that has a script.
    fn any_app() -> impl Strategy<Value = serde_json::Value> {
        let names = attributes::ATTRIBUTES.iter().map(|row| row.name).chain(["env_test", "pm2_env", "odd"]);
        let member = (prop::sample::select(names.collect::<Vec<_>>()), any_value());
        prop::collection::vec(member, 0..5).prop_map(|members| {
            let mut app: serde_json::Map<_, _> =
                members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            app.entry("script").or_insert("a.js".into());
            app.into()
        })
    }

    proptest! {
        #[test]
        fn whatever_an_app_says_what_comes_out_is_toml(apps in prop::collection::vec(any_app(), 1..4)) {
            let text = serde_json::Value::from(apps).to_string();
            for kind in [Kind::Json, Kind::Yaml, Kind::Evaluated] {
                if let Ok(imported) = import(kind, &text, "eco", &Facts::default()) {
                    let parsed: Result<toml::Table, _> = toml::from_str(&imported.text);
                    prop_assert!(parsed.is_ok(), "{:?}\n{}", parsed, imported.text);
                }
            }
        }

        #[test]
        fn no_text_is_too_odd_to_be_refused(text in any::<String>()) {
            for kind in [Kind::Json, Kind::Package, Kind::Yaml, Kind::Dump, Kind::Procfile] {
                if let Ok(imported) = import(kind, &text, "eco", &Facts::default()) {
                    prop_assert!(toml::from_str::<toml::Table>(&imported.text).is_ok(), "{}", imported.text);
                }
            }
        }
    }
}

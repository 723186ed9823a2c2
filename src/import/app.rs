//! One app of PM2's → one app of clusterd's: attribute by attribute, with a remark wherever the two differ.

use super::Facts;
use super::attributes::{self, ATTRIBUTES, Attribute, Form, Rule};
use super::document::{Line, Table};
use super::problems::{Problems, Said};
use super::program::Runs;
use super::tree::{self, Member, Node, Value};
use crate::config::keys;

/// One app while it is read.
pub(super) struct Draft<'n, 'p, 't> {
    given: Vec<(&'static Attribute, &'n Member)>,
    pub(super) facts: &'p Facts,
    pub(super) problems: &'p mut Problems<'t>,
    pub(super) table: Table,
    /// Remarks on what is left out.
    left: Vec<Line>,
}

/// What an app is called, as far as it says so itself.
pub(super) fn label(app: &Node, number: usize) -> String {
    let name = app.get("name").and_then(Node::text);
    let script = ["script", "exec", "cmd", "command"].iter().find_map(|key| app.get(key)?.text());
    match name.map(str::to_owned).or_else(|| script.map(stem)) {
        Some(name) if !name.is_empty() => name.chars().take(64).collect(),
        Some(_) | None => format!("#{number}"),
    }
}

/// The base name of a script without its extension: what PM2 calls an app that has no name.
fn stem(script: &str) -> String {
    let base = script.trim_end_matches('/').rsplit('/').next().unwrap_or(script);
    match base.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem.to_owned(),
        Some(_) | None => base.to_owned(),
    }
}

/// Reads one app; none when it cannot be carried over, for which a remark says why.
pub(super) fn read(
    members: &[Member],
    span: Option<std::ops::Range<usize>>,
    facts: &Facts,
    problems: &mut Problems<'_>,
) -> Result<Table, String> {
    let mut draft = Draft { given: Vec::new(), facts, problems, table: Table::default(), left: Vec::new() };
    let mut profiles = Vec::new();
    for member in members.iter().filter(|member| !member.node.is_null()) {
        match attributes::find(&member.name) {
            Some(row) => draft.give(row, member),
            None if member.name.starts_with(keys::PROFILE_PREFIX) => profiles.push(member),
            None => draft.unknown(member),
        }
    }
    let Some(runs) = Runs::read(&mut draft, span)? else { return Ok(draft.table) };
    draft.name(&runs);
    draft.program(&runs);
    draft.mode(&runs);
    draft.settings();
    draft.environments(&profiles);
    let Draft { mut table, left, .. } = draft;
    table.lines.extend(left);
    Ok(table)
}

impl<'n> Draft<'n, '_, '_> {
    fn give(&mut self, row: &'static Attribute, member: &'n Member) {
        match self.given.iter().find(|(known, _)| known.name == row.name) {
            Some((_, first)) => {
                let remark = format!("{}: left out; it means the same as {}", member.name, first.name);
                self.left.push(Line::remark(remark));
            }
            None => self.given.push((row, member)),
        }
    }

    fn unknown(&mut self, member: &Member) {
        let near = keys::nearest(&member.name, ATTRIBUTES.iter().map(|row| row.name));
        let near = near.map(|name| format!("; did it mean {name}?")).unwrap_or_default();
        let remark = format!("{}: left out; PM2 does not know it either, and ignores it{near}", member.name);
        self.left.push(Line::remark(remark));
    }

    /// What an attribute is set to.
    pub(super) fn get(&self, name: &str) -> Option<&'n Member> {
        self.given.iter().find(|(row, _)| row.name == name).map(|(_, member)| *member)
    }

    pub(super) fn line(&mut self, line: Line) {
        self.table.lines.push(line);
    }

    /// Says of an attribute that it is left out, and why.
    pub(super) fn leave(&mut self, name: &str, why: &str) {
        self.left.push(Line::remark(format!("{name}: left out; {why}")));
    }

    pub(super) fn wrong(&mut self, member: &Member, expected: &str) {
        let said = Said::expected(expected, &tree::shown(&member.node)).key(&member.name);
        self.problems.at(member.node.span.clone().or(member.span.clone()), said);
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let member = self.get(name)?;
        match self.converted(member, Form::Text)? {
            Value::Text(text) => Some(text),
            Value::Null
            | Value::Flag(_)
            | Value::Whole(_)
            | Value::Real(_)
            | Value::List(_)
            | Value::Table(_) => None,
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        let member = self.get(name)?;
        Some(self.converted(member, Form::Flag)? == Value::Flag(true))
    }

    /// A value in the form that the key takes; otherwise a problem.
    pub(super) fn converted(&mut self, member: &Member, form: Form) -> Option<Value> {
        let value = convert(&member.node, form, self.facts.home.as_deref());
        if value.is_none() {
            self.wrong(member, form.expected());
        }
        value
    }

    fn name(&mut self, runs: &Runs) {
        let (written, mut remarks) = match self.text("name") {
            Some(name) => (name, Vec::new()),
            None if runs.is_line => {
                (runs.script.clone(), vec!["PM2 calls it by its whole command line".to_owned()])
            }
            None => (stem(&runs.script), Vec::new()),
        };
        let written = match self.text("name_prefix") {
            Some(prefix) => {
                remarks.push(format!("name_prefix \"{prefix}\" stands in it"));
                format!("{prefix}:{written}")
            }
            None => written,
        };
        let name = allowed(&written);
        if name != written {
            remarks.push(format!(
                "called \"{written}\" in PM2; here a name is made of letters, digits, '.', '_' and '-', and is \
                 no number"
            ));
        }
        self.line(Line { remarks, ..Line::new("name", Value::Text(name)) });
        if let Some(namespace) = self.text("namespace").filter(|namespace| namespace != "default") {
            let name = allowed(&namespace);
            let mut line = Line::new("namespace", Value::Text(name.clone()));
            if name != namespace {
                line = line.because(format!("called \"{namespace}\" in PM2"));
            }
            self.line(line);
        }
    }

    /// All that have a key of their own, and what is left out.
    fn settings(&mut self) {
        for row in ATTRIBUTES {
            let Some(member) = self.get(row.name) else { continue };
            match &row.rule {
                Rule::Key { key, form, remark } => self.key(key, member, *form, *remark),
                Rule::Dropped(why) => {
                    // Off is what it is here in any case.
                    if member.node.value != Value::Flag(false) {
                        self.leave(&member.name, why);
                    }
                }
                Rule::Joint => match row.name {
                    "max_restarts" => self.max_restarts(member),
                    "exp_backoff_restart_delay" => self.backoff(member),
                    "watch" => self.watch(member),
                    "env_file" => self.env_file(member),
                    "log_file" => self.log_file(member),
                    _ => {}
                },
            }
        }
    }

    fn key(&mut self, key: &str, member: &Member, form: Form, remark: Option<&str>) {
        let Some(value) = self.converted(member, form) else { return };
        let is_default = match key {
            "treekill" => value == Value::Flag(true),
            "cron_restart" => matches!(&value, Value::Text(text) if text == "0" || text.is_empty()),
            "wait_ready" => value == Value::Flag(false),
            _ => false,
        };
        if is_default {
            return;
        }
        let mut line = setting(key, value);
        if let Some(remark) = remark {
            line = line.because(remark);
        }
        let home = form == Form::Path && member.node.text().is_some_and(|text| text.starts_with('~'));
        if home {
            line = line.because("`~` is written out: it is expanded nowhere here");
        }
        self.line(line);
    }

    fn max_restarts(&mut self, member: &Member) {
        let Some(value) = self.converted(member, Form::Whole) else { return };
        let line = match value {
            Value::Whole(0) => setting("max_restarts", Value::Whole(1)).because(
                "0 in PM2: there it gives up at the first end; here 0 would be never, and 1 is the least",
            ),
            value => setting("max_restarts", value),
        };
        self.line(
            line.because(
                "ends before min_uptime in a row count; PM2 counts those in its first moments alone",
            ),
        );
    }

    fn backoff(&mut self, member: &Member) {
        const LONGEST: i64 = 15_000;
        let Some(value) = self.converted(member, Form::Time) else { return };
        let line = match value {
            Value::Whole(wait) if wait > LONGEST => {
                let remark = format!("{wait} in PM2, which waits {LONGEST} at most all the same");
                setting("exp_backoff_restart_delay", Value::Whole(LONGEST)).because(remark)
            }
            value => setting("exp_backoff_restart_delay", value),
        };
        self.line(line);
    }

    fn watch(&mut self, member: &Member) {
        let Some(value) = self.converted(member, Form::Paths) else { return };
        let is_negated = |node: &Node| node.text().is_some_and(|text| text.starts_with('!'));
        let (value, negated) = match value {
            Value::Flag(false) => return,
            Value::List(nodes) => {
                let (negated, nodes) = nodes.into_iter().partition(is_negated);
                (Value::List(nodes), negated)
            }
            value => (value, Vec::new()),
        };
        let remark = "in cluster mode a change reloads without a gap; PM2 restarts all at once";
        let mut line = setting("watch", value).because(remark);
        if !negated.is_empty() {
            let negated: Vec<&str> = negated.iter().filter_map(Node::text).collect();
            line = line.because(format!(
                "left out: {}; what is not to be watched stands in ignore_watch, without the \"!\"",
                negated.join(", ")
            ));
        }
        self.line(line);
    }

    /// To PM2 it is the profile `file`, and so nothing at all where it names files.
    fn env_file(&mut self, member: &Member) {
        if member.node.table().is_some() {
            let why = "these are variables for `--env file`; give the profile another name, env_file is a file here";
            return self.leave(&member.name, why);
        }
        if let Some(value) =
            self.converted(member, Form::Paths).filter(|value| !matches!(value, Value::Flag(_)))
        {
            let remark = "PM2 does not read it; here its variables are laid below env";
            self.line(setting("env_file", value).because(remark));
        }
    }

    fn log_file(&mut self, member: &Member) {
        let value = match &member.node.value {
            Value::Flag(false) => return,
            Value::Flag(true) => {
                let name = self.table.lines.iter().find_map(|line| match &line.setting {
                    Some(setting) if setting.key == "name" => Some(&setting.value),
                    Some(_) | None => None,
                });
                match name {
                    Some(Value::Text(name)) => Value::Text(format!("{name}.log")),
                    Some(_) | None => return,
                }
            }
            Value::Null
            | Value::Whole(_)
            | Value::Real(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Table(_) => match self.converted(member, Form::Path) {
                Some(value) => value,
                None => return,
            },
        };
        self.line(setting("log_file", value));
    }

    fn environments(&mut self, profiles: &[&Member]) {
        let mut env = Vec::new();
        let declared = self.get("env");
        if let Some(member) = declared {
            env = self.environment(member);
        }
        if let Some(member) = self.get("port") {
            match declared {
                Some(_) => {
                    env.retain(|line: &Line| line.setting.as_ref().is_none_or(|set| set.key != "PORT"));
                    if let Some(value) = self.converted(member, Form::Whole) {
                        env.push(Line::new("PORT", value).because("from the attribute port"));
                    }
                }
                None => {
                    self.leave(&member.name, "PM2 heeds it only beside env; write PORT = … below [apps.env]")
                }
            }
        }
        if !env.is_empty() {
            self.table.tables.push(("env".to_owned(), env));
        }
        for profile in profiles {
            let lines = self.environment(profile);
            self.table.tables.push((profile.name.clone(), lines));
        }
    }

    fn environment(&mut self, member: &Member) -> Vec<Line> {
        let Some(variables) = member.node.table() else {
            self.wrong(member, "an object of variables");
            return Vec::new();
        };
        variables.iter().map(|variable| self.variable(variable)).collect()
    }

    fn variable(&self, variable: &Member) -> Line {
        let name = &variable.name;
        match &variable.node.value {
            Value::Null => {
                Line::new(name, Value::Text("null".to_owned())).because("null, of which PM2 makes this")
            }
            Value::List(_) | Value::Table(_) => {
                Line::new(name, Value::Text(tree::json(&variable.node).to_string()))
            }
            value @ (Value::Flag(_) | Value::Whole(_) | Value::Real(_) | Value::Text(_)) => {
                Line::new(name, value.clone())
            }
        }
    }
}

/// A setting, switched off where this version does not have the key.
pub(super) fn setting(key: &str, value: Value) -> Line {
    match keys::find(keys::APP, key) {
        Some(_) => Line::new(key, value),
        None => {
            Line::off(key, value).because(format!("{key}: this version of clusterd does not have it yet"))
        }
    }
}

/// A name that can be a target here: [`keys::Kind::Name`] says which can.
pub(super) fn allowed(written: &str) -> String {
    const LONGEST: usize = 64;
    let is_fine = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let fine: String = written.chars().map(|c| if is_fine(c) { c } else { '-' }).take(LONGEST - 4).collect();
    let fine = fine.trim_matches('-');
    let is_taken = fine.is_empty()
        || matches!(fine, "all" | "." | "..")
        || fine.bytes().all(|byte| byte.is_ascii_digit());
    if is_taken { format!("app-{fine}").trim_end_matches('-').to_owned() } else { fine.to_owned() }
}

/// A value of one form; none when it is of another.
pub(super) fn convert(node: &Node, form: Form, home: Option<&str>) -> Option<Value> {
    let strings = |nodes: &[Node]| {
        let texts =
            nodes.iter().map(|node| scalar_text(&node.value).map(|text| Node::made(Value::Text(text))));
        texts.collect::<Option<Vec<Node>>>().map(Value::List)
    };
    match (form, &node.value) {
        (Form::Flag, Value::Flag(flag)) => Some(Value::Flag(*flag)),
        (Form::Flag, Value::Text(text)) => text.parse().ok().map(Value::Flag),
        (Form::Whole | Form::Time | Form::Account, Value::Whole(number)) => Some(Value::Whole(*number)),
        (Form::Size, Value::Whole(bytes)) => Some(amount(*bytes)),
        (Form::Whole, Value::Text(text)) => text.trim().parse().ok().map(Value::Whole),
        (Form::Time, Value::Real(number)) => Some(Value::Whole(number.round() as i64)),
        (Form::Time, Value::Text(text)) => time(text),
        (Form::Size, Value::Text(text)) => size(text),
        (Form::Text, value) => scalar_text(value).map(Value::Text),
        (Form::Account, Value::Text(text)) => Some(Value::Text(text.clone())),
        (Form::Path, Value::Text(text)) => Some(Value::Text(expanded(text, home))),
        (Form::Paths, Value::Text(text)) => Some(Value::Text(expanded(text, home))),
        (Form::Paths | Form::Filter, Value::Flag(flag)) => Some(Value::Flag(*flag)),
        (Form::Filter, Value::Text(text)) => Some(Value::Text(text.clone())),
        (Form::Paths | Form::Filter, Value::List(nodes)) => strings(nodes),
        (Form::Codes, Value::List(nodes)) => {
            let codes = nodes.iter().map(|node| convert(node, Form::Whole, home).map(Node::made));
            codes.collect::<Option<Vec<Node>>>().map(Value::List)
        }
        (Form::Codes, _) => convert(node, Form::Whole, home),
        (
            Form::Flag
            | Form::Whole
            | Form::Time
            | Form::Size
            | Form::Path
            | Form::Account
            | Form::Filter
            | Form::Paths,
            _,
        ) => None,
    }
}

/// A scalar as JavaScript's `String()` has it.
pub(super) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Whole(number) => Some(number.to_string()),
        Value::Real(number) => Some(number.to_string()),
        Value::Flag(flag) => Some(flag.to_string()),
        Value::Null | Value::List(_) | Value::Table(_) => None,
    }
}

/// `~` and `~/…` with the home folder in its place.
fn expanded(path: &str, home: Option<&str>) -> String {
    match (path.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        _ => path.to_owned(),
    }
}

/// `5000`, `10s`, `5m`, `1h`, and `4000ms`, which PM2 takes on its command line.
fn time(text: &str) -> Option<Value> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: i64 = digits.parse().ok()?;
    match &text[digits.len()..] {
        "" => Some(Value::Whole(number)),
        "ms" | "s" | "m" | "h" => Some(Value::Text(text.to_owned())),
        _ => None,
    }
}

/// Whole mebibytes are easier to read with their unit.
fn amount(bytes: i64) -> Value {
    const MEBIBYTE: i64 = 1024 * 1024;
    match bytes > 0 && bytes % MEBIBYTE == 0 {
        true => Value::Text(format!("{}M", bytes / MEBIBYTE)),
        false => Value::Whole(bytes),
    }
}

/// `300M`: a unit of one letter, counted by 1024 here and there.
fn size(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Ok(bytes) = text.parse() {
        return Some(amount(bytes));
    }
    let digits = text.strip_suffix(['K', 'M', 'G', 'k', 'm', 'g'])?;
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    is_number.then(|| Value::Text(text.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_targets() {
        for (written, name) in [
            ("api", "api"),
            ("my app", "my-app"),
            ("npm run start", "npm-run-start"),
            ("8080", "app-8080"),
            ("all", "app-all"),
            ("-x", "x"),
            ("@scope/web", "scope-web"),
            ("…", "app"),
        ] {
            assert_eq!(allowed(written), name, "{written}");
        }
    }

    #[test]
    fn names_of_scripts_lose_their_extension() {
        for (script, name) in
            [("./dist/server.js", "server"), ("bin/www", "www"), (".hidden", ".hidden"), ("a.b.js", "a.b")]
        {
            assert_eq!(stem(script), name);
        }
    }

    #[test]
    fn units_are_pm2s() {
        assert_eq!(time("5000"), Some(Value::Whole(5000)));
        assert_eq!(time("1h"), Some(Value::Text("1h".into())));
        assert_eq!(time("1 fortnight"), None);
        assert_eq!(size("160"), Some(Value::Whole(160)));
        assert_eq!(size("1.5g"), Some(Value::Text("1.5G".into())));
        assert_eq!(size("300MB"), None);
    }

    #[test]
    fn the_home_folder_is_written_out() {
        assert_eq!(expanded("~/a", Some("/home/u")), "/home/u/a");
        assert_eq!(expanded("~user/a", Some("/home/u")), "~user/a");
        assert_eq!(expanded("~/a", None), "~/a");
    }
}

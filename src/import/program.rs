//! What an app of PM2's runs, and how often: script, interpreter, arguments, mode and instances together.

use std::ops::Range;

use super::app::{Draft, scalar_text, setting};
use super::attributes::Form;
use super::document::Line;
use super::problems::Said;
use super::tree::{Member, Node, Value};

/// What is run.
pub(super) struct Runs {
    pub(super) script: String,
    /// With a blank: a line for a shell.
    pub(super) is_line: bool,
    interpreter: Option<String>,
}

/// What PM2 runs in cluster mode, by extension. `.ts` takes bun or node.
const OF_NODE: [&str; 7] = ["js", "cjs", "mjs", "ts", "tsx", "coffee", "ls"];

/// Extensions that both know.
const KNOWN: [&str; 9] = ["js", "cjs", "mjs", "ts", "tsx", "py", "rb", "php", "pl"];

impl Runs {
    /// None after a problem; an error is why the app cannot be carried over.
    pub(super) fn read(
        draft: &mut Draft<'_, '_, '_>,
        app: Option<Range<usize>>,
    ) -> Result<Option<Runs>, String> {
        let Some(member) = draft.get("script") else {
            let said = Said::expected("what to run", "nothing").key("script");
            draft.problems.at(app, said.help("write script: \"server.js\""));
            return Ok(None);
        };
        let Some(Value::Text(script)) = draft.converted(member, Form::Path) else { return Ok(None) };
        let script = script.trim().to_owned();
        if script.is_empty() {
            draft.wrong(member, "what to run");
            return Ok(None);
        }
        if script == "serve" {
            return Err("PM2's own server of static files, which does not exist here".to_owned());
        }
        let is_line = script.contains(char::is_whitespace);
        let interpreter = match draft.get("interpreter") {
            Some(member) => match draft.converted(member, Form::Path) {
                Some(Value::Text(text)) if !text.is_empty() => Some(text),
                Some(_) | None => None,
            },
            None => None,
        };
        Ok(Some(Runs { script, is_line, interpreter }))
    }

    fn extension(&self) -> Option<&str> {
        let base = self.script.rsplit('/').next()?;
        base.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, extension)| extension)
    }

    /// Whether PM2 runs it in cluster mode as soon as instances are given.
    fn is_node(&self) -> bool {
        match &self.interpreter {
            Some(program) => {
                let base = program.rsplit('/').next().unwrap_or(program);
                base == "bun" || base.strip_prefix("node").is_some_and(|rest| !rest.starts_with('_'))
            }
            None => !self.is_line && self.extension().is_some_and(|extension| OF_NODE.contains(&extension)),
        }
    }

    /// Whether PM2 looks into the file to choose between executing it and Node.
    fn is_sniffed(&self) -> bool {
        self.interpreter.is_none() && !self.is_line && self.extension().is_none() && self.script.contains('/')
    }
}

impl Draft<'_, '_, '_> {
    /// Script, interpreter and arguments.
    pub(super) fn program(&mut self, runs: &Runs) {
        let mut line = Line::new("script", Value::Text(runs.script.clone()));
        if runs.is_line {
            line = line.because("a line for `sh -c`; PM2 takes bash where there is one");
            self.line(line);
            for name in ["interpreter", "node_args", "args"] {
                if let Some(member) = self.get(name) {
                    self.leave(
                        &member.name,
                        "PM2 ignores it beside a script with blanks, which is a line for a shell",
                    );
                }
            }
            return;
        }
        if runs.is_sniffed() {
            line = line.because(
                "executed: it needs a first line such as `#!/usr/bin/env node` and the right to be executed, or \
                 interpreter = \"node\"; PM2 runs text without an extension by Node",
            );
        }
        self.line(line);
        let node_args = self.node_args(runs);
        self.interpreter(runs, node_args.is_some());
        if let Some(value) = node_args {
            self.line(Line::new("interpreter_args", value));
        }
        if let Some(member) = self.get("args") {
            match words(&member.node) {
                Some(value) => self.line(Line::new("args", value)),
                None => self.wrong(member, "text, or an array of texts"),
            }
        }
    }

    fn interpreter(&mut self, runs: &Runs, has_args: bool) {
        let known = runs.extension().is_some_and(|extension| KNOWN.contains(&extension));
        let line = match (&runs.interpreter, runs.extension()) {
            (Some(program), _) if program.starts_with("node@") => {
                let remark = format!(
                    "{program} in PM2, which installs it; this is the node of PATH: write the path of another one"
                );
                Line::new("interpreter", Value::Text("node".to_owned())).because(remark)
            }
            (Some(program), _) => Line::new("interpreter", Value::Text(program.clone())),
            (None, Some("coffee")) => Line::new("interpreter", Value::Text("coffee".to_owned())),
            (None, Some("ls")) => Line::new("interpreter", Value::Text("lsc".to_owned())),
            (None, Some("ts")) => {
                let remark = "interpreter: .ts is run by node here, which strips types, or else by bun; PM2 asks \
                              for bun first";
                return self.line(Line::remark(remark));
            }
            (None, _) if has_args && !known => Line::new("interpreter", Value::Text("node".to_owned()))
                .because("what PM2 runs a file of an unknown kind by"),
            (None, _) => return,
        };
        self.line(line);
    }

    /// `node_args`, with what `source_map_support` asks for.
    fn node_args(&mut self, runs: &Runs) -> Option<Value> {
        let mut value = None;
        if let Some(member) = self.get("node_args") {
            match words(&member.node) {
                Some(Value::List(nodes)) if nodes.is_empty() => {}
                Some(_) if runs.interpreter.as_deref() == Some("none") => {
                    self.leave(&member.name, "interpreter is \"none\"");
                }
                Some(words) => value = Some(words),
                None => self.wrong(member, "text, or an array of texts"),
            }
        }
        if self.flag("source_map_support") != Some(true) {
            return value;
        }
        if !runs.is_node() {
            self.leave("source_map_support", "it is about Node alone");
            return value;
        }
        let maps = "--enable-source-maps".to_owned();
        self.table.remarks.push("source_map_support is Node's own --enable-source-maps here".to_owned());
        Some(match value {
            None => Value::List(vec![Node::made(Value::Text(maps))]),
            Some(Value::List(mut nodes)) => {
                nodes.push(Node::made(Value::Text(maps)));
                Value::List(nodes)
            }
            Some(other) => Value::Text(format!("{} {maps}", scalar_text(&other).unwrap_or_default())),
        })
    }

    /// `exec_mode` and `instances`.
    pub(super) fn mode(&mut self, runs: &Runs) {
        let instances = self.get("instances").and_then(|member| self.instances(member));
        let mut mode = self.get("exec_mode").and_then(|member| self.exec_mode(member));
        if self.flag("execute_command") == Some(true) {
            mode = Some("fork");
        }
        let pm2s = mode.unwrap_or(match instances.is_some() && runs.is_node() {
            true => "cluster",
            false => "fork",
        });
        let ours = if instances.is_some() { "cluster" } else { "fork" };
        if mode.is_some() || pm2s != ours {
            let mut line = Line::new("exec_mode", Value::Text(pm2s.to_owned()));
            if mode.is_none() {
                line = line.because(
                    "as in PM2, which has cluster mode for Node alone: a reload is a stop and a start. Without \
                     this line all instances share one port, in any language, and a reload loses nothing",
                );
            }
            self.line(line);
        }
        if let Some(line) = instances {
            self.line(line);
        }
    }

    fn exec_mode(&mut self, member: &Member) -> Option<&'static str> {
        match member.node.text().map(|text| text.trim_end_matches("_mode")) {
            Some("fork") => Some("fork"),
            Some("cluster") => Some("cluster"),
            Some(_) | None => {
                self.wrong(member, "\"fork\" or \"cluster\"");
                None
            }
        }
    }

    fn instances(&mut self, member: &Member) -> Option<Line> {
        let is_max = member.node.text().is_some_and(|text| text.trim() == "max");
        let number = if is_max { Some(Value::Whole(0)) } else { self.converted(member, Form::Whole) };
        let line = match number? {
            Value::Whole(0) => setting("instances", Value::Text("max".to_owned())).because(
                "one for each CPU that it may use: affinity and CPU quota count; PM2 takes the host's",
            ),
            Value::Whole(number) if number < 0 => setting("instances", Value::Whole(number))
                .because("the CPUs that it may use (affinity and CPU quota count) less so many"),
            value => setting("instances", value),
        };
        Some(line)
    }
}

/// Arguments: text stays text, which is split as a shell does it here and there.
fn words(node: &Node) -> Option<Value> {
    match &node.value {
        Value::List(nodes) => {
            let texts = nodes.iter().map(|node| Some(Node::made(Value::Text(scalar_text(&node.value)?))));
            texts.collect::<Option<Vec<Node>>>().map(Value::List)
        }
        value => scalar_text(value).map(Value::Text),
    }
}

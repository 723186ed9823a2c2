//! Every attribute of an app that PM2 (7.0.4) knows, and what becomes of it. Nothing else decides which keys
//! are carried over.

/// One attribute.
pub(super) struct Attribute {
    /// PM2's name.
    pub(super) name: &'static str,
    /// PM2's other names for it; the camelCase form of each counts as well.
    pub(super) aliases: &'static [&'static str],
    pub(super) rule: Rule,
}

/// What becomes of an attribute.
pub(super) enum Rule {
    /// It takes part in something that several of them say together.
    Joint,
    /// The key of the same meaning here, and what is different about it.
    Key { key: &'static str, form: Form, remark: Option<&'static str> },
    /// There is nothing like it here, and why.
    Dropped(&'static str),
}

/// What an attribute takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Flag,
    /// A whole number, or digits as text.
    Whole,
    /// Milliseconds; as text also with h, m or s.
    Time,
    /// Bytes; as text also with K, M or G.
    Size,
    Text,
    /// A file or folder; `~` is expanded.
    Path,
    /// Whole numbers, or one.
    Codes,
    /// A name or a number.
    Account,
    /// True, a name, or several.
    Filter,
    /// True, a path, or several.
    Paths,
}

impl Form {
    /// What stands after "expected".
    pub(super) fn expected(self) -> &'static str {
        match self {
            Form::Flag => "true or false",
            Form::Whole => "a whole number",
            Form::Time => "a number of milliseconds, or text such as \"10s\"",
            Form::Size => "a number of bytes, or text such as \"300M\"",
            Form::Text => "text",
            Form::Path => "a path",
            Form::Codes => "a whole number, or an array of them",
            Form::Account => "a name or a number",
            Form::Filter => "true, the name of a variable, or an array of such",
            Form::Paths => "true, a path, or an array of paths",
        }
    }
}

const fn joint(name: &'static str, aliases: &'static [&'static str]) -> Attribute {
    Attribute { name, aliases, rule: Rule::Joint }
}

const fn same(name: &'static str, form: Form) -> Attribute {
    Attribute { name, aliases: &[], rule: Rule::Key { key: name, form, remark: None } }
}

const fn differs(name: &'static str, form: Form, remark: &'static str) -> Attribute {
    Attribute { name, aliases: &[], rule: Rule::Key { key: name, form, remark: Some(remark) } }
}

const fn aliased(attribute: Attribute, aliases: &'static [&'static str]) -> Attribute {
    Attribute { aliases, ..attribute }
}

const fn renamed(name: &'static str, aliases: &'static [&'static str], key: &'static str) -> Attribute {
    Attribute { name, aliases, rule: Rule::Key { key, form: Form::Account, remark: None } }
}

const fn dropped(name: &'static str, why: &'static str) -> Attribute {
    Attribute { name, aliases: &[], rule: Rule::Dropped(why) }
}

const APM: &str = "PM2's metrics agent; clusterd puts nothing into the app";

/// In the order in which they are written.
pub(super) const ATTRIBUTES: &[Attribute] = &[
    joint("name", &[]),
    joint("name_prefix", &[]),
    joint("namespace", &[]),
    joint("script", &["exec", "cmd", "command"]),
    joint("interpreter", &["exec_interpreter"]),
    joint("node_args", &["interpreter_args"]),
    joint("source_map_support", &[]),
    joint("args", &[]),
    same("cwd", Form::Path),
    joint("exec_mode", &[]),
    joint("execute_command", &[]),
    joint("instances", &[]),
    same("instance_var", Form::Text),
    same("increment_var", Form::Text),
    renamed("uid", &["user"], "user"),
    renamed("gid", &["group"], "group"),
    same("filter_env", Form::Filter),
    same("append_env_to_name", Form::Flag),
    same("kill_timeout", Form::Time),
    same("shutdown_with_message", Form::Flag),
    same("treekill", Form::Flag),
    differs(
        "wait_ready",
        Form::Flag,
        "a worker that does not say so within listen_timeout fails the start or reload; PM2 took it for ready",
    ),
    differs(
        "listen_timeout",
        Form::Time,
        "a worker that is later than this fails the start or reload, and the old ones serve on; PM2 went on \
         all the same: give it the time that it needs",
    ),
    same("autostart", Form::Flag),
    same("autorestart", Form::Flag),
    differs("stop_exit_codes", Form::Codes, "a death by signal does not count as exit code 0"),
    same("min_uptime", Form::Time),
    joint("max_restarts", &[]),
    same("restart_delay", Form::Time),
    joint("exp_backoff_restart_delay", &[]),
    aliased(
        differs(
            "cron_restart",
            Form::Text,
            "an app that was stopped stays so: PM2 would start it at this time",
        ),
        &["cron"],
    ),
    differs(
        "max_memory_restart",
        Form::Size,
        "the worker's whole process tree counts, not its first process alone",
    ),
    joint("watch", &[]),
    differs(
        "ignore_watch",
        Form::Paths,
        "patterns are those of .gitignore, not regular expressions, and come beside what is ignored anyway (dotfiles, \
         node_modules …), of which \"!name\" takes one back",
    ),
    same("watch_delay", Form::Time),
    aliased(same("out_file", Form::Path), &["out", "output", "out_log"]),
    aliased(same("error_file", Form::Path), &["error", "err", "err_file", "err_log"]),
    joint("log_file", &["log"]),
    aliased(same("merge_logs", Form::Flag), &["combine_logs"]),
    same("disable_logs", Form::Flag),
    same("log_type", Form::Text),
    same("log_date_format", Form::Text),
    same("time", Form::Flag),
    aliased(same("pid_file", Form::Path), &["pid"]),
    joint("env", &[]),
    joint("env_file", &[]),
    joint("port", &[]),
    dropped("kill_retry_time", "the kernel tells clusterd of each end; nothing is polled"),
    dropped("watch_options", "they are settings of the library with which PM2 watches files"),
    dropped("force", "an app may have the same script as another one, under a name of its own"),
    dropped("write", "the file that PM2 would write is this one"),
    dropped("install_url", "PM2 only stores it"),
    dropped("windows_hide", "it has an effect on Windows alone"),
    dropped("disable_source_map_support", "source maps are used only when Node is told so"),
    dropped("vizion", "clusterd does not look into git; a release is a folder that cwd names"),
    dropped("post_update", "PM2 runs it after `pm2 pull`, which does not exist here"),
    dropped("automation", APM),
    dropped("pmx", APM),
    dropped("trace", APM),
    dropped("disable_trace", APM),
    dropped("v8", APM),
    dropped("event_loop_inspector", APM),
    dropped("deep_monitoring", APM),
    dropped("io", APM),
    dropped("username", "PM2 fills it in itself; as whom an app runs is said by user"),
];

/// The row of a written key.
pub(super) fn find(written: &str) -> Option<&'static Attribute> {
    let name = snake(written);
    ATTRIBUTES.iter().find(|row| row.name == name || row.aliases.contains(&name.as_str()))
}

/// `killTimeout` → `kill_timeout`.
fn snake(written: &str) -> String {
    let mut out = String::with_capacity(written.len() + 4);
    for c in written.chars() {
        if c.is_ascii_uppercase() && !written.contains('_') {
            out.push('_');
            out.push(c.to_ascii_lowercase());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_means_two_attributes() {
        let mut seen = BTreeSet::new();
        for row in ATTRIBUTES {
            for name in std::iter::once(&row.name).chain(row.aliases) {
                assert!(seen.insert(*name), "{name} is listed twice");
            }
        }
    }

    #[test]
    fn pm2s_spellings_are_found() {
        for (written, name) in
            [("maxMemoryRestart", "max_memory_restart"), ("cmd", "script"), ("errLog", "error_file")]
        {
            assert_eq!(find(written).map(|row| row.name), Some(name), "{written}");
        }
        assert!(find("restart_delai").is_none());
    }
}

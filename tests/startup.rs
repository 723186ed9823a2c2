//! `startup` and `unstartup`: what they write, what they ask of systemd, and what they say where they cannot.
//!
//! A host with systemd is made of a mount namespace, and of a `systemctl` that notes what it is asked for; what
//! systemd itself has to say of the unit is asked of the real `systemd-analyze`.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::daemon::Output;
use support::{Home, ORDINARY, root, runtime, skip};

/// Not root.
fn ordinary() -> Option<u32> {
    root().then_some(ORDINARY)
}

/// A host with systemd: `/run`, `/etc/systemd/system`, and `systemctl`, which fails when it is asked for `refuses`.
struct Booted {
    home: Home,
    units: PathBuf,
    refuses: &'static str,
    /// More variables of the caller's.
    variables: Vec<(&'static str, String)>,
}

impl Booted {
    fn new(user: Option<u32>) -> Option<Booted> {
        if !root() {
            skip("only root can make a host with systemd out of a mount namespace");
            return None;
        }
        let home = Home::new(user);
        let units = home.apps().join("units");
        fs::create_dir(&units).expect("the folder is ours");
        home.put(
            "systemctl",
            "#!/bin/sh\necho \"$@\" >> \"$CALLS\"\ncase \"$1\" in \"$REFUSES\") echo no; exit 1;; esac\n",
        );
        home.put("calls", "");
        fs::set_permissions(home.apps().join("calls"), std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .expect("it is ours");
        Some(Booted { home, units, refuses: "nothing", variables: Vec::new() })
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let apps = self.home.apps();
        let script = format!(
            "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && mkdir -p /etc/systemd/system && \
             mount --bind {} /etc/systemd/system && exec \"$@\"",
            self.units.display()
        );
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]);
        let inner = self.home.command(&[]);
        command.arg(inner.get_program()).args(inner.get_args()).current_dir(&apps).env_clear();
        let path = format!("{}:/usr/bin:/bin", apps.display());
        command.env("PATH", path).env("HOME", self.home.path());
        command.env("CALLS", apps.join("calls")).env("REFUSES", self.refuses);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        self.home.finish(self.home.launch(command, arguments, |_| {}))
    }

    /// What systemctl was asked for since the last look.
    fn calls(&self) -> Vec<String> {
        let path = self.home.apps().join("calls");
        let calls = fs::read_to_string(&path).expect("it is there");
        fs::write(&path, "").expect("it is ours");
        calls.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_unit_of_the_system_is_written_verified_enabled_and_removed() {
    let Some(host) = Booted::new(None) else { return };
    let output = host.run(&["startup"]).expect_code(0);
    let unit = host.units.join("clusterd.service");
    let text = fs::read_to_string(&unit).expect("it was written");
    let binary = host.home.binary();
    assert!(text.contains(&format!("ExecStart=\"{}\" resurrect --foreground\n", binary.display())), "{text}");
    assert!(!text.contains("User=") && !text.contains("CLUSTERD_HOME"), "root has its usual folders: {text}");
    assert!(
        output.stdout.contains("/etc/systemd/system/clusterd.service") && output.stdout.contains("enabled")
    );
    let asked = ["daemon-reload", "enable clusterd.service", "is-enabled clusterd.service"];
    assert_eq!(host.calls(), asked);
    // Again is as good as once.
    host.run(&["startup", "systemd"]).expect_code(0);
    assert_eq!(fs::read_to_string(&unit).expect("it was written"), text);
    host.calls();
    host.run(&["unstartup"]).expect_code(0);
    assert_eq!(host.calls(), ["disable clusterd.service", "daemon-reload"]);
    assert!(!unit.exists());
    let nothing = host.run(&["unstartup"]).expect_code(0);
    assert!(nothing.stdout.contains("there is no"), "{nothing:?}");
    assert!(host.calls().is_empty());
}

#[test]
fn a_unit_for_a_user_has_that_users_folders_and_says_so() {
    let Some(host) = Booted::new(None) else { return };
    host.run(&["startup", "-u", "nobody", "--hp", "/srv/the home", "--json"]).expect_code(0);
    let text = fs::read_to_string(host.units.join("clusterd-nobody.service")).expect("it was written");
    assert!(text.contains("User=nobody\n"), "{text}");
    assert!(text.contains("Environment=\"CLUSTERD_HOME=/srv/the home/.local/state/clusterd\"\n"), "{text}");
    host.run(&["startup", "--service-name", "shop", "--home", "/srv/shop"]).expect_code(0);
    let text = fs::read_to_string(host.units.join("shop.service")).expect("it was written");
    assert!(text.contains("Environment=\"CLUSTERD_HOME=/srv/shop\"\n"), "{text}");
    host.run(&["unstartup", "--service-name", "shop"]).expect_code(0);
    let left = ["shop", "clusterd-nobody"].map(|name| host.units.join(format!("{name}.service")).exists());
    assert_eq!(left, [false, true], "the one that was named");
    host.run(&["startup", "-u", "no-such-user"]).expect_code(1).expect_stderr(&["no such user"]);
    host.run(&["startup", "--service-name", "../x"]).expect_code(2);
}

/// What removes another unit than the one that was written is worse than no word.
#[test]
fn the_way_back_that_is_told_leads_back() {
    for (user, arguments, unit) in [
        (None, &["-u", "nobody", "--hp", "/srv"][..], "clusterd-nobody.service"),
        (None, &["--service-name", "shop"], "shop.service"),
        (None, &["-u", "daemon", "--hp", "/srv", "--service-name", "shop"], "shop.service"),
        (ordinary(), &["--user", "--service-name", "shop"], "shop.service"),
    ] {
        let Some(host) = Booted::new(user) else { return };
        let said = host.run(&[&["startup"], arguments].concat()).expect_code(0).stdout;
        let unit = match user {
            None => host.units.join(unit),
            Some(_) => host.home.path().join(".config/systemd/user").join(unit),
        };
        assert!(unit.exists(), "{said}");
        let whose = fs::read_to_string(&unit).expect("it was written");
        let whose = whose.lines().find_map(|line| line.strip_prefix("User="));
        let whose = whose.unwrap_or(if user.is_some() { "nobody" } else { "root" });
        assert!(said.contains(&format!("`clusterd kill` as {whose},")), "{said}");
        let (_, undo) = said.split_once("undo: clusterd ").expect("it says how");
        let undo: Vec<&str> = undo.lines().next().expect("a line").split(' ').collect();
        host.run(&undo).expect_code(0);
        assert!(!unit.exists(), "{said}");
    }
}

/// Somebody's own unit is not written over, and not removed.
#[test]
fn a_unit_that_is_not_ours_stays_as_it_is() {
    let Some(host) = Booted::new(None) else { return };
    let unit = host.units.join("clusterd.service");
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").expect("it is ours");
    for verb in ["startup", "unstartup"] {
        host.run(&[verb]).expect_code(1).expect_stderr(&["did not write this unit", "--service-name"]);
    }
    assert_eq!(fs::read_to_string(&unit).expect("it is there"), "[Service]\nExecStart=/bin/true\n");
    assert!(host.calls().is_empty());
}

#[test]
fn what_systemd_refuses_is_an_error_that_says_so() {
    let Some(mut host) = Booted::new(None) else { return };
    host.refuses = "enable";
    let failed = host.run(&["startup"]).expect_code(1);
    failed.expect_stderr(&[
        "systemctl enable clusterd.service",
        "no",
        "/etc/systemd/system/clusterd.service",
        "removed",
    ]);
    assert!(
        fs::read_dir(&host.units).expect("a folder").next().is_none(),
        "a unit that nobody enabled stays"
    );
    let asked = ["daemon-reload", "enable clusterd.service", "disable clusterd.service", "daemon-reload"];
    assert_eq!(host.calls(), asked);
}

/// It may be enabled, and bring everything back at the next boot.
#[test]
fn a_unit_that_cannot_be_renewed_is_what_it_was() {
    let Some(mut host) = Booted::new(None) else { return };
    host.run(&["startup", "--home", "/srv/one"]).expect_code(0);
    let unit = host.units.join("clusterd.service");
    let before = fs::read_to_string(&unit).expect("it was written");
    host.refuses = "is-enabled";
    host.calls();
    let failed = host.run(&["startup", "--home", "/srv/two"]).expect_code(1);
    failed.expect_stderr(&["is-enabled", "/etc/systemd/system/clusterd.service", "as it was before"]);
    assert_eq!(fs::read_to_string(&unit).expect("it is there"), before);
    assert!(!host.calls().iter().any(|call| call.starts_with("disable")));
}

/// As PM2 has it.
#[test]
fn without_root_the_command_to_run_is_printed_and_nothing_done() {
    let Some(host) = Booted::new(ordinary()) else { return };
    let output = host.run(&["startup", "--home", "/srv/a b"]).expect_code(1);
    let line = format!("sudo {} startup systemd -u nobody --hp", host.home.binary().display());
    assert!(output.stdout.contains(&line) && output.stdout.contains("--home '/srv/a b'"), "{output:?}");
    assert!(output.stdout.contains("startup --user"), "{output:?}");
    assert!(host.calls().is_empty() && fs::read_dir(&host.units).expect("a folder").next().is_none());
}

#[test]
fn a_unit_of_the_users_own_manager_takes_no_root() {
    let Some(host) = Booted::new(ordinary()) else { return };
    let output = host.run(&["startup", "--user"]).expect_code(0);
    let unit = host.home.path().join(".config/systemd/user/clusterd.service");
    let text = fs::read_to_string(&unit).expect("it was written");
    assert!(text.contains("WantedBy=default.target") && !text.contains("User="), "{text}");
    assert!(output.stdout.contains("loginctl enable-linger nobody"), "{output:?}");
    assert!(host.calls().iter().all(|call| call.starts_with("--user ")));
    host.run(&["unstartup", "--user"]).expect_code(0);
    assert!(!unit.exists());
}

/// What they start and save is there, and a unit has no XDG_STATE_HOME: it would bring nothing back.
#[test]
fn a_user_whose_state_is_elsewhere_gets_a_unit_that_looks_there() {
    let Some(mut host) = Booted::new(ordinary()) else { return };
    let login = host.home.path().display().to_string();
    let usual = format!("{login}/.local/state");
    let unit = host.home.path().join(".config/systemd/user/clusterd.service");
    for (state, home) in
        [("/srv/my state", Some("/srv/my state/clusterd")), (&usual, None), ("relative", None)]
    {
        host.variables = vec![("XDG_STATE_HOME", state.to_owned())];
        let asked = host.run(&["startup", "--json"]).expect_code(1).stdout;
        let asked: serde_json::Value = serde_json::from_str(&asked).expect("one object");
        let run = asked["run"].as_str().expect("a command");
        assert_eq!(run.split_once(" --home ").map(|(_, home)| home.trim_matches('\'')), home, "{run}");
        host.run(&["startup", "--user"]).expect_code(0);
        let text = fs::read_to_string(&unit).expect("it was written");
        let line = text.lines().find_map(|line| line.strip_prefix("Environment=\"CLUSTERD_HOME="));
        assert_eq!(line.map(|home| home.trim_matches('"')), home, "{text}");
    }
    // What is said counts, and another user's state is not where ours is.
    host.variables = vec![("XDG_STATE_HOME", "/srv/state".to_owned())];
    for arguments in [&["startup", "-u", "daemon"][..], &["startup", "--hp", "/srv/login"]] {
        let asked = host.run(arguments).expect_code(1).stdout;
        assert!(!asked.contains("--home"), "{asked}");
    }
    let asked = host.run(&["startup", "--home", "/srv/other"]).expect_code(1).stdout;
    assert!(asked.contains("--home /srv/other") && !asked.contains("/srv/state"), "{asked}");
}

/// It exits with 0 for keys that it does not know: nothing may be said.
#[test]
fn systemd_has_nothing_to_say_of_the_units() {
    let (Some(analyze), Some(host)) = (runtime("systemd-analyze"), Booted::new(None)) else { return };
    for (arguments, name) in
        [(&["startup"][..], "clusterd"), (&["startup", "-u", "daemon", "--hp", "/srv"], "clusterd-daemon")]
    {
        host.run(arguments).expect_code(0);
        let unit = host.units.join(format!("{name}.service"));
        let output = std::process::Command::new(&analyze).arg("verify").arg(&unit).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let about: Vec<&str> = said.lines().filter(|line| line.contains(name)).collect();
        assert!(output.status.success() && about.is_empty(), "{said}");
    }
}

#[test]
fn another_init_system_is_refused_with_what_to_do_instead() {
    let home = Home::new(None);
    let other = home.run(&["startup", "upstart"]).expect_code(1);
    assert!(
        other.stderr.contains("only systemd") && other.stderr.contains("resurrect --foreground"),
        "{other:?}"
    );
    if Path::new("/run/systemd/system").is_dir() {
        return skip("this host was booted with systemd");
    }
    for verb in ["startup", "unstartup"] {
        let none = home.run(&[verb]).expect_code(1);
        assert!(
            none.stderr.contains("not booted with systemd") && none.stderr.contains("@reboot"),
            "{none:?}"
        );
    }
}

//! The systemd units: the one that `startup` writes, and the one of packages. Facts in, text out.

use std::fmt::Write as _;
use std::path::Path;

use super::output::Failure;

/// The first line of every unit that is ours: no other file is written over, or removed.
pub(super) const MARK: &str = "# Written by `clusterd startup`, removed by `clusterd unstartup`.";

/// Whose manager starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    /// The system's, at boot.
    System,
    /// The user's own, at the first login, or at boot for users that linger.
    User,
}

/// What a unit is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit<'a> {
    /// This program, absolute.
    pub(super) program: &'a Path,
    /// Whose.
    pub(super) manager: Manager,
    /// As whom the system's manager runs it.
    pub(super) user: &'a str,
    /// What CLUSTERD_HOME is to be, absolute; none for the usual folders.
    pub(super) home: Option<&'a Path>,
}

/// The whole file.
///
/// # Errors
/// Of usage: a path or name that cannot stand in a unit.
pub(super) fn text(unit: &Unit<'_>) -> Result<String, Failure> {
    let program = quoted(unit.program, true)?;
    let user = name(unit.user)?;
    let mut text = head(MARK, &format!("the apps of {user}"), "");
    if unit.manager == Manager::System && user != "root" {
        let _ = writeln!(text, "User={user}");
    }
    if let Some(home) = unit.home {
        let home = quoted(home, false)?;
        // The quotes are around all of it.
        let _ = writeln!(text, "Environment=\"CLUSTERD_HOME={}", &home[1..]);
    }
    text += &service(RESURRECT, &program);
    if unit.manager == Manager::System {
        text += LIMITS;
    }
    text += OUTPUT;
    text += match unit.manager {
        Manager::System => "\n[Install]\nWantedBy=multi-user.target\n",
        Manager::User => "\n[Install]\nWantedBy=default.target\n",
    };
    Ok(text)
}

/// The unit of packages: one supervisor of this host, as a user of its own, with what systemd can keep from it and its
/// workers without keeping them from their work. The folders are those where root's `clusterd` looks.
pub fn packaged() -> String {
    let documentation = "Documentation=man:clusterd(1) man:ecosystem.toml(5)\n";
    let mut text = head("# The unit of clusterd's package.", "the apps of this host", documentation);
    text += "User=clusterd\n\
             Group=clusterd\n\
             RuntimeDirectory=clusterd\n\
             RuntimeDirectoryMode=0700\n\
             RuntimeDirectoryPreserve=restart\n\
             StateDirectory=clusterd\n\
             StateDirectoryMode=0700\n\
             LogsDirectory=clusterd\n\
             LogsDirectoryMode=0750\n";
    text += &service(RESURRECT, PROGRAM);
    text += LIMITS;
    text += OUTPUT;
    text + HARDENING + "\n[Install]\nWantedBy=multi-user.target\n"
}

/// The template of packages: one supervisor for each ecosystem file, which is all that it runs: nothing is saved or
/// brought back, so that file and unit say everything.
pub fn instance() -> String {
    let documentation = "Documentation=man:clusterd(1) man:ecosystem.toml(5)\n\
                         AssertPathExists=/etc/clusterd/%i.toml\n";
    let mark = "# One supervisor for each ecosystem file: clusterd@shop.service runs /etc/clusterd/shop.toml.\n\
                # Talk to it: clusterd --home /run/clusterd@shop list";
    let mut text = head(mark, "the apps of %i.toml", documentation);
    text += "User=clusterd\n\
             Group=clusterd\n\
             RuntimeDirectory=clusterd@%i\n\
             RuntimeDirectoryMode=0700\n\
             RuntimeDirectoryPreserve=restart\n\
             StateDirectory=clusterd@%i\n\
             StateDirectoryMode=0700\n\
             LogsDirectory=clusterd@%i\n\
             LogsDirectoryMode=0750\n";
    text += &service("/etc/clusterd/%i.toml", PROGRAM);
    text += LIMITS;
    text += OUTPUT;
    text + HARDENING + "\n[Install]\nWantedBy=multi-user.target\n"
}

/// The same as `startup --user` writes, for the program of a package: whoever wants it enables it.
pub fn packaged_for_users() -> String {
    let documentation = "Documentation=man:clusterd(1) man:ecosystem.toml(5)\n";
    let mark = "# The unit of clusterd's package for users: systemctl --user enable --now clusterd";
    let mut text = head(mark, "the apps of %u", documentation);
    text += &service(RESURRECT, PROGRAM);
    text += OUTPUT;
    text + "\n[Install]\nWantedBy=default.target\n"
}

/// An example: systemd holds the port from the boot on, whatever becomes of the supervisor.
pub fn socket() -> String {
    "# An example: systemd holds the port of clusterd@shop.service, from the boot on and also while that is restarted or\n\
     # is down: who connects then waits and is served after it.\n\
     # It is for the entry of `listen` with this address; or, if it has this name, for the one with that.\n\
     \n\
     [Unit]\n\
     Description=The port of the apps of shop.toml\n\
     \n\
     [Socket]\n\
     Service=clusterd@shop.service\n\
     ListenStream=8080\n\
     FileDescriptorName=http\n\
     Backlog=511\n\
     \n\
     [Install]\n\
     WantedBy=sockets.target\n"
        .to_owned()
}

/// Where packages put the program.
const PROGRAM: &str = "/usr/bin/clusterd";

/// What ran before comes back.
const RESURRECT: &str = "resurrect --foreground";

/// Up to the first lines of the service.
fn head(mark: &str, what: &str, more: &str) -> String {
    format!(
        "{mark}\n# What is to differ belongs beside it: systemctl edit.\n\n\
         [Unit]\n\
         Description=clusterd: {what}\n\
         {more}\
         # An address that is not there yet is waited for.\n\
         After=network.target\n\
         # It is tried again for as long as it takes.\n\
         StartLimitIntervalSec=0\n\n\
         [Service]\n\
         # It says when everything has started, reloads and ends, and that it goes on.\n\
         Type=notify\n\
         NotifyAccess=main\n\
         WatchdogSec=180\n"
    )
}

/// What runs, and how it ends. The program is quoted already.
///
/// A reload is a command, which waits for its end and says whether it failed: `Type=notify-reload` (systemd 253) would
/// send SIGHUP, which is understood and answered as well, but take any end of it for a good one.
fn service(what: &str, program: &str) -> String {
    format!(
        "ExecStart={program} {what}\n\
         # Waits for the end, and fails when an app keeps its old generation.\n\
         ExecReload={program} reload all\n\
         # SIGTERM goes to clusterd alone, which drains every app within its shutdown_timeout.\n\
         KillMode=mixed\n\
         TimeoutStopSec=90\n\
         Restart=on-failure\n\
         RestartSec=1\n\
         # A worker that runs out of memory is clusterd's matter.\n\
         OOMPolicy=continue\n\
         # Each worker gets a control group of its own, below that of the unit.\n\
         Delegate=yes\n"
    )
}

const LIMITS: &str = "# The first one is what workers get.\nLimitNOFILE=1024:1048576\nTasksMax=infinity\n";

/// By default standard error goes where standard output does.
const OUTPUT: &str = "# What workers print is in their log files; errors, theirs too, are in the journal.\n\
                      StandardOutput=null\nStandardError=journal\n";

/// Workers inherit all of it: nothing here that a runtime (V8, JVM) or a usual server would miss. Left out are
/// MemoryDenyWriteExecute (compilers at run time), ProcSubset and ProtectProc (memory and CPU time are read there),
/// ProtectControlGroups (each worker has its group), RestrictNamespaces (workers of their own), ProtectHome (apps below
/// home folders).
const HARDENING: &str = "# Workers inherit what follows. For ports below 1024: AmbientCapabilities= and CapabilityBoundingSet=\n\
                         # CAP_NET_BIND_SERVICE. For apps with `user`: User=root, Group=root, and no bounding set.\n\
                         CapabilityBoundingSet=\n\
                         NoNewPrivileges=yes\n\
                         UMask=0077\n\
                         KeyringMode=private\n\
                         ProtectSystem=full\n\
                         PrivateTmp=yes\n\
                         PrivateDevices=yes\n\
                         ProtectClock=yes\n\
                         ProtectHostname=yes\n\
                         ProtectKernelLogs=yes\n\
                         ProtectKernelModules=yes\n\
                         ProtectKernelTunables=yes\n\
                         LockPersonality=yes\n\
                         RestrictRealtime=yes\n\
                         RestrictSUIDSGID=yes\n\
                         RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n\
                         SystemCallArchitectures=native\n";

/// In quotes, with nothing in it that systemd would take for something else (systemd.syntax(7)). `command`: in a
/// command line dollars mean variables.
fn quoted(path: &Path, command: bool) -> Result<String, Failure> {
    let refused = |why: &str| Failure::usage(format_args!("{}: {why}", path.display()));
    let text = path.to_str().ok_or_else(|| refused("a path that is not UTF-8 cannot stand in a unit"))?;
    if !path.is_absolute() || text.contains(char::is_control) {
        return Err(refused("only an absolute path without control characters can stand in a unit"));
    }
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '%' => quoted += "%%",
            '$' if command => quoted += "$$",
            other => quoted.push(other),
        }
    }
    Ok(quoted + "\"")
}

/// A name of an account, or of a unit.
pub(super) fn name(name: &str) -> Result<&str, Failure> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_name =
        (1..=64).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with(['-', '.']);
    let wrong = || {
        Failure::usage(format_args!(
            "{}: a name has 1 to 64 letters, digits, dots, dashes and underscores here, and does not begin with a dot \
             or a dash",
            name.escape_debug()
        ))
    };
    if is_name { Ok(name) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit<'a>(manager: Manager, user: &'a str, home: Option<&'a str>) -> Unit<'a> {
        Unit { program: Path::new("/usr/local/bin/clusterd"), manager, user, home: home.map(Path::new) }
    }

    #[test]
    fn the_units_are_these() {
        for (unit, golden) in [
            (unit(Manager::System, "root", None), include_str!("../../tests/units/root.service")),
            (
                unit(Manager::System, "deploy", Some("/home/deploy/.local/state/clusterd")),
                include_str!("../../tests/units/deploy.service"),
            ),
            (unit(Manager::User, "deploy", None), include_str!("../../tests/units/user.service")),
        ] {
            let text = text(&unit).expect("plain names");
            assert_eq!(text, golden, "\n{text}");
        }
    }

    #[test]
    fn what_systemd_would_take_for_something_else_is_spelt_out() {
        let odd = Unit {
            program: Path::new("/opt/50%/a \"b\"/$c\\d"),
            ..unit(Manager::System, "root", Some("/srv/$x %h"))
        };
        let text = text(&odd).expect("paths");
        assert!(text.contains("ExecStart=\"/opt/50%%/a \\\"b\\\"/$$c\\\\d\" resurrect"), "{text}");
        assert!(text.contains("Environment=\"CLUSTERD_HOME=/srv/$x %%h\"\n"), "{text}");
        for (program, user) in
            [("clusterd", "root"), ("/a\nExecStart=/b", "root"), ("/a", "x\ny"), ("/a", "")]
        {
            let refused = Unit { program: Path::new(program), ..unit(Manager::System, user, None) };
            assert_eq!(super::text(&refused).expect_err("refused").code(), 2, "{program:?} {user:?}");
        }
    }

    #[test]
    fn a_name_stays_within_its_folder() {
        for wrong in ["", ".", "..", "a/b", "-x", "a b", "a@b", "ä", &"x".repeat(65)] {
            assert_eq!(name(wrong).expect_err("refused").code(), 2, "{wrong:?}");
        }
        assert_eq!(name("clusterd-deploy.2").expect("a name"), "clusterd-deploy.2");
    }
}

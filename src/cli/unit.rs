//! The systemd units: the one that `startup` writes, and the one of packages. Facts in, text out.

use std::fmt::Write as _;
use std::path::Path;

use super::output::Failure;
use crate::export::unit::{self, HARDENING, LIMITS, OUTPUT, head};

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
    text += &unit::service(RESURRECT, &program, STOP);
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
    text += &unit::service(RESURRECT, PROGRAM, STOP);
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
    text += &unit::service("/etc/clusterd/%i.toml", PROGRAM, STOP);
    text += LIMITS;
    text += OUTPUT;
    text + HARDENING + "\n[Install]\nWantedBy=multi-user.target\n"
}

/// The same as `startup --user` writes, for the program of a package: whoever wants it enables it.
pub fn packaged_for_users() -> String {
    let documentation = "Documentation=man:clusterd(1) man:ecosystem.toml(5)\n";
    let mark = "# The unit of clusterd's package for users: systemctl --user enable --now clusterd";
    let mut text = head(mark, "the apps of %u", documentation);
    text += &unit::service(RESURRECT, PROGRAM, STOP);
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

/// For files that may say what they will.
const STOP: (u64, &str) = (90, "");

/// What ran before comes back.
const RESURRECT: &str = "resurrect --foreground";

/// In quotes, with nothing in it that systemd would take for something else (systemd.syntax(7)). `command`: in a
/// command line dollars mean variables.
fn quoted(path: &Path, command: bool) -> Result<String, Failure> {
    let refused = |why: &str| Failure::usage(format_args!("{}: {why}", path.display()));
    let text = path.to_str().ok_or_else(|| refused("a path that is not UTF-8 cannot stand in a unit"))?;
    if !path.is_absolute() || text.contains(char::is_control) {
        return Err(refused("only an absolute path without control characters can stand in a unit"));
    }
    let quoted = unit::quoted(text);
    Ok(if command { quoted } else { quoted.replace("$$", "$") })
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

//! Which folders a supervisor lives in, and whether they are safe to live in. Where it lives is a pure
//! function of what the caller was given; only [`Home::create`] touches the disk.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use thiserror::Error;

use crate::sys::route::{self, Place, Route};
use crate::sys::{rights, socket};

/// The shortest that there is of a wait for a place in a queue.
const NO_WAIT: Duration = Duration::from_millis(1);

/// How the name of a temporary home begins.
const TEMPORARY: &[u8] = b"clusterd-";

/// The folders of one supervisor. Two supervisors of one home exclude each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// What lives as long as the supervisor: sockets and lock.
    pub runtime: PathBuf,
    /// What survives it: by default the logs are below it.
    pub state: PathBuf,
    /// Log files, where `log_dir` does not say otherwise.
    pub logs: PathBuf,
}

/// Where a home comes from.
pub struct Given<'a> {
    /// `--home DIR`.
    pub home: Option<&'a Path>,
    /// A variable of the environment; an empty one counts as unset.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The effective user id.
    pub uid: u32,
    /// The folder that a relative home starts from, absolute.
    pub cwd: &'a Path,
    /// Whether a folder is there (asked for `/run/user/UID` only).
    pub is_folder: &'a dyn Fn(&Path) -> bool,
}

/// Why there is no home.
#[derive(Debug, Error)]
pub enum HomeError {
    /// Nothing says where.
    #[error("no home: neither CLUSTERD_HOME, XDG_STATE_HOME nor HOME is set; give one with --home DIR")]
    Nowhere,
    /// It cannot be made, or not be looked at.
    #[error("{}: cannot make this folder: {cause}", path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// As root: another user could replace what we write there.
    #[error(
        "{}: {who} can write here (mode {mode:03o}), so a supervisor that runs as root must not; \
         make it root's with mode 700, or choose another folder with {choice}",
        path.display()
    )]
    Unsafe {
        /// Which.
        path: PathBuf,
        /// Who they are.
        who: Who,
        /// Its permission bits.
        mode: u32,
        /// By what another one is chosen.
        choice: &'static str,
    },
}

impl Home {
    /// The home that the caller means: `--home` or CLUSTERD_HOME holds everything; else systemd's folders,
    /// else root's, else those of the XDG base directory specification, each for itself.
    pub fn find(given: &Given<'_>) -> Result<Home, HomeError> {
        let variable = |name: &str| (given.variable)(name).filter(|value| !value.is_empty());
        let whole = given.home.map(Path::to_owned).or_else(|| variable("CLUSTERD_HOME").map(PathBuf::from));
        if let Some(folder) = whole {
            return Ok(Home::whole(given.cwd.join(folder)));
        }
        let systemd = |name: &str| variable(name).as_ref().and_then(first_folder);
        let state = || match given.uid {
            0 => Ok(PathBuf::from("/var/lib/clusterd")),
            _ => user_state(&variable).ok_or(HomeError::Nowhere),
        };
        let runtime = || match given.uid {
            0 => Ok(PathBuf::from("/run/clusterd")),
            uid => user_runtime(&variable, uid, given.is_folder).map_or_else(state, Ok),
        };
        let logs = || match given.uid {
            0 => Ok(PathBuf::from("/var/log/clusterd")),
            _ => state().map(|state| state.join("logs")),
        };
        Ok(Home {
            runtime: systemd("RUNTIME_DIRECTORY").map_or_else(runtime, Ok)?,
            state: systemd("STATE_DIRECTORY").map_or_else(state, Ok)?,
            logs: systemd("LOGS_DIRECTORY").map_or_else(logs, Ok)?,
        })
    }

    /// The temporary home that a supervisor of this user lives in, if there is but one: nobody else can have made
    /// such a folder, nor put anything into it.
    pub fn temporary_of(uid: u32, places: &[&Path]) -> Option<Home> {
        let entries = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(TEMPORARY));
        let ours = |entry: &fs::DirEntry| {
            let found = entry.metadata();
            found.is_ok_and(|found| found.is_dir() && found.uid() == uid && found.mode() & 0o077 == 0)
        };
        // The same place may be given twice.
        let folders: BTreeSet<PathBuf> = named.filter(ours).map(|entry| entry.path()).collect();
        let mut homes = folders.into_iter().map(Home::whole).filter(Home::is_heard);
        homes.next().filter(|_| homes.next().is_none())
    }

    /// The home of a supervisor that has all its folders where this one has its state, if one runs there.
    pub fn in_state(&self) -> Option<Home> {
        Some(Home::whole(self.state.clone())).filter(|home| home.runtime != self.runtime && home.is_heard())
    }

    /// Whether somebody listens there: one that was killed leaves its socket behind.
    pub fn is_heard(&self) -> bool {
        match socket::connect(&self.socket(), NO_WAIT) {
            Ok(_) => true,
            // So many wait for it.
            Err(error) => error.kind() == io::ErrorKind::TimedOut,
        }
    }

    fn whole(folder: PathBuf) -> Home {
        Home { logs: folder.join("logs"), state: folder.clone(), runtime: folder }
    }

    /// By what `--home` or CLUSTERD_HOME this home is found from elsewhere; none for the usual ones, which are found
    /// without.
    pub fn named(&self) -> Option<&Path> {
        (self.runtime == self.state).then_some(self.runtime.as_path())
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("clusterd.sock")
    }

    /// The lock that a running supervisor holds.
    pub fn lock(&self) -> PathBuf {
        self.runtime.join("clusterd.lock")
    }

    /// That of the state folder, where it is another one.
    pub fn state_lock(&self) -> Option<PathBuf> {
        (self.state != self.runtime).then(|| self.state.join("clusterd.lock"))
    }

    /// The socket that workers report their readiness to.
    pub fn notify(&self) -> PathBuf {
        self.runtime.join("notify.sock")
    }

    /// Where each worker's process id is written, unless the file names another place.
    pub fn pids(&self) -> PathBuf {
        self.runtime.join("pids")
    }

    /// The apps that a supervisor without a file is to run, written at every change.
    pub fn apps(&self) -> PathBuf {
        self.state.join("apps.json")
    }

    /// Those of the supervisor before, as long as this one has not brought them back.
    pub fn earlier_apps(&self) -> PathBuf {
        self.state.join("apps.earlier.json")
    }

    /// The apps that `clusterd save` wrote down.
    pub fn dump(&self) -> PathBuf {
        self.state.join("dump.json")
    }

    /// What `clusterd save` wrote down the time before.
    pub fn dump_backup(&self) -> PathBuf {
        self.state.join("dump.json.bak")
    }

    /// What a background supervisor says.
    pub fn log(&self) -> PathBuf {
        self.logs.join("clusterd.log")
    }

    /// Makes the folders that are missing, with mode 0700. Modes of those that exist are not changed. Without one
    /// for its state that goes to the runtime folder; why, and why there is none for logs, is the answer.
    pub fn create(&mut self) -> Result<Vec<HomeError>, HomeError> {
        make(&self.runtime)?;
        // Without a socket there is nothing to be supervised by, whoever made the folder once.
        writable(&self.runtime)?;
        let mut missing = Vec::new();
        if let Err(error) = make(&self.state) {
            missing.push(error);
            self.state = self.runtime.clone();
        }
        missing.extend(make(&self.logs).err());
        Ok(missing)
    }

    /// Makes the folder of sockets and lock again, where somebody removed it.
    pub fn create_runtime(&self) -> Result<(), HomeError> {
        make(&self.runtime)
    }

    /// A home in a fresh folder of its own, for want of a better one: in the first of these that lets us.
    pub fn temporary(places: &[&Path]) -> Option<Home> {
        let fresh = |place: &&Path| nix::unistd::mkdtemp(&place.join("clusterd-XXXXXX")).ok();
        places.iter().filter(|place| place.is_absolute()).find_map(fresh).map(Home::whole)
    }

    /// As root: refuses folders that another user could write to, or could exchange for others by
    /// writing to a folder above. For other users there is nothing to gain, and nothing is refused.
    pub fn check(&self, uid: u32) -> Result<(), HomeError> {
        let outside = unmapped_user();
        let check = |folder| check_folder(folder, outside, "--home DIR");
        let mut folders = self.folders().into_iter().filter(|folder| folder.exists());
        if uid == 0 { folders.try_for_each(check) } else { Ok(()) }
    }

    fn folders(&self) -> [&Path; 3] {
        [&self.runtime, &self.state, &self.logs]
    }
}

impl Home {
    /// With its state in the folder that the ecosystem file names, which is made, and refused as [`Home::check`] does.
    ///
    /// # Errors
    /// As [`Home::create`] and [`Home::check`].
    pub fn with_state(self, folder: &Path, uid: u32) -> Result<Home, HomeError> {
        make(folder)?;
        if uid == 0 {
            check_folder(folder, unmapped_user(), "state_dir")?;
        }
        Ok(Home { state: folder.to_owned(), ..self })
    }

    /// Where the supervisor before this one had its state, where that was elsewhere: what it left behind is known
    /// there. As root only where nobody else could say who is to be ended.
    pub fn earlier_state(&self, uid: u32) -> Option<PathBuf> {
        let noted = fs::read(self.state_note()).map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
        // Who had everything in one folder noted nothing.
        let folder = noted.unwrap_or_else(|_| self.runtime.clone());
        let known = folder.is_absolute() && folder != self.state;
        let safe = |folder: &Path| uid != 0 || check_folder(folder, unmapped_user(), "state_dir").is_ok();
        Some(folder).filter(|folder| known && safe(folder))
    }

    /// Says so to the next one: the runtime folder is the same for both, whatever their files say.
    ///
    /// # Errors
    /// What the system said.
    pub fn note_state(&self) -> io::Result<()> {
        let (path, new) = (self.state_note(), self.state_note().with_extension("folder.new"));
        if self.named().is_some() {
            let gone = fs::remove_file(&path);
            return gone
                .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) });
        }
        fs::write(&new, self.state.as_os_str().as_encoded_bytes())?;
        fs::rename(&new, &path)
    }

    fn state_note(&self) -> PathBuf {
        self.runtime.join("state.folder")
    }
}

/// Makes the folder of log files that the ecosystem file names, and refuses it as [`Home::check`] does: who can
/// exchange a file there has root append to another one.
///
/// # Errors
/// As [`Home::create`] and [`Home::check`].
pub fn log_folder(folder: &Path, uid: u32) -> Result<(), HomeError> {
    let made = DirBuilder::new().recursive(true).mode(0o750).create(folder);
    made.map_err(|cause| HomeError::Create { path: folder.to_owned(), cause })?;
    if uid == 0 { check_folder(folder, unmapped_user(), "log_dir") } else { Ok(()) }
}

fn make(folder: &Path) -> Result<(), HomeError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|cause| HomeError::Create { path: folder.to_owned(), cause })
}

fn writable(folder: &Path) -> Result<(), HomeError> {
    rights::may_make_in(folder).map_err(|cause| HomeError::Create { path: folder.to_owned(), cause })
}

/// systemd separates several folders by colons; the first is ours.
fn first_folder(list: &OsString) -> Option<PathBuf> {
    std::env::split_paths(list).next().filter(|path| path.is_absolute())
}

/// The state folder of a user who is not root and names no home. An empty variable is to be an unset one.
pub fn user_state(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let xdg = variable("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = xdg.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".local/state")));
    base.map(|base| base.join("clusterd"))
}

/// cron and `sudo -u` set no XDG_RUNTIME_DIR: without a look at its usual place they would not find the
/// supervisor that was started at a login.
fn user_runtime(
    variable: &dyn Fn(&str) -> Option<OsString>,
    uid: u32,
    is_folder: &dyn Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let usual = || Some(PathBuf::from(format!("/run/user/{uid}"))).filter(|path| is_folder(path));
    let xdg = variable("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    xdg.or_else(usual).map(|base| base.join("clusterd"))
}

/// The number that users show as who are outside of our user namespace, when nobody inside has it
/// (user_namespaces(7)). In a rootless container the host's root is one of them. A map is written once, and before
/// the first program of a namespace does anything of use: it is read once, not for each log file of each start.
fn unmapped_user() -> Option<u32> {
    static NUMBER: OnceLock<Option<u32>> = OnceLock::new();
    *NUMBER.get_or_init(|| {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let number = read("/proc/sys/kernel/overflowuid").trim().parse().ok()?;
        (!is_mapped(&read("/proc/self/uid_map"), number)).then_some(number)
    })
}

/// Lines of first number inside, first outside, and how many. Without a map all numbers are what they are.
fn is_mapped(map: &str, number: u32) -> bool {
    let covers = |line: &str| {
        let words: Vec<u64> = line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        matches!(words[..], [first, _, count] if (first..first + count).contains(&u64::from(number)))
    };
    map.trim().is_empty() || map.lines().any(covers)
}

fn check_folder(folder: &Path, outside: Option<u32>, choice: &'static str) -> Result<(), HomeError> {
    let fail = |cause| HomeError::Create { path: folder.to_owned(), cause };
    let intruders = route::walk(folder).map(|route| of_folder(route, outside)).map_err(fail)?;
    match intruders.into_iter().next() {
        Some(Intruder { path, who, mode, .. }) => Err(HomeError::Unsafe { path, who, mode, choice }),
        None => Ok(()),
    }
}

/// Who could put something else where root is about to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intruder {
    /// The folder that they can write to, or the link that is theirs.
    pub path: PathBuf,
    /// Who they are.
    pub who: Who,
    /// Its permission bits.
    pub mode: u32,
    /// They can lead the path elsewhere, rather than put a link or a file of theirs under its last name only.
    pub leads: bool,
}

/// Those who can write to a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// It is this user's.
    User(u32),
    /// Members of its group.
    Group(u32),
    /// Everybody.
    Any,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::User(uid) => write!(f, "user {uid}"),
            Who::Group(gid) => write!(f, "group {gid}"),
            Who::Any => f.write_str("any user"),
        }
    }
}

/// Who, other than root, could lead a name in this folder elsewhere: by writing there, to a folder above, or to one
/// that a link on the way to it lies in. Of a folder that is not there yet, in the one that it would be made in.
/// Empty: nobody can, and nobody but root can change that.
///
/// # Errors
/// The errno of looking at the folder or at one on the way.
pub fn intruders(folder: &Path) -> io::Result<Vec<Intruder>> {
    Ok(of_folder(route::walk(folder)?, unmapped_user()))
}

/// The same of a file. Whoever can write to nothing but the folder that it is in cannot lead the path elsewhere, unless
/// a link is followed that has the file's name.
///
/// # Errors
/// As [`intruders`].
pub fn file_intruders(file: &Path) -> io::Result<Vec<Intruder>> {
    Ok(of_file(&route::walk(file)?, unmapped_user()))
}

fn of_file(route: &Route, outside: Option<u32>) -> Vec<Intruder> {
    let mut found = on_the_way(route, outside);
    let Some(last) = route.folders.last() else { return found };
    let in_last = |intruder: &Intruder| intruder.path == last.path;
    if route.missing > 1 {
        // It is above the folder that will be made, where a group may write.
        found.retain(|intruder| !in_last(intruder) || !matches!(intruder.who, Who::Group(_)));
    } else if !route.ends_in_link && is_settled(route, last) {
        found.iter_mut().filter(|intruder| in_last(intruder)).for_each(|intruder| intruder.leads = false);
    }
    found
}

/// Whether who can write to this folder, and to none above, cannot put another in its place. In a sticky folder each
/// can rename what is its own.
fn is_settled(route: &Route, folder: &Place) -> bool {
    let is_own = |above: &Place| {
        let is_above = Some(&*above.path) == folder.path.parent();
        is_above && above.metadata.mode() & STICKY != 0 && folder.metadata.uid() != 0
    };
    let times = route.folders.iter().filter(|other| other.path == folder.path).count();
    times == 1 && !route.folders.iter().any(is_own)
}

fn of_folder(mut route: Route, outside: Option<u32>) -> Vec<Intruder> {
    let found = route.found.take();
    route.folders.extend(found.map(|metadata| Place { path: route.end.clone(), metadata }));
    on_the_way(&route, outside)
}

fn on_the_way(route: &Route, outside: Option<u32>) -> Vec<Intruder> {
    let mut found: Vec<Intruder> = Vec::new();
    let mut add = |place: &Place, who| {
        let (path, mode) = (place.path.clone(), place.metadata.mode() & 0o7777);
        let intruder = Intruder { path, who, mode, leads: true };
        if !found.contains(&intruder) {
            found.push(intruder);
        }
    };
    // The nearest first, which is the one that people know about.
    for (depth, place) in route.folders.iter().rev().enumerate() {
        writers(&place.metadata, depth == 0, outside).into_iter().for_each(|who| add(place, who));
    }
    for link in &route.links {
        let folder = route.folders.iter().find(|folder| link.path.parent() == Some(&folder.path));
        let owner = link.metadata.uid();
        if owner != 0 && folder.is_some_and(|folder| folder.metadata.mode() & STICKY != 0) {
            add(link, Who::User(owner));
        }
    }
    found
}

/// In such a folder nobody can rename or remove what is another's.
const STICKY: u32 = 0o1000;

/// Who, other than root, can write into this folder. Above our own, a group may (`/var/log` is `syslog`'s on
/// Ubuntu), and so may all in a sticky one; and it may belong to somebody `outside` of our user namespace, who made
/// the namespace's world.
fn writers(metadata: &Metadata, ours: bool, outside: Option<u32>) -> Vec<Who> {
    let (mode, uid) = (metadata.mode(), metadata.uid());
    let mut who = Vec::new();
    if uid != 0 && (ours || Some(uid) != outside) {
        who.push(Who::User(uid));
    }
    if mode & 0o002 != 0 && (ours || mode & STICKY == 0) {
        who.push(Who::Any);
    }
    if ours && mode & 0o020 != 0 {
        who.push(Who::Group(metadata.gid()));
    }
    who
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn find(home: Option<&str>, variables: &[(&str, &str)], uid: u32) -> Result<Home, HomeError> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        Home::find(&Given {
            home: home.map(Path::new),
            variable: &variable,
            uid,
            cwd: Path::new("/here"),
            is_folder: &|path| path == Path::new("/run/user/1000"),
        })
    }

    fn home(runtime: &str, state: &str, logs: &str) -> Home {
        Home { runtime: runtime.into(), state: state.into(), logs: logs.into() }
    }

    #[test]
    fn one_folder_holds_everything_when_it_is_named() {
        let wanted = home("/srv/c", "/srv/c", "/srv/c/logs");
        let others = ("RUNTIME_DIRECTORY", "/run/x");
        assert_eq!(find(Some("/srv/c"), &[("CLUSTERD_HOME", "/other"), others], 0).unwrap(), wanted);
        assert_eq!(find(None, &[("CLUSTERD_HOME", "/srv/c"), others], 1000).unwrap(), wanted);
        assert_eq!(find(Some("c"), &[], 1000).unwrap().runtime, Path::new("/here/c"));
        assert_eq!(find(None, &[("CLUSTERD_HOME", "")], 0).unwrap().runtime, Path::new("/run/clusterd"));
    }

    #[test]
    fn systemds_folders_come_before_roots_and_each_counts_for_itself() {
        let variables = [("RUNTIME_DIRECTORY", "/run/c:/run/d"), ("STATE_DIRECTORY", "/var/lib/c")];
        assert_eq!(find(None, &variables, 0).unwrap(), home("/run/c", "/var/lib/c", "/var/log/clusterd"));
    }

    #[test]
    fn root_and_users_have_their_usual_places() {
        assert_eq!(
            find(None, &[], 0).unwrap(),
            home("/run/clusterd", "/var/lib/clusterd", "/var/log/clusterd")
        );
        let state = "/home/u/.local/state/clusterd";
        let logs = "/home/u/.local/state/clusterd/logs";
        let user = |variables: &[(&str, &str)], uid| {
            find(None, &[&[("HOME", "/home/u")], variables].concat(), uid).unwrap()
        };
        assert_eq!(user(&[("XDG_RUNTIME_DIR", "/r")], 1000), home("/r/clusterd", state, logs));
        assert_eq!(user(&[], 1000), home("/run/user/1000/clusterd", state, logs));
        assert_eq!(user(&[], 1001), home(state, state, logs));
        assert_eq!(user(&[("XDG_STATE_HOME", "relative")], 1001), home(state, state, logs));
        assert!(matches!(find(None, &[], 1000), Err(HomeError::Nowhere)));
    }

    #[test]
    fn folders_are_made_private_and_kept_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let mut home = Home { runtime: path.clone(), state: path.clone(), logs: path.join("logs") };
        assert!(home.create().unwrap().is_empty());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&home.runtime), mode(&home.logs)), (0o700, 0o700));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        home.create().unwrap();
        assert_eq!(mode(&path), 0o750);
    }

    #[test]
    fn only_the_runtime_folder_must_be() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let never = |name: &str| Path::new("/proc/self/nowhere").join(name);
        let mut home = Home { runtime: run.clone(), state: never("lib"), logs: never("log") };
        let missing: Vec<String> = home.create().unwrap().iter().map(ToString::to_string).collect();
        assert!(missing.len() == 2 && missing[0].contains("nowhere/lib"), "{missing:?}");
        assert_eq!((&home.state, &home.logs), (&run, &never("log")));
        home.check(1000).unwrap();
        let mut nowhere = Home { runtime: never("run"), state: run, logs: folder.path().join("log") };
        nowhere.create().unwrap_err();
    }

    #[test]
    fn a_temporary_home_is_private_and_in_the_first_place_that_lets_us() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::temporary(&[Path::new("relative"), Path::new("/proc/self"), folder.path()]).unwrap();
        assert_eq!(home.runtime.parent(), Some(folder.path()));
        assert_eq!(fs::metadata(&home.runtime).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(Home::temporary(&[Path::new("/proc/self")]), None);
        let uid = fs::metadata(folder.path()).unwrap().uid();
        let found = |uid| Home::temporary_of(uid, &[Path::new("/nowhere"), folder.path(), folder.path()]);
        assert_eq!(found(uid), None, "nobody was ever there");
        let listener = std::os::unix::net::UnixListener::bind(home.socket()).unwrap();
        assert_eq!(found(uid).as_ref(), Some(&home));
        assert_eq!(found(uid + 1), None);
        fs::set_permissions(&home.runtime, fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(found(uid), None, "others could have put it there");
        fs::set_permissions(&home.runtime, fs::Permissions::from_mode(0o700)).unwrap();
        drop(listener);
        assert_eq!(found(uid), None, "it was killed");
    }

    #[test]
    fn who_is_outside_of_a_user_namespace_is_known_by_its_map() {
        for (map, number, mapped) in [
            ("         0          0 4294967295\n", 65534, true),
            ("         0       1000          1\n", 65534, false),
            ("         0       1000          1\n         1     100000      65536\n", 65534, true),
            ("", 65534, true),
        ] {
            assert_eq!(is_mapped(map, number), mapped, "{map}");
        }
    }

    /// Who is found where (names below a folder of root's), and whether they can lead a file `a.log` there elsewhere.
    #[test]
    fn who_can_lead_a_file_elsewhere_is_found_on_the_whole_way() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        // Only root can give folders away.
        if fs::metadata(&base).unwrap().uid() != 0 {
            return;
        }
        fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).unwrap();
        let make = |name: &str, owner: u32, mode: u32| {
            fs::create_dir(base.join(name)).unwrap();
            std::os::unix::fs::chown(base.join(name), Some(owner), Some(owner)).unwrap();
            fs::set_permissions(base.join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        for (name, owner, mode) in [
            ("safe", 0, 0o755),
            ("bob", 7, 0o755),
            ("bob/logs", 7, 0o775),
            ("tmp", 0, 0o1777),
            ("tmp/bob", 7, 0o755),
            ("group", 0, 0o775),
            ("open", 0, 0o777),
            ("open/safe", 0, 0o755),
        ] {
            make(name, owner, mode);
        }
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(base.join(to), base.join(name)).unwrap();
        link("safe", "bob/led");
        link("group/a.log", "safe/link.log");
        link("safe", "tmp/led");
        std::os::unix::fs::lchown(base.join("tmp/led"), Some(7), None).unwrap();
        let (user, any) = (Who::User(7), Who::Any);
        for (path, expected) in [
            ("safe/a.log", vec![]),
            ("safe/new/a.log", vec![]),
            ("bob/a.log", vec![("bob", user, false)]),
            ("bob/new/a.log", vec![("bob", user, true)]),
            (
                "bob/logs/a.log",
                vec![("bob/logs", user, false), ("bob/logs", Who::Group(7), false), ("bob", user, true)],
            ),
            ("bob/logs/new/a.log", vec![("bob/logs", user, true), ("bob", user, true)]),
            ("bob/led/a.log", vec![("bob", user, true)]),
            ("tmp/a.log", vec![("tmp", any, false), ("tmp", Who::Group(0), false)]),
            ("tmp/new/a.log", vec![("tmp", any, true)]),
            ("tmp/bob/a.log", vec![("tmp/bob", user, true)]),
            ("tmp/led/a.log", vec![("tmp/led", user, true)]),
            ("group/a.log", vec![("group", Who::Group(0), false)]),
            ("group/new/a.log", vec![]),
            ("safe/link.log", vec![("group", Who::Group(0), true)]),
            ("open/safe/a.log", vec![("open", any, true)]),
        ] {
            let found = of_file(&route::walk(&base.join(path)).unwrap(), None);
            let found: Vec<_> = found.into_iter().map(|one| (one.path, one.who, one.leads)).collect();
            let expected: Vec<_> =
                expected.into_iter().map(|(at, who, leads)| (base.join(at), who, leads)).collect();
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn root_refuses_a_folder_that_others_can_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let mut home = Home { runtime: path.clone(), state: path.clone(), logs: path.join("logs") };
        home.create().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let error = home.check(0).unwrap_err().to_string();
        assert!(error.contains("can write here") && error.contains("--home"), "{error}");
        home.check(1000).unwrap();
    }
}

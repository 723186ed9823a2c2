//! Control groups of workers: where the host has given the supervisor its own group of v2 to divide (`Delegate=`),
//! each worker is born in one of its own. It is bounded there, ended there as one, and what it started is known
//! there whatever that did to hide. Where nobody gave one, or the kernel has none, everything is as without: by /proc.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};

use crate::config::{GroupBounds, ProcessSettings};
use crate::control::protocol::GroupInfo;
use crate::supervisor::event::{AppId, WorkerId};
use crate::supervisor::time::Time;
use crate::sys::cgroup::{self, Absent, Own};
use crate::sys::clock::Clock;
use crate::sys::spawn::{self, Plan, Spawned, errno_text};
use crate::sys::{groups, process};

use super::start::Order;
use super::{Daemon, Source, leftovers};

/// Where the supervisor itself goes: a group that is divided has nobody in it (cgroups(7), "no internal processes").
/// The name that units give to `DelegateSubgroup=`.
const SEAT: &str = "supervisor";

/// What names of workers' groups begin with, and those of workers whose end leaves others running
/// (`treekill = false`): a next supervisor leaves these alone, too.
const ENDED: &str = "worker-";
const SPARED: &str = "lasting-";

/// Written on each worker's group: the home of its supervisor. There is one at a time for each home, so that what the
/// next one finds with its own home on it is of one that is gone. Other names in the same place may be anybody's.
const HOME: &str = "clusterd.home";

/// Written on the seat: the process that sits there, and when it started.
const SEATED: &str = "clusterd.supervisor";

/// What apps can ask for.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Groups of one name that there may be.
const NAMESAKES: u32 = 100;

/// How often the group is looked through for processes that were forked while others were moved.
const MOVES: usize = 16;

/// How often a group is made anew that somebody removes.
const ANEW: usize = 3;

/// How long a start waits for what it ends of a supervisor that was killed.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(2);

/// When a group that still has somebody in it is to be removed: again so soon, and at most so late.
const SOON: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_secs(30);

/// All of them.
#[derive(Debug)]
pub(super) struct Groups {
    /// What was given, or why nothing is done with groups.
    base: Result<Base, String>,
    /// What is written on groups of ours.
    home: Rc<[u8]>,
    /// Of workers that are gone, with somebody in them.
    left: Vec<Left>,
}

/// The group that was given.
#[derive(Debug)]
struct Base {
    folder: PathBuf,
    /// Each controller, or why it is not there.
    controllers: Vec<(&'static str, Result<(), String>)>,
}

#[derive(Debug)]
struct Left {
    folder: PathBuf,
    due: Time,
    pause: Duration,
}

/// One worker's.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
    home: Rc<[u8]>,
    /// Files that were written, in this order.
    written: Vec<(&'static str, String)>,
    /// Files that were, before somebody removed it, and could not be again: with the reason.
    missing: Vec<(&'static str, String, String)>,
    /// How many of it the kernel had killed for want of memory: at the last look, and at the one before.
    kills: [u64; 2],
    /// By which it is known that the last one has left it.
    events: Option<File>,
}

impl Group {
    /// One of this name, or of the next that is free: some outlive their supervisor.
    fn make_in(folder: &Path, name: &str, home: &Rc<[u8]>) -> io::Result<Group> {
        let is_taken = |error: &io::Error| error.raw_os_error() == Some(libc::EBUSY);
        let others = (2..=NAMESAKES).map(|number| folder.join(format!("{name}.{number}")));
        others.fold(Group::make(folder.join(name), home), |made, next| match made {
            Err(error) if is_taken(&error) => Group::make(next, home),
            made => made,
        })
    }

    fn make(folder: PathBuf, home: &Rc<[u8]>) -> io::Result<Group> {
        match groups::make(&folder) {
            // Of a supervisor before this one. What it counts is of others, so it is not taken over.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                groups::remove(&folder).and_then(|()| groups::make(&folder))?;
            }
            other => other?,
        }
        // Without it nobody ends by his group what he finds there later.
        if let Err(error) = groups::label(&folder, HOME, home) {
            log::debug!("{}: {error}", folder.display());
        }
        Ok(Group {
            folder,
            home: Rc::clone(home),
            written: Vec::new(),
            missing: Vec::new(),
            kills: [0; 2],
            events: None,
        })
    }

    fn write(&mut self, file: &'static str, text: String) -> io::Result<()> {
        groups::write(&self.folder, file, &text)?;
        self.written.push((file, text));
        Ok(())
    }

    /// Groups weigh alike, however nice those in them are: it has its app's nice value, unless the app says more.
    fn weigh_as(&mut self, nice: Option<i32>, bounds: GroupBounds) {
        let Some(nice) = nice.filter(|_| bounds.cpu_weight.is_none()) else { return };
        // Without the controller it is not there, nor needed.
        if let Err(error) = self.write("cpu.weight.nice", nice.to_string()) {
            log::debug!("{}: cpu.weight.nice: {error}", self.folder.display());
        }
    }

    /// Somebody has removed it.
    fn make_anew(&mut self) -> io::Result<()> {
        let mut new = Group::make(self.folder.clone(), &self.home)?;
        let missing = self.missing.drain(..).map(|(file, text, _)| (file, text));
        for (file, text) in self.written.drain(..).chain(missing) {
            // Removed again meanwhile, maybe: then all of them are due once more.
            match groups::write(&new.folder, file, &text) {
                Ok(()) => new.written.push((file, text)),
                Err(error) => new.missing.push((file, text, error.to_string())),
            }
        }
        *self = new;
        Ok(())
    }

    /// Everybody in it, whoever is whose child.
    pub(super) fn members(&self) -> Vec<i32> {
        groups::everybody(&self.folder).into_iter().filter(|pid| *pid > 0).collect()
    }

    pub(super) fn is_occupied(&self) -> bool {
        groups::is_occupied(&self.folder)
    }

    /// SIGKILL for all of it at once. Where the kernel does not know how (before Linux 5.14), one by one has to do.
    pub(super) fn kill(&self) {
        if let Err(error) = groups::kill(&self.folder) {
            log::debug!("{}: {error}", self.folder.display());
        }
    }

    /// How many of it the kernel killed for want of memory; none where it does not count them.
    fn memory_kills(&self) -> Option<u64> {
        groups::event(&self.folder, "memory.events", "oom_kill")
    }

    /// Once in a while: what is counted by then is no end that is still to come.
    pub(super) fn look_at_kills(&mut self) {
        if let Some(kills) = self.memory_kills() {
            self.kills = [kills, self.kills[0]];
        }
    }

    /// Whether one of it was killed for want of memory of late; none where that is not counted. The last look may have
    /// fallen between such a kill and the end that is heard now: it is the one before that counts.
    pub(super) fn was_short_of_memory(&self) -> Option<bool> {
        self.memory_kills().map(|kills| kills > self.kills[1])
    }

    pub(super) fn heard(&self) {
        self.events.iter().for_each(groups::heard);
    }
}

/// Starts a process in its group. One that somebody removed meanwhile is made anew; at last it starts without.
pub(super) fn born(plan: &Plan<'_>, group: &mut Option<Group>) -> io::Result<Spawned> {
    let is_gone = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT));
    for _ in 0..ANEW {
        let Some(own) = group else { break };
        let born = groups::open(&own.folder).and_then(|folder| spawn::spawn(plan, Some(folder.as_fd())));
        match born {
            Err(error) if is_gone(&error) => {
                log::debug!("{}: {error}; it is made anew", own.folder.display());
                // Removed again at once, maybe: seen at the next attempt.
                if let Err(error) = own.make_anew() {
                    log::debug!("{}: {error}", own.folder.display());
                }
            }
            other => return other,
        }
    }
    if let Some(lost) = group.take() {
        log::warn!(
            "{}: somebody removes this control group: its worker starts without",
            lost.folder.display()
        );
    }
    spawn::spawn(plan, None)
}

impl Groups {
    /// Takes what was given, before there is any worker and after the processes of a supervisor before this one
    /// have ended. `home`: of which we are the only supervisor. `root` is `/` but for tests.
    pub(super) fn take(root: &Path, home: &Path) -> Groups {
        let base = find(root).and_then(|(own, folder)| settle(root, &own, folder));
        let home = home.canonicalize().unwrap_or_else(|_| home.to_owned());
        let mut taken = Groups { base, home: home.as_os_str().as_bytes().into(), left: Vec::new() };
        taken.clear_old();
        taken
    }

    /// For people.
    pub(super) fn state(&self) -> String {
        let base = match &self.base {
            Ok(base) => base,
            Err(why) => return format!("off: {why}"),
        };
        let named = |there: bool| {
            let of = base.controllers.iter().filter(|(_, state)| state.is_ok() == there);
            of.map(|(name, _)| *name).collect::<Vec<_>>()
        };
        let mut text = format!("on, in {}", base.folder.display());
        let _ = match named(true) {
            none if none.is_empty() => write!(text, ", without limits"),
            some => write!(text, ", with {}", some.join(", ")),
        };
        for (name, state) in &base.controllers {
            if let Err(why) = state {
                let _ = write!(text, "; {name} is off: {why}");
            }
        }
        text
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.left.iter().map(|left| left.due).min()
    }

    /// Why this controller bounds nothing.
    fn lacks(&self, controller: &str) -> Option<String> {
        match &self.base {
            Ok(base) => {
                let (_, state) = base.controllers.iter().find(|(name, _)| *name == controller)?;
                state.as_ref().err().map(|why| format!("the controller {controller} is off: {why}"))
            }
            Err(why) => Some(format!("control groups are off: {why}")),
        }
    }

    /// A worker is gone, and its group with it: now, or when the last one has left it.
    pub(super) fn release(&mut self, group: Group, now: Time) {
        self.put_away(Left { folder: group.folder, due: now, pause: SOON }, now);
    }

    fn put_away(&mut self, left: Left, now: Time) {
        match groups::remove(&left.folder) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let pause = (left.pause * 2).min(LATE);
                self.left.push(Left { due: now + left.pause, pause, ..left });
            }
            Err(error) => log::debug!("{}: {error}", left.folder.display()),
        }
    }

    /// Those that are due, once more.
    pub(super) fn look_after(&mut self, now: Time) {
        let (due, wait) = std::mem::take(&mut self.left).into_iter().partition(|left| left.due <= now);
        self.left = wait;
        let due: Vec<Left> = due;
        due.into_iter().for_each(|left| self.put_away(left, now));
    }

    /// Removes the groups of a supervisor of our home that is gone, and ends who is in them; but not those who were to
    /// outlive their worker.
    fn clear_old(&mut self) {
        let Ok(base) = &self.base else { return };
        let clock = Clock::new();
        for folder in groups::below(&base.folder) {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            let is_ours = || groups::labelled(&folder, HOME).as_deref() == Some(&self.home);
            if !name.starts_with(ENDED) && !name.starts_with(SPARED) || !is_ours() {
                continue;
            }
            if name.starts_with(ENDED) && groups::is_occupied(&folder) {
                let ended = groups::kill(&folder).err();
                log::warn!(
                    "control group {name} was left behind by a supervisor that was killed: {}",
                    ended.map_or_else(
                        || "what ran in it was ended first".to_owned(),
                        |error| format!("what runs in it cannot be ended: {error}")
                    )
                );
                while groups::is_occupied(&folder) && clock.since_start() < PATIENCE {
                    if process::pause(PAUSE).is_err() {
                        break;
                    }
                }
            }
            self.put_away(Left { folder, due: Time::START, pause: SOON }, Time::START);
        }
    }
}

/// Our own group and the one that is ours to divide, or why there is none.
fn find(root: &Path) -> Result<(Own, PathBuf), String> {
    let own = cgroup::own(root).map_err(|absent| match absent {
        Absent::NoHierarchy => "this kernel shows no control groups of version 2".to_owned(),
        Absent::NotMounted => "control groups of version 2 are not mounted here".to_owned(),
        Absent::Outside(name) => format!("its own group ({name}) lies outside of what is mounted here"),
    })?;
    let folder = own.folder.clone();
    let above = folder.parent().filter(|above| above.starts_with(&own.mounted));
    if groups::is_given(&folder) {
        return Ok((own, folder));
    }
    if let Some(above) = above.filter(|above| folder.ends_with(SEAT) && groups::is_given(above)) {
        return Ok((own.clone(), above.to_owned()));
    }
    // A container whose engine gives it its groups to write has no mark: its first process is who may divide them.
    if std::process::id() == 1
        && own.name == "/"
        && !groups::is_first(&folder)
        && groups::is_writable(&folder)
    {
        return Ok((own, folder));
    }
    Err(format!("nobody gave it its own group, {} (Delegate=yes in a unit of systemd does)", own.name))
}

/// Sits down in a group below the one that was given, and has controllers there.
fn settle(root: &Path, own: &Own, folder: PathBuf) -> Result<Base, String> {
    let seat = folder.join(SEAT);
    refuse_strangers(&[&own.folder, &folder, &seat])?;
    refuse_the_seated(&seat)?;
    let fails = |what: &str, error: &io::Error| {
        let errno = error.raw_os_error().unwrap_or(0);
        format!("{what} in {}: {}", folder.display(), errno_text(errno))
    };
    match groups::make(&seat) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(fails("no group can be made", &error));
        }
        _ => {}
    }
    if let Err(error) = vacate(&folder, &seat) {
        // Where nobody could be moved it is of no use.
        let _ = groups::remove(&seat);
        return Err(fails("the processes cannot be moved", &error));
    }
    if let Err(error) = sit_down(&seat) {
        log::debug!("{}: {error}", seat.display());
    }
    let controllers = CONTROLLERS.map(|name| (name, enable(root, &folder, name))).to_vec();
    Ok(Base { folder, controllers })
}

/// Whoever has his own processes in it did not give it to us: we, those who started us, and whom we started.
fn refuse_strangers(folders: &[&Path]) -> Result<(), String> {
    let above = leftovers::own_line();
    let ours = std::process::id().cast_signed();
    let below: HashSet<i32> = process::tree(ours).into_iter().collect();
    for folder in folders {
        let found = groups::members(folder);
        if let Some(pid) = found.iter().find(|pid| !above.contains(pid) && !below.contains(pid)) {
            let who = if *pid == 0 { "a process of elsewhere".to_owned() } else { format!("pid {pid}") };
            return Err(format!("{who}, which is none of ours, is in {}", folder.display()));
        }
    }
    Ok(())
}

/// Another supervisor may be who started us: one of its checks, or a worker without a group, did. What it has is its
/// own as long as it lives.
fn refuse_the_seated(seat: &Path) -> Result<(), String> {
    let label = groups::labelled(seat, SEATED).unwrap_or_default();
    let text = String::from_utf8_lossy(&label);
    let numbers =
        text.split_once(' ').and_then(|(pid, started)| Some((pid.parse().ok()?, started.parse().ok()?)));
    let Some((pid, started)): Option<(i32, u64)> = numbers else { return Ok(()) };
    let lives =
        process::stat(pid).is_ok_and(|stat| stat.started == started && !matches!(stat.state, b'Z' | b'X'));
    match lives && pid != std::process::id().cast_signed() {
        true => {
            Err(format!("another supervisor, pid {pid}, divides {}", seat.parent().unwrap_or(seat).display()))
        }
        false => Ok(()),
    }
}

/// Says who divides the group.
fn sit_down(seat: &Path) -> io::Result<()> {
    let ours = std::process::id();
    let started = process::stat(ours.cast_signed())?.started;
    groups::label(seat, SEATED, format!("{ours} {started}").as_bytes())
}

/// Moves everybody.
fn vacate(from: &Path, to: &Path) -> io::Result<()> {
    for _ in 0..MOVES {
        let found = groups::members(from);
        if found.is_empty() {
            return Ok(());
        }
        for pid in found {
            match groups::write(to, "cgroup.procs", &pid.to_string()) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// Has a controller for the groups below this one.
fn enable(root: &Path, folder: &Path, name: &str) -> Result<(), String> {
    if !groups::words(folder, "cgroup.controllers").iter().any(|known| known == name) {
        return Err(match cgroup::is_v1(root, name) {
            true => "it belongs to version 1 on this host".to_owned(),
            false => "the group that was given does not have it".to_owned(),
        });
    }
    groups::write(folder, "cgroup.subtree_control", &format!("+{name}")).map_err(|error| error.to_string())
}

/// What a worker's group is called. `stem`: of the app's files.
fn name(spared: bool, stem: &str, order: &Order) -> String {
    let head = if spared { SPARED } else { ENDED };
    format!("{head}{stem}-{}-g{}-{}", order.instance, order.generation.0, order.worker.0)
}

impl Daemon {
    /// Once, at the start.
    pub(super) fn tell_groups(&self) {
        match &self.groups.base {
            Ok(_) => log::info!("control groups: {}", self.groups.state()),
            Err(why) => log::debug!("control groups are off: {why}"),
        }
    }

    /// The group that a worker is to be born in, bounded as its app wants it. None where there are none; what the app
    /// asked for and does not get is told once.
    pub(super) fn make_group(
        &mut self,
        order: &Order,
        process: &ProcessSettings,
        spared: bool,
    ) -> Option<Group> {
        let bounds = process.bounds;
        let folder = self.groups.base.as_ref().ok().map(|base| base.folder.clone());
        let name = name(spared, &self.file_stem(order.app), order);
        let mut group = folder.and_then(|folder| match Group::make_in(&folder, &name, &self.groups.home) {
            Ok(group) => Some(group),
            Err(error) => {
                self.warn_once_of(order.worker, "group", || {
                    format!("has no control group of its own: {error}")
                });
                None
            }
        });
        for bound in bounds.files() {
            let lacks = self.groups.lacks(bound.controller);
            let refused = match (lacks, &mut group) {
                (None, Some(group)) => {
                    group.write(bound.file, bound.value.to_string()).err().map(|error| error.to_string())
                }
                (None, None) => Some("it has no control group of its own".to_owned()),
                (lacks, _) => lacks,
            };
            if let Some(why) = refused {
                self.warn_unbounded(order.app, bound.key, &why);
            }
        }
        group.iter_mut().for_each(|group| group.weigh_as(process.nice, bounds));
        // Killed by the kernel as one; but for those who are to outlive it.
        let wants_memory = bounds.memory_max.is_some() && !spared;
        if let Some(group) = group.as_mut().filter(|group| wants_memory && group.has("memory.max"))
            && let Err(error) = group.write("memory.oom.group", "1".to_owned())
        {
            log::debug!("memory.oom.group: {error}");
        }
        group
    }

    /// What the group had before somebody removed it, and has no more.
    pub(super) fn tell_missing(
        &mut self,
        app: AppId,
        bounds: GroupBounds,
        group: Option<Group>,
    ) -> Option<Group> {
        for (file, _, why) in group.iter().flat_map(|group| &group.missing) {
            match bounds.files().iter().find(|bound| bound.file == *file) {
                Some(bound) => self.warn_unbounded(app, bound.key, why),
                None => log::debug!("{}: {file}: {why}", self.app_name(app)),
            }
        }
        group
    }

    fn warn_unbounded(&mut self, app: AppId, key: &'static str, why: &str) {
        if self.warned.first(key, Some(app)) {
            log::warn!("{}: {key} bounds nothing here: {why}", self.app_name(app));
        }
    }

    /// It could be neither born in its group nor moved there.
    pub(super) fn not_grouped(&mut self, worker: WorkerId, errno: i32) {
        let group = self.processes.get_mut(worker).and_then(|process| process.group.take());
        if let Some(group) = group {
            self.groups.release(group, self.now);
        }
        self.warn_once_of(worker, "group", || {
            format!("runs in no control group of its own, and is not bounded by one: {}", errno_text(errno))
        });
    }

    /// The first process is gone, and others of its group are not: the last one's end is heard from the kernel.
    pub(super) fn watch_group(&mut self, worker: WorkerId) {
        let Some(folder) = self.processes.get(worker).and_then(|process| process.group.as_ref()) else {
            return;
        };
        let watched = groups::events(&folder.folder).and_then(|events| {
            let fd = events.as_raw_fd();
            self.watch_priority(fd, Source::Group(worker)).map(|token| (token, fd, events))
        });
        match watched {
            Ok((token, fd, events)) => {
                let Some(process) = self.processes.get_mut(worker) else { return };
                process.tokens.push((token, fd));
                if let Some(group) = &mut process.group {
                    group.events = Some(events);
                    // Who left it before it was watched is told of by nobody.
                    self.look_at_remnant(worker);
                }
            }
            Err(error) => log::debug!("{}: its group cannot be watched: {error}", self.label(worker)),
        }
    }

    fn watch_priority(&mut self, fd: i32, source: Source) -> io::Result<Token> {
        let token = self.tokens.allot(source);
        let watched = self.poll.registry().register(&mut SourceFd(&fd), token, Interest::PRIORITY);
        watched.map(|()| token).inspect_err(|_| self.tokens.release(token))
    }

    /// Something became of a group that is waited for.
    pub(super) fn hear_group(&mut self, worker: WorkerId) {
        if let Some(group) = self.processes.get(worker).and_then(|process| process.group.as_ref()) {
            group.heard();
        }
        self.look_at_remnants();
    }

    /// Where the worker's group is, and what bounds it.
    pub(super) fn group_info(&self, instance: u32, worker: WorkerId) -> Option<GroupInfo> {
        let group = self.processes.get(worker)?.group.as_ref()?;
        let bounds = group.written.iter().map(|(file, text)| ((*file).to_owned(), text.clone())).collect();
        Some(GroupInfo { instance, path: group.folder.display().to_string(), bounds })
    }
}

impl Group {
    fn has(&self, file: &str) -> bool {
        self.written.iter().any(|(written, _)| *written == file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A host on whose hierarchy of version 2 we are in the group `/web`. None where its file system knows no marks.
    fn host(files: &[(&str, &str)]) -> Option<tempfile::TempDir> {
        let host = tempfile::tempdir().expect("a temporary folder");
        let mountinfo = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let common = [
            ("proc/self/cgroup", "4:pids:/\n0::/web\n"),
            ("proc/self/mountinfo", mountinfo),
            ("sys/fs/cgroup/web/cgroup.procs", ""),
            ("sys/fs/cgroup/web/cgroup.events", "populated 1\n"),
            ("sys/fs/cgroup/web/cgroup.subtree_control", ""),
            ("sys/fs/cgroup/web/cgroup.controllers", "cpu memory\n"),
        ];
        for (path, text) in common.iter().chain(files) {
            let path = host.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("it is ours");
            fs::write(path, text).expect("it is ours");
        }
        let mark = |folder: &str| {
            let folder = host.path().join(folder);
            rustix::fs::setxattr(folder, "user.delegate", &b"1"[..], rustix::fs::XattrFlags::empty())
        };
        mark("sys/fs/cgroup/web").is_ok().then_some(host)
    }

    #[test]
    fn what_was_given_is_divided_and_each_controller_that_is_not_there_has_its_reason() {
        let Some(host) = host(&[]) else { return };
        let groups = Groups::take(host.path(), Path::new("/home"));
        let folder = host.path().join("sys/fs/cgroup/web");
        assert!(folder.join("supervisor").is_dir());
        let state = groups.state();
        let begins = format!("on, in {}, with cpu, memory; pids is off: ", folder.display());
        assert!(state.starts_with(&begins) && state.ends_with("version 1 on this host"), "{state}");
        let written = fs::read_to_string(folder.join("cgroup.subtree_control")).expect("it is there");
        assert!(written == "+memory" || written == "+cpu+memory", "{written}");
        assert_eq!(groups.lacks("memory"), None);
        let lacks = groups.lacks("pids").expect("it is off");
        assert_eq!(lacks, "the controller pids is off: it belongs to version 1 on this host");
    }

    #[test]
    fn a_strangers_group_is_left_alone() {
        let Some(host) = host(&[("sys/fs/cgroup/web/cgroup.procs", "0\n")]) else { return };
        let groups = Groups::take(host.path(), Path::new("/home"));
        assert!(
            groups.state().starts_with("off: a process of elsewhere, which is none of ours"),
            "{groups:?}"
        );
        assert!(!host.path().join("sys/fs/cgroup/web/supervisor").exists());
        assert!(
            groups.lacks("memory").is_some_and(|why| why.starts_with("control groups are off: a process"))
        );
    }

    /// Whoever starts us from there is in our line, and no stranger.
    #[test]
    fn another_supervisors_group_is_left_alone_as_long_as_that_lives() {
        let Some(host) = host(&[("sys/fs/cgroup/web/supervisor/cgroup.procs", "")]) else { return };
        let folder = host.path().join("sys/fs/cgroup/web");
        let parent = process::stat(std::process::id().cast_signed()).expect("it runs").parent;
        let started = process::stat(parent).expect("it waits for us").started;
        let seated = |started: u64| {
            groups::label(&folder.join(SEAT), SEATED, format!("{parent} {started}").as_bytes())
        };
        seated(started).expect("marks are known here");
        let state = Groups::take(host.path(), Path::new("/home")).state();
        assert_eq!(state, format!("off: another supervisor, pid {parent}, divides {}", folder.display()));
        assert_eq!(fs::read_to_string(folder.join("cgroup.subtree_control")).expect("it is there"), "");
        // Its number is another's by now.
        seated(started - 1).expect("marks are known here");
        assert!(Groups::take(host.path(), Path::new("/home")).state().starts_with("on, in "));
        let label = groups::labelled(&folder.join(SEAT), SEATED).expect("we sit there");
        assert!(label.starts_with(format!("{} ", std::process::id()).as_bytes()), "{label:?}");
        assert!(
            Groups::take(host.path(), Path::new("/home")).state().starts_with("on, in "),
            "we are no other"
        );
    }

    /// A folder of files cannot be removed as a group can: emptied of those it can.
    #[test]
    fn only_groups_of_the_own_home_are_cleared() {
        let Some(host) = host(&[]) else { return };
        let folder = host.path().join("sys/fs/cgroup/web");
        let homes = [
            ("worker-a", None),
            ("worker-b", Some("/other")),
            ("worker-c", Some("/home")),
            ("lasting-d", Some("/home")),
        ];
        for (name, home) in homes {
            let group = folder.join(name);
            fs::create_dir(&group).expect("it is ours");
            home.map_or(Ok(()), |home| groups::label(&group, HOME, home.as_bytes()))
                .expect("marks are known here");
        }
        Groups::take(host.path(), Path::new("/home"));
        let left = homes.map(|(name, _)| folder.join(name).exists());
        assert_eq!(left, [true, true, false, false]);
        for (name, home) in [("worker-a", None), ("worker-b", Some("/other")), ("worker-c", Some("/home"))] {
            let put =
                |file: &str, text: &str| fs::write(folder.join(name).join(file), text).expect("it is ours");
            let _ = fs::create_dir(folder.join(name));
            home.map_or(Ok(()), |home| groups::label(&folder.join(name), HOME, home.as_bytes()))
                .expect("known");
            put("cgroup.procs", "1\n");
            put("cgroup.events", "populated 1\n");
            put("cgroup.kill", "");
        }
        Groups::take(host.path(), Path::new("/home"));
        let killed =
            |name: &str| fs::read_to_string(folder.join(name).join("cgroup.kill")).expect("it is there");
        assert_eq!(["worker-a", "worker-b", "worker-c"].map(killed), ["", "", "1"]);
    }

    #[test]
    fn in_the_seat_below_it_the_group_above_is_what_was_given() {
        let seat = [
            ("proc/self/cgroup", "0::/web/supervisor\n"),
            ("sys/fs/cgroup/web/supervisor/cgroup.procs", ""),
            ("sys/fs/cgroup/web/other/cgroup.procs", ""),
        ];
        let Some(host) = host(&seat) else { return };
        assert!(Groups::take(host.path(), Path::new("/home")).state().starts_with("on, in "));
        fs::write(host.path().join("proc/self/cgroup"), "0::/web/other\n").expect("it is ours");
        assert!(
            Groups::take(host.path(), Path::new("/home"))
                .state()
                .starts_with("off: nobody gave it its own group, /web/other")
        );
    }

    #[test]
    fn without_version_2_the_reason_is_told() {
        let Some(host) =
            host(&[("proc/self/mountinfo", "31 20 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw\n")])
        else {
            return;
        };
        assert_eq!(
            Groups::take(host.path(), Path::new("/home")).state(),
            "off: control groups of version 2 are not mounted here"
        );
        fs::write(host.path().join("proc/self/cgroup"), "4:memory:/web\n").expect("it is ours");
        let state = Groups::take(host.path(), Path::new("/home")).state();
        assert_eq!(state, "off: this kernel shows no control groups of version 2");
    }

    /// An app's nice value weighs against other apps, whose workers are in groups of their own.
    #[test]
    fn a_group_is_as_nice_as_its_worker() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let home = Rc::from(&b"/home"[..]);
        let mut group = Group::make_in(place.path(), "worker-api-0-g1-1", &home).expect("it is ours");
        group.weigh_as(Some(5), GroupBounds::default());
        assert!(group.written.is_empty(), "the controller is off");
        fs::write(group.folder.join("cpu.weight.nice"), "0").expect("it is ours");
        group.weigh_as(None, GroupBounds::default());
        group.weigh_as(Some(5), GroupBounds { cpu_weight: Some(300), ..GroupBounds::default() });
        assert!(group.written.is_empty(), "what was not said, or said otherwise");
        group.weigh_as(Some(5), GroupBounds::default());
        assert_eq!(group.written, [("cpu.weight.nice", "5".to_owned())]);
        assert_eq!(fs::read_to_string(group.folder.join("cpu.weight.nice")).expect("it is there"), "5");
    }

    #[test]
    fn a_group_that_is_made_anew_forgets_no_bound_however_often_it_is_removed() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let home = Rc::from(&b"/home"[..]);
        let mut group = Group::make_in(place.path(), "worker-api-0-g1-1", &home).expect("it is ours");
        for file in ["memory.high", "memory.max"] {
            fs::write(group.folder.join(file), "max").expect("it is ours");
            group.write(file, "512".to_owned()).expect("it is there");
        }
        for _ in 0..2 {
            fs::remove_dir_all(&group.folder).expect("it is ours");
            // An ordinary folder has no files of controllers: as if it were removed again meanwhile.
            group.make_anew().expect("it is ours");
            let missing: Vec<_> =
                group.missing.iter().map(|(file, text, _)| (*file, text.as_str())).collect();
            assert_eq!(missing, [("memory.high", "512"), ("memory.max", "512")]);
            assert!(group.written.is_empty());
        }
    }

    /// Files of controllers are there before, since an ordinary folder makes none.
    #[test]
    fn a_group_is_bounded_by_its_files_and_counts_who_was_killed() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let mut group =
            Group::make_in(place.path(), "worker-api-0-g1-1", &Rc::from(&b"/home"[..])).expect("it is ours");
        let put = |name: &str, text: &str| {
            fs::write(place.path().join("worker-api-0-g1-1").join(name), text).expect("it is ours");
        };
        assert_eq!(group.memory_kills(), None);
        put("memory.max", "max");
        put("memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 1\n");
        group.write("memory.max", "512".to_owned()).expect("it is there");
        assert!(group.write("pids.max", "5".to_owned()).is_err(), "a file that is not there is made");
        assert_eq!((group.written.len(), group.memory_kills()), (1, Some(1)));
        assert!(group.has("memory.max") && !group.has("pids.max"));
        // A helper's is long past when its worker is killed by somebody.
        assert_eq!(group.was_short_of_memory(), Some(true));
        group.look_at_kills();
        assert_eq!(group.was_short_of_memory(), Some(true), "its end may not be heard yet");
        group.look_at_kills();
        assert_eq!(group.was_short_of_memory(), Some(false));
        put("memory.events", "oom_kill 2\n");
        assert_eq!(group.was_short_of_memory(), Some(true));
    }
}

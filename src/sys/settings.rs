//! What a child gives itself between clone and exec: limits first, then another user, which takes the right
//! to raise limits away. Raw system calls only: the C library's setuid(3) and its like tell all threads by
//! signals and locks, which must not be touched here.
//!
//! After the user has changed, the process is not dumpable until exec (PR_SET_DUMPABLE in prctl(2)), and is
//! left so: it is still a copy of the supervisor's memory, with every other app's secrets in it, and nobody
//! else's processes may look into it. exec resets that by itself.

use std::os::fd::RawFd;

use super::spawn::{Failure, Step};

/// As whom a process goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// Supplementary groups: all of them.
    pub groups: Vec<u32>,
}

/// A resource limit; `u64::MAX` is none (RLIM_INFINITY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// RLIMIT_….
    pub resource: u32,
    /// What counts; none leaves it as it is, or lowers it to `hard`.
    pub soft: Option<u64>,
    /// How far `soft` may be raised; none leaves it as it is.
    pub hard: Option<u64>,
}

/// What is set of a process; the default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// As whom it goes on.
    pub identity: Option<Identity>,
    /// umask(2).
    pub umask: Option<u32>,
    /// The nice value, -20 to 19.
    pub nice: Option<i32>,
    /// /proc/PID/oom_score_adj, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// In this order; at most 255.
    pub limits: Vec<Limit>,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
}

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Writing /proc/self/oom_score_adj.
    OomScore,
    /// prlimit(2); the item of the report is the index of the limit.
    Limit,
    /// setpriority(2).
    Nice,
    /// setgroups(2).
    Groups,
    /// setresgid(2).
    Group,
    /// setresuid(2).
    User,
    /// The change of user could have been undone.
    Undone,
    /// PR_SET_NO_NEW_PRIVS (prctl(2)).
    NoNewPrivileges,
}

/// What takes the rights that [`become_other`] gives up.
pub(super) fn limit(settings: &Settings) -> Result<(), Failure> {
    if let Some(score) = settings.oom_score_adj {
        write_oom_score(score).map_err(at(Setting::OomScore))?;
    }
    for (item, limit) in settings.limits.iter().enumerate() {
        set_limit(limit).map_err(|errno| Failure { step: Step::Settings(Setting::Limit), item, errno })?;
    }
    if let Some(nice) = settings.nice {
        // SAFETY: numbers only; 0 is the calling process.
        checked(unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) })
            .map_err(at(Setting::Nice))?;
    }
    if let Some(umask) = settings.umask {
        // SAFETY: a number only; cannot fail.
        unsafe { libc::syscall(libc::SYS_umask, umask) };
    }
    Ok(())
}

/// Groups, group, user, in that order, and then a look whether there is a way back.
pub(super) fn become_other(settings: &Settings) -> Result<(), Failure> {
    if let Some(Identity { uid, gid, groups }) = &settings.identity {
        // SAFETY: an array of this length that outlives the call.
        checked(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
            .map_err(at(Setting::Groups))?;
        // SAFETY: numbers only.
        checked(unsafe { libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid) })
            .map_err(at(Setting::Group))?;
        if *uid != 0 && settings.no_new_privs {
            narrow_bounding_set();
        }
        // SAFETY: no arguments.
        let before = unsafe { libc::syscall(libc::SYS_geteuid) } as u32;
        // SAFETY: numbers only.
        checked(unsafe { libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid) })
            .map_err(at(Setting::User))?;
        if *uid != 0 {
            give_up_capabilities().map_err(at(Setting::User))?;
        }
        if !is_for_good(*uid, *gid, before) {
            return Err(at(Setting::Undone)(libc::EPERM));
        }
    }
    if settings.no_new_privs {
        // SAFETY: numbers only.
        checked(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
            .map_err(at(Setting::NoNewPrivileges))?;
    }
    Ok(())
}

/// The kernel's `struct __user_cap_header_struct` and two `__user_cap_data_struct`s (capset(2)).
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// setresuid(2) takes them from root alone, and not under every securebits(7): a supervisor that is no root
/// but has CAP_SETUID would keep them.
fn give_up_capabilities() -> Result<(), i32> {
    let header = [CAPABILITY_VERSION_3, 0];
    let none = [0_u32; 6];
    // SAFETY: both are of the layout and size that version 3 has, and outlive the call.
    checked(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) })
}

/// Takes every capability out of the bounding set (capabilities(7)): what no exec is to give back. Only for who
/// gets nothing by an exec anyway: `sudo` and file capabilities of others need that set. It takes CAP_SETPCAP, and
/// without that no_new_privs alone stands in the way.
fn narrow_bounding_set() {
    // A kernel has 64 at most, and refuses the number after its last one (EINVAL).
    for capability in 0..64 {
        // SAFETY: numbers only.
        let dropped = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if dropped < 0 {
            return;
        }
    }
}

/// All ids are the new ones, and neither root nor who it was before can be had back.
fn is_for_good(uid: u32, gid: u32, before: u32) -> bool {
    let (mut users, mut groups) = ([u32::MAX; 3], [u32::MAX; 3]);
    let [real, effective, saved] = &mut users;
    // SAFETY: three places for ids that outlive the call.
    let known =
        unsafe { libc::syscall(libc::SYS_getresuid, &raw mut *real, &raw mut *effective, &raw mut *saved) };
    let [real, effective, saved] = &mut groups;
    // SAFETY: three places for ids that outlive the call.
    let known_too =
        unsafe { libc::syscall(libc::SYS_getresgid, &raw mut *real, &raw mut *effective, &raw mut *saved) };
    let all_new = known == 0 && known_too == 0 && users == [uid; 3] && groups == [gid; 3];
    let way_back = [0, before].into_iter().filter(|other| uid != 0 && *other != uid).any(|other| {
        // SAFETY: numbers only; -1 leaves the others as they are.
        unsafe { libc::syscall(libc::SYS_setresuid, -1, other, -1) == 0 }
    });
    all_new && !way_back
}

fn set_limit(limit: &Limit) -> Result<(), i32> {
    let mut bounds = [0_u64; 2];
    let none = std::ptr::null::<u64>();
    // SAFETY: room for a struct rlimit64, which is two 64-bit numbers: soft, hard (prlimit(2)).
    checked(unsafe { libc::syscall(libc::SYS_prlimit64, 0, limit.resource, none, bounds.as_mut_ptr()) })?;
    let hard = limit.hard.unwrap_or(bounds[1]);
    let soft = limit.soft.unwrap_or(bounds[0].min(hard));
    let bounds = [soft, hard];
    // SAFETY: a struct rlimit64 that outlives the call; the old one is not wanted.
    checked(unsafe { libc::syscall(libc::SYS_prlimit64, 0, limit.resource, bounds.as_ptr(), none) })
}

/// Written by hand: formatting could allocate.
fn write_oom_score(score: i32) -> Result<(), i32> {
    let mut text = [0_u8; 12];
    let mut at = text.len();
    let mut rest = score.unsigned_abs();
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if score < 0 {
        at -= 1;
        text[at] = b'-';
    }
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    let path = c"/proc/self/oom_score_adj".as_ptr();
    // SAFETY: a NUL-terminated path that outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, 0) };
    checked(fd)?;
    // SAFETY: a part of a buffer of this frame, with its length.
    let written =
        checked(unsafe { libc::syscall(libc::SYS_write, fd as RawFd, text[at..].as_ptr(), text.len() - at) });
    // SAFETY: the descriptor was just opened here.
    unsafe { libc::syscall(libc::SYS_close, fd as RawFd) };
    written
}

fn at(setting: Setting) -> impl Fn(i32) -> Failure {
    move |errno| Failure { step: Step::Settings(setting), item: 0, errno }
}

fn checked(result: libc::c_long) -> Result<(), i32> {
    if result < 0 { Err(nix::errno::Errno::last_raw()) } else { Ok(()) }
}

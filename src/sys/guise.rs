//! Looks into /proc at processes of other users, without the right to trace them (CAP_SYS_PTRACE): as the user
//! that they run as.
//!
//! Who may look at /proc/PID/fd, mem, environ and their like is decided by the user of the file system
//! (PTRACE_MODE_FSCREDS in ptrace(2)), which whoever may change users can take on for a moment (setfsuid(2)).
//! Nobody gains a right over us by that: who may signal or trace a process goes by its other user ids. What
//! takes PTRACE_MODE_REALCREDS, pidfd_getfd(2) above all, is not to be had in this way.
//!
//! `behalf` handles files in the same way.

use std::io;
use std::marker::PhantomData;
use std::sync::OnceLock;

use rustix::process::{geteuid, getgroups};

/// Looks, and where that is refused looks once more as the user that the process runs as.
///
/// # Errors
/// What the look answers: the first one's error where the second cannot be had, or fails, too.
pub(super) fn look<T>(pid: i32, look: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let first = look();
    match &first {
        Err(error) if is_refused(error) => {}
        _ => return first,
    }
    let Some(guise) = user_of(pid).and_then(|(user, group)| Guise::take(user, group, None)) else {
        return first;
    };
    let second = look();
    drop(guise);
    match second {
        Err(error) if is_refused(&error) => first,
        second => second,
    }
}

fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

/// The effective user and group of a process that is another user's.
fn user_of(pid: i32) -> Option<(u32, u32)> {
    super::process::effective_ids(pid).filter(|(user, _)| *user != geteuid().as_raw())
}

/// Whether this process was dumpable when it took the first guise. Two threads may have one at a time, so that what
/// is found then may be the other's doing.
static DUMPABLE: OnceLock<bool> = OnceLock::new();

/// Another user of the file system, as long as it lives. It belongs to the thread.
#[derive(Debug)]
pub struct Guise {
    user: u32,
    group: u32,
    /// Ours, where the other one's were taken on.
    groups: Option<Vec<u32>>,
    death_signal: libc::c_int,
    thread: PhantomData<*const ()>,
}

impl Guise {
    /// None where we may not take it on. Without `groups` ours stay.
    pub(super) fn take(user: u32, group: u32, groups: Option<&[u32]>) -> Option<Guise> {
        // A change of these ids takes both away (`commit_creds` in Linux).
        // SAFETY: numbers only.
        DUMPABLE.get_or_init(|| unsafe { libc::prctl(libc::PR_GET_DUMPABLE) } == 1);
        let mut death_signal = 0;
        // SAFETY: the number outlives the call; where it fails it stays 0, which is none.
        unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut death_signal) };
        let ours = match groups {
            Some(theirs) => {
                let ours = getgroups().ok()?.into_iter().map(rustix::process::Gid::as_raw).collect();
                set_groups(theirs).then_some(Some(ours))?
            }
            None => None,
        };
        let (group_before, user_before) = (set_group(group), set_user(user));
        let thread = PhantomData;
        let guise = Guise { group: group_before, user: user_before, groups: ours, death_signal, thread };
        // Both calls answer the id before, also when they fail; -1 changes nothing.
        (set_user(u32::MAX) == user && set_group(u32::MAX) == group).then_some(guise)
    }
}

impl Drop for Guise {
    fn drop(&mut self) {
        set_user(self.user);
        set_group(self.group);
        if let Some(groups) = &self.groups {
            // Who could set them can set them back.
            let _ = set_groups(groups);
        }
        if DUMPABLE.get() == Some(&true) {
            // SAFETY: numbers only.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
        }
        // SAFETY: numbers only.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, self.death_signal) };
    }
}

/// As whom this thread handles files.
pub(super) fn user() -> u32 {
    set_user(u32::MAX)
}

/// Those of this thread: the system call itself, since the C library's would change all threads.
fn set_groups(groups: &[u32]) -> bool {
    // SAFETY: an array of this length that outlives the call.
    unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0 }
}

/// The one before. The system call itself: glibc's would change all threads nowhere, but not say so.
fn set_user(user: u32) -> u32 {
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_setfsuid, user) as u32 }
}

fn set_group(group: u32) -> u32 {
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_setfsgid, group) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn only_what_is_refused_is_looked_at_again() {
        let looks = Cell::new(0);
        let answer = |errno: i32| {
            looks.set(0);
            let result: io::Result<()> = look(std::process::id().cast_signed(), || {
                looks.set(looks.get() + 1);
                Err(io::Error::from_raw_os_error(errno))
            });
            (result.expect_err("always").raw_os_error(), looks.get())
        };
        assert_eq!(answer(libc::ENOENT), (Some(libc::ENOENT), 1));
        // Our own process has no other user to look as.
        assert_eq!(answer(libc::EACCES), (Some(libc::EACCES), 1));
    }

    #[test]
    fn a_guise_leaves_nothing_behind() {
        let before = (set_user(u32::MAX), set_group(u32::MAX), getgroups());
        let taken = Guise::take(65_534, 65_534, Some(&[65_534]));
        assert_eq!(taken.is_some(), geteuid().is_root());
        drop(taken);
        assert_eq!((set_user(u32::MAX), set_group(u32::MAX), getgroups()), before);
        // SAFETY: numbers only.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 1);
    }
}

//! Calls of workers that the supervisor cannot look after because it is short of something itself: descriptors,
//! or the kernel's memory.
//!
//! A socket that would be shared must not be bound or listen without our knowing: its address would be the first
//! worker's alone, and every other would be told that it is in use, which says nothing of the cause. So the call
//! fails, with the errno by which a host says that it is short (ENOBUFS): which of the supervisor's limits it was
//! stands in the log. All other calls go on.

use std::io;

use crate::supervisor::address::Address;
use crate::supervisor::event::WorkerId;
use crate::sys::descriptor;
use crate::sys::intercept::{Call, Notice, Verdict};

use super::Daemon;
use super::processes::Reach;

impl Daemon {
    /// The answer to a call of which nothing, or not all, could be done.
    pub(super) fn judge_short(&mut self, worker: WorkerId, notice: &Notice, error: &io::Error) -> Verdict {
        if !self.may_be_shared(worker, notice) {
            log::debug!("{}: notification passed on: {error}", self.label(worker));
            return Verdict::Continue;
        }
        let call = match notice.call {
            Call::Bind { .. } => "bind(2)",
            Call::Listen { .. } => "listen(2)",
            Call::V6Only { .. } | Call::Device { .. } | Call::Interface { .. } if self.duplicates(worker) => {
                return Verdict::Continue;
            }
            // Forgotten, the socket in its place would be open to more than was asked for.
            Call::V6Only { .. } | Call::Device { .. } | Call::Interface { .. } => "setsockopt(2)",
        };
        // Who tries again in a loop fills no log.
        let process = self.processes.get_mut(worker);
        if process.is_some_and(|process| !std::mem::replace(&mut process.told_short, true)) {
            log::error!(
                "{}: its {call} fails with ENOBUFS: the supervisor could not take its socket over ({error}); {}",
                self.label(worker),
                remedy(error)
            );
        }
        Verdict::Refuse(libc::ENOBUFS)
    }

    /// Whether a duplicate of its socket will show what it set on it.
    fn duplicates(&self, worker: WorkerId) -> bool {
        let process = self.processes.get(worker);
        process.is_none_or(|process| {
            process.reach == Reach::Everything && self.may_duplicate_from(process.other_user.is_some())
        })
    }

    /// Whether the call is about a socket that the app's instances share, as far as that can be seen without
    /// opening anything.
    fn may_be_shared(&mut self, worker: WorkerId, notice: &Notice) -> bool {
        if !descriptor::is_tcp(notice.tid, notice.fd).unwrap_or(true) {
            return false;
        }
        let Call::Bind { address, length } = notice.call else { return true };
        match self.address_given(worker, notice.tid, address, length) {
            Ok(Some(wanted)) => {
                let address = Address::Tcp { ip: wanted.ip(), port: wanted.port(), v6only: false };
                self.joins(worker, address).is_some()
            }
            Ok(None) => false,
            Err(_) => true,
        }
    }
}

/// The supervisor, or the host, is short of something that may be there again in a moment.
pub(super) fn is_short(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            "raise the supervisor's hard limit of open files (ulimit -Hn, or LimitNOFILE= of its unit)"
        }
        Some(libc::ENFILE) => "raise the host's limit of open files (sysctl fs.file-max)",
        Some(_) | None => "the kernel has no memory for it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_told_by_its_own_limit() {
        for (errno, short, word) in [
            (libc::EMFILE, true, "LimitNOFILE"),
            (libc::ENFILE, true, "fs.file-max"),
            (libc::ENOBUFS, true, "memory"),
            (libc::ENOMEM, true, "memory"),
            (libc::EADDRINUSE, false, "memory"),
            (libc::EPERM, false, "memory"),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(is_short(&error), short, "{error}");
            assert!(remedy(&error).contains(word), "{error}");
        }
        assert!(!is_short(&io::Error::other("unnamed")));
    }
}

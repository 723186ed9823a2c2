//! What this process may do to others: asked of the kernel rather than tried on a worker.

use std::io;
use std::path::Path;

use super::{intercept, process, socket};

/// `_LINUX_CAPABILITY_VERSION_3`, whose sets have two halves (capget(2)).
const VERSION: u32 = 0x2008_0522;

/// Bits of the lower half (capabilities(7)).
const CAP_CHOWN: u32 = 0;
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_FOWNER: u32 = 3;
const CAP_SYS_PTRACE: u32 = 19;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Whether processes of other users may be traced (CAP_SYS_PTRACE).
pub fn may_trace_others() -> bool {
    has(CAP_SYS_PTRACE)
}

/// Whether this thread may do what the owners of files alone may, or what their permissions forbid.
pub(super) fn overrides_files() -> bool {
    [CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER].into_iter().any(has)
}

/// Whether a file of ours may be given to this user and group (none: as it is): to anybody with CAP_CHOWN, else
/// to ourselves and a group of our own (chown(2)).
pub fn may_give(user: Option<u32>, group: Option<u32>) -> bool {
    has(CAP_CHOWN) || (user.is_none_or(|user| user == socket::own_uid()) && group.is_none_or(is_of_ours))
}

fn is_of_ours(group: u32) -> bool {
    let others = rustix::process::getgroups().unwrap_or_default();
    group == socket::own_gid() || others.iter().any(|other| other.as_raw() == group)
}

fn has(capability: u32) -> bool {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: both are laid out as capget(2) has it, and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    result == 0 && sets[0].effective & (1 << capability) != 0
}

/// Whether the host knows, and lets anybody make, a duplicate of another process's descriptor: tried on
/// ourselves, where no right is missing.
///
/// # Errors
/// EPERM or ENOSYS of a container's seccomp profile, ENOSYS before Linux 5.6.
pub fn may_duplicate() -> io::Result<()> {
    let ourselves = process::open(std::process::id().cast_signed())?;
    intercept::duplicate(&ourselves, std::os::fd::AsRawFd::as_raw_fd(&ourselves)).map(drop)
}

/// Whether this process may make files in a folder.
///
/// # Errors
/// EACCES; EROFS on a file system that is read-only (access(2)).
pub fn may_make_in(folder: &Path) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    Ok(accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_those_of_the_kernels_own_list() {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("/proc is there");
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("always there");
        let mask = u64::from_str_radix(line.trim(), 16).expect("hexadecimal");
        assert_eq!(may_trace_others(), mask & (1 << CAP_SYS_PTRACE) != 0);
        let nobody = Some(u32::from(u16::MAX) - 1);
        assert_eq!(may_give(nobody, None), mask & (1 << CAP_CHOWN) != 0);
        assert_eq!(may_give(None, nobody), mask & (1 << CAP_CHOWN) != 0);
        assert!(may_give(Some(socket::own_uid()), Some(socket::own_gid())) && may_give(None, None));
    }
}

//! Hosts that give less than this one: capabilities and system calls are taken away before the supervisor is
//! started, as a container's runtime does it.

use super::fixtures;

/// What Docker leaves to root in a container (its documentation, "Runtime privilege and Linux capabilities").
const DOCKERS_CAPABILITIES: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
     +net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

/// What Docker's default seccomp profile refuses of what a supervisor might call; clone3 as if it was not known.
const DOCKERS_REFUSALS: [(i64, i32); 14] = [
    (libc::SYS_clone3, libc::ENOSYS),
    (libc::SYS_pidfd_getfd, libc::EPERM),
    (libc::SYS_process_vm_readv, libc::EPERM),
    (libc::SYS_process_vm_writev, libc::EPERM),
    (libc::SYS_process_madvise, libc::EPERM),
    (libc::SYS_ptrace, libc::EPERM),
    (libc::SYS_kcmp, libc::EPERM),
    (libc::SYS_bpf, libc::EPERM),
    (libc::SYS_perf_event_open, libc::EPERM),
    (libc::SYS_unshare, libc::EPERM),
    (libc::SYS_setns, libc::EPERM),
    (libc::SYS_mount, libc::EPERM),
    (libc::SYS_io_uring_setup, libc::EPERM),
    (libc::SYS_userfaultfd, libc::EPERM),
];

/// A command line before the supervisor's: below a profile that refuses these calls. None without Python.
pub(crate) fn refusing(calls: &[(i64, i32)]) -> Option<Vec<String>> {
    let calls: Vec<String> = calls.iter().map(|(call, errno)| format!("{call}:{errno}")).collect();
    profile(&calls.join(","))
}

/// Below a profile whose runtime is notified of a call by itself.
pub(crate) fn listened_to() -> Option<Vec<String>> {
    profile("-")
}

fn profile(list: &str) -> Option<Vec<String>> {
    let mut line = fixtures::python("profile.py")?.command;
    line.push(list.to_owned());
    Some(line)
}

/// Without this capability, whoever it is.
pub(crate) fn without(capability: &str) -> Vec<String> {
    ["setpriv".to_owned(), format!("--bounding-set=-{capability}")].to_vec()
}

/// As root in a container of Docker's, by its default rights and profile. The older form of the profile, which
/// also refuses process_vm_readv; later ones allow that.
pub(crate) fn docker() -> Option<Vec<String>> {
    let mut line = refusing(&DOCKERS_REFUSALS)?;
    line.extend(["setpriv".to_owned(), format!("--bounding-set={DOCKERS_CAPABILITIES}")]);
    Some(line)
}

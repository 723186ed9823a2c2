//! All that differs from one processor to the next: how seccomp calls it, and system calls that not every one has. The
//! numbers of those that all have are the C library's. A processor that is not named here does not compile.

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!(
    "clusterd knows x86_64 and aarch64; another processor takes its AUDIT_ARCH in src/sys/arch.rs"
);

/// AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 (linux/audit.h): what `seccomp_data` says of a call.
#[cfg(target_arch = "x86_64")]
pub(super) const AUDIT: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(super) const AUDIT: u32 = 0xc000_00b7;

// Filters load the lower half of an argument, where its first four bytes are.
#[cfg(target_endian = "big")]
compile_error!("the offsets in src/sys/intercept.rs are those of little-endian processors");

/// Calls that came with the first processors, and that later ones (aarch64) have in newer forms only.
#[cfg(target_arch = "x86_64")]
const OLD_POLLS: &[i64] = &[libc::SYS_poll, libc::SYS_select];
#[cfg(target_arch = "x86_64")]
const OLD_EPOLLS: &[i64] = &[libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const OLD_POLLS: &[i64] = &[];
#[cfg(not(target_arch = "x86_64"))]
const OLD_EPOLLS: &[i64] = &[];

/// Whether a system call of this number is a poll(2) or a select(2).
pub(super) fn is_poll(call: i64) -> bool {
    OLD_POLLS.contains(&call) || call == libc::SYS_ppoll || call == libc::SYS_pselect6
}

/// Whether it waits for an epoll set, which is its first argument.
pub(super) fn is_epoll_wait(call: i64) -> bool {
    OLD_EPOLLS.contains(&call) || call == libc::SYS_epoll_pwait || call == libc::SYS_epoll_pwait2
}

//! Ports that no other test takes: neither of this process, nor of another test binary, nor a client
//! of the load generator.

use std::fs::{self, File, OpenOptions, Permissions};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use nix::fcntl::{Flock, FlockArg};

/// The locks of all ports this process was given, until it ends.
static TAKEN: Mutex<Vec<Flock<File>>> = Mutex::new(Vec::new());

/// A port on which nobody listens, and which no one else is given while this process lives.
///
/// Not one that the kernel would choose (bind to port 0): from that range the load generator's own
/// connections are numbered, and one of them could take the port before the server does.
///
/// # Panics
/// When none of many is free.
pub(crate) fn free_port() -> u16 {
    let lowest = ephemeral_start();
    // 9229 to 9238 (Node's inspector) never joins a group, and lies below this range.
    let choices = if lowest > 12_000 { 10_240..lowest } else { 1_024..lowest };
    for _ in 0..2_000 {
        let port = fastrand::u16(choices.clone());
        if let Some(lock) = lock(port)
            && nobody_listens(port)
        {
            TAKEN.lock().expect("no test panics while it takes a port").push(lock);
            return port;
        }
    }
    panic!("no free port in {choices:?}");
}

fn ephemeral_start() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}

/// The kernel gives the lock back when its holder ends, however it ends.
fn lock(port: u16) -> Option<Flock<File>> {
    let folder = PathBuf::from("/tmp/clusterd-test-ports");
    if fs::create_dir(&folder).is_ok() {
        // Other users' tests share the folder.
        fs::set_permissions(&folder, Permissions::from_mode(0o1777)).ok()?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(port.to_string()))
        .ok()?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
}

fn nobody_listens(port: u16) -> bool {
    // The dual-stack socket covers IPv4 where IPv6 exists; the other covers hosts without it.
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        && (TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok()
            || TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err())
}

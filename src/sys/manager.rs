//! The service manager that started this process (systemd, or whatever speaks as it does): the sending side of the
//! notify protocol (sd_notify(3)), and how often it wants to hear from us. Never waits, unlike the library calls of
//! that name: a manager that is busy must not hold up the loop.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendto, socket};

use super::output::retrying;

/// Where it listens.
#[derive(Debug)]
pub struct Manager {
    socket: OwnedFd,
    address: UnixAddr,
}

impl Manager {
    /// The one that NOTIFY_SOCKET names; none where nobody asked to be told.
    ///
    /// # Errors
    /// EINVAL for an address of a kind that is not spoken here (`vsock:`), ENAMETOOLONG for one of more than 107
    /// bytes; else the errno of socket(2).
    pub fn by_environment() -> Result<Option<Manager>, Errno> {
        Manager::at(std::env::var_os("NOTIFY_SOCKET"))
    }

    fn at(address: Option<OsString>) -> Result<Option<Manager>, Errno> {
        let Some(address) = address.filter(|address| !address.is_empty()) else { return Ok(None) };
        let address = match address.as_bytes() {
            path @ [b'/', ..] => UnixAddr::new(path)?,
            [b'@', name @ ..] if !name.is_empty() => UnixAddr::new_abstract(name)?,
            _ => return Err(Errno::EINVAL),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        Ok(Some(Manager { socket, address }))
    }

    /// Sends one message: lines of `NAME=value`.
    ///
    /// # Errors
    /// EAGAIN while it has no room; ENOENT and ECONNREFUSED where nobody listens; else the errno of sendto(2).
    pub fn tell(&self, message: &str) -> Result<(), Errno> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        retrying(|| sendto(self.socket.as_raw_fd(), message.as_bytes(), &self.address, flags)).map(drop)
    }
}

/// How long the manager waits for `WATCHDOG=1` before it takes us for stuck (sd_watchdog_enabled(3)): WATCHDOG_USEC, if
/// WATCHDOG_PID is ours or nobody's. None where it does not wait for it.
pub fn watchdog() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    watchdog_of(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id())
}

fn watchdog_of(micros: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let micros = micros?.parse().ok().filter(|micros| *micros > 0 && is_ours)?;
    Some(Duration::from_micros(micros))
}

/// CLOCK_MONOTONIC in microseconds, as `MONOTONIC_USEC=` counts. It cannot fail for that clock; 0 if it did.
pub fn monotonic_micros() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    time.map_or(0, |time| u64::try_from(Duration::from(time).as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    fn said(listener: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let length = listener.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn a_manager_is_told_at_its_path_and_by_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("the folder is fresh");
        let manager = Manager::at(Some(path.into())).expect("a path").expect("one");
        manager.tell("READY=1").expect("sent");
        assert_eq!(said(&listener), "READY=1");
        let name = format!("clusterd-manager-test-{}", std::process::id());
        let named = SocketAddr::from_abstract_name(&name).expect("a name");
        let listener = UnixDatagram::bind_addr(&named).expect("nobody else has it");
        let manager = Manager::at(Some(format!("@{name}").into())).expect("a name").expect("one");
        manager.tell("STOPPING=1").expect("sent");
        assert_eq!(said(&listener), "STOPPING=1");
    }

    #[test]
    fn who_is_not_there_or_has_no_room_is_an_error_and_no_wait() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = Manager::at(Some(path.clone().into())).expect("a path").expect("one");
        assert_eq!(manager.tell("READY=1"), Err(Errno::ENOENT));
        let _listener = UnixDatagram::bind(&path).expect("the folder is fresh");
        let full = (0..100_000).find_map(|_| manager.tell("STATUS=x").err());
        assert_eq!(full, Some(Errno::EAGAIN));
        assert!(Manager::at(None).expect("none").is_none());
        assert!(Manager::at(Some("".into())).expect("none").is_none());
        for wrong in ["vsock:2:1234", "@", "relative"] {
            assert_eq!(Manager::at(Some(wrong.into())).expect_err("unknown"), Errno::EINVAL, "{wrong}");
        }
    }

    #[test]
    fn the_watchdog_is_ours_or_nobodys() {
        let second = Some(Duration::from_secs(1));
        for (micros, pid, expected) in [
            (Some("1000000"), Some("42"), second),
            (Some("1000000"), None, second),
            (Some("1000000"), Some("41"), None),
            (Some("1000000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("-1"), None, None),
            (None, Some("42"), None),
        ] {
            assert_eq!(watchdog_of(micros, pid, 42), expected, "{micros:?} {pid:?}");
        }
    }
}

//! The sending side of journald's native protocol (sd_journal_sendv(3), systemd.io/JOURNAL_NATIVE_PROTOCOL):
//! datagrams, and for those that are too long a sealed file in memory. Never waits.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, send as send_bytes,
    sendmsg, socket,
};

use super::output::retrying;

/// A socket that is connected to the one at this path: who is, is told when there is room (unix(7), poll(2)).
///
/// # Errors
/// ENOENT and ECONNREFUSED where nobody listens; ENAMETOOLONG when the path is longer than 107 bytes.
pub fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    connect(fd.as_raw_fd(), &address)?;
    Ok(fd)
}

/// Sends one message.
///
/// # Errors
/// EAGAIN while there is no room; EMSGSIZE for what no datagram holds; ECONNREFUSED when nobody listens any more.
pub fn send(fd: BorrowedFd<'_>, message: &[u8]) -> Result<(), Errno> {
    retrying(|| send_bytes(fd.as_raw_fd(), message, flags())).map(drop)
}

/// Sends messages, which stand one behind the other and end at these places, in one call; how many, at least one.
///
/// # Errors
/// As [`send`], of the first.
pub fn send_all(fd: BorrowedFd<'_>, messages: &[u8], ends: &[usize]) -> Result<usize, Errno> {
    if let [_] = ends {
        return send(fd, messages).map(|()| 1);
    }
    let begins = std::iter::once(0).chain(ends.iter().copied());
    let parts: Vec<&[u8]> = begins.zip(ends).map(|(begin, end)| &messages[begin..*end]).collect();
    let mut texts: Vec<libc::iovec> = parts
        .iter()
        .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = texts
        .iter_mut()
        .map(|text| {
            // SAFETY: all zeros is a message with no address, no text and no flags.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = std::ptr::from_mut(text);
            header.msg_hdr.msg_iovlen = 1;
            header
        })
        .collect();
    let count = libc::c_uint::try_from(headers.len()).map_err(|_| Errno::EINVAL)?;
    let sent = retrying(|| {
        let flags = flags().bits() as _;
        // SAFETY: the headers and the texts that they name live until it returns; texts are only read.
        let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, flags) };
        Errno::result(sent)
    })?;
    usize::try_from(sent).map_err(|_| Errno::EINVAL)
}

/// Sends one message of any length, as a file that nobody can change any more.
///
/// # Errors
/// As [`send`], but for EMSGSIZE; and what memfd_create(2) and write(2) say.
pub fn send_sealed(fd: BorrowedFd<'_>, message: &[u8]) -> Result<(), Errno> {
    let flags_of_file = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"clusterd-journal", flags_of_file)?);
    file.write_all(message).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let seals =
        SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    let descriptors = [file.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    retrying(|| sendmsg::<UnixAddr>(fd.as_raw_fd(), &[], &rights, flags(), None)).map(drop)
}

fn flags() -> MsgFlags {
    MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL
}

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Read as _, Seek as _};
    use std::os::fd::{AsFd as _, FromRawFd as _};
    use std::os::unix::net::UnixDatagram;

    use nix::sys::socket::{ControlMessageOwned, recvmsg, setsockopt, sockopt};

    use super::*;

    #[test]
    fn what_no_datagram_holds_comes_as_a_file_that_nobody_can_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let sender = open(&path).unwrap();
        setsockopt(&sender, sockopt::SndBuf, &4608).unwrap();
        let message = vec![b'x'; 60_000];
        assert_eq!(send(sender.as_fd(), &message), Err(Errno::EMSGSIZE));
        assert_eq!(send_sealed(sender.as_fd(), &message), Ok(()));
        let mut room = nix::cmsg_space!([i32; 1]);
        let (mut byte, flags) = ([0; 1], MsgFlags::MSG_CMSG_CLOEXEC);
        let mut parts = [IoSliceMut::new(&mut byte)];
        let got = recvmsg::<UnixAddr>(receiver.as_raw_fd(), &mut parts, Some(&mut room), flags).unwrap();
        assert_eq!(got.bytes, 0);
        let Some(ControlMessageOwned::ScmRights(rights)) = got.cmsgs().unwrap().next() else {
            panic!("no file")
        };
        // SAFETY: it has just come, and is nobody's.
        let mut file = unsafe { File::from_raw_fd(rights[0]) };
        let seals = SealFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GET_SEALS).unwrap());
        assert!(seals.contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW));
        let mut text = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut text).unwrap();
        assert_eq!(text, message);
    }

    #[test]
    fn many_messages_go_in_one_call_as_far_as_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sender = open(&path).unwrap();
        let texts: Vec<Vec<u8>> =
            (0..5000).map(|number| format!("{number} \n\0\u{e9}").into_bytes()).collect();
        let (mut sent, mut got, mut calls, mut buffer) = (0, Vec::new(), 0, [0; 64]);
        let read = |got: &mut Vec<Vec<u8>>, buffer: &mut [u8]| {
            while let Ok(count) = receiver.recv(buffer) {
                got.push(buffer[..count].to_vec());
            }
        };
        while sent < texts.len() {
            let next = &texts[sent..texts.len().min(sent + 7)];
            let end = |so_far: &mut usize, text: &Vec<u8>| {
                *so_far += text.len();
                Some(*so_far)
            };
            let ends: Vec<usize> = next.iter().scan(0, end).collect();
            match send_all(sender.as_fd(), &next.concat(), &ends) {
                Ok(count) => {
                    assert!((1..=next.len()).contains(&count));
                    sent += count;
                    calls += 1;
                }
                Err(error) => {
                    assert_eq!(error, Errno::EAGAIN);
                    read(&mut got, &mut buffer);
                }
            }
        }
        read(&mut got, &mut buffer);
        assert!(got == texts, "{} of {}", got.len(), texts.len());
        assert!(calls < texts.len() / 2, "{calls} calls");
        // One that is too long is told as the first, and not before.
        setsockopt(&sender, sockopt::SndBuf, &4608).unwrap();
        let texts = [b"short".to_vec(), vec![b'x'; 60_000]];
        assert_eq!(send_all(sender.as_fd(), &texts.concat(), &[5, 60_005]), Ok(1));
        assert_eq!(send_all(sender.as_fd(), &texts[1], &[60_000]), Err(Errno::EMSGSIZE));
    }

    #[test]
    fn a_full_socket_and_one_that_is_gone_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert_eq!(open(&path).unwrap_err(), Errno::ENOENT);
        assert_eq!(open(Path::new(&"x".repeat(200))).unwrap_err(), Errno::ENAMETOOLONG);
        let receiver = UnixDatagram::bind(&path).unwrap();
        let sender = open(&path).unwrap();
        let error = std::iter::repeat_with(|| send(sender.as_fd(), b"MESSAGE=x\n")).find_map(Result::err);
        assert_eq!(error, Some(Errno::EAGAIN));
        drop(receiver);
        assert_eq!(send(sender.as_fd(), b"MESSAGE=x\n"), Err(Errno::ECONNREFUSED));
        assert_eq!(open(&path).unwrap_err(), Errno::ECONNREFUSED);
    }
}

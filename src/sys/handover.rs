//! A thread beside the loop that has descriptors of its own: how those of the loop come to it, and how the loop hears
//! of it.
//!
//! The loop's table is not for two threads: `epoll_peer` exchanges what stands at some numbers of it for a moment, and
//! what another thread wrote to such a number meanwhile would reach somebody else's socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg,
    sendmsg, socketpair,
};

use super::output::retrying;
use super::rotate;

/// Two ends: descriptors that are put into the first come out of the second, in their order.
///
/// # Errors
/// The errno of socketpair(2).
pub fn chute() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Puts a duplicate of a descriptor into a chute; never waits.
///
/// # Errors
/// EAGAIN when the chute is full; ETOOMANYREFS when too many are under way (unix(7)); EPIPE when nobody is left at the
/// other end.
pub fn give(chute: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let bytes = [IoSlice::new(b"f")];
    retrying(|| sendmsg::<UnixAddr>(chute.as_raw_fd(), &bytes, &rights, flags, None))?;
    Ok(())
}

/// Waits until a descriptor is in a chute, or nobody is left at its other end.
///
/// # Errors
/// The errno of poll(2).
pub fn await_next(chute: BorrowedFd<'_>) -> io::Result<()> {
    let mut asked = [PollFd::new(chute, PollFlags::POLLIN)];
    retrying(|| poll(&mut asked, PollTimeout::NONE))?;
    Ok(())
}

/// Takes the next descriptor out of a chute; never waits.
///
/// # Errors
/// EAGAIN when none was given yet; EMFILE when it found no room among those of this thread.
pub fn take(chute: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut byte = [0_u8; 1];
    let mut room = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let mut passed = None;
    retrying(|| {
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let message = recvmsg::<()>(chute.as_raw_fd(), &mut bytes, Some(&mut room), flags)?;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
                passed = fds.first().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) });
            }
        }
        Ok(())
    })?;
    passed.ok_or_else(|| Errno::EMFILE.into())
}

/// Gives this thread a table of descriptors of its own, with nothing in it but the first three and the one with this
/// number, of which it gets the hold. Whoever began the thread keeps theirs, and is not to change anything in the
/// common table before this has returned.
///
/// # Errors
/// As [`rotate::take_own_descriptors`].
pub fn settle(number: RawFd) -> io::Result<OwnedFd> {
    rotate::take_own_descriptors(Some(number))?;
    // SAFETY: in this thread's own table nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Rung by one thread, heard by another one's poll.
#[derive(Debug)]
pub struct Bell(EventFd);

impl Bell {
    /// One that nobody has rung.
    ///
    /// # Errors
    /// The errno of eventfd(2).
    pub fn new() -> io::Result<Bell> {
        Ok(Bell(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    /// The same one, of which this is another descriptor.
    pub fn of(fd: OwnedFd) -> Bell {
        // SAFETY: it is owned, and was one before it was handed over.
        Bell(unsafe { EventFd::from_owned_fd(fd) })
    }

    /// Whoever waits for it hears it; where it was not heard since the last time, once.
    pub fn ring(&self) {
        // It only fails where it was rung 2^64 times and never heard.
        let _ = self.0.write(1);
    }

    /// It was heard.
    pub fn hush(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn is_rung(bell: &Bell) -> bool {
        let mut asked = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::ZERO) == Ok(1)
    }

    #[test]
    fn what_is_given_comes_out_in_order_and_works_in_a_table_of_its_own() {
        let (ours, theirs) = chute().expect("a chute");
        let bell = Bell::new().expect("a bell");
        let (number, (tell, told)) = (theirs.as_raw_fd(), mpsc::channel());
        let act = move || {
            let mine = settle(number);
            tell.send(()).expect("it waits");
            let mine = mine.expect("a table");
            let take = || {
                await_next(mine.as_fd()).expect("it is given some time");
                take(mine.as_fd()).expect("it was given")
            };
            let (pipe, bell) = (take(), Bell::of(take()));
            nix::unistd::write(&pipe, b"here").expect("somebody reads");
            bell.ring();
        };
        let thread = thread::Builder::new().spawn(act).expect("a thread");
        told.recv().expect("it settled");
        drop(theirs);
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        give(ours.as_fd(), writer.as_fd()).expect("there is room");
        drop(writer);
        give(ours.as_fd(), bell.as_fd()).expect("there is room");
        thread.join().expect("it ends");
        assert!(is_rung(&bell));
        bell.hush();
        assert!(!is_rung(&bell));
        let mut text = [0; 16];
        let count = nix::unistd::read(&reader, &mut text).expect("it was written");
        assert_eq!(&text[..count], b"here");
        // Theirs is closed as well.
        assert_eq!(nix::unistd::read(&reader, &mut text), Ok(0));
        assert!(give(ours.as_fd(), reader.as_fd()).is_err());
    }

    #[test]
    fn a_chute_that_nobody_empties_is_full_some_time_and_holds_nobody_up() {
        let (ours, theirs) = chute().expect("a chute");
        let refused = (0..100_000).find_map(|_| give(ours.as_fd(), theirs.as_fd()).err());
        let errno = refused.and_then(|error| error.raw_os_error());
        assert!(matches!(errno, Some(libc::EAGAIN | libc::ETOOMANYREFS)), "{errno:?}");
    }
}

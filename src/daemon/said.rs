//! What a worker said about its sockets before it binds them, where they cannot be looked at: it is heard as its
//! setsockopt(2) calls pass, and set on the socket that takes the place of its own.

/// Sockets of one worker that are remembered. Servers open a handful; clients, of which nobody asks here, open
/// any number.
const REMEMBERED: usize = 256;

/// Of one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// IPV6_V6ONLY.
    pub(super) v6only: Option<bool>,
    /// The number of the interface that it is bound to.
    pub(super) interface: Option<i32>,
}

/// Of a worker's sockets by inode, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Sayings {
    all: Vec<(u64, Said)>,
}

impl Sayings {
    /// What was said of a socket, to be said anew; of too many the first is forgotten.
    pub(super) fn entry(&mut self, inode: u64) -> &mut Said {
        let at = self.all.iter().position(|(known, _)| *known == inode).unwrap_or_else(|| {
            if self.all.len() >= REMEMBERED {
                self.all.remove(0);
            }
            self.all.push((inode, Said::default()));
            self.all.len() - 1
        });
        &mut self.all[at].1
    }

    pub(super) fn of(&self, inode: u64) -> Said {
        self.all.iter().find(|(known, _)| *known == inode).map_or_else(Said::default, |(_, said)| *said)
    }

    pub(super) fn forget(&mut self, inode: u64) {
        self.all.retain(|(known, _)| *known != inode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_of_too_many_sockets_the_first_is_forgotten() {
        let mut sayings = Sayings::default();
        sayings.entry(1).v6only = Some(true);
        sayings.entry(1).interface = Some(7);
        sayings.entry(1).v6only = Some(false);
        assert_eq!(sayings.of(1), Said { v6only: Some(false), interface: Some(7) });
        assert_eq!(sayings.of(2), Said::default());
        for inode in 2..=256 {
            sayings.entry(inode).v6only = Some(true);
        }
        assert_eq!(sayings.of(1).interface, Some(7));
        sayings.entry(257).v6only = Some(true);
        assert_eq!((sayings.of(1), sayings.of(2).v6only), (Said::default(), Some(true)));
        sayings.forget(257);
        assert_eq!(sayings.of(257), Said::default());
    }
}

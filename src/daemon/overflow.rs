//! Accept queues that run over: told once for each app and spell of growth, since the kernel drops what does not
//! fit without a word to anybody, and clients only see that they wait. The counters are the kernel's own
//! (SO_MEMINFO), and reading them touches no connection.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::supervisor::event::{AppId, SocketId, WorkerId};
use crate::supervisor::time::Time;
use crate::sys::listen::{self, Queue};

use super::Daemon;

/// Between two looks at the counters.
const EVERY: Duration = Duration::from_secs(5);

/// Without growth for so long, a spell is over.
const CALM: Duration = Duration::from_secs(60);

/// What the counters were, and which apps have a spell.
#[derive(Debug, Default)]
pub(super) struct Overflows {
    look_at: Option<Time>,
    counted: HashMap<SocketId, u32>,
    spells: BTreeMap<AppId, Spell>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spell {
    began: Time,
    grew: Time,
    dropped: u64,
}

/// What is to be told of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    /// A spell has begun.
    Begun,
    /// It is over: so many attempts in all, in so long a time.
    Over { dropped: u64, within: Duration },
}

/// One socket's growth since the last look.
#[derive(Clone, Copy, Debug)]
struct Growth {
    owner: WorkerId,
    queue: Queue,
    dropped: u64,
}

impl Overflows {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.look_at
    }

    /// How much a counter has grown. What was dropped before a shared socket was ours is not told of.
    fn growth(&mut self, socket: SocketId, dropped: u32, is_shared: bool) -> u64 {
        let first = if is_shared { dropped } else { 0 };
        let before = self.counted.insert(socket, dropped).unwrap_or(first);
        u64::from(dropped.saturating_sub(before))
    }

    /// What a look at an app's queues comes to.
    fn hear(&mut self, app: AppId, dropped: u64, now: Time) -> Option<Telling> {
        match self.spells.get_mut(&app) {
            Some(spell) if dropped > 0 => {
                spell.dropped = spell.dropped.saturating_add(dropped);
                spell.grew = now;
                None
            }
            Some(spell) if now >= spell.grew + CALM => {
                let told = Telling::Over { dropped: spell.dropped, within: spell.grew - spell.began };
                self.spells.remove(&app);
                Some(told)
            }
            None if dropped > 0 => {
                self.spells.insert(app, Spell { began: now, grew: now, dropped });
                Some(Telling::Begun)
            }
            Some(_) | None => None,
        }
    }
}

impl Daemon {
    /// Looks at all queues when it is time.
    pub(super) fn look_at_overflows(&mut self) {
        if self.overflows.look_at.is_some_and(|at| self.now < at) {
            return;
        }
        let due = self.overflows.look_at.is_some();
        let any = self.sockets.all().next().is_some();
        self.overflows.look_at = any.then(|| self.now + EVERY);
        if due {
            self.tell_overflows();
        }
    }

    fn tell_overflows(&mut self) {
        let mut worst: BTreeMap<AppId, (u64, Option<Growth>)> =
            self.overflows.spells.keys().map(|app| (*app, (0, None))).collect();
        let mut looked = HashMap::new();
        for (socket, held) in self.sockets.all() {
            // Unix sockets count nothing, and a part of a shared socket counts for all of its parts.
            if looked.insert(held.inode, socket).is_some() {
                continue;
            }
            let Ok(queue) = listen::queue(held.fd.as_fd()) else { continue };
            let dropped = self.overflows.growth(socket, queue.dropped, held.shared);
            let Some(app) = self.app_of(held.owner).filter(|_| dropped > 0) else { continue };
            let (sum, most) = worst.entry(app).or_default();
            *sum += dropped;
            if most.is_none_or(|most| most.dropped < dropped) {
                *most = Some(Growth { owner: held.owner, queue, dropped });
            }
        }
        self.overflows.counted.retain(|socket, _| self.sockets.get(*socket).is_some());
        for (app, (dropped, most)) in worst {
            let told = self.overflows.hear(app, dropped, self.now);
            self.tell_overflow(app, told, dropped, most);
        }
    }

    fn tell_overflow(&self, app: AppId, told: Option<Telling>, dropped: u64, most: Option<Growth>) {
        let name = self.app_name(app);
        let were =
            |count: u64| if count == 1 { "attempt to connect was" } else { "attempts to connect were" };
        match (told, most) {
            (Some(Telling::Begun), Some(Growth { owner, queue, .. })) => log::warn!(
                "{}: its accept queue runs over ({} wait, its backlog is {}): {dropped} {} dropped in the last {} s, \
                 and those clients wait a second or more; `clusterd scale {name} +1`, or a greater backlog. Told \
                 again when it is over",
                self.label(owner),
                queue.depth,
                queue.limit,
                were(dropped),
                EVERY.as_secs()
            ),
            (Some(Telling::Over { dropped, within }), _) => log::info!(
                "{name}: no accept queue has run over for {} s; {dropped} {} dropped in {} s",
                CALM.as_secs(),
                were(dropped),
                (within + EVERY).as_secs()
            ),
            (Some(Telling::Begun), None) | (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_spell_is_told_of_at_its_begin_and_its_end() {
        let (app, other) = (AppId(1), AppId(2));
        let mut overflows = Overflows::default();
        let within = Duration::from_secs(10);
        for (now, whose, dropped, expected) in [
            (5, app, 0, None),
            (10, app, 3, Some(Telling::Begun)),
            (15, app, 4, None),
            (15, other, 1, Some(Telling::Begun)),
            (20, app, 5, None),
            (79, app, 0, None),
            (80, app, 0, Some(Telling::Over { dropped: 12, within })),
            (85, app, 0, None),
            (90, app, 1, Some(Telling::Begun)),
        ] {
            assert_eq!(overflows.hear(whose, dropped, at(now)), expected, "at {now}");
        }
    }

    #[test]
    fn only_what_is_new_counts_and_nothing_of_before_a_socket_was_ours() {
        let mut overflows = Overflows::default();
        let (own, shared) = (SocketId(1), SocketId(2));
        assert_eq!((overflows.growth(own, 3, false), overflows.growth(own, 5, false)), (3, 2));
        assert_eq!((overflows.growth(shared, 7, true), overflows.growth(shared, 9, true)), (0, 2));
        assert_eq!(overflows.growth(own, 1, false), 0);
    }
}

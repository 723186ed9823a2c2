//! Clients of `logs`: the last lines first, as fast as they are taken, then each new one.
//!
//! A client that takes nothing costs no more than [`UNREAD`] bytes, and the last lines of one app. What came
//! meanwhile is left out, counted, and told at its place as soon as there is room again, also when no further line
//! comes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, UNIX_EPOCH};

use crate::control::protocol::{self, Done, Error, Reply, Stream};
use crate::control::server::{ClientId, Server};
use crate::logs::Line;
use crate::logs::ring::{APP_LINES, Kept};
use crate::supervisor::event::{AppId, Scope};

use super::Daemon;
use super::commands::{Whom, failure};

/// Unread bytes of a client from which on lines are left out for it.
const UNREAD: usize = 256 * 1024;

/// Unread bytes at which it gets lines again: not one here and one there, with a notice for each gap.
const ROOM: usize = UNREAD / 2;

/// Clients at a time. Each may leave [`UNREAD`] bytes unread for ever, and formats every line anew.
const LIMIT: usize = 64;

/// What a client of `logs` asks for, besides whose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Last lines of each app.
    pub(super) lines: u32,
    pub(super) follow: bool,
    pub(super) stream: Option<Stream>,
}

/// All clients of `logs`.
#[derive(Debug, Default)]
pub(super) struct Followers(Vec<Follower>);

#[derive(Debug)]
struct Follower {
    client: ClientId,
    targets: Vec<String>,
    wanted: Wanted,
    /// What it wants of each app that was there.
    shares: BTreeMap<AppId, Share>,
    /// Apps whose last lines it has not yet; nothing new of theirs is told before.
    behind: VecDeque<Behind>,
    /// Lines left out since the last one that it was sent.
    dropped: u64,
}

/// Which workers of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Share {
    Nothing,
    Instances(Vec<u32>),
    All,
}

/// An app of which not everything was sent that is remembered.
#[derive(Debug)]
struct Behind {
    app: AppId,
    /// Lines to fetch from the memory, with those that came since.
    lines: usize,
    /// How many of them came since, and are missing where the memory has fewer.
    since: usize,
    /// Fetched and not sent yet, oldest first.
    fetched: VecDeque<Kept>,
}

impl Share {
    fn has(&self, instance: u32) -> bool {
        match self {
            Share::Nothing => false,
            Share::Instances(instances) => instances.contains(&instance),
            Share::All => true,
        }
    }

    fn add(&mut self, instance: Option<u32>) {
        match (&mut *self, instance) {
            (_, None) => *self = Share::All,
            (Share::Nothing, Some(instance)) => *self = Share::Instances(vec![instance]),
            (Share::Instances(instances), Some(instance)) => instances.push(instance),
            (Share::All, Some(_)) => {}
        }
    }
}

impl Wanted {
    fn has(self, stream: Stream) -> bool {
        self.stream.is_none_or(|wanted| wanted == stream)
    }
}

impl Followers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn remove(&mut self, client: ClientId) {
        self.0.retain(|follower| follower.client != client);
    }

    pub(super) fn forget_app(&mut self, app: AppId) {
        for follower in &mut self.0 {
            follower.shares.remove(&app);
            follower.behind.retain(|behind| behind.app != app);
        }
    }

    /// Sends a line to those who want it, or counts it for them.
    pub(super) fn pass_on(&mut self, server: &mut Server, line: &Line<'_>, at: Duration) {
        for follower in &mut self.0 {
            follower.pass_on(server, line, at);
        }
    }
}

impl Follower {
    fn wants(&self, line: &Line<'_>) -> bool {
        let share = self.shares.get(&line.origin.app);
        self.wanted.has(line.stream) && share.is_some_and(|share| share.has(line.origin.instance))
    }

    fn pass_on(&mut self, server: &mut Server, line: &Line<'_>, at: Duration) {
        if !self.wants(line) {
            return;
        }
        if let Some(behind) = self.behind.iter_mut().find(|behind| behind.app == line.origin.app) {
            behind.lines = behind.lines.saturating_add(1);
            behind.since = behind.since.saturating_add(1);
            return;
        }
        // Without `follow` nothing is sent but what was remembered.
        if !self.wanted.follow {
            return;
        }
        let limit = if self.dropped > 0 { ROOM } else { UNREAD };
        if server.unread(self.client).is_none_or(|unread| unread > limit) {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.tell_dropped(server);
        let origin = line.origin;
        let app = (origin.namespace.clone(), origin.name.clone());
        let shown = told(app, origin.instance, line.stream, line.shown(), at);
        server.reply(self.client, &Reply::Line(shown), false);
    }

    fn tell_dropped(&mut self, server: &mut Server) {
        let lines = std::mem::take(&mut self.dropped);
        if lines > 0 {
            server.reply(self.client, &Reply::Dropped { lines }, false);
        }
    }

    fn has_room(&self, server: &Server) -> bool {
        server.unread(self.client).is_some_and(|unread| unread <= ROOM)
    }

    /// Nothing is left to be sent but what comes.
    fn is_up_to_date(&self) -> bool {
        self.behind.is_empty() && self.dropped == 0
    }
}

impl Behind {
    /// Takes from the memory what is to be sent next; what is no longer there is counted.
    fn fetch(&mut self, found: Vec<Kept>) -> u64 {
        let missing = self.since.saturating_sub(found.len()) as u64;
        self.fetched = found.into();
        (self.lines, self.since) = (0, 0);
        missing
    }
}

/// A line as clients are told it, of the app of this namespace and name.
fn told(
    (namespace, app): (String, String),
    instance: u32,
    stream: Stream,
    bytes: &[u8],
    at: Duration,
) -> protocol::Line {
    protocol::Line {
        app,
        namespace,
        instance,
        stream,
        text: String::from_utf8_lossy(bytes).into_owned(),
        at: Some(humantime::format_rfc3339_millis(UNIX_EPOCH + at).to_string()),
    }
}

impl Daemon {
    /// Begins to answer `logs`; [`Daemon::feed_followers`] goes on.
    pub(super) fn logs(
        &mut self,
        client: ClientId,
        targets: Vec<String>,
        wanted: Wanted,
    ) -> Result<(), Error> {
        if self.output.followers.0.len() >= LIMIT {
            return Err(failure(format!("{LIMIT} clients read logs already; end one of them")));
        }
        let whom = self.whom_or_all(&targets)?;
        let lines = usize::try_from(wanted.lines).map_or(APP_LINES, |lines| lines.min(APP_LINES));
        let mut behind: VecDeque<Behind> = VecDeque::new();
        for (app, _) in &whom {
            if !behind.iter().any(|known| known.app == *app) {
                behind.push_back(Behind { app: *app, lines, since: 0, fetched: VecDeque::new() });
            }
        }
        if behind.is_empty() {
            let (reply, last) = if wanted.follow {
                (Reply::Following {}, false)
            } else {
                (Reply::Done(Done::default()), true)
            };
            self.server.reply(client, &reply, last);
            if last {
                return Ok(());
            }
        }
        let shares = self.shares(whom);
        self.server.be_patient(client);
        self.output.followers.0.push(Follower { client, targets, wanted, shares, behind, dropped: 0 });
        self.feed(self.output.followers.0.len() - 1);
        Ok(())
    }

    fn shares(&self, whom: Whom) -> BTreeMap<AppId, Share> {
        let mut shares = BTreeMap::new();
        for (app, scope) in whom {
            let share = shares.entry(app).or_insert(Share::Nothing);
            match scope {
                Scope::All => share.add(None),
                Scope::Slot(slot) => {
                    let known = self.supervisor.slots(app).find(|known| known.slot == slot);
                    known.into_iter().for_each(|known| share.add(Some(known.instance)));
                }
            }
        }
        shares
    }

    /// A worker of this app starts: who follows `all`, a namespace or a pattern may want an app that was not there
    /// when it began, or was deleted and came again.
    pub(super) fn introduce(&mut self, app: AppId) {
        let is_new = |follower: &Follower| !follower.shares.contains_key(&app);
        if !self.output.followers.0.iter().any(is_new) {
            return;
        }
        let mut followers = std::mem::take(&mut self.output.followers);
        for follower in followers.0.iter_mut().filter(|follower| is_new(follower)) {
            // One by one: a target that means nothing any more does not hide what the others mean.
            let by_one = follower.targets.iter().map(std::slice::from_ref);
            let each: Vec<&[String]> = if follower.targets.is_empty() { vec![&[]] } else { by_one.collect() };
            let whom = each.into_iter().filter_map(|target| self.whom_or_all(target).ok()).flatten();
            let mut shares = self.shares(whom.filter(|(wanted, _)| *wanted == app).collect());
            follower.shares.insert(app, shares.remove(&app).unwrap_or(Share::Nothing));
        }
        self.output.followers = followers;
    }

    /// Sends what waits to those who have room for it.
    pub(super) fn feed_followers(&mut self) {
        for place in (0..self.output.followers.0.len()).rev() {
            self.feed(place);
        }
    }

    fn feed(&mut self, place: usize) {
        if self.output.followers.0.get(place).is_none_or(Follower::is_up_to_date) {
            return;
        }
        let mut followers = std::mem::take(&mut self.output.followers);
        if let Some(follower) = followers.0.get_mut(place) {
            self.catch_up(follower);
            if follower.is_up_to_date() && !follower.wanted.follow {
                self.server.reply(follower.client, &Reply::Done(Done::default()), true);
                followers.0.swap_remove(place);
            }
        }
        self.output.followers = followers;
    }

    fn catch_up(&mut self, follower: &mut Follower) {
        while follower.has_room(&self.server) {
            follower.tell_dropped(&mut self.server);
            let Some(behind) = follower.behind.front_mut() else { return };
            if let Some(kept) = behind.fetched.pop_front() {
                let app = (self.namespace(behind.app), self.bare_name(behind.app));
                let text = kept.bytes.strip_suffix(b"\r").unwrap_or(&kept.bytes);
                let line = told(app, kept.instance, kept.stream, text, kept.at);
                self.server.reply(follower.client, &Reply::Line(line), false);
            } else if behind.lines > 0 {
                let share = follower.shares.get(&behind.app).unwrap_or(&Share::Nothing);
                let wants = |instance, stream| share.has(instance) && follower.wanted.has(stream);
                let found = self.output.last_of_app(behind.app, behind.lines, wants);
                follower.dropped = behind.fetch(found);
            } else {
                follower.behind.pop_front();
                if follower.behind.is_empty() && follower.wanted.follow {
                    self.server.reply(follower.client, &Reply::Following {}, false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::event::WorkerId;

    fn kept(count: usize) -> Vec<Kept> {
        let one = Kept {
            worker: WorkerId(1),
            instance: 0,
            stream: Stream::Out,
            bytes: Vec::new(),
            cut: false,
            continued: false,
            at: Duration::ZERO,
        };
        vec![one; count]
    }

    #[test]
    fn what_came_while_a_client_was_behind_is_missing_only_where_it_is_forgotten() {
        for (lines, since, found, missing) in
            [(15, 0, 3, 0), (15, 5, 8, 0), (1000, 1000, 1000, 0), (1400, 1400, 1000, 400), (0, 0, 0, 0)]
        {
            let mut behind = Behind { app: AppId(1), lines, since, fetched: VecDeque::new() };
            assert_eq!(behind.fetch(kept(found)), missing, "{lines} {since} {found}");
            assert_eq!((behind.lines, behind.since, behind.fetched.len()), (0, 0, found));
        }
    }

    #[test]
    fn several_targets_of_one_app_add_up() {
        let mut share = Share::Nothing;
        assert!(!share.has(0));
        share.add(Some(1));
        share.add(Some(3));
        assert_eq!([0, 1, 2, 3].map(|instance| share.has(instance)), [false, true, false, true]);
        share.add(None);
        share.add(Some(1));
        assert_eq!(share, Share::All);
    }
}

//! In which order apps start and stop: who waits for whom, and when that wait is over or in vain.
//!
//! An app starts when all that it depends on is ready, and what it depends on stays until it has stopped,
//! where both are to stop. Only a start waits: whoever runs goes on running, whatever becomes of the others.
//! Nothing here remembers an order of steps; each answer follows from how the apps stand.

use super::app::{App, End, Gate, Idle, Slot, Turn, Until, Wanted};
use super::event::{Action, AppId, Cause, Command, Fact, Failure, Obstacle, Outcome, Scope};
use super::policy::AppName;
use super::time::Time;
use super::worker::Worker;
use super::{Bug, Life, Supervisor};

/// Whether an app may start its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Admission {
    /// It may.
    Open,
    /// When all that it depends on is ready. `told`: what people know of that.
    Waiting { told: Told },
}

/// What people know of an app's wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Told {
    Nothing,
    /// That it waits.
    Waits,
    /// That what it waits for is stopped.
    Stopped,
}

/// What those who depend on an app may hope for, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outlook {
    /// It is ready, or ended well.
    Ready,
    /// It is on its way.
    Coming,
    /// Its start failed; it may still get ready.
    Failing(Obstacle),
    /// It does not get ready by itself.
    Hopeless(Obstacle),
}

impl App {
    fn is_named(&self, name: &AppName) -> bool {
        self.name == name.name && self.namespace == name.namespace
    }

    /// What its next start waits for.
    fn needs(&self) -> &[AppName] {
        &self.policy(self.target()).depends_on
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.admission != Admission::Open
    }

    /// From now on its workers wait until all that it depends on is ready.
    pub(super) fn line_up(&mut self, turn: &Turn<'_>) {
        let waits = !self.needs().is_empty() && !turn.has(Bug::StartsUnordered);
        self.admission = if waits { Admission::Waiting { told: Told::Nothing } } else { Admission::Open };
    }

    /// Everything that it depends on is ready.
    fn admit(&mut self, turn: &mut Turn<'_>) {
        self.admission = Admission::Open;
        turn.changed = true;
    }

    /// It waits, and people hear for what.
    fn announce(&mut self, on: AppName, turn: &mut Turn<'_>) {
        self.admission = Admission::Waiting { told: Told::Waits };
        turn.report(Fact::Awaits { app: self.id, on, stopped: false });
    }

    /// What it waits for was stopped: whoever starts that again starts this app, too.
    fn stand_by(&mut self, on: AppName, turn: &mut Turn<'_>) {
        if self.admission != (Admission::Waiting { told: Told::Stopped }) {
            self.admission = Admission::Waiting { told: Told::Stopped };
            turn.report(Fact::Awaits { app: self.id, on: on.clone(), stopped: true });
        }
        self.disappoint(on, Obstacle::Stopped, turn);
    }

    /// Who asked for its start hears that this takes longer than it should.
    fn disappoint(&mut self, on: AppName, obstacle: Obstacle, turn: &mut Turn<'_>) {
        let failed = Outcome::Failed(Failure::Dependency { on, obstacle });
        self.answer(failed, turn, |until| matches!(until, Until::Ready(_)));
    }

    /// What it waits for does not get ready by itself: it is given up.
    fn forgo(&mut self, on: AppName, obstacle: Obstacle, turn: &mut Turn<'_>) {
        self.admission = Admission::Open;
        for slot in self.slots.iter_mut().filter(|slot| slot.is_wanted()) {
            slot.idle = Idle::Errored;
            slot.ran = false;
        }
        turn.report(Fact::Forgone { app: self.id, on: on.clone(), obstacle });
        self.disappoint(on, obstacle, turn);
    }

    /// None of its workers stays.
    fn is_leaving(&self) -> bool {
        // Who never ends is not waited for.
        let ends = self.workers().any(|worker| !worker.is_unkillable());
        let stays = |slot: &Slot| slot.is_wanted() && slot.gate != Gate::Held;
        ends && !(self.is_up() && self.slots.iter().any(stays))
    }

    /// Its workers were told to stay until who depends on it is gone.
    fn is_held(&self) -> bool {
        self.slots.counts().lingering > 0
    }

    /// A restart that waited until who depends on these workers was gone.
    pub(super) fn begin_restart(&mut self, turn: &mut Turn<'_>) {
        let mut begun = false;
        for slot in self.slots.touched_places() {
            if self.slots[slot].is_wanted() && self.slots[slot].gate == Gate::Held {
                self.slots[slot].gate = Gate::AfterTree;
                self.leave_where(slot, Cause::Restart, turn, |_| true);
                begun = true;
            }
        }
        if begun && !self.is_up() {
            self.forget_expectations();
        }
        turn.changed |= begun;
    }

    /// What can be said of it without looking at others. A reload takes nothing from that: where one goes on,
    /// or is held, the old workers serve. The slots that it adds come with it, and are no part of what is there.
    fn outlook(&self) -> Outlook {
        if self.doomed {
            return Outlook::Hopeless(Obstacle::Unknown);
        }
        let added = |slot: &Slot| self.rollout.as_ref().is_some_and(|rollout| rollout.to == slot.born);
        let worst = |of_added: bool| {
            let slots = self.slots.iter().filter(|slot| added(slot) == of_added);
            slots.filter_map(slot_outlook).max()
        };
        worst(false).or_else(|| worst(true)).unwrap_or(Outlook::Hopeless(Obstacle::Stopped))
    }
}

/// None: it is not to be counted, because somebody stopped it.
fn slot_outlook(slot: &Slot) -> Option<Outlook> {
    match (slot.wanted, slot.idle) {
        (Wanted::Rest(_), Idle::Ended { .. }) if !slot.workers.is_empty() => Some(Outlook::Coming),
        (Wanted::Rest(_), Idle::Ended { well: true }) => Some(Outlook::Ready),
        (Wanted::Rest(_), Idle::Ended { well: false }) => Some(Outlook::Hopeless(Obstacle::Ended)),
        (Wanted::Rest(_) | Wanted::Remove(_), _) => None,
        (Wanted::Run, _) if slot.gate == Gate::Held => Some(Outlook::Coming),
        (Wanted::Run, _) if slot.workers.iter().any(Worker::is_ready) => Some(Outlook::Ready),
        (Wanted::Run, _) if slot.up().any(Worker::is_late) => Some(Outlook::Failing(Obstacle::Late)),
        (Wanted::Run, Idle::Errored) if slot.up().next().is_none() => {
            Some(Outlook::Hopeless(Obstacle::Errored))
        }
        (Wanted::Run, Idle::Waiting(_)) => Some(Outlook::Failing(Obstacle::Failing)),
        (Wanted::Run, Idle::Free | Idle::Errored | Idle::Ended { .. }) => Some(Outlook::Coming),
    }
}

/// How an app stands, as who depends on it sees it.
fn outlook(apps: &[App], name: &AppName) -> Outlook {
    let Some(app) = apps.iter().find(|app| app.is_named(name)) else {
        return Outlook::Hopeless(Obstacle::Unknown);
    };
    let own = app.outlook();
    if own != Outlook::Coming || !app.is_waiting() {
        return own;
    }
    let stuck = |next: &App| matches!(next.outlook(), Outlook::Failing(_) | Outlook::Hopeless(_));
    let mut waiting = vec![app];
    let mut place = 0;
    while let Some(one) = waiting.get(place).copied() {
        for next in apps.iter().filter(|next| one.needs().iter().any(|need| next.is_named(need))) {
            if stuck(next) {
                return Outlook::Failing(Obstacle::Waiting);
            }
            if next.is_waiting() && !waiting.iter().any(|known| known.id == next.id) {
                waiting.push(next);
            }
        }
        place += 1;
    }
    own
}

/// The worst of what these names stand for.
fn worst(apps: &[App], names: &[AppName]) -> Option<(AppName, Outlook)> {
    let looked = names.iter().map(|name| (name.clone(), outlook(apps, name)));
    looked.max_by_key(|(_, outlook)| *outlook)
}

/// Whether `one` depends on `other`, by whatever way.
fn depends(apps: &[App], one: &App, other: &App) -> bool {
    let mut reached = vec![one];
    let mut place = 0;
    while let Some(from) = reached.get(place).copied() {
        if from.needs().iter().any(|name| other.is_named(name)) {
            return true;
        }
        for next in apps.iter().filter(|next| from.needs().iter().any(|name| next.is_named(name))) {
            if !reached.iter().any(|known| known.id == next.id) {
                reached.push(next);
            }
        }
        place += 1;
    }
    false
}

/// Whether somebody who depends on this app is still on the way out. In a circle, which only reloads of
/// single apps can make, nobody waits.
pub(super) fn is_held(apps: &[App], index: usize) -> bool {
    let app = &apps[index];
    apps.iter().any(|other| {
        other.id != app.id
            && other.needs().iter().any(|name| app.is_named(name))
            && other.is_leaving()
            && !depends(apps, app, other)
    })
}

/// An app's part of a shutdown: who goes first leaves time for who goes later, so that each gets its
/// `kill_signal` and a part of the whole to end upon it.
pub(super) fn part(apps: &[App], index: usize, end: End) -> End {
    if apps.iter().all(|app| app.needs().is_empty()) {
        return end;
    }
    let direct = |one: &App, other: &App| one.needs().iter().any(|name| other.is_named(name));
    let above = chain(apps, index, |from, next| direct(next, from));
    let below = chain(apps, index, direct);
    let within = end.within * (above + 1) / (above + 1 + below);
    End { within, began: end.began, killed_by: (end.began + within).min(end.killed_by) }
}

/// The longest chain that a shutdown is divided by; the rest of a longer one shares its last part.
const LONGEST: u32 = 32;

/// The length of the longest chain from one app on.
fn chain(apps: &[App], from: usize, leads: impl Fn(&App, &App) -> bool) -> u32 {
    let mut reached = vec![from];
    for length in 0..LONGEST {
        let next = |place: &usize| reached.iter().any(|from| leads(&apps[*from], &apps[*place]));
        reached = (0..apps.len()).filter(next).collect();
        if reached.is_empty() {
            return length;
        }
    }
    LONGEST
}

/// Sorts so that everything stands behind what it needs, and else in the order that it had.
pub fn sorted<T>(items: Vec<T>, name: impl Fn(&T) -> AppName, needs: impl Fn(&T) -> Vec<AppName>) -> Vec<T> {
    let mut rest: Vec<(AppName, Vec<AppName>, T)> =
        items.into_iter().map(|item| (name(&item), needs(&item), item)).collect();
    let mut sorted = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let free = |(own, needs, _): &(AppName, Vec<AppName>, T)| {
            needs.iter().all(|need| need == own || rest.iter().all(|(other, ..)| other != need))
        };
        // Nobody is free in a circle only; its first breaks it.
        let next = rest.iter().position(free).unwrap_or(0);
        sorted.push(rest.remove(next).2);
    }
    sorted
}

impl Supervisor {
    /// What has to be said to a wish for a start that cannot come true by itself.
    pub(super) fn hopeless(&self, index: usize, command: &Command) -> Option<Failure> {
        let app = &self.apps[index];
        let definition = match command {
            Command::Start { definition, .. } | Command::Reload { definition, .. } if !app.is_up() => {
                definition
            }
            Command::Restart { scope, definition, .. } if *scope == Scope::All || !app.is_up() => definition,
            Command::Add { .. }
            | Command::Restore { .. }
            | Command::Start { .. }
            | Command::Reset { .. }
            | Command::Restart { .. }
            | Command::Reload { .. }
            | Command::Define { .. }
            | Command::Adjust { .. }
            | Command::Stop { .. }
            | Command::Delete { .. }
            | Command::Scale { .. }
            | Command::Promote { .. }
            | Command::Rollback { .. }
            | Command::Shutdown { .. }
            | Command::ShutdownNow { .. } => return None,
        };
        let needs = definition.as_ref().map_or(app.needs(), |new| &new.policy.depends_on);
        match worst(&self.apps, needs)? {
            (on, Outlook::Hopeless(obstacle)) => Some(Failure::Dependency { on, obstacle }),
            (_, Outlook::Ready | Outlook::Coming | Outlook::Failing(_)) => None,
        }
    }

    /// Whoever waited for others goes on where that is over. Each round moves an app that no later round
    /// moves again, so there are no more rounds than apps.
    pub(super) fn follow(&mut self, now: Time, out: &mut Vec<Action>) {
        if self.life == Life::Over {
            return;
        }
        // Counted, so that a mistake elsewhere costs a step and not the loop.
        for _ in 0..=self.apps.len() {
            let mut moved = false;
            for index in 0..self.apps.len() {
                moved |= self.go_ahead(index, now, out);
                moved |= self.let_leave(index, now, out);
            }
            if !moved {
                break;
            }
        }
    }

    /// An app that waits starts, is given up, or says what it waits for; true when others may follow.
    fn go_ahead(&mut self, index: usize, now: Time, out: &mut Vec<Action>) -> bool {
        let app = &self.apps[index];
        let Admission::Waiting { told } = app.admission else { return false };
        let asked = app.requests.iter().any(|request| matches!(request.until, Until::Ready(_)));
        let found = worst(&self.apps, app.needs());
        let (on, outlook) = match found {
            None | Some((_, Outlook::Ready)) => {
                self.turn_all(index, now, out, |app, turn| app.admit(turn));
                return true;
            }
            Some(found) => found,
        };
        match outlook {
            Outlook::Ready => {}
            Outlook::Hopeless(Obstacle::Stopped) => {
                if asked || told != Told::Stopped {
                    self.turn_all(index, now, out, |app, turn| app.stand_by(on, turn));
                }
            }
            Outlook::Hopeless(obstacle) => {
                self.turn_all(index, now, out, |app, turn| app.forgo(on, obstacle, turn));
                return true;
            }
            Outlook::Failing(obstacle) if asked => {
                self.turn_all(index, now, out, |app, turn| app.disappoint(on, obstacle, turn));
            }
            Outlook::Coming | Outlook::Failing(_) if told == Told::Nothing => {
                self.turn_all(index, now, out, |app, turn| app.announce(on, turn));
            }
            // A second stop is told as the first was.
            Outlook::Coming | Outlook::Failing(_) => {
                self.apps[index].admission = Admission::Waiting { told: Told::Waits };
            }
        }
        false
    }

    /// Whoever leaves as well, and is to come again, comes behind an app that is restarted.
    pub(super) fn line_up_behind(&mut self, index: usize) {
        let app = &self.apps[index];
        let follows = |other: &App| {
            let depends_on = other.id != app.id && other.needs().iter().any(|name| app.is_named(name));
            let comes_again = other.is_leaving() && other.slots.iter().any(Slot::is_wanted);
            depends_on && comes_again && !other.is_waiting() && !depends(&self.apps, app, other)
        };
        let behind: Vec<usize> = (0..self.apps.len()).filter(|place| follows(&self.apps[*place])).collect();
        for place in behind {
            self.apps[place].admission = Admission::Waiting { told: Told::Nothing };
        }
    }

    /// An app whose workers stayed for others lets them go.
    fn let_leave(&mut self, index: usize, now: Time, out: &mut Vec<Action>) -> bool {
        let due = self.apps[index].is_held() && !is_held(&self.apps, index);
        if due {
            self.turn_all(index, now, out, |_, _| {});
        }
        due
    }

    /// The apps' places, whoever depends on another before it.
    pub(super) fn last_first(&self) -> Vec<usize> {
        let name = |app: &App| AppName { namespace: app.namespace.clone(), name: app.name.clone() };
        let places: Vec<usize> = (0..self.apps.len()).collect();
        let mut places =
            sorted(places, |place| name(&self.apps[*place]), |place| self.apps[*place].needs().to_vec());
        places.reverse();
        places
    }

    /// What an app that waits is waiting for.
    pub fn waits_for(&self, app: AppId) -> Vec<AppName> {
        let waiting = self.apps.iter().find(|other| other.id == app && other.is_waiting());
        let needs = waiting.into_iter().flat_map(App::needs);
        needs.filter(|name| outlook(&self.apps, name) != Outlook::Ready).cloned().collect()
    }

    /// What an app's next start waits for.
    pub fn needs(&self, app: AppId) -> Vec<AppName> {
        self.apps.iter().find(|other| other.id == app).map(|app| app.needs().to_vec()).unwrap_or_default()
    }

    /// Whether a worker of this app is up, and who depends on it may start.
    pub fn stands(&self, app: AppId) -> bool {
        let found = self.apps.iter().find(|other| other.id == app);
        found.is_some_and(|app| app.is_up() && !matches!(app.outlook(), Outlook::Hopeless(_)))
    }

    /// The apps that depend on this one and run.
    pub fn dependents(&self, app: AppId) -> Vec<AppId> {
        let Some(app) = self.apps.iter().find(|other| other.id == app) else { return Vec::new() };
        let runs =
            |other: &&App| other.slots.iter().any(|slot| slot.is_wanted() && slot.up().next().is_some());
        let all = self.apps.iter().filter(|other| other.needs().iter().any(|name| app.is_named(name)));
        all.filter(runs).map(|other| other.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> AppName {
        AppName { namespace: "default".into(), name: text.into() }
    }

    /// `"web:api,db"`: web needs api and db.
    fn sort(items: &[&'static str]) -> Vec<String> {
        let own = |item: &&str| name(item.split(':').next().unwrap_or_default());
        let needs = |item: &&str| {
            let needs = item.split_once(':').map_or("", |(_, needs)| needs);
            needs.split(',').filter(|need| !need.is_empty()).map(name).collect()
        };
        sorted(items.to_vec(), own, needs).into_iter().map(|item| own(&item).name).collect()
    }

    #[test]
    fn everything_stands_behind_what_it_needs() {
        assert_eq!(sort(&["web:api,db", "api:db", "other", "db"]), ["other", "db", "api", "web"]);
        assert_eq!(sort(&["a", "b", "c"]), ["a", "b", "c"]);
        assert_eq!(sort(&["a:elsewhere", "b:b"]), ["a", "b"]);
    }

    #[test]
    fn a_circle_is_broken_at_its_first() {
        assert_eq!(sort(&["a:b", "b:a", "c:a"]), ["a", "b", "c"]);
    }
}

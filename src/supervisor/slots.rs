//! The slots of an app, and what follows from each of them kept beside them: with a thousand workers nobody can
//! look at all of them for each thing that happens to one.
//!
//! What is kept is no second truth that somebody has to remember. A slot can be changed through this module
//! alone, which then counts it as touched; workers come and go by [`Slots::put`] and [`Slots::take`] alone; and
//! a turn ends by noting anew what it touched. Two collections of equal slots are equal, whatever is noted.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut, Index, IndexMut};

use super::app::Slot;
use super::event::WorkerId;
use super::time::Time;
use super::worker::Worker;

/// The workers of one slot, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Workers(Vec<Worker>);

impl Deref for Workers {
    type Target = [Worker];

    fn deref(&self) -> &[Worker] {
        &self.0
    }
}

impl DerefMut for Workers {
    fn deref_mut(&mut self) -> &mut [Worker] {
        &mut self.0
    }
}

impl<'a> IntoIterator for &'a Workers {
    type Item = &'a Worker;
    type IntoIter = std::slice::Iter<'a, Worker>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a mut Workers {
    type Item = &'a mut Worker;
    type IntoIter = std::slice::IterMut<'a, Worker>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter_mut()
    }
}

impl FromIterator<Worker> for Workers {
    fn from_iter<T: IntoIterator<Item = Worker>>(workers: T) -> Workers {
        Workers(workers.into_iter().collect())
    }
}

/// What follows from one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// When it needs attention by itself.
    pub(super) due: Option<Time>,
    pub(super) counts: Counts,
}

/// Of one slot, or of all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Workers that are to be weighed.
    pub(super) weighable: u32,
    /// Workers that were killed and do not end.
    pub(super) unkillable: u32,
    /// Slots in which a worker is up that is not of the generation that is wanted.
    pub(super) mixed: u32,
    /// Slots that want no worker and have one that was not told to leave, and those with a restart ahead of them.
    pub(super) lingering: u32,
}

impl Counts {
    /// Of all together, once one slot's went from `before` to `after`.
    fn moved(self, before: Counts, after: Counts) -> Counts {
        let moved = |all: u32, before: u32, after: u32| (all + after).saturating_sub(before);
        Counts {
            weighable: moved(self.weighable, before.weighable, after.weighable),
            unkillable: moved(self.unkillable, before.unkillable, after.unkillable),
            mixed: moved(self.mixed, before.mixed, after.mixed),
            lingering: moved(self.lingering, before.lingering, after.lingering),
        }
    }
}

/// Which slots a turn has to look at. By instance: of these no two slots have one, and none ever gets another.
#[derive(Clone, Debug)]
enum Touched {
    All,
    These(BTreeSet<u32>),
}

/// The slots of an app, in the order of instance.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    all: Vec<Slot>,
    /// What was last noted of each, place by place.
    notes: Vec<Note>,
    counts: Counts,
    /// The instance whose slot a worker is in.
    homes: BTreeMap<WorkerId, u32>,
    due: BTreeSet<(Time, u32)>,
    touched: Touched,
    /// Workers that were taken since the last turn ended.
    gone: Vec<WorkerId>,
    /// A slot was taken since then.
    fewer: bool,
}

impl Default for Slots {
    fn default() -> Slots {
        Slots::from_iter([])
    }
}

impl FromIterator<Slot> for Slots {
    fn from_iter<T: IntoIterator<Item = Slot>>(slots: T) -> Slots {
        let all: Vec<Slot> = slots.into_iter().collect();
        let home = |slot: &Slot| {
            let instance = slot.instance;
            slot.workers.iter().map(|worker| (worker.id, instance)).collect::<Vec<_>>()
        };
        Slots {
            notes: vec![Note::default(); all.len()],
            counts: Counts::default(),
            homes: all.iter().flat_map(home).collect(),
            due: BTreeSet::new(),
            touched: Touched::All,
            gone: Vec::new(),
            fewer: false,
            all,
        }
    }
}

impl PartialEq for Slots {
    fn eq(&self, other: &Slots) -> bool {
        self.all == other.all
    }
}

impl Eq for Slots {}

impl Hash for Slots {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.all.hash(state);
    }
}

impl Deref for Slots {
    type Target = [Slot];

    fn deref(&self) -> &[Slot] {
        #[cfg(test)]
        looked::add(self.all.len());
        &self.all
    }
}

impl Index<usize> for Slots {
    type Output = Slot;

    fn index(&self, place: usize) -> &Slot {
        &self.all[place]
    }
}

impl IndexMut<usize> for Slots {
    fn index_mut(&mut self, place: usize) -> &mut Slot {
        self.touch(place);
        &mut self.all[place]
    }
}

impl<'a> IntoIterator for &'a Slots {
    type Item = &'a Slot;
    type IntoIter = std::slice::Iter<'a, Slot>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

impl<'a> IntoIterator for &'a mut Slots {
    type Item = &'a mut Slot;
    type IntoIter = std::slice::IterMut<'a, Slot>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl Slots {
    // Reading.

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// A worker's slot, and its place in there.
    pub(super) fn find(&self, worker: WorkerId) -> Option<(usize, usize)> {
        let slot = self.place_of(*self.homes.get(&worker)?)?;
        let place = self.all[slot].workers.iter().position(|other| other.id == worker)?;
        Some((slot, place))
    }

    /// So many workers are there, whatever they do.
    pub(super) fn population(&self) -> usize {
        self.homes.len()
    }

    /// As of the last notes.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// When the first of them needs attention by itself, as of the last notes.
    pub(super) fn due(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    fn place_of(&self, instance: u32) -> Option<usize> {
        self.all.binary_search_by_key(&instance, |slot| slot.instance).ok()
    }

    // Changing.

    /// All of them, each of which may be changed.
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Slot> {
        self.touch_all();
        self.all.iter_mut()
    }

    /// In the order of instance.
    pub(super) fn insert(&mut self, slot: Slot) {
        let place = self.all.partition_point(|other| other.instance < slot.instance);
        self.all.insert(place, slot);
        self.notes.insert(place, Note::default());
        self.touch(place);
    }

    /// Takes the slots that are to go, which have no worker any more. True when there were any.
    pub(super) fn drop_where(&mut self, goes: impl Fn(&Slot) -> bool) -> bool {
        let mut places = self.touched_places();
        places.retain(|place| goes(&self.all[*place]));
        // From the last one on, so that the others stay where they are.
        for place in places.iter().rev().copied() {
            self.note(place, Note::default());
            self.notes.remove(place);
            let slot = self.all.remove(place);
            if let Touched::These(touched) = &mut self.touched {
                touched.remove(&slot.instance);
            }
        }
        self.fewer |= !places.is_empty();
        !places.is_empty()
    }

    /// A slot's next worker.
    pub(super) fn put(&mut self, place: usize, worker: Worker) {
        self.homes.insert(worker.id, self.all[place].instance);
        self.touch(place);
        let workers = &mut self.all[place].workers.0;
        // Most slots never have two, and a vector grows to four at once.
        workers.reserve_exact(1);
        workers.push(worker);
    }

    /// A worker of which nothing is left.
    pub(super) fn take(&mut self, place: usize, at: usize) -> Worker {
        self.touch(place);
        let gone = self.all[place].workers.0.remove(at);
        self.homes.remove(&gone.id);
        self.gone.push(gone.id);
        gone
    }

    // What a turn has to look at.

    /// The turn has to look at this one.
    pub(super) fn touch(&mut self, place: usize) {
        if let Touched::These(touched) = &mut self.touched {
            touched.insert(self.all[place].instance);
        }
    }

    /// At the slot of this worker.
    pub(super) fn touch_worker(&mut self, worker: WorkerId) {
        if let Some((place, _)) = self.find(worker) {
            self.touch(place);
        }
    }

    /// At all of them: something has changed that all depend on.
    pub(super) fn touch_all(&mut self) {
        self.touched = Touched::All;
    }

    /// At those that need attention by themselves.
    pub(super) fn wake(&mut self, heard: Time) {
        if let Touched::These(touched) = &mut self.touched {
            touched.extend(self.due.iter().take_while(|(at, _)| *at <= heard).map(|(_, instance)| *instance));
        }
    }

    /// The places of all that are to be looked at.
    pub(super) fn touched_places(&self) -> Vec<usize> {
        let places: Vec<usize> = match &self.touched {
            Touched::All => (0..self.all.len()).collect(),
            Touched::These(touched) => touched.iter().filter_map(|it| self.place_of(*it)).collect(),
        };
        #[cfg(test)]
        looked::add(places.len());
        places
    }

    /// All that are to be looked at.
    pub(super) fn touched(&self) -> impl Iterator<Item = &Slot> {
        self.touched_places().into_iter().map(|place| &self.all[place])
    }

    /// How many are, none for all: it grows with each that is touched.
    pub(super) fn touched_count(&self) -> Option<usize> {
        match &self.touched {
            Touched::All => None,
            Touched::These(touched) => Some(touched.len()),
        }
    }

    /// Whether all are.
    pub(super) fn are_all_touched(&self) -> bool {
        self.touched_count().is_none()
    }

    /// Whether a slot was taken in this turn.
    pub(super) fn are_fewer(&self) -> bool {
        self.fewer
    }

    /// The workers that were taken in this turn.
    pub(super) fn gone(&self) -> &[WorkerId] {
        &self.gone
    }

    /// Notes what follows from a slot now.
    pub(super) fn note(&mut self, place: usize, note: Note) {
        let before = std::mem::replace(&mut self.notes[place], note);
        self.counts = self.counts.moved(before.counts, note.counts);
        let instance = self.all[place].instance;
        if before.due != note.due {
            if let Some(at) = before.due {
                self.due.remove(&(at, instance));
            }
            if let Some(at) = note.due {
                self.due.insert((at, instance));
            }
        }
    }

    /// The turn is over, and everything that it touched is noted.
    pub(super) fn end_turn(&mut self) {
        self.touched = Touched::These(BTreeSet::new());
        self.gone.clear();
        self.fewer = false;
    }

    /// What is kept here and is not what a walk over all slots says; `note` is what follows from one.
    pub(super) fn stale(&self, note: impl Fn(&Slot) -> Note) -> Option<&'static str> {
        let notes: Vec<Note> = self.all.iter().map(note).collect();
        let instances = self.all.iter().map(|slot| slot.instance);
        let due =
            notes.iter().zip(instances.clone()).filter_map(|(note, instance)| Some((note.due?, instance)));
        let counts =
            notes.iter().fold(Counts::default(), |all, note| all.moved(Counts::default(), note.counts));
        let home =
            |slot: &Slot| slot.workers.iter().map(|worker| (worker.id, slot.instance)).collect::<Vec<_>>();
        let rows = [
            (self.touched_count() == Some(0) && self.gone.is_empty() && !self.fewer, "what was touched"),
            (instances.is_sorted_by(|one, next| one < next), "the order of instances"),
            (self.homes == self.all.iter().flat_map(home).collect(), "the workers' slots"),
            (self.notes == notes, "the notes"),
            (self.due == due.collect(), "the deadlines"),
            (self.counts == counts, "the counts"),
        ];
        rows.into_iter().find_map(|(right, what)| (!right).then_some(what))
    }
}

/// How many slots were looked at in this thread: also those that a walk may have ended before.
#[cfg(test)]
pub(super) mod looked {
    use std::cell::Cell;

    thread_local! {
        static LOOKED: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn add(slots: usize) {
        LOOKED.set(LOOKED.get() + slots);
    }

    /// Since this was asked last.
    pub(in crate::supervisor) fn take() -> usize {
        LOOKED.take()
    }
}

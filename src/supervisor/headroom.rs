//! Whether more workers fit on the host beside those that run: what is left, against what one takes.
//!
//! A reload overlaps two generations. Where that does not fit, it is better not to begin than to have
//! the kernel choose a victim. Nothing here measures.

use std::time::Duration;

use super::event::WorkerId;

/// Something that workers take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Good {
    /// Bytes of memory. `limit`: of the control group that is the tightest; none: the host's own.
    Memory {
        /// In bytes.
        limit: Option<u64>,
    },
    /// Open files of the supervisor. `limit`: its RLIMIT_NOFILE.
    Descriptors {
        /// A number of files.
        limit: u64,
    },
}

/// How much there is of one good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stock {
    /// Of what.
    pub good: Good,
    /// What is left.
    pub free: u64,
    /// What one more worker takes at least; 0 when that is not known. Less than this refuses a reload.
    pub least: u64,
    /// What one more worker may take; 0 when that is not known. Less than this has it go in smaller steps.
    pub each: u64,
}

impl Stock {
    /// So many more workers fit, whatever they come to take.
    pub fn fits(self) -> u32 {
        self.times(self.each)
    }

    /// So many more workers fit if they take as little as they can.
    pub fn may_fit(self) -> u32 {
        self.times(self.least)
    }

    fn times(self, each: u64) -> u32 {
        u32::try_from(self.free.checked_div(each).unwrap_or(u64::MAX)).unwrap_or(u32::MAX)
    }

    /// What is left when others were promised so much.
    pub fn less(self, promised: u64) -> Stock {
        Stock { free: self.free.saturating_sub(promised), ..self }
    }

    /// What is missing for so many more, at least.
    pub fn missing_for(self, workers: u32) -> u64 {
        self.least.saturating_mul(u64::from(workers)).saturating_sub(self.free)
    }
}

/// What is left on the host; empty when nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Headroom {
    /// One entry for each good that is known.
    pub stocks: Vec<Stock>,
}

impl Headroom {
    /// How a reload may go that needs room for at least `least` workers beside those that run, and has a
    /// use for `most`.
    pub fn plan(&self, least: u32, most: u32) -> Plan {
        let short = self.stocks.iter().copied().min_by_key(|stock| stock.may_fit());
        if let Some(stock) = short.filter(|stock| stock.may_fit() < least) {
            return Plan::Refused(Shortage { stock, workers: least });
        }
        let scarce = self.stocks.iter().copied().min_by_key(|stock| stock.fits());
        match scarce.map(|stock| (stock, stock.fits().max(least))) {
            Some((stock, fits)) if fits < most => Plan::Narrow { fits, stock },
            Some(_) | None => Plan::Free,
        }
    }

    /// So many workers at a time a reload may count on; none when it is refused.
    pub fn promises(&self) -> u32 {
        match self.plan(1, u32::MAX) {
            Plan::Free => u32::MAX,
            Plan::Narrow { fits, .. } => fits,
            Plan::Refused(_) => 0,
        }
    }
}

/// After so long a worker has what a worker of its app needs.
const WARM: Duration = Duration::from_secs(60);

/// A ready worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub worker: WorkerId,
    /// Since it was started.
    pub lived: Duration,
    /// What it takes.
    pub weight: u64,
}

/// Who shows what a new worker takes at least: the lightest that has warmed up, since what others have
/// beyond it may have leaked; where none has, the oldest.
pub fn lightest(ready: &[Candidate]) -> Option<WorkerId> {
    let warm = ready.iter().filter(|candidate| candidate.lived >= WARM);
    let lightest = warm.min_by_key(|candidate| (candidate.weight, candidate.worker));
    let oldest = || ready.iter().max_by_key(|candidate| (candidate.lived, candidate.worker));
    lightest.or_else(oldest).map(|candidate| candidate.worker)
}

/// What a reload under way was told that there is, for workers of which not all have taken it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// For so many workers.
    pub workers: u32,
    /// So much for each.
    pub each: u64,
}

impl Promise {
    /// What they are still going to take when they have taken so much.
    pub fn outstanding(self, taken: u64) -> u64 {
        self.each.saturating_mul(u64::from(self.workers)).saturating_sub(taken)
    }
}

/// How many workers beside those that run a reload may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plan {
    /// As many as it likes.
    Free,
    /// So many at a time.
    Narrow {
        /// At least what it needs.
        fits: u32,
        /// What is scarce.
        stock: Stock,
    },
    /// Not even those that it needs.
    Refused(Shortage),
}

/// Why a reload does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shortage {
    /// What is scarce.
    pub stock: Stock,
    /// The workers that it needs beside those that run.
    pub workers: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(free: u64, each: u64) -> Stock {
        Stock { good: Good::Memory { limit: Some(1000) }, free, least: each, each }
    }

    fn descriptors(free: u64, each: u64) -> Stock {
        Stock { good: Good::Descriptors { limit: 64 }, free, least: each, each }
    }

    #[test]
    fn the_scarcest_good_decides() {
        let plan = |stocks: &[Stock]| Headroom { stocks: stocks.to_vec() }.plan(1, 4);
        assert_eq!(plan(&[]), Plan::Free);
        assert_eq!(plan(&[memory(400, 100), descriptors(99, 9)]), Plan::Free);
        let stock = memory(399, 100);
        assert_eq!(plan(&[stock, descriptors(99, 9)]), Plan::Narrow { fits: 3, stock });
        let stock = descriptors(9, 9);
        assert_eq!(plan(&[memory(399, 100), stock]), Plan::Narrow { fits: 1, stock });
        let stock = memory(99, 100);
        assert_eq!(plan(&[stock, descriptors(99, 9)]), Plan::Refused(Shortage { stock, workers: 1 }));
    }

    #[test]
    fn new_instances_need_room_as_well() {
        let stock = memory(250, 100);
        let headroom = Headroom { stocks: vec![stock] };
        assert_eq!(headroom.plan(2, 4), Plan::Narrow { fits: 2, stock });
        assert_eq!(headroom.plan(3, 4), Plan::Refused(Shortage { stock, workers: 3 }));
        assert_eq!(stock.missing_for(3), 50);
    }

    #[test]
    fn what_one_worker_leaked_makes_the_steps_smaller_and_refuses_nothing() {
        let stock = Stock { least: 60, ..memory(100, 500) };
        let headroom = Headroom { stocks: vec![stock] };
        assert_eq!(headroom.plan(1, 4), Plan::Narrow { fits: 1, stock });
        assert_eq!(headroom.plan(1, 1), Plan::Free);
        assert_eq!(headroom.plan(2, 4), Plan::Refused(Shortage { stock, workers: 2 }));
        assert_eq!((headroom.promises(), stock.missing_for(2)), (1, 20));
        let stock = descriptors(9, 10);
        assert_eq!(Headroom { stocks: vec![stock] }.promises(), 0);
        assert_eq!(Headroom::default().promises(), u32::MAX);
    }

    #[test]
    fn the_lightest_worker_that_has_warmed_up_shows_what_a_new_one_takes() {
        let candidate = |worker, seconds, weight| Candidate {
            worker: WorkerId(worker),
            lived: Duration::from_secs(seconds),
            weight,
        };
        let (leaked, fine) = (candidate(1, 9000, 500), candidate(2, 60, 60));
        let (young, newborn) = (candidate(3, 59, 20), candidate(4, 1, 5));
        assert_eq!(lightest(&[leaked, fine, young, newborn]), Some(WorkerId(2)));
        assert_eq!(lightest(&[newborn, young]), Some(WorkerId(3)));
        assert_eq!(lightest(&[leaked]), Some(WorkerId(1)));
        assert_eq!(lightest(&[]), None);
    }

    #[test]
    fn what_was_promised_and_not_taken_is_not_there_for_others() {
        let promise = Promise { workers: 2, each: 100 };
        assert_eq!(promise.outstanding(0), 200);
        assert_eq!(memory(250, 100).less(promise.outstanding(30)).fits(), 0);
        assert_eq!(memory(250, 100).less(promise.outstanding(1000)).fits(), 2);
        assert_eq!(memory(5, 1).less(10).free, 0);
    }

    #[test]
    fn what_is_not_known_does_not_refuse() {
        assert_eq!(Headroom { stocks: vec![memory(0, 0)] }.plan(1, 1), Plan::Free);
        assert_eq!(memory(5, 0).missing_for(u32::MAX), 0);
        assert_eq!(memory(u64::MAX, 1).fits(), u32::MAX);
    }
}

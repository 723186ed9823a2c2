//! Whether more workers fit on the host beside those that run: what is left, against what one takes.
//!
//! A reload overlaps two generations. Where that does not fit, it is better not to begin than to have
//! the kernel choose a victim. Nothing here measures.

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
    /// What one more worker takes; 0 when that is not known.
    pub each: u64,
}

impl Stock {
    /// So many more workers fit.
    pub fn fits(self) -> u32 {
        let count = self.free.checked_div(self.each).unwrap_or(u64::MAX);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// What is left when others were promised so much.
    pub fn less(self, promised: u64) -> Stock {
        Stock { free: self.free.saturating_sub(promised), ..self }
    }

    /// What is missing for so many more.
    pub fn missing_for(self, workers: u32) -> u64 {
        self.each.saturating_mul(u64::from(workers)).saturating_sub(self.free)
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
        let Some(scarce) = self.stocks.iter().copied().min_by_key(|stock| stock.fits()) else {
            return Plan::Free;
        };
        match scarce.fits() {
            fits if fits < least => Plan::Refused(Shortage { stock: scarce, workers: least }),
            fits if fits < most => Plan::Narrow { fits, stock: scarce },
            _ => Plan::Free,
        }
    }
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
        Stock { good: Good::Memory { limit: Some(1000) }, free, each }
    }

    fn descriptors(free: u64, each: u64) -> Stock {
        Stock { good: Good::Descriptors { limit: 64 }, free, each }
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

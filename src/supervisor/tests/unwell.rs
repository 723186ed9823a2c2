//! Workers that are not well, by tables.

use super::*;

fn watched(instances: u32) -> Policy {
    Policy { watchdog: Some(ms(10_000)), ..cluster(instances) }
}

impl Bench {
    fn says(&mut self, worker: u64, word: Word) {
        self.tell(Event::Said { worker: WorkerId(worker), word });
    }

    /// How often somebody was found not to be well.
    fn found_unwell(&self) -> usize {
        let found = |action: &&Action| matches!(action, Action::Report { fact: Fact::Unwell { .. } });
        self.out.iter().filter(found).count()
    }
}

#[test]
fn who_waives_its_watchdog_before_it_is_ready_has_none() {
    for (before, word, silent) in [
        (true, Word::Interval(Duration::ZERO), true),
        (false, Word::Interval(Duration::ZERO), true),
        (true, Word::Interval(ms(60_000)), true),
        (true, Word::Interval(ms(5000)), false),
        (true, Word::KeepAlive, false),
    ] {
        let mut bench = Bench::with(watched(1));
        bench.tell(Event::Started { worker: WorkerId(1) });
        if before {
            bench.says(1, word);
        }
        bench.listen(WorkerId(1), PORT);
        if !before {
            bench.says(1, word);
        }
        bench.pass(ms(30_000));
        assert_eq!(bench.found_unwell() == 0, silent, "{word:?}, before it is ready: {before}");
    }
}

#[test]
fn who_is_replaced_for_its_silence_is_not_found_silent_again() {
    let mut bench = Bench::online(watched(1));
    bench.pass(ms(10_000));
    assert_eq!(bench.found_unwell(), 1);
    bench.says(1, Word::Interval(ms(1000)));
    bench.pass(ms(20_000));
    assert_eq!(bench.found_unwell(), 1);
}

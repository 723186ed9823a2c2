//! Workers that are not well, by tables.

use super::*;

fn watched(instances: u32) -> Policy {
    Policy { watchdog: Some(ms(10_000)), ..cluster(instances) }
}

impl Bench {
    fn says(&mut self, worker: u64, word: Word) {
        self.tell(Event::Said { worker: WorkerId(worker), word });
    }

    /// What is seen of it, once it is looked at.
    fn feels(&mut self, worker: u64, queued: u32, ticks: u64) {
        self.tell(Event::Felt { worker: WorkerId(worker), pulse: Pulse { queued, ticks } });
    }

    /// It lets a client wait and does nothing, until that is found.
    fn hangs(&mut self, worker: u64) {
        let (before, end) = (self.found_unwell(), self.now + ms(60_000));
        while self.found_unwell() == before {
            assert!(self.now < end, "nobody finds it");
            self.pass(ms(50));
            self.feels(worker, 1, 7);
        }
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

fn drained(bench: &Bench) -> bool {
    bench.out.iter().any(|action| matches!(action, Action::Report { fact: Fact::Draining { .. } }))
}

#[test]
fn who_hangs_is_told_to_stop_at_once_also_where_it_was_to_be_replaced_anyway() {
    for hangs in [true, false] {
        let mut bench = Bench::online(Policy { hang_timeout: Some(ms(400)), ..limited(1) });
        bench.outgrow(WorkerId(1));
        bench.boot(WorkerId(2));
        if hangs {
            bench.hangs(1);
        } else {
            bench.says(1, Word::Trigger);
        }
        bench.pass(ms(1000));
        assert_eq!((bench.took(&stop_signal(WorkerId(1))), drained(&bench)), (hangs, !hangs));
    }
}

/// Or a program that is too fat and then hangs, right after each start, would be replaced without end.
#[test]
fn who_hangs_and_was_to_be_replaced_after_a_pause_still_is() {
    let mut bench = Bench::online(limited(1));
    let mut gaps = Vec::new();
    for worker in 1..10 {
        bench.outgrow(WorkerId(worker));
        bench.says(worker, Word::Trigger);
        let spent = bench.now;
        while !bench.spawned().contains(&WorkerId(worker + 1)) {
            bench.pass(ms(100));
        }
        gaps.push((bench.now - spent).as_secs());
        bench.boot(WorkerId(worker + 1));
        bench.pass(ms(1000));
        bench.exit(WorkerId(worker));
    }
    assert!(gaps.is_sorted() && gaps.last() >= Some(&10), "{gaps:?}");
}

#[test]
fn a_worker_of_a_reload_that_hangs_is_told_to_stop_at_once() {
    let mut bench = Bench::online(Policy { hang_timeout: Some(ms(400)), ..cluster(1) });
    let reload = bench.reload();
    bench.boot(WorkerId(2));
    bench.hangs(2);
    assert!(matches!(bench.outcome(reload), Some(Outcome::Failed(Failure::Unwell { .. }))));
    assert!(bench.took(&stop_signal(WorkerId(2))) && !drained(&bench), "{:?}", bench.out);
    bench.tell(Event::Exited { worker: WorkerId(2), status: ExitStatus::Signal(15), left: false });
    assert_eq!((bench.last_cause(), bench.status()), (Some(Cause::Hung), Status::Online));
}

/// Else the model check takes one for the other, and never looks at what follows.
#[test]
fn who_hangs_is_another_state_than_who_fails_its_checks() {
    let health = policy::Health {
        way: policy::Way::Command,
        interval: ms(1000),
        timeout: ms(1000),
        retries: 1,
        start_period: Duration::ZERO,
    };
    let policy = Policy { health: Some(health), hang_timeout: Some(ms(1500)), ..limited(1) };
    let mut hangs = Bench::online(policy);
    hangs.tell(Event::Probed { worker: WorkerId(1), question: Question::Health, passed: true });
    let mut fails = Bench { supervisor: hangs.supervisor.clone(), out: Vec::new(), ..hangs };
    let mut hangs = Bench { supervisor: fails.supervisor.clone(), now: fails.now, ..Bench::new() };
    hangs.hangs(1);
    fails.pass(hangs.now - fails.now);
    fails.tell(Event::Probed { worker: WorkerId(1), question: Question::Health, passed: false });
    assert_eq!((hangs.found_unwell(), fails.found_unwell()), (1, 1));
    assert!(hangs.supervisor.normalized(hangs.now) != fails.supervisor.normalized(fails.now));
}

/// Who asks for a successor, or whose sign of life alone has stopped, may be in the middle of a request.
#[test]
fn who_is_silent_or_asks_to_be_replaced_finishes_what_it_has() {
    for asks in [true, false] {
        let mut bench = Bench::online(watched(1));
        if asks {
            bench.says(1, Word::Trigger);
        } else {
            bench.pass(ms(10_000));
        }
        bench.boot(WorkerId(2));
        bench.pass(ms(1000));
        assert!(drained(&bench) && !bench.took(&stop_signal(WorkerId(1))), "asks: {asks}: {:?}", bench.out);
    }
}

#[test]
fn who_uses_cpu_time_or_lets_nobody_wait_does_not_hang() {
    let online = || Bench::online(Policy { hang_timeout: Some(ms(400)), ..cluster(1) });
    let mut busy = online();
    let mut idle = online();
    let mut catches_up = online();
    for look in 0..100 {
        for bench in [&mut busy, &mut idle, &mut catches_up] {
            bench.pass(ms(50));
        }
        busy.feels(1, 3, look);
        idle.feels(1, 0, 7);
        catches_up.feels(1, 100 - look as u32, 7);
    }
    assert_eq!([busy.found_unwell(), idle.found_unwell(), catches_up.found_unwell()], [0; 3]);
    busy.hangs(1);
}

#[test]
fn an_old_worker_that_is_not_well_stays_beside_an_unproven_new_one() {
    let mut bench = Bench::with(Policy { canary: Some(50), ..cluster(1) });
    bench.boot(WorkerId(1));
    let reload = bench.reload();
    bench.boot(WorkerId(2));
    bench.says(1, Word::Trigger);
    assert!(!bench.took(&stop_signal(WorkerId(1))), "{:?}", bench.out);
    bench.exit(WorkerId(2));
    assert!(matches!(bench.outcome(reload), Some(Outcome::Failed(Failure::Died { .. }))));
    assert!(bench.supervisor.probe().iter().any(|probe| probe.stage == Stage::Ready));
}

//! Waiting for a condition with a deadline: the only place of the tests where time is let pass.

use std::fmt::Debug;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// After the first look at a condition; each further pause is half as long again, up to [`SLOWEST`].
const STEP: Duration = Duration::from_millis(2);

/// Many looks run a command: more of them would be a load of their own on a small machine.
const SLOWEST: Duration = Duration::from_millis(25);

/// What a look at a condition can answer.
pub(crate) trait Look {
    /// What is known once the condition holds.
    type Value;

    /// The value, or what was seen instead.
    fn settle(self) -> Result<Self::Value, String>;
}

impl Look for bool {
    type Value = ();

    fn settle(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

impl<T> Look for Option<T> {
    type Value = T;

    fn settle(self) -> Result<T, String> {
        self.ok_or_else(|| "none".to_owned())
    }
}

impl<T, E: Debug> Look for Result<T, E> {
    type Value = T;

    fn settle(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:?}"))
    }
}

/// Looks again and again until the condition holds, and gives what it gave.
///
/// # Panics
/// When it does not hold within `limit`; the message names `what` and the last answer.
pub(crate) fn wait_until<L: Look>(limit: Duration, what: &str, look: impl FnMut() -> L) -> L::Value {
    try_until(limit, look).unwrap_or_else(|last| panic!("not within {limit:?}: {what} (last: {last})"))
}

/// As [`wait_until`], but a condition that does not come is an answer: what was seen last.
pub(crate) fn try_until<L: Look>(limit: Duration, mut look: impl FnMut() -> L) -> Result<L::Value, String> {
    let end = Instant::now() + limit;
    let mut step = STEP;
    loop {
        match look().settle() {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= end => return Err(last),
            Err(_) => pause(step),
        }
        step = (step + step / 2).min(SLOWEST);
    }
}

/// Looks for the whole of `span` and fails at the first look at which the condition does not hold.
///
/// For promises that something does *not* happen; `span` is then the strength of the proof.
pub(crate) fn holds_for<L: Look>(span: Duration, what: &str, mut look: impl FnMut() -> L) {
    let begin = Instant::now();
    while begin.elapsed() < span {
        if let Err(seen) = look().settle() {
            panic!("held only {:?} of {span:?}: {what} (seen: {seen})", begin.elapsed());
        }
        pause(SLOWEST);
    }
}

/// Lets this much time pass. Not for tests: they wait for conditions.
fn pause(span: Duration) {
    let never = Mutex::new(());
    let guard = never.lock().expect("nobody else has this lock");
    let wake = Condvar::new();
    // A spurious wake-up only makes a pause shorter, and every caller looks again.
    drop(wake.wait_timeout(guard, span).expect("nobody else has this lock"));
}

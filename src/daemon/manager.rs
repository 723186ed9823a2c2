//! The service manager that started this supervisor (systemd) is told how it goes: READY, RELOADING, STOPPING, STATUS
//! and WATCHDOG of sd_notify(3). Where it cannot be told, everything goes on as without one.

use std::collections::VecDeque;
use std::time::Duration;

use nix::errno::Errno;

use crate::supervisor::announce::{Announcer, Word};
use crate::supervisor::time::Time;
use crate::supervisor::view::{AppView, Status, View};
use crate::sys::manager;

use super::Daemon;

/// Until the next attempt where it has no room.
const AGAIN: Duration = Duration::from_millis(100);

/// And where nobody listens: so often, for what must not be lost.
const LATER: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 30;

/// Messages that wait for room; the oldest state goes first when there are more.
const WAITING: usize = 16;

/// The longest state that is told: what people read in one line.
const LONGEST_STATUS: usize = 200;

/// The manager, if there is one.
#[derive(Debug, Default)]
pub(super) struct Above(Option<Told>);

#[derive(Debug)]
struct Told {
    manager: manager::Manager,
    announcer: Announcer,
    waiting: VecDeque<String>,
    again_at: Option<Time>,
    /// Why it could not be told the last time.
    failed: Option<Errno>,
    /// How often since then.
    attempts: u32,
}

impl Above {
    /// The one that started us. In the background nobody waits for word: who called `start` has its answer.
    pub(super) fn over(foreground: bool) -> Above {
        if !foreground {
            return Above::default();
        }
        match manager::Manager::by_environment() {
            Ok(found) => Above(found.map(|manager| Told {
                manager,
                announcer: Announcer::new(manager::watchdog()),
                waiting: VecDeque::new(),
                again_at: None,
                failed: None,
                attempts: 0,
            })),
            Err(error) => {
                log::warn!(
                    "NOTIFY_SOCKET cannot be used, so nobody above is told how it goes: {}",
                    error.desc()
                );
                Above::default()
            }
        }
    }

    pub(super) fn touch(&mut self) {
        if let Some(told) = &mut self.0 {
            told.announcer.touch();
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let told = self.0.as_ref()?;
        told.announcer.next_deadline().into_iter().chain(told.again_at).min()
    }
}

impl Told {
    fn say(&mut self, words: Vec<Word>, now: Time) {
        self.waiting.extend(words.into_iter().map(line));
        self.send(now);
    }

    /// What waits goes out in its order, as far as there is room.
    fn send(&mut self, now: Time) {
        self.again_at = None;
        while let Some(message) = self.waiting.front() {
            match self.manager.tell(message) {
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    self.again_at = Some(now + AGAIN);
                    break;
                }
                Err(error) => {
                    // Once, and not again before it was reached.
                    if self.failed.replace(error) != Some(error) {
                        log::warn!(
                            "the service manager cannot be told \"{message}\" (NOTIFY_SOCKET): {}",
                            error.desc()
                        );
                    }
                    self.attempts += 1;
                    if self.attempts < ATTEMPTS && !is_news(message) {
                        self.again_at = Some(now + LATER);
                        break;
                    }
                }
                Ok(()) => (self.failed, self.attempts) = (None, 0),
            }
            self.waiting.pop_front();
        }
        // Of the others there are never so many.
        while self.waiting.len() > WAITING {
            let place = self.waiting.iter().position(|message| is_news(message)).unwrap_or(0);
            self.waiting.remove(place);
        }
    }
}

/// What is old by the time that it comes: how things stand, signs of life, and more time.
fn is_news(message: &str) -> bool {
    ["STATUS=", "WATCHDOG=", "EXTEND_TIMEOUT_USEC="].iter().any(|word| message.starts_with(word))
}

/// As the protocol writes it.
fn line(word: Word) -> String {
    match word {
        Word::Ready => "READY=1".to_owned(),
        Word::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", manager::monotonic_micros()),
        Word::Stopping => "STOPPING=1".to_owned(),
        Word::Extend(time) => format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()),
        Word::Alive => "WATCHDOG=1".to_owned(),
    }
}

impl Daemon {
    /// At the end of each turn.
    pub(super) fn tell_manager(&mut self) {
        let now = self.now;
        let Some(told) = &mut self.above.0 else { return };
        let looks = told.announcer.is_due(now);
        let starts = told.announcer.is_starting();
        let view = looks.then(|| self.supervisor.view(now));
        // Decisions that were not made yet may start something.
        let undecided = !self.inbox.is_empty() || !self.starts.is_empty();
        let late = |view: &View| self.is_starting(view);
        let starting = starts && self.requests.has_own() && (undecided || view.as_ref().is_none_or(late));
        let reloading = self.requests.has_reload();
        let Some(told) = &mut self.above.0 else { return };
        if starting {
            // Nothing happens when a start that goes nowhere is to be told as over.
            told.announcer.touch();
        }
        let words = told.announcer.say(starting, reloading, now);
        if let Some(view) = view
            && let Some(text) = told.announcer.status(status(&view, self.shutting_down))
        {
            let message = format!("STATUS={text}");
            told.waiting.push_back(message);
        }
        if !words.is_empty() || !told.waiting.is_empty() {
            told.say(words, now);
        }
    }

    /// Before anything of it is done. SIGHUP asks for one even where nothing comes of it.
    pub(super) fn tell_manager_of_reload(&mut self) {
        let now = self.now;
        let Some(told) = &mut self.above.0 else { return };
        told.announcer.reload();
        let words = told.announcer.say(true, true, now);
        told.say(words, now);
    }

    /// Whether some app is still on its way to its first workers. What waits for a better moment (an address, the
    /// pause after a crash), or for an app that does, is not waited for: others of this host may be what it needs.
    fn is_starting(&self, view: &View) -> bool {
        let own = self.requests.own_apps();
        let starts = |app: &AppView| {
            matches!(app.status, Status::Launching | Status::Stopping) && app.waits_for.is_empty()
        };
        view.apps.iter().any(|app| own.contains(&app.app) && starts(app))
    }

    /// The first of it.
    pub(super) fn tell_manager_of_stop(&mut self, within: Duration, code: i32) {
        let now = self.now;
        let Some(told) = &mut self.above.0 else { return };
        let words = told.announcer.stop(within, code == 0);
        told.say(words, now);
    }
}

/// `2 apps, 7/8 workers ready; api: reload 3/8; web: errored`.
fn status(view: &View, stops: bool) -> String {
    let ready = view.apps.iter().flat_map(|app| &app.workers).filter(|worker| worker.ready).count();
    let wanted: u32 =
        view.apps.iter().filter(|app| app.status != Status::Stopped).map(|app| app.instances).sum();
    let apps = view.apps.len();
    let mut text = if stops { "stopping: ".to_owned() } else { String::new() };
    text += &format!("{apps} app{}, {ready}/{wanted} workers ready", if apps == 1 { "" } else { "s" });
    for app in &view.apps {
        let word = match (&app.reload, app.status) {
            (Some(reload), _) if reload.total > 0 && reload.failure.is_none() => {
                format!(
                    "{} {}/{}",
                    if reload.state == "progressing" { "reload" } else { reload.state },
                    reload.done,
                    reload.total
                )
            }
            (Some(reload), _) => format!("reload {}", reload.state),
            (None, Status::Online | Status::Stopped) => continue,
            (None, status) => status.as_str().to_owned(),
        };
        let more = format!("; {}: {word}", app.called());
        if text.len() + more.len() > LONGEST_STATUS {
            text += "; …";
            break;
        }
        text += &more;
    }
    text
}

//! What `monit` shows, as data, and what events make of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::keys::Key;
use crate::control::protocol::{AppInfo, DaemonInfo, Line, List, Part, Reply, Request, Stream, WorkerInfo};
use crate::control::render::{escape, message};

/// Points of a curve: one a second, ten minutes of them.
pub const POINTS: usize = 600;

/// Lines of the log that are kept.
pub const LOG_LINES: usize = 1000;

/// Characters of a line that are kept: more fit on no screen.
const LINE_LENGTH: usize = 2000;

/// Characters of a search.
const SEARCH_LENGTH: usize = 64;

/// How long a message stays.
const MESSAGE_TIME: Duration = Duration::from_secs(8);

/// Commands under way at a time.
const COMMANDS: usize = 8;

/// Instances that `+` counts up to: the file's own limit.
const MOST_INSTANCES: u32 = 1000;

/// Rows that a page moves by.
const PAGE: usize = 10;

/// Something in the list on the left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// An app.
    App {
        /// Where.
        namespace: String,
        /// Its name there.
        name: String,
    },
    /// A worker's slot.
    Worker {
        /// Its id over all apps.
        id: u32,
    },
}

impl Item {
    /// This app.
    pub fn of(app: &AppInfo) -> Item {
        Item::App { namespace: app.namespace.clone(), name: app.name.clone() }
    }
}

/// A row of the list on the left.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The app.
    pub app: &'a AppInfo,
    /// Its worker; none for the app's own row.
    pub worker: Option<&'a WorkerInfo>,
    /// Whether workers are hidden behind it, of an app's row with some.
    pub folded: Option<bool>,
}

impl Row<'_> {
    /// What it stands for.
    pub fn item(&self) -> Item {
        self.worker.map_or_else(|| Item::of(self.app), |worker| Item::Worker { id: worker.id })
    }
}

/// The order of the apps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// As the supervisor has them: in the order in which they were started first.
    #[default]
    Start,
    /// By name.
    Name,
    /// Who takes most CPU time first.
    Cpu,
    /// Who takes most memory first.
    Memory,
    /// Who was restarted most often first.
    Restarts,
}

impl Sort {
    const fn next(self) -> Sort {
        match self {
            Sort::Start => Sort::Name,
            Sort::Name => Sort::Cpu,
            Sort::Cpu => Sort::Memory,
            Sort::Memory => Sort::Restarts,
            Sort::Restarts => Sort::Start,
        }
    }

    /// What it is by.
    pub const fn as_str(self) -> &'static str {
        match self {
            Sort::Start => "start",
            Sort::Name => "name",
            Sort::Cpu => "cpu",
            Sort::Memory => "memory",
            Sort::Restarts => "restarts",
        }
    }
}

/// What was measured, one point a second, the latest last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Percent of one CPU.
    pub cpu: VecDeque<f64>,
    /// Bytes.
    pub memory: VecDeque<u64>,
}

impl Curve {
    fn push(&mut self, cpu: f64, memory: u64) {
        while self.cpu.len() >= POINTS {
            self.cpu.pop_front();
            self.memory.pop_front();
        }
        self.cpu.push_back(cpu);
        self.memory.push_back(memory);
    }
}

/// A line of the log, harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// `api-0`, or nothing for a remark of our own.
    pub from: String,
    /// It came by standard error.
    pub err: bool,
    /// Its text.
    pub text: String,
}

/// The log of what is selected.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The last lines.
    pub lines: VecDeque<LogLine>,
    /// New ones are not looked at.
    pub paused: bool,
}

impl Log {
    fn push(&mut self, line: LogLine) {
        while self.lines.len() >= LOG_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// What a yes would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Replace every worker without losing a request.
    Reload,
    /// Stop, then start.
    Restart,
    /// Drain and stop.
    Stop,
    /// Change the number of instances.
    Scale {
        /// As it is.
        from: u32,
        /// As it will be.
        to: u32,
    },
}

impl Deed {
    /// The question without its mark.
    pub fn question(&self, whom: &str) -> String {
        match self {
            Deed::Reload => format!("reload {whom}"),
            Deed::Restart => format!("restart {whom} (its connections are cut)"),
            Deed::Stop => format!("stop {whom}"),
            Deed::Scale { from, to } => format!("scale {whom} from {from} to {to}"),
        }
    }

    fn request(&self, target: String) -> Request {
        let targets = vec![target.clone()];
        match self {
            Deed::Reload => Request::Reload {
                targets,
                file: None,
                update_env: None,
                changes: BTreeMap::new(),
                no_wait: false,
            },
            Deed::Restart => Request::Restart {
                targets,
                file: None,
                update_env: None,
                changes: BTreeMap::new(),
                no_wait: false,
            },
            Deed::Stop => Request::Stop { targets, part: Part::default(), no_wait: false },
            Deed::Scale { to, .. } => Request::Scale { target, count: to.to_string(), no_wait: false },
        }
    }
}

/// What keys mean now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Moving about.
    #[default]
    Browse,
    /// Typing a search.
    Search,
    /// Reading which keys there are.
    Help,
    /// Asked whether this is meant.
    Confirm {
        /// What.
        deed: Deed,
        /// To whom, as a target.
        target: String,
        /// The same for people.
        whom: String,
    },
}

/// A sentence at the bottom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Harmless, on one line.
    pub text: String,
    /// It did not work.
    pub failed: bool,
    until: Duration,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A key.
    Key(Key),
    /// The list of this second.
    List(List),
    /// There is none, and why.
    NoList(String),
    /// Of what the log's client was answered.
    Log(Reply),
    /// Of what a command was answered.
    Answer(Reply),
    /// A command was not answered.
    NoAnswer(String),
}

/// What is wished of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Send this to the supervisor.
    Send(Box<Request>),
    /// Draw everything anew.
    Redraw,
    /// End.
    Quit,
}

/// Everything that is shown.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The supervisor, once it answered.
    pub daemon: Option<DaemonInfo>,
    /// Why it does not answer now.
    pub down: Option<String>,
    apps: Vec<AppInfo>,
    curves: BTreeMap<Item, Curve>,
    /// Apps that were folded, or unfolded, against what is usual for them.
    turned: BTreeSet<Item>,
    /// The selected row.
    pub selected: Option<Item>,
    /// The order.
    pub sort: Sort,
    /// Only apps whose name has this in it.
    pub search: String,
    /// The log of what is selected.
    pub log: Log,
    /// What keys mean.
    pub mode: Mode,
    message: Option<Message>,
    /// Commands that were not answered to the end.
    pub commands: usize,
    now: Duration,
}

impl Model {
    /// Takes one event in. `now` never goes back.
    pub fn update(&mut self, event: Event, now: Duration) -> Option<Wish> {
        self.now = now;
        if self.message.as_ref().is_some_and(|message| message.until <= now) {
            self.message = None;
        }
        match event {
            Event::Key(key) => return self.key(key),
            Event::List(list) => self.list(list),
            // What was there stays in sight: the last lines of its log are looked for now.
            Event::NoList(why) => self.down = Some(harmless(&why)),
            Event::Log(reply) => self.logged(reply),
            Event::Answer(reply) => self.answered(reply),
            Event::NoAnswer(why) => {
                self.commands = self.commands.saturating_sub(1);
                self.say(&why, true);
            }
        }
        None
    }

    /// The sentence at the bottom, if there is one.
    pub fn message(&self) -> Option<&Message> {
        self.message.as_ref()
    }

    /// All apps.
    pub fn apps(&self) -> &[AppInfo] {
        &self.apps
    }

    /// The list, sorted, searched and folded.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let wanted = self.search.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        let mut apps: Vec<&AppInfo> =
            self.apps.iter().filter(|app| has(&app.name) || has(&app.namespace)).collect();
        match self.sort {
            Sort::Start => {}
            Sort::Name => apps.sort_by(|a, b| (&a.name, &a.namespace).cmp(&(&b.name, &b.namespace))),
            Sort::Cpu => apps.sort_by(|a, b| cpu_of(b).total_cmp(&cpu_of(a))),
            Sort::Memory => apps.sort_by_key(|app| std::cmp::Reverse(memory_of(app))),
            Sort::Restarts => apps.sort_by_key(|app| std::cmp::Reverse(restarts_of(app))),
        }
        let mut rows = Vec::new();
        for app in apps {
            // The only worker of an app tells nothing that its app's row does not.
            let usual = app.workers.len() <= 1;
            let folded = self.turned.contains(&Item::of(app)) != usual;
            rows.push(Row { app, worker: None, folded: (!app.workers.is_empty()).then_some(folded) });
            let workers = app.workers.iter().filter(|_| !folded);
            rows.extend(workers.map(|worker| Row { app, worker: Some(worker), folded: None }));
        }
        rows
    }

    /// The row that is selected, and its place.
    pub fn selected_row(&self) -> Option<(usize, Row<'_>)> {
        let selected = self.selected.as_ref()?;
        self.rows().into_iter().enumerate().find(|(_, row)| row.item() == *selected)
    }

    /// What was measured of it.
    pub fn curve(&self, item: &Item) -> Option<&Curve> {
        self.curves.get(item)
    }

    /// Whose log is to be followed.
    pub fn wanted_log(&self) -> Option<String> {
        self.target_of(&self.selected_row()?.1)
    }

    /// Another log is followed from now on.
    pub fn begin_log(&mut self) {
        self.log = Log::default();
    }

    /// As a target, which must mean nobody else: a name goes before an id.
    fn target_of(&self, row: &Row<'_>) -> Option<String> {
        let Some(worker) = row.worker else { return Some(format!("{}/{}", row.app.namespace, row.app.name)) };
        let id = worker.id.to_string();
        let is_taken = self.apps.iter().any(|app| app.name == id || app.namespace == id);
        (!is_taken).then_some(id)
    }

    fn say(&mut self, text: &str, failed: bool) {
        self.message = Some(Message { text: harmless(text), failed, until: self.now + MESSAGE_TIME });
    }

    fn list(&mut self, list: List) {
        self.down = None;
        let place = self.selected_row().map_or(0, |(place, _)| place);
        self.daemon = Some(list.daemon);
        self.apps = list.apps;
        self.measure();
        self.select_near(place);
    }

    fn measure(&mut self) {
        let mut curves = std::mem::take(&mut self.curves);
        for app in &self.apps {
            let mut curve = curves.remove(&Item::of(app)).unwrap_or_default();
            curve.push(cpu_of(app), memory_of(app));
            self.curves.insert(Item::of(app), curve);
            for worker in &app.workers {
                let item = Item::Worker { id: worker.id };
                let mut curve = curves.remove(&item).unwrap_or_default();
                curve.push(worker.cpu_percent.unwrap_or(0.0), worker.memory_bytes.unwrap_or(0));
                self.curves.insert(item, curve);
            }
        }
    }

    /// Keeps the selection on a row that there is.
    fn select_near(&mut self, place: usize) {
        if self.selected_row().is_some() {
            return;
        }
        let rows = self.rows();
        self.selected = rows.get(place.min(rows.len().saturating_sub(1))).map(Row::item);
    }

    fn logged(&mut self, reply: Reply) {
        match reply {
            Reply::Line(line) => self.log.push(shown(&line)),
            Reply::Dropped { lines } => {
                let what = if lines == 1 { "line is" } else { "lines are" };
                let text = format!("{lines} {what} missing here: they came faster than they were read");
                self.log.push(LogLine { from: String::new(), err: false, text });
            }
            Reply::Following {}
            | Reply::Progress(_)
            | Reply::Plan(_)
            | Reply::List(_)
            | Reply::Environ(_)
            | Reply::Pids { .. }
            | Reply::Pong { .. }
            | Reply::Done(_)
            | Reply::Error(_) => {}
        }
    }

    fn answered(&mut self, reply: Reply) {
        match reply {
            Reply::Progress(step) => {
                let share = match (step.done, step.total) {
                    (Some(done), Some(total)) => format!("{done}/{total} "),
                    (Some(_) | None, None) | (None, Some(_)) => String::new(),
                };
                self.say(&format!("{}: {share}{}", step.app, step.message), false);
            }
            Reply::Done(done) => {
                self.commands = self.commands.saturating_sub(1);
                self.say(&done.message, false);
            }
            Reply::Error(error) => {
                self.commands = self.commands.saturating_sub(1);
                self.say(&error.message, true);
            }
            Reply::Line(_)
            | Reply::Dropped { .. }
            | Reply::Following {}
            | Reply::Plan(_)
            | Reply::List(_)
            | Reply::Environ(_)
            | Reply::Pids { .. }
            | Reply::Pong { .. } => {}
        }
    }

    fn key(&mut self, key: Key) -> Option<Wish> {
        match (key, &self.mode) {
            (Key::Interrupt, _) => Some(Wish::Quit),
            (Key::Redraw, _) => Some(Wish::Redraw),
            (_, Mode::Browse) => self.browse(key),
            (_, Mode::Search) => {
                self.type_search(key);
                None
            }
            (_, Mode::Help) => {
                self.mode = Mode::Browse;
                None
            }
            (_, Mode::Confirm { .. }) => self.confirm(key),
        }
    }

    fn browse(&mut self, key: Key) -> Option<Wish> {
        match key {
            Key::Char('q') => return Some(Wish::Quit),
            Key::Up | Key::Char('k') => self.step(|place| place.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.step(|place| place + 1),
            Key::PageUp => self.step(|place| place.saturating_sub(PAGE)),
            Key::PageDown => self.step(|place| place + PAGE),
            Key::Home | Key::Char('g') => self.step(|_| 0),
            Key::End | Key::Char('G') => self.step(|_| usize::MAX),
            Key::Enter | Key::Char(' ') => self.fold(None),
            Key::Left | Key::Char('h') => self.fold(Some(true)),
            Key::Right => self.fold(Some(false)),
            Key::Char('r') => self.ask(|_| Deed::Reload),
            Key::Char('R') => self.ask(|_| Deed::Restart),
            Key::Char('s') => self.ask(|_| Deed::Stop),
            Key::Char('+' | '=') => self.ask(|app| scale(app.instances, app.instances, true)),
            Key::Char('-') => self.ask(|app| scale(app.instances, app.instances, false)),
            Key::Char('/') => self.mode = Mode::Search,
            Key::Char('o') => {
                self.sort = self.sort.next();
                self.say(&format!("sorted by {}", self.sort.as_str()), false);
            }
            Key::Char('l') => self.log.paused = !self.log.paused,
            Key::Char('?') => self.mode = Mode::Help,
            Key::Escape => {
                self.search.clear();
                self.message = None;
            }
            Key::Char(_) | Key::Backspace | Key::Interrupt | Key::Redraw => {}
        }
        None
    }

    fn step(&mut self, to: fn(usize) -> usize) {
        let from = self.selected_row().map_or(0, |(place, _)| place);
        let rows = self.rows();
        self.selected = rows.get(to(from).min(rows.len().saturating_sub(1))).map(Row::item);
    }

    /// Folds or unfolds the selected app, or that of the selected worker; without a wish the other way.
    fn fold(&mut self, fold: Option<bool>) {
        let Some((_, row)) = self.selected_row() else { return };
        let app = Item::of(row.app);
        let is_folded = row.worker.is_none() && row.folded == Some(true);
        if row.app.workers.is_empty() || fold.is_some_and(|fold| fold == is_folded) {
            return;
        }
        if !self.turned.remove(&app) {
            self.turned.insert(app.clone());
        }
        self.selected = Some(app);
    }

    fn ask(&mut self, deed: impl Fn(&AppInfo) -> Deed) {
        let Some((_, row)) = self.selected_row() else { return };
        let deed = deed(row.app);
        // These are an app's as a whole.
        let row = match deed {
            Deed::Reload | Deed::Scale { .. } => Row { worker: None, ..row },
            Deed::Restart | Deed::Stop => row,
        };
        let whom = name_of(&row);
        match self.target_of(&row) {
            Some(target) => self.mode = Mode::Confirm { deed, target, whom },
            None => {
                self.say(&format!("{whom}: an app has the name of this worker's id; choose the app"), true)
            }
        }
    }

    fn confirm(&mut self, key: Key) -> Option<Wish> {
        let Mode::Confirm { deed, target, .. } = &mut self.mode else { return None };
        match (key, &deed) {
            (Key::Char('+' | '='), Deed::Scale { from, to }) => *deed = scale(*from, *to, true),
            (Key::Char('-'), Deed::Scale { from, to }) => *deed = scale(*from, *to, false),
            (Key::Char('y' | 'Y'), _) => {
                let request = deed.request(std::mem::take(target));
                self.mode = Mode::Browse;
                if self.commands >= COMMANDS {
                    self.say("too many commands are under way; wait for one of them", true);
                    return None;
                }
                self.commands += 1;
                return Some(Wish::Send(Box::new(request)));
            }
            (Key::Char('n' | 'N' | 'q') | Key::Escape, _) => self.mode = Mode::Browse,
            _ => {}
        }
        None
    }

    fn type_search(&mut self, key: Key) {
        match key {
            Key::Char(char) if self.search.chars().count() < SEARCH_LENGTH => self.search.push(char),
            Key::Backspace => drop(self.search.pop()),
            Key::Enter => self.mode = Mode::Browse,
            Key::Escape => {
                self.search.clear();
                self.mode = Mode::Browse;
            }
            Key::Char(_)
            | Key::Up
            | Key::Down
            | Key::Left
            | Key::Right
            | Key::PageUp
            | Key::PageDown
            | Key::Home
            | Key::End
            | Key::Interrupt
            | Key::Redraw => {}
        }
        self.select_near(0);
    }
}

/// One more, or one fewer.
fn scale(from: u32, to: u32, more: bool) -> Deed {
    let to = if more { to.saturating_add(1) } else { to.saturating_sub(1) };
    Deed::Scale { from, to: to.clamp(1, MOST_INSTANCES) }
}

/// `api`, `shop/api` or `api/2`.
pub fn name_of(row: &Row<'_>) -> String {
    let app = escape(&row.app.name);
    let app =
        if row.app.namespace == "default" { app } else { format!("{}/{app}", escape(&row.app.namespace)) };
    row.worker.map_or(app.clone(), |worker| format!("{app}/{}", worker.instance))
}

/// Of one CPU, all workers together.
pub fn cpu_of(app: &AppInfo) -> f64 {
    // A sum of nothing is -0.0.
    app.workers.iter().filter_map(|worker| worker.cpu_percent).fold(0.0, |sum, more| sum + more)
}

/// All workers together, in bytes.
pub fn memory_of(app: &AppInfo) -> u64 {
    app.workers.iter().filter_map(|worker| worker.memory_bytes).sum()
}

/// All slots together.
pub fn restarts_of(app: &AppInfo) -> u32 {
    app.workers.iter().map(|worker| worker.restarts).sum()
}

/// On one line, without anything that could steer a terminal.
fn harmless(text: &str) -> String {
    message(text).replace(['\n', '\t'], " ")
}

fn shown(line: &Line) -> LogLine {
    let begin: String = line.text.chars().take(LINE_LENGTH).collect();
    LogLine {
        from: escape(&line.label()),
        err: line.stream == Stream::Err,
        text: escape(&begin).replace('\t', "    "),
    }
}

//! `monit`: what events make of its model, the screens that are drawn from it, and the real binary on a real terminal.

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use clusterd::control::protocol::{
    AppInfo, DaemonInfo, Done, LastExitInfo, Line, List, Part, Reply, Request, Stream, WorkerInfo,
};
use clusterd::monit::keys::Key;
use clusterd::monit::model::{Event, Item, LOG_LINES, Mode, Model, POINTS, Wish};
use clusterd::monit::view::{self, Theme};
use nix::sys::signal::Signal;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use support::daemon::{Builder, send, state_and_parent};
use support::{App, Daemon, fixtures, wait_until};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn second(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn worker(id: u32, instance: u32, status: &str) -> WorkerInfo {
    let runs = status == "online";
    WorkerInfo {
        id,
        instance,
        pid: runs.then_some(4200 + id.cast_signed()),
        status: status.into(),
        ready: runs,
        no_listener: false,
        status_text: None,
        generation: 3,
        uptime_ms: 3_723_000,
        restarts: 2,
        unstable_restarts: 0,
        cpu_percent: runs.then_some(12.5 + f64::from(id)),
        memory_bytes: runs.then_some((48 + u64::from(id)) << 20),
        connections: None,
        queue_depth: None,
        queue_limit: None,
        queue_dropped: None,
        last_exit: (!runs).then(|| LastExitInfo {
            code: Some(1),
            signal: None,
            reason: "crash".into(),
            message: None,
            at: "2026-11-23T08:00:00.000Z".into(),
        }),
    }
}

fn app(name: &str, status: &str, workers: Vec<WorkerInfo>) -> AppInfo {
    AppInfo {
        name: name.into(),
        namespace: "default".into(),
        mode: if workers.len() > 1 { "cluster" } else { "fork" }.into(),
        status: status.into(),
        generation: 3,
        instances: workers.len() as u32,
        listen: if workers.len() > 1 { vec!["0.0.0.0:3000".into()] } else { Vec::new() },
        unserved: Vec::new(),
        waits_for: Vec::new(),
        watching: false,
        warnings: Vec::new(),
        reload: None,
        workers,
        detail: None,
    }
}

fn list(apps: Vec<AppInfo>) -> Event {
    let daemon = DaemonInfo {
        pid: 4100,
        version: "0.1.0".into(),
        uptime_ms: 7_380_000,
        home: "/run/clusterd".into(),
        control_groups: String::new(),
    };
    Event::List(List { version: 1, daemon, apps })
}

fn usual() -> Vec<AppInfo> {
    let api = (0..4).map(|number| worker(number, number, "online")).collect();
    vec![
        app("api", "online", api),
        app("mailer", "online", vec![worker(4, 0, "online")]),
        app("importer", "errored", vec![worker(5, 0, "errored")]),
    ]
}

fn line(stream: Stream, text: &str) -> Event {
    let (app, namespace) = ("api".into(), "default".into());
    Event::Log(Reply::Line(Line { app, namespace, instance: 1, stream, text: text.into(), at: None }))
}

fn press(model: &mut Model, keys: &str) -> Option<Wish> {
    keys.chars().filter_map(|key| model.update(Event::Key(Key::Char(key)), ms(0))).last()
}

fn with(apps: Vec<AppInfo>) -> Model {
    let mut model = Model::default();
    model.update(list(apps), ms(0));
    model
}

fn sample() -> Model {
    let mut model = Model::default();
    for time in 0..200_u64 {
        let mut apps = usual();
        for worker in &mut apps[0].workers {
            let wave = (time % 40).abs_diff(20) as f64;
            worker.cpu_percent = Some(2.0 + wave);
            worker.memory_bytes = Some((40 + time / 8) << 20);
        }
        model.update(list(apps), second(time));
    }
    for number in 1..=30 {
        model.update(line(Stream::Out, &format!("GET /orders/{number} 200 {number} ms")), second(200));
    }
    model.update(line(Stream::Err, "warning: the cache is cold\x1b[2J"), second(200));
    model.update(Event::Log(Reply::Dropped { lines: 120 }), second(200));
    model.update(line(Stream::Out, "GET /health 200 1 ms"), second(200));
    model
}

fn drawn(model: &Model, width: u16, height: u16, theme: Theme) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test's terminal");
    terminal.draw(|frame| view::draw(frame, model, theme)).expect("it is drawn in memory");
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        let row: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        text += row.trim_end();
        text.push('\n');
    }
    text
}

const FULL: Theme = Theme { colour: true, unicode: true };
const ASCII: Theme = Theme { colour: false, unicode: false };

/// With CLUSTERD_BLESS=1 they are written anew, to be looked at before they are committed.
#[track_caller]
fn assert_screen(name: &str, shown: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/screens").join(name);
    if std::env::var_os("CLUSTERD_BLESS").is_some() {
        std::fs::write(&path, shown).expect("the sources can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, expected, "{name} is drawn as\n{shown}");
}

#[test]
fn screens_are_as_they_were_agreed_on() {
    let mut model = sample();
    assert_screen("80x24.txt", &drawn(&model, 80, 24, FULL));
    assert_screen("120x40.txt", &drawn(&model, 120, 40, FULL));
    assert_screen("ascii.txt", &drawn(&model, 80, 24, ASCII));
    assert_screen("narrow.txt", &drawn(&model, 50, 12, FULL));
    press(&mut model, "j+");
    assert_screen("question.txt", &drawn(&model, 80, 24, FULL));
    press(&mut model, "n?");
    assert_screen("help.txt", &drawn(&model, 80, 24, FULL));
}

#[test]
fn the_screen_of_the_readme_is_the_real_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("it is there");
    assert!(readme.contains(&drawn(&sample(), 80, 24, FULL)), "take it from tests/screens/80x24.txt");
}

#[test]
fn without_unicode_all_is_ascii_and_any_size_is_drawn() {
    let mut model = sample();
    for mode in ["", "/", "x", "?"] {
        press(&mut model, mode);
        for (width, height) in (0..130).step_by(7).flat_map(|w| (0..45).step_by(3).map(move |h| (w, h))) {
            let shown = drawn(&model, width.max(1), height.max(1), ASCII);
            assert!(shown.is_ascii(), "{shown}");
        }
    }
    assert!(drawn(&model, 30, 5, ASCII).starts_with("too small: 30x5, monit needs"), "a sentence");
}

#[test]
fn the_log_keeps_its_last_lines_and_is_harmless() {
    let mut model = with(usual());
    for number in 0..LOG_LINES + 10 {
        model.update(line(Stream::Out, &format!("{number}")), ms(0));
    }
    assert_eq!((model.log.lines.len(), model.log.lines[0].text.as_str()), (LOG_LINES, "10"));
    model.update(line(Stream::Out, &"\x1b]0;owned\x07\t\u{202e}".repeat(10_000)), ms(0));
    let last = &model.log.lines.back().expect("it was kept").text;
    assert!(last.len() < 20_000 && !last.chars().any(char::is_control), "{} bytes", last.len());
    assert!(!drawn(&model, 80, 24, FULL).chars().any(|char| char.is_control() && char != '\n'));
}

#[test]
fn curves_are_bounded_and_end_with_what_they_are_of() {
    let mut model = Model::default();
    for time in 0..POINTS as u64 + 50 {
        model.update(list(usual()), second(time));
    }
    let item = Item::Worker { id: 2 };
    assert_eq!(model.curve(&item).map(|curve| (curve.cpu.len(), curve.memory.len())), Some((POINTS, POINTS)));
    model.update(list(vec![app("other", "online", vec![worker(9, 0, "online")])]), second(1000));
    assert_eq!(model.curve(&item), None);
}

#[test]
fn a_selection_stays_with_its_row_and_moves_to_the_nearest_when_that_is_gone() {
    let mut model = with(usual());
    press(&mut model, "jjj");
    assert_eq!(model.selected, Some(Item::Worker { id: 2 }));
    let mut apps = usual();
    apps.rotate_left(1);
    model.update(list(apps), ms(0));
    assert_eq!(model.selected, Some(Item::Worker { id: 2 }));
    press(&mut model, "h");
    assert_eq!((model.selected.clone(), model.rows().len()), (Some(Item::of(&usual()[0])), 3));
    model.update(list(usual()[1..].to_vec()), ms(0));
    assert!(model.selected_row().is_some());
    model.update(list(Vec::new()), ms(0));
    assert_eq!(press(&mut model, "rRs+-jk lo"), None);
    assert_eq!((model.selected.clone(), model.mode), (None, Mode::Browse));
}

#[test]
fn nothing_is_done_without_a_yes() {
    let reload = || Request::Reload {
        targets: vec!["default/api".into()],
        file: None,
        update_env: None,
        changes: BTreeMap::new(),
        no_wait: false,
    };
    let stop =
        |target: &str| Request::Stop { targets: vec![target.into()], part: Part::default(), no_wait: false };
    let scale =
        |count: &str| Request::Scale { target: "default/api".into(), count: count.into(), no_wait: false };
    let send = |request: Request| Wish::Send(Box::new(request));
    for (keys, wish) in [
        ("r", None),
        ("rn", None),
        ("rxjq", None),
        ("ry", Some(send(reload()))),
        ("jry", Some(send(reload()))),
        ("sy", Some(send(stop("default/api")))),
        ("jjsy", Some(send(stop("1")))),
        ("+y", Some(send(scale("5")))),
        ("+++-y", Some(send(scale("6")))),
        ("------y", Some(send(scale("1")))),
        ("q", Some(Wish::Quit)),
    ] {
        let mut model = with(usual());
        assert_eq!(press(&mut model, keys), wish, "{keys}");
    }
}

/// A name goes before an id: the wrong app would be stopped.
#[test]
fn a_worker_whose_id_is_an_apps_name_is_not_acted_on() {
    let mut apps = usual();
    apps[1].name = "1".into();
    let mut model = with(apps);
    assert_eq!(press(&mut model, "jjsy"), None);
    assert!(model.message().is_some_and(|message| message.failed && message.text.contains("choose the app")));
    assert_eq!(model.wanted_log(), None);
}

#[test]
fn search_and_sort_change_what_is_listed_and_nothing_else() {
    let mut model = with(usual());
    press(&mut model, "/MAIL");
    assert_eq!(model.rows().len(), 1);
    assert_eq!(model.selected, Some(Item::of(&usual()[1])));
    model.update(Event::Key(Key::Enter), ms(0));
    press(&mut model, "q");
    model.update(Event::Key(Key::Escape), ms(0));
    assert_eq!(model.rows().len(), 7);
    let names = |model: &Model| -> Vec<String> {
        model.rows().iter().filter(|row| row.worker.is_none()).map(|row| row.app.name.clone()).collect()
    };
    for order in [["api", "importer", "mailer"], ["api", "mailer", "importer"]] {
        press(&mut model, "o");
        assert_eq!(names(&model), order, "{:?}", model.sort);
    }
}

#[test]
fn answers_are_told_and_go_away_again() {
    let mut model = with(usual());
    press(&mut model, "ry");
    assert_eq!(model.commands, 1);
    let done = Done { message: "reloaded api\x1b[2J".into(), apps: vec!["api".into()] };
    model.update(Event::Answer(Reply::Done(done)), second(1));
    assert_eq!(model.message().map(|message| message.text.as_str()), Some("reloaded api\\x1b[2J"));
    assert_eq!(model.commands, 0);
    model.update(list(usual()), second(20));
    assert_eq!(model.message(), None);
    model.update(Event::NoList("no supervisor is running".into()), second(21));
    assert!(drawn(&model, 80, 24, FULL).starts_with("no answer: no supervisor is running"));
}

/// A terminal with the real binary on it.
struct Pty {
    master: File,
    /// Ours as well, to see how it is set.
    slave: OwnedFd,
    child: Child,
    bytes: Vec<u8>,
    before: nix::sys::termios::Termios,
}

/// Both ends, which no process of another test gets hold of (as openpty(3) would have it).
fn terminal() -> (File, OwnedFd) {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let master = nix::pty::posix_openpt(flags).expect("a terminal");
    nix::pty::grantpt(&master).expect("it is ours");
    nix::pty::unlockpt(&master).expect("it is ours");
    let name = nix::pty::ptsname_r(&master).expect("it has a name");
    let slave = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(name)
        .expect("it is unlocked");
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&slave, size).expect("it is a terminal");
    let master: OwnedFd = master.into();
    (File::from(master), slave.into())
}

impl Pty {
    fn open(daemon: &Daemon, variables: &[(&str, &str)]) -> Pty {
        let (master, slave) = terminal();
        let before = nix::sys::termios::tcgetattr(&slave).expect("it is a terminal");
        let own = || Stdio::from(slave.try_clone().expect("descriptors are left"));
        let mut command = daemon.home.command(&[]);
        command.arg("monit").env("TERM", "xterm").env("LANG", "C.UTF-8").envs(variables.iter().copied());
        let child = command.stdin(own()).stdout(own()).stderr(own()).spawn().expect("the binary is there");
        Pty { master, slave, child, bytes: Vec::new(), before }
    }

    fn read(&mut self) {
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = self.master.read(&mut part) {
            self.bytes.extend_from_slice(&part[..count]);
        }
    }

    /// What a terminal shows that was sent all this.
    fn screen(&mut self) -> String {
        self.read();
        let mut cells = vec![vec![' '; 80]; 24];
        let (mut x, mut y) = (0, 0);
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        let mut rest = text.as_str();
        while let Some(char) = rest.chars().next() {
            if let Some(sequence) = rest.strip_prefix("\x1b[") {
                let end =
                    sequence.find(|char: char| char.is_ascii_alphabetic()).unwrap_or(sequence.len() - 1);
                let numbers: Vec<usize> = sequence[..end].split(';').flat_map(str::parse).collect();
                match (&sequence[end..=end], numbers.as_slice()) {
                    ("H", [row, column]) => (y, x) = (row - 1, column - 1),
                    ("J", _) => cells.iter_mut().for_each(|row| row.fill(' ')),
                    _ => {}
                }
                rest = &sequence[end + 1..];
                continue;
            }
            if let Some(cell) = cells.get_mut(y).and_then(|row| row.get_mut(x)) {
                *cell = char;
            }
            x += 1;
            rest = &rest[char.len_utf8()..];
        }
        cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned() + "\n").collect()
    }

    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        wait_until(ms(20_000), text, || {
            let screen = self.screen();
            if screen.contains(text) { Ok(()) } else { Err(screen) }
        });
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("a terminal takes some keys");
    }

    /// It ended, and the terminal is as it was.
    #[track_caller]
    fn expect_given_back(mut self, code: i32) {
        let mut ended = None;
        wait_until(ms(10_000), "its end", || {
            self.read();
            ended = self.child.try_wait().expect("it is our child");
            ended.is_some()
        });
        self.read();
        assert_eq!(ended.and_then(|status| status.code()), Some(code), "{}", self.screen());
        let end = b"\x1b[0m\x1b[?25h\x1b[?1049l";
        assert!(self.bytes.ends_with(end), "{:?}", String::from_utf8_lossy(&self.bytes));
        assert!(self.bytes.starts_with(b"\x1b[?1049h"));
        let after = nix::sys::termios::tcgetattr(&self.slave).expect("it is a terminal");
        assert_eq!(after, self.before);
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // It has ended already in a test that passes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn speaking() -> App {
    let script = "printf 'begins \\033]0;owned\\007 \\342\\234\\223\\n'; exec sleep 1000";
    App::new("api", &fixtures::shell(script)).instances(2).text("exec_mode", "fork")
}

#[test]
fn it_shows_what_runs_acts_on_a_yes_and_gives_the_terminal_back() {
    let daemon = Daemon::foreground(speaking());
    daemon.wait_online("api", 2);
    let mut pty = Pty::open(&daemon, &[]);
    pty.wait_for("0 id 0");
    pty.wait_for("begins \\x1b]0;owned\\x07 ✓");
    let raw = nix::sys::termios::tcgetattr(&pty.slave).expect("it is a terminal");
    assert_ne!(raw, pty.before);
    assert!(!pty.bytes.windows(4).any(|bytes| bytes == b"\x1b]0;"), "a title reached the terminal");
    assert!(pty.bytes.windows(3).any(|bytes| bytes == b"[0;"), "styles are shown");
    pty.press("+");
    pty.wait_for("scale api from 2 to 3? y/n");
    pty.press("n");
    pty.wait_for("q quit");
    pty.press("+y");
    pty.wait_for("scaled api");
    pty.wait_for("2 id 2");
    assert_eq!(daemon.app("api").instances, 3);
    let before = daemon.pids("api");
    pty.press("\x1b[Bsy");
    pty.wait_for("stopped api");
    assert_eq!(daemon.pids("api"), before[1..]);
    pty.press("q");
    pty.expect_given_back(0);
}

#[test]
fn a_signal_ends_it_and_the_terminal_is_as_it_was() {
    let daemon = Daemon::foreground(speaking());
    daemon.wait_online("api", 2);
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        let mut pty = Pty::open(&daemon, &[]);
        pty.wait_for("0 id 0");
        send(pty.child.id().cast_signed(), signal);
        pty.expect_given_back(128 + signal as i32);
    }
}

/// Nobody is told of that signal: a process beside it gives the terminal back, and ends with it.
#[test]
fn also_sigkill_leaves_the_terminal_as_it_was() {
    let daemon = Daemon::foreground(speaking());
    daemon.wait_online("api", 2);
    let mut pty = Pty::open(&daemon, &[]);
    pty.wait_for("0 id 0");
    send(pty.child.id().cast_signed(), Signal::SIGKILL);
    wait_until(ms(10_000), "a terminal that was given back", || {
        pty.read();
        let after = nix::sys::termios::tcgetattr(&pty.slave).expect("it is a terminal");
        after == pty.before && pty.bytes.ends_with(b"\x1b[0m\x1b[?25h\x1b[?1049l")
    });
    let monit =
        |daemon: &Daemon| daemon.home.processes().into_iter().any(|other| other.line.contains("monit"));
    wait_until(ms(10_000), "the end of the one beside it", || !monit(&daemon));
}

/// As a shell's Ctrl-Z and `fg` do it to a job.
#[test]
fn it_gives_the_terminal_back_while_it_is_stopped_and_takes_it_again() {
    let daemon = Daemon::foreground(speaking());
    daemon.wait_online("api", 2);
    for signal in [Signal::SIGTSTP, Signal::SIGSTOP] {
        let mut pty = Pty::open(&daemon, &[]);
        pty.wait_for("0 id 0");
        let pid = pty.child.id().cast_signed();
        send(pid, signal);
        wait_until(ms(10_000), "its stop", || state_and_parent(pid).is_some_and(|(state, _)| state == 'T'));
        pty.read();
        if signal == Signal::SIGTSTP {
            assert!(pty.bytes.ends_with(b"\x1b[?1049l"), "{:?}", String::from_utf8_lossy(&pty.bytes));
            let now = nix::sys::termios::tcgetattr(&pty.slave).expect("it is a terminal");
            assert_eq!(now, pty.before);
        }
        // The shell has its own.
        nix::sys::termios::tcsetattr(&pty.slave, nix::sys::termios::SetArg::TCSANOW, &pty.before)
            .expect("it is a terminal");
        let seen = pty.bytes.len();
        send(pid, Signal::SIGCONT);
        wait_until(ms(10_000), "all of its screen", || {
            pty.read();
            let again = String::from_utf8_lossy(&pty.bytes[seen..]).into_owned();
            again.starts_with("\x1b[?1049h") && again.contains("q quit")
        });
        let now = nix::sys::termios::tcgetattr(&pty.slave).expect("it is a terminal");
        assert_ne!(now, pty.before);
        pty.press("q");
        pty.expect_given_back(0);
    }
}

#[test]
fn without_colour_and_unicode_nothing_else_is_sent() {
    let daemon = Daemon::foreground(speaking());
    daemon.wait_online("api", 2);
    let mut pty = Pty::open(&daemon, &[("NO_COLOR", "1"), ("LANG", "C")]);
    pty.wait_for("begins \\x1b]0;owned\\x07 ?");
    pty.press("q");
    wait_until(ms(10_000), "its end", || {
        pty.read();
        pty.child.try_wait().expect("it is our child").is_some()
    });
    assert!(pty.bytes.is_ascii());
    let text = String::from_utf8_lossy(&pty.bytes).into_owned();
    let styles = text.split("\x1b[").skip(1).filter_map(|rest| rest.split_once('m').map(|(codes, _)| codes));
    let is_style = |codes: &&str| codes.bytes().all(|byte| byte.is_ascii_digit() || byte == b';');
    let coloured = |codes: &str| codes.split(';').any(|code| code.len() == 2);
    assert!(!styles.filter(is_style).any(coloured), "{text:?}");
}

/// The other end is gone, as when a connection breaks: it must not turn for ever.
#[test]
fn a_terminal_that_is_gone_ends_it() {
    let daemon = Daemon::foreground(speaking());
    daemon.wait_online("api", 2);
    let mut pty = Pty::open(&daemon, &[]);
    pty.wait_for("0 id 0");
    let null = || File::open("/dev/null").expect("there is one");
    pty.slave = null().into();
    pty.master = null();
    wait_until(ms(10_000), "its end", || pty.child.try_wait().expect("it is our child").is_some());
}

/// Nobody reads it: it is still heard when it is told to end.
#[test]
fn a_terminal_that_stands_still_does_not_keep_it() {
    let flood = App::new("flood", &fixtures::shell("while :; do echo 'a flood of lines'; done"));
    let flood = flood.text("exec_mode", "fork").text("out_file", "/dev/null").text("kill_timeout", "300ms");
    let daemon = Builder::new(flood).stdout(Stdio::null()).start();
    daemon.wait_online("flood", 1);
    let mut pty = Pty::open(&daemon, &[]);
    pty.wait_for("flood");
    // What is typed is drawn, and nobody takes what is drawn.
    for _ in 0..200 {
        pty.press("\x0c");
    }
    let room = |pty: &Pty| {
        let mut fds = [nix::poll::PollFd::new(pty.slave.as_fd(), nix::poll::PollFlags::POLLOUT)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).expect("it is ours") > 0
    };
    wait_until(ms(10_000), "a full terminal", || {
        pty.press("\x0c");
        !room(&pty)
    });
    send(pty.child.id().cast_signed(), Signal::SIGTERM);
    wait_until(ms(10_000), "its end", || pty.child.try_wait().expect("it is our child").is_some());
}

#[test]
fn it_waits_for_the_next_supervisor() {
    let daemon = Daemon::foreground(speaking());
    daemon.wait_online("api", 2);
    let mut pty = Pty::open(&daemon, &[]);
    pty.wait_for("0 id 0");
    let home = daemon.kill_hard();
    pty.wait_for("no answer: no supervisor is running");
    let daemon = Builder::new(speaking()).start_in(home);
    pty.wait_for(&format!("pid {} ", daemon.pid));
    daemon.wait_online("api", 2);
    pty.press("q");
    pty.expect_given_back(0);
}

#[test]
fn without_a_terminal_it_names_what_prints_the_same() {
    let daemon = Daemon::foreground(speaking());
    let output = daemon.run(&["monit"]).expect_code(2);
    assert!(output.stderr.contains("clusterd list"), "{output:?}");
}

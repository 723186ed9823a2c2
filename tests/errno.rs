//! System calls that fail in the supervisor: it survives, what runs serves on, and when the host has again what
//! was missing, everything is as it was asked to be. Nobody's app is charged for it (fault 27).

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::daemon::{Builder, cpu_ticks, send};
use support::hammer::body;
use support::strace::{Fault, When};
use support::wait::holds_for;
use support::{App, Daemon, Hammer, Home, Load, file, fixtures, free_port, host, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn fault(calls: &'static str, errno: &'static str, when: When) -> Fault {
    Fault { calls, errno, when }
}

/// How a worker that is to be started anew is started.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Without any port.
    Fork,
    /// It opens its port itself.
    Cluster,
    /// Its socket is handed over.
    Listen,
}

/// An app that serves under load, and one whose worker is killed.
struct World {
    daemon: Daemon,
    serving: Vec<i32>,
    load: Hammer,
}

impl World {
    fn new(kind: Kind) -> World {
        let port = free_port();
        let web = App::new("web", &fixtures::worker(&["serve"])).instances(2).port(port);
        let victim = match kind {
            Kind::Fork => App::new("victim", &fixtures::worker(&["idle"])).text("exec_mode", "fork"),
            Kind::Cluster => App::new("victim", &fixtures::worker(&["serve"])).port(free_port()).instances(2),
            Kind::Listen => {
                App::new("victim", &fixtures::worker(&["serve", "fds"])).listen(free_port()).instances(2)
            }
        };
        let daemon = Daemon::foreground(file(&[web, victim]));
        daemon.expects(&["was ended by SIGKILL", "unstable exits in a row"]);
        let serving = daemon.wait_online("web", 2);
        daemon.wait_status("victim", "online");
        let load = Load::on(port).clients(2).keep_alive(ms(10)).start();
        World { daemon, serving, load }
    }

    /// Kills one worker of the victim, which makes the supervisor start one, while these calls fail for a
    /// second. False where strace may not do that.
    fn kill_one_under(&mut self, what: Fault) -> bool {
        // Asked for first: a call that fails may be the one that would answer.
        let victim = self.daemon.pids("victim")[0];
        let Some(injected) = what.inject(self.daemon.pid) else { return false };
        send(victim, Signal::SIGKILL);
        self.is_calm(what);
        assert!(injected.lift() > 0, "{what:?}: no call failed");
        true
    }

    /// For a second the supervisor lives, takes little time and writes little.
    fn is_calm(&mut self, what: Fault) {
        let (before, written) = (cpu_ticks(self.daemon.pid).expect("it runs"), self.daemon.log().len());
        let daemon = &mut self.daemon;
        holds_for(ms(1000), &format!("alive under {what:?}"), || daemon.runs());
        let used = cpu_ticks(daemon.pid).expect("it runs") - before;
        assert!(used < 40, "{what:?}: {used} ticks of 10 ms in a second");
        let lines = daemon.log()[written..].lines().count();
        assert!(lines < 30, "{what:?}: {lines} lines in a second");
    }

    /// Everything is as it should be, and nobody was charged for what the host did.
    fn recovers(self, what: Fault, instances: usize) {
        let World { daemon, serving, load } = self;
        let context = format!("{what:?}");
        wait_until(ms(20_000), &format!("recovery from {context}"), || {
            let app = daemon.try_app("victim")?;
            let online = app.workers.iter().filter(|worker| worker.status == "online").count();
            if online == instances { Ok(()) } else { Err(format!("{:#?}", app.workers)) }
        });
        let charged = daemon.app("victim").workers.iter().map(|worker| worker.unstable_restarts).max();
        // The kill itself is one.
        assert!(charged <= Some(1), "{context}: charged to the app");
        assert_eq!(daemon.pids("web"), serving, "{context}");
        daemon.run(&["reload", "web"]).expect_code(0);
        load.stop().expect_none_lost();
    }
}

/// Kills a worker while these calls fail, and lifts that after a second.
fn starts_are_tried_again(kind: Kind, instances: usize, what: Fault, told: &str) {
    let mut world = World::new(kind);
    world.daemon.expects(&["could not be started", "notify socket: "]);
    if world.kill_one_under(what) {
        let log = world.daemon.log();
        assert!(log.contains(told), "{what:?}: no {told:?} in {log}");
        world.recovers(what, instances);
    }
}

/// Fault 27.
#[test]
fn a_host_without_processes_is_asked_again() {
    for errno in ["EAGAIN", "ENOMEM"] {
        starts_are_tried_again(Kind::Fork, 1, fault("clone3,clone,fork", errno, When::Always), "clone: ");
    }
    let some = fault("clone3,clone,fork", "EAGAIN", When::First(3));
    starts_are_tried_again(Kind::Listen, 2, some, "clone: Resource temporarily unavailable");
}

/// Faults 27 and 28.
#[test]
fn a_host_without_descriptors_is_asked_again() {
    for errno in ["EMFILE", "ENFILE"] {
        starts_are_tried_again(
            Kind::Fork,
            1,
            fault("pipe2", errno, When::Always),
            "pipe: Too many open files",
        );
        starts_are_tried_again(
            Kind::Cluster,
            2,
            fault("socketpair", errno, When::Always),
            "socketpair: Too many",
        );
    }
}

/// Faults 27 and 28: whatever the one descriptor is that cannot be watched.
#[test]
fn a_host_without_watches_is_asked_again() {
    let told = "cannot watch its descriptors";
    for errno in ["ENOSPC", "ENOMEM"] {
        starts_are_tried_again(Kind::Cluster, 2, fault("epoll_ctl", errno, When::Always), told);
    }
}

/// What a worker has to say on its way to exec may carry the descriptor that its port hangs on.
#[test]
fn a_start_that_cannot_be_followed_is_made_again_and_not_charged() {
    for errno in ["ENOMEM", "ENOBUFS"] {
        let what = fault("recvmsg", errno, When::Always);
        starts_are_tried_again(Kind::Cluster, 2, what, "its start cannot be followed");
    }
}

/// No descriptor, no disk, or a broken one: pid file and state file are not worth a worker.
#[test]
fn files_that_cannot_be_written_cost_no_worker_and_are_written_later() {
    for (calls, errno) in [("openat", "EMFILE"), ("openat", "EIO"), ("write", "ENOSPC")] {
        let what = fault(calls, errno, When::Always);
        let mut world = World::new(Kind::Fork);
        world.daemon.expects(&["pid file", "state.json", "no log files are written"]);
        if !world.kill_one_under(what) {
            return;
        }
        let there = world.daemon.workers().iter().any(|worker| worker.line.ends_with("idle"));
        assert!(there, "{what:?}: no new worker: {:?}", world.daemon.workers());
        assert_eq!(world.daemon.log().matches("state.json").count(), 1, "{}", world.daemon.log());
        let pid = world.daemon.wait_online("victim", 1)[0];
        let state = world.daemon.home.path().join("state.json");
        wait_until(ms(20_000), "the state file names the new worker", || {
            let text = std::fs::read_to_string(&state).map_err(|error| error.to_string())?;
            if text.contains(&format!("\"pid\":{pid},")) { Ok(()) } else { Err(text) }
        });
        world.recovers(what, 1);
    }
}

/// Fault 28: clients wait until there are descriptors again, and the supervisor does not spin meanwhile.
#[test]
fn clients_that_cannot_be_accepted_are_accepted_later() {
    for errno in ["EMFILE", "ENFILE", "ENOMEM"] {
        let what = fault("accept4", errno, When::Always);
        let mut world = World::new(Kind::Fork);
        let Some(injected) = what.inject(world.daemon.pid) else { return };
        let mut list = world.daemon.spawn(&["list"]);
        world.is_calm(what);
        assert!(list.runs(), "{what:?}: answered without a connection");
        assert!(injected.lift() > 0, "{what:?}: no call failed");
        world.daemon.home.finish(list).expect_code(0);
        world.recovers(what, 1);
    }
}

/// The loop's own wait: its end would be every worker's.
#[test]
fn a_wait_that_fails_for_a_moment_ends_nobody() {
    let what = fault("epoll_wait,epoll_pwait", "ENOMEM", When::First(5));
    let mut world = World::new(Kind::Fork);
    world.daemon.expects(&["poll: Cannot allocate memory"]);
    if !world.kill_one_under(what) {
        return;
    }
    assert!(world.daemon.log().contains("poll: Cannot allocate memory"), "{}", world.daemon.log());
    world.recovers(what, 1);
}

/// There is an end to patience, with a reason and without leftovers.
#[test]
fn a_wait_that_fails_for_good_ends_the_supervisor_with_a_reason() {
    let what = fault("epoll_wait,epoll_pwait", "EBADF", When::Always);
    let World { mut daemon, load, .. } = World::new(Kind::Fork);
    drop(load);
    daemon.expects(&["poll: Bad file descriptor"]);
    let Some(_injected) = what.inject(daemon.pid) else { return };
    assert_eq!(daemon.wait_exit(ms(20_000)), 1);
    assert!(daemon.log().contains("error: poll: Bad file descriptor"), "{}", daemon.log());
    wait_until(ms(10_000), "its workers end with it", || daemon.workers().is_empty());
}

/// A signal that comes while a worker's bind or listen is taken or answered holds no worker.
#[test]
fn an_interrupted_notification_is_taken_all_the_same() {
    for number in 1..=4 {
        let what = fault("ioctl", "EINTR", When::Only(number));
        let world = World::new(Kind::Cluster);
        let Some(injected) = what.inject(world.daemon.pid) else { return };
        world.daemon.run(&["reload", "victim"]).expect_code(0);
        assert_eq!(injected.lift(), 1, "{what:?}");
        world.recovers(what, 2);
    }
}

/// A worker whose socket cannot be taken over is told that, and not that its port is in use; the log has the cause.
fn a_short_supervisor_is_named(daemon: &Daemon, what: Fault, limit: &str) {
    daemon.expects(&[
        "could not take its socket over",
        "exited with code 1 ",
        "unstable exits in a row",
        "still starting",
    ]);
    daemon.wait_online("api", 1);
    let Some(injected) = what.inject(daemon.pid) else { return };
    daemon.run(&["scale", "api", "2"]);
    wait_until(ms(20_000), "the cause in the log", || {
        daemon.log().contains(&format!("could not take its socket over ({limit}"))
    });
    wait_until(ms(20_000), "what the worker was told", || daemon.log().contains("No buffer space available"));
    assert!(injected.lift() > 0, "{what:?}: no call failed");
    let log = daemon.log();
    assert!(!log.to_lowercase().contains("address already in use") && !log.contains("EADDRINUSE"), "{log}");
    daemon.wait_online("api", 2);
}

/// Fault 28.
#[test]
fn a_bind_that_no_descriptor_is_left_for_is_not_told_as_a_port_in_use() {
    for (errno, limit) in
        [("EMFILE", "Too many open files (os error 24)"), ("ENFILE", "Too many open files in")]
    {
        let app = App::new("api", &fixtures::worker(&["serve"])).instances(1).port(free_port());
        let daemon = Daemon::foreground(app);
        a_short_supervisor_is_named(&daemon, fault("pidfd_getfd", errno, When::Always), limit);
    }
}

/// Fault 28, where a socket of the supervisor's is put in the place of the worker's.
#[test]
fn a_socket_that_cannot_be_replaced_for_want_of_descriptors_is_not_told_as_a_port_in_use() {
    let Some(docker) = host::docker() else { return };
    let app = App::new("api", &fixtures::worker(&["serve"])).instances(1).port(free_port());
    let docker: Vec<&str> = docker.iter().map(String::as_str).collect();
    let daemon = Builder::new(app).wrap(&docker).start_in(Arc::new(Home::new(None)));
    a_short_supervisor_is_named(&daemon, fault("socket", "EMFILE", When::Always), "Too many open files");
}

/// A server that wants one interface is on that alone, also when the supervisor could not hear which for a moment.
#[test]
fn an_interface_that_could_not_be_heard_of_is_not_forgotten() {
    let (Some(server), Some(docker)) = (fixtures::python("device.py"), host::docker()) else { return };
    let docker: Vec<&str> = docker.iter().map(String::as_str).collect();
    let port = free_port();
    let app = App::new("api", &server).instances(1).port(port).env("HOW", "name");
    let daemon = Builder::new(app).wrap(&docker).start_in(Arc::new(Home::new(None)));
    daemon.expects(&[
        "its setsockopt(2) fails with ENOBUFS",
        "exited with code 1 ",
        "unstable exits in a row",
    ]);
    daemon.wait_online("api", 1);
    let Some(injected) = fault("socket", "EMFILE", When::Always).inject(daemon.pid) else { return };
    daemon.run(&["scale", "api", "2"]);
    wait_until(ms(20_000), "the cause in the log", || daemon.log().contains("its setsockopt(2) fails"));
    assert!(injected.lift() > 0, "no call failed");
    daemon.wait_online("api", 2);
    for _ in 0..20 {
        assert_eq!(body(port, "/"), "on lo");
    }
}

/// The kernel has no memory for a steering program: nobody is lost, and it is put in as soon as there is.
#[test]
fn a_steering_program_that_was_refused_is_put_in_later() {
    for number in 1..=10 {
        let what = fault("setsockopt", "ENOMEM", When::Only(number));
        let port = free_port();
        let web = App::new("web", &fixtures::worker(&["serve"])).instances(2).port(port);
        let daemon = Daemon::foreground(web);
        daemon.expects(&[
            "cannot steer",
            "cannot be bounded",
            "cannot be kept",
            "exited with code 1 ",
            "reload to generation",
            "could not take its socket over",
        ]);
        daemon.wait_online("web", 2);
        let load = Load::on(port).clients(4).start();
        let Some(injected) = what.inject(daemon.pid) else { return };
        // A refused SO_REUSEPORT fails the new worker's own bind, and so the reload.
        let code = daemon.run(&["reload", "web"]).code;
        assert!(code <= 1, "{what:?}: {code}");
        injected.lift();
        // The reload may be over before the next try.
        let times = |text: &str| daemon.log().matches(text).count();
        wait_until(ms(10_000), &format!("{what:?}: what was refused is put in"), || {
            times("cannot steer") == times("are steered again")
        });
        daemon.run(&["reload", "web"]).expect_code(0);
        load.stop().expect_none_lost();
    }
}

/// Options that the kernel does not know, or a profile refuses, cost no worker whose socket is handed over.
#[test]
fn socket_options_that_are_refused_cost_nobody_a_request() {
    for errno in ["ENOPROTOOPT", "EPERM"] {
        let what = fault("setsockopt", errno, When::Always);
        let mut world = World::new(Kind::Listen);
        world.daemon.expects(&["cannot steer", "cannot be bounded", "cannot be kept"]);
        if world.kill_one_under(what) {
            world.recovers(what, 2);
        }
    }
}

/// Whichever call of the start fails: it says so and leaves nobody, or serves.
fn starts_or_says_why(calls: &'static str, errno: &'static str, text: &str, most: usize) {
    if support::runtime("strace").is_none() {
        return;
    }
    let (mut failed, mut served) = (0, 0);
    for number in 1..=most {
        let what = fault(calls, errno, When::Only(number));
        let wrap = what.wrap();
        let wrap: Vec<&str> = wrap.iter().map(String::as_str).collect();
        let port = free_port();
        let app = App::new("api", &fixtures::worker(&["serve"])).port(port);
        let mut daemon = Builder::new(app).wrap(&wrap).start();
        daemon.expects(&["pid file", "state.json", "could not be started", "next start in", "cannot steer"]);
        daemon.expects(&["no thread can write them"]);
        let ended = wait_until(ms(20_000), &format!("{what:?}: an end, or a worker that serves"), || {
            let online = daemon.runs() && daemon.try_app("api").is_ok_and(|app| app.status == "online");
            if online { Some(false) } else { (!daemon.runs()).then_some(true) }
        });
        if ended {
            failed += 1;
            // 2 where it is the file that could not be read.
            let code = daemon.wait_exit(ms(1_000));
            assert!(matches!(code, 1 | 2), "{what:?}: {code}: {}", daemon.log());
            let log = daemon.log();
            assert!(log.contains("error: ") && log.contains(text), "{what:?}: {log:?}");
        } else {
            served += 1;
            daemon.signal(Signal::SIGTERM);
            assert_eq!(daemon.wait_exit(ms(20_000)), 0, "{what:?}: {}", daemon.log());
        }
        // strace itself ends a moment after what it traced.
        wait_until(ms(10_000), &format!("{what:?}: nobody is left"), || daemon.home.processes().is_empty());
    }
    assert!(failed > 0, "{calls}: none of {served} starts failed");
}

/// Fault 28, at the start.
#[test]
fn a_start_without_descriptors_says_what_it_could_not_open() {
    starts_or_says_why("epoll_create1", "EMFILE", "Too many open files", 1);
    starts_or_says_why("openat", "EMFILE", "Too many open files", 24);
    starts_or_says_why("socket,socketpair,pipe2", "ENFILE", "Too many open files in system", 10);
}

/// A start that cannot bind, listen or watch.
#[test]
fn a_start_without_its_sockets_says_which() {
    starts_or_says_why("bind", "EACCES", "Permission denied", 3);
    starts_or_says_why("listen", "EADDRINUSE", "Address already in use", 2);
    starts_or_says_why("epoll_ctl", "ENOSPC", "No space left on device", 8);
    starts_or_says_why("setsockopt", "EPERM", "Operation not permitted", 2);
}

/// A disk that is full, or broken, at the start.
#[test]
fn a_start_on_a_full_disk_says_so() {
    starts_or_says_why("write", "ENOSPC", "No space left on device", 6);
}

/// The harness itself: a fault that never happens would prove nothing.
#[test]
fn an_injected_fault_is_counted_and_lifted() {
    let daemon = Daemon::foreground(App::new("api", &fixtures::worker(&["idle"])).text("exec_mode", "fork"));
    daemon.wait_online("api", 1);
    let Some(injected) = fault("accept4", "EMFILE", When::Always).inject(daemon.pid) else { return };
    assert_eq!(injected.count(), 0);
    let list = daemon.spawn(&["list"]);
    wait_until(ms(5_000), "a call that failed", || injected.count() > 0);
    assert!(injected.lift() > 0);
    daemon.home.finish(list).expect_code(0);
}

#!/usr/bin/env python3
"""Measures clusterd against PM2, Node's cluster module and bare Node, in one run on one machine.

Installs PM2 through npm into build/bench. Everything is measured in rounds, one system after the other
within a round, and what is reported is the median over the rounds. Prints Markdown; `--write` puts it
between the markers of BENCHMARKS.md. `make bench` calls it with the paths of the release binaries.
"""
import argparse
import json
import os
import platform
import queue
import re
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
SERVER = ROOT / "benches" / "server.js"
PM2_VERSION = "7.0.4"
STARTED = []  # process groups that this run started


def absolute(text):
    return Path(text).resolve()


def clean_environment(**more):
    kept = {k: v for k, v in os.environ.items()
            if not k.startswith(("PM2_", "CLUSTERD_", "LISTEN_", "NODE_")) and k != "PORT"}
    return {**kept, **{k: str(v) for k, v in more.items()}}


def wait_for(what, check, seconds=30):
    end = time.monotonic() + seconds
    while not (value := check()):
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {seconds} s")
        time.sleep(0.01)
    return value


def spawn(argv, **options):
    options.setdefault("stdout", subprocess.DEVNULL)
    options.setdefault("stderr", subprocess.DEVNULL)
    process = subprocess.Popen([str(a) for a in argv], start_new_session=True, **options)
    STARTED.append(process)
    return process


def end(process, number=signal.SIGTERM, seconds=15):
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port, timeout=10):
    """The pid that answers one request on a connection of its own; None when there is no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            text = b""
            while part := s.recv(4096):
                text += part
            return int(text.split(b"\r\n\r\n")[1])
    except (OSError, IndexError, ValueError):
        return None


def all_answer(port, workers):
    """Whether so many different processes answer."""
    seen = set()
    for _ in range(workers * 12):
        seen.add(ask(port, 2))
    return len(seen - {None}) >= workers


class Clusterd:
    name = "clusterd"

    def __init__(self, port, workers, options):
        self.port, self.binary = port, options.clusterd
        self.home = BUILD / f"clusterd-{port}"
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        file = self.home / "ecosystem.toml"
        file.write_text(f'[[apps]]\nname = "bench"\nscript = "{SERVER}"\ninstances = {workers}\n'
                        f'env = {{ PORT = "{port}" }}\n')
        self.environment = clean_environment(CLUSTERD_HOME=self.home)
        self.process = spawn([self.binary, file], env=self.environment,
                             stderr=(self.home / "stderr").open("wb"))
        wait_for("clusterd", lambda: self.alive() and all_answer(port, workers))

    def alive(self):
        if self.process.poll() is not None:
            raise RuntimeError("clusterd ended: " + (self.home / "stderr").read_text()[-500:])
        return True

    def reload(self):
        subprocess.run([self.binary, "reload", "bench"], env=self.environment, check=True,
                       stdout=subprocess.DEVNULL, timeout=120)

    def supervisor(self):
        return self.process.pid

    def list_command(self):
        return [str(self.binary), "list"], self.environment

    def close(self):
        end(self.process)


class Pm2:
    name = "PM2 cluster"
    binary = BUILD / "node_modules" / ".bin" / "pm2"

    def __init__(self, port, workers, options):
        self.port, self.home = port, BUILD / f"pm2-{port}"
        shutil.rmtree(self.home, ignore_errors=True)
        self.environment = clean_environment(PM2_HOME=self.home, PORT=port, PM2_DISCRETE_MODE="true")
        self.call("start", SERVER, "--name", "bench", "-i", workers)
        wait_for("PM2", lambda: all_answer(port, workers))

    def call(self, *args):
        subprocess.run([str(self.binary), *map(str, args)], env=self.environment, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)

    def reload(self):
        self.call("reload", "bench")

    def supervisor(self):
        return int((self.home / "pm2.pid").read_text())

    def list_command(self):
        return [str(self.binary), "ls"], self.environment

    def close(self):
        self.call("kill")


class NodeCluster:
    name = "Node cluster"
    leave = "signal"
    queue = "own"

    def __init__(self, port, workers, options):
        self.port = port
        self.process = spawn(["node", ROOT / "benches" / "cluster.js"], stdout=subprocess.PIPE,
                             env=clean_environment(PORT=port, BENCH_WORKERS=workers, BENCH_LEAVE=self.leave,
                                                   BENCH_QUEUE=self.queue))
        self.expect("ready")

    def expect(self, word, seconds=60):
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise RuntimeError(f"cluster.js: no {word} within {seconds} s")
        if (line := self.process.stdout.readline().decode().strip()) != word:
            raise RuntimeError(f"cluster.js: expected {word}, got {line!r}")

    def reload(self):
        self.process.send_signal(signal.SIGUSR2)
        self.expect("reloaded")

    def supervisor(self):
        return self.process.pid

    def close(self):
        end(self.process)


class NodeDisconnect(NodeCluster):
    name = "Node cluster, `worker.disconnect()`"
    leave = "disconnect"


class SharedQueue(NodeCluster):
    name = "one shared queue (SCHED_NONE)"
    queue = "shared"


class Bare:
    """Workers without a supervisor, each on its own SO_REUSEPORT socket. A reload is stop, then start."""
    name = "bare Node, SO_REUSEPORT"

    def __init__(self, port, workers, options):
        self.port, self.workers = port, workers
        self.start()

    def start(self):
        self.processes = []
        for _ in range(self.workers):
            with socket.socket(socket.AF_INET6) as s:  # dual stack, as Node's own listen is
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                s.bind(("::", self.port))
                s.listen(511)
                self.processes.append(spawn(["node", SERVER], pass_fds=[s.fileno()],
                                            env=clean_environment(BENCH_FD=s.fileno())))
        wait_for("bare Node", lambda: all_answer(self.port, self.workers))

    def reload(self):
        for process in self.processes:
            process.send_signal(signal.SIGINT)
        for process in self.processes:
            process.wait(60)
        self.start()

    def close(self):
        for process in self.processes:
            end(process)


class StopStart(Bare):
    name = "stop, then start"


class Load:
    """The load generator, running until `finish`."""

    def __init__(self, options, port, keep_alive, ms=0, cpu=0, seconds=None):
        argv = [options.load, "--port", port, "--clients", 8, "--path",
                f"/?ms={ms}" if ms else f"/?cpu={cpu}" if cpu else "/"]
        argv += ["--keep-alive"] if keep_alive else []
        argv += ["--seconds", seconds] if seconds else []
        self.process = spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def finish(self):
        text, _ = self.process.communicate(timeout=60)
        return json.loads(text)


def median(values):
    return statistics.median(values)


def table(title, head, rows):
    lines = [f"### {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]) + "\n"


# Of a request in the reload part, of clusterd's min_healthy_time (its default), and of the workers there.
HANDLER_S, HEALTHY_S, RELOADED = 0.2, 1.0, 4


def of_pm2(own, name, digits=0):
    """How often a system's figure goes into PM2's of the same round, as the median over the rounds."""
    pm2 = next((other for other in own if other.startswith("PM2")), name)
    if name == pm2:
        return ""
    ratios = [theirs / max(this, 1e-9) for this, theirs in zip(own[name], own[pm2])]
    return f"{median(ratios):.{digits}f}" if median(own[name]) > 0 else "∞"


def reloads(systems, options):
    """One reload of 4 workers under 8 closed-loop clients whose requests take 200 ms."""
    rows, boots = [], []
    for keep_alive in (False, True):
        rounds = {system.name: [] for system in systems}
        for _ in range(options.rounds):
            boots.append(own_boot(options) / 1e3)
            for system in systems:
                running = system(free_port(), RELOADED, options)
                try:
                    load = Load(options, running.port, keep_alive, ms=200)
                    time.sleep(0.5)  # every client is in the middle of a request
                    begun = time.monotonic()
                    running.reload()
                    took = time.monotonic() - begun
                    time.sleep(0.5)
                    seen = load.finish()
                finally:
                    running.close()
                rounds[system.name].append({**seen, "took": took})
        for name, runs in rounds.items():
            pick = lambda key: median([run[key] for run in runs])
            rows.append(["keep-alive" if keep_alive else "one per connection", name,
                         f"{pick('lost'):g} / {pick('requests'):g}", f"{pick('retriable'):g}",
                         f"{pick('p99_us') / 1000:.0f}", f"{pick('max_us') / 1000:.0f}", f"{pick('took'):.2f}"])
    sequence = RELOADED * (median(boots) + HEALTHY_S + HANDLER_S)
    return table("One reload of 4 unmodified workers under load (handler 200 ms, 8 closed-loop clients)",
                 ["client", "system", "failed / requests", "retriable", "p99 ms", "max ms", "reload s"], rows) + (
        f"\nFour boots ({median(boots) * 1e3:.0f} ms), healthy times ({HEALTHY_S:g} s) and drains of one request "
        f"({HANDLER_S:g} s) in sequence: {sequence:.2f} s.\n")


def throughput(systems, options):
    """All systems run side by side, idle but for the one being measured."""
    rows, running = [], []
    try:
        for system in systems:
            running.append(system(free_port(), 2, options))
        rates = {}
        for _ in range(options.rounds):
            for keep_alive in (False, True):
                # Eight connections that last fall on two workers as chance has it, and five and three are
                # slower than four and four: each second has new ones, and all systems take turns.
                windows = {one.name: [] for one in running}
                for _ in range(options.seconds):
                    for one in running:
                        windows[one.name].append(Load(options, one.port, keep_alive, seconds=1).finish())
                for name, seen in windows.items():
                    mean = sum(window["per_second"] for window in seen) / len(seen)
                    p99 = median([window["p99_us"] for window in seen])
                    rates.setdefault((name, keep_alive), []).append((mean, p99))
        for system in systems:
            row = [system.name]
            for keep_alive in (False, True):
                own = rates[system.name, keep_alive]
                bare = rates.get((Bare.name, keep_alive), own)
                ratio = median([a[0] / b[0] for a, b in zip(own, bare)])
                row += [f"{median([a[0] for a in own]):.0f}", f"{ratio:.2f}",
                        f"{median([a[1] for a in own]) / 1000:.1f}"]
            rows.append(row)
    finally:
        for one in running:
            one.close()
    return table("Throughput, 2 workers, 8 closed-loop clients on the same cores",
                 ["system", "one per connection: req/s", "of bare", "p99 ms", "keep-alive: req/s", "of bare",
                  "p99 ms"], rows)


def balance(systems, options):
    """Workers that compute for 2 ms a request: how long the unlucky ones wait behind a busy worker."""
    rows, running = [], []
    try:
        for system in systems:
            running.append(system(free_port(), 4, options))
        seen = {one.name: [] for one in running}
        for _ in range(options.rounds):
            for one in running:
                Load(options, one.port, False, cpu=2, seconds=2).finish()  # its queues are known by then
                seen[one.name].append(Load(options, one.port, False, cpu=2, seconds=4).finish())
        for name, windows in seen.items():
            pick = lambda key: median([window[key] for window in windows])
            of = lambda peer: median([own["p99_us"] / theirs["p99_us"]
                                      for own, theirs in zip(windows, seen.get(peer.name, windows))])
            rows.append([name, f"{pick('per_second'):.0f}", f"{pick('p50_us') / 1000:.1f}",
                         f"{pick('p99_us') / 1000:.1f}", f"{of(NodeCluster):.2f}", f"{of(SharedQueue):.2f}"])
    finally:
        for one in running:
            one.close()
    return table("Computing handler (2 ms), 4 workers, 8 closed-loop clients, one request per connection",
                 ["system", "req/s", "p50 ms", "p99 ms", "of Node cluster's", "of one shared queue's"], rows)

class Tellers:
    """Where instances of examples/tiny.rs say that they run, and when each did."""

    def __init__(self):
        self.path = BUILD / "tell"
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.path))
        self.socket.listen(4096)

    def await_all(self, count):
        """When the last of so many had told."""
        self.socket.settimeout(120)
        for _ in range(count):
            self.socket.accept()[0].close()
        return time.monotonic()

    def accept(self):
        self.socket.settimeout(60)
        return self.socket.accept()[0]

    def close(self):
        self.socket.close()


def fresh_home(name):
    """A folder that was not there before. One that was just emptied of the log files of the round before would
    cost whoever creates files next: ext4 passes over inodes that were freed within the last five seconds."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=BUILD))


class TinyClusterd:
    """A supervisor that runs one tiny process, and takes more."""
    name = "clusterd"

    def __init__(self, options, tellers):
        self.binary, self.tiny = options.clusterd, options.tiny
        self.home = fresh_home("clusterd-tiny")
        self.environment = clean_environment(CLUSTERD_HOME=self.home, TINY_TELL=tellers.path)
        self.process = spawn([self.binary, self.file("base", 1)], env=self.environment,
                             stderr=(self.home / "stderr").open("wb"))
        tellers.await_all(1)

    def file(self, name, instances, args="", more=""):
        file = self.home / f"{name}.toml"
        file.write_text(f'[[apps]]\nname = "{name}"\ncommand = ["{self.tiny}"{args}]\n'
                        f'instances = {instances}\nexec_mode = "fork"\n{more}\n')
        return file

    def verb(self, *words):
        return [str(self.binary), *words], self.environment

    def prepare(self, instances):
        """The command that starts so many."""
        return self.verb("start", str(self.file("many", instances)))

    def start_many(self, instances):
        # All of them are weighed once a second: what that costs is measured here, too.
        file = self.file("many", instances, more='max_memory_restart = "1G"')
        return subprocess.Popen([self.binary, "start", file], env=self.environment, stdout=subprocess.DEVNULL)

    def start_lines(self, count, at_once, out, **more):
        # Lines that are moved away or compressed while they are counted would measure something else.
        keys = {"out_file": str(out), "log_max_size": 0, **more}
        text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
        file = self.file("lines", 1, f', "{count}", "{at_once}"', text)
        subprocess.run([self.binary, "start", file], env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def ask(self, verb):
        """How long one answer over the control socket takes, in ms, connect to last byte."""
        begun = time.perf_counter()
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(self.home / "clusterd.sock"))
            s.sendall(json.dumps({"version": 1, "request": verb}).encode() + b"\n")
            text = b""
            while not text.endswith(b"\n"):
                if not (part := s.recv(1 << 20)):
                    raise RuntimeError(f"control socket: {text[:200]!r}")
                text += part
        if b'"error"' in text[:100]:
            raise RuntimeError(f"control socket: {text[:200]!r}")
        return (time.perf_counter() - begun) * 1e3

    def supervisor(self):
        return self.process.pid

    def close(self):
        end(self.process, seconds=60)


class TinyPm2:
    name = "PM2"
    binary = BUILD / "node_modules" / ".bin" / "pm2"

    def __init__(self, options, tellers):
        self.tiny, self.home = options.tiny, fresh_home("pm2-tiny")
        self.environment = clean_environment(PM2_HOME=self.home, TINY_TELL=tellers.path, PM2_DISCRETE_MODE="true")
        self.start("base", 1).wait()
        tellers.await_all(1)

    def verb(self, *words):
        return [str(self.binary), *words], self.environment

    def prepare(self, instances):
        return self.verb("start", str(self.file("many", instances)))

    def file(self, name, instances, **more):
        app = {"name": name, "script": str(self.tiny), "interpreter": "none", "exec_mode": "fork",
               "instances": instances, **more}
        file = self.home / f"{name}.json"
        file.write_text(json.dumps({"apps": [app]}))
        return file

    def start(self, name, instances, **more):
        return subprocess.Popen([str(self.binary), "start", str(self.file(name, instances, **more))],
                                env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start_many(self, instances):
        return self.start("many", instances)

    def start_lines(self, count, at_once, out, **more):
        self.start("lines", 1, args=[str(count), str(at_once)], out_file=str(out), merge_logs=True, **more).wait()

    def supervisor(self):
        return int((self.home / "pm2.pid").read_text())

    def close(self):
        # `pm2 kill` asks each of them in turn and waits; they have nothing to lose.
        pid = self.supervisor()
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
        os.kill(pid, signal.SIGKILL)
        for child in children.split():
            os.kill(int(child), signal.SIGKILL)


class Asking(threading.Thread):
    """Asks a supervisor again and again, until `finish`."""

    def __init__(self, running, verb):
        super().__init__(daemon=True)
        self.running, self.verb, self.over, self.took = running, verb, threading.Event(), []
        self.start()

    def run(self):
        while not self.over.wait(0.002):
            self.took.append(self.running.ask(self.verb))

    def finish(self):
        self.over.set()
        self.join()
        return self.took


INSTANCES, POLL_SECONDS = 500, 10
PING = {"verb": "ping"}
LIST = {"verb": "list", "targets": [], "connections": False, "detail": False}


def many(systems, options):
    """500 instances of a tiny program: their start, what they take of the supervisor, and how it answers."""
    seen = {system.name: [] for system in systems}
    answers = []
    for _ in range(options.rounds):
        for system in systems:
            tellers = Tellers()
            running = system(options, tellers)
            try:
                time.sleep(1)
                pid, ours = running.supervisor(), hasattr(running, "ask")
                # Its code in memory is the same for one and for many.
                base, spent = status_kib(pid, "status", "RssAnon"), cpu_ms(pid)
                asking = Asking(running, PING) if ours else None
                begun = time.monotonic()
                command = running.start_many(INSTANCES)
                started = tellers.await_all(INSTANCES) - begun
                command.wait()
                spent = cpu_ms(pid) - spent
                run = {"start": started * 1e3 / INSTANCES, "cpu": spent / INSTANCES}
                if ours:
                    answers.append(("ping while they start", asking.finish()))
                time.sleep(3)
                run["rss"] = (status_kib(pid, "status", "RssAnon") - base) / INSTANCES
                if ours:
                    before = cpu_ms(pid)
                    time.sleep(POLL_SECONDS)
                    run["poll"] = (cpu_ms(pid) - before) * 1e3 / INSTANCES / POLL_SECONDS
                    for name, verb in (("ping", PING), ("list", LIST)):
                        asking = Asking(running, verb)
                        time.sleep(2)
                        answers.append((f"{name} with {INSTANCES} running", asking.finish()))
                seen[system.name].append(run)
            finally:
                running.close()
                tellers.close()
    rows = []
    for name, runs in seen.items():
        pick = lambda key: [run[key] for run in runs if key in run]
        start = {system: [run["start"] for run in runs] for system, runs in seen.items()}
        poll = f"{median(pick('poll')):.1f}" if pick("poll") else ""
        rows.append([name, f"{median(pick('start')):.2f}", of_pm2(start, name, 1), f"{median(pick('cpu')):.2f}",
                     f"{median(pick('rss')):.1f}", poll])
    text = table(f"{INSTANCES} instances of a tiny program, each",
                 ["system", "start ms", "PM2's is … times that", "supervisor's CPU ms", "supervisor's RSS KB (anonymous)",
                  "one look at its memory, CPU µs"], rows)
    rows = []
    for question in dict.fromkeys(name for name, _ in answers):
        runs = [sorted(took) for name, took in answers if name == question]
        at = lambda share: median([took[min(int(len(took) * share), len(took) - 1)] for took in runs])
        rows.append([question, sum(map(len, runs)), f"{at(0.5):.2f}", f"{at(0.99):.2f}", f"{at(1):.2f}"])
    return text + "\n" + table("Answers over the control socket, connect to last byte",
                               ["asked", "answers", "p50 ms", "p99 ms", "longest ms"], rows)


# Of how many `list` and `jlist` each is the median.
LISTINGS = 5


def operations(systems, options):
    """What a person waits for with hundreds of processes: each command from its start to its exit."""
    took, names = {}, [system.name for system in systems]
    for _ in range(options.rounds):
        for instances in options.instances:
            for system in systems:
                for what, ms in operated(system, instances, options):
                    took.setdefault((instances, what), {name: [] for name in names})[system.name].append(ms)
    rows = []
    for (instances, what), own in took.items():
        ours = next(name for name in names if not name.startswith("PM2") or len(names) == 1)
        rows.append([what, instances, *(f"{median(own[name]):.0f}" for name in names), of_pm2(own, ours, 1)])
    return table("Commands with many processes of a tiny program, ms from start to exit",
                 ["command", "processes", *names, "PM2's is … times that"], rows)


def operated(system, instances, options):
    tellers = Tellers()
    running = system(options, tellers)
    try:
        time.sleep(1)
        begun = time.monotonic()
        took = call_ms(*running.prepare(instances))
        # Whichever comes last: that the command says so, or that they run.
        yield "start", max(took, (tellers.await_all(instances) - begun) * 1e3)
        time.sleep(1)
        for verb in ("list", "jlist"):
            yield verb, median([call_ms(*running.verb(verb)) for _ in range(LISTINGS)])
        begun = time.monotonic()
        took = call_ms(*running.verb("restart", "many"))
        yield "restart", max(took, (tellers.await_all(instances) - begun) * 1e3)
        for verb in ("stop", "delete"):
            yield verb, call_ms(*running.verb(verb, "many"))
    finally:
        running.close()
        tellers.close()


def await_rest(path):
    """When a file grew for the last time: how large it is to be depends on the form of its lines."""
    end, size = time.monotonic() + 600, 0
    grew = None
    while grew is None or time.monotonic() < grew + REST_S:
        if (found := path.stat().st_size if path.exists() else 0) != size:
            size, grew = found, time.monotonic()
        if time.monotonic() > end:
            raise RuntimeError(f"{path}: still grows, or never began to ({size} bytes)")
        time.sleep(0.002)
    return grew


# After which a file that does not grow is whole.
REST_S = 3
# Bytes in a line, and how many the worker writes at once: each by itself, or as much as a pipe holds.
LINE, AT_ONCE = 100, {"each by itself": 1, "64 KB at once": 655}
# The end of each.
LAST_WORDS = b"day by day"
# The keys of both systems.
FORMS = {"raw": {}, "with a time": {"log_date_format": "YYYY-MM-DD HH:mm:ss.SSS"}, "JSON": {"log_type": "json"}}


def lines(systems, options):
    """A worker that prints as fast as it is read, into a log file."""
    rows = [row for how, at_once in AT_ONCE.items() for form in FORMS
            for row in lines_written(systems, options, how, at_once, form)]
    return table(f"{options.lines // 1000} thousand lines of {LINE} bytes from one worker into a file",
                 ["written", "form", "system", "lines per ms", "that is … times PM2's",
                  "supervisor's CPU ns per line", "PM2's is … times that", "lines lost or torn"], rows)


def lines_written(systems, options, how, at_once, form):
    seen = {system.name: [] for system in systems}
    for _ in range(options.rounds):
        for system in systems:
            tellers, out = Tellers(), BUILD / "lines.log"
            out.unlink(missing_ok=True)
            running = system(options, tellers)
            try:
                running.start_lines(options.lines, at_once, out, **FORMS[form])
                teller, pid = tellers.accept(), running.supervisor()
                time.sleep(1)
                spent, begun = cpu_ms(pid), time.monotonic()
                teller.sendall(b"x")
                took = await_rest(out) - begun
                spent = cpu_ms(pid) - spent
                # PM2 puts as many lines into one object of JSON as it read at once, the last of which may be a part.
                found = re.finditer(rb"([0-9]{10}) the quick [ -~]{68}" + LAST_WORDS, out.read_bytes())
                numbers = [-1, *(int(line[1]) for line in found)]
                right = sum(before < number for before, number in zip(numbers, numbers[1:]))
                seen[system.name].append({"rate": options.lines / took / 1e3, "cpu": spent * 1e6 / options.lines,
                                          "lost": options.lines - right})
            finally:
                running.close()
                tellers.close()
    rows = []
    for name, runs in seen.items():
        pick = lambda key: {system: [run[key] for run in runs] for system, runs in seen.items()}
        slower = {system: [1 / rate for rate in rates] for system, rates in pick("rate").items()}
        rows.append([how, form, name, f"{median(pick('rate')[name]):.0f}", of_pm2(slower, name, 1),
                     f"{median(pick('cpu')[name]):.0f}", of_pm2(pick("cpu"), name, 1),
                     sum(pick("lost")[name])])
    return rows


def stalled(systems, options):
    """What a supervisor takes while its worker prints and whoever follows the lines does not read them."""
    rows = []
    for system in systems:
        tellers, out = Tellers(), BUILD / "lines.log"
        out.unlink(missing_ok=True)
        running = system(options, tellers)
        try:
            running.start_lines(options.stalled_lines, 655, out)
            teller, pid = tellers.accept(), running.supervisor()
            argv, environment = running.verb("logs", "lines")
            reader = spawn(argv, env=environment, stdout=subprocess.PIPE)  # which nobody reads
            time.sleep(1)
            size, sizes, ends = options.stalled_lines * LINE, [], time.monotonic() + 600
            teller.sendall(b"x")
            while (there := out.stat().st_size if out.exists() else 0) < size:
                if time.monotonic() > ends:
                    raise RuntimeError(f"{out}: {there} of {size} bytes")
                sizes.append((there / size, status_kib(pid, "status", "RssAnon")))
                time.sleep(0.01)
            sizes.append((1, status_kib(pid, "status", "RssAnon")))
            if reader.poll() is not None:
                raise RuntimeError("the stalled reader has ended")
            early = max(kib for share, kib in sizes if share <= max(0.1, sizes[0][0]))
            rows.append([system.name, options.stalled_lines, early, max(kib for _, kib in sizes), sizes[-1][1]])
        finally:
            running.close()
            tellers.close()
            out.unlink(missing_ok=True)
    return table("Supervisor's memory while a reader of `logs` stands still, KB (anonymous)",
                 ["system", "lines", "largest in the first tenth", "largest", "at the end"], rows)


def status_kib(pid, file, field):
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise RuntimeError(f"{field} of {pid}")


def cpu_ms(pid):
    """Time on a CPU, over all threads, in ms: schedstat counts in ns, stat only in ticks."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


def idle(systems, options):
    """What the supervising process costs while 4 workers idle."""
    rows, running = [], []
    systems = [system for system in systems if hasattr(system, "supervisor")]
    try:
        for system in systems:
            running.append(system(free_port(), 4, options))
        time.sleep(5)  # past start-up work
        rss, pss, cpu = ({one.name: [] for one in running} for _ in range(3))
        for _ in range(options.rounds):
            before = [cpu_ms(one.supervisor()) for one in running]
            time.sleep(options.idle / options.rounds)
            for one, begun in zip(running, before):
                pid = one.supervisor()
                cpu[one.name].append((cpu_ms(pid) - begun) * 60 * options.rounds / options.idle)
                rss[one.name].append(status_kib(pid, "status", "VmRSS") / 1024)
                pss[one.name].append(status_kib(pid, "smaps_rollup", "Pss:") / 1024)
        for name in rss:
            rows.append([name, f"{median(rss[name]):.1f}", of_pm2(rss, name), f"{median(pss[name]):.1f}",
                         f"{median(cpu[name]):.1f}", of_pm2(cpu, name)])
    finally:
        for one in running:
            one.close()
    return table(f"Supervisor with 4 idle workers ({options.idle} s in {options.rounds} rounds)",
                 ["system", "RSS MB", "PM2's is … times that", "PSS MB", "CPU ms per minute",
                  "PM2's is … times that"], rows)


def call_ms(argv, environment):
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    begun = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, environment, file_actions=null)
    status = os.waitpid(pid, 0)[1]
    took = (time.perf_counter() - begun) * 1e3
    if status != 0:
        raise RuntimeError(f"{argv}: status {status}")
    return took


def listing(systems, options):
    rows, running = [], []
    try:
        for system in [system for system in systems if hasattr(system, "list_command")]:
            running.append(system(free_port(), 4, options))
        commands = [(one.name, *one.list_command()) for one in running]
        commands.append(("`true`, for scale", ["true"], clean_environment()))
        times = {name: [] for name, _, _ in commands}
        for _ in range(options.rounds * 4):
            for name, argv, environment in commands:
                times[name].append(call_ms(argv, environment))
        rows = [[name, f"{median(values):.1f}", of_pm2(times, name)] for name, values in times.items()]
    finally:
        for one in running:
            one.close()
    return table(f"`list` with 4 workers, process start to exit ({options.rounds * 4} calls each)",
                 ["system", "ms", "PM2's is … times that"], rows)


def until_served(port, not_by, begun):
    """Milliseconds until another process than `not_by` has answered. A probe may hang in a dead worker's
    queue for as long as its supervisor lets it: so a new one sets out every 5 ms."""
    answers = queue.SimpleQueue()

    def probe():
        if (pid := ask(port)) not in (None, not_by):
            answers.put(time.monotonic())

    while time.monotonic() < begun + 30:
        threading.Thread(target=probe, daemon=True).start()
        try:
            return (answers.get(timeout=0.005) - begun) * 1e3
        except queue.Empty:
            pass
    raise RuntimeError("no new worker within 30 s")


def own_boot(options):
    port, begun = free_port(), time.monotonic()
    process = spawn(["node", SERVER], env=clean_environment(PORT=port))
    try:
        return until_served(port, None, begun)
    finally:
        end(process)


def replacement(systems, options):
    """kill -9 of the only worker, until its replacement has answered a request."""
    times, running = {"the server's own boot": []}, []
    try:
        for system in [s for s in systems if hasattr(s, "supervisor") and s is not NodeDisconnect]:
            running.append(system(free_port(), 1, options))
            times[system.name] = []
        time.sleep(2)  # past the shortest uptime, after which a crash is replaced at once
        for _ in range(options.rounds):
            times["the server's own boot"].append(own_boot(options))
            for one in running:
                old, begun = ask(one.port), time.monotonic()
                os.kill(old, signal.SIGKILL)
                times[one.name].append(until_served(one.port, old, begun))
            time.sleep(2)
    finally:
        for one in running:
            one.close()
    boot = median(times["the server's own boot"])
    rows = [[name, f"{median(values):.0f}", f"{median(values) - boot:+.0f}"] for name, values in times.items()]
    return table("kill -9 of a worker to its replacement serving", ["system", "ms", "beyond own boot"], rows)


def install():
    BUILD.mkdir(parents=True, exist_ok=True)
    for old in BUILD.glob("*-tiny-*"):
        shutil.rmtree(old, ignore_errors=True)
    (BUILD / "package.json").write_text(json.dumps({"private": True, "dependencies": {"pm2": PM2_VERSION}}))
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=BUILD, check=True)


def machine():
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return (f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release().split('-')[0]}, "
            f"Node {node.lstrip('v')}, PM2 {PM2_VERSION}, {time.strftime('%Y-%m-%d')}.")


def write(text):
    file = ROOT / "BENCHMARKS.md"
    old = file.read_text()
    begin, finish = "<!-- results -->\n", "<!-- end of results -->"
    before, rest = old.split(begin)
    file.write_text(before + begin + text + finish + rest.split(finish)[1])


SYSTEMS = {"clusterd": Clusterd, "pm2": Pm2, "cluster": NodeCluster, "disconnect": NodeDisconnect,
           "stop-start": StopStart, "bare": Bare, "shared": SharedQueue,
           "tiny-clusterd": TinyClusterd, "tiny-pm2": TinyPm2}
PARTS = {"reload": (reloads, ["clusterd", "pm2", "cluster", "disconnect", "stop-start"]),
         "throughput": (throughput, ["bare", "clusterd", "pm2", "cluster"]),
         "balance": (balance, ["clusterd", "bare", "cluster", "shared"]),
         "many": (many, ["tiny-clusterd", "tiny-pm2"]),
         "operations": (operations, ["tiny-clusterd", "tiny-pm2"]),
         "lines": (lines, ["tiny-clusterd", "tiny-pm2"]),
         "stalled": (stalled, ["tiny-clusterd"]),
         "idle": (idle, ["clusterd", "pm2", "cluster"]),
         "list": (listing, ["clusterd", "pm2"]),
         "replacement": (replacement, ["clusterd", "pm2", "cluster"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clusterd", type=absolute, help="the release binary; without it only the peers are measured")
    parser.add_argument("--load", type=absolute, required=True, help="the load generator (examples/load.rs)")
    parser.add_argument("--tiny", type=absolute, required=True, help="the tiny program (examples/tiny.rs)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8, help="of one throughput measurement, each with new connections")
    parser.add_argument("--idle", type=int, default=60, help="seconds of the idle measurement")
    parser.add_argument("--instances", type=int, nargs="+", default=[100, 1000], help="of the operations part")
    parser.add_argument("--lines", type=int, default=1_000_000, help="of each measurement of the lines part")
    parser.add_argument("--stalled-lines", type=int, default=10_000_000, help="beside a reader that stands still")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part (may be repeated)")
    parser.add_argument("--write", action="store_true", help="put the tables into BENCHMARKS.md")
    options = parser.parse_args()
    install()
    texts = [machine() + "\n"]
    try:
        for part in options.part or PARTS:
            measure, names = PARTS[part]
            systems = [SYSTEMS[name] for name in names if "clusterd" not in name or options.clusterd]
            print(f"bench: {part} …", file=sys.stderr, flush=True)
            texts.append(measure(systems, options))
    finally:
        for process in STARTED:
            if process.poll() is None:
                end(process)
    text = "\n".join(texts)
    print(text)
    if options.write:
        write(text)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
main()

#!/usr/bin/env python3
"""Workers of one supervisor against replicas of one worker each behind nginx: the table of docs/scaling-out.md.

    make build && cargo build --release --locked --example load
    python3 benches/replicas.py --clusterd CLUSTERD --load LOAD

It needs node and nginx, and takes two minutes. Everything listens on loopback addresses, and all of it shares the cores
with the load generator: compare rows, not machines.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

SERVER = pathlib.Path(__file__).resolve().parent / "server.js"
WORKERS = 4
CLIENTS = 8
# The load generator's clients have a loopback address each.
ADDRESSES = [f"127.0.0.{number}" for number in range(1, CLIENTS + 1)]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, seconds=30):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise TimeoutError("not ready in time")
        time.sleep(0.02)


class Supervisor:
    def __init__(self, program, folder, workers):
        self.program, self.port = program, free_port()
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=folder))
        self.file = self.folder / "ecosystem.toml"
        self.file.write_text(
            f'[daemon]\nshutdown_timeout = "30s"\n[[apps]]\nname = "api"\nscript = "{SERVER}"\n'
            f'instances = {workers}\ndrain_timeout = "20s"\nenv = {{ PORT = "{self.port}" }}\n'
        )
        self.env = dict(os.environ, CLUSTERD_HOME=str(self.folder / "home"))
        self.start()

    def verb(self, *words):
        return subprocess.run([self.program, *words], env=self.env, **QUIET).returncode == 0

    def start(self):
        words = [self.program, str(self.file), "--no-log-files"]
        self.process = subprocess.Popen(words, env=self.env, **QUIET)
        wait_for(lambda: self.verb("ping", "--ready"))

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def memory(self):
        return sum(proportional(pid) for pid in tree(self.process.pid))


def tree(pid):
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def proportional(pid):
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


class Nginx:
    def __init__(self, folder, supervisors):
        self.folder, self.port = pathlib.Path(tempfile.mkdtemp(dir=folder)), free_port()
        self.folder.chmod(0o755)
        servers = "".join(f"server 127.0.0.1:{one.port} max_fails=0;" for one in supervisors)
        listens = "".join(f"listen {address}:{self.port};" for address in ADDRESSES)
        kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        temporary = "".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds)
        (self.folder / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/error crit;\n"
            f"events {{ worker_connections 1024; }}\nhttp {{ access_log off; {temporary}\n"
            f"upstream api {{ {servers} keepalive 64; }}\nserver {{ {listens} location / {{\n"
            "proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection \"\";\n"
            "proxy_set_header Host $host; proxy_next_upstream error timeout; } } }\n"
        )
        words = ["nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        self.process = subprocess.Popen(words, **QUIET)
        wait_for(self.answers)

    def answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def memory(self):
        return sum(proportional(pid) for pid in tree(self.process.pid))


def load_words(program, port, path):
    return [program, "--port", str(port), "--clients", str(CLIENTS), "--path", path]


def loaded(program, port, path, seconds):
    words = load_words(program, port, path) + ["--keep-alive", "--seconds", str(seconds)]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def during(program, port, work):
    """The counts of one request per connection while `work` is done, and how long that took."""
    words = load_words(program, port, "/?ms=50")
    clients = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    begun = time.monotonic()
    work()
    took = time.monotonic() - begun
    time.sleep(1)
    counts = json.loads(clients.communicate()[0])
    return f"{counts['lost']} / {counts['requests']}", f"{took:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clusterd", required=True)
    parser.add_argument("--load", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    folder = tempfile.mkdtemp()
    one, many, proxies = None, [], []
    try:
        one = Supervisor(given.clusterd, folder, WORKERS)
        for _ in range(WORKERS):
            many.append(Supervisor(given.clusterd, folder, 1))
        proxies.append(Nginx(folder, [one]))
        proxies.append(Nginx(folder, many))

        def roll():
            for replica in many:
                replica.stop()
                replica.start()

        def reload():
            assert one.verb("reload", "api")

        systems = [
            ("one supervisor, 4 workers", one.port, reload, [one]),
            ("the same behind nginx", proxies[0].port, reload, [one, proxies[0]]),
            ("4 replicas of 1 worker behind nginx", proxies[1].port, roll, [*many, proxies[1]]),
        ]
        paths = ["/", "/?cpu=2"]
        memory = {name: sum(part.memory() for part in parts) / 1024 for name, _, _, parts in systems}
        results = {(name, path): [] for name, *_ in systems for path in paths}
        for _ in range(given.rounds):
            for path in paths:
                for name, port, *_ in systems:
                    counts = loaded(given.load, port, path, 3)
                    assert counts["lost"] == 0, (name, counts)
                    results[name, path].append((counts["per_second"], counts["p99_us"] / 1000))
        print("| system | requests/s, empty handler | requests/s, 2 ms of work | p99 of that, ms | memory MB "
              "| failed / requests over a new version | s |")
        print("|---|---|---|---|---|---|---|")
        for name, port, renew, _ in systems:
            empty, work = ([statistics.median(column) for column in zip(*results[name, path])] for path in paths)
            failed, took = during(given.load, port, renew)
            print(f"| {name} | {empty[0]:.0f} | {work[0]:.0f} | {work[1]:.0f} | {memory[name]:.0f} | {failed} | {took} |")
    finally:
        for part in [*proxies, *many, *([one] if one else [])]:
            part.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

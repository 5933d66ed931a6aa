"""Lab: one cluster on one machine. Start here; README.md shows how."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from . import etcd, net, proc
from .node import Node

RUN_DIR = "/run/dragent-lab"
LABS_MAX = 8
ETCD_HOSTS = {"etcd1": 11, "etcd2": 12, "etcd3": 13}
CLIENT = "client"
PG_BIN = "/usr/lib/postgresql/15/bin"
PROGRAMS = ("dragent", "dragentctl", "dragent-guard", "dra_writer")


class LabError(Exception):
    """Something did not happen; the text says what, and what was seen last."""


def boottime():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lab:
    """Use as a context manager: what it starts ends with it, whatever happens.

    bin_dir: where the built programs are; they are copied, so that user postgres can run them.
    agent: "dragent" or "patroni" (Debian's package, as a peer to compare with).
    """

    def __init__(self, bin_dir, agent="dragent", scope="demo", nodes=3, ttl=5, loop_wait=1,
                 retry_timeout=2, base="/var/tmp", say=None):
        if os.geteuid() != 0:
            raise LabError("network namespaces need root: run this as root")
        if agent == "patroni":
            ttl, loop_wait, retry_timeout = max(ttl, 20), max(loop_wait, 1), max(retry_timeout, 3)
        self.source_bin, self.agent, self.scope = bin_dir, agent, scope
        self.ttl, self.loop_wait, self.retry_timeout = ttl, loop_wait, retry_timeout
        self.pg_bin = PG_BIN
        self.say = say or (lambda text: None)
        self._node_names = [f"node{i}" for i in range(1, nodes + 1)]
        self._base = base
        self._exits, self._exit_changed = {}, threading.Condition()
        self._answers, self._next_id = {}, 0
        self.nodes, self.etcd = [], []
        self.keep = False
        self._sock = None
        self._own_netns = None

    # ---- life ----------------------------------------------------------------------------

    def __enter__(self):
        lock = self._take_number()
        try:
            net.remove(self.net.prefix)
            self._remove_old_directory()
            self.dir = f"{self._base}/dragent-lab-{self.net.number}-{os.getpid()}"
            os.makedirs(f"{self.dir}/bin")
            os.makedirs(f"{self.dir}/log")
            os.chmod(self.dir, 0o755)
            with open(self._note_path(), "w", encoding="utf-8") as f:
                f.write(self.dir)
            self._start_supervisor(lock)
        finally:
            os.close(lock)
        try:
            self._install()
            self._build_net()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def _take_number(self):
        os.makedirs(RUN_DIR, mode=0o755, exist_ok=True)
        for number in range(LABS_MAX):
            lock = os.open(f"{RUN_DIR}/{number}.lock", os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self.net = net.Net(number)
            return lock
        raise LabError(f"{LABS_MAX} labs are running on this machine already")

    def _note_path(self):
        return f"{RUN_DIR}/{self.net.number}.dir"

    def _remove_old_directory(self):
        """What a run left that was killed together with its supervisor."""
        try:
            with open(self._note_path(), encoding="utf-8") as f:
                old = f.read().strip()
        except FileNotFoundError:
            return
        if os.path.basename(old).startswith(f"dragent-lab-{self.net.number}-"):
            shutil.rmtree(old, ignore_errors=True)

    def _start_supervisor(self, lock):
        ours, theirs = socket.socketpair()
        argv = [sys.executable, "-m", "lab.supervisor", str(theirs.fileno()), str(lock),
                self.net.prefix, self.dir, str(os.getpid())]
        env = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(__file__)),
                   PYTHONDONTWRITEBYTECODE="1")
        with open(f"{self.dir}/log/supervisor.log", "wb") as log:
            self._supervisor = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log,
                                                stderr=log, env=env, start_new_session=True,
                                                pass_fds=(theirs.fileno(), lock))
        theirs.close()
        self._sock = ours
        threading.Thread(target=self._listen, daemon=True).start()

    def _install(self):
        for name in PROGRAMS:
            source = os.path.join(self.source_bin, name)
            if os.path.exists(source):
                shutil.copy(source, f"{self.dir}/bin/{name}")
                os.chmod(f"{self.dir}/bin/{name}", 0o755)
            elif name == "dra_writer" or self.agent == "dragent":
                raise LabError(f"{source} does not exist: build first")

    def _build_net(self):
        hosts = dict(ETCD_HOSTS)
        hosts.update({name: 21 + i for i, name in enumerate(self._node_names)})
        hosts[CLIENT] = 5
        self.net.build(hosts)
        self._own_netns = os.open("/proc/self/ns/net", os.O_RDONLY)
        fd = os.open(self.net.path(CLIENT), os.O_RDONLY)
        proc.set_netns(fd)  # from here on this program is a client of the cluster
        os.close(fd)
        self.etcd = [etcd.Member(self, name) for name in ETCD_HOSTS]
        self.nodes = [Node(self, name) for name in self._node_names]
        for node in self.nodes:
            self._write_helpers(node)

    def _write_helpers(self, node):
        """Small scripts for a person: DIR/sql-node1, DIR/ctl."""
        enter = " ".join(self.net.inside(CLIENT, []))
        self._script(f"sql-{node.name}", f"PGPASSWORD=super-secret exec {enter} psql "
                                         f"-h {node.address} -U postgres postgres \"$@\"")
        if node is self.nodes[0]:
            self._script("ctl", f"exec {enter} {self.ctl_program()} -c {node.config} \"$@\"")
            self._script("curl", f"exec {enter} curl \"$@\"")

    def _script(self, name, line):
        path = f"{self.dir}/{name}"
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"#!/bin/sh\n{line}\n")
        os.chmod(path, 0o755)

    def close(self):
        """End everything. Safe to call twice."""
        if self._sock is None:
            return
        try:
            self._sock.sendall((json.dumps({"keep": self.keep}) + "\n").encode())
        except OSError:
            pass
        self._sock.shutdown(socket.SHUT_WR)
        self._sock = None
        if self._own_netns is not None:
            proc.set_netns(self._own_netns)
            os.close(self._own_netns)
            self._own_netns = None
        try:
            self._supervisor.wait(30)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
            net.remove(self.net.prefix)
        if not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    # ---- programs in hosts ---------------------------------------------------------------

    def _listen(self):
        sock = self._sock
        with sock.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                with self._exit_changed:
                    if "exit" in message:
                        self._exits[message["exit"]] = message["status"]
                    else:
                        self._answers[message["id"]] = message
                    self._exit_changed.notify_all()

    def start_on(self, host, user, argv, log=None, cwd="/", env=None):
        """Start a program on a host as a user; returns its pid, which stays through the execs."""
        full = self.net.inside(host, ["setpriv", "--reuid", user, "--regid", user, "--init-groups",
                                      "--"] + argv)
        clean = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                 "LANG": "C.UTF-8", "HOME": "/nonexistent"}
        clean.update(env or {})
        with self._exit_changed:
            self._next_id += 1
            order = {"start": full, "id": self._next_id, "cwd": cwd, "env": clean,
                     "log": log or f"{self.dir}/log/{host}.log"}
            self._sock.sendall((json.dumps(order) + "\n").encode())
            if not self._exit_changed.wait_for(lambda: order["id"] in self._answers, 10):
                raise LabError(f"the lab's supervisor does not answer (starting {argv[0]})")
            answer = self._answers.pop(order["id"])
            if "error" in answer:
                raise LabError(f"cannot start {argv[0]} on {host}: {answer['error']}")
            return answer["started"]

    def is_running(self, pid):
        with self._exit_changed:
            return pid not in self._exits

    def signal_child(self, pid, sig):
        if pid is None or not self.is_running(pid) or not proc.send(pid, sig):
            raise LabError(f"process {pid} is gone already")

    def wait_exit(self, pid, timeout):
        """Exit status as in subprocess; LabError when it does not end in time."""
        with self._exit_changed:
            if not self._exit_changed.wait_for(lambda: pid in self._exits, timeout):
                raise LabError(f"process {pid} did not end within {timeout} s")
            return self._exits[pid]

    # ---- the cluster ---------------------------------------------------------------------

    def agent_argv(self, config):
        if self.agent == "patroni":
            return ["patroni", config]
        return [f"{self.dir}/bin/dragent", config]

    def ctl_program(self):
        own = "patronictl" if self.agent == "patroni" else "dragentctl"
        name = os.environ.get("LAB_CTL", own)  # each may steer the other's agents
        return f"{self.dir}/bin/{name}" if name == "dragentctl" else name

    def ctl(self, *args, node=None, timeout=60, stdin=None):
        """Run dragentctl as a client; returns the finished process."""
        node = node or self.nodes[0]
        argv = [self.ctl_program(), "-c", node.config, *args]
        return subprocess.run(argv, input=stdin if stdin is not None else "", text=True,
                              timeout=timeout, check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE,
                              env=dict(os.environ, LC_ALL="C.UTF-8", LANG="C.UTF-8"))

    def table(self):
        return self.ctl("list").stdout.rstrip()

    def start_etcd(self):
        for member in self.etcd:
            member.start()
        self.wait_for("etcd answers on all three members", 30,
                      lambda: all(m.is_healthy() for m in self.etcd))

    def start_nodes(self):
        for node in self.nodes:
            node.start()

    def keys(self):
        """The cluster's keys in etcd, or None when etcd does not answer."""
        return etcd.read_prefix(self.etcd, f"/service/{self.scope}/")

    def leader(self):
        """The node that holds the leader key, or None."""
        name = (self.keys() or {}).get("leader")
        return next((n for n in self.nodes if n.name == name), None)

    def primary(self):
        """The leader, if it takes writes."""
        node = self.leader()
        return node if node and node.is_writable() else None

    def node(self, name):
        return next(n for n in self.nodes if n.name == name)

    def others(self, node):
        return [n for n in self.nodes if n is not node]

    def is_healthy(self):
        """A writable leader, and every other node streams from it."""
        primary = self.primary()
        return bool(primary and all(n.streams_from(primary) for n in self.others(primary)))

    def is_shown_healthy(self):
        """The running agents have published that they run, all on one timeline."""
        keys = self.keys() or {}
        seen = []
        for node in (n for n in self.nodes if n.is_agent_alive()):
            member = json.loads(keys.get(f"members/{node.name}", "{}"))
            seen.append((member.get("state") in ("running", "streaming"), member.get("timeline")))
        return bool(seen) and all(ok for ok, _ in seen) and len({tl for _, tl in seen}) == 1

    def wait_healthy(self, timeout=60):
        self.wait_for("one writable leader, every other node streaming from it", timeout,
                      self.is_healthy, self.describe, interval=0.1)
        return self.leader()

    def wait_for(self, what, timeout, condition, describe=None, interval=0.05):
        """Value of condition() once it is true; LabError, saying what was awaited, if it never is."""
        end = boottime() + timeout
        while True:
            value = condition()
            if value:
                return value
            if boottime() > end:
                seen = f"; seen last:\n{describe()}" if describe else ""
                raise LabError(f"waited {timeout} s in vain for: {what}{seen}")
            time.sleep(interval)

    def describe(self):
        """What a person wants to see when a wait failed."""
        keys = self.keys()
        lines = ["etcd does not answer"] if keys is None else \
            [f"  {k} = {v[:240]}" for k, v in sorted(keys.items()) if k not in ("config", "history")]
        for node in self.nodes:
            lines.append(f"  {node.name}: agent {'running' if node.is_agent_alive() else 'gone'}"
                         f"{' (frozen)' if node.is_frozen else ''}, "
                         f"postmaster {node.postmaster()}, last words: {self.last_words(node)}")
        return "\n".join(lines)

    @staticmethod
    def last_words(node):
        try:
            with open(node.log, encoding="utf-8", errors="replace") as f:
                return f.read()[-400:].strip().rpartition("\n")[2]
        except FileNotFoundError:
            return ""


def end_on_signals():
    """SIGTERM and SIGHUP end the program as Ctrl-C does, so that __exit__ runs."""
    def stop(number, _frame):
        raise KeyboardInterrupt(signal.Signals(number).name)
    for sig in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(sig, stop)

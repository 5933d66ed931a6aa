"""The story that deploy/demo tells. Every number comes from the client's log."""

import argparse
import os
import re
import signal
import sys
import threading
import time

from . import clients
from .cluster import Lab, LabError, boottime, end_on_signals

QUIET_MAX_S = 4


class Story:
    """Prints sentences, and a sign of life when there has been none for a while."""

    def __init__(self):
        self.began = boottime()
        self._spoke = self.began
        self._waiting_for, self._since = "", self.began
        self._lock = threading.Lock()
        threading.Thread(target=self._tick, daemon=True).start()

    def say(self, text):
        with self._lock:
            self._spoke = boottime()
            print(f"[{self._spoke - self.began:6.1f} s] {text}", flush=True)

    def show(self, text):
        with self._lock:
            self._spoke = boottime()
            print("\n".join("    " + line for line in text.splitlines()) + "\n", flush=True)

    def title(self, text):
        with self._lock:
            self._spoke = boottime()
            print(f"\n=== {text}", flush=True)

    def wait(self, what):
        """What the following quiet time is for; "" for none."""
        with self._lock:
            self._waiting_for, self._since = what, boottime()

    def _tick(self):
        while True:
            time.sleep(0.5)
            with self._lock:
                now = boottime()
                if self._waiting_for and now - self._spoke > QUIET_MAX_S:
                    self._spoke = now
                    print(f"[{now - self.began:6.1f} s]    ... {now - self._since:.0f} s: still "
                          f"{self._waiting_for}", flush=True)


class Demo:
    def __init__(self, lab, story):
        self.lab, self.story = lab, story
        self.events = []  # [name, begin, longest time without writes]
        self.writer = None
        self.problems = []

    def wait(self, what, timeout, condition):
        self.story.wait(f"waiting: {what}")
        try:
            return self.lab.wait_for(what, timeout, condition, self.lab.describe)
        finally:
            self.story.wait("")

    def table(self):
        """Shown once the agents, too, have written what the clients know already."""
        try:
            self.lab.wait_for("", self.lab.loop_wait + 2, self.lab.is_shown_healthy)
        except LabError:
            pass  # the table then shows what is not well yet
        self.story.show(self.lab.table())

    def check(self, is_true, text):
        if not is_true:
            self.problems.append(text)
            self.story.say(f"NOT AS IT SHOULD BE: {text}")

    # ---- the steps -----------------------------------------------------------------------

    def bootstrap(self):
        lab, say = self.lab, self.story.say
        self.story.title("1. A cluster comes to life")
        say("Three etcd members start, each with an address of its own: "
            + ", ".join(m.address for m in lab.etcd) + ".")
        self.story.wait("waiting: etcd elects its leader")
        lab.start_etcd()
        self.story.wait("")
        say("Three nodes start, each with an address, PostgreSQL and an agent: "
            + ", ".join(f"{n.name} {n.address}" for n in lab.nodes) + ".")
        began = boottime()
        lab.start_nodes()
        primary = self.wait("one node wins the race, runs initdb and takes writes", 60, lab.primary)
        say(f"{primary.name} won the race, ran initdb and takes writes after {boottime() - began:.1f} s.")
        self.wait("the two others copy it and stream", 60, lab.is_healthy)
        say(f"The two others copied it with pg_basebackup and stream from it after "
            f"{boottime() - began:.1f} s.")
        copies = [n.name for n in lab.others(primary) if how_it_was_made(n) == "pg_basebackup"]
        self.check(len(copies) == 2, f"two base backups were expected, made: {copies}")
        self.table()
        clients.create_table(primary)
        self.writer = clients.Writer(lab, 1, lab.nodes, rate=100)
        self.wait("the client's first row", 10, lambda: self.writer.has_ack_after(0))
        say("A client commits 100 numbered rows a second from now on and writes down each one "
            "that was acknowledged.")
        self.settle()

    def settle(self, seconds=2):
        """Some quiet traffic between events."""
        until = boottime() + seconds
        self.wait("some quiet traffic", seconds + 30,
                  lambda: boottime() > until and self.writer.has_ack_after(boottime() - 0.5))

    def begin(self, name):
        self.events.append([name, boottime(), None])
        return self.events[-1][1]

    def gap(self):
        """Outage of the last event, as the client saw it."""
        _, begin, _ = self.events[-1]
        self.events[-1][2] = clients.outage(self.writer.rows(), begin) or 0
        return self.events[-1][2]

    def writes_again(self, timeout, since, timeline_over=None):
        def is_again():
            rows = [r for r in self.writer.rows() if r.sent / clients.NS > since]
            return rows and (timeline_over is None or rows[-1].timeline > timeline_over)
        self.wait("the client's rows are acknowledged again", timeout, is_again)

    def crash(self):
        lab, say = self.lab, self.story.say
        self.story.title("2. The primary's postmaster is killed (SIGKILL)")
        primary = lab.leader()
        since = self.begin("postmaster killed")
        pid, _ = primary.kill_postmaster()
        say(f"SIGKILL to PostgreSQL of {primary.name} (pid {pid}).")
        self.wait("that postmaster is gone", 10, lambda: (primary.postmaster() or (0,))[0] != pid)
        self.writes_again(60, boottime())
        after = self.wait("a writable leader", 60, lab.primary)
        place = "in place" if after is primary else f"on {after.name}"
        say(f"Writable again {place}: the client waited {self.gap():.2f} s.")
        self.wait("all nodes stream again", 60, lab.is_healthy)
        self.check(self.writer.has_ack_after(since), "the client came back")
        self.table()
        self.settle()

    def death(self):
        lab, say = self.lab, self.story.say
        self.story.title("3. A whole node dies: agent, PostgreSQL and its network at once")
        primary = lab.leader()
        timeline = self.writer.rows()[-1].timeline
        self.begin("node died")
        primary.die()
        say(f"{primary.name}, the leader, is dead. Its lease (ttl {lab.ttl} s) must end before "
            "another may lead.")
        self.writes_again(lab.ttl * 3 + 30, boottime(), timeline)
        after = self.wait("a writable leader", 60, lab.primary)
        say(f"{after.name} leads now: the client waited {self.gap():.2f} s.")
        self.check(after is not primary, "another node took over")
        rest = [n for n in lab.others(after) if n is not primary]
        self.wait("the other replica follows the new leader", 60,
                  lambda: all(n.streams_from(after) for n in rest))
        self.table()
        self.settle()
        return primary

    def rejoin(self, dead):
        lab, say = self.lab, self.story.say
        self.story.title("4. The dead node comes back")
        leader = lab.leader()
        made_before = made_at(dead)
        began = boottime()
        dead.come_back()
        say(f"{dead.name} has power and network again; it was the old primary.")
        self.wait(f"{dead.name} streams from {leader.name}", 90, lambda: dead.streams_from(leader))
        how = how_it_was_made(dead) if made_at(dead) != made_before else "streaming alone"
        words = {"pg_rewind": "pg_rewind brought it into line", "pg_basebackup": "by a new copy"}
        say(f"It streams from {leader.name} after {boottime() - began:.1f} s "
            f"({words.get(how, 'nothing had to be undone')}).")
        self.table()
        self.settle()

    def switchover(self):
        lab, say = self.lab, self.story.say
        self.story.title("5. A planned switchover")
        leader = lab.leader()
        candidate = lab.others(leader)[-1]
        timeline = self.writer.rows()[-1].timeline
        argv = ["switchover", "--force", "--candidate", candidate.name]
        say(f"$ {os.path.basename(lab.ctl_program())} -c {leader.config} {' '.join(argv)}")
        self.begin("switchover")
        self.story.wait("waiting: the switchover")
        done = lab.ctl(*argv)
        self.story.wait("")
        for line in done.stdout.splitlines():
            if re.search(r"switch|fail", line, re.I):
                say(f"It says: {line.strip()}")
        self.check(done.returncode == 0, f"switchover: exit status {done.returncode}: {done.stderr}")
        self.writes_again(60, boottime(), timeline)
        after = self.wait("a writable leader", 30, lab.primary)
        self.check(after is candidate, f"{candidate.name} was to lead, {after.name} does")
        say(f"{after.name} leads: the client waited {self.gap():.2f} s.")
        self.wait("all nodes stream again", 90, lab.is_healthy)
        self.table()
        self.settle(1)

    def count(self):
        lab, say = self.lab, self.story.say
        self.story.title("6. The count")
        self.writer.stop()
        leader = lab.leader()
        verdict = clients.judge([self.writer], leader)
        say(f"{len(verdict.acked)} rows were acknowledged, "
            f"{len(verdict.acked) - len(verdict.lost)} of them are in the table on {leader.name}, "
            f"{len(verdict.lost)} are lost. {len(verdict.unknown)} attempts got no answer (either way is right).")
        lines = [f"{name:<18} {seconds:7.2f} s without writes" for name, _, seconds in self.events]
        self.story.show("\n".join(lines))
        self.check(not verdict.lost, f"lost rows: {[r.n for r in verdict.lost[:10]]}")
        for sentence in verdict.violations:
            self.check(False, sentence)
        if not verdict.violations:
            say("At no time did two servers acknowledge rows.")

    # ---- after the story -----------------------------------------------------------------

    def stay(self):
        lab = self.lab
        leader = lab.leader() or lab.nodes[0]
        shell = f"{lab.dir}/sql-{leader.name}"
        lines = ["The cluster stays up until Ctrl-C. In another terminal, as root:", "",
                 f"  {lab.dir}/ctl list", f"      what {os.path.basename(lab.ctl_program())} says; also topology, "
                 "history, switchover, --help",
                 f"  {lab.dir}/sql-{leader.name}", f"      psql on {leader.name}; the others likewise",
                 f"  {lab.dir}/curl -s http://{leader.address}:8008/patroni",
                 f"      the addresses are seen from the client's network: ip netns exec {lab.net.ns('client')} COMMAND", ""]
        for n in lab.nodes:
            lines += [f"  {n.name}: PostgreSQL {n.address}:5432 (postgres / super-secret), "
                      f"REST http://{n.address}:8008,", f"         log {n.log}"]
        lines += ["", "What to try:", f"  {lab.dir}/ctl switchover --force",
                  f"  kill -9 $(head -1 {leader.data}/postmaster.pid)", "      PostgreSQL crashes",
                  f"  kill -STOP {leader.pid}; sleep {2 * lab.ttl}; kill -CONT {leader.pid}",
                  "      the leader's agent freezes",
                  f"  ip -n {lab.net.switch} link set p-{leader.name} down",
                  "      its cable is pulled; 'up' puts it back", "",
                  "The client goes on, 20 rows a second; what happens to it is told here."]
        print("\n" + "\n".join(lines) + "\n", flush=True)
        writer = clients.Writer(lab, 2, lab.nodes, rate=20)
        self._watch(writer)

    def _watch(self, writer):
        """Tell about pauses of a second and more, and about new leaders."""
        seen, host = 0, None
        while True:
            time.sleep(0.5)
            rows = writer.rows()
            for before, row in zip(rows[seen:], rows[seen + 1:]):
                gap = (row.done - before.done) / clients.NS
                if gap > 0.5 or (host and row.host != host):
                    self.story.say(f"no row was acknowledged for {gap:.2f} s; now {row.host} "
                                   f"(timeline {row.timeline}) takes them")
                host = row.host
            seen = max(len(rows) - 1, 0)


def how_it_was_made(node):
    """The tool that last laid the data directory's files: its mark is in backup_label.old."""
    for name in ("backup_label", "backup_label.old"):
        try:
            with open(f"{node.data}/{name}", encoding="utf-8", errors="replace") as f:
                text = f.read()
        except OSError:
            continue
        if "BACKUP METHOD: pg_rewind" in text:
            return "pg_rewind"
        if "BACKUP METHOD: streamed" in text:
            return "pg_basebackup"
    return "initdb"


def made_at(node):
    """Changes whenever a copy or a rewind was made."""
    for name in ("backup_label", "backup_label.old"):
        try:
            st = os.stat(f"{node.data}/{name}")
            return st.st_ino, st.st_mtime_ns
        except OSError:
            continue
    return None


def main():
    parser = argparse.ArgumentParser(prog="deploy/demo")
    parser.add_argument("--bin", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--once", action="store_true", help="end after the story")
    parser.add_argument("--ttl", type=int, default=5, help="ttl of the leader lease, seconds")
    args = parser.parse_args()
    ttl = max(args.ttl, 3)
    end_on_signals()
    story = Story()
    try:
        with Lab(args.bin, agent=os.environ.get("LAB_AGENT", "dragent"), ttl=ttl,
                 loop_wait=max(1, min(10, ttl // 5)), retry_timeout=max(2, min(10, ttl // 3))) as lab:
            demo = Demo(lab, story)
            try:
                demo.bootstrap()
                demo.crash()
                dead = demo.death()
                demo.rejoin(dead)
                demo.switchover()
                demo.count()
            except (LabError, RuntimeError) as e:
                demo.problems.append(str(e))
                story.say(f"FAILED: {e}")
            if not args.once:
                if not demo.problems:
                    demo.stay()
                story.say("Stopping, since a step failed.")
            story.wait("stopping everything")
    except KeyboardInterrupt as e:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(f"\nStopped ({e or 'SIGINT'}); nothing is left behind.", flush=True)
        return 0 if not args.once else 130
    except LabError as e:
        print(f"FAILED: {e}", file=sys.stderr)
        return 1
    story.wait("")
    story.say("FAILED: " + "; ".join(p.splitlines()[0] for p in demo.problems) if demo.problems
              else "Everything is stopped and nothing was lost.")
    return 1 if demo.problems else 0


if __name__ == "__main__":
    sys.exit(main())

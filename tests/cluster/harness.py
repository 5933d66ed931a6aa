"""Cases on real parts: how one is written, run and judged. See README.md."""

import inspect
import os
import shutil
import signal
import sys
import traceback
from collections import namedtuple

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "deploy"))

from lab import clients, proc  # noqa: E402,F401
from lab.cluster import Lab, LabError, boottime  # noqa: E402
from lab.demo import how_it_was_made, made_at  # noqa: E402,F401  (for the cases)

AGENT = os.environ.get("LAB_AGENT", "dragent")
CASES = []
USUAL = (5, 1, 2)


class Budget(Exception):
    """The case took longer than it may."""


class Failed(Exception):
    """A check did not hold."""


class Skip(Exception):
    """The case cannot be tried here."""


Case = namedtuple("Case", "name budget alone timings function")


def case(budget, alone=False, timings=USUAL):
    """A case: budget in seconds; alone: brings up its cluster by itself (lab is given empty).

    timings: ttl, loop_wait, retry_timeout; others than the usual need alone.
    """
    def add(function):
        CASES.append(Case(function.__name__, budget, alone, timings, function))
        return function
    return add


class Trial:
    """What a case works with."""

    _next_client = 1

    def __init__(self, lab):
        self.lab = lab
        self.writers = []   # follow the primary; what was acknowledged to them must not be lost
        self.locals = []    # bound to one server; their rows may die with it
        self.notes = []

    # ---- checks --------------------------------------------------------------------------

    def check(self, is_true, text):
        if not is_true:
            raise Failed(text)

    def note(self, text):
        """Shown behind the case's name."""
        self.notes.append(text)

    def wait(self, what, timeout, condition):
        return self.lab.wait_for(what, timeout, condition, self.lab.describe)

    def wait_log(self, node, text, timeout, offset=0):
        def is_there():
            with open(node.log, encoding="utf-8", errors="replace") as f:
                f.seek(offset)
                return text in f.read()
        self.wait(f"'{text}' in the log of {node.name}", timeout, is_there)

    # ---- clients -------------------------------------------------------------------------

    def write(self, rate=100):
        """A client that follows the primary; returns when its first row is acknowledged."""
        writer = self._writer(self.lab.nodes, "client", rate)
        self.writers.append(writer)
        self.wait("the client's first row", 20, lambda: writer.rows())
        return writer

    def write_locally(self, node, rate=200):
        """A client that runs on the node and talks to no other, so that no partition stops it."""
        writer = self._writer([node], node.name, rate)
        self.locals.append(writer)
        return writer

    def _writer(self, nodes, host, rate):
        writer = clients.Writer(self.lab, Trial._next_client, nodes, host=host, rate=rate)
        Trial._next_client += 1
        return writer

    def traffic(self, seconds):
        """Rows go on being acknowledged for a while."""
        until = boottime() + seconds
        self.wait("rows are acknowledged", seconds + 20,
                  lambda: boottime() > until and self.writers[0].has_ack_after(until - 0.3))

    def writable_again(self, since, timeout=30, on=None, not_on=None):
        """The client's rows are acknowledged again; returns its longest wait since then, in s."""
        def is_again():
            rows = self.writers[0].rows()
            return (rows and rows[-1].sent > since * clients.NS
                    and (on is None or rows[-1].host == on.address)
                    and (not_on is None or rows[-1].host != not_on.address))
        self.wait("the client's rows are acknowledged again", timeout, is_again)
        return self.gap(since)

    def gap(self, since):
        return clients.outage(self.writers[0].rows(), since) or 0.0

    def timeline(self):
        return self.writers[0].rows()[-1].timeline

    # ---- the end -------------------------------------------------------------------------

    def stop_writers(self):
        for writer in self.writers + self.locals:
            writer.stop()

    def verdict(self, may_lose_s=0.0, timeout=60):
        """Stop the clients, wait until all is well, and judge.

        may_lose_s: replication is asynchronous, so that with a primary the rows of its last moments
        may go; anything acknowledged longer than this before its last row must be there.
        """
        primary = self.lab.wait_healthy(timeout)
        self.stop_writers()
        v = clients.judge(self.writers, primary)
        both = clients.interleavings([r for w in self.writers + self.locals for r in w.rows()])
        self.check(not both, "; ".join(both))
        ends = {}
        for r in v.acked:
            ends[r.timeline] = max(ends.get(r.timeline, 0), r.done)
        early = [r for r in v.lost if r.done < ends[r.timeline] - may_lose_s * clients.NS
                 or may_lose_s == 0.0]
        self.check(not early, f"{len(early)} acknowledged rows are lost, first: {early[:3]}")
        if v.lost:
            self.note(f"{len(v.lost)} rows of the last moments lost")
        counts = {n.name: self._count(n, primary) for n in self.lab.nodes}
        self.check(len(set(counts.values())) == 1, f"the nodes do not hold the same rows: {counts}")
        return v

    def _count(self, node, primary):
        """Rows on a node that has replayed all that the primary has written."""
        if node is not primary:
            lsn = primary.sql("SELECT pg_current_wal_lsn()")[0][0]
            self.wait(f"{node.name} replays {lsn}", 20, lambda: node.sql(
                f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'", check=False) == [["t"]])
        return node.sql("SELECT count(*), coalesce(sum(hashint8(n) # client), 0) FROM dra_rows",
                        timeout=30)[0][0]


def _alarm(_number, _frame):
    raise Budget()


def bring_up(lab):
    lab.start_etcd()
    lab.start_nodes()
    clients.create_table(lab.wait_healthy(60))


def save_logs(lab, directory, name):
    target = os.path.join(directory, name)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(f"{lab.dir}/log", target)
    for node in lab.nodes:
        for path, new in ((f"{node.data}/log", f"{node.name}-postgresql"), (node.config, f"{node.name}.yml")):
            if os.path.isdir(path):
                shutil.copytree(path, os.path.join(target, new))
            elif os.path.exists(path):
                shutil.copy(path, os.path.join(target, new))
    return target


def run_case(lab, this, logs):
    """Returns (status, seconds, words)."""
    trial, began = Trial(lab), boottime()
    words, status = "", "PASS"
    try:
        signal.setitimer(signal.ITIMER_REAL, this.budget)
        try:
            if not this.alone and not lab.is_healthy():
                lab.wait_healthy(20)
            this.function(trial)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        words = ", ".join(trial.notes)
    except Skip as e:
        status, words = "SKIP", str(e)
    except Budget:
        status, words = "FAIL", f"not done within its budget of {this.budget} s\n{lab.describe()}"
    except (Failed, LabError) as e:
        status, words = "FAIL", str(e)
    except Exception:  # a defect of the case itself must not end the run
        status, words = "FAIL", traceback.format_exc()
    if status == "FAIL":
        words += f"\n(logs: {save_logs(lab, logs, this.name)})"
    else:
        try:
            trial.stop_writers()
            lab.net.heal()
        except (LabError, RuntimeError) as e:
            status, words = "FAIL", str(e)
    return status, boottime() - began, words


class Runner:
    """One cluster serves the cases one after the other; after a failure the next gets a new one."""

    def __init__(self, bin_dir, logs, results=None):
        self.bin_dir, self.logs, self.results = bin_dir, logs, results
        self.lab = None
        self.failed = 0
        signal.signal(signal.SIGALRM, _alarm)

    def run(self, cases):
        try:
            for this in cases:
                self._one(this)
        finally:
            self._drop()
        return self.failed

    def _one(self, this):
        doc = (inspect.getdoc(this.function) or this.name).splitlines()[0]
        print(f"---- {this.name}: {doc}", flush=True)
        try:
            if this.alone:
                self._drop()
            if self.lab is None:
                names = ("ttl", "loop_wait", "retry_timeout")
                self.lab = Lab(self.bin_dir, agent=AGENT, **dict(zip(names, this.timings))).__enter__()
                if not this.alone:
                    bring_up(self.lab)
            status, seconds, words = run_case(self.lab, this, self.logs)
        except (LabError, RuntimeError) as e:
            status, seconds, words = "FAIL", 0.0, f"the cluster did not come up: {e}"
            if self.lab is not None:
                words += f"\n(logs: {save_logs(self.lab, self.logs, this.name)})"
        print(f"{status} {this.name} {seconds:.1f} s{': ' if words else ''}{words}", flush=True)
        if self.results:
            with open(self.results, "a", encoding="utf-8") as f:
                f.write(f"{status.lower()}\t{seconds:.2f}\tcluster\t{this.name}\n")
        self.failed += status == "FAIL"
        if status == "FAIL" or this.timings != USUAL:
            self._drop()

    def _drop(self):
        if self.lab is not None:
            self.lab.close()
            self.lab = None

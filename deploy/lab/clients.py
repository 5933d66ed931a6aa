"""The clients' side of the story: start writers, then judge by what they logged.

What the agents say decides nothing here. A row counts as acknowledged when a writer logged it; it
is lost when it is not in the table at the end. Two servers acknowledged at once when a row of an
older timeline was *sent* after the first acknowledgement of a newer one had arrived, or when one
timeline was written by two servers. (The time of sending is used, since a starved client may read
an old answer late.)
"""

import shutil
import signal
from collections import namedtuple

from .node import PASSWORDS

NS = 1_000_000_000
Row = namedtuple("Row", "client n sent done host timeline")
Verdict = namedtuple("Verdict", "acked unknown refused lost violations")


class Writer:
    """A running dra_writer. nodes: whom it may write to; host: where in the network it runs."""

    def __init__(self, lab, client, nodes, host="client", rate=100):
        self.lab, self.client = lab, client
        self.log = f"{lab.dir}/log/writer-{client}.log"
        user, password = PASSWORDS["superuser"]
        argv = [f"{lab.dir}/bin/dra_writer", "--client", str(client), "--log", self.log,
                "--hosts", ",".join(n.address for n in nodes), "--user", user,
                "--dbname", "postgres", "--rate", str(rate), "--timeout", "1000"]
        open(self.log, "ab").close()
        shutil.chown(self.log, "postgres")
        self._parsed, self._offset = {"ack": [], "unknown": [], "refused": []}, 0
        self.pid = lab.start_on(host, "postgres", argv, env={"PGPASSWORD": password})

    def stop(self):
        if self.lab.is_running(self.pid):
            self.lab.signal_child(self.pid, signal.SIGTERM)
            self.lab.wait_exit(self.pid, 10)

    def rows(self, kind="ack"):
        """What was logged so far, in order of the answers."""
        with open(self.log, "rb") as f:
            f.seek(self._offset)
            text = f.read()
        text = text[:text.rfind(b"\n") + 1]
        self._offset += len(text)
        for line in text.decode("ascii").splitlines():
            f = line.split()
            if f[0] in self._parsed:
                timeline = int(f[5], 16) if f[0] == "ack" else None
                self._parsed[f[0]].append(
                    Row(self.client, int(f[1]), int(f[2]), int(f[3]), f[4], timeline))
        return self._parsed[kind]

    def last_ack(self):
        """Time of the last acknowledged row in seconds of CLOCK_BOOTTIME, or None."""
        rows = self.rows()
        return rows[-1].done / NS if rows else None

    def has_ack_after(self, seconds):
        """A row that was sent after that time was acknowledged."""
        rows = self.rows()
        return bool(rows) and rows[-1].sent > seconds * NS


def create_table(primary):
    primary.sql("CREATE TABLE IF NOT EXISTS dra_rows (client int, n bigint, "
                "at timestamptz DEFAULT clock_timestamp(), PRIMARY KEY (client, n))")


def found_rows(node):
    return {(int(c), int(n)) for c, n in node.sql("SELECT client, n FROM dra_rows", timeout=60)}


def outage(rows, begin, end=None):
    """Longest time (s) without an acknowledgement that touches begin..end (s, CLOCK_BOOTTIME).

    None when nothing was acknowledged after begin at all.
    """
    times = [r.done for r in sorted(rows, key=lambda r: r.done)]
    lo, hi = begin * NS, (end * NS if end is not None else float("inf"))
    if not times or times[-1] < lo:
        return None
    gaps = [b - a for a, b in zip(times, times[1:]) if b >= lo and a <= hi]
    return max(gaps, default=0) / NS


def interleavings(rows):
    """Sentences about two servers acknowledging at once; none is what we want."""
    first, last, hosts = {}, {}, {}
    for r in rows:
        hosts.setdefault(r.timeline, set()).add(r.host)
        if r.timeline not in first or r.done < first[r.timeline].done:
            first[r.timeline] = r
        if r.timeline not in last or r.sent > last[r.timeline].sent:
            last[r.timeline] = r
    wrong = [f"timeline {t} was acknowledged by {' and '.join(sorted(h))}"
             for t, h in sorted(hosts.items()) if len(h) > 1]
    for old in sorted(last):
        for new in sorted(first):
            if old < new and last[old].sent > first[new].done:
                late = (last[old].sent - first[new].done) / 1e6
                wrong.append(f"{last[old].host} (timeline {old}) acknowledged row {last[old].n} of client "
                             f"{last[old].client}, sent {late:.1f} ms after {first[new].host} "
                             f"(timeline {new}) had acknowledged its first")
    return wrong


def judge(writers, primary):
    """Verdict over the logs of all writers and the rows that the primary holds now."""
    acked = [r for w in writers for r in w.rows("ack")]
    unknown = [r for w in writers for r in w.rows("unknown")]
    refused = [r for w in writers for r in w.rows("refused")]
    found = found_rows(primary)
    lost = [r for r in acked if (r.client, r.n) not in found]
    return Verdict(acked, unknown, refused, lost, interleavings(acked))

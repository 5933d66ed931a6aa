#!/usr/bin/env python3
"""How long do writes stop? Medians over several runs, by the client's log.

    tests/bench/run.py --bin build/release/bin [--runs 5] [--out FILE] [PART...]

Parts: crash-30 switchover-30 death-30 idle-30 crash-5 switchover-5 death-5 (number: the ttl; 30 is 30/10/10, 5 is 5/1/2).
Each result is appended to FILE at once; runs that FILE holds already are not repeated, so that a long benchmark can be
interrupted and taken up again. LAB_AGENT=patroni measures Debian's Patroni (ttl 20 instead of 5).
"""

import argparse
import json
import os
import statistics
import sys

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "deploy"))

from lab import clients  # noqa: E402
from lab.cluster import Lab, LabError, boottime, end_on_signals  # noqa: E402

TIMINGS = {"30": (30, 10, 10), "5": (5, 1, 2)}
BARS = {"crash-30": 2, "switchover-30": 2, "death-30": 32, "crash-5": 2, "switchover-5": 2, "death-5": 8}
IDLE_S = 60


def quiet(lab, writer, seconds=3):
    until = boottime() + seconds
    lab.wait_for("quiet traffic", seconds + 30,
                 lambda: boottime() > until and writer.has_ack_after(until - 0.3))


def measure(lab, writer, act, timeout, not_on=None):
    """Longest time without an acknowledged row after act()."""
    since = boottime()
    act()
    done = boottime()
    lab.wait_for("writes", timeout, lambda: writer.has_ack_after(max(done, since + 0.5)) and (
        not_on is None or writer.rows()[-1].host != not_on.address), lab.describe)
    return clients.outage(writer.rows(), since)


def crash(lab, writer):
    primary = lab.leader()

    def act():
        pid, _ = primary.kill_postmaster()
        lab.wait_for("its end", 5, lambda: (primary.postmaster() or (0,))[0] != pid)
    return measure(lab, writer, act, 60)


def switchover(lab, writer):
    leader = lab.leader()
    to = lab.others(leader)[0].name
    return measure(lab, writer, lambda: lab.ctl("switchover", "--force", "--candidate", to), 60, leader)


def death(lab, writer):
    primary = lab.leader()
    seconds = measure(lab, writer, primary.die, lab.ttl * 3 + 30, primary)
    primary.come_back()
    return seconds


def idle(lab, _writer):
    """PSS of agent and guard in MB, the largest of the three nodes; CPU goes to the log."""
    def cpu(pids):
        ticks = 0
        for pid in pids:
            with open(f"/proc/{pid}/stat", encoding="ascii") as f:
                fields = f.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def pss(pids):
        kilobytes = 0
        for pid in pids:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
                kilobytes += next(int(line.split()[1]) for line in f if line.startswith("Pss:"))
        return kilobytes / 1024
    groups = [[n.pid] + n.guard_pids() for n in lab.nodes]
    before, began = [cpu(g) for g in groups], boottime()
    lab.wait_for("rest", IDLE_S + 5, lambda: boottime() > began + IDLE_S, interval=1)
    used = [(cpu(g) - b) / (boottime() - began) * 100 for g, b in zip(groups, before)]
    print(f"  idle: CPU {', '.join(f'{u:.2f} %' for u in used)} of a core", flush=True)
    return max(pss(g) for g in groups)


ACTIONS = {"crash": crash, "switchover": switchover, "death": death, "idle": idle}


def load(path):
    results = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            for line in f:
                row = json.loads(line)
                results.setdefault((row["agent"], row["part"]), []).append(row["value"])
    return results


def run_part(args, agent, part, missing):
    what, _, ttl = part.rpartition("-")
    with Lab(args.bin, agent=agent, **dict(zip(("ttl", "loop_wait", "retry_timeout"), TIMINGS[ttl]))) as lab:
        lab.start_etcd()
        lab.start_nodes()
        primary = lab.wait_healthy(90)
        clients.create_table(primary)
        writer = None if what == "idle" else clients.Writer(lab, 1, lab.nodes, rate=200)
        for _ in range(missing):
            lab.wait_healthy(120)
            if writer:
                quiet(lab, writer)
            value = ACTIONS[what](lab, writer)
            print(f"  {part}: {value:.3f}", flush=True)
            with open(args.out, "a", encoding="utf-8") as f:
                f.write(json.dumps({"agent": agent, "part": part, "value": value}) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", default="bench-results.jsonl")
    parser.add_argument("parts", nargs="*")
    args = parser.parse_args()
    parts = args.parts or [f"{a}-{t}" for t in TIMINGS for a in ACTIONS if (a, t) != ("idle", "5")]
    agent, rc = os.environ.get("LAB_AGENT", "dragent"), 0
    end_on_signals()
    for part in parts:
        missing = (1 if part.startswith("idle") else args.runs) - len(load(args.out).get((agent, part), []))
        try:
            if missing > 0:
                run_part(args, agent, part, missing)
        except LabError as e:
            print(f"  {part}: {e}")
            rc = 1
    print(f"{'part':16} {'median':>8} {'range':>17} {'runs':>5}  bar")
    for (who, part), values in sorted(load(args.out).items()):
        unit = "MB" if part.startswith("idle") else "s"
        bar = f"<= {BARS[part]} s" if part in BARS else "<= 12 MB"
        print(f"{part:16} {statistics.median(values):6.2f} {unit:2} {min(values):7.2f} - {max(values):7.2f} "
              f"{len(values):5}  {bar}  {who}")
    return rc


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

"""The agent is killed, frozen, upgraded: it is never the outage, and never two primaries."""

import os
import shutil
import signal

from harness import AGENT, Skip, boottime, case, clients, proc

QUIET_S = 0.5  # "no outage": no gap between two rows is longer


def only_dragent():
    if AGENT != "dragent":
        raise Skip("promised by dragent alone")


@case(budget=40)
def agent_kill_and_restart(t):
    """SIGKILL of the leader's agent, started again at once: it adopts server, guard and lease."""
    only_dragent()
    primary = t.lab.leader()
    t.write()
    t.traffic(0.5)
    before, guard, since = primary.postmaster(), primary.guard_pids(), boottime()
    t.check(len(guard) == 1, f"one guard was expected: {guard}")
    primary.kill_agent()
    primary.start()
    t.traffic(t.lab.ttl + 2)
    t.check(primary.postmaster() == before, "PostgreSQL was restarted")
    t.check(t.lab.leader() is primary, "another node leads")
    t.check(primary.guard_pids() == guard, f"guard {guard} became {primary.guard_pids()}")
    t.check(t.gap(since) < QUIET_S, f"writes stopped for {t.gap(since):.2f} s")
    t.verdict()


@case(budget=40)
def replica_agent_kill(t):
    """SIGKILL of a replica's agent, started again later: its server goes on streaming."""
    primary = t.lab.leader()
    replica = t.lab.others(primary)[0]
    t.write()
    before, since = replica.postmaster(), boottime()
    replica.kill_agent()
    t.traffic(2)
    t.check(replica.streams_from(primary), "the replica no longer streams")
    replica.start()
    t.wait("its agent answers", 10, lambda: replica.rest("GET", "/replica")[0] == 200)
    t.check(replica.postmaster() == before, "PostgreSQL was restarted")
    t.check(t.gap(since) < QUIET_S, f"writes stopped for {t.gap(since):.2f} s")
    t.verdict()


def taken_over(t, primary, since):
    """Another node takes writes; the old server was silent before that."""
    local = t.locals[-1]
    gap = t.writable_again(since, t.lab.ttl * 2 + 20, not_on=primary)
    first = min(r.done for r in t.writers[0].rows() if r.host != primary.address
                and r.sent > since * clients.NS)
    mine = local.rows()
    t.check(mine, "the local client never wrote")
    last = max(r.done for r in mine)
    t.note(f"{gap:.2f} s without writes; the old primary's last row {(first - last) / 1e6:.0f} ms "
           "before the new one's first")
    t.check(last < since * clients.NS + t.lab.ttl * clients.NS,
            "the old primary acknowledged rows after its lease must have ended")
    return gap


@case(budget=70)
def agent_kill(t):
    """SIGKILL of the leader's agent, not started again: the guard fences before another leads."""
    only_dragent()
    primary = t.lab.leader()
    t.write()
    t.write_locally(primary, rate=0)
    t.traffic(0.5)
    since = boottime()
    primary.kill_agent()
    taken_over(t, primary, since)
    t.check(not primary.postmaster(), "the old primary still runs")
    primary.start()
    t.verdict(may_lose_s=0.5)


@case(budget=70)
def agent_freeze(t):
    """SIGSTOP of the leader's agent: fenced before its lease ends; after SIGCONT it rejoins."""
    only_dragent()
    primary = t.lab.leader()
    t.write()
    t.write_locally(primary, rate=0)
    t.traffic(0.5)
    since = boottime()
    primary.freeze_agent()
    try:
        taken_over(t, primary, since)
        t.traffic(1)
    finally:
        primary.thaw_agent()
    t.verdict(may_lose_s=0.5)


@case(budget=40)
def agent_short_freeze(t):
    """SIGSTOP for 1 s: nothing happens."""
    primary = t.lab.leader()
    t.write()
    before, timeline, since = primary.postmaster(), t.timeline(), boottime()
    primary.freeze_agent()
    t.traffic(1)
    primary.thaw_agent()
    t.traffic(t.lab.ttl)
    t.check(primary.postmaster() == before and t.timeline() == timeline, "the server was restarted")
    t.check(t.gap(since) < QUIET_S, f"writes stopped for {t.gap(since):.2f} s")
    t.verdict()


@case(budget=60)
def agent_upgrade(t):
    """SIGUSR2 on all three: new program, same pid; server, guard and lease stay; no outage."""
    only_dragent()
    t.write()
    t.traffic(0.5)
    program = f"{t.lab.dir}/bin/dragent"
    leader, since = t.lab.leader(), boottime()
    servers = {n.name: n.postmaster() for n in t.lab.nodes}
    guards = {n.name: n.guard_pids() for n in t.lab.nodes}
    shutil.copy(program, program + ".new")
    os.rename(program + ".new", program)
    inode = os.stat(program).st_ino
    for node in t.lab.nodes:
        node.signal_agent(signal.SIGUSR2)
        t.wait(f"{node.name} executes the new program", 10, lambda: _exe_inode(node.pid) == inode)
    t.traffic(t.lab.ttl + 2)
    for node in t.lab.nodes:
        t.check(node.is_agent_alive(), f"{node.name}: the agent ended")
        t.check(node.postmaster() == servers[node.name], f"{node.name}: PostgreSQL was restarted")
        t.check(node.guard_pids() == guards[node.name], f"{node.name}: the guard was replaced")
        t.check(node.rest("GET", "/liveness")[0] == 200, f"{node.name}: the agent does not answer")
    t.check(t.lab.leader() is leader, "another node leads")
    t.check(t.gap(since) < QUIET_S, f"writes stopped for {t.gap(since):.2f} s")
    t.verdict()


@case(budget=40)
def guard_kill(t):
    """SIGKILL of the guard: the agent makes a new one, and PostgreSQL goes on."""
    only_dragent()
    primary = t.lab.leader()
    t.write()
    before, guard, since = primary.postmaster(), primary.guard_pids(), boottime()
    for pid in guard:
        proc.send(pid, signal.SIGKILL, check=lambda p: proc.exe_name(p) == "dragent-guard")
    t.wait("another guard", 10, lambda: primary.guard_pids() and primary.guard_pids() != guard)
    t.traffic(t.lab.ttl + 1)
    t.check(primary.postmaster() == before, "PostgreSQL was restarted")
    t.check(t.gap(since) < QUIET_S, f"writes stopped for {t.gap(since):.2f} s")
    t.verdict()


def _exe_inode(pid):
    try:
        return os.stat(f"/proc/{pid}/exe").st_ino
    except OSError:
        return None

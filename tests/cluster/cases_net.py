"""The network and etcd fail."""

import signal

from harness import boottime, bring_up, case, clients

QUIET_S = 0.5


def unchanged(t, before, since, quiet=QUIET_S):
    """Nothing happened: same server, same timeline, and no client noticed."""
    leader, server, timeline = before
    t.check(t.lab.leader() is leader, f"{t.lab.leader() and t.lab.leader().name} leads now")
    t.check(leader.postmaster() == server, "PostgreSQL was restarted")
    t.check(t.timeline() == timeline, f"timeline {timeline} became {t.timeline()}")
    t.check(t.gap(since) < quiet, f"writes stopped for {t.gap(since):.2f} s")


def state_now(t):
    leader = t.lab.leader()
    return leader, leader.postmaster(), t.timeline()


def isolated(t, primary, since):
    """Another node leads, and the isolated one stopped before its lease had ended."""
    gap = t.writable_again(since, t.lab.ttl * 2 + 20, not_on=primary)
    t.note(f"{gap:.2f} s without writes")
    last = max((r.done for r in t.locals[-1].rows()), default=0)
    t.check(last < (since + t.lab.ttl) * clients.NS,
            f"the isolated primary acknowledged rows {last / clients.NS - since:.1f} s after the cut")


@case(budget=80)
def partition_of_primary(t):
    """The primary is cut off from everybody: it stops by itself, another leads, it rejoins."""
    primary = t.lab.leader()
    t.write()
    t.write_locally(primary)
    t.traffic(0.5)
    since = boottime()
    t.lab.net.link(primary.name, False)
    isolated(t, primary, since)
    t.traffic(1)
    t.lab.net.link(primary.name, True)
    t.verdict(may_lose_s=0.5)


@case(budget=80)
def partition_from_etcd(t):
    """The primary loses etcd alone; its clients and replicas still reach it."""
    primary = t.lab.leader()
    t.write()
    t.write_locally(primary)
    t.traffic(0.5)
    since = boottime()
    t.lab.net.cut(primary.name, [m.name for m in t.lab.etcd])
    isolated(t, primary, since)
    t.traffic(1)
    t.lab.net.heal()
    t.verdict(may_lose_s=0.5)


@case(budget=80)
def one_way_partition(t):
    """What the primary sends to etcd arrives, no answer comes back: it must not go on."""
    primary = t.lab.leader()
    t.write()
    t.write_locally(primary)
    t.traffic(0.5)
    since = boottime()
    for member in t.lab.etcd:
        t.lab.net.drop(member.name, primary.name)
    # Keepalives sent on the open connections may still count at etcd for a moment.
    isolated(t, primary, since)
    t.lab.net.heal()
    t.verdict(may_lose_s=0.5)


@case(budget=50)
def partition_of_replica(t):
    """A replica is cut off and comes back: no client notices."""
    primary = t.lab.leader()
    replica = t.lab.others(primary)[0]
    t.write()
    before, since = state_now(t), boottime()
    t.lab.net.link(replica.name, False)
    t.traffic(t.lab.ttl + 1)
    t.lab.net.link(replica.name, True)
    t.lab.wait_healthy(30)
    unchanged(t, before, since)
    t.verdict()


@case(budget=50)
def etcd_leader_kill(t):
    """etcd's leader is killed: etcd elects another, nothing happens to PostgreSQL."""
    t.write()
    t.traffic(0.5)
    before, since = state_now(t), boottime()
    member = t.wait("etcd has a leader", 10, lambda: next((m for m in t.lab.etcd if m.is_leader()), None))
    member.kill()
    try:
        t.traffic(t.lab.ttl + 2)
    finally:
        member.start()
    t.wait("the member is back", 20, member.is_healthy)
    unchanged(t, before, since)
    t.verdict()


@case(budget=50)
def etcd_member_freeze(t):
    """One etcd member hangs (SIGSTOP): requests go to the others, nothing happens."""
    t.write()
    before, since = state_now(t), boottime()
    member = next(m for m in t.lab.etcd if not m.is_leader())
    member.signal(signal.SIGSTOP)
    try:
        t.traffic(t.lab.ttl + 1)
    finally:
        member.signal(signal.SIGCONT)
    unchanged(t, before, since)
    t.verdict()


@case(budget=40)
def etcd_outage_1s(t):
    """All of etcd hangs for 1 s: nothing happens."""
    t.write()
    t.traffic(0.5)
    before, since = state_now(t), boottime()
    _etcd(t, signal.SIGSTOP)
    try:
        t.wait("1 s", 3, lambda: boottime() > since + 1)
    finally:
        _etcd(t, signal.SIGCONT)
    t.traffic(t.lab.ttl + 1)
    unchanged(t, before, since)
    t.verdict()


@case(budget=40)
def etcd_unreachable_2s(t):
    """No node reaches etcd for 2 s, shorter than the 3 s that an election may take: nothing happens."""
    t.write()
    t.traffic(0.5)
    before, since = state_now(t), boottime()
    for node in t.lab.nodes:
        t.lab.net.cut(node.name, [m.name for m in t.lab.etcd])
    t.wait("2 s", 3, lambda: boottime() > since + 2)
    t.lab.net.heal()
    t.traffic(t.lab.ttl + 1)
    unchanged(t, before, since)
    t.verdict()


@case(budget=90)
def etcd_outage_long(t):
    """All of etcd hangs for 3 x ttl: read-only before the lease ends, back by itself."""
    t.write()
    primary = t.lab.leader()
    local = t.write_locally(primary)
    t.traffic(0.5)
    since = boottime()
    _etcd(t, signal.SIGSTOP)
    try:
        t.wait("the outage to last", t.lab.ttl * 3 + 5, lambda: boottime() > since + t.lab.ttl * 3)
        for writer in (t.writers[0], local):
            last = writer.last_ack() - since
            t.check(last < t.lab.ttl, f"a row was acknowledged {last:.1f} s into the outage")
        t.note(f"read-only {t.writers[0].last_ack() - since:.1f} s into the outage")
        readable = [n.name for n in t.lab.nodes if n.sql("SELECT 1", check=False) == [["1"]]]
        t.check(len(readable) >= 2, f"only {readable} can be read")
    finally:
        _etcd(t, signal.SIGCONT)
    back = boottime()
    t.writable_again(back, 40)
    t.note(f"back {t.writers[0].last_ack() - back:.1f} s after it")
    t.verdict()


@case(budget=60)
def etcd_restart_of_all(t):
    """All etcd members are killed and started at once."""
    t.write()
    for member in t.lab.etcd:
        member.kill()
    for member in t.lab.etcd:
        member.start()
    back = boottime()
    t.wait("etcd answers", 20, lambda: all(m.is_healthy() for m in t.lab.etcd))
    t.writable_again(back, 30)
    t.verdict()


@case(budget=70, alone=True, timings=(30, 10, 10))
def etcd_unreachable_8s_at_ttl_30(t):
    """The same for 8 s at 30/10/10, shorter than retry_timeout: nothing happens."""
    bring_up(t.lab)
    t.write()
    t.traffic(1)
    before, since = state_now(t), boottime()
    for node in t.lab.nodes:
        t.lab.net.cut(node.name, [m.name for m in t.lab.etcd])
    t.wait("8 s", 10, lambda: boottime() > since + 8)
    t.lab.net.heal()
    t.traffic(15)
    unchanged(t, before, since)
    t.verdict()


def _etcd(t, sig):
    for member in t.lab.etcd:
        member.signal(sig)

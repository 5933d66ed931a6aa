"""The main path: bootstrap, crash, death, rejoin, switchover, and everything stopped."""

import json
import os
import shutil
import time

from harness import AGENT, Skip, boottime, bring_up, case, clients, how_it_was_made, made_at


@case(budget=60, alone=True)
def bootstrap(t):
    """Three empty nodes: one initdb, two base backups, one leader."""
    began = boottime()
    bring_up(t.lab)
    t.note(f"{boottime() - began:.1f} s")
    made = sorted(how_it_was_made(n) for n in t.lab.nodes)
    t.check(made == ["initdb", "pg_basebackup", "pg_basebackup"], f"made by {made}")
    keys = t.lab.keys()
    ids = {n.sql("SELECT system_identifier FROM pg_control_system()")[0][0] for n in t.lab.nodes}
    t.check(ids == {keys["initialize"]}, f"initialize is {keys['initialize']}, servers have {ids}")
    t.check(json.loads(keys["config"])["ttl"] == t.lab.ttl, f"config: {keys['config']}")
    t.check(t.lab.leader().sql("SHOW data_checksums") == [["on"]], "initdb's options were not used")
    t.write()
    t.verdict()


@case(budget=40)
def postmaster_crash(t):
    """SIGKILL of the primary's postmaster: restarted in place, same timeline, key kept (HA-57)."""
    primary = t.lab.leader()
    t.write()
    key, timeline, since = t.lab.keys()["leader"], t.timeline(), boottime()
    pid, _ = primary.kill_postmaster()
    t.wait("the old postmaster is gone", 5, lambda: (primary.postmaster() or (0,))[0] != pid)
    gap = t.writable_again(boottime())
    t.note(f"{gap:.2f} s without writes")
    t.traffic(1)
    if AGENT == "dragent":
        t.check(t.timeline() == timeline, f"timeline {timeline} became {t.timeline()}")
        t.check(t.lab.keys()["leader"] == key, "the leader key changed its owner")
    t.check(gap < 10, f"{gap:.1f} s without writes since {since:.1f}")
    t.verdict()


@case(budget=40)
def crash_with_busy_backends(t):
    """SIGKILL of the postmaster under clients that never pause, and a long statement (SAFE-34)."""
    primary = t.lab.leader()
    t.write()
    t.write_locally(primary, rate=0)
    primary.sql("CREATE TABLE IF NOT EXISTS dra_bulk (n bigint)")
    argv = [f"{t.lab.pg_bin}/psql", "-h", primary.address, "-U", "postgres", "-X", "-c",
            "INSERT INTO dra_bulk SELECT g FROM generate_series(1, 20000000) g"]
    bulk = t.lab.start_on("client", "postgres", argv, env={"PGPASSWORD": "super-secret"})
    t.traffic(0.5)
    pid, _ = primary.kill_postmaster()
    status = t.lab.wait_exit(bulk, 15)
    t.check(status != 0, "the long statement was acknowledged after its postmaster had died")
    t.wait("the old postmaster is gone", 5, lambda: (primary.postmaster() or (0,))[0] != pid)
    t.note(f"{t.writable_again(boottime()):.2f} s without writes")
    t.verdict()
    t.lab.leader().sql("DROP TABLE dra_bulk")


@case(budget=40)
def replica_crash(t):
    """SIGKILL of a replica's postmaster: it is back by itself, and no client notices."""
    primary = t.lab.leader()
    replica = t.lab.others(primary)[0]
    t.write()
    since = boottime()
    pid, _ = replica.kill_postmaster()
    t.wait("the replica streams again", 25, lambda: (replica.postmaster() or (pid,))[0] != pid
           and replica.streams_from(primary))
    t.check(t.gap(since) < 1, f"writes stopped for {t.gap(since):.2f} s")
    t.verdict()


@case(budget=70)
def node_death(t):
    """The primary's node dies with its network: another leads, and the dead one comes back."""
    primary = t.lab.leader()
    t.write()
    t.traffic(1)
    since = boottime()
    primary.die()
    gap = t.writable_again(since, t.lab.ttl * 2 + 20, not_on=primary)
    t.note(f"{gap:.2f} s without writes at ttl {t.lab.ttl}")
    rest = [n for n in t.lab.others(t.lab.leader()) if n is not primary]
    t.wait("the other replica follows", 30, lambda: rest[0].streams_from(t.lab.leader()))
    primary.come_back()
    t.verdict(may_lose_s=0.5)


def die_diverged(t, primary):
    """Cable out, some rows more that nobody else will have, then the power."""
    local = t.write_locally(primary)
    t.wait("the local client's first row", 10, local.rows)
    t.lab.net.link(primary.name, False)
    cut = boottime()
    t.wait("rows that only this node has", 3, lambda: local.has_ack_after(cut + 0.3))
    primary.die()
    alone = [r for r in local.rows() if r.sent > (cut + 0.1) * clients.NS]
    t.check(alone, "no row was written alone")
    return alone


@case(budget=80)
def rejoin_by_rewind(t):
    """A dead primary has rows of its own: pg_rewind takes them away and it streams again."""
    primary = t.lab.leader()
    t.write()
    alone = die_diverged(t, primary)
    t.writable_again(boottime(), t.lab.ttl * 2 + 20, not_on=primary)
    t.traffic(1)
    before, inode = made_at(primary), os.stat(primary.data).st_ino
    primary.come_back()
    new = t.lab.wait_healthy(40)
    t.check(made_at(primary) != before and how_it_was_made(primary) == "pg_rewind",
            f"the data directory was last made by {how_it_was_made(primary)}")
    t.check(os.stat(primary.data).st_ino == inode, "the data directory was replaced")
    ghosts = clients.found_rows(new) & {(r.client, r.n) for r in alone}
    t.check(not ghosts, f"rows of the lost timeline came back: {sorted(ghosts)[:3]}")
    t.verdict(may_lose_s=0.5)


@case(budget=90)
def rejoin_by_reclone(t):
    """The same where pg_rewind may not be used: a new copy."""
    primary = t.lab.leader()
    status, text = primary.rest("PATCH", "/config", {"postgresql": {"use_pg_rewind": False}})
    t.check(status == 200, f"PATCH /config: {status} {text}")
    try:
        t.write()
        t.traffic(t.lab.loop_wait + 1)
        die_diverged(t, primary)
        t.writable_again(boottime(), t.lab.ttl * 2 + 20, not_on=primary)
        t.traffic(1)
        before = made_at(primary)
        primary.come_back()
        t.lab.wait_healthy(40)
        t.check(made_at(primary) != before and how_it_was_made(primary) == "pg_basebackup",
                f"the data directory was last made by {how_it_was_made(primary)}")
    finally:
        t.lab.leader().rest("PATCH", "/config", {"postgresql": {"use_pg_rewind": True}})
    t.verdict(may_lose_s=0.5)


@case(budget=60)
def lost_data_directory(t):
    """A replica comes back with nothing on its disk: a new copy."""
    primary = t.lab.leader()
    replica = t.lab.others(primary)[0]
    t.write()
    replica.die()
    shutil.rmtree(replica.data)
    replica.come_back()
    t.lab.wait_healthy(40)
    t.check(how_it_was_made(replica) == "pg_basebackup", "no base backup was made")
    t.verdict()


@case(budget=60)
def switchover(t):
    """dragentctl switchover, to a named node and to the best one: nothing lost, short."""
    t.write()
    for candidate in (t.lab.others(t.lab.leader())[0], None):
        old, since = t.lab.leader(), boottime()
        argv = ["switchover", "--force"] + (["--candidate", candidate.name] if candidate else [])
        done = t.lab.ctl(*argv)
        t.check(done.returncode == 0 and "Successfully switched over" in done.stdout,
                f"{argv}: {done.returncode} {done.stdout} {done.stderr}")
        gap = t.writable_again(since, 20, on=candidate, not_on=old)
        t.note(f"{gap:.2f} s without writes")
        t.check(gap < 10, f"writes stopped for {gap:.1f} s")
        t.lab.wait_healthy(40)
    t.verdict()


@case(budget=90)
def full_stop_and_start(t):
    """All agents are stopped in order, the cluster is started again: all rows are there."""
    t.write()
    t.traffic(0.5)
    t.stop_writers()
    for node in t.lab.others(t.lab.leader()) + [t.lab.leader()]:
        status = node.stop_agent(30)
        t.check(status == 0, f"{node.name}: exit status {status} at SIGTERM")
        t.check(not node.postmaster(), f"{node.name}: PostgreSQL still runs")
        t.check(not node.pids(), f"{node.name}: left running: {node.pids()}")
    t.lab.start_nodes()
    t.lab.wait_healthy(50)
    t.verdict()


@case(budget=90)
def power_cut(t):
    """All three nodes die at once and come back: all rows are there."""
    t.write()
    t.traffic(0.5)
    for node in t.lab.nodes:
        node.die()
    t.stop_writers()
    time.sleep(1)
    for node in t.lab.nodes:
        node.come_back()
    t.lab.wait_healthy(60)
    t.verdict()


@case(budget=60, alone=True)
def start_without_etcd(t):
    """Agents that start before etcd wait for it, and say so."""
    if AGENT != "dragent":
        raise Skip("about dragent")
    t.lab.start_nodes()
    t.wait("each agent has said something", 10,
           lambda: all(os.path.getsize(n.log) > 0 for n in t.lab.nodes if os.path.exists(n.log)))
    time.sleep(1)
    t.check(all(n.is_agent_alive() for n in t.lab.nodes), "an agent gave up")
    t.lab.start_etcd()
    clients.create_table(t.lab.wait_healthy(40))
    t.write()
    t.verdict()

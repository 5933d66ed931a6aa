"""What people and their tools do: REST, dragentctl, pause, configuration."""

import glob
import json
import os
import re
import signal

from harness import AGENT, TOP, Skip, boottime, case


@case(budget=30)
def rest_health_checks(t):
    """The answers that load balancers live on, and what the JSON pages hold."""
    leader = t.lab.leader()
    replica = t.lab.others(leader)[0]
    want = {"/primary": (200, 503), "/": (200, 503), "/leader": (200, 503), "/read-write": (200, 503),
            "/replica": (503, 200), "/read-only": (200, 200), "/health": (200, 200),
            "/liveness": (200, 200), "/readiness": (200, 200), "/async": (503, 200),
            "/sync": (503, 503), "/standby-leader": (503, 503), "/replica?lag=100MB": (503, 200)}
    for path, codes in want.items():
        got = tuple(n.rest("GET", path, auth=False)[0] for n in (leader, replica))
        t.check(got == codes, f"GET {path}: leader, replica answer {got} instead of {codes}")
    page = json.loads(leader.rest("GET", "/patroni", auth=False)[1])
    t.check(page["state"] == "running" and page["role"] in ("primary", "master")
            and page["patroni"]["scope"] == t.lab.scope, f"/patroni: {page}")
    t.check(page["server_version"] // 10000 >= 12 and page["xlog"]["location"] > 0, f"/patroni: {page}")
    members = json.loads(replica.rest("GET", "/cluster", auth=False)[1])["members"]
    t.check(sorted(m["role"] for m in members) == ["leader", "replica", "replica"], f"/cluster: {members}")
    metrics = leader.rest("GET", "/metrics", auth=False)[1]
    t.check(re.search(r"^patroni_primary\{.*\} 1", metrics, re.M)
            or re.search(r"^patroni_master\{.*\} 1", metrics, re.M), "/metrics: no patroni_primary")
    t.check(replica.rest("GET", "/no-such-page", auth=False)[0] in (404, 503), "an unknown path")


@case(budget=30)
def rest_config(t):
    """GET and PATCH /config, with and without the password; the change reaches PostgreSQL."""
    leader = t.lab.leader()
    body = {"postgresql": {"parameters": {"work_mem": "5MB"}}}
    status, _ = leader.rest("PATCH", "/config", body, auth=False)
    t.check(status == 401, f"PATCH without a password: {status}")
    status, text = leader.rest("PATCH", "/config", body)
    t.check(status == 200 and json.loads(text)["ttl"] == t.lab.ttl, f"PATCH: {status} {text}")
    for node in t.lab.nodes:
        t.wait(f"work_mem on {node.name}", 15, lambda: node.sql("SHOW work_mem", check=False) == [["5MB"]])
    leader.rest("PATCH", "/config", {"postgresql": {"parameters": {"work_mem": None}}})
    for node in t.lab.nodes:
        t.wait(f"work_mem on {node.name}", 15, lambda: node.sql("SHOW work_mem", check=False) == [["4MB"]])


@case(budget=40)
def rest_switchover(t):
    """POST /switchover to a named candidate."""
    t.write()
    leader = t.lab.leader()
    candidate = t.lab.others(leader)[1]
    since = boottime()
    status, text = leader.rest("POST", "/switchover",
                               {"leader": leader.name, "candidate": candidate.name}, timeout=30)
    t.check(status == 200, f"{status} {text}")
    t.note(f"{t.writable_again(since, 20, on=candidate):.2f} s without writes")
    status, text = candidate.rest("POST", "/switchover",
                                  {"leader": candidate.name, "candidate": "nobody"}, timeout=30)
    t.check(status in (412, 400), f"an unknown candidate: {status} {text}")
    t.verdict()


@case(budget=30)
def ctl_list(t):
    """list in its formats, topology, show-config, history, version."""
    table = t.lab.ctl("list").stdout
    for word in (f"Cluster: {t.lab.scope}", "Member", "Host", "Role", "State", "TL", "Leader", "Replica"):
        t.check(word in table, f"'{word}' is not in:\n{table}")
    rows = json.loads(t.lab.ctl("list", "-f", "json").stdout)
    leader = t.lab.leader()
    t.check([r["Role"] for r in rows if r["Member"] == leader.name] == ["Leader"], f"{rows}")
    t.check(sorted(r["Host"] for r in rows) == [n.address for n in t.lab.nodes], f"{rows}")
    t.check(t.lab.ctl("list", "-f", "tsv").stdout.splitlines()[0].split("\t")[:2] == ["Cluster", "Member"],
            t.lab.ctl("list", "-f", "tsv").stdout)
    t.check("Cluster: " in t.lab.ctl("list", "-f", "yaml").stdout, "list -f yaml")
    t.check(leader.name in t.lab.ctl("topology").stdout, "topology")
    t.check(f"ttl: {t.lab.ttl}" in t.lab.ctl("show-config").stdout, "show-config")
    t.check("TL" in t.lab.ctl("history").stdout, "history")
    t.check(t.lab.ctl("version").returncode == 0, "version")
    bad = t.lab.ctl("no-such-command")
    t.check(bad.returncode == 2, f"an unknown command: exit status {bad.returncode}")
    if AGENT == "dragent":
        done = t.lab.ctl("explain")
        t.check(done.returncode == 0 and all(n.name in done.stdout for n in t.lab.nodes),
                f"explain: {done.stdout} {done.stderr}")


@case(budget=40)
def ctl_restart_and_reload(t):
    """restart of a replica, reload of all, restart of the leader."""
    t.write()
    leader = t.lab.leader()
    replica = t.lab.others(leader)[0]
    before = replica.postmaster()
    done = t.lab.ctl("restart", t.lab.scope, replica.name, "--force")
    t.check("Success" in done.stdout, f"restart: {done.stdout} {done.stderr}")
    t.check(replica.postmaster() not in (None, before), "the replica was not restarted")
    done = t.lab.ctl("reload", t.lab.scope, "--force")
    t.check(done.returncode == 0, f"reload: {done.stdout} {done.stderr}")
    since, timeline = boottime(), t.timeline()
    done = t.lab.ctl("restart", t.lab.scope, leader.name, "--force")
    t.check("Success" in done.stdout, f"restart: {done.stdout} {done.stderr}")
    t.note(f"leader restarted with {t.writable_again(since, 20):.2f} s without writes")
    t.check(t.lab.leader() is leader and t.timeline() == timeline, "the restart moved the lead")
    t.verdict()


@case(budget=60)
def ctl_reinit(t):
    """reinit makes a new copy of a replica."""
    t.write()
    leader = t.lab.leader()
    replica = t.lab.others(leader)[0]
    mark = f"{replica.data}/mark-of-the-old-copy"
    with open(mark, "w", encoding="ascii"):
        pass
    done = t.lab.ctl("reinit", t.lab.scope, replica.name, "--force")
    t.check("Success" in done.stdout, f"reinit: {done.stdout} {done.stderr}")
    t.wait("the old copy is gone", 30, lambda: not os.path.exists(mark))
    t.lab.wait_healthy(30)
    refused = t.lab.ctl("reinit", t.lab.scope, leader.name, "--force")
    t.check(leader.postmaster() and "Success" not in refused.stdout, "the leader was reinitialised")
    t.verdict()


@case(budget=80)
def pause_and_resume(t):
    """In pause the agents touch nothing: not a crashed primary, not at their own stop."""
    t.write()
    leader = t.lab.leader()
    done = t.lab.ctl("pause", "--wait")
    t.check(done.returncode == 0 and "Success" in done.stdout, f"pause: {done.stdout} {done.stderr}")
    try:
        t.check("Maintenance mode: on" in t.lab.ctl("list").stdout, "list does not show the pause")
        before, since = leader.postmaster(), boottime()
        status = leader.stop_agent(10)
        t.check(status == 0 and leader.postmaster() == before, "PostgreSQL was stopped with its agent")
        t.traffic(t.lab.ttl + 2)
        t.check(t.gap(since) < 0.5, f"writes stopped for {t.gap(since):.2f} s")
        leader.start()
        t.wait("its agent answers", 15, lambda: leader.rest("GET", "/primary")[0] == 200)
        t.check(leader.postmaster() == before, "PostgreSQL was restarted")
    finally:
        done = t.lab.ctl("resume", "--wait")
    t.check("Success" in done.stdout, f"resume: {done.stdout} {done.stderr}")
    t.check("Maintenance mode" not in t.lab.ctl("list").stdout, "list still shows the pause")
    t.verdict()


@case(budget=40)
def reload_by_sighup(t):
    """SIGHUP reads the file again: a tag appears."""
    replica = t.lab.others(t.lab.leader())[0]
    replica.write_config(lambda s: s["tags"].update({"noloadbalance": True}))
    replica.signal_agent(signal.SIGHUP)
    t.wait("the tag is used", 10, lambda: replica.rest("GET", "/replica")[0] == 503)
    replica.write_config()
    replica.signal_agent(signal.SIGHUP)
    t.wait("the tag is gone", 10, lambda: replica.rest("GET", "/replica")[0] == 200)


@case(budget=60)
def wrong_password(t):
    """A wrong superuser password: a clear message, no restart, no loss; mended by a reload."""
    t.write()
    leader = t.lab.leader()
    replica = t.lab.others(leader)[0]
    replica.stop_agent(20)
    wrong = "not-the-password"
    replica.write_config(
        lambda s: s["postgresql"]["authentication"]["superuser"].update({"password": wrong}))
    offset = os.path.getsize(replica.log)
    try:
        replica.start()
        t.wait_log(replica, 'password authentication failed for user "postgres"', 20, offset)
        with open(replica.log, encoding="utf-8", errors="replace") as f:
            t.check(wrong not in f.read(), "the log holds the password")
        t.check(t.lab.leader() is leader, "another node leads")
    finally:
        replica.write_config()
    replica.stop_agent(20)
    replica.start()
    t.verdict()


@case(budget=20)
def refuses_nonsense(t):
    """A broken file ends the start with file, line, key, value and remedy; root is refused."""
    if AGENT != "dragent":
        raise Skip("about dragent")
    path = f"{t.lab.dir}/bad.yml"
    with open(path, "w", encoding="ascii") as f:
        f.write("scope: demo\nname: node9\nrestapi:\n  listen: [unclosed\n")
    os.chmod(path, 0o644)
    log = f"{t.lab.dir}/log/bad.log"
    pid = t.lab.start_on("client", "postgres", t.lab.agent_argv(path), log=log)
    t.check(t.lab.wait_exit(pid, 5) == 1, "a broken file: not exit status 1")
    with open(log, encoding="utf-8") as f:
        t.check(re.search(r"bad\.yml:\d+", f.read()), "no file:line in the message")
    pid = t.lab.start_on("client", "root", t.lab.agent_argv(t.lab.nodes[0].config), log=log)
    t.check(t.lab.wait_exit(pid, 5) != 0, "root was not refused")
    with open(log, encoding="utf-8") as f:
        t.check("root" in f.read(), "the message does not say why")


@case(budget=30)
def sample_configs(t):
    """Each file in configs/ passes --validate-config where its addresses exist."""
    if AGENT != "dragent":
        raise Skip("about dragent")
    files = sorted(glob.glob(f"{TOP}/configs/**/*.yml", recursive=True))
    t.check(len(files) >= 4, f"sample files: {files}")
    for number, path in enumerate(files):
        with open(path, encoding="utf-8") as f:
            text = f.read().replace("192.168.10.", f"{t.lab.net.subnet}.")
        copy = f"{t.lab.dir}/sample-{number}.yml"
        with open(copy, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(copy, 0o644)
        log = f"{t.lab.dir}/log/sample-{number}.log"
        pid = t.lab.start_on("node1", "postgres",
                             [f"{t.lab.dir}/bin/dragent", "--validate-config", "-i", copy], log=log)
        status = t.lab.wait_exit(pid, 10)
        with open(log, encoding="utf-8") as f:
            said = f.read()
        t.check(status == 0 and not said, f"{os.path.relpath(path, TOP)}: exit status {status}: {said}")

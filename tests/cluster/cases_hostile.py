"""Bad input from outside: foreign data, garbage in the store, a log for machines."""

import base64
import json
import os
import shutil

from harness import boottime, case


def put(t, key, raw):
    """Put raw bytes below the cluster's prefix, as a careless person with etcdctl would."""
    body = {"key": base64.b64encode(f"/service/{t.lab.scope}/{key}".encode()).decode(),
            "value": base64.b64encode(raw).decode()}
    for member in t.lab.etcd:
        try:
            if member.post("/v3/kv/put", body)[0] == 200:
                return
        except OSError:
            continue
    t.check(False, f"etcd took no put of {key}")


@case(budget=60)
def garbage_in_the_store(t):
    """SAFE-17: nonsense in every key but the leader's: no role changes, nothing stops, and it is written right again."""
    leader, since = t.lab.leader(), boottime()
    t.write()
    for raw in (b"{", b"null", b"[1,2", b"7", b"\xff\xfe\x00", b'{"leader":7,"member":[]}',
                b'{"leader":"' + leader.name.encode() + b'","scheduled_at":"yesterday"}'):
        for key in ("failover", "sync", "status", "history", "members/nobody", "optime/leader", "failsafe", "extra"):
            put(t, key, raw)
        t.traffic(0.3)
    t.check(t.lab.leader() is leader and leader.is_writable(), "the leader changed")
    t.check(t.gap(since) < 1.0, f"writes stopped for {t.gap(since):.2f} s")
    put(t, "failover", b"{}")
    t.wait("a status that can be read", 10,
           lambda: json.loads((t.lab.keys() or {}).get("status") or "null").get("optime", 0) > 0
           if (t.lab.keys() or {}).get("status", "").startswith('{"optime') else False)
    done = t.lab.ctl("switchover", "--force")
    t.check("Successfully switched over" in done.stdout, f"no switchover afterwards: {done.stdout} {done.stderr}")
    t.lab.wait_healthy(40)
    t.verdict()


@case(budget=60)
def foreign_data(t):
    """HA-41: a data directory of another cluster ends the agent with a clear message, and touches nothing."""
    replica = t.lab.others(t.lab.leader())[0]
    t.write()
    replica.stop_agent()
    kept = replica.data + ".kept"
    os.rename(replica.data, kept)
    argv = [f"{t.lab.pg_bin}/initdb", "-D", replica.data, "-A", "trust", "-U", "postgres"]
    status = t.lab.wait_exit(t.lab.start_on(replica.name, "postgres", argv, log="/dev/null"), 30)
    t.check(status == 0, f"initdb ended with {status}")
    offset = os.path.getsize(replica.log)
    replica.start()
    status = t.lab.wait_exit(replica.pid, 20)
    t.check(status == 1, f"the agent ended with {status} instead of 1")
    t.wait_log(replica, "system ID mismatch, node", 5, offset)
    t.check(os.path.exists(f"{replica.data}/global/pg_control"), "the foreign data is gone")
    shutil.rmtree(replica.data)
    os.rename(kept, replica.data)
    replica.start()
    t.lab.wait_healthy(40)
    t.verdict()


@case(budget=40)
def json_log(t):
    """log.type json: each line is an object with time, level, message and event."""
    replica = t.lab.others(t.lab.leader())[0]
    replica.stop_agent()
    offset = os.path.getsize(replica.log)
    replica.write_config(lambda s: s.update({"log": {"type": "json"}}))
    replica.start()
    t.lab.wait_healthy(40)
    with open(replica.log, encoding="utf-8") as f:
        f.seek(offset)
        lines = [line for line in f.read().splitlines() if line]
    t.check(len(lines) > 3, "there is nothing in the log")
    for line in lines:
        record = json.loads(line)
        t.check({"time", "level", "message"} <= set(record), f"a record lacks a field: {line}")
    t.check(any(json.loads(line).get("rule") for line in lines), "no line names a rule")
    replica.stop_agent()
    replica.write_config()
    replica.start()
    t.lab.wait_healthy(40)

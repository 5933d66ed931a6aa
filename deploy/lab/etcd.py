"""etcd members of the lab, and just enough of a client to look at what stands in them."""

import base64
import http.client
import json
import os
import pwd
import signal

USER = "etcd"


class Member:
    def __init__(self, lab, name):
        self.lab, self.name = lab, name
        self.address = lab.net.addresses[name]
        self.pid = None

    @property
    def client_url(self):
        return f"http://{self.address}:2379"

    def argv(self):
        peers = ",".join(f"{m.name}=http://{m.address}:2380" for m in self.lab.etcd)
        return ["etcd", "--name", self.name, "--data-dir", f"{self.lab.dir}/{self.name}",
                "--listen-client-urls", self.client_url, "--advertise-client-urls", self.client_url,
                "--listen-peer-urls", f"http://{self.address}:2380",
                "--initial-advertise-peer-urls", f"http://{self.address}:2380",
                "--initial-cluster", peers, "--initial-cluster-token", self.lab.net.prefix,
                "--logger", "zap", "--log-level", "warn"]

    def start(self):
        user, data = pwd.getpwnam(USER), f"{self.lab.dir}/{self.name}"
        os.makedirs(data, mode=0o700, exist_ok=True)
        os.chown(data, user.pw_uid, user.pw_gid)
        self.pid = self.lab.start_on(self.name, USER, self.argv())

    def signal(self, sig):
        self.lab.signal_child(self.pid, sig)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.lab.wait_exit(self.pid, 5)

    def post(self, path, body, timeout=2.0):
        conn = http.client.HTTPConnection(self.address, 2379, timeout=timeout)
        try:
            conn.request("POST", path, json.dumps(body))
            answer = conn.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            conn.close()

    def is_healthy(self):
        """A linearizable read succeeds."""
        try:
            return self.post("/v3/kv/range", {"key": _b64("health")}, 1.0)[0] == 200
        except (OSError, ValueError, http.client.HTTPException):
            return False

    def is_leader(self):
        try:
            _, answer = self.post("/v3/maintenance/status", {}, 1.0)
            return answer["leader"] == answer["header"]["member_id"]
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            return False


def _b64(text):
    return base64.b64encode(text.encode()).decode()


def read_prefix(members, prefix):
    """Keys below prefix as {name: text}; None when no member answers."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    for member in members:
        try:
            status, answer = member.post("/v3/kv/range",
                                         {"key": _b64(prefix), "range_end": _b64(end)}, 1.0)
        except (OSError, ValueError, http.client.HTTPException):
            continue
        if status != 200:
            continue
        return {base64.b64decode(kv["key"]).decode()[len(prefix):]:
                base64.b64decode(kv.get("value", "")).decode() for kv in answer.get("kvs", [])}
    return None

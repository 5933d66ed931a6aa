"""One node: an address, PostgreSQL and its agent."""

import base64
import http.client
import json
import os
import pwd
import signal
import subprocess

from . import proc, yamlout

USER = "postgres"
PASSWORDS = {"superuser": ("postgres", "super-secret"), "replication": ("replicator", "rep-secret"),
             "rewind": ("rewinder", "rewind-secret")}
REST_USER, REST_PASSWORD = "admin", "rest-secret"


class Node:
    def __init__(self, lab, name):
        self.lab, self.name = lab, name
        self.address = lab.net.addresses[name]
        self.dir = f"{lab.dir}/{name}"
        self.data = f"{self.dir}/data"
        self.config = f"{self.dir}/{name}.yml"
        self.log = f"{lab.dir}/log/{name}.log"
        self.pid = None
        self.is_frozen = False

    # ---- configuration -------------------------------------------------------------------

    def settings(self):
        lab = self.lab
        auth = {kind: {"username": u, "password": p} for kind, (u, p) in PASSWORDS.items()}
        hba = [f"local all all trust",
               f"host replication {PASSWORDS['replication'][0]} {lab.net.subnet}.0/24 scram-sha-256",
               f"host all all {lab.net.subnet}.0/24 scram-sha-256"]
        return {
            "scope": lab.scope, "name": self.name,
            "restapi": {"listen": f"{self.address}:8008",
                        "connect_address": f"{self.address}:8008",
                        "authentication": {"username": REST_USER, "password": REST_PASSWORD}},
            "etcd3": {"hosts": [f"{m.address}:2379" for m in lab.etcd]},
            "bootstrap": {
                "dcs": {"ttl": lab.ttl, "loop_wait": lab.loop_wait,
                        "retry_timeout": lab.retry_timeout,
                        "maximum_lag_on_failover": 1048576,
                        "postgresql": {
                            "use_pg_rewind": True,
                            "remove_data_directory_on_rewind_failure": True,
                            "remove_data_directory_on_diverged_timelines": True,
                            "parameters": {"max_connections": 60, "max_wal_senders": 10,
                                           "max_replication_slots": 10, "wal_keep_size": "128MB",
                                           "shared_buffers": "32MB", "hot_standby": "on",
                                           "log_line_prefix": "%m [%p] ", "log_checkpoints": "on",
                                           "wal_log_hints": "on"}}},
                "initdb": [{"encoding": "UTF8"}, "data-checksums"]},
            "postgresql": {
                "listen": f"{self.address}:5432", "connect_address": f"{self.address}:5432",
                "data_dir": self.data, "bin_dir": lab.pg_bin, "pgpass": f"{self.dir}/pgpass",
                "authentication": auth, "pg_hba": hba,
                "parameters": {"unix_socket_directories": self.dir}},
            "tags": {"nofailover": False, "noloadbalance": False, "clonefrom": False},
        }

    def write_config(self, change=None):
        """change: a function that edits the settings before they are written."""
        user = pwd.getpwnam(USER)
        os.makedirs(self.dir, mode=0o750, exist_ok=True)
        os.chown(self.dir, user.pw_uid, user.pw_gid)
        settings = self.settings()
        if change:
            change(settings)
        with open(self.config, "w", encoding="utf-8") as f:
            os.fchmod(f.fileno(), 0o600)
            os.fchown(f.fileno(), user.pw_uid, user.pw_gid)
            f.write(yamlout.dump(settings))

    # ---- the agent -----------------------------------------------------------------------

    def start(self):
        """Start the agent."""
        if not os.path.exists(self.config):
            self.write_config()
        self.pid = self.lab.start_on(self.name, USER, self.lab.agent_argv(self.config),
                                     log=self.log, cwd=self.dir)
        self.is_frozen = False

    def is_agent_alive(self):
        return self.pid is not None and self.lab.is_running(self.pid)

    def signal_agent(self, sig):
        self.lab.signal_child(self.pid, sig)

    def kill_agent(self):
        self.signal_agent(signal.SIGKILL)
        self.lab.wait_exit(self.pid, 5)

    def freeze_agent(self):
        self.signal_agent(signal.SIGSTOP)
        self.is_frozen = True

    def thaw_agent(self):
        self.signal_agent(signal.SIGCONT)
        self.is_frozen = False

    def stop_agent(self, timeout=30):
        """SIGTERM, the orderly way, which stops PostgreSQL too."""
        self.signal_agent(signal.SIGTERM)
        return self.lab.wait_exit(self.pid, timeout)

    def guard_pids(self):
        return [p for p in self.pids() if proc.exe_name(p) == "dragent-guard"]

    # ---- the whole node ------------------------------------------------------------------

    def pids(self):
        return proc.in_netns(self.lab.net.inode(self.name))

    def die(self):
        """Power cut: the cable first, so that no dying process says goodbye, then everything."""
        self.lab.net.link(self.name, False)
        if not proc.kill_netns(self.lab.net.inode(self.name)):
            raise RuntimeError(f"{self.name}: processes survive SIGKILL")
        self.lab.wait_exit(self.pid, 5)

    def come_back(self):
        self.lab.net.link(self.name, True)
        self.start()

    # ---- PostgreSQL ----------------------------------------------------------------------

    def postmaster(self):
        """(pid, start time) of the running postmaster of this node, or None."""
        try:
            with open(f"{self.data}/postmaster.pid", encoding="ascii") as f:
                pid = int(f.readline())
        except (OSError, ValueError):
            return None
        if not self._is_postmaster(pid):
            return None
        started = proc.start_time(pid)
        return (pid, started) if started is not None else None

    def _is_postmaster(self, pid):
        return (proc.is_alive(pid) and proc.exe_name(pid) == "postgres"
                and proc.netns_inode(pid) == self.lab.net.inode(self.name))

    def kill_postmaster(self, sig=signal.SIGKILL):
        found = self.postmaster()
        if not found or not proc.send(found[0], sig, found[1], self._is_postmaster):
            raise RuntimeError(f"{self.name}: no postmaster to signal")
        return found

    def sql(self, text, timeout=5, user=None, dbname="postgres", check=True):
        """Rows as lists of text, by way of psql over the network."""
        name, password = user or PASSWORDS["superuser"]
        env = dict(os.environ, PGPASSWORD=password, PGCONNECT_TIMEOUT="2", LC_ALL="C.UTF-8")
        argv = [f"{self.lab.pg_bin}/psql", "-h", self.address, "-U", name, "-d", dbname,
                "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", text]
        try:
            done = proc.run(argv, check=False, timeout=timeout, env=env)
        except subprocess.TimeoutExpired:
            if check:
                raise RuntimeError(f"{self.name}: no answer in {timeout} s to: {text}") from None
            return None
        if done.returncode != 0:
            if check:
                raise RuntimeError(f"{self.name}: {done.stderr.strip()} (asked: {text})")
            return None
        return [line.split("\t") for line in done.stdout.splitlines()]

    def is_writable(self):
        return self.sql("SELECT pg_is_in_recovery()", check=False, timeout=3) == [["f"]]

    def streams_from(self, primary):
        """This standby receives from that node and is shown there as streaming."""
        rows = self.sql("SELECT status, sender_host FROM pg_stat_wal_receiver", check=False, timeout=3)
        if not rows or rows[0] != ["streaming", primary.address]:
            return False
        rows = primary.sql("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND "
                           f"application_name = '{self.name}'", check=False, timeout=3)
        return bool(rows)

    # ---- REST ----------------------------------------------------------------------------

    def rest(self, method, path, body=None, timeout=3.0, auth=True):
        """(status, text); (0, reason) when there is no answer."""
        conn = http.client.HTTPConnection(self.address, 8008, timeout=timeout)
        headers = {}
        if auth:
            token = base64.b64encode(f"{REST_USER}:{REST_PASSWORD}".encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        try:
            conn.request(method, path, None if body is None else json.dumps(body), headers)
            answer = conn.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as e:
            return 0, str(e)
        finally:
            conn.close()

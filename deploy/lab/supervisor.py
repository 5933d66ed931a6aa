"""The lab's init: starts the hosts' programs, reaps every orphan, and cleans up.

One process for each lab, started by Lab and talked to over a socket in lines of JSON. It is the
sub-reaper of all that runs in the lab, so that a dead postmaster vanishes at once, as below
systemd. When the other end of the socket closes (the harness ended, was killed, or asked for it)
it ends every process in the lab's namespaces, removes them and the lab's directory, and exits.

    -> {"start": argv, "id": n, "log": file, "env": {...}, "cwd": dir}
    <- {"started": pid, "id": n}   or   {"error": text, "id": n}
    <- {"exit": pid, "status": n}          (n as of subprocess: negative = signal)
    -> {"keep": true}                      leave the directory
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys

from . import net, proc


def reap(sock):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        say(sock, {"exit": pid, "status": os.waitstatus_to_exitcode(status)})


def say(sock, message):
    try:
        sock.sendall((json.dumps(message) + "\n").encode())
    except OSError:
        pass  # the harness is gone: the loop sees the end of the socket


def start(sock, order):
    try:
        with open(order["log"], "ab") as log:
            child = subprocess.Popen(order["start"], stdin=subprocess.DEVNULL, stdout=log,
                                     stderr=log, env=order["env"], cwd=order["cwd"],
                                     start_new_session=True)
        child.returncode = 0  # reap() is the only one that waits
        say(sock, {"started": child.pid, "id": order["id"]})
    except OSError as e:
        say(sock, {"error": str(e), "id": order["id"]})


def serve(sock):
    """Until the socket ends. Returns True if the directory is to be kept."""
    keep, pending = False, b""
    wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    poller.register(wake_r, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd == wake_r:
                os.read(wake_r, 4096)
                reap(sock)
                continue
            try:
                data = sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                return keep
            pending += data
            *lines, pending = pending.split(b"\n")
            for line in lines:
                order = json.loads(line)
                if "start" in order:
                    start(sock, order)
                else:
                    keep = bool(order.get("keep"))


def main():
    fd, lock_fd, prefix, directory, harness = sys.argv[1:6]
    del lock_fd  # held open for life: the lab's number is taken as long as we live
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.SIG_IGN)
    proc.become_subreaper()
    keep = True
    try:
        keep = serve(socket.socket(fileno=int(fd)))
    finally:
        net.remove(prefix, exclude=(os.getpid(), int(harness)))
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()

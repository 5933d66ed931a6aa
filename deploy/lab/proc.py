"""Processes, named so that a signal never reaches a stranger.

A process is its pid *and* its start time; signals go through a pidfd that is opened first and
checked after, so that a reused pid is noticed.
"""

import ctypes
import os
import signal
import subprocess

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def stat_fields(pid):
    """Fields of /proc/PID/stat after the command, [0] being the state; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def start_time(pid):
    """Ticks since boot at which the process started, or None."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def is_alive(pid):
    """A zombie is dead."""
    fields = stat_fields(pid)
    return fields is not None and fields[0] not in "ZX"


def state(pid):
    fields = stat_fields(pid)
    return fields[0] if fields else None


def exe_name(pid):
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
    except OSError:
        return None


def netns_inode(pid):
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def send(pid, sig, started=None, check=None):
    """Signal the process `pid` that began at `started` and for which check(pid) holds.

    Returns False when it is not there any more.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if started is not None and start_time(pid) != started:
            return False
        if check is not None and not check(pid):
            return False
        signal.pidfd_send_signal(fd, sig)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def in_netns(inode, exclude=()):
    """Pids of the processes that live in the network namespace, zombies left out."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in exclude and netns_inode(name) == inode:
            found.append(int(name))
    return found


def kill_netns(inode, exclude=(), sig=signal.SIGKILL, rounds=200):
    """End every process of a namespace; repeats until none is left."""
    for _ in range(rounds):
        pids = [p for p in in_netns(inode, exclude) if is_alive(p)]
        if not pids:
            return True
        for pid in pids:
            send(pid, sig, check=lambda p: netns_inode(p) == inode)
        for pid in pids:
            _await_exit(pid, 0.05)
    return False


def _await_exit(pid, seconds):
    import select
    try:
        fd = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.poll(seconds * 1000)
    finally:
        os.close(fd)


def set_netns(fd):
    """Move this thread, and what it starts later, to a network namespace."""
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def become_subreaper():
    """Orphans below this process become its children, as below init."""
    PR_SET_CHILD_SUBREAPER = 36
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def run(argv, check=True, timeout=60, **kwargs):
    """Run a tool to its end, with a deadline; its words are in the exception if it fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=timeout, check=False, **kwargs)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit status {done.returncode}: "
                           f"{done.stderr.strip() or done.stdout.strip()}")
    return done

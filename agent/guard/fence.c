/*
 * fence.c - the processes of one server: found in /proc, stopped, killed, counted.
 *
 * The order is measured, not taste: stop first, kill after.  A killed backend needs CPU to die and takes it from us,
 * so that in a plain kill loop the last victims go on acknowledging for 100 ms and more; a stopped one needs nothing.
 * The postmaster is stopped first (it would start new ones) and killed last (its death loses the list of its children).
 * Each child has its own session and group (PostgreSQL calls setsid()), so a group is what a child started, too.
 *
 * Without the postmaster its orphans are known by working directory and executable (SAFE-34).  A process in state D
 * can neither acknowledge nor be stopped: it counts as stopped, and dies as soon as its I/O comes back.
 * No malloc, no stdio streams; nothing here waits.
 */
#include "fence.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct proc_stat {
    char state;
    uint64_t start_ticks;
};

struct linux_dirent64 {
    uint64_t d_ino;
    int64_t d_off;
    unsigned short d_reclen;
    unsigned char d_type;
    char d_name[];
};

/* What to do with each process of a walk. */
struct walk {
    const struct fence *fence;
    int signo; /* 0 = only look */
    bool look; /* count into *ev, after the signal was sent */
    bool again; /* signal only those that still run */
    struct guard_event *ev;
};
typedef void (*visit_fn)(const struct walk *w, pid_t pid);

static bool proc_stat_read(const struct fence *f, pid_t pid, struct proc_stat *out);
static void signal_group(pid_t pid, int signo);
static bool postmaster_is_alive(const struct fence *f);

/* ---- public ------------------------------------------------------------------------------------------ */

bool fence_init(struct fence *f)
{
    memset(f, 0, sizeof *f);
    f->pidfd = -1;
    f->proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return f->proc_fd >= 0;
}

bool fence_start_ticks(const struct fence *f, pid_t pid, uint64_t *out_ticks)
{
    struct proc_stat st;

    if (!proc_stat_read(f, pid, &st) || st.state == 'Z' || st.state == 'X') {
        return false;
    }
    *out_ticks = st.start_ticks;
    return true;
}

int fence_process_open(const struct fence *f, pid_t pid, uint64_t start_ticks)
{
    uint64_t ticks;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);

    if (fd >= 0 && (!fence_start_ticks(f, pid, &ticks) || ticks != start_ticks)) {
        close(fd);
        return -1;
    }
    return fd;
}

bool fence_directory_set(struct fence *f, const char *data_dir)
{
    struct stat sb;

    if (stat(data_dir, &sb) != 0 || !S_ISDIR(sb.st_mode)) {
        return false;
    }
    f->dir_dev = sb.st_dev;
    f->dir_ino = sb.st_ino;
    f->dir_known = true;
    return true;
}

void fence_server_take(struct fence *f, pid_t pid, int pidfd)
{
    fence_server_drop(f);
    f->pidfd = pidfd;
    f->pid = pid;
}

void fence_server_drop(struct fence *f)
{
    if (f->pidfd >= 0) {
        close(f->pidfd);
    }
    f->pidfd = -1;
    f->pid = 0;
}

/* ---- /proc ------------------------------------------------------------------------------------------- */

static bool proc_stat_read(const struct fence *f, pid_t pid, struct proc_stat *out)
{
    char path[32];
    char buf[1024];
    char *p;
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof path, "%d/stat", (int)pid);
    fd = openat(f->proc_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    n = read(fd, buf, sizeof buf - 1);
    close(fd);
    if (n <= 0) {
        return false;
    }
    buf[n] = '\0';
    p = strrchr(buf, ')'); /* the name before it may hold anything */
    if (p == NULL || p[1] != ' ' || p[2] == '\0') {
        return false;
    }
    out->state = p[2];
    p += 2;
    for (int field = 3; field < 22; field++) {
        p = strchr(p, ' ');
        if (p == NULL) {
            return false;
        }
        p++;
    }
    out->start_ticks = strtoull(p, NULL, 10); /* the kernel's own number */
    return true;
}

/* Does it run PostgreSQL's program?  Exiting processes (memory given back already) count as such. */
static bool exe_is_postgres(const struct fence *f, const char *pid_name)
{
    static const char want[] = "postgres";
    static const char deleted[] = " (deleted)"; /* the package was upgraded under the running server */
    char path[32];
    char exe[GUARD_PATH_MAX * 4];
    ssize_t n;

    (void)snprintf(path, sizeof path, "%.20s/exe", pid_name);
    n = readlinkat(f->proc_fd, path, exe, sizeof exe);
    if (n < 0) {
        return errno == ENOENT;
    }
    if ((size_t)n >= sizeof deleted - 1 &&
        memcmp(exe + n - (sizeof deleted - 1), deleted, sizeof deleted - 1) == 0) {
        n -= (ssize_t)(sizeof deleted - 1);
    }
    return (size_t)n >= sizeof want - 1 && memcmp(exe + n - (sizeof want - 1), want, sizeof want - 1) == 0;
}

static bool is_of_server(const struct fence *f, const char *pid_name)
{
    char path[32];
    struct stat sb;

    (void)snprintf(path, sizeof path, "%.20s/cwd", pid_name);
    return fstatat(f->proc_fd, path, &sb, 0) == 0 && sb.st_dev == f->dir_dev && sb.st_ino == f->dir_ino &&
           exe_is_postgres(f, pid_name);
}

/* Each process of the server that works in its data directory, the postmaster excepted. */
static void walk_directory(const struct walk *w, visit_fn visit)
{
    static _Alignas(struct linux_dirent64) char buf[32768];
    int fd = openat(w->fence->proc_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long n;

    if (fd < 0) {
        return;
    }
    while ((n = syscall(SYS_getdents64, fd, buf, sizeof buf)) > 0) {
        for (long at = 0; at < n;) {
            struct linux_dirent64 d;
            const char *name = buf + at + offsetof(struct linux_dirent64, d_name);

            memcpy(&d, buf + at, sizeof d);
            at += d.d_reclen;
            if (name[0] >= '1' && name[0] <= '9' && is_of_server(w->fence, name)) {
                pid_t pid = (pid_t)strtol(name, NULL, 10); /* the kernel's own number */

                if (pid > 1 && pid != w->fence->pid) {
                    visit(w, pid);
                }
            }
        }
    }
    close(fd);
}

/* Each child of the living postmaster. */
static void walk_children(const struct walk *w, visit_fn visit)
{
    char path[64];
    char buf[4096];
    pid_t pid = 0;
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof path, "%d/task/%d/children", (int)w->fence->pid, (int)w->fence->pid);
    fd = openat(w->fence->proc_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    while ((n = read(fd, buf, sizeof buf)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (buf[i] >= '0' && buf[i] <= '9') {
                pid = pid * 10 + (buf[i] - '0');
            } else {
                if (pid > 1) {
                    visit(w, pid);
                }
                pid = 0;
            }
        }
    }
    if (pid > 1) {
        visit(w, pid);
    }
    close(fd);
}

/* ---- visits ------------------------------------------------------------------------------------------ */

static void signal_group(pid_t pid, int signo)
{
    /* Just forked and not yet leader of its own group: alone. */
    if (kill(-pid, signo) != 0) {
        (void)kill(pid, signo); /* gone already: what was wanted */
    }
}

static bool is_running(char state)
{
    return strchr("TtZXxD", state) == NULL;
}

static void visit_signal(const struct walk *w, pid_t pid)
{
    signal_group(pid, w->signo);
}

static void count(const struct walk *w, const struct proc_stat *st)
{
    if (st->state == 'Z' || st->state == 'X' || st->state == 'x') {
        return;
    }
    w->ev->left++;
    if (is_running(st->state)) {
        w->ev->running++;
    }
    if (st->state == 'D') {
        w->ev->stuck++;
    }
}

static void visit_look(const struct walk *w, pid_t pid)
{
    struct proc_stat st;

    if (!proc_stat_read(w->fence, pid, &st)) {
        return;
    }
    count(w, &st);
    if (w->again && is_running(st.state)) {
        signal_group(pid, w->signo);
    }
}

static void visit_signal_and_look(const struct walk *w, pid_t pid)
{
    signal_group(pid, w->signo);
    visit_look(w, pid);
}

/* ---- the passes -------------------------------------------------------------------------------------- */

static bool postmaster_is_alive(const struct fence *f)
{
    struct pollfd p = {.fd = f->pidfd, .events = POLLIN};

    return f->pidfd >= 0 && poll(&p, 1, 0) == 0; /* readable = ended, zombies included */
}

static void postmaster_signal(const struct fence *f, int signo)
{
    (void)syscall(SYS_pidfd_send_signal, f->pidfd, signo, NULL, 0); /* ESRCH: gone, as wanted */
}

static void postmaster_count(const struct walk *w)
{
    struct proc_stat st;

    if (postmaster_is_alive(w->fence) && proc_stat_read(w->fence, w->fence->pid, &st)) {
        count(w, &st);
    }
}

static void pass_freeze(const struct fence *f, int signo, struct guard_event *ev)
{
    struct walk w = {.fence = f, .signo = signo, .ev = ev};

    if (!postmaster_is_alive(f)) {
        walk_directory(&w, visit_signal_and_look);
        return;
    }
    postmaster_signal(f, signo);
    walk_children(&w, visit_signal);
    /* The list of a postmaster that was stopped before it is read is complete: look in this order. */
    postmaster_count(&w);
    w.again = true;
    walk_children(&w, visit_look);
}

static void pass_kill(const struct fence *f, int signo, struct guard_event *ev)
{
    struct walk w = {.fence = f, .signo = signo, .ev = ev};

    if (postmaster_is_alive(f)) {
        walk_children(&w, visit_signal);
        postmaster_signal(f, signo);
    }
    postmaster_count(&w);
    if (f->dir_known) {
        walk_directory(&w, visit_signal_and_look);
    }
}

void fence_pass(const struct fence *f, enum guard_pass pass, struct guard_event *ev)
{
    struct walk w = {.fence = f, .ev = ev};

    ev->running = 0;
    ev->left = 0;
    ev->stuck = 0;
    switch (pass) {
    case GUARD_PASS_FREEZE:
        pass_freeze(f, SIGSTOP, ev);
        break;
    case GUARD_PASS_KILL:
        pass_kill(f, SIGKILL, ev);
        break;
    case GUARD_PASS_COUNT_ONLY:
        postmaster_count(&w);
        walk_directory(&w, visit_look);
        break;
    case GUARD_PASS_NONE:
        break;
    }
}

void fence_dry_run(const struct fence *f)
{
    struct fence self = *f;
    struct guard_event ev = {0};

    self.dir_known = true; /* device and inode are still zero: nothing matches */
    self.pid = getpid();
    self.pidfd = (int)syscall(SYS_pidfd_open, self.pid, 0);
    pass_freeze(&self, 0, &ev);
    pass_kill(&self, 0, &ev);
    if (self.pidfd >= 0) {
        close(self.pidfd);
    }
}

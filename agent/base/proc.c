/*
 * proc.c - processes that are not our children: identity (pid and start time), watching and signalling by pidfd.
 *
 * A pid alone proves nothing, as it is used again; pid and start time do.  A pidfd is taken first and the start time
 * compared after, so that the descriptor is known to be the right process's.  A zombie counts as ended.
 */
#include <dragent/io.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>
#include <uv.h>

#define STAT_FIELD_START 22

struct dra_procwatch {
    uv_poll_t poll;
    int fd;
    struct dra_proc proc;
    dra_procwatch_cb cb;
    void *arg;
};

/* State letter and start time from /proc/PID/stat.  The name in field 2 may hold blanks and brackets. */
static int read_stat(pid_t pid, char *out_state, uint64_t *out_start)
{
    char path[40];
    char text[1024];
    const char *p;
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno;
    }
    n = read(fd, text, sizeof text - 1);
    if (n <= 0) {
        int why = n < 0 ? errno : ESRCH;

        (void)close(fd);
        return why;
    }
    (void)close(fd);
    text[n] = '\0';
    p = strrchr(text, ')');
    if (p == NULL || p[1] != ' ') {
        return EPROTO;
    }
    p += 2; /* field 3 */
    *out_state = *p;
    for (int field = 3; field < STAT_FIELD_START; field++) {
        p = strchr(p, ' ');
        if (p == NULL) {
            return EPROTO;
        }
        p++;
    }
    return dra_parse_u64(p, strcspn(p, " \n"), out_start) == DRA_OK ? 0 : EPROTO;
}

int dra_proc_identify(pid_t pid, struct dra_proc *out, struct dra_err *err)
{
    char state = '?';
    uint64_t start = 0;
    int sys;

    if (pid <= 0) {
        return dra_err_set(err, DRA_EINVAL, "invalid pid %d", (int)pid);
    }
    sys = read_stat(pid, &state, &start);
    if (sys == ENOENT || sys == ESRCH || state == 'Z' || state == 'X') {
        return dra_err_set(err, DRA_ENOTFOUND, "process %d is gone", (int)pid);
    }
    if (sys != 0) {
        return dra_err_sys(err, sys, "cannot read /proc/%d/stat", (int)pid);
    }
    *out = (struct dra_proc){.pid = pid, .start_ticks = start};
    return DRA_OK;
}

bool dra_proc_is_alive(const struct dra_proc *p)
{
    struct dra_proc now;

    return p->pid > 0 && dra_proc_identify(p->pid, &now, NULL) == DRA_OK &&
           now.start_ticks == p->start_ticks;
}

/* A pidfd that is known to be of this very process. */
static int open_pidfd(const struct dra_proc *p, int *out_fd, struct dra_err *err)
{
    int fd;

    if (p->pid <= 0) {
        return dra_err_set(err, DRA_EINVAL, "invalid pid %d", (int)p->pid);
    }
    fd = pidfd_open(p->pid, 0);
    if (fd < 0) {
        int sys = errno;

        return sys == ESRCH ? dra_err_set(err, DRA_ENOTFOUND, "process %d is gone", (int)p->pid)
                            : dra_err_sys(err, sys, "pidfd_open of process %d", (int)p->pid);
    }
    if (!dra_proc_is_alive(p)) {
        (void)close(fd);
        return dra_err_set(err, DRA_ENOTFOUND, "process %d is gone", (int)p->pid);
    }
    *out_fd = fd;
    return DRA_OK;
}

static void on_watch_closed(uv_handle_t *h)
{
    struct dra_procwatch *w = h->data;

    (void)close(w->fd);
    free(w);
}

static void on_pidfd(uv_poll_t *h, int status, int events)
{
    struct dra_procwatch *w = h->data;

    (void)events;
    if (status == 0 && dra_proc_is_alive(&w->proc)) {
        return; /* not expected: a pidfd is readable only when the process has ended */
    }
    (void)uv_poll_stop(h);
    w->cb(w->proc, w->arg);
}

int dra_procwatch_open(struct uv_loop_s *loop, struct dra_proc p, dra_procwatch_cb cb, void *arg,
                       struct dra_procwatch **out, struct dra_err *err)
{
    struct dra_procwatch *w;
    int fd = -1;
    int rc = open_pidfd(&p, &fd, err);

    if (rc != DRA_OK) {
        return rc;
    }
    w = calloc(1, sizeof *w);
    if (w == NULL) {
        (void)close(fd);
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    *w = (struct dra_procwatch){.fd = fd, .proc = p, .cb = cb, .arg = arg};
    rc = uv_poll_init(loop, &w->poll, fd);
    if (rc != 0) {
        (void)close(fd);
        free(w);
        return dra_err_sys(err, -rc, "poll of a pidfd");
    }
    w->poll.data = w;
    rc = uv_poll_start(&w->poll, UV_READABLE, on_pidfd);
    if (rc != 0) {
        uv_close((uv_handle_t *)&w->poll, on_watch_closed);
        return dra_err_sys(err, -rc, "poll of a pidfd");
    }
    *out = w;
    return DRA_OK;
}

void dra_procwatch_close(struct dra_procwatch *w)
{
    if (w == NULL) {
        return;
    }
    (void)uv_poll_stop(&w->poll);
    uv_close((uv_handle_t *)&w->poll, on_watch_closed);
}

int dra_proc_signal(const struct dra_proc *p, int signo, struct dra_err *err)
{
    int fd = -1;
    int rc = open_pidfd(p, &fd, err);

    if (rc != DRA_OK) {
        return rc;
    }
    if (pidfd_send_signal(fd, signo, NULL, 0) != 0) {
        int sys = errno;

        rc = sys == ESRCH ? dra_err_set(err, DRA_ENOTFOUND, "process %d is gone", (int)p->pid)
                          : dra_err_sys(err, sys, "signal %d to process %d", signo, (int)p->pid);
    }
    (void)close(fd);
    return rc;
}

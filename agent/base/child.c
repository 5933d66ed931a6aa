/*
 * child.c - child processes: argv, no shell, a session of their own, output in a bounded ring.
 *
 * Promises: the child has no descriptor of ours beyond 0, 1, 2, default signal actions and an empty signal mask.
 * It is reaped by its pidfd (no SIGCHLD handler, nobody else's children).  When it was told to end, its whole group
 * is killed before it is reaped, so that the group's number still is its own.  The callback comes only when the
 * process is gone for certain: a child in an uninterruptible sleep delays it.
 * Threads: loop thread only.
 */
#include <dragent/io.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#define RING_BYTES ((size_t)16384)
#define TERM_TO_KILL_MS 2000
#define READS_PER_TURN 16
#define DRAIN_BYTES_MAX ((size_t)1 << 20)
#define SPAWN_FD_MIN 3

enum stage { STAGE_RUNNING = 0, STAGE_TERM_SENT, STAGE_KILL_SENT };

struct dra_child {
    uv_poll_t pid_poll;
    uv_poll_t out_poll;
    struct dra_timer *timer; /* deadline, then SIGKILL; for a failed start: the callback's turn */
    int open_handles;
    pid_t pid; /* 0: exec failed */
    int pid_fd;
    int out_fd;
    bool out_ended;
    enum stage stage;
    int stop_code; /* why it was told to end */
    dra_child_out_cb on_output;
    dra_child_cb cb;
    void *arg;
    size_t len;
    char out[2 * RING_BYTES + 1]; /* the last RING_BYTES count */
};

struct spawn_fds {
    int in;
    int out_read;
    int out_write;
};

/* ---- starting ---- */

/* Descriptors 0 to 2 are what we are about to replace: keep ours above. */
static int lift_fd(int fd)
{
    int lifted;

    if (fd < 0 || fd >= SPAWN_FD_MIN) {
        return fd;
    }
    lifted = fcntl(fd, F_DUPFD_CLOEXEC, SPAWN_FD_MIN);
    (void)close(fd);
    return lifted;
}

static int open_stdin(const char *data)
{
    size_t left = data != NULL ? strlen(data) : 0;
    int fd;

    if (data == NULL) {
        return lift_fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
    }
    /* a file in memory instead of a pipe: nothing to feed while the child runs */
    fd = lift_fd(memfd_create("stdin", MFD_CLOEXEC));
    while (fd >= 0 && left > 0) {
        ssize_t n = write(fd, data, left);

        if (n <= 0) {
            (void)close(fd);
            return -1;
        }
        data += n;
        left -= (size_t)n;
    }
    if (fd >= 0) {
        (void)lseek(fd, 0, SEEK_SET);
    }
    return fd;
}

static void close_fds(const struct spawn_fds *f)
{
    if (f->in >= 0) {
        (void)close(f->in);
    }
    if (f->out_read >= 0) {
        (void)close(f->out_read);
    }
    if (f->out_write >= 0) {
        (void)close(f->out_write);
    }
}

static int open_fds(const struct dra_child_spec *spec, struct spawn_fds *f, struct dra_err *err)
{
    int ends[2] = {-1, -1};
    int sys;

    *f = (struct spawn_fds){-1, -1, -1};
    f->in = open_stdin(spec->stdin_data);
    if (f->in >= 0 && pipe2(ends, O_CLOEXEC) == 0) {
        f->out_read = lift_fd(ends[0]);
        f->out_write = lift_fd(ends[1]);
        if (f->out_read >= 0 && f->out_write >= 0 && fcntl(f->out_read, F_SETFL, O_NONBLOCK) == 0) {
            return DRA_OK;
        }
    }
    sys = errno;
    close_fds(f);
    return dra_err_sys(err, sys, "descriptors for %s", spec->argv[0]);
}

/* Does "K=V" (or "K") name the same variable as `entry`? */
static bool same_variable(const char *entry, const char *other)
{
    size_t n = strcspn(other, "=");

    return strncmp(entry, other, n) == 0 && entry[n] == '=';
}

/* Our environment with the additions and removals; the array is the caller's, the strings are borrowed. */
static char **build_env(const char *const *changes)
{
    size_t ours = 0;
    size_t more = 0;
    size_t n = 0;
    char **env;

    while (environ[ours] != NULL) {
        ours++;
    }
    while (changes != NULL && changes[more] != NULL) {
        more++;
    }
    env = calloc(ours + more + 1, sizeof *env);
    if (env == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < ours; i++) {
        bool replaced = false;

        for (size_t k = 0; k < more && !replaced; k++) {
            replaced = same_variable(environ[i], changes[k]);
        }
        if (!replaced) {
            env[n++] = environ[i];
        }
    }
    for (size_t k = 0; k < more; k++) {
        if (strchr(changes[k], '=') != NULL) {
            env[n++] = (char *)(uintptr_t)changes[k]; /* posix_spawn does not write to it */
        }
    }
    return env;
}

static int spawn_actions(posix_spawn_file_actions_t *a, const struct dra_child_spec *spec,
                         const struct spawn_fds *f)
{
    int sys = posix_spawn_file_actions_adddup2(a, f->in, STDIN_FILENO);

    if (sys == 0) {
        sys = posix_spawn_file_actions_adddup2(a, f->out_write, STDOUT_FILENO);
    }
    if (sys == 0 && !spec->stdout_only) {
        sys = posix_spawn_file_actions_adddup2(a, f->out_write, STDERR_FILENO);
    }
    if (sys == 0) {
        sys = posix_spawn_file_actions_addclosefrom_np(a, SPAWN_FD_MIN);
    }
    if (sys == 0 && spec->cwd != NULL) {
        sys = posix_spawn_file_actions_addchdir_np(a, spec->cwd);
    }
    return sys;
}

/* 0 or an errno.  posix_spawn reports a failed exec, and starts nothing then. */
static int spawn(const struct dra_child_spec *spec, const struct spawn_fds *f, pid_t *out_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none;
    sigset_t all;
    char **env = build_env(spec->env);
    int sys = env != NULL ? 0 : ENOMEM;

    if (sys != 0) {
        return sys;
    }
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawnattr_init(&attr);
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    (void)posix_spawnattr_setsigmask(&attr, &none);
    (void)posix_spawnattr_setsigdefault(&attr, &all);
    (void)posix_spawnattr_setflags(&attr, (short)(POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
                                                  POSIX_SPAWN_SETSIGDEF));
    sys = spawn_actions(&actions, spec, f);
    if (sys == 0) {
        sys = posix_spawnp(out_pid, spec->argv[0], &actions, &attr,
                           (char *const *)(uintptr_t)spec->argv, env);
    }
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&actions);
    free(env);
    return sys;
}

/* ---- output ---- */

static void keep_output(struct dra_child *c, const char *p, size_t n)
{
    if (n > RING_BYTES) {
        p += n - RING_BYTES;
        n = RING_BYTES;
    }
    if (c->len + n > 2 * RING_BYTES) {
        memmove(c->out, c->out + c->len - RING_BYTES, RING_BYTES);
        c->len = RING_BYTES;
    }
    memcpy(c->out + c->len, p, n);
    c->len += n;
}

/* One read.  0 = nothing more for now. */
static size_t read_output(struct dra_child *c)
{
    char block[4096];
    ssize_t n;

    if (c->out_ended) {
        return 0;
    }
    do {
        n = read(c->out_fd, block, sizeof block);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        keep_output(c, block, (size_t)n);
        if (c->on_output != NULL) {
            c->on_output(block, (size_t)n, c->arg);
        }
        return (size_t)n;
    }
    if (n == 0 || errno != EAGAIN) {
        c->out_ended = true;
        (void)uv_poll_stop(&c->out_poll);
    }
    return 0;
}

static void on_output_readable(uv_poll_t *h, int status, int events)
{
    struct dra_child *c = h->data;

    (void)status; /* a broken pipe shows in read() */
    (void)events;
    for (int i = 0; i < READS_PER_TURN && read_output(c) > 0; i++) {
    }
}

/* ---- ending ---- */

static void free_child(struct dra_child *c)
{
    if (c->pid_fd >= 0) {
        (void)close(c->pid_fd);
    }
    if (c->out_fd >= 0) {
        (void)close(c->out_fd);
    }
    free(c);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct dra_child *c = h->data;

    if (--c->open_handles == 0) {
        free_child(c);
    }
}

static void finish(struct dra_child *c, struct dra_child_result *r)
{
    size_t shown = c->len < RING_BYTES ? c->len : RING_BYTES;

    c->out[c->len] = '\0';
    r->out = c->out + c->len - shown;
    r->out_len = shown;
    dra_timer_close(c->timer);
    c->timer = NULL;
    c->cb(r, c->arg);
    if (c->open_handles == 0) {
        free_child(c);
        return;
    }
    uv_close((uv_handle_t *)&c->out_poll, on_handle_closed);
    uv_close((uv_handle_t *)&c->pid_poll, on_handle_closed);
}

static void on_child_ended(uv_poll_t *h, int status, int events)
{
    struct dra_child *c = h->data;
    struct dra_child_result r = {.started = true, .exit_code = -1};
    siginfo_t si = {0};
    size_t drained = 0;
    size_t n;

    (void)status;
    (void)events;
    if (waitid(P_PIDFD, (id_t)c->pid_fd, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid == 0) {
        return; /* not ended yet */
    }
    (void)uv_poll_stop(h);
    if (c->stage != STAGE_RUNNING) {
        (void)kill(-c->pid, SIGKILL); /* the rest of the group; ESRCH = none left */
    }
    if (waitid(P_PIDFD, (id_t)c->pid_fd, &si, WEXITED | WNOHANG) != 0) {
        r.err_code = DRA_ECHILD; /* somebody else reaped it: the outcome is not known */
    } else if (si.si_code == CLD_EXITED) {
        r.exit_code = si.si_status;
        r.err_code = si.si_status == 0 ? DRA_OK : DRA_ECHILD;
    } else {
        r.term_signal = si.si_status;
        r.err_code = DRA_ECHILD;
    }
    if (c->stage != STAGE_RUNNING) {
        r.err_code = c->stop_code;
    }
    do {
        n = read_output(c); /* what is in the pipe; a grandchild may hold it open for longer */
        drained += n;
    } while (n > 0 && drained < DRAIN_BYTES_MAX);
    finish(c, &r);
}

static void tell_to_end(struct dra_child *c, int code)
{
    if (c->stage != STAGE_RUNNING || c->pid == 0) {
        return;
    }
    c->stage = STAGE_TERM_SENT;
    c->stop_code = code;
    (void)kill(-c->pid, SIGTERM); /* not reaped yet, so the number is its own */
    dra_timer_set(c->timer, dra_after(dra_now(), dra_ms(TERM_TO_KILL_MS)));
}

static void on_child_timer(void *arg)
{
    struct dra_child *c = arg;

    if (c->pid == 0) {
        struct dra_child_result r = {.exit_code = -1, .err_code = DRA_ECHILD};

        if (c->stage != STAGE_RUNNING) {
            r.err_code = c->stop_code;
        }
        finish(c, &r);
    } else if (c->stage == STAGE_RUNNING) {
        tell_to_end(c, DRA_ETIMEDOUT);
    } else if (c->stage == STAGE_TERM_SENT) {
        c->stage = STAGE_KILL_SENT;
        (void)kill(-c->pid, SIGKILL);
    }
}

/* ---- public ---- */

/* From here on the child runs: failures end it. */
static int watch(struct dra_child *c, struct uv_loop_s *loop, struct dra_err *err)
{
    int rc;

    c->pid_fd = pidfd_open(c->pid, 0);
    rc = c->pid_fd >= 0 ? uv_poll_init(loop, &c->pid_poll, c->pid_fd) : -errno;
    if (rc != 0) {
        return dra_err_sys(err, -rc, "watch of child %d", (int)c->pid);
    }
    c->pid_poll.data = c;
    c->open_handles++;
    rc = uv_poll_init(loop, &c->out_poll, c->out_fd);
    if (rc == 0) {
        c->out_poll.data = c;
        c->open_handles++;
        rc = uv_poll_start(&c->out_poll, UV_READABLE, on_output_readable);
    }
    if (rc == 0) {
        rc = uv_poll_start(&c->pid_poll, UV_READABLE, on_child_ended);
    }
    return rc == 0 ? DRA_OK : dra_err_sys(err, -rc, "watch of child %d", (int)c->pid);
}

static void abandon(struct dra_child *c)
{
    siginfo_t si;

    (void)kill(-c->pid, SIGKILL);
    (void)waitid(P_PID, (id_t)c->pid, &si, WEXITED); /* killed: short */
    dra_timer_close(c->timer);
    if (c->open_handles == 0) {
        free_child(c);
        return;
    }
    if (c->open_handles == 2) {
        uv_close((uv_handle_t *)&c->out_poll, on_handle_closed);
    }
    uv_close((uv_handle_t *)&c->pid_poll, on_handle_closed);
}

int dra_child_start(struct uv_loop_s *loop, const struct dra_child_spec *spec, dra_child_cb cb, void *arg,
                    struct dra_child **out, struct dra_err *err)
{
    struct spawn_fds fds;
    struct dra_child *c;
    int sys;
    int rc;

    if (spec->argv == NULL || spec->argv[0] == NULL) {
        return dra_err_set(err, DRA_EINVAL, "no program to start");
    }
    rc = open_fds(spec, &fds, err);
    if (rc != DRA_OK) {
        return rc;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL || dra_timer_open(loop, on_child_timer, c, &c->timer) != DRA_OK) {
        close_fds(&fds);
        free(c);
        return dra_err_set(err, DRA_ENOMEM, "out of memory or descriptors");
    }
    c->pid_fd = -1;
    c->cb = cb;
    c->arg = arg;
    c->on_output = spec->on_output;
    c->out_fd = fds.out_read;
    sys = spawn(spec, &fds, &c->pid);
    (void)close(fds.in);
    (void)close(fds.out_write);
    if (sys != 0) {
        struct dra_err why = {0};

        c->pid = 0;
        (void)dra_err_sys(&why, sys, "cannot start %s", spec->argv[0]);
        keep_output(c, why.msg, strlen(why.msg)); /* where the caller looks for reasons */
        dra_timer_set(c->timer, dra_now());
    } else {
        rc = watch(c, loop, err);
        if (rc != DRA_OK) {
            abandon(c);
            return rc;
        }
        dra_timer_set(c->timer, spec->not_after);
    }
    if (out != NULL) {
        *out = c;
    }
    return DRA_OK;
}

pid_t dra_child_pid(const struct dra_child *c)
{
    return c->pid;
}

void dra_child_cancel(struct dra_child *c)
{
    if (c == NULL) {
        return;
    }
    if (c->pid == 0 && c->stage == STAGE_RUNNING) {
        c->stage = STAGE_TERM_SENT; /* never ran: only the answer changes */
        c->stop_code = DRA_ECANCELED;
    }
    tell_to_end(c, DRA_ECANCELED);
}

/*
 * main.c - dragent-guard: the companion that ends a PostgreSQL server when its lease ends.
 *
 * It carries out what step.c says, and decides nothing: sockets, timer, stamp, processes (fence.c).  It outlives the
 * agent that started it, holds none of its descriptors (HA-194), links nothing but libc, allocates nothing after its
 * start, and parses nothing but one fixed struct (struct guard_order).
 *
 * Usage: dragent-guard RUNTIME_DIR [--foreground]
 * RUNTIME_DIR: on tmpfs, one per data directory, ours, mode 0700.  Exit status of the starter: 0 = the guard listens,
 * 3 = another guard lives in this directory, 1 = could not start (message on stderr), 2 = wrong arguments.
 */
#include "fence.h"

#include <dragent/guard_step.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CONNS_MAX = 8, AT_LISTEN = 0, AT_TIMER, AT_SIGNAL, AT_SERVER, AT_CONNS, POLL_MAX = AT_CONNS + CONNS_MAX };
enum { EXIT_OK = 0, EXIT_ERROR = 1, EXIT_USAGE = 2, EXIT_OTHER_GUARD = 3 };

struct guard {
    struct guard_state state;
    struct fence fence;
    struct pollfd fds[POLL_MAX]; /* fd -1 = none */
    int64_t timer_ns;            /* what the timer is set to */
    struct guard_stamp *slots;   /* two, mapped from the stamp's file */
    uint64_t stamp_seq;
    uint64_t own_start_ticks;
    char boot_id[GUARD_BOOT_ID_MAX];
    int candidate; /* pidfd of the process that the order at hand names, or -1 */
    bool ending;
};

static struct guard the_guard; /* static, so that all memory is there from the start */

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- actions ----------------------------------------------------------------------------------------- */

static void stamp_write(struct guard *g)
{
    struct guard_stamp *s;

    g->stamp_seq++;
    s = &g->slots[g->stamp_seq % 2]; /* the other one stays whole while this one is written */
    memset(s, 0, sizeof *s);
    s->magic = GUARD_MAGIC;
    s->version = GUARD_VERSION;
    s->size = sizeof *s;
    s->seq = g->stamp_seq;
    memcpy(s->boot_id, g->boot_id, sizeof s->boot_id);
    s->guard_pid = getpid();
    s->guard_start_ticks = g->own_start_ticks;
    s->written_ns = now_ns();
    s->view = g->state.view;
    memcpy(s->data_dir, g->state.data_dir, sizeof s->data_dir);
    s->sum = guard_stamp_sum(s);
}

static void timer_set(struct guard *g, int64_t at_ns)
{
    struct itimerspec it = {0};

    if (at_ns == g->timer_ns) {
        return;
    }
    g->timer_ns = at_ns;
    it.it_value.tv_sec = at_ns / 1000000000;
    it.it_value.tv_nsec = at_ns % 1000000000;
    (void)timerfd_settime(g->fds[AT_TIMER].fd, TFD_TIMER_ABSTIME, &it, NULL); /* cannot fail with these arguments */
}

/* A reader that does not read loses notes, never our time; each later message carries the whole view. */
static void message_send(int fd, const struct guard_reply *r)
{
    (void)send(fd, r, sizeof *r, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void notes_send(struct guard *g, const struct guard_actions *act)
{
    for (size_t i = 0; i < sizeof act->notes / sizeof act->notes[0] && act->notes[i] != GUARD_NOTE_NONE; i++) {
        struct guard_reply r;

        guard_step_note(&g->state, act->notes[i], now_ns(), &r);
        for (int c = AT_CONNS; c < POLL_MAX; c++) {
            if (g->fds[c].fd >= 0) {
                message_send(g->fds[c].fd, &r);
            }
        }
    }
}

/* One event, and the passes that follow from it.  conn: where the order came from, or -1. */
static void handle(struct guard *g, struct guard_event *ev, int conn)
{
    struct guard_actions act;

    ev->now_ns = now_ns();
    for (;;) {
        guard_step(&g->state, ev, &act);
        if (act.take_server) {
            fence_server_take(&g->fence, g->state.view.server_pid, g->candidate);
            g->fds[AT_SERVER].fd = g->candidate;
            g->candidate = -1;
        }
        if (act.drop_server) {
            fence_server_drop(&g->fence);
            g->fds[AT_SERVER].fd = -1;
        }
        if (act.stamp) {
            stamp_write(g);
        }
        if (act.reply) {
            message_send(conn, &act.answer);
        }
        notes_send(g, &act);
        g->ending = g->ending || act.exit;
        timer_set(g, act.timer_ns);
        if (act.pass == GUARD_PASS_NONE) {
            return;
        }
        memset(ev, 0, sizeof *ev);
        fence_pass(&g->fence, act.pass, ev);
        ev->kind = GUARD_EV_PASS;
        ev->now_ns = now_ns();
    }
}

static void handle_kind(struct guard *g, enum guard_event_kind kind)
{
    struct guard_event ev = {.kind = kind};

    for (int c = AT_CONNS; c < POLL_MAX; c++) {
        ev.agents += g->fds[c].fd >= 0 ? 1u : 0u;
    }
    handle(g, &ev, -1);
}

/* ---- what poll found --------------------------------------------------------------------------------- */

static void on_timer(struct guard *g)
{
    uint64_t expirations;

    if (read(g->fds[AT_TIMER].fd, &expirations, sizeof expirations) < 0) {
        return; /* set anew meanwhile: not due any more */
    }
    g->timer_ns = 0;
    handle_kind(g, GUARD_EV_TIMER);
}

static void on_server_exited(struct guard *g)
{
    g->fds[AT_SERVER].fd = -1; /* stays readable for ever; fence.c keeps the descriptor */
    handle_kind(g, GUARD_EV_SERVER_EXITED);
}

static void on_signal(struct guard *g)
{
    struct signalfd_siginfo si;

    if (read(g->fds[AT_SIGNAL].fd, &si, sizeof si) == (ssize_t)sizeof si && si.ssi_signo == SIGTERM &&
        g->state.view.armed == 0 && g->state.view.phase == GUARD_PHASE_NONE) {
        g->ending = true; /* a person tidies up; an armed guard does not go */
    }
}

static void on_connect(struct guard *g)
{
    int fd = accept4(g->fds[AT_LISTEN].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct ucred peer;
    socklen_t len = sizeof peer;

    if (fd < 0) {
        return;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && (peer.uid == geteuid() || peer.uid == 0)) {
        for (int c = AT_CONNS; c < POLL_MAX; c++) {
            if (g->fds[c].fd < 0) {
                g->fds[c].fd = fd;
                handle_kind(g, GUARD_EV_AGENTS);
                return;
            }
        }
    }
    close(fd); /* a stranger, or too many */
}

static void conn_close(struct guard *g, int c)
{
    close(g->fds[c].fd);
    g->fds[c].fd = -1;
    handle_kind(g, GUARD_EV_AGENTS);
}

static void on_message(struct guard *g, int c)
{
    static struct guard_order order;
    struct guard_event ev = {.kind = GUARD_EV_ORDER, .order = &order};
    ssize_t n = recv(g->fds[c].fd, &order, sizeof order, MSG_DONTWAIT | MSG_TRUNC);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n != (ssize_t)sizeof order) { /* gone, or not one of ours */
        conn_close(g, c);
        return;
    }
    if ((order.kind == GUARD_ORDER_REGISTER || order.kind == GUARD_ORDER_ARM) && order.pid > 1 && order.data_dir[GUARD_PATH_MAX - 1] == '\0' &&
        g->state.view.server_pid == 0) {
        /* Looked at before the step, which asks nobody; the directory may change only while there is no server. */
        g->candidate = fence_process_open(&g->fence, order.pid, order.start_ticks);
        ev.process_found = g->candidate >= 0 && fence_directory_set(&g->fence, order.data_dir);
    }
    handle(g, &ev, g->fds[c].fd);
    if (g->candidate >= 0) {
        close(g->candidate); /* refused */
        g->candidate = -1;
    }
}

static void serve(struct guard *g)
{
    while (!g->ending) {
        if (poll(g->fds, POLL_MAX, -1) < 0) {
            continue; /* EINTR; there is nothing else */
        }
        /* The deadline first, then the server: whoever talks to us has to wait. */
        if (g->fds[AT_TIMER].revents != 0) {
            on_timer(g);
        }
        if (g->fds[AT_SERVER].fd >= 0 && g->fds[AT_SERVER].revents != 0) {
            on_server_exited(g);
        }
        for (int c = AT_CONNS; c < POLL_MAX && !g->ending; c++) {
            if (g->fds[c].fd >= 0 && g->fds[c].revents != 0) {
                on_message(g, c);
            }
        }
        if (g->fds[AT_SIGNAL].revents != 0) {
            on_signal(g);
        }
        if (g->fds[AT_LISTEN].revents != 0 && !g->ending) {
            on_connect(g);
        }
    }
    unlink(GUARD_SOCKET_NAME); /* while we hold the lock: the next one may not have come yet */
}

/* ---- start ------------------------------------------------------------------------------------------- */

static int fail(const char *what)
{
    (void)fprintf(stderr, "dragent-guard: %s: %s\n", what, strerror(errno));
    return EXIT_ERROR;
}

static int directory_enter(const char *dir)
{
    struct stat sb;

    if (chdir(dir) != 0 || stat(".", &sb) != 0) {
        return fail(dir);
    }
    if (sb.st_uid != geteuid() || (sb.st_mode & 077) != 0) {
        (void)fprintf(stderr, "dragent-guard: %s: must be ours and mode 0700\n", dir);
        return EXIT_ERROR;
    }
    return EXIT_OK;
}

static int lock_take(void)
{
    int fd = open(GUARD_LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600); /* held for life, never closed */

    if (fd < 0) {
        return fail(GUARD_LOCK_NAME);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) {
            return fail(GUARD_LOCK_NAME);
        }
        (void)fprintf(stderr, "dragent-guard: another guard lives in this directory\n");
        return EXIT_OTHER_GUARD;
    }
    return EXIT_OK;
}

static bool boot_id_read(char out[GUARD_BOOT_ID_MAX])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, GUARD_BOOT_ID_MAX - 1);

    if (fd >= 0) {
        close(fd);
    }
    if (n <= 0) {
        return false;
    }
    out[n] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return true;
}

static int stamp_map(struct guard *g)
{
    int fd = open(GUARD_STAMP_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void *p;

    /* Written to once here, so that the space is there before it is needed. */
    if (fd < 0 || posix_fallocate(fd, 0, 2 * sizeof *g->slots) != 0) {
        return fail(GUARD_STAMP_NAME);
    }
    p = mmap(NULL, 2 * sizeof *g->slots, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED) {
        return fail(GUARD_STAMP_NAME);
    }
    g->slots = p;
    return EXIT_OK;
}

static int listen_open(struct guard *g)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = GUARD_SOCKET_NAME};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    (void)unlink(GUARD_SOCKET_NAME); /* of a guard that was killed: we hold its lock */
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0 || listen(fd, CONNS_MAX) != 0) {
        return fail(GUARD_SOCKET_NAME);
    }
    g->fds[AT_LISTEN].fd = fd;
    return EXIT_OK;
}

/* What is not permitted it goes without (HA-194). */
static uint32_t privileges_take(void)
{
    struct sched_param sp = {.sched_priority = 1};
    uint32_t limits = 0;
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0) {
        limits |= GUARD_LIMIT_MEMORY;
    }
    if (sched_setscheduler(0, SCHED_FIFO, &sp) != 0 && setpriority(PRIO_PROCESS, 0, -20) != 0) {
        limits |= GUARD_LIMIT_PRIORITY;
    }
    if (fd < 0 || write(fd, "-900", 4) != 4) {
        limits |= GUARD_LIMIT_OOM;
    }
    if (fd >= 0) {
        close(fd);
    }
    return limits;
}

/* Go on where a guard that died stopped, if the stamp tells of one (SAFE-36, 37). */
static void resume(struct guard *g)
{
    const struct guard_stamp *old = guard_stamp_choose(g->slots, g->boot_id);
    bool exited = false;

    guard_step_init(&g->state, now_ns());
    if (old != NULL) {
        const struct guard_view *v = &old->view;
        int pidfd = v->server_pid == 0 ? -1 : fence_process_open(&g->fence, v->server_pid, v->server_start_ticks);

        g->stamp_seq = old->seq;
        if (old->data_dir[0] != '\0') {
            (void)fence_directory_set(&g->fence, old->data_dir); /* gone: then nobody works in it either */
        }
        exited = v->server_pid != 0 && pidfd < 0;
        if (guard_step_resume(&g->state, old, pidfd >= 0, now_ns())) {
            fence_server_take(&g->fence, v->server_pid, pidfd);
            g->fds[AT_SERVER].fd = pidfd;
        }
    }
    g->state.view.limits = privileges_take();
    stamp_write(g);
    handle_kind(g, exited ? GUARD_EV_SERVER_EXITED : GUARD_EV_TIMER);
}

static int guard_start(struct guard *g, const char *dir)
{
    sigset_t all;
    int rc;

    for (int i = 0; i < POLL_MAX; i++) {
        g->fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    }
    g->candidate = -1;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, NULL);
    g->fds[AT_SIGNAL].fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    g->fds[AT_TIMER].fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (g->fds[AT_SIGNAL].fd < 0 || g->fds[AT_TIMER].fd < 0) {
        return fail("timer");
    }
    if (!fence_init(&g->fence) || !fence_start_ticks(&g->fence, getpid(), &g->own_start_ticks) ||
        !boot_id_read(g->boot_id)) {
        return fail("/proc");
    }
    rc = directory_enter(dir);
    if (rc == EXIT_OK) {
        rc = lock_take();
    }
    if (rc == EXIT_OK) {
        rc = stamp_map(g);
    }
    if (rc == EXIT_OK) {
        rc = listen_open(g);
    }
    if (rc == EXIT_OK) {
        fence_dry_run(&g->fence);
        resume(g);
    }
    return rc;
}

/* Nobody who waits for the agent's output may wait for us (HA-194). */
static void output_close(void)
{
    int fd = open("/dev/null", O_RDWR);

    if (fd >= 0) {
        for (int i = 0; i < 3; i++) {
            (void)dup2(fd, i);
        }
        if (fd > 2) {
            close(fd);
        }
    }
}

/* Fork twice; the first process stays until the guard says how its start went.  Returns in the guard only. */
static int daemonize(void)
{
    char status = EXIT_ERROR;
    int ready[2];
    pid_t pid;

    if (pipe2(ready, O_CLOEXEC) != 0) {
        _exit(fail("pipe"));
    }
    pid = fork();
    if (pid < 0) {
        _exit(fail("fork"));
    }
    if (pid > 0) {
        close(ready[1]);
        _exit(read(ready[0], &status, 1) == 1 ? status : EXIT_ERROR);
    }
    close(ready[0]);
    (void)setsid();
    pid = fork();
    if (pid < 0) {
        _exit(fail("fork"));
    }
    if (pid > 0) {
        _exit(EXIT_OK);
    }
    return ready[1];
}

int main(int argc, char **argv)
{
    bool foreground = argc == 3 && strcmp(argv[2], "--foreground") == 0;
    struct guard *g = &the_guard;
    int ready = -1;
    char status;
    int rc;

    if (argc < 2 || (argc != 2 && !foreground)) {
        (void)fprintf(stderr, "usage: dragent-guard RUNTIME_DIR [--foreground]\n");
        return EXIT_USAGE;
    }
    (void)syscall(SYS_close_range, 3u, ~0u, 0u); /* whatever the agent forgot */
    (void)umask(077);
    if (!foreground) {
        ready = daemonize();
    }
    rc = guard_start(g, argv[1]);
    if (rc == EXIT_OK && !foreground) {
        output_close();
    }
    if (ready >= 0) {
        status = (char)rc;
        if (write(ready, &status, 1) != 1) {
            status = EXIT_ERROR; /* the starter is gone: that changes nothing */
        }
        close(ready);
    }
    if (rc == EXIT_OK) {
        serve(g);
    }
    return rc;
}

/*
 * test_guard_fence.c - the guard's program against a real PostgreSQL with clients that write as fast as they can.
 *
 * Runs as user postgres (root changes to it), in a directory of its own.  Skipped where PostgreSQL is not installed.
 * The clock of a starved client may be late, so the bounds are those of the fence margin, not of the fence.
 */
#include <dragent/guard_step.h>

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <libpq-fe.h>

#define MS INT64_C(1000000)
#define WRITERS 4
#define BUDGET_NS (250 * MS) /* of the margin of 300 ms */

struct acks { /* shared with the writers */
    volatile int64_t count;
    volatile int64_t last_ns;
};

static struct acks *acks; /* [WRITERS] */
static char bindir[256], base[128], data_dir[160], run_dir[160], guard_exe[160];
static pid_t guard_pid, server_pid;
static pid_t writers[WRITERS];
static int sock = -1;
static uint64_t next_seq = 1;

/* ---- small helpers ----------------------------------------------------------------------------------- */

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void pause_ms(int ms)
{
    (void)poll(NULL, 0, ms);
}

static int run_wait(const char *const *argv)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        int fd = open("/dev/null", O_RDWR);

        dup2(fd, 0);
        dup2(fd, 1);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static uint64_t start_ticks(pid_t pid)
{
    char path[64], buf[1024];
    const char *p;
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY);
    n = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);
    close(fd);
    assert_true(n > 0);
    buf[n] = '\0';
    p = strrchr(buf, ')');
    for (int i = 0; i < 20; i++) {
        p = strchr(p + 1, ' ');
    }
    return strtoull(p + 1, NULL, 10);
}

/* Processes that work in the data directory. */
static int server_processes(void)
{
    struct stat want, sb;
    glob_t g;
    int n = 0;

    assert_int_equal(stat(data_dir, &want), 0);
    assert_int_equal(glob("/proc/[0-9]*/cwd", GLOB_NOSORT, NULL, &g), 0);
    for (size_t i = 0; i < g.gl_pathc; i++) {
        n += stat(g.gl_pathv[i], &sb) == 0 && sb.st_ino == want.st_ino && sb.st_dev == want.st_dev;
    }
    globfree(&g);
    return n;
}

/* ---- the guard --------------------------------------------------------------------------------------- */

static void guard_start(void)
{
    const char *argv[] = {guard_exe, run_dir, NULL};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct ucred peer;
    socklen_t len = sizeof peer;

    assert_int_equal(run_wait(argv), 0);
    assert_true(snprintf(addr.sun_path, sizeof addr.sun_path, "%s/%s", run_dir, GUARD_SOCKET_NAME) <
                (int)sizeof addr.sun_path);
    sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(sock, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len), 0);
    guard_pid = peer.pid;
}

static bool receive(struct guard_reply *r, int64_t until_ns)
{
    struct pollfd p = {.fd = sock, .events = POLLIN};
    int64_t wait_ns = until_ns - now_ns();

    if (wait_ns < 0 || poll(&p, 1, (int)(wait_ns / MS) + 1) != 1) {
        return false;
    }
    return recv(sock, r, sizeof *r, 0) == (ssize_t)sizeof *r;
}

/* Wait for a note; other messages are passed over. */
static struct guard_view await_note(enum guard_note note, int64_t until_ns)
{
    struct guard_reply r;

    while (receive(&r, until_ns)) {
        if (r.note == (uint32_t)note) {
            return r.view;
        }
    }
    fail_msg("no note \"%s\" in time", guard_note_to_str(note));
    return r.view;
}

static struct guard_order order_make(enum guard_order_kind kind)
{
    struct guard_order o;

    memset(&o, 0, sizeof o);
    o.magic = GUARD_MAGIC;
    o.version = GUARD_VERSION;
    o.size = sizeof o;
    o.kind = kind;
    o.generation = 1;
    o.seq = next_seq++;
    o.epoch = 5;
    o.lease = 9;
    return o;
}

static struct guard_view order_send(const struct guard_order *o, enum guard_status want)
{
    struct guard_reply r;
    int64_t until = now_ns() + 2000 * MS;

    assert_int_equal(send(sock, o, sizeof *o, MSG_NOSIGNAL), sizeof *o);
    while (receive(&r, until)) {
        if (r.seq == o->seq) {
            assert_string_equal(guard_status_to_str(r.status), guard_status_to_str(want));
            return r.view;
        }
    }
    fail_msg("no reply to \"%s\"", guard_order_to_str(o->kind));
    return r.view;
}

static void arm(pid_t pid, int64_t deadline_ns, uint32_t flags)
{
    struct guard_order o = order_make(GUARD_ORDER_ARM);

    o.pid = pid;
    o.start_ticks = pid == 0 ? 0 : start_ticks(pid);
    o.flags = flags;
    o.deadline_ns = deadline_ns;
    o.certain_until_ns = deadline_ns + 300 * MS;
    (void)snprintf(o.data_dir, sizeof o.data_dir, "%s", data_dir);
    (void)order_send(&o, GUARD_STATUS_OK);
}

static void stamp_read(struct guard_stamp *out)
{
    struct guard_stamp slots[2];
    const struct guard_stamp *s;
    char path[256], boot[GUARD_BOOT_ID_MAX] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY);

    assert_true(read(fd, boot, sizeof boot - 1) > 0);
    close(fd);
    boot[strcspn(boot, "\n")] = '\0';
    (void)snprintf(path, sizeof path, "%s/%s", run_dir, GUARD_STAMP_NAME);
    fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, slots, sizeof slots), sizeof slots);
    close(fd);
    s = guard_stamp_choose(slots, boot);
    assert_non_null(s);
    *out = *s;
}

/* The guard ends; it is nobody's child, so ask the kernel. */
static bool guard_ended(int64_t until_ns)
{
    while (now_ns() < until_ns) {
        char path[64];
        struct stat sb;

        (void)snprintf(path, sizeof path, "/proc/%d/cwd", (int)guard_pid);
        if (stat(path, &sb) != 0) {
            return true;
        }
        pause_ms(5);
    }
    return false;
}

/* ---- the server and its clients ---------------------------------------------------------------------- */

/* SAFE-33: fork first, the guard takes the child and the deadline, then it may exec. */
static void server_start(int64_t deadline_ns, uint32_t flags)
{
    char exe[300], conn[200], go = 1;
    int gate[2];
    PGPing ping = PQPING_NO_RESPONSE;

    (void)snprintf(exe, sizeof exe, "%s/postgres", bindir);
    (void)snprintf(conn, sizeof conn, "host=%s dbname=postgres", base);
    assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
    server_pid = fork();
    if (server_pid == 0) {
        char log[200];
        int fd;

        (void)setsid();
        (void)snprintf(log, sizeof log, "%s/log", base);
        fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        if (read(gate[0], &go, 1) != 1) {
            _exit(1);
        }
        execl(exe, exe, "-D", data_dir, "-k", base, "-c", "listen_addresses=", "-c", "max_connections=50", (char *)NULL);
        _exit(127);
    }
    close(gate[0]);
    arm(server_pid, deadline_ns, flags);
    assert_int_equal(write(gate[1], &go, 1), 1);
    close(gate[1]);
    for (int i = 0; i < 2000 && ping != PQPING_OK; i++) {
        ping = PQping(conn);
        pause_ms(5);
    }
    assert_int_equal(ping, PQPING_OK);
}

static void writer(struct acks *a)
{
    char conn[200];
    PGconn *c;

    (void)snprintf(conn, sizeof conn, "host=%s dbname=postgres", base);
    c = PQconnectdb(conn);
    while (PQstatus(c) == CONNECTION_OK) {
        PGresult *r = PQexec(c, "INSERT INTO t VALUES (1)");

        if (PQresultStatus(r) == PGRES_COMMAND_OK) {
            a->last_ns = now_ns();
            a->count = a->count + 1;
        }
        PQclear(r);
    }
    _exit(0);
}

static void writers_start(void)
{
    char conn[200];
    PGconn *c;

    (void)snprintf(conn, sizeof conn, "host=%s dbname=postgres", base);
    c = PQconnectdb(conn);
    PQclear(PQexec(c, "CREATE TABLE IF NOT EXISTS t (x int)"));
    PQfinish(c);
    memset((void *)(uintptr_t)acks, 0, WRITERS * sizeof *acks);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = fork();
        if (writers[i] == 0) {
            writer(&acks[i]);
        }
    }
    for (int i = 0; i < WRITERS; i++) {
        for (int n = 0; n < 1000 && acks[i].count == 0; n++) {
            pause_ms(5);
        }
        assert_true(acks[i].count > 0);
    }
}

/* Their connections broke with the server; returns when the last acknowledgement was seen. */
static int64_t writers_end(void)
{
    int64_t last = 0;

    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(waitpid(writers[i], NULL, 0), writers[i]);
        last = acks[i].last_ns > last ? acks[i].last_ns : last;
    }
    return last;
}

static void server_reap(void)
{
    if (server_pid > 0) {
        assert_int_equal(waitpid(server_pid, NULL, 0), server_pid);
        server_pid = 0;
    }
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    } /* its orphans: we are their reaper */
}

static void report(const char *what, const struct guard_view *v, int64_t zero_ns, int64_t last_ack_ns)
{
    print_message("%s: begun %+.1f ms, frozen %+.1f, ended %+.1f, last acknowledgement %+.1f\n", what,
                  (double)(v->fence_begun_ns - zero_ns) / 1e6, (double)(v->fence_frozen_ns - zero_ns) / 1e6,
                  (double)(v->fence_ended_ns - zero_ns) / 1e6, (double)(last_ack_ns - zero_ns) / 1e6);
}

/* ---- cases ------------------------------------------------------------------------------------------- */

/* The deadline passes: commits end, then every process; the next server can be started at once. */
static void test_deadline(void **unused)
{
    int64_t deadline = now_ns() + 60000 * MS;
    struct guard_order o = order_make(GUARD_ORDER_ARM);
    struct guard_view v;
    int64_t last;

    (void)unused;
    guard_start();
    server_start(deadline, 0);
    writers_start();
    deadline = now_ns() + 300 * MS;
    o.epoch = 6; /* a new epoch may have an earlier deadline */
    o.deadline_ns = deadline;
    o.certain_until_ns = deadline + 300 * MS;
    (void)order_send(&o, GUARD_STATUS_OK);
    v = await_note(GUARD_NOTE_SERVER_GONE, deadline + 2000 * MS);
    assert_int_equal(server_processes(), 0);
    last = writers_end();
    report("deadline", &v, deadline, last);
    assert_int_equal(v.cause, GUARD_CAUSE_DEADLINE);
    assert_int_equal(v.armed, 0);
    assert_true(v.fence_begun_ns >= deadline);
    assert_true(last >= deadline - 100 * MS); /* they were writing up to it */
    assert_true(last <= deadline + BUDGET_NS);
    assert_true(v.fence_frozen_ns <= deadline + BUDGET_NS);
    server_reap();
}

/* SAFE-34: the postmaster dies, a long statement would go on and be acknowledged. */
static void test_orphans(void **unused)
{
    struct guard_view v;
    char conn[200];
    PGconn *c;
    int64_t zero, last;

    (void)unused;
    server_start(now_ns() + 60000 * MS, 0);
    writers_start();
    (void)snprintf(conn, sizeof conn, "host=%s dbname=postgres", base);
    c = PQconnectdb(conn);
    assert_int_equal(PQsendQuery(c, "INSERT INTO t SELECT 1 FROM generate_series(1, 100000000)"), 1);
    pause_ms(50);
    zero = now_ns();
    assert_int_equal(kill(server_pid, SIGKILL), 0);
    v = await_note(GUARD_NOTE_SERVER_GONE, zero + 2000 * MS);
    assert_int_equal(server_processes(), 0);
    last = writers_end();
    report("orphans", &v, zero, last);
    assert_int_equal(v.cause, GUARD_CAUSE_EXITED);
    assert_int_equal(v.armed, 1); /* until the start in place, or a disarm */
    assert_true(last <= zero + BUDGET_NS);
    PQclear(PQgetResult(c));
    assert_int_equal(PQstatus(c), CONNECTION_BAD);
    PQfinish(c);
    server_reap();
}

/* HA-193: only reports; then a fence that was ordered. */
static void test_report_then_ordered(void **unused)
{
    int64_t deadline = now_ns() + 60000 * MS;
    struct guard_order o = order_make(GUARD_ORDER_ARM);
    struct guard_view v;

    (void)unused;
    server_start(deadline, GUARD_FLAG_REPORT);
    o.epoch = 7;
    o.flags = GUARD_FLAG_REPORT;
    o.deadline_ns = o.certain_until_ns = now_ns() + 50 * MS;
    (void)order_send(&o, GUARD_STATUS_OK);
    v = await_note(GUARD_NOTE_DEADLINE_PASSED, o.deadline_ns + 2000 * MS);
    assert_int_equal(v.phase, GUARD_PHASE_NONE);
    assert_true(server_processes() > 0);
    o = order_make(GUARD_ORDER_FENCE_NOW);
    (void)order_send(&o, GUARD_STATUS_OK);
    v = await_note(GUARD_NOTE_SERVER_GONE, now_ns() + 2000 * MS);
    assert_int_equal(v.cause, GUARD_CAUSE_ORDER);
    assert_int_equal(server_processes(), 0);
    server_reap();
}

/* The agent is gone, and its guard was killed and replaced before: the deadline holds all the same. */
static void test_replaced_and_alone(void **unused)
{
    int64_t deadline = now_ns() + 60000 * MS;
    struct guard_order o;
    struct guard_stamp s;
    int64_t last;

    (void)unused;
    server_start(deadline, 0);
    writers_start();
    deadline = now_ns() + 700 * MS;
    o = order_make(GUARD_ORDER_ARM);
    o.epoch = 8;
    o.deadline_ns = deadline;
    o.certain_until_ns = deadline + 300 * MS;
    (void)order_send(&o, GUARD_STATUS_OK);

    assert_int_equal(kill(guard_pid, SIGKILL), 0);
    assert_true(guard_ended(now_ns() + 2000 * MS));
    close(sock);
    guard_start(); /* resumes from the stamp: nobody tells it anything */
    o = order_make(GUARD_ORDER_PING);
    assert_int_equal(order_send(&o, GUARD_STATUS_OK).armed, 1);
    close(sock); /* the agent is killed */
    sock = -1;

    last = writers_end();
    assert_true(last >= deadline - 200 * MS);
    assert_true(last <= deadline + BUDGET_NS);
    assert_true(guard_ended(deadline + 3000 * MS)); /* HA-194: nothing left to guard, and nobody to tell */
    assert_int_equal(server_processes(), 0);
    stamp_read(&s);
    report("alone", &s.view, deadline, last);
    assert_int_equal(s.view.cause, GUARD_CAUSE_DEADLINE);
    assert_int_equal(s.view.armed, 0);
    assert_int_equal(s.view.epoch, 8);
    assert_int_equal(s.view.lease, 9);
    server_reap();
}

/* HA-194: it stays for a server without agent, ends with it, and there is one in a directory. */
static void test_life(void **unused)
{
    const char *again[] = {guard_exe, run_dir, NULL};
    struct guard_order o;
    char link[64], target[256];
    ssize_t n;

    (void)unused;
    guard_start();
    assert_int_equal(run_wait(again), 3);
    server_start(now_ns() + 60000 * MS, GUARD_FLAG_STANDBY); /* starts nothing: what counts is the flag */
    o = order_make(GUARD_ORDER_DISARM);
    o.reason = GUARD_REASON_STOPPED;
    (void)order_send(&o, GUARD_STATUS_STILL_RUNNING);
    o.reason = GUARD_REASON_PAUSE;
    o.seq = next_seq++;
    (void)order_send(&o, GUARD_STATUS_OK);
    for (int fd = 0; fd < 3; fd++) { /* nobody who waits for our output waits for it */
        (void)snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)guard_pid, fd);
        n = readlink(link, target, sizeof target - 1);
        assert_true(n > 0);
        target[n] = '\0';
        assert_string_equal(target, "/dev/null");
    }
    close(sock);
    sock = -1;
    pause_ms(100);
    assert_false(guard_ended(now_ns() + 50 * MS));
    assert_int_equal(kill(server_pid, SIGQUIT), 0);
    server_reap();
    assert_true(guard_ended(now_ns() + 2000 * MS));
}

/* ---- set up ------------------------------------------------------------------------------------------ */

static bool find_postgres(void)
{
    glob_t g;
    bool found = glob("/usr/lib/postgresql/*/bin/postgres", 0, NULL, &g) == 0;

    if (found) {
        char *slash = strrchr(g.gl_pathv[g.gl_pathc - 1], '/');

        (void)snprintf(bindir, sizeof bindir, "%.*s", (int)(slash - g.gl_pathv[g.gl_pathc - 1]),
                       g.gl_pathv[g.gl_pathc - 1]);
    }
    globfree(&g);
    return found;
}

static bool become_postgres(void)
{
    const struct passwd *pw = getpwnam("postgres");

    if (geteuid() != 0) {
        return true;
    }
    return pw != NULL && setgroups(0, NULL) == 0 && setgid(pw->pw_gid) == 0 && setuid(pw->pw_uid) == 0;
}

/* User postgres may not be able to see the build's folder. */
static void guard_copy(int from)
{
    char buf[65536];
    ssize_t n;
    int to;

    (void)snprintf(guard_exe, sizeof guard_exe, "%s/dragent-guard", base);
    to = open(guard_exe, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    while ((n = read(from, buf, sizeof buf)) > 0) {
        assert_int_equal(write(to, buf, (size_t)n), n);
    }
    assert_int_equal(n, 0);
    close(from);
    assert_int_equal(close(to), 0);
}

static int set_up(void **unused)
{
    int exe = open(GUARD_EXE, O_RDONLY | O_CLOEXEC);
    char initdb[300];
    const char *argv[] = {initdb, "-D", data_dir, "-A", "trust", "-N", NULL};

    (void)unused;
    assert_true(become_postgres());
    (void)prctl(PR_SET_DUMPABLE, 1);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1); /* PID 1 of a container may reap late */
    (void)snprintf(base, sizeof base, "/tmp/dragent-guard-XXXXXX");
    assert_non_null(mkdtemp(base));
    guard_copy(exe);
    (void)snprintf(data_dir, sizeof data_dir, "%s/data", base);
    (void)snprintf(run_dir, sizeof run_dir, "%s/run", base);
    (void)snprintf(initdb, sizeof initdb, "%s/initdb", bindir);
    assert_int_equal(mkdir(run_dir, 0700), 0);
    assert_int_equal(run_wait(argv), 0);
    acks = mmap(NULL, WRITERS * sizeof *acks, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return acks == MAP_FAILED ? -1 : 0;
}

static int tear_down(void **unused)
{
    const char *argv[] = {"/bin/rm", "-rf", base, NULL};

    (void)unused;
    if (sock >= 0 && guard_pid > 0) {
        (void)kill(guard_pid, SIGKILL);
    }
    if (server_pid > 0) {
        (void)kill(server_pid, SIGQUIT);
        server_reap();
    }
    return run_wait(argv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deadline),           cmocka_unit_test(test_orphans), cmocka_unit_test(test_report_then_ordered),
        cmocka_unit_test(test_replaced_and_alone), cmocka_unit_test(test_life),
    };

    if (!find_postgres()) {
        print_message("skipped: PostgreSQL is not installed\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

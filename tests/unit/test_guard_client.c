/*
 * test_guard_client.c - the agent's side against the real dragent-guard: start, adopt, lose, replace, order, quit.
 * The server is a small tree of processes of ours.
 */
#include <dragent/guard.h>

#include <dragent/io.h>

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

enum { HEARTBEAT_MS = 50, LATE_MS = 200, LIMIT_MS = 5000 };

struct seen { /* what the callbacks of one client told */
    int ups, losts, closed, answers;
    bool replaced;
    uint32_t notes; /* bits */
    char why[128];
    int err_code;
    enum guard_status status;
    struct guard_view view;
    struct guard_client *close_in_cb;
};

static uv_loop_t loop;
static char dir[64], run_dir[80];

static void on_up(const struct guard_view *view, bool replaced, void *arg)
{
    struct seen *s = arg;

    s->ups++;
    s->replaced = replaced;
    s->view = *view;
}

static void on_lost(const char *why, void *arg)
{
    struct seen *s = arg;

    s->losts++;
    dra_str_clip(s->why, sizeof s->why, why);
}

static void on_note(enum guard_note note, const struct guard_view *view, void *arg)
{
    struct seen *s = arg;

    s->notes |= UINT32_C(1) << note;
    s->view = *view;
}

static void on_answer(const struct dra_err *err, enum guard_status status, const struct guard_view *view, void *arg)
{
    struct seen *s = arg;

    s->answers++;
    s->err_code = err == NULL ? DRA_OK : err->code;
    s->status = status;
    if (view != NULL) {
        s->view = *view;
    }
    if (s->close_in_cb != NULL) {
        guard_client_close(s->close_in_cb, NULL);
        s->close_in_cb = NULL;
    }
}

static void on_closed(void *arg)
{
    struct seen *s = arg;

    s->closed++;
}

static void on_limit(uv_timer_t *t)
{
    *(bool *)t->data = true;
}

/* Run the loop until *counter reaches `want`; fails after LIMIT_MS. */
static void run_until(const int *counter, int want, const char *what)
{
    bool late = false;
    uv_timer_t t;

    uv_timer_init(&loop, &t);
    t.data = &late;
    uv_update_time(&loop);
    uv_timer_start(&t, on_limit, LIMIT_MS, 0);
    while (*counter < want && !late) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *)&t, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    if (*counter < want) {
        fail_msg("%s: did not happen", what);
    }
}

static void run_for(int64_t ms)
{
    bool over = false;
    uv_timer_t t;

    uv_timer_init(&loop, &t);
    t.data = &over;
    uv_update_time(&loop);
    uv_timer_start(&t, on_limit, (uint64_t)ms, 0);
    while (!over) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *)&t, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static struct guard_client *client_open(struct seen *s, uint64_t generation)
{
    const struct guard_client_cbs cbs = {.up = on_up, .lost = on_lost, .note = on_note};
    const struct guard_client_config config = {.runtime_dir = run_dir,
                                               .guard_exe = GUARD_EXE,
                                               .generation = generation,
                                               .heartbeat = dra_ms(HEARTBEAT_MS),
                                               .late_after = dra_ms(LATE_MS)};
    struct guard_client *c = NULL;
    struct dra_err err = {0};

    memset(s, 0, sizeof *s);
    assert_int_equal(guard_client_open(&loop, &config, &cbs, s, &c, &err), DRA_OK);
    assert_int_equal(s->ups, 0); /* never from inside */
    run_until(&s->ups, 1, "the guard is up");
    return c;
}

static void client_close(struct guard_client *c, struct seen *s)
{
    guard_client_close(c, on_closed);
    assert_int_equal(s->closed, 0);
    run_until(&s->closed, 1, "closed");
}

static struct dra_instant soon(void)
{
    return dra_after(dra_now(), dra_ms(2000));
}

/* A postmaster with two children, each in a session of its own. */
static struct guard_server server_start(void)
{
    struct guard_server s = {.data_dir = dir};
    struct dra_proc p;
    struct dra_err err;
    pid_t pid = fork();

    if (pid == 0) {
        for (int i = 0; i < 2; i++) {
            if (fork() == 0) {
                (void)setsid();
                for (;;) {
                    pause();
                }
            }
        }
        for (;;) {
            pause();
        }
    }
    assert_int_equal(dra_proc_identify(pid, &p, &err), DRA_OK);
    s.pid = p.pid;
    s.start_ticks = p.start_ticks;
    return s;
}

static void server_reap(const struct guard_server *s)
{
    assert_int_equal(waitpid(s->pid, NULL, 0), s->pid);
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

static struct guard_deadline in_ms(int64_t ms, int64_t epoch)
{
    struct guard_deadline d = {.epoch = epoch, .lease = 9};

    d.deadline = dra_after(dra_now(), dra_ms(ms));
    d.certain_until = dra_after(d.deadline, dra_ms(300));
    return d;
}

static struct dra_proc guard_of_stamp(void)
{
    struct guard_stamp st;
    struct dra_err err = {0};

    assert_int_equal(guard_stamp_read(run_dir, &st, &err), DRA_OK);
    return (struct dra_proc){.pid = st.guard_pid, .start_ticks = st.guard_start_ticks};
}

static void quit(struct guard_client *c, struct seen *s)
{
    int want = s->answers + 1;

    assert_int_equal(guard_client_quit(c, soon(), on_answer, s), DRA_OK);
    run_until(&s->answers, want, "quit");
    assert_int_equal(s->err_code, DRA_OK);
}

/* ---- cases ------------------------------------------------------------------------------------------- */

static void test_orders(void **unused)
{
    struct seen s;
    struct dra_err err = {0};
    struct guard_stamp st;
    struct guard_client *c;
    struct guard_server server;
    struct guard_deadline d;

    (void)unused;
    assert_int_equal(guard_stamp_read(run_dir, &st, &err), DRA_ENOTFOUND);
    c = client_open(&s, 0);
    assert_false(s.replaced);
    server = server_start();

    d = in_ms(60000, 5);
    assert_int_equal(guard_client_move(c, &d, soon(), on_answer, &s), DRA_OK);
    assert_int_equal(s.answers, 0);
    run_until(&s.answers, 1, "move");
    assert_int_equal(s.err_code, DRA_ESTATE);
    assert_int_equal(s.status, GUARD_STATUS_NOT_ARMED);

    assert_int_equal(guard_client_register(c, &server, soon(), on_answer, &s), DRA_OK);
    assert_int_equal(guard_client_arm(c, NULL, &d, soon(), on_answer, &s), DRA_OK);
    run_until(&s.answers, 3, "register and arm");
    assert_int_equal(s.err_code, DRA_OK);
    assert_int_equal(s.view.armed, 1);
    assert_int_equal(s.view.server_pid, server.pid);
    d = in_ms(70000, 5);
    assert_int_equal(guard_client_move(c, &d, soon(), on_answer, &s), DRA_OK);
    run_until(&s.answers, 4, "move");
    assert_int_equal(s.view.deadline_ns, d.deadline.ns);

    assert_int_equal(guard_stamp_read(run_dir, &st, &err), DRA_OK); /* SAFE-37 */
    assert_int_equal(st.view.deadline_ns, d.deadline.ns);
    assert_int_equal(st.view.certain_until_ns, d.certain_until.ns);
    assert_int_equal(st.view.epoch, 5);
    assert_int_equal(st.view.lease, 9);
    assert_int_equal(st.view.server_pid, server.pid);
    assert_int_equal(st.view.generation, guard_client_generation(c));
    assert_string_equal(st.data_dir, dir);

    assert_int_equal(guard_client_quit(c, soon(), on_answer, &s), DRA_OK);
    run_until(&s.answers, 5, "quit while armed");
    assert_int_equal(s.status, GUARD_STATUS_ARMED);
    assert_int_equal(guard_client_disarm(c, GUARD_REASON_STOPPED, soon(), on_answer, &s), DRA_OK);
    run_until(&s.answers, 6, "disarm");
    assert_int_equal(s.status, GUARD_STATUS_STILL_RUNNING);

    assert_int_equal(guard_client_fence(c, soon(), on_answer, &s), DRA_OK);
    run_until(&s.answers, 7, "fence");
    assert_int_equal(s.err_code, DRA_OK);
    assert_int_equal(s.view.left, 0);
    assert_int_equal(s.view.armed, 0);
    server_reap(&server);
    assert_int_equal(guard_client_move(c, &d, (struct dra_instant){0}, on_answer, &s), DRA_EINVAL);
    quit(c, &s);
    assert_int_equal(s.losts, 0);
    assert_int_equal(guard_client_register(c, &server, soon(), on_answer, &s), DRA_ECONN);
    client_close(c, &s);
}

/* SAFE-36: a guard that is killed, or that does not answer, is replaced, and the new one goes on. */
static void test_replaced(void **unused)
{
    static const struct {
        int signo;
        const char *why;
    } rows[] = {{SIGKILL, NULL}, {SIGSTOP, "its answer is late"}};
    struct seen s;
    struct guard_client *c;
    struct guard_server server;
    struct guard_deadline d = in_ms(60000, 5);
    struct dra_proc old, new;
    struct dra_err err;

    (void)unused;
    c = client_open(&s, 0);
    server = server_start();
    assert_int_equal(guard_client_arm(c, &server, &d, soon(), on_answer, &s), DRA_OK);
    run_until(&s.answers, 1, "arm");
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct dra_instant t0 = dra_now();
        int losts = s.losts;
        int ups = s.ups;

        old = guard_of_stamp();
        assert_int_equal(dra_proc_signal(&old, rows[i].signo, &err), DRA_OK);
        run_until(&s.losts, losts + 1, "lost");
        if (rows[i].why != NULL) {
            assert_string_equal(s.why, rows[i].why);
        }
        assert_false(guard_client_is_up(c) && s.ups == ups);
        run_until(&s.ups, ups + 1, "replaced");
        print_message("signal %d: replaced after %d ms (%s)\n", rows[i].signo,
                      (int)dra_span_ms(dra_since(dra_now(), t0)), s.why);
        assert_true(s.replaced);
        assert_int_equal(s.view.armed, 1); /* resumed from the stamp, before anybody told it */
        assert_int_equal(s.view.deadline_ns, d.deadline.ns);
        assert_int_equal(s.view.server_pid, server.pid);
        new = guard_of_stamp();
        assert_int_not_equal(new.pid, old.pid);
        assert_false(dra_proc_is_alive(&old));
    }
    /* An operation under way ends with the guard. */
    old = guard_of_stamp();
    assert_int_equal(dra_proc_signal(&old, SIGSTOP, &err), DRA_OK);
    s.answers = 0;
    assert_int_equal(guard_client_move(c, &d, soon(), on_answer, &s), DRA_OK);
    run_until(&s.answers, 1, "move ends");
    assert_int_equal(s.err_code, DRA_ECONN);
    run_until(&s.ups, 4, "replaced again");

    d = in_ms(100, 6);
    assert_int_equal(guard_client_arm(c, NULL, &d, soon(), on_answer, &s), DRA_OK);
    run_for(400);
    assert_true((s.notes & (UINT32_C(1) << GUARD_NOTE_FENCED)) != 0);
    assert_true((s.notes & (UINT32_C(1) << GUARD_NOTE_SERVER_GONE)) != 0);
    assert_int_equal(guard_client_view(c)->armed, 0);
    server_reap(&server);
    quit(c, &s);
    client_close(c, &s);
}

/* SAFE-35: a newer agent takes the guard over; the older one lets go of it. HA-194: the guard stays while it has work. */
static void test_adopted(void **unused)
{
    struct seen s, t;
    struct guard_client *c, *d;
    struct guard_server server;
    struct guard_deadline deadline = in_ms(60000, 5);
    struct dra_proc guard;

    (void)unused;
    c = client_open(&s, 0);
    guard = guard_of_stamp();
    server = server_start();
    assert_int_equal(guard_client_arm(c, &server, &deadline, soon(), on_answer, &s), DRA_OK);
    run_until(&s.answers, 1, "arm");

    d = client_open(&t, guard_client_generation(c) + 1);
    assert_int_equal(t.view.armed, 1); /* it finds the guard at work */
    assert_int_equal(guard_of_stamp().pid, guard.pid);
    run_until(&s.losts, 1, "the older one is told");
    assert_string_equal(s.why, "it obeys a newer agent");
    run_for(3 * HEARTBEAT_MS);
    assert_true(dra_proc_is_alive(&guard)); /* and does not kill it */
    assert_int_equal(guard_client_move(c, &deadline, soon(), on_answer, &s), DRA_ECONN);
    client_close(c, &s);

    client_close(d, &t); /* no agent at all */
    run_for(50);
    assert_true(dra_proc_is_alive(&guard));
    d = client_open(&t, 0);
    assert_int_equal(guard_of_stamp().pid, guard.pid);
    assert_int_equal(t.view.armed, 1);
    assert_int_equal(guard_client_fence(d, soon(), on_answer, &t), DRA_OK);
    run_until(&t.answers, 1, "fence");
    server_reap(&server);
    quit(d, &t);
    client_close(d, &t);
}

/* A guard that was frozen before we came, and closing at awkward moments. */
static void test_frozen_before_and_closing(void **unused)
{
    struct seen s, t;
    struct guard_client *c, *d;
    const struct guard_client_cbs cbs = {.up = on_up};
    struct guard_client_config config = {.runtime_dir = run_dir, .guard_exe = GUARD_EXE};
    struct dra_proc guard;
    struct dra_err err;

    (void)unused;
    c = client_open(&s, 0);
    guard = guard_of_stamp();
    assert_int_equal(dra_proc_signal(&guard, SIGSTOP, &err), DRA_OK);
    assert_int_equal(guard_client_disarm(c, GUARD_REASON_PAUSE, soon(), on_answer, &s), DRA_OK);
    client_close(c, &s); /* with an operation under way */
    assert_int_equal(s.answers, 1);
    assert_int_equal(s.err_code, DRA_ECANCELED);
    assert_true(dra_proc_is_alive(&guard));

    d = client_open(&t, 0); /* kills it and starts another one */
    assert_false(dra_proc_is_alive(&guard));
    t.close_in_cb = d;
    assert_int_equal(guard_client_disarm(d, GUARD_REASON_PAUSE, soon(), on_answer, &t), DRA_OK);
    assert_int_equal(guard_client_disarm(d, GUARD_REASON_PAUSE, soon(), on_answer, &t), DRA_OK);
    run_until(&t.answers, 2, "both end");
    run_for(20);
    assert_int_equal(t.answers, 2);

    memset(&s, 0, sizeof s);
    config.guard_exe = "/nonexistent/dragent-guard";
    guard = guard_of_stamp();
    for (int i = 0; i < 250 && dra_proc_is_alive(&guard); i++) {
        run_for(20); /* the guard ends after GUARD_LINGER_MS: no server, no agent */
    }
    assert_false(dra_proc_is_alive(&guard));
    assert_int_equal(guard_client_open(&loop, &config, &cbs, &s, &c, &err), DRA_OK);
    run_for(100);
    assert_int_equal(s.ups, 0);
    client_close(c, &s);
}

static void test_runtime_dir(void **unused)
{
    char a[GUARD_DIR_MAX], b[GUARD_DIR_MAX], path[200];
    struct dra_err err = {0};
    struct stat sb;

    (void)unused;
    assert_int_equal(setenv("RUNTIME_DIRECTORY", dir, 1), 0);
    assert_int_equal(guard_runtime_dir_make("/srv/a", a, &err), DRA_OK);
    assert_int_equal(guard_runtime_dir_make("/srv/b", b, &err), DRA_OK);
    assert_string_not_equal(a, b);
    assert_int_equal(stat(a, &sb), 0);
    assert_int_equal(sb.st_mode & 07777, 0700);
    assert_int_equal(guard_runtime_dir_make("/srv/a", b, &err), DRA_OK);
    assert_string_equal(a, b);
    assert_int_equal(chmod(a, 0755), 0); /* somebody else may look in: refused */
    assert_int_equal(guard_runtime_dir_make("/srv/a", b, &err), DRA_EPERM);
    assert_int_equal(guard_runtime_dir_make("srv/a", b, &err), DRA_EINVAL);
    assert_int_equal(unsetenv("RUNTIME_DIRECTORY"), 0);
    assert_int_equal(snprintf(path, sizeof path, "%s/none", dir) > 0, 1);
    assert_int_equal(guard_stamp_read(path, &(struct guard_stamp){0}, &err), DRA_ENOTFOUND);
}

static int set_up(void **unused)
{
    (void)unused;
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    (void)snprintf(dir, sizeof dir, "/tmp/dragent-guard-XXXXXX");
    if (mkdtemp(dir) == NULL || snprintf(run_dir, sizeof run_dir, "%s/run", dir) < 0 || mkdir(run_dir, 0700) != 0) {
        return -1;
    }
    return uv_loop_init(&loop);
}

static int tear_down(void **unused)
{
    struct dra_err err;

    (void)unused;
    while (uv_run(&loop, UV_RUN_NOWAIT) != 0) {
    }
    assert_int_equal(uv_loop_close(&loop), 0); /* every handle was closed */
    return dra_file_remove_tree(dir, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runtime_dir), cmocka_unit_test(test_orders),
        cmocka_unit_test(test_replaced),    cmocka_unit_test(test_adopted),
        cmocka_unit_test(test_frozen_before_and_closing),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}

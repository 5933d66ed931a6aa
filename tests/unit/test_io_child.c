/*
 * test_io_child.c - children: exit codes, output ring, stdin, environment, descriptors, signals, the kill ladder.
 */
#include <dragent/io.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

struct run {
    struct dra_child *child;
    int ended;
    bool started;
    int exit_code;
    int term_signal;
    int err_code;
    char out[20000];
    size_t out_len;
    size_t streamed;
    struct dra_instant began, at;
    bool cancel_on_output;
};

static void on_end(const struct dra_child_result *r, void *arg)
{
    struct run *run = arg;

    run->ended++;
    run->at = dra_now();
    run->started = r->started;
    run->exit_code = r->exit_code;
    run->term_signal = r->term_signal;
    run->err_code = r->err_code;
    run->out_len = r->out_len;
    assert_true(r->out_len < sizeof run->out);
    memcpy(run->out, r->out, r->out_len);
    run->out[r->out_len] = '\0';
}

static void on_output(const char *p, size_t n, void *arg)
{
    struct run *run = arg;

    (void)p;
    run->streamed += n;
    if (run->cancel_on_output) {
        dra_child_cancel(run->child);
    }
}

static void begin(uv_loop_t *loop, struct run *run, struct dra_child_spec *spec)
{
    struct dra_err err = {0};

    run->began = dra_now();
    spec->on_output = on_output;
    if (dra_child_start(loop, spec, on_end, run, &run->child, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(run->ended, 0);
}

static void run_shell(const char *script, struct dra_child_spec spec, struct run *run)
{
    const char *argv[] = {"sh", "-c", script, NULL};
    uv_loop_t loop;

    assert_int_equal(uv_loop_init(&loop), 0);
    spec.argv = argv;
    begin(&loop, run, &spec);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(run->ended, 1);
}

static void outcomes(void **state)
{
    static const struct {
        const char *script;
        int exit_code, term_signal, err_code;
        const char *out;
    } rows[] = {
        {"exit 0", 0, 0, DRA_OK, ""},
        {"echo out; echo err >&2", 0, 0, DRA_OK, "out\nerr\n"},
        {"echo bad; exit 3", 3, 0, DRA_ECHILD, "bad\n"},
        {"kill -KILL $$", -1, SIGKILL, DRA_ECHILD, ""},
        {"cat", 0, 0, DRA_OK, ""},                                        /* stdin is /dev/null */
        {"ls /proc/self/fd | tr '\\n' ' '", 0, 0, DRA_OK, "0 1 2 3 "},     /* 3 is ls's own */
        /* glibc ignores its own signals 32 and 33 in what it spawns: look at the others */
        {"sed -n 's/^Sig\\(Blk\\|Ign\\):.*\\(.......\\)$/\\1 \\2/p' /proc/self/status", 0, 0, DRA_OK,
         "Blk 0000000\nIgn 0000000\n"},
        {"test \"$(ps -o pgid= $$)\" -eq $$ && test \"$(ps -o sid= $$)\" -eq $$ && echo own", 0, 0, DRA_OK, "own\n"},
        {"sleep 60 & echo left; exit 0", 0, 0, DRA_OK, "left\n"}, /* a grandchild holds the pipe: no waiting */
    };

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct run *run = calloc(1, sizeof *run);
        sigset_t set, old;

        assert_non_null(run);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGUSR1);
        (void)sigaddset(&set, SIGTERM);
        (void)sigprocmask(SIG_BLOCK, &set, &old); /* must not be inherited */
        (void)signal(SIGPIPE, SIG_IGN);           /* nor this */
        run_shell(rows[i].script, (struct dra_child_spec){0}, run);
        (void)sigprocmask(SIG_SETMASK, &old, NULL);
        if (!run->started || run->exit_code != rows[i].exit_code || run->term_signal != rows[i].term_signal ||
            run->err_code != rows[i].err_code || strcmp(run->out, rows[i].out) != 0) {
            fail_msg("row \"%s\": exit %d signal %d err %d out \"%s\"", rows[i].script, run->exit_code,
                     run->term_signal, run->err_code, run->out);
        }
        assert_true(dra_span_ms(dra_since(run->at, run->began)) < 10000);
        free(run);
    }
}

static void inputs(void **state)
{
    const char *env[] = {"DRA_A=1 2", "HOME", "PATH=/bin:/usr/bin", NULL};
    struct run *run = calloc(1, sizeof *run);

    (void)state;
    assert_non_null(run);
    run_shell("cat; pwd; echo \"$DRA_A|$HOME|$PATH\"",
              (struct dra_child_spec){.stdin_data = "from stdin\n", .cwd = "/usr", .env = env}, run);
    assert_string_equal(run->out, "from stdin\n/usr\n1 2||/bin:/usr/bin\n");
    memset(run, 0, sizeof *run);
    run_shell("echo out; echo hidden >/dev/null >&2 2>/dev/null", (struct dra_child_spec){.stdout_only = true}, run);
    assert_non_null(strstr(run->out, "out"));
    free(run);
}

static void output_ring(void **state)
{
    struct run *run = calloc(1, sizeof *run);

    (void)state;
    assert_non_null(run);
    run_shell("i=0; while [ $i -lt 10000 ]; do echo \"line $i\"; i=$((i+1)); done", (struct dra_child_spec){0}, run);
    assert_int_equal(run->out_len, 16384);
    assert_int_equal(run->streamed, 98890);
    assert_string_equal(run->out + run->out_len - 10, "line 9999\n");
    free(run);
}

static void cannot_start(void **state)
{
    static const char *const rows[] = {"dragent-no-such-program", "/dev/null", "/nonexistent/x"};

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        const char *argv[] = {rows[i], NULL};
        struct dra_child_spec spec = {.argv = argv};
        struct run *run = calloc(1, sizeof *run);
        uv_loop_t loop;

        assert_non_null(run);
        assert_int_equal(uv_loop_init(&loop), 0);
        begin(&loop, run, &spec);
        assert_int_equal(dra_child_pid(run->child), 0);
        if (i == 1) {
            dra_child_cancel(run->child);
        }
        assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
        assert_int_equal(uv_loop_close(&loop), 0);
        assert_int_equal(run->ended, 1);
        assert_false(run->started);
        assert_int_equal(run->exit_code, -1);
        assert_int_equal(run->err_code, i == 1 ? DRA_ECANCELED : DRA_ECHILD);
        assert_non_null(strstr(run->out, "cannot start"));
        free(run);
    }
    {
        const char *argv[] = {NULL};
        struct dra_child_spec spec = {.argv = argv};

        assert_int_equal(dra_child_start(NULL, &spec, on_end, NULL, NULL, NULL), DRA_EINVAL);
    }
}

static void ladder(void **state)
{
    static const struct {
        const char *script;
        bool cancel; /* else the deadline */
        int exit_code, term_signal, err_code;
        int64_t min_ms, max_ms;
    } rows[] = {
        {"echo x; exec sleep 60", false, -1, SIGTERM, DRA_ETIMEDOUT, 95, 1500},
        {"echo x; exec sleep 60", true, -1, SIGTERM, DRA_ECANCELED, 0, 1500},
        {"trap '' TERM; echo x; while :; do sleep 1; done", true, -1, SIGKILL, DRA_ECANCELED, 1990, 5000},
        {"trap 'exit 7' TERM; echo x; sleep 60 & wait", true, 7, 0, DRA_ECANCELED, 0, 1500},
    };

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct run *run = calloc(1, sizeof *run);
        struct dra_child_spec spec = {0};
        int64_t took;

        assert_non_null(run);
        run->cancel_on_output = rows[i].cancel;
        if (!rows[i].cancel) {
            spec.not_after = dra_after(dra_now(), dra_ms(100));
        }
        run_shell(rows[i].script, spec, run);
        took = dra_span_ms(dra_since(run->at, run->began));
        if (run->exit_code != rows[i].exit_code || run->term_signal != rows[i].term_signal ||
            run->err_code != rows[i].err_code || took < rows[i].min_ms || took > rows[i].max_ms) {
            fail_msg("row \"%s\": exit %d signal %d err %d after %lld ms", rows[i].script, run->exit_code,
                     run->term_signal, run->err_code, (long long)took);
        }
        free(run);
    }
}

/* After a cancel nothing of the group is left, also what ignores SIGTERM. */
static void whole_group(void **state)
{
    struct run *run = calloc(1, sizeof *run);
    long grandchild;

    (void)state;
    assert_non_null(run);
    run->cancel_on_output = true;
    run_shell("(trap '' TERM; exec sleep 60) & echo $!; sleep 60", (struct dra_child_spec){0}, run);
    grandchild = strtol(run->out, NULL, 10);
    assert_true(grandchild > 0);
    for (int i = 0; i < 200 && dra_proc_identify((pid_t)grandchild, &(struct dra_proc){0}, NULL) == 0; i++) {
        (void)usleep(10000); /* SIGKILL was sent; it dies soon */
    }
    assert_int_equal(dra_proc_identify((pid_t)grandchild, &(struct dra_proc){0}, NULL), DRA_ENOTFOUND);
    free(run);
}

static void many_at_once(void **state)
{
    enum { COUNT = 20 };
    struct run *runs = calloc(COUNT, sizeof *runs);
    const char *argv[] = {"sh", "-c", "echo hi; exit 5", NULL};
    uv_loop_t loop;

    (void)state;
    assert_non_null(runs);
    assert_int_equal(uv_loop_init(&loop), 0);
    for (int i = 0; i < COUNT; i++) {
        struct dra_child_spec spec = {.argv = argv};

        begin(&loop, &runs[i], &spec);
    }
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(runs[i].ended, 1);
        assert_int_equal(runs[i].exit_code, 5);
        assert_string_equal(runs[i].out, "hi\n");
    }
    free(runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outcomes),  cmocka_unit_test(inputs),      cmocka_unit_test(output_ring),
        cmocka_unit_test(cannot_start), cmocka_unit_test(ladder),   cmocka_unit_test(whole_group),
        cmocka_unit_test(many_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * test_io.c - clock, timer (also after a blocked loop), log, files, file worker, processes of others.
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
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

struct fixture {
    uv_loop_t loop;
    char dir[64];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/dra-io-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int rc = uv_run(&f->loop, UV_RUN_DEFAULT);

    assert_int_equal(rc, 0);
    assert_int_equal(uv_loop_close(&f->loop), 0); /* UV_EBUSY: a handle was left */
    assert_int_equal(dra_file_remove_tree(f->dir, NULL), 0);
    free(f);
    return 0;
}

static void path_in(const struct fixture *f, const char *name, char *out, size_t out_size)
{
    assert_int_equal(dra_str_printf(out, out_size, "%s/%s", f->dir, name), 0);
}

static void block(int ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    (void)nanosleep(&ts, NULL);
}

/* ---- clock ---- */

static void clock_texts(void **state)
{
    char text[DRA_WALL_STR_MAX];
    char iso[40];
    int y, mo, d, h, mi, s, ms, n = 0;
    struct dra_instant a = dra_now();

    (void)state;
    dra_wall_format(text);
    assert_int_equal(strlen(text), 23);
    assert_int_equal(sscanf(text, "%4d-%2d-%2d %2d:%2d:%2d,%3d%n", &y, &mo, &d, &h, &mi, &s, &ms, &n), 7);
    assert_int_equal(n, 23);
    dra_wall_iso(iso, sizeof iso);
    assert_int_equal(strlen(iso), 32);
    assert_int_equal(iso[10], 'T');
    assert_int_equal(iso[29], ':');
    assert_true(dra_reached(dra_now(), a));
    assert_true(dra_entropy() != dra_entropy());
    assert_true(dra_wall_seconds() > 1700000000);
}

/* ---- timer ---- */

struct timed {
    struct dra_timer *timer;
    int fired;
    struct dra_instant at;
    struct dra_timer *other; /* stopped by the first that fires */
};

static void on_timed(void *arg)
{
    struct timed *t = arg;

    t->fired++;
    t->at = dra_now();
    if (t->other != NULL) {
        dra_timer_stop(t->other);
    }
}

static void timer_fires(void **state)
{
    struct fixture *f = *state;
    struct timed t = {0};
    struct dra_instant due = dra_after(dra_now(), dra_ms(20));

    assert_int_equal(dra_timer_open(&f->loop, on_timed, &t, &t.timer), 0);
    dra_timer_set(t.timer, due);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT); /* ends: an expired timer does not hold the loop */
    assert_int_equal(t.fired, 1);
    assert_true(dra_reached(t.at, due));
    assert_true(dra_span_ms(dra_since(t.at, due)) < 500);
    dra_timer_set(t.timer, dra_before(dra_now(), dra_ms(1000))); /* past: next turn, not now */
    assert_int_equal(t.fired, 1);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(t.fired, 2);
    dra_timer_set(t.timer, dra_after(dra_now(), dra_ms(10)));
    dra_timer_set(t.timer, (struct dra_instant){0});
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(t.fired, 2);
    dra_timer_close(t.timer);
    dra_timer_close(NULL);
}

/* A loop that was blocked must not fire early, nor twice, nor what was stopped in the same turn. */
static void timer_after_a_block(void **state)
{
    struct fixture *f = *state;
    struct timed a = {0}, b = {0}, c = {0};
    struct dra_instant start = dra_now();

    assert_int_equal(dra_timer_open(&f->loop, on_timed, &a, &a.timer), 0);
    assert_int_equal(dra_timer_open(&f->loop, on_timed, &b, &b.timer), 0);
    assert_int_equal(dra_timer_open(&f->loop, on_timed, &c, &c.timer), 0);
    dra_timer_set(a.timer, dra_after(start, dra_ms(10)));
    dra_timer_set(b.timer, dra_after(start, dra_ms(20)));
    a.other = b.timer;
    b.other = a.timer;
    block(60);
    dra_timer_set(c.timer, dra_after(dra_now(), dra_ms(50))); /* uv_now() is 60 ms old here */
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(a.fired + b.fired, 1);
    assert_int_equal(c.fired, 1);
    assert_true(dra_span_ms(dra_since(c.at, start)) >= 109);
    dra_timer_close(a.timer);
    dra_timer_close(b.timer);
    dra_timer_set(c.timer, dra_now());
    dra_timer_close(c.timer); /* never fires afterwards */
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(c.fired, 1);
}

/* ---- log ---- */

static void read_log(const struct fixture *f, const char *name, struct dra_buf *out)
{
    char path[128];
    struct dra_err err = {0};

    path_in(f, name, path, sizeof path);
    dra_buf_init(out, 1000000);
    if (dra_file_read(path, 1000000, out, &err) != 0) {
        fail_msg("%s", err.msg);
    }
}

static void log_shapes(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *format, *dateformat, *want; /* after the time */
        size_t time_len;
    } rows[] = {
        {"", "", " INFO: lock is\\nmine event=ha.rule rule=leader.hold why=\"a \\\"b\\\"\" none=\"\"", 23},
        {"%(asctime)s|%(levelname)-8s|%(levelno)5d|%(name)s|%(lineno)d %% %(nope)s %(message)s", "",
         "|INFO    |   20|ha.rule|1 % %(nope)s lock is\\nmine event=ha.rule rule=leader.hold why=\"a \\\"b\\\"\" "
         "none=\"\"", 23},
        {"%(asctime)s %(module)s.%(funcName)s %(filename)s 100%", "%Y", " ha.rule ha.c 100%", 4},
    };

    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct log_config c;
        struct dra_buf text;
        char path[128];
        char *line;

        log_configure_default(&c);
        assert_int_equal(dra_str_copy(c.dir, sizeof c.dir, f->dir), 0);
        assert_int_equal(dra_str_copy(c.format, sizeof c.format, rows[i].format), 0);
        assert_int_equal(dra_str_copy(c.dateformat, sizeof c.dateformat, rows[i].dateformat), 0);
        c.mode = 0600;
        assert_int_equal(log_configure(&c, NULL), 0);
        log_event(LOG_LV_DEBUG, "ha.quiet", "not seen", NULL);
        log_event(LOG_LV_INFO, "ha.rule", "lock is\nmine", "rule", "leader.hold", "why", "a \"b\"", "none", NULL,
                  NULL);
        log_flush();
        read_log(f, "patroni.log", &text);
        assert_int_equal(text.p[text.len - 1], '\n');
        text.p[text.len - 1] = '\0';
        line = strrchr(text.p, '\n'); /* a warning about an unknown attribute may stand before */
        line = line != NULL ? line + 1 : text.p;
        assert_true(strlen(line) > rows[i].time_len);
        /* "none" ended the pairs early: its value NULL is printed as "" */
        assert_string_equal(line + rows[i].time_len, rows[i].want);
        if (i == 1) {
            assert_non_null(strstr(text.p, "attribute=nope"));
        }
        dra_buf_deinit(&text);
        path_in(f, "patroni.log", path, sizeof path);
        assert_int_equal(unlink(path), 0);
    }
    {
        struct log_config c;

        log_configure_default(&c);
        assert_int_equal(log_configure(&c, NULL), 0);
    }
}

static void log_json(void **state)
{
    struct fixture *f = *state;
    struct log_config c;
    struct dra_buf text;
    DRA_CLEANUP(json_freep) struct json *fields = json_new_object();
    DRA_CLEANUP(json_freep) struct json *line = NULL;
    char path[128];
    struct stat st;

    assert_int_equal(json_set(fields, "cluster", json_new_str("demo")), 0);
    assert_int_equal(json_set(fields, "n", json_new_i64(3)), 0);
    log_configure_default(&c);
    c.json = true;
    c.mode = 0600;
    c.level = LOG_LV_WARNING;
    c.static_fields = fields;
    assert_int_equal(dra_str_copy(c.dir, sizeof c.dir, f->dir), 0);
    assert_int_equal(log_configure(&c, NULL), 0);
    assert_false(log_enabled(LOG_LV_INFO));
    log_linef(LOG_LV_INFO, "x", "not seen");
    log_event(LOG_LV_ERROR, "ha.x", "it \"broke\"\n", "why", "because", NULL);
    log_flush();
    read_log(f, "patroni.log", &text);
    assert_int_equal(json_parse(text.p, text.len, &line, NULL), 0);
    assert_string_equal(json_text(json_get(line, "level")), "ERROR");
    assert_string_equal(json_text(json_get(line, "message")), "it \"broke\"\n");
    assert_string_equal(json_text(json_get(line, "event")), "ha.x");
    assert_string_equal(json_text(json_get(line, "why")), "because");
    assert_string_equal(json_text(json_get(line, "cluster")), "demo");
    assert_int_equal(strlen(json_text(json_get(line, "time"))), 23);
    dra_buf_deinit(&text);
    path_in(f, "patroni.log", path, sizeof path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    log_configure_default(&c);
    assert_int_equal(log_configure(&c, NULL), 0);
    assert_int_equal(dra_str_copy(c.dir, sizeof c.dir, "/nonexistent/dir"), 0);
    assert_int_equal(log_configure(&c, NULL), DRA_ESYS); /* the old sink stays */
}

static void log_rotation(void **state)
{
    struct fixture *f = *state;
    struct log_config c;
    char path[128];

    log_configure_default(&c);
    assert_int_equal(dra_str_copy(c.dir, sizeof c.dir, f->dir), 0);
    c.file_size_bytes = 300;
    c.file_num = 2;
    assert_int_equal(log_configure(&c, NULL), 0);
    for (int i = 0; i < 20; i++) {
        log_linef(LOG_LV_INFO, "t", "line %d of a text that fills about eighty bytes", i);
    }
    log_configure_default(&c);
    assert_int_equal(log_configure(&c, NULL), 0);
    log_flush();
    for (int i = 0; i < 4; i++) {
        static const char *const names[] = {"patroni.log", "patroni.log.1", "patroni.log.2", "patroni.log.3"};
        struct stat st;

        path_in(f, names[i], path, sizeof path);
        if (i == 3) {
            assert_false(dra_file_exists(path));
        } else {
            assert_int_equal(stat(path, &st), 0);
            assert_true(st.st_size > 0 && st.st_size <= 300);
        }
    }
}

/* A pipe that nobody reads: the caller goes on, lines are dropped and counted, and then it is said. */
static void log_never_blocks(void **state)
{
    struct fixture *f = *state;
    struct log_config c;
    struct dra_instant before;
    struct dra_buf text;
    char path[128];
    char drain[65536];
    ssize_t n;
    int reader;

    path_in(f, "patroni.log", path, sizeof path);
    assert_int_equal(mkfifo(path, 0600), 0);
    reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(reader >= 0);
    log_configure_default(&c);
    assert_int_equal(dra_str_copy(c.dir, sizeof c.dir, f->dir), 0);
    assert_int_equal(log_configure(&c, NULL), 0);
    before = dra_now();
    for (int i = 0; i < 5000; i++) {
        log_linef(LOG_LV_INFO, "t", "%d %080d", i, 0);
    }
    assert_true(dra_span_ms(dra_since(dra_now(), before)) < 5000);
    dra_buf_init(&text, 10000000);
    for (int i = 0; i < 200; i++) { /* the reader wakes up */
        while ((n = read(reader, drain, sizeof drain)) > 0) {
            dra_buf_add(&text, drain, (size_t)n);
        }
        block(2);
    }
    log_linef(LOG_LV_INFO, "t", "the last one");
    log_configure_default(&c);
    assert_int_equal(log_configure(&c, NULL), 0);
    log_flush();
    while ((n = read(reader, drain, sizeof drain)) > 0) {
        dra_buf_add(&text, drain, (size_t)n);
    }
    assert_non_null(strstr(dra_buf_str(&text), "event=log.dropped lines="));
    assert_non_null(strstr(dra_buf_str(&text), "the last one"));
    dra_buf_deinit(&text);
    (void)close(reader);
}

/* ---- files ---- */

static void files(void **state)
{
    struct fixture *f = *state;
    char path[128];
    char link[128];
    struct dra_buf b;
    struct dra_err err = {0};
    struct stat st;

    dra_buf_init(&b, 100);
    path_in(f, "a/b/c", path, sizeof path);
    assert_int_equal(dra_file_mkdirs(path, 0700, &err), 0);
    assert_int_equal(dra_file_mkdirs(path, 0700, &err), 0);
    path_in(f, "a/b/c/file", path, sizeof path);
    assert_int_equal(dra_file_read(path, 100, &b, &err), DRA_ENOTFOUND);
    assert_int_equal(err.code, DRA_ENOTFOUND);
    assert_int_equal(dra_file_write_atomic(path, "hello", 5, 0640, &err), 0);
    assert_int_equal(dra_file_write_atomic(path, "world!", 6, 0600, &err), 0);
    assert_int_equal(dra_file_read(path, 100, &b, &err), 0);
    assert_string_equal(dra_buf_str(&b), "world!");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    dra_buf_reset(&b);
    assert_int_equal(dra_file_read(path, 5, &b, &err), DRA_ETOOLONG);
    dra_buf_deinit(&b);
    path_in(f, "a/file-and-not-dir", link, sizeof link);
    assert_int_equal(dra_file_write_atomic(link, "", 0, 0600, &err), 0);
    assert_int_equal(dra_file_mkdirs(link, 0700, &err), DRA_ESYS);
    path_in(f, "missing/x", link, sizeof link);
    assert_int_equal(dra_file_write_atomic(link, "", 0, 0600, &err), DRA_ESYS);

    /* a tree goes, what its links point to stays */
    path_in(f, "keep", path, sizeof path);
    assert_int_equal(dra_file_mkdirs(path, 0700, &err), 0);
    path_in(f, "a/b/link", link, sizeof link);
    assert_int_equal(symlink(path, link), 0);
    path_in(f, "keep/it", path, sizeof path);
    assert_int_equal(dra_file_write_atomic(path, "x", 1, 0600, &err), 0);
    path_in(f, "a", path, sizeof path);
    assert_int_equal(dra_file_remove_tree(path, &err), 0);
    assert_false(dra_file_exists(path));
    assert_int_equal(dra_file_remove_tree(path, &err), 0);
    path_in(f, "keep/it", path, sizeof path);
    assert_true(dra_file_exists(path));
}

/* ---- file worker ---- */

struct work {
    struct dra_fworker *worker;
    char order[64];
    int canceled;
    int restarted;
};

static int work_slow(void *arg, struct dra_err *err)
{
    (void)arg;
    block(30);
    return dra_err_set(err, DRA_EIO, "slow one");
}

static int work_quick(void *arg, struct dra_err *err)
{
    (void)arg;
    (void)err;
    return 0;
}

static void on_slow(int rc, const struct dra_err *err, void *arg)
{
    struct work *w = arg;

    assert_int_equal(rc, DRA_EIO);
    assert_string_equal(err->msg, "slow one");
    assert_true(strlen(w->order) + 2 < sizeof w->order);
    (void)snprintf(w->order + strlen(w->order), sizeof w->order - strlen(w->order), "S");
}

static void on_quick(int rc, const struct dra_err *err, void *arg)
{
    struct work *w = arg;

    (void)err;
    if (rc == DRA_ECANCELED) {
        w->canceled++;
        return;
    }
    (void)snprintf(w->order + strlen(w->order), sizeof w->order - strlen(w->order), "q");
    if (w->restarted++ == 0) { /* a callback may start more, and close */
        assert_int_equal(dra_fworker_start(w->worker, work_quick, on_quick, w), 0);
    } else {
        assert_int_equal(dra_fworker_start(w->worker, work_slow, on_slow, w), 0);
        assert_int_equal(dra_fworker_start(w->worker, work_quick, on_quick, w), 0);
        block(5); /* the slow one runs now */
        dra_fworker_close(w->worker);
        assert_int_equal(dra_fworker_start(w->worker, work_quick, on_quick, w), DRA_ESTATE);
    }
}

static void file_worker(void **state)
{
    struct fixture *f = *state;
    struct work w = {0};

    assert_int_equal(dra_fworker_open(&f->loop, &w.worker, NULL), 0);
    assert_int_equal(dra_fworker_start(w.worker, work_slow, on_slow, &w), 0);
    assert_int_equal(dra_fworker_start(w.worker, work_quick, on_quick, &w), 0);
    assert_string_equal(w.order, "");
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_string_equal(w.order, "SqqS");
    assert_int_equal(w.canceled, 1);
}

/* ---- processes ---- */

struct watched {
    struct dra_procwatch *watch;
    int ended;
    struct dra_instant at;
};

static void on_ended(struct dra_proc p, void *arg)
{
    struct watched *w = arg;

    assert_false(dra_proc_is_alive(&p));
    w->ended++;
    w->at = dra_now();
    dra_procwatch_close(w->watch);
}

static pid_t start_sleeper(void)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        (void)execlp("sleep", "sleep", "60", (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void processes(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start_sleeper();
    struct dra_proc p = {0};
    struct dra_proc other;
    struct watched w = {0};
    struct dra_err err = {0};
    struct dra_instant killed;

    assert_int_equal(dra_proc_identify(pid, &p, &err), 0);
    assert_true(dra_proc_is_alive(&p));
    other = p;
    other.start_ticks--; /* the pid was used again */
    assert_false(dra_proc_is_alive(&other));
    assert_int_equal(dra_proc_signal(&other, SIGKILL, &err), DRA_ENOTFOUND);
    assert_int_equal(dra_procwatch_open(&f->loop, other, on_ended, &w, &w.watch, &err), DRA_ENOTFOUND);
    assert_true(dra_proc_is_alive(&p));
    assert_int_equal(dra_procwatch_open(&f->loop, p, on_ended, &w, &w.watch, &err), 0);
    killed = dra_now();
    assert_int_equal(dra_proc_signal(&p, SIGKILL, &err), 0);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT); /* nobody has reaped it: a zombie counts as ended */
    assert_int_equal(w.ended, 1);
    assert_true(dra_span_ms(dra_since(w.at, killed)) < 1000);
    assert_int_equal(dra_proc_identify(pid, &other, &err), DRA_ENOTFOUND);
    assert_int_equal(dra_proc_signal(&p, SIGTERM, &err), DRA_ENOTFOUND);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(dra_proc_is_alive(&p));
    assert_int_equal(dra_procwatch_open(&f->loop, p, on_ended, &w, &w.watch, &err), DRA_ENOTFOUND);
    assert_int_equal(dra_proc_identify(0, &other, &err), DRA_EINVAL);
    dra_procwatch_close(NULL);
}

static void process_watch_closed_early(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start_sleeper();
    struct dra_proc p = {0};
    struct watched w = {0};

    assert_int_equal(dra_proc_identify(pid, &p, NULL), 0);
    assert_int_equal(dra_procwatch_open(&f->loop, p, on_ended, &w, &w.watch, NULL), 0);
    dra_procwatch_close(w.watch);
    assert_int_equal(dra_proc_signal(&p, SIGKILL, NULL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(w.ended, 0);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(clock_texts), T(timer_fires), T(timer_after_a_block), T(log_shapes),
        T(log_json),    T(log_rotation), T(log_never_blocks), T(files),              T(file_worker),
        T(processes),   T(process_watch_closed_early),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * test_rest_threads.c - the hand-over under load, for the thread sanitizer: snapshots come as fast as the loop can make them while
 * clients read, ask for fresh positions, and send calls; then the end comes in the middle of it.
 */
#include "rest_harness.h"

#define READERS 6
#define RUN_MS 1500

static atomic_bool over;

struct worker {
    int port;
    int kind;
    int answers, wrong;
};

static const char *const requests[] = {
    "GET /primary HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /patroni HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /cluster HTTP/1.1\r\nHost: x\r\n\r\n",
    "PATCH /config HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
    "POST /switchover HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"leader\":\"a\"}",
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct answer *a = malloc(sizeof *a);
    int fd = cl_connect(w->port);

    while (a != NULL && fd >= 0 && !atomic_load(&over)) {
        const char *rq = requests[(size_t)w->kind % DRA_ARRAY_LEN(requests)];
        if (!cl_send(fd, rq)) {
            w->wrong++;
            break;
        }
        cl_read(fd, dra_str_starts(rq, "HEAD"), a);
        w->answers++;
        w->wrong += a->status == 200 ? 0 : 1;
        if (a->status <= 0) {
            break;
        }
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    free(a);
    return NULL;
}

static uv_timer_t ticker; /* loop thread only */

static void on_tick(uv_timer_t *t)
{
    struct harness *h = t->data;
    for (int i = 0; i < 20; i++) {
        h->x->w.pg.wal_lsn++;
        hs_publish(h);
    }
}

static void do_begin(struct harness *h, void *arg)
{
    (void)arg;
    h->x->snap = dcs_cluster_parse(NULL, 0, 9);
    h->x->f.cluster = h->x->snap;
    h->x->w.pg.answered_at = dra_before(dra_now(), dra_ms(5000)); /* so that fresh ones are asked for */
    (void)uv_timer_init(&h->loop, &ticker);
    ticker.data = h;
    (void)uv_timer_start(&ticker, on_tick, 0, 1);
}

static void do_end(struct harness *h, void *arg)
{
    (void)h;
    (void)arg;
    uv_close((uv_handle_t *)&ticker, NULL);
}

static void run(bool end_in_the_middle)
{
    struct harness *h = hs_open("", "", true);
    struct worker w[READERS + DRA_ARRAY_LEN(requests)];
    pthread_t t[DRA_ARRAY_LEN(w)];
    int answers = 0;

    atomic_store(&over, false);
    hs_do(h, do_begin, NULL);
    if (end_in_the_middle) {
        atomic_store(&h->call_mode, HS_HOLD);
        atomic_store(&h->fresh_mode, HS_HOLD);
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(w); i++) {
        w[i] = (struct worker){.port = h->port, .kind = (int)i};
        assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
    }
    (void)poll(NULL, 0, end_in_the_middle ? RUN_MS / 4 : RUN_MS);
    if (end_in_the_middle) {
        hs_do(h, do_end, NULL);
        hs_close(h);
        h = NULL;
    }
    atomic_store(&over, true);
    for (size_t i = 0; i < DRA_ARRAY_LEN(w); i++) {
        assert_int_equal(pthread_join(t[i], NULL), 0);
        answers += w[i].answers;
        if (!end_in_the_middle && (w[i].wrong > 0 || w[i].answers == 0)) {
            fail_msg("%s: %d of %d wrong", requests[(size_t)w[i].kind % DRA_ARRAY_LEN(requests)], w[i].wrong, w[i].answers);
        }
    }
    print_message("%d answers\n", answers);
    if (h != NULL) {
        assert_true(atomic_load(&h->n_fresh) > 0);
        assert_true(atomic_load(&h->n_cluster) > 0);
        assert_true(atomic_load(&h->n_calls) > 0);
        hs_do(h, do_end, NULL);
        hs_close(h);
    }
}

static void under_load(void **unused)
{
    (void)unused;
    run(false);
}

static void end_under_load(void **unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++) {
        run(true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(under_load), cmocka_unit_test(end_under_load)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * fworker.c - one thread for work that blocks on files, an ordered queue, results back on the loop.
 *
 * Each item's callback runs exactly once, in the order of the starts.  Closing does not block: the running item is
 * awaited by the loop, queued ones come back with DRA_ECANCELED.
 */
#include <dragent/io.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <uv.h>

struct item {
    struct item *next;
    dra_fwork_fn fn;
    dra_fwork_cb cb;
    void *arg;
    int rc;
    struct dra_err err;
};

struct queue {
    struct item *first;
    struct item **end;
};

struct dra_fworker {
    uv_async_t doorbell; /* the mail is in `done` */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct queue todo; /* these four under the lock */
    struct queue done;
    bool closing;
    bool thread_ended;
};

static void queue_init(struct queue *q)
{
    q->first = NULL;
    q->end = &q->first;
}

static void queue_add(struct queue *q, struct item *i)
{
    i->next = NULL;
    *q->end = i;
    q->end = &i->next;
}

static struct item *queue_take(struct queue *q)
{
    struct item *i = q->first;

    if (i != NULL) {
        q->first = i->next;
        if (q->first == NULL) {
            q->end = &q->first;
        }
    }
    return i;
}

static void *thread_main(void *arg)
{
    struct dra_fworker *w = arg;

    (void)pthread_mutex_lock(&w->lock);
    for (;;) {
        struct item *i;

        while (w->todo.first == NULL && !w->closing) {
            (void)pthread_cond_wait(&w->wake, &w->lock);
        }
        i = queue_take(&w->todo);
        if (i == NULL) {
            break;
        }
        if (w->closing) {
            i->rc = dra_err_set(&i->err, DRA_ECANCELED, "cancelled");
        } else {
            (void)pthread_mutex_unlock(&w->lock);
            i->rc = i->fn(i->arg, &i->err);
            (void)pthread_mutex_lock(&w->lock);
        }
        queue_add(&w->done, i);
        (void)uv_async_send(&w->doorbell);
    }
    w->thread_ended = true;
    (void)uv_async_send(&w->doorbell); /* under the lock: the handle is closed only after we let go */
    (void)pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void on_worker_closed(uv_handle_t *h)
{
    struct dra_fworker *w = h->data;

    (void)pthread_cond_destroy(&w->wake);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
}

static void on_doorbell(uv_async_t *h)
{
    struct dra_fworker *w = h->data;
    bool ended;

    for (;;) {
        struct item *i;

        (void)pthread_mutex_lock(&w->lock);
        i = queue_take(&w->done);
        ended = w->thread_ended;
        (void)pthread_mutex_unlock(&w->lock);
        if (i == NULL) {
            break;
        }
        i->cb(i->rc, &i->err, i->arg);
        free(i);
    }
    if (ended && !uv_is_closing((uv_handle_t *)h)) {
        (void)pthread_join(w->thread, NULL); /* at its end already */
        uv_close((uv_handle_t *)h, on_worker_closed);
    }
}

int dra_fworker_open(struct uv_loop_s *loop, struct dra_fworker **out, struct dra_err *err)
{
    struct dra_fworker *w = calloc(1, sizeof *w);
    sigset_t all;
    sigset_t old;
    int sys;

    if (w == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    queue_init(&w->todo);
    queue_init(&w->done);
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->wake, NULL);
    sys = -uv_async_init(loop, &w->doorbell, on_doorbell);
    if (sys != 0) {
        free(w);
        return dra_err_sys(err, sys, "file worker");
    }
    w->doorbell.data = w;
    (void)sigfillset(&all); /* signals are the loop thread's business */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    sys = pthread_create(&w->thread, NULL, thread_main, w);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (sys != 0) {
        uv_close((uv_handle_t *)&w->doorbell, on_worker_closed);
        return dra_err_sys(err, sys, "file worker thread");
    }
    *out = w;
    return DRA_OK;
}

int dra_fworker_start(struct dra_fworker *w, dra_fwork_fn fn, dra_fwork_cb cb, void *arg)
{
    struct item *i = calloc(1, sizeof *i);
    int rc = DRA_OK;

    if (i == NULL) {
        return DRA_ENOMEM;
    }
    i->fn = fn;
    i->cb = cb;
    i->arg = arg;
    (void)pthread_mutex_lock(&w->lock);
    if (w->closing) {
        rc = DRA_ESTATE;
    } else {
        queue_add(&w->todo, i);
        (void)pthread_cond_signal(&w->wake);
    }
    (void)pthread_mutex_unlock(&w->lock);
    if (rc != DRA_OK) {
        free(i);
    }
    return rc;
}

void dra_fworker_close(struct dra_fworker *w)
{
    if (w == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&w->lock);
    w->closing = true;
    (void)pthread_cond_signal(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
}

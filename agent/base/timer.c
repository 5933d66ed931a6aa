/*
 * timer.c - one-shot timer on CLOCK_BOOTTIME: a timerfd that the loop polls.
 *
 * libuv's own timers count CLOCK_MONOTONIC from a cached "now" that is stale after a block; the kernel's absolute
 * timer is not.  A firing that was already queued when the timer was set again or stopped is not delivered:
 * timerfd_settime() clears the expiry count, and the callback looks at it.
 * Threads: loop thread only.
 */
#include <dragent/io.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <uv.h>

struct dra_timer {
    uv_poll_t poll;
    int fd;
    dra_timer_cb cb;
    void *arg;
};

static void on_timer_closed(uv_handle_t *h)
{
    struct dra_timer *t = h->data;

    (void)close(t->fd);
    free(t);
}

static void on_timer_readable(uv_poll_t *h, int status, int events)
{
    struct dra_timer *t = h->data;
    uint64_t expiries = 0;

    (void)status;
    (void)events;
    if (read(t->fd, &expiries, sizeof expiries) != (ssize_t)sizeof expiries || expiries == 0) {
        return; /* EAGAIN: set again or stopped meanwhile */
    }
    (void)uv_poll_stop(h); /* one shot: an expired timer does not keep the loop alive either */
    t->cb(t->arg);
}

int dra_timer_open(struct uv_loop_s *loop, dra_timer_cb cb, void *arg, struct dra_timer **out)
{
    struct dra_timer *t = calloc(1, sizeof *t);

    if (t == NULL) {
        return DRA_ENOMEM;
    }
    t->cb = cb;
    t->arg = arg;
    t->fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (t->fd < 0) {
        free(t);
        return DRA_ESYS;
    }
    if (uv_poll_init(loop, &t->poll, t->fd) != 0) {
        (void)close(t->fd);
        free(t);
        return DRA_ESYS;
    }
    t->poll.data = t;
    *out = t;
    return DRA_OK;
}

static void arm(struct dra_timer *t, int64_t at_ns)
{
    struct itimerspec spec = {
        .it_value = {.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000},
    };

    if (timerfd_settime(t->fd, TFD_TIMER_ABSTIME, &spec, NULL) != 0) {
        assert(errno == ECANCELED);
    }
}

void dra_timer_set(struct dra_timer *t, struct dra_instant at)
{
    int rc;

    if (!dra_is_set(at)) {
        dra_timer_stop(t);
        return;
    }
    arm(t, at.ns > 0 ? at.ns : 1);
    /* the handle is active only while set, so that an idle timer does not keep a loop alive */
    rc = uv_poll_start(&t->poll, UV_READABLE, on_timer_readable);
    assert(rc == 0);
}

void dra_timer_stop(struct dra_timer *t)
{
    arm(t, 0);
    (void)uv_poll_stop(&t->poll); /* always 0 */
}

void dra_timer_close(struct dra_timer *t)
{
    if (t == NULL) {
        return;
    }
    dra_timer_stop(t);
    uv_close((uv_handle_t *)&t->poll, on_timer_closed);
}

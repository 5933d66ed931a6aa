/*
 * auth.c - the token of user and password authentication (DCS-80).
 *
 * Invariants:
 *  (1) one request at a time; whoever needs a token meanwhile waits for its end.
 *  (2) an attempt that was not answered keeps the old token; one that was refused as well, but says
 * so to those who wait. Threads: loop thread only.
 */
#include "etcd.h"

#include <string.h>

static void on_token(const struct etcd_reply *r, void *arg)
{
    struct etcd *e = arg;
    struct etcd_auth *a = &e->auth;
    const char *token = json_text(json_get(r->root, "token"));

    a->running = false;
    if (e->closing) {
        return;
    }
    a->failed = false;
    if (r->err_code == DRA_OK) {
        if (token == NULL || dra_str_copy(a->token, sizeof a->token, token) != DRA_OK) {
            log_event(LOG_LV_ERROR, "etcd.auth", "etcd gave no usable token", NULL);
        }
    } else if (r->class == ETCD_AUTH_OFF) {
        a->off = true;
        a->token[0] = '\0';
    } else if (r->class == ETCD_AUTH_FAILED) {
        a->failed = true;
        log_event(LOG_LV_ERROR, "etcd.auth", "etcd refuses user or password", "user", a->user,
                  NULL);
    } else {
        log_event(LOG_LV_WARNING, "etcd.auth", "No token from etcd", "reason", r->err_msg, NULL);
    }
    etcd_calls_token_ready(e);
}

void etcd_auth_renew(struct etcd *e, struct dra_instant not_after)
{
    struct etcd_call_spec spec = {.path = "/v3/auth/authenticate",
                                  .repeat = ETCD_REPEAT_LOST,
                                  .no_token = true,
                                  .not_after = not_after};
    struct dra_buf body;

    if (e->auth.running) {
        return;
    }
    e->auth.running = true;
    dra_buf_init(&body, ETCD_BODY_MAX);
    etcd_wire_authenticate(&body, e->auth.user, e->auth.password);
    if (etcd_call_start(e, &spec, &body, on_token, e, NULL) != DRA_OK) {
        e->auth.running = false; /* those who wait end at their own deadlines */
    }
}

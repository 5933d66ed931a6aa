/*
 * switchover.c - POST /switchover and /failover, DELETE /switchover: check, write the failover key, tell the outcome.
 *
 * Promises: the checks and texts of REST-90 to REST-93 in their order.  The outcome is told when the watch shows it; the
 * number of seconds that Patroni would have polled is only the limit.
 * States: READ (fresh read) -> POLL (feasibility) -> WRITE (failover key) -> WAIT (for another leader) -> answered.
 * Threads: loop thread only.
 */
#include "agent.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FEASIBILITY_MS 2000 /* REST-91.5 */

enum switch_state { SWITCH_NONE = 0, SWITCH_READ, SWITCH_POLL, SWITCH_WRITE, SWITCH_WAIT, SWITCH_STATE_COUNT };

struct rt_switch {
    struct rt_agent *a;
    uint64_t id; /* of the REST request */
    enum switch_state state;
    bool deleting;
    bool failover; /* a manual failover; false: a switchover */
    bool scheduled;
    char leader[HA_NAME_MAX];
    char candidate[HA_NAME_MAX];
    char iso[64];                /* scheduled_at, "" = now */
    char schedule_text[128];     /* as given */
    char old_leader[HA_NAME_MAX];/* when it was asked */
    int64_t written_rev;
    int64_t polls;
    struct dra_instant give_up_at;
    struct peer_round *round;
};

static void on_read(const struct dcs_answer *ans, void *arg);
static void on_polled(const struct peer_answer *answers, int n, void *arg);
static void on_written(const struct dcs_answer *ans, void *arg);
static void on_deleted(const struct dcs_answer *ans, void *arg);

/* ---- life ----------------------------------------------------------------------------------------------- */

static void switch_free(struct rt_switch *s)
{
    for (int i = 0; i < RT_SWITCHES_MAX; i++) {
        if (s->a->requests.switches[i] == s) {
            s->a->requests.switches[i] = NULL;
        }
    }
    free(s);
}

/* Answer and forget.  status 0: drop the connection (REST-09). */
static void finish(struct rt_switch *s, int status, const char *text)
{
    if (!s->a->requests.closing) {
        rest_reply(s->a->rest, s->id, status, NULL, text);
        if (text != NULL) {
            log_event(LOG_LV_INFO, s->failover ? "request.failover" : "request.switchover", text, NULL);
        }
    }
    switch_free(s);
}

static struct rt_switch *switch_new(struct rt_agent *a, const struct rest_request *rq)
{
    for (int i = 0; i < RT_SWITCHES_MAX; i++) {
        if (a->requests.switches[i] == NULL) {
            struct rt_switch *s = calloc(1, sizeof *s);
            if (s != NULL) {
                s->a = a;
                s->id = rq->id;
                a->requests.switches[i] = s;
            }
            return s;
        }
    }
    return NULL;
}

static void read_begin(struct rt_switch *s)
{
    struct rt_agent *a = s->a;
    struct dra_err err = {0};
    struct dra_span limit = a->settings.retry_timeout.ns < dra_ms(10000).ns ? a->settings.retry_timeout : dra_ms(10000);
    s->state = SWITCH_READ;
    if (a->dcs->vt->read_start(a->dcs, dra_after(dra_now(), limit), on_read, s, &err) != 0) {
        finish(s, 0, NULL);
    }
}

static bool text_of(const struct json *body, const char *key, char *out, size_t size)
{
    const struct json *v = json_get(body, key);
    out[0] = '\0';
    return v == NULL || json_type_of(v) == JSON_NULL || json_scalar_text(v, out, size);
}

void switch_on_rest(struct rt_agent *a, const struct rest_request *rq)
{
    struct rt_switch *s = switch_new(a, rq);
    if (s == NULL) {
        rest_reply(a->rest, rq->id, 503, NULL, "too many requests are under way");
        return;
    }
    s->failover = rq->kind == REST_FAILOVER;
    bool whole = text_of(rq->body, "leader", s->leader, sizeof s->leader) &&
                 text_of(rq->body, "candidate", s->candidate, sizeof s->candidate) &&
                 text_of(rq->body, "scheduled_at", s->schedule_text, sizeof s->schedule_text);
    if (s->candidate[0] == '\0') {
        whole = text_of(rq->body, "member", s->candidate, sizeof s->candidate) && whole;
    }
    if (!whole) {
        finish(s, 400, NULL);
        return;
    }
    read_begin(s);
}

void switch_delete_on_rest(struct rt_agent *a, const struct rest_request *rq)
{
    struct rt_switch *s = switch_new(a, rq);
    if (s == NULL) {
        rest_reply(a->rest, rq->id, 503, NULL, "too many requests are under way");
        return;
    }
    s->deleting = true;
    read_begin(s);
}

void switch_close(struct rt_agent *a)
{
    for (int i = 0; i < RT_SWITCHES_MAX; i++) {
        struct rt_switch *s = a->requests.switches[i];
        if (s == NULL) {
            continue;
        }
        if (s->round != NULL) {
            peers_round_cancel(s->round);
            s->round = NULL;
        }
        if (s->state == SWITCH_POLL || s->state == SWITCH_WAIT) {
            switch_free(s); /* READ and WRITE end with their answer */
        }
    }
}

/* ---- checks (REST-90) -------------------------------------------------------------------------------------- */

static bool schedule_ok(struct rt_switch *s)
{
    int64_t at = 0;
    if (s->failover) {
        finish(s, 400, "Failover can't be scheduled");
        return false;
    }
    if (s->a->snap->config != NULL && s->a->settings.pause) {
        finish(s, 400, "Can't schedule switchover in the paused state");
        return false;
    }
    switch (rt_timestamp_parse(s->schedule_text, s->iso, sizeof s->iso, &at)) {
    case RT_STAMP_NO_ZONE:
        finish(s, 400, "Timezone information is mandatory for the scheduled switchover");
        return false;
    case RT_STAMP_INVALID:
        finish(s, 422, "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601");
        return false;
    case RT_STAMP_OK:
        break;
    }
    if (at < dra_wall_seconds()) {
        finish(s, 422, "Cannot schedule switchover in the past");
        return false;
    }
    s->scheduled = true;
    return true;
}

/* Rows 1 to 8.  False: answered. */
static bool request_ok(struct rt_switch *s)
{
    if (s->failover && s->candidate[0] == '\0') {
        finish(s, 400, "Failover could be performed only to a specific candidate");
        return false;
    }
    if (!s->failover && s->leader[0] == '\0') {
        finish(s, 400, "Switchover could be performed only from a specific leader");
        return false;
    }
    if (s->schedule_text[0] != '\0' && !schedule_ok(s)) {
        return false;
    }
    if (s->a->settings.pause && s->candidate[0] == '\0') {
        finish(s, 400, "Switchover is possible only to a specific candidate in a paused state");
        return false;
    }
    if (s->failover && s->leader[0] != '\0') {
        log_event(LOG_LV_WARNING, "request.failover", "received failover request with leader specified - performing switchover instead",
                  "leader", s->leader, "candidate", s->candidate, NULL);
        s->failover = false;
    }
    if (s->leader[0] != '\0' && dra_str_eq(s->leader, s->candidate)) {
        finish(s, 400, "Switchover target and source are the same");
        return false;
    }
    return true;
}

static void not_possible(struct rt_switch *s, const char *why)
{
    char text[128];
    dra_str_clip(text, sizeof text, s->failover ? "failover is not possible: " : "switchover is not possible: ");
    size_t len = strlen(text);
    dra_str_clip(text + len, sizeof text - len, why);
    finish(s, 412, text);
}

/* REST-91 1 to 4: who is to be asked.  False: answered. */
static bool check_set(struct rt_switch *s, uint64_t *out_mask)
{
    const struct ha_cluster *c = &s->a->snap->c;
    uint64_t mask = 0;
    if (s->leader[0] != '\0' && !dra_str_eq(s->leader, c->leader)) {
        finish(s, 412, "leader name does not match");
        return false;
    }
    if (s->candidate[0] != '\0') {
        int i = ha_member_find(c, s->candidate);
        if (i < 0) {
            finish(s, 412, "candidate does not exists");
            return false;
        }
        *out_mask = DRA_BIT(i);
        return true;
    }
    for (int i = 0; i < c->n_members; i++) {
        if (c->members[i].api_url[0] != '\0' && !dra_str_eq(c->members[i].name, c->leader)) {
            mask |= DRA_BIT(i);
        }
    }
    if (mask == 0) {
        not_possible(s, "cluster does not have members except leader");
        return false;
    }
    *out_mask = mask;
    return true;
}

/* ---- DELETE /switchover (REST-93) -------------------------------------------------------------------------- */

static void delete_key(struct rt_switch *s)
{
    const struct ha_cluster *c = &s->a->snap->c;
    struct dra_err err = {0};
    if (!(c->failover.scheduled || c->failover.schedule_invalid) ||
        (c->failover.leader[0] == '\0' && c->failover.member[0] == '\0')) {
        finish(s, 404, "no switchover is scheduled");
        return;
    }
    struct dcs_txn t = {
        .n_cmps = 1,
        .cmps = {{.target = DCS_CMP_MOD_REV, .key = "failover", .number = c->failover_rev}},
        .n_success = 1,
        .success = {{.kind = DCS_OP_PUT, .key = "failover", .value = "{}"}}, /* DCS-36 */
    };
    s->state = SWITCH_WRITE;
    if (s->a->dcs->vt->txn_start(s->a->dcs, &t, dra_after(dra_now(), s->a->settings.retry_timeout), on_deleted, s, &err) !=
        0) {
        finish(s, 409, NULL);
    }
}

static void on_deleted(const struct dcs_answer *ans, void *arg)
{
    struct rt_switch *s = arg;
    bool done = ans->err_code == DRA_OK && ans->succeeded;
    finish(s, done ? 200 : 409, done ? "scheduled switchover deleted" : NULL);
}

/* ---- from the read to the key ---------------------------------------------------------------------------------- */

static void write_key(struct rt_switch *s)
{
    struct rt_agent *a = s->a;
    struct dra_err err = {0};
    char *value = dcs_format_failover(s->leader, s->candidate, s->iso);
    int rc = DRA_ENOMEM;
    if (value != NULL) {
        struct dcs_txn t = {
            .n_success = 1,
            .success = {{.kind = DCS_OP_PUT, .key = "failover", .value = value}},
        };
        s->state = SWITCH_WRITE;
        rc = a->dcs->vt->txn_start(a->dcs, &t, dra_after(dra_now(), a->settings.retry_timeout), on_written, s, &err);
        free(value);
    }
    if (rc != 0) {
        finish(s, 503, "failed to write failover key into DCS");
    }
}

static void on_read(const struct dcs_answer *ans, void *arg)
{
    struct rt_switch *s = arg;
    struct rt_agent *a = s->a;
    uint64_t mask = 0;
    struct dra_err err = {0};

    if (a->requests.closing || ans->err_code != DRA_OK || a->snap == NULL) {
        finish(s, 0, NULL); /* REST-09: clients then write the key themselves */
        return;
    }
    if (s->deleting) {
        delete_key(s);
        return;
    }
    if (!request_ok(s)) {
        return;
    }
    if (s->scheduled) { /* not checked for feasibility */
        write_key(s);
        return;
    }
    if (!check_set(s, &mask)) {
        return;
    }
    s->state = SWITCH_POLL;
    char auth[400];
    rt_auth_header(a, auth, sizeof auth);
    if (peers_round_start(a->http, &a->snap->c, mask, auth, dra_after(dra_now(), dra_ms(FEASIBILITY_MS)), on_polled, s,
                          &s->round, &err) != 0) {
        not_possible(s, "no good candidates have been found");
    }
}

static void on_polled(const struct peer_answer *answers, int n, void *arg)
{
    struct rt_switch *s = arg;
    s->round = NULL;
    for (int i = 0; i < n; i++) {
        if (peers_is_candidate(&answers[i].p)) {
            write_key(s);
            return;
        }
    }
    not_possible(s, "no good candidates have been found");
}

static void on_written(const struct dcs_answer *ans, void *arg)
{
    struct rt_switch *s = arg;
    struct rt_agent *a = s->a;
    if (ans->err_code != DRA_OK || !ans->succeeded) {
        finish(s, 503, "failed to write failover key into DCS");
        return;
    }
    rt_dirty(a);
    if (s->scheduled) {
        finish(s, 202, "Switchover scheduled");
        return;
    }
    if (a->requests.closing || a->snap == NULL) {
        finish(s, 0, NULL);
        return;
    }
    int64_t loop_wait_s = dra_span_ms(a->settings.loop_wait) / 1000;
    s->polls = 2 * (loop_wait_s > 10 ? loop_wait_s : 10);
    s->give_up_at = dra_after(dra_now(), dra_ms(s->polls * 1000));
    s->written_rev = ans->revision;
    memcpy(s->old_leader, s->leader[0] != '\0' ? s->leader : a->snap->c.leader, sizeof s->old_leader);
    s->state = SWITCH_WAIT;
    switch_on_snapshot(a); /* it may have happened already */
}

/* ---- the outcome (REST-92) --------------------------------------------------------------------------------------- */

static void tell_success(struct rt_switch *s, const char *winner)
{
    char text[2 * HA_NAME_MAX + 64];
    const char *verb = s->failover ? "Failed over" : "Switched over";
    int rc;
    if (s->candidate[0] == '\0' || dra_str_eq(s->candidate, winner)) {
        rc = dra_str_printf(text, sizeof text, "Successfully %s to \"%s\"", s->failover ? "failed over" : "switched over",
                            winner);
    } else {
        rc = dra_str_printf(text, sizeof text, "%s to \"%s\" instead of \"%s\"", verb, winner, s->candidate);
    }
    finish(s, 200, rc == 0 ? text : verb);
}

static void look(struct rt_switch *s)
{
    const struct ha_cluster *c = &s->a->snap->c;
    if (c->revision < s->written_rev) {
        return; /* does not show our key yet */
    }
    if (c->leader[0] != '\0' && !dra_str_eq(c->leader, s->old_leader)) {
        tell_success(s, c->leader);
        return;
    }
    if (c->failover.leader[0] == '\0' && c->failover.member[0] == '\0') {
        finish(s, 503, s->failover ? "Failover failed" : "Switchover failed");
    }
}

void switch_on_snapshot(struct rt_agent *a)
{
    for (int i = 0; i < RT_SWITCHES_MAX; i++) {
        struct rt_switch *s = a->requests.switches[i];
        if (s != NULL && s->state == SWITCH_WAIT && a->snap != NULL) {
            look(s);
        }
    }
}

void switch_tick(struct rt_agent *a)
{
    for (int i = 0; i < RT_SWITCHES_MAX; i++) {
        struct rt_switch *s = a->requests.switches[i];
        if (s == NULL || s->state != SWITCH_WAIT || !dra_reached(dra_now(), s->give_up_at)) {
            continue;
        }
        char text[128];
        int rc = dra_str_printf(text, sizeof text,
                                "%s status unknown after %" PRId64 " seconds; operation may still be in progress",
                                s->failover ? "Failover" : "Switchover", s->polls);
        finish(s, 503, rc == 0 ? text : "status unknown");
    }
}

struct dra_instant switch_wake_at(const struct rt_agent *a)
{
    struct dra_instant at = {0};
    for (int i = 0; i < RT_SWITCHES_MAX; i++) {
        const struct rt_switch *s = a->requests.switches[i];
        if (s != NULL && s->state == SWITCH_WAIT) {
            at = dra_earlier(at, s->give_up_at);
        }
    }
    return at;
}

/*
 * peers.c - one round of questions to members: in parallel, over kept-alive connections, with one deadline.
 *
 * Invariants:
 *  (1) The callback runs exactly once unless the round is cancelled; never from inside peers_round_start().
 *  (2) A row claims nothing that its own answer did not say; asked_at is the send time of that question.
 * Threads: loop thread only.
 */
#include "peers.h"

#include <dragent/dcs.h>
#include <dragent/text.h>

#include <stdlib.h>
#include <string.h>

#define PEER_BODY_MAX (256 * 1024)

struct peer_ask {
    struct peer_round *round; /* borrowed: lives until its last question ended */
    int row;
};
struct peer_round {
    peer_round_cb cb; /* NULL: cancelled */
    void *arg;
    struct dra_instant begun_at;
    int pending;
    int n;
    struct http_op *ops[HA_MEMBERS_MAX]; /* NULL once ended */
    struct peer_ask asks[HA_MEMBERS_MAX];
    struct peer_answer answers[HA_MEMBERS_MAX];
};

static void peer_on_response(const struct http_response *r, void *arg);

int peers_round_start(struct http_client *http, const struct ha_cluster *c, uint64_t mask, const char *auth_header,
                      struct dra_instant not_after, peer_round_cb cb, void *arg, struct peer_round **out,
                      struct dra_err *err)
{
    struct peer_round *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    /* no-cache: our own kind then reads its position anew (REST-47 lets others answer what is up to 1 s old). */
    const char *headers[] = {"User-Agent: Patroni/4.1.4 dragent/" DRA_VERSION, "Cache-Control: no-cache",
                             auth_header[0] != '\0' ? auth_header : NULL, NULL};
    r->cb = cb;
    r->arg = arg;
    r->begun_at = dra_now();
    for (int i = 0; i < c->n_members; i++) {
        const struct ha_member *m = &c->members[i];
        if ((mask & DRA_BIT(i)) == 0 || m->api_url[0] == '\0') {
            continue;
        }
        int row = r->n++;
        memcpy(r->answers[row].name, m->name, sizeof r->answers[row].name);
        r->answers[row].p.asked_at = r->begun_at;
        r->asks[row] = (struct peer_ask){.round = r, .row = row};
        struct http_request rq = {
            .method = "GET", .url = m->api_url, .headers = headers, .not_after = not_after, .max_body = PEER_BODY_MAX};
        struct dra_err one = {0};
        if (http_start(http, &rq, peer_on_response, &r->asks[row], &r->ops[row], &one) == 0) {
            r->pending++;
        } else {
            r->ops[row] = NULL;
            r->answers[row].p.failed = true;
        }
    }
    if (r->pending == 0) {
        free(r);
        return dra_err_set(err, DRA_ENOTFOUND, "no member to ask");
    }
    *out = r;
    return 0;
}

void peers_round_cancel(struct peer_round *r)
{
    if (r == NULL) {
        return;
    }
    r->cb = NULL;
    for (int i = 0; i < r->n; i++) {
        if (r->ops[i] != NULL) {
            http_cancel(r->ops[i]);
        }
    }
}

static void peer_on_response(const struct http_response *r, void *arg)
{
    struct peer_ask *ask = arg;
    struct peer_round *round = ask->round;
    struct ha_peer *p = &round->answers[ask->row].p;
    struct ha_peer got;

    round->ops[ask->row] = NULL;
    /* HA-76: the status does not matter, the body does. */
    if (r->err_code == DRA_OK && r->status != 0 && peers_parse(r->body, r->body_len, &got)) {
        *p = got;
        p->answered = true;
    } else {
        p->failed = true;
    }
    p->asked_at = dra_is_set(r->sent_at) ? r->sent_at : round->begun_at;
    if (--round->pending > 0) {
        return;
    }
    if (round->cb != NULL) {
        round->cb(round->answers, round->n, round->arg);
    }
    free(round);
}

static uint64_t get_u64(const struct json *j, const char *path)
{
    int64_t v = 0;
    if (json_opt_i64(j, path, &v, NULL) != 0 || v < 0) {
        return 0;
    }
    return (uint64_t)v;
}

bool peers_parse(const char *body, size_t len, struct ha_peer *out)
{
    DRA_CLEANUP(json_freep) struct json *root = NULL;
    if (json_parse(body, len, &root, NULL) != 0 || json_type_of(root) != JSON_OBJECT) {
        return false;
    }
    const struct json *wal = json_get(root, "wal");
    if (json_type_of(wal) != JSON_OBJECT) {
        wal = json_get(root, "xlog");
    }
    if (json_type_of(wal) != JSON_OBJECT) {
        return false;
    }
    const char *role = json_text(json_get(root, "role"));
    uint64_t location = get_u64(wal, "location");
    uint64_t received = get_u64(wal, "received_location");
    uint64_t replayed = get_u64(wal, "replayed_location");
    uint64_t timeline = get_u64(root, "timeline");
    struct ha_tags tags;
    struct ha_peer p = {0};

    dcs_tags_interpret(json_get(root, "tags"), &tags);
    bool primary = location != 0 || (role != NULL && (dra_str_eq(role, "primary") || dra_str_eq(role, "master")));
    p.in_recovery = primary ? DRA_NO : DRA_YES;
    p.position = primary ? 0 : (received > replayed ? received : replayed);
    p.timeline = timeline <= UINT32_MAX ? (uint32_t)timeline : 0;
    p.nofailover = tags.nofailover;
    p.failover_priority = tags.failover_priority;
    p.watchdog_failed = json_is_true(json_get(root, "watchdog_failed"));
    *out = p;
    return true;
}

bool peers_is_candidate(const struct ha_peer *p)
{
    return p->answered && !p->nofailover && p->failover_priority > 0 && !p->watchdog_failed;
}

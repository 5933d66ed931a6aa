/*
 * health.c - REST-50..56, REST-60, REST-62.
 *
 * Promises: no I/O, no clock, no allocation; depends on its arguments only.
 * Threads: any.
 */
#include "health.h"

#include <dragent/conf.h>

#include <string.h>

#define TAG_PREFIX "tag_"

/* ---- selection (REST-51) ---------------------------------------------------------------------------------- */

static bool has(const char *path, const char *word)
{
    return strstr(path, word) != NULL;
}

enum rest_check rest_check_of(const char *path)
{
    static const struct {
        const char *path;
        enum rest_check check;
    } exact[] = {
        {"/sync", REST_CHECK_SYNC},
        {"/synchronous", REST_CHECK_SYNC},
        {"/quorum", REST_CHECK_QUORUM},
        {"/async", REST_CHECK_ASYNC},
        {"/asynchronous", REST_CHECK_ASYNC},
        {"/read-only-quorum", REST_CHECK_READ_ONLY_QUORUM},
        {"/read-only-sync", REST_CHECK_READ_ONLY_SYNC},
        {"/read-only-synchronous", REST_CHECK_READ_ONLY_SYNC},
    };
    if (strcmp(path, "/") == 0) {
        return REST_CHECK_PRIMARY;
    }
    if (has(path, "standby_leader") || has(path, "standby-leader")) {
        return REST_CHECK_STANDBY_LEADER;
    }
    if (has(path, "leader")) {
        return REST_CHECK_LEADER;
    }
    if (has(path, "master") || has(path, "primary") || has(path, "read-write")) {
        return REST_CHECK_PRIMARY;
    }
    if (has(path, "replica")) {
        return REST_CHECK_REPLICA;
    }
    if (has(path, "read-only") && !has(path, "sync") && !has(path, "quorum")) {
        return REST_CHECK_READ_ONLY;
    }
    if (has(path, "health")) {
        return REST_CHECK_HEALTH;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(exact); i++) {
        if (strcmp(path, exact[i].path) == 0) {
            return exact[i].check;
        }
    }
    return REST_CHECK_NONE;
}

bool rest_check_is_lock_only(enum rest_check c)
{
    return c == REST_CHECK_STANDBY_LEADER || c == REST_CHECK_LEADER || c == REST_CHECK_PRIMARY || c == REST_CHECK_NONE;
}

/* ---- building blocks (REST-50) --------------------------------------------------------------------------------- */

struct blocks {
    bool leader, primary, standby_leader, replica;
};

/* REST-110; anything that is not a size means "no limit given". */
static bool size_param(const struct rest_target *t, const char *key, int64_t *out)
{
    const char *text = rest_target_param(t, key);
    return text != NULL && conf_parse_size(text, out) == DRA_OK;
}

/* L of REST-52. */
static uint64_t known_end(const struct rest_ask *q)
{
    uint64_t end = q->node->latest_end_lsn;
    if (q->now->cluster_valid && q->node->optime > end) {
        end = q->node->optime;
    }
    return end;
}

static bool is_lagging(const struct rest_ask *q)
{
    int64_t max = 0;
    uint64_t end = known_end(q);

    if (!size_param(q->target, "lag", &max)) {
        return false;
    }
    uint64_t replayed = q->now->full ? q->node->replayed : 0;
    if (max < 0) {
        return end > 0 && end + ((uint64_t)0 - (uint64_t)max) > replayed;
    }
    return end > 0 && end > replayed + (uint64_t)max;
}

static const char *repl_text(enum ha_repl_state r)
{
    return r == HA_REPL_STREAMING ? "streaming" : r == HA_REPL_ARCHIVE ? "in archive recovery" : "";
}

static bool is_replica(const struct rest_ask *q)
{
    const char *want = rest_target_param(q->target, "replication_state"); /* REST-53 */

    return !q->node->noloadbalance && q->now->role == HA_ROLE_REPLICA && q->now->state == HA_STATE_RUNNING && !is_lagging(q) &&
           (want == NULL || strcmp(want, repl_text(q->now->repl)) == 0);
}

static struct blocks blocks_of(const struct rest_ask *q)
{
    struct blocks b = {.replica = is_replica(q)};
    enum ha_role role = q->now->role;

    if (!q->now->cluster_valid && q->node->paused && !q->now->stalled) {
        b.primary = role == HA_ROLE_PRIMARY;
        b.standby_leader = role == HA_ROLE_STANDBY_LEADER;
        b.leader = b.primary || b.standby_leader;
    } else if (q->now->lock) {
        b.leader = true;
        b.primary = !q->node->standby_cluster;
        b.standby_leader = q->node->standby_cluster && (role == HA_ROLE_REPLICA || role == HA_ROLE_STANDBY_LEADER);
        b.replica = b.replica && !q->node->standby_cluster;
    }
    return b;
}

/* ---- tags (REST-54) ---------------------------------------------------------------------------------------------- */

static bool tag_matches(const struct json *tag, const char *want)
{
    char text[256];
    const char *s = json_text(tag);

    if (s != NULL) {
        return strcmp(s, want) == 0;
    }
    if (!json_scalar_text(tag, text, sizeof text)) {
        return false;
    }
    for (char *p = text; *p != '\0'; p++) {
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
    }
    return strcmp(text, want) == 0;
}

static bool tags_match(const struct rest_ask *q)
{
    const size_t len = sizeof TAG_PREFIX - 1;

    for (int i = 0; i < q->target->n_params; i++) {
        const struct rest_param *p = &q->target->params[i];
        bool first = rest_target_param(q->target, p->key) == p->value;
        if (first && strncmp(p->key, TAG_PREFIX, len) == 0 && !tag_matches(json_get(q->tags, p->key + len), p->value)) {
            return false;
        }
    }
    return true;
}

/* ---- the checks ---------------------------------------------------------------------------------------------------- */

static bool check_holds(enum rest_check c, const struct rest_ask *q)
{
    struct blocks b = blocks_of(q);
    bool writable = b.primary || b.standby_leader;
    bool known = q->now->cluster_valid;

    switch (c) {
    case REST_CHECK_STANDBY_LEADER:
        return b.standby_leader;
    case REST_CHECK_LEADER:
        return b.leader;
    case REST_CHECK_PRIMARY:
        return b.primary;
    case REST_CHECK_REPLICA:
        return b.replica;
    case REST_CHECK_READ_ONLY:
        return writable || b.replica;
    case REST_CHECK_HEALTH:
        return q->now->state == HA_STATE_RUNNING;
    case REST_CHECK_SYNC:
        return known && b.replica && q->now->sync_standby;
    case REST_CHECK_QUORUM:
        return known && b.replica && q->now->quorum_standby;
    case REST_CHECK_ASYNC:
        return known && b.replica && !q->now->sync_standby && !q->now->quorum_standby;
    case REST_CHECK_READ_ONLY_QUORUM:
        return known && (writable || (b.replica && q->now->quorum_standby));
    case REST_CHECK_READ_ONLY_SYNC:
        return known && (writable || (b.replica && q->now->sync_standby));
    case REST_CHECK_NONE:
    case REST_CHECK_COUNT:
        break;
    }
    return false;
}

int rest_health_status(const struct rest_ask *q)
{
    enum rest_check c = rest_check_of(q->target->path);

    return check_holds(c, q) && (rest_check_is_lock_only(c) || tags_match(q)) ? 200 : 503;
}

int rest_liveness_status(const struct views_node *n, struct dra_instant at)
{
    struct dra_span allowed = n->ttl;

    if (n->agent_role != HA_ROLE_PRIMARY || !n->postmaster) {
        allowed.ns *= 2;
    }
    return n->paused || dra_after(n->cycle_due, allowed).ns > at.ns ? 200 : 503;
}

int rest_readiness_status(const struct rest_ask *q)
{
    const struct views_node *n = q->node;
    const char *mode = rest_target_param(q->target, "mode");
    uint64_t position = mode != NULL && strcmp(mode, "write") == 0 ? n->received : n->replayed;
    int64_t limit = (int64_t)n->max_lag;

    if (q->now->lock) {
        return 200;
    }
    if (q->now->state != HA_STATE_RUNNING || q->now->repl != HA_REPL_STREAMING) {
        return 503;
    }
    if (!q->now->cluster_valid && n->latest_end_lsn == 0) {
        return 503;
    }
    (void)size_param(q->target, "lag", &limit); /* else the default stays */
    uint64_t end = known_end(q);
    int64_t lag = end > position ? (int64_t)(end - position) : -(int64_t)(position - end);
    return lag > limit ? 503 : 200;
}

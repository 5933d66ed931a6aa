/*
 * memory.c - an etcd cluster in memory (memory.h says what it models).
 *
 * Invariants:
 *  (1) keys are sorted by name, and their `key` and `value` pointers are always valid.
 *  (2) a key's lease is 0 or that of a lease in the table which is alive: expiry removes both in
 * one revision. (3) the same calls with the same instants give the same state (no clock, no
 * randomness, no addresses). Threads: one.
 */
#include "memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MEM_KEYS_MAX 256
#define MEM_LEASES_MAX 1024
#define MEM_TTL_MIN_S 2 /* what a server with default settings grants at least */
#define MEM_TICK_MS 500
#define MEM_FIRST_LEASE INT64_C(7587848094190927361) /* above 2^53: doubles would lose it */

struct mem_lease {
    int64_t id;
    int64_t ttl_s;
    struct dra_instant expires;
    bool alive;
    bool known_to_deposed; /* the old leader's lessor has it */
};

struct mem_store {
    int64_t revision;
    uint64_t term;
    uint64_t cluster_id;
    bool leaderless;
    uint64_t deposed_term; /* 0 = no deposed leader answers */
    struct dra_instant next_tick;
    int64_t next_lease;
    size_t n_keys;
    struct dcs_kv keys[MEM_KEYS_MAX]; /* key and value owned */
    size_t n_leases;
    struct mem_lease leases[MEM_LEASES_MAX];
    struct dcs_snapshot *cached; /* of cached_revision; one reference is ours */
    mem_change_cb on_change;
    void *on_change_arg;
};

static size_t key_position(const struct mem_store *m, const char *key, bool *found);
static bool key_put(struct mem_store *m, const char *key, const char *value, int64_t lease,
                    int64_t revision);
static bool key_delete(struct mem_store *m, const char *key);
static struct mem_lease *lease_find(struct mem_store *m, int64_t id);

struct mem_store *mem_new(uint64_t cluster_id, struct dra_instant now)
{
    struct mem_store *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return NULL;
    }
    m->revision = 1; /* as a new etcd */
    m->term = 2;
    m->cluster_id = cluster_id;
    m->next_lease = MEM_FIRST_LEASE;
    m->next_tick = dra_after(now, dra_ms(MEM_TICK_MS));
    return m;
}

void mem_free(struct mem_store *m)
{
    if (m == NULL) {
        return;
    }
    while (m->n_keys > 0) {
        (void)key_delete(m, m->keys[m->n_keys - 1].key);
    }
    dcs_snapshot_unref(m->cached);
    free(m);
}

void mem_on_change(struct mem_store *m, mem_change_cb cb, void *arg)
{
    m->on_change = cb;
    m->on_change_arg = arg;
}

int64_t mem_revision(const struct mem_store *m)
{
    return m->revision;
}

uint64_t mem_term(const struct mem_store *m)
{
    return m->term;
}

bool mem_has_leader(const struct mem_store *m)
{
    return !m->leaderless;
}

/* ---- keys
 * ---------------------------------------------------------------------------------------------- */

static size_t key_position(const struct mem_store *m, const char *key, bool *found)
{
    size_t lo = 0;
    size_t hi = m->n_keys;

    *found = false;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int cmp = strcmp(m->keys[mid].key, key);
        if (cmp == 0) {
            *found = true;
            return mid;
        }
        if (cmp < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static bool key_put(struct mem_store *m, const char *key, const char *value, int64_t lease,
                    int64_t revision)
{
    bool found;
    size_t i = key_position(m, key, &found);
    char *copy = strdup(value);

    if (copy == NULL) {
        return false;
    }
    if (!found) {
        char *name = m->n_keys < MEM_KEYS_MAX ? strdup(key) : NULL;
        if (name == NULL) {
            free(copy);
            return false;
        }
        memmove(&m->keys[i + 1], &m->keys[i], (m->n_keys - i) * sizeof m->keys[0]);
        m->n_keys++;
        m->keys[i] = (struct dcs_kv){.key = name, .create_revision = revision};
    }
    free((void *)(uintptr_t)m->keys[i].value);
    m->keys[i].value = copy;
    m->keys[i].value_len = strlen(copy);
    m->keys[i].mod_revision = revision;
    m->keys[i].lease = lease;
    return true;
}

static bool key_delete(struct mem_store *m, const char *key)
{
    bool found;
    size_t i = key_position(m, key, &found);

    if (!found) {
        return false;
    }
    struct dcs_kv gone = m->keys[i];
    m->n_keys--;
    memmove(&m->keys[i], &m->keys[i + 1], (m->n_keys - i) * sizeof m->keys[0]);
    free((void *)(uintptr_t)gone.value);
    free((void *)(uintptr_t)gone.key);
    return true;
}

const struct dcs_kv *mem_get(struct mem_store *m, const char *key)
{
    bool found;
    size_t i = key_position(m, key, &found);
    return found ? &m->keys[i] : NULL;
}

size_t mem_read(struct mem_store *m, const struct dcs_kv **out)
{
    *out = m->keys;
    return m->n_keys;
}

struct dcs_snapshot *mem_snapshot(struct mem_store *m)
{
    if (m->cached == NULL || m->cached->c.revision != m->revision ||
        m->cached->c.raft_term != m->term) {
        struct dcs_snapshot *s = dcs_cluster_parse(m->keys, m->n_keys, m->revision);
        if (s == NULL) {
            return NULL;
        }
        s->c.raft_term = m->term;
        s->c.cluster_id = m->cluster_id;
        dcs_snapshot_unref(m->cached);
        m->cached = s;
    }
    return dcs_snapshot_ref(m->cached);
}

static void changed(struct mem_store *m, const char *key, bool deleted)
{
    if (m->on_change != NULL) {
        m->on_change(m, m->revision, key, deleted, m->on_change_arg);
    }
}

/* ---- transactions
 * --------------------------------------------------------------------------------------- */

/* The header of an answer; false if nobody answers. */
static bool answer_begin(const struct mem_store *m, struct dcs_answer *out)
{
    memset(out, 0, sizeof *out);
    if (m->leaderless) {
        out->err_code = DRA_ETIMEDOUT;
        dra_str_clip(out->err_msg, sizeof out->err_msg, "etcdserver: no leader");
        return false;
    }
    out->raft_term = m->term;
    out->revision = m->revision;
    return true;
}

static void answer_fail(struct dcs_answer *out, int code, const char *text)
{
    out->err_code = code;
    dra_str_clip(out->err_msg, sizeof out->err_msg, text);
}

static bool compare_holds(struct mem_store *m, const struct dcs_cmp *c)
{
    const struct dcs_kv *kv = mem_get(m, c->key);

    switch (c->target) {
    case DCS_CMP_MOD_REV:
        return (kv != NULL ? kv->mod_revision : 0) == c->number;
    case DCS_CMP_CREATE_REV:
        return (kv != NULL ? kv->create_revision : 0) == c->number;
    case DCS_CMP_LEASE:
        return (kv != NULL ? kv->lease : 0) == c->number;
    case DCS_CMP_VALUE: /* false on a missing key, whatever the value */
        return kv != NULL && dra_str_eq(kv->value, c->value);
    case DCS_CMP_NONE:
        break;
    }
    return false;
}

/* What etcd refuses before it changes anything. */
static bool ops_are_valid(struct mem_store *m, const struct dcs_op *ops, int n,
                          struct dcs_answer *out)
{
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++) {
            if (ops[i].kind == DCS_OP_PUT && ops[k].kind == DCS_OP_PUT &&
                dra_str_eq(ops[i].key, ops[k].key)) {
                answer_fail(out, DRA_EREMOTE, "etcdserver: duplicate key given in txn request");
                return false;
            }
        }
        if (ops[i].kind == DCS_OP_PUT && ops[i].lease != 0) {
            const struct mem_lease *l = lease_find(m, ops[i].lease);
            if (l == NULL || !l->alive) {
                answer_fail(out, DRA_ENOTFOUND, "etcdserver: requested lease not found");
                return false;
            }
        }
    }
    return true;
}

void mem_apply_txn(struct mem_store *m, const struct dcs_txn *t, struct dra_instant now,
                   struct dcs_answer *out)
{
    const char *last_key = NULL;
    bool last_deleted = false;
    bool got = false;

    (void)mem_advance(m, now);
    if (!answer_begin(m, out)) {
        return;
    }
    bool ok = true;
    for (int i = 0; i < t->n_cmps && ok; i++) {
        ok = compare_holds(m, &t->cmps[i]);
    }
    const struct dcs_op *ops = ok ? t->success : t->failure;
    int n = ok ? t->n_success : t->n_failure;
    if (!ops_are_valid(m, ops, n, out)) {
        return;
    }
    int64_t revision = m->revision + 1; /* one for the whole transaction */
    for (int i = 0; i < n; i++) {
        if (ops[i].kind == DCS_OP_PUT) {
            if (!key_put(m, ops[i].key, ops[i].value, ops[i].lease, revision)) {
                answer_fail(out, DRA_EREMOTE, "etcdserver: mvcc: database space exceeded");
                return;
            }
            last_key = ops[i].key;
            last_deleted = false;
        } else if (ops[i].kind == DCS_OP_DELETE) {
            if (key_delete(m, ops[i].key)) {
                last_key = ops[i].key;
                last_deleted = true;
            }
        } else if (ops[i].kind == DCS_OP_GET && !got) {
            const struct dcs_kv *kv = mem_get(m, ops[i].key);
            got = true;
            if (kv != NULL) {
                out->got_mod_rev = kv->mod_revision;
                out->got_lease = kv->lease;
                if (dra_str_copy(out->got_value, sizeof out->got_value, kv->value) != DRA_OK) {
                    out->got_value[0] = '\0'; /* longer than a name */
                }
            }
        }
    }
    out->succeeded = ok;
    if (last_key != NULL) {
        m->revision = revision;
        out->revision = revision;
        changed(m, last_key, last_deleted);
    }
}

void mem_delete_prefix(struct mem_store *m, struct dra_instant now, struct dcs_answer *out)
{
    (void)mem_advance(m, now);
    if (!answer_begin(m, out) || m->n_keys == 0) {
        return;
    }
    while (m->n_keys > 0) {
        (void)key_delete(m, m->keys[m->n_keys - 1].key);
    }
    m->revision++;
    out->revision = m->revision;
    changed(m, "", true);
}

/* ---- leases
 * ---------------------------------------------------------------------------------------------- */

static struct mem_lease *lease_find(struct mem_store *m, int64_t id)
{
    for (size_t i = 0; i < m->n_leases; i++) {
        if (m->leases[i].id == id) {
            return &m->leases[i];
        }
    }
    return NULL;
}

/* A free place: that of a dead lease (unknown and expired answer alike), or a new one. */
static struct mem_lease *lease_place(struct mem_store *m)
{
    for (size_t i = 0; i < m->n_leases; i++) {
        if (!m->leases[i].alive && !m->leases[i].known_to_deposed) {
            return &m->leases[i];
        }
    }
    return m->n_leases < MEM_LEASES_MAX ? &m->leases[m->n_leases++] : NULL;
}

static struct dra_instant lease_end(const struct mem_lease *l, struct dra_instant now)
{
    return dra_after(now, dra_ms(l->ttl_s * 1000));
}

void mem_grant(struct mem_store *m, int64_t ttl_s, struct dra_instant now, struct dcs_answer *out)
{
    (void)mem_advance(m, now);
    if (!answer_begin(m, out)) {
        return;
    }
    struct mem_lease *l = lease_place(m);
    if (l == NULL) {
        answer_fail(out, DRA_EREMOTE, "etcdserver: too many leases");
        return;
    }
    memset(l, 0, sizeof *l);
    l->id = m->next_lease++;
    l->ttl_s = ttl_s < MEM_TTL_MIN_S ? MEM_TTL_MIN_S : ttl_s;
    l->expires = lease_end(l, now);
    l->alive = true;
    out->lease = l->id;
    out->ttl_s = l->ttl_s;
}

void mem_keepalive(struct mem_store *m, int64_t lease, struct dra_instant now,
                   struct dcs_answer *out)
{
    (void)mem_advance(m, now);
    if (!answer_begin(m, out)) {
        return;
    }
    struct mem_lease *l = lease_find(m, lease);
    out->lease = lease;
    if (l == NULL || !l->alive ||
        dra_reached(now, l->expires)) { /* past its end it waits for the tick only */
        answer_fail(out, DRA_ENOTFOUND, "lease unknown or expired");
        return;
    }
    l->expires = lease_end(l, now);
    out->ttl_s = l->ttl_s;
}

void mem_keepalive_deposed(struct mem_store *m, int64_t lease, struct dra_instant now,
                           struct dcs_answer *out)
{
    (void)mem_advance(m, now);
    memset(out, 0, sizeof *out);
    if (m->deposed_term == 0) {
        answer_fail(out, DRA_ETIMEDOUT, "no answer");
        return;
    }
    const struct mem_lease *l = lease_find(m, lease);
    out->raft_term = m->deposed_term;
    out->revision = m->revision;
    out->lease = lease;
    if (l == NULL || !l->known_to_deposed) {
        answer_fail(out, DRA_ENOTFOUND, "lease unknown or expired");
        return;
    }
    out->ttl_s =
        l->ttl_s; /* WIN-31: as if all were well; nothing can be revoked without a quorum */
}

struct dra_instant mem_lease_expires(const struct mem_store *m, int64_t lease)
{
    for (size_t i = 0; i < m->n_leases; i++) {
        if (m->leases[i].id == lease && m->leases[i].alive) {
            return m->leases[i].expires;
        }
    }
    return (struct dra_instant){0};
}

/* All keys of one lease go in one revision. */
static void lease_expire(struct mem_store *m, struct mem_lease *l)
{
    char last[2 * HA_NAME_MAX] = "";

    l->alive = false;
    for (size_t i = m->n_keys; i > 0; i--) {
        if (m->keys[i - 1].lease == l->id) {
            dra_str_clip(last, sizeof last, m->keys[i - 1].key);
            (void)key_delete(m, m->keys[i - 1].key);
        }
    }
    if (last[0] != '\0') {
        m->revision++;
        changed(m, last, true);
    }
}

/* The first tick at or after t. */
static struct dra_instant tick_at(const struct mem_store *m, struct dra_instant t)
{
    int64_t step = dra_ms(MEM_TICK_MS).ns;
    if (dra_reached(m->next_tick, t)) {
        return m->next_tick;
    }
    int64_t n = (t.ns - m->next_tick.ns + step - 1) / step;
    return (struct dra_instant){m->next_tick.ns + n * step};
}

struct dra_instant mem_next_due(const struct mem_store *m)
{
    struct dra_instant due = {0};

    if (m->leaderless) {
        return due;
    }
    for (size_t i = 0; i < m->n_leases; i++) {
        if (m->leases[i].alive) {
            due = dra_earlier(due, tick_at(m, m->leases[i].expires));
        }
    }
    return due;
}

int mem_advance(struct mem_store *m, struct dra_instant now)
{
    int expired = 0;

    for (;;) {
        struct dra_instant due = mem_next_due(m);
        if (!dra_is_set(due) || due.ns > now.ns) {
            break;
        }
        for (size_t i = 0; i < m->n_leases; i++) {
            if (m->leases[i].alive && dra_reached(due, m->leases[i].expires)) {
                lease_expire(m, &m->leases[i]);
                expired++;
            }
        }
        m->next_tick = dra_after(due, dra_ms(MEM_TICK_MS));
    }
    if (dra_reached(now, m->next_tick)) {
        m->next_tick = tick_at(m, (struct dra_instant){now.ns + 1});
    }
    return expired;
}

/* ---- terms
 * ------------------------------------------------------------------------------------------------
 */

void mem_leader_lost(struct mem_store *m)
{
    m->leaderless = true;
}

void mem_leader_elected(struct mem_store *m, struct dra_instant now, bool old_answers)
{
    if (!m->leaderless) {
        (void)mem_advance(m, now);
    }
    m->deposed_term = old_answers ? m->term : 0;
    m->term++;
    m->leaderless = false;
    for (size_t i = 0; i < m->n_leases; i++) {
        struct mem_lease *l = &m->leases[i];
        l->known_to_deposed = old_answers && l->alive;
        l->expires = lease_end(l, now); /* DCS-50: the countdown starts again */
    }
    m->next_tick = dra_after(now, dra_ms(MEM_TICK_MS));
}

void mem_deposed_end(struct mem_store *m)
{
    m->deposed_term = 0;
    for (size_t i = 0; i < m->n_leases; i++) {
        m->leases[i].known_to_deposed = false;
    }
}

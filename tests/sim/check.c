/*
 * check.c - the invariants of spec/safety.md, looked at after every step.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

static bool is_initialized(struct sim *s)
{
    const struct dcs_kv *kv = mem_get(s->etcd, "initialize");

    return kv != NULL && kv->value_len > 0;
}

static bool is_paused(struct sim *s)
{
    const struct dcs_kv *kv = mem_get(s->etcd, "config");

    return kv != NULL && memmem(kv->value, kv->value_len, "\"pause\":true", 12) != NULL;
}

static bool holds_key(struct sim *s, const struct node *n)
{
    const struct dcs_kv *kv = mem_get(s->etcd, "leader");

    return kv != NULL && kv->value_len == strlen(n->name) && memcmp(kv->value, n->name, kv->value_len) == 0;
}

/* SAFE-01: never two servers that can acknowledge. */
void check_step(struct sim *s)
{
    const struct node *first = NULL;

    for (int i = 0; i < SIM_NODES; i++) {
        const struct node *n = &s->nodes[i];

        if (!n->power || !pg_can_ack(&n->pg)) {
            continue;
        }
        if (first != NULL && is_initialized(s)) {
            sim_violate(s, "SAFE-01: %s (timeline %u) and %s (timeline %u) can both acknowledge", first->name, first->pg.tl,
                        n->name, n->pg.tl);
            return;
        }
        first = n;
    }
}

/* SAFE-01 as clients see it: by the order of promotions, not by clocks. */
void check_ack(struct sim *s, struct node *n, uint64_t id)
{
    uint64_t serial = n->pg.serial;

    if (!is_initialized(s)) {
        return; /* no cluster yet: nobody was promised anything */
    }
    if (serial < s->acked_serial) {
        sim_violate(s, "SAFE-01: %s acknowledged after a later primary had", n->name);
    }
    if (serial == s->acked_serial && s->acked_node != n->i && s->acked_node >= 0) {
        sim_violate(s, "SAFE-01: %s and %s acknowledged as one primary", s->nodes[s->acked_node].name, n->name);
    }
    s->acked_serial = serial;
    s->acked_node = n->i;
    s->acked_rows++;
    s->last_ack_at = s->now;
    if (s->n_acked == s->cap_acked) {
        s->cap_acked = s->cap_acked == 0 ? 1024 : s->cap_acked * 2;
        s->acked = realloc(s->acked, s->cap_acked * sizeof *s->acked);
        assert(s->acked != NULL);
    }
    s->acked[s->n_acked++] = id;
}

/* SAFE-02, SAFE-04: a server turns writable only while its node really holds the key. */
void check_writable(struct sim *s, struct node *n)
{
    (void)mem_advance(s->etcd, (struct dra_instant){s->now});
    if (is_initialized(s) && !holds_key(s, n) && !is_paused(s)) {
        sim_violate(s, "SAFE-02/04: %s turned writable without the leader key", n->name);
    }
}

static bool has_row(const struct pg_model *p, uint64_t id)
{
    /* ids grow along the WAL of one history */
    size_t lo = 0;
    size_t hi = p->n;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (p->wal[mid].id < id) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < p->n && p->wal[lo].id == id;
}

/* At a promotion: what was acknowledged and is not here is lost.  In order: nothing (SAFE-11); else the lag bound (SAFE-06). */
void check_promotion(struct sim *s, struct node *n)
{
    size_t lost = 0;
    size_t limit = (size_t)n->settings.maximum_lag_on_failover / 100;
    size_t slack = 2 * SIM_CLIENTS * (size_t)(n->settings.ttl.ns / (20 * MS)) + 50; /* rows since the last published optime */
    size_t kept = 0;

    for (size_t i = 0; i < s->n_acked; i++) {
        if (has_row(&n->pg, s->acked[i])) {
            s->acked[kept++] = s->acked[i];
        } else {
            lost++;
        }
    }
    s->n_acked = kept; /* each loss is counted once */
    if (lost == 0) {
        return;
    }
    sim_log(s, n, "%zu acknowledged rows are not here", lost);
    if (s->orderly) {
        sim_violate(s, "SAFE-11: %zu acknowledged rows lost in a planned hand-over to %s", lost, n->name);
    } else if (lost > limit + slack) {
        sim_violate(s, "SAFE-06: %zu acknowledged rows lost, more than maximum_lag_on_failover allows", lost);
    }
}

/* ---- what the store says at the moment of a promotion ------------------------------------------------ */

/* The number right after `before` at the beginning of a value. */
static bool leading_number(const struct dcs_kv *kv, const char *before, uint64_t *out)
{
    size_t skip = strlen(before);

    if (kv == NULL || kv->value_len <= skip || memcmp(kv->value, before, skip) != 0) {
        return false;
    }
    *out = 0;
    for (size_t i = skip; i < kv->value_len && kv->value[i] >= '0' && kv->value[i] <= '9'; i++) {
        *out = *out * 10 + (uint64_t)(kv->value[i] - '0');
    }
    return true;
}

/* SAFE-05, SAFE-06: not from an older timeline, not with more missing than the operator allows. */
void check_before_promotion(struct sim *s, struct node *n)
{
    uint64_t value = 0;

    if (!holds_key(s, n)) {
        return; /* check_writable() says it better */
    }
    if (leading_number(mem_get(s->etcd, "history"), "[[", &value) && value + 1 > n->pg.tl) {
        sim_violate(s, "SAFE-05: %s is promoted from timeline %u, the cluster has been on %llu", n->name, n->pg.tl,
                    (unsigned long long)value + 1);
    }
    if (leading_number(mem_get(s->etcd, "status"), "{\"optime\":", &value) &&
        value > pg_lsn(n->pg.n) + n->settings.maximum_lag_on_failover) {
        sim_violate(s, "SAFE-06: %s is promoted %llu bytes behind what was published", n->name,
                    (unsigned long long)(value - pg_lsn(n->pg.n)));
    }
}

/* SAFE-07: who takes the key does not see anybody ahead. */
static void check_deference(struct sim *s, const struct node *n, const struct ha_world *w)
{
    for (int i = 0; i < w->cluster.n_members; i++) {
        const struct ha_peer *peer = &w->peers[i];
        bool ahead = peer->timeline > w->pg.timeline ||
                     (peer->timeline == w->pg.timeline && peer->position > ha_pg_position(&w->pg));

        ahead = ahead && peer->position + w->s.maximum_lag_on_failover >= w->cluster.optime; /* it could win itself */
        if (peer->answered && strcmp(w->cluster.members[i].name, w->me) != 0 && (peer->in_recovery == DRA_NO || ahead)) {
            sim_violate(s, "SAFE-07: %s races although it sees %s ahead", n->name, w->cluster.members[i].name);
        }
    }
}

static bool asked_for(const struct ha_world *w, const struct ha_memory *m)
{
    return m->handover != HA_HANDOVER_NONE || m->restart_request != 0 || m->reinit_request != 0 || m->bootstrapping ||
           w->cluster.failover.member[0] != '\0';
}

void check_plan(struct sim *s, struct node *n, const struct ha_world *w, const struct ha_memory *m, const struct ha_plan *p)
{
    for (int i = 0; i < p->n_effects; i++) {
        enum ha_effect_kind k = p->effects[i].kind;

        if (k == HA_EFFECT_ACQUIRE && w->pg.in_recovery == DRA_YES && w->cluster.failover.member[0] == '\0') {
            check_deference(s, n, w);
        }
        if (k == HA_EFFECT_GUARD_FENCE && w->s.pause && !asked_for(w, m)) {
            sim_violate(s, "SAFE-18: %s kills its server in pause (%s)", n->name, p->reason);
        }
    }
    if (p->job.kind != HA_JOB_NONE && p->job.kind != HA_JOB_DROP_ASIDE && w->s.pause && !asked_for(w, m)) {
        sim_violate(s, "SAFE-18: %s begins '%s' in pause (%s)", n->name, ha_job_to_str(p->job.kind), p->reason);
    }
    if (w->cluster.initialize == HA_INIT_VALID && w->pg.sysid[0] != '\0' && strcmp(w->pg.sysid, w->cluster.sysid) != 0 &&
        (p->job.kind == HA_JOB_START_PRIMARY || p->job.kind == HA_JOB_PROMOTE)) {
        sim_violate(s, "SAFE-12: %s begins '%s' with the data of another cluster", n->name, ha_job_to_str(p->job.kind));
    }
}

/* SAFE-13: a copy is replaced only with a leader in sight and another copy in the world. */
void check_job(struct sim *s, struct node *n, const struct ha_job *j)
{
    bool other = false;

    if (j->kind == HA_JOB_DROP_ASIDE && !n->pg.streaming && !n->pg.accepting) {
        sim_violate(s, "SAFE-13: %s removes its old copy before the new one runs", n->name);
    }
    if ((j->kind != HA_JOB_BASEBACKUP && j->kind != HA_JOB_REWIND) || !n->pg.exists) {
        return;
    }
    for (int i = 0; i < SIM_NODES; i++) {
        other = other || (i != n->i && s->nodes[i].pg.exists && !s->nodes[i].pg.untrusted);
    }
    if (!other) {
        sim_violate(s, "SAFE-13: %s is about to replace the last copy", n->name);
    }
    if (n->snap == NULL || n->snap->c.leader[0] == '\0' || strcmp(n->snap->c.leader, n->name) == 0) {
        sim_violate(s, "SAFE-13: %s is about to replace its copy without a leader in sight", n->name);
    }
}

bool check_converged(struct sim *s, const char **why)
{
    struct node *leader = NULL;

    for (int i = 0; i < SIM_NODES; i++) {
        struct node *n = &s->nodes[i];

        if (n->engine == NULL) {
            *why = "an agent is not running";
            return false;
        }
        if (n->pg.alive && n->pg.accepting && !n->pg.in_recovery) {
            leader = n;
        }
    }
    if (leader == NULL || !holds_key(s, leader)) {
        *why = "nobody leads";
        return false;
    }
    for (int i = 0; i < SIM_NODES; i++) {
        struct node *n = &s->nodes[i];

        if (n != leader && !(n->pg.alive && n->pg.in_recovery && n->pg.streaming && n->pg.upstream == leader->i)) {
            *why = "a replica does not stream from the leader";
            return false;
        }
    }
    if (s->now - s->last_ack_at > 2000 * MS) {
        *why = "no row was acknowledged lately";
        return false;
    }
    return true;
}

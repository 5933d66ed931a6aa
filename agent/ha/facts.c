/*
 * facts.c - derive the facts of one decision from the world.
 *
 * Where a mistake costs data, unknown counts as the dangerous value: a server that cannot be asked is a running
 * primary until something shows otherwise.
 */
#include "facts.h"

#include <string.h>

bool ha_pg_may_write(const struct ha_pg *pg)
{
    bool asked_to = pg->promote_signalled;

    if (pg->postmaster == DRA_NO && pg->leftovers == DRA_NO) {
        return false;
    }
    if (pg->in_recovery == DRA_YES) {
        return asked_to;
    }
    if (pg->in_recovery == DRA_NO) {
        return true;
    }
    return !pg->started_as_standby || asked_to;
}

uint64_t ha_pg_position(const struct ha_pg *pg)
{
    if (pg->in_recovery == DRA_NO) {
        return pg->wal_lsn;
    }
    return pg->receive_lsn > pg->replay_lsn ? pg->receive_lsn : pg->replay_lsn;
}

struct dra_instant ha_fence_at(const struct ha_settings *s, struct dra_instant certain_until)
{
    struct dra_span drift = {s->ttl.ns / 1000000 * s->clock_drift_ppm};

    if (!dra_is_set(certain_until)) {
        return certain_until;
    }
    return dra_before(dra_before(certain_until, s->fence_margin), drift);
}

struct dra_span ha_renew_every(const struct ha_settings *s)
{
    /* An election in etcd takes up to 2.6 s with its defaults; what is left of the lease has to outlast it. */
    int64_t spare_ms = dra_span_ms(s->ttl) - dra_span_ms(s->fence_margin) - 3000;
    int64_t every_ms = spare_ms < 300 ? 300 : spare_ms;

    if (every_ms > dra_span_ms(s->ttl) / 3) {
        every_ms = dra_span_ms(s->ttl) / 3;
    }
    if (every_ms > dra_span_ms(s->loop_wait)) {
        every_ms = dra_span_ms(s->loop_wait);
    }
    return dra_ms(every_ms < 100 ? 100 : every_ms);
}

static void derive_lock(struct ha_facts *f)
{
    const struct ha_world *w = f->w;
    const struct ha_cluster *c = &w->cluster;
    bool mine = w->cluster_known && strcmp(c->leader, w->me) == 0;
    bool lost = w->lease.lost && w->lease.epoch == c->leader_rev;

    f->known = w->cluster_known;
    f->has_lock = mine && !lost;
    f->unlocked = f->known && c->leader[0] == '\0';
    f->other = f->known && c->leader[0] != '\0' && !mine;
    f->leader = f->other || mine ? ha_member_find(c, c->leader) : -1;
    f->initialized = f->known && c->initialize == HA_INIT_VALID;
    f->certain = f->has_lock && w->lease.epoch == c->leader_rev && w->lease.epoch != 0 && !w->lease.given_away &&
                 dra_is_set(w->lease.certain_until) && !dra_reached(w->now, w->lease.certain_until);
    if (w->lease.epoch != 0) {
        f->fence_at = ha_fence_at(&w->s, w->lease.certain_until);
    }
}

static void derive_server(struct ha_facts *f)
{
    const struct ha_pg *pg = &f->w->pg;

    f->running = pg->postmaster == DRA_YES;
    f->down = pg->postmaster == DRA_NO && (pg->leftovers == DRA_NO || !HA_ON(ALL_GONE));
    f->may_write = ha_pg_may_write(pg);
    f->primary = f->running && pg->in_recovery == DRA_NO;
    f->standby = f->running && pg->in_recovery == DRA_YES && !pg->promote_signalled;
    f->data = pg->datadir == HA_DATADIR_VALID;
    f->clean = pg->control == HA_CONTROL_SHUT_DOWN || pg->control == HA_CONTROL_SHUT_DOWN_IN_RECOVERY;
}

/* HA-250: in pause only what a person asked for is done: a hand-over, a restart, a new copy. */
static bool acts_on_request(const struct ha_facts *f)
{
    const struct ha_cluster *c = &f->w->cluster;
    const struct ha_memory *m = f->m;
    bool pending = f->known && !c->failover.scheduled && !c->failover.schedule_invalid && c->failover.member[0] != '\0';

    if (m->handover != HA_HANDOVER_NONE || m->restart_request != 0 || m->reinit_request != 0) {
        return true;
    }
    return pending && strcmp(c->failover.member, f->w->me) == 0 && (f->unlocked || f->has_lock);
}

void ha_facts_derive(const struct ha_world *w, struct ha_memory *m, struct ha_facts *f)
{
    memset(f, 0, sizeof *f);
    f->w = w;
    f->m = m;
    f->leader = -1;
    derive_lock(f);
    f->paused = w->s.pause && !acts_on_request(f);
    derive_server(f);
    f->job = w->job.phase != HA_PHASE_IDLE;
    f->job_kind = f->job ? w->job.job.kind : HA_JOB_NONE;
    f->beat = w->s.loop_wait;
    if (f->beat.ns > w->s.ttl.ns / 3) {
        f->beat.ns = w->s.ttl.ns / 3;
    }
}

/*
 * recover.c - the server is down: start it in place, as a standby, or bring its copy back into the leader's history.
 */
#include "rules.h"

#include <string.h>

/* The directory was a primary's and ended while it was one. */
static bool was_primary_here(const struct ha_facts *f)
{
    return !f->w->pg.standby_signal;
}

bool recover_wants_standby(const struct ha_facts *f)
{
    const struct ha_pg *pg = &f->w->pg;

    return HA_ON(STANDBY_FIRST) &&
           (f->m->demoted || pg->standby_signal || pg->control == HA_CONTROL_SHUT_DOWN_IN_RECOVERY ||
            pg->control == HA_CONTROL_IN_ARCHIVE_RECOVERY);
}

/* Facts about a stopped server have to be read after it ended. */
static bool files_current(const struct ha_facts *f)
{
    return f->w->pg.files_at.ns >= f->w->pg.gone_at.ns;
}

static bool look_first(const struct ha_facts *f, struct ha_plan *p)
{
    if (files_current(f)) {
        return false;
    }
    if (plan_due(f, HA_EFFECT_READ_FILES, dra_ms(50))) {
        (void)plan_add(p, HA_EFFECT_READ_FILES);
    }
    plan_wake(p, dra_after(f->w->now, dra_ms(50)));
    return true;
}

/* HA-57 [D]: somebody stopped it in order; what waits for that gets 0.2 s to see it. */
static bool stopped_by_hand(const struct ha_facts *f, struct ha_plan *p)
{
    struct dra_instant until = dra_after(f->w->pg.gone_at, dra_ms(200));

    if (!f->w->pg.gone_orderly || f->m->restart_request != 0 || dra_reached(f->w->now, until)) {
        return false;
    }
    plan_wake(p, until);
    return true;
}

static void give_key(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e = plan_add_once(f, p, HA_EFFECT_RELEASE);

    if (e != NULL) {
        e->epoch = f->w->cluster.leader_rev;
        f->m->given_at = f->w->now;
    }
    f->m->demoted = true;
}

/* ---- holder of the key ------------------------------------------------------------------------- */

bool recover_give_up_when(const struct ha_facts *f)
{
    if (!f->has_lock || !f->down || !f->data || f->paused || f->w->cluster_stale) {
        return false;
    }
    if (f->m->start_failures > 0) {
        return true;
    }
    return f->w->s.primary_start_timeout.ns == 0 && was_primary_here(f) && f->w->cluster.n_members > 1 && !f->m->demoted &&
           !f->clean;
}

void recover_give_up_act(const struct ha_facts *f, struct ha_plan *p)
{
    give_key(f, p);
    f->m->start_failures = 0;
    p->role = HA_ROLE_DEMOTED;
    if (f->w->s.primary_start_timeout.ns == 0) {
        plan_reason(p, "stopped PostgreSQL to fail over after a crash");
    } else {
        plan_reason(p, "removed leader key after trying and failing to start postgres");
    }
    plan_detail(p, "error=\"%s\"", f->w->job.last.msg);
    plan_wake(p, dra_after(f->w->now, dra_ms(200)));
}

bool recover_in_place_when(const struct ha_facts *f)
{
    return f->has_lock && f->down && f->data && !f->paused && !recover_wants_standby(f) &&
           f->w->pg.control_timeline >= f->w->cluster.history_timeline;
}

void recover_in_place_act(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_world *w = f->w;
    struct ha_job *j;

    p->role = HA_ROLE_PRIMARY;
    plan_renew(f, p);
    plan_reason(p, "starting primary after failure");
    if (!dra_is_set(f->m->crash_at)) {
        f->m->crash_at = dra_is_set(w->pg.gone_at) ? w->pg.gone_at : w->now;
    }
    if (look_first(f, p) || stopped_by_hand(f, p) || w->cluster_stale) {
        return;
    }
    /* SAFE-04: the lock was confirmed after the crash was seen. */
    if (!f->certain || w->lease.refreshed_at.ns < w->pg.gone_at.ns) {
        if (!w->lease.renew_inflight) {
            struct ha_effect *e = plan_add_once(f, p, HA_EFFECT_RENEW);

            if (e != NULL) {
                e->epoch = w->cluster.leader_rev;
            }
        }
        plan_wake(p, dra_after(w->now, dra_ms(100)));
        return;
    }
    j = plan_job(f, p, HA_JOB_START_PRIMARY);
    if (j != NULL) {
        j->epoch = w->cluster.leader_rev;
        j->not_after = f->fence_at;
        j->timeout = w->s.primary_start_timeout;
        f->m->elected_epoch = w->cluster.leader_rev;
    }
    plan_detail(p, "control=\"%s\" timeline=%u checkpoint=%llu", ha_control_to_str(w->pg.control), w->pg.control_timeline,
                (unsigned long long)w->pg.checkpoint_lsn);
}

bool recover_readonly_when(const struct ha_facts *f)
{
    return f->has_lock && f->down && f->data && !f->paused;
}

void recover_readonly_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_renew(f, p);
    p->role = HA_ROLE_REPLICA;
    plan_reason(p, "starting as readonly because i had the session lock");
    if (!look_first(f, p)) {
        plan_start_standby(f, p, "");
    }
}

/* ---- somebody else leads ---------------------------------------------------------------------------- */

static bool may_rejoin(const struct ha_facts *f)
{
    return f->other && f->down && f->data && !f->paused && f->leader >= 0 &&
           f->w->cluster.members[f->leader].conn_url[0] != '\0';
}

/* A copy that was a primary's, or whose standby was seen to have left the leader's history, is compared first. */
static bool must_compare(const struct ha_facts *f)
{
    if (!HA_ON(REWIND_CHECK) || f->m->rewind == HA_REWIND_DONE || f->m->rewind == HA_REWIND_FAILED) {
        return false;
    }
    return was_primary_here(f) || f->m->rewind == HA_REWIND_NEED || f->m->rewind == HA_REWIND_CHECK;
}

static bool needs_crash_recovery(const struct ha_facts *f)
{
    enum ha_control_state c = f->w->pg.control;

    return c == HA_CONTROL_IN_PRODUCTION || c == HA_CONTROL_SHUTTING_DOWN || c == HA_CONTROL_IN_CRASH_RECOVERY;
}

bool rejoin_clean_when(const struct ha_facts *f)
{
    return may_rejoin(f) && must_compare(f) && f->m->single_user_tries == 0 && files_current(f) && needs_crash_recovery(f) &&
           f->m->rewind != HA_REWIND_NEED;
}

void rejoin_clean_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_keep_lease(f, p);
    p->role = HA_ROLE_REPLICA;
    plan_reason(p, "doing crash recovery in a single user mode");
    (void)plan_job(f, p, HA_JOB_SINGLE_USER);
}

/* The end of what this copy holds: position and timeline (HA-145.1). */
static void own_end(const struct ha_pg *pg, uint64_t *lsn, uint32_t *tl, bool *shutdown)
{
    *shutdown = false;
    if ((pg->control == HA_CONTROL_SHUT_DOWN_IN_RECOVERY || pg->control == HA_CONTROL_IN_ARCHIVE_RECOVERY) &&
        pg->min_recovery_lsn != 0 && pg->min_recovery_timeline != 0) {
        *lsn = pg->min_recovery_lsn;
        *tl = pg->min_recovery_timeline;
        return;
    }
    *shutdown = pg->control == HA_CONTROL_SHUT_DOWN;
    *lsn = *shutdown && pg->checkpoint_end_lsn != 0 ? pg->checkpoint_end_lsn : pg->checkpoint_lsn;
    *tl = pg->control_timeline;
}

/* Two promotions from one timeline may take the same number when the first was never seen (WIN-10): then they begin at
 * different places, and only that tells the copies apart. */
bool recover_other_branch(const struct ha_facts *f)
{
    const struct ha_upstream_check *u = &f->w->upstream;
    uint64_t begin = f->w->pg.timeline_begin_lsn;

    return begin != 0 && u->begin_lsn != 0 && begin != u->begin_lsn;
}

/* HA-145.3: has this copy gone past the point where the leader's history leaves its timeline? */
static enum dra_tri diverged(const struct ha_facts *f)
{
    const struct ha_upstream_check *u = &f->w->upstream;
    const struct ha_pg *pg = &f->w->pg;
    uint64_t lsn;
    uint32_t tl;
    bool shutdown;

    own_end(pg, &lsn, &tl, &shutdown);
    if (!u->answered || strcmp(u->member, f->w->cluster.leader) != 0 || u->in_recovery != DRA_NO || u->local_timeline != tl ||
        u->asked_at.ns < pg->gone_at.ns || (u->sysid[0] != '\0' && strcmp(u->sysid, pg->sysid) != 0)) {
        return DRA_UNKNOWN;
    }
    if (tl > u->timeline || recover_other_branch(f)) {
        return DRA_YES;
    }
    if (tl == u->timeline) {
        return DRA_NO;
    }
    if (!u->has_fork) {
        return DRA_YES;
    }
    if (shutdown) {
        /* A former primary: its last record ends exactly where the new timeline begins, or it has gone on. */
        return pg->checkpoint_end_lsn != 0 ? dra_tri_of(lsn > u->fork_lsn) : dra_tri_of(lsn >= u->fork_lsn);
    }
    return dra_tri_of(lsn > u->fork_lsn || needs_crash_recovery(f));
}

bool rejoin_check_when(const struct ha_facts *f)
{
    return may_rejoin(f) && must_compare(f) && f->m->rewind != HA_REWIND_NEED;
}

void rejoin_check_act(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_world *w = f->w;
    enum dra_tri d;
    uint64_t lsn;
    uint32_t tl;
    bool shutdown;
    struct ha_effect *e;

    plan_keep_lease(f, p);
    p->role = HA_ROLE_REPLICA;
    plan_reason(p, "comparing the history of this copy with that of %s", w->cluster.leader);
    plan_wake(p, dra_after(w->now, dra_ms(500)));
    if (look_first(f, p)) {
        return;
    }
    own_end(&w->pg, &lsn, &tl, &shutdown);
    d = diverged(f);
    if (d == DRA_YES) {
        f->m->rewind = HA_REWIND_NEED;
        plan_reason(p, "this copy has left the history of %s", w->cluster.leader);
    } else if (d == DRA_NO) {
        f->m->rewind = HA_REWIND_DONE;
        plan_reason(p, "this copy is part of the history of %s", w->cluster.leader);
    }
    plan_detail(p, "local=%llu local_timeline=%u leader_timeline=%u fork=%llu", (unsigned long long)lsn, tl, w->upstream.timeline,
                (unsigned long long)w->upstream.fork_lsn);
    if (d != DRA_UNKNOWN) {
        plan_wake(p, w->now);
        return;
    }
    if (plan_due(f, HA_EFFECT_CHECK_UPSTREAM, dra_ms(500))) {
        e = plan_add(p, HA_EFFECT_CHECK_UPSTREAM);
        dra_str_clip(e->name, sizeof e->name, w->cluster.leader);
        e->number = tl;
    }
}

bool rejoin_rewind_when(const struct ha_facts *f)
{
    return may_rejoin(f) && f->m->rewind == HA_REWIND_NEED;
}

void rejoin_rewind_act(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_world *w = f->w;
    const struct ha_member *leader = &w->cluster.members[f->leader];
    struct ha_job *j;

    plan_keep_lease(f, p);
    p->role = HA_ROLE_REPLICA;
    if (!w->s.use_pg_rewind || !w->pg.can_rewind || recover_other_branch(f)) { /* pg_rewind sees no difference then */
        if (w->s.remove_data_directory_on_diverged_timelines) {
            f->m->reclone = true;
            plan_reason(p, "this copy cannot be rewound: replacing it by a new one");
        } else {
            f->m->rewind = HA_REWIND_FAILED;
            plan_reason(p, "this copy has left the leader's history and cannot be rewound (use_pg_rewind, wal_log_hints, data "
                           "checksums); starting it all the same");
        }
        plan_wake(p, w->now);
        return;
    }
    if (leader->checkpoint_after_promote_pending) {
        plan_reason(p, "Waiting for checkpoint on %s before rewind", leader->name);
        plan_wake(p, dra_after(w->now, dra_ms(1000)));
        return;
    }
    plan_reason(p, "running pg_rewind from %s", leader->name);
    if (dra_is_set(f->m->retry_at) && !dra_reached(w->now, f->m->retry_at)) {
        plan_wake(p, f->m->retry_at);
        return;
    }
    j = plan_job(f, p, HA_JOB_REWIND);
    if (j != NULL) {
        dra_str_clip(j->member, sizeof j->member, leader->name);
    }
}

bool rejoin_start_when(const struct ha_facts *f)
{
    return f->other && f->down && f->data && !f->paused;
}

void rejoin_start_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_keep_lease(f, p);
    p->role = HA_ROLE_REPLICA;
    plan_reason(p, "starting as a secondary");
    if (!look_first(f, p)) {
        plan_start_standby(f, p, follow_target(f));
    }
}

bool recover_alone_when(const struct ha_facts *f)
{
    return f->down && f->data && !f->paused;
}

void recover_alone_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_keep_lease(f, p);
    p->role = HA_ROLE_REPLICA;
    plan_reason(p, "starting as a secondary without an upstream, since nobody leads");
    f->m->rewind = was_primary_here(f) ? HA_REWIND_CHECK : f->m->rewind;
    if (!look_first(f, p)) {
        plan_start_standby(f, p, "");
    }
}

/*
 * start.c - identity, bootstrap, copies: how a node gets its data; and what the results of jobs mean.
 */
#include "rules.h"

#include <string.h>

/* ---- results of jobs --------------------------------------------------------------------------- */

static void back_off(const struct ha_facts *f)
{
    int64_t ms = 500;

    for (int i = 1; i < f->m->start_failures && ms < dra_span_ms(f->w->s.loop_wait); i++) {
        ms *= 2;
    }
    f->m->retry_at = dra_after(f->w->now, dra_ms(ms));
}

static void digest_start(const struct ha_facts *f, const struct ha_job_result *r)
{
    struct ha_memory *m = f->m;

    if (!r->ok) {
        if (r->err_code != DRA_ECANCELED && r->err_code != DRA_ESTATE) {
            m->start_failures++;
            back_off(f);
        }
        return;
    }
    m->start_failures = 0;
    m->single_user_tries = 0;
    m->retry_at = (struct dra_instant){0};
    m->crash_at = (struct dra_instant){0};
    if (r->kind == HA_JOB_START_STANDBY) {
        m->demoted = false;
        m->stuck_since = (struct dra_instant){0};
    }
}

static void digest_rewind(const struct ha_facts *f, const struct ha_job_result *r)
{
    struct ha_memory *m = f->m;

    if (r->ok) {
        m->rewind = HA_REWIND_DONE;
        return;
    }
    m->rewind = HA_REWIND_FAILED;
    m->start_failures++;
    back_off(f);
    if (f->w->s.remove_data_directory_on_rewind_failure || f->w->s.remove_data_directory_on_diverged_timelines) {
        m->reclone = true;
    }
}

static void digest_copy(const struct ha_facts *f, const struct ha_job_result *r)
{
    if (r->ok) {
        f->m->reclone = false;
        f->m->copying = true;
        f->m->rewind = HA_REWIND_NONE;
        f->m->start_failures = 0;
    } else {
        f->m->start_failures++;
        back_off(f);
    }
}

static void digest_promote(const struct ha_facts *f, const struct ha_job_result *r)
{
    if (r->ok) {
        f->m->promoted_at = f->w->now;
        f->m->checkpoint_done = false;
    } else if (r->err_code == DRA_ESTATE && dra_since(r->ended_at, r->started_at).ns < dra_ms(1000).ns) {
        return; /* refused for the moment; a refusal after a long pre_promote would come each time */
    } else if (r->err_code != DRA_ECANCELED) {
        f->m->promote_failed_at = f->w->now;
    }
}

void memory_digest(const struct ha_facts *f)
{
    const struct ha_job_result *r = &f->w->job.last;
    struct ha_memory *m = f->m;

    if (r->kind == HA_JOB_NONE || r->id <= m->seen_job_id) {
        return;
    }
    m->seen_job_id = r->id;
    if (m->bootstrapping && !r->ok &&
        (r->kind == HA_JOB_INITDB || r->kind == HA_JOB_START_PRIMARY || r->kind == HA_JOB_POST_BOOTSTRAP)) {
        m->bootstrap_failed = true;
    }
    if (r->kind == HA_JOB_POST_BOOTSTRAP && r->ok) {
        m->post_bootstrapped = true;
    } else if (r->kind == HA_JOB_START_PRIMARY || r->kind == HA_JOB_START_STANDBY) {
        digest_start(f, r);
    } else if (r->kind == HA_JOB_REWIND) {
        digest_rewind(f, r);
    } else if (r->kind == HA_JOB_BASEBACKUP) {
        digest_copy(f, r);
    } else if (r->kind == HA_JOB_PROMOTE) {
        digest_promote(f, r);
    } else if (r->kind == HA_JOB_SINGLE_USER) {
        m->single_user_tries++;
    } else if (r->kind == HA_JOB_DROP_ASIDE && r->ok) {
        m->copying = false;
    }
}

/* ---- exit.wait ------------------------------------------------------------------------------------ */

bool exit_wait_when(const struct ha_facts *f)
{
    return f->m->exit_planned;
}

void exit_wait_act(const struct ha_facts *f, struct ha_plan *p)
{
    (void)f;
    plan_reason(p, "ending");
}

static void plan_exit(const struct ha_facts *f, struct ha_plan *p, int64_t code, const char *text)
{
    struct ha_effect *e = plan_add(p, HA_EFFECT_EXIT);

    e->number = code;
    dra_str_clip(e->text, sizeof e->text, text);
    f->m->exit_planned = true;
}

/* ---- bootstrap --------------------------------------------------------------------------------------- */

/* Our create-only put of `initialize` won, and the key still stands as we put it. */
static bool race_won(const struct ha_facts *f)
{
    const struct ha_effect_status *st = &f->w->effects[HA_EFFECT_INIT_RACE];

    return f->known && !st->inflight && dra_is_set(st->ended_at) && st->result == DRA_OK && st->epoch != 0 &&
           st->epoch == f->w->cluster.initialize_rev && f->w->cluster.initialize == HA_INIT_EMPTY;
}

/* The store names the data here as the cluster's: from now on it is a copy like any other, and never set aside (SAFE-13). */
static void note_cluster_made(const struct ha_facts *f)
{
    if (f->m->bootstrapping && f->initialized && f->data && strcmp(f->w->cluster.sysid, f->w->pg.sysid) == 0) {
        f->m->bootstrapping = f->m->bootstrap_failed = false;
    }
}

bool bootstrap_failed_when(const struct ha_facts *f)
{
    note_cluster_made(f);
    return f->m->bootstrapping && (f->m->bootstrap_failed || f->w->shutdown);
}

/* The race key is taken back before the data goes: an announcement that is still on its way then fails (its compare), or has
 * won, and then note_cluster_made() keeps the data.  False: not settled yet. */
static bool race_given_back(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_effect_status *st = &f->w->effects[HA_EFFECT_INIT_CANCEL];

    if (st->inflight || f->w->effects[HA_EFFECT_INIT_SET].inflight) {
        return false;
    }
    if (race_won(f) && !dra_is_set(st->ended_at)) {
        (void)plan_add_once(f, p, HA_EFFECT_INIT_CANCEL);
        return false;
    }
    return true;
}

/* An announcement may have succeeded for all we know: the data stays. */
static bool announced(const struct ha_facts *f)
{
    const struct ha_effect_status *st = &f->w->effects[HA_EFFECT_INIT_CANCEL];

    return dra_is_set(f->w->effects[HA_EFFECT_INIT_SET].started_at) && race_won(f) && st->result != DRA_OK;
}

void bootstrap_failed_act(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_job_result *r = &f->w->job.last;

    p->role = HA_ROLE_UNINITIALIZED;
    plan_reason(p, "bootstrap failed: %s", f->w->shutdown || r->ok ? "stopped by request" : r->msg);
    plan_wake(p, dra_after(f->w->now, dra_ms(100)));
    if (f->job) {
        p->cancel_job = f->job_kind != HA_JOB_STOP && f->job_kind != HA_JOB_SET_ASIDE;
        return;
    }
    if (f->running || !f->down) {
        plan_stop(f, p, HA_STOP_IMMEDIATE, false);
        return;
    }
    if (!race_given_back(f, p)) {
        return;
    }
    if (f->has_lock && !f->w->lease.given_away) {
        struct ha_effect *e = plan_add_once(f, p, HA_EFFECT_RELEASE);

        if (e != NULL) {
            e->epoch = f->w->cluster.leader_rev;
        }
    }
    if (f->data && r->kind != HA_JOB_SET_ASIDE && !announced(f)) {
        (void)plan_job(f, p, HA_JOB_SET_ASIDE);
        return;
    }
    plan_exit(f, p, 1, announced(f) ? "Bootstrap was interrupted while it was announced; start again"
                                    : "Failed to bootstrap cluster; the data directory was moved to DATA_DIR.failed");
}

bool bootstrap_go_when(const struct ha_facts *f)
{
    if (!f->m->bootstrapping && race_won(f) && f->w->pg.datadir == HA_DATADIR_EMPTY) {
        f->m->bootstrapping = true;
        f->m->post_bootstrapped = false;
    }
    return f->m->bootstrapping;
}

/* The race key stands as we put it, or tells already of what we made.  It hangs on our lease (LIVE-05): when that ends,
 * somebody else makes the cluster, and what was begun here must not become a second one. */
static bool race_stands(const struct ha_facts *f)
{
    const struct ha_cluster *c = &f->w->cluster;

    return race_won(f) || (c->initialize == HA_INIT_VALID && strcmp(c->sysid, f->w->pg.sysid) == 0);
}

/* The new server may take writes from its first moment on: so the key comes before it, and the guard (SAFE-01, SAFE-33). */
static bool bootstrap_leads(const struct ha_facts *f, struct ha_plan *p)
{
    if (f->has_lock) {
        plan_renew(f, p);
        return f->certain;
    }
    plan_keep_lease(f, p);
    if (f->other || !f->down) {
        f->m->bootstrap_failed = true; /* somebody else leads, or the key of a running server is gone */
        plan_wake(p, f->w->now);
        return false;
    }
    if (f->unlocked && plan_due(f, HA_EFFECT_ACQUIRE, dra_ms(200))) {
        (void)plan_add(p, HA_EFFECT_ACQUIRE);
    }
    plan_wake(p, dra_after(f->w->now, dra_ms(200)));
    return false;
}

/* The new server runs under key and guard: say that the cluster exists. */
static void bootstrap_publish(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_world *w = f->w;
    struct ha_effect *e;

    f->m->elected_epoch = w->cluster.leader_rev;
    if (w->s.guard_required && !(w->guard.armed && w->guard.pid == w->pg.pid && w->guard.epoch == w->cluster.leader_rev)) {
        plan_arm(f, p);
        return;
    }
    if (f->initialized) {
        f->m->bootstrapping = false;
        plan_wake(p, w->now);
        return;
    }
    e = plan_add_once(f, p, HA_EFFECT_PUT_CONFIG);
    if (e != NULL) {
        struct ha_effect *init = plan_add_once(f, p, HA_EFFECT_INIT_SET);

        e->epoch = w->cluster.leader_rev;
        if (init != NULL) {
            init->after = plan_ref(p, e);
        }
    }
    plan_wake(p, dra_after(w->now, dra_ms(200)));
}

static void bootstrap_start(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_job *j = plan_job(f, p, HA_JOB_START_PRIMARY);

    if (j != NULL) {
        j->epoch = f->w->cluster.leader_rev;
        j->not_after = f->fence_at;
    }
}

void bootstrap_go_act(const struct ha_facts *f, struct ha_plan *p)
{
    bool leads;

    p->role = HA_ROLE_UNINITIALIZED;
    if (f->known && !f->w->cluster_stale && !race_stands(f)) {
        f->m->bootstrap_failed = true;
        plan_wake(p, f->w->now);
        plan_reason(p, "the right to make the new cluster was lost");
        return;
    }
    if (f->w->pg.datadir == HA_DATADIR_EMPTY || (f->job && f->job_kind == HA_JOB_INITDB)) {
        plan_keep_lease(f, p);
        plan_reason(p, f->job ? "bootstrap in progress" : "trying to bootstrap a new cluster");
        if (!f->job) {
            (void)plan_job(f, p, HA_JOB_INITDB);
        }
        return;
    }
    leads = bootstrap_leads(f, p);
    if (f->job) {
        if (f->w->job.phase == HA_PHASE_FORKED) {
            forked_child(f, p);
        }
        plan_reason(p, "bootstrap in progress");
        return;
    }
    if (f->down) {
        plan_reason(p, "starting the new cluster");
        if (leads) {
            bootstrap_start(f, p);
        }
        return;
    }
    if (!f->primary) {
        (void)plan_add_once(f, p, HA_EFFECT_PROBE);
        plan_wake(p, dra_after(f->w->now, dra_ms(50)));
        plan_reason(p, "waiting for end of recovery after bootstrap");
        return;
    }
    p->role = HA_ROLE_PRIMARY;
    if (!f->m->post_bootstrapped) {
        plan_reason(p, "running post_bootstrap");
        (void)plan_job(f, p, HA_JOB_POST_BOOTSTRAP);
        return;
    }
    plan_reason(p, "initialized a new cluster");
    if (leads) {
        bootstrap_publish(f, p);
    }
}

/* ---- identity ------------------------------------------------------------------------------------------- */

bool identity_mismatch_when(const struct ha_facts *f)
{
    const struct ha_pg *pg = &f->w->pg;

    return f->initialized && f->data && pg->sysid[0] != '\0' && !f->paused && !f->job &&
           strcmp(pg->sysid, f->w->cluster.sysid) != 0;
}

void identity_mismatch_act(const struct ha_facts *f, struct ha_plan *p)
{
    char text[HA_REASON_MAX];

    plan_reason(p, "system ID mismatch, node %s belongs to a different cluster: %s != %s", f->w->me, f->w->cluster.sysid,
                f->w->pg.sysid);
    plan_detail(p, "hint=\"if this copy is not needed, move the data directory away and start again: it will be copied from "
                   "the leader; if it is the right one, the scope or the store is wrong\"");
    if (!f->down) {
        plan_stop(f, p, HA_STOP_FAST, false);
        return;
    }
    dra_str_clip(text, sizeof text, p->reason);
    plan_exit(f, p, 1, text);
}

bool identity_write_when(const struct ha_facts *f)
{
    return f->known && f->unlocked && f->data && f->w->cluster.initialize == HA_INIT_ABSENT && f->w->pg.sysid[0] != '\0' &&
           !f->job;
}

void identity_write_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_keep_lease(f, p);
    if (f->standby) {
        plan_reason(p, "this node runs as a standby of a cluster that the store does not know: start the primary first");
        plan_exit(f, p, 1, "the store has no cluster and PostgreSQL runs as a standby: start the agent of the primary first");
        return;
    }
    if (plan_due(f, HA_EFFECT_INIT_SET, dra_ms(500))) {
        (void)plan_add(p, HA_EFFECT_INIT_SET);
    }
    plan_wake(p, dra_after(f->w->now, dra_ms(500)));
    plan_reason(p, "writing the identity of the data found here: %s", f->w->pg.sysid);
}

/* ---- copies ------------------------------------------------------------------------------------------------ */

static bool needs_copy(const struct ha_facts *f)
{
    enum ha_datadir d = f->w->pg.datadir;

    return !f->paused && f->down && (d == HA_DATADIR_EMPTY || d == HA_DATADIR_UNTRUSTED || f->m->reclone);
}

bool data_unreadable_when(const struct ha_facts *f)
{
    return f->w->pg.datadir == HA_DATADIR_UNREADABLE && !f->running; /* HA-58: a failed helper stops no running server */
}

void data_unreadable_act(const struct ha_facts *f, struct ha_plan *p)
{
    if (plan_due(f, HA_EFFECT_READ_FILES, dra_ms(1000))) {
        (void)plan_add(p, HA_EFFECT_READ_FILES);
    }
    if (f->has_lock && f->down) {
        struct ha_effect *e = plan_add_once(f, p, HA_EFFECT_RELEASE);

        if (e != NULL) {
            e->epoch = f->w->cluster.leader_rev;
            f->m->given_at = f->w->now;
        }
    }
    plan_keep_lease(f, p);
    plan_wake(p, dra_after(f->w->now, dra_ms(1000)));
    plan_reason(p, "the data directory cannot be read; check its mount, owner and permissions");
}

/* HA-46: a running replica that wants to be copied, else the leader.  NULL: nothing to copy from yet. */
static const struct ha_member *copy_source(const struct ha_facts *f)
{
    const struct ha_cluster *c = &f->w->cluster;
    const struct ha_member *leader = f->leader < 0 ? NULL : &c->members[f->leader];
    uint64_t n = 0;
    uint64_t pick;

    if (leader == NULL || leader->conn_url[0] == '\0' || leader->role != HA_ROLE_PRIMARY || leader->state != HA_STATE_RUNNING) {
        return NULL;
    }
    for (int i = 0; i < c->n_members; i++) {
        const struct ha_member *mb = &c->members[i];

        n += mb->tags.clonefrom && i != f->leader && mb->state == HA_STATE_RUNNING && mb->conn_url[0] != '\0' &&
             strcmp(mb->name, f->w->me) != 0;
    }
    if (n == 0 || f->m->start_failures > 0 || (f->w->request.kind == HA_REQ_REINIT && f->w->request.from_leader)) {
        return leader;
    }
    pick = f->w->entropy % n;
    for (int i = 0; i < c->n_members; i++) {
        const struct ha_member *mb = &c->members[i];

        if (mb->tags.clonefrom && i != f->leader && mb->state == HA_STATE_RUNNING && mb->conn_url[0] != '\0' &&
            strcmp(mb->name, f->w->me) != 0 && pick-- == 0) {
            return mb;
        }
    }
    return leader;
}

bool data_copy_when(const struct ha_facts *f)
{
    return needs_copy(f) && f->other && copy_source(f) != NULL;
}

void data_copy_act(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_member *src = copy_source(f);
    struct ha_job *j;

    plan_keep_lease(f, p);
    p->role = HA_ROLE_UNINITIALIZED;
    plan_reason(p, "trying to bootstrap from %s '%s'",
                f->leader >= 0 && src == &f->w->cluster.members[f->leader] ? "leader" : "replica", src->name);
    if (dra_is_set(f->m->retry_at) && !dra_reached(f->w->now, f->m->retry_at)) {
        plan_wake(p, f->m->retry_at);
        return;
    }
    j = plan_job(f, p, HA_JOB_BASEBACKUP);
    if (j != NULL) {
        dra_str_clip(j->member, sizeof j->member, src->name);
    }
}

/* LIVE-05: the key that stands may be our own request that got no answer.  Then it hangs on our lease, and asking again
 * under compare of that lease tells. */
static bool race_unanswered(const struct ha_facts *f)
{
    const struct ha_effect_status *st = &f->w->effects[HA_EFFECT_INIT_RACE];

    return f->w->cluster.initialize == HA_INIT_EMPTY &&
           (st->inflight || st->result == DRA_ETIMEDOUT || st->result == DRA_ECONN || st->result == DRA_ECANCELED);
}

bool data_race_when(const struct ha_facts *f)
{
    return f->known && !f->paused && !f->w->cluster_stale && f->w->pg.datadir == HA_DATADIR_EMPTY && f->down && f->unlocked &&
           (f->w->cluster.initialize == HA_INIT_ABSENT || race_unanswered(f)) && f->w->s.can_bootstrap &&
           !f->w->s.tags.nofailover;
}

void data_race_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_keep_lease(f, p);
    p->role = HA_ROLE_UNINITIALIZED;
    plan_reason(p, "trying to bootstrap a new cluster");
    if (f->w->lease.id != 0 && plan_due(f, HA_EFFECT_INIT_RACE, dra_ms(1000))) {
        (void)plan_add(p, HA_EFFECT_INIT_RACE);
    }
    plan_wake(p, dra_after(f->w->now, dra_ms(200)));
}

bool data_wait_when(const struct ha_facts *f)
{
    return needs_copy(f);
}

void data_wait_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_keep_lease(f, p);
    p->role = HA_ROLE_UNINITIALIZED;
    if (f->has_lock) {
        struct ha_effect *e = plan_add_once(f, p, HA_EFFECT_RELEASE);

        if (e != NULL) {
            e->epoch = f->w->cluster.leader_rev;
            f->m->given_at = f->w->now;
        }
        plan_reason(p, "released leader key voluntarily as data dir empty and currently leader");
        return;
    }
    if (f->m->reclone && f->data && f->unlocked) {
        /* The last copies must not vanish while nobody leads (SAFE-13): take part again as we are. */
        f->m->reclone = false;
        f->m->rewind = HA_REWIND_NONE;
        plan_wake(p, f->w->now);
    }
    if (f->w->cluster_stale) {
        plan_reason(p, "DCS is not accessible");
    } else {
        plan_reason(p, "waiting for leader to bootstrap");
    }
}

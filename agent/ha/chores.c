/*
 * chores.c - after the rule: effects that cannot change a role.
 */
#include "rules.h"

#include <string.h>

/* ---- guard ---------------------------------------------------------------------------------- */

/* SAFE-43: a leader lets the guard go in pause once the store says so under its name, where whoever elects later reads it. */
static bool pause_is_known(const struct ha_facts *f)
{
    /* A restarted agent that remembers a pause from its files has seen no store yet: then this does not hold either. */
    return f->paused && (!f->may_write || (f->primary && strcmp(f->w->cluster.unfenced, f->w->me) == 0));
}

/* SAFE-33: disarmed only with the server stopped, in pause, or for a standby that was never asked to promote. */
static void guard_chores(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_guard *g = &f->w->guard;
    bool other_server = f->running && g->pid != f->w->pg.pid && f->w->pg.started_as_standby;
    bool unasked = f->standby && !f->has_lock && f->job_kind != HA_JOB_PROMOTE;

    if (!g->armed || g->inflight || (f->job && f->job_kind == HA_JOB_START_PRIMARY)) {
        return;
    }
    if (p->job.kind == HA_JOB_START_PRIMARY || p->job.kind == HA_JOB_PROMOTE) {
        return;
    }
    if (f->down || pause_is_known(f) || ((other_server || unasked) && !f->w->pg.promote_signalled)) {
        if (plan_due(f, HA_EFFECT_GUARD_DISARM, dra_ms(20))) {
            (void)plan_add_once(f, p, HA_EFFECT_GUARD_DISARM);
        }
        plan_wake(p, dra_after(f->w->now, dra_ms(20)));
    }
}

/* ---- keys of the leader ------------------------------------------------------------------------- */

/* SAFE-24: the engine adds "the key is mine, in this epoch" to each of these. */
static struct ha_effect *leader_put(const struct ha_facts *f, struct ha_plan *p, enum ha_effect_kind kind, struct dra_span every)
{
    struct ha_effect *e;

    if (!plan_due(f, kind, every)) {
        return NULL;
    }
    e = plan_add_once(f, p, kind);
    if (e != NULL) {
        e->epoch = f->w->cluster.leader_rev;
    }
    return e;
}

static void clear_done_request(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_cluster *c = &f->w->cluster;
    bool for_me = strcmp(c->failover.member, f->w->me) == 0;
    bool from_other = c->failover.leader[0] != '\0' && strcmp(c->failover.leader, f->w->me) != 0;
    struct ha_effect *e;

    if (c->failover.scheduled || !(from_other || (for_me && c->failover.leader[0] == '\0')) || c->failover_rev == f->m->clear_rev) {
        return;
    }
    e = leader_put(f, p, HA_EFFECT_CLEAR_FAILOVER, dra_ms(500));
    if (e != NULL) {
        e->epoch = 0;
        e->number = c->failover_rev;
        f->m->clear_rev = c->failover_rev;
    }
}

static void leader_chores(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_world *w = f->w;
    const struct ha_cluster *c = &w->cluster;
    struct ha_effect *e;

    if (!f->has_lock || !f->primary || !f->certain || f->m->bootstrapping || w->cluster_stale) {
        return;
    }
    /* What the guard waits for is not left to the next beat. */
    e = w->pg.wal_lsn != 0 ? leader_put(f, p, HA_EFFECT_PUT_STATUS, f->paused && w->guard.armed ? dra_ms(100) : f->beat) : NULL;
    if (e != NULL) {
        e->lsn = w->pg.wal_lsn;
    }
    if (w->pg.timeline > 1 ? c->history_timeline != w->pg.timeline : c->n_history > 0) {
        (void)leader_put(f, p, HA_EFFECT_PUT_HISTORY, dra_ms(500));
        plan_wake(p, dra_after(w->now, dra_ms(500)));
    }
    if (!f->initialized && !w->s.pause) {
        (void)leader_put(f, p, HA_EFFECT_INIT_SET, dra_ms(1000));
    }
    if (!c->config_valid) {
        (void)leader_put(f, p, HA_EFFECT_PUT_CONFIG, dra_ms(1000));
    }
    clear_done_request(f, p);
    if (!f->m->checkpoint_done) {
        const struct ha_effect_status *st = &w->effects[HA_EFFECT_CHECKPOINT];

        if (!st->inflight && st->result == DRA_OK && st->started_at.ns > f->m->promoted_at.ns) {
            f->m->checkpoint_done = true;
        } else {
            (void)leader_put(f, p, HA_EFFECT_CHECKPOINT, dra_ms(1000));
        }
    }
    /* Further away than that (the year 9999 is further than 64 bits of ns) loop_wait sees it come. */
    if (c->failover.scheduled && !c->failover.schedule_invalid && c->failover.scheduled_at > w->wall_s &&
        c->failover.scheduled_at - w->wall_s < 3600) {
        plan_wake(p, dra_after(w->now, dra_ms((c->failover.scheduled_at - w->wall_s) * 1000)));
    }
}

/* ---- slots (HA-152, HA-153) --------------------------------------------------------------------- */

static uint64_t slot_hint(const struct ha_cluster *c, const char *name)
{
    for (int i = 0; i < c->n_slots; i++) {
        if (strcmp(c->slots[i].name, name) == 0) {
            return c->slots[i].lsn;
        }
    }
    return 0;
}

static void want_slot(struct ha_plan *p, const char *name, uint64_t lsn)
{
    for (int i = 0; i < p->n_wanted_slots; i++) {
        if (strcmp(p->wanted_slots[i].name, name) == 0) {
            return;
        }
    }
    if (p->n_wanted_slots >= HA_SLOTS_MAX) {
        plan_note(p, "more than %d replication slots are wanted: %s is left out", HA_SLOTS_MAX, name);
        return;
    }
    dra_str_clip(p->wanted_slots[p->n_wanted_slots].name, HA_SLOT_NAME_MAX, name);
    p->wanted_slots[p->n_wanted_slots].lsn = lsn;
    p->n_wanted_slots++;
}

static bool member_wants_slot(const struct ha_facts *f, const struct ha_member *mb)
{
    const struct ha_settings *s = &f->w->s;
    const char *from = mb->tags.replicatefrom;
    bool from_me = strcmp(from, f->w->me) == 0;

    if (strcmp(mb->name, f->w->me) == 0 || mb->tags.nostream) {
        return false;
    }
    if (s->member_slots_ttl.ns > 0) {
        return !s->tags.nofailover || from_me;
    }
    if (f->has_lock) {
        return from[0] == '\0' || from_me || ha_member_find(&f->w->cluster, from) < 0;
    }
    return from_me && strcmp(mb->name, f->w->cluster.leader) != 0;
}

static void slot_chores(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_cluster *c = &f->w->cluster;
    char mine[HA_SLOT_NAME_MAX];
    char name[HA_SLOT_NAME_MAX];

    if (!f->w->s.use_slots || !f->known || (!f->primary && !f->standby) || f->m->bootstrapping || f->w->cluster_stale) {
        return;
    }
    if (!plan_due(f, HA_EFFECT_SLOTS, f->m->pub_members == c->n_members ? f->beat : dra_ms(100)) || f->job || f->unlocked) {
        return;
    }
    ha_slot_name(f->w->me, mine);
    for (int i = 0; i < c->n_members; i++) {
        if (member_wants_slot(f, &c->members[i])) {
            ha_slot_name(c->members[i].name, name);
            want_slot(p, name, slot_hint(c, name));
        }
    }
    for (int i = 0; i < c->n_retain && !f->w->s.tags.nofailover; i++) {
        if (strcmp(c->retain[i], mine) != 0) {
            want_slot(p, c->retain[i], slot_hint(c, c->retain[i]));
        }
    }
    f->m->pub_members = c->n_members;
    (void)plan_add_once(f, p, HA_EFFECT_SLOTS);
}

/* ---- member key, callbacks -------------------------------------------------------------------------- */

static void member_chores(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_world *w = f->w;
    struct ha_memory *m = f->m;
    bool changed = m->pub_role != p->role || m->pub_state != w->pg.state || m->pub_timeline != w->pg.timeline ||
                   m->pub_repl != w->pg.replication_state || m->was_paused != w->s.pause;
    struct ha_effect *e;

    if (!f->known || w->lease.id == 0 || m->exit_planned) {
        return;
    }
    /* SAFE-43: the others may believe that the pause is over here only once the guard is armed again. */
    if (m->was_paused && !w->s.pause && f->may_write && w->s.guard_required && !w->guard.armed) {
        return;
    }
    if (!plan_due(f, HA_EFFECT_PUT_MEMBER, changed ? dra_ms(20) : f->beat)) {
        if (changed) {
            plan_wake(p, dra_after(w->now, dra_ms(20)));
        }
        return;
    }
    e = plan_add_once(f, p, HA_EFFECT_PUT_MEMBER);
    if (e != NULL) {
        e->role = p->role;
        m->was_paused = w->s.pause;
        m->pub_role = p->role;
        m->pub_state = w->pg.state;
        m->pub_timeline = w->pg.timeline;
        m->pub_repl = w->pg.replication_state;
    }
}

static void callback_chores(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_memory *m = f->m;
    enum ha_role role = p->role == HA_ROLE_PROMOTED ? HA_ROLE_PRIMARY : p->role;
    struct ha_effect *e;

    if (role == m->callback_role || role == HA_ROLE_UNINITIALIZED || role == HA_ROLE_UNKNOWN) {
        return;
    }
    if (!f->running && role != HA_ROLE_DEMOTED) {
        return;
    }
    e = plan_add(p, HA_EFFECT_CALLBACK);
    e->callback = m->callback_role == HA_ROLE_UNKNOWN ? HA_CALLBACK_ON_START : HA_CALLBACK_ON_ROLE_CHANGE;
    e->role = role;
    m->callback_role = role;
}

void chores_add(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_world *w = f->w;

    guard_chores(f, p);
    if (w->lease.id != 0 && w->lease.asked_ttl.ns != 0 && w->lease.asked_ttl.ns != w->s.ttl.ns &&
        !f->job && f->m->handover == HA_HANDOVER_NONE && plan_due(f, HA_EFFECT_GRANT, dra_ms(1000))) {
        (void)plan_add_once(f, p, HA_EFFECT_GRANT); /* DCS-46: keys move to the new lease at their next write */
    }
    leader_chores(f, p);
    slot_chores(f, p);
    member_chores(f, p);
    callback_chores(f, p);
    /* What a definite answer said and what the watch shows disagree: look again. */
    if (w->lease.lost && f->known && w->lease.epoch == w->cluster.leader_rev && plan_due(f, HA_EFFECT_READ_DCS, dra_ms(200))) {
        (void)plan_add_once(f, p, HA_EFFECT_READ_DCS);
        plan_wake(p, dra_after(w->now, dra_ms(200)));
    }
    if (!f->known && plan_due(f, HA_EFFECT_READ_DCS, dra_ms(1000))) {
        (void)plan_add_once(f, p, HA_EFFECT_READ_DCS);
    }
    if (f->other && f->m->reinit_request != 0 && f->standby && !f->m->reclone) {
        f->m->reinit_request = 0;
    }
    f->m->role = p->role;
}

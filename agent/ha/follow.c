/*
 * follow.c - a running standby: whom it follows, and whether it still can.
 */
#include "rules.h"

#include <string.h>

const char *follow_target(const struct ha_facts *f)
{
    const struct ha_cluster *c = &f->w->cluster;
    const char *from = f->w->s.tags.replicatefrom;
    int i;

    if (f->w->s.tags.nostream) {
        return "";
    }
    if (from[0] != '\0' && strcmp(from, f->w->me) != 0) {
        i = ha_member_find(c, from);
        if (i >= 0 && c->members[i].conn_url[0] != '\0') {
            return from;
        }
    }
    if (f->other && f->leader >= 0 && c->members[f->leader].conn_url[0] != '\0') {
        return c->leader;
    }
    return "";
}

/* ---- follow.probe ------------------------------------------------------------------------------- */

bool follow_probe_when(const struct ha_facts *f)
{
    return f->running && (!dra_is_set(f->w->pg.answered_at) || f->w->pg.in_recovery == DRA_UNKNOWN);
}

void follow_probe_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_keep_lease(f, p);
    if (plan_due(f, HA_EFFECT_PROBE, dra_ms(100))) {
        (void)plan_add(p, HA_EFFECT_PROBE);
    }
    plan_wake(p, dra_after(f->w->now, dra_ms(100)));
    plan_reason(p, "PostgreSQL is still starting up");
}

/* ---- rejoin.diverged ------------------------------------------------------------------------------ */

/* Streaming does not begin although the leader is a primary: perhaps it cannot. */
static bool suspicious(const struct ha_facts *f)
{
    const struct ha_pg *pg = &f->w->pg;

    return f->other && f->standby && !f->paused && f->leader >= 0 && pg->replication_state != HA_REPL_STREAMING &&
           f->w->cluster.members[f->leader].role == HA_ROLE_PRIMARY && pg->timeline != 0;
}

static bool running_diverged(const struct ha_facts *f)
{
    const struct ha_upstream_check *u = &f->w->upstream;
    const struct ha_pg *pg = &f->w->pg;

    if (!u->answered || strcmp(u->member, f->w->cluster.leader) != 0 || u->in_recovery != DRA_NO ||
        u->local_timeline != pg->timeline || u->asked_at.ns < f->m->upstream_asked_at.ns) {
        return false;
    }
    if (recover_other_branch(f) || u->timeline < pg->timeline) {
        return true;
    }
    return u->timeline > pg->timeline && (!u->has_fork || ha_pg_position(pg) > u->fork_lsn);
}

/* Two promotions from one place, the first of which nobody saw, give copies that agree in timeline and beginning and yet
 * differ (WIN-10).  No question tells them apart: what shows is a leader that answers, and a copy that takes nothing of it. */
#define STUCK_MS 30000

static bool cannot_follow(const struct ha_facts *f)
{
    const struct ha_upstream_check *u = &f->w->upstream;
    const struct ha_memory *m = f->m;

    return dra_is_set(m->stuck_since) && dra_reached(f->w->now, dra_after(m->stuck_since, dra_ms(STUCK_MS))) &&
           u->answered && strcmp(u->member, f->w->cluster.leader) == 0 && u->in_recovery == DRA_NO &&
           dra_reached(u->asked_at, dra_after(m->stuck_since, dra_ms(STUCK_MS / 2))) && u->flush_lsn != m->stuck_lsn &&
           !f->w->s.pause;
}

static void watch_progress(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_memory *m = f->m;

    if (!suspicious(f)) {
        m->stuck_since = (struct dra_instant){0};
    } else if (!dra_is_set(m->stuck_since) || m->stuck_lsn != ha_pg_position(&f->w->pg)) {
        m->stuck_since = f->w->now;
        m->stuck_lsn = ha_pg_position(&f->w->pg);
    } else if (cannot_follow(f)) {
        plan_note(p, "%s answers, but nothing of its WAL fits this copy; reinitialize it", f->w->cluster.leader);
    }
}

bool follow_diverged_when(const struct ha_facts *f)
{
    if (!HA_ON(REWIND_CHECK) || !suspicious(f) || f->m->rewind == HA_REWIND_FAILED || !dra_is_set(f->m->upstream_asked_at)) {
        return false;
    }
    return running_diverged(f) || (cannot_follow(f) && f->w->s.remove_data_directory_on_diverged_timelines);
}

void follow_diverged_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_keep_lease(f, p);
    if (!running_diverged(f)) { /* pg_rewind would see no difference either */
        f->m->reclone = true;
        f->m->stuck_since = (struct dra_instant){0};
        plan_stop(f, p, HA_STOP_FAST, false);
        plan_reason(p, "nothing of the WAL of %s fits this copy: replacing it by a new one", f->w->cluster.leader);
        return;
    }
    f->m->rewind = HA_REWIND_NEED;
    plan_stop(f, p, HA_STOP_FAST, false);
    plan_reason(p, "this copy has left the history of %s: stopping it to rewind", f->w->cluster.leader);
    plan_detail(p, "position=%llu fork=%llu timeline=%u leader_timeline=%u", (unsigned long long)ha_pg_position(&f->w->pg),
                (unsigned long long)f->w->upstream.fork_lsn, f->w->pg.timeline, f->w->upstream.timeline);
}

static void ask_if_suspicious(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e;

    if (!suspicious(f) || f->m->rewind == HA_REWIND_FAILED || !plan_due(f, HA_EFFECT_CHECK_UPSTREAM, dra_ms(2000))) {
        return;
    }
    e = plan_add(p, HA_EFFECT_CHECK_UPSTREAM);
    dra_str_clip(e->name, sizeof e->name, f->w->cluster.leader);
    e->number = f->w->pg.timeline;
    f->m->upstream_asked_at = f->w->now;
}

/* PostgreSQL tries again each wal_retrieve_retry_interval (5 s); a reload ends that wait when the leader is back. */
static void wake_receiver(const struct ha_facts *f, struct ha_plan *p)
{
    if (suspicious(f) && f->w->cluster.members[f->leader].state == HA_STATE_RUNNING && plan_due(f, HA_EFFECT_RELOAD, dra_ms(1000))) {
        (void)plan_add_once(f, p, HA_EFFECT_RELOAD);
    }
}

/* ---- follow.change ------------------------------------------------------------------------------------ */

static bool upstream_differs(const struct ha_facts *f)
{
    const struct ha_pg *pg = &f->w->pg;
    const char *target = follow_target(f);
    int i = ha_member_find(&f->w->cluster, target);

    if (!pg->upstream_known || strcmp(pg->upstream, target) != 0) {
        return true;
    }
    return i >= 0 && strcmp(pg->upstream_conn_url, f->w->cluster.members[i].conn_url) != 0;
}

bool follow_upstream_when(const struct ha_facts *f)
{
    return f->other && f->standby && upstream_differs(f) && (follow_target(f)[0] != '\0' || f->w->s.tags.nostream);
}

void follow_upstream_act(const struct ha_facts *f, struct ha_plan *p)
{
    const char *target = follow_target(f);
    struct ha_effect *e;

    plan_keep_lease(f, p);
    p->role = HA_ROLE_REPLICA;
    plan_reason(p, "following new leader %s", f->w->cluster.leader);
    plan_detail(p, "upstream=%s", target[0] != '\0' ? target : "nobody");
    if (f->w->pg.major != 0 && f->w->pg.major < 13) {
        /* Before 13 the upstream is read at start only (HA-225). */
        plan_stop(f, p, HA_STOP_FAST, false);
        return;
    }
    if (plan_due(f, HA_EFFECT_FOLLOW, dra_ms(200))) {
        e = plan_add(p, HA_EFFECT_FOLLOW);
        dra_str_clip(e->name, sizeof e->name, target);
    }
    f->m->rewind = HA_REWIND_NONE; /* another leader: what failed against the last one may work */
    f->m->stuck_since = (struct dra_instant){0};
    plan_wake(p, dra_after(f->w->now, dra_ms(200)));
}

/* ---- follow.hold --------------------------------------------------------------------------------------- */

bool follow_hold_when(const struct ha_facts *f)
{
    return f->other && f->running;
}

void follow_hold_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_keep_lease(f, p);
    p->role = HA_ROLE_REPLICA;
    if (plan_due(f, HA_EFFECT_PROBE, f->w->pg.replication_state == HA_REPL_STREAMING ? f->beat : dra_ms(500))) {
        (void)plan_add(p, HA_EFFECT_PROBE);
    }
    plan_wake(p, dra_after(f->w->now, f->w->pg.replication_state == HA_REPL_STREAMING ? f->beat : dra_ms(500)));
    ask_if_suspicious(f, p);
    watch_progress(f, p);
    wake_receiver(f, p);
    if (f->w->pg.replication_state == HA_REPL_STREAMING) {
        f->m->rewind = HA_REWIND_NONE;
        f->m->upstream_asked_at = (struct dra_instant){0};
        if (f->m->copying && !f->job) {
            (void)plan_job(f, p, HA_JOB_DROP_ASIDE);
        }
    }
    plan_reason(p, "no action. I am (%s), a secondary, and following a leader (%s)", f->w->me, f->w->cluster.leader);
}

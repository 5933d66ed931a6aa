/*
 * pause.c - maintenance mode: the agent neither starts, stops, promotes nor demotes on its own (section 28 of HA).
 */
#include "rules.h"

#include <string.h>

bool pause_hold_when(const struct ha_facts *f)
{
    return f->paused && !f->job;
}

static void pause_leader(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e;

    if (f->primary && leader_attach_when(f)) { /* an agent that was restarted in pause (DCS-51.3, DCS-96) */
        leader_attach_act(f, p);
        p->role = HA_ROLE_PRIMARY;
        plan_reason(p, "PAUSE: attaching the leader lock to the current lease");
        return;
    }
    if (!leader_attach_when(f)) { /* with another lease than the key's a renewal would say "lost" */
        plan_renew(f, p);
    }
    if (f->primary) {
        p->role = HA_ROLE_PRIMARY;
        p->leader = true;
        p->lead_until = dra_after(f->w->now, f->w->s.ttl);
        plan_reason(p, "PAUSE: no action. I am (%s), the leader with the lock", f->w->me);
        return;
    }
    if (f->running && f->w->pg.in_recovery == DRA_UNKNOWN) {
        (void)plan_add_once(f, p, HA_EFFECT_PROBE);
        plan_reason(p, "PAUSE: PostgreSQL does not answer");
        return;
    }
    if (f->running && f->may_write) { /* SAFE-31: asked to promote, perhaps by the agent before; it may end as a primary yet */
        (void)plan_add_once(f, p, HA_EFFECT_PROBE);
        plan_reason(p, "PAUSE: a promotion may be under way; keeping the leader lock");
        return;
    }
    e = plan_add_once(f, p, HA_EFFECT_RELEASE);
    if (e != NULL) {
        e->epoch = f->w->cluster.leader_rev;
        f->m->given_at = f->w->now;
    }
    plan_reason(p, "PAUSE: removed leader lock because postgres is not running%s", f->running ? " as primary" : "");
}

void pause_hold_act(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_world *w = f->w;

    plan_keep_lease(f, p);
    if (plan_due(f, HA_EFFECT_PROBE, f->beat)) {
        (void)plan_add(p, HA_EFFECT_PROBE);
    }
    plan_wake(p, dra_after(w->now, f->beat));
    if (f->has_lock) {
        pause_leader(f, p);
        return;
    }
    if (f->primary) {
        p->role = HA_ROLE_PRIMARY;
        plan_reason(p, "PAUSE: continue to run as primary without lock");
        if (f->unlocked && w->lease.id != 0 && !w->cluster_stale &&
            (!f->initialized || strcmp(w->pg.sysid, w->cluster.sysid) == 0) && plan_due(f, HA_EFFECT_ACQUIRE, dra_ms(1000))) {
            (void)plan_add(p, HA_EFFECT_ACQUIRE); /* HA-252 */
            plan_reason(p, "PAUSE: acquiring the leader lock for a running primary");
        }
        return;
    }
    p->role = HA_ROLE_REPLICA;
    if (f->other && f->standby && follow_upstream_when(f) && w->pg.major >= 13) {
        follow_upstream_act(f, p);
        return;
    }
    plan_reason(p, f->down ? "PAUSE: postgres is not running" : "PAUSE: no action. I am (%s)", w->me);
}

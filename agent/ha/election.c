/*
 * election.c - may this node take the leader key, and does it?
 *
 * Every question is asked after the key was seen gone, so that positions are final: the old primary's server was
 * fenced before its lease ended.  Several nodes may conclude "yes"; the create-only put decides (HA-74).
 */
#include "rules.h"

#include <string.h>

#define COLD_START_MS 3000 /* after a power cut everybody starts: who knows that it lacks something waits this long for who has it */
#define REPOLL_MS 500 /* a node that defers looks again: who should have won may have died meanwhile */

/* ---- information -------------------------------------------------------------------------- */

bool election_informed(const struct ha_facts *f, struct ha_plan *p, struct dra_instant since)
{
    const struct ha_world *w = f->w;
    bool own = dra_is_set(w->pg.answered_at) && w->pg.answered_at.ns >= since.ns;
    bool peers = dra_is_set(w->poll_at) && w->poll_at.ns >= since.ns && w->poll_done;

    if (!own && plan_due(f, HA_EFFECT_PROBE, dra_ms(20))) {
        (void)plan_add(p, HA_EFFECT_PROBE);
    }
    if (!peers && !w->effects[HA_EFFECT_POLL_PEERS].inflight && (w->poll_at.ns < since.ns || w->poll_done)) {
        (void)plan_add_once(f, p, HA_EFFECT_POLL_PEERS);
    }
    plan_wake(p, dra_after(w->now, dra_ms(100)));
    return own && peers;
}

/* ---- HA-73 ----------------------------------------------------------------------------------- */

static bool says_no(char *why, size_t size, const char *fmt, ...) DRA_PRINTF(3, 4);

static bool says_no(char *why, size_t size, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    dra_str_clipv(why, size, fmt, ap);
    va_end(ap);
    return false;
}

/* The named candidate of a manual request races without comparing itself with others (HA-72.1). */
static bool is_candidate(const struct ha_facts *f)
{
    const struct ha_cluster *c = &f->w->cluster;

    return !c->failover.schedule_invalid && !c->failover.scheduled && c->failover.member[0] != '\0' &&
           strcmp(c->failover.member, f->w->me) == 0;
}

/* WIN-18: who is named in a switchover comes first only with everything that the old leader published, and on the last
 * known timeline: a promotion from an older one would take a number that is in use.  A failover asks for nothing. */
static bool candidate_fits(const struct ha_facts *f, uint64_t position, uint32_t timeline)
{
    const struct ha_cluster *c = &f->w->cluster;

    return c->failover.leader[0] == '\0' ||
           (position >= c->optime && (timeline == 0 || timeline >= c->history_timeline));
}

static bool within_lag(const struct ha_facts *f, uint64_t position)
{
    uint64_t optime = f->w->cluster.optime;

    return optime <= position || optime - position <= f->w->s.maximum_lag_on_failover;
}

static bool lag_allows(const struct ha_facts *f, uint64_t mine)
{
    return !HA_ON(LAG_LIMIT) || within_lag(f, mine);
}

/* SAFE-05, whatever check_timeline says: a promotion from an older timeline would take a timeline number that is in use
 * already, and the copies of both could not be told apart any more. */
static bool behind_timeline(const struct ha_facts *f)
{
    return f->w->pg.timeline < f->w->cluster.history_timeline;
}

/* Another node's answer says that this one must not race.  (timeline, position) decides, then priority. */
static bool defers_to(const struct ha_facts *f, int i, uint64_t mine, char *why, size_t size)
{
    const struct ha_world *w = f->w;
    const struct ha_peer *peer = &w->peers[i];
    const char *name = w->cluster.members[i].name;
    bool ahead;

    if (strcmp(name, w->me) == 0 || !peer->answered) {
        return false; /* who cannot be reached never vetoes */
    }
    if (peer->in_recovery == DRA_NO) { /* HA-73.4 [D]: before eligibility */
        (void)says_no(why, size, "Primary (%s) is still alive", name);
        return true;
    }
    if (peer->nofailover || peer->watchdog_failed) {
        return false;
    }
    /* SAFE-41: positions of different timelines say nothing about each other. */
    ahead = peer->timeline != w->pg.timeline && peer->timeline != 0 ? peer->timeline > w->pg.timeline : peer->position > mine;
    /* Who misses too much may not win, and then nobody waits for it (SAFE-07 speaks of eligible nodes). */
    if (ahead && within_lag(f, peer->position) && HA_ON(DEFER_AHEAD)) {
        (void)says_no(why, size, "Wal position of %s is ahead of my wal position", name);
        return true;
    }
    if (peer->position == mine && peer->failover_priority > w->s.tags.failover_priority && mine > 0 &&
        strcmp(name, w->cluster.failover.leader) != 0) {
        (void)says_no(why, size, "%s has equally tolerable WAL position and priority %d, while this node has priority %d", name,
                      peer->failover_priority, w->s.tags.failover_priority);
        return true;
    }
    return false;
}

/* HA-72.2: somebody else was named by a person; it comes first as long as it could take over. */
static bool leaves_to_candidate(const struct ha_facts *f, char *why, size_t size)
{
    const struct ha_cluster *c = &f->w->cluster;
    int i;

    if (c->failover.member[0] == '\0' || c->failover.scheduled || is_candidate(f)) {
        return false;
    }
    i = ha_member_find(c, c->failover.member);
    if (i < 0 || !f->w->peers[i].answered || f->w->peers[i].nofailover || f->w->peers[i].watchdog_failed ||
        f->w->peers[i].in_recovery != DRA_YES || !candidate_fits(f, f->w->peers[i].position, f->w->peers[i].timeline)) {
        return false;
    }
    (void)says_no(why, size, "%s was named as the candidate and can take over", c->failover.member);
    return true;
}

/* HA-72.4: the node that was asked to give the lead away takes it again only if nobody else can. */
static bool was_asked_to_leave(const struct ha_facts *f, char *why, size_t size)
{
    const struct ha_cluster *c = &f->w->cluster;
    uint64_t mine = ha_pg_position(&f->w->pg);

    if (strcmp(c->failover.leader, f->w->me) != 0 || c->failover.scheduled || c->failover.schedule_invalid) {
        return false;
    }
    for (int i = 0; i < c->n_members; i++) {
        if (f->w->peers[i].answered && !f->w->peers[i].nofailover && f->w->peers[i].in_recovery == DRA_YES &&
            f->w->peers[i].position >= mine && f->w->peers[i].timeline >= f->w->pg.timeline) {
            (void)says_no(why, size, "a switchover away from this node was asked for and %s can take over", c->members[i].name);
            return true;
        }
    }
    return false;
}

/* SAFE-43: who led in pause is not fenced; until it is seen not to be writable nobody takes over by itself. */
static bool unfenced_leader(const struct ha_facts *f, char *why, size_t size)
{
    const struct ha_cluster *c = &f->w->cluster;
    const char *who = f->m->last_leader_paused ? f->m->last_leader : c->unfenced; /* seen, or its own word */
    int i = ha_member_find(c, who);

    if (who[0] == '\0' || strcmp(who, f->w->me) == 0) {
        return false;
    }
    if (i >= 0 && ((f->w->peers[i].answered && f->w->peers[i].in_recovery == DRA_YES) || c->members[i].left_in_pause)) {
        return false;
    }
    (void)says_no(why, size,
                  "%s led when the cluster was paused and may still take writes; bring its agent back, or name a candidate "
                  "with failover", who);
    return true;
}

bool election_may_win(const struct ha_facts *f, struct ha_plan *p, char *why, size_t why_size)
{
    const struct ha_world *w = f->w;
    uint64_t mine = ha_pg_position(&w->pg);

    if (dra_is_set(f->m->promote_failed_at) && !dra_reached(w->now, dra_after(f->m->promote_failed_at, w->s.ttl))) {
        return says_no(why, why_size, "the last promotion failed here less than ttl ago");
    }
    if (f->w->s.tags.nofailover && !is_candidate(f)) {
        return says_no(why, why_size, "I am not allowed to promote (tag nofailover)");
    }
    if (!f->data || !f->standby) {
        return says_no(why, why_size, "PostgreSQL does not run as a standby here");
    }
    if (f->initialized && strcmp(w->pg.sysid, w->cluster.sysid) != 0) {
        return says_no(why, why_size, "system ID mismatch");
    }
    if (w->s.guard_required && w->guard.alive == DRA_NO) {
        return says_no(why, why_size, "the guard is not there, and without it this node must not lead");
    }
    /* Only a failover, which asks nothing of the old leader, is a person's word that it is out of the way. */
    if (!(is_candidate(f) && w->cluster.failover.leader[0] == '\0') && unfenced_leader(f, why, why_size)) {
        return false;
    }
    if (is_candidate(f) && candidate_fits(f, mine, w->pg.timeline)) {
        return true;
    }
    if (w->s.synchronous_mode) {
        return says_no(why, why_size, "synchronous_mode is set, which this version does not handle: name a candidate with failover");
    }
    if (was_asked_to_leave(f, why, why_size) || leaves_to_candidate(f, why, why_size)) {
        return false;
    }
    if (mine < w->cluster.optime && !dra_reached(w->now, dra_after(w->started_at, dra_ms(COLD_START_MS)))) {
        return says_no(why, why_size, "waiting a moment after the start for a member that has the last %llu bytes",
                       (unsigned long long)(w->cluster.optime - mine));
    }
    if (!lag_allows(f, mine)) {
        return says_no(why, why_size, "My wal position exceeds maximum replication lag");
    }
    if (behind_timeline(f)) {
        return says_no(why, why_size, "My timeline %u is behind last known cluster timeline %u", w->pg.timeline,
                       w->cluster.history_timeline);
    }
    for (int i = 0; i < w->cluster.n_members; i++) {
        if (defers_to(f, i, mine, why, why_size)) {
            return false;
        }
    }
    if (p != NULL && f->w->cluster.too_many_members) {
        plan_note(p, "more than %d members: the rest is not looked at", HA_MEMBERS_MAX);
    }
    return true;
}

/* ---- no leader ---------------------------------------------------------------------------------- */

/* The create request goes out with a lease that still has most of its life before it. */
static bool lease_fresh(const struct ha_facts *f)
{
    return f->w->lease.id != 0 && !dra_reached(f->w->now, dra_after(f->w->lease.refreshed_at, (struct dra_span){f->w->s.ttl.ns / 2}));
}

static struct dra_instant asked_since(const struct ha_facts *f)
{
    return dra_later(f->m->unlocked_since, f->m->poll_wanted_at);
}

bool election_race_when(const struct ha_facts *f)
{
    char why[HA_REASON_MAX];
    const struct ha_world *w = f->w;
    struct dra_instant since = asked_since(f);

    if (!f->unlocked || !f->standby || f->paused || w->cluster_stale) {
        return false;
    }
    if (dra_is_set(f->m->given_at) && !dra_reached(w->now, dra_after(f->m->given_at, dra_ms(2000)))) {
        return false; /* DCS-55 */
    }
    if (w->s.tags.nofailover && !is_candidate(f)) {
        return false;
    }
    if (w->pg.answered_at.ns < since.ns || w->poll_at.ns < since.ns || !w->poll_done) {
        return true; /* ask first */
    }
    return election_may_win(f, NULL, why, sizeof why);
}

void election_race_act(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e;

    if (!lease_fresh(f)) {
        if (f->w->lease.id == 0) {
            plan_keep_lease(f, p);
        } else if (plan_due(f, HA_EFFECT_KEEPALIVE, dra_ms(100))) {
            (void)plan_add(p, HA_EFFECT_KEEPALIVE);
        }
    }
    if (!election_informed(f, p, asked_since(f))) {
        plan_reason(p, "no leader: asking the other members");
        return;
    }
    plan_reason(p, "no leader: trying to acquire the leader lock");
    plan_detail(p, "position=%llu optime=%llu", (unsigned long long)ha_pg_position(&f->w->pg),
                (unsigned long long)f->w->cluster.optime);
    if (!lease_fresh(f)) {
        plan_wake(p, dra_after(f->w->now, dra_ms(50)));
        return;
    }
    if (!f->w->effects[HA_EFFECT_ACQUIRE].inflight && plan_due(f, HA_EFFECT_ACQUIRE, dra_ms(50))) {
        e = plan_add(p, HA_EFFECT_ACQUIRE);
        e->not_after = dra_after(f->w->now, dra_ms(2000));
        /* Whoever loses learns so from the watch; whoever sees nothing asks everybody again. */
        f->m->poll_wanted_at = dra_after(f->w->now, dra_ms(REPOLL_MS));
    }
    plan_wake(p, dra_after(f->w->now, dra_ms(REPOLL_MS)));
}

bool election_defer_when(const struct ha_facts *f)
{
    return f->unlocked && f->standby;
}

void election_defer_act(const struct ha_facts *f, struct ha_plan *p)
{
    char why[HA_REASON_MAX] = "";
    struct ha_effect *e;

    plan_keep_lease(f, p);
    (void)election_may_win(f, p, why, sizeof why);
    if (why[0] != '\0') {
        plan_note(p, "%s", why);
    }
    if (f->w->s.tags.nofailover) {
        plan_reason(p, "following a different leader because I am not allowed to promote");
    } else {
        plan_reason(p, "following a different leader because i am not the healthiest node");
    }
    /* SAFE-22: who does not race stops confirming what an unfenced old primary may still write. */
    if (f->w->pg.upstream_known && f->w->pg.upstream[0] != '\0' && plan_due(f, HA_EFFECT_FOLLOW, dra_ms(1000))) {
        e = plan_add(p, HA_EFFECT_FOLLOW);
        e->name[0] = '\0';
    }
    if (!f->w->cluster_stale &&
        dra_reached(f->w->now, dra_after(dra_later(f->w->poll_at, asked_since(f)), dra_ms(REPOLL_MS)))) {
        f->m->poll_wanted_at = f->w->now;
        plan_wake(p, f->w->now);
    }
    plan_wake(p, dra_after(f->w->now, dra_ms(REPOLL_MS)));
}

/* ---- found holding it ------------------------------------------------------------------------------- */

bool election_again_when(const struct ha_facts *f)
{
    return HA_ON(ELECT_AGAIN) && f->has_lock && !f->paused && f->standby && f->m->elected_epoch != f->w->cluster.leader_rev;
}

/* A move by name to us, on request: the one who moved it has seen that we hold everything (DCS-54a). */
static bool moved_to_us(const struct ha_facts *f)
{
    const struct ha_cluster *c = &f->w->cluster;
    int unsure = f->w->effects[HA_EFFECT_ACQUIRE].result;

    return strcmp(c->failover.member, f->w->me) == 0 && c->failover.leader[0] != '\0' && !c->failover.scheduled &&
           unsure != DRA_ETIMEDOUT && unsure != DRA_ECONN && !behind_timeline(f) && ha_pg_position(&f->w->pg) >= c->optime;
}

void election_again_act(const struct ha_facts *f, struct ha_plan *p)
{
    char why[HA_REASON_MAX] = "";
    const struct ha_effect_status *st = &f->w->effects[HA_EFFECT_ACQUIRE];
    struct dra_instant since = f->m->poll_wanted_at;
    struct ha_effect *e;

    plan_renew(f, p);
    /* Won by our own create request, which compared what the election rested on. */
    if (!st->inflight && st->result == DRA_OK && st->epoch == f->w->cluster.leader_rev && st->epoch != 0) {
        f->m->elected_epoch = st->epoch;
        plan_wake(p, f->w->now);
        plan_reason(p, "acquired session lock as a leader");
        return;
    }
    plan_reason(p, "the leader lock is ours; looking at the other members before using it");
    if (moved_to_us(f)) {
        f->m->elected_epoch = f->w->cluster.leader_rev;
        plan_wake(p, f->w->now);
        return;
    }
    if (!dra_is_set(since)) {
        f->m->poll_wanted_at = f->w->now;
        since = f->w->now;
    }
    if (!election_informed(f, p, since)) {
        return;
    }
    if (election_may_win(f, p, why, sizeof why)) {
        f->m->elected_epoch = f->w->cluster.leader_rev;
        plan_wake(p, f->w->now);
        return;
    }
    plan_note(p, "%s", why);
    plan_reason(p, "releasing the leader lock: %s", why);
    e = plan_add_once(f, p, HA_EFFECT_RELEASE);
    if (e != NULL) {
        e->epoch = f->w->cluster.leader_rev;
        f->m->given_at = f->w->now;
        f->m->poll_wanted_at = (struct dra_instant){0};
    }
}

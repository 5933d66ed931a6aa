/*
 * world.c - GET /dragent/world: which rule holds on this node and on what facts; what `dragentctl explain` prints.
 *
 * Threads: any; each call works on its arguments only.
 */
#include "node.h"

#include <stdlib.h>

/* Seconds with millisecond precision: the integer part is enough for people, and integers stay exact. */
static struct json *seconds(struct dra_instant later, struct dra_instant earlier)
{
    if (!dra_is_set(earlier) || !dra_is_set(later)) {
        return json_new_null();
    }
    return json_new_double((double)dra_span_ms(dra_since(later, earlier)) / 1000.0);
}

static void put_str(struct views_tree *t, struct json *o, const char *key, const char *s)
{
    views_put(t, o, key, json_new_str(s));
}

static void put_tri(struct views_tree *t, struct json *o, const char *key, enum dra_tri v)
{
    put_str(t, o, key, dra_tri_to_str(v));
}

static void put_lsn(struct views_tree *t, struct json *o, const char *key, uint64_t lsn)
{
    char text[DRA_LSN_STR_MAX];
    dra_lsn_format(lsn, text);
    put_str(t, o, key, text);
}

static struct json *cluster_facts(struct views_tree *t, const struct ha_world *w)
{
    struct json *o = json_new_object();
    views_put(t, o, "known", json_new_bool(w->cluster_known));
    views_put(t, o, "stale", json_new_bool(w->cluster_stale));
    views_put(t, o, "age_s", seconds(w->now, w->cluster_at));
    put_str(t, o, "leader", w->cluster.leader);
    views_put(t, o, "epoch", views_u64((uint64_t)w->cluster.leader_rev));
    views_put(t, o, "members", json_new_i64(w->cluster.n_members));
    put_str(t, o, "system_identifier", w->cluster.sysid);
    put_lsn(t, o, "optime", w->cluster.optime);
    views_put(t, o, "pause", json_new_bool(w->s.pause));
    return o;
}

static struct json *lease_facts(struct views_tree *t, const struct ha_world *w)
{
    struct json *o = json_new_object();
    views_put(t, o, "held", json_new_bool(w->lease.id != 0));
    views_put(t, o, "lost", json_new_bool(w->lease.lost));
    views_put(t, o, "epoch", views_u64((uint64_t)w->lease.epoch));
    views_put(t, o, "certain_for_s", seconds(w->lease.certain_until, w->now));
    views_put(t, o, "given_away", json_new_bool(w->lease.given_away));
    views_put(t, o, "unanswered_for_s", seconds(w->now, w->lease.unanswered_since));
    return o;
}

static struct json *guard_facts(struct views_tree *t, const struct ha_world *w)
{
    struct json *o = json_new_object();
    put_tri(t, o, "alive", w->guard.alive);
    views_put(t, o, "armed", json_new_bool(w->guard.armed));
    views_put(t, o, "fenced", json_new_bool(w->guard.fenced));
    views_put(t, o, "strikes_in_s", w->guard.armed ? seconds(w->guard.deadline, w->now) : json_new_null());
    return o;
}

static struct json *server_facts(struct views_tree *t, const struct ha_world *w)
{
    const struct ha_pg *pg = &w->pg;
    struct json *o = json_new_object();
    put_str(t, o, "data_directory", ha_datadir_to_str(pg->datadir));
    put_str(t, o, "control_state", ha_control_to_str(pg->control));
    put_tri(t, o, "postmaster", pg->postmaster);
    put_tri(t, o, "leftovers", pg->leftovers);
    put_str(t, o, "state", ha_state_to_str(pg->state));
    put_tri(t, o, "accepting", pg->accepting);
    put_tri(t, o, "in_recovery", pg->in_recovery);
    views_put(t, o, "answered_s_ago", seconds(w->now, pg->answered_at));
    views_put(t, o, "timeline", json_new_i64(pg->timeline));
    put_lsn(t, o, "position", ha_pg_position(pg));
    put_str(t, o, "replication_state",
            pg->replication_state == HA_REPL_STREAMING ? "streaming" : pg->replication_state == HA_REPL_ARCHIVE ? "in archive recovery" : "");
    put_str(t, o, "upstream", pg->upstream_known ? pg->upstream : "");
    return o;
}

static struct json *job_facts(struct views_tree *t, const struct ha_world *w)
{
    const struct ha_job_result *last = &w->job.last;
    struct json *o = json_new_object();
    put_str(t, o, "running", w->job.phase == HA_PHASE_IDLE ? "none" : ha_job_to_str(w->job.job.kind));
    if (w->job.phase != HA_PHASE_IDLE) {
        views_put(t, o, "running_for_s", seconds(w->now, w->job.started_at));
        put_str(t, o, "member", w->job.job.member);
    }
    if (last->kind != HA_JOB_NONE) {
        struct json *l = json_new_object();
        put_str(t, l, "job", ha_job_to_str(last->kind));
        views_put(t, l, "ok", json_new_bool(last->ok));
        put_str(t, l, "message", last->msg);
        views_put(t, l, "ended_s_ago", seconds(w->now, last->ended_at));
        views_put(t, o, "last", l);
    }
    return o;
}

static struct json *peer_facts(struct views_tree *t, const struct ha_world *w)
{
    struct json *all = json_new_array();
    for (int i = 0; i < w->cluster.n_members && i < HA_MEMBERS_MAX; i++) {
        const struct ha_peer *p = &w->peers[i];
        if (dra_str_eq(w->cluster.members[i].name, w->me)) {
            continue;
        }
        struct json *o = json_new_object();
        put_str(t, o, "name", w->cluster.members[i].name);
        views_put(t, o, "asked_s_ago", seconds(w->now, p->asked_at));
        views_put(t, o, "answered", json_new_bool(p->answered));
        if (p->answered) {
            put_tri(t, o, "in_recovery", p->in_recovery);
            put_lsn(t, o, "position", p->position);
            views_put(t, o, "timeline", json_new_i64(p->timeline));
            views_put(t, o, "nofailover", json_new_bool(p->nofailover));
            views_put(t, o, "failover_priority", json_new_i64(p->failover_priority));
        }
        if (o == NULL || all == NULL) {
            json_free(o);
            t->failed = true;
        } else if (json_append(all, o) != DRA_OK) {
            t->failed = true;
        }
    }
    return all;
}

static struct json *facts_of(struct views_tree *t, const struct ha_world *w, const struct ha_memory *m)
{
    struct json *o = json_new_object();
    views_put(t, o, "cluster", cluster_facts(t, w));
    views_put(t, o, "lease", lease_facts(t, w));
    views_put(t, o, "guard", guard_facts(t, w));
    views_put(t, o, "server", server_facts(t, w));
    views_put(t, o, "job", job_facts(t, w));
    views_put(t, o, "peers", peer_facts(t, w));
    put_str(t, o, "rewind", ha_rewind_to_str(m->rewind));
    put_str(t, o, "handover", ha_handover_to_str(m->handover));
    views_put(t, o, "shutdown", json_new_bool(w->shutdown));
    return o;
}

char *views_world(const struct ha_world *w, const struct ha_memory *m, const struct ha_plan *p)
{
    struct views_tree t = {.root = json_new_object()};
    struct json *notes = json_new_array();
    char why[HA_REASON_MAX] = "";
    bool would = ha_explain_promotion(w, m, why, sizeof why);
    bool known = p->rule >= 0 && p->rule < ha_rule_count();

    put_str(&t, t.root, "name", w->me);
    put_str(&t, t.root, "rule", known ? ha_rule_doc(p->rule)->name : "");
    put_str(&t, t.root, "rule_doc", known ? ha_rule_doc(p->rule)->doc : "");
    put_str(&t, t.root, "rule_spec", known && ha_rule_doc(p->rule)->spec != NULL ? ha_rule_doc(p->rule)->spec : "");
    put_str(&t, t.root, "reason", p->reason);
    put_str(&t, t.root, "detail", p->detail);
    for (int i = 0; i < p->n_notes && i < (int)DRA_ARRAY_LEN(p->notes); i++) {
        if (json_append(notes, json_new_str(p->notes[i])) != DRA_OK) {
            t.failed = true;
        }
    }
    views_put(&t, t.root, "notes", notes);
    views_put(&t, t.root, "since_s", seconds(w->now, m->rule_since));
    put_str(&t, t.root, "role", ha_role_to_str(p->role));
    put_str(&t, t.root, "state", ha_state_to_str(w->pg.state));
    views_put(&t, t.root, "leader", json_new_bool(p->leader));
    views_put(&t, t.root, "would_promote", json_new_bool(would));
    put_str(&t, t.root, "would_promote_reason", why);
    views_put(&t, t.root, "facts", facts_of(&t, w, m));
    return views_tree_text(&t);
}

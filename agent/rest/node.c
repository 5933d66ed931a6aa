/*
 * node.c - facts to plain numbers, and what they mean at an instant (REST-41, REST-42, REST-47, REST-50).
 *
 * Promises: no I/O, no clock, no allocation.
 * Threads: any; each call works on its arguments only.
 */
#include "node.h"

#include <string.h>

static bool config_is_true(const struct json *effective, const char *key)
{
    const struct json *v = json_get(effective, key);
    const char *text = json_text(v);
    return json_is_true(v) || (text != NULL && (dra_str_eq_nocase(text, "on") || dra_str_eq_nocase(text, "true")));
}

static enum views_sync sync_mode_of(const struct json *effective)
{
    const char *text = json_text(json_get(effective, "synchronous_mode"));
    if (text != NULL && dra_str_eq_nocase(text, "quorum")) {
        return VIEWS_SYNC_QUORUM;
    }
    return config_is_true(effective, "synchronous_mode") ? VIEWS_SYNC_ON : VIEWS_SYNC_OFF;
}

static bool sync_lists(const struct ha_cluster *c, const char *name)
{
    for (int i = 0; i < c->sync.n_standbys; i++) {
        if (dra_str_eq_nocase(c->sync.standbys[i], name)) {
            return true;
        }
    }
    return false;
}

static void fill_agreement(struct views_node *n, const struct rest_facts *f)
{
    const struct ha_world *w = f->world;

    n->cluster_valid = w->cluster_known && !w->cluster_stale;
    n->unlocked = !n->cluster_valid || w->cluster.leader[0] == '\0';
    n->paused = w->s.pause;
    n->standby_cluster = json_type_of(json_get(f->effective, "standby_cluster")) == JSON_OBJECT;
    n->sync_mode = sync_mode_of(f->effective);
    n->sync_listed = w->cluster_known && sync_lists(&w->cluster, w->me);
    n->failsafe_enabled = w->s.failsafe_mode;
    n->failsafe_member = f->cluster != NULL && json_get(f->cluster->failsafe, w->me) != NULL;
    n->optime = w->cluster_known ? w->cluster.optime : 0;
    n->n_members = w->cluster_known ? w->cluster.n_members : 0;
    n->dcs_last_seen_s = f->dcs_last_seen_s;
    if (f->dcs_last_seen_s != 0) {
        int64_t age_s = w->wall_s > f->dcs_last_seen_s ? w->wall_s - f->dcs_last_seen_s : 0;
        n->cluster_seen = dra_before(w->now, dra_ms(age_s * 1000));
    }
    n->leader = f->plan != NULL && f->plan->leader;
    if (n->leader) {
        n->lead_until = f->plan->lead_until;
    }
    n->valid_until = f->valid_until;
    n->cycle_due = f->cycle_due;
}

static void fill_server(struct views_node *n, const struct rest_facts *f)
{
    const struct ha_pg *pg = &f->world->pg;

    n->postmaster = pg->postmaster != DRA_NO;
    n->state = pg->state;
    if (!n->postmaster && n->state == HA_STATE_RUNNING) {
        n->state = HA_STATE_CRASHED; /* its end was seen, its meaning not yet */
    }
    bool asked = n->state == HA_STATE_RUNNING || n->state == HA_STATE_STARTING || n->state == HA_STATE_RESTARTING;
    n->sql_ok = asked && pg->postmaster == DRA_YES && pg->accepting == DRA_YES && pg->in_recovery != DRA_UNKNOWN &&
                dra_is_set(pg->answered_at);
    n->asked_at = pg->asked_at;
    n->answered_at = pg->answered_at;
    n->in_recovery = pg->in_recovery == DRA_YES;
    n->wal_lsn = pg->wal_lsn;
    n->received = pg->receive_lsn != 0 ? pg->receive_lsn : pg->replay_lsn;
    n->replayed = pg->replay_lsn;
    n->timeline = pg->timeline;
    n->repl = pg->replication_state;
    n->replay_paused = pg->replay_paused;
    if (f->pg != NULL) {
        n->replay_timestamp_us = f->pg->replay_timestamp_us;
        n->start_us = f->pg->postmaster_start_us;
        n->server_version = f->pg->server_version;
        n->latest_end_lsn = f->pg->latest_end_lsn;
        n->pending_restart = json_size(f->pg->pending_restart_reason) > 0;
    }
}

void views_node_fill(struct views_node *n, const struct rest_facts *f)
{
    const struct ha_world *w = f->world;

    memset(n, 0, sizeof *n);
    dra_str_clip(n->scope, sizeof n->scope, f->scope != NULL ? f->scope : "");
    dra_str_clip(n->name, sizeof n->name, w->me);
    if (f->plan != NULL && f->plan->rule >= 0 && f->plan->rule < ha_rule_count()) {
        dra_str_clip(n->rule, sizeof n->rule, ha_rule_doc(f->plan->rule)->name);
    }
    n->at = w->now;
    n->ttl = w->s.ttl;
    n->loop_wait = w->s.loop_wait;
    n->primary_start_timeout = w->s.primary_start_timeout;
    n->max_lag = w->s.maximum_lag_on_failover;
    n->noloadbalance = w->s.tags.noloadbalance;
    n->failover_priority = w->s.tags.nofailover ? 0 : w->s.tags.failover_priority;
    n->guard_armed = w->guard.armed;
    n->job_running = w->job.phase != HA_PHASE_IDLE;
    if (f->plan != NULL) {
        n->agent_role = f->plan->role;
    }
    if (n->agent_role == HA_ROLE_UNKNOWN && f->memory != NULL) {
        n->agent_role = f->memory->role;
    }
    if (n->agent_role == HA_ROLE_UNKNOWN) {
        n->agent_role = w->pg.datadir == HA_DATADIR_VALID ? HA_ROLE_REPLICA : HA_ROLE_UNINITIALIZED;
    }
    fill_agreement(n, f);
    fill_server(n, f);
}

/* A question is out that was not answered in time: the server does not answer SQL any more. */
static bool sql_is_silent(const struct views_node *n, struct dra_instant now)
{
    if (n->asked_at.ns <= n->answered_at.ns) {
        return false;
    }
    struct dra_span limit = dra_ms(VIEWS_SQL_SILENT_MS);
    /* The second one holds while question after question fails: each of them would begin the first anew. */
    return dra_reached(now, dra_after(n->asked_at, limit)) ||
           dra_reached(now, dra_after(dra_after(n->answered_at, n->loop_wait), limit));
}

void views_now_fill(const struct views_node *n, struct dra_instant now, bool gave_up, struct views_now *out)
{
    memset(out, 0, sizeof *out);
    out->full = n->sql_ok && !gave_up && !sql_is_silent(n, now);
    out->stalled = dra_is_set(n->valid_until) && dra_reached(now, n->valid_until);
    out->lock = n->leader && dra_is_set(n->lead_until) && !dra_reached(now, n->lead_until) && !out->stalled;
    out->cluster_valid = n->cluster_valid && !dra_reached(now, dra_after(n->at, n->ttl));
    if (!out->full) {
        out->state = n->state == HA_STATE_RUNNING ? HA_STATE_UNKNOWN : n->state;
        out->role = n->agent_role;
        return;
    }
    out->state = n->state;
    out->repl = n->in_recovery ? n->repl : HA_REPL_NONE;
    if (!n->in_recovery) {
        out->role = HA_ROLE_PRIMARY;
    } else if (n->standby_cluster && n->agent_role == HA_ROLE_STANDBY_LEADER) {
        out->role = HA_ROLE_STANDBY_LEADER;
    } else {
        out->role = HA_ROLE_REPLICA;
    }
    bool sync = out->role == HA_ROLE_REPLICA && !n->standby_cluster && n->sync_listed;
    out->sync_standby = sync && n->sync_mode == VIEWS_SYNC_ON;
    out->quorum_standby = sync && n->sync_mode == VIEWS_SYNC_QUORUM;
}

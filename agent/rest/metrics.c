/*
 * metrics.c - GET /metrics (REST-68): Patroni's names, then a few of our own.
 *
 * Threads: any; each call works on its arguments only.
 */
#include "node.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define METRICS_MAX ((size_t)64 << 10)

struct writer {
    struct dra_buf b;
    struct dra_buf labels; /* {scope="S",name="N" without the closing brace */
};

static void add_label_text(struct dra_buf *b, const char *s)
{
    for (; *s != '\0'; s++) {
        if (*s == '\\' || *s == '"') {
            dra_buf_add(b, "\\", 1);
        }
        if (*s == '\n') {
            dra_buf_adds(b, "\\n");
        } else {
            dra_buf_add(b, s, 1);
        }
    }
}

static void head(struct writer *w, const char *name, const char *type, const char *help, const char *comment)
{
    dra_buf_addf(&w->b, "# HELP %s %s\n", name, help);
    if (comment != NULL) {
        dra_buf_addf(&w->b, "# %s\n", comment);
    }
    dra_buf_addf(&w->b, "# TYPE %s %s\n", name, type);
}

static void sample(struct writer *w, const char *name, const char *value)
{
    dra_buf_addf(&w->b, "%s%s} %s\n", name, dra_buf_str(&w->labels), value);
}

static void text(struct writer *w, const char *name, const char *type, const char *help, const char *value)
{
    head(w, name, type, help, NULL);
    sample(w, name, value);
}

static void gauge(struct writer *w, const char *name, const char *help, int64_t v)
{
    char s[24];
    (void)snprintf(s, sizeof s, "%" PRId64, v);
    text(w, name, "gauge", help, s);
}

static void flag(struct writer *w, const char *name, const char *help, bool on)
{
    text(w, name, "gauge", help, on ? "1" : "0");
}

static void counter(struct writer *w, const char *name, const char *help, uint64_t v)
{
    char s[24];
    (void)snprintf(s, sizeof s, "%" PRIu64, v);
    text(w, name, "counter", help, s);
}

/* Epoch seconds as the shortest float: "1772359200.5", "1772359200.0"; "0" if unknown. */
static void epoch(struct writer *w, const char *name, const char *help, int64_t us)
{
    char s[40];
    int n = us <= 0 ? snprintf(s, sizeof s, "0") : snprintf(s, sizeof s, "%" PRId64 ".%06" PRId64, us / 1000000, us % 1000000);
    if (us > 0) {
        while (n > 2 && s[n - 1] == '0' && s[n - 2] != '.') {
            s[--n] = '\0';
        }
    }
    text(w, name, "gauge", help, s);
}

/* "4.1.4" -> "040104" */
static void version(struct writer *w)
{
    char s[24];
    int major = 0;
    int minor = 0;
    int patch = 0;
    (void)sscanf(VIEWS_PATRONI_VERSION, "%d.%d.%d", &major, &minor, &patch);
    (void)snprintf(s, sizeof s, "%02d%02d%02d", major, minor, patch);
    text(w, "patroni_version", "gauge", "Patroni semver without periods.", s);
}

static void server_metrics(struct writer *w, const struct views_node *n, const struct views_now *now)
{
    bool primary = now->full && !n->in_recovery;
    bool standby = now->full && n->in_recovery;

    flag(w, "patroni_postgres_running", "Value is 1 if Postgres is running, 0 otherwise.", now->state == HA_STATE_RUNNING);
    epoch(w, "patroni_postmaster_start_time", "Epoch seconds since Postgres started.", now->full ? n->start_us : 0);
    flag(w, "patroni_primary", "Value is 1 if this node is the leader, 0 otherwise.", now->role == HA_ROLE_PRIMARY);
    counter(w, "patroni_xlog_location", "Current location of the Postgres transaction log, 0 if this node is not the leader.",
            primary ? n->wal_lsn : 0);
    flag(w, "patroni_standby_leader", "Value is 1 if this node is the standby_leader, 0 otherwise.", now->role == HA_ROLE_STANDBY_LEADER);
    flag(w, "patroni_replica", "Value is 1 if this node is a replica, 0 otherwise.", now->role == HA_ROLE_REPLICA);
    flag(w, "patroni_sync_standby", "Value is 1 if this node is a sync standby, 0 otherwise.", now->sync_standby);
    flag(w, "patroni_quorum_standby", "Value is 1 if this node is a quorum standby, 0 otherwise.", now->quorum_standby);
    counter(w, "patroni_xlog_received_location",
            "Current location of the received Postgres transaction log, 0 if this node is not a replica.", standby ? n->received : 0);
    counter(w, "patroni_xlog_replayed_location",
            "Current location of the replayed Postgres transaction log, 0 if this node is not a replica.", standby ? n->replayed : 0);
    epoch(w, "patroni_xlog_replayed_timestamp", "Current timestamp of the replayed Postgres transaction log, 0 if null.",
          standby ? n->replay_timestamp_us : 0);
    flag(w, "patroni_xlog_paused", "Value is 1 if the Postgres xlog is paused, 0 otherwise.", standby && n->replay_paused);
    if (now->full && n->server_version >= 90600) {
        flag(w, "patroni_postgres_streaming", "Value is 1 if Postgres is streaming, 0 otherwise.", now->repl == HA_REPL_STREAMING);
        flag(w, "patroni_postgres_in_archive_recovery", "Value is 1 if Postgres is replicating from archive, 0 otherwise.",
             now->repl == HA_REPL_ARCHIVE);
    }
    gauge(w, "patroni_postgres_server_version", "Version of Postgres (if running), 0 otherwise.", now->full ? n->server_version : 0);
}

static void cluster_metrics(struct writer *w, const struct views_node *n, const struct views_now *now)
{
    flag(w, "patroni_cluster_unlocked", "Value is 1 if the cluster is unlocked, 0 if locked.", n->unlocked);
    flag(w, "patroni_failsafe_mode_is_active", "Value is 1 if failsafe mode is active, 0 if inactive.", false);
    flag(w, "patroni_failsafe_mode_enabled", "Value is 1 if failsafe_mode is enabled, 0 otherwise.", n->failsafe_enabled);
    flag(w, "patroni_failsafe_member", "Value is 1 if this node is a member of failsafe, 0 otherwise.", n->failsafe_member);
    gauge(w, "patroni_postgres_timeline", "Postgres timeline of this node (if running), 0 otherwise.", now->full ? n->timeline : 0);
    gauge(w, "patroni_dcs_last_seen", "Epoch timestamp when DCS was last contacted successfully by Patroni.", n->dcs_last_seen_s);
    flag(w, "patroni_pending_restart", "Value is 1 if the node needs a restart, 0 otherwise.", n->pending_restart);
    flag(w, "patroni_is_paused", "Value is 1 if auto failover is disabled, 0 otherwise.", n->paused);
    head(w, "patroni_postgres_state", "gauge", "Numeric representation of Postgres state.",
         "Values: 0=initdb, 1=initdb_failed, 2=custom_bootstrap, 3=custom_bootstrap_failed, 4=creating_replica, 5=running, "
         "6=starting, 7=bootstrap_starting, 8=start_failed, 9=restarting, 10=restart_failed, 11=stopping, 12=stopped, "
         "13=stop_failed, 14=crashed");
    char s[24];
    (void)snprintf(s, sizeof s, "%d", (int)now->state - 1);
    sample(w, "patroni_postgres_state", s);
    gauge(w, "patroni_failover_priority", "Failover priority of this node.", n->failover_priority);
}

static void own_metrics(struct writer *w, const struct views_node *n, const struct views_now *now)
{
    flag(w, "dragent_leader", "Value is 1 while this node holds the leader key for certain.", now->lock);
    flag(w, "dragent_loop_stalled", "Value is 1 if the agent's loop is late.", now->stalled);
    flag(w, "dragent_guard_armed", "Value is 1 while the guard would fence this server at its deadline.", n->guard_armed);
    flag(w, "dragent_job_running", "Value is 1 while a start, stop, copy or other job runs.", n->job_running);
    gauge(w, "dragent_members", "Members in the cluster as last read.", n->n_members);
    head(w, "dragent_rule_info", "gauge", "The rule that holds now.", NULL);
    dra_buf_addf(&w->b, "dragent_rule_info%s,rule=\"", dra_buf_str(&w->labels));
    add_label_text(&w->b, n->rule);
    dra_buf_adds(&w->b, "\"} 1\n");
}

char *views_metrics_text(const struct views_node *n, const struct views_now *now)
{
    struct writer w;
    char *out;

    dra_buf_init(&w.b, METRICS_MAX);
    dra_buf_init(&w.labels, METRICS_MAX);
    dra_buf_adds(&w.labels, "{scope=\"");
    add_label_text(&w.labels, n->scope);
    dra_buf_adds(&w.labels, "\",name=\"");
    add_label_text(&w.labels, n->name);
    dra_buf_adds(&w.labels, "\"");
    version(&w);
    server_metrics(&w, n, now);
    cluster_metrics(&w, n, now);
    own_metrics(&w, n, now);
    w.b.failed = w.b.failed || w.labels.failed;
    out = dra_buf_take(&w.b);
    dra_buf_deinit(&w.labels);
    dra_buf_deinit(&w.b);
    return out;
}

char *views_metrics(const struct rest_facts *f)
{
    struct views_node n;
    struct views_now now;

    views_node_fill(&n, f);
    views_now_fill(&n, f->world->now, false, &now);
    return views_metrics_text(&n, &now);
}

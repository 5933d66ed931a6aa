/*
 * ops.c - the engine's table of functions, filled with the real things: etcd, PostgreSQL, peers.  (The guard: guarding.c.)
 *
 * Promises: each token is answered exactly once and never from inside the starting call; what is known at once is
 * answered in the next iteration of the loop (rt_defer).  Every answer makes a turn due.
 * Threads: loop thread only.
 */
#include "agent.h"

#include <stdlib.h>
#include <string.h>

#define PROBE_GRACE_MS 100   /* pgs gives up by itself at not_after; this much later so do we */
#define FILES_LIMIT_MS 10000 /* a file worker that hangs (stalled disk) ends the question, not the agent */

struct op {
    struct rt_agent *a;
    uint64_t token;
};

static struct op *op_new(struct rt_agent *a, uint64_t token)
{
    struct op *o = calloc(1, sizeof *o);
    if (o != NULL) {
        o->a = a;
        o->token = token;
    }
    return o;
}

/* ---- clock and facts -------------------------------------------------------------------------------- */

static struct dra_instant op_now(void *arg)
{
    (void)arg; /* the clock has no state */
    return dra_now();
}

static int64_t op_wall_s(void *arg)
{
    (void)arg; /* the clock has no state */
    return dra_wall_seconds();
}

static uint64_t op_entropy(void *arg)
{
    (void)arg; /* the kernel's */
    return dra_entropy();
}

static const struct ha_pg *op_pg(void *arg)
{
    struct rt_agent *a = arg;
    return pgs_facts(a->pgs);
}

static const struct ha_cluster *op_cluster(void *arg, struct dra_instant *read_at, bool *stale)
{
    struct rt_agent *a = arg;
    *stale = a->stale;
    if (a->snap == NULL) {
        *read_at = (struct dra_instant){0};
        return NULL;
    }
    *read_at = a->snap->read_at;
    return &a->snap->c;
}

static const struct ha_settings *op_settings(void *arg)
{
    struct rt_agent *a = arg;
    return &a->settings;
}

static void op_peers(void *arg, const struct ha_cluster *c, struct ha_peer *out, struct dra_instant *poll_at, bool *done)
{
    struct rt_agent *a = arg;
    for (int i = 0; i < c->n_members; i++) {
        memset(&out[i], 0, sizeof out[i]);
        for (int k = 0; k < a->n_peers; k++) {
            if (dra_str_eq(a->peers[k].name, c->members[i].name)) {
                out[i] = a->peers[k].p;
                break;
            }
        }
    }
    *poll_at = a->poll_at;
    *done = a->poll_done;
}

/* ---- agreement ---------------------------------------------------------------------------------------- */

/* What the store said, or that it said nothing: at most one line in five seconds, the count of the others with it. */
static void log_dcs_trouble(struct rt_agent *a, const struct dcs_answer *ans)
{
    struct dra_instant now = dra_now();
    a->dcs_troubles++;
    if (dra_is_set(a->dcs_trouble_at) && dra_since(now, a->dcs_trouble_at).ns < dra_ms(5000).ns) {
        return;
    }
    log_linef(LOG_LV_WARNING, "dcs.trouble", "etcd: %s (%d since the last such line)",
              ans->err_msg[0] != '\0' ? ans->err_msg : dra_code_to_str(ans->err_code), a->dcs_troubles);
    a->dcs_trouble_at = now;
    a->dcs_troubles = 0;
}

static void on_dcs(const struct dcs_answer *ans, void *arg)
{
    struct op *o = arg;
    struct rt_agent *a = o->a;
    if (ans->err_code == DRA_OK) {
        a->dcs_last_seen_s = dra_wall_seconds();
    } else if (ans->err_code != DRA_ECANCELED) {
        log_dcs_trouble(a, ans);
    }
    if (a->engine != NULL) {
        rt_engine_on_dcs(a->engine, o->token, ans);
        rt_dirty(a);
    }
    free(o);
}

static int op_dcs_txn(void *arg, uint64_t token, const struct dcs_txn *t, struct dra_instant not_after)
{
    struct rt_agent *a = arg;
    struct dra_err err = {0};
    struct op *o = op_new(a, token);
    int rc = o == NULL ? DRA_ENOMEM : a->dcs->vt->txn_start(a->dcs, t, not_after, on_dcs, o, &err);
    if (rc != 0) {
        free(o);
    }
    return rc;
}

static int op_dcs_grant(void *arg, uint64_t token, int64_t ttl_s, struct dra_instant not_after)
{
    struct rt_agent *a = arg;
    struct dra_err err = {0};
    struct op *o = op_new(a, token);
    int rc = o == NULL ? DRA_ENOMEM : a->dcs->vt->grant_start(a->dcs, ttl_s, not_after, on_dcs, o, &err);
    if (rc != 0) {
        free(o);
    }
    return rc;
}

static int op_dcs_keepalive(void *arg, uint64_t token, int64_t lease, struct dra_instant not_after)
{
    struct rt_agent *a = arg;
    struct dra_err err = {0};
    struct op *o = op_new(a, token);
    int rc = o == NULL ? DRA_ENOMEM : a->dcs->vt->keepalive_start(a->dcs, lease, not_after, on_dcs, o, &err);
    if (rc != 0) {
        free(o);
    }
    return rc;
}

static int op_dcs_read(void *arg, uint64_t token, struct dra_instant not_after)
{
    struct rt_agent *a = arg;
    struct dra_err err = {0};
    struct op *o = op_new(a, token);
    int rc = o == NULL ? DRA_ENOMEM : a->dcs->vt->read_start(a->dcs, not_after, on_dcs, o, &err);
    if (rc != 0) {
        free(o);
    }
    return rc;
}

/* ---- texts of keys --------------------------------------------------------------------------------------- */

static struct values_in values_inputs(const struct rt_agent *a, const struct ha_world *w)
{
    const struct pgs_view *v = pgs_view(a->pgs);
    return (struct values_in){
        .w = w,
        .m = a->engine != NULL ? rt_engine_memory(a->engine) : NULL,
        .snap = a->snap,
        .conn_url = a->names.conn_url,
        .api_url = a->rest_conf.api_url,
        .proxy_url = a->names.proxy_url,
        .tags = json_get(a->effective, "tags"),
        .pending_reason = v->pending_restart_reason,
        .slots = v->slots,
        .version = RT_COMPATIBLE_VERSION,
        .dragent = DRA_VERSION,
    };
}

static char *op_member_value(void *arg, const struct ha_world *w, enum ha_role role)
{
    struct rt_agent *a = arg;
    struct values_in in = values_inputs(a, w);
    return values_member(&in, role);
}

static char *op_status_value(void *arg, const struct ha_world *w, uint64_t optime, bool final)
{
    struct rt_agent *a = arg;
    struct values_in in = values_inputs(a, w);
    return values_status(&a->values, &in, optime, final);
}

static char *op_history_value(void *arg, const struct ha_world *w)
{
    struct rt_agent *a = arg;
    char mtime[40] = "";
    uint32_t tl = w->pg.timeline;
    int64_t max_lines = 0;
    if (json_opt_i64(a->dynamic, "max_timelines_history", &max_lines, NULL) != 0) {
        max_lines = 0; /* invalid: unlimited (CFG-51) */
    }
    const char *text = tl > 1 ? pgs_history_file(a->pgs, tl, mtime, sizeof mtime) : NULL;
    if (tl > 1 && text == NULL) {
        return NULL; /* not read yet: the core asks again */
    }
    return dcs_format_history(a->snap != NULL ? a->snap->history : NULL, tl, text, mtime, w->me,
                              max_lines > 0 && max_lines < INT32_MAX ? (int)max_lines : 0);
}

static char *op_config_value(void *arg)
{
    struct rt_agent *a = arg;
    return json_size(a->dynamic) > 0 ? json_print(a->dynamic) : NULL;
}

/* ---- peers -------------------------------------------------------------------------------------------------- */

void rt_auth_header(const struct rt_agent *a, char *out, size_t size)
{
    const struct conf_rest *c = &a->rest_conf;
    bool ctl = c->ctl_username[0] != '\0'; /* REST-120: ctl's are preferred */
    const char *user = ctl ? c->ctl_username : c->username;
    const char *password = ctl ? c->ctl_password : c->password;
    struct dra_buf plain;
    struct dra_buf line;

    out[0] = '\0';
    if (user[0] == '\0') {
        return;
    }
    dra_buf_init(&plain, 1024);
    dra_buf_init(&line, 2048);
    dra_buf_addf(&plain, "%s:%s", user, password);
    dra_buf_adds(&line, "Authorization: Basic ");
    dra_buf_add_b64(&line, dra_buf_str(&plain), plain.len);
    if (plain.failed || line.failed || dra_str_copy(out, size, dra_buf_str(&line)) != 0) {
        out[0] = '\0';
    }
    dra_buf_deinit(&plain);
    dra_buf_deinit(&line);
}

static void on_round(const struct peer_answer *answers, int n, void *arg)
{
    struct rt_agent *a = arg;
    uint64_t token = a->round_token;
    memcpy(a->peers, answers, (size_t)n * sizeof answers[0]);
    a->n_peers = n;
    a->poll_done = true;
    a->round = NULL;
    a->round_token = 0;
    if (a->engine != NULL) {
        rt_engine_on_effect(a->engine, token, DRA_OK);
        rt_dirty(a);
    }
}

static int op_poll_peers(void *arg, uint64_t token, struct dra_instant not_after)
{
    struct rt_agent *a = arg;
    struct dra_err err = {0};
    char auth[1024];
    uint64_t mask = 0;

    if (a->snap == NULL) {
        return DRA_ESTATE;
    }
    if (a->round != NULL) {
        return DRA_EBUSY;
    }
    const struct ha_cluster *c = &a->snap->c;
    for (int i = 0; i < c->n_members; i++) {
        if (!dra_str_eq(c->members[i].name, a->names.name)) {
            mask |= DRA_BIT(i);
        }
    }
    rt_auth_header(a, auth, sizeof auth);
    a->poll_at = dra_now();
    a->poll_done = false;
    a->n_peers = 0;
    a->round_token = token;
    int rc = peers_round_start(a->http, c, mask, auth, not_after, on_round, a, &a->round, &err);
    if (rc == DRA_ENOTFOUND) { /* nobody to ask: the round is over */
        a->poll_done = true;
        rt_defer(a, token, DRA_OK);
        return 0;
    }
    if (rc != 0) {
        a->poll_at = (struct dra_instant){0}; /* it was never begun: else an election would wait for its end */
    }
    return rc;
}

/* ---- questions to the local server ------------------------------------------------------------------------------ */

static bool waiting_add(struct rt_waiting *list, uint64_t token, struct dra_instant not_after)
{
    for (int i = 0; i < RT_TOKENS_MAX; i++) {
        if (list[i].token == 0) {
            list[i] = (struct rt_waiting){.token = token, .since = dra_now(), .not_after = not_after};
            return true;
        }
    }
    return false;
}

static void probe_timer_set(struct rt_agent *a)
{
    struct dra_instant at = {0};
    for (int i = 0; i < RT_TOKENS_MAX; i++) {
        if (a->probes[i].token != 0) {
            at = dra_earlier(at, a->probes[i].not_after);
        }
        if (a->reads[i].token != 0) {
            at = dra_earlier(at, a->reads[i].not_after);
        }
    }
    if (dra_is_set(at)) {
        dra_timer_set(a->probe_timer, dra_after(at, dra_ms(PROBE_GRACE_MS)));
    } else {
        dra_timer_stop(a->probe_timer);
    }
}

static int op_probe(void *arg, uint64_t token, struct dra_instant not_after)
{
    struct rt_agent *a = arg;
    if (!waiting_add(a->probes, token, not_after)) {
        return DRA_EBUSY;
    }
    pgs_probe(a->pgs, not_after);
    probe_timer_set(a);
    return 0;
}

static int op_read_files(void *arg, uint64_t token)
{
    struct rt_agent *a = arg;
    if (!waiting_add(a->reads, token, dra_after(dra_now(), dra_ms(FILES_LIMIT_MS)))) {
        return DRA_EBUSY;
    }
    pgs_read_files(a->pgs);
    probe_timer_set(a);
    return 0;
}

static void waiting_end(struct rt_agent *a, struct rt_waiting *w, int rc)
{
    uint64_t token = w->token;
    *w = (struct rt_waiting){0};
    if (a->engine != NULL) {
        rt_engine_on_effect(a->engine, token, rc);
        rt_dirty(a);
    }
}

void rt_ops_pg_changed(struct rt_agent *a)
{
    const struct ha_pg *pg = pgs_facts(a->pgs);
    struct dra_instant now = dra_now();
    for (int i = 0; i < RT_TOKENS_MAX; i++) {
        struct rt_waiting *w = &a->probes[i];
        if (w->token == 0) {
            continue;
        }
        if (pg->answered_at.ns >= w->since.ns) {
            waiting_end(a, w, DRA_OK);
        } else if (pg->postmaster == DRA_NO) {
            waiting_end(a, w, DRA_ECONN);
        } else if (dra_reached(now, w->not_after)) {
            waiting_end(a, w, DRA_ETIMEDOUT);
        } else if (pg->asked_at.ns >= w->since.ns && pg->accepting == DRA_NO) {
            waiting_end(a, w, DRA_ECONN); /* it was asked and refused */
        } else if (pg->asked_at.ns < w->since.ns) {
            pgs_probe(a->pgs, w->not_after); /* what ran was asked before our question; coalesced if one runs */
        }
    }
    for (int i = 0; i < RT_TOKENS_MAX; i++) {
        struct rt_waiting *w = &a->reads[i];
        if (w->token != 0 && pg->files_at.ns >= w->since.ns) {
            waiting_end(a, w, DRA_OK);
        } else if (w->token != 0 && dra_reached(now, w->not_after)) {
            waiting_end(a, w, DRA_ETIMEDOUT);
        }
    }
    probe_timer_set(a);
}

static void on_probe_timer(void *arg)
{
    struct rt_agent *a = arg;
    rt_ops_pg_changed(a); /* what is overdue ends as timed out */
}

struct upstream_op {
    struct rt_agent *a;
    uint64_t token;
};

static void on_upstream(const struct ha_upstream_check *r, void *arg)
{
    struct upstream_op *o = arg;
    if (o->a->engine != NULL) {
        rt_engine_on_upstream(o->a->engine, o->token, r);
        rt_dirty(o->a);
    }
    free(o);
}

static const char *conn_url_of(const struct rt_agent *a, const char *member)
{
    if (a->snap == NULL || member[0] == '\0') {
        return "";
    }
    int i = ha_member_find(&a->snap->c, member);
    return i >= 0 ? a->snap->c.members[i].conn_url : "";
}

static int op_check_upstream(void *arg, uint64_t token, const char *member, uint32_t local_timeline,
                             struct dra_instant not_after)
{
    struct rt_agent *a = arg;
    struct dra_err err = {0};
    const char *url = conn_url_of(a, member);
    struct upstream_op *o = url[0] != '\0' ? calloc(1, sizeof *o) : NULL;
    if (o == NULL) {
        return url[0] != '\0' ? DRA_ENOMEM : DRA_ENOTFOUND;
    }
    o->a = a;
    o->token = token;
    int rc = pgs_check_upstream(a->pgs, member, url, local_timeline, not_after, on_upstream, o, &err);
    if (rc != 0) {
        free(o);
    }
    return rc;
}

/* ---- effects on the local server ---------------------------------------------------------------------------------- */

static void on_effect(int rc, const struct dra_err *err, void *arg)
{
    struct op *o = arg;
    if (rc != 0 && rc != DRA_ECANCELED) {
        log_event(LOG_LV_WARNING, "pg.effect.failed", "a change to the local server failed", "error",
                  err != NULL ? err->msg : dra_code_to_str(rc), NULL);
    }
    if (o->a->engine != NULL) {
        rt_engine_on_effect(o->a->engine, o->token, rc);
        rt_dirty(o->a);
    }
    free(o);
}

/* The start of an effect came back with rc: what did not start is logged and its memory freed. */
static int started(struct op *o, int rc, const char *what, const struct dra_err *err)
{
    if (rc != 0) {
        log_event(LOG_LV_WARNING, "pg.effect.failed", "a change to the local server could not be started", "effect", what,
                  "error", err->msg, NULL);
        free(o);
    }
    return rc;
}

static int op_follow(void *arg, uint64_t token, const char *member)
{
    struct rt_agent *a = arg;
    struct dra_err err = {0};
    struct op *o = op_new(a, token);
    if (o == NULL) {
        return DRA_ENOMEM;
    }
    return started(o, pgs_follow(a->pgs, member, conn_url_of(a, member), on_effect, o, &err), "follow", &err);
}

static int op_reload(void *arg, uint64_t token)
{
    struct rt_agent *a = arg;
    struct dra_err err = {0};
    struct op *o = op_new(a, token);
    if (o == NULL) {
        return DRA_ENOMEM;
    }
    return started(o, pgs_reload(a->pgs, on_effect, o, &err), "reload", &err);
}

static int op_checkpoint(void *arg, uint64_t token, struct dra_instant not_after)
{
    struct rt_agent *a = arg;
    struct dra_err err = {0};
    struct op *o = op_new(a, token);
    if (o == NULL) {
        return DRA_ENOMEM;
    }
    return started(o, pgs_checkpoint(a->pgs, not_after, on_effect, o, &err), "checkpoint", &err);
}

static int op_slots(void *arg, uint64_t token, const struct ha_slot_pos *wanted, int n)
{
    struct rt_agent *a = arg;
    struct dra_err err = {0};
    struct op *o = op_new(a, token);
    if (o == NULL) {
        return DRA_ENOMEM;
    }
    bool drop = !a->settings.pause; /* HA-159, HA-253 */
    return started(o, pgs_slots(a->pgs, wanted, n, drop, on_effect, o, &err), "slots", &err);
}

static void op_callback(void *arg, enum ha_callback c, enum ha_role role)
{
    struct rt_agent *a = arg;
    pgs_callback(a->pgs, c, role);
}

/* ---- jobs --------------------------------------------------------------------------------------------------------- */

static int op_job_start(void *arg, uint64_t id, const struct ha_job *job)
{
    struct rt_agent *a = arg;
    struct dra_err err = {0};
    int rc = pgs_job_start(a->pgs, job, conn_url_of(a, job->member), id, &err);
    if (rc != 0) {
        log_event(LOG_LV_WARNING, "job.refused", "a job could not be started", "job", ha_job_to_str(job->kind), "member",
                  job->member, "error", err.msg, NULL);
    } else {
        bool stop = job->kind == HA_JOB_STOP;
        bool member = job->member[0] != '\0';
        log_event(LOG_LV_INFO, "job.started", ha_job_to_str(job->kind), stop ? "mode" : (member ? "member" : NULL),
                  stop ? ha_stop_to_str(job->mode) : job->member, NULL);
    }
    return rc;
}

static void op_job_continue(void *arg, bool go)
{
    struct rt_agent *a = arg;
    pgs_job_continue(a->pgs, go);
}

static void op_job_cancel(void *arg)
{
    struct rt_agent *a = arg;
    pgs_job_cancel(a->pgs);
}

static struct dra_instant op_job_progress_at(void *arg)
{
    struct rt_agent *a = arg;
    return pgs_job_progress_at(a->pgs);
}

/* ---- outside --------------------------------------------------------------------------------------------------------- */

static void op_reply(void *arg, uint64_t request_id, bool ok, const char *text)
{
    requests_reply(arg, request_id, ok, text);
}

static void op_exit(void *arg, int code, const char *text)
{
    rt_end(arg, code, text);
}

static void op_decided(void *arg, const struct ha_world *w, const struct ha_memory *m, const struct ha_plan *p)
{
    rt_decided(arg, w, m, p);
}

void rt_ops_fill(struct rt_agent *a)
{
    a->ops = (struct rt_ops){
        .now = op_now,
        .wall_s = op_wall_s,
        .entropy = op_entropy,
        .pg = op_pg,
        .cluster = op_cluster,
        .settings = op_settings,
        .peers = op_peers,
        .dcs_txn = op_dcs_txn,
        .dcs_grant = op_dcs_grant,
        .dcs_keepalive = op_dcs_keepalive,
        .dcs_read = op_dcs_read,
        .member_value = op_member_value,
        .status_value = op_status_value,
        .history_value = op_history_value,
        .config_value = op_config_value,
        .poll_peers = op_poll_peers,
        .probe = op_probe,
        .read_files = op_read_files,
        .check_upstream = op_check_upstream,
        .follow = op_follow,
        .reload = op_reload,
        .checkpoint = op_checkpoint,
        .slots = op_slots,
        .callback = op_callback,
        .job_start = op_job_start,
        .job_continue = op_job_continue,
        .job_cancel = op_job_cancel,
        .job_progress_at = op_job_progress_at,
        .reply = op_reply,
        .exit = op_exit,
        .decided = op_decided,
    };
    rt_guard_fill_ops(a);
}

int rt_ops_open(struct rt_agent *a)
{
    return dra_timer_open(&a->loop, on_probe_timer, a, &a->probe_timer);
}

void rt_ops_close(struct rt_agent *a)
{
    peers_round_cancel(a->round);
    a->round = NULL;
    dra_timer_close(a->probe_timer);
    a->probe_timer = NULL;
}

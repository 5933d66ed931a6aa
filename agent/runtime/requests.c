/*
 * requests.c - REST calls that need the loop: fresh facts, the dynamic configuration, restart, reload, reinitialize.
 *
 * Promises: each request is answered exactly once; what cannot read the store drops the connection where clients take
 * that as the sign to go elsewhere (REST-09), and says 503 otherwise.
 * Threads: loop thread only.
 */
#include "agent.h"

#include <stdlib.h>
#include <string.h>

#define FRESH_LIMIT_MS 3000   /* REST-47, REST-64 */

/* One read of the store for one request. */
struct req_read {
    struct rt_agent *a;
    struct rest_request rq;
    struct json *merged; /* owned: what PATCH /config writes */
};

static void on_config_read(const struct dcs_answer *ans, void *arg);
static void on_config_written(const struct dcs_answer *ans, void *arg);
static void on_restart_read(const struct dcs_answer *ans, void *arg);
static void on_cluster_read(const struct dcs_answer *ans, void *arg);

static struct dra_instant read_limit(const struct rt_agent *a)
{
    struct dra_span limit = a->settings.retry_timeout;
    if (limit.ns > dra_ms(10000).ns || limit.ns <= 0) {
        limit = dra_ms(10000);
    }
    return dra_after(dra_now(), limit);
}

/* ---- fresh facts ------------------------------------------------------------------------------------ */

static void fresh_ask(struct rt_agent *a)
{
    struct rt_requests *r = &a->requests;
    if (!r->fresh_wanted) {
        r->fresh_wanted = true;
        r->fresh_since = dra_now();
        r->fresh_until = dra_after(r->fresh_since, dra_ms(FRESH_LIMIT_MS));
    }
    pgs_probe(a->pgs, r->fresh_until);
    rt_dirty(a);
}

void requests_on_pg(struct rt_agent *a)
{
    struct rt_requests *r = &a->requests;
    if (!r->fresh_wanted || r->fresh_ready) {
        return;
    }
    const struct ha_pg *pg = pgs_facts(a->pgs);
    bool answered = pg->answered_at.ns >= r->fresh_since.ns;
    if (answered || pg->postmaster == DRA_NO || dra_reached(dra_now(), r->fresh_until)) {
        r->fresh_ready = true; /* resumed after the turn that publishes it */
        rt_dirty(a);
    } else {
        pgs_probe(a->pgs, r->fresh_until); /* the answer was to a question sent before ours; coalesced if one runs */
    }
}

void requests_after_turn(struct rt_agent *a)
{
    struct rt_requests *r = &a->requests;
    if (r->fresh_ready) {
        r->fresh_ready = false;
        r->fresh_wanted = false;
        rest_resume_fresh(a->rest);
    }
}

static void cluster_ask(struct rt_agent *a)
{
    struct rt_requests *r = &a->requests;
    struct dra_err err = {0};
    if (r->cluster_reading) {
        return;
    }
    r->cluster_reading = true;
    int rc = a->dcs->vt->read_start(a->dcs, dra_after(dra_now(), dra_ms(FRESH_LIMIT_MS)), on_cluster_read, a, &err);
    if (rc != 0) {
        r->cluster_reading = false;
        rest_resume_cluster(a->rest, false);
    }
}

static void on_cluster_read(const struct dcs_answer *ans, void *arg)
{
    struct rt_agent *a = arg;
    a->requests.cluster_reading = false;
    if (a->requests.closing || a->rest == NULL) {
        return;
    }
    if (ans->err_code == DRA_OK) {
        a->dcs_last_seen_s = dra_wall_seconds();
        rt_publish(a);
    }
    rest_resume_cluster(a->rest, ans->err_code == DRA_OK);
}

/* ---- PATCH /config (REST-71) ---------------------------------------------------------------------------- */

static void read_for(struct rt_agent *a, const struct rest_request *rq, dcs_cb cb, int status_on_failure)
{
    struct dra_err err = {0};
    struct req_read *r = calloc(1, sizeof *r);
    if (r != NULL) {
        r->a = a;
        r->rq = *rq;
        if (a->dcs->vt->read_start(a->dcs, read_limit(a), cb, r, &err) == 0) {
            return;
        }
    }
    free(r);
    rest_reply(a->rest, rq->id, status_on_failure, NULL, NULL);
}

static void on_config_read(const struct dcs_answer *ans, void *arg)
{
    struct req_read *r = arg;
    struct rt_agent *a = r->a;
    struct json *merged = NULL;
    char *compact = NULL;
    char *spaced = NULL;
    bool changed = false;
    struct dra_err err = {0};

    if (a->requests.closing) {
        goto out;
    }
    if (ans->err_code != DRA_OK || a->snap == NULL) {
        rest_reply(a->rest, r->rq.id, 0, NULL, NULL); /* REST-09: patronictl tries the next member */
        goto out;
    }
    if (a->snap->config == NULL || !a->snap->c.config_valid) {
        rest_reply(a->rest, r->rq.id, 503, NULL, NULL);
        goto out;
    }
    merged = json_clone(a->snap->config);
    if (merged == NULL || json_merge_patch(&merged, r->rq.body, &changed) != 0) {
        rest_reply(a->rest, r->rq.id, 500, NULL, NULL);
        goto out;
    }
    if (!changed) {
        spaced = json_print_spaced(merged);
        rest_reply(a->rest, r->rq.id, spaced != NULL ? 200 : 500, "application/json", spaced);
        rt_dirty(a);
        goto out;
    }
    compact = json_print(merged);
    if (compact != NULL) {
        struct dcs_txn t = {
            .n_cmps = 1,
            .cmps = {{.target = DCS_CMP_MOD_REV, .key = "config", .number = a->snap->c.config_rev}},
            .n_success = 1,
            .success = {{.kind = DCS_OP_PUT, .key = "config", .value = compact}},
        };
        if (a->dcs->vt->txn_start(a->dcs, &t, read_limit(a), on_config_written, r, &err) == 0) {
            r->merged = DRA_TAKE(merged);
            free(compact);
            return;
        }
    }
    rest_reply(a->rest, r->rq.id, 409, NULL, NULL);
out:
    free(spaced);
    free(compact);
    json_free(merged);
    free(r);
}

static void on_config_written(const struct dcs_answer *ans, void *arg)
{
    struct req_read *r = arg;
    struct rt_agent *a = r->a;
    char *spaced = json_print_spaced(r->merged);

    if (!a->requests.closing) {
        if (ans->err_code == DRA_OK && ans->succeeded && spaced != NULL) {
            log_event(LOG_LV_INFO, "config.patched", "the dynamic configuration was changed over REST", NULL);
            rest_reply(a->rest, r->rq.id, 200, "application/json", spaced);
        } else {
            rest_reply(a->rest, r->rq.id, 409, NULL, NULL);
        }
        rt_dirty(a);
    }
    free(spaced);
    json_free(r->merged);
    free(r);
}

/* ---- restart, reload, reinitialize ------------------------------------------------------------------------ */

static const char *busy_with(const struct rt_agent *a)
{
    const struct ha_world *w = rt_engine_world(a->engine);
    if (w->request.kind == HA_REQ_RESTART) {
        return "restart";
    }
    if (w->request.kind == HA_REQ_REINIT) {
        return "reinitialize";
    }
    return w->job.phase != HA_PHASE_IDLE ? ha_job_to_str(w->job.job.kind) : "another request";
}

static void reply_busy(struct rt_agent *a, uint64_t id)
{
    char text[128];
    dra_str_clip(text, sizeof text, busy_with(a));
    size_t len = strlen(text);
    dra_str_clip(text + len, sizeof text - len, " already in progress");
    rest_reply(a->rest, id, 503, NULL, text);
}

static bool restart_conditions_hold(const struct rt_agent *a, const struct rt_restart *f)
{
    const struct pgs_view *v = pgs_view(a->pgs);
    const struct ha_plan *p = rt_engine_plan(a->engine);
    if (f->has_role && p->role != f->role) {
        return false;
    }
    if (f->version_min != 0 && (v->server_version == 0 || v->server_version >= f->version_min)) {
        return false;
    }
    return !f->pending_only || json_size(v->pending_restart_reason) > 0;
}

static void on_restart_read(const struct dcs_answer *ans, void *arg)
{
    struct req_read *r = arg;
    struct rt_agent *a = r->a;
    struct rt_restart f;
    struct rt_refusal no;

    if (a->requests.closing) {
        free(r);
        return;
    }
    if (ans->err_code != DRA_OK) {
        rest_reply(a->rest, r->rq.id, 503, NULL, NULL);
    } else if (!rt_restart_parse(r->rq.body, a->settings.pause, &f, &no)) {
        rest_reply(a->rest, r->rq.id, no.status, NULL, no.text);
    } else if (f.scheduled) {
        rest_reply(a->rest, r->rq.id, 503, NULL, "scheduled restarts are not supported by this version");
    } else if (!restart_conditions_hold(a, &f)) {
        rest_reply(a->rest, r->rq.id, 503, NULL, "restart conditions are not satisfied");
    } else {
        struct ha_request rq = {.id = r->rq.id,
                                .kind = HA_REQ_RESTART,
                                .timeout = dra_ms(f.timeout_s * 1000),
                                .asked_at = r->rq.asked_at};
        if (rt_engine_request(a->engine, &rq) != 0) {
            reply_busy(a, r->rq.id);
        }
        rt_dirty(a);
    }
    free(r);
}

static bool body_flag(const struct json *body, const char *key)
{
    const struct json *v = json_get(body, key);
    char text[16];
    bool on = false;
    if (v == NULL || !json_scalar_text(v, text, sizeof text)) {
        return false;
    }
    return conf_parse_bool(text, &on) == 0 && on;
}

static void reinit_ask(struct rt_agent *a, const struct rest_request *rq)
{
    struct ha_request q = {.id = rq->id,
                           .kind = HA_REQ_REINIT,
                           .force = body_flag(rq->body, "force"),
                           .from_leader = body_flag(rq->body, "from_leader") || body_flag(rq->body, "from-leader"),
                           .asked_at = rq->asked_at};
    if (rt_engine_request(a->engine, &q) != 0) {
        reply_busy(a, rq->id);
    }
    rt_dirty(a);
}

void requests_reply(struct rt_agent *a, uint64_t id, bool ok, const char *text)
{
    if (a->rest != NULL && !a->requests.closing) {
        rest_reply(a->rest, id, ok ? 200 : 503, NULL, text);
    }
}

/* ---- entrance ------------------------------------------------------------------------------------------------- */

void requests_on_rest(const struct rest_request *rq, void *arg)
{
    struct rt_agent *a = arg;
    if (!a->running || a->requests.closing) {
        rest_reply(a->rest, rq->id, 503, NULL, "the agent is not ready");
        return;
    }
    switch (rq->kind) {
    case REST_FRESH:
        fresh_ask(a);
        return;
    case REST_CLUSTER:
        cluster_ask(a);
        return;
    case REST_PATCH_CONFIG:
        read_for(a, rq, on_config_read, 0);
        return;
    case REST_SWITCHOVER:
    case REST_FAILOVER:
        switch_on_rest(a, rq);
        return;
    case REST_DELETE_SWITCHOVER:
        switch_delete_on_rest(a, rq);
        return;
    case REST_RESTART:
        read_for(a, rq, on_restart_read, 503);
        return;
    case REST_RELOAD:
        rest_reply(a->rest, rq->id, 202, NULL, "reload scheduled");
        a->hup = true;
        rt_dirty(a);
        return;
    case REST_REINIT:
        reinit_ask(a, rq);
        return;
    case REST_NONE:
    case REST_KIND_COUNT:
        break;
    }
    rest_reply(a->rest, rq->id, 501, NULL, NULL);
}

void requests_on_snapshot(struct rt_agent *a)
{
    switch_on_snapshot(a);
}

void requests_tick(struct rt_agent *a)
{
    requests_on_pg(a);
    switch_tick(a);
}

struct dra_instant requests_wake_at(const struct rt_agent *a)
{
    struct dra_instant at = switch_wake_at(a);
    return a->requests.fresh_wanted ? dra_earlier(at, a->requests.fresh_until) : at;
}

void requests_close(struct rt_agent *a)
{
    a->requests.closing = true; /* rest_close() resumes who waits */
    switch_close(a);
}

/*
 * cmd_switch.c - switchover and failover (CLI-60, CLI-61): ask, confirm, tell the leader's REST API; where nobody answers, write the
 * request into the store.
 */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>

struct request {
    struct ctl *c;
    const char *scope;
    bool switchover; /* else failover */
    bool force;
    struct dcs_snapshot *s;
    char leader[HA_NAME_MAX];
    char candidate[HA_NAME_MAX];
    char scheduled[CTL_TIME_MAX]; /* "" = now */
};

static const char *verb(const struct request *r)
{
    return r->switchover ? "switchover" : "failover";
}

static bool is_paused(const struct dcs_snapshot *s)
{
    bool yes = false;
    const struct json *v = json_get(s->config, "pause");
    return json_is_true(v) || (json_text(v) != NULL && conf_parse_bool(json_text(v), &yes) == 0 && yes);
}

/* ---- the questions -------------------------------------------------------------------------------------------- */

static int ask_leader(struct request *r)
{
    const struct ha_cluster *c = &r->s->c;
    const char *given = r->c->args.value[CTL_OPT_LEADER];
    if (c->leader[0] == '\0') {
        return ctl_error("This cluster has no leader");
    }
    if (given != NULL) {
        dra_str_clip(r->leader, sizeof r->leader, given);
    } else if (r->force) {
        dra_str_clip(r->leader, sizeof r->leader, c->leader);
    } else {
        bool standby = json_type_of(json_get(r->s->config, "standby_cluster")) == JSON_OBJECT;
        char q[HA_NAME_MAX + 32];
        (void)snprintf(q, sizeof q, "%s [%s]: ", standby ? "Standby Leader" : "Primary", c->leader);
        ctl_prompt(q, c->leader, r->leader, sizeof r->leader);
    }
    if (!dra_str_eq(r->leader, c->leader)) {
        return ctl_error("Member %s is not the leader of cluster %s", r->leader, r->scope);
    }
    return 0;
}

static bool can_be_candidate(const struct ha_cluster *c, int i)
{
    const struct ha_member *m = &c->members[i];
    return !dra_str_eq(m->name, c->leader) && !m->tags.nofailover && m->tags.failover_priority > 0;
}

static int count_candidates(const struct ha_cluster *c, struct dra_buf *list)
{
    int n = 0;
    dra_buf_adds(list, "[");
    for (int i = 0; i < c->n_members; i++) {
        if (can_be_candidate(c, i)) {
            dra_buf_addf(list, "%s'%s'", n == 0 ? "" : ", ", c->members[i].name);
            n++;
        }
    }
    dra_buf_adds(list, "]");
    return n;
}

static int check_candidate(const struct request *r)
{
    const struct ha_cluster *c = &r->s->c;
    int i;
    if (r->candidate[0] == '\0') {
        return r->switchover ? 0 : ctl_error("Failover could be performed only to a specific candidate");
    }
    if (dra_str_eq(r->candidate, c->leader)) {
        return ctl_error("Member %s is already the leader of cluster %s", r->candidate, r->scope);
    }
    i = ha_member_find(c, r->candidate);
    if (i < 0 || !can_be_candidate(c, i)) {
        return ctl_error("Member %s does not exist in cluster %s or is tagged as nofailover", r->candidate, r->scope);
    }
    return 0;
}

static int ask_candidate(struct request *r)
{
    struct dra_buf list;
    const char *given = r->c->args.value[CTL_OPT_CANDIDATE];
    int n;
    dra_buf_init(&list, 65536);
    n = count_candidates(&r->s->c, &list);
    if (n > 0 && given != NULL) {
        dra_str_clip(r->candidate, sizeof r->candidate, given);
    } else if (n > 0 && !r->force) {
        char q[16384];
        (void)snprintf(q, sizeof q, "Candidate %s []: ", dra_buf_str(&list));
        ctl_prompt(q, "", r->candidate, sizeof r->candidate);
    }
    dra_buf_deinit(&list);
    if (n == 0) {
        return ctl_error("No candidates found to %s to", verb(r));
    }
    return check_candidate(r);
}

/* A failover to a node that is not synchronous may lose data: ask. */
static int ask_asynchronous(const struct request *r)
{
    const struct ha_cluster *c = &r->s->c;
    const struct json *mode = json_get(r->s->config, "synchronous_mode");
    bool sync = json_is_true(mode) || dra_str_eq_nocase(json_text(mode), "quorum") || dra_str_eq_nocase(json_text(mode), "on");
    char q[HA_NAME_MAX + 80];
    if (r->switchover || r->force || !sync || dra_str_eq_nocase(c->sync.leader, r->candidate)) {
        return 0;
    }
    for (int i = 0; i < c->sync.n_standbys; i++) {
        if (dra_str_eq_nocase(c->sync.standbys[i], r->candidate)) {
            return 0;
        }
    }
    (void)snprintf(q, sizeof q, "Are you sure you want to failover to the asynchronous node %s?", r->candidate);
    return ctl_confirm(q) ? 0 : ctl_error("Aborting failover");
}

static int ask_time(struct request *r)
{
    const char *given = r->c->args.value[CTL_OPT_SCHEDULED];
    char text[64] = "";
    if (!r->switchover) {
        return 0;
    }
    if (given != NULL) {
        dra_str_clip(text, sizeof text, given);
    } else if (!r->force) {
        char example[CTL_TIME_MAX], q[96];
        ctl_example_time(example);
        (void)snprintf(q, sizeof q, "When should the switchover take place (e.g. %s )  [now]: ", example);
        ctl_prompt(q, "now", text, sizeof text);
    }
    if (ctl_schedule(text, r->scheduled) != 0) {
        return ctl_error("Unable to parse scheduled timestamp (%s). It should be in an unambiguous format (e.g. ISO 8601)", text);
    }
    if (r->scheduled[0] != '\0' && is_paused(r->s)) {
        return ctl_error("Can't schedule switchover in the paused state");
    }
    return 0;
}

static int ask_sure(const struct request *r)
{
    char q[4 * HA_NAME_MAX], demoting[HA_NAME_MAX + 32] = "";
    if (r->force) {
        return 0;
    }
    if (r->s->c.leader[0] != '\0') {
        (void)snprintf(demoting, sizeof demoting, ", demoting current leader %s", r->s->c.leader);
    }
    if (r->scheduled[0] != '\0') {
        (void)snprintf(q, sizeof q, "Are you sure you want to schedule switchover of cluster %s at %s%s?", r->scope, r->scheduled, demoting);
    } else {
        (void)snprintf(q, sizeof q, "Are you sure you want to %s cluster %s%s?", verb(r), r->scope, demoting);
    }
    if (ctl_confirm(q)) {
        return 0;
    }
    return ctl_error("Aborting %s%s", r->scheduled[0] != '\0' ? "scheduled " : "", verb(r));
}

/* ---- the request --------------------------------------------------------------------------------------------------- */

static char *body_of(const struct request *r)
{
    struct dra_buf b;
    dra_buf_init(&b, 4096);
    dra_buf_adds(&b, "{\"candidate\": ");
    if (r->candidate[0] != '\0') {
        dra_buf_add_json_str(&b, r->candidate);
    } else {
        dra_buf_adds(&b, "null");
    }
    if (r->switchover) {
        dra_buf_adds(&b, ", \"leader\": ");
        dra_buf_add_json_str(&b, r->leader);
    }
    if (r->scheduled[0] != '\0') {
        dra_buf_adds(&b, ", \"scheduled_at\": ");
        dra_buf_add_json_str(&b, r->scheduled);
    }
    dra_buf_adds(&b, "}");
    return dra_buf_take(&b);
}

/* Nobody answered: the failover key itself, as an unconditional put. */
static int fall_back(const struct request *r)
{
    char now[CTL_TIME_MAX];
    struct dcs_answer a;
    struct dcs_txn t = {.n_success = 1};
    char *value = dcs_format_failover(r->switchover ? r->leader : NULL, r->candidate[0] == '\0' ? NULL : r->candidate,
                                      r->scheduled[0] == '\0' ? NULL : r->scheduled);
    int rc;
    ctl_now(now, true);
    (void)printf("%s Could not %s using Patroni api, falling back to DCS\n", now, verb(r));
    if (value == NULL) {
        return ctl_error("out of memory");
    }
    t.success[0] = (struct dcs_op){.kind = DCS_OP_PUT, .key = "failover", .value = value};
    rc = ctl_txn(r->c, &t, &a);
    free(value);
    if (rc == 0) {
        rc = ctl_members_print(r->s, r->scope, false, CTL_FMT_PRETTY);
    }
    return rc;
}

/* Names start a sentence here: "Switchover failed". */
static void print_failure(const struct request *r, const char *what, int status, const char *body)
{
    (void)printf("%s %s, details: %d, %s\n", r->switchover ? "Switchover" : "Failover", what, status, body);
}

static int conclude(struct request *r, const struct ctl_call *call)
{
    const char *body = dra_buf_str(&call->answer);
    struct dcs_snapshot *after = NULL;
    char now[CTL_TIME_MAX];
    int rc;
    if (call->status == 0 && call->err_code == DRA_ETIMEDOUT) {
        (void)printf("%s result unknown, details: no answer within %lld seconds\n", r->switchover ? "Switchover" : "Failover",
                     (long long)(call->timeout_ms / 1000));
        return 0;
    }
    if (call->status == 0) {
        (void)fprintf(stderr, "%s\n", call->error);
        return fall_back(r);
    }
    if (call->status != 200 && call->status != 202) {
        bool unknown = strcasestr(body, "status unknown") != NULL;
        print_failure(r, unknown ? "result unknown" : "failed", call->status, body);
        return 0;
    }
    ctl_now(now, true);
    (void)printf("%s %s\n", now, body);
    rc = ctl_cluster(r->c, r->scope, &after);
    if (rc == 0) {
        rc = ctl_members_print(after, r->scope, false, CTL_FMT_PRETTY);
    }
    dcs_snapshot_unref(after);
    return rc;
}

static int send_request(struct request *r)
{
    const struct ha_cluster *c = &r->s->c;
    int i = ha_member_find(c, c->leader[0] != '\0' ? c->leader : r->candidate);
    int64_t polls = ctl_loop_wait(r->s) > 10 ? ctl_loop_wait(r->s) : 10;
    char *body = body_of(r);
    struct ctl_call call = {.method = "POST", .path = r->switchover ? "/switchover" : "/failover", .timeout_ms = (2 * polls + 30) * 1000};
    int rc;
    if (body == NULL) {
        return ctl_error("out of memory");
    }
    if (i < 0 || c->members[i].api_url[0] == '\0') {
        free(body);
        return fall_back(r);
    }
    call.api_url = c->members[i].api_url;
    call.body = body;
    ctl_calls(r->c, &call, 1);
    if (r->switchover && call.status == 501 && strstr(dra_buf_str(&call.answer), "Server does not support this operation") != NULL) {
        ctl_call_deinit(&call);
        call.path = "/failover";
        ctl_calls(r->c, &call, 1);
    }
    rc = conclude(r, &call);
    ctl_call_deinit(&call);
    free(body);
    return rc;
}

static int run(struct ctl *c, bool switchover)
{
    struct request r = {.c = c, .switchover = switchover, .force = c->args.value[CTL_OPT_FORCE] != NULL};
    int rc;
    r.scope = ctl_scope(c);
    rc = r.scope == NULL ? CTL_EXIT_USAGE : ctl_cluster(c, r.scope, &r.s);
    if (rc != 0) {
        return rc;
    }
    (void)puts("Current cluster topology");
    rc = ctl_members_print(r.s, r.scope, false, CTL_FMT_PRETTY);
    if (rc == 0 && switchover) {
        rc = ask_leader(&r);
    }
    rc = rc == 0 ? ask_candidate(&r) : rc;
    rc = rc == 0 ? ask_asynchronous(&r) : rc;
    rc = rc == 0 ? ask_time(&r) : rc;
    rc = rc == 0 ? ask_sure(&r) : rc;
    rc = rc == 0 ? send_request(&r) : rc;
    dcs_snapshot_unref(r.s);
    return rc;
}

int ctl_cmd_switchover(struct ctl *c)
{
    return run(c, true);
}

int ctl_cmd_failover(struct ctl *c)
{
    return run(c, false);
}

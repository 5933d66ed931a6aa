/*
 * cmd_member.c - restart, reload, reinit (CLI-40 .. CLI-43): per member, one after the other, in name order.
 */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>

static const char *role_of(const struct ctl *c)
{
    const char *r = c->args.value[CTL_OPT_ROLE];
    return r == NULL ? "any" : r;
}

/* One call to one member. */
static void call_member(struct ctl *c, const struct ha_member *m, const char *method, const char *path, const char *body, int64_t timeout_ms,
                        struct ctl_call *out)
{
    *out = (struct ctl_call){.api_url = m->api_url, .method = method, .path = path, .body = body, .timeout_ms = timeout_ms};
    ctl_calls(c, out, 1);
    if (out->status == 0) {
        dra_buf_adds(&out->answer, out->error);
    }
}

static void print_failed(const char *what, const char *name, const struct ctl_call *call)
{
    (void)printf("Failed: %s for member %s, status code=%d, (%s)\n", what, name, call->status, dra_buf_str(&call->answer));
    (void)fflush(stdout);
}

/* ---- reload ------------------------------------------------------------------------------------------------- */

int ctl_cmd_reload(struct ctl *c)
{
    struct dcs_snapshot *s = NULL;
    struct ctl_selection sel;
    int rc = ctl_cluster(c, c->args.pos[0], &s);
    rc = rc == 0 ? ctl_select(c, s, "reload", role_of(c), &sel) : rc;
    rc = rc == 0 ? ctl_confirm_members(c, s, "reload", &sel) : rc;
    for (int i = 0; rc == 0 && i < sel.n; i++) {
        const struct ha_member *m = &s->c.members[sel.index[i]];
        struct ctl_call call;
        call_member(c, m, "POST", "/reload", NULL, 30000, &call);
        if (call.status == 202) {
            (void)printf("Reload request received for member %s and will be processed within %lld seconds\n", m->name, (long long)ctl_loop_wait(s));
        } else if (call.status == 200) {
            (void)printf("No changes to apply on member %s\n", m->name);
        } else {
            print_failed("reload", m->name, &call);
        }
        ctl_call_deinit(&call);
    }
    dcs_snapshot_unref(s);
    return rc;
}

/* ---- restart --------------------------------------------------------------------------------------------------- */

struct restart {
    struct ctl *c;
    struct dcs_snapshot *s;
    struct ctl_selection sel;
    bool force;
    char schedule[CTL_TIME_MAX];
    char version[32];
};

static int restart_when(struct restart *r)
{
    const char *given = r->c->args.value[CTL_OPT_SCHEDULED];
    char text[64] = "";
    if (given != NULL) {
        dra_str_clip(text, sizeof text, given);
    } else if (!r->force) {
        char example[CTL_TIME_MAX], q[96];
        ctl_example_time(example);
        (void)snprintf(q, sizeof q, "When should the restart take place (e.g. %s)  [now]: ", example);
        ctl_prompt(q, "now", text, sizeof text);
    }
    if (ctl_schedule(text, r->schedule) != 0) {
        return ctl_error("Unable to parse scheduled timestamp (%s). It should be in an unambiguous format (e.g. ISO 8601)", text);
    }
    return 0;
}

static void restart_narrow(struct restart *r)
{
    if (r->c->args.value[CTL_OPT_PENDING] != NULL && r->schedule[0] == '\0') {
        int n = 0;
        for (int i = 0; i < r->sel.n; i++) {
            if (r->s->c.members[r->sel.index[i]].pending_restart) {
                r->sel.index[n++] = r->sel.index[i];
            }
        }
        r->sel.n = n;
    }
    if (r->c->args.value[CTL_OPT_ANY] != NULL && r->sel.n > 1) {
        r->sel.index[0] = r->sel.index[dra_entropy() % (uint64_t)r->sel.n];
        r->sel.n = 1;
    }
}

static int restart_confirm(struct restart *r)
{
    struct dra_buf q;
    char when[CTL_TIME_MAX], *t;
    bool yes;
    if (r->force || r->schedule[0] == '\0') {
        return ctl_confirm_members(r->c, r->s, "restart", &r->sel);
    }
    dra_str_clip(when, sizeof when, r->schedule);
    t = strchr(when, 'T');
    if (t != NULL) {
        *t = ' ';
    }
    dra_buf_init(&q, 65536);
    if (r->c->args.value[CTL_OPT_PENDING] != NULL) {
        dra_buf_adds(&q, "The nodes needing a restart will be identified at the scheduled time, and might be different from the ones "
                         "showing pending restart right now. Is this fine?");
    } else {
        dra_buf_adds(&q, "Are you sure you want to schedule restart of members ");
        ctl_names(r->s, &r->sel, &q);
        dra_buf_addf(&q, " at %s?", when);
    }
    yes = ctl_confirm(dra_buf_str(&q));
    dra_buf_deinit(&q);
    return yes ? 0 : ctl_error("Aborted scheduled restart");
}

/* X.Y with X >= 10, or X.Y.Z (REST-81). */
static int check_version(const char *v)
{
    int64_t parts[4] = {0};
    int n = 0;
    const char *p = v;
    while (n < 4) {
        size_t len = strcspn(p, ".");
        if (dra_parse_i64(p, len, 0, 999, &parts[n]) != 0) {
            return ctl_error("Invalid PostgreSQL version: %s", v);
        }
        n++;
        if (p[len] == '\0') {
            break;
        }
        p += len + 1;
    }
    if (n == 3 || (n == 2 && parts[0] >= 10)) {
        return 0;
    }
    return ctl_error("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: %s", v);
}

static int restart_version(struct restart *r)
{
    const char *given = r->c->args.value[CTL_OPT_PG_VERSION];
    if (given != NULL) {
        dra_str_clip(r->version, sizeof r->version, given);
    } else if (!r->force) {
        ctl_prompt("Restart if the PostgreSQL version is less than provided (e.g. 9.5.2)  []: ", "", r->version, sizeof r->version);
    }
    return r->version[0] == '\0' ? 0 : check_version(r->version);
}

static char *restart_body(const struct restart *r)
{
    struct dra_buf b;
    const char *sep = "";
    dra_buf_init(&b, 4096);
    dra_buf_adds(&b, "{");
    if (r->c->args.value[CTL_OPT_PENDING] != NULL) {
        dra_buf_adds(&b, "\"restart_pending\": true");
        sep = ", ";
    }
    if (r->version[0] != '\0') {
        dra_buf_addf(&b, "%s\"postgres_version\": ", sep);
        dra_buf_add_json_str(&b, r->version);
        sep = ", ";
    }
    if (r->schedule[0] != '\0') {
        dra_buf_addf(&b, "%s\"schedule\": ", sep);
        dra_buf_add_json_str(&b, r->schedule);
        sep = ", ";
    }
    if (r->c->args.value[CTL_OPT_TIMEOUT] != NULL) {
        dra_buf_addf(&b, "%s\"timeout\": ", sep);
        dra_buf_add_json_str(&b, r->c->args.value[CTL_OPT_TIMEOUT]);
    }
    dra_buf_adds(&b, "}");
    return dra_buf_take(&b);
}

/* An existing schedule is taken away first, if it is to be replaced without questions. */
static void restart_flush(const struct restart *r, int index)
{
    const struct ha_member *m = &r->s->c.members[index];
    struct ctl_call call;
    if (r->schedule[0] == '\0' || !r->force || json_get(r->s->member_raw[index], "scheduled_restart") == NULL) {
        return;
    }
    call_member(r->c, m, "DELETE", "/restart", NULL, 30000, &call);
    if (call.status != 200) {
        print_failed("flush scheduled restart", m->name, &call);
    }
    ctl_call_deinit(&call);
}

/* How long a restart may take: stop, then the timeout that it was given. */
static int64_t restart_deadline_ms(const struct restart *r)
{
    struct json *j = json_new_str(r->c->args.value[CTL_OPT_TIMEOUT] == NULL ? "300" : r->c->args.value[CTL_OPT_TIMEOUT]);
    struct dra_span s = dra_ms(300000);
    (void)!conf_parse_duration(j, &s); /* the server says what is wrong with it */
    json_free(j);
    return dra_span_ms(s) + 3600000;
}

static void restart_one(const struct restart *r, int index, const char *body)
{
    const struct ha_member *m = &r->s->c.members[index];
    struct ctl_call call;
    restart_flush(r, index);
    call_member(r->c, m, "POST", "/restart", body, restart_deadline_ms(r), &call);
    if (call.status == 200) {
        (void)printf("Success: restart on member %s\n", m->name);
    } else if (call.status == 202) {
        (void)printf("Success: restart scheduled on member %s\n", m->name);
    } else if (call.status == 409) {
        (void)printf("Failed: another restart is already scheduled on member %s\n", m->name);
    } else {
        print_failed("restart", m->name, &call);
    }
    (void)fflush(stdout);
    ctl_call_deinit(&call);
}

int ctl_cmd_restart(struct ctl *c)
{
    struct restart r = {.c = c, .force = c->args.value[CTL_OPT_FORCE] != NULL};
    char *body = NULL;
    int rc = ctl_cluster(c, c->args.pos[0], &r.s);
    rc = rc == 0 ? ctl_select(c, r.s, "restart", role_of(c), &r.sel) : rc;
    rc = rc == 0 ? restart_when(&r) : rc;
    if (rc == 0) {
        restart_narrow(&r);
        rc = restart_confirm(&r);
    }
    rc = rc == 0 ? restart_version(&r) : rc;
    if (rc == 0 && r.schedule[0] != '\0' && json_is_true(json_get(r.s->config, "pause"))) {
        rc = ctl_error("Can't schedule restart in the paused state");
    }
    if (rc == 0 && (body = restart_body(&r)) == NULL) {
        rc = ctl_error("out of memory");
    }
    for (int i = 0; rc == 0 && i < r.sel.n; i++) {
        restart_one(&r, r.sel.index[i], body);
    }
    free(body);
    dcs_snapshot_unref(r.s);
    return rc;
}

/* ---- reinit -------------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && dra_str_eq(s + n - m, tail);
}

/* true: the member has begun. */
static bool reinit_one(struct ctl *c, const struct ha_member *m, bool force)
{
    bool from_leader = c->args.value[CTL_OPT_FROM_LEADER] != NULL;
    for (;;) {
        struct ctl_call call;
        char body[64];
        bool again = false, ok;
        (void)snprintf(body, sizeof body, "{\"force\": %s, \"from_leader\": %s}", force ? "true" : "false", from_leader ? "true" : "false");
        call_member(c, m, "POST", "/reinitialize", body, 60000, &call);
        ok = call.status != 0 && call.status < 400;
        if (ok) {
            (void)printf("Success: reinitialize for member %s\n", m->name);
        } else {
            print_failed("reinitialize", m->name, &call);
            again = !force && ends_with(dra_buf_str(&call.answer), " already in progress");
        }
        (void)fflush(stdout);
        ctl_call_deinit(&call);
        if (!again || !ctl_confirm("Do you want to cancel it and reinitialize anyway?")) {
            return ok;
        }
        force = true;
    }
}

/* Whether the member says that it is still copying; no answer counts as yes. */
static bool is_copying(const struct ctl_call *call)
{
    DRA_CLEANUP(json_freep) struct json *j = NULL;
    if (call->status == 0 || json_parse(dra_buf_str(&call->answer), call->answer.len, &j, NULL) != 0) {
        return true;
    }
    return dra_str_eq(json_text(json_get(j, "state")), "creating replica");
}

static void reinit_wait(struct ctl *c, const struct dcs_snapshot *s, struct ctl_selection *waiting)
{
    int said = -1;
    while (waiting->n > 0) {
        int n = 0;
        if (said != waiting->n) {
            struct dra_buf b;
            dra_buf_init(&b, 65536);
            ctl_names(s, waiting, &b);
            (void)printf("Waiting for reinitialize to complete on: %s\n", dra_buf_str(&b));
            (void)fflush(stdout);
            dra_buf_deinit(&b);
            said = waiting->n;
        }
        ctl_pause(c, 2000);
        for (int i = 0; i < waiting->n; i++) {
            const struct ha_member *m = &s->c.members[waiting->index[i]];
            struct ctl_call call;
            call_member(c, m, "GET", "/patroni", NULL, 5000, &call);
            if (is_copying(&call)) {
                waiting->index[n++] = waiting->index[i];
            } else {
                (void)printf("Reinitialize is completed on: %s\n", m->name);
                (void)fflush(stdout);
            }
            ctl_call_deinit(&call);
        }
        waiting->n = n;
    }
}

int ctl_cmd_reinit(struct ctl *c)
{
    struct dcs_snapshot *s = NULL;
    struct ctl_selection sel, waiting = {0};
    int rc = ctl_cluster(c, c->args.pos[0], &s);
    rc = rc == 0 ? ctl_select(c, s, "reinitialize", "replica", &sel) : rc;
    rc = rc == 0 ? ctl_confirm_members(c, s, "reinitialize", &sel) : rc;
    for (int i = 0; rc == 0 && i < sel.n; i++) {
        if (reinit_one(c, &s->c.members[sel.index[i]], c->args.value[CTL_OPT_FORCE] != NULL)) {
            waiting.index[waiting.n++] = sel.index[i];
        }
    }
    if (rc == 0 && c->args.value[CTL_OPT_WAIT] != NULL) {
        reinit_wait(c, s, &waiting);
    }
    dcs_snapshot_unref(s);
    return rc;
}

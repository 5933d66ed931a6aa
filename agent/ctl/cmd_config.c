/*
 * cmd_config.c - pause, resume (CLI-70) and remove (CLI-75).
 */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>

/* ---- pause, resume ------------------------------------------------------------------------------------------- */

static bool is_paused(const struct dcs_snapshot *s)
{
    bool yes = false;
    const struct json *v = json_get(s->config, "pause");
    return json_is_true(v) || (json_text(v) != NULL && conf_parse_bool(json_text(v), &yes) == 0 && yes);
}

/* Ask members, the leader first, until one answers.  0: it is done; 1: an answer that said no; 2: nobody answered. */
static int patch_anywhere(struct ctl *c, const struct dcs_snapshot *s, bool paused)
{
    int leader = ha_member_find(&s->c, s->c.leader);
    for (int k = -1; k < s->c.n_members; k++) {
        int i = k < 0 ? leader : k;
        struct ctl_call call = {.method = "PATCH", .path = "/config", .body = paused ? "{\"pause\": true}" : "{\"pause\": null}", .timeout_ms = 10000};
        int status;
        if (i < 0 || (k >= 0 && i == leader) || s->c.members[i].api_url[0] == '\0') {
            continue;
        }
        call.api_url = s->c.members[i].api_url;
        ctl_calls(c, &call, 1);
        status = call.status;
        if (status != 0 && status != 200) {
            (void)printf("Failed: %s cluster management status code=%d, (%s)\n", paused ? "pause" : "resume", status, dra_buf_str(&call.answer));
        }
        ctl_call_deinit(&call);
        if (status != 0) {
            return status == 200 ? 0 : 1;
        }
    }
    return 2;
}

/* Until every member that was there shows the wanted flag.  Names of those that do not, at the end, in `late`. */
static int wait_recognised(struct ctl *c, const char *scope, const struct dcs_snapshot *before, bool paused, struct dra_buf *late)
{
    int64_t seconds = ctl_loop_wait(before) + 1;
    for (int64_t t = 0;; t++) {
        struct dcs_snapshot *now = NULL;
        int waiting = 0, rc = ctl_cluster(c, scope, &now);
        if (rc != 0) {
            return rc;
        }
        dra_buf_reset(late);
        for (int i = 0; i < before->c.n_members; i++) {
            const struct ha_member *b = &before->c.members[i];
            int j = ha_member_find(&now->c, b->name);
            if (b->api_url[0] == '\0' || j < 0 || now->c.members[j].pause == paused) {
                continue;
            }
            waiting++;
            if (now->c.members[j].mod_revision != b->mod_revision) {
                dra_buf_addf(late, "%s%s", late->len == 0 ? "" : ", ", b->name);
            }
        }
        dcs_snapshot_unref(now);
        if (waiting == 0) {
            dra_buf_reset(late);
            return 0;
        }
        if (t >= seconds) {
            return 0;
        }
        ctl_pause(c, 1000);
    }
}

static int toggle(struct ctl *c, bool paused)
{
    const char *scope = ctl_scope(c);
    struct dcs_snapshot *s = NULL;
    struct dra_buf late;
    int rc = scope == NULL ? CTL_EXIT_USAGE : ctl_cluster(c, scope, &s);
    if (rc != 0) {
        return rc;
    }
    dra_buf_init(&late, 65536);
    if (is_paused(s) == paused) {
        rc = ctl_error("Cluster is %s paused", paused ? "already" : "not");
    } else {
        int sent = patch_anywhere(c, s, paused);
        if (sent == 2) {
            rc = ctl_error("Can not find accessible cluster member");
        } else if (sent == 0) {
            if (c->args.value[CTL_OPT_WAIT] != NULL) {
                (void)printf("'%s' request sent, waiting until it is recognized by all nodes\n", paused ? "pause" : "resume");
                (void)fflush(stdout);
                rc = wait_recognised(c, scope, s, paused, &late);
            }
            if (rc == 0 && late.len > 0) {
                (void)printf("%s members didn't recognized %s state after %lld seconds\n", dra_buf_str(&late), paused ? "pause" : "resume",
                             (long long)(ctl_loop_wait(s) + 1));
            } else if (rc == 0) {
                (void)printf("Success: cluster management is %s\n", paused ? "paused" : "resumed");
            }
        }
    }
    dra_buf_deinit(&late);
    dcs_snapshot_unref(s);
    return rc;
}

int ctl_cmd_pause(struct ctl *c)
{
    return toggle(c, true);
}

int ctl_cmd_resume(struct ctl *c)
{
    return toggle(c, false);
}

/* ---- remove ------------------------------------------------------------------------------------------------------ */

static int confirm_remove(const struct dcs_snapshot *s, const char *scope)
{
    char answer[512], q[512];
    ctl_prompt("Please confirm the cluster name to remove: ", NULL, answer, sizeof answer);
    if (!dra_str_eq(answer, scope)) {
        return ctl_error("Cluster names specified do not match");
    }
    (void)snprintf(q, sizeof q, "You are about to remove all information in DCS for %s, please type: \"Yes I am aware\": ", scope);
    ctl_prompt(q, NULL, answer, sizeof answer);
    if (!dra_str_eq(answer, "Yes I am aware")) {
        return ctl_error("You did not exactly type \"Yes I am aware\"");
    }
    if (s->c.leader[0] != '\0') {
        ctl_prompt("This cluster currently is healthy. Please specify the leader name to continue: ", NULL, answer, sizeof answer);
        if (!dra_str_eq(answer, s->c.leader)) {
            return ctl_error("You did not specify the current leader of the cluster");
        }
    }
    return 0;
}

int ctl_cmd_remove(struct ctl *c)
{
    const char *scope = c->args.pos[0];
    struct dcs_snapshot *s = NULL;
    struct dcs_answer a;
    int rc = ctl_cluster(c, scope, &s);
    rc = rc == 0 ? ctl_members_print(s, scope, false, ctl_format_of(c)) : rc;
    rc = rc == 0 ? confirm_remove(s, scope) : rc;
    rc = rc == 0 ? ctl_delete_prefix(c, &a) : rc;
    dcs_snapshot_unref(s);
    return rc;
}

/*
 * select.c - which members a command means (CLI-14, CLI-40).
 */
#include "ctl.h"

#include <string.h>

bool ctl_role_known(const char *role)
{
    static const char *const roles[] = {"leader", "primary", "standby-leader", "replica", "standby", "any", "master"};
    for (size_t i = 0; i < DRA_ARRAY_LEN(roles); i++) {
        if (dra_str_eq(role, roles[i])) {
            return true;
        }
    }
    return false;
}

bool ctl_has_role(const struct ha_cluster *c, int member, const char *role)
{
    const struct ha_member *m = &c->members[member];
    bool holder = dra_str_eq(m->name, c->leader);
    if (dra_str_eq(role, "any")) {
        return true;
    }
    if (dra_str_eq(role, "replica") || dra_str_eq(role, "standby")) {
        return !holder;
    }
    if (dra_str_eq(role, "primary") || dra_str_eq(role, "master")) {
        return holder && m->role != HA_ROLE_STANDBY_LEADER;
    }
    if (dra_str_eq(role, "standby-leader")) {
        return holder && m->role != HA_ROLE_PRIMARY;
    }
    return holder;
}

const char *ctl_scope(struct ctl *c)
{
    if (c->args.n_pos > 0) {
        return c->args.pos[0];
    }
    if (c->scope[0] == '\0') {
        (void)ctl_usage_error(c, "Missing argument 'CLUSTER_NAME', and the configuration has no scope.");
        return NULL;
    }
    return c->scope;
}

int64_t ctl_loop_wait(const struct dcs_snapshot *s)
{
    struct dra_span span;
    if (conf_parse_duration(json_get(s->config, "loop_wait"), &span) != 0 || dra_span_ms(span) < 1000) {
        return json_get(s->config, "loop_wait") == NULL ? 10 : 1;
    }
    return dra_span_ms(span) / 1000;
}

void ctl_names(const struct dcs_snapshot *s, const struct ctl_selection *sel, struct dra_buf *out)
{
    for (int i = 0; i < sel->n; i++) {
        dra_buf_addf(out, "%s%s", i == 0 ? "" : ", ", s->c.members[sel->index[i]].name);
    }
}

/* Names on the command line, else all; reinitialize asks. */
static int ask_member(const struct dcs_snapshot *s, const char *action, struct ctl_selection *all)
{
    struct dra_buf q;
    char answer[HA_NAME_MAX] = "";
    dra_buf_init(&q, 65536);
    dra_buf_addf(&q, "Which member do you want to %s [", action);
    ctl_names(s, all, &q);
    dra_buf_adds(&q, "]? []: ");
    ctl_prompt(dra_buf_str(&q), "", answer, sizeof answer);
    dra_buf_deinit(&q);
    for (int i = 0; i < all->n; i++) {
        if (dra_str_eq(s->c.members[all->index[i]].name, answer)) {
            all->index[0] = all->index[i];
            all->n = 1;
            return 0;
        }
    }
    return ctl_error("%s is not a member of cluster", answer);
}

int ctl_select(struct ctl *c, const struct dcs_snapshot *s, const char *action, const char *role, struct ctl_selection *out)
{
    bool reinit = dra_str_eq(action, "reinitialize");
    struct ctl_selection sel = {0};
    int rc = ctl_members_print(s, c->args.pos[0], false, CTL_FMT_PRETTY);
    if (rc != 0) {
        return rc;
    }
    if (s->c.n_members == 0) {
        return ctl_error("%s cluster doesn't have any members", c->args.pos[0]);
    }
    for (int i = 0; i < s->c.n_members; i++) {
        bool named = c->args.n_pos <= 1;
        for (int k = 1; k < c->args.n_pos; k++) {
            named = named || dra_str_eq(c->args.pos[k], s->c.members[i].name);
        }
        if (named && ctl_has_role(&s->c, i, role)) {
            sel.index[sel.n++] = i;
        }
    }
    if (sel.n == 0) {
        return reinit ? ctl_error("No replica among provided members") : ctl_error("No '%s' among provided members", role);
    }
    if (reinit && c->args.n_pos <= 1) {
        rc = ask_member(s, action, &sel);
    }
    *out = sel;
    return rc;
}

int ctl_confirm_members(struct ctl *c, const struct dcs_snapshot *s, const char *action, const struct ctl_selection *sel)
{
    struct dra_buf q;
    bool yes;
    if (c->args.value[CTL_OPT_FORCE] != NULL) {
        return 0;
    }
    dra_buf_init(&q, 65536);
    dra_buf_addf(&q, "Are you sure you want to %s members ", action);
    ctl_names(s, sel, &q);
    dra_buf_adds(&q, "?");
    yes = ctl_confirm(dra_buf_str(&q));
    dra_buf_deinit(&q);
    return yes ? 0 : ctl_error("Aborted %s", action);
}

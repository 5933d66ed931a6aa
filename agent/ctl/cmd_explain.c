/*
 * cmd_explain.c - explain [MEMBER...]: for each member which rule holds there, why, and whether it would be promoted now.
 *
 * Members answer for themselves (GET /dragent/world), all asked at once; of one that does not answer stands here what the store
 * showed last.  -f json prints the answers as they are.
 */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPLAIN_MS 2000

struct subject {
    const char *name;
    int index; /* in the snapshot; -1 = no member key */
    struct ctl_call call;
    struct json *world; /* owned; NULL = no usable answer */
};

static const char *text_of(const struct json *j, const char *key, const char *otherwise)
{
    const char *s = json_text(json_get(j, key));
    return s == NULL || *s == '\0' ? otherwise : s;
}

/* "a=1 b=x", nested objects as "a.b=1". */
static void add_facts(const struct json *facts, const char *prefix, struct dra_buf *out)
{
    for (const struct json *f = json_first(facts); f != NULL; f = json_next(f)) {
        char value[512];
        if (json_type_of(f) == JSON_NULL) {
            continue;
        }
        if (json_type_of(f) == JSON_OBJECT && *prefix == '\0') {
            char name[128];
            (void)snprintf(name, sizeof name, "%s.", json_name(f));
            add_facts(f, name, out); /* one level: facts are two deep */
        } else if (json_scalar_text(f, value, sizeof value)) {
            if (value[0] != '\0') {
                dra_buf_addf(out, "%s%s%s=%s", out->len == 0 ? "" : " ", prefix, json_name(f), value);
            }
        } else {
            char *text = json_print(f);
            dra_buf_addf(out, "%s%s%s=%s", out->len == 0 ? "" : " ", prefix, json_name(f), text == NULL ? "?" : text);
            free(text);
        }
    }
}

/* Groups of facts, one line each; facts without a group on a line of their own. */
static void print_facts(const struct json *facts)
{
    struct dra_buf line;
    struct json *loose = json_new_object();
    dra_buf_init(&line, 65536);
    for (const struct json *g = json_first(facts); g != NULL && loose != NULL; g = json_next(g)) {
        if (json_type_of(g) == JSON_ARRAY) { /* peers: one line each */
            for (const struct json *e = json_first(g); e != NULL; e = json_next(e)) {
                dra_buf_reset(&line);
                add_facts(e, "", &line);
                (void)printf("  %s: %s\n", json_name(g), dra_buf_str(&line));
            }
        } else if (json_type_of(g) == JSON_OBJECT) {
            dra_buf_reset(&line);
            add_facts(g, "", &line);
            if (line.len > 0) {
                (void)printf("  %s: %s\n", json_name(g), dra_buf_str(&line));
            }
        } else if (json_set(loose, json_name(g), json_clone(g)) != 0) {
            break;
        }
    }
    dra_buf_reset(&line);
    add_facts(loose, "", &line);
    if (line.len > 0) {
        (void)printf("  facts: %s\n", dra_buf_str(&line));
    }
    dra_buf_deinit(&line);
    json_free(loose);
}

static void print_living(const struct subject *s)
{
    const struct json *w = s->world;
    char since[64] = "";
    bool would = json_is_true(json_get(w, "would_promote"));
    (void)printf("%s (%s, %s)\n", s->name, text_of(w, "role", "unknown role"), text_of(w, "state", "unknown state"));
    (void)printf("  rule: %s (%s)\n", text_of(w, "rule", "none"), text_of(w, "rule_doc", "no description"));
    if (json_scalar_text(json_get(w, "since_s"), since, sizeof since)) {
        (void)printf("  holds for: %s s\n", since);
    }
    (void)printf("  reason: %s\n", text_of(w, "reason", "none"));
    if (text_of(w, "detail", "")[0] != '\0') {
        (void)printf("  detail: %s\n", text_of(w, "detail", ""));
    }
    print_facts(json_get(w, "facts"));
    (void)printf("  would be promoted now: %s, because %s\n", would ? "yes" : "no", text_of(w, "would_promote_reason", "it does not say"));
}

static void print_silent(const struct dcs_snapshot *snap, const struct subject *s)
{
    char when[40], lsn[DRA_LSN_STR_MAX];
    ctl_now(when, false);
    if (s->index < 0) {
        (void)printf("%s: has no key in etcd (looked at %s)\n"
                     "  no agent of that name has refreshed its lease for longer than its ttl, or there never was one\n"
                     "  would be promoted now: no, because it takes part in nothing\n",
                     s->name, when);
        return;
    }
    const struct ha_member *m = &snap->c.members[s->index];
    uint64_t position = m->receive_lsn > m->replay_lsn ? m->receive_lsn : m->replay_lsn;
    position = position > m->xlog_location ? position : m->xlog_location;
    dra_lsn_format(position, lsn);
    if (s->call.status == 0) {
        (void)printf("%s: does not answer at %s (%s)\n", s->name, m->api_url[0] == '\0' ? "(no api_url)" : m->api_url,
                     s->call.error[0] == '\0' ? "not asked" : s->call.error);
    } else {
        (void)printf("%s: answers with status %d: not a dragent\n", s->name, s->call.status);
    }
    (void)printf("  last seen in etcd: role=%s state=%s timeline=%u position=%s revision=%lld%s (read at %s; the key goes with its lease)\n",
                 ha_role_to_str(m->role), ha_state_to_str(m->state), m->timeline, position == 0 ? "unknown" : lsn, (long long)m->mod_revision,
                 dra_str_eq(m->name, snap->c.leader) ? " holds the leader key" : "", when);
    (void)printf("  would be promoted now: %s\n", s->call.status == 0 ? "no, because it cannot be asked" : "unknown");
}

/* {"members": [...]}: the answers, or what was seen. */
static int print_json(const struct subject *list, size_t n, enum ctl_format format)
{
    struct json *all = json_new_array();
    struct dra_buf out;
    int rc = all == NULL ? DRA_ENOMEM : DRA_OK;
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct json *o = list[i].world != NULL ? json_clone(list[i].world) : json_new_object();
        rc = o == NULL ? DRA_ENOMEM : DRA_OK;
        if (rc == 0 && list[i].world == NULL) {
            rc = json_set(o, "name", json_new_str(list[i].name));
            rc = rc == 0 ? json_set(o, "error", json_new_str(list[i].index < 0 ? "no member key" : list[i].call.error)) : rc;
        }
        rc = rc == 0 ? json_append(all, o) : rc;
    }
    dra_buf_init(&out, 16 * 1024 * 1024);
    if (rc == 0 && format == CTL_FMT_YAML) {
        yaml_acc_dump(all, &out);
    } else if (rc == 0) {
        char *text = json_print_spaced(all);
        dra_buf_addf(&out, "%s\n", text == NULL ? "[]" : text);
        free(text);
    }
    ctl_print(&out);
    dra_buf_deinit(&out);
    json_free(all);
    return rc == 0 ? 0 : ctl_error("out of memory");
}

static void ask(struct ctl *c, const struct dcs_snapshot *snap, struct subject *list, size_t n)
{
    struct ctl_call calls[CTL_ARGS_MAX];
    size_t which[CTL_ARGS_MAX], asked = 0;
    memset(calls, 0, sizeof calls);
    for (size_t i = 0; i < n; i++) {
        if (list[i].index >= 0 && snap->c.members[list[i].index].api_url[0] != '\0') {
            which[asked] = i;
            calls[asked++] = (struct ctl_call){
                .api_url = snap->c.members[list[i].index].api_url, .method = "GET", .path = "/dragent/world", .timeout_ms = EXPLAIN_MS};
        }
    }
    ctl_calls(c, calls, asked);
    for (size_t k = 0; k < asked; k++) {
        struct subject *s = &list[which[k]];
        s->call = calls[k];
        if (calls[k].status == 200 && json_parse(dra_buf_str(&calls[k].answer), calls[k].answer.len, &s->world, NULL) != 0) {
            s->world = NULL;
        }
        if (json_type_of(s->world) != JSON_OBJECT) {
            json_free(s->world);
            s->world = NULL;
        }
    }
}

int ctl_cmd_explain(struct ctl *c)
{
    struct subject list[CTL_ARGS_MAX];
    struct dcs_snapshot *s = NULL;
    enum ctl_format format = ctl_format_of(c);
    size_t n = 0;
    int rc;
    if (c->scope[0] == '\0') {
        return ctl_usage_error(c, "The configuration has no scope.");
    }
    rc = ctl_cluster(c, c->scope, &s);
    if (rc != 0) {
        return rc;
    }
    memset(list, 0, sizeof list);
    for (int i = 0; i < (c->args.n_pos > 0 ? c->args.n_pos : s->c.n_members); i++) {
        list[n].name = c->args.n_pos > 0 ? c->args.pos[i] : s->c.members[i].name;
        list[n].index = ha_member_find(&s->c, list[n].name);
        n++;
    }
    ask(c, s, list, n);
    if (format == CTL_FMT_JSON || format == CTL_FMT_YAML) {
        rc = print_json(list, n, format);
    } else {
        if (n == 0) {
            (void)printf("Cluster %s has no members\n", c->scope);
        } else if (s->c.leader[0] == '\0') {
            (void)printf("Cluster %s has no leader\n", c->scope);
        } else if (ha_member_find(&s->c, s->c.leader) < 0) {
            (void)printf("The leader key is held by %s, which has no member key\n", s->c.leader);
        }
        for (size_t i = 0; i < n; i++) {
            if (list[i].world != NULL) {
                print_living(&list[i]);
            } else {
                print_silent(s, &list[i]);
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        json_free(list[i].world);
        ctl_call_deinit(&list[i].call);
    }
    dcs_snapshot_unref(s);
    return rc;
}

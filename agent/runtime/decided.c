/*
 * decided.c - after each decision: say it in the log, show it over REST.
 *
 * Promises: a decision is logged at INFO when its rule or its sentence changes and once per loop_wait (CLI-115), else at
 * DEBUG; each note of it when it is new (CLI-116).  The REST thread gets a new snapshot after every turn.
 * Threads: loop thread only.
 */
#include "agent.h"

#include <stdlib.h>
#include <string.h>

#define WORLD_JSON_MS 1000      /* GET /dragent/world is made anew this often, and whenever the rule changes */
#define STALL_ALLOWANCE_MS 5000 /* a node that does not lead: how late a turn may be before probes hear of it */

/* CLI-116: the level that people's alerts expect. */
static enum log_level note_level(const char *note)
{
    if (dra_str_starts(note, "Primary (") || dra_str_starts(note, "No active replication connections") ||
        dra_str_starts(note, "Conflicting configuration")) {
        return LOG_LV_WARNING;
    }
    return dra_str_starts(note, "system ID mismatch") ? LOG_LV_CRITICAL : LOG_LV_INFO;
}

static void log_notes(struct rt_agent *a, const struct ha_plan *p, const char *rule)
{
    for (int i = 0; i < p->n_notes; i++) {
        bool known = false;
        for (int k = 0; k < a->n_notes; k++) {
            known = known || dra_str_eq(a->notes[k], p->notes[i]);
        }
        if (!known) {
            log_event(note_level(p->notes[i]), "ha.note", p->notes[i], "rule", rule, NULL);
        }
    }
    a->n_notes = p->n_notes;
    memcpy(a->notes, p->notes, sizeof a->notes);
}

static void log_decision(struct rt_agent *a, const struct ha_world *w, const struct ha_plan *p)
{
    const char *rule = ha_rule_doc(p->rule)->name;
    bool same = p->rule == a->logged_rule && dra_str_eq(p->reason, a->logged_reason);
    bool due = !dra_is_set(a->logged_at) || dra_since(w->now, a->logged_at).ns >= w->s.loop_wait.ns;
    enum log_level lv = same && !due ? LOG_LV_DEBUG : LOG_LV_INFO;

    log_notes(a, p, rule);
    if (lv == LOG_LV_INFO) {
        a->logged_rule = p->rule;
        memcpy(a->logged_reason, p->reason, sizeof a->logged_reason);
        a->logged_at = w->now;
    } else if (!log_enabled(LOG_LV_DEBUG)) {
        return;
    }
    if (w->cluster_known && strstr(p->reason, "no action") == NULL) {
        log_linef(lv, "ha.lock", "Lock owner: %s; I am %s", w->cluster.leader[0] != '\0' ? w->cluster.leader : "None", w->me);
    }
    log_event(lv, "ha.rule", p->reason, "rule", rule, p->detail[0] != '\0' ? "facts" : NULL, p->detail, NULL);
}

/* ---- REST ------------------------------------------------------------------------------------------------- */

static void world_json_update(struct rt_agent *a, const struct ha_world *w, const struct ha_memory *m,
                              const struct ha_plan *p)
{
    bool due = a->world_json == NULL || p->rule != a->world_json_rule ||
               dra_since(w->now, a->world_json_at).ns >= dra_ms(WORLD_JSON_MS).ns;
    if (!due) {
        return;
    }
    free(a->world_json);
    a->world_json = views_world(w, m, p); /* NULL: out of memory, the page is missing until the next turn */
    a->world_json_at = w->now;
    a->world_json_rule = p->rule;
}

void rt_publish(struct rt_agent *a)
{
    if (a->rest == NULL || a->engine == NULL || rt_engine_plan(a->engine) == NULL) {
        return;
    }
    const struct ha_world *w = rt_engine_world(a->engine);
    const struct ha_plan *p = rt_engine_plan(a->engine);
    struct dra_instant due = dra_after(w->now, a->settings.loop_wait);
    struct rest_facts f = {
        .world = w,
        .plan = p,
        .memory = rt_engine_memory(a->engine),
        .cluster = a->snap,
        .pg = pgs_view(a->pgs),
        .tags = json_get(a->effective, "tags"),
        .effective = a->effective,
        .scope = a->names.scope,
        .dcs_last_seen_s = a->dcs_last_seen_s,
        .valid_until = dra_is_set(p->lead_until) ? p->lead_until : dra_after(due, dra_ms(STALL_ALLOWANCE_MS)),
        .cycle_due = due,
        .world_json = a->world_json,
    };
    rest_publish(a->rest, &f);
}

void rt_decided(struct rt_agent *a, const struct ha_world *w, const struct ha_memory *m, const struct ha_plan *p)
{
    log_decision(a, w, p);
    world_json_update(a, w, m, p);
}

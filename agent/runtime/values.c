/*
 * values.c - the texts of our member key and of `status`.
 *
 * Promises: NULL for a value that would say what is there already, under the same lease, so that nothing is written twice.
 * Threads: loop thread only (no state but struct rt_values).
 */
#include "values.h"

#include <stdlib.h>
#include <string.h>

/* ---- member ------------------------------------------------------------------------------------------ */

/* DCS-21: positions are published while the server serves or comes up, and only if it was asked with success. */
static bool has_positions(const struct ha_world *w)
{
    enum ha_state s = w->pg.state;
    bool state_fits = s == HA_STATE_RUNNING || s == HA_STATE_RESTARTING || s == HA_STATE_STARTING;
    bool job_fits = w->job.phase == HA_PHASE_IDLE || w->job.job.kind == HA_JOB_PROMOTE;
    return state_fits && job_fits && w->pg.postmaster == DRA_YES && dra_is_set(w->pg.answered_at) &&
           w->pg.in_recovery != DRA_UNKNOWN;
}

static void copy_text(char *dst, size_t size, const char *src)
{
    if (dra_str_copy(dst, size, src != NULL ? src : "") != 0) {
        dst[0] = '\0'; /* conf has refused longer ones */
    }
}

void values_member_fill(const struct values_in *in, enum ha_role role, struct ha_member *out)
{
    const struct ha_world *w = in->w;
    const struct ha_pg *pg = &w->pg;

    memset(out, 0, sizeof *out);
    copy_text(out->name, sizeof out->name, w->me);
    copy_text(out->conn_url, sizeof out->conn_url, in->conn_url);
    copy_text(out->api_url, sizeof out->api_url, in->api_url);
    copy_text(out->version, sizeof out->version, in->version);
    copy_text(out->dragent, sizeof out->dragent, in->dragent);
    out->role = role != HA_ROLE_UNKNOWN ? role : HA_ROLE_REPLICA;
    out->state = pg->state != HA_STATE_UNKNOWN ? pg->state : HA_STATE_STOPPED;
    out->pause = w->s.pause;
    out->left_in_pause = w->shutdown && w->s.pause;
    out->pending_restart = json_size(in->pending_reason) > 0;
    bool leads = dra_is_set(w->lease.certain_until) && !dra_reached(w->now, w->lease.certain_until);
    out->checkpoint_after_promote_pending = leads && in->m != NULL && !in->m->checkpoint_done;
    if (!has_positions(w)) {
        return;
    }
    out->timeline = pg->timeline;
    if (pg->in_recovery == DRA_NO) {
        out->xlog_location = pg->wal_lsn;
        return;
    }
    out->receive_lsn = pg->receive_lsn;
    out->replay_lsn = pg->replay_lsn;
    out->xlog_location = pg->receive_lsn > pg->replay_lsn ? pg->receive_lsn : pg->replay_lsn;
    out->replication_state = pg->replication_state;
}

char *values_member(const struct values_in *in, enum ha_role role)
{
    struct ha_member m;
    values_member_fill(in, role, &m);
    struct dcs_member_out o = {
        .m = &m, .tags = in->tags, .pending_restart_reason = in->pending_reason, .proxy_url = in->proxy_url};
    char *text = dcs_format_member(&o);
    if (text == NULL || in->snap == NULL) {
        return text;
    }
    int i = ha_member_find(&in->snap->c, in->w->me);
    if (i < 0 || in->w->lease.id == 0 || in->snap->c.members[i].lease != in->w->lease.id) {
        return text;
    }
    DRA_CLEANUP(json_freep) struct json *now = NULL;
    if (in->snap->member_raw[i] != NULL && json_parse(text, strlen(text), &now, NULL) == 0 &&
        json_equal_text(now, in->snap->member_raw[i])) {
        free(text);
        return NULL; /* DCS-24 */
    }
    return text;
}

/* ---- status --------------------------------------------------------------------------------------------- */

static void retain_touch(struct rt_values *v, const char *slot, struct dra_instant now)
{
    struct rt_retained *unused = NULL;
    for (size_t i = 0; i < DRA_ARRAY_LEN(v->retained); i++) {
        struct rt_retained *r = &v->retained[i];
        if (r->slot[0] == '\0') {
            unused = unused == NULL ? r : unused;
        } else if (dra_str_eq(r->slot, slot)) {
            r->seen_at = now;
            return;
        }
    }
    if (unused != NULL) { /* full: design.md's limit of 64 slots; one more is not retained */
        copy_text(unused->slot, sizeof unused->slot, slot);
        unused->seen_at = now;
    }
}

static void retain_expire(struct rt_values *v, struct dra_instant now, struct dra_span ttl)
{
    for (size_t i = 0; i < DRA_ARRAY_LEN(v->retained); i++) {
        if (v->retained[i].slot[0] != '\0' && dra_since(now, v->retained[i].seen_at).ns > ttl.ns) {
            v->retained[i].slot[0] = '\0';
        }
    }
}

static int slot_cmp(const void *a, const void *b)
{
    return strcmp(a, b);
}

static int slot_pos_cmp(const void *a, const void *b)
{
    const struct ha_slot_pos *x = a;
    const struct ha_slot_pos *y = b;
    return strcmp(x->name, y->name);
}

static bool maps_to_member(const struct ha_cluster *c, const char *slot)
{
    for (int i = 0; i < c->n_members; i++) {
        char name[HA_SLOT_NAME_MAX];
        if (c->members[i].tags.nostream) {
            continue;
        }
        ha_slot_name(c->members[i].name, name);
        if (dra_str_eq(name, slot)) {
            return true;
        }
    }
    return false;
}

static bool is_retained(const struct rt_values *v, const char *slot)
{
    for (size_t i = 0; i < DRA_ARRAY_LEN(v->retained); i++) {
        if (dra_str_eq(v->retained[i].slot, slot)) {
            return true;
        }
    }
    return false;
}

/* HA-158: physical slots that are managed, and an entry for ourselves (DCS-28). */
static int collect_slots(const struct rt_values *v, const struct values_in *in, const char *own, uint64_t position,
                         struct ha_slot_pos *out)
{
    int n = 0;
    for (const struct json *row = json_first(in->slots); row != NULL && n < HA_SLOTS_MAX - 1; row = json_next(row)) {
        const char *name = json_text(json_get(row, "slot_name"));
        const char *type = json_text(json_get(row, "slot_type"));
        const char *at = json_text(json_get(row, "restart_lsn"));
        uint64_t lsn = 0;
        if (name == NULL || json_is_true(json_get(row, "temporary")) || !dra_str_eq(type, "physical") ||
            dra_str_eq(name, own) || at == NULL || dra_lsn_parse(at, &lsn) != 0) {
            continue;
        }
        if (!maps_to_member(&in->w->cluster, name) && !is_retained(v, name)) {
            continue;
        }
        if (dra_str_copy(out[n].name, sizeof out[n].name, name) == 0) {
            out[n++].lsn = lsn;
        }
    }
    if (position != 0) {
        copy_text(out[n].name, sizeof out[n].name, own);
        out[n++].lsn = position;
    }
    qsort(out, (size_t)n, sizeof out[0], slot_pos_cmp);
    return n;
}

static void retain_update(struct rt_values *v, const struct values_in *in, const struct ha_slot_pos *slots, int n)
{
    const struct ha_world *w = in->w;
    if (v->epoch != w->lease.epoch) { /* HA-156: after acquiring, what the last leader retained starts anew */
        v->epoch = w->lease.epoch;
        memset(v->retained, 0, sizeof v->retained);
        for (int i = 0; i < w->cluster.n_retain; i++) {
            retain_touch(v, w->cluster.retain[i], w->now);
        }
    }
    for (int i = 0; i < n; i++) {
        if (maps_to_member(&w->cluster, slots[i].name)) {
            retain_touch(v, slots[i].name, w->now);
        }
    }
    retain_expire(v, w->now, w->s.member_slots_ttl);
}

static char *unless_equal(char *text, const struct json *old)
{
    DRA_CLEANUP(json_freep) struct json *now = NULL;
    if (text != NULL && old != NULL && json_parse(text, strlen(text), &now, NULL) == 0 && json_equal_text(now, old)) {
        free(text);
        return NULL;
    }
    return text;
}

/* SAFE-43: while nothing fences this leader, its status says so; it takes that back once the guard is armed again. */
static char *with_unfenced(const struct ha_world *w, char *status)
{
    bool said = strcmp(w->cluster.unfenced, w->me) == 0;
    size_t n = status == NULL ? 0 : strlen(status);
    struct dra_buf b;
    char *text;

    if (n < 2 || !w->s.guard_required || !(w->s.pause || (said && !w->guard.armed))) {
        return status;
    }
    dra_buf_init(&b, n + 8 * HA_NAME_MAX);
    dra_buf_add(&b, status, n - 1);
    dra_buf_adds(&b, ",\"unfenced\":");
    dra_buf_add_json_str(&b, w->me);
    dra_buf_adds(&b, "}");
    text = dra_buf_take(&b);
    if (text == NULL) {
        return status;
    }
    free(status);
    return text;
}

char *values_status(struct rt_values *v, const struct values_in *in, uint64_t optime, bool final)
{
    const struct ha_world *w = in->w;
    const struct json *old = in->snap != NULL ? in->snap->status : NULL;
    char retain[HA_SLOTS_MAX][HA_SLOT_NAME_MAX];
    struct ha_slot_pos slots[HA_SLOTS_MAX];
    char own[HA_SLOT_NAME_MAX];
    int n_slots = 0;
    int n_retain = 0;

    if (optime == 0) {
        return NULL; /* DCS-29 */
    }
    if (final) { /* DCS-30: slots and retain_slots are carried over */
        return unless_equal(dcs_format_status(optime, w->cluster.slots, w->cluster.n_slots, w->cluster.retain,
                                              w->cluster.n_retain),
                            old);
    }
    ha_slot_name(w->me, own);
    if (w->s.use_slots && w->s.member_slots_ttl.ns > 0) {
        n_slots = collect_slots(v, in, own, optime, slots);
        retain_update(v, in, slots, n_slots);
        for (size_t i = 0; i < DRA_ARRAY_LEN(v->retained); i++) {
            if (v->retained[i].slot[0] != '\0') {
                memcpy(retain[n_retain++], v->retained[i].slot, sizeof retain[0]);
            }
        }
        qsort(retain, (size_t)n_retain, sizeof retain[0], slot_cmp);
    }
    return unless_equal(
        with_unfenced(w, dcs_format_status(optime, slots, n_slots, (const char (*)[HA_SLOT_NAME_MAX])retain, n_retain)), old);
}

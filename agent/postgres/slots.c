/*
 * slots.c - make the physical slots what the core wants (HA-152, HA-155, HA-159, HA-160).
 *
 * Promises: an active slot, a temporary, a logical or a permanent one, and one that ignore_slots names is never touched;
 * one failing slot does not keep the others from being done.
 * Threads: loop.
 */
#include "pgs_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OP_LIMIT_MS 30000
#define STATEMENTS_MAX (2 * HA_SLOTS_MAX)

struct slots_op {
    struct pgs *s;
    struct pgs_conf *conf;
    int n;
    struct ha_slot_pos wanted[HA_SLOTS_MAX];
    bool present[HA_SLOTS_MAX];
    bool drop_unwanted;
    int n_sql, at;
    char sql[STATEMENTS_MAX][256];
    struct dra_instant not_after;
    struct dra_err first; /* the first failure; the others are logged */
    pgs_cb cb;
    void *arg;
};

static void on_list(const struct pgc_result *r, void *arg);
static void next(struct slots_op *op);

static const char list_sql[] =
    "SELECT slot_name, slot_type, active, restart_lsn, xmin IS NOT NULL, temporary,"
    " COALESCE((row_to_json(s)->>'wal_status') = 'lost', false) FROM pg_replication_slots s";

int pgs_slots(struct pgs *s, const struct ha_slot_pos *wanted, int n, bool drop_unwanted, pgs_cb cb, void *arg, struct dra_err *err)
{
    struct slots_op *op;

    if (s->closing || s->pm.pid == 0) {
        return dra_err_set(err, DRA_ESTATE, "the server is not running");
    }
    op = calloc(1, sizeof *op);
    if (op == NULL || n < 0 || n > HA_SLOTS_MAX) {
        free(op);
        return dra_err_set(err, n > HA_SLOTS_MAX ? DRA_ETOOLONG : DRA_ENOMEM, "slots");
    }
    op->s = s;
    op->n = n;
    memcpy(op->wanted, wanted, (size_t)n * sizeof *wanted);
    op->drop_unwanted = drop_unwanted;
    op->cb = cb;
    op->arg = arg;
    op->not_after = dra_after(dra_now(), dra_ms(OP_LIMIT_MS));
    if (pgc_query_start(s->work, "dra_slots", list_sql, op->not_after, on_list, op, NULL) != 0) {
        free(op);
        return dra_err_set(err, DRA_ECONN, "slots");
    }
    op->conf = pgs_conf_ref(s->conf);
    pgs_ref(s);
    return DRA_OK;
}

static void finish(struct slots_op *op)
{
    struct pgs *s = op->s;

    if (!s->closing) {
        op->cb(op->first.code, op->first.code != 0 ? &op->first : NULL, op->arg);
    }
    pgs_conf_unref(op->conf);
    free(op);
    pgs_unref(s);
}

static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

/* Permanent slots and ignored ones are not ours to drop here. */
static bool is_kept(const struct pgs_conf *c, const char *name)
{
    static const char *const sections[] = {"slots", "permanent_slots", "permanent_replication_slots"};
    const struct json *ignore = json_get(c->root, "ignore_slots");

    for (size_t i = 0; i < DRA_ARRAY_LEN(sections); i++) {
        if (json_get(json_get(c->root, sections[i]), name) != NULL) {
            return true;
        }
    }
    for (const struct json *e = json_first(ignore); e != NULL; e = json_next(e)) {
        const char *n = json_text(json_get(e, "name"));
        const char *type = json_text(json_get(e, "type"));

        if ((n == NULL || strcmp(n, name) == 0) && (type == NULL || strcmp(type, "physical") == 0) &&
            json_get(e, "database") == NULL && json_get(e, "plugin") == NULL && (n != NULL || type != NULL)) {
            return true;
        }
    }
    return false;
}

static void add(struct slots_op *op, const char *fmt, ...) DRA_PRINTF(2, 3);
static void add(struct slots_op *op, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (op->n_sql < STATEMENTS_MAX && n > 0 && (size_t)n < sizeof text) {
        dra_str_clip(op->sql[op->n_sql++], sizeof op->sql[0], text);
    }
}

static void plan_slot(struct slots_op *op, const char *name, bool active, bool lost, bool has_xmin, const char *restart)
{
    int w = -1;
    uint64_t at = 0;

    for (int i = 0; i < op->n; i++) {
        if (strcmp(op->wanted[i].name, name) == 0) {
            w = i;
        }
    }
    if (w >= 0 && !lost) {
        op->present[w] = true;
        if (active || has_xmin || op->wanted[w].lsn == 0 || restart == NULL || dra_lsn_parse(restart, &at) != 0) {
            return;
        }
        if (op->wanted[w].lsn > at) { /* HA-160 (c) */
            char lsn[DRA_LSN_STR_MAX];

            dra_lsn_format(op->wanted[w].lsn, lsn);
            add(op, "SELECT pg_replication_slot_advance('%s', '%s')", name, lsn);
        }
        return;
    }
    if (active || !is_plain_name(name) || (w < 0 && (!op->drop_unwanted || is_kept(op->conf, name)))) {
        return;
    }
    log_linef(LOG_LV_INFO, "pgs.slots", "dropping replication slot %s%s", name, lost ? ", its WAL is lost" : "");
    add(op, "SELECT pg_drop_replication_slot('%s')", name);
}

static void on_list(const struct pgc_result *r, void *arg)
{
    struct slots_op *op = arg;

    if (r->err_code != DRA_OK || op->s->closing) {
        op->first = r->err;
        finish(op);
        return;
    }
    for (int i = 0; i < r->rows; i++) {
        const char *name = r->get(r, i, 0);
        const char *type = r->get(r, i, 1);
        const char *active = r->get(r, i, 2);
        const char *xmin = r->get(r, i, 4);
        const char *temporary = r->get(r, i, 5);
        const char *lost = r->get(r, i, 6);

        if (name != NULL && type != NULL && active != NULL && strcmp(type, "physical") == 0 && temporary != NULL && temporary[0] == 'f') {
            plan_slot(op, name, active[0] == 't', lost != NULL && lost[0] == 't', xmin != NULL && xmin[0] == 't', r->get(r, i, 3));
        }
    }
    for (int i = 0; i < op->n; i++) {
        if (!op->present[i] && is_plain_name(op->wanted[i].name)) {
            add(op, "SELECT pg_create_physical_replication_slot('%s', true)", op->wanted[i].name);
        }
    }
    next(op);
}

static void on_done(const struct pgc_result *r, void *arg)
{
    struct slots_op *op = arg;

    if (r->err_code != DRA_OK) {
        log_linef(LOG_LV_WARNING, "pgs.slots", "%s: %s", op->sql[op->at], r->err.msg);
        if (op->first.code == 0) {
            op->first = r->err;
        }
    }
    op->at++;
    next(op);
}

static void next(struct slots_op *op)
{
    if (op->at >= op->n_sql || op->s->closing || op->first.code == DRA_ECONN ||
        pgc_query_start(op->s->work, NULL, op->sql[op->at], op->not_after, on_done, op, NULL) != 0) {
        finish(op);
    }
}

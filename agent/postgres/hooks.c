/*
 * hooks.c - callbacks (HA-175..179), and where the commands of the other hooks are found.
 *
 * One callback of a slot runs at a time; a newer one waits up to 2 s for it and then ends it with all that it started.
 * Those in between are started in order.  Nothing waits for callbacks, and their exit codes mean nothing.
 * Threads: loop.
 */
#include "pgs_int.h"

#include <string.h>

#define GRACE_MS 2000

static void slot_next(struct pgs *s, struct pgs_callback_slot *slot);

bool pgs_hook_command(const struct pgs_conf *c, const char *name, char *out, size_t out_size)
{
    return pgs_conf_text(json_get(c->pg, name), out, out_size) && out[strspn(out, " \t")] != '\0';
}

void pgs_callback(struct pgs *s, enum ha_callback c, enum ha_role role)
{
    struct pgs_callback_slot *slot = &s->slot[c == HA_CALLBACK_ON_RELOAD ? 1 : 0];
    char command[2048];

    if (s->closing || (int)c <= 0 || c >= HA_CALLBACK_COUNT ||
        !pgs_conf_text(json_get(json_get(s->conf->pg, "callbacks"), ha_callback_to_str(c)), command, sizeof command) ||
        command[0] == '\0') {
        return;
    }
    if (slot->n == (int)DRA_ARRAY_LEN(slot->queue)) {
        log_linef(LOG_LV_WARNING, "pgs.callback", "too many callbacks wait: %s is dropped", ha_callback_to_str(slot->queue[0].c));
        slot->n--;
        memmove(&slot->queue[0], &slot->queue[1], (size_t)slot->n * sizeof slot->queue[0]);
    }
    slot->queue[slot->n].c = c;
    slot->queue[slot->n].role = role;
    slot->n++;
    slot_next(s, slot);
}

/* ---- one slot -------------------------------------------------------------------------------------------- */

static void on_grace(void *arg)
{
    struct pgs_callback_slot *slot = arg;

    if (slot->child != NULL && slot->n > 0) {
        dra_child_cancel(slot->child);
    }
}

static void on_callback_end(const struct dra_child_result *r, void *arg)
{
    struct pgs_callback_slot *slot = arg;
    struct pgs *s = slot->owner;

    slot->child = NULL;
    if (!s->closing) {
        if (!r->started) {
            log_linef(LOG_LV_ERROR, "pgs.callback", "a callback cannot be executed");
        } else {
            log_linef(LOG_LV_DEBUG, "pgs.callback", "a callback ended with code %d", r->exit_code);
        }
        slot_next(s, slot);
    }
    pgs_unref(s);
}

static void slot_run(struct pgs *s, struct pgs_callback_slot *slot, enum ha_callback c, enum ha_role role)
{
    char command[2048];
    struct pgs_argv argv;
    struct dra_child_spec spec = {0};
    struct dra_err err = {0};

    if (!pgs_conf_text(json_get(json_get(s->conf->pg, "callbacks"), ha_callback_to_str(c)), command, sizeof command)) {
        return;
    }
    pgs_argv_init(&argv);
    if (pgs_argv_split(&argv, command, &err) == 0) {
        pgs_argv_add(&argv, ha_callback_to_str(c));
        pgs_argv_add(&argv, ha_role_to_str(role == HA_ROLE_PROMOTED ? HA_ROLE_PRIMARY : role));
        pgs_argv_add(&argv, s->conf->scope);
        spec.argv = pgs_argv_get(&argv);
        slot->owner = s;
        slot->since = dra_now();
        pgs_ref(s);
        if (argv.failed || dra_child_start(s->loop, &spec, on_callback_end, slot, &slot->child, &err) != 0) {
            slot->child = NULL;
            pgs_unref(s);
            log_linef(LOG_LV_ERROR, "pgs.callback", "callback %s: %s", ha_callback_to_str(c), err.msg);
        }
    } else {
        log_linef(LOG_LV_ERROR, "pgs.callback", "callback %s: %s", ha_callback_to_str(c), err.msg);
    }
    pgs_argv_deinit(&argv);
}

static void slot_next(struct pgs *s, struct pgs_callback_slot *slot)
{
    while (slot->child == NULL && slot->n > 0) {
        enum ha_callback c = slot->queue[0].c;
        enum ha_role role = slot->queue[0].role;

        slot->n--;
        memmove(&slot->queue[0], &slot->queue[1], (size_t)slot->n * sizeof slot->queue[0]);
        slot_run(s, slot, c, role);
    }
    if (slot->child != NULL && slot->n > 0) {
        if (slot->timer == NULL && dra_timer_open(s->loop, on_grace, slot, &slot->timer) != 0) {
            dra_child_cancel(slot->child); /* no timer: no grace */
            return;
        }
        dra_timer_set(slot->timer, dra_after(slot->since, dra_ms(GRACE_MS)));
    }
}

void pgs_hooks_close(struct pgs *s)
{
    for (size_t i = 0; i < DRA_ARRAY_LEN(s->slot); i++) {
        dra_timer_close(s->slot[i].timer);
        s->slot[i].timer = NULL;
        s->slot[i].n = 0; /* what runs may end by itself: it is not ours to cut short when we leave */
    }
}

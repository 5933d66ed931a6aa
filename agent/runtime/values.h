/*
 * values.h - the texts of keys, made from facts.  Data in, text out: no I/O, no clock.
 */
#ifndef RT_VALUES_H
#define RT_VALUES_H

#include <dragent/base.h>
#include <dragent/dcs.h>
#include <dragent/model.h>
#include <dragent/text.h>
#include <dragent/world.h>

/* HA-156: when each retained slot name was last seen to belong to a member. */
struct rt_retained {
    char slot[HA_SLOT_NAME_MAX]; /* "" = free */
    struct dra_instant seen_at;
};
struct rt_values {
    struct rt_retained retained[HA_SLOTS_MAX];
    int64_t epoch; /* of the lead that `retained` belongs to */
};

struct values_in { /* all borrowed */
    const struct ha_world *w;
    const struct ha_memory *m;           /* may be NULL */
    const struct dcs_snapshot *snap;     /* may be NULL */
    const char *conn_url, *api_url, *proxy_url;
    const struct json *tags;             /* as configured, may be NULL */
    const struct json *pending_reason;   /* object: a restart is pending; may be NULL */
    const struct json *slots;            /* rows of pg_replication_slots, may be NULL */
    const char *version;                 /* the compatible one */
    const char *dragent;                 /* our own */
};

/* What our member key should say (DCS-20..22). */
void values_member_fill(const struct values_in *in, enum ha_role role, struct ha_member *out);
/* All return a text that the caller frees; NULL = nothing to write (equal to what is there, DCS-24, DCS-29). */
char *values_member(const struct values_in *in, enum ha_role role);
char *values_status(struct rt_values *v, const struct values_in *in, uint64_t optime, bool final);

#endif

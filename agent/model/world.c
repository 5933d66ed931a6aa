/*
 * world.c - the words for what stands in world.h.
 */
#include <dragent/world.h>

#include <string.h>

#define HA_X(n, t) t,
static const char *const control_names[] = {HA_CONTROL_MAP(HA_X)};
static const char *const job_names[] = {HA_JOB_MAP(HA_X)};
static const char *const effect_names[] = {HA_EFFECT_MAP(HA_X)};
static const char *const callback_names[] = {HA_CALLBACK_MAP(HA_X)};
#undef HA_X

static const char *const datadir_names[] = {"unknown", "empty", "valid", "unreadable", "untrusted"};
static const char *const stop_names[] = {"none", "fast", "immediate", "kill"};
static const char *const rewind_names[] = {"none", "check", "need", "done", "failed"};
static const char *const handover_names[] = {"none", "stop", "confirm", "give", "given", "back"};

static const char *name_of(const char *const *names, size_t n, unsigned i)
{
    return i < n ? names[i] : names[0];
}

const char *ha_datadir_to_str(enum ha_datadir d)
{
    return name_of(datadir_names, DRA_ARRAY_LEN(datadir_names), (unsigned)d);
}

const char *ha_control_to_str(enum ha_control_state s)
{
    return name_of(control_names, DRA_ARRAY_LEN(control_names), (unsigned)s);
}

enum ha_control_state ha_control_from_str(const char *s)
{
    for (size_t i = 1; i < DRA_ARRAY_LEN(control_names); i++) {
        if (strcmp(s, control_names[i]) == 0) {
            return (enum ha_control_state)i;
        }
    }
    return HA_CONTROL_UNKNOWN;
}

const char *ha_job_to_str(enum ha_job_kind k)
{
    return name_of(job_names, DRA_ARRAY_LEN(job_names), (unsigned)k);
}

const char *ha_stop_to_str(enum ha_stop_mode m)
{
    return name_of(stop_names, DRA_ARRAY_LEN(stop_names), (unsigned)m);
}

const char *ha_effect_to_str(enum ha_effect_kind k)
{
    return name_of(effect_names, DRA_ARRAY_LEN(effect_names), (unsigned)k);
}

const char *ha_callback_to_str(enum ha_callback c)
{
    return name_of(callback_names, DRA_ARRAY_LEN(callback_names), (unsigned)c);
}

const char *ha_rewind_to_str(enum ha_rewind r)
{
    return name_of(rewind_names, DRA_ARRAY_LEN(rewind_names), (unsigned)r);
}

const char *ha_handover_to_str(enum ha_handover h)
{
    return name_of(handover_names, DRA_ARRAY_LEN(handover_names), (unsigned)h);
}

/*
 * facts.h - what the rules ask for, derived once per decision.
 */
#ifndef HA_FACTS_H
#define HA_FACTS_H

#include <dragent/world.h>

struct ha_facts {
    const struct ha_world *w;
    struct ha_memory *m;

    bool known;      /* a snapshot is there */
    bool has_lock;   /* the key names us and nothing definite says otherwise */
    bool unlocked;   /* known, and nobody leads */
    bool other;      /* known, and somebody else leads */
    int leader;      /* index of the leader's member row, -1 = none */
    bool certain;    /* we hold the key for this epoch, now (SAFE-29) */
    bool initialized;
    bool paused;

    bool running;    /* the postmaster lives */
    bool down;       /* no process of the server lives (SAFE-34) */
    bool may_write;  /* the server may acknowledge commits, or is about to */
    bool primary;    /* it answered that it is not in recovery */
    bool standby;    /* it answered that it is, and nobody asked it to promote */
    bool data;       /* the directory holds a trusted copy */
    bool clean;      /* the control file says that it was stopped in order */

    bool job;        /* a job is running */
    enum ha_job_kind job_kind;

    struct dra_instant fence_at;  /* unset without certainty */
    struct dra_span beat;         /* time between two heartbeats */
};

void ha_facts_derive(const struct ha_world *w, struct ha_memory *m, struct ha_facts *f);

/* True unless the simulator has switched this safety rule off. */
#ifdef DRA_HA_BREAKABLE
#define HA_ON(rule) ((ha_broken & DRA_BIT(HA_BREAK_##rule)) == 0)
#else
#define HA_ON(rule) true
#endif

#endif

/*
 * plan.h - small helpers that rules use to write their plan.
 */
#ifndef HA_PLAN_H
#define HA_PLAN_H

#include "facts.h"

/* Add an effect; returns it to be filled, or a scratch row when the plan is full (DRA_NEVER). */
struct ha_effect *plan_add(struct ha_plan *p, enum ha_effect_kind kind);
/* The same, unless that kind is in flight already (level-triggered rules ask again and again).  NULL then. */
struct ha_effect *plan_add_once(const struct ha_facts *f, struct ha_plan *p, enum ha_effect_kind kind);
/* 1 + index of an effect, for `after`. */
int plan_ref(const struct ha_plan *p, const struct ha_effect *e);
void plan_reason(struct ha_plan *p, const char *fmt, ...) DRA_PRINTF(2, 3);
void plan_detail(struct ha_plan *p, const char *fmt, ...) DRA_PRINTF(2, 3);
void plan_note(struct ha_plan *p, const char *fmt, ...) DRA_PRINTF(2, 3);
void plan_wake(struct ha_plan *p, struct dra_instant at); /* the earliest wins */
/* Begin a job unless one is running; returns the row or NULL. */
struct ha_job *plan_job(const struct ha_facts *f, struct ha_plan *p, enum ha_job_kind kind);
/* Kill the whole server now: by the guard where it is armed, and by a job of ours in any case. */
void plan_kill(const struct ha_facts *f, struct ha_plan *p);
void plan_stop(const struct ha_facts *f, struct ha_plan *p, enum ha_stop_mode mode, bool checkpoint);
/* Ask again if the last attempt at this effect ended longer than `every` ago (or never). */
bool plan_due(const struct ha_facts *f, enum ha_effect_kind kind, struct dra_span every);
void plan_start_standby(const struct ha_facts *f, struct ha_plan *p, const char *member);
/* Keep the leader key while something else goes on: renewals as the lease needs them. */
void plan_renew(const struct ha_facts *f, struct ha_plan *p);
/* Ask the guard to watch the server (or the forked child) until this epoch's certainty ends. */
void plan_arm(const struct ha_facts *f, struct ha_plan *p);
/* Keep the member's lease: grant or keepalive as needed. */
void plan_keep_lease(const struct ha_facts *f, struct ha_plan *p);

#endif

/*
 * rules.h - the ordered rule table: predicates and actions, by file.
 */
#ifndef HA_RULES_H
#define HA_RULES_H

#include "plan.h"

struct ha_rule {
    struct ha_rule_doc doc;
    bool (*when)(const struct ha_facts *f);
    void (*act)(const struct ha_facts *f, struct ha_plan *p);
};

#define HA_RULE(fn) bool fn##_when(const struct ha_facts *f); void fn##_act(const struct ha_facts *f, struct ha_plan *p)

/* safety.c */
HA_RULE(start_observe);
HA_RULE(fence_uncertain);
HA_RULE(fence_lost);
HA_RULE(outage_demote);
HA_RULE(outage_wait);
HA_RULE(turn_late);
HA_RULE(fence_leftovers);
/* start.c */
HA_RULE(exit_wait);
HA_RULE(bootstrap_failed);
HA_RULE(bootstrap_go);
HA_RULE(identity_mismatch);
HA_RULE(data_unreadable);
HA_RULE(data_copy);
HA_RULE(data_race);
HA_RULE(data_wait);
HA_RULE(identity_write);
/* requests.c */
HA_RULE(shutdown_paused);
HA_RULE(shutdown_stop);
HA_RULE(shutdown_exit);
HA_RULE(job_wait);
HA_RULE(restart_go);
HA_RULE(reinit_go);
/* pause.c */
HA_RULE(pause_hold);
/* handover.c */
HA_RULE(handover_confirm);
HA_RULE(handover_unsure);
HA_RULE(handover_back);
HA_RULE(handover_begin);
/* recover.c */
HA_RULE(recover_in_place);
HA_RULE(recover_give_up);
HA_RULE(recover_readonly);
HA_RULE(rejoin_clean);
HA_RULE(rejoin_check);
HA_RULE(rejoin_rewind);
HA_RULE(rejoin_start);
HA_RULE(recover_alone);
/* election.c */
HA_RULE(election_again);
HA_RULE(election_race);
HA_RULE(election_defer);
/* leader.c */
HA_RULE(leader_attach);
HA_RULE(leader_confirm);
HA_RULE(leader_arm);
HA_RULE(leader_promote);
HA_RULE(leader_hold);
HA_RULE(leader_starting);
/* follow.c */
HA_RULE(follow_probe);
HA_RULE(follow_diverged);
HA_RULE(follow_upstream);
HA_RULE(follow_hold);
/* rules.c */
HA_RULE(hold);

/* election.c, for others: HA-70, HA-73 on what was polled; false leaves the reason in why. */
bool election_may_win(const struct ha_facts *f, struct ha_plan *p, char *why, size_t why_size);
/* Peers were asked after `since`, and so was the local server; adds the questions to the plan otherwise. */
bool election_informed(const struct ha_facts *f, struct ha_plan *p, struct dra_instant since);
/* requests.c: a forked server may exec, or has to end (SAFE-33). */
void forked_child(const struct ha_facts *f, struct ha_plan *p);
/* start.c: digest results of jobs that ended since the last decision. */
void memory_digest(const struct ha_facts *f);
/* chores.c: effects that cannot change a role. */
void chores_add(const struct ha_facts *f, struct ha_plan *p);
/* follow.c: whom a standby follows now (HA-84); "" = nobody. */
const char *follow_target(const struct ha_facts *f);
/* handover.c */
bool handover_stopped(const struct ha_facts *f);
/* recover.c */
bool recover_wants_standby(const struct ha_facts *f);
/* The timeline has the same number here and at the leader, but it is another one. */
bool recover_other_branch(const struct ha_facts *f);

#endif

/*
 * rules.c - the rule table and ha_decide.
 *
 * The first rule whose condition holds decides.  Safety rules stand first and nothing masks them; the last one always
 * holds.  After it a fixed list of chores adds effects that cannot change a role.
 */
#include "rules.h"

#include <string.h>

#define ROW(fn, name, spec, text) {{name, text, spec}, fn##_when, fn##_act}

static const struct ha_rule rules[] = {
    ROW(exit_wait, "exit.wait", "CLI-113", "the end of the agent was decided; nothing else is begun"),
    ROW(start_observe, "start.observe", "HA-06 SAFE-37", "look at the server and the store before doing anything"),
    ROW(fence_uncertain, "fence.uncertain", "SAFE-01 SAFE-36", "the lease is about to end: stop the server at once, whatever runs"),
    ROW(fence_lost, "fence.lost", "SAFE-03 HA-132 SAFE-37", "the leader key is not ours: a server that may write is stopped at once"),
    ROW(turn_late, "turn.late", "SAFE-21", "the agent stood still: this turn only observes"),
    ROW(fence_leftovers, "fence.leftovers", "SAFE-34", "processes of a dead postmaster are ended before anything else"),
    ROW(bootstrap_failed, "bootstrap.failed", "HA-53", "a failed bootstrap gives the race back and ends the agent"),
    ROW(bootstrap_go, "bootstrap.run", "HA-45 HA-51 HA-52", "this node makes the new cluster"),
    ROW(outage_demote, "outage.demote", "HA-100 DCS-87", "the store does not answer for too long: stop and go on as a standby"),
    ROW(identity_mismatch, "identity.mismatch", "HA-41 SAFE-12", "the data belongs to another cluster"),
    ROW(shutdown_paused, "shutdown.paused", "HA-254", "the agent ends in pause and leaves PostgreSQL alone"),
    ROW(handover_unsure, "handover.unsure", "SAFE-31", "a release or move got no answer: put the key anew before anything else"),
    ROW(handover_back, "handover.back", "SAFE-31 HA-134", "nobody confirmed in time: this node goes on as primary"),
    ROW(handover_confirm, "handover.confirm", "HA-134 SAFE-11", "the server is stopped in order; the key goes when a candidate has all of it"),
    ROW(shutdown_stop, "shutdown.stop", "HA-139", "the agent was told to stop: stop the server first"),
    ROW(shutdown_exit, "shutdown.exit", "HA-139", "the server is stopped: end the agent"),
    ROW(job_wait, "job.wait", "HA-30", "a job is running"),
    ROW(data_unreadable, "data.unreadable", "HA-40", "the data directory cannot be read"),
    ROW(reinit_go, "reinit.run", "HA-149", "the copy is replaced on request"),
    ROW(data_copy, "data.copy", "HA-46 HA-48", "there is no usable copy here: get one from the leader or a replica"),
    ROW(data_race, "bootstrap.race", "HA-45", "there is no cluster yet: race to make it"),
    ROW(data_wait, "data.wait", "HA-46", "there is no copy here and nothing to copy from yet"),
    ROW(restart_go, "restart.run", "HA-135 HA-137", "a restart was asked for"),
    ROW(pause_hold, "pause.hold", "HA-250 SAFE-18", "maintenance mode: nothing is started, stopped, promoted or demoted"),
    ROW(identity_write, "identity.write", "HA-42", "the cluster has no identity yet: write that of the data found here"),
    ROW(leader_attach, "leader.attach", "DCS-51 SAFE-30 SAFE-31", "the key is ours but not put by this agent or under its lease: put it anew"),
    ROW(handover_begin, "handover.begin", "HA-210", "a switchover was asked for"),
    ROW(recover_give_up, "recover.give-up", "HA-59 HA-56", "the server does not start here: another node is to lead"),
    ROW(recover_in_place, "recover.in-place", "HA-57", "a crashed primary is started in place, same timeline"),
    ROW(recover_readonly, "recover.readonly", "HA-56", "the holder of the key starts as a standby, to be promoted later"),
    ROW(rejoin_clean, "rejoin.crash-recovery", "HA-144", "a crashed former primary is recovered before it is compared with the leader"),
    ROW(rejoin_check, "rejoin.check", "HA-145", "compare the history of this copy with the leader's"),
    ROW(rejoin_rewind, "rejoin.rewind", "HA-146", "this copy went another way than the leader: rewind it"),
    ROW(rejoin_start, "rejoin.start", "HA-82", "start as a standby of the leader"),
    ROW(recover_alone, "recover.alone", "HA-56", "nobody leads: start as a standby without upstream and take part in the election"),
    ROW(outage_wait, "outage.wait", "HA-100", "the store does not answer; the server is left alone"),
    ROW(election_again, "election.again", "SAFE-32", "the key is ours without an election behind it: look at the others first"),
    ROW(leader_confirm, "lease.renew", "SAFE-29", "the key is ours but not certain: renew before anything else"),
    ROW(leader_arm, "guard.arm", "SAFE-33", "the guard is armed before the server can take writes"),
    ROW(leader_promote, "leader.promote", "HA-88 HA-90 SAFE-02", "holds the key, certain and guarded: promote"),
    ROW(leader_hold, "leader.hold", "HA-81", "leads, and renews"),
    ROW(leader_starting, "leader.starting", "HA-34", "holds the key; the server does not answer yet"),
    ROW(election_race, "election.race", "HA-60 HA-70 HA-73", "nobody leads and no better node is seen: take the key"),
    ROW(election_defer, "election.defer", "HA-64 HA-79", "nobody leads and this node does not race"),
    ROW(follow_probe, "follow.probe", "HA-07", "the server runs but has not said what it is"),
    ROW(follow_diverged, "rejoin.diverged", "HA-143 HA-145", "the running standby went another way than the leader: stop it to rewind"),
    ROW(follow_upstream, "follow.change", "HA-82 HA-84", "follow another upstream"),
    ROW(follow_hold, "follow.hold", "HA-82", "follows the leader"),
    ROW(hold, "hold", "", "nothing to do"),
};

#undef ROW

int ha_rule_count(void)
{
    return (int)DRA_ARRAY_LEN(rules);
}

const struct ha_rule_doc *ha_rule_doc(int rule)
{
    if (rule < 0 || rule >= ha_rule_count()) {
        rule = ha_rule_count() - 1;
    }
    return &rules[rule].doc;
}

void ha_memory_init(struct ha_memory *m)
{
    memset(m, 0, sizeof *m);
    m->rule = -1;
}

bool hold_when(const struct ha_facts *f)
{
    (void)f;
    return true;
}

void hold_act(const struct ha_facts *f, struct ha_plan *p)
{
    (void)f;
    plan_reason(p, "nothing to do");
}

static void remember_unlocked(const struct ha_facts *f)
{
    if (f->other) {
        f->m->poll_wanted_at = (struct dra_instant){0};
    }
    if (!f->unlocked) {
        f->m->unlocked_since = (struct dra_instant){0};
    } else if (!dra_is_set(f->m->unlocked_since)) {
        f->m->unlocked_since = f->w->now;
    }
}

/* SAFE-43: a leader that may know of a pause is not fenced until its own key, written after the pause ended, says so. */
static void remember_leader(const struct ha_facts *f)
{
    const struct ha_member *leader = f->leader >= 0 ? &f->w->cluster.members[f->leader] : NULL;
    struct ha_memory *m = f->m;
    bool same;

    if (leader == NULL) {
        return;
    }
    same = strcmp(m->last_leader, leader->name) == 0;
    dra_str_clip(m->last_leader, sizeof m->last_leader, leader->name);
    m->last_leader_paused = f->w->s.pause || leader->pause ||
                            (same && m->last_leader_paused && leader->mod_revision <= f->w->cluster.config_rev);
}

void ha_decide(const struct ha_world *w, struct ha_memory *m, struct ha_plan *p)
{
    struct ha_facts f;
    int i = 0;

    memset(p, 0, sizeof *p);
    ha_facts_derive(w, m, &f);
    memory_digest(&f);
    remember_unlocked(&f);
    remember_leader(&f);
    while (!rules[i].when(&f)) {
        i++;
    }
    p->rule = i;
    p->role = m->role;
    rules[i].act(&f, p);
    chores_add(&f, p);
    if (m->rule != i) {
        m->rule = i;
        m->rule_since = w->now;
    }
}

/*
 * lease.h - what the answers of the store mean for our certainty (SAFE-29..31).  Pure functions on struct ha_lease.
 */
#ifndef ENGINE_LEASE_H
#define ENGINE_LEASE_H

#include <dragent/dcs.h>
#include <dragent/world.h>

struct lease_renewal { /* one keepalive and one key check, under way together */
    bool active;
    int64_t lease;
    int64_t epoch;
    uint64_t generation; /* answers to what was sent before a loss, a release or a move count for nothing */
    struct dra_instant started_at;
    int waiting;         /* answers still to come */
    struct dcs_answer keepalive, check;
};

enum lease_outcome { LEASE_RENEWED = 1, LEASE_LOST, LEASE_NO_ANSWER, LEASE_VOID };

/* Both answers are there: what they prove. */
enum lease_outcome lease_on_renewal(struct ha_lease *l, const struct lease_renewal *r, uint64_t generation,
                                    struct dra_instant now);
void lease_on_grant(struct ha_lease *l, const struct dcs_answer *a, struct dra_span asked);
void lease_on_keepalive(struct ha_lease *l, const struct dcs_answer *a);
/* The key was put under `lease` at revision `epoch`, in `raft_term`.  This renews nothing: it counts from the last refresh of
 * that lease if it is still ours and the refresh was answered in the same term, and proves nothing otherwise. */
void lease_on_attached(struct ha_lease *l, int64_t lease, int64_t epoch, uint64_t raft_term);
/* A release or a move of `epoch` is being sent: certainty ends now, answer or not (SAFE-31). */
void lease_on_give(struct ha_lease *l, int64_t epoch);
void lease_on_lost(struct ha_lease *l, int64_t epoch);
void lease_on_silence(struct ha_lease *l, struct dra_instant sent_at);

#ifdef DRA_HA_BREAKABLE
#define LEASE_ON(rule) ((ha_broken & DRA_BIT(HA_BREAK_##rule)) == 0)
#else
#define LEASE_ON(rule) true
#endif

#endif

/*
 * lease.c - know, pessimistically, until when the leader key is ours.
 *
 * Invariants:
 *  (1) certain_until counts from the SEND time of the older of the two calls of a renewal, both answered in one raft term.
 *  (2) Within one epoch it only moves forward, until a release or a move is sent: that ends it.
 *  (3) Taking, putting anew or being given the key renews nothing.
 *  (4) A renewal of the epoch that was given away brings no certainty back.
 */
#include "lease.h"

static struct dra_instant older(struct dra_instant a, struct dra_instant b)
{
    return a.ns < b.ns ? a : b;
}

static bool is_silence(int code)
{
    return code == DRA_ETIMEDOUT || code == DRA_ECONN || code == DRA_ECANCELED || code == DRA_ESTALE;
}

void lease_on_silence(struct ha_lease *l, struct dra_instant sent_at)
{
    if (!dra_is_set(l->unanswered_since)) {
        l->unanswered_since = sent_at;
    }
}

void lease_on_lost(struct ha_lease *l, int64_t epoch)
{
    l->lost = true;
    l->epoch = epoch;
    l->certain_until = (struct dra_instant){0};
}

static enum lease_outcome renewed(struct ha_lease *l, const struct lease_renewal *r, struct dra_instant now)
{
    struct dra_instant sent = older(r->keepalive.sent_at, r->check.sent_at);
    struct dra_span ttl = dra_ms(r->keepalive.ttl_s * 1000);
    struct dra_instant until;

    if (!LEASE_ON(SEND_TIME)) {
        sent = now;
    }
    until = dra_after(sent, ttl);
    if (l->epoch == r->epoch) {
        until = dra_later(until, l->certain_until);
    }
    l->epoch = r->epoch;
    l->certain_until = until;
    l->ttl = ttl;
    l->refreshed_at = r->keepalive.sent_at;
    l->refreshed_term = r->keepalive.raft_term;
    l->lost = false;
    l->given_away = false;
    l->unanswered_since = (struct dra_instant){0};
    return LEASE_RENEWED;
}

enum lease_outcome lease_on_renewal(struct ha_lease *l, const struct lease_renewal *r, uint64_t generation,
                                    struct dra_instant now)
{
    l->renew_inflight = false;
    if (r->generation != generation || r->lease != l->id) {
        return LEASE_VOID;
    }
    if (r->keepalive.err_code == DRA_ENOTFOUND) {
        l->id = 0;
        lease_on_lost(l, r->epoch);
        return LEASE_LOST;
    }
    if (r->check.err_code == DRA_OK && !r->check.succeeded) {
        lease_on_lost(l, r->epoch);
        return LEASE_LOST;
    }
    if (is_silence(r->keepalive.err_code) || is_silence(r->check.err_code)) {
        lease_on_silence(l, r->started_at);
        return LEASE_NO_ANSWER;
    }
    if (r->keepalive.err_code != DRA_OK || r->check.err_code != DRA_OK) {
        lease_on_silence(l, r->started_at); /* a definite error of the call proves nothing about the key */
        return LEASE_NO_ANSWER;
    }
    if (r->keepalive.raft_term != r->check.raft_term && LEASE_ON(SAME_TERM)) {
        lease_on_silence(l, r->started_at);
        return LEASE_NO_ANSWER;
    }
    if (l->given_away && r->epoch == l->epoch && LEASE_ON(GIVEN_AWAY)) {
        return LEASE_VOID; /* SAFE-31: the release or move may still arrive; only a definite answer or a new epoch ends that */
    }
    return renewed(l, r, now);
}

void lease_on_grant(struct ha_lease *l, const struct dcs_answer *a, struct dra_span asked)
{
    if (a->err_code != DRA_OK) {
        if (is_silence(a->err_code)) {
            lease_on_silence(l, a->sent_at);
        }
        return;
    }
    l->id = a->lease;
    l->ttl = dra_ms(a->ttl_s * 1000);
    l->asked_ttl = asked;
    l->refreshed_at = a->sent_at;
    l->refreshed_term = a->raft_term;
    if (!dra_is_set(l->certain_until)) {
        l->unanswered_since = (struct dra_instant){0};
    }
}

void lease_on_keepalive(struct ha_lease *l, const struct dcs_answer *a)
{
    if (a->err_code == DRA_ENOTFOUND) {
        if (a->lease == l->id) {
            l->id = 0;
            l->certain_until = (struct dra_instant){0};
        }
    } else if (a->err_code == DRA_OK && a->lease == l->id) {
        if (dra_reached(a->sent_at, l->refreshed_at)) {
            l->refreshed_at = a->sent_at;
            l->refreshed_term = a->raft_term;
        }
        l->ttl = dra_ms(a->ttl_s * 1000);
        if (!dra_is_set(l->certain_until)) {
            l->unanswered_since = (struct dra_instant){0};
        }
    } else if (is_silence(a->err_code)) {
        lease_on_silence(l, a->sent_at);
    }
}

void lease_on_attached(struct ha_lease *l, int64_t lease, int64_t epoch, uint64_t raft_term)
{
    bool proven = lease == l->id && (l->refreshed_term == raft_term || !LEASE_ON(SAME_TERM));

    l->epoch = epoch;
    l->certain_until = proven ? dra_after(l->refreshed_at, l->ttl) : (struct dra_instant){0};
    l->lost = false;
    l->given_away = false;
}

void lease_on_give(struct ha_lease *l, int64_t epoch)
{
    if (LEASE_ON(GIVEN_AWAY)) {
        l->given_away = true;
        l->certain_until = (struct dra_instant){0};
    }
    l->epoch = epoch;
}

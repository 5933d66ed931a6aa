/*
 * memory.h - an etcd cluster in memory: keys, revisions, leases, terms.  For the simulator and for
 * tests; no I/O, no clock. Library dra_memory_store.
 *
 * Every function is synchronous and takes the time as an argument; delay, loss and partition are
 * the caller's.  What it models of etcd 3.4, as measured: one revision per transaction that wrote;
 * expiry only at a 500 ms tick; a new leader counts every lease anew; a deposed leader goes on
 * answering keepalives from its own lessor (WIN-31); keepalive of an unknown lease is
 * DRA_ENOTFOUND; a put with an unknown lease fails the whole transaction.
 *
 *   struct mem_store *m = mem_new(seed_id);
 *   mem_advance(m, now);                       // always first: lets leases expire up to now
 *   mem_apply_txn(m, &txn, now, &answer);
 *   struct dcs_snapshot *s = mem_snapshot(m);  // parsed once per revision, counted
 *   next = mem_next_due(m);                    // when mem_advance will change something by itself
 */
#ifndef DRAGENT_MEMORY_H
#define DRAGENT_MEMORY_H

#include <dragent/dcs.h>

struct mem_store;

/* After each new revision; `key` is the (last) key changed.  For watches: take mem_snapshot() and
 * deliver it as late as the simulated network wishes. */
typedef void (*mem_change_cb)(struct mem_store *m, int64_t revision, const char *key, bool deleted,
                              void *arg);

/* now: expiry ticks come each 500 ms from here.  NULL = out of memory. */
struct mem_store *mem_new(uint64_t cluster_id, struct dra_instant now);
void mem_free(struct mem_store *m); /* NULL is fine */
void mem_on_change(struct mem_store *m, mem_change_cb cb, void *arg);

int64_t mem_revision(const struct mem_store *m);
uint64_t mem_term(const struct mem_store *m);
bool mem_has_leader(const struct mem_store *m);

/* Carry out.  The answer is filled as the etcd store fills it; sent_at is left unset (only the
 * asker knows).  While there is no leader the answer is DRA_ETIMEDOUT, and nothing was done. */
void mem_apply_txn(struct mem_store *m, const struct dcs_txn *t, struct dra_instant now,
                   struct dcs_answer *out);
void mem_grant(struct mem_store *m, int64_t ttl_s, struct dra_instant now, struct dcs_answer *out);
void mem_keepalive(struct mem_store *m, int64_t lease, struct dra_instant now,
                   struct dcs_answer *out);
void mem_delete_prefix(struct mem_store *m, struct dra_instant now, struct dcs_answer *out);
/* A keepalive that the deposed leader answers: from its own countdown, with its old term; the real
 * lease is not renewed. DRA_ETIMEDOUT if no deposed leader answers at present. */
void mem_keepalive_deposed(struct mem_store *m, int64_t lease, struct dra_instant now,
                           struct dcs_answer *out);

/* Let the ticks up to `now` happen; returns how many leases expired. */
int mem_advance(struct mem_store *m, struct dra_instant now);
/* The first tick at which a lease will expire if nothing renews it; unset = none. */
struct dra_instant mem_next_due(const struct mem_store *m);

/* etcd's leader is lost: no call is answered and no lease expires until a new one is elected. */
void mem_leader_lost(struct mem_store *m);
/* A new leader: next term, every lease counts anew from now.  `old_answers`: the old one goes on as
 * deposed. */
void mem_leader_elected(struct mem_store *m, struct dra_instant now, bool old_answers);
void mem_deposed_end(struct mem_store *m);

/* All keys, sorted; borrowed until the next change.  Returns how many. */
size_t mem_read(struct mem_store *m, const struct dcs_kv **out);
const struct dcs_kv *mem_get(struct mem_store *m,
                             const char *key); /* NULL = absent; borrowed until the next change */
/* The current revision as a snapshot: parsed once per revision, a new reference for the caller.
 * NULL = out of memory. */
struct dcs_snapshot *mem_snapshot(struct mem_store *m);
/* 0 if unknown or expired. */
struct dra_instant mem_lease_expires(const struct mem_store *m, int64_t lease);

#endif

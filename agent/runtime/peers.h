/*
 * peers.h - ask the other members how they are (HA-76), all at once, with one deadline.
 */
#ifndef RT_PEERS_H
#define RT_PEERS_H

#include <dragent/base.h>
#include <dragent/io.h>
#include <dragent/model.h>
#include <dragent/world.h>

struct peer_answer {
    char name[HA_NAME_MAX];
    struct ha_peer p;
};
struct peer_round;
/* `answers` in the order of the snapshot; borrowed during the call. */
typedef void (*peer_round_cb)(const struct peer_answer *answers, int n, void *arg);

/* GET api_url of the members whose bit is set in `mask` (index into c->members), as far as they have one.
 * auth_header: "Authorization: Basic ..." or "".  DRA_ENOTFOUND: nobody to ask, nothing started.
 * The callback runs once, when all have answered or were given up. */
DRA_MUST_USE int peers_round_start(struct http_client *http, const struct ha_cluster *c, uint64_t mask,
                                   const char *auth_header, struct dra_instant not_after, peer_round_cb cb, void *arg,
                                   struct peer_round **out, struct dra_err *err);
/* The callback will not run any more; frees itself. */
void peers_round_cancel(struct peer_round *r);

/* The body of GET /patroni -> what the core wants to know.  False: unreachable in the sense of HA-76; *out is untouched. */
bool peers_parse(const char *body, size_t len, struct ha_peer *out);
/* REST-45, REST-91: reachable, may be promoted. */
bool peers_is_candidate(const struct ha_peer *p);

#endif

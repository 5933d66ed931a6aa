/*
 * health.h - the codes of health checks, liveness and readiness, out of a node and a clock reading.  Pure.
 */
#ifndef REST_HEALTH_H
#define REST_HEALTH_H

#include "node.h"
#include "target.h"

/* Which check a path means (REST-51). */
enum rest_check {
    REST_CHECK_NONE = 0, /* row 12: always 503 */
    REST_CHECK_STANDBY_LEADER,
    REST_CHECK_LEADER,
    REST_CHECK_PRIMARY,
    REST_CHECK_REPLICA,
    REST_CHECK_READ_ONLY,
    REST_CHECK_HEALTH,
    REST_CHECK_SYNC,
    REST_CHECK_QUORUM,
    REST_CHECK_ASYNC,
    REST_CHECK_READ_ONLY_QUORUM,
    REST_CHECK_READ_ONLY_SYNC,
    REST_CHECK_COUNT
};
enum rest_check rest_check_of(const char *path);
/* The lock decides and nothing else: no position is worth waiting for. */
bool rest_check_is_lock_only(enum rest_check c);

struct rest_ask {
    const struct views_node *node;
    const struct views_now *now;
    const struct json *tags; /* as shown (REST-44), may be NULL */
    const struct rest_target *target;
};
/* 200 or 503. */
int rest_health_status(const struct rest_ask *q);
int rest_liveness_status(const struct views_node *n, struct dra_instant at);
int rest_readiness_status(const struct rest_ask *q);

#endif

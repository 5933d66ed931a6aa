/*
 * routes.c - the table of calls.
 *
 * Threads: any; constant data.
 */
#include "routes.h"

#include <string.h>

#define GET(seg, c) {.method = "GET", .segment = (seg), .call = (c)}
#define TO_LOOP(m, seg, k, b) \
    {.method = (m), .segment = (seg), .call = REST_CALL_FORWARD, .protect = true, .body = (b), .kind = (k)}
#define AT_ONCE(m, seg, b, st, tx) \
    {.method = (m), .segment = (seg), .call = REST_CALL_TEXT, .protect = true, .body = (b), .status = (st), .text = (tx)}

static const struct rest_route routes[] = {
    GET("liveness", REST_CALL_LIVENESS),
    GET("readiness", REST_CALL_READINESS),
    GET("patroni", REST_CALL_STATUS),
    GET("cluster", REST_CALL_CLUSTER),
    GET("history", REST_CALL_HISTORY),
    GET("config", REST_CALL_CONFIG),
    GET("metrics", REST_CALL_METRICS),
    GET("failsafe", REST_CALL_FAILSAFE),
    {.method = "GET", .segment = "dragent", .path = "/dragent/world", .call = REST_CALL_WORLD},
    TO_LOOP("PATCH", "config", REST_PATCH_CONFIG, REST_BODY_REQUIRED),
    TO_LOOP("POST", "switchover", REST_SWITCHOVER, REST_BODY_REQUIRED),
    TO_LOOP("POST", "failover", REST_FAILOVER, REST_BODY_REQUIRED),
    TO_LOOP("DELETE", "switchover", REST_DELETE_SWITCHOVER, REST_BODY_NONE),
    TO_LOOP("POST", "restart", REST_RESTART, REST_BODY_OPTIONAL),
    TO_LOOP("POST", "reload", REST_RELOAD, REST_BODY_NONE),
    TO_LOOP("POST", "reinitialize", REST_REINIT, REST_BODY_OPTIONAL),
    /* Restarts cannot be scheduled in this version, so that none ever is. */
    AT_ONCE("DELETE", "restart", REST_BODY_NONE, 404, "no restarts are scheduled"),
    AT_ONCE("POST", "sigterm", REST_BODY_NONE, 202, "shutdown scheduled"), /* REST-87 */
    AT_ONCE("POST", "citus", REST_BODY_REQUIRED, 200, "OK"),               /* REST-102 */
    AT_ONCE("POST", "mpp", REST_BODY_REQUIRED, 200, "OK"),
    AT_ONCE("POST", "failsafe", REST_BODY_NONE, 502, NULL), /* REST-101: the mode is off */
};
static const struct rest_route health = {.method = "GET", .segment = "", .call = REST_CALL_HEALTH};

bool rest_method_is_probe(const char *method)
{
    return strcmp(method, "HEAD") == 0 || strcmp(method, "OPTIONS") == 0;
}

const struct rest_route *rest_route_find(const char *method, const struct rest_target *t)
{
    const char *as = rest_method_is_probe(method) ? "GET" : method; /* REST-22 [D] */

    for (size_t i = 0; i < DRA_ARRAY_LEN(routes); i++) {
        const struct rest_route *r = &routes[i];
        if (strcmp(r->method, as) == 0 && strcmp(r->segment, t->segment) == 0 &&
            (r->path == NULL || strcmp(r->path, t->path) == 0)) {
            return r;
        }
    }
    return strcmp(as, "GET") == 0 ? &health : NULL;
}

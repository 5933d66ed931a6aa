/*
 * routes.h - which call is meant (REST-21..23), whether it is protected (REST-30), what body it wants (REST-70).
 */
#ifndef REST_ROUTES_H
#define REST_ROUTES_H

#include "target.h"

#include <dragent/rest.h>

enum rest_call_kind {
    REST_CALL_NONE = 0,
    REST_CALL_HEALTH,
    REST_CALL_LIVENESS,
    REST_CALL_READINESS,
    REST_CALL_STATUS,  /* /patroni */
    REST_CALL_CLUSTER,
    REST_CALL_HISTORY,
    REST_CALL_CONFIG,
    REST_CALL_METRICS,
    REST_CALL_FAILSAFE,
    REST_CALL_WORLD,
    REST_CALL_FORWARD, /* to the loop, as `kind` */
    REST_CALL_TEXT,    /* answered on the spot with `status` and `text`; NULL = error page */
    REST_CALL_COUNT
};
enum rest_body { REST_BODY_NONE = 0, REST_BODY_OPTIONAL, REST_BODY_REQUIRED };

struct rest_route {
    const char *method;
    const char *segment;
    const char *path; /* the whole path must be this; NULL: the segment is enough */
    enum rest_call_kind call;
    bool protect;
    enum rest_body body;
    enum rest_kind kind;
    int status;
    const char *text;
};

/* NULL: error page 501 (REST-23). */
const struct rest_route *rest_route_find(const char *method, const struct rest_target *t);
bool rest_method_is_probe(const char *method); /* HEAD or OPTIONS: status only */

#endif

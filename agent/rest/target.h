/*
 * target.h - a request target taken apart as Patroni does (REST-02, REST-20).
 */
#ifndef REST_TARGET_H
#define REST_TARGET_H

#include <dragent/base.h>

#define REST_PARAMS_MAX 32 /* further ones are ignored */

struct rest_param {
    const char *key, *value; /* decoded; never an empty value */
};
struct rest_target {
    const char *path; /* not decoded; leading slashes are one */
    char segment[24]; /* the first one; "" if it is longer than any that we know */
    int n_params;
    struct rest_param params[REST_PARAMS_MAX];
};

/* Takes `raw` apart in place: the target points into it. */
void rest_target_parse(char *raw, struct rest_target *out);
const char *rest_target_param(const struct rest_target *t, const char *key); /* the first one; NULL if absent */

#endif

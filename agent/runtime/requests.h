/*
 * requests.h - what comes in over REST and changes something: from the question to the answer.
 */
#ifndef RT_REQUESTS_H
#define RT_REQUESTS_H

#include <dragent/base.h>
#include <dragent/dcs.h>
#include <dragent/rest.h>
#include <dragent/text.h>

struct rt_agent;
struct rt_switch; /* a switchover or failover that is being asked for: switchover.c */

#define RT_SWITCHES_MAX 16

struct rt_requests {
    /* GET with a fresh position: one probe for all who wait */
    bool fresh_wanted;
    bool fresh_ready; /* answered or given up: resumed after the next turn */
    struct dra_instant fresh_since;
    struct dra_instant fresh_until;
    bool cluster_reading; /* GET /cluster: one read for all who wait */
    struct rt_switch *switches[RT_SWITCHES_MAX];
    bool closing;
};

/* From rest: rq is borrowed, its body until the reply. */
void requests_on_rest(const struct rest_request *rq, void *arg);
/* The core ended a request of rt_engine_request(). */
void requests_reply(struct rt_agent *a, uint64_t id, bool ok, const char *text);
void requests_on_snapshot(struct rt_agent *a); /* requests that wait for the cluster to change */
void requests_on_pg(struct rt_agent *a);       /* requests that wait for a fresh probe */
void requests_after_turn(struct rt_agent *a);  /* the snapshot is published: let go who waited for it */
void requests_tick(struct rt_agent *a);        /* deadlines */
struct dra_instant requests_wake_at(const struct rt_agent *a);
void requests_close(struct rt_agent *a); /* drops what still waits */

/* switchover.c */
void switch_on_rest(struct rt_agent *a, const struct rest_request *rq);
void switch_delete_on_rest(struct rt_agent *a, const struct rest_request *rq);
void switch_on_snapshot(struct rt_agent *a);
void switch_tick(struct rt_agent *a);
struct dra_instant switch_wake_at(const struct rt_agent *a);
void switch_close(struct rt_agent *a);

/* timestamp.c: REST-112.  ISO-8601 with the offset that was given. */
enum rt_stamp { RT_STAMP_OK = 0, RT_STAMP_NO_ZONE, RT_STAMP_INVALID };
enum rt_stamp rt_timestamp_parse(const char *s, char *iso, size_t iso_size, int64_t *out_epoch_s);

/* REST-81: the filters of POST /restart.  On refusal: status and text. */
struct rt_restart {
    bool has_role;
    enum ha_role role;
    int version_min; /* restart only if the server is older; 0 = no filter */
    bool pending_only;
    bool scheduled;
    int64_t timeout_s; /* 0 = default */
};
struct rt_refusal {
    int status; /* 0 = none */
    char text[160];
};
bool rt_restart_parse(const struct json *body, bool paused, struct rt_restart *out, struct rt_refusal *no);

#endif

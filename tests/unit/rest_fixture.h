/*
 * rest_fixture.h - situations of REST-56 as facts, for the tests of the REST room.
 */
#ifndef REST_FIXTURE_H
#define REST_FIXTURE_H

#include <dragent/dcs.h>
#include <dragent/rest.h>
#include <dragent/world.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct ha_world w;
    struct ha_plan p;
    struct ha_memory m;
    struct pgs_view v;
    struct rest_facts f;
    struct json *tags, *effective, *replication, *reason, *scheduled; /* owned */
    struct dcs_snapshot *snap;                                        /* owned */
};

static inline struct json *fx_json(const char *text)
{
    struct json *j = NULL;
    struct dra_err err = {0};
    if (json_parse(text, strlen(text), &j, &err) != DRA_OK) {
        fail_msg("%s: %s", text, err.msg);
    }
    return j;
}

static inline void fx_str(char *dst, size_t size, const char *src)
{
    assert_int_equal(dra_str_copy(dst, size, src), DRA_OK);
}

/* A primary with the lock, at second 1000 on the clock. */
static inline struct fixture *fx_new(struct dra_instant now)
{
    struct fixture *x = calloc(1, sizeof *x);
    assert_non_null(x);
    x->w.now = now;
    x->w.wall_s = 1772359200;
    fx_str(x->w.me, sizeof x->w.me, "node1");
    x->w.s.ttl = dra_ms(30000);
    x->w.s.loop_wait = dra_ms(10000);
    x->w.s.retry_timeout = dra_ms(10000);
    x->w.s.primary_start_timeout = dra_ms(300000);
    x->w.s.maximum_lag_on_failover = 1048576;
    x->w.s.tags.failover_priority = 1;
    x->w.cluster_known = true;
    fx_str(x->w.cluster.leader, sizeof x->w.cluster.leader, "node1");
    x->w.cluster.optime = 83886176;
    x->w.pg.datadir = HA_DATADIR_VALID;
    fx_str(x->w.pg.sysid, sizeof x->w.pg.sysid, "7398561211234567890");
    x->w.pg.postmaster = DRA_YES;
    x->w.pg.state = HA_STATE_RUNNING;
    x->w.pg.accepting = DRA_YES;
    x->w.pg.in_recovery = DRA_NO;
    x->w.pg.asked_at = now;
    x->w.pg.answered_at = now;
    x->w.pg.wal_lsn = 83886176;
    x->w.pg.timeline = 3;
    x->p.leader = true;
    x->p.lead_until = dra_after(now, dra_ms(20000));
    x->p.role = HA_ROLE_PRIMARY;
    fx_str(x->v.postmaster_start_time, sizeof x->v.postmaster_start_time, "2026-03-01 10:00:00.123456+00:00");
    x->v.postmaster_start_us = 1772359200123456;
    x->v.server_version = 160004;
    x->effective = json_new_object();
    x->f = (struct rest_facts){
        .world = &x->w,
        .plan = &x->p,
        .memory = &x->m,
        .pg = &x->v,
        .effective = x->effective,
        .scope = "demo",
        .dcs_last_seen_s = 1772359200,
        .valid_until = dra_after(now, dra_ms(20000)),
        .cycle_due = dra_after(now, dra_ms(10000)),
    };
    return x;
}

static inline void fx_free(struct fixture *x)
{
    json_free(x->tags);
    json_free(x->effective);
    json_free(x->replication);
    json_free(x->reason);
    json_free(x->scheduled);
    dcs_snapshot_unref(x->snap);
    free(x);
}

static inline void fx_effective(struct fixture *x, const char *text)
{
    json_free(x->effective);
    x->effective = fx_json(text);
    x->f.effective = x->effective;
}

static inline void fx_tags(struct fixture *x, const char *text)
{
    json_free(x->tags);
    x->tags = fx_json(text);
    x->f.tags = x->tags;
    dcs_tags_interpret(x->tags, &x->w.s.tags);
}

/* Make it a streaming replica of node2, without lag. */
static inline void fx_replica(struct fixture *x)
{
    fx_str(x->w.cluster.leader, sizeof x->w.cluster.leader, "node2");
    x->p.leader = false;
    x->p.lead_until = (struct dra_instant){0};
    x->p.role = HA_ROLE_REPLICA;
    x->w.pg.in_recovery = DRA_YES;
    x->w.pg.wal_lsn = 0;
    x->w.pg.receive_lsn = 83886176;
    x->w.pg.replay_lsn = 83886176;
    x->w.pg.replication_state = HA_REPL_STREAMING;
}

static inline void fx_sync(struct fixture *x, const char *mode)
{
    char text[64];
    (void)snprintf(text, sizeof text, "{\"synchronous_mode\": %s}", mode);
    fx_effective(x, text);
    x->w.cluster.sync.n_standbys = 1;
    fx_str(x->w.cluster.sync.standbys[0], sizeof x->w.cluster.sync.standbys[0], "NODE1");
}

#endif

/*
 * agent.h - the one struct that everything in the agent hangs from, and what the files of this room offer each other.
 *
 * Threads: loop thread only (the file worker's functions in reload.c say so where they are not).
 */
#ifndef RT_AGENT_H
#define RT_AGENT_H

#include <dragent/base.h>
#include <dragent/conf.h>
#include <dragent/dcs.h>
#include <dragent/engine.h>
#include <dragent/guard.h>
#include <dragent/io.h>
#include <dragent/model.h>
#include <dragent/pgs.h>
#include <dragent/rest.h>
#include <dragent/runtime.h>
#include <dragent/text.h>
#include <dragent/world.h>

#include "lock.h"
#include "peers.h"
#include "requests.h"
#include "values.h"

#include <limits.h>

#include <uv.h>

#define RT_FOREIGN_MAX HA_MEMBERS_MAX
#define RT_TOKENS_MAX 8

/* Questions to the local server that pgs answers by changed() only. */
struct rt_waiting {
    uint64_t token; /* 0 = free */
    struct dra_instant since;
    struct dra_instant not_after;
};

/* HA-206: a member that is not dragent counts until its key was absent for ten minutes. */
struct rt_foreign {
    char name[HA_NAME_MAX]; /* "" = free */
    struct dra_instant seen_at;
};

/* An answer that is known at once but must not come from inside the starting call. */
struct rt_deferred {
    uint64_t token;
    int rc;
    bool probe_round; /* a poll round without members */
    struct rt_deferred *next;
};

/* The first look at the store; lives here since its answer may come after we stopped waiting for it. */
struct rt_first_read {
    bool done;
    int err_code;
    char msg[256];
};

struct rt_agent {
    const struct rt_options *opt; /* borrowed: main's */

    /* loop and turns */
    uv_loop_t loop;
    uv_idle_t idle;   /* active while a turn is due, so that poll does not block */
    uv_check_t check; /* runs the turn, once per iteration */
    uv_signal_t sig_term, sig_int, sig_hup, sig_usr2;
    bool loop_open;
    bool dirty;
    bool running;     /* turns are on */
    bool term;        /* SIGTERM or SIGINT came */
    bool hup;         /* a reload is asked for */
    bool ending;
    int exit_code;
    char exit_text[HA_REASON_MAX]; /* the last line of the log */
    struct rt_deferred *deferred;
    struct dra_timer *wake_timer;
    struct dra_instant turn_at; /* of the last turn */

    /* configuration */
    struct json *local;     /* owned */
    struct json *dynamic;   /* owned; in force; may be NULL */
    struct json *effective; /* owned */
    struct ha_settings settings;
    struct conf_names names;
    struct conf_rest rest_conf;
    int64_t config_rev; /* of the `config` key last looked at; 0 = none */
    bool all_dragent;
    struct rt_foreign foreign[RT_FOREIGN_MAX];
    struct json *cache_pending; /* owned; dynamic configuration that the cache file does not show yet */
    bool cache_busy;

    /* parts, in the order of opening */
    struct dra_fworker *files;
    struct http_client *http;
    char data_dir[PATH_MAX];  /* resolved */
    char state_dir[PATH_MAX]; /* beside it */
    char guard_dir[PATH_MAX];
    struct rt_lock lock;
    struct dcs *dcs;
    struct rt_first_read first_read;
    struct dcs_snapshot *snap; /* a reference, or NULL */
    bool stale;
    struct dra_instant dcs_trouble_at; /* last line about calls without a good answer */
    int dcs_troubles;                  /* since then */
    int64_t dcs_last_seen_s;
    struct pgs *pgs;
    struct rt_guard *guarding; /* guarding.c: the guard's client and what is known of it */
    struct rest *rest;
    struct rt_ops ops;
    struct rt_engine *engine;

    /* questions under way */
    struct rt_waiting probes[RT_TOKENS_MAX];
    struct rt_waiting reads[RT_TOKENS_MAX];
    struct dra_timer *probe_timer;

    /* peers as last polled */
    struct peer_round *round;
    uint64_t round_token;
    struct dra_instant poll_at;
    bool poll_done;
    int n_peers;
    struct peer_answer peers[HA_MEMBERS_MAX];

    struct rt_values values;
    struct rt_requests requests;

    /* what was logged last */
    int logged_rule;
    char logged_reason[HA_REASON_MAX];
    struct dra_instant logged_at;
    int n_notes;
    char notes[8][HA_REASON_MAX];
    char *world_json; /* owned: body of GET /dragent/world */
    struct dra_instant world_json_at;
    int world_json_rule;

    /* upgrade in place */
    bool upgrade_asked;
    bool upgrade_checking;
    bool upgrade_ready;
};

/* ---- agent.c ---- */
void rt_dirty(struct rt_agent *a);                          /* a turn is due */
void rt_defer(struct rt_agent *a, uint64_t token, int rc);  /* rt_engine_on_effect() in the next iteration */
void rt_end(struct rt_agent *a, int code, const char *why); /* leave the loop */
void rt_notify(const char *text);                           /* sd_notify (CLI-114); nothing without NOTIFY_SOCKET */

/* ---- ops.c ---- */
void rt_ops_fill(struct rt_agent *a);
DRA_MUST_USE int rt_ops_open(struct rt_agent *a);
void rt_ops_pg_changed(struct rt_agent *a); /* end the questions that the last facts answer */
void rt_ops_close(struct rt_agent *a);
/* "Authorization: Basic ..." for calls to members (REST-120), "" without credentials. */
void rt_auth_header(const struct rt_agent *a, char *out, size_t size);

/* ---- decided.c ---- */
void rt_decided(struct rt_agent *a, const struct ha_world *w, const struct ha_memory *m, const struct ha_plan *p);
void rt_publish(struct rt_agent *a); /* a new REST snapshot of what is known now */

/* ---- reload.c ---- */
DRA_MUST_USE int rt_config_load(struct rt_agent *a, struct dra_err *err); /* at start: files, cache, bootstrap.dcs */
void rt_config_on_snapshot(struct rt_agent *a);                           /* CFG-42, HA-206 */
void rt_config_on_sighup(struct rt_agent *a);                             /* CFG-40, CFG-41 */
void rt_config_cache(struct rt_agent *a);                                 /* CFG-45: write it if it is due */
void rt_config_free(struct rt_agent *a);
void rt_conf_warn(const char *text, void *arg);

/* ---- adopt.c ---- */
/* Directories beside the data directory, the lock (SAFE-35).  May run the loop for up to about 3 s. */
DRA_MUST_USE int rt_adopt_lock(struct rt_agent *a, struct dra_err *err);
/* DCS-95, REST-61: 0, or DRA_EEXIST when a node of our name answers.  May run the loop for up to 3 s. */
DRA_MUST_USE int rt_adopt_name_check(struct rt_agent *a, struct dra_err *err);
/* Run the loop until *done, a signal that ends us, or `limit` (unset: no limit).  Start only.  False: *done is not set. */
bool rt_run_until(struct rt_agent *a, const bool *done, struct dra_instant limit);

/* ---- guarding.c ---- */
/* After the lock, before anything else: what the guard of the agent before left (SAFE-37). */
DRA_MUST_USE int rt_guard_read_stamp(struct rt_agent *a, struct dra_err *err);
bool rt_guard_has_stamp(const struct rt_agent *a);
/* Guard, then adoption of the stamp's lease.  The engine must exist.  Runs the loop until the guard is up (3 s at most). */
DRA_MUST_USE int rt_guard_open(struct rt_agent *a, struct dra_err *err);
void rt_guard_fill_ops(struct rt_agent *a);
void rt_guard_close(struct rt_agent *a);

/* ---- upgrade.c ---- */
void rt_upgrade_asked(struct rt_agent *a);
void rt_upgrade_step(struct rt_agent *a); /* after each turn: go on if nothing is in the way */
/* Become the program on disk.  Returns only on failure. */
void rt_upgrade_exec(struct rt_agent *a);

#endif

/*
 * pgs.h - the local server: what it is doing (facts), and jobs that change it.  Library dra_postgres.
 *
 * Decides nothing.  Facts are published in struct ha_pg; a job is one outside action with one result.
 * Threads: loop thread only (blocking file work goes to the file worker).
 */
#ifndef DRAGENT_PGS_H
#define DRAGENT_PGS_H

#include <dragent/base.h>
#include <dragent/io.h>
#include <dragent/model.h>
#include <dragent/text.h>
#include <dragent/world.h>

struct pgs; /* one server */

struct pgs_events {
    /* Facts in pgs_facts() changed in a way the core must see: exit of the postmaster, probe answered or given up, files read. */
    void (*changed)(void *arg);
    /* START_PRIMARY has forked a child that waits: register pid with the guard, then call pgs_job_continue(). */
    void (*forked)(struct dra_proc child, void *arg);
    /* The job ended; r is borrowed. */
    void (*job_done)(const struct ha_job_result *r, void *arg);
};

/* `effective` = the whole effective configuration (CFG-04): scope, name, postgresql, bootstrap; kept as a clone.
 * state_dir: directory beside the data directory for marker and lock (pgs creates nothing inside the data directory, HA-49). */
DRA_MUST_USE int pgs_open(struct uv_loop_s *loop, struct dra_fworker *files, const struct json *effective,
                          const char *state_dir, const struct pgs_events *ev, void *arg, struct pgs **out, struct dra_err *err);
/* New configuration; files are rewritten and the server reloaded by PGS effect calls below (pgs_reload). */
DRA_MUST_USE int pgs_configure(struct pgs *s, const struct json *effective, struct dra_err *err);
void pgs_close(struct pgs *s); /* the server stays as it is */

const struct ha_pg *pgs_facts(const struct pgs *s); /* borrowed, always valid */
/* For views: the last probe's raw parts. */
struct pgs_view {
    char postmaster_start_time[40]; /* "2026-03-01 10:00:00.123456+00:00" or "" */
    int64_t postmaster_start_us;    /* epoch microseconds, 0 = unknown */
    int server_version;             /* 150018 */
    char replay_timestamp[40];      /* as text with zone, "" = null */
    int64_t replay_timestamp_us;
    const struct json *replication; /* array of pg_stat_replication rows (usename, application_name, client_addr, state, sync_state, sync_priority) or NULL; borrowed */
    const struct json *slots;       /* pg_replication_slots rows or NULL; borrowed */
    const struct json *pending_restart_reason; /* object or NULL (CFG-76) */
    uint64_t latest_end_lsn;        /* standby: pg_stat_wal_receiver.latest_end_lsn (REST-52), 0 = unknown */
};
const struct pgs_view *pgs_view(const struct pgs *s);
const char *pgs_history_file(const struct pgs *s, uint32_t timeline, char *mtime_iso, size_t n); /* text of pg_wal/%08X.history as read by pgs_read_files or after promotion; NULL if none */

/* ---- questions: each leads to changed() ------------------------------------------------------------- */
void pgs_probe(struct pgs *s, struct dra_instant not_after);   /* one query (engineering notes, libpq); coalesced while one runs */
void pgs_read_files(struct pgs *s);                            /* control data, signal files, processes: through the file worker */
/* HA-145 steps 2, 3: connect to member's server; result in *out via cb. */
typedef void (*pgs_upstream_cb)(const struct ha_upstream_check *r, void *arg);
DRA_MUST_USE int pgs_check_upstream(struct pgs *s, const char *member, const char *conn_url, uint32_t local_timeline,
                                    struct dra_instant not_after, pgs_upstream_cb cb, void *arg, struct dra_err *err);

/* ---- effects without a job -------------------------------------------------------------------------------- */
typedef void (*pgs_cb)(int rc, const struct dra_err *err, void *arg);
/* Write the recovery settings for `member` at conn_url ("" = nobody) and reload (PostgreSQL >= 13 takes a new upstream by reload). */
DRA_MUST_USE int pgs_follow(struct pgs *s, const char *member, const char *conn_url, pgs_cb cb, void *arg, struct dra_err *err);
DRA_MUST_USE int pgs_reload(struct pgs *s, pgs_cb cb, void *arg, struct dra_err *err); /* rewrite files, SIGHUP */
DRA_MUST_USE int pgs_checkpoint(struct pgs *s, struct dra_instant not_after, pgs_cb cb, void *arg, struct dra_err *err);
/* Make the physical slots exactly `wanted` (HA-152, 155, 159, 160), as far as they are ours to touch. */
DRA_MUST_USE int pgs_slots(struct pgs *s, const struct ha_slot_pos *wanted, int n, bool drop_unwanted, pgs_cb cb, void *arg, struct dra_err *err);
/* postgresql.callbacks (HA-175): asynchronous, newest kills oldest after 2 s (HA-179). */
void pgs_callback(struct pgs *s, enum ha_callback c, enum ha_role role);

/* ---- jobs ---------------------------------------------------------------------------------------------------- */
/* conn_url: of job->member, "" if none.  One at a time: DRA_EBUSY while one runs.  Result by job_done(). */
DRA_MUST_USE int pgs_job_start(struct pgs *s, const struct ha_job *job, const char *conn_url, uint64_t id, struct dra_err *err);
/* START_PRIMARY only: let the forked child exec (go = true), or let it end (the job then fails with DRA_ECANCELED). */
void pgs_job_continue(struct pgs *s, bool go);
void pgs_job_cancel(struct pgs *s); /* cancel ladder; job_done follows; a promotion is never cancelled */
struct dra_instant pgs_job_progress_at(const struct pgs *s);
/* Freeze and kill every process of the server now (what the guard does), without a job; changed() follows when none is left. */
void pgs_kill_all(struct pgs *s);

/* How to reach a server: keyword conninfo for member URL with the replication credentials etc.  For tests and views. */
DRA_MUST_USE int pgs_conninfo(const struct pgs *s, const char *conn_url, const char *which /* "replication" "rewind" "superuser" */,
                              struct dra_buf *out);

#endif

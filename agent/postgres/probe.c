/*
 * probe.c - ask the server how it is: one prepared query on a warm connection, with a deadline (HA-07).
 *
 * Promises: what the server did not answer stays as it was, with the time of the question that was answered last;
 * a server that does not answer is never taken for one that is down.
 * Threads: loop.
 */
#include "probe.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_MS 3000

static void detect_then_ask(struct pgs *s);
static void ask(struct pgs *s);
static void on_answer(const struct pgc_result *r, void *arg);
static void finish(struct pgs *s, bool changed);

enum column {
    COL_IN_RECOVERY,
    COL_START,
    COL_START_US,
    COL_VERSION,
    COL_FLUSH,
    COL_TIMELINE,
    COL_PAUSED,
    COL_RECEIVE,
    COL_REPLAY,
    COL_REPLAY_TIME,
    COL_REPLAY_TIME_US,
    COL_CONTROL_TIMELINE,
    COL_MINREC_TIMELINE,
    COL_RECEIVER,
    COL_RESTORE,
    COL_SLOTS,
    COL_REPLICATION,
    COL_COUNT
};

/* CASE keeps functions that fail on the wrong side from being called; row_to_json takes whatever columns a version has.
 * The view of walsenders is cut to what is shown and what sync decisions need. */
const char *const pgs_probe_sql =
    "SELECT pg_is_in_recovery(), pg_postmaster_start_time(),"
    " (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint,"
    " current_setting('server_version_num'),"
    " CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END,"
    " CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_flush_lsn()),1,8) END,"
    " CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END,"
    " pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), pg_last_xact_replay_timestamp(),"
    " (extract(epoch from pg_last_xact_replay_timestamp()) * 1000000)::bigint,"
    " (SELECT timeline_id FROM pg_control_checkpoint()),"
    " (SELECT min_recovery_end_timeline FROM pg_control_recovery()),"
    " (SELECT row_to_json(w) FROM pg_stat_wal_receiver w),"
    " current_setting('restore_command', true),"
    " (SELECT json_agg(row_to_json(s)) FROM pg_replication_slots s),"
    " (SELECT json_agg(row_to_json(r)) FROM (SELECT pid, usename, application_name, client_addr, state, sent_lsn, write_lsn,"
    " flush_lsn, replay_lsn, sync_state, sync_priority FROM pg_stat_replication) r)";

void pgs_probe(struct pgs *s, struct dra_instant not_after)
{
    pgs_probe_internal(s, not_after, false);
}

void pgs_probe_internal(struct pgs *s, struct dra_instant not_after, bool quiet)
{
    if (s->closing) {
        return;
    }
    if (s->probe.running) {
        s->probe.quiet = s->probe.quiet && quiet;
        return;
    }
    s->probe.running = true;
    s->probe.quiet = quiet;
    s->probe.retried = false;
    s->probe.not_after = dra_is_set(not_after) ? not_after : dra_after(dra_now(), dra_ms(DEFAULT_MS));
    pgs_ref(s);
    detect_then_ask(s);
}

/* ---- is there a postmaster? ----------------------------------------------------------------------------- */

struct detect {
    struct pgs *s;
    struct pgs_conf *conf;
    struct pgs_scan found;
    bool standby_signal;
};

static bool signal_exists(const struct pgs_conf *c, const char *name)
{
    char path[PGS_PATH_MAX + 32];

    return dra_str_printf(path, sizeof path, "%s/%s", c->data_dir, name) == 0 && dra_file_exists(path);
}

static int detect_run(void *arg, struct dra_err *err)
{
    struct detect *d = arg;

    (void)err;
    pgs_scan_run(d->conf, &d->found);
    if (d->found.found) { /* as it lies there now: what was read earlier speaks of another server (WIN-45) */
        d->standby_signal = signal_exists(d->conf, "standby.signal") || signal_exists(d->conf, "recovery.signal");
    }
    return DRA_OK;
}

static void on_detected(int rc, const struct dra_err *err, void *arg)
{
    struct detect *d = arg;
    struct pgs *s = d->s;

    (void)err;
    if (rc == 0 && !s->closing && s->pm.pid == 0) {
        if (d->found.found) {
            s->facts.standby_signal = d->standby_signal; /* what it was started as */
            pgs_postmaster_adopt(s, d->found.pm, false);
            pgs_read_files(s);
        } else if (s->facts.postmaster == DRA_UNKNOWN) {
            s->facts.postmaster = DRA_NO;
            s->facts.accepting = DRA_NO;
        }
    }
    pgs_conf_unref(d->conf);
    free(d);
    if (s->pm.pid != 0 && !s->closing) {
        ask(s);
    } else {
        s->facts.asked_at = dra_now();
        finish(s, true);
    }
}

static void detect_then_ask(struct pgs *s)
{
    struct detect *d = NULL;

    if (s->pm.pid == 0) {
        d = calloc(1, sizeof *d);
    }
    if (d != NULL) {
        d->s = s;
        d->conf = pgs_conf_ref(s->conf);
        if (dra_fworker_start(s->files, detect_run, on_detected, d) == 0) {
            return;
        }
        pgs_conf_unref(d->conf);
        free(d);
    }
    ask(s);
}

/* ---- the question ------------------------------------------------------------------------------------------ */

static void ask(struct pgs *s)
{
    s->facts.asked_at = dra_now();
    if (pgc_query_start(s->hb, "dra_probe", pgs_probe_sql, s->probe.not_after, on_answer, s, &s->probe.op) != 0) {
        finish(s, false);
    }
}

enum pgs_refusal pgs_refusal_of(const struct dra_err *err)
{
    static const char *const starting[] = {"starting up", "shutting down", "in recovery mode", "not yet accepting connections",
                                           "not accepting connections"};
    static const char *const answers[] = {"too many clients", "remaining connection slots", "authentication failed",
                                          "no pg_hba.conf entry", "password", "does not exist", "no encryption"};

    if (strcmp(err->sqlstate, "57P03") == 0) {
        return PGS_REFUSAL_STARTING;
    }
    if (err->sqlstate[0] != '\0' && strncmp(err->sqlstate, "57P0", 4) != 0 && strncmp(err->sqlstate, "08", 2) != 0) {
        return PGS_REFUSAL_ANSWERS;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(starting); i++) {
        if (strstr(err->msg, starting[i]) != NULL) {
            return PGS_REFUSAL_STARTING;
        }
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(answers); i++) {
        if (strstr(err->msg, "FATAL") != NULL && strstr(err->msg, answers[i]) != NULL) {
            return PGS_REFUSAL_ANSWERS;
        }
    }
    return PGS_REFUSAL_NONE;
}

static void on_failure(struct pgs *s, const struct pgc_result *r)
{
    enum pgs_refusal why = pgs_refusal_of(&r->err);
    enum dra_tri before = s->facts.accepting;

    if (r->err_code == DRA_ECONN && !s->probe.retried && why == PGS_REFUSAL_NONE && s->pm.pid != 0) {
        s->probe.retried = true; /* the warm connection may have been ended by somebody (HA-07) */
        ask(s);
        return;
    }
    if (r->err_code == DRA_ESQL || why == PGS_REFUSAL_ANSWERS) {
        s->facts.accepting = DRA_YES;
        if (!s->probe.quiet) {
            log_linef(LOG_LV_WARNING, "pgs.probe", "the server answers, but not the monitoring query: %s", r->err.msg);
        }
    } else if (why == PGS_REFUSAL_STARTING || r->err_code == DRA_ECONN) {
        s->facts.accepting = DRA_NO;
        if (why == PGS_REFUSAL_STARTING && s->pm.pid != 0 && s->facts.state == HA_STATE_RUNNING) {
            pgs_state_set(s, HA_STATE_STARTING);
        }
    } else {
        s->facts.accepting = DRA_UNKNOWN;
    }
    finish(s, before != s->facts.accepting);
}

static void on_answer(const struct pgc_result *r, void *arg)
{
    struct pgs *s = arg;

    s->probe.op = NULL;
    if (s->closing || s->pm.pid == 0) { /* the answer of one that has ended since tells nothing */
        finish(s, false);
        return;
    }
    if (r->err_code != DRA_OK || r->rows != 1 || r->cols < COL_COUNT) {
        on_failure(s, r);
        return;
    }
    pgs_probe_take(s, r);
    s->facts.accepting = DRA_YES;
    s->facts.answered_at = r->sent_at;
    if (s->facts.state == HA_STATE_STARTING || s->facts.state == HA_STATE_CRASHED || s->facts.state == HA_STATE_UNKNOWN ||
        (!pgs_job_is_running(s) && s->facts.state != HA_STATE_RUNNING)) {
        pgs_state_set(s, HA_STATE_RUNNING);
    }
    finish(s, true);
}

static void finish(struct pgs *s, bool changed)
{
    bool quiet = s->probe.quiet;

    s->probe.running = false;
    if (!s->closing) {
        pgs_job_ev(s, PGS_EV_PROBE);
        if (!quiet || changed) {
            pgs_changed(s);
        }
    }
    pgs_unref(s);
}

/* ---- the answer ------------------------------------------------------------------------------------------------ */

static const char *text(const struct pgc_result *r, enum column c)
{
    const char *v = r->get(r, 0, (int)c);

    return v != NULL ? v : "";
}

static int64_t number(const struct pgc_result *r, enum column c)
{
    const char *v = text(r, c);
    int64_t n = 0;

    return dra_parse_i64(v, strlen(v), INT64_MIN, INT64_MAX, &n) == 0 ? n : 0;
}

static uint64_t lsn(const struct pgc_result *r, enum column c)
{
    uint64_t out = 0;

    return dra_lsn_parse(text(r, c), &out) == 0 ? out : 0;
}

static uint32_t hex_timeline(const char *s)
{
    uint32_t out = 0;

    for (; *s != '\0'; s++) {
        if (*s >= '0' && *s <= '9') {
            out = out * 16 + (uint32_t)(*s - '0');
        } else if (*s >= 'A' && *s <= 'F') {
            out = out * 16 + (uint32_t)(*s - 'A' + 10);
        } else {
            return 0;
        }
    }
    return out;
}

static void replace_json(struct json **j, const char *s)
{
    struct json *fresh = NULL;

    if (s[0] != '\0' && json_parse(s, strlen(s), &fresh, NULL) != 0) {
        fresh = NULL;
    }
    json_free(*j);
    *j = fresh;
}

static void take_standby(struct pgs *s, const struct pgc_result *r)
{
    struct ha_pg *f = &s->facts;
    struct json *w = NULL;
    const char *status = NULL;
    uint32_t t = (uint32_t)number(r, COL_CONTROL_TIMELINE);
    uint32_t m = (uint32_t)number(r, COL_MINREC_TIMELINE);
    int64_t received = 0;

    replace_json(&w, text(r, COL_RECEIVER));
    f->replication_state = HA_REPL_NONE;
    s->view.latest_end_lsn = 0;
    if (w != NULL) {
        const char *end = json_text(json_get(w, "latest_end_lsn"));

        if (end != NULL && dra_lsn_parse(end, &s->view.latest_end_lsn) != 0) {
            s->view.latest_end_lsn = 0;
        }
        status = json_text(json_get(w, "status"));
        /* Only a receiver that reported an end position says anything about its timeline. */
        if (json_type_of(json_get(w, "latest_end_lsn")) == JSON_STRING &&
            json_opt_i64(w, "received_tli", &received, NULL) == 0 && received > (int64_t)s->received_timeline) {
            s->received_timeline = (uint32_t)received;
        }
    }
    if (status != NULL && strcmp(status, "streaming") == 0) {
        f->replication_state = HA_REPL_STREAMING;
    } else if (text(r, COL_RESTORE)[0] != '\0') {
        f->replication_state = HA_REPL_ARCHIVE;
    }
    t = m > t ? m : t;
    f->timeline = s->received_timeline > t ? s->received_timeline : t;
    f->wal_lsn = 0;
    f->replay_paused = text(r, COL_PAUSED)[0] == 't';
    json_free(w);
}

void pgs_probe_take(struct pgs *s, const struct pgc_result *r)
{
    struct ha_pg *f = &s->facts;
    bool in_recovery = text(r, COL_IN_RECOVERY)[0] == 't';

    f->in_recovery = dra_tri_of(in_recovery);
    f->receive_lsn = lsn(r, COL_RECEIVE);
    f->replay_lsn = lsn(r, COL_REPLAY);
    if (in_recovery) {
        take_standby(s, r);
    } else {
        s->view.latest_end_lsn = 0;
        f->wal_lsn = lsn(r, COL_FLUSH);
        f->timeline = hex_timeline(text(r, COL_TIMELINE));
        f->replication_state = HA_REPL_NONE;
        f->replay_paused = false;
    }
    pgs_take_timeline_begin(s);
    dra_str_clip(s->view.postmaster_start_time, sizeof s->view.postmaster_start_time, text(r, COL_START));
    s->view.postmaster_start_us = number(r, COL_START_US);
    s->view.server_version = (int)number(r, COL_VERSION);
    dra_str_clip(s->view.replay_timestamp, sizeof s->view.replay_timestamp, text(r, COL_REPLAY_TIME));
    s->view.replay_timestamp_us = number(r, COL_REPLAY_TIME_US);
    replace_json(&s->replication, text(r, COL_REPLICATION));
    replace_json(&s->slots, text(r, COL_SLOTS));
    s->view.replication = s->replication;
    s->view.slots = s->slots;
}

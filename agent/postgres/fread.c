/*
 * fread.c - read what lies on disk: directory, control data, signal files, history, processes.
 *
 * One run at a time: a look in the file worker, then pg_controldata, then (after an orderly shutdown of a primary)
 * pg_waldump for the end of the shutdown checkpoint.  Who asks while one runs gets another run after it.
 * Promises: the facts of one run are published together, and say when the run began.  "shut down" is published while a
 * postmaster lives only if we told it to stop after it had served: before it has begun to, the file says so as well.
 * Threads: loop, except look() (file worker).
 */
#include "pgs_int.h"
#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TOOL_LIMIT_MS 20000
#define HISTORY_MAX (256 * 1024)

struct pgs_fileswork {
    struct pgs *s; /* not to be touched by the worker */
    struct pgs_conf *conf;
    char state_dir[PGS_PATH_MAX];
    bool scan;     /* no postmaster is watched */
    /* results */
    enum ha_datadir datadir;
    bool has_control;
    bool standby_signal;
    int major;
    struct pgs_scan found;
    uint32_t history_timeline;
    struct dra_buf history;
    char history_mtime[48];
    bool upstream;
    char upstream_host[HA_URL_MAX];
    int upstream_port;
    struct pgs_control control;
    bool control_valid;
    uint64_t checkpoint_end;
};

static int look(void *arg, struct dra_err *err);
static void on_look(int rc, const struct dra_err *err, void *arg);
static void on_controldata(const struct dra_child_result *r, void *arg);
static void on_waldump(const struct dra_child_result *r, void *arg);
static void publish(struct pgs *s);
static void work_free(struct pgs_fileswork *w);
static void publish_processes(struct pgs *s, const struct pgs_fileswork *w);

void pgs_read_files(struct pgs *s)
{
    struct pgs_fileswork *w;

    if (s->closing) {
        return;
    }
    if (s->fr.running) {
        s->fr.again = true;
        return;
    }
    w = calloc(1, sizeof *w);
    if (w == NULL) {
        return;
    }
    w->s = s;
    w->conf = pgs_conf_ref(s->conf);
    dra_str_clip(w->state_dir, sizeof w->state_dir, s->state_dir);
    w->scan = s->pm.pid == 0;
    dra_buf_init(&w->history, HISTORY_MAX);
    s->fr.running = true;
    s->fr.again = false;
    s->fr.asked_at = dra_now();
    s->fr.w = w;
    pgs_ref(s);
    if (dra_fworker_start(s->files, look, on_look, w) != 0) {
        s->fr.running = false;
        s->fr.w = NULL;
        work_free(w);
        pgs_unref(s);
    }
}

/* ---- the look (worker) ----------------------------------------------------------------------------------- */

static void look_history(struct pgs_fileswork *w)
{
    char path[PGS_PATH_MAX + 64];
    const struct dirent *e;
    struct stat sb;
    struct tm tm;
    DIR *d;

    if (dra_str_printf(path, sizeof path, "%s/pg_wal", w->conf->data_dir) != 0 || (d = opendir(path)) == NULL) {
        return;
    }
    while ((e = readdir(d)) != NULL) {
        uint32_t tli = 0;

        if (strlen(e->d_name) != 16 || strcmp(e->d_name + 8, ".history") != 0 ||
            strspn(e->d_name, "0123456789ABCDEF") != 8) {
            continue;
        }
        for (int i = 0; i < 8; i++) {
            char c = e->d_name[i];

            tli = tli * 16 + (uint32_t)(c <= '9' ? c - '0' : c - 'A' + 10);
        }
        w->history_timeline = tli > w->history_timeline ? tli : w->history_timeline;
    }
    closedir(d);
    if (w->history_timeline == 0 ||
        dra_str_printf(path, sizeof path, "%s/pg_wal/%08X.history", w->conf->data_dir, w->history_timeline) != 0 ||
        dra_file_read(path, HISTORY_MAX, &w->history, NULL) != 0) {
        w->history_timeline = 0;
        return;
    }
    if (stat(path, &sb) == 0 && localtime_r(&sb.st_mtim.tv_sec, &tm) != NULL) {
        char day[32];
        char zone[8];

        if (strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm) > 0 && strftime(zone, sizeof zone, "%z", &tm) == 5) {
            /* "+0100" -> "+01:00" */
            if (dra_str_printf(w->history_mtime, sizeof w->history_mtime, "%s.%06ld%.3s:%.2s", day, sb.st_mtim.tv_nsec / 1000, zone,
                               zone + 3) != 0) {
                w->history_mtime[0] = '\0';
            }
        }
    }
}

static void look_upstream(struct pgs_fileswork *w)
{
    char path[PGS_PATH_MAX + 96];
    struct dra_buf text;

    dra_buf_init(&text, 1024 * 1024);
    if (dra_str_printf(path, sizeof path, "%s/%s.conf", w->conf->config_dir, w->conf->base_name) == 0 &&
        dra_file_exists(path) && dra_file_read(path, text.max, &text, NULL) == 0 && pgs_conffile_is_ours(dra_buf_str(&text))) {
        w->upstream = pgs_conffile_upstream(dra_buf_str(&text), w->upstream_host, sizeof w->upstream_host, &w->upstream_port);
    }
    dra_buf_deinit(&text);
}

static bool exists_in(const struct pgs_conf *c, const char *name)
{
    char path[PGS_PATH_MAX + 64];

    return dra_str_printf(path, sizeof path, "%s/%s", c->data_dir, name) == 0 && dra_file_exists(path);
}

static void look_datadir(struct pgs_fileswork *w)
{
    char path[PGS_PATH_MAX + 64];
    struct dra_buf text;
    DIR *d = opendir(w->conf->data_dir);

    if (d == NULL) {
        w->datadir = errno == ENOENT ? HA_DATADIR_EMPTY : HA_DATADIR_UNREADABLE;
        return;
    }
    closedir(d);
    if (pgs_dir_is_empty(w->conf->data_dir)) {
        w->datadir = HA_DATADIR_EMPTY;
        return;
    }
    w->has_control = exists_in(w->conf, "global/pg_control");
    w->datadir = w->has_control ? HA_DATADIR_VALID : HA_DATADIR_UNREADABLE;
    if (pgs_marker_exists(w->state_dir)) {
        w->datadir = HA_DATADIR_UNTRUSTED;
    }
    w->standby_signal = exists_in(w->conf, "standby.signal") || exists_in(w->conf, "recovery.signal");
    dra_buf_init(&text, 64);
    if (dra_str_printf(path, sizeof path, "%s/PG_VERSION", w->conf->data_dir) == 0 &&
        dra_file_read(path, 64, &text, NULL) == 0) {
        const char *v = dra_buf_str(&text);
        int64_t n;

        if (dra_parse_i64(v, strspn(v, "0123456789"), 1, 999, &n) == 0) {
            w->major = (int)n;
        }
    }
    dra_buf_deinit(&text);
    look_history(w);
    look_upstream(w);
}

static int look(void *arg, struct dra_err *err)
{
    struct pgs_fileswork *w = arg;

    (void)err;
    look_datadir(w);
    if (w->scan) {
        pgs_scan_run(w->conf, &w->found);
    }
    return DRA_OK;
}

/* ---- the rest (loop) ------------------------------------------------------------------------------------------ */

static int tool_start(struct pgs *s, const char *const *argv, dra_child_cb cb)
{
    static const char *const env[] = {"LC_ALL=C", "LANG=C", NULL};
    struct dra_child_spec spec = {.argv = argv, .env = env, .not_after = dra_after(dra_now(), dra_ms(TOOL_LIMIT_MS))};
    struct dra_err err;

    return dra_child_start(s->loop, &spec, cb, s, &s->fr.child, &err);
}

static void on_look(int rc, const struct dra_err *err, void *arg)
{
    struct pgs_fileswork *w = arg;
    struct pgs *s = w->s;

    (void)err;
    if (rc == 0 && !s->closing) {
        if (w->found.found && s->pm.pid == 0) {
            s->facts.standby_signal = w->standby_signal; /* what it was started as */
            pgs_postmaster_adopt(s, w->found.pm, false);
        }
        if (w->has_control) {
            const char *const argv[] = {w->conf->tool[PGS_TOOL_CONTROLDATA], "-D", w->conf->data_dir, NULL};

            if (tool_start(s, argv, on_controldata) == 0) {
                return;
            }
        }
    }
    publish(s);
}

static void on_controldata(const struct dra_child_result *r, void *arg)
{
    struct pgs *s = arg;
    struct pgs_fileswork *w = s->fr.w;
    struct dra_err err = {0};
    char text[16385];

    s->fr.child = NULL;
    if (!s->closing && r->err_code == DRA_OK && r->exit_code == 0 && dra_str_copy_n(text, sizeof text, r->out, r->out_len) == 0 &&
        pgs_control_parse(text, &w->control, &err) == 0) {
        w->control_valid = true;
        if (w->control.state == HA_CONTROL_SHUT_DOWN) {
            char wal[PGS_PATH_MAX + 16];
            char lsn[DRA_LSN_STR_MAX];
            char tli[16];
            const char *const argv[] = {w->conf->tool[PGS_TOOL_WALDUMP], "-p", wal, "-t", tli, "-s", lsn, "-n", "2", NULL};

            dra_lsn_format(w->control.checkpoint_lsn, lsn);
            if (dra_str_printf(wal, sizeof wal, "%s/pg_wal", w->conf->data_dir) == 0 &&
                dra_str_printf(tli, sizeof tli, "%u", w->control.timeline) == 0 && tool_start(s, argv, on_waldump) == 0) {
                return;
            }
        }
    } else if (!s->closing) {
        log_linef(LOG_LV_WARNING, "pgs.control", "cannot read the control data: %s", err.code != 0 ? err.msg : "pg_controldata failed");
    }
    publish(s);
}

static void on_waldump(const struct dra_child_result *r, void *arg)
{
    struct pgs *s = arg;
    struct pgs_fileswork *w = s->fr.w;
    struct dra_err err = {0};
    char text[16385];

    s->fr.child = NULL;
    /* It ends with an error, since nothing follows the record. */
    if (r->started && dra_str_copy_n(text, sizeof text, r->out, r->out_len) == 0 &&
        pgs_waldump_parse(text, w->control.checkpoint_lsn, w->control.wal_segment_bytes, &w->checkpoint_end, &err) != 0) {
        w->checkpoint_end = 0;
        log_linef(LOG_LV_WARNING, "pgs.waldump", "the end of the shutdown checkpoint is not known: %s", err.msg);
    }
    publish(s);
}

static void publish_processes(struct pgs *s, const struct pgs_fileswork *w)
{
    struct ha_pg *f = &s->facts;

    f->standby_signal = w->standby_signal;
    if (w->major != 0) {
        f->major = w->major;
    }
    if (!w->scan || s->pm.pid != 0 || w->found.found) {
        return;
    }
    if (s->fr.again && s->exit_unread) {
        return; /* this look began before the postmaster's end */
    }
    if (s->exit_unread) {
        f->gone_orderly = !w->found.pidfile;
        s->exit_unread = false;
    }
    s->pidfile_pid = w->found.pidfile_pid;
    f->postmaster = DRA_NO;
    f->pid = 0;
    f->leftovers = dra_tri_of(w->found.leftovers > 0);
    f->accepting = DRA_NO;
    if (w->found.leftovers > 0) {
        pgs_leftovers_watch(s, w->found.left);
    }
    pgs_kill_again(s, w->found.leftovers > 0);
    if (!pgs_job_is_running(s) && (f->state == HA_STATE_UNKNOWN)) {
        pgs_state_set(s, HA_STATE_STOPPED);
    }
}

static void publish_control(struct pgs *s, const struct pgs_fileswork *w)
{
    struct ha_pg *f = &s->facts;
    bool down = w->control_valid &&
                (w->control.state == HA_CONTROL_SHUT_DOWN || w->control.state == HA_CONTROL_SHUT_DOWN_IN_RECOVERY);
    bool told = dra_is_set(s->stop_signalled_at) && s->fr.asked_at.ns >= s->stop_signalled_at.ns &&
                s->facts.answered_at.ns >= s->adopted_at.ns;

    f->datadir = w->datadir;
    if (w->has_control && !w->control_valid && f->datadir == HA_DATADIR_VALID) {
        f->datadir = HA_DATADIR_UNREADABLE;
    }
    if (w->control_valid) {
        s->control = w->control;
        s->control_valid = true;
        dra_str_clip(f->sysid, sizeof f->sysid, w->control.sysid);
        f->control = w->control.state;
        f->checkpoint_lsn = w->control.checkpoint_lsn;
        f->checkpoint_end_lsn = w->checkpoint_end;
        if (s->pm.pid != 0 && down && !told) {
            f->control = HA_CONTROL_UNKNOWN;
            f->checkpoint_end_lsn = 0;
        }
        f->control_timeline = w->control.timeline;
        f->min_recovery_lsn = w->control.min_recovery_lsn;
        f->min_recovery_timeline = w->control.min_recovery_timeline;
        f->can_rewind = w->control.wal_log_hints || w->control.checksums;
        return;
    }
    s->control_valid = false;
    f->sysid[0] = '\0';
    f->control = HA_CONTROL_UNKNOWN;
    f->checkpoint_lsn = 0;
    f->checkpoint_end_lsn = 0;
    f->control_timeline = 0;
    f->min_recovery_lsn = 0;
    f->min_recovery_timeline = 0;
    f->can_rewind = false;
}

static void publish(struct pgs *s)
{
    struct pgs_fileswork *w = s->fr.w;
    bool again = s->fr.again;

    if (!s->closing) {
        publish_processes(s, w);
        publish_control(s, w);
        s->facts.files_at = s->fr.asked_at;
        free(s->history_text);
        s->history_text = w->history_timeline != 0 ? dra_buf_take(&w->history) : NULL;
        s->history_timeline = s->history_text != NULL ? w->history_timeline : 0;
        dra_str_clip(s->history_mtime, sizeof s->history_mtime, w->history_mtime);
        pgs_take_timeline_begin(s);
        if (!s->facts.upstream_known) {
            s->facts.upstream[0] = '\0';
            s->facts.upstream_conn_url[0] = '\0';
            if (w->upstream && dra_str_printf(s->facts.upstream_conn_url, sizeof s->facts.upstream_conn_url, "postgres://%s%s%s:%d/%s",
                                              strchr(w->upstream_host, ':') != NULL ? "[" : "", w->upstream_host,
                                              strchr(w->upstream_host, ':') != NULL ? "]" : "", w->upstream_port,
                                              s->conf->database) != 0) {
                s->facts.upstream_conn_url[0] = '\0';
            }
        }
    }
    work_free(w);
    s->fr.w = NULL;
    s->fr.running = false;
    if (!s->closing) {
        if (again) {
            pgs_read_files(s);
        } else {
            pgs_job_ev(s, PGS_EV_FILES);
        }
        pgs_changed(s);
    }
    pgs_unref(s);
}

static void work_free(struct pgs_fileswork *w)
{
    pgs_conf_unref(w->conf);
    dra_buf_deinit(&w->history);
    free(w);
}

void pgs_take_timeline_begin(struct pgs *s)
{
    uint32_t tl = s->facts.postmaster == DRA_NO ? s->facts.control_timeline : s->facts.timeline;

    s->facts.timeline_begin_lsn =
        s->history_text != NULL && tl > 1 && s->history_timeline >= tl ? pgs_history_begin(s->history_text, tl) : 0;
}

const char *pgs_history_file(const struct pgs *s, uint32_t timeline, char *mtime_iso, size_t n)
{
    if (s->history_text == NULL || s->history_timeline != timeline) {
        return NULL;
    }
    if (mtime_iso != NULL) {
        dra_str_clip(mtime_iso, n, s->history_mtime);
    }
    return s->history_text;
}

/*
 * control.c - pure parsers for what the server's tools and files say.
 *
 * Promises: bad input is an error or "not found", never a guess; outputs are written only on success.
 * Threads: any.
 */
#include "control.h"

#include <stdlib.h>
#include <string.h>

#define WAL_PAGE 8192u
#define WAL_PAGE_HEADER 24u
#define WAL_SEGMENT_HEADER 40u

static bool line_next(const char **p, const char **line, size_t *len);
static bool field(const char *line, size_t len, const char *name, char *out, size_t out_size);

/* ---- pg_controldata ------------------------------------------------------------------------------- */

static int control_number(const char *v, int64_t *out)
{
    return dra_parse_i64(v, strlen(v), 0, INT64_MAX, out);
}

static int control_line(const char *line, size_t len, struct pgs_control *c)
{
    static const struct {
        const char *name;
        size_t at;
    } limits[] = {
        {"max_connections setting", offsetof(struct pgs_control, max_connections)},
        {"max_worker_processes setting", offsetof(struct pgs_control, max_worker_processes)},
        {"max_wal_senders setting", offsetof(struct pgs_control, max_wal_senders)},
        {"max_prepared_xacts setting", offsetof(struct pgs_control, max_prepared_xacts)},
        {"max_locks_per_xact setting", offsetof(struct pgs_control, max_locks_per_xact)},
    };
    char v[128];
    int64_t n = 0;
    int rc = DRA_OK;

    if (field(line, len, "Database system identifier", v, sizeof v)) {
        return dra_str_copy(c->sysid, sizeof c->sysid, v);
    }
    if (field(line, len, "Database cluster state", v, sizeof v)) {
        c->state = ha_control_from_str(v);
    } else if (field(line, len, "Latest checkpoint location", v, sizeof v)) {
        return dra_lsn_parse(v, &c->checkpoint_lsn);
    } else if (field(line, len, "Latest checkpoint's TimeLineID", v, sizeof v)) {
        rc = control_number(v, &n);
        c->timeline = (uint32_t)n;
    } else if (field(line, len, "Minimum recovery ending location", v, sizeof v)) {
        return dra_lsn_parse(v, &c->min_recovery_lsn);
    } else if (field(line, len, "Min recovery ending loc's timeline", v, sizeof v)) {
        rc = control_number(v, &n);
        c->min_recovery_timeline = (uint32_t)n;
    } else if (field(line, len, "wal_log_hints setting", v, sizeof v)) {
        c->wal_log_hints = strcmp(v, "on") == 0;
    } else if (field(line, len, "Data page checksum version", v, sizeof v)) {
        rc = control_number(v, &n);
        c->checksums = n != 0;
    } else if (field(line, len, "Bytes per WAL segment", v, sizeof v)) {
        rc = control_number(v, &c->wal_segment_bytes);
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(limits); i++) {
        if (field(line, len, limits[i].name, v, sizeof v) && control_number(v, &n) == 0 && n <= INT32_MAX) {
            int value = (int)n;

            memcpy((char *)c + limits[i].at, &value, sizeof value);
        }
    }
    return rc;
}

int pgs_control_parse(const char *text, struct pgs_control *out, struct dra_err *err)
{
    struct pgs_control c = {.max_connections = -1,
                            .max_worker_processes = -1,
                            .max_wal_senders = -1,
                            .max_prepared_xacts = -1,
                            .max_locks_per_xact = -1,
                            .wal_segment_bytes = 16 * 1024 * 1024};
    const char *p = text;
    const char *line;
    size_t len;

    while (line_next(&p, &line, &len)) {
        if (control_line(line, len, &c) != 0) {
            return dra_err_set(err, DRA_EPARSE, "pg_controldata: cannot read \"%.*s\"", (int)len, line);
        }
    }
    if (c.sysid[0] == '\0' || c.timeline == 0 || c.state == HA_CONTROL_UNKNOWN) {
        return dra_err_set(err, DRA_EPARSE, "pg_controldata: system identifier, state or timeline is missing");
    }
    *out = c;
    return DRA_OK;
}

/* ---- pg_waldump -------------------------------------------------------------------------------------- */

uint64_t pgs_record_end(uint64_t lsn, uint32_t len, int64_t segment_bytes)
{
    uint64_t at = lsn;
    uint64_t left = len;

    for (;;) {
        uint64_t room = WAL_PAGE - at % WAL_PAGE;

        if (left <= room) {
            return (at + left + 7) & ~UINT64_C(7);
        }
        left -= room;
        at += room;
        at += at % (uint64_t)segment_bytes == 0 ? WAL_SEGMENT_HEADER : WAL_PAGE_HEADER;
    }
}

int pgs_waldump_parse(const char *text, uint64_t lsn, int64_t segment_bytes, uint64_t *out_end, struct dra_err *err)
{
    const char *p = text;
    const char *line;
    size_t len;
    int records = 0;
    int64_t total = 0;
    bool shutdown = false;

    while (line_next(&p, &line, &len)) {
        char copy[1024];
        const char *at;
        uint64_t got = 0;

        if (len < 5 || memcmp(line, "rmgr:", 5) != 0) {
            continue;
        }
        if (++records > 1) {
            break;
        }
        if (dra_str_copy_n(copy, sizeof copy, line, len) != 0) {
            return dra_err_set(err, DRA_EPARSE, "pg_waldump: line too long");
        }
        at = strstr(copy, "lsn: ");
        if (at != NULL) {
            char word[DRA_LSN_STR_MAX + 4];
            size_t n = strcspn(at + 5, ", ");

            if (dra_str_copy_n(word, sizeof word, at + 5, n) != 0 || dra_lsn_parse(word, &got) != 0) {
                got = 0;
            }
        }
        at = strstr(copy, "len (rec/tot):");
        at = at != NULL ? strchr(at + strlen("len (rec/tot):"), '/') : NULL;
        if (at != NULL) {
            at++;
            at += strspn(at, " ");
            if (dra_parse_i64(at, strcspn(at, ", "), 24, 1 << 20, &total) != 0) {
                total = 0;
            }
        }
        shutdown = got == lsn && strstr(copy, "rmgr: XLOG ") != NULL && strstr(copy, "desc: CHECKPOINT_SHUTDOWN") != NULL;
    }
    if (records != 1 || !shutdown || total == 0) {
        return dra_err_set(err, DRA_ESTATE, "pg_waldump: the last record is no shutdown checkpoint");
    }
    *out_end = pgs_record_end(lsn, (uint32_t)total, segment_bytes);
    return DRA_OK;
}

/* ---- postmaster.pid, history ---------------------------------------------------------------------------- */

int pgs_pidfile_parse(const char *text, struct pgs_pidfile *out)
{
    struct pgs_pidfile f = {0};
    const char *p = text;
    const char *line;
    size_t len;
    int64_t n;

    for (int i = 1; i <= 8 && line_next(&p, &line, &len); i++) {
        while (len > 0 && line[len - 1] == ' ') {
            len--;
        }
        if (i == 1) {
            if (dra_parse_i64(line, len, INT32_MIN, INT32_MAX, &n) != 0 || n == 0) {
                return DRA_EPARSE;
            }
            f.pid = (pid_t)n;
        } else if (i == 3) {
            if (dra_parse_i64(line, len, 0, INT64_MAX, &f.start_time) != 0) {
                return DRA_EPARSE;
            }
        } else if (i == 4 && len > 0) {
            f.port = dra_parse_i64(line, len, 1, 65535, &n) == 0 ? (int)n : 0;
        } else if (i == 8 && dra_str_copy_n(f.status, sizeof f.status, line, len) != 0) {
            f.status[0] = '\0';
        }
    }
    if (f.pid == 0) {
        return DRA_EPARSE;
    }
    *out = f;
    return DRA_OK;
}

/* The next line that is one: parent timeline and where it was left. */
static bool history_next(const char **p, uint32_t *out_tli, uint64_t *out_lsn)
{
    const char *line;
    size_t len;

    while (line_next(p, &line, &len)) {
        char word[DRA_LSN_STR_MAX + 1];
        size_t n;
        int64_t tli;

        while (len > 0 && (*line == ' ' || *line == '\t')) {
            line++;
            len--;
        }
        for (n = 0; n < len && line[n] >= '0' && line[n] <= '9'; n++) {
        }
        if (n == 0 || dra_parse_i64(line, n, 1, UINT32_MAX, &tli) != 0) {
            continue; /* empty line or comment */
        }
        line += n;
        len -= n;
        while (len > 0 && (*line == ' ' || *line == '\t')) {
            line++;
            len--;
        }
        for (n = 0; n < len && line[n] != '\t' && line[n] != ' '; n++) {
        }
        if (dra_str_copy_n(word, sizeof word, line, n) == 0 && dra_lsn_parse(word, out_lsn) == 0) {
            *out_tli = (uint32_t)tli;
            return true;
        }
    }
    return false;
}

bool pgs_history_find(const char *text, uint32_t timeline, uint64_t *out_lsn)
{
    const char *p = text;
    uint32_t tli;
    uint64_t lsn;

    while (history_next(&p, &tli, &lsn)) {
        if (tli == timeline) {
            *out_lsn = lsn;
            return true;
        }
    }
    return false;
}

uint64_t pgs_history_begin(const char *text, uint32_t timeline)
{
    const char *p = text;
    uint64_t begin = 0;
    uint32_t tli;
    uint64_t lsn;

    while (history_next(&p, &tli, &lsn)) {
        if (tli < timeline) {
            begin = lsn;
        }
    }
    return begin;
}

/* ---- lines --------------------------------------------------------------------------------------------------- */

static bool line_next(const char **p, const char **line, size_t *len)
{
    const char *end;

    if (**p == '\0') {
        return false;
    }
    end = strchr(*p, '\n');
    *line = *p;
    *len = end != NULL ? (size_t)(end - *p) : strlen(*p);
    *p = end != NULL ? end + 1 : *p + *len;
    return true;
}

static bool field(const char *line, size_t len, const char *name, char *out, size_t out_size)
{
    size_t n = strlen(name);

    if (len <= n || memcmp(line, name, n) != 0 || line[n] != ':') {
        return false;
    }
    for (n++; n < len && line[n] == ' '; n++) {
    }
    return dra_str_copy_n(out, out_size, line + n, len - n) == 0;
}

/*
 * control.h - what the server's tools and files say: pg_controldata, pg_waldump, postmaster.pid, history files.
 * Pure parsers.
 */
#ifndef PGS_CONTROL_H
#define PGS_CONTROL_H

#include <dragent/base.h>
#include <dragent/world.h>

#include <sys/types.h>

struct pgs_control {
    char sysid[HA_SYSID_MAX];
    enum ha_control_state state;
    uint64_t checkpoint_lsn;
    uint32_t timeline;
    uint64_t min_recovery_lsn;
    uint32_t min_recovery_timeline;
    bool wal_log_hints;
    bool checksums;
    int64_t wal_segment_bytes;
    /* HA-223: what a standby must not stay below; -1 = not said */
    int max_connections;
    int max_worker_processes;
    int max_wal_senders;
    int max_prepared_xacts;
    int max_locks_per_xact;
};
/* Output of `pg_controldata` with LC_ALL=C. */
DRA_MUST_USE int pgs_control_parse(const char *text, struct pgs_control *out, struct dra_err *err);

/* Output of `pg_waldump -s LSN -n 2`: end of the shutdown checkpoint record at `lsn`.  DRA_ESTATE if the record is
 * no shutdown checkpoint or something follows it. */
DRA_MUST_USE int pgs_waldump_parse(const char *text, uint64_t lsn, int64_t segment_bytes, uint64_t *out_end,
                                   struct dra_err *err);
/* Where a record of `len` bytes that begins at `lsn` ends: page headers are skipped, 8-byte aligned. */
uint64_t pgs_record_end(uint64_t lsn, uint32_t len, int64_t segment_bytes);

struct pgs_pidfile {
    pid_t pid;          /* negative: single-user server */
    int64_t start_time; /* epoch seconds */
    int port;
    char status[16];    /* "ready", "standby", "starting", "stopping" or "" */
};
DRA_MUST_USE int pgs_pidfile_parse(const char *text, struct pgs_pidfile *out);

/* Line of `timeline` in the text of a history file: where the history leaves it.  False if there is none. */
bool pgs_history_find(const char *text, uint32_t timeline, uint64_t *out_lsn);
/* Where, by this text, `timeline` begins: the last place that an older one was left.  0 = it is the first. */
uint64_t pgs_history_begin(const char *text, uint32_t timeline);

#endif

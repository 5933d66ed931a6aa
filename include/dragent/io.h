/*
 * io.h - log, clock, loop helpers, child processes, file worker, HTTP and PostgreSQL clients.
 * Library dra_base_io.  Loop thread only, except log_* (any thread) and dra_now (any thread).
 *
 * The contract of every x_start (conventions.md, section 7): non-zero return = nothing was started and the
 * callback never runs; 0 = the callback runs exactly once, later, from the loop.  x_cancel makes it come with
 * DRA_ECANCELED.  Each operation has an absolute deadline.
 */
#ifndef DRAGENT_IO_H
#define DRAGENT_IO_H

#include <dragent/base.h>
#include <dragent/text.h>

#include <sys/types.h>

struct uv_loop_s; /* uv_loop_t */

/* ---- clock --------------------------------------------------------------------------------- */

struct dra_instant dra_now(void); /* CLOCK_BOOTTIME, read now */
/* Wall clock, for people only: "2026-03-01 10:00:00,123" local time (23 characters). */
#define DRA_WALL_STR_MAX 24
void dra_wall_format(char out[DRA_WALL_STR_MAX]);
int64_t dra_wall_seconds(void);
/* ISO-8601 with microseconds and zone ("2026-03-01T10:11:12.131415+00:00") of now. */
void dra_wall_iso(char *out, size_t out_size);
uint64_t dra_entropy(void); /* getrandom */

/* ---- log (conventions.md section 11; CFG-21, CFG-38) ------------------------------------------ */

enum log_level { LOG_LV_DEBUG = 10, LOG_LV_INFO = 20, LOG_LV_WARNING = 30, LOG_LV_ERROR = 40, LOG_LV_CRITICAL = 50 };

struct log_config {
    enum log_level level;
    bool json;                 /* log.type: json */
    char format[256];          /* plain: Python-style record format; "" = default */
    char dateformat[64];
    char dir[512];             /* "" = stderr; else dir/patroni.log with rotation */
    int mode;                  /* -1 = by umask */
    int64_t file_size_bytes;
    int file_num;
    const struct json *static_fields; /* borrowed during log_configure; json only; may be NULL */
};
void log_configure_default(struct log_config *c);
DRA_MUST_USE int log_configure(const struct log_config *c, struct dra_err *err);
/* The first log_configure() starts the writer thread: lines go through a bounded queue and never block the caller.
 * Wait (2 s at most) until all is written: before exec, and before reading a log in a test.  exit() does it. */
void log_flush(void);
bool log_enabled(enum log_level lv);
/* One line = one event.  `event` is a stable name ("ha.promote.start"); `sentence` is the text people grep for; then
 * key/value pairs, ended by NULL:  log_event(LOG_LV_INFO, "ha.rule", "no action. ...", "rule", "leader.hold", NULL).
 * Plain form: "TIME LEVEL: sentence event=ha.rule rule=leader.hold".  Values are quoted when needed.  Never a secret. */
void log_event(enum log_level lv, const char *event, const char *sentence, ...) __attribute__((sentinel));
/* printf style sentence without fields. */
void log_linef(enum log_level lv, const char *event, const char *fmt, ...) DRA_PRINTF(3, 4);

/* ---- one-shot timer that knows BOOTTIME ----------------------------------------------------------- */

struct dra_timer; /* closes asynchronously, frees itself */
typedef void (*dra_timer_cb)(void *arg);
DRA_MUST_USE int dra_timer_open(struct uv_loop_s *loop, dra_timer_cb cb, void *arg, struct dra_timer **out);
void dra_timer_set(struct dra_timer *t, struct dra_instant at); /* replaces; a past instant fires on the next turn */
void dra_timer_stop(struct dra_timer *t);
void dra_timer_close(struct dra_timer *t); /* NULL is fine; the callback never runs afterwards */

/* ---- pid identity: a process by pid and start time; pidfd ------------------------------------------- */

struct dra_proc {
    pid_t pid;             /* 0 = none */
    uint64_t start_ticks;  /* field 22 of /proc/PID/stat */
};
DRA_MUST_USE int dra_proc_identify(pid_t pid, struct dra_proc *out, struct dra_err *err); /* DRA_ENOTFOUND if gone */
bool dra_proc_is_alive(const struct dra_proc *p); /* false for zombies and for a reused pid */
/* Watch a process that is not our child: cb once, when it has ended (a zombie counts as ended). */
struct dra_procwatch;
typedef void (*dra_procwatch_cb)(struct dra_proc p, void *arg);
DRA_MUST_USE int dra_procwatch_open(struct uv_loop_s *loop, struct dra_proc p, dra_procwatch_cb cb, void *arg,
                                    struct dra_procwatch **out, struct dra_err *err);
void dra_procwatch_close(struct dra_procwatch *w);
/* Signal by pidfd, only if it is still that process.  DRA_ENOTFOUND if it is gone. */
DRA_MUST_USE int dra_proc_signal(const struct dra_proc *p, int signo, struct dra_err *err);

/* ---- child processes: argv, own session, no shell ----------------------------------------------------- */

struct dra_child;
struct dra_child_result {
    bool started;          /* false: exec failed */
    int exit_code;         /* -1 if ended by a signal */
    int term_signal;
    const char *out;       /* last part of stdout+stderr (ring of 16 kB); borrowed during the callback */
    size_t out_len;
    int err_code;          /* DRA_OK = exit 0; DRA_ECHILD = other exit, signal or no start (why: in out);
                            * DRA_ETIMEDOUT, DRA_ECANCELED */
};
typedef void (*dra_child_cb)(const struct dra_child_result *r, void *arg);
/* Called with each chunk of output (progress).  Optional. */
typedef void (*dra_child_out_cb)(const char *p, size_t n, void *arg);
struct dra_child_spec {
    const char *const *argv;     /* NULL-terminated; argv[0] looked up in PATH unless it has a slash */
    const char *const *env;      /* NULL = inherit; else additions/overrides "K=V" (a bare "K" removes K) */
    const char *cwd;             /* NULL = keep */
    const char *stdin_data;      /* NULL = /dev/null */
    struct dra_instant not_after;/* kill ladder (SIGTERM, 2 s later SIGKILL to the whole group); unset = none */
    dra_child_out_cb on_output;
    bool stdout_only;            /* keep stderr apart (goes to ours) */
};
DRA_MUST_USE int dra_child_start(struct uv_loop_s *loop, const struct dra_child_spec *spec, dra_child_cb cb, void *arg,
                                 struct dra_child **out, struct dra_err *err);
pid_t dra_child_pid(const struct dra_child *c);
void dra_child_cancel(struct dra_child *c); /* SIGTERM to the group, SIGKILL after 2 s; cb with DRA_ECANCELED */

/* ---- file worker: one thread, an ordered queue ---------------------------------------------------------- */

struct dra_fworker;
typedef int (*dra_fwork_fn)(void *arg, struct dra_err *err);                    /* worker thread; may block */
typedef void (*dra_fwork_cb)(int rc, const struct dra_err *err, void *arg);     /* loop thread */
DRA_MUST_USE int dra_fworker_open(struct uv_loop_s *loop, struct dra_fworker **out, struct dra_err *err);
DRA_MUST_USE int dra_fworker_start(struct dra_fworker *w, dra_fwork_fn fn, dra_fwork_cb cb, void *arg);
void dra_fworker_close(struct dra_fworker *w); /* waits for the running item only; queued ones get DRA_ECANCELED */
/* Whole small files; write is atomic: temp + fsync + rename + fsync of the directory. */
DRA_MUST_USE int dra_file_read(const char *path, size_t max, struct dra_buf *out, struct dra_err *err);
DRA_MUST_USE int dra_file_write_atomic(const char *path, const void *p, size_t n, unsigned mode, struct dra_err *err);
DRA_MUST_USE int dra_file_mkdirs(const char *path, unsigned mode, struct dra_err *err);
DRA_MUST_USE int dra_file_remove_tree(const char *path, struct dra_err *err); /* never follows links; DRA_OK if absent */
bool dra_file_exists(const char *path);

/* ---- HTTP client: curl multi on uv -------------------------------------------------------------------------- */

struct http_client; /* one curl multi, connection reuse per host */
struct http_op;
struct http_tls {   /* all may be NULL */
    const char *cacert, *cert, *key;
    bool verify;
};
struct http_request {
    const char *method; /* "GET", "POST", ... */
    const char *url;
    const char *body;   /* NULL = none */
    size_t body_len;
    const char *const *headers; /* "Name: value", NULL-terminated; NULL = none */
    const struct http_tls *tls; /* copied */
    struct dra_instant not_after;
    size_t max_body;    /* answer larger than this = DRA_ETOOLONG; 0 = 1 MiB */
    int tcp_user_timeout_ms; /* 0 = default 2500 with keepalive 1 s / 1 s / 2 */
    bool fresh_connection;   /* never on a kept one: curl repeats a request by itself if a kept connection was dead */
};
struct http_response {
    int status;          /* HTTP status, 0 if none */
    const char *body;    /* NUL-terminated, borrowed during the callback */
    size_t body_len;
    int err_code;        /* DRA_OK, DRA_ECONN, DRA_ETIMEDOUT, DRA_ECANCELED, DRA_ETOOLONG */
    char err_msg[256];
    struct dra_instant sent_at; /* read before anything was sent */
    bool not_sent;       /* certain: not one byte of the request left (no connection was made) */
    const char *(*header)(const struct http_response *r, const char *name); /* NULL if absent; valid in the callback */
    void *priv;
};
typedef void (*http_cb)(const struct http_response *r, void *arg);
/* For streams: return false to end the stream. */
typedef bool (*http_chunk_cb)(const char *p, size_t n, void *arg);
DRA_MUST_USE int http_client_open(struct uv_loop_s *loop, struct http_client **out, struct dra_err *err);
void http_client_close(struct http_client *c); /* cancels what runs; asynchronous end */
DRA_MUST_USE int http_start(struct http_client *c, const struct http_request *rq, http_cb cb, void *arg,
                            struct http_op **out, struct dra_err *err);
/* Streaming answer: chunks go to on_chunk, the end (or error) to cb.  not_after may be unset: no overall deadline.
 * Only a 2xx answer is a stream: the body of another one is in the response, as with http_start. */
DRA_MUST_USE int http_stream_start(struct http_client *c, const struct http_request *rq, http_chunk_cb on_chunk,
                                   http_cb cb, void *arg, struct http_op **out, struct dra_err *err);
void http_cancel(struct http_op *op);
/* Two bodies of synchronous use in command line tools run a small loop; see agent/ctl. */

/* ---- PostgreSQL client: libpq on uv --------------------------------------------------------------------------- */

struct pgc; /* one connection; reconnects on demand */
struct pgc_result {
    int err_code;            /* DRA_OK, DRA_ECONN, DRA_ETIMEDOUT, DRA_ESQL, DRA_ECANCELED */
    struct dra_err err;      /* sqlstate also of a refused connection (57P03 starting up, 28P01 password ...) */
    int rows, cols;
    const char *(*get)(const struct pgc_result *r, int row, int col); /* NULL = SQL null; borrowed in the callback */
    void *priv;
    struct dra_instant sent_at;
};
typedef void (*pgc_cb)(const struct pgc_result *r, void *arg);
struct pgc_op;
DRA_MUST_USE int pgc_open(struct uv_loop_s *loop, struct pgc **out);
/* Keyword conninfo; host must be an address or a socket directory (DNS blocks) - callers use hostaddr. A change drops
 * the connection.  `name` is used in log lines instead of the conninfo (no secrets). */
DRA_MUST_USE int pgc_configure(struct pgc *c, const char *name, const char *conninfo);
/* Run one statement (simple protocol, or prepared once per connection when prepare_name is given).  Queued one after
 * the other per connection.  Connects first if needed; the deadline covers all. */
DRA_MUST_USE int pgc_query_start(struct pgc *c, const char *prepare_name, const char *sql, struct dra_instant not_after,
                                 pgc_cb cb, void *arg, struct pgc_op **out);
void pgc_cancel(struct pgc_op *op);
void pgc_drop(struct pgc *c);  /* close the socket now; running query gets DRA_ECONN */
void pgc_close(struct pgc *c); /* cancels all; asynchronous end */
bool pgc_is_connected(const struct pgc *c);

#endif

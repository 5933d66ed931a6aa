/*
 * writer.c - a client that commits numbered rows and writes down what was acknowledged, when, and by whom.
 *
 * It is the witness of the cluster tests: what it logged as acknowledged must be found at the end, and two
 * servers must never have acknowledged interleaved.  It knows nothing of the agent.
 *
 *   dra_writer --client ID --log FILE --hosts ADDR[,ADDR...] --user U --dbname D [--port P]
 *              [--rate ROWS_PER_SECOND] [--timeout MS]          (password: PGPASSWORD)
 *
 * It tries all addresses at once and stays with the first that takes writes, as a client with
 * target_session_attrs=read-write and several hosts would, only faster.  With one address it is bound to
 * that server.  Row numbers go up by one with each attempt and are never used again, so that an attempt
 * that got no answer ("unknown") can be told from the next.  Rate 0: as fast as the server answers.
 *
 * Log, one line per event, times in ns of CLOCK_BOOTTIME:
 *   connected NOW HOST | lost NOW HOST REASON
 *   ack N SENT ACKED HOST TIMELINE LSN | refused N SENT NOW HOST SQLSTATE | unknown N SENT NOW HOST REASON
 *
 * SIGTERM or SIGINT ends it after the row that is under way.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)
#define HOSTS_MAX 8
#define RETRY_MS 10
#define TEXT_MAX 64

struct writer {
    const char *client;
    const char *port;
    const char *user;
    const char *dbname;
    char *hosts[HOSTS_MAX]; /* point into the argument */
    int host_count;
    int64_t timeout_ns;
    int64_t period_ns;
    FILE *log;
    uint64_t row;
    PGconn *conn;     /* the one that takes writes, or NULL */
    const char *host; /* its address */
};

struct attempt {
    PGconn *conn;       /* NULL: waiting for next_try_ns */
    short events;       /* what the poll loop waits for */
    int64_t give_up_ns;
    int64_t next_try_ns;
};

enum answer { ANSWER_NONE, ANSWER_ACK, ANSWER_REFUSED, ANSWER_UNKNOWN };

struct row_result {
    enum answer answer;
    char detail[TEXT_MAX]; /* "TIMELINE LSN", an SQLSTATE or a reason */
};

static volatile sig_atomic_t stop_asked;

static void on_signal(int number)
{
    (void)number;
    stop_asked = 1;
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* Wait for a socket, or only for time when fd is -1.  Returns false when the time is up first. */
static bool wait_socket(int fd, short events, int64_t until_ns)
{
    struct pollfd p = {.fd = fd, .events = events};
    int64_t left = until_ns - now_ns();
    struct timespec ts;

    if (left < 0) {
        left = 0;
    }
    ts.tv_sec = left / NS_PER_S;
    ts.tv_nsec = left % NS_PER_S;
    return ppoll(&p, 1, &ts, NULL) > 0;
}

static void attempt_close(struct attempt *a, int64_t next_try_ns)
{
    PQfinish(a->conn);
    a->conn = NULL;
    a->next_try_ns = next_try_ns;
}

static void attempt_start(const struct writer *w, struct attempt *a, int host)
{
    const char *keys[] = {"hostaddr", "port", "user", "dbname", "application_name", "sslmode",
                          "gssencmode", "tcp_user_timeout", "client_encoding", NULL};
    const char *values[] = {w->hosts[host], w->port, w->user, w->dbname, "dra_writer", "disable",
                            "disable", "2000", "UTF8", NULL};
    int64_t now = now_ns();

    a->conn = PQconnectStartParams(keys, values, 0);
    a->events = POLLOUT;
    a->give_up_ns = now + w->timeout_ns;
    if (a->conn == NULL || PQstatus(a->conn) == CONNECTION_BAD) {
        attempt_close(a, now + RETRY_MS * NS_PER_MS);
    }
}

static bool takes_writes(PGconn *conn)
{
    const char *standby = PQparameterStatus(conn, "in_hot_standby"); /* from PostgreSQL 14 */
    const char *read_only = PQparameterStatus(conn, "default_transaction_read_only");

    return !(standby != NULL && strcmp(standby, "on") == 0) &&
           !(read_only != NULL && strcmp(read_only, "on") == 0);
}

/* One step of a connection attempt.  Returns true when it ended in a server that takes writes. */
static bool attempt_step(struct attempt *a)
{
    PostgresPollingStatusType s = PQconnectPoll(a->conn);

    if (s == PGRES_POLLING_OK && takes_writes(a->conn)) {
        return true;
    }
    if (s == PGRES_POLLING_OK || s == PGRES_POLLING_FAILED) {
        attempt_close(a, now_ns() + RETRY_MS * NS_PER_MS);
    } else {
        a->events = s == PGRES_POLLING_READING ? POLLIN : POLLOUT;
    }
    return false;
}

/* Start, or give up, what is due; collect what to poll for.  Returns when to wake up at the latest. */
static int64_t attempts_prepare(const struct writer *w, struct attempt *all, struct pollfd *fds)
{
    int64_t now = now_ns();
    int64_t wake = now + NS_PER_S;

    for (int i = 0; i < w->host_count; i++) {
        struct attempt *a = &all[i];

        if (a->conn != NULL && now >= a->give_up_ns) {
            attempt_close(a, now);
        }
        if (a->conn == NULL && now >= a->next_try_ns) {
            attempt_start(w, a, i);
        }
        fds[i].fd = a->conn != NULL ? PQsocket(a->conn) : -1;
        fds[i].events = a->events;
        fds[i].revents = 0;
        int64_t due = a->conn != NULL ? a->give_up_ns : a->next_try_ns;
        if (due < wake) {
            wake = due;
        }
    }
    return wake;
}

/* Try all addresses at once until one takes writes.  Returns false when asked to stop. */
static bool find_primary(struct writer *w)
{
    struct attempt all[HOSTS_MAX] = {{0}};
    int winner = -1;

    while (winner < 0 && !stop_asked) {
        struct pollfd fds[HOSTS_MAX];
        int64_t left = attempts_prepare(w, all, fds) - now_ns();
        struct timespec ts = {0};

        if (left > 0) {
            ts.tv_sec = left / NS_PER_S;
            ts.tv_nsec = left % NS_PER_S;
        }
        if (ppoll(fds, (nfds_t)w->host_count, &ts, NULL) <= 0) {
            continue;
        }
        for (int i = 0; i < w->host_count && winner < 0; i++) {
            if (fds[i].revents != 0 && attempt_step(&all[i])) {
                winner = i;
            }
        }
    }
    for (int i = 0; i < w->host_count; i++) {
        if (i != winner) {
            PQfinish(all[i].conn);
        }
    }
    if (winner < 0) {
        return false;
    }
    w->conn = all[winner].conn;
    w->host = w->hosts[winner];
    fprintf(w->log, "connected %" PRId64 " %s\n", now_ns(), w->host);
    return true;
}

static void read_result(const PGresult *res, struct row_result *out)
{
    if (PQresultStatus(res) == PGRES_TUPLES_OK) {
        out->answer = ANSWER_ACK;
        snprintf(out->detail, sizeof out->detail, "%s %s", PQgetvalue(res, 0, 0),
                 PQgetvalue(res, 0, 1));
        return;
    }
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    /* ERROR: rolled back for certain.  FATAL, or the connection gone: it may have been committed. */
    bool refused = severity != NULL && strcmp(severity, "ERROR") == 0;

    out->answer = refused ? ANSWER_REFUSED : ANSWER_UNKNOWN;
    snprintf(out->detail, sizeof out->detail, "%s", state != NULL ? state : "connection-lost");
}

/* Collect all results of the statement under way, at most until not_after_ns. */
static struct row_result await_answer(PGconn *conn, int64_t not_after_ns)
{
    struct row_result out = {.answer = ANSWER_NONE};

    for (;;) {
        int flush = PQflush(conn);
        while (!PQisBusy(conn)) {
            PGresult *res = PQgetResult(conn);
            if (res == NULL) {
                return out;
            }
            if (out.answer == ANSWER_NONE || out.answer == ANSWER_ACK) {
                read_result(res, &out);
            }
            PQclear(res);
        }
        short events = (short)(POLLIN | (flush > 0 ? POLLOUT : 0));
        if (!wait_socket(PQsocket(conn), events, not_after_ns)) {
            if (errno == EINTR && now_ns() < not_after_ns) {
                continue;
            }
            out.answer = ANSWER_UNKNOWN;
            snprintf(out.detail, sizeof out.detail, "timeout");
            return out;
        }
        if (PQconsumeInput(conn) == 0) {
            out.answer = ANSWER_UNKNOWN;
            snprintf(out.detail, sizeof out.detail, "connection-lost");
            return out;
        }
    }
}

static void disconnect(struct writer *w, const char *reason)
{
    fprintf(w->log, "lost %" PRId64 " %s %s\n", now_ns(), w->host, reason);
    PQfinish(w->conn);
    w->conn = NULL;
}

static void write_row(struct writer *w)
{
    static const char sql[] =
        "INSERT INTO dra_rows (client, n) VALUES ($1::int, $2::bigint) "
        "RETURNING substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), pg_current_wal_insert_lsn()";
    static const char *const words[] = {"none", "ack", "refused", "unknown"};
    char number[TEXT_MAX];
    const char *values[] = {w->client, number};
    struct row_result r = {.answer = ANSWER_REFUSED, .detail = "not-sent"};

    snprintf(number, sizeof number, "%" PRIu64, ++w->row);
    int64_t sent = now_ns();
    if (PQsendQueryParams(w->conn, sql, 2, NULL, values, NULL, NULL, 0) == 1) {
        r = await_answer(w->conn, sent + w->timeout_ns);
        if (r.answer == ANSWER_NONE) {
            r.answer = ANSWER_UNKNOWN;
            snprintf(r.detail, sizeof r.detail, "no-result");
        }
    }
    fprintf(w->log, "%s %s %" PRId64 " %" PRId64 " %s %s\n", words[r.answer], number, sent, now_ns(),
            w->host, r.detail);
    if (r.answer != ANSWER_ACK) {
        disconnect(w, r.detail);
    }
}

static void run(struct writer *w)
{
    int64_t next = now_ns();

    while (!stop_asked) {
        if (w->conn == NULL) {
            if (!find_primary(w)) {
                break;
            }
            next = now_ns();
        }
        write_row(w);
        next += w->period_ns;
        if (w->conn != NULL && w->period_ns > 0 && now_ns() < next &&
            wait_socket(PQsocket(w->conn), POLLIN, next)) {
            /* The server spoke unasked: it is closing, or tells a parameter. */
            if (PQconsumeInput(w->conn) == 0) {
                disconnect(w, "closed-by-server");
            }
        }
    }
    PQfinish(w->conn);
}

static int split_hosts(struct writer *w, char *list)
{
    char *rest = list;

    for (char *host = strsep(&rest, ","); host != NULL; host = strsep(&rest, ",")) {
        if (*host == '\0' || w->host_count == HOSTS_MAX) {
            return -1;
        }
        w->hosts[w->host_count++] = host;
    }
    return w->host_count > 0 ? 0 : -1;
}

static int64_t to_number(const char *text, int64_t max)
{
    char *end = NULL;

    errno = 0;
    long long v = strtoll(text, &end, 10);
    return errno != 0 || *end != '\0' || end == text || v < 0 || v > max ? -1 : v;
}

static int read_arguments(struct writer *w, int argc, char **argv)
{
    static const struct option options[] = {
        {"client", required_argument, NULL, 'c'},  {"log", required_argument, NULL, 'l'},
        {"hosts", required_argument, NULL, 'h'},   {"port", required_argument, NULL, 'p'},
        {"user", required_argument, NULL, 'u'},    {"dbname", required_argument, NULL, 'd'},
        {"rate", required_argument, NULL, 'r'},    {"timeout", required_argument, NULL, 't'},
        {NULL, 0, NULL, 0}};
    int64_t rate = 100;
    int64_t timeout_ms = 1000;

    for (int c = getopt_long(argc, argv, "", options, NULL); c != -1;
         c = getopt_long(argc, argv, "", options, NULL)) {
        switch (c) {
        case 'c': w->client = optarg; break;
        case 'l': w->log = fopen(optarg, "a"); break;
        case 'h': if (split_hosts(w, optarg) != 0) { return -1; } break;
        case 'p': w->port = optarg; break;
        case 'u': w->user = optarg; break;
        case 'd': w->dbname = optarg; break;
        case 'r': rate = to_number(optarg, 1000000); break;
        case 't': timeout_ms = to_number(optarg, 3600000); break;
        default: return -1;
        }
    }
    if (w->client == NULL || w->log == NULL || w->host_count == 0 || rate < 0 || timeout_ms <= 0) {
        return -1;
    }
    w->period_ns = rate > 0 ? NS_PER_S / rate : 0;
    w->timeout_ns = timeout_ms * NS_PER_MS;
    return 0;
}

int main(int argc, char **argv)
{
    struct writer w = {.port = "5432", .user = "postgres", .dbname = "postgres"};
    struct sigaction act = {.sa_handler = on_signal};

    if (read_arguments(&w, argc, argv) != 0) {
        fprintf(stderr, "usage: dra_writer --client ID --log FILE --hosts ADDR[,ADDR...] [--user U] "
                        "[--dbname D] [--port P] [--rate N] [--timeout MS]\n");
        return 2;
    }
    setvbuf(w.log, NULL, _IOLBF, 0);
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    run(&w);
    return fclose(w.log) == 0 ? 0 : 1;
}

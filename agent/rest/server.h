/*
 * server.h - the parts of struct rest, by thread.  Inside this room only.
 */
#ifndef REST_SERVER_H
#define REST_SERVER_H

#include "handoff.h"
#include "routes.h"
#include "snapshot.h"
#include "target.h"

#include <dragent/rest.h>

#include <pthread.h>
#include <stdint.h>

#include <microhttpd.h>
#include <uv.h>

#define REST_BODY_MAX ((size_t)64 << 10)    /* of a request; more is answered with 413 */
#define REST_DISCARD_MAX ((size_t)4 << 20)  /* beyond it the connection is dropped */
#define REST_CONNECTIONS_MAX 512
#define REST_WAITING_MAX 384                /* suspended ones; the rest stays free for checks that need not wait */
#define REST_CALLS_MAX 64                   /* of these, calls that change something */
#define REST_TARGET_MAX 8192

/* ---- mail ------------------------------------------------------------------------------------------------ */

struct rest_call { /* to the loop */
    struct rest_mail mail;
    struct rest_request rq;
    struct json *body; /* owned; rq.body */
    struct rest_call *next_open;
};
enum rest_note_kind { REST_NOTE_NONE = 0, REST_NOTE_REPLY, REST_NOTE_FRESH, REST_NOTE_CLUSTER, REST_NOTE_AUTH, REST_NOTE_LISTEN, REST_NOTE_STOP };
struct rest_note { /* to the REST thread */
    struct rest_mail mail;
    enum rest_note_kind kind;
    uint64_t id;
    int status;
    char *content_type; /* owned; NULL = text/html */
    char *body;         /* owned; NULL = error page; NOTE_AUTH: the header that is wanted, NULL = none */
    bool ok;
    int fd;             /* NOTE_LISTEN: owned */
};

/* ---- one request, REST thread ----------------------------------------------------------------------------- */

enum rest_wait { REST_WAIT_NONE = 0, REST_WAIT_REPLY, REST_WAIT_FRESH, REST_WAIT_CLUSTER };

struct rest_conn {
    struct rest_server *srv;
    struct rest_conn *prev, *next; /* while waiting: list of srv */
    struct MHD_Connection *c;
    char *raw;                     /* owned: what `target` points into */
    struct rest_target target;
    const struct rest_route *route;/* NULL: 501 */
    char method[16];
    bool begun, probe, no_length, too_large, queued;
    int refused;                   /* 401: not to be carried out, whatever it says */
    const char *refusal;
    char *body;                    /* owned */
    size_t body_len, discarded;

    struct dra_instant asked_at;   /* when it was complete */
    struct dra_instant deadline;   /* while waiting */
    enum rest_wait wait;
    uint64_t id;                   /* REST_WAIT_REPLY */
    uint64_t round;                /* REST_WAIT_CLUSTER: the read that is new enough */
    int rounds_waited;
    bool gave_up;                  /* fresh: not in time */
    bool cluster_done, cluster_ok;
    bool replied;                  /* the fields below are its answer */
    int status;
    char *content_type, *reply;    /* owned */
};

struct rest_door { /* one listener */
    struct MHD_Daemon *daemon; /* NULL = none */
    int epoll_fd;
};

struct rest_server { /* REST thread only, once it runs */
    struct rest *r;
    struct rest_door now, old; /* old: closed for new connections, serves what it has */
    struct rest_snap *snap;    /* owned */
    char *auth;                /* owned; "Basic ..." that is wanted; NULL = open */
    struct rest_conn *waiting;
    int n_waiting, n_calls, n_queued;
    uint64_t next_id;
    bool fresh_asked;
    bool cluster_asked;
    uint64_t cluster_round;    /* of the read that was asked for last */
    bool stopping;
    struct dra_instant opened_at;
};

struct rest {
    /* both threads */
    struct rest_slot slot; /* of struct rest_snap */
    struct rest_mailbox to_loop, to_thread;
    int bell_fd;           /* eventfd: mail for the thread */
    uv_async_t bell;       /* mail for the loop */

    /* loop thread */
    struct conf_rest cfg;
    rest_request_cb cb;
    void *arg;
    struct rest_call *open; /* not replied yet */
    struct rest_note *stop; /* owned until rest_close(): the end must not fail for want of memory */
    pthread_t thread;
    int port;
    bool closing;

    struct rest_server srv;
};

/* listen.c: a bound, listening, close-on-exec socket.  may_resolve: host names may be looked up (blocks). */
DRA_MUST_USE int rest_listen(const char *host, int port, bool may_resolve, int *out_fd, int *out_port, struct dra_err *err);

/* thread.c */
void *rest_thread_main(void *srv);
DRA_MUST_USE int rest_door_open(struct rest_server *s, int fd, struct rest_door *out, struct dra_err *err); /* takes fd */
void rest_note_free(struct rest_note *n);
void rest_call_free(struct rest_call *c);
/* Send to the loop; takes body.  False: out of memory. */
bool rest_call_send(struct rest_server *s, uint64_t id, enum rest_kind kind, struct json *body);
/* Suspend until the note comes or the deadline passes. */
void rest_wait_begin(struct rest_conn *rc, enum rest_wait wait, struct dra_instant deadline);

/* answer.c: the handlers of the daemon */
void *rest_on_uri(void *srv, const char *uri, struct MHD_Connection *c);
enum MHD_Result rest_on_request(void *srv, struct MHD_Connection *c, const char *url, const char *method, const char *version,
                                const char *data, size_t *data_size, void **ctx);
void rest_on_completed(void *srv, struct MHD_Connection *c, void **ctx, enum MHD_RequestTerminationCode why);

/* page.c */
struct rest_page {
    int status;
    const char *content_type; /* NULL = text/html */
    const char *body;         /* NULL = "" */
    const char *header, *header_value; /* one more; may be NULL */
};
enum MHD_Result rest_page_send(struct rest_conn *rc, const struct rest_page *p);
enum MHD_Result rest_page_error(struct rest_conn *rc, int status); /* REST-06 */

#endif

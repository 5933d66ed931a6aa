/*
 * etcd_fixture.h - real etcd members on loopback, a scripted server, and blocking helpers around
 * the store, for test_etcd. Everything that was started ends with the test: members die with their
 * parent, and etcds_stop() removes their folder.
 */
#ifndef ETCD_FIXTURE_H
#define ETCD_FIXTURE_H

#include "consensus/etcd/etcd.h"

#include <sys/types.h>
#include <uv.h>

#define MEMBERS_MAX 3

/* ---- etcd members ---- */

struct member {
    pid_t pid; /* 0 = not running */
    int client_port, peer_port;
    char url[64];  /* http(s)://127.0.0.1:PORT */
    char host[32]; /* 127.0.0.1:PORT */
    char data_dir[128];
};
struct etcds {
    int n;
    char dir[64];
    struct member m[MEMBERS_MAX];
    const char *const *extra_args; /* NULL-terminated; may be NULL */
    bool tls;                      /* certificates are in dir */
};
void etcds_init(struct etcds *s, int n);
void member_start(struct etcds *s, int i);
void member_signal(struct etcds *s, int i, int signo); /* SIGKILL also reaps */
void etcds_start(struct etcds *s);                     /* all, and waits until they answer */
void etcds_stop(struct etcds *s);
int etcds_leader(struct etcds *s); /* index, asked from the members; -1 = none */
/* Run a program to its end; its exit status. */
int run_program(const char *const *argv);
/* etcdctl at one member: words after "--endpoints=...". */
int etcdctl(struct etcds *s, int i, const char *const *words);

/* ---- loop and store ---- */

struct rig {
    uv_loop_t loop;
    struct http_client *http;
};
void rig_open(struct rig *r);
void rig_close(struct rig *r); /* runs the loop empty: a handle that was forgotten fails the test */
void rig_run_ms(struct rig *r, int ms);
bool rig_until(struct rig *r, bool (*pred)(void *), void *arg, int timeout_ms);
int64_t ms_since(struct dra_instant t);
struct dra_instant in_ms(int ms);

struct timing {
    int ttl_ms, loop_wait_ms, retry_ms;
};
extern const struct timing quick; /* 5000, 1000, 2000 */
struct dcs *store_open(struct rig *r, const char *section_json, const char *prefix,
                       const struct timing *t);
/* "hosts":["...",...] of members, in the order of the indexes in `order` ("021"). */
const char *hosts_of(const struct etcds *s, const char *order, const char *more);

struct dcs_answer do_txn(struct rig *r, struct dcs *d, const struct dcs_txn *t, int ms);
struct dcs_answer do_put(struct rig *r, struct dcs *d, const char *key, const char *value,
                         int64_t lease);
struct dcs_answer do_create(struct rig *r, struct dcs *d, const char *key, const char *value,
                            int64_t lease);
struct dcs_answer do_grant(struct rig *r, struct dcs *d, int64_t ttl_s, int ms);
struct dcs_answer do_keepalive(struct rig *r, struct dcs *d, int64_t lease, int ms);
struct dcs_answer do_read(struct rig *r, struct dcs *d, int ms);
struct dcs_answer do_remove(struct rig *r, struct dcs *d);

/* ---- what a watch told ---- */

struct view {
    struct dcs_snapshot *last; /* a reference */
    int snapshots, stales;
    int64_t highest; /* revision */
    bool went_back;  /* a snapshot was older than the one before */
    char why[256];   /* of the last stale() */
    bool stale_now;
};
void view_watch(struct view *v, struct dcs *d);
void view_deinit(struct view *v);

/* Predicates for rig_until(): of a struct view, and of a struct etcd. */
bool has_snapshot(void *view);
bool is_stale(void *view);
bool is_current(void *view);
bool leader_is_a(void *view);
bool leader_is_b(void *view);
bool leader_is_gone(void *view);
bool watch_is_live(void *etcd);
struct etcd *inside(struct dcs *d);

/* ---- a scripted HTTP server ---- */

struct fake;
struct fake_answer {
    int status;       /* 0 = never answer */
    const char *body; /* whole body; NULL = "" */
    bool keep_open;   /* a stream: chunked, not ended */
    bool drop;        /* read the request, then close the connection */
};
typedef struct fake_answer (*fake_cb)(const char *path, const char *body, void *arg);
struct fake *fake_open(struct rig *r, fake_cb cb, void *arg);
int fake_port(const struct fake *f);
void fake_close(struct fake *f);
int free_port(void);

#endif

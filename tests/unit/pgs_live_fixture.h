/*
 * pgs_live_fixture.h - two nodes, a loop, and ways to wait for what they do.  For test_pgs_live.c.
 */
#ifndef PGS_LIVE_FIXTURE_H
#define PGS_LIVE_FIXTURE_H

#include <dragent/pgs.h>

#include <uv.h>

#define WAIT_MS 60000

struct node {
    const char *name;
    char dir[256];
    char state[256];
    char url[128];
    int port;
    struct json *conf;
    struct pgs *pgs;
    int changes;
    int forks;
    struct dra_proc forked;
    bool go; /* answer to forked */
    bool done;
    struct ha_job_result r;
};

struct live {
    uv_loop_t *loop;
    struct dra_fworker *files;
    char dir[128];
    char bin[128];
    struct node a, b;
    uint64_t next_id;
    bool effect_done;
    int effect_rc;
    struct ha_upstream_check check;
    bool check_done;
};
extern struct live t;

struct query {
    bool done;
    int rc;
    char value[128];
};


bool wait_for(bool (*cond)(void *), void *arg, int64_t limit_ms);
bool job_is_done(void *arg);
void job_begin(struct node *n, const struct ha_job *job, const char *url);
const struct ha_job_result *job_run(struct node *n, const struct ha_job *job, const char *url);
void job_ok(struct node *n, enum ha_job_kind kind, const struct node *member);
const struct ha_pg *probe(struct node *n);
const struct ha_pg *read_files(struct node *n);
void on_effect(int rc, const struct dra_err *err, void *arg);
void effect_ok(void);
void on_check(const struct ha_upstream_check *r, void *arg);
bool check_is_done(void *arg);
bool never(void *arg);
bool becomes(struct node *n, bool streaming, int64_t limit_ms);
void on_query(const struct pgc_result *r, void *arg);
struct pgc *connect_to(struct node *n, const char *user, const char *password);
const char *query(struct node *n, const char *sql);
bool has_file(const struct node *n, const char *name);
void node_configure(struct node *n, const char *more);
void node_open(struct node *n, const char *name);
void script(const char *name, const char *body);
int setup(void **state);
bool is_gone(void *arg);
int teardown(void **state);

#endif

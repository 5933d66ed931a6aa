/*
 * ctl.h - the parts of dragentctl and what they ask of each other.  Inside this folder only.
 *
 *   main.c      argv[0], exit code             args.c     options, usage errors, help
 *   setup.c     configuration, store, scope    net.c      the small loop: cluster reads, REST calls
 *   prompt.c    questions, times               table.c    pretty, tsv, json, yaml
 *   members.c   the member table               select.c   which members a command means
 *   cmd_*.c     the commands
 *
 * One thread.  Every wait has a deadline except those for a person's answer.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include <dragent/conf.h>
#include <dragent/dcs.h>
#include <dragent/io.h>
#include <dragent/model.h>
#include <dragent/text.h>

#include <stdio.h>

#define CTL_ARGS_MAX 128
#define CTL_EXIT_USAGE 2

/* ---- args.c ---------------------------------------------------------------------------------------------- */

enum ctl_opt {
    CTL_OPT_NONE = 0,
    CTL_OPT_FORMAT,
    CTL_OPT_EXTENDED,
    CTL_OPT_TIMESTAMP,
    CTL_OPT_W2,
    CTL_OPT_WATCH,
    CTL_OPT_GROUP,
    CTL_OPT_ROLE,
    CTL_OPT_FORCE,
    CTL_OPT_ANY,
    CTL_OPT_SCHEDULED,
    CTL_OPT_PG_VERSION,
    CTL_OPT_PENDING,
    CTL_OPT_TIMEOUT,
    CTL_OPT_FROM_LEADER,
    CTL_OPT_WAIT,
    CTL_OPT_LEADER,
    CTL_OPT_CANDIDATE,
    CTL_OPT_QUIET,
    CTL_OPT_SET,
    CTL_OPT_PG,
    CTL_OPT_APPLY,
    CTL_OPT_REPLACE,
    CTL_OPT_HELP,
    CTL_OPT_COUNT
};

struct ctl;
struct ctl_command {
    const char *name;
    const char *args;                 /* for the usage line: "[CLUSTER_NAME]" */
    const char *help;
    int min_args, max_args;           /* positionals */
    const char *missing;              /* name of the first mandatory one */
    const enum ctl_opt *options;      /* ended by CTL_OPT_NONE */
    int (*run)(struct ctl *c);
};
extern const struct ctl_command ctl_commands[];
size_t ctl_command_count(void);

struct ctl_args {
    const char *config_file, *dcs_url;
    bool config_given; /* by option or environment: it has to exist */
    bool insecure;
    const struct ctl_command *command;
    int n_pos;
    const char *pos[CTL_ARGS_MAX];
    const char *value[CTL_OPT_COUNT]; /* last value; "" for a flag that is set; NULL = absent */
    int n_sets;
    struct {
        enum ctl_opt opt;
        const char *value;
    } sets[CTL_ARGS_MAX]; /* --set and --pg in their order */
};
/* 0: go on.  Otherwise everything has been said: *out_exit is the exit code. */
int ctl_args_parse(const char *prog, int argc, char **argv, struct ctl_args *a, int *out_exit);
int ctl_usage_error(const struct ctl *c, const char *fmt, ...) DRA_PRINTF(2, 3); /* returns 2 */

/* ---- setup.c, net.c ------------------------------------------------------------------------------------------ */

struct ctl {
    const char *prog; /* "dragentctl", or "patronictl" when installed under that name */
    struct ctl_args args;
    struct json *config; /* owned; effective (CFG-04) without the dynamic part */
    char scope[HA_NAME_MAX]; /* of the configuration, "" = none */
    char ns[HA_NAME_MAX];
    struct dra_span retry_timeout;
    char auth_header[1024];  /* "Authorization: Basic ...", "" = none */
    struct http_tls tls;     /* borrows from config */
    struct uv_loop_s *loop;  /* owned */
    struct http_client *http;
    struct ctl_store *store; /* of the cluster read last */

};
/* Reads the configuration.  0, or an exit code after an Error line. */
int ctl_setup(struct ctl *c, struct conf_env *env);
void ctl_teardown(struct ctl *c);
/* "Error: ..." on stderr; returns 1. */
int ctl_error(const char *fmt, ...) DRA_PRINTF(1, 2);
/* The cluster of `scope`, read now (linearizable).  0 or an exit code after an Error line.  Caller unrefs. */
int ctl_cluster(struct ctl *c, const char *scope, struct dcs_snapshot **out);
/* One transaction, one deletion of the whole prefix, on the store of the last ctl_cluster(). */
int ctl_txn(struct ctl *c, const struct dcs_txn *t, struct dcs_answer *out);
int ctl_delete_prefix(struct ctl *c, struct dcs_answer *out);

struct ctl_call { /* one REST call; results are filled */
    const char *api_url; /* its path is replaced */
    const char *method, *path, *body;
    int64_t timeout_ms;
    int status;          /* 0 = no HTTP answer */
    int err_code;        /* why, DRA_E... */
    struct dra_buf answer;
    char error[256];
    struct ctl *c;       /* inside */
    int tries;
    int *open;
    struct dra_instant not_after;
};
/* Run all of them at the same time until each has ended.  Answers are to be freed by ctl_call_deinit(). */
void ctl_calls(struct ctl *c, struct ctl_call *calls, size_t n);
void ctl_call_deinit(struct ctl_call *call);
/* Wait without looking at anything. */
void ctl_pause(struct ctl *c, int64_t ms);
/* "http://h:8008/patroni" + "/restart" -> "http://h:8008/restart" */
DRA_MUST_USE int ctl_url(const char *api_url, const char *path, char *out, size_t out_size);

/* ---- prompt.c -------------------------------------------------------------------------------------------------- */

/* CLI-09.  Each prints the text as it stands; end of input ends the program with "Aborted!". */
void ctl_prompt(const char *text, const char *def, char *out, size_t out_size);
bool ctl_confirm(const char *text);
void ctl_on_interrupt(void); /* Ctrl-C: Aborted!, exit code 1 */

#define CTL_TIME_MAX 40
void ctl_now(char out[CTL_TIME_MAX], bool fraction);           /* CLI-10 */
void ctl_example_time(char out[CTL_TIME_MAX]);                 /* now + 1 h, to the minute */
/* CLI-11: "" and "now" give "".  DRA_EPARSE. */
DRA_MUST_USE int ctl_schedule(const char *text, char out[CTL_TIME_MAX]);

/* ---- table.c ------------------------------------------------------------------------------------------------------ */

enum ctl_format { CTL_FMT_PRETTY = 0, CTL_FMT_TSV, CTL_FMT_JSON, CTL_FMT_YAML, CTL_FMT_TOPOLOGY };
struct ctl_column {
    const char *key;   /* name in tsv, json, yaml */
    const char *title; /* in pretty; NULL = not shown there */
    bool right;
};
/* rows: array of objects; a missing key is an empty cell.  title NULL = none.  omit_empty: json leaves empty values out. */
void ctl_table(const struct ctl_column *columns, size_t n_columns, const struct json *rows, const char *title, bool omit_empty,
               enum ctl_format format, struct dra_buf *out);
enum ctl_format ctl_format_of(const struct ctl *c);
void ctl_print(struct dra_buf *b); /* to stdout, and empties it */

/* ---- members.c ------------------------------------------------------------------------------------------------------ */

/* The member table of one cluster (CLI-30 .. 35) from the data of GET /cluster. */
void ctl_members_table(const struct json *view, const char *scope, const char *initialize, bool extended, enum ctl_format format,
                       struct dra_buf *out);
/* Reads nothing: prints the table of a snapshot. */
int ctl_members_print(const struct dcs_snapshot *s, const char *scope, bool extended, enum ctl_format format);

/* ---- select.c --------------------------------------------------------------------------------------------------------- */

struct ctl_selection {
    int n;
    int index[HA_MEMBERS_MAX]; /* into the snapshot's members, in order */
};
bool ctl_role_known(const char *role);
bool ctl_has_role(const struct ha_cluster *c, int member, const char *role); /* CLI-14 */
/* CLI-40.  0 or an exit code. */
int ctl_select(struct ctl *c, const struct dcs_snapshot *s, const char *action, const char *role, struct ctl_selection *out);
int ctl_confirm_members(struct ctl *c, const struct dcs_snapshot *s, const char *action, const struct ctl_selection *sel);
void ctl_names(const struct dcs_snapshot *s, const struct ctl_selection *sel, struct dra_buf *out); /* "a, b" */
const char *ctl_scope(struct ctl *c); /* first positional, else the configuration's; NULL after a usage error */
int64_t ctl_loop_wait(const struct dcs_snapshot *s); /* whole seconds, default 10 */

/* ---- the commands -------------------------------------------------------------------------------------------------------- */

int ctl_cmd_list(struct ctl *c);
int ctl_cmd_topology(struct ctl *c);
int ctl_cmd_switchover(struct ctl *c);
int ctl_cmd_failover(struct ctl *c);
int ctl_cmd_show_config(struct ctl *c);
int ctl_cmd_edit_config(struct ctl *c);
int ctl_cmd_pause(struct ctl *c);
int ctl_cmd_resume(struct ctl *c);
int ctl_cmd_restart(struct ctl *c);
int ctl_cmd_reload(struct ctl *c);
int ctl_cmd_reinit(struct ctl *c);
int ctl_cmd_history(struct ctl *c);
int ctl_cmd_version(struct ctl *c);
int ctl_cmd_explain(struct ctl *c);
int ctl_cmd_remove(struct ctl *c);

#endif

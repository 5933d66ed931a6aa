/*
 * args.c - the command line (CLI-01, CLI-02, CLI-07, CLI-15): global options, the command, then its options and positionals in
 * any order.  No abbreviations.
 */
#include "ctl.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const struct opt_row {
    enum ctl_opt opt;
    const char *names[4]; /* every spelling */
    bool takes_value;
    const char *help;
} opt_rows[] = {
    {CTL_OPT_FORMAT, {"-f", "--format"}, true, "Output format (pretty, tsv, json, yaml, yml)"},
    {CTL_OPT_EXTENDED, {"-e", "--extended"}, false, "Show some extra information"},
    {CTL_OPT_TIMESTAMP, {"-t", "--timestamp"}, false, "Print timestamp"},
    {CTL_OPT_W2, {"-W"}, false, "Auto update the screen every 2 seconds"},
    {CTL_OPT_WATCH, {"-w", "--watch"}, true, "Auto update the screen every X seconds"},
    {CTL_OPT_GROUP, {"--group"}, true, "Citus group"},
    {CTL_OPT_ROLE, {"-r", "--role"}, true, "Only members with this role"},
    {CTL_OPT_FORCE, {"--force"}, false, "Do not ask for confirmation at any point"},
    {CTL_OPT_ANY, {"--any"}, false, "Restart a single member only"},
    {CTL_OPT_SCHEDULED, {"--scheduled"}, true, "Timestamp in unambiguous format (e.g. ISO 8601)"},
    {CTL_OPT_PG_VERSION, {"--pg-version"}, true, "Restart if the PostgreSQL version is less than provided (e.g. 9.5.2)"},
    {CTL_OPT_PENDING, {"--pending"}, false, "Restart if pending"},
    {CTL_OPT_TIMEOUT, {"--timeout"}, true, "Return error and fail over if necessary when restarting takes longer than this"},
    {CTL_OPT_FROM_LEADER, {"--from-leader"}, false, "Copy from the leader"},
    {CTL_OPT_WAIT, {"--wait"}, false, "Wait until it is done"},
    {CTL_OPT_LEADER, {"--leader", "--primary", "--master"}, true, "The name of the current leader"},
    {CTL_OPT_CANDIDATE, {"--candidate"}, true, "The name of the candidate"},
    {CTL_OPT_QUIET, {"-q", "--quiet"}, false, "Do not show changes"},
    {CTL_OPT_SET, {"-s", "--set"}, true, "Set specific configuration value (key=value)"},
    {CTL_OPT_PG, {"-p", "--pg"}, true, "Set specific PostgreSQL parameter value (key=value)"},
    {CTL_OPT_APPLY, {"--apply"}, true, "Apply configuration from file (- for stdin)"},
    {CTL_OPT_REPLACE, {"--replace"}, true, "Replace configuration by file (- for stdin)"},
    {CTL_OPT_HELP, {"--help"}, false, "Show this message and exit"},
};

#define OPTS(...) (const enum ctl_opt[]){__VA_ARGS__, CTL_OPT_NONE}
const struct ctl_command ctl_commands[] = {
    {"edit-config", "[CLUSTER_NAME]", "Edit cluster configuration", 0, 1, NULL,
     OPTS(CTL_OPT_GROUP, CTL_OPT_QUIET, CTL_OPT_SET, CTL_OPT_PG, CTL_OPT_APPLY, CTL_OPT_REPLACE, CTL_OPT_FORCE), ctl_cmd_edit_config},
    {"explain", "[MEMBER_NAMES]...", "Show which rule holds on each member, and why", 0, CTL_ARGS_MAX, NULL, OPTS(CTL_OPT_FORMAT), ctl_cmd_explain},
    {"failover", "[CLUSTER_NAME]", "Failover to a replica", 0, 1, NULL, OPTS(CTL_OPT_GROUP, CTL_OPT_CANDIDATE, CTL_OPT_FORCE), ctl_cmd_failover},
    {"history", "[CLUSTER_NAME]", "Show the history of failovers/switchovers", 0, 1, NULL, OPTS(CTL_OPT_GROUP, CTL_OPT_FORMAT), ctl_cmd_history},
    {"list", "[CLUSTER_NAMES]...", "List the Patroni members for a given Patroni", 0, CTL_ARGS_MAX, NULL,
     OPTS(CTL_OPT_GROUP, CTL_OPT_EXTENDED, CTL_OPT_TIMESTAMP, CTL_OPT_FORMAT, CTL_OPT_W2, CTL_OPT_WATCH), ctl_cmd_list},
    {"pause", "[CLUSTER_NAME]", "Disable auto failover", 0, 1, NULL, OPTS(CTL_OPT_GROUP, CTL_OPT_WAIT), ctl_cmd_pause},
    {"reinit", "CLUSTER_NAME [MEMBER_NAMES]...", "Reinitialize cluster member", 1, CTL_ARGS_MAX, "CLUSTER_NAME",
     OPTS(CTL_OPT_GROUP, CTL_OPT_FORCE, CTL_OPT_FROM_LEADER, CTL_OPT_WAIT), ctl_cmd_reinit},
    {"reload", "CLUSTER_NAME [MEMBER_NAMES]...", "Reload cluster member configuration", 1, CTL_ARGS_MAX, "CLUSTER_NAME",
     OPTS(CTL_OPT_GROUP, CTL_OPT_ROLE, CTL_OPT_FORCE), ctl_cmd_reload},
    {"remove", "CLUSTER_NAME", "Remove cluster from DCS", 1, 1, "CLUSTER_NAME", OPTS(CTL_OPT_GROUP, CTL_OPT_FORMAT), ctl_cmd_remove},
    {"restart", "CLUSTER_NAME [MEMBER_NAMES]...", "Restart cluster member", 1, CTL_ARGS_MAX, "CLUSTER_NAME",
     OPTS(CTL_OPT_GROUP, CTL_OPT_ROLE, CTL_OPT_ANY, CTL_OPT_SCHEDULED, CTL_OPT_PG_VERSION, CTL_OPT_PENDING, CTL_OPT_TIMEOUT, CTL_OPT_FORCE),
     ctl_cmd_restart},
    {"resume", "[CLUSTER_NAME]", "Resume auto failover", 0, 1, NULL, OPTS(CTL_OPT_GROUP, CTL_OPT_WAIT), ctl_cmd_resume},
    {"show-config", "[CLUSTER_NAME]", "Show cluster configuration", 0, 1, NULL, OPTS(CTL_OPT_GROUP), ctl_cmd_show_config},
    {"switchover", "[CLUSTER_NAME]", "Switchover to a replica", 0, 1, NULL,
     OPTS(CTL_OPT_GROUP, CTL_OPT_LEADER, CTL_OPT_CANDIDATE, CTL_OPT_SCHEDULED, CTL_OPT_FORCE), ctl_cmd_switchover},
    {"topology", "[CLUSTER_NAMES]...", "Prints ASCII topology for given cluster", 0, CTL_ARGS_MAX, NULL,
     OPTS(CTL_OPT_GROUP, CTL_OPT_W2, CTL_OPT_WATCH), ctl_cmd_topology},
    {"version", "[CLUSTER_NAME] [MEMBER_NAMES]...", "Output version of this command or a running Patroni instance", 0, CTL_ARGS_MAX, NULL,
     OPTS(CTL_OPT_GROUP), ctl_cmd_version},
};

size_t ctl_command_count(void)
{
    return DRA_ARRAY_LEN(ctl_commands);
}

/* ---- what is said ----------------------------------------------------------------------------------------- */

static int usage(const char *prog, const struct ctl_command *cmd, const char *fmt, ...) DRA_PRINTF(3, 4);
static int usage(const char *prog, const struct ctl_command *cmd, const char *fmt, ...)
{
    va_list ap;
    if (cmd == NULL) {
        (void)fprintf(stderr, "Usage: %s [OPTIONS] COMMAND [ARGS]...\nTry '%s --help' for help.\n\nError: ", prog, prog);
    } else {
        (void)fprintf(stderr, "Usage: %s %s [OPTIONS] %s\nTry '%s %s --help' for help.\n\nError: ", prog, cmd->name, cmd->args, prog,
                      cmd->name);
    }
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    return CTL_EXIT_USAGE;
}

int ctl_usage_error(const struct ctl *c, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return usage(c->prog, c->args.command, "%s", text);
}

static void help_main(const char *prog)
{
    (void)printf("Usage: %s [OPTIONS] COMMAND [ARGS]...\n\n  Command-line interface for interacting with the cluster.\n\nOptions:\n"
                 "  -c, --config-file TEXT          Configuration file or directory\n"
                 "  -d, --dcs-url, --dcs TEXT       The DCS connect url\n"
                 "  -k, --insecure                  Allow connections to SSL sites without certs\n"
                 "  --help                          Show this message and exit.\n\nCommands:\n",
                 prog);
    for (size_t i = 0; i < ctl_command_count(); i++) {
        (void)printf("  %-15s %s\n", ctl_commands[i].name, ctl_commands[i].help);
    }
}

static const struct opt_row *row_of(enum ctl_opt opt)
{
    for (size_t i = 0; i < DRA_ARRAY_LEN(opt_rows); i++) {
        if (opt_rows[i].opt == opt) {
            return &opt_rows[i];
        }
    }
    return NULL;
}

static void help_command(const char *prog, const struct ctl_command *cmd)
{
    (void)printf("Usage: %s %s [OPTIONS] %s\n\n  %s\n\nOptions:\n", prog, cmd->name, cmd->args, cmd->help);
    for (const enum ctl_opt *o = cmd->options; *o != CTL_OPT_NONE; o++) {
        const struct opt_row *r = row_of(*o);
        char left[64] = "";
        size_t n = 0;
        if (r == NULL) {
            continue;
        }
        for (size_t i = 0; i < DRA_ARRAY_LEN(r->names) && r->names[i] != NULL && n < sizeof left; i++) {
            n += (size_t)snprintf(left + n, sizeof left - n, "%s%s", i == 0 ? "" : ", ", r->names[i]);
        }
        (void)printf("  %s%s\n      %s\n", left, r->takes_value ? " TEXT" : "", r->help);
    }
    (void)printf("  --help\n      Show this message and exit.\n");
}

/* ---- one option ----------------------------------------------------------------------------------------------- */

struct cursor {
    const char *prog;
    int argc, i;
    char **argv;
};

/* The value of an option: behind "=" (long), behind the letter (short), or the next word.  NULL: missing. */
static const char *value_at(struct cursor *at, const char *attached)
{
    if (attached != NULL) {
        return attached;
    }
    return at->i + 1 < at->argc ? at->argv[++at->i] : NULL;
}

static const struct opt_row *find_option(const struct ctl_command *cmd, const char *name, size_t len)
{
    const struct opt_row *help = row_of(CTL_OPT_HELP);
    for (const enum ctl_opt *o = cmd->options;; o++) {
        const struct opt_row *r = *o == CTL_OPT_NONE ? help : row_of(*o);
        for (size_t i = 0; r != NULL && i < DRA_ARRAY_LEN(r->names) && r->names[i] != NULL; i++) {
            if (strlen(r->names[i]) == len && memcmp(r->names[i], name, len) == 0) {
                return r;
            }
        }
        if (*o == CTL_OPT_NONE) {
            return NULL;
        }
    }
}

static int store_option(struct cursor *at, struct ctl_args *a, const struct opt_row *r, const char *attached)
{
    const char *v = "";
    const char *name = r->names[1] == NULL || r->names[0][1] == '-' ? r->names[0] : r->names[1];
    if (r->takes_value) {
        v = value_at(at, attached);
        if (v == NULL) {
            return usage(at->prog, a->command, "Option '%s' requires an argument.", name);
        }
    } else if (attached != NULL) {
        return usage(at->prog, a->command, "Option '%s' does not take a value.", name);
    }
    a->value[r->opt] = v;
    if (r->opt == CTL_OPT_SET || r->opt == CTL_OPT_PG) {
        if (a->n_sets == CTL_ARGS_MAX) {
            return usage(at->prog, a->command, "too many options");
        }
        a->sets[a->n_sets].opt = r->opt;
        a->sets[a->n_sets++].value = v;
    }
    return 0;
}

static int command_option(struct cursor *at, struct ctl_args *a)
{
    const char *word = at->argv[at->i];
    const struct opt_row *r;
    if (word[1] == '-') {
        size_t len = strcspn(word, "=");
        r = find_option(a->command, word, len);
        if (r == NULL) {
            return usage(at->prog, a->command, "No such option: %.*s", (int)len, word);
        }
        return store_option(at, a, r, word[len] == '=' ? word + len + 1 : NULL);
    }
    for (const char *p = word + 1; *p != '\0'; p++) { /* letters may stand together */
        char name[3] = {'-', *p, '\0'};
        int rc;
        r = find_option(a->command, name, 2);
        if (r == NULL) {
            return usage(at->prog, a->command, "No such option: %s", name);
        }
        if (r->takes_value) {
            return store_option(at, a, r, p[1] != '\0' ? p + 1 : NULL);
        }
        rc = store_option(at, a, r, NULL);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* 0: taken; 1: not an option; 2: usage error. */
static int global_option(struct cursor *at, struct ctl_args *a, bool *help)
{
    static const struct {
        const char *name;
        char which;
    } rows[] = {{"-c", 'c'}, {"--config-file", 'c'}, {"-d", 'd'}, {"--dcs-url", 'd'}, {"--dcs", 'd'},
                {"-k", 'k'}, {"--insecure", 'k'},    {"--help", 'h'}};
    const char *word = at->argv[at->i];
    bool is_long = word[0] == '-' && word[1] == '-';
    size_t len = is_long ? strcspn(word, "=") : 2;
    const char *attached = is_long ? (word[len] == '=' ? word + len + 1 : NULL) : NULL;
    char which = '\0';
    const char *v;
    if (word[0] != '-' || word[1] == '\0') {
        return 1;
    }
    if (!is_long && word[2] != '\0') {
        attached = word + 2;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        if (strlen(rows[i].name) == len && memcmp(rows[i].name, word, len) == 0) {
            which = rows[i].which;
        }
    }
    if (which == 'k' && attached == NULL) {
        a->insecure = true;
    } else if (which == 'h') {
        *help = true;
    } else if (which == 'c' || which == 'd') {
        v = value_at(at, attached);
        if (v == NULL) {
            return usage(at->prog, NULL, "Option '%.*s' requires an argument.", (int)len, word);
        }
        if (which == 'c') {
            a->config_file = v;
            a->config_given = true;
        } else {
            a->dcs_url = v;
        }
    } else {
        return usage(at->prog, NULL, "No such option: %.*s", (int)len, word);
    }
    return 0;
}

static int check_values(const struct cursor *at, const struct ctl_args *a)
{
    const char *f = a->value[CTL_OPT_FORMAT], *g = a->value[CTL_OPT_GROUP];
    int64_t n;
    if (f != NULL && !dra_str_eq(f, "pretty") && !dra_str_eq(f, "tsv") && !dra_str_eq(f, "json") && !dra_str_eq(f, "yaml") &&
        !dra_str_eq(f, "yml")) {
        return usage(at->prog, a->command, "Invalid value for '--format' / '-f': '%s' is not one of 'pretty', 'tsv', 'json', 'yaml', 'yml'.", f);
    }
    if (a->value[CTL_OPT_ROLE] != NULL && !ctl_role_known(a->value[CTL_OPT_ROLE])) {
        return usage(at->prog, a->command,
                     "Invalid value for '--role' / '-r': '%s' is not one of 'leader', 'primary', 'standby-leader', 'replica', 'standby', 'any'.",
                     a->value[CTL_OPT_ROLE]);
    }
    if (g != NULL && dra_parse_i64(g, strlen(g), 0, INT32_MAX, &n) != 0) {
        return usage(at->prog, a->command, "Invalid value for '--group': '%s' is not a valid integer.", g);
    }
    return 0;
}

static int command_args(struct cursor *at, struct ctl_args *a, int *out_exit)
{
    bool only_positionals = false;
    for (; at->i < at->argc; at->i++) {
        const char *word = at->argv[at->i];
        if (!only_positionals && dra_str_eq(word, "--")) {
            only_positionals = true;
        } else if (!only_positionals && word[0] == '-' && word[1] != '\0') {
            *out_exit = command_option(at, a);
            if (*out_exit != 0) {
                return -1;
            }
        } else if (a->n_pos >= a->command->max_args || a->n_pos == CTL_ARGS_MAX) {
            *out_exit = usage(at->prog, a->command, "Got unexpected extra argument (%s)", word);
            return -1;
        } else {
            a->pos[a->n_pos++] = word;
        }
    }
    if (a->value[CTL_OPT_HELP] != NULL) {
        help_command(at->prog, a->command);
        *out_exit = 0;
        return -1;
    }
    if (a->n_pos < a->command->min_args) {
        *out_exit = usage(at->prog, a->command, "Missing argument '%s'.", a->command->missing);
        return -1;
    }
    *out_exit = check_values(at, a);
    return *out_exit == 0 ? 0 : -1;
}

int ctl_args_parse(const char *prog, int argc, char **argv, struct ctl_args *a, int *out_exit)
{
    struct cursor at = {.prog = prog, .argc = argc, .i = 1, .argv = argv};
    bool help = false;
    memset(a, 0, sizeof *a);
    for (; at.i < argc; at.i++) {
        int rc = global_option(&at, a, &help);
        if (rc == 1) {
            break;
        }
        if (rc != 0) {
            *out_exit = rc;
            return -1;
        }
    }
    if (help || at.i >= argc) {
        help_main(prog);
        *out_exit = help ? 0 : CTL_EXIT_USAGE;
        return -1;
    }
    for (size_t i = 0; i < ctl_command_count(); i++) {
        if (dra_str_eq(ctl_commands[i].name, argv[at.i])) {
            a->command = &ctl_commands[i];
        }
    }
    if (a->command == NULL) {
        *out_exit = usage(prog, NULL, "No such command '%s'.", argv[at.i]);
        return -1;
    }
    at.i++;
    return command_args(&at, a, out_exit);
}

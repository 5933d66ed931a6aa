/*
 * guc.c - names of parameters: which the server knows, which are controlled, which belong to recovery.
 *
 * Promises: tables and lookups, no I/O.  Threads: any.
 */
#include "conffile.h"

#include <stdlib.h>
#include <string.h>

struct pgs_gucs {
    char *text; /* owned; names are NUL-terminated inside it */
    int n;
    const char **names; /* owned, sorted */
};

/* Known to all or some of 12..17, but not told by --describe-config ("not in sample"). */
static const char *const hidden[] = {
    "allow_in_place_tablespaces", "allow_system_table_mods", "application_name", "backtrace_functions",
    "composite_type_mismatch", "data_directory_mode", "debug_discard_caches", "force_parallel_mode",
    "debug_parallel_query", "debug_logical_replication_streaming", "debug_io_direct", "ignore_checksum_failure",
    "ignore_invalid_pages", "ignore_system_indexes", "jit_debugging_support", "jit_dump_bitcode", "jit_expressions",
    "jit_profiling_support", "jit_tuple_deforming", "post_auth_delay", "pre_auth_delay",
    "remove_temp_files_after_crash", "restrict_nonsystem_relation_kind", "send_abort_for_crash",
    "send_abort_for_kill", "trace_notify", "trace_recovery_messages", "trace_sort", "wal_consistency_checking",
    "zero_damaged_pages", "event_triggers", "trace_connection_negotiation", "lc_messages", "hba_file", "ident_file",
};

static const char *const recovery[] = {
    "archive_cleanup_command", "recovery_end_command",   "restore_command",       "primary_conninfo",
    "recovery_target_time",    "recovery_target_timeline", "recovery_target_xid", "primary_slot_name",
    "recovery_target_name",    "recovery_target_lsn",    "recovery_target",       "recovery_target_action",
    "recovery_target_inclusive", "pause_at_recovery_target", "recovery_min_apply_delay", "standby_mode",
    "trigger_file",            "promote_trigger_file",
};

static int name_cmp(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int pgs_gucs_parse(const char *text, struct pgs_gucs **out, struct dra_err *err)
{
    struct pgs_gucs *g = calloc(1, sizeof *g);
    int lines = 1;

    for (const char *p = text; *p != '\0'; p++) {
        lines += *p == '\n';
    }
    if (g != NULL) {
        g->text = strdup(text);
        g->names = calloc((size_t)lines, sizeof *g->names);
    }
    if (g == NULL || g->text == NULL || g->names == NULL) {
        pgs_gucs_free(g);
        return dra_err_set(err, DRA_ENOMEM, "names of parameters");
    }
    for (char *p = g->text; p != NULL && *p != '\0';) {
        char *next = strchr(p, '\n');
        char *tab = strchr(p, '\t');

        if (tab != NULL && (next == NULL || tab < next)) {
            *tab = '\0';
            for (char *c = p; *c != '\0'; c++) {
                *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
            }
            g->names[g->n++] = p;
        }
        p = next != NULL ? next + 1 : NULL;
    }
    if (g->n < 100) {
        pgs_gucs_free(g);
        return dra_err_set(err, DRA_EPARSE, "postgres --describe-config: too few parameters");
    }
    qsort(g->names, (size_t)g->n, sizeof *g->names, name_cmp);
    *out = g;
    return DRA_OK;
}

void pgs_gucs_free(struct pgs_gucs *g)
{
    if (g != NULL) {
        free(g->text);
        free(g->names);
        free(g);
    }
}

bool pgs_gucs_has(const struct pgs_gucs *g, const char *name)
{
    if (strchr(name, '.') != NULL) {
        return true; /* an extension's: passed as it is */
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(hidden); i++) {
        if (strcmp(hidden[i], name) == 0) {
            return true;
        }
    }
    return bsearch(&name, g->names, (size_t)g->n, sizeof *g->names, name_cmp) != NULL;
}

bool pgs_is_recovery_parameter(const char *name)
{
    for (size_t i = 0; i < DRA_ARRAY_LEN(recovery); i++) {
        if (dra_str_eq_nocase(recovery[i], name)) {
            return true;
        }
    }
    return false;
}

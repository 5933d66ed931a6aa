/*
 * argv.c - argument vectors: built piece by piece, or split from a command the way a shell splits words.
 *
 * Promises: no shell, no expansion; a vector that could not be built says so (`failed`) and is never run.
 * Threads: any.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMAND_MAX 8192

void pgs_argv_init(struct pgs_argv *a)
{
    memset(a, 0, sizeof *a);
}

void pgs_argv_deinit(struct pgs_argv *a)
{
    for (int i = 0; i < a->n; i++) {
        free(a->v[i]);
        a->v[i] = NULL;
    }
    a->n = 0;
}

void pgs_argv_add(struct pgs_argv *a, const char *s)
{
    char *copy;

    if (a->n >= PGS_ARGV_MAX) {
        a->failed = true;
        return;
    }
    copy = strdup(s);
    if (copy == NULL) {
        a->failed = true;
        return;
    }
    a->v[a->n++] = copy;
    a->v[a->n] = NULL;
}

void pgs_argv_addf(struct pgs_argv *a, const char *fmt, ...)
{
    char text[COMMAND_MAX];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text) {
        a->failed = true;
        return;
    }
    pgs_argv_add(a, text);
}

const char *const *pgs_argv_get(const struct pgs_argv *a)
{
    return (const char *const *)a->v;
}

int pgs_argv_split(struct pgs_argv *a, const char *command, struct dra_err *err)
{
    char word[COMMAND_MAX];
    size_t n = 0;
    bool in_word = false;
    char quote = '\0';

    for (const char *p = command;; p++) {
        char c = *p;

        if (c == '\0' && quote != '\0') {
            return dra_err_set(err, DRA_EPARSE, "no closing quotation in command \"%.100s\"", command);
        }
        if (c == '\0' || (quote == '\0' && strchr(" \t\r\n", c) != NULL)) {
            if (in_word) {
                word[n] = '\0';
                pgs_argv_add(a, word);
            }
            n = 0;
            in_word = false;
            if (c == '\0') {
                break;
            }
            continue;
        }
        in_word = true;
        if (quote != '\0' && c == quote) {
            quote = '\0';
            continue;
        }
        if (quote == '\0' && (c == '\'' || c == '"')) {
            quote = c;
            continue;
        }
        if (c == '\\' && quote != '\'') {
            if (p[1] == '\0') {
                return dra_err_set(err, DRA_EPARSE, "no escaped character in command \"%.100s\"", command);
            }
            /* Inside double quotes a backslash is special only before itself and the quote. */
            if (quote == '\0' || p[1] == '"' || p[1] == '\\') {
                c = *++p;
            }
        }
        if (n + 1 >= sizeof word) {
            return dra_err_set(err, DRA_ETOOLONG, "a word of a command is longer than %d", COMMAND_MAX);
        }
        word[n++] = c;
    }
    if (a->failed) {
        return dra_err_set(err, DRA_ETOOLONG, "command \"%.100s\" has too many words", command);
    }
    return DRA_OK;
}

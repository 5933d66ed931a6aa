/*
 * diff.c - longest common subsequence of lines, shown as a unified diff.  For configurations: at most a few thousand lines.
 */
#include "diff.h"

#include <stdlib.h>
#include <string.h>

#define DIFF_LINES_MAX 2000
#define DIFF_CONTEXT 3

struct lines {
    size_t n;
    struct {
        const char *p;
        size_t len;
    } line[DIFF_LINES_MAX];
};

struct edit { /* one line of the result */
    char mark; /* ' ', '-', '+' */
    size_t a, b; /* index in each text */
};

static void split(const char *s, struct lines *out)
{
    out->n = 0;
    while (*s != '\0' && out->n < DIFF_LINES_MAX) {
        size_t len = strcspn(s, "\n");
        out->line[out->n].p = s;
        out->line[out->n++].len = len;
        s += len + (s[len] == '\n' ? 1 : 0);
    }
}

static bool same(const struct lines *a, size_t i, const struct lines *b, size_t j)
{
    return a->line[i].len == b->line[j].len && memcmp(a->line[i].p, b->line[j].p, a->line[i].len) == 0;
}

/* Fills edits; returns their number. */
static size_t compare(const struct lines *a, const struct lines *b, struct edit *edits)
{
    size_t w = b->n + 1, n = 0, i = 0, j = 0;
    uint16_t *lcs = calloc((a->n + 1) * w, sizeof *lcs);
    if (lcs == NULL) {
        return 0;
    }
    for (size_t x = a->n; x-- > 0;) {
        for (size_t y = b->n; y-- > 0;) {
            uint16_t down = lcs[(x + 1) * w + y], right = lcs[x * w + y + 1];
            lcs[x * w + y] = same(a, x, b, y) ? (uint16_t)(lcs[(x + 1) * w + y + 1] + 1) : down > right ? down : right;
        }
    }
    while (i < a->n || j < b->n) {
        char mark;
        if (i < a->n && j < b->n && same(a, i, b, j)) {
            mark = ' ';
        } else if (i < a->n && (j == b->n || lcs[(i + 1) * w + j] >= lcs[i * w + j + 1])) {
            mark = '-';
        } else {
            mark = '+';
        }
        edits[n++] = (struct edit){.mark = mark, .a = i, .b = j};
        i += mark != '+' ? 1 : 0;
        j += mark != '-' ? 1 : 0;
    }
    free(lcs);
    return n;
}

static void add_range(struct dra_buf *out, size_t start, size_t n)
{
    if (n == 1) {
        dra_buf_addf(out, "%zu", start + 1);
    } else {
        dra_buf_addf(out, "%zu,%zu", n == 0 ? start : start + 1, n);
    }
}

static void add_hunk(const struct lines *a, const struct lines *b, const struct edit *e, size_t n, struct dra_buf *out)
{
    size_t in_a = 0, in_b = 0;
    for (size_t i = 0; i < n; i++) {
        in_a += e[i].mark != '+' ? 1 : 0;
        in_b += e[i].mark != '-' ? 1 : 0;
    }
    dra_buf_adds(out, "@@ -");
    add_range(out, e[0].a, in_a);
    dra_buf_adds(out, " +");
    add_range(out, e[0].b, in_b);
    dra_buf_adds(out, " @@\n");
    for (size_t i = 0; i < n; i++) {
        bool from_b = e[i].mark == '+';
        const char *p = from_b ? b->line[e[i].b].p : a->line[e[i].a].p;
        size_t len = from_b ? b->line[e[i].b].len : a->line[e[i].a].len;
        dra_buf_addf(out, "%c%.*s\n", e[i].mark, (int)len, p);
    }
}

/* Hunks: changes less than two contexts apart belong together. */
static void add_hunks(const struct lines *a, const struct lines *b, const struct edit *e, size_t n, struct dra_buf *out)
{
    size_t i = 0, shown = 0;
    while (i < n) {
        size_t start, end;
        while (i < n && e[i].mark == ' ') {
            i++;
        }
        if (i == n) {
            return;
        }
        start = i > shown + DIFF_CONTEXT ? i - DIFF_CONTEXT : shown;
        end = i;
        for (size_t k = i; k < n && k <= end + 2 * DIFF_CONTEXT + 1; k++) {
            end = e[k].mark == ' ' ? end : k;
        }
        i = end + 1;
        end = end + DIFF_CONTEXT < n ? end + DIFF_CONTEXT : n - 1;
        add_hunk(a, b, e + start, end - start + 1, out);
        shown = end + 1;
        i = shown;
    }
}

void ctl_diff(const char *a, const char *b, struct dra_buf *out)
{
    struct lines *la = malloc(sizeof *la), *lb = malloc(sizeof *lb);
    struct edit *edits = calloc(2 * DIFF_LINES_MAX, sizeof *edits);
    if (la != NULL && lb != NULL && edits != NULL && strcmp(a, b) != 0) {
        size_t n;
        split(a, la);
        split(b, lb);
        n = compare(la, lb, edits);
        dra_buf_adds(out, "--- \n+++ \n");
        add_hunks(la, lb, edits, n, out);
    }
    free(la);
    free(lb);
    free(edits);
}

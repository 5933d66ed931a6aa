/*
 * table.c - rows as a grid, tab-separated, JSON or YAML (CLI-20 .. CLI-25).
 */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>

#define CTL_ROWS_MAX 4096

/* ---- cells ------------------------------------------------------------------------------------------------- */

/* Width on a terminal: UTF-8 sequences count once. */
static size_t width_of(const char *s, size_t n)
{
    size_t w = 0;
    for (size_t i = 0; i < n; i++) {
        w += ((unsigned char)s[i] & 0xC0U) != 0x80U ? 1 : 0;
    }
    return w;
}

/* A scalar as it stands in YAML: quoted where it has to be. */
static void add_yaml_scalar(const struct json *v, struct dra_buf *out)
{
    struct dra_buf b;
    struct json *list = json_new_array();
    const char *s;
    size_t n;
    dra_buf_init(&b, 65536);
    if (list != NULL && json_append(list, json_clone(v)) == 0) {
        yaml_acc_dump(list, &b);
    }
    s = dra_buf_str(&b);
    s += dra_str_starts(s, "- ") ? 2 : 0;
    n = strcspn(s, "\n");
    dra_buf_addf(out, "%.*s", (int)n, s);
    dra_buf_deinit(&b);
    json_free(list);
}

static int by_name(const void *a, const void *b)
{
    const struct json *const *x = a, *const *y = b;
    return strcmp(json_name(*x), json_name(*y));
}

/* "{a: 1, b: x}", keys sorted.  Depth is bounded by the parser's. */
static void add_flow(const struct json *v, struct dra_buf *out)
{
    const struct json *members[64];
    size_t n = 0;
    if (json_type_of(v) == JSON_ARRAY) {
        dra_buf_adds(out, "[");
        for (const struct json *i = json_first(v); i != NULL; i = json_next(i)) {
            add_flow(i, out);
            dra_buf_adds(out, json_next(i) != NULL ? ", " : "");
        }
        dra_buf_adds(out, "]");
        return;
    }
    if (json_type_of(v) != JSON_OBJECT) {
        add_yaml_scalar(v, out);
        return;
    }
    for (const struct json *i = json_first(v); i != NULL && n < DRA_ARRAY_LEN(members); i = json_next(i)) {
        members[n++] = i;
    }
    qsort(members, n, sizeof(members[0]), by_name);
    dra_buf_adds(out, "{");
    for (size_t i = 0; i < n; i++) {
        dra_buf_addf(out, "%s%s: ", i == 0 ? "" : ", ", json_name(members[i]));
        add_flow(members[i], out);
    }
    dra_buf_adds(out, "}");
}

/* The text of a cell.  A missing one is empty, null is None. */
static void add_cell(const struct json *v, enum ctl_format format, struct dra_buf *out)
{
    char text[256];
    switch (json_type_of(v)) {
    case JSON_NONE:
        return;
    case JSON_NULL:
        dra_buf_adds(out, "None");
        return;
    case JSON_BOOL:
        dra_buf_adds(out, json_is_true(v) ? "True" : "False");
        return;
    case JSON_STRING:
        dra_buf_adds(out, json_text(v));
        return;
    case JSON_NUMBER:
        if (json_scalar_text(v, text, sizeof text)) {
            dra_buf_adds(out, text);
        }
        return;
    case JSON_ARRAY:
    case JSON_OBJECT:
        if (json_size(v) == 0) {
            return;
        }
        if (format == CTL_FMT_PRETTY) {
            struct dra_buf b;
            size_t n;
            dra_buf_init(&b, 1024 * 1024);
            yaml_acc_dump(v, &b);
            n = b.len;
            while (n > 0 && dra_buf_str(&b)[n - 1] == '\n') {
                n--;
            }
            dra_buf_add(out, dra_buf_str(&b), n);
            dra_buf_deinit(&b);
        } else {
            add_flow(v, out);
        }
        return;
    }
}

static char *cell_text(const struct json *row, const char *key, enum ctl_format format)
{
    struct dra_buf b;
    dra_buf_init(&b, 1024 * 1024);
    add_cell(json_get(row, key), format, &b);
    if (b.len == 0) {
        dra_buf_deinit(&b);
        return strdup("");
    }
    return dra_buf_take(&b);
}

/* ---- pretty ---------------------------------------------------------------------------------------------------- */

struct grid {
    size_t n_cols, n_rows;
    const struct ctl_column **cols;
    char **cells;   /* n_rows * n_cols, owned */
    size_t *widths;
    bool rule_all;  /* a cell has several lines */
};

static void add_rule(const struct grid *g, const char *title, struct dra_buf *out)
{
    struct dra_buf b;
    size_t len = 1;
    dra_buf_init(&b, 1024 * 1024);
    dra_buf_adds(&b, "+");
    for (size_t i = 0; i < g->n_cols; i++) {
        for (size_t j = 0; j < g->widths[i] + 2; j++) {
            dra_buf_adds(&b, "-");
        }
        dra_buf_adds(&b, "+");
        len += g->widths[i] + 3;
    }
    if (title != NULL && *title != '\0' && len > 2) { /* CLI-22: over the rule, from its second character */
        size_t n = strlen(title);
        n = n > len - 2 ? len - 2 : n;
        dra_buf_addf(out, "+%.*s%s\n", (int)n, title, dra_buf_str(&b) + 1 + n);
    } else {
        dra_buf_addf(out, "%s\n", dra_buf_str(&b));
    }
    dra_buf_deinit(&b);
}

/* Line `k` of a cell. */
static const char *cell_line(const char *s, size_t k, size_t *len)
{
    while (k-- > 0) {
        s = strchr(s, '\n');
        if (s == NULL) {
            *len = 0;
            return "";
        }
        s++;
    }
    *len = strcspn(s, "\n");
    return s;
}

static size_t line_count(const char *s)
{
    size_t n = 1;
    for (; *s != '\0'; s++) {
        n += *s == '\n' ? 1 : 0;
    }
    return n;
}

static void add_line(const struct grid *g, const char *const *cells, size_t k, struct dra_buf *out)
{
    dra_buf_adds(out, "|");
    for (size_t i = 0; i < g->n_cols; i++) {
        size_t len;
        const char *s = cell_line(cells[i], k, &len);
        int pad = (int)(g->widths[i] - width_of(s, len));
        bool right = g->cols[i]->right;
        dra_buf_addf(out, " %*s%.*s%*s |", right ? pad : 0, "", (int)len, s, right ? 0 : pad, "");
    }
    dra_buf_adds(out, "\n");
}

static void add_row(const struct grid *g, const char *const *cells, struct dra_buf *out)
{
    size_t lines = 1;
    for (size_t i = 0; i < g->n_cols; i++) {
        size_t n = line_count(cells[i]);
        lines = n > lines ? n : lines;
    }
    for (size_t k = 0; k < lines; k++) {
        add_line(g, cells, k, out);
    }
}

static void measure(struct grid *g, const char *const *titles)
{
    for (size_t i = 0; i < g->n_cols; i++) {
        g->widths[i] = width_of(titles[i], strlen(titles[i]));
        for (size_t r = 0; r < g->n_rows; r++) {
            const char *s = g->cells[r * g->n_cols + i];
            for (size_t k = 0; k < line_count(s); k++) {
                size_t len, w;
                const char *line = cell_line(s, k, &len);
                w = width_of(line, len);
                g->widths[i] = w > g->widths[i] ? w : g->widths[i];
            }
            g->rule_all = g->rule_all || strchr(s, '\n') != NULL;
        }
    }
}

static void print_grid(struct grid *g, const char *title, struct dra_buf *out)
{
    const char *titles[32];
    for (size_t i = 0; i < g->n_cols; i++) {
        titles[i] = g->cols[i]->title;
    }
    measure(g, titles);
    add_rule(g, title, out);
    add_row(g, titles, out);
    add_rule(g, NULL, out);
    for (size_t r = 0; r < g->n_rows; r++) {
        const char *cells[32];
        for (size_t i = 0; i < g->n_cols; i++) {
            cells[i] = g->cells[r * g->n_cols + i];
        }
        add_row(g, cells, out);
        if (g->rule_all && r + 1 < g->n_rows) {
            add_rule(g, NULL, out);
        }
    }
    add_rule(g, NULL, out);
}

static void table_pretty(const struct ctl_column *columns, size_t n_columns, const struct json *rows, const char *title,
                         enum ctl_format format, struct dra_buf *out)
{
    const struct ctl_column *shown[32];
    size_t widths[32];
    struct grid g = {.cols = shown, .widths = widths};
    const struct json *row = json_first(rows);
    bool ok = true;
    for (size_t i = 0; i < n_columns && g.n_cols < DRA_ARRAY_LEN(shown); i++) {
        if (columns[i].title != NULL) {
            shown[g.n_cols++] = &columns[i];
        }
    }
    g.n_rows = json_size(rows) < CTL_ROWS_MAX ? json_size(rows) : CTL_ROWS_MAX;
    g.cells = calloc(g.n_rows * g.n_cols + 1, sizeof g.cells[0]);
    for (size_t r = 0; r < g.n_rows && g.cells != NULL; r++, row = json_next(row)) {
        for (size_t i = 0; i < g.n_cols; i++) {
            char *cell = cell_text(row, shown[i]->key, format);
            ok = ok && cell != NULL;
            g.cells[r * g.n_cols + i] = cell;
        }
    }
    if (ok && g.cells != NULL) {
        print_grid(&g, title, out);
    }
    for (size_t i = 0; g.cells != NULL && i < g.n_rows * g.n_cols; i++) {
        free(g.cells[i]);
    }
    free(g.cells);
}

/* ---- the others -------------------------------------------------------------------------------------------------- */

static void table_tsv(const struct ctl_column *columns, size_t n, const struct json *rows, struct dra_buf *out)
{
    for (size_t i = 0; i < n; i++) {
        dra_buf_addf(out, "%s%s", i == 0 ? "" : "\t", columns[i].key);
    }
    dra_buf_adds(out, "\n");
    for (const struct json *row = json_first(rows); row != NULL; row = json_next(row)) {
        for (size_t i = 0; i < n; i++) {
            dra_buf_adds(out, i == 0 ? "" : "\t");
            add_cell(json_get(row, columns[i].key), CTL_FMT_TSV, out);
        }
        dra_buf_adds(out, "\n");
    }
}

static bool prints_empty(const struct json *v)
{
    return v == NULL || (json_type_of(v) == JSON_STRING && json_text(v)[0] == '\0');
}

/* The rows with exactly the table's columns, in their order. */
static struct json *rows_for_data(const struct ctl_column *columns, size_t n, const struct json *rows, bool omit_empty)
{
    struct json *out = json_new_array();
    for (const struct json *row = json_first(rows); row != NULL && out != NULL; row = json_next(row)) {
        struct json *o = json_new_object();
        int rc = o == NULL ? DRA_ENOMEM : DRA_OK;
        for (size_t i = 0; i < n && rc == 0; i++) {
            const struct json *v = json_get(row, columns[i].key);
            if (!omit_empty || !prints_empty(v)) {
                rc = json_set(o, columns[i].key, v == NULL ? json_new_str("") : json_clone(v));
            }
        }
        if (rc == 0) {
            rc = json_append(out, DRA_TAKE(o));
        }
        json_free(o);
        if (rc != 0) {
            json_free(out);
            out = NULL;
        }
    }
    return out;
}

void ctl_table(const struct ctl_column *columns, size_t n_columns, const struct json *rows, const char *title, bool omit_empty,
               enum ctl_format format, struct dra_buf *out)
{
    DRA_CLEANUP(json_freep) struct json *data = NULL;
    char *text;
    if (format == CTL_FMT_PRETTY || format == CTL_FMT_TOPOLOGY) {
        table_pretty(columns, n_columns, rows, title, format, out);
        return;
    }
    if (format == CTL_FMT_TSV) {
        table_tsv(columns, n_columns, rows, out);
        return;
    }
    data = rows_for_data(columns, n_columns, rows, omit_empty);
    if (format == CTL_FMT_YAML) {
        yaml_acc_dump(data, out);
        dra_buf_adds(out, "\n");
        return;
    }
    text = json_print_spaced(data);
    dra_buf_addf(out, "%s\n", text == NULL ? "[]" : text);
    free(text);
}

enum ctl_format ctl_format_of(const struct ctl *c)
{
    const char *f = c->args.value[CTL_OPT_FORMAT];
    if (dra_str_eq(f, "tsv")) {
        return CTL_FMT_TSV;
    }
    if (dra_str_eq(f, "json")) {
        return CTL_FMT_JSON;
    }
    return dra_str_eq(f, "yaml") || dra_str_eq(f, "yml") ? CTL_FMT_YAML : CTL_FMT_PRETTY;
}

void ctl_print(struct dra_buf *b)
{
    (void)fwrite(dra_buf_str(b), 1, b->len, stdout);
    (void)fflush(stdout);
    dra_buf_reset(b);
}

/*
 * err.c - errors in a fixed buffer, and the check for "cannot happen".
 *
 * Promises: no malloc; a message that does not fit ends in "...".  Re-entrant.
 */
#include <dragent/base.h>

#include <stdio.h>
#include <string.h>

void (*dra_never_hook)(const char *expr, const char *file, int line);

bool dra_never_hit(const char *expr, const char *file, int line)
{
    /* The programs set a hook that logs; without one we are in a test, and there it is an abort. */
    if (dra_never_hook == NULL) {
        (void)fprintf(stderr, "%s:%d: never: %s\n", file, line, expr);
        assert(dra_never_hook != NULL);
    } else {
        dra_never_hook(expr, file, line);
    }
    return true;
}

/* Add text behind the message. */
static void append(struct dra_err *err, const char *text)
{
    size_t len = strlen(err->msg);

    dra_str_clip(err->msg + len, sizeof err->msg - len, text);
}

int dra_err_set(struct dra_err *err, int code, const char *fmt, ...)
{
    if (err != NULL) {
        va_list ap;

        err->code = code;
        err->sys = 0;
        err->sqlstate[0] = '\0';
        va_start(ap, fmt);
        dra_str_clipv(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
    }
    return code;
}

int dra_err_sys(struct dra_err *err, int sys_errno, const char *fmt, ...)
{
    if (err != NULL) {
        const char *why = strerrordesc_np(sys_errno); /* no locale, no buffer */
        va_list ap;

        err->code = DRA_ESYS;
        err->sys = sys_errno;
        err->sqlstate[0] = '\0';
        va_start(ap, fmt);
        dra_str_clipv(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
        append(err, ": ");
        append(err, why != NULL ? why : "unknown error");
    }
    return DRA_ESYS;
}

int dra_err_wrap(struct dra_err *err, const char *fmt, ...)
{
    char inner[DRA_ERR_MSG_MAX];
    va_list ap;

    if (err == NULL) {
        return DRA_ESTATE; /* the code is not known here; never a success */
    }
    memcpy(inner, err->msg, sizeof inner);
    inner[sizeof inner - 1] = '\0';
    va_start(ap, fmt);
    dra_str_clipv(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    append(err, ": ");
    append(err, inner);
    return err->code;
}

const char *dra_code_to_str(int code)
{
    static const struct {
        int code;
        const char *text;
    } rows[] = {
#define DRA_X(name, num, text) {(num), (text)},
        DRA_ERR_MAP(DRA_X)
#undef DRA_X
    };

    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        if (rows[i].code == code) {
            return rows[i].text;
        }
    }
    return "unknown error";
}

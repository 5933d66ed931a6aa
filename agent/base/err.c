/*
 * err.c - fill, wrap and name errors; "cannot happen" reports.
 */
#include <dragent/base.h>

#include <stdio.h>
#include <string.h>

void (*dra_never_hook)(const char *expr, const char *file, int line);

static int set_v(struct dra_err *err, int code, int sys, const char *fmt, va_list ap) __attribute__((format(printf, 4, 0)));

int dra_err_set(struct dra_err *err, int code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)set_v(err, code, 0, fmt, ap);
    va_end(ap);
    return code;
}

int dra_err_sys(struct dra_err *err, int sys_errno, const char *fmt, ...)
{
    char text[128];
    size_t n;
    va_list ap;

    va_start(ap, fmt);
    (void)set_v(err, DRA_ESYS, sys_errno, fmt, ap);
    va_end(ap);
    if (err != NULL) {
        n = strlen(err->msg);
        (void)snprintf(err->msg + n, sizeof err->msg - n, ": %s", strerror_r(sys_errno, text, sizeof text));
    }
    return DRA_ESYS;
}

int dra_err_wrap(struct dra_err *err, const char *fmt, ...)
{
    char inner[DRA_ERR_MSG_MAX];
    size_t n;
    va_list ap;

    if (err == NULL) {
        return DRA_ESTATE;
    }
    memcpy(inner, err->msg, sizeof inner);
    va_start(ap, fmt);
    dra_str_clipv(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    n = strlen(err->msg);
    (void)snprintf(err->msg + n, sizeof err->msg - n, ": %.*s", (int)(sizeof inner - 1), inner);
    return err->code;
}

const char *dra_code_to_str(int code)
{
    static const struct {
        int code;
        const char *text;
    } names[] = {
#define DRA_X(name, num, text) {(num), text},
        DRA_ERR_MAP(DRA_X)
#undef DRA_X
    };

    for (size_t i = 0; i < DRA_ARRAY_LEN(names); i++) {
        if (names[i].code == code) {
            return names[i].text;
        }
    }
    return "unknown error";
}

bool dra_never_hit(const char *expr, const char *file, int line)
{
    if (dra_never_hook != NULL) {
        dra_never_hook(expr, file, line);
    }
    return true;
}

static int set_v(struct dra_err *err, int code, int sys, const char *fmt, va_list ap)
{
    if (err != NULL) {
        err->code = code;
        err->sys = sys;
        err->sqlstate[0] = '\0';
        dra_str_clipv(err->msg, sizeof err->msg, fmt, ap);
    }
    return code;
}

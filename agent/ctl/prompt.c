/*
 * prompt.c - questions to a person (CLI-09), and times as people read them (CLI-10, CLI-11).
 */
#include "ctl.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void on_interrupt(int signo)
{
    static const char text[] = "\nAborted!\n";
    (void)signo;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(1);
}

void ctl_on_interrupt(void)
{
    struct sigaction sa = {.sa_handler = on_interrupt};
    (void)sigaction(SIGINT, &sa, NULL);
}

/* One line without its end; false at the end of input. */
static bool read_line(char *out, size_t size)
{
    size_t n;
    if (fgets(out, (int)size, stdin) == NULL) {
        return false;
    }
    n = strcspn(out, "\r\n");
    if (out[n] == '\0' && n + 1 == size) { /* too long: the rest is not another answer */
        int ch;
        while ((ch = fgetc(stdin)) != EOF && ch != '\n') {
        }
    }
    out[n] = '\0';
    return true;
}

static void ask(const char *text, char *out, size_t size)
{
    (void)fputs(text, stdout);
    (void)fflush(stdout);
    if (!read_line(out, size)) {
        (void)fputs("Aborted!\n", stderr);
        exit(1); /* the one place: nothing is under way while a person is asked */
    }
}

void ctl_prompt(const char *text, const char *def, char *out, size_t out_size)
{
    char line[512];
    do {
        ask(text, line, sizeof line);
        if (line[0] == '\0' && def != NULL) {
            dra_str_clip(out, out_size, def);
            return;
        }
    } while (line[0] == '\0');
    dra_str_clip(out, out_size, line);
}

bool ctl_confirm(const char *text)
{
    for (;;) {
        char line[64], question[512];
        (void)snprintf(question, sizeof question, "%s [y/N]: ", text);
        ask(question, line, sizeof line);
        if (dra_str_eq_nocase(line, "y") || dra_str_eq_nocase(line, "yes")) {
            return true;
        }
        if (line[0] == '\0' || dra_str_eq_nocase(line, "n") || dra_str_eq_nocase(line, "no")) {
            return false;
        }
        (void)puts("Error: invalid input");
    }
}

/* ---- times -------------------------------------------------------------------------------------------------- */

/* To the minute, in the form of an example for a question, or to the second. */
static void format_local(char *out, size_t size, time_t t, bool example)
{
    struct tm tm;
    size_t n = 0;
    if (localtime_r(&t, &tm) != NULL) {
        n = example ? strftime(out, size, "%Y-%m-%dT%H:%M", &tm) : strftime(out, size, "%Y-%m-%d %H:%M:%S", &tm);
    }
    if (n == 0) {
        out[0] = '\0';
    }
}

void ctl_now(char out[CTL_TIME_MAX], bool fraction)
{
    struct timespec ts;
    size_t n;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    format_local(out, CTL_TIME_MAX, ts.tv_sec, false);
    n = strlen(out);
    if (fraction) {
        (void)snprintf(out + n, CTL_TIME_MAX - n, ".%05ld", ts.tv_nsec / 10000);
    }
}

void ctl_example_time(char out[CTL_TIME_MAX])
{
    format_local(out, CTL_TIME_MAX, (time_t)dra_wall_seconds() + 3600, true);
}

/* Seconds east of Greenwich in the text's own zone. */
static int64_t zone_of(const char *text)
{
    const char *t = strpbrk(text, "Tt ");
    const char *sign = t == NULL ? NULL : strpbrk(t, "+-");
    int64_t h = 0, m = 0;
    if (sign == NULL) {
        return 0;
    }
    (void)!dra_parse_i64(sign + 1, 2, 0, 23, &h); /* the text was accepted as a timestamp before */
    if (strlen(sign) > 3) {
        (void)!dra_parse_i64(sign + (sign[3] == ':' ? 4 : 3), 2, 0, 59, &m);
    }
    return (*sign == '-' ? -1 : 1) * (h * 3600 + m * 60);
}

int ctl_schedule(const char *text, char out[CTL_TIME_MAX])
{
    int64_t epoch, offset;
    bool has_zone;
    struct tm tm;
    time_t t;
    size_t n;
    out[0] = '\0';
    if (text == NULL || *text == '\0' || dra_str_eq(text, "now")) {
        return DRA_OK;
    }
    if (conf_parse_timestamp(text, &epoch, &has_zone) != 0) {
        return DRA_EPARSE;
    }
    if (has_zone) {
        offset = zone_of(text);
    } else { /* without a zone: the local one, as it is at that time */
        t = (time_t)epoch;
        if (gmtime_r(&t, &tm) == NULL) {
            return DRA_EPARSE;
        }
        tm.tm_isdst = -1;
        offset = epoch;
        epoch = (int64_t)mktime(&tm);
        offset -= epoch;
    }
    t = (time_t)(epoch + offset);
    if (gmtime_r(&t, &tm) == NULL || strftime(out, CTL_TIME_MAX, "%Y-%m-%dT%H:%M:%S", &tm) == 0) {
        return DRA_EPARSE;
    }
    n = strlen(out);
    (void)snprintf(out + n, CTL_TIME_MAX - n, "%c%02d:%02d", offset < 0 ? '-' : '+', (int)(llabs(offset) / 3600), (int)(llabs(offset) / 60 % 60));
    return DRA_OK;
}

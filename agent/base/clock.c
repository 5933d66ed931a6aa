/*
 * clock.c - CLOCK_BOOTTIME for decisions, wall clock for people, entropy.  Any thread.
 */
#include <dragent/io.h>

#include <stdio.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

struct dra_instant dra_now(void)
{
    struct timespec ts;

    if (clock_gettime(CLOCK_BOOTTIME, &ts) != 0) {
        assert(false); /* exists since Linux 2.6.39 */
    }
    return (struct dra_instant){(int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec};
}

void dra_wall_format(char out[DRA_WALL_STR_MAX])
{
    struct timespec ts;
    struct tm tm;
    char seconds[20];

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    if (localtime_r(&ts.tv_sec, &tm) == NULL ||
        strftime(seconds, sizeof seconds, "%Y-%m-%d %H:%M:%S", &tm) == 0) {
        dra_str_clip(out, DRA_WALL_STR_MAX, "0000-00-00 00:00:00,000");
        return;
    }
    (void)snprintf(out, DRA_WALL_STR_MAX, "%s,%03u", seconds, (unsigned)(ts.tv_nsec / 1000000) % 1000u);
}

int64_t dra_wall_seconds(void)
{
    return (int64_t)time(NULL);
}

void dra_wall_iso(char *out, size_t out_size)
{
    struct timespec ts;
    struct tm tm;
    char seconds[24];
    long minutes;
    char sign;

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    if (localtime_r(&ts.tv_sec, &tm) == NULL ||
        strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &tm) == 0) {
        dra_str_clip(out, out_size, "");
        return;
    }
    sign = tm.tm_gmtoff < 0 ? '-' : '+';
    minutes = (tm.tm_gmtoff < 0 ? -tm.tm_gmtoff : tm.tm_gmtoff) / 60;
    (void)snprintf(out, out_size, "%s.%06ld%c%02ld:%02ld", seconds, ts.tv_nsec / 1000, sign, minutes / 60,
                   minutes % 60);
}

uint64_t dra_entropy(void)
{
    uint64_t v = 0;

    if (getrandom(&v, sizeof v, 0) != (ssize_t)sizeof v) {
        struct dra_instant now = dra_now(); /* cannot fail for 8 bytes; for jitter this would do */

        v = (uint64_t)now.ns ^ ((uint64_t)getpid() << 32);
    }
    return v;
}

/*
 * main.c - dra_sim: runs seeds, replays one, and proves that each safety rule is needed.
 *
 *   dra_sim --rules                                  the rule table of the core, as Markdown
 *   dra_sim --seeds 2000 [--from N] [--seconds 60]   a range of seeds; prints the schedule of the first that fails
 *   dra_sim --seed N -v                              one seed, with all that happens
 *   dra_sim --broken [--only NAME]                   with each safety rule off in turn a violation has to be found
 *   dra_sim --twice N                                the same seed twice: byte-identical
 */
#include "sim.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct broken {
    const char *name;
    uint64_t mask;
    const char *masked_by; /* other layers that hide it, off too; NULL = none */
    const char *expect;    /* how the violation begins; "LIVE" also looks at the time after the faults */
    enum sim_aim aim;      /* faults aimed at it (aim.c) */
    uint64_t seeds;
};

#define B(x) DRA_BIT(HA_BREAK_##x)
static const struct broken broken_rules[] = {
    {"guard", B(GUARD), NULL, "SAFE-01", AIM_NONE, 1000},
    {"fence.uncertain", B(FENCE_UNCERTAIN) | B(GUARD) | B(DEMOTE_OUTAGE), "guard, outage.demote", "SAFE-01", AIM_NONE, 1000},
    {"outage.demote", B(DEMOTE_OUTAGE) | B(GUARD) | B(FENCE_UNCERTAIN), "guard, fence.uncertain", "SAFE-01", AIM_NONE, 1000},
    {"fence.lost", B(FENCE_LOST) | B(GUARD), "guard", "SAFE-01", AIM_NONE, 1000},
    {"guard.arm-before-promote", B(ARM_BEFORE_PROMOTE), NULL, "SAFE-0", AIM_PROMOTE, 1000},
    {"guard.arm-before-start", B(ARM_BEFORE_START), NULL, "SAFE-0", AIM_START, 1000},
    {"lease.send-time", B(SEND_TIME) | B(DEMOTE_OUTAGE), "outage.demote", "SAFE-0", AIM_LATE_ANSWER, 1000},
    {"lease.same-term", B(SAME_TERM), NULL, "SAFE-0", AIM_NONE, 1000},
    {"lease.epoch-compare", B(EPOCH_COMPARE), NULL, "SAFE-0", AIM_LATE_GIVE, 1000},
    {"lease.given-away", B(GIVEN_AWAY), NULL, "SAFE-0", AIM_LATE_GIVE, 1000},
    {"election.facts", B(ACQUIRE_FACTS) | B(ELECT_AGAIN), "election.again", "SAFE-0", AIM_LATE_TAKE, 1000},
    {"election.again", B(ELECT_AGAIN) | B(ACQUIRE_FACTS), "election.facts", "SAFE-0", AIM_LATE_TAKE, 1000},
    {"election.lag", B(LAG_LIMIT), NULL, "SAFE-06", AIM_LAG, 1000},
    {"election.ahead", B(DEFER_AHEAD), NULL, "SAFE-07", AIM_LAG, 1000},
    {"start.standby-first", B(STANDBY_FIRST), NULL, "SAFE-0", AIM_NONE, 1000},
    {"stop.all-gone", B(ALL_GONE) | B(GUARD), "guard", "SAFE-", AIM_NONE, 1000},
    {"handover.confirm", B(CONFIRM_SHUTDOWN), NULL, "SAFE-11", AIM_HANDOVER, 1000},
    {"rejoin.diverged", B(REWIND_CHECK), NULL, "LIVE", AIM_NONE, 1000},
};
#undef B

static const char *const break_names[] = {
#define HA_X(n, t) t,
    HA_BREAK_MAP(HA_X)
#undef HA_X
};

static bool run_one(const struct sim_opts *o, char *text, size_t size, uint64_t *digest, struct sim *totals, bool show)
{
    static struct sim s; /* large; one at a time */
    bool ok = sim_run(o, &s);

    dra_str_clip(text, size, s.violation == NULL ? "" : s.violation);
    *digest = s.digest;
    if (totals != NULL) {
        totals->acked_rows += s.acked_rows;
        totals->promotions += s.promotions;
        totals->rewinds += s.rewinds;
        totals->copies += s.copies;
        totals->fences += s.fences;
        totals->switchovers += s.switchovers;
    }
    if (!ok && show) {
        sim_print_end(&s);
    }
    sim_free(&s);
    return ok;
}

static int run_range(struct sim_opts *o, uint64_t from, uint64_t count)
{
    static struct sim totals;
    char text[512];
    uint64_t digest;
    int failed = 0;

    for (uint64_t i = from; i < from + count; i++) {
        o->seed = i;
        if (!run_one(o, text, sizeof text, &digest, &totals, failed == 0)) {
            printf("seed %llu: %s\n", (unsigned long long)i, text);
            failed++;
            if (count > 1) {
                printf("  replay: dra_sim --seed %llu --seconds %lld -v\n", (unsigned long long)i, (long long)o->seconds);
            }
            if (failed >= 20) {
                break;
            }
        }
    }
    printf("%llu seeds, %d failed; %llu rows acknowledged, %llu promotions, %llu switchovers asked for, %llu rewinds, %llu copies, "
           "%llu fences\n",
           (unsigned long long)count, failed, (unsigned long long)totals.acked_rows, (unsigned long long)totals.promotions,
           (unsigned long long)totals.switchovers, (unsigned long long)totals.rewinds, (unsigned long long)totals.copies,
           (unsigned long long)totals.fences);
    return failed == 0 ? 0 : 1;
}

static bool violates(struct sim_opts *o, uint64_t mask, const char *expect, char *text, size_t size)
{
    uint64_t digest;

    ha_broken = mask;
    o->no_guard = (mask & DRA_BIT(HA_BREAK_GUARD)) != 0;
    return !run_one(o, text, size, &digest, NULL, false) && strncmp(text, expect, strlen(expect)) == 0;
}

/* Returns the seed that finds a violation of the kind that the rule is there to prevent, and none with only the layers off
 * that mask it; 0 = no seed does. */
static uint64_t find_broken(struct sim_opts *o, const struct broken *b, char *text, size_t size)
{
    enum ha_break rule = HA_BREAK_COUNT;
    char unused[512];

    for (int i = 0; i < HA_BREAK_COUNT; i++) {
        rule = strcmp(break_names[i], b->name) == 0 ? (enum ha_break)i : rule;
    }
    assert(rule != HA_BREAK_COUNT);
    o->aim = b->aim;
    o->safety_only = strcmp(b->expect, "LIVE") != 0;
    for (o->seed = 1; o->seed <= b->seeds; o->seed++) {
        if (violates(o, b->mask, b->expect, text, size) &&
            (b->masked_by == NULL || !violates(o, b->mask & ~DRA_BIT(rule), "", unused, sizeof unused))) {
            return o->seed;
        }
    }
    return 0;
}

static int run_broken(struct sim_opts *o, const char *only)
{
    char text[512];
    int missing = 0;
    uint64_t covered = 0;

    for (size_t i = 0; i < DRA_ARRAY_LEN(broken_rules); i++) {
        const struct broken *b = &broken_rules[i];
        uint64_t seed;

        covered |= b->mask;
        if (only != NULL && strcmp(only, b->name) != 0) {
            continue;
        }
        seed = find_broken(o, b, text, sizeof text);
        printf("%-26s off%s%s: ", b->name, b->masked_by == NULL ? "" : " with ", b->masked_by == NULL ? "" : b->masked_by);
        if (seed == 0) {
            printf("NOT FOUND\n");
            missing++;
        } else {
            printf("seed %llu: %s\n", (unsigned long long)seed, text);
        }
        (void)fflush(stdout);
    }
    ha_broken = 0;
    if (covered != DRA_BIT(HA_BREAK_COUNT) - 1) {
        printf("a rule that can be switched off is not in the list\n");
        missing++;
    }
    return missing == 0 ? 0 : 1;
}

static int run_twice(struct sim_opts *o)
{
    char text[512];
    uint64_t a;
    uint64_t b;

    (void)run_one(o, text, sizeof text, &a, NULL, false);
    (void)run_one(o, text, sizeof text, &b, NULL, false);
    printf("seed %llu: %s\n", (unsigned long long)o->seed, a == b ? "twice the same" : "DIFFERENT");
    return a == b ? 0 : 1;
}

/* The list that --broken goes through, as Markdown. */
static int print_broken(void)
{
    printf("| rule off | off as well, since it masks | has to cost |\n| --- | --- | --- |\n");
    for (size_t i = 0; i < DRA_ARRAY_LEN(broken_rules); i++) {
        const struct broken *b = &broken_rules[i];

        printf("| `%s` | %s | %s |\n", b->name, b->masked_by == NULL ? "" : b->masked_by, b->expect);
    }
    return 0;
}

static int print_rules(void)
{
    printf("| rule | what it says | spec |\n| --- | --- | --- |\n");
    for (int i = 0; i < ha_rule_count(); i++) {
        const struct ha_rule_doc *d = ha_rule_doc(i);

        printf("| `%s` | %s | %s |\n", d->name, d->doc, d->spec);
    }
    return 0;
}

static uint64_t number(const char *text)
{
    int64_t v = 0;

    if (dra_parse_i64(text, strlen(text), 0, INT64_MAX, &v) != 0) {
        fprintf(stderr, "dra_sim: want a number, got \"%s\"\n", text);
        exit(2);
    }
    return (uint64_t)v;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"seeds", required_argument, NULL, 'n'}, {"seed", required_argument, NULL, 's'}, {"from", required_argument, NULL, 'f'},
        {"seconds", required_argument, NULL, 't'}, {"broken", no_argument, NULL, 'b'}, {"only", required_argument, NULL, 'o'},
        {"twice", required_argument, NULL, 'w'}, {"quiet", no_argument, NULL, 'q'}, {"rules", no_argument, NULL, 'r'}, {"list", no_argument, NULL, 'l'}, {"verbose", no_argument, NULL, 'v'}, {NULL, 0, NULL, 0}};
    struct sim_opts o = {.seconds = 60};
    uint64_t from = 1;
    uint64_t count = 200;
    const char *only = NULL;
    bool broken = false;
    bool twice = false;
    int c;

    while ((c = getopt_long(argc, argv, "v", longs, NULL)) != -1) {
        switch (c) {
        case 'n': count = number(optarg); break;
        case 's': from = number(optarg); count = 1; break;
        case 'f': from = number(optarg); break;
        case 't': o.seconds = (int64_t)number(optarg); break;
        case 'b': broken = true; break;
        case 'o': only = optarg; break;
        case 'w': o.seed = number(optarg); twice = true; break;
        case 'q': o.quiet_faults = true; break;
        case 'r': return print_rules();
        case 'l': return print_broken();
        case 'v': o.verbose = true; break;
        default: return 2;
        }
    }
    if (twice) {
        return run_twice(&o);
    }
    return broken ? run_broken(&o, only) : run_range(&o, from, count);
}

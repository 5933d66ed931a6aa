/*
 * test_guard_step.c - the guard's step function, rule by rule: scripts of events with what each must lead to.
 */
#include <dragent/guard_step.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MS INT64_C(1000000)
#define DIR "/srv/pg/data"
#define ANY (-1)

/* One step of a script.  Orders come from generation 5 with epoch 7 unless the row says otherwise. */
struct row {
    enum guard_event_kind ev;
    int64_t at_ms;
    enum guard_order_kind order;
    int64_t deadline_ms;
    int pid; /* REGISTER: the process; 0 = 100.  -1: a process that is not there */
    uint64_t generation;
    int64_t epoch;
    uint32_t flags;
    enum guard_reason reason;
    uint32_t running, left, stuck; /* PASS */
    uint32_t agents;               /* AGENTS */
    /* expected */
    enum guard_status status; /* of an order; NONE = OK */
    int armed, pass, phase, exits;
    int64_t deadline_after_ms; /* ANY = not looked at; 0 = no row wants that */
    enum guard_note note;      /* must be among the notes */
};

#define ORDER(t, k) .ev = GUARD_EV_ORDER, .at_ms = (t), .order = GUARD_ORDER_##k
#define REGISTER(t) ORDER(t, REGISTER)
#define ARM(t, d) ORDER(t, ARM), .deadline_ms = (d)
#define MOVE(t, d) ORDER(t, MOVE), .deadline_ms = (d)
#define TIMER(t) .ev = GUARD_EV_TIMER, .at_ms = (t)
#define EXITED(t) .ev = GUARD_EV_SERVER_EXITED, .at_ms = (t)
#define PASS(t, r, l, s) .ev = GUARD_EV_PASS, .at_ms = (t), .running = (r), .left = (l), .stuck = (s)
#define AGENTS(t, n) .ev = GUARD_EV_AGENTS, .at_ms = (t), .agents = (n)
#define NO GUARD_PASS_NONE
#define UP {AGENTS(0, 1)}, {REGISTER(0)}, {ARM(0, 1000), .armed = 1}

struct script {
    const char *name;
    struct row rows[14];
};

static const struct script scripts[] = {
    {"SAFE-33: a server that is not armed is never touched",
     {{AGENTS(0, 1)}, {REGISTER(1)}, {TIMER(999999)}, {EXITED(1000000), .pass = GUARD_PASS_COUNT_ONLY, .phase = GUARD_PHASE_COUNTING},
      {PASS(1000001, 0, 3, 0), .phase = GUARD_PHASE_COUNTING}, {TIMER(1000002), .phase = GUARD_PHASE_COUNTING},
      {TIMER(1000011), .phase = GUARD_PHASE_COUNTING, .pass = GUARD_PASS_COUNT_ONLY},
      {PASS(1000012, 0, 0, 0), .note = GUARD_NOTE_SERVER_GONE}}},
    {"the deadline: freeze until nothing runs, kill until nothing lives",
     {UP, {TIMER(999), .armed = 1},
      {TIMER(1000), .armed = 1, .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING, .note = GUARD_NOTE_FENCE_BEGUN},
      {PASS(1001, 2, 9, 0), .armed = 1, .phase = GUARD_PHASE_FREEZING},
      {TIMER(1002), .armed = 1, .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING},
      {PASS(1003, 0, 9, 0), .armed = 1, .pass = GUARD_PASS_KILL, .phase = GUARD_PHASE_KILLING},
      {PASS(1004, 3, 3, 0), .armed = 1, .phase = GUARD_PHASE_KILLING},
      {TIMER(1006), .armed = 1, .pass = GUARD_PASS_KILL, .phase = GUARD_PHASE_KILLING},
      {PASS(1007, 0, 0, 0), .armed = 0, .note = GUARD_NOTE_FENCED}}},
    {"a freeze that does not succeed ends in the kill all the same",
     {UP, {TIMER(1000), .armed = 1, .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING},
      {PASS(1199, 1, 9, 0), .armed = 1, .phase = GUARD_PHASE_FREEZING},
      {TIMER(1200), .armed = 1, .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING},
      {PASS(1201, 1, 9, 0), .armed = 1, .pass = GUARD_PASS_KILL, .phase = GUARD_PHASE_KILLING}}},
    {"SAFE-34: what is in state D counts as fenced, and is waited for",
     {UP, {TIMER(1000), .armed = 1, .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING},
      {PASS(1001, 0, 2, 2), .armed = 1, .pass = GUARD_PASS_KILL, .phase = GUARD_PHASE_KILLING},
      {PASS(1002, 0, 1, 1), .armed = 1, .phase = GUARD_PHASE_KILLING},
      {TIMER(1004), .armed = 1, .pass = GUARD_PASS_KILL, .phase = GUARD_PHASE_KILLING},
      {PASS(1023, 0, 1, 1), .armed = 1, .phase = GUARD_PHASE_STUCK, .note = GUARD_NOTE_FENCED},
      {REGISTER(1024), .pid = 200, .armed = 1, .status = GUARD_STATUS_FENCING, .phase = GUARD_PHASE_STUCK},
      {TIMER(1043), .armed = 1, .pass = GUARD_PASS_KILL, .phase = GUARD_PHASE_STUCK},
      {PASS(1044, 0, 0, 0), .note = GUARD_NOTE_SERVER_GONE},
      {REGISTER(1045), .pid = 200}}},
    {"SAFE-33: an armed standby is fenced too, and arming does not ask for the role",
     {{AGENTS(0, 1)}, {REGISTER(0), .flags = GUARD_FLAG_STANDBY}, {ARM(1, 1000), .armed = 1},
      {TIMER(1000), .armed = 1, .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING}}},
    {"SAFE-33: a deadline that has passed fires at once when it is armed",
     {{AGENTS(0, 1)}, {REGISTER(0)},
      {ARM(2000, 1500), .armed = 1, .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING}}},
    {"an order that comes at the deadline is too late",
     {UP, {MOVE(1000, 5000), .armed = 1, .status = GUARD_STATUS_FENCING, .pass = GUARD_PASS_FREEZE,
           .phase = GUARD_PHASE_FREEZING, .deadline_after_ms = 1000},
      {ORDER(1001, DISARM), .reason = GUARD_REASON_PAUSE, .armed = 1, .status = GUARD_STATUS_FENCING,
       .phase = GUARD_PHASE_FREEZING},
      {ORDER(1001, QUIT), .armed = 1, .status = GUARD_STATUS_FENCING, .phase = GUARD_PHASE_FREEZING},
      {ARM(1002, 5000), .armed = 1, .status = GUARD_STATUS_FENCING, .phase = GUARD_PHASE_FREEZING}}},
    {"SAFE-35: within an epoch the deadline only moves forward",
     {UP, {MOVE(1, 2000), .armed = 1, .deadline_after_ms = 2000},
      {MOVE(2, 1999), .armed = 1, .status = GUARD_STATUS_BACKWARD, .deadline_after_ms = 2000},
      {ARM(3, 1999), .armed = 1, .status = GUARD_STATUS_BACKWARD, .deadline_after_ms = 2000},
      {MOVE(4, 2000), .armed = 1, .deadline_after_ms = 2000},
      {MOVE(4, 3000), .epoch = 8, .armed = 1, .status = GUARD_STATUS_OLD_EPOCH, .deadline_after_ms = 2000},
      {ARM(5, 1900), .epoch = 8, .armed = 1, .deadline_after_ms = 1900},
      {ARM(6, 3000), .epoch = 7, .armed = 1, .status = GUARD_STATUS_OLD_EPOCH, .deadline_after_ms = 1900},
      {MOVE(6, 3000), .epoch = 7, .armed = 1, .status = GUARD_STATUS_OLD_EPOCH, .deadline_after_ms = 1900}}},
    {"SAFE-35: one generation is obeyed, and an older one changes nothing",
     {UP, {ORDER(1, PING), .generation = 6, .armed = 1},
      {MOVE(2, 5000), .armed = 1, .status = GUARD_STATUS_OLD_GENERATION, .deadline_after_ms = 1000},
      {ORDER(3, DISARM), .reason = GUARD_REASON_PAUSE, .armed = 1, .status = GUARD_STATUS_OLD_GENERATION},
      {ORDER(4, FENCE_NOW), .armed = 1, .status = GUARD_STATUS_OLD_GENERATION},
      {REGISTER(5), .generation = 6, .armed = 1}, /* adopts the server that is there */
      {MOVE(6, 3000), .generation = 6, .armed = 1, .deadline_after_ms = 3000},
      {ARM(7, 2500), .generation = 7, .armed = 1, .deadline_after_ms = 2500}}},
    {"SAFE-33: disarming is refused while the server runs, unless for a reason",
     {UP, {ORDER(1, DISARM), .reason = GUARD_REASON_STOPPED, .armed = 1, .status = GUARD_STATUS_STILL_RUNNING},
      {ORDER(2, DISARM), .armed = 1, .status = GUARD_STATUS_MALFORMED},
      {ORDER(3, DISARM), .reason = GUARD_REASON_PAUSE}, {ARM(4, 2000), .armed = 1},
      {ORDER(5, DISARM), .reason = GUARD_REASON_UNSIGNALLED}, {MOVE(6, 3000), .status = GUARD_STATUS_NOT_ARMED},
      {TIMER(99999)}}},
    {"SAFE-34: a dead postmaster's orphans are fenced at once; then a start in place is covered before it runs",
     {UP, {EXITED(10), .armed = 1, .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING},
      {PASS(11, 0, 4, 0), .armed = 1, .pass = GUARD_PASS_KILL, .phase = GUARD_PHASE_KILLING},
      {REGISTER(11), .pid = 200, .armed = 1, .status = GUARD_STATUS_FENCING, .phase = GUARD_PHASE_KILLING},
      {PASS(12, 0, 0, 0), .armed = 1, .note = GUARD_NOTE_SERVER_GONE},
      {MOVE(13, 1100), .armed = 1},
      {REGISTER(14), .pid = 200, .armed = 1},
      {TIMER(1100), .armed = 1, .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING}}},
    {"SAFE-33: a new postmaster with standby.signal disarms; stopped disarms",
     {UP, {EXITED(10), .armed = 1, .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING},
      {PASS(11, 0, 0, 0), .armed = 1, .pass = GUARD_PASS_KILL, .phase = GUARD_PHASE_KILLING},
      {PASS(12, 0, 0, 0), .armed = 1}, {REGISTER(13), .pid = 200, .flags = GUARD_FLAG_STANDBY},
      {ARM(14, 1000), .armed = 1}, {EXITED(15), .armed = 1, .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING},
      {PASS(16, 0, 0, 0), .armed = 1, .pass = GUARD_PASS_KILL, .phase = GUARD_PHASE_KILLING},
      {PASS(17, 0, 0, 0), .armed = 1}, {ORDER(18, DISARM), .reason = GUARD_REASON_STOPPED}}},
    {"one server at a time, and only one that lives",
     {{AGENTS(0, 1)}, {REGISTER(1), .pid = -1, .status = GUARD_STATUS_NO_PROCESS}, {ARM(1, 1000), .status = GUARD_STATUS_NO_SERVER},
      {REGISTER(2)}, {REGISTER(3)}, {REGISTER(4), .pid = 200, .status = GUARD_STATUS_OTHER_SERVER},
      {EXITED(5), .pass = GUARD_PASS_COUNT_ONLY, .phase = GUARD_PHASE_COUNTING},
      {REGISTER(6), .status = GUARD_STATUS_NO_PROCESS, .phase = GUARD_PHASE_COUNTING},
      {ARM(6, 1000), .status = GUARD_STATUS_NO_PROCESS, .phase = GUARD_PHASE_COUNTING},
      {PASS(7, 1, 1, 0), .phase = GUARD_PHASE_COUNTING},
      {REGISTER(8), .pid = 200, .status = GUARD_STATUS_OTHER_SERVER, .phase = GUARD_PHASE_COUNTING},
      {ORDER(9, FENCE_NOW), .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING}}},
    {"registered and armed in one order, or neither",
     {{AGENTS(0, 1)}, {ARM(1, 1000), .pid = -1, .status = GUARD_STATUS_NO_SERVER},
      {ARM(2, 1000), .pid = 100, .flags = GUARD_FLAG_STANDBY, .armed = 1},
      {ARM(3, 2000), .pid = 200, .armed = 1, .status = GUARD_STATUS_OTHER_SERVER, .deadline_after_ms = 1000},
      {ARM(4, 2000), .pid = 100, .armed = 1, .deadline_after_ms = 2000}}},
    {"an ordered fence works unarmed, and needs to know a directory",
     {{AGENTS(0, 1)}, {ORDER(1, FENCE_NOW), .status = GUARD_STATUS_NO_SERVER}, {REGISTER(2)},
      {ORDER(3, FENCE_NOW), .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING},
      {ORDER(4, FENCE_NOW), .phase = GUARD_PHASE_FREEZING},
      {PASS(5, 0, 1, 0), .pass = GUARD_PASS_KILL, .phase = GUARD_PHASE_KILLING},
      {PASS(6, 0, 0, 0), .note = GUARD_NOTE_SERVER_GONE},
      {ORDER(7, FENCE_NOW), .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING}}},
    {"HA-193: in report mode a passed deadline is told once, and nothing is killed",
     {{AGENTS(0, 1)}, {REGISTER(0)}, {ARM(0, 1000), .flags = GUARD_FLAG_REPORT, .armed = 1},
      {TIMER(1000), .armed = 1, .note = GUARD_NOTE_DEADLINE_PASSED}, {TIMER(1500), .armed = 1},
      {MOVE(1600, 2000), .armed = 1}, {TIMER(2000), .armed = 1, .note = GUARD_NOTE_DEADLINE_PASSED},
      {EXITED(2001), .armed = 1, .pass = GUARD_PASS_COUNT_ONLY, .phase = GUARD_PHASE_COUNTING}}},
    {"SAFE-33: without an agent an armed guard stays, and fences",
     {UP, {AGENTS(1, 0), .armed = 1}, {TIMER(1000), .armed = 1, .pass = GUARD_PASS_FREEZE, .phase = GUARD_PHASE_FREEZING},
      {PASS(1001, 0, 1, 0), .armed = 1, .pass = GUARD_PASS_KILL, .phase = GUARD_PHASE_KILLING},
      {PASS(1002, 0, 0, 0), .exits = 1}}},
    {"HA-194: it ends with the postmaster when no agent is left",
     {{AGENTS(0, 1)}, {REGISTER(0)}, {AGENTS(1, 0)},
      {EXITED(2), .pass = GUARD_PASS_COUNT_ONLY, .phase = GUARD_PHASE_COUNTING}, {PASS(3, 0, 0, 0), .exits = 1}}},
    {"HA-194: it ends when told to, but not armed", {UP, {ORDER(1, QUIT), .armed = 1, .status = GUARD_STATUS_ARMED},
      {ORDER(2, DISARM), .reason = GUARD_REASON_PAUSE}, {ORDER(3, QUIT), .exits = 1}}},
    {"a guard to which nobody comes ends", {{TIMER(GUARD_IDLE_MS - 1)}, {TIMER(GUARD_IDLE_MS), .exits = 1}}},
    {"the last agent leaves and there is no server", {{AGENTS(0, 1)}, {AGENTS(5, 0)}, {TIMER(4 + GUARD_LINGER_MS)}, {TIMER(5 + GUARD_LINGER_MS), .exits = 1}}},
};

static void order_fill(struct guard_order *o, const struct row *r)
{
    memset(o, 0, sizeof *o);
    o->magic = GUARD_MAGIC;
    o->version = GUARD_VERSION;
    o->size = sizeof *o;
    o->kind = r->order;
    o->flags = r->flags;
    o->generation = r->generation != 0 ? r->generation : 5;
    o->seq = 42;
    o->epoch = r->epoch != 0 ? r->epoch : 7;
    o->lease = 77;
    o->deadline_ns = r->deadline_ms * MS;
    o->certain_until_ns = o->deadline_ns + 300 * MS;
    o->pid = r->pid > 0 ? r->pid : r->order == GUARD_ORDER_REGISTER ? 100 : 0;
    o->start_ticks = 4242;
    o->reason = r->reason;
    memcpy(o->data_dir, DIR, sizeof DIR);
}

static bool has_note(const struct guard_actions *a, enum guard_note n)
{
    return a->notes[0] == n || a->notes[1] == n || a->notes[2] == n;
}

static void run(struct guard_state *st, const struct row *r, struct guard_actions *out)
{
    struct guard_order o;
    struct guard_event ev = {.kind = r->ev,
                             .now_ns = r->at_ms * MS,
                             .order = &o,
                             .process_found = r->pid != -1,
                             .agents = r->agents,
                             .running = r->running,
                             .left = r->left,
                             .stuck = r->stuck};

    order_fill(&o, r);
    guard_step(st, &ev, out);
}

#define WANT(cond)                                                                                                     \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fail_msg("%s: step %zu: want " #cond " (phase %s, pass %d, status %s)", s->name, i,                        \
                     guard_phase_to_str(st.view.phase), (int)a.pass, guard_status_to_str(a.answer.status));            \
        }                                                                                                              \
    } while (0)

static void test_scripts(void **unused)
{
    (void)unused;
    for (size_t n = 0; n < sizeof scripts / sizeof scripts[0]; n++) {
        const struct script *s = &scripts[n];
        struct guard_state st;
        struct guard_actions a;
        bool walking = false; /* a pass was asked for and not answered yet */

        guard_step_init(&st, 0);
        for (size_t i = 0; i < sizeof s->rows / sizeof s->rows[0] && s->rows[i].ev != GUARD_EV_NONE; i++) {
            const struct row *r = &s->rows[i];
            run(&st, r, &a);
            WANT(st.view.armed == (uint32_t)r->armed);
            WANT((int)a.pass == r->pass);
            WANT((int)st.view.phase == r->phase);
            WANT(a.exit == (r->exits != 0));
            if (r->deadline_after_ms > 0) {
                WANT(st.view.deadline_ns == r->deadline_after_ms * MS);
            }
            if (r->note != GUARD_NOTE_NONE) {
                WANT(has_note(&a, r->note));
            }
            if (r->ev == GUARD_EV_ORDER) {
                WANT(a.reply && a.answer.seq == 42 && a.answer.kind == (uint32_t)r->order);
                WANT(a.answer.status == (uint32_t)(r->status != GUARD_STATUS_NONE ? r->status : GUARD_STATUS_OK));
                WANT(memcmp(&a.answer.view, &st.view, sizeof st.view) == 0);
            }
            /* A wake-up is set whenever something is pending: an armed deadline, or the next look at a fence. */
            walking = a.pass != GUARD_PASS_NONE || (walking && r->ev != GUARD_EV_PASS);
            WANT(st.view.phase == GUARD_PHASE_NONE || walking || a.timer_ns != 0);
            WANT(st.view.armed == 0 || st.passed_told || walking || a.timer_ns != 0);
        }
    }
}

static void test_malformed_orders(void **unused)
{
    struct row ping = {ORDER(1, PING)};
    struct guard_order good;
    struct guard_state st;
    struct guard_actions a;

    (void)unused;
    guard_step_init(&st, 0);
    order_fill(&good, &ping);
    for (int i = 0; i < 7; i++) {
        struct guard_order o = good;
        struct guard_event ev = {.kind = GUARD_EV_ORDER, .now_ns = MS, .order = &o, .process_found = true};

        o.magic ^= i == 0;
        o.version = (uint16_t)(o.version + (i == 1));
        o.size = (uint16_t)(o.size - (i == 2));
        o.kind = i == 3 ? GUARD_ORDER_COUNT : i == 4 ? GUARD_ORDER_NONE : i >= 5 ? GUARD_ORDER_REGISTER : o.kind;
        o.data_dir[0] = i == 5 ? 'x' : '/';
        o.pid = i == 6 ? 1 : 100;
        guard_step(&st, &ev, &a);
        assert_true(a.reply);
        assert_int_equal(a.answer.status, GUARD_STATUS_MALFORMED);
        assert_int_equal(st.view.server_pid, 0);
    }
}

/* Any order, at any time, in any number: never backward within an epoch, and past the deadline the fence is on. */
static void test_random_orders(void **unused)
{
    uint64_t rnd = 1;

    (void)unused;
    for (int round = 0; round < 2000; round++) {
        struct guard_state st;
        struct guard_actions a;
        int64_t t = 0;

        guard_step_init(&st, 0);
        for (int i = 0; i < 60; i++) {
            struct row r = {0};
            struct guard_view before = st.view;
            bool same;

            rnd = rnd * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            t += (int64_t)((rnd >> 33) % 200);
            r.at_ms = t;
            r.ev = (enum guard_event_kind)(1 + (rnd >> 40) % 5);
            r.order = (enum guard_order_kind)(1 + (rnd >> 43) % 7);
            r.deadline_ms = (int64_t)((rnd >> 20) % 3000) + 1;
            r.generation = 5 + (rnd >> 50) % 2;
            r.epoch = 7 + (int64_t)((rnd >> 52) % 2);
            r.agents = (uint32_t)(rnd >> 54) % 2;
            r.reason = (enum guard_reason)((rnd >> 56) % 4);
            r.left = (uint32_t)(rnd >> 58) % 3;
            r.stuck = r.left != 0 ? (uint32_t)(rnd >> 60) % (r.left + 1) : 0;
            r.running = r.left - r.stuck;
            run(&st, &r, &a);
            same = before.generation == st.view.generation && before.epoch == st.view.epoch;
            if (before.armed != 0 && same && r.generation == before.generation) {
                assert_true(st.view.deadline_ns >= before.deadline_ns);
            }
            assert_true(st.view.generation >= before.generation);
            assert_true(st.view.fence_id >= before.fence_id);
            if (st.view.armed != 0 && t * MS >= st.view.deadline_ns) {
                assert_int_not_equal(st.view.phase, GUARD_PHASE_NONE);
                assert_int_not_equal(st.view.phase, GUARD_PHASE_COUNTING);
            }
            if (before.armed != 0 && st.view.armed == 0 && r.ev == GUARD_EV_ORDER) {
                assert_true(r.order == GUARD_ORDER_DISARM);
            }
        }
    }
}

static void stamp_of(const struct guard_state *st, uint64_t seq, struct guard_stamp *s)
{
    memset(s, 0, sizeof *s);
    s->magic = GUARD_MAGIC;
    s->version = GUARD_VERSION;
    s->size = sizeof *s;
    s->seq = seq;
    memcpy(s->boot_id, "boot-1", 7);
    s->view = st->view;
    memcpy(s->data_dir, st->data_dir, sizeof s->data_dir);
    s->sum = guard_stamp_sum(s);
}

static void test_stamp(void **unused)
{
    struct guard_state st;
    struct guard_stamp slots[2];

    (void)unused;
    guard_step_init(&st, 0);
    stamp_of(&st, 8, &slots[0]);
    stamp_of(&st, 9, &slots[1]);
    assert_ptr_equal(guard_stamp_choose(slots, "boot-1"), &slots[1]);
    assert_null(guard_stamp_choose(slots, "boot-2")); /* SAFE-37: a stamp of another boot is not read */
    assert_null(guard_stamp_choose(slots, "boot-"));
    assert_null(guard_stamp_choose(slots, "boot-11"));
    slots[1].view.deadline_ns++; /* torn */
    assert_ptr_equal(guard_stamp_choose(slots, "boot-1"), &slots[0]);
    slots[0].version++;
    assert_null(guard_stamp_choose(slots, "boot-1"));
    memset(slots, 0, sizeof slots);
    assert_null(guard_stamp_choose(slots, "boot-1"));
    assert_null(guard_stamp_choose(slots, ""));
}

/* SAFE-36, 37: a guard that replaces another one goes on where the stamp says. */
static void test_resume(void **unused)
{
    const struct row up[] = {UP};
    const struct row exited = {EXITED(20)};
    const struct row due = {TIMER(1000)};
    struct guard_state st, next;
    struct guard_actions a;
    struct guard_stamp s;

    (void)unused;
    guard_step_init(&st, 0);
    for (size_t i = 0; i < sizeof up / sizeof up[0]; i++) {
        run(&st, &up[i], &a);
    }
    stamp_of(&st, 1, &s);

    guard_step_init(&next, 10 * MS); /* in time: armed with the old deadline */
    assert_true(guard_step_resume(&next, &s, true, 10 * MS));
    assert_int_equal(next.view.armed, 1);
    run(&next, &due, &a);
    assert_int_equal(a.pass, GUARD_PASS_FREEZE);

    guard_step_init(&next, 10 * MS); /* the postmaster died meanwhile: its orphans are fenced */
    assert_false(guard_step_resume(&next, &s, false, 10 * MS));
    run(&next, &exited, &a);
    assert_int_equal(a.pass, GUARD_PASS_FREEZE);

    guard_step_init(&next, 1001 * MS); /* too late: the agent decides (the key may still be ours) */
    assert_true(guard_step_resume(&next, &s, true, 1001 * MS));
    assert_int_equal(next.view.armed, 0);
    assert_int_equal(next.view.certain_until_ns, 1300 * MS);

    run(&st, &due, &a); /* killed in the middle of a fence: begun anew */
    stamp_of(&st, 2, &s);
    guard_step_init(&next, 1002 * MS);
    (void)guard_step_resume(&next, &s, true, 1002 * MS);
    run(&next, &(struct row){TIMER(1002)}, &a);
    assert_int_equal(a.pass, GUARD_PASS_FREEZE);
}

static void test_margin(void **unused)
{
    static const struct {
        int64_t ttl_ms, ppm, want_ms;
    } rows[] = {{30000, 0, 300}, {30000, 500, 315}, {5000, 500, 303}, {3000, 1, 301}, {1000, 0, 250}};

    (void)unused;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(guard_margin_default_ms(rows[i].ttl_ms, rows[i].ppm), rows[i].want_ms);
    }
}

static void test_names(void **unused)
{
    (void)unused;
    assert_string_equal(guard_order_to_str(GUARD_ORDER_FENCE_NOW), "fence");
    assert_string_equal(guard_status_to_str(GUARD_STATUS_OLD_GENERATION), "order of an older agent");
    assert_string_equal(guard_phase_to_str(GUARD_PHASE_STUCK), "stuck");
    assert_string_equal(guard_cause_to_str(GUARD_CAUSE_DEADLINE), "deadline passed");
    assert_string_equal(guard_note_to_str(GUARD_NOTE_FENCED), "fenced");
    assert_string_equal(guard_note_to_str(GUARD_NOTE_COUNT), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scripts), cmocka_unit_test(test_malformed_orders), cmocka_unit_test(test_random_orders),
        cmocka_unit_test(test_stamp),   cmocka_unit_test(test_resume),           cmocka_unit_test(test_margin),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

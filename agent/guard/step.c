/*
 * step.c - the whole behaviour of the guard as one pure function: an event in, actions out.
 *
 * Promises:
 *  (1) An armed guard begins to fence with the first event at or after its deadline, whatever the role of the server
 *      (SAFE-33), and never gives up a fence that was begun.
 *  (2) Orders of an older generation change nothing.  Within one generation and epoch the deadline only moves forward
 *      (SAFE-35).
 *  (3) A fence ends only when no process of the server is left, orphans of a dead postmaster included (SAFE-34).
 *  (4) A server that is not armed is never signalled, unless an agent orders it.
 * No I/O, no clock, no malloc, no globals: main.c and the simulator both run it.
 */
#include <dragent/guard_step.h>

#include <stddef.h>
#include <string.h>

#define MS INT64_C(1000000)
/* Freezing 300 backends beside four busy loops took 97 ms at most; past this the guard kills what it has. */
#define FREEZE_LIMIT_NS (200 * MS)
/* A guard at SCHED_FIFO that does not sleep between its passes starves those who are to die. */
#define FREEZE_PAUSE_NS (MS / 5)
#define KILL_PAUSE_NS MS
#define STUCK_AFTER_NS (20 * MS)
#define STUCK_PAUSE_NS (20 * MS)
/* A start in place waits for the last process: look often at first. */
#define COUNT_PAUSE_NS (10 * MS)
#define COUNT_LONG_NS (500 * MS)
#define COUNT_LONG_PAUSE_NS (250 * MS)

static void on_order(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out);
static enum guard_status order_do(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out);
static void on_exited(struct guard_state *st, int64_t now_ns, struct guard_actions *out);
static void on_pass(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out);
static void on_timer(struct guard_state *st, int64_t now_ns, struct guard_actions *out);
static void check_deadline(struct guard_state *st, int64_t now_ns, struct guard_actions *out);
static void finish(struct guard_state *st, int64_t now_ns, struct guard_actions *out);

/* ---- public ------------------------------------------------------------------------------------------ */

void guard_step_init(struct guard_state *st, int64_t now_ns)
{
    memset(st, 0, sizeof *st);
    st->idle_until_ns = now_ns + GUARD_IDLE_MS * MS;
}

bool guard_step_resume(struct guard_state *st, const struct guard_stamp *s, bool server_alive, int64_t now_ns)
{
    st->view = s->view;
    memcpy(st->data_dir, s->data_dir, sizeof st->data_dir);
    st->deadline_generation = s->view.generation;
    if (st->view.server_pid == 0) {
        st->view.armed = 0;
        st->view.phase = GUARD_PHASE_NONE;
        return false;
    }
    if (st->view.phase != GUARD_PHASE_NONE && st->view.phase != GUARD_PHASE_COUNTING) {
        /* Killed in the middle of a fence: begin it anew. */
        st->view.phase = GUARD_PHASE_FREEZING;
        st->freeze_until_ns = now_ns + FREEZE_LIMIT_NS;
        st->next_pass_ns = now_ns;
    } else {
        st->view.phase = GUARD_PHASE_NONE;
        if (st->view.armed != 0 && st->view.deadline_ns <= now_ns) {
            st->view.armed = 0;
        }
    }
    st->view.exited = 0; /* a dead one is reported as exited by its missing pidfd */
    return server_alive;
}

void guard_step(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out)
{
    memset(out, 0, sizeof *out);
    if (ev->kind == GUARD_EV_PASS) {
        on_pass(st, ev, out); /* belongs to the phase that asked for it, so before a new one may begin */
    }
    /* Before anything else may move the deadline: what came late is late. */
    check_deadline(st, ev->now_ns, out);
    switch (ev->kind) {
    case GUARD_EV_ORDER:
        on_order(st, ev, out);
        check_deadline(st, ev->now_ns, out); /* armed with a deadline that has passed: fires at once */
        break;
    case GUARD_EV_TIMER:
        on_timer(st, ev->now_ns, out);
        break;
    case GUARD_EV_SERVER_EXITED:
        on_exited(st, ev->now_ns, out);
        break;
    case GUARD_EV_AGENTS:
        st->agents = ev->agents;
        if (ev->agents == 0 && st->view.server_pid == 0) {
            st->idle_until_ns = ev->now_ns + GUARD_LINGER_MS * MS; /* an agent that is upgraded comes back */
        }
        break;
    case GUARD_EV_PASS:
    case GUARD_EV_NONE:
        break;
    }
    finish(st, ev->now_ns, out);
}

static void head_fill(const struct guard_state *st, int64_t now_ns, struct guard_reply *r)
{
    memset(r, 0, sizeof *r);
    r->magic = GUARD_MAGIC;
    r->version = GUARD_VERSION;
    r->size = sizeof *r;
    r->now_ns = now_ns;
    r->view = st->view;
}

void guard_step_note(const struct guard_state *st, enum guard_note note, int64_t now_ns, struct guard_reply *out)
{
    head_fill(st, now_ns, out);
    out->note = note;
}

int64_t guard_margin_default_ms(int64_t ttl_ms, int64_t drift_ppm)
{
    const int64_t fence_ms = 300;
    int64_t drift_ms = (ttl_ms * drift_ppm + 999999) / 1000000;
    int64_t fence_max_ms = ttl_ms / 4; /* a very short lease must leave time to renew it */

    return (fence_ms < fence_max_ms ? fence_ms : fence_max_ms) + drift_ms;
}

/* ---- the stamp --------------------------------------------------------------------------------------- */

uint64_t guard_stamp_sum(const struct guard_stamp *s)
{
    const unsigned char *p = (const unsigned char *)s;
    uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a: against torn writes, not against malice */

    for (size_t i = 0; i < offsetof(struct guard_stamp, sum); i++) {
        h = (h ^ p[i]) * UINT64_C(1099511628211);
    }
    return h;
}

bool guard_stamp_is_valid(const struct guard_stamp *s, const char *boot_id)
{
    if (s->magic != GUARD_MAGIC || s->version != GUARD_VERSION || s->size != sizeof *s) {
        return false;
    }
    if (s->sum != guard_stamp_sum(s) || s->boot_id[GUARD_BOOT_ID_MAX - 1] != '\0' ||
        s->data_dir[GUARD_PATH_MAX - 1] != '\0') {
        return false;
    }
    for (size_t i = 0; i < GUARD_BOOT_ID_MAX; i++) {
        if (s->boot_id[i] != boot_id[i]) {
            return false;
        }
        if (boot_id[i] == '\0') {
            return i > 0;
        }
    }
    return false;
}

const struct guard_stamp *guard_stamp_choose(const struct guard_stamp slots[2], const char *boot_id)
{
    bool a = guard_stamp_is_valid(&slots[0], boot_id);
    bool b = guard_stamp_is_valid(&slots[1], boot_id);

    if (a && (!b || slots[0].seq > slots[1].seq)) {
        return &slots[0];
    }
    return b ? &slots[1] : NULL;
}

/* ---- fencing ----------------------------------------------------------------------------------------- */

static bool is_fencing(const struct guard_state *st)
{
    return st->view.phase == GUARD_PHASE_FREEZING || st->view.phase == GUARD_PHASE_KILLING ||
           st->view.phase == GUARD_PHASE_STUCK;
}

static void tell(struct guard_actions *out, enum guard_note note)
{
    for (size_t i = 0; i < sizeof out->notes / sizeof out->notes[0]; i++) {
        if (out->notes[i] == GUARD_NOTE_NONE) {
            out->notes[i] = note;
            return;
        }
    } /* full: every note carries the whole view, so nothing is lost */
}

static void fence_begin(struct guard_state *st, enum guard_cause cause, int64_t now_ns, struct guard_actions *out)
{
    struct guard_view *v = &st->view;

    v->phase = GUARD_PHASE_FREEZING;
    v->cause = cause;
    v->fence_id++;
    v->fence_begun_ns = now_ns;
    v->fence_frozen_ns = 0;
    v->fence_ended_ns = 0;
    v->stuck = 0;
    st->stuck_since_ns = 0;
    st->freeze_until_ns = now_ns + FREEZE_LIMIT_NS;
    st->next_pass_ns = 0;
    out->pass = GUARD_PASS_FREEZE;
    out->stamp = true;
    tell(out, GUARD_NOTE_FENCE_BEGUN);
}

static void fence_ended(struct guard_state *st, int64_t now_ns, struct guard_actions *out)
{
    if (st->view.fence_ended_ns == 0) {
        st->view.fence_ended_ns = now_ns;
        tell(out, GUARD_NOTE_FENCED);
        out->stamp = true;
    }
}

/* No process of the server is left. */
static void server_gone(struct guard_state *st, struct guard_actions *out)
{
    struct guard_view *v = &st->view;

    if (is_fencing(st) && v->cause != GUARD_CAUSE_EXITED) {
        v->armed = 0; /* SAFE-33: disarmed with the server stopped */
        v->report = 0;
    } /* after a crash it stays armed for the start in place, until that is given up (DISARM) or a standby comes */
    v->phase = GUARD_PHASE_NONE;
    v->server_pid = 0;
    v->server_start_ticks = 0;
    v->standby = 0;
    v->exited = 0;
    v->left = 0;
    v->stuck = 0;
    out->drop_server = true;
    out->stamp = true;
    tell(out, GUARD_NOTE_SERVER_GONE);
}

static void check_deadline(struct guard_state *st, int64_t now_ns, struct guard_actions *out)
{
    struct guard_view *v = &st->view;

    if (v->armed == 0 || is_fencing(st) || now_ns < v->deadline_ns) {
        return;
    }
    if (v->report == 0) {
        fence_begin(st, GUARD_CAUSE_DEADLINE, now_ns, out);
    } else if (!st->passed_told) {
        st->passed_told = true;
        v->passed++;
        out->stamp = true;
        tell(out, GUARD_NOTE_DEADLINE_PASSED);
    }
}

/* ---- events ------------------------------------------------------------------------------------------ */

static void on_killing_pass(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out)
{
    struct guard_view *v = &st->view;

    v->stuck = ev->stuck;
    if (ev->left == 0) {
        fence_ended(st, ev->now_ns, out);
        server_gone(st, out);
        return;
    }
    st->next_pass_ns = ev->now_ns + (v->phase == GUARD_PHASE_STUCK ? STUCK_PAUSE_NS : KILL_PAUSE_NS);
    if (ev->stuck < ev->left) {
        st->stuck_since_ns = 0;
    } else if (st->stuck_since_ns == 0) {
        st->stuck_since_ns = ev->now_ns;
    } else if (v->phase != GUARD_PHASE_STUCK && ev->now_ns - st->stuck_since_ns >= STUCK_AFTER_NS) {
        v->phase = GUARD_PHASE_STUCK;
        fence_ended(st, ev->now_ns, out);
    }
}

static void on_pass(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out)
{
    struct guard_view *v = &st->view;

    v->left = ev->left;
    switch ((enum guard_phase)v->phase) {
    case GUARD_PHASE_COUNTING:
        if (ev->left == 0) {
            server_gone(st, out);
        } else {
            st->next_pass_ns = ev->now_ns + (ev->now_ns - st->stuck_since_ns < COUNT_LONG_NS ? COUNT_PAUSE_NS
                                                                                             : COUNT_LONG_PAUSE_NS);
        }
        break;
    case GUARD_PHASE_FREEZING:
        if (ev->running == 0 || ev->now_ns >= st->freeze_until_ns) {
            v->fence_frozen_ns = ev->now_ns;
            v->phase = GUARD_PHASE_KILLING;
            out->pass = GUARD_PASS_KILL;
            out->stamp = true;
        } else {
            st->next_pass_ns = ev->now_ns + FREEZE_PAUSE_NS;
        }
        break;
    case GUARD_PHASE_KILLING:
    case GUARD_PHASE_STUCK:
        on_killing_pass(st, ev, out);
        break;
    case GUARD_PHASE_NONE:
    case GUARD_PHASE_COUNT:
        break;
    }
}

static void on_timer(struct guard_state *st, int64_t now_ns, struct guard_actions *out)
{
    if (st->next_pass_ns == 0 || now_ns < st->next_pass_ns) {
        return;
    }
    st->next_pass_ns = 0;
    switch ((enum guard_phase)st->view.phase) {
    case GUARD_PHASE_COUNTING:
        out->pass = GUARD_PASS_COUNT_ONLY;
        break;
    case GUARD_PHASE_FREEZING:
        out->pass = GUARD_PASS_FREEZE;
        break;
    case GUARD_PHASE_KILLING:
    case GUARD_PHASE_STUCK:
        out->pass = GUARD_PASS_KILL;
        break;
    case GUARD_PHASE_NONE:
    case GUARD_PHASE_COUNT:
        break;
    }
}

static void on_exited(struct guard_state *st, int64_t now_ns, struct guard_actions *out)
{
    struct guard_view *v = &st->view;

    if (v->server_pid == 0 || v->exited != 0) {
        return;
    }
    v->exited = 1;
    out->stamp = true;
    if (!is_fencing(st)) {
        tell(out, GUARD_NOTE_SERVER_EXITED);
        if (v->armed != 0 && v->report == 0) {
            fence_begin(st, GUARD_CAUSE_EXITED, now_ns, out); /* SAFE-34: its backends go on acknowledging */
        } else {
            v->phase = GUARD_PHASE_COUNTING;
            st->stuck_since_ns = now_ns;
            st->next_pass_ns = 0;
            out->pass = GUARD_PASS_COUNT_ONLY;
        }
    }
}

static bool order_is_well_formed(const struct guard_order *o)
{
    return o->magic == GUARD_MAGIC && o->version == GUARD_VERSION && o->size == sizeof *o &&
           o->kind > GUARD_ORDER_NONE && o->kind < GUARD_ORDER_COUNT;
}

static void on_order(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out)
{
    const struct guard_order *o = ev->order;
    enum guard_status status;

    if (!order_is_well_formed(o)) {
        status = GUARD_STATUS_MALFORMED;
    } else if (o->generation < st->view.generation) {
        status = GUARD_STATUS_OLD_GENERATION;
    } else {
        if (o->generation > st->view.generation) {
            st->view.generation = o->generation;
            out->stamp = true;
        }
        status = order_do(st, ev, out);
    }
    out->reply = true;
    out->answer.status = (uint32_t)status; /* the rest is filled in when the step is over */
    out->answer.kind = o->kind;
    out->answer.seq = o->seq;
}

static enum guard_status do_register(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out)
{
    const struct guard_order *o = ev->order;
    struct guard_view *v = &st->view;

    if (o->pid <= 1 || o->data_dir[0] != '/' || o->data_dir[GUARD_PATH_MAX - 1] != '\0') {
        return GUARD_STATUS_MALFORMED;
    }
    if (is_fencing(st)) {
        return GUARD_STATUS_FENCING;
    }
    if (v->server_pid == o->pid && v->server_start_ticks == o->start_ticks) {
        return v->exited != 0 ? GUARD_STATUS_NO_PROCESS : GUARD_STATUS_OK; /* a restarted agent adopts it */
    }
    if (v->server_pid != 0) {
        return GUARD_STATUS_OTHER_SERVER; /* also while orphans of it live: the start has to wait (SAFE-34) */
    }
    if (!ev->process_found) {
        return GUARD_STATUS_NO_PROCESS;
    }
    v->server_pid = o->pid;
    v->server_start_ticks = o->start_ticks;
    v->exited = 0;
    v->left = 0;
    v->standby = (o->flags & GUARD_FLAG_STANDBY) != 0 ? 1 : 0;
    if (v->standby != 0) {
        v->armed = 0; /* SAFE-33: a new postmaster that was started with standby.signal on disk */
        v->report = 0;
    }
    memcpy(st->data_dir, o->data_dir, sizeof st->data_dir);
    out->take_server = true;
    out->stamp = true;
    return GUARD_STATUS_OK;
}

static void deadline_set(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out)
{
    const struct guard_order *o = ev->order;
    struct guard_view *v = &st->view;
    bool same = st->deadline_generation == o->generation && v->epoch == o->epoch;

    v->certain_until_ns =
        same && v->certain_until_ns > o->certain_until_ns ? v->certain_until_ns : o->certain_until_ns;
    v->deadline_ns = o->deadline_ns;
    st->deadline_generation = o->generation;
    st->passed_told = st->passed_told && o->deadline_ns <= ev->now_ns;
    out->stamp = true;
}

static bool is_backward(const struct guard_state *st, const struct guard_order *o)
{
    return st->deadline_generation == o->generation && st->view.epoch == o->epoch &&
           o->deadline_ns < st->view.deadline_ns;
}

static enum guard_status do_arm(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out)
{
    const struct guard_order *o = ev->order;
    struct guard_view *v = &st->view;

    if (o->deadline_ns <= 0 || o->certain_until_ns < o->deadline_ns) {
        return GUARD_STATUS_MALFORMED;
    }
    if (is_fencing(st)) {
        return GUARD_STATUS_FENCING;
    }
    if (o->pid != 0) {
        enum guard_status status = do_register(st, ev, out);

        if (status != GUARD_STATUS_OK) {
            return status;
        }
    }
    if (v->server_pid == 0) {
        return GUARD_STATUS_NO_SERVER;
    }
    if (v->exited != 0) {
        return GUARD_STATUS_NO_PROCESS;
    }
    if (v->armed != 0 && st->deadline_generation == o->generation && o->epoch < v->epoch) {
        return GUARD_STATUS_OLD_EPOCH;
    }
    if (is_backward(st, o)) {
        return GUARD_STATUS_BACKWARD;
    }
    deadline_set(st, ev, out);
    v->armed = 1;
    v->report = (o->flags & GUARD_FLAG_REPORT) != 0 ? 1 : 0;
    v->epoch = o->epoch;
    v->lease = o->lease;
    return GUARD_STATUS_OK;
}

static enum guard_status do_move(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out)
{
    const struct guard_order *o = ev->order;

    if (o->deadline_ns <= 0 || o->certain_until_ns < o->deadline_ns) {
        return GUARD_STATUS_MALFORMED;
    }
    if (is_fencing(st)) {
        return GUARD_STATUS_FENCING;
    }
    if (st->view.armed == 0) {
        return GUARD_STATUS_NOT_ARMED;
    }
    if (o->epoch != st->view.epoch || o->lease != st->view.lease) {
        return GUARD_STATUS_OLD_EPOCH; /* a new epoch is armed for, not moved to */
    }
    if (o->deadline_ns < st->view.deadline_ns) {
        return GUARD_STATUS_BACKWARD;
    }
    deadline_set(st, ev, out);
    return GUARD_STATUS_OK;
}

static enum guard_status do_disarm(struct guard_state *st, const struct guard_order *o, struct guard_actions *out)
{
    if (is_fencing(st)) {
        return GUARD_STATUS_FENCING;
    }
    switch ((enum guard_reason)o->reason) {
    case GUARD_REASON_STOPPED:
        if (st->view.server_pid != 0) {
            return GUARD_STATUS_STILL_RUNNING;
        }
        break;
    case GUARD_REASON_PAUSE:
    case GUARD_REASON_UNSIGNALLED:
        break;
    case GUARD_REASON_NONE:
    default:
        return GUARD_STATUS_MALFORMED;
    }
    st->view.armed = 0;
    st->view.report = 0;
    out->stamp = true;
    return GUARD_STATUS_OK;
}

static enum guard_status order_do(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out)
{
    switch ((enum guard_order_kind)ev->order->kind) {
    case GUARD_ORDER_PING:
        return GUARD_STATUS_OK;
    case GUARD_ORDER_REGISTER:
        return do_register(st, ev, out);
    case GUARD_ORDER_ARM:
        return do_arm(st, ev, out);
    case GUARD_ORDER_MOVE:
        return do_move(st, ev, out);
    case GUARD_ORDER_DISARM:
        return do_disarm(st, ev->order, out);
    case GUARD_ORDER_FENCE_NOW:
        if (st->data_dir[0] == '\0') {
            return GUARD_STATUS_NO_SERVER;
        }
        if (!is_fencing(st)) {
            fence_begin(st, GUARD_CAUSE_ORDER, ev->now_ns, out);
        }
        return GUARD_STATUS_OK;
    case GUARD_ORDER_QUIT:
        if (is_fencing(st)) {
            return GUARD_STATUS_FENCING;
        }
        if (st->view.armed != 0) {
            return GUARD_STATUS_ARMED;
        }
        out->exit = true;
        return GUARD_STATUS_OK;
    case GUARD_ORDER_NONE:
    case GUARD_ORDER_COUNT:
        break;
    }
    return GUARD_STATUS_MALFORMED;
}

/* What every step ends with: the end of the guard, the answer, the timer. */
static void finish(struct guard_state *st, int64_t now_ns, struct guard_actions *out)
{
    const struct guard_view *v = &st->view;

    if (st->agents > 0) {
        st->idle_until_ns = 0;
    } else if (v->server_pid == 0 && v->phase == GUARD_PHASE_NONE && now_ns >= st->idle_until_ns) {
        out->exit = true; /* HA-194: nothing to guard, and nobody to guard it for */
    }
    if (out->reply) {
        struct guard_reply r;

        head_fill(st, now_ns, &r);
        r.kind = out->answer.kind;
        r.status = out->answer.status;
        r.seq = out->answer.seq;
        out->answer = r;
    }
    out->timer_ns = st->next_pass_ns;
    if (v->armed != 0 && !is_fencing(st) && !st->passed_told &&
        (out->timer_ns == 0 || v->deadline_ns < out->timer_ns)) {
        out->timer_ns = v->deadline_ns;
    }
    if (st->agents == 0 && st->idle_until_ns > now_ns &&
        (out->timer_ns == 0 || st->idle_until_ns < out->timer_ns)) {
        out->timer_ns = st->idle_until_ns;
    }
}

/* ---- names ------------------------------------------------------------------------------------------- */

#define GUARD_X(name, text) text,
static const char *const order_names[] = {GUARD_ORDER_MAP(GUARD_X)};
static const char *const status_names[] = {GUARD_STATUS_MAP(GUARD_X)};
static const char *const phase_names[] = {GUARD_PHASE_MAP(GUARD_X)};
static const char *const cause_names[] = {GUARD_CAUSE_MAP(GUARD_X)};
static const char *const note_names[] = {GUARD_NOTE_MAP(GUARD_X)};
#undef GUARD_X

const char *guard_order_to_str(uint32_t kind)
{
    return kind < GUARD_ORDER_COUNT ? order_names[kind] : "?";
}

const char *guard_status_to_str(uint32_t status)
{
    return status < GUARD_STATUS_COUNT ? status_names[status] : "?";
}

const char *guard_phase_to_str(uint32_t phase)
{
    return phase < GUARD_PHASE_COUNT ? phase_names[phase] : "?";
}

const char *guard_cause_to_str(uint32_t cause)
{
    return cause < GUARD_CAUSE_COUNT ? cause_names[cause] : "?";
}

const char *guard_note_to_str(uint32_t note)
{
    return note < GUARD_NOTE_COUNT ? note_names[note] : "?";
}

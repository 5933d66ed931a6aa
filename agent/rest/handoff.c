/*
 * handoff.c - slot and mailboxes (conventions.md, section 7).
 *
 * Invariants:
 *  (1) A snapshot is owned by exactly one of: the slot, the REST thread, the loop thread that is about to free it.
 *  (2) Mail is never lost and never reordered.  The receiver takes all of it at once, so that a node is never popped
 *      while it is being linked again (no ABA).
 */
#include "handoff.h"

#include <stdlib.h>

void *rest_slot_put(struct rest_slot *s, void *p)
{
    return atomic_exchange_explicit(&s->p, p, memory_order_acq_rel);
}

void *rest_slot_take(struct rest_slot *s)
{
    if (atomic_load_explicit(&s->p, memory_order_relaxed) == NULL) {
        return NULL; /* the common case writes nothing */
    }
    return atomic_exchange_explicit(&s->p, NULL, memory_order_acq_rel);
}

void rest_mail_send(struct rest_mailbox *b, struct rest_mail *m)
{
    struct rest_mail *top = atomic_load_explicit(&b->top, memory_order_relaxed);
    do {
        m->next = top;
    } while (!atomic_compare_exchange_weak_explicit(&b->top, &top, m, memory_order_release, memory_order_relaxed));
}

struct rest_mail *rest_mail_take(struct rest_mailbox *b)
{
    struct rest_mail *m = atomic_exchange_explicit(&b->top, NULL, memory_order_acquire);
    struct rest_mail *first = NULL;

    while (m != NULL) { /* newest first: turn it round */
        struct rest_mail *next = m->next;
        m->next = first;
        first = m;
        m = next;
    }
    return first;
}

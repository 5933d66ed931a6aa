/*
 * handoff.h - between loop thread and REST thread: one slot for the newest snapshot, and two mailboxes.
 *
 * No locks.  The slot is valid for ONE producer and ONE consumer; a mailbox for any number of senders and ONE receiver.
 */
#ifndef REST_HANDOFF_H
#define REST_HANDOFF_H

#include <dragent/base.h>

#include <stdatomic.h>

struct rest_slot {
    _Atomic(void *) p; /* owned: whoever exchanges it out owns it */
};
/* Put a new one in; returns what was never taken (to be freed), or NULL. */
void *rest_slot_put(struct rest_slot *s, void *p);
/* Take the newest one out, or NULL if none came since. */
void *rest_slot_take(struct rest_slot *s);

struct rest_mail { /* first member of every message */
    struct rest_mail *next;
};
struct rest_mailbox {
    _Atomic(struct rest_mail *) top;
};
void rest_mail_send(struct rest_mailbox *b, struct rest_mail *m);
/* All mail, oldest first; NULL if none. */
struct rest_mail *rest_mail_take(struct rest_mailbox *b);

#endif

/*
 * diff.h - a unified difference of two texts, three lines of context (inside the room).
 */
#ifndef CTL_DIFF_H
#define CTL_DIFF_H

#include <dragent/text.h>

/* Adds "--- ", "+++ " and the hunks; nothing if the texts are equal. */
void ctl_diff(const char *a, const char *b, struct dra_buf *out);

#endif

/*
 * dcs_text.h - what cluster.c and format.c share about values.  Inside this room only.
 */
#ifndef DCS_TEXT_H
#define DCS_TEXT_H

#include <dragent/text.h>

/* True as Python sees it, since peers do: absent, null, false, 0, "" and empty containers are not.
 */
bool dcs_json_is_truthy(const struct json *j);

#endif

/*
 * breakable.c - the switches by which the simulator takes safety rules away.  Linked by tests only.
 */
#include <dragent/world.h>

uint64_t ha_broken;

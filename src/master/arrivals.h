/* SPDX-License-Identifier: MIT */
#pragma once

/* Whether a connection has come to listening sockets since they were looked at, though somebody else has
 * accepted it and it may be over. For workers that do not count for themselves: who only counts what is open
 * now and then sees nothing of short connections. */

#include "basic/macro.h"
#include "master/listener.h"

typedef struct Arrivals Arrivals;

/* Begins to take notice. The sockets are borrowed. Needs no privilege, wakes nobody up, and costs a
 * connection nothing but the first one after a look. Returns 0, or a negative errno when this kernel has no
 * such thing (aio with IOCB_CMD_POLL) or has been told to keep it. */
int arrivals_new(const Listeners *l, Arrivals **ret);

/* Returns 1 if there was one since the last look, or since the beginning, or if one waits now; 0 if there
 * was none; or a negative errno, when it cannot be told any more. */
int arrivals_look(Arrivals *a);

Arrivals *arrivals_free(Arrivals *a);
DEFINE_CLEANUP(Arrivals, arrivals_free)

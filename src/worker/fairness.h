/* SPDX-License-Identifier: MIT */
#pragma once

/* Who of the workers that share listening sockets should have a connection that one of them has accepted:
 * the decision alone, about what was read from the board. */

#include <stdbool.h>
#include <stdint.h>

/* How long a worker may take to look into its inbox. One that only waits for a CPU must not be taken for a
 * dead one, or connections gather at those that run. */
#define FAIRNESS_PATIENCE_USEC UINT64_C(20000)

/* A worker hands a connection over when it has so many more than another; or a sixteenth of the mean, when
 * that is more. As many as a worker accepts before it moves to the end of the kernel's queue: with steady
 * arrivals nothing is handed over at all. */
#define FAIRNESS_DELTA 16

typedef struct FairnessSeat {
        bool taken;    /* somebody accepts for this slot */
        uint32_t load; /* connections that it has, or is about to have */
        uint64_t busy_since;
        uint64_t pending_since; /* as on the board */
} FairnessSeat;

/* Neither stopped nor busy for so long that a connection would have to wait. @now may be a little older than
 * the times of a seat. */
bool fairness_is_healthy(const FairnessSeat *seat, uint64_t now);

/* The seat that should have what the worker of the seat @mine has accepted; @mine: it keeps it, also when
 * nobody else is healthy. There is no state in which nobody accepts. */
unsigned fairness_choose(const FairnessSeat *seats, unsigned n, unsigned mine, uint64_t now);

/* SPDX-License-Identifier: MIT */
#pragma once

/* When a slot gets its next worker: a pure decision from what happened so far. */

#include <stdint.h>

/* A worker that lived this long was healthy: whatever killed it, it was not its start. */
#define RESTART_HEALTHY_USEC (30 * UINT64_C(1000000))

typedef struct RestartPolicy {
        uint64_t backoff_min_usec;
        uint64_t backoff_max_usec;
} RestartPolicy;

/* The history of one slot; starts as zero. */
typedef struct Restart {
        unsigned early_deaths; /* in a row */
} Restart;

/* A worker of the slot died after @lived_usec. Returns how long to wait before the next one: 0 for the first
 * early death in a row, then backoff_min doubling to backoff_max. */
uint64_t restart_after_death(Restart *r, const RestartPolicy *p, uint64_t lived_usec);

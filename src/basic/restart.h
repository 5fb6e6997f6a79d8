/* SPDX-License-Identifier: MIT */
#pragma once

/* When a slot gets its next worker: a pure decision from what happened so far. */

#include <stdbool.h>
#include <stdint.h>

/* A worker that lived this long was healthy: whatever killed it, it was not its start. */
#define RESTART_HEALTHY_USEC (30 * UINT64_C(1000000))

/* The highest limit. */
#define RESTART_LIMIT_MAX 100

typedef struct RestartPolicy {
        uint64_t backoff_min_usec;
        uint64_t backoff_max_usec;
        unsigned limit; /* of deaths in window_usec, beyond which the slot is failing; 0: none */
        uint64_t window_usec;
} RestartPolicy;

/* The history of one slot; starts as zero. */
typedef struct Restart {
        unsigned early_deaths; /* in a row */
        bool failing;          /* until a worker of it has been well for RESTART_HEALTHY_USEC */
        uint64_t n_deaths;     /* since the start, of which the latest are in... */
        uint64_t deaths_usec[RESTART_LIMIT_MAX + 1];
} Restart;

/* A worker of the slot died at @now_usec, after @lived_usec. Returns how long to wait before the next one: 0
 * for the first early death in a row, then backoff_min doubling to backoff_max; always backoff_max while the
 * slot is failing. */
uint64_t restart_after_death(Restart *r, const RestartPolicy *p, uint64_t now_usec, uint64_t lived_usec);

/* A worker of the slot lives and has done so for @lived_usec. Returns whether that ended the failing. */
bool restart_is_well(Restart *r, uint64_t lived_usec);

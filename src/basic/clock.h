/* SPDX-License-Identifier: MIT */
#pragma once

/* Time in microseconds. Decisions get `now` as an argument; only the edges of a program read a clock. */

#include <stdint.h>
#include <time.h>

#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_PER_SEC  UINT64_C(1000000)
#define NSEC_PER_USEC UINT64_C(1000)
#define USEC_INFINITY UINT64_MAX

/* CLOCK_MONOTONIC, the clock that sd-event's timers and RELOADING=1 use. */
static inline uint64_t clock_now_usec(void) {
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / NSEC_PER_USEC;
}

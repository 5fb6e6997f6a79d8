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

/* How late a timer of @usec may fire, for sd-event: by that it can share a wake-up with others. At least 1,
 * as 0 would mean sd-event's default of 250 ms, which is too much for short ones. */
static inline uint64_t clock_accuracy_usec(uint64_t usec) {
        uint64_t accuracy = usec / 8 < 250 * USEC_PER_MSEC ? usec / 8 : 250 * USEC_PER_MSEC;

        return accuracy > 0 ? accuracy : 1;
}

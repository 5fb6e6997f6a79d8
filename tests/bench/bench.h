/* SPDX-License-Identifier: MIT */
#pragma once

/* What the measured programs share: reading the clocks, giving up, and the line that compare.py reads. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "basic/clock.h"

typedef struct Stopwatch {
        uint64_t wall;
        uint64_t cpu;
} Stopwatch;

static inline uint64_t usage_usec(int who) {
        struct rusage u;

        getrusage(who, &u);
        return (uint64_t) (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * USEC_PER_SEC +
               (uint64_t) (u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static inline uint64_t cpu_usec(void) {
        return usage_usec(RUSAGE_SELF);
}

static inline Stopwatch stopwatch_start(void) {
        return (Stopwatch){ .wall = clock_now_usec(), .cpu = cpu_usec() };
}

/* @cpu_elsewhere: what another process says that it has used meanwhile. */
static inline void stopwatch_report(const Stopwatch *w, uint64_t operations, uint64_t cpu_elsewhere) {
        uint64_t wall = clock_now_usec() - w->wall, cpu = cpu_usec() - w->cpu + cpu_elsewhere;

        printf("{\"operations\": %llu, \"wall\": %llu, \"cpu\": %llu}\n", (unsigned long long) operations,
                        (unsigned long long) wall, (unsigned long long) cpu);
}

/* @r is a negative errno, or whatever is not one. */
static inline int must(int r, const char *what) {
        if (r < 0) {
                fprintf(stderr, "%s: %s\n", what, strerror(-r));
                exit(EXIT_FAILURE);
        }
        return r;
}

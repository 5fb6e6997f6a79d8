/* SPDX-License-Identifier: MIT */
/* Numbers for people; see human.h. */

#include "cli/human.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "basic/clock.h"
#include "basic/macro.h"

static const struct {
        const char *name;
        uint64_t usec;
} units[] = {
        { "d", 24 * 60 * 60 * USEC_PER_SEC },
        { "h", 60 * 60 * USEC_PER_SEC },
        { "min", 60 * USEC_PER_SEC },
        { "s", USEC_PER_SEC },
};

const char *human_duration(uint64_t usec, char buf[static HUMAN_MAX]) {
        if (usec < USEC_PER_SEC) {
                snprintf(buf, HUMAN_MAX, "%" PRIu64 "ms", usec / USEC_PER_MSEC);
                return buf;
        }
        for (size_t i = 0; i < ELEMENTSOF(units); i++) {
                uint64_t n = usec / units[i].usec, rest;

                if (n == 0)
                        continue;
                rest = i + 1 < ELEMENTSOF(units) ? usec % units[i].usec / units[i + 1].usec : 0;
                if (rest > 0)
                        snprintf(buf, HUMAN_MAX, "%" PRIu64 "%s %" PRIu64 "%s", n, units[i].name, rest,
                                        units[i + 1].name);
                else
                        snprintf(buf, HUMAN_MAX, "%" PRIu64 "%s", n, units[i].name);
                break;
        }
        return buf;
}

const char *human_size(uint64_t bytes, char buf[static HUMAN_MAX]) {
        static const char names[] = "BKMGTPE";
        uint64_t whole = bytes, tenths = 0;
        size_t unit = 0;

        while (whole >= 1024) {
                tenths = whole % 1024 * 10 / 1024;
                whole /= 1024;
                unit++;
        }
        if (unit > 0 && whole < 10)
                snprintf(buf, HUMAN_MAX, "%" PRIu64 ".%" PRIu64 "%c", whole, tenths, names[unit]);
        else
                snprintf(buf, HUMAN_MAX, "%" PRIu64 "%c", whole, names[unit]);
        return buf;
}

const char *human_time(uint64_t usec, char buf[static HUMAN_MAX]) {
        time_t t = (time_t) (usec / USEC_PER_SEC);
        struct tm tm;

        if (!localtime_r(&t, &tm) || strftime(buf, HUMAN_MAX, "%Y-%m-%d %H:%M:%S", &tm) == 0)
                snprintf(buf, HUMAN_MAX, "%" PRIu64, usec / USEC_PER_SEC);
        return buf;
}

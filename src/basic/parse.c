/* SPDX-License-Identifier: MIT */
/* Strict number parsing; see parse.h. strtoul() and friends accept signs, white space and silent overflow,
 * so everything goes through parse_digits(). */

#include "basic/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "basic/clock.h"
#include "basic/macro.h"

/* Reads digits at *s and moves *s behind them. */
static int parse_digits(const char **s, uint64_t *ret) {
        const char *p = *s;
        uint64_t v = 0;

        if (*p < '0' || *p > '9')
                return -EINVAL;
        for (; *p >= '0' && *p <= '9'; p++) {
                if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
                                __builtin_add_overflow(v, (uint64_t) (*p - '0'), &v))
                        return -ERANGE;
        }
        *s = p;
        *ret = v;
        return 0;
}

int parse_uint64(const char *s, uint64_t *ret) {
        uint64_t v;
        int r;

        r = parse_digits(&s, &v);
        if (r < 0)
                return r;
        if (*s)
                return -EINVAL;
        *ret = v;
        return 0;
}

int parse_uint(const char *s, unsigned *ret) {
        uint64_t v;
        int r;

        r = parse_uint64(s, &v);
        if (r < 0)
                return r;
        if (v > UINT_MAX)
                return -ERANGE;
        *ret = (unsigned) v;
        return 0;
}

static const struct {
        const char *name;
        uint64_t usec;
} duration_units[] = {
        /* longest first, for printing; a name that begins another's comes after it, for reading */
        { "d", 24 * 60 * 60 * USEC_PER_SEC },
        { "h", 60 * 60 * USEC_PER_SEC },
        { "min", 60 * USEC_PER_SEC },
        { "s", USEC_PER_SEC },
        { "ms", USEC_PER_MSEC },
        { "us", 1 },
};

static int parse_unit(const char **s, uint64_t *ret_usec) {
        for (size_t i = 0; i < ELEMENTSOF(duration_units); i++) {
                size_t n = strlen(duration_units[i].name);

                if (strncmp(*s, duration_units[i].name, n) == 0) {
                        *s += n;
                        *ret_usec = duration_units[i].usec;
                        return 0;
                }
        }
        return -EINVAL;
}

int parse_duration(const char *s, uint64_t *ret_usec) {
        uint64_t total = 0, previous_unit = UINT64_MAX;
        int r;

        if (strcmp(s, "0") == 0) {
                *ret_usec = 0;
                return 0;
        }
        do {
                uint64_t n, unit;

                r = parse_digits(&s, &n);
                if (r < 0)
                        return r;
                r = parse_unit(&s, &unit);
                if (r < 0)
                        return r;
                if (unit >= previous_unit) /* "5s 1min" is a slip more often than a wish */
                        return -EINVAL;
                previous_unit = unit;

                if (__builtin_mul_overflow(n, unit, &n) || __builtin_add_overflow(total, n, &total))
                        return -ERANGE;
                if (*s == ' ') {
                        s += strspn(s, " ");
                        if (!*s)
                                return -EINVAL;
                }
        } while (*s);

        *ret_usec = total;
        return 0;
}

int parse_size(const char *s, uint64_t *ret_bytes) {
        static const char units[] = "KMGT";
        uint64_t v;
        int r;

        r = parse_digits(&s, &v);
        if (r < 0)
                return r;
        if (*s) {
                const char *u = strchr(units, *s);
                if (!u || s[1])
                        return -EINVAL;
                if (__builtin_mul_overflow(v, UINT64_C(1) << (10 * (u - units + 1)), &v))
                        return -ERANGE;
        }
        *ret_bytes = v;
        return 0;
}

const char *duration_to_string(uint64_t usec, char buf[static DURATION_STRING_MAX]) {
        size_t n = 0;

        if (usec == 0)
                return strcpy(buf, "0");
        for (size_t i = 0; i < ELEMENTSOF(duration_units); i++) {
                uint64_t k = usec / duration_units[i].usec;

                if (k == 0)
                        continue;
                usec %= duration_units[i].usec;
                n += (size_t) snprintf(buf + n, DURATION_STRING_MAX - n, "%" PRIu64 "%s", k,
                                duration_units[i].name);
        }
        return buf;
}

const char *size_to_string(uint64_t bytes, char buf[static SIZE_STRING_MAX]) {
        static const char units[] = "KMGT";
        int unit = -1;

        while (bytes && bytes % 1024 == 0 && unit < 3) {
                bytes /= 1024;
                unit++;
        }
        if (unit < 0)
                snprintf(buf, SIZE_STRING_MAX, "%" PRIu64, bytes);
        else
                snprintf(buf, SIZE_STRING_MAX, "%" PRIu64 "%c", bytes, units[unit]);
        return buf;
}

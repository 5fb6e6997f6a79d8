/* SPDX-License-Identifier: MIT */
/* Strict numbers: what is refused matters more than what is taken. */

#include "../unit.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "basic/clock.h"
#include "basic/macro.h"
#include "basic/parse.h"

#define UNTOUCHED UINT64_C(0xDEADBEEF)

typedef struct Case {
        const char *text;
        int r;
        uint64_t value;
} Case;

static void check(int (*parse)(const char *, uint64_t *), const Case *cases, size_t n) {
        for (size_t i = 0; i < n; i++) {
                uint64_t v = UNTOUCHED;
                int r = parse(cases[i].text, &v);

                if (r != cases[i].r || v != (r == 0 ? cases[i].value : UNTOUCHED))
                        fail_msg("\"%s\": %d, %llu", cases[i].text, r, (unsigned long long) v);
        }
}

/* Digits alone: no sign, no space, no prefix, no silent overflow. */
static void test_uint64(void **state) {
        static const Case cases[] = {
                { "0", 0, 0 },
                { "007", 0, 7 },
                { "18446744073709551615", 0, UINT64_MAX },
                { "18446744073709551616", -ERANGE, 0 },
                { "99999999999999999999999", -ERANGE, 0 },
                { "", -EINVAL, 0 },
                { "-1", -EINVAL, 0 },
                { "+1", -EINVAL, 0 },
                { " 1", -EINVAL, 0 },
                { "1 ", -EINVAL, 0 },
                { "1\n", -EINVAL, 0 },
                { "0x10", -EINVAL, 0 },
                { "1e3", -EINVAL, 0 },
                { "1.0", -EINVAL, 0 },
        };

        check(parse_uint64, cases, ELEMENTSOF(cases));
}

/* The same, and what does not fit an unsigned is refused and not cut. */
static void test_uint(void **state) {
        unsigned v = 77;

        assert_int_equal(parse_uint("4294967295", &v), 0);
        assert_int_equal(v, UINT_MAX);
        v = 77;
        assert_int_equal(parse_uint("4294967296", &v), -ERANGE);
        assert_int_equal(parse_uint("-1", &v), -EINVAL);
        assert_int_equal(parse_uint("", &v), -EINVAL);
        assert_int_equal(v, 77);
}

/* Time spans: every unit, sums from large to small; a bare number is refused but for 0. */
static void test_duration(void **state) {
        static const Case cases[] = {
                { "0", 0, 0 },
                { "0s", 0, 0 },
                { "1us", 0, 1 },
                { "100ms", 0, 100 * USEC_PER_MSEC },
                { "10s", 0, 10 * USEC_PER_SEC },
                { "1min", 0, 60 * USEC_PER_SEC },
                { "1min30s", 0, 90 * USEC_PER_SEC },
                { "1min 30s", 0, 90 * USEC_PER_SEC },
                { "2h", 0, 7200 * USEC_PER_SEC },
                { "1d 1h 1min 1s 1ms 1us", 0, 90061001001 },
                { "90s", 0, 90 * USEC_PER_SEC },
                { "18446744073709551615us", 0, UINT64_MAX },
                { "18446744073709551616us", -ERANGE, 0 },
                { "18446744073709551615s", -ERANGE, 0 },
                { "213503982d 8h 1min 49s 551ms 616us", -ERANGE, 0 },
                { "", -EINVAL, 0 },
                { "5", -EINVAL, 0 },
                { "s", -EINVAL, 0 },
                { "5m", -EINVAL, 0 },
                { "5x", -EINVAL, 0 },
                { "5 s", -EINVAL, 0 },
                { " 5s", -EINVAL, 0 },
                { "5s ", -EINVAL, 0 },
                { "5s5", -EINVAL, 0 },
                { "5sec", -EINVAL, 0 },
                { "1.5s", -EINVAL, 0 },
                { "-5s", -EINVAL, 0 },
                { "5s 1min", -EINVAL, 0 },
                { "5s 5s", -EINVAL, 0 },
                { "1min\t30s", -EINVAL, 0 },
                { "infinity", -EINVAL, 0 },
        };

        check(parse_duration, cases, ELEMENTSOF(cases));
}

/* Sizes: powers of 1024 with one capital letter. */
static void test_size(void **state) {
        static const Case cases[] = {
                { "0", 0, 0 },
                { "65536", 0, 65536 },
                { "64K", 0, 65536 },
                { "10M", 0, 10 << 20 },
                { "1G", 0, 1 << 30 },
                { "1T", 0, UINT64_C(1) << 40 },
                { "16777215T", 0, UINT64_C(16777215) << 40 },
                { "16777216T", -ERANGE, 0 },
                { "18446744073709551616", -ERANGE, 0 },
                { "", -EINVAL, 0 },
                { "K", -EINVAL, 0 },
                { "1k", -EINVAL, 0 },
                { "1KB", -EINVAL, 0 },
                { "1 K", -EINVAL, 0 },
                { "1.5K", -EINVAL, 0 },
                { "-1K", -EINVAL, 0 },
                { "1P", -EINVAL, 0 },
        };

        check(parse_size, cases, ELEMENTSOF(cases));
}

/* The printed form is the short one that people write. */
static void test_to_string(void **state) {
        char d[DURATION_STRING_MAX], s[SIZE_STRING_MAX];

        assert_string_equal(duration_to_string(0, d), "0");
        assert_string_equal(duration_to_string(90 * USEC_PER_SEC, d), "1min30s");
        assert_string_equal(duration_to_string(100 * USEC_PER_MSEC, d), "100ms");
        assert_string_equal(duration_to_string(24 * 3600 * USEC_PER_SEC, d), "1d");
        assert_string_equal(duration_to_string(UINT64_MAX, d), "213503982d8h1min49s551ms615us");
        assert_string_equal(size_to_string(0, s), "0");
        assert_string_equal(size_to_string(1023, s), "1023");
        assert_string_equal(size_to_string(16384, s), "16K");
        assert_string_equal(size_to_string(UINT64_C(1) << 50, s), "1024T");
        assert_string_equal(size_to_string(UINT64_MAX, s), "18446744073709551615");
}

/* What is printed reads back as the same value, for numbers of every magnitude. */
static void test_round_trip(void **state) {
        srand48(1);
        for (int i = 0; i < 100000; i++) {
                uint64_t in = (uint64_t) mrand48() << 32 | (uint32_t) mrand48(), out = 0;
                char d[DURATION_STRING_MAX], s[SIZE_STRING_MAX];

                in >>= lrand48() % 64;
                if (i % 3 == 0)
                        in &= ~((UINT64_C(1) << (10 * (i % 5))) - 1);
                assert_int_equal(parse_duration(duration_to_string(in, d), &out), 0);
                assert_true(out == in);
                assert_int_equal(parse_size(size_to_string(in, s), &out), 0);
                assert_true(out == in);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_uint64),
                cmocka_unit_test(test_uint),
                cmocka_unit_test(test_duration),
                cmocka_unit_test(test_size),
                cmocka_unit_test(test_to_string),
                cmocka_unit_test(test_round_trip),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

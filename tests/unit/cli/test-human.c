/* SPDX-License-Identifier: MIT */
/* Numbers as people like to read them. */

#include "../unit.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "basic/clock.h"
#include "basic/macro.h"
#include "cli/human.h"

/* Two units at most, the smaller one only when there is any of it; never rounded up. */
static void test_duration(void **state) {
        static const struct {
                uint64_t usec;
                const char *text;
        } cases[] = {
                { 0, "0ms" },
                { 999, "0ms" },
                { 1500, "1ms" },
                { 999999, "999ms" },
                { USEC_PER_SEC, "1s" },
                { 59 * USEC_PER_SEC + 999999, "59s" },
                { 60 * USEC_PER_SEC, "1min" },
                { 302 * USEC_PER_SEC, "5min 2s" },
                { 3600 * USEC_PER_SEC, "1h" },
                { 3659 * USEC_PER_SEC, "1h" },
                { 3661 * USEC_PER_SEC, "1h 1min" },
                { (12 * 24 + 3) * 3600 * USEC_PER_SEC, "12d 3h" },
                { UINT64_MAX, "213503982d 8h" },
        };
        char buf[HUMAN_MAX];

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                assert_string_equal(human_duration(cases[i].usec, buf), cases[i].text);
}

/* Powers of 1024, a tenth only below 10. */
static void test_size(void **state) {
        static const struct {
                uint64_t bytes;
                const char *text;
        } cases[] = {
                { 0, "0B" },
                { 1023, "1023B" },
                { 1024, "1.0K" },
                { 1024 + 1023, "1.9K" },
                { 10 * 1024 - 1, "9.9K" },
                { 10 * 1024, "10K" },
                { 1024 * 1024 - 1, "1023K" },
                { 1536 * 1024, "1.5M" },
                { UINT64_C(3) << 40, "3.0T" },
                { UINT64_MAX, "15E" },
        };
        char buf[HUMAN_MAX];

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                assert_string_equal(human_size(cases[i].bytes, buf), cases[i].text);
}

/* By the local clock; and whatever the number, something that fits. */
static void test_time(void **state) {
        char buf[HUMAN_MAX];

        setenv("TZ", "UTC-2", 1);
        tzset();
        assert_string_equal(human_time(784111777 * USEC_PER_SEC + 999999, buf), "1994-11-06 10:49:37");
        assert_true(strlen(human_time(UINT64_MAX, buf)) > 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_duration),
                cmocka_unit_test(test_size),
                cmocka_unit_test(test_time),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

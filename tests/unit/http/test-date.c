/* SPDX-License-Identifier: MIT */
#include "http/date.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "basic/macro.h"

#define NOW INT64_C(1800000000) /* January 2027 */

static int parse(const char *s, int64_t *ret) {
        return date_parse(s, strlen(s), NOW, ret);
}

/* RFC 9110, section 5.6.7: all three formats are read, the first is written. */
static void test_formats(void **state) {
        char text[DATE_LENGTH + 1];
        int64_t t;

        date_format(784111777, text);
        assert_string_equal(text, "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_int_equal(parse(text, &t), 0);
        assert_int_equal(t, 784111777);
        assert_int_equal(parse("Sunday, 06-Nov-94 08:49:37 GMT", &t), 0);
        assert_int_equal(t, 784111777);
        assert_int_equal(parse("Sun Nov  6 08:49:37 1994", &t), 0);
        assert_int_equal(t, 784111777);
        assert_int_equal(parse("Sun Nov 16 08:49:37 1994", &t), 0);
        assert_int_equal(t, 784111777 + 10 * 86400);
        date_format_iso(784111777, text);
        assert_string_equal(text, "1994-11-06T08:49:37Z");
}

/* Agrees with the C library over nine thousand years, leap days and centuries included. */
static void test_calendar(void **state) {
        char text[DATE_LENGTH + 1], expected[64];

        for (int64_t t = -62135596800; t < 253402300800; t += 86400 * 17 + 12345) {
                int64_t back;
                time_t tt = t;
                struct tm tm;

                gmtime_r(&tt, &tm);
                strftime(expected, sizeof(expected), "%a, %d %b %Y %H:%M:%S GMT", &tm);
                if (tm.tm_year < -900) /* glibc does not pad the year */
                        continue;
                date_format(t, text);
                assert_string_equal(text, expected);
                assert_int_equal(parse(text, &back), 0);
                assert_int_equal(back, t);
        }
}

/* No date breaks the format. */
static void test_extremes(void **state) {
        char text[DATE_LENGTH + 1];

        date_format(INT64_MAX, text);
        assert_string_equal(text, "Fri, 31 Dec 9999 23:59:59 GMT");
        date_format(INT64_MIN, text);
        assert_string_equal(text, "Sat, 01 Jan 0000 00:00:00 GMT");
        date_format(-1, text);
        assert_string_equal(text, "Wed, 31 Dec 1969 23:59:59 GMT");
}

/* A short year more than 50 years ahead is in the past. */
static void test_short_year(void **state) {
        char text[DATE_LENGTH + 1];
        int64_t t;

        assert_int_equal(parse("Friday, 01-Jan-77 00:00:00 GMT", &t), 0);
        date_format(t, text);
        assert_string_equal(text, "Fri, 01 Jan 2077 00:00:00 GMT");
        assert_int_equal(parse("Sunday, 01-Jan-78 00:00:00 GMT", &t), 0);
        date_format(t, text);
        assert_string_equal(text, "Sun, 01 Jan 1978 00:00:00 GMT");
}

/* What is none of the formats, or no day of the calendar, is no date. */
static void test_malformed(void **state) {
        static const char *const bad[] = {
                "",
                "yesterday",
                "784111777",
                "Sun, 6 Nov 1994 08:49:37 GMT",
                "Sun, 06 Nov 1994 08:49:37 UTC",
                "Sun, 06 nov 1994 08:49:37 GMT",
                "Sun, 06 Nov 1994 08:49:37 GMT ",
                "Sun, 31 Apr 1994 08:49:37 GMT",
                "Sun, 00 Nov 1994 08:49:37 GMT",
                "Sun, 06 Nov 1994 24:49:37 GMT",
                "Sun, 06 Nov 1994 08:60:37 GMT",
                "Sun, 06 Nov 1994 08:49:61 GMT",
                "Sun, +6 Nov 1994 08:49:37 GMT",
                "1un, 06 Nov 1994 08:49:37 GMT",
                "Sun Nov  6 08:49:37 199",
                "Sun-ay, 06-Nov-94 08:49:37 GMT",
                ", 06-Nov-94 08:49:37 GMT",
        };
        int64_t t = 5;

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_int_equal(parse(bad[i], &t), -EINVAL);
        assert_int_equal(t, 5);
}

/* The cache follows the clock, in both directions. */
static void test_cache(void **state) {
        DateCache c = { 0 };

        assert_string_equal(date_cache_get(&c, 0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_string_equal(date_cache_get(&c, 1), "Thu, 01 Jan 1970 00:00:01 GMT");
        assert_string_equal(date_cache_get(&c, 1), "Thu, 01 Jan 1970 00:00:01 GMT");
        assert_string_equal(date_cache_get(&c, 0), "Thu, 01 Jan 1970 00:00:00 GMT");
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_formats),
                cmocka_unit_test(test_calendar),
                cmocka_unit_test(test_extremes),
                cmocka_unit_test(test_short_year),
                cmocka_unit_test(test_malformed),
                cmocka_unit_test(test_cache),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

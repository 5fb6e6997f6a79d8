/* SPDX-License-Identifier: MIT */
#include "http/range.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "basic/macro.h"

static RangeSet set;

static unsigned parse(const char *s, uint64_t size) {
        return range_parse(s, strlen(s), size, &set);
}

static void expect_parts(const char *s, uint64_t size, unsigned n, const RangePart *parts) {
        assert_int_equal(parse(s, size), RANGE_PARTIAL);
        assert_int_equal(set.n, n);
        for (unsigned i = 0; i < n; i++) {
                assert_int_equal(set.parts[i].offset, parts[i].offset);
                assert_int_equal(set.parts[i].length, parts[i].length);
        }
}

static void expect_part(const char *s, uint64_t size, uint64_t offset, uint64_t length) {
        expect_parts(s, size, 1, &(RangePart){ offset, length });
}

/* RFC 9110, section 14.1.2: first and last, first alone, a suffix; cut to what is there. */
static void test_one(void **state) {
        expect_part("bytes=0-0", 10, 0, 1);
        expect_part("bytes=2-5", 10, 2, 4);
        expect_part("bytes=9-9", 10, 9, 1);
        expect_part("bytes=2-", 10, 2, 8);
        expect_part("bytes=0-", 10, 0, 10);
        expect_part("bytes=0-9", 10, 0, 10);
        expect_part("bytes=5-99", 10, 5, 5);
        expect_part("bytes=-1", 10, 9, 1);
        expect_part("bytes=-10", 10, 0, 10);
        expect_part("bytes=-99", 10, 0, 10);
        expect_part("bytes=5-99999999999999999999999999999", 10, 5, 5);
        expect_part("bytes=-18446744073709551615", 10, 0, 10);
        expect_part("bytes=0000000000000000000000000000001-1", 10, 1, 1);
        expect_part("bytes=18446744073709551613-18446744073709551613", UINT64_MAX - 1, UINT64_MAX - 2, 1);
}

/* Section 14.1: the names of units do not depend on the case. Section 5.6.1.2: empty elements, white space.
 */
static void test_tolerance(void **state) {
        expect_part("BYTES=2-5", 10, 2, 4);
        expect_part("bytes=,, 2-5 ,\t,", 10, 2, 4);
        expect_part("bytes= 2-5", 10, 2, 4);
}

/* Section 14.2: what is malformed, or in a unit that we do not know, is ignored. */
static void test_malformed(void **state) {
        static const char *const bad[] = { "", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=a-b",
                "bytes=1", "bytes=5-2", "bytes=1-2x", "bytes=1-2,x", "bytes=1-2 3-4", "bytes=--1",
                "bytes=1--2", "bytes=+1-2", "bytes = 1-2", "bytes=1 -2", "bytes=1- 2", "lines=1-2",
                "bytes:1-2", "bytes=0x1-2", "bytes=1-2;", "byte=1-2", "bytes=0-1,5-4" };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_int_equal(parse(bad[i], 10), RANGE_IGNORED);
}

/* Section 15.5.17: 416 when nothing of what is asked for is there; one that can be had is enough. */
static void test_unsatisfiable(void **state) {
        assert_int_equal(parse("bytes=10-", 10), RANGE_UNSATISFIABLE);
        assert_int_equal(parse("bytes=10-20", 10), RANGE_UNSATISFIABLE);
        assert_int_equal(parse("bytes=-0", 10), RANGE_UNSATISFIABLE);
        assert_int_equal(parse("bytes=10-,-0,99-", 10), RANGE_UNSATISFIABLE);
        assert_int_equal(parse("bytes=99999999999999999999999-", 10), RANGE_UNSATISFIABLE);
        expect_part("bytes=10-,3-4,-0", 10, 3, 2);
}

/* Of an empty file no byte can be had; its end is all of it, which cannot be said by a Content-Range. */
static void test_empty(void **state) {
        assert_int_equal(parse("bytes=0-", 0), RANGE_UNSATISFIABLE);
        assert_int_equal(parse("bytes=0-0", 0), RANGE_UNSATISFIABLE);
        assert_int_equal(parse("bytes=-0", 0), RANGE_UNSATISFIABLE);
        assert_int_equal(parse("bytes=-5", 0), RANGE_IGNORED);
}

/* Section 15.3.7.2: several parts come in the order of the request; those that overlap or touch are one. */
static void test_many(void **state) {
        expect_parts("bytes=0-1,5-6", 10, 2, (RangePart[]){ { 0, 2 }, { 5, 2 } });
        expect_parts("bytes=8-8, 0-1,-1", 20, 3, (RangePart[]){ { 8, 1 }, { 0, 2 }, { 19, 1 } });
        expect_parts("bytes=0-1,2-3", 10, 1, (RangePart[]){ { 0, 4 } });
        expect_parts("bytes=2-3,0-1", 10, 1, (RangePart[]){ { 0, 4 } });
        expect_parts("bytes=0-1,6-7,3-3,2-5", 20, 1, (RangePart[]){ { 0, 8 } });
        expect_parts("bytes=12-13,0-1,6-7,1-6", 20, 2, (RangePart[]){ { 12, 2 }, { 0, 8 } });
        expect_parts("bytes=0-0,0-0,0-0", 10, 1, (RangePart[]){ { 0, 1 } });
        expect_part("bytes=-18446744073709551615", UINT64_MAX, 0, UINT64_MAX);
}

/* Several that come to the whole get the whole, without any text between. */
static void test_whole(void **state) {
        assert_int_equal(parse("bytes=0-4,5-9", 10), RANGE_IGNORED);
        assert_int_equal(parse("bytes=0-,0-1,0-2,0-3", 10), RANGE_IGNORED);
        assert_int_equal(parse("bytes=0-,99-", 10), RANGE_IGNORED);
}

/* Section 17.15: more than a client can want is taken for an attack. */
static void test_too_many(void **state) {
        char text[4096];
        size_t n;

        for (unsigned count = RANGE_PARTS_MAX; count <= RANGE_PARTS_MAX + 1; count++) {
                n = (size_t) snprintf(text, sizeof(text), "bytes=");
                for (unsigned i = 0; i < count; i++)
                        n += (size_t) snprintf(text + n, sizeof(text) - n, "%s%u-%u", i ? "," : "", 3 * i,
                                        3 * i + 1);
                assert_int_equal(parse(text, 1000), count > RANGE_PARTS_MAX ? RANGE_IGNORED : RANGE_PARTIAL);
        }
        n = (size_t) snprintf(text, sizeof(text), "bytes=0-");
        while (n < sizeof(text) - 8)
                n += (size_t) snprintf(text + n, sizeof(text) - n, ",5-%u", 5 + (unsigned) n % 5);
        assert_int_equal(parse(text, 1000), RANGE_IGNORED);
}

/* Section 14.4: Content-Range of a part, and of none. */
static void test_format(void **state) {
        char text[RANGE_TEXT_MAX];

        assert_int_equal(range_format(&(RangePart){ 2, 4 }, 10, text), strlen("bytes 2-5/10"));
        assert_string_equal(text, "bytes 2-5/10");
        range_format(NULL, 0, text);
        assert_string_equal(text, "bytes */0");
        range_format(&(RangePart){ UINT64_MAX - 1, 1 }, UINT64_MAX, text);
        assert_string_equal(text, "bytes 18446744073709551614-18446744073709551614/18446744073709551615");
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_one),
                cmocka_unit_test(test_tolerance),
                cmocka_unit_test(test_malformed),
                cmocka_unit_test(test_unsatisfiable),
                cmocka_unit_test(test_empty),
                cmocka_unit_test(test_many),
                cmocka_unit_test(test_whole),
                cmocka_unit_test(test_too_many),
                cmocka_unit_test(test_format),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

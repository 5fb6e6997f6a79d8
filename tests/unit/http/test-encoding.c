/* SPDX-License-Identifier: MIT */
#include "http/encoding.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "basic/macro.h"

#define B   (1u << ENCODING_BR)
#define Z   (1u << ENCODING_ZSTD)
#define G   (1u << ENCODING_GZIP)
#define I   (1u << ENCODING_IDENTITY)
#define ALL (B | Z | G | I)

typedef struct Row {
        const char *fields;
        unsigned available;
        Encoding expected;
} Row;

static void check(const Row *rows, size_t n) {
        static char buf[1024];
        HttpRequest request;

        for (size_t i = 0; i < n; i++) {
                ParserScan scan = { 0 };

                snprintf(buf, sizeof(buf), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", rows[i].fields);
                assert_int_equal(parser_parse_head(&scan, buf, strlen(buf), sizeof(buf), &request),
                                PARSER_DONE);
                assert_int_equal(encoding_choose(&request, buf, rows[i].available), rows[i].expected);
        }
}

/* RFC 9110, section 12.5.3: without a word, or with an empty one, the file as it is. */
static void test_nothing_said(void **state) {
        static const Row rows[] = {
                { "", ALL, ENCODING_IDENTITY },
                { "Accept-Encoding:\r\n", ALL, ENCODING_IDENTITY },
                { "Accept-Encoding: deflate\r\n", ALL, ENCODING_IDENTITY },
                { "Accept-Encoding: identity\r\n", ALL, ENCODING_IDENTITY },
        };

        check(rows, ELEMENTSOF(rows));
}

/* The client's order first, then ours; only what is there. */
static void test_choice(void **state) {
        static const Row rows[] = {
                { "Accept-Encoding: gzip, deflate, br, zstd\r\n", ALL, ENCODING_BR },
                { "Accept-Encoding: gzip, deflate, br, zstd\r\n", Z | G | I, ENCODING_ZSTD },
                { "Accept-Encoding: gzip, deflate, br, zstd\r\n", G | I, ENCODING_GZIP },
                { "Accept-Encoding: gzip, deflate, br, zstd\r\n", I, ENCODING_IDENTITY },
                { "Accept-Encoding: gzip\r\nAccept-Encoding: br\r\n", ALL, ENCODING_BR },
                { "Accept-Encoding: GZip\r\n", ALL, ENCODING_GZIP },
                { "Accept-Encoding: x-gzip\r\n", ALL, ENCODING_GZIP },
                { "Accept-Encoding: br;q=0.5, gzip;q=0.8\r\n", ALL, ENCODING_GZIP },
                { "Accept-Encoding: br;q=0.5, gzip;q=0.501\r\n", ALL, ENCODING_GZIP },
                { "Accept-Encoding: br ; q=0.1 , zstd; Q=1.000\r\n", ALL, ENCODING_ZSTD },
                { "Accept-Encoding: br;q=0.001\r\n", ALL, ENCODING_BR },
                { "Accept-Encoding: gzip, identity\r\n", ALL, ENCODING_GZIP },
                { "Accept-Encoding: gzip;q=0.5, identity\r\n", ALL, ENCODING_IDENTITY },
        };

        check(rows, ELEMENTSOF(rows));
}

/* "*" stands for what is not named; q=0 is a refusal. */
static void test_star_and_refusal(void **state) {
        static const Row rows[] = {
                { "Accept-Encoding: *\r\n", ALL, ENCODING_BR },
                { "Accept-Encoding: *\r\n", I, ENCODING_IDENTITY },
                { "Accept-Encoding: *, br;q=0\r\n", ALL, ENCODING_ZSTD },
                { "Accept-Encoding: gzip;q=0.9, *;q=0.5\r\n", ALL, ENCODING_GZIP },
                { "Accept-Encoding: br;q=0\r\n", ALL, ENCODING_IDENTITY },
                { "Accept-Encoding: gzip;q=0, br;q=0.0, zstd;q=0.000\r\n", ALL, ENCODING_IDENTITY },
                { "Accept-Encoding: identity;q=0\r\n", ALL, _ENCODING_INVALID },
                { "Accept-Encoding: identity;q=0, gzip\r\n", ALL, ENCODING_GZIP },
                { "Accept-Encoding: identity;q=0, gzip\r\n", I, _ENCODING_INVALID },
                { "Accept-Encoding: *;q=0\r\n", ALL, _ENCODING_INVALID },
                { "Accept-Encoding: *;q=0, identity\r\n", ALL, ENCODING_IDENTITY },
                { "Accept-Encoding: *;q=0, identity;q=0.1\r\n", ALL, ENCODING_IDENTITY },
                { "Accept-Encoding: gzip, *;q=0\r\n", B | I, _ENCODING_INVALID },
        };

        check(rows, ELEMENTSOF(rows));
}

/* Section 12.4.2: an element whose weight is no qvalue is as if it were not there. */
static void test_malformed(void **state) {
        static const char *const bad[] = { "gzip;q=", "gzip;q=2", "gzip;q=1.001", "gzip;q=0.5555",
                "gzip;q=.5", "gzip;q=0,5x", "gzip;", "gzip;x=1", "gzip q=1", "gzip;q =1", "gzip;q=1;x",
                "gzip;q=-1", "gz ip", ";q=1", "gzip;q=01", "gzipp", "gzi" };
        char fields[128];

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                snprintf(fields, sizeof(fields), "Accept-Encoding: %s\r\n", bad[i]);
                check(&(Row){ fields, ALL, ENCODING_IDENTITY }, 1);
        }
        check(&(Row){ "Accept-Encoding: gzip;q=1.\r\n", ALL, ENCODING_GZIP }, 1);
}

/* The names that RFC 9110, 7932 and 8878 registered, and what the tools append. */
static void test_names(void **state) {
        assert_string_equal(encoding_name(ENCODING_ZSTD), "zstd");
        assert_string_equal(encoding_suffix(ENCODING_ZSTD), ".zst");
        assert_string_equal(encoding_suffix(ENCODING_IDENTITY), "");
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_nothing_said),
                cmocka_unit_test(test_choice),
                cmocka_unit_test(test_star_and_refusal),
                cmocka_unit_test(test_malformed),
                cmocka_unit_test(test_names),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
#include "http/chunked.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "basic/macro.h"
#include "http/parser.h"

static int skip_body(const char *s, uint64_t max, size_t *used) {
        Chunked c = { 0 };

        return chunked_skip(&c, s, strlen(s), max, used);
}

/* RFC 9112, section 7.1: the body ends behind the empty line after the trailers, and not a byte later. */
static void test_end(void **state) {
        static const char *const bodies[] = {
                "0\r\n\r\n",
                "000\r\n\r\n",
                "5\r\nhello\r\n0\r\n\r\n",
                "5\r\n\r\n0\r\n\r\n0\r\n\r\n",
                "A;name=value;x=\"y z\"\r\n0123456789\r\n0 ;a\r\nT: v\r\nU: w\r\n\r\n",
        };
        char text[128];
        size_t used;

        for (size_t i = 0; i < ELEMENTSOF(bodies); i++) {
                strcpy(text, bodies[i]);
                strcat(text, "GET");
                assert_int_equal(skip_body(text, 1000, &used), PARSER_DONE);
                assert_int_equal(used, strlen(bodies[i]));
        }
}

/* Cut anywhere, the outcome is the same. */
static void test_pieces(void **state) {
        static const char text[] = "a\r\n0123456789\r\n1;x\r\ny\r\n0\r\nT: v\r\n\r\n";
        Chunked c = { 0 };
        size_t used;

        for (size_t i = 0; i < sizeof(text) - 2; i++) {
                assert_int_equal(chunked_skip(&c, text + i, 1, 1000, &used), PARSER_MORE);
                assert_int_equal(used, 1);
        }
        assert_int_equal(chunked_skip(&c, "\n", 1, 1000, &used), PARSER_DONE);
}

/* RFC 9112, section 7.1: what is not of the grammar is refused, because nobody knows where such a body ends.
 */
static void test_malformed(void **state) {
        static const char *const bad[] = {
                "x",
                ";\r\n",
                "\r\n",
                " 1\r\n",
                "-1\r\n",
                "+1\r\n",
                "0x1\r\n",
                "1\n",
                "1\rx",
                "1\r\nab",
                "1\r\na\n",
                "1\r\na\rx",
                "0\r\n\rx",
                "0\r\n\n",
                "0\r\n x\r\n",
                "0\r\nT: v\n",
                "1;\x01\r\n",
                "0\r\nT\x01",
                "1 \n",
                "ffffffffffffffff1\r\n",
        };
        size_t used;

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_int_equal(skip_body(bad[i], 1000, &used), 400);
}

/* The limit counts the bytes on the wire, and a chunk that cannot fit is refused when it is announced. */
static void test_limit(void **state) {
        size_t used;

        assert_int_equal(skip_body("5\r\nhello\r\n0\r\n\r\n", 15, &used), PARSER_DONE);
        assert_int_equal(skip_body("5\r\nhello\r\n0\r\n\r\n", 14, &used), 413);
        assert_int_equal(skip_body("64\r\n", 100, &used), 413);
        assert_int_equal(skip_body("7fffffffffffffff\r\n", 100, &used), 413);
        assert_int_equal(skip_body("1;xxxxxxxxxxxxxxxxxxx", 20, &used), 413);
        assert_int_equal(skip_body("0\r\nT: xxxxxxxxxxxxxxxxxxx", 20, &used), 413);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_end),
                cmocka_unit_test(test_pieces),
                cmocka_unit_test(test_malformed),
                cmocka_unit_test(test_limit),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

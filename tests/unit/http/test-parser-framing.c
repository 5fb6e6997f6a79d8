/* SPDX-License-Identifier: MIT */
#include "parser-case.h"

/* RFC 9112, section 6.3: one Content-Length of digits; nothing that two parsers might read differently. */
static void test_content_length(void **state) {
        static const char *const bad[] = { "", "+1", "-1", "1 1", "1,1", "0x1", "1a", "1.0", "1;", "1e1",
                "1_0", "\v1", "1\f", "1\x80", "\"1\"", "1, 1", "5, 5", ",1", "1,", "0x", "1\t1" };
        char buf[64];

        assert_int_equal(parse_fields("Content-Length: 007\r\n"), PARSER_DONE);
        assert_int_equal(request.content_length, 7);
        assert_int_equal(parse_fields("Content-Length: 18446744073709551615\r\n"), PARSER_DONE);
        assert_true(request.content_length == UINT64_MAX);
        assert_int_equal(parse_fields("Content-Length: 18446744073709551616\r\n"), 413);
        assert_int_equal(parse_fields("Content-Length: 1\r\ncontent-length: 1\r\n"), 400);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                snprintf(buf, sizeof(buf), "Content-Length: %s\r\n", bad[i]);
                assert_int_equal(parse_fields(buf), 400);
        }
}

/* RFC 9112, section 6.1: chunked alone; never together with a length, never in 1.0. */
static void test_transfer_encoding(void **state) {
        assert_int_equal(parse_fields("Transfer-Encoding: ChunkeD\r\n"), PARSER_DONE);
        assert_true(request.chunked);
        assert_int_equal(parse_fields("tRANSFER-eNCODING:\t chunked \t\r\n"), PARSER_DONE);
        assert_true(request.chunked);
        assert_int_equal(parse_fields("Transfer-Encoding:\r\n"), 400);
        assert_int_equal(parse_fields("Transfer-Encoding: gzip\r\n"), 501);
        assert_int_equal(parse_fields("Transfer-Encoding: gzip, chunked\r\n"), 501);
        assert_int_equal(parse_fields("Transfer-Encoding: xchunked\r\n"), 501);
        assert_int_equal(parse_fields("Transfer-Encoding: chunked;q=1\r\n"), 501);
        assert_int_equal(parse_fields("Transfer-Encoding: chunked, gzip\r\n"), 400);
        assert_int_equal(parse_fields("Transfer-Encoding: chunked, chunked\r\n"), 400);
        assert_int_equal(parse_fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400);
        assert_int_equal(parse_fields("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), 400);
        assert_int_equal(parse_fields("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"), 400);
        assert_int_equal(parse("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

/* RFC 9112, section 9.3: who closes when. Options are a list without regard to case. */
static void test_persistence(void **state) {
        static const struct {
                const char *version, *value;
                bool keep_alive;
        } rows[] = {
                { "1.1", "x", true },
                { "1.1", "close", false },
                { "1.1", "a, CLOSE ,b", false },
                { "1.1", "keep-alive, close", false },
                { "1.1", "closed", true },
                { "1.0", "x", false },
                { "1.0", "Keep-Alive", true },
                { "1.0", "keep-alive, close", false },
        };
        char buf[128];

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                snprintf(buf, sizeof(buf), "GET / HTTP/%s\r\nHost: a\r\nConnection: %s\r\n\r\n",
                                rows[i].version, rows[i].value);
                assert_int_equal(parse(buf), PARSER_DONE);
                assert_int_equal(request.keep_alive, rows[i].keep_alive);
        }
        assert_int_equal(parse_fields("Connection: x\r\nConnection: close\r\n"), PARSER_DONE);
        assert_false(request.keep_alive);
}

/* RFC 9110, section 10.1.1: one expectation is known, and a 1.0 client cannot have it. */
static void test_expect(void **state) {
        assert_int_equal(parse_fields("Expect: 100-Continue\r\n"), PARSER_DONE);
        assert_true(request.expect_continue);
        assert_int_equal(parse_fields("Expect: 200-ok\r\n"), 417);
        assert_int_equal(parse("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"), PARSER_DONE);
        assert_false(request.expect_continue);
}

/* RFC 9112, section 6.1: what comes close to chunked is never taken for it. A front end that does would have
 * another idea of where the body ends. */
static void test_obscure_transfer_encodings(void **state) {
        static const struct {
                const char *value;
                int outcome;
        } rows[] = {
                { ",", 400 }, { ", chunked", 400 }, { "chunked,", 400 }, { ", chunked ,", 400 },
                { "chunked, identity", 400 }, { "gzip, chunked, chunked", 400 }, { "chunked chunked", 501 },
                { "identity", 501 }, { "identity, chunked", 501 }, { "\"chunked\"", 501 },
                { "'chunked'", 501 }, { "x chunked", 501 }, { "chunked;", 501 }, { "chunke", 501 },
                { "chunked\xC2\xA0", 501 }, { "chun\tked", 501 }, { "\vchunked", 400 }, { "chunked\f", 400 },
                { "\x01"
                  "chunked",
                                400 },
                { "chunked\r", 400 }, { "\rchunked", 400 }, { "\r\n chunked", 400 }, { "c\x80hunked", 501 },
                { "CHUN\xE2\x84\xAA"
                  "ED",
                                501 }, /* U+212A is a k to whoever folds cases too well */
        };
        char buf[64];

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                snprintf(buf, sizeof(buf), "Transfer-Encoding: %s\r\n", rows[i].value);
                assert_int_equal(parse_fields(buf), rows[i].outcome);
        }
}

/* RFC 9112, section 5.1, RFC 9110, section 5.1: a name that is not quite the name is another field's, or of
 * no field at all. */
static void test_obscure_names(void **state) {
        static const char *const bad[] = { "Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked",
                " Transfer-Encoding: chunked", "\tTransfer-Encoding: chunked",
                "Transfer-Encoding\v: chunked", "Transfer Encoding: chunked",
                "X: y\rTransfer-Encoding: chunked", "X: y\nTransfer-Encoding: chunked",
                "Transfer-Encoding\r\n: chunked", "\rTransfer-Encoding: chunked",
                "Transfer-Encoding\x80: chunked", "Content-Length : 1", "Content Length: 1" };
        static const char *const others[] = { "Transfer_Encoding: chunked", "Transfer-Encodin: chunked",
                "Transfer-Encodings: chunked", "XTransfer-Encoding: chunked", "Content_Length: 1",
                "Content-Lengt0: 1" };
        char buf[128];

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                snprintf(buf, sizeof(buf), "%s\r\n", bad[i]);
                assert_int_equal(parse_fields(buf), 400);
        }
        for (size_t i = 0; i < ELEMENTSOF(others); i++) {
                snprintf(buf, sizeof(buf), "%s\r\n", others[i]);
                assert_int_equal(parse_fields(buf), PARSER_DONE);
                assert_false(request.chunked);
                assert_int_equal(request.content_length, 0);
        }
}

/* RFC 9112, section 6.3: both lengths is an attack, in whatever order and version, and however wrong each of
 * them is. */
static void test_both_lengths(void **state) {
        static const char *const lengths[] = { "0", "5", "18446744073709551615" };
        char buf[256];

        for (size_t i = 0; i < ELEMENTSOF(lengths); i++)
                for (int version = 0; version < 2; version++)
                        for (int order = 0; order < 2; order++) {
                                char cl[64];

                                snprintf(cl, sizeof(cl), "Content-Length: %s\r\n", lengths[i]);
                                snprintf(buf, sizeof(buf),
                                                "POST / HTTP/1.%d\r\nHost: a\r\n%sTransfer-Encoding: chunked\r\n"
                                                "%s\r\n",
                                                version, order ? cl : "", order ? "" : cl);
                                assert_int_equal(parse(buf), 400);
                        }
}

/* Names of fields are compared without regard to case, and as a whole. */
static void test_names_of_known_fields(void **state) {
        assert_int_equal(parse("GET / HTTP/1.1\r\nHOST: a\r\ncOnTeNt-LeNgTh: 3\r\nEXPECT: 100-continue\r\n"
                               "CONNECTION: close\r\n\r\n"),
                        PARSER_DONE);
        assert_int_equal(request.content_length, 3);
        assert_true(request.expect_continue);
        assert_false(request.keep_alive);

        /* other fields of the same lengths */
        assert_int_equal(parse("GET / HTTP/1.1\r\nFrom: a\r\nHost: a\r\nCookie: x\r\nKeep-Alive: close\r\n"
                               "Content-Widths: x\r\nTransfer-Decoding: x\r\n\r\n"),
                        PARSER_DONE);
        assert_true(request.keep_alive);
        assert_false(request.expect_continue || request.chunked);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_content_length),
                cmocka_unit_test(test_transfer_encoding),
                cmocka_unit_test(test_persistence),
                cmocka_unit_test(test_expect),
                cmocka_unit_test(test_obscure_transfer_encodings),
                cmocka_unit_test(test_obscure_names),
                cmocka_unit_test(test_both_lengths),
                cmocka_unit_test(test_names_of_known_fields),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

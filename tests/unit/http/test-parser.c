/* SPDX-License-Identifier: MIT */
#include "http/parser.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "basic/macro.h"

#define MAX_HEAD 16384

static HttpRequest request;

static int parse_n(const char *s, size_t n) {
        ParserScan scan = { 0 };

        return parser_parse_head(&scan, s, n, MAX_HEAD, &request);
}

static int parse(const char *s) {
        return parse_n(s, strlen(s));
}

/* The outcome of a request with these fields besides a proper Host. */
static int parse_fields(const char *fields) {
        char buf[4096];

        snprintf(buf, sizeof(buf), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", fields);
        return parse(buf);
}

static int parse_target(const char *method, const char *target) {
        char buf[16384];

        snprintf(buf, sizeof(buf), "%s %s HTTP/1.1\r\nHost: a\r\n\r\n", method, target);
        return parse(buf);
}

static void assert_slice(const char *buf, HttpSlice s, const char *expected) {
        assert_int_equal(s.length, strlen(expected));
        assert_memory_equal(buf + s.offset, expected, s.length);
}

/* RFC 9112, section 2.1: a plain request is read completely, and what follows it is not touched. */
static void test_plain(void **state) {
        static const char text[] =
                        "GET /a/b?c=d HTTP/1.1\r\nHost: example:80\r\nX-Empty:\r\nX-Y: \t a b\t \r\n\r\nGET";
        unsigned i = 0;
        HttpSlice s;

        assert_int_equal(parse(text), PARSER_DONE);
        assert_int_equal(request.head_size, sizeof(text) - 1 - 3);
        assert_int_equal(request.method, HTTP_GET);
        assert_int_equal(request.minor_version, 1);
        assert_true(request.keep_alive);
        assert_false(request.chunked);
        assert_int_equal(request.content_length, 0);
        assert_int_equal(request.n_fields, 3);
        assert_slice(text, request.path, "/a/b");
        assert_slice(text, request.query, "c=d");
        assert_slice(text, request.authority, "example:80");
        assert_true(parser_next_field(&request, text, "x-y", &i, &s));
        assert_slice(text, s, "a b"); /* section 5: white space around the value is no part of it */
        assert_false(parser_next_field(&request, text, "x-y", &i, &s));
}

/* However a head is cut, the outcome is the same, and MORE until the last byte. */
static void test_pieces(void **state) {
        static const char text[] = "\r\nHEAD / HTTP/1.0\r\nHost: a\r\nA: b\r\n\r\n";
        ParserScan scan = { 0 };

        for (size_t n = 0; n < sizeof(text) - 1; n++)
                assert_int_equal(parser_parse_head(&scan, text, n, MAX_HEAD, &request), PARSER_MORE);
        assert_int_equal(parser_parse_head(&scan, text, sizeof(text) - 1, MAX_HEAD, &request), PARSER_DONE);
        assert_int_equal(request.method, HTTP_HEAD);
        assert_int_equal(request.head_size, sizeof(text) - 1);
}

/* RFC 9112, section 2.2: lines end in CRLF here; one empty line before the request is forgiven. */
static void test_line_ends(void **state) {
        assert_int_equal(parse("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), PARSER_DONE);
        assert_int_equal(parse("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_int_equal(parse("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_int_equal(parse("GET / HTTP/1.1\nHost: a\r\n\r\n"), 400);
        assert_int_equal(parse("GET / HTTP/1.1\r\nHost: a\n"), 400);
        assert_int_equal(parse("GET / HTTP/1.1\r\nHost: a\r\n\n"), 400);
        assert_int_equal(parse("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"), 400);
        assert_int_equal(parse_fields("A: b\rc\r\n"), 400);
        assert_int_equal(parse_fields("A: b\r\r\n"), 400);
}

/* What cannot be a request is refused at its first byte, not after a time-out. */
static void test_first_byte(void **state) {
        for (int c = 0; c < 256; c++) {
                bool token = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                             (c && strchr("!#$%&'*+-.^_`|~", c));
                char byte = (char) c;

                assert_int_equal(parse_n(&byte, 1), token || c == '\r' ? PARSER_MORE : 400);
        }
        assert_int_equal(parse("\r\n\x16\x03"), 400);
}

/* RFC 9112, section 3: exactly one space between three parts. */
static void test_request_line(void **state) {
        static const char *const bad[] = {
                "GET  / HTTP/1.1",
                "GET /  HTTP/1.1",
                "GET / HTTP/1.1 ",
                " GET / HTTP/1.1",
                "GET\t/ HTTP/1.1",
                "GET /\tHTTP/1.1",
                "GET /",
                "GET / ",
                "GET",
                "GET HTTP/1.1",
                "GET / / HTTP/1.1",
                "G@T / HTTP/1.1",
                "GET / http/1.1",
                "GET / HTTP/1.",
                "GET / HTTP/11",
                "GET / HTTP/1.1x",
                "GET / HTTP/a.1",
                "GET / HTP/1.1",
        };
        char buf[256];

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                snprintf(buf, sizeof(buf), "%s\r\nHost: a\r\n\r\n", bad[i]);
                assert_int_equal(parse(buf), 400);
        }
}

/* RFC 9112, section 2.3 and RFC 9110, section 2.5: 1.0 is understood, later 1.x as 1.1, other majors are
 * 505. */
static void test_version(void **state) {
        assert_int_equal(parse("GET / HTTP/1.0\r\n\r\n"), PARSER_DONE);
        assert_int_equal(request.minor_version, 0);
        assert_int_equal(parse("GET / HTTP/1.7\r\nHost: a\r\n\r\n"), PARSER_DONE);
        assert_int_equal(request.minor_version, 1);
        assert_int_equal(parse("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
        assert_int_equal(parse("GET / HTTP/0.9\r\nHost: a\r\n\r\n"), 505);
        assert_int_equal(parse("PRI * HTTP/2.0\r\n\r\n"), 505);
}

/* RFC 9110, section 9.1: names of methods are case-sensitive, and any token may be one. RFC 9112, section 3:
 * what is longer than any of them is 501. */
static void test_methods(void **state) {
        static const char *const names[HTTP_OTHER] = { "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT",
                "OPTIONS", "TRACE", "PATCH" };
        static const char *const others[] = { "get", "GETT", "GE", "G", "PROPFIND", "!#$%&'*+-.^_`|~9",
                "A23456789B123456789C123456789D12", NULL };
        char buf[128];

        for (int m = 0; m < HTTP_OTHER; m++) {
                assert_int_equal(parse_target(names[m], m == HTTP_CONNECT ? "a:443" : "/"), PARSER_DONE);
                assert_int_equal(request.method, m);
                assert_int_equal(request.keep_alive, m != HTTP_CONNECT);
        }
        for (const char *const *p = others; *p; p++) {
                snprintf(buf, sizeof(buf), "%s /a HTTP/1.1\r\nHost: a\r\n\r\n", *p);
                assert_int_equal(parse(buf), PARSER_DONE);
                assert_int_equal(request.method, HTTP_OTHER);
                assert_slice(buf, request.method_name, *p);
                assert_slice(buf, request.path, "/a");
        }
        assert_int_equal(parse_target("A23456789B123456789C123456789D123", "/"), 501);
}

/* RFC 9112, section 3.2: the four forms of a target, each where it belongs. */
static void test_targets(void **state) {
        static const struct {
                const char *method, *target;
                int outcome;
        } rows[] = {
                { "GET", "/", PARSER_DONE },
                { "GET", "/%zz|{}\\^`\"<>",
                                PARSER_DONE }, /* clients do send these; decoding is another matter */
                { "GET", "http://a", PARSER_DONE },
                { "GET", "HTTPS://a:1?x", PARSER_DONE },
                { "GET", "http://[::1]:80/", PARSER_DONE },
                { "OPTIONS", "*", PARSER_DONE },
                { "GET", "*", 400 },
                { "OPTIONS", "**", 400 },
                { "GET", "a", 400 },
                { "GET", "?a", 400 },
                { "GET", "/#a", 400 },
                { "GET", "/\x80", 400 },
                { "GET", "/\x7f", 400 },
                { "GET", "ftp://a/", 400 },
                { "GET", "http:///", 400 },
                { "GET", "http://", 400 },
                { "GET", "http://u@a/", 400 },
                { "GET", "http://a:b/", 400 },
                { "GET", "http://[::1/", 400 },
                { "CONNECT", "/", 400 },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                assert_int_equal(parse_target(rows[i].method, rows[i].target), rows[i].outcome);
}

/* RFC 9112, section 3.2.2: in absolute form the target names the host, whatever Host says; its path may be
 * empty. */
static void test_absolute_form(void **state) {
        static const char text[] = "GET http://b:8?q HTTP/1.1\r\nHost: a\r\n\r\n";

        assert_int_equal(parse(text), PARSER_DONE);
        assert_slice(text, request.authority, "b:8");
        assert_slice(text, request.path, "");
        assert_slice(text, request.query, "q");
        assert_int_equal(parse("GET http://b/ HTTP/1.1\r\n\r\n"), 400); /* and Host is needed all the same */
}

/* RFC 9112, section 3.2: one valid Host in 1.1, at most one in 1.0. */
static void test_host(void **state) {
        assert_int_equal(parse("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_int_equal(parse("GET / HTTP/1.1\r\nA: b\r\n\r\n"), 400);
        assert_int_equal(parse("GET / HTTP/1.1\r\nHost:\r\n\r\n"), PARSER_DONE);
        assert_int_equal(parse("GET / HTTP/1.1\r\nhOST: [::1]:8080\r\n\r\n"), PARSER_DONE);
        assert_int_equal(parse_fields("Host: a\r\n"), 400);
        assert_int_equal(parse("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
        for (const char *const *p = (const char *const[]){ "a b", "a,b", "a/b", "a@b", "a:b", "a:1:2",
                             "[::1", "[::1]x", "a\"", NULL };
                        *p; p++) {
                char buf[128];

                snprintf(buf, sizeof(buf), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", *p);
                assert_int_equal(parse(buf),
                                strcmp(*p, "a,b") == 0 ? PARSER_DONE : 400); /* ',' is a sub-delim */
        }
}

/* RFC 9112, section 5.1 and RFC 9110, section 5.1: a name is a token right before its colon. */
static void test_field_names(void **state) {
        assert_int_equal(parse_fields("A : b\r\n"), 400);
        assert_int_equal(parse_fields("A\t: b\r\n"), 400);
        assert_int_equal(parse_fields(": b\r\n"), 400);
        assert_int_equal(parse_fields("A\r\n"), 400);
        assert_int_equal(parse_fields("A\"B: c\r\n"), 400);
        assert_int_equal(parse_fields("A(B: c\r\n"), 400);
        assert_int_equal(parse_fields("\xC3\xA4: c\r\n"), 400);
        assert_int_equal(parse_fields("A!#$%&'*+-.^_`|~9: c\r\n"), PARSER_DONE);
}

/* RFC 9112, section 5.2: folded lines are refused, also where the first field would be. */
static void test_folding(void **state) {
        assert_int_equal(parse_fields("A: b\r\n c\r\n"), 400);
        assert_int_equal(parse_fields("A: b\r\n\tc\r\n"), 400);
        assert_int_equal(parse("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400);
}

/* RFC 9110, section 5.5: no control character in a value but the tab; bytes beyond ASCII are opaque. */
static void test_field_values(void **state) {
        static const char with_nul[] = "GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n";

        for (int c = 1; c < 256; c++) {
                char field[] = { 'A', ':', 'x', (char) c, 'y', '\r', '\n', '\0' };
                bool good = c == '\t' || (c >= 0x20 && c != 0x7F);

                assert_int_equal(parse_fields(field), good ? PARSER_DONE : 400);
        }
        assert_int_equal(parse_n(with_nul, sizeof(with_nul) - 1), 400);
}

/* RFC 9112, section 6.3: one Content-Length of digits; nothing that two parsers might read differently. */
static void test_content_length(void **state) {
        static const char *const bad[] = { "", "+1", "-1", "1 1", "1,1", "0x1", "1a", "1.0" };
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
        assert_int_equal(parse_fields("Transfer-Encoding: , ChunkeD ,\r\n"), PARSER_DONE);
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

/* Limits: the head as a whole, the target (414) and the number of fields (431); each passes up to its last
 * byte. */
static void test_limits(void **state) {
        static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        size_t n = sizeof(text) - 1;
        ParserScan scan = { 0 };
        char target[HTTP_TARGET_MAX + 2], fields[4096] = "";

        assert_int_equal(parser_parse_head(&scan, text, n, n, &request), PARSER_DONE);
        scan = (ParserScan){ 0 };
        assert_int_equal(parser_parse_head(&scan, text, n, n - 1, &request), 431);
        scan = (ParserScan){ 0 };
        assert_int_equal(parser_parse_head(&scan, text, 15, 15, &request), 414);
        scan = (ParserScan){ 0 };
        assert_int_equal(parser_parse_head(&scan, text, n, 15, &request), 414);

        memset(target, 'x', sizeof(target));
        target[0] = '/';
        target[HTTP_TARGET_MAX] = '\0';
        assert_int_equal(parse_target("GET", target), PARSER_DONE);
        memcpy(target + HTTP_TARGET_MAX, "x", 2);
        assert_int_equal(parse_target("GET", target), 414);

        for (int i = 1; i < HTTP_FIELDS_MAX; i++)
                strcat(fields, "A: b\r\n");
        assert_int_equal(parse_fields(fields), PARSER_DONE);
        strcat(fields, "A: b\r\n");
        assert_int_equal(parse_fields(fields), 431);
}

/* RFC 9110, section 5.6.1: empty elements of a list are ignored. */
static void test_list(void **state) {
        static const char text[] = " ,, a ,\tb b,,c";
        HttpSlice list = { .length = sizeof(text) - 1 }, e;

        assert_true(parser_next_element(text, &list, &e));
        assert_slice(text, e, "a");
        assert_true(parser_next_element(text, &list, &e));
        assert_slice(text, e, "b b");
        assert_true(parser_next_element(text, &list, &e));
        assert_slice(text, e, "c");
        assert_false(parser_next_element(text, &list, &e));
        list = (HttpSlice){ 0 };
        assert_false(parser_next_element(text, &list, &e));
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_plain),
                cmocka_unit_test(test_pieces),
                cmocka_unit_test(test_line_ends),
                cmocka_unit_test(test_first_byte),
                cmocka_unit_test(test_request_line),
                cmocka_unit_test(test_version),
                cmocka_unit_test(test_methods),
                cmocka_unit_test(test_targets),
                cmocka_unit_test(test_absolute_form),
                cmocka_unit_test(test_host),
                cmocka_unit_test(test_field_names),
                cmocka_unit_test(test_folding),
                cmocka_unit_test(test_field_values),
                cmocka_unit_test(test_content_length),
                cmocka_unit_test(test_transfer_encoding),
                cmocka_unit_test(test_persistence),
                cmocka_unit_test(test_expect),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_list),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

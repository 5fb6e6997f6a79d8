/* SPDX-License-Identifier: MIT */
#include "parser-case.h"

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

        for (size_t n = 0; n < sizeof(text) - 1; n++)
                assert_int_equal(parse_n(text, n), PARSER_MORE);
        assert_int_equal(parse(text), PARSER_DONE);
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
                "GET / HTTP/ 1.1",
                "GET / HTTP /1.1",
                "GET / HTTP/1 .1",
                "GET / HTTP/1. 1",
                "GET / HTTP/1,1",
                "GET / HTTP/01.1",
                "GET / HTTP/1.10",
                "GET / HTTP/+1.1",
                "GET / Http/1.1",
                "GET / HTTP/1.1\t",
                "GET / HTTP/1.1 x",
                "GET / HTTP/1.1\v",
                "GET\v/ HTTP/1.1",
                "GET /\v HTTP/1.1",
                "GET / \tHTTP/1.1",
                "\tGET / HTTP/1.1",
                "GET\xA0/ HTTP/1.1",
                "/ HTTP/1.1",
                "GET / HTTPS/1.1",
                "GET:/ HTTP/1.1",
                "GET / HTTP/1.1\rX: y",
                "GET /\r HTTP/1.1",
                "GET\r / HTTP/1.1",
                "\rGET / HTTP/1.1",
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

/* Limits: the head as a whole, the target (414) and the number of fields (431); each passes up to its last
 * byte. */
static void test_limits(void **state) {
        static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        size_t n = sizeof(text) - 1;
        char target[HTTP_TARGET_MAX + 2], fields[4096] = "";

        assert_int_equal(parse_max(text, n, n), PARSER_DONE);
        assert_int_equal(parse_max(text, n, n - 1), 431);
        assert_int_equal(parse_max(text, 15, 15), 414);
        assert_int_equal(parse_max(text, n, 15), 414);

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

/* RFC 9112, section 5: a value may end, and begin, at any place relative to the vectors it is read in. */
static void test_value_lengths(void **state) {
        char text[512], value[160];

        for (size_t n = 0; n < sizeof(value) - 1; n++) {
                unsigned i = 0;
                HttpSlice s;

                memset(value, 'v', n);
                value[n] = '\0';
                snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\nY:%s \t\r\n\r\n", value,
                                value);
                assert_int_equal(parse(text), PARSER_DONE);
                assert_true(parser_next_field(&request, text, "x", &i, &s));
                assert_slice(text, s, value);
                assert_true(parser_next_field(&request, text, "y", &i, &s));
                assert_slice(text, s, value);
        }
}

/* RFC 9110, section 5.5: a control character is found at every place of a long value. */
static void test_long_values(void **state) {
        static const char bad[] = { '\0', '\x01', '\b', '\v', '\r', '\n', '\x1F', '\x7F' };
        char text[256];
        int n = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\nX: %0100d\r\n\r\n", 0);

        for (int at = n - 4 - 100; at < n - 4; at++)
                for (size_t i = 0; i < sizeof(bad); i++) {
                        text[at] = bad[i];
                        assert_int_equal(parse_n(text, (size_t) n), 400);
                        text[at] = '\t';
                        assert_int_equal(parse_n(text, (size_t) n), PARSER_DONE);
                        text[at] = (char) 0xFF;
                        assert_int_equal(parse_n(text, (size_t) n), PARSER_DONE);
                        text[at] = '0';
                }
}

/* RFC 9110, section 9.1: a lower-case or a longer name is a method of its own. */
static void test_method_names(void **state) {
        static const char *const names[] = { "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE",
                "PATCH" };
        char name[16];

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                for (size_t k = 0; names[i][k]; k++) {
                        strcpy(name, names[i]);
                        name[k] |= 0x20;
                        assert_int_equal(parse_target(name, "/"), PARSER_DONE);
                        assert_int_equal(request.method, HTTP_OTHER);
                }
        assert_int_equal(parse_target("CONNECTS", "/"), PARSER_DONE);
        assert_int_equal(request.method, HTTP_OTHER);
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
                cmocka_unit_test(test_field_names),
                cmocka_unit_test(test_folding),
                cmocka_unit_test(test_field_values),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_list),
                cmocka_unit_test(test_value_lengths),
                cmocka_unit_test(test_long_values),
                cmocka_unit_test(test_method_names),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

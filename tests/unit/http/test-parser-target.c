/* SPDX-License-Identifier: MIT */
#include "parser-case.h"

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
                { "CONNECT", "a:1", PARSER_DONE },
                { "CONNECT", "[::1]:443", PARSER_DONE },
                { "CONNECT", "a", 400 }, /* section 3.2.3: the port is needed */
                { "CONNECT", "a:", 400 },
                { "CONNECT", ":1", 400 },
                { "CONNECT", "[::1]", 400 },
                { "CONNECT", "[::1]:", 400 },
                { "CONNECT", "http://a:1/", 400 },
                { "CONNECT", "*", 400 },
                { "GET", "a:1", 400 },
                { "PROPFIND", "*", 400 },
                { "OPTIONS", "http://a", PARSER_DONE },
                { "GET", "http:/a", 400 },
                { "GET", "http:a", 400 },
                { "GET", "//a", PARSER_DONE },
                { "GET", "http://:80/", 400 }, /* RFC 9110, section 4.2.1: no host */
                { "GET", "http://[]/", 400 },
                { "GET", "http://a%0/", 400 },
                { "GET", "http://a\\/", 400 },
                { "GET", "httpx://a/", 400 },
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

/* RFC 9112, section 3.2: every byte that may stand in a target, and no other, wherever in it. */
static void test_target_characters(void **state) {
        char target[64];

        for (int c = 1; c < 256; c++)
                for (size_t length = 2; length < sizeof(target) - 1; length += 7) {
                        bool good = c > 0x20 && c < 0x7F && c != '#';

                        memset(target, 'x', length);
                        target[0] = '/';
                        target[length - 1] = (char) c;
                        target[length] = '\0';
                        assert_int_equal(parse_target("GET", target), good ? PARSER_DONE : 400);
                }
}

/* RFC 9112, section 3.3: for CONNECT the target is the authority, too. */
static void test_authority_form(void **state) {
        static const char text[] = "CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n";

        assert_int_equal(parse(text), PARSER_DONE);
        assert_slice(text, request.authority, "b:443");
        assert_slice(text, request.path, "b:443");
        assert_int_equal(request.query.length, 0);
}

/* RFC 9110, section 7.2, RFC 3986, section 3.2.2: what a host is made of, byte by byte. */
static void test_host_characters(void **state) {
        for (int c = 1; c < 256; c++) {
                char host[] = { 'a', (char) c, 'b', '\0' };
                bool good = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                            strchr("-._~!$&'()*+,;=", c);

                assert_int_equal(parse_host(host), good ? PARSER_DONE : 400);
        }
}

/* RFC 3986, sections 2.1, 3.2.2 and 3.2.3: escapes, IP-literals, ports. */
static void test_host_forms(void **state) {
        static const struct {
                const char *host;
                int outcome;
        } rows[] = {
                { "a%20b", PARSER_DONE },
                { "%aF", PARSER_DONE },
                { "a%2", 400 },
                { "a%", 400 },
                { "a%zz", 400 },
                { "a%2g", 400 },
                { "a:", PARSER_DONE }, /* an empty port is the default one */
                { "a:65536", PARSER_DONE },
                { ":80", 400 },
                { ":", 400 },
                { "a:8 0", 400 },
                { "a:-1", 400 },
                { "a:80:80", 400 },
                { "::1", 400 },
                { "[::1]", PARSER_DONE },
                { "[v1.a]", PARSER_DONE },
                { "[]", 400 },
                { "[", 400 },
                { "]", 400 },
                { "[::1", 400 },
                { "[::1]:", PARSER_DONE },
                { "[::1]80", 400 },
                { "[[::1]]", 400 },
                { "a[::1]", 400 },
                { "http://a", 400 },
                { "a?b", 400 },
                { "a#b", 400 },
                { "u:p@a", 400 },
                { "a\tb", 400 },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                assert_int_equal(parse_host(rows[i].host), rows[i].outcome);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_targets),
                cmocka_unit_test(test_absolute_form),
                cmocka_unit_test(test_host),
                cmocka_unit_test(test_target_characters),
                cmocka_unit_test(test_authority_form),
                cmocka_unit_test(test_host_characters),
                cmocka_unit_test(test_host_forms),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

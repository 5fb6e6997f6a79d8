/* SPDX-License-Identifier: MIT */
/* Responses as they go over the wire. */

#include "../unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/answer.h"
#include "basic/macro.h"

#define HEAD(status, length)                      \
        "HTTP/1.1 " status "\r\n"                 \
        "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n" \
        "Content-Type: application/json\r\n"      \
        "Content-Length: " length "\r\n"          \
        "Cache-Control: no-store\r\n"             \
        "X-Content-Type-Options: nosniff\r\n"

static void check(Answer a, const char *expected) {
        _cleanup_free_ char *text = NULL;
        size_t n;

        a.now_seconds = 784111777;
        assert_int_equal(answer_format(&a, &text, &n), 0);
        assert_string_equal(text, expected);
        assert_int_equal(n, strlen(expected));
}

/* Head, body, and what is said of the connection. */
static void test_format(void **state) {
        check((Answer){ .status = 200, .body = "{}", .keep_alive = true }, HEAD("200 OK", "2") "\r\n{}");
        check((Answer){ .status = 200, .body = "{}" }, HEAD("200 OK", "2") "Connection: close\r\n\r\n{}");
        check((Answer){ .status = 200, .body = "{}", .keep_alive = true, .old_client = true },
                        HEAD("200 OK", "2") "Connection: keep-alive\r\n\r\n{}");
        check((Answer){ .status = 405, .allow = "GET, HEAD", .body = "[1]" },
                        HEAD("405 Method Not Allowed",
                                        "3") "Allow: GET, HEAD\r\nConnection: close\r\n\r\n[1]");
}

/* A HEAD has the length of the body and not the body. */
static void test_head_only(void **state) {
        check((Answer){ .status = 200, .body = "{\"a\":1}", .head_only = true, .keep_alive = true },
                        HEAD("200 OK", "7") "\r\n");
}

/* Texts of others are always well-formed JSON, without control characters and broken UTF-8. */
static void test_error_body(void **state) {
        static const char *const cases[][2] = {
                { "plain", "plain" },
                { "\"quoted\\\"", "\\\"quoted\\\\\\\"" },
                { "a\nb\x1b[31m", "a?b?[31m" },
                { "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f" },
                { "\xff\xc3", "??" },
                { "</script>", "</script>" },
        };
        char expected[128];

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *body = answer_error_body("invalid", cases[i][0]);

                snprintf(expected, sizeof(expected), "{\"error\":{\"code\":\"invalid\",\"message\":\"%s\"}}",
                                cases[i][1]);
                assert_string_equal(body, expected);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_format),
                cmocka_unit_test(test_head_only),
                cmocka_unit_test(test_error_body),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
#include "http/response.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static char buf[RESPONSE_HEAD_MAX + 1];

static const char *write_head(const Response *r, ResponseFraming framing) {
        framing.date = "Thu, 01 Jan 1970 00:00:00 GMT";
        buf[response_write_head(r, &framing, buf)] = '\0';
        return buf;
}

/* The order of everything, byte by byte. */
static void test_head(void **state) {
        Response r;

        response_init(&r);
        r.size = 1234567890123;
        assert_int_equal(response_add_field(&r, "Content-Type", "text/plain"), 0);
        assert_int_equal(response_add_raw(&r, "ETag: \"e\"\r\n", 11), 0);
        assert_string_equal(write_head(&r, (ResponseFraming){ .keep_alive = true, .has_length = true }),
                        "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\n"
                        "ETag: \"e\"\r\nContent-Length: 1234567890123\r\n\r\n");
        response_done(&r);
}

/* RFC 9112, section 9.3: the connection's fate is said where it is not the default. */
static void test_connection(void **state) {
        Response r;

        response_init(&r);
        assert_null(strstr(write_head(&r, (ResponseFraming){ .keep_alive = true }), "Connection"));
        assert_non_null(strstr(write_head(&r, (ResponseFraming){ .keep_alive = false }),
                        "\r\nConnection: close\r\n"));
        assert_non_null(strstr(write_head(&r, (ResponseFraming){ .keep_alive = true, .old_client = true }),
                        "\r\nConnection: keep-alive\r\n"));
        assert_non_null(strstr(write_head(&r, (ResponseFraming){ .old_client = true }),
                        "\r\nConnection: close\r\n"));
        assert_non_null(strstr(write_head(&r, (ResponseFraming){ .chunked = true }),
                        "\r\nTransfer-Encoding: chunked\r\n"));
}

/* An error has a page of its own length; the fields that belong to it stay. */
static void test_error(void **state) {
        Response r;

        response_init(&r);
        assert_int_equal(response_add_field(&r, "Allow", "GET"), 0);
        assert_int_equal(response_add_field(&r, "content-type", "text/plain"), 0);
        assert_int_equal(response_add_field(&r, "Content-Type-Options", "stays"), 0);
        response_set_error(&r, 405);
        assert_int_equal(r.size, strlen(r.memory));
        assert_non_null(strstr(r.memory, "405 Method Not Allowed"));
        assert_non_null(strstr(
                        write_head(&r, (ResponseFraming){ .has_length = true }), "\r\nAllow: GET\r\n"));
        assert_null(strstr(buf, "text/plain")); /* there is one type, and it is the page's */
        assert_non_null(strstr(buf, "\r\nContent-Type-Options: stays\r\nContent-Type: text/html"));
        response_done(&r);
}

/* RFC 9110, section 5.5 and RFC 9112, section 11.1: nobody splits an answer in two, and the framing has one
 * author. */
static void test_invalid_fields(void **state) {
        static const char *const names[] = { "", "a b", "a:", "a\r\nb", "Content-Length", "connection",
                "DATE", "Transfer-Encoding" };
        static const char *const values[] = { "a\r\nb: c", "a\nb", "a\rb", "\x01", "\x7f" };
        Response r;

        response_init(&r);
        for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
                assert_int_equal(response_add_field(&r, names[i], "v"), -EINVAL);
        for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++)
                assert_int_equal(response_add_field(&r, "n", values[i]), -EINVAL);
        assert_int_equal(r.fields_size, 0);
        assert_int_equal(response_add_field(&r, "n", "caf\xc3\xa9\t,"), 0);
        response_done(&r);
}

/* Fields grow to their limit and not beyond, and the longest head fits. */
static void test_longest(void **state) {
        char value[200];
        Response r;
        int n = 0;

        response_init(&r);
        memset(value, 'v', sizeof(value) - 1);
        value[sizeof(value) - 1] = '\0';
        while (response_add_field(&r, "name", value) == 0)
                n++;
        assert_int_equal(response_add_field(&r, "name", value), -ENOBUFS);
        assert_int_equal(n, RESPONSE_FIELDS_MAX / 207);
        r.status = 511;
        r.size = UINT64_MAX - 1;
        write_head(&r, (ResponseFraming){ .has_length = true });
        assert_int_equal(strlen(buf) <= RESPONSE_HEAD_MAX, 1);
        response_done(&r);
}

/* RFC 9110, section 6.4.1. */
static void test_status_has_body(void **state) {
        assert_true(response_status_has_body(200) && response_status_has_body(404));
        assert_false(response_status_has_body(204) || response_status_has_body(304) ||
                        response_status_has_body(100));
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_head),
                cmocka_unit_test(test_connection),
                cmocka_unit_test(test_error),
                cmocka_unit_test(test_invalid_fields),
                cmocka_unit_test(test_longest),
                cmocka_unit_test(test_status_has_body),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
#include "http/response.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "http/parser.h"

static char buf[RESPONSE_MAX + 1];

static const char *write_head(const Response *r, bool keep_alive, bool old_client) {
        ResponseFraming framing = { .date = "DATE", .keep_alive = keep_alive, .old_client = old_client };

        buf[response_write_head(r, &framing, buf)] = '\0';
        return buf;
}

/* The fields of a file, byte by byte. */
static void test_file(void **state) {
        Response r;

        response_init(&r);
        r.size = 1234567890123;
        r.content_type = "text/plain";
        r.last_modified = 0;
        strcpy(r.etag, "\"e\"");
        assert_string_equal(write_head(&r, true, false),
                        "HTTP/1.1 200 OK\r\nDate: DATE\r\nContent-Type: text/plain\r\nContent-Length: 1234567890123\r\n"
                        "Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nETag: \"e\"\r\n\r\n");
}

/* RFC 9110, section 15.4.5: a 304 has validators and no content. */
static void test_not_modified(void **state) {
        Response r;

        response_init(&r);
        r.status = 304;
        r.content_type = "text/plain";
        strcpy(r.etag, "\"e\"");
        assert_string_equal(write_head(&r, true, false),
                        "HTTP/1.1 304 Not Modified\r\nDate: DATE\r\nETag: \"e\"\r\n\r\n");
}

/* RFC 9112, section 9.3: the connection's fate is said where it is not the default. */
static void test_connection(void **state) {
        Response r;

        response_init(&r);
        assert_null(strstr(write_head(&r, true, false), "Connection"));
        assert_non_null(strstr(write_head(&r, false, false), "\r\nConnection: close\r\n"));
        assert_non_null(strstr(write_head(&r, true, true), "\r\nConnection: keep-alive\r\n"));
        assert_non_null(strstr(write_head(&r, false, true), "\r\nConnection: close\r\n"));
}

/* An error has a page of its own length and none of the validators that were meant for the file. */
static void test_error(void **state) {
        Response r;

        response_init(&r);
        strcpy(r.etag, "\"e\"");
        r.last_modified = 1;
        r.allow = "GET";
        response_set_error(&r, 405);
        assert_int_equal(r.size, strlen(r.text));
        assert_non_null(strstr(r.text, "405 Method Not Allowed"));
        assert_non_null(strstr(write_head(&r, true, false), "\r\nAllow: GET\r\n"));
        assert_null(strstr(buf, "ETag"));
        assert_null(strstr(buf, "Last-Modified"));
}

/* Everything at its longest still fits, with the body of an error behind it: the buffer is RESPONSE_MAX. */
static void test_longest(void **state) {
        Response r;
        size_t n;

        response_init(&r);
        response_set_error(&r, 431);
        r.last_modified = INT64_MAX;
        r.allow = r.cache_control = "GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH";
        memset(r.etag, 'e', sizeof(r.etag) - 1);
        memset(r.location, 'l', sizeof(r.location) - 1);
        r.etag[sizeof(r.etag) - 1] = r.location[sizeof(r.location) - 1] = '\0';
        n = strlen(write_head(&r, false, false));
        assert_true(n + RESPONSE_TEXT_MAX <= RESPONSE_MAX);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_file),
                cmocka_unit_test(test_not_modified),
                cmocka_unit_test(test_connection),
                cmocka_unit_test(test_error),
                cmocka_unit_test(test_longest),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
#pragma once

/* What the tests of the parser share. Every head that one of them reads comes whole and byte by byte. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "basic/macro.h"
#include "http/parser.h"

#define CASE_MAX_HEAD 16384

/* What the last head was read as. */
static HttpRequest request;

static inline bool case_is_same(const HttpRequest *a, const HttpRequest *b) {
        return memcmp(a, b, offsetof(HttpRequest, fields)) == 0 &&
               memcmp(a->fields, b->fields, a->n_fields * sizeof(HttpField)) == 0;
}

/* A byte more at a time, as the worst of clients sends it; it is looked at once, not from the beginning
 * every time. */
static inline int case_drip(const char *s, size_t n, size_t max, HttpRequest *ret) {
        ParserScan scan = { 0 };
        int r = PARSER_MORE;

        for (size_t i = 1; i <= n && r == PARSER_MORE; i++) {
                char *exact = malloc(i); /* a sanitizer sees a look beyond it */

                assert_non_null(exact);
                memcpy(exact, s, i);
                r = parser_parse_head(&scan, exact, i, max, ret);
                if (r == PARSER_MORE)
                        assert_int_equal(scan.seen, i);
                free(exact);
        }
        return r;
}

static inline int parse_max(const char *s, size_t n, size_t max) {
        static HttpRequest drip;
        ParserScan scan = { 0 };
        int r;

        memset(&request, 0xFF, sizeof(request));
        memset(&drip, 0xFF, sizeof(drip));
        r = parser_parse_head(&scan, s, n, max, &request);
        assert_int_equal(case_drip(s, n, max, &drip), r);
        if (r == PARSER_DONE)
                assert_true(case_is_same(&request, &drip));
        return r;
}

static inline int parse_n(const char *s, size_t n) {
        return parse_max(s, n, CASE_MAX_HEAD);
}

static inline int parse(const char *s) {
        return parse_n(s, strlen(s));
}

/* The outcome of a request with these fields besides a proper Host. */
static inline int parse_fields(const char *fields) {
        char buf[4096];

        snprintf(buf, sizeof(buf), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", fields);
        return parse(buf);
}

static inline int parse_target(const char *method, const char *target) {
        char buf[CASE_MAX_HEAD];

        snprintf(buf, sizeof(buf), "%s %s HTTP/1.1\r\nHost: a\r\n\r\n", method, target);
        return parse(buf);
}

static inline int parse_host(const char *value) {
        char buf[256];

        snprintf(buf, sizeof(buf), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", value);
        return parse(buf);
}

static inline void assert_slice(const char *buf, HttpSlice s, const char *expected) {
        assert_int_equal(s.length, strlen(expected));
        assert_memory_equal(buf + s.offset, expected, s.length);
}

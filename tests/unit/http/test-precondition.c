/* SPDX-License-Identifier: MIT */
#include "http/precondition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define THEN   "Sun, 06 Nov 1994 08:49:37 GMT"
#define LATER  "Sun, 06 Nov 1994 08:49:38 GMT"
#define BEFORE "Sun, 06 Nov 1994 08:49:36 GMT"

static const Validators validators = { .etag = "\"a,b\"", .modified = 784111777 };
static char buf[1024];
static HttpRequest request;

static void parse(const char *fields) {
        ParserScan scan = { 0 };

        snprintf(buf, sizeof(buf), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", fields);
        assert_int_equal(parser_parse_head(&scan, buf, strlen(buf), sizeof(buf), &request), PARSER_DONE);
}

static unsigned check(const char *fields) {
        parse(fields);
        return precondition_check(&request, buf, &validators, 784111777);
}

static bool range_at(const char *fields, int64_t now) {
        parse(fields);
        return precondition_allows_range(&request, buf, &validators, now);
}

static bool allows_range(const char *fields) {
        return range_at(fields, 784111777 + 60);
}

/* RFC 9110, section 13.1.1: one of the tags, compared strongly, or anything at all. */
static void test_if_match(void **state) {
        assert_int_equal(check("If-Match: \"a,b\"\r\n"), 0);
        assert_int_equal(check("If-Match: \"x\", \"a,b\"\r\n"), 0);
        assert_int_equal(check("If-Match: \"x\"\r\nIf-Match: \"a,b\"\r\n"), 0);
        assert_int_equal(check("If-Match: *\r\n"), 0);
        assert_int_equal(check("If-Match: W/\"a,b\"\r\n"), 412);
        assert_int_equal(check("If-Match: \"x\"\r\n"), 412);
        assert_int_equal(check("If-Match:\r\n"), 412);
        assert_int_equal(check("If-Match: nonsense\r\n"), 412);
}

/* Section 13.1.4: only without If-Match, only with one valid date. */
static void test_if_unmodified_since(void **state) {
        assert_int_equal(check("If-Unmodified-Since: " THEN "\r\n"), 0);
        assert_int_equal(check("If-Unmodified-Since: " LATER "\r\n"), 0);
        assert_int_equal(check("If-Unmodified-Since: " BEFORE "\r\n"), 412);
        assert_int_equal(check("If-Unmodified-Since: then\r\n"), 0);
        assert_int_equal(check("If-Unmodified-Since: " BEFORE "\r\nIf-Unmodified-Since: " BEFORE "\r\n"), 0);
        assert_int_equal(check("If-Match: \"a,b\"\r\nIf-Unmodified-Since: " BEFORE "\r\n"), 0);
}

/* Section 13.1.2: a list of tags over several lines, compared weakly; commas may be part of a tag. */
static void test_if_none_match(void **state) {
        assert_int_equal(check("If-None-Match: \"a,b\"\r\n"), 304);
        assert_int_equal(check("If-None-Match: W/\"a,b\"\r\n"), 304);
        assert_int_equal(check("If-None-Match: \"x\",W/\"y\" ,, \"a,b\"\r\n"), 304);
        assert_int_equal(check("If-None-Match: \"x\"\r\nIf-None-Match: \"a,b\"\r\n"), 304);
        assert_int_equal(check("If-None-Match: *\r\n"), 304);
        assert_int_equal(check("If-None-Match: \"a\", \"b\"\r\n"), 0);
        assert_int_equal(check("If-None-Match: a,b\r\n"), 0);
        assert_int_equal(check("If-None-Match: \"a,b\r\n"), 0);
        assert_int_equal(check("If-None-Match: w/\"a,b\"\r\n"), 0);
        assert_int_equal(check("If-None-Match:\r\n"), 0);
        assert_int_equal(check("If-None-Match: \"x\", *\r\n"), 0);
}

/* Section 13.1.3: the date counts only alone, valid, and without If-None-Match. */
static void test_if_modified_since(void **state) {
        assert_int_equal(check("If-Modified-Since: " THEN "\r\n"), 304);
        assert_int_equal(check("If-Modified-Since: Sun Nov  6 08:49:38 1994\r\n"), 304);
        assert_int_equal(check("If-Modified-Since: " BEFORE "\r\n"), 0);
        assert_int_equal(check("If-Modified-Since: then\r\n"), 0);
        assert_int_equal(check("If-Modified-Since: " THEN "\r\nIf-Modified-Since: " THEN "\r\n"), 0);
        assert_int_equal(check("If-None-Match: \"x\"\r\nIf-Modified-Since: " THEN "\r\n"), 0);
        assert_int_equal(check(""), 0);
}

/* Section 13.2.2: what would change nothing is asked first, and its answer is final. */
static void test_order(void **state) {
        assert_int_equal(check("If-None-Match: \"a,b\"\r\nIf-Match: \"x\"\r\n"), 412);
        assert_int_equal(check("If-None-Match: \"a,b\"\r\nIf-Match: \"a,b\"\r\n"), 304);
        assert_int_equal(check("If-Modified-Since: " THEN "\r\nIf-Unmodified-Since: " BEFORE "\r\n"), 412);
        assert_int_equal(check("If-Modified-Since: " THEN "\r\nIf-Unmodified-Since: " THEN "\r\n"), 304);
}

/* Section 13.1.5: the same strong tag, or the same date if that is a strong one; anything else gets all. */
static void test_if_range(void **state) {
        assert_true(allows_range(""));
        assert_true(allows_range("If-Range: \"a,b\"\r\n"));
        assert_true(allows_range("If-Range: " THEN "\r\n"));
        assert_true(allows_range("If-Range: Sunday, 06-Nov-94 08:49:37 GMT\r\n"));
        assert_false(allows_range("If-Range: W/\"a,b\"\r\n"));
        assert_false(allows_range("If-Range: \"a\"\r\n"));
        assert_false(allows_range("If-Range: \"x\", \"a,b\"\r\n"));
        assert_false(allows_range("If-Range: *\r\n"));
        assert_false(allows_range("If-Range:\r\n"));
        assert_false(allows_range("If-Range: W\r\n"));
        assert_false(allows_range("If-Range: " LATER "\r\n"));
        assert_false(allows_range("If-Range: " BEFORE "\r\n"));
        assert_false(allows_range("If-Range: \"a,b\"\r\nIf-Range: \"a,b\"\r\n"));
        assert_false(range_at("If-Range: " THEN "\r\n", 784111777));
        assert_true(range_at("If-Range: " THEN "\r\n", 784111778));
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_if_match),
                cmocka_unit_test(test_if_unmodified_since),
                cmocka_unit_test(test_if_none_match),
                cmocka_unit_test(test_if_modified_since),
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_if_range),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

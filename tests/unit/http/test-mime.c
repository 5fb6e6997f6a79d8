/* SPDX-License-Identifier: MIT */
#include "http/mime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* The last extension decides, without regard to case; text says its encoding. */
static void test_types(void **state) {
        assert_string_equal(mime_from_path("index.html"), "text/html; charset=utf-8");
        assert_string_equal(mime_from_path("a/b.min.JS"), "text/javascript; charset=utf-8");
        assert_string_equal(mime_from_path("x.tar.gz"), "application/gzip");
        assert_string_equal(mime_from_path("a.png"), "image/png");
}

/* Whatever is not known is bytes, never a guess: a folder's name or a leading dot is no extension. */
static void test_unknown(void **state) {
        static const char bytes[] = "application/octet-stream";

        assert_string_equal(mime_from_path(""), bytes);
        assert_string_equal(mime_from_path("README"), bytes);
        assert_string_equal(mime_from_path("a.html/b"), bytes);
        assert_string_equal(mime_from_path(".html"), bytes);
        assert_string_equal(mime_from_path("a/.html"), bytes);
        assert_string_equal(mime_from_path("a."), bytes);
        assert_string_equal(mime_from_path("a.htmlx"), bytes);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_types),
                cmocka_unit_test(test_unknown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

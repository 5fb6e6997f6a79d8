/* SPDX-License-Identifier: MIT */
#include "http/mime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <stdint.h>

#include <cmocka.h>

#include "basic/macro.h"

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

static const char *find(const char *text, size_t size, const char *path) {
        static char answer[MIME_TYPE_MAX];
        char name[] = "/tmp/test-http-mime-XXXXXX", buf[MIME_TYPE_MAX];
        MimeTable table = MIME_TABLE_INIT(name);
        int fd = mkstemp(name);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, size), size);
        close(fd);
        snprintf(answer, sizeof(answer), "%s", mime_table_find(&table, path, buf));
        unlink(name);
        assert_string_equal(mime_table_find(&table, path, buf), answer); /* it is read once */
        mime_table_done(&table);
        return answer;
}

#define FIND(text, path) find(text, sizeof(text) - 1, path)

/* What the built-in table does not know comes from the system's: any white space, comments, any case. */
static void test_system_table(void **state) {
        static const char text[] = "# comment\n"
                                   "application/x-none\n"
                                   "\n"
                                   "application/x-a\t\taaa aab  # not aac\n"
                                   "text/x-b bbb\r\n"
                                   "TEXT/X-C ccc\n"
                                   "application/x-wrong html css\n"
                                   "application/x-second aaa\n"
                                   "application/x-last\tZZZ";

        assert_string_equal(FIND(text, "x.aaa"), "application/x-a");
        assert_string_equal(FIND(text, "d.bbb/x.AAB"), "application/x-a");
        assert_string_equal(FIND(text, "x.aac"), MIME_DEFAULT);
        assert_string_equal(FIND(text, "x.bbb"), "text/x-b; charset=utf-8");
        assert_string_equal(FIND(text, "x.ccc"), "TEXT/X-C; charset=utf-8");
        assert_string_equal(FIND(text, "x.zzz"), "application/x-last");
        assert_string_equal(FIND(text, "x.html"), "text/html; charset=utf-8");
        assert_string_equal(FIND(text, "x"), MIME_DEFAULT);
        assert_string_equal(FIND("", "x.aaa"), MIME_DEFAULT);
}

/* What could not stand in a field, or is no type, is passed over; a type is never cut. */
static void test_bad_lines(void **state) {
        char text[256] = "text/";

        assert_string_equal(FIND("a/b\x01 aaa\n", "x.aaa"), MIME_DEFAULT);
        assert_string_equal(FIND("ab aaa\n", "x.aaa"), MIME_DEFAULT);
        assert_string_equal(FIND("a/ aaa\n", "x.aaa"), MIME_DEFAULT);
        assert_string_equal(FIND("/b aaa\n", "x.aaa"), MIME_DEFAULT);
        assert_string_equal(FIND("a/b;c=d aaa\n", "x.aaa"), MIME_DEFAULT);
        assert_string_equal(FIND("a/b/c aaa\n", "x.aaa"), MIME_DEFAULT);
        memset(text + 5, 'x', 150);
        strcpy(text + 155, " aaa\n");
        assert_string_equal(find(text, strlen(text), "x.aaa"), MIME_DEFAULT);
        strcpy(text + 111, " aaa\n");
        assert_int_equal(strlen(find(text, strlen(text), "x.aaa")), 126);
}

/* A table that is not there, or is none, is an empty one. */
static void test_no_table(void **state) {
        static const char *const paths[] = { NULL, "/nonexistent/mime.types", "/" };
        char buf[MIME_TYPE_MAX];

        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                MimeTable table = MIME_TABLE_INIT(paths[i]);

                assert_string_equal(mime_table_find(&table, "x.css", buf), "text/css; charset=utf-8");
                assert_false(table.read);
                assert_string_equal(mime_table_find(&table, "x.aaa", buf), MIME_DEFAULT);
                assert_true(table.read);
                mime_table_done(&table);
        }
}

/* However many lines there are, what is kept is bounded. */
static void test_large_table(void **state) {
        static char text[1024 * 1024];
        size_t n = 0;

        for (unsigned i = 0; n < sizeof(text) - 64 && i < 30000; i++)
                n += (size_t) sprintf(text + n, "a/b%u e%u\n", i, i);
        assert_string_equal(find(text, n, "x.e16383"), "a/b16383");
        assert_string_equal(find(text, n, "x.e16384"), MIME_DEFAULT);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_types),
                cmocka_unit_test(test_unknown),
                cmocka_unit_test(test_system_table),
                cmocka_unit_test(test_bad_lines),
                cmocka_unit_test(test_no_table),
                cmocka_unit_test(test_large_table),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
#include "http/target.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "basic/macro.h"

/* Paths come out relative and canonical; a slash at the end is told apart. */
static void test_paths(void **state) {
        static const struct {
                const char *target, *path;
                bool directory;
        } rows[] = {
                { "", "", true },
                { "/", "", true },
                { "//", "", true },
                { "/.", "", true },
                { "/a", "a", false },
                { "/a/", "a", true },
                { "/a/.", "a", true },
                { "/a//b/./c", "a/b/c", false },
                { "/%61%2E%2e%2Eb/...", "a...b/...", false },
                { "/%2E/a", "a", false },
                { "/%25%32%65", "%2e", false },
                { "/a+b%20c", "a+b c", false },
                { "/%ff", "\xff", false },
                { "/.hidden/..x/x..", ".hidden/..x/x..", false },
        };
        TargetPath path;

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                assert_int_equal(target_to_path(rows[i].target, strlen(rows[i].target), &path), 0);
                assert_string_equal(path.text, rows[i].path);
                assert_int_equal(path.length, strlen(rows[i].path));
                assert_int_equal(path.directory, rows[i].directory);
        }
}

/* Nothing that could lead upwards or end a string early; an escaped slash is in no file's name. */
static void test_refused(void **state) {
        static const struct {
                const char *target;
                int status;
        } rows[] = {
                { "/..", 400 },
                { "/../", 400 },
                { "/a/../b", 400 },
                { "/%2e%2e", 400 },
                { "/.%2E/a", 400 },
                { "/%00", 400 },
                { "/a%00b", 400 },
                { "/%", 400 },
                { "/%4", 400 },
                { "/%4g", 400 },
                { "/%g4", 400 },
                { "/%%41", 400 },
                { "a", 400 },
                { "*", 400 },
                { "/%2f", 404 },
                { "/..%2Fa", 404 },
        };
        TargetPath path;

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                assert_int_equal(target_to_path(rows[i].target, strlen(rows[i].target), &path),
                                rows[i].status);
}

/* A path just fits or is not found; nothing is cut. */
static void test_length(void **state) {
        char target[TARGET_PATH_MAX + 1];
        TargetPath path;

        memset(target, 'x', sizeof(target));
        target[0] = '/';
        assert_int_equal(target_to_path(target, TARGET_PATH_MAX, &path), 0);
        assert_int_equal(path.length, TARGET_PATH_MAX - 1);
        assert_int_equal(target_to_path(target, TARGET_PATH_MAX + 1, &path), 404);
}

/* A Location is escaped anew: no second slash at its head, no backslash that a browser would take for one.
 */
static void test_location(void **state) {
        static const struct {
                const char *target, *location;
        } rows[] = {
                { "/", "/" },
                { "//a", "/a/" },
                { "/a%20b/%C3%BC", "/a%20b/%C3%BC/" },
                { "/\\evil", "/%5Cevil/" },
                { "/a\"<>?", "/a%22%3C%3E%3F/" },
                { "/%0d%0aX:", "/%0D%0AX%3A/" },
        };
        char buf[64];
        TargetPath path;

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                assert_int_equal(target_to_path(rows[i].target, strlen(rows[i].target), &path), 0);
                assert_int_equal(target_from_path(&path, buf, sizeof(buf)), strlen(rows[i].location));
                assert_string_equal(buf, rows[i].location);
        }
        assert_int_equal(target_from_path(&path, buf, 8), -ENOBUFS);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_paths),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_length),
                cmocka_unit_test(test_location),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

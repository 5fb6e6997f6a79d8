/* SPDX-License-Identifier: MIT */
/* Files with environment variables: what their lines mean, and that what is refused is told without showing
 * it. */

#include "../unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/macro.h"
#include "basic/strv.h"
#include "master/environment-file.h"

/* @text holds exactly this one variable. */
static void parse(const char *text, const char *expected) {
        _cleanup_strv_ char **v = NULL;
        _cleanup_free_ char *error = NULL;

        if (environment_file_parse("f", text, strlen(text), &v, &error) != 0)
                fail_msg("%s: %s", text, error);
        assert_int_equal(strv_length(v), expected ? 1 : 0);
        if (expected)
                assert_string_equal(v[0], expected);
}

static void refuse_bytes(const char *text, size_t n, const char *expected) {
        char **untouched = (char **) &text, **v = untouched;
        _cleanup_free_ char *error = NULL;

        assert_int_equal(environment_file_parse("f", text, n, &v, &error), ENVIRONMENT_FILE_INVALID);
        assert_ptr_equal(v, untouched);
        assert_string_equal(error, expected);
}

static void refuse(const char *text, const char *expected) {
        refuse_bytes(text, strlen(text), expected);
}

/* Comments, empty lines and white space are nothing. */
static void test_nothing(void **state) {
        parse("", NULL);
        parse("\n\n \t\n", NULL);
        parse("# A=1\n; A=1\n  # A=1", NULL);
        parse("# a comment \\\nA=1\n", "A=1"); /* it is not continued */
        parse("\r\nA=1\r\n\r\n", "A=1");
}

/* A value without quotes goes to the end of the line, less white space at both ends. */
static void test_bare(void **state) {
        parse("A=1", "A=1");
        parse(" A = b c \t\n", "A=b c");
        parse("A=", "A=");
        parse("A=   \n", "A=");
        parse("A=b=c", "A=b=c");
        parse("A=b # c", "A=b # c");
        parse("A=b'c \"d", "A=b'c \"d");
        parse("A=\\'b\\ ", "A='b ");
        parse("A=b\\\\c\\n", "A=b\\cn");
        parse("A=b \\\n  c\n", "A=b   c");
        parse("A=\\", "A=");
        parse("A=\xC3\xA4", "A=\xC3\xA4");
}

/* In single quotes all is as it is written; in double quotes a backslash stands before four characters. */
static void test_quoted(void **state) {
        parse("A=' b \"\\n$c '", "A= b \"\\n$c ");
        parse("A=\" b 'c' \"", "A= b 'c' ");
        parse("A=\"\\\"\\\\\\`\\$\\n\"", "A=\"\\`$\\n");
        parse("A=\"b\\\nc\"", "A=bc");
        parse("A='b\nc'\n", "A=b\nc");
        parse("A=''", "A=");
        parse("A='' \n", "A=");
        parse("A='b''c'  \"d\" e \n", "A=bcde");
}

/* Several, in the order of the file; which of two counts is not decided here. */
static void test_several(void **state) {
        static const char text[] = "A=1\n\nB=2 # c\nA=3\n";
        _cleanup_strv_ char **v = NULL;
        _cleanup_free_ char *error = NULL;

        assert_int_equal(environment_file_parse("f", text, strlen(text), &v, &error), 0);
        assert_int_equal(strv_length(v), 3);
        assert_string_equal(v[0], "A=1");
        assert_string_equal(v[1], "B=2 # c");
        assert_string_equal(v[2], "A=3");
}

/* The line is told, and nothing of what stands there. */
static void test_refused(void **state) {
        refuse("A=1\nsecret\n", "f:2: found a line without an equals sign, expected NAME=VALUE");
        refuse("secret", "f:1: found a line without an equals sign, expected NAME=VALUE");
        refuse("\n\nse-cret=1",
                        "f:3: found another kind of name, expected a name of letters, digits and _ that begins with no digit");
        refuse("export A=1",
                        "f:1: found another kind of name, expected a name of letters, digits and _ that begins with no digit");
        refuse("1A=1", "f:1: found another kind of name, expected a name of letters, digits and _ that begins with no digit");
        refuse("=1", "f:1: found another kind of name, expected a name of letters, digits and _ that begins with no digit");
        refuse("A='b\nc'\nLISTEN_FDS=1",
                        "f:3: found another kind of name, expected a name that is not musterd's own to set or to remove");
        refuse("\nA='b\n\n", "f:2: found an opening quote, expected the closing one behind it");
        refuse("A=\"b\\\"\n", "f:1: found an opening quote, expected the closing one behind it");
        refuse_bytes("A=1\nB=\0", 7, "f:2: found a NUL byte, expected text");
}

/* So that nobody has to wait for a file of nothing but names. */
static void test_limit(void **state) {
        char text[(ENVIRONMENT_FILE_VARIABLES_MAX + 1) * 3 + 1] = "", expected[128];
        _cleanup_strv_ char **v = NULL;
        _cleanup_free_ char *error = NULL;

        for (size_t i = 0; i < ENVIRONMENT_FILE_VARIABLES_MAX; i++)
                memcpy(text + 3 * i, "A=\n", 3);
        assert_int_equal(environment_file_parse("f", text, strlen(text), &v, &error), 0);
        assert_int_equal(strv_length(v), ENVIRONMENT_FILE_VARIABLES_MAX);
        memcpy(text + strlen(text), "A=\n", 3);
        snprintf(expected, sizeof(expected), "f:%d: found one more variable, expected at most %d",
                        ENVIRONMENT_FILE_VARIABLES_MAX + 1, ENVIRONMENT_FILE_VARIABLES_MAX);
        refuse(text, expected);
}

/* The reader names the file, and waits for none that gives nothing. */
static void test_read(void **state) {
        char dir[] = "/tmp/test-environment-file-XXXXXX", path[64], expected[128];
        _cleanup_strv_ char **v = NULL;
        _cleanup_free_ char *error = NULL;

        assert_non_null(mkdtemp(dir));
        snprintf(path, sizeof(path), "%s/file", dir);
        assert_int_equal(mkfifo(path, 0600), 0);
        assert_int_equal(environment_file_read(path, &v, &error), ENVIRONMENT_FILE_INVALID);
        snprintf(expected, sizeof(expected),
                        "%s: found no regular file, expected one with environment variables", path);
        assert_string_equal(error, expected);
        unlink(path);

        free(error);
        assert_int_equal(environment_file_read(path, &v, &error), ENVIRONMENT_FILE_INVALID);
        snprintf(expected, sizeof(expected), "%s: cannot read: No such file or directory", path);
        assert_string_equal(error, expected);

        FILE *f = fopen(path, "we");
        assert_non_null(f);
        for (int i = 0; i <= ENVIRONMENT_FILE_SIZE_MAX; i++)
                fputc('\n', f);
        assert_int_equal(fclose(f), 0);
        free(error);
        assert_int_equal(environment_file_read(path, &v, &error), ENVIRONMENT_FILE_INVALID);
        snprintf(expected, sizeof(expected), "%s: cannot read: it has more than 1 MiB", path);
        assert_string_equal(error, expected);
        assert_int_equal(truncate(path, ENVIRONMENT_FILE_SIZE_MAX), 0);
        assert_int_equal(environment_file_read(path, &v, &error), 0);
        assert_int_equal(strv_length(v), 0);
        unlink(path);
        rmdir(dir);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_nothing),
                cmocka_unit_test(test_bare),
                cmocka_unit_test(test_quoted),
                cmocka_unit_test(test_several),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_limit),
                cmocka_unit_test(test_read),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

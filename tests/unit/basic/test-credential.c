/* SPDX-License-Identifier: MIT */
/* Passwords in files. */

#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/credential.h"
#include "basic/macro.h"

static int read_of(const char *content, size_t n, char buf[static CREDENTIAL_MAX]) {
        char path[] = "/tmp/muster-test-credential-XXXXXX";
        int fd = mkstemp(path), r;

        assert_true(fd >= 0);
        assert_int_equal(write(fd, content, n), n);
        r = credential_read(path, buf);
        close(fd);
        unlink(path);
        return r;
}

static void test_line_end(void **state) {
        static const char *const rows[][2] = {
                { "secret", "secret" },
                { "secret\n", "secret" },
                { "secret\r\n", "secret" },
                { "secret\r", "secret\r" },
                { "two\nlines\n", "two\nlines" },
                { " \n", " " },
        };
        char buf[CREDENTIAL_MAX];

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                assert_int_equal(read_of(rows[i][0], strlen(rows[i][0]), buf), 0);
                assert_string_equal(buf, rows[i][1]);
        }
}

static void test_refused(void **state) {
        char buf[CREDENTIAL_MAX], large[CREDENTIAL_MAX];

        memset(large, 'x', sizeof(large));
        assert_int_equal(read_of("", 0, buf), -EINVAL);
        assert_int_equal(read_of("\n", 1, buf), -EINVAL);
        assert_int_equal(read_of("a\0b", 3, buf), -EINVAL);
        assert_int_equal(read_of(large, sizeof(large) - 1, buf), 0);
        assert_int_equal(read_of(large, sizeof(large), buf), -EMSGSIZE);
        assert_int_equal(credential_read("/nonexistent/password", buf), -ENOENT);
        assert_int_equal(credential_read("/", buf), -EISDIR);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_line_end),
                cmocka_unit_test(test_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* The three variables of sd_listen_fds_with_names(3). */

#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "master/activation.h"

/* Sets the variables (NULL: unset; "me": this pid), and checks what is read from them: the number or error,
 * and the names joined by '|'. All three are gone afterwards. */
static void check(const char *pid, const char *fds, const char *names, int r, const char *expected) {
        _cleanup_(activation_names_freep) char **got = NULL;
        char me[16], joined[256] = "";

        snprintf(me, sizeof(me), "%d", getpid());
        unsetenv("LISTEN_PID");
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_FDNAMES");
        if (pid)
                setenv("LISTEN_PID", strcmp(pid, "me") == 0 ? me : pid, 1);
        if (fds)
                setenv("LISTEN_FDS", fds, 1);
        if (names)
                setenv("LISTEN_FDNAMES", names, 1);

        assert_int_equal(activation_sockets(&got), r);
        for (char **s = got; s && *s; s++) {
                strcat(joined, *s);
                strcat(joined, "|");
        }
        assert_string_equal(joined, expected);
        assert_int_equal(got != NULL, r >= 0);
        assert_null(getenv("LISTEN_PID"));
        assert_null(getenv("LISTEN_FDS"));
        assert_null(getenv("LISTEN_FDNAMES"));
}

/* As many names as sockets, in order; empty ones count. */
static void test_names(void **state) {
        check("me", "1", "http", 1, "http|");
        check("me", "3", "http:control:x", 3, "http|control|x|");
        check("me", "2", "same:same", 2, "same|same|");
        check("me", "1", "", 1, "|");
        check("me", "3", "::", 3, "|||");
        check("me", "2", NULL, 2, "unknown|unknown|");
}

/* None were passed, or they are somebody else's: a shell's between us and systemd. */
static void test_none(void **state) {
        check(NULL, NULL, NULL, 0, "");
        check("me", NULL, NULL, 0, "");
        check(NULL, "1", "http", 0, "");
        check("me", "0", NULL, 0, "");
        check("me", "0", "", 0, "");
        check("1", "1", "http", 0, "");
        check("1", "5", "a:b", 0, "");
}

/* What cannot be understood is refused, never guessed. */
static void test_malformed(void **state) {
        static const char *const wrong[] = { "", "x", "-1", " 1", "1 ", "0x1", "4294967296" };

        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                check("me", wrong[i], NULL, -EINVAL, "");
                check(wrong[i], "1", NULL, -EINVAL, "");
        }
        check("me", "2", "one", -EINVAL, "");
        check("me", "1", "one:two", -EINVAL, "");
        check("me", "2", "", -EINVAL, "");
}

/* There is a limit, and it is not the number of descriptors that happen to be open. */
static void test_limit(void **state) {
        _cleanup_(activation_names_freep) char **names = NULL;
        char me[16];

        check("me", "513", NULL, -E2BIG, "");
        check("me", "4294967295", NULL, -E2BIG, "");
        snprintf(me, sizeof(me), "%d", getpid());
        setenv("LISTEN_PID", me, 1);
        setenv("LISTEN_FDS", "512", 1);
        assert_int_equal(activation_sockets(&names), 512);
        assert_string_equal(names[511], "unknown");
        assert_null(names[512]);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_none),
                cmocka_unit_test(test_malformed),
                cmocka_unit_test(test_limit),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

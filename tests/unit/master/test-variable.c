/* SPDX-License-Identifier: MIT */
/* Names of environment variables: which are possible, and which are nobody else's. */

#include "../unit.h"

#include <string.h>

#include "master/variable.h"

/* Whole names are private, not what begins or ends like one. */
static void test_private(void **state) {
        assert_true(variable_is_private("LISTEN_FDS=3"));
        assert_true(variable_is_private("NOTIFY_SOCKET="));
        assert_true(variable_is_private("NODE_CHANNEL_FD=3"));
        assert_true(variable_is_private("MUSTER_WORKER=1"));
        assert_false(variable_is_private("LISTEN_FDS_OF_MINE=3"));
        assert_false(variable_is_private("LISTEN=3"));
        assert_false(variable_is_private("=LISTEN_FDS"));
        assert_false(variable_is_private("NODE_OPTIONS=x"));
        assert_false(variable_is_private("MUSTER_WORKER_ID=1.2.3")); /* it is handed down */
}

static const char *problem(const char *name) {
        return variable_refuse_name(name, strlen(name));
}

/* What a shell takes for a name, less what musterd sets or removes. */
static void test_names(void **state) {
        assert_null(problem("A"));
        assert_null(problem("_"));
        assert_null(problem("a1_B2"));
        assert_null(problem("MUSTER_LOG_LEVEL"));
        assert_null(variable_refuse_name("A-", 1));
        assert_non_null(problem(""));
        assert_non_null(problem("1A"));
        assert_non_null(problem("A-B"));
        assert_non_null(problem("A B"));
        assert_non_null(problem("\xC3\xA4"));
        assert_non_null(problem("WATCHDOG_USEC"));
        assert_non_null(problem("NODE_UNIQUE_ID"));
        assert_non_null(problem("MUSTER_WORKER_ID"));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_private),
                cmocka_unit_test(test_names),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* The names of units, and what systemd calls their states. */

#include "../unit.h"

#include <string.h>

#include "basic/app-name.h"
#include "basic/macro.h"
#include "cli/unit.h"

/* The app "default" has units of its own; others are instances, called by the name as it is. */
static void test_name(void **state) {
        char buf[UNIT_NAME_MAX], longest[APP_NAME_MAX + 1];

        assert_string_equal(unit_name("default", "service", buf), "muster.service");
        assert_string_equal(unit_name("default", "socket", buf), "muster.socket");
        assert_string_equal(unit_name("web", "service", buf), "muster@web.service");
        assert_string_equal(unit_name("my-app.2:x_y", "socket", buf), "muster@my-app.2:x_y.socket");

        memset(longest, 'x', APP_NAME_MAX);
        longest[APP_NAME_MAX] = '\0';
        assert_int_equal(strlen(unit_name(longest, "service", buf)),
                        strlen("muster@.service") + APP_NAME_MAX);
}

/* To connect is right in every state but two. */
static void test_state(void **state) {
        static const char *const active[] = { "active", "reloading", "activating", "deactivating",
                "maintenance", "new" };

        for (size_t i = 0; i < ELEMENTSOF(active); i++)
                assert_int_equal(unit_state_from_string(active[i]), UNIT_ACTIVE);
        assert_int_equal(unit_state_from_string("inactive"), UNIT_INACTIVE);
        assert_int_equal(unit_state_from_string("failed"), UNIT_FAILED);
}

int main(void) {
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_name), cmocka_unit_test(test_state) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

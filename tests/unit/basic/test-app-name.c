/* SPDX-License-Identifier: MIT */
/* Which names an app may have. */

#include "../unit.h"

#include <string.h>

#include "basic/app-name.h"
#include "basic/macro.h"

/* Everything that a unit's instance and a file may be called by without being escaped. */
static void test_valid(void **state) {
        static const char *const names[] = { "web", "w", "0", "my-app", "my_app", "a.b", "a:b", "_x", ":x",
                "x-", "A9" };
        char longest[APP_NAME_MAX + 1];

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                assert_true(app_name_is_valid(names[i]));
        memset(longest, 'x', APP_NAME_MAX);
        longest[APP_NAME_MAX] = '\0';
        assert_true(app_name_is_valid(longest));
}

/* Nothing that leads elsewhere, hides a file, looks like an option, or is too long. */
static void test_invalid(void **state) {
        static const char *const names[] = { "", ".", "..", ".x", "-x", "a/b", "a b", "a\n", "\xc3\xbc",
                "a@b", "a%b", "a\\b", "a*" };
        char too_long[APP_NAME_MAX + 2];

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                assert_false(app_name_is_valid(names[i]));
        memset(too_long, 'x', APP_NAME_MAX + 1);
        too_long[APP_NAME_MAX + 1] = '\0';
        assert_false(app_name_is_valid(too_long));
}

int main(void) {
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_valid), cmocka_unit_test(test_invalid) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

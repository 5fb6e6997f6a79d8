/* SPDX-License-Identifier: MIT */
/* Vectors of variables. */

#include "spawn.h"

#include "lib/environment.h"

static void assert_vector(char *const *env, const char *joined) {
        char text[1024] = "";

        for (; *env; env++) {
                strcat(text, *env);
                strcat(text, "|");
        }
        assert_string_equal(text, joined);
}

static void check(char *const *base, char *const *assignments, size_t n, const char *joined) {
        _cleanup_free_ char **env = NULL;

        assert_int_equal(environment_new(base, assignments, n, &env), 0);
        assert_vector(env, joined);
}

/* What is added takes the place of all that has exactly the same name; the rest stays, odd as it may be. */
static void test_new(void **state) {
        check(STRINGS(NULL), NULL, 0, "");
        check(STRINGS("A=1", "B=2"), NULL, 0, "A=1|B=2|");
        check(STRINGS(NULL), STRINGS("A=1"), 1, "A=1|");
        check(NULL, STRINGS("A=1"), 1, "A=1|"); /* environ after clearenv(3) */
        check(STRINGS("A=1", "B=2"), STRINGS("C=3", "D="), 2, "A=1|B=2|C=3|D=|");
        check(STRINGS("A=1", "B=2", "A=3"), STRINGS("A=4"), 1, "B=2|A=4|");
        check(STRINGS("AB=1", "=1", "A", "a=1"), STRINGS("A=2"), 1, "AB=1|=1|A|a=1|A=2|");
        check(STRINGS("A=x", "AB=y"), STRINGS("AB=z"), 1, "A=x|AB=z|");
        check(STRINGS("A=1=2"), STRINGS("A=3=4"), 1, "A=3=4|");
}

/* A value is found by its whole name, the first one counts, and may be empty or have an equals sign. */
static void test_get(void **state) {
        char *const *env = STRINGS("AB=1", "A", "A=2", "A=3", "EMPTY=", "EQUALS=a=b");

        assert_string_equal(environment_get(env, "A"), "2");
        assert_string_equal(environment_get(env, "AB"), "1");
        assert_string_equal(environment_get(env, "EMPTY"), "");
        assert_string_equal(environment_get(env, "EQUALS"), "a=b");
        assert_null(environment_get(env, "B"));
        assert_null(environment_get(env, "a"));
        assert_null(environment_get(STRINGS(NULL), "A"));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_new),
                cmocka_unit_test(test_get),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

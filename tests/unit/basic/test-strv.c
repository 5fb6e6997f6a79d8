/* SPDX-License-Identifier: MIT */
/* Vectors of strings: what is appended, and what replaces what. */

#include "../unit.h"

#include "basic/macro.h"
#include "basic/strv.h"

/* NULL is the empty vector, everywhere. */
static void test_empty(void **state) {
        assert_null(strv_free(NULL));
        assert_int_equal(strv_length(NULL), 0);
        assert_null(strv_get_variable(NULL, "A"));
}

/* Strings come in the order in which they were added, with NULL behind them. */
static void test_add(void **state) {
        _cleanup_strv_ char **v = NULL;

        assert_int_equal(strv_add(&v, "a"), 0);
        assert_int_equal(strv_addf(&v, "%s-%d", "b", 7), 0);
        assert_int_equal(strv_add(&v, ""), 0);
        assert_int_equal(strv_length(v), 3);
        assert_string_equal(v[0], "a");
        assert_string_equal(v[1], "b-7");
        assert_string_equal(v[2], "");
        assert_null(v[3]);
}

/* A variable takes the place of the one of its name, and of no other whose name only begins so. */
static void test_variables(void **state) {
        _cleanup_strv_ char **v = NULL;

        assert_int_equal(strv_set_variable(&v, "A=1"), 0);
        assert_int_equal(strv_set_variable(&v, "AB=2"), 0);
        assert_int_equal(strv_add(&v, "no variable"), 0);
        assert_int_equal(strv_set_variablef(&v, "A=%s=%s", "x", "y"), 0);
        assert_int_equal(strv_set_variable(&v, "B="), 0);
        assert_int_equal(strv_length(v), 4);
        assert_string_equal(v[0], "A=x=y");
        assert_string_equal(strv_get_variable(v, "A"), "x=y");
        assert_string_equal(strv_get_variable(v, "AB"), "2");
        assert_string_equal(strv_get_variable(v, "B"), "");
        assert_null(strv_get_variable(v, "no variable"));
        assert_null(strv_get_variable(v, ""));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_empty),
                cmocka_unit_test(test_add),
                cmocka_unit_test(test_variables),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

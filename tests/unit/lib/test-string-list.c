/* SPDX-License-Identifier: MIT */
/* Arrays of strings. This program starts itself with arguments of all kinds, which it then knows twice. */

#include "spawn.h"

#include "lib/string-list.h"

static void assert_same_list(char *const *a, char *const *b) {
        size_t i = 0;

        for (; a[i] && b[i]; i++)
                assert_string_equal(a[i], b[i]);
        assert_null(a[i]);
        assert_null(b[i]);
}

static void test_copy(void **state) {
        char first[] = "first", last[] = "last one", empty[] = "";
        char *const from[] = { first, empty, last, empty, NULL };
        _cleanup_free_ char **copy = NULL;

        assert_int_equal(string_list_copy(from, &copy), 0);
        assert_same_list(copy, from);
        for (size_t i = 0; i < 4; i++)
                assert_ptr_not_equal(copy[i], from[i]);
        first[0] = last[0] = 'X';
        assert_same_list(copy, STRINGS("first", "", "last one", ""));
        copy[1] = NULL; /* an array like another, in one piece */
}

static void test_copy_of_none(void **state) {
        _cleanup_free_ char **copy = NULL;

        assert_int_equal(string_list_copy((char *const[]){ NULL }, &copy), 0);
        assert_null(copy[0]);
}

/* In the child: 0 when what the system says is what main() was given. */
static int compare_arguments(char *argv[]) {
        _cleanup_free_ char **list = NULL;

        CHECK(string_list_of_arguments(&list) == 0);
        size_t i = 0;
        for (; argv[i] && list[i]; i++)
                CHECK(strcmp(argv[i], list[i]) == 0);
        CHECK(!argv[i] && !list[i]);
        return 0;
}

static void assert_known(char *const *argv) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        Ended e;

        o.program = "/proc/self/exe";
        o.argv = argv;
        muster_child *child = start(&o, &e);
        run_until(e.closes);
        muster_child_unref(child);
        assert_int_equal(e.code, CLD_EXITED);
        assert_int_equal(e.status, 0);
}

static void test_arguments(void **state) {
        assert_known(STRINGS("test", "compare"));
        assert_known(STRINGS("test", "compare", ""));
        assert_known(STRINGS("", "compare", "", "", "a b", "\xC3\xBC\n\"", ""));
}

/* All of it, in pieces of a buffer's size, and where the last piece is full. */
static void assert_known_of_size(size_t size) {
        _cleanup_free_ char *one = calloc(1, size - sizeof("test") - sizeof("compare"));

        assert_non_null(one);
        memset(one, 'x', size - sizeof("test") - sizeof("compare") - 1);
        assert_known(STRINGS("test", "compare", one));
        assert_known(STRINGS("test", "compare", one, ""));
}

static void test_long_arguments(void **state) {
        for (size_t size = BUFSIZ; size <= 4 * BUFSIZ; size += BUFSIZ) {
                assert_known_of_size(size - 1);
                assert_known_of_size(size);
                assert_known_of_size(size + 1);
        }
}

static void test_own_arguments(void **state) {
        char **own = *state;
        _cleanup_free_ char **list = NULL;

        assert_int_equal(string_list_of_arguments(&list), 0);
        assert_same_list(list, own);
}

int main(int argc, char *argv[]) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_copy),
                cmocka_unit_test(test_copy_of_none),
                cmocka_unit_test_setup_teardown(test_arguments, setup_event, teardown_event),
                cmocka_unit_test_setup_teardown(test_long_arguments, setup_event, teardown_event),
                cmocka_unit_test_prestate(test_own_arguments, argv),
        };

        if (argc > 1 && strcmp(argv[1], "compare") == 0)
                return compare_arguments(argv) ? 1 : 0;
        return cmocka_run_group_tests(tests, NULL, NULL);
}

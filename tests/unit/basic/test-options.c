/* SPDX-License-Identifier: MIT */
/* Structures of options that grow. */

#include "../unit.h"

#include <errno.h>

#include "basic/options.h"

/* As the library knows it; the first version had nothing after `second`. */
typedef struct Known {
        size_t size;
        uint64_t first;
        uint64_t second;
        uint64_t third;
} Known;

/* As a caller of the future has it. */
typedef struct Newer {
        Known known;
        uint64_t fourth;
} Newer;

#define MIN_SIZE OPTIONS_SIZE_UP_TO(Known, second)

static const Known defaults = { .size = sizeof(Known), .first = 10, .second = 20, .third = 30 };

static void test_same(void **state) {
        const Known from = { .size = sizeof(from), .first = 1, .second = 2, .third = 3 };
        Known to = defaults;

        assert_int_equal(options_copy(&to, sizeof(to), &from, MIN_SIZE), 0);
        assert_memory_equal(&to, &from, sizeof(to));
}

/* What an older caller does not know keeps its default, and the size is the library's. */
static void test_older(void **state) {
        const Known from = { .size = MIN_SIZE, .first = 1, .second = 2, .third = 3 };
        Known to = defaults;

        assert_int_equal(options_copy(&to, sizeof(to), &from, MIN_SIZE), 0);
        assert_int_equal(to.size, sizeof(to));
        assert_int_equal(to.first, 1);
        assert_int_equal(to.second, 2);
        assert_int_equal(to.third, 30);
}

/* A newer caller is served as long as it sets nothing that is unknown; not one bit of it. */
static void test_newer(void **state) {
        Newer from = { .known = { .size = sizeof(from), .first = 1, .third = 3 } };
        Known to = defaults;

        assert_int_equal(options_copy(&to, sizeof(to), &from, MIN_SIZE), 0);
        assert_int_equal(to.size, sizeof(to));
        assert_int_equal(to.first, 1);
        assert_int_equal(to.second, 0);
        assert_int_equal(to.third, 3);
        from.fourth = UINT64_C(1) << 63;
        to = defaults;
        assert_int_equal(options_copy(&to, sizeof(to), &from, MIN_SIZE), -E2BIG);
        assert_memory_equal(&to, &defaults, sizeof(to));
}

static void test_too_small(void **state) {
        Known from = defaults, to = defaults;

        from.first = 1;
        from.size = MIN_SIZE - 1;
        assert_int_equal(options_copy(&to, sizeof(to), &from, MIN_SIZE), -EINVAL);
        from.size = 0;
        assert_int_equal(options_copy(&to, sizeof(to), &from, MIN_SIZE), -EINVAL);
        assert_memory_equal(&to, &defaults, sizeof(to));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_same),
                cmocka_unit_test(test_older),
                cmocka_unit_test(test_newer),
                cmocka_unit_test(test_too_small),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

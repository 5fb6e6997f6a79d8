/* SPDX-License-Identifier: MIT */
#include "http/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

/* The warmest buffer comes back first. */
static void test_last_in_first_out(void **state) {
        Pool p;
        char *a, *b;

        pool_init(&p, 64);
        a = pool_take(&p);
        b = pool_take(&p);
        assert_ptr_not_equal(a, b);
        assert_null(pool_give(&p, a));
        assert_null(pool_give(&p, b));
        assert_ptr_equal(pool_take(&p), b);
        assert_ptr_equal(pool_take(&p), a);
        pool_give(&p, a);
        pool_give(&p, b);
        assert_null(pool_give(&p, NULL));
        pool_done(&p);
        assert_int_equal(p.n_spare, 0);
}

/* A burst is not kept for ever. */
static void test_bounded(void **state) {
        char *bufs[100];
        Pool p;

        pool_init(&p, 64);
        for (int i = 0; i < 100; i++)
                bufs[i] = pool_take(&p);
        for (int i = 0; i < 100; i++)
                pool_give(&p, bufs[i]);
        assert_true(p.n_spare < 20);
        pool_done(&p);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_last_in_first_out),
                cmocka_unit_test(test_bounded),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

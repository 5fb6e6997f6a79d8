/* SPDX-License-Identifier: MIT */
/* The restart policy, on histories that nobody would wait for. */

#include "../unit.h"

#include <stdlib.h>

#include "basic/restart.h"

#define MSEC UINT64_C(1000)
#define SEC  UINT64_C(1000000)

static const RestartPolicy usual = { 100 * MSEC, 15 * SEC };

/* At once, then 100 ms doubling to 15 s, and there it stays. */
static void test_doubling(void **state) {
        static const uint64_t expected_msec[] = { 0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 15000,
                15000 };
        Restart r = { 0 };

        for (size_t i = 0; i < sizeof(expected_msec) / sizeof(expected_msec[0]); i++)
                assert_int_equal(restart_after_death(&r, &usual, 0), expected_msec[i] * MSEC);
}

/* 30 s of health forget everything, and one microsecond less does not. */
static void test_health(void **state) {
        Restart r = { 0 };

        for (int i = 0; i < 6; i++)
                restart_after_death(&r, &usual, 0);
        assert_int_equal(restart_after_death(&r, &usual, 30 * SEC - 1), 3200 * MSEC);
        assert_int_equal(restart_after_death(&r, &usual, 30 * SEC), 0);
        assert_int_equal(restart_after_death(&r, &usual, 0), 100 * MSEC);
}

/* A worker that crashes now and then, but never early, is always replaced at once. */
static void test_never_early(void **state) {
        Restart r = { 0 };

        for (int i = 0; i < 1000; i++)
                assert_int_equal(restart_after_death(&r, &usual, 30 * SEC + (uint64_t) i), 0);
}

/* Whatever the limits and however long it goes on: no overflow, nothing below min or above max. */
static void test_extremes(void **state) {
        static const RestartPolicy policies[] = {
                { 1, UINT64_MAX },
                { UINT64_MAX, UINT64_MAX },
                { 1, 1 },
                { 3, 1000 },
                { UINT64_MAX / 2, UINT64_MAX },
        };

        for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
                const RestartPolicy *p = policies + i;
                uint64_t previous = 0;
                Restart r = { 0 };

                for (int k = 0; k < 1000; k++) {
                        uint64_t delay = restart_after_death(&r, p, 0);

                        assert_true(k == 0 ? delay == 0 : delay >= p->backoff_min_usec);
                        assert_true(delay <= p->backoff_max_usec);
                        assert_true(delay >= previous);
                        previous = delay;
                }
        }
}

/* Thousands of random histories: 0 for the first early death in a row, never below min nor above max after
 * it, never less than the time before in a row. */
static void test_random_histories(void **state) {
        srand48(1);
        for (int history = 0; history < 5000; history++) {
                RestartPolicy p = { .backoff_min_usec = MSEC + (uint64_t) lrand48() % SEC };
                uint64_t previous = 0;
                unsigned in_a_row = 0;
                Restart r = { 0 };

                p.backoff_max_usec = p.backoff_min_usec + (uint64_t) lrand48() % (60 * SEC);
                for (int death = 0; death < 40; death++) {
                        uint64_t lived = lrand48() % 8 == 0 ? 30 * SEC + (uint64_t) lrand48()
                                                            : (uint64_t) lrand48() % (30 * SEC);
                        uint64_t delay = restart_after_death(&r, &p, lived);

                        if (lived >= 30 * SEC)
                                in_a_row = 0;
                        if (in_a_row++ == 0)
                                assert_int_equal(delay, 0);
                        else {
                                assert_in_range(delay, p.backoff_min_usec, p.backoff_max_usec);
                                assert_true(delay >= previous);
                        }
                        previous = delay;
                }
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_doubling),
                cmocka_unit_test(test_health),
                cmocka_unit_test(test_never_early),
                cmocka_unit_test(test_extremes),
                cmocka_unit_test(test_random_histories),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

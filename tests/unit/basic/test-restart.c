/* SPDX-License-Identifier: MIT */
/* The restart policy, on histories that nobody would wait for. */

#include "../unit.h"

#include <stdlib.h>

#include "basic/macro.h"
#include "basic/restart.h"

#define MSEC UINT64_C(1000)
#define SEC  UINT64_C(1000000)

static const RestartPolicy usual = { .backoff_min_usec = 100 * MSEC, .backoff_max_usec = 15 * SEC };

/* At once, then 100 ms doubling to 15 s, and there it stays. */
static void test_doubling(void **state) {
        static const uint64_t expected_msec[] = { 0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 15000,
                15000 };
        Restart r = { 0 };

        for (size_t i = 0; i < sizeof(expected_msec) / sizeof(expected_msec[0]); i++)
                assert_int_equal(restart_after_death(&r, &usual, 0, 0), expected_msec[i] * MSEC);
}

/* 30 s of health forget everything, and one microsecond less does not. */
static void test_health(void **state) {
        Restart r = { 0 };

        for (int i = 0; i < 6; i++)
                restart_after_death(&r, &usual, 0, 0);
        assert_int_equal(restart_after_death(&r, &usual, 0, 30 * SEC - 1), 3200 * MSEC);
        assert_int_equal(restart_after_death(&r, &usual, 0, 30 * SEC), 0);
        assert_int_equal(restart_after_death(&r, &usual, 0, 0), 100 * MSEC);
}

/* A worker that crashes now and then, but never early, is always replaced at once. */
static void test_never_early(void **state) {
        Restart r = { 0 };

        for (int i = 0; i < 1000; i++)
                assert_int_equal(restart_after_death(&r, &usual, 0, 30 * SEC + (uint64_t) i), 0);
}

/* Whatever the limits and however long it goes on: no overflow, nothing below min or above max. */
static void test_extremes(void **state) {
        static const RestartPolicy policies[] = {
                { .backoff_min_usec = 1, .backoff_max_usec = UINT64_MAX },
                { .backoff_min_usec = UINT64_MAX, .backoff_max_usec = UINT64_MAX },
                { .backoff_min_usec = 1, .backoff_max_usec = 1 },
                { .backoff_min_usec = 3, .backoff_max_usec = 1000 },
                { .backoff_min_usec = UINT64_MAX / 2, .backoff_max_usec = UINT64_MAX },
        };

        for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
                const RestartPolicy *p = policies + i;
                uint64_t previous = 0;
                Restart r = { 0 };

                for (int k = 0; k < 1000; k++) {
                        uint64_t delay = restart_after_death(&r, p, 0, 0);

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
                        uint64_t delay = restart_after_death(&r, &p, 0, lived);

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

/* The slot is failing from the first death on that is one too many, and then tried every backoff_max. */
static void test_limit(void **state) {
        static const RestartPolicy p = {
                .backoff_min_usec = MSEC, .backoff_max_usec = 15 * SEC, .limit = 3, .window_usec = 60 * SEC
        };
        Restart r = { 0 };

        for (unsigned i = 0; i < 3; i++) {
                assert_true(restart_after_death(&r, &p, i * SEC, 0) < SEC);
                assert_false(r.failing);
        }
        assert_int_equal(restart_after_death(&r, &p, 60 * SEC - 1, 0), 15 * SEC);
        assert_true(r.failing);
        /* However long the next one takes to die: it is failing until one was well. */
        assert_int_equal(restart_after_death(&r, &p, 10000 * SEC, 30 * SEC - 1), 15 * SEC);
        assert_false(restart_is_well(&r, 30 * SEC - 1));
        assert_true(restart_is_well(&r, 30 * SEC));
        assert_false(restart_is_well(&r, 30 * SEC));
        assert_int_equal(restart_after_death(&r, &p, 20000 * SEC, 31 * SEC), 0);
        assert_false(r.failing);
}

/* A death at the very end of the window does not count any more. */
static void test_window(void **state) {
        static const RestartPolicy p = { .limit = 1, .window_usec = 60 * SEC };
        Restart r = { 0 };

        (void) restart_after_death(&r, &p, 5 * SEC, 0);
        (void) restart_after_death(&r, &p, 65 * SEC, 0);
        assert_false(r.failing);
        (void) restart_after_death(&r, &p, 125 * SEC - 1, 0);
        assert_true(r.failing);
}

/* Thousands of random histories: failing exactly when the deaths in the window, counted one by one, are
 * more than the limit, or were and none has been well since. */
static void test_random_limits(void **state) {
        srand48(2);
        for (int history = 0; history < 3000; history++) {
                RestartPolicy p = {
                        .backoff_min_usec = MSEC,
                        .backoff_max_usec = SEC,
                        .limit = (unsigned) lrand48() % (RESTART_LIMIT_MAX + 1),
                        .window_usec = SEC + (uint64_t) lrand48() % (600 * SEC),
                };
                uint64_t deaths[300], now = (uint64_t) lrand48();
                bool failing = false;
                Restart r = { 0 };

                for (unsigned n = 0; n < ELEMENTSOF(deaths); n++) {
                        uint64_t lived = (uint64_t) lrand48() % (lrand48() % 16 == 0 ? 60 * SEC : 5 * SEC);
                        unsigned n_within = 0;

                        now += lived;
                        deaths[n] = now;
                        for (unsigned i = 0; i <= n; i++)
                                n_within += now - deaths[i] < p.window_usec;
                        failing = (failing && lived < 30 * SEC) || (p.limit > 0 && n_within > p.limit);

                        uint64_t delay = restart_after_death(&r, &p, now, lived);
                        assert_int_equal(r.failing, failing);
                        if (failing)
                                assert_int_equal(delay, p.backoff_max_usec);
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
                cmocka_unit_test(test_limit),
                cmocka_unit_test(test_window),
                cmocka_unit_test(test_random_limits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

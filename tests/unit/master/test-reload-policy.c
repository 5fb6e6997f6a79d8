/* SPDX-License-Identifier: MIT */
/* The steps of a reload, with a clock that the test turns. */

#include "../unit.h"

#include <stdlib.h>

#include "master/reload-policy.h"

#define SEC UINT64_C(1000000)

static void start_and_ready(Reload *r, uint64_t now) {
        assert_int_equal(reload_next(r, now), RELOAD_START);
        reload_worker_started(r);
        assert_int_equal(reload_next(r, now), RELOAD_WAIT);
        reload_worker_ready(r, now);
}

/* Canary, soak, the others one by one, commit. */
static void test_good(void **state) {
        Reload r;

        reload_init(&r, 3, 2 * SEC);
        start_and_ready(&r, 10 * SEC);
        assert_int_equal(r.step, RELOAD_SOAK);
        assert_int_equal(r.soak_until_usec, 12 * SEC);
        assert_int_equal(reload_next(&r, 10 * SEC), RELOAD_WAIT);
        assert_int_equal(reload_next(&r, 12 * SEC - 1), RELOAD_WAIT);
        start_and_ready(&r, 12 * SEC);
        assert_int_equal(r.step, RELOAD_OTHERS);
        start_and_ready(&r, 12 * SEC);
        assert_int_equal(reload_next(&r, 12 * SEC), RELOAD_COMMIT);
        assert_int_equal(r.step, RELOAD_COMMITTED);
}

/* A single worker soaks too; without a soak nobody waits. */
static void test_single(void **state) {
        Reload r;

        reload_init(&r, 1, SEC);
        start_and_ready(&r, 0);
        assert_int_equal(reload_next(&r, SEC - 1), RELOAD_WAIT);
        assert_int_equal(reload_next(&r, SEC), RELOAD_COMMIT);

        reload_init(&r, 1, 0);
        start_and_ready(&r, 5);
        assert_int_equal(reload_next(&r, 5), RELOAD_COMMIT);
}

/* A soak without end is not over because of an overflow. */
static void test_endless_soak(void **state) {
        Reload r;

        reload_init(&r, 1, UINT64_MAX);
        start_and_ready(&r, 5 * SEC);
        assert_int_equal(reload_next(&r, 6 * SEC), RELOAD_WAIT);
        assert_int_equal(r.soak_until_usec, UINT64_MAX);
}

/* New agents come before the canary, and the wait for them takes as long as it takes. */
static void test_agents(void **state) {
        Reload r;

        reload_init(&r, 1, 0);
        reload_await_agents(&r);
        assert_int_equal(reload_next(&r, 0), RELOAD_WAIT);
        assert_int_equal(reload_next(&r, UINT64_MAX), RELOAD_WAIT);
        reload_agents_ready(&r);
        start_and_ready(&r, 5);
        assert_int_equal(reload_next(&r, 5), RELOAD_COMMIT);

        reload_init(&r, 1, 0);
        reload_await_agents(&r);
        reload_failed(&r);
        assert_int_equal(reload_next(&r, 0), RELOAD_ROLL_BACK);
        assert_int_equal(r.step, RELOAD_ROLLED_BACK);
}

/* Whatever fails, in whichever step, ends it, and nothing else does. */
static void test_failures(void **state) {
        Reload r;

        reload_init(&r, 2, SEC); /* the configuration */
        reload_failed(&r);
        assert_int_equal(reload_next(&r, 0), RELOAD_ROLL_BACK);

        reload_init(&r, 2, SEC); /* the canary, before it is ready */
        assert_int_equal(reload_next(&r, 0), RELOAD_START);
        reload_worker_started(&r);
        reload_failed(&r);
        assert_int_equal(reload_next(&r, 0), RELOAD_ROLL_BACK);

        reload_init(&r, 2, SEC); /* the canary, in its soak, at the very end of it */
        start_and_ready(&r, 0);
        reload_failed(&r);
        assert_int_equal(reload_next(&r, SEC), RELOAD_ROLL_BACK);

        reload_init(&r, 2, 0); /* the second worker */
        start_and_ready(&r, 0);
        assert_int_equal(reload_next(&r, 0), RELOAD_START);
        reload_worker_started(&r);
        reload_failed(&r);
        assert_int_equal(reload_next(&r, 0), RELOAD_ROLL_BACK);
        assert_int_equal(r.step, RELOAD_ROLLED_BACK);
}

/* One history with a model of its own beside it. */
static void random_history(void) {
        unsigned n = 1 + (unsigned) lrand48() % 8, started = 0, ready = 0;
        uint64_t now = (uint64_t) lrand48(), soak = (uint64_t) lrand48() % (5 * SEC), canary_ready = 0;
        bool failed = false;
        Reload r;

        reload_init(&r, n, soak);
        for (unsigned events = 0;; events++) {
                ReloadAction action = reload_next(&r, now);

                assert_true(events < 10000);
                if (failed) {
                        assert_int_equal(action, RELOAD_ROLL_BACK);
                        return;
                }
                switch (action) {
                case RELOAD_START:
                        assert_int_equal(started, ready); /* one at a time */
                        assert_true(started < n);
                        assert_true(started == 0 || now - canary_ready >= soak);
                        failed = lrand48() % 30 == 0;
                        if (failed)
                                reload_failed(&r);
                        else {
                                started++;
                                reload_worker_started(&r);
                        }
                        continue;
                case RELOAD_COMMIT:
                        assert_int_equal(ready, n);
                        assert_true(now - canary_ready >= soak);
                        return;
                case RELOAD_ROLL_BACK:
                        fail();
                        return;
                case RELOAD_WAIT:
                        assert_true(started > ready || (ready == 1 && now - canary_ready < soak));
                }

                now += (uint64_t) lrand48() % SEC;
                if (lrand48() % 40 == 0) {
                        failed = true;
                        reload_failed(&r);
                } else if (started > ready && lrand48() % 3 != 0) {
                        if (ready++ == 0)
                                canary_ready = now;
                        reload_worker_ready(&r, now);
                }
        }
}

static void test_random_histories(void **state) {
        srand48(1);
        for (int i = 0; i < 20000; i++)
                random_history();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_good),
                cmocka_unit_test(test_single),
                cmocka_unit_test(test_endless_soak),
                cmocka_unit_test(test_agents),
                cmocka_unit_test(test_failures),
                cmocka_unit_test(test_random_histories),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

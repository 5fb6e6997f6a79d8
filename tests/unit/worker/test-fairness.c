/* SPDX-License-Identifier: MIT */
/* Who gets a connection: every rule of the decision. */

#include "../unit.h"

#include "basic/macro.h"
#include "worker/fairness.h"

#define NOW  UINT64_C(1000000000)
#define MSEC UINT64_C(1000)

static FairnessSeat seat(uint32_t load) {
        return (FairnessSeat){ .taken = true, .load = load };
}

/* Steady arrivals differ by less than the delta, and nothing is handed over. */
static void test_keeps_below_delta(void **state) {
        const FairnessSeat seats[] = { seat(20), seat(5), seat(9) };

        assert_int_equal(fairness_choose(seats, ELEMENTSOF(seats), 0, NOW), 0);
}

static void test_hands_to_least_loaded(void **state) {
        const FairnessSeat seats[] = { seat(30), seat(40), seat(14), seat(13) };

        assert_int_equal(fairness_choose(seats, ELEMENTSOF(seats), 1, NOW), 3);
        assert_int_equal(fairness_choose(seats, ELEMENTSOF(seats), 0, NOW), 3);
        assert_int_equal(fairness_choose(seats, ELEMENTSOF(seats), 2, NOW), 2);
}

static void test_delta_is_reached_exactly(void **state) {
        FairnessSeat seats[] = { seat(FAIRNESS_DELTA), seat(0) };

        assert_int_equal(fairness_choose(seats, 2, 0, NOW), 1);
        seats[1].load = 1;
        assert_int_equal(fairness_choose(seats, 2, 0, NOW), 0);
}

/* With many connections a sixteenth of the mean is as good as even. */
static void test_delta_grows_with_mean(void **state) {
        FairnessSeat seats[] = { seat(1640), seat(1560) };

        assert_int_equal(fairness_choose(seats, 2, 0, NOW), 0); /* mean 1600, delta 100 */
        seats[0].load = 1665;
        assert_int_equal(fairness_choose(seats, 2, 0, NOW), 1);
}

/* The stuck one has the lowest count of all: it must not be chosen for that. */
static void test_passes_over_busy(void **state) {
        FairnessSeat seats[] = { seat(100), seat(0), seat(50) };

        seats[1].busy_since = NOW - 2 * FAIRNESS_PATIENCE_USEC;
        assert_int_equal(fairness_choose(seats, 3, 0, NOW), 1);
        seats[1].busy_since--;
        assert_int_equal(fairness_choose(seats, 3, 0, NOW), 2);
}

static void test_passes_over_pending(void **state) {
        FairnessSeat seats[] = { seat(100), seat(0), seat(50) };

        seats[1].pending_since = NOW - FAIRNESS_PATIENCE_USEC;
        assert_int_equal(fairness_choose(seats, 3, 0, NOW), 1);
        seats[1].pending_since--;
        assert_int_equal(fairness_choose(seats, 3, 0, NOW), 2);
}

static void test_passes_over_empty(void **state) {
        FairnessSeat seats[] = { seat(100), { .taken = false }, { .taken = false } };

        assert_int_equal(fairness_choose(seats, 3, 0, NOW), 0);
}

/* Then it keeps what it has: somebody always accepts. Its own seat is never judged. */
static void test_nobody_is_healthy(void **state) {
        FairnessSeat seats[] = { seat(100), seat(0) };

        seats[0].busy_since = seats[1].busy_since = 1;
        assert_int_equal(fairness_choose(seats, 2, 0, NOW), 0);
}

/* Each process reads its own clock, and not in every moment. */
static void test_times_ahead_are_healthy(void **state) {
        FairnessSeat s = seat(0);

        s.busy_since = s.pending_since = NOW + 50 * MSEC;
        assert_true(fairness_is_healthy(&s, NOW));
        s.busy_since = s.pending_since = UINT64_MAX;
        assert_true(fairness_is_healthy(&s, NOW));
}

/* What a worker gone mad writes leads to no overflow. */
static void test_absurd_loads(void **state) {
        FairnessSeat seats[] = { seat(UINT32_MAX), seat(UINT32_MAX), seat(UINT32_MAX) };

        assert_int_equal(fairness_choose(seats, 3, 2, NOW), 2);
        seats[0].load = 0;
        assert_int_equal(fairness_choose(seats, 3, 2, NOW), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_keeps_below_delta),
                cmocka_unit_test(test_hands_to_least_loaded),
                cmocka_unit_test(test_delta_is_reached_exactly),
                cmocka_unit_test(test_delta_grows_with_mean),
                cmocka_unit_test(test_passes_over_busy),
                cmocka_unit_test(test_passes_over_pending),
                cmocka_unit_test(test_passes_over_empty),
                cmocka_unit_test(test_nobody_is_healthy),
                cmocka_unit_test(test_times_ahead_are_healthy),
                cmocka_unit_test(test_absurd_loads),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

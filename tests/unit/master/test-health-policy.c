/* SPDX-License-Identifier: MIT */
/* Limits and heartbeats, with a clock that the test turns. */

#include "../unit.h"

#include <stdlib.h>

#include "master/health-policy.h"

#define SEC UINT64_C(1000000)

/* The limit is never exceeded, and never undercut by more than the percentage. */
static void test_jitter(void **state) {
        assert_int_equal(limit_with_jitter(0, 50, UINT32_MAX), 0);
        assert_int_equal(limit_with_jitter(1000, 0, UINT32_MAX), 1000);
        assert_int_equal(limit_with_jitter(1000, 10, 0), 1000);
        assert_int_equal(limit_with_jitter(1000, 10, UINT32_MAX), 901);
        assert_int_equal(limit_with_jitter(1, 100, UINT32_MAX), 1);
        assert_in_range(limit_with_jitter(UINT64_MAX, 50, UINT32_MAX), UINT64_MAX / 2,
                        UINT64_MAX / 2 + UINT32_MAX);

        srand48(1);
        for (int i = 0; i < 10000; i++) {
                uint64_t limit = 1 + (uint64_t) lrand48();
                unsigned percent = (unsigned) lrand48() % 101;
                uint64_t v = limit_with_jitter(limit, percent, (uint32_t) mrand48());

                assert_in_range(v, 1, limit);
                assert_true((limit - v) * 100 <= limit * percent);
        }
}

/* It does spread: a hundred workers do not go in the same moment. */
static void test_spread(void **state) {
        uint64_t lowest = UINT64_MAX, highest = 0;

        srand48(1);
        for (int i = 0; i < 100; i++) {
                uint64_t v = limit_with_jitter(10000, 10, (uint32_t) mrand48());
                lowest = v < lowest ? v : lowest;
                highest = v > highest ? v : highest;
        }
        assert_true(highest - lowest > 800);
}

/* A worker that beats by itself is never probed, one that does not is, and is well for ever if it answers.
 */
static void test_heartbeat(void **state) {
        Heartbeat h = { 0 };
        uint64_t now = 100 * SEC, beats = 1;
        unsigned probes = 0;

        for (int i = 0; i < 1000; i++, now += 5 * SEC)
                assert_int_equal(heartbeat_look(&h, beats++, now, 10 * SEC, false), HEARTBEAT_WELL);
        for (int i = 0; i < 1000; i++, now += 5 * SEC) {
                HeartbeatVerdict v = heartbeat_look(&h, beats, now, 10 * SEC, false);

                assert_int_not_equal(v, HEARTBEAT_HANGS);
                if (v == HEARTBEAT_PROBE) {
                        beats++;
                        probes++;
                }
        }
        assert_in_range(probes, 499, 501); /* an idle worker is woken up once in the watchdog time */
}

/* It hangs when a probe was not answered for the watchdog time, and not a microsecond earlier. */
static void test_hangs(void **state) {
        Heartbeat h = { 0 };

        assert_int_equal(heartbeat_look(&h, 7, 0, 10 * SEC, false), HEARTBEAT_WELL);
        assert_int_equal(heartbeat_look(&h, 7, 5 * SEC - 1, 10 * SEC, false), HEARTBEAT_WELL);
        assert_int_equal(heartbeat_look(&h, 7, 5 * SEC, 10 * SEC, false), HEARTBEAT_PROBE);
        assert_int_equal(heartbeat_look(&h, 7, 15 * SEC - 1, 10 * SEC, false), HEARTBEAT_WELL);
        assert_int_equal(heartbeat_look(&h, 7, 15 * SEC, 10 * SEC, false), HEARTBEAT_HANGS);
}

/* An answer in the last moment counts. */
static void test_late_answer(void **state) {
        Heartbeat h = { 0 };

        (void) heartbeat_look(&h, 7, 0, 10 * SEC, false);
        assert_int_equal(heartbeat_look(&h, 7, 5 * SEC, 10 * SEC, false), HEARTBEAT_PROBE);
        assert_int_equal(heartbeat_look(&h, 8, 15 * SEC, 10 * SEC, false), HEARTBEAT_WELL);
        assert_int_equal(heartbeat_look(&h, 8, 20 * SEC, 10 * SEC, false), HEARTBEAT_PROBE);
}

/* When it was the master that stood still, nobody is accused: the time begins anew. */
static void test_master_was_late(void **state) {
        Heartbeat h = { 0 };

        (void) heartbeat_look(&h, 7, 0, 10 * SEC, false);
        assert_int_equal(heartbeat_look(&h, 7, 5 * SEC, 10 * SEC, false), HEARTBEAT_PROBE);
        assert_int_equal(heartbeat_look(&h, 7, 60 * SEC, 10 * SEC, true), HEARTBEAT_WELL);
        assert_int_equal(heartbeat_look(&h, 7, 70 * SEC - 1, 10 * SEC, false), HEARTBEAT_WELL);
        assert_int_equal(heartbeat_look(&h, 7, 70 * SEC, 10 * SEC, false), HEARTBEAT_HANGS);
}

/* Random histories: nobody is accused who has beaten within the watchdog time after a probe, and everybody
 * is who has not beaten for three times that, whenever in it the looks are. */
static void test_random_histories(void **state) {
        srand48(3);
        for (int i = 0; i < 5000; i++) {
                uint64_t watchdog = SEC + (uint64_t) lrand48() % (20 * SEC), now = SEC, beats = 1;
                uint64_t beaten = now, probed = 0;
                Heartbeat h = { 0 };

                for (int look = 0; look < 100; look++) {
                        if (lrand48() % 4 == 0) {
                                beats++;
                                beaten = now;
                        }
                        now += (uint64_t) lrand48() % (watchdog / 2);
                        switch (heartbeat_look(&h, beats, now, watchdog, false)) {
                        case HEARTBEAT_PROBE:
                                probed = now;
                                break;
                        case HEARTBEAT_HANGS:
                                assert_true(probed > beaten && now - probed >= watchdog);
                                look = 100;
                                break;
                        case HEARTBEAT_WELL:
                                assert_true(now - beaten <= 3 * watchdog);
                                break;
                        }
                }
        }
}

/* Only time without a connection counts, and one that came and went between two looks begins it anew. */
static void test_idle(void **state) {
        Idle i = { 0 };

        assert_false(idle_look(&i, 0, 0, 100 * SEC, 10 * SEC));
        assert_false(idle_look(&i, 0, 0, 110 * SEC - 1, 10 * SEC));
        assert_true(idle_look(&i, 0, 0, 110 * SEC, 10 * SEC));
        assert_false(idle_look(&i, 0, 0, 200 * SEC, 0));

        assert_false(idle_look(&i, 0, 1, 111 * SEC, 10 * SEC)); /* it has gone already */
        assert_false(idle_look(&i, 0, 1, 121 * SEC - 1, 10 * SEC));
        assert_false(idle_look(&i, 3, 4, 122 * SEC, 10 * SEC));
        assert_false(idle_look(&i, 3, 4, 222 * SEC, 10 * SEC)); /* however long it is open */
        assert_false(idle_look(&i, 0, 4, 223 * SEC, 10 * SEC));
        assert_false(idle_look(&i, 0, 4, 232 * SEC, 10 * SEC));
        assert_true(idle_look(&i, 0, 4, 233 * SEC, 10 * SEC));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_jitter),
                cmocka_unit_test(test_spread),
                cmocka_unit_test(test_heartbeat),
                cmocka_unit_test(test_hangs),
                cmocka_unit_test(test_late_answer),
                cmocka_unit_test(test_master_was_late),
                cmocka_unit_test(test_random_histories),
                cmocka_unit_test(test_idle),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

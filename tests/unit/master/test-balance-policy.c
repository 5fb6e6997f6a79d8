/* SPDX-License-Identifier: MIT */
/* Which worker gets the next connection, of workers that the test makes up. */

#include "../unit.h"

#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "master/balance-policy.h"

#define WORKERS 4

typedef struct Workers {
        BalanceCandidate items[WORKERS];
        size_t cursor;
} Workers;

static Workers workers(void) {
        Workers w = { .cursor = 0 };

        for (unsigned i = 0; i < WORKERS; i++)
                w.items[i] = (BalanceCandidate){ .slot = i + 1, .has_room = true };
        return w;
}

static size_t choose(Workers *w, Balance balance) {
        return balance_choose(balance, w->items, WORKERS, &w->cursor, 0);
}

static size_t choose_for(const Workers *w, uint64_t source) {
        size_t cursor = 0;

        return balance_choose(BALANCE_SOURCE, w->items, WORKERS, &cursor, source);
}

static uint64_t client(unsigned i) {
        const uint8_t address[] = { 10, (uint8_t) (i >> 16), (uint8_t) (i >> 8), (uint8_t) i };

        return balance_hash_address(address, sizeof(address));
}

/* One after the other, each time round. */
static void test_turns(void **state) {
        Workers w = workers();

        for (size_t i = 0; i < 3 * WORKERS; i++)
                assert_int_equal(choose(&w, BALANCE_ROUND_ROBIN), i % WORKERS);
}

static void pass_to(Workers *w, size_t k) {
        w->items[k].in_flight++;
        balance_count_turn(w->items, WORKERS, k);
}

/* In a burst, of which answers come as they like, the numbers have a standard deviation of at most 6. */
static void test_burst(void **state) {
        int passed[WORKERS] = { 0 }, variance = 0;
        Workers w = workers();

        srand48(1);
        for (unsigned n = 0; n < 1000;) {
                size_t k = choose(&w, BALANCE_ROUND_ROBIN);

                if (k != BALANCE_NOBODY) {
                        passed[k]++;
                        pass_to(&w, k);
                        n++;
                }
                k = (size_t) (lrand48() % (2 * WORKERS));
                k = MIN(k, WORKERS - 1U); /* one gets most of the CPU */
                if (w.items[k].in_flight > 0)
                        w.items[k].in_flight--;
                for (k = 0; k < WORKERS; k++)
                        w.items[k].has_room = w.items[k].in_flight < 16;
        }
        for (unsigned i = 0; i < WORKERS; i++)
                variance += (passed[i] - 250) * (passed[i] - 250) / WORKERS;
        assert_in_range(variance, 0, 6 * 6);
}

/* A busy one is passed over at once: what it was passed would wait with it. */
static void test_busy(void **state) {
        Workers w = workers();

        pass_to(&w, choose(&w, BALANCE_ROUND_ROBIN));
        for (unsigned i = 0; i < 2; i++)
                for (size_t k = 1; k < WORKERS; k++) {
                        assert_int_equal(choose(&w, BALANCE_ROUND_ROBIN), k);
                        balance_count_turn(w.items, WORKERS, k); /* and it is acknowledged */
                }
        w.items[0].in_flight = 0;
        assert_int_equal(choose(&w, BALANCE_ROUND_ROBIN), 0); /* the others have had one more */
}

static unsigned count_turns_until_nobody(Workers *w, unsigned limit) {
        unsigned n = 0;
        size_t k;

        for (; n < limit && (k = choose(w, BALANCE_ROUND_ROBIN)) != BALANCE_NOBODY; n++)
                balance_count_turn(w->items, WORKERS, k);
        return n;
}

/* Nobody gets ahead of one without room by more than twelve, as long as that gives signs of life. */
static void test_ahead(void **state) {
        Workers w = workers();

        w.items[2].has_room = false;
        assert_int_equal(count_turns_until_nobody(&w, 100), 3 * 12);
        assert_false(balance_can_choose(BALANCE_ROUND_ROBIN, w.items, WORKERS));
        w.items[2].late = true;
        assert_true(balance_can_choose(BALANCE_ROUND_ROBIN, w.items, WORKERS));
        assert_int_equal(count_turns_until_nobody(&w, 100), 100);
}

/* Nor is one that was late flooded in return: it gets what the others are ahead, and no more. */
static void test_return(void **state) {
        unsigned passed[WORKERS] = { 0 };
        Workers w = workers();

        w.items[2].late = true;
        assert_int_equal(count_turns_until_nobody(&w, 300), 300);
        w.items[2].late = false;
        for (unsigned i = 0; i < 12 + WORKERS * 10; i++) {
                size_t k = choose(&w, BALANCE_ROUND_ROBIN);

                passed[k]++;
                balance_count_turn(w.items, WORKERS, k);
        }
        assert_int_equal(passed[2], 12 + 10);
}

/* A late one gets a connection when all are late, and by turns if there are several. */
static void test_late(void **state) {
        Workers w = workers();

        w.items[0].late = w.items[1].late = w.items[2].late = true;
        w.items[3].in_flight = 1000;
        assert_int_equal(choose(&w, BALANCE_ROUND_ROBIN), 3);
        w.items[3].has_room = false;
        assert_true(choose(&w, BALANCE_ROUND_ROBIN) == BALANCE_NOBODY);
        assert_false(balance_can_choose(BALANCE_ROUND_ROBIN, w.items, WORKERS));
        w.items[3].late = true;
        w.items[1].has_room = false;
        assert_int_equal(choose(&w, BALANCE_ROUND_ROBIN), 0);
        assert_int_equal(choose(&w, BALANCE_ROUND_ROBIN), 2);
        assert_int_equal(choose(&w, BALANCE_ROUND_ROBIN), 0);
}

/* Who has no room gets none, though it be the least busy; and how busy it is does not matter to others. */
static void test_room(void **state) {
        static const Balance balances[] = { BALANCE_ROUND_ROBIN, BALANCE_LEAST_LAG };

        for (size_t i = 0; i < ELEMENTSOF(balances); i++) {
                Workers w = workers();

                for (unsigned k = 1; k < WORKERS; k++)
                        w.items[k].in_flight = 100;
                w.items[0].has_room = w.items[2].has_room = false;
                assert_int_equal(choose(&w, balances[i]), 1);
                assert_int_equal(choose(&w, balances[i]), 3);
                assert_int_equal(choose(&w, balances[i]), 1);
                w.items[1].has_room = w.items[3].has_room = false;
                assert_true(choose(&w, balances[i]) == BALANCE_NOBODY);
                assert_int_equal(w.cursor, 2);
        }
}

/* One that has stalled gets a connection when there is no other, and by turns if there are several. */
static void test_stalled(void **state) {
        Workers w = workers();

        w.items[0].stalled = w.items[1].stalled = w.items[2].stalled = true;
        w.items[3].in_flight = 1000;
        assert_int_equal(choose(&w, BALANCE_LEAST_LAG), 3);
        assert_int_equal(choose(&w, BALANCE_LEAST_LAG), 3);
        w.items[3].has_room = w.items[1].has_room = false;
        assert_int_equal(choose(&w, BALANCE_LEAST_LAG), 0);
        assert_int_equal(choose(&w, BALANCE_LEAST_LAG), 2);
        assert_int_equal(choose(&w, BALANCE_LEAST_LAG), 0);
}

/* Workers come and go between two choices: the turns go on, with nobody beyond the end. */
static void test_fewer(void **state) {
        Workers w = workers();

        w.cursor = WORKERS;
        assert_int_equal(balance_choose(BALANCE_ROUND_ROBIN, w.items, 3, &w.cursor, 0), 1);
        w.cursor = SIZE_MAX;
        assert_true(balance_choose(BALANCE_ROUND_ROBIN, w.items, 3, &w.cursor, 0) < 3);
        for (Balance b = BALANCE_ROUND_ROBIN; b < _BALANCE_MAX; b++) {
                assert_true(balance_choose(b, w.items, 0, &w.cursor, 7) == BALANCE_NOBODY);
                assert_true(balance_choose(b, NULL, 0, &w.cursor, 7) == BALANCE_NOBODY);
        }
}

/* The product of both decides: one of twice the lag gets half as many at a time. */
static void test_lag(void **state) {
        unsigned passed[WORKERS] = { 0 };
        Workers w = workers();

        w.items[0].lag_usec = 10000;
        w.items[1].lag_usec = 20000;
        w.items[2].lag_usec = 40000;
        w.items[3].lag_usec = 1000000;
        for (unsigned i = 0; i < 70; i++) {
                size_t k = choose(&w, BALANCE_LEAST_LAG);

                w.items[k].in_flight++;
                passed[k]++;
        }
        assert_int_equal(passed[0], 40);
        assert_int_equal(passed[1], 20);
        assert_int_equal(passed[2], 10);
        assert_int_equal(passed[3], 0);
}

/* What an idle loop takes is chance, and so is whether it was measured: such workers take turns. */
static void test_lag_of_idle(void **state) {
        Workers w = workers();

        w.items[0].lag_usec = 4000;
        w.items[1].lag_usec = 300;
        w.items[2].lag_usec = 0;
        w.items[3].lag_usec = 5001;
        for (size_t i = 0; i < 6; i++)
                assert_int_equal(choose(&w, BALANCE_LEAST_LAG), i % 3);
}

/* No overflow makes the worst one the best. */
static void test_lag_extremes(void **state) {
        Workers w = workers();

        for (unsigned i = 0; i < WORKERS; i++) {
                w.items[i].lag_usec = UINT64_MAX / (i + 1);
                w.items[i].in_flight = UINT32_MAX;
        }
        w.items[2].in_flight = UINT32_MAX - 1;
        assert_int_equal(choose(&w, BALANCE_LEAST_LAG), 2);
        assert_int_equal(choose(&w, BALANCE_ROUND_ROBIN), 2);
}

/* Clients are spread evenly, neighbours in an address range too, and each stays where it is. */
static void test_source(void **state) {
        unsigned passed[WORKERS] = { 0 };
        Workers w = workers();

        for (unsigned i = 0; i < 10000; i++) {
                size_t k = choose_for(&w, client(i));

                assert_true(k < WORKERS);
                assert_int_equal(choose_for(&w, client(i)), k);
                passed[k]++;
        }
        for (unsigned i = 0; i < WORKERS; i++)
                assert_in_range(passed[i], 2350, 2650); /* three and a half standard deviations */
}

/* It is the slot that counts, not the place in the list; and who goes takes nobody's client along. */
static void test_source_stays(void **state) {
        Workers w = workers(), fewer = workers();
        size_t cursor = 0;
        unsigned moved = 0;

        fewer.items[1] = w.items[3];
        fewer.items[2] = w.items[0];
        fewer.items[0] = w.items[2]; /* without the second one */
        for (unsigned i = 0; i < 1000; i++) {
                unsigned before = w.items[choose_for(&w, client(i))].slot;
                size_t k = balance_choose(BALANCE_SOURCE, fewer.items, 3, &cursor, client(i));

                if (before == 2)
                        moved++;
                else
                        assert_int_equal(fewer.items[k].slot, before);
        }
        assert_in_range(moved, 200, 300);
        assert_int_equal(cursor, 0);
}

/* A client waits for its worker, unless that has stalled: then it goes where it would without it. */
static void test_source_waits(void **state) {
        for (unsigned i = 0; i < 100; i++) {
                Workers w = workers();
                size_t first = choose_for(&w, client(i)), second, third;

                w.items[first].has_room = false;
                assert_true(choose_for(&w, client(i)) == BALANCE_NOBODY);
                w.items[first].stalled = true;
                second = choose_for(&w, client(i));
                assert_true(second < WORKERS && second != first);
                w.items[first].has_room = true;
                assert_int_equal(choose_for(&w, client(i)), second);

                for (unsigned k = 0; k < WORKERS; k++)
                        w.items[k].stalled = true;
                assert_int_equal(choose_for(&w, client(i)), first);
                w.items[first].has_room = false;
                assert_int_equal(choose_for(&w, client(i)), second);
                w.items[second].has_room = false;
                third = choose_for(&w, client(i));
                assert_true(third < WORKERS && third != first && third != second);
                for (unsigned k = 0; k < WORKERS; k++)
                        w.items[k].has_room = false;
                assert_true(choose_for(&w, client(i)) == BALANCE_NOBODY);
        }
}

/* Of the two that a slot has while it is replaced, the one with room, in whatever order. */
static void test_source_replaced(void **state) {
        size_t cursor = 0;

        for (size_t open = 0; open < 2; open++) {
                BalanceCandidate both[] = { { .slot = 7 }, { .slot = 7 } };

                both[open].has_room = true;
                assert_int_equal(balance_choose(BALANCE_SOURCE, both, 2, &cursor, client(1)), open);
        }
}

/* It is the same after a restart and an update, or all clients would move; and every bit matters. */
static void test_hash(void **state) {
        uint8_t address[16] = { 0x20, 0x01, 0x0D, 0xB8, [15] = 1 };
        uint64_t hash = balance_hash_address(address, sizeof(address));

        assert_true(hash == UINT64_C(0xD922E75F6E01C86B));
        assert_true(client(1) == UINT64_C(0xE165176C110A17F6));
        for (unsigned bit = 0; bit < 8 * sizeof(address); bit++) {
                uint64_t other;

                address[bit / 8] ^= (uint8_t) (1 << bit % 8);
                other = balance_hash_address(address, sizeof(address));
                assert_in_range(__builtin_popcountll(hash ^ other), 14, 50);
                address[bit / 8] ^= (uint8_t) (1 << bit % 8);
        }
        for (size_t n = 0; n < 11; n++) /* zeros alone, more and more */
                assert_true(balance_hash_address(address + 4, n) !=
                                balance_hash_address(address + 4, n + 1));
}

/* The names of the configuration. */
static void test_names(void **state) {
        assert_string_equal(balance_to_string(BALANCE_AUTO), "auto");
        assert_string_equal(balance_to_string(BALANCE_SOURCE), "source");
        for (Balance b = 0; b < _BALANCE_MAX; b++)
                assert_non_null(balance_to_string(b));
        assert_null(balance_to_string(_BALANCE_MAX));
        assert_null(balance_to_string((Balance) -1));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_turns),
                cmocka_unit_test(test_burst),
                cmocka_unit_test(test_busy),
                cmocka_unit_test(test_ahead),
                cmocka_unit_test(test_return),
                cmocka_unit_test(test_late),
                cmocka_unit_test(test_room),
                cmocka_unit_test(test_stalled),
                cmocka_unit_test(test_fewer),
                cmocka_unit_test(test_lag),
                cmocka_unit_test(test_lag_of_idle),
                cmocka_unit_test(test_lag_extremes),
                cmocka_unit_test(test_source),
                cmocka_unit_test(test_source_stays),
                cmocka_unit_test(test_source_waits),
                cmocka_unit_test(test_source_replaced),
                cmocka_unit_test(test_hash),
                cmocka_unit_test(test_names),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

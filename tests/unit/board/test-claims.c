/* SPDX-License-Identifier: MIT */
/* Two that have the same connection, at the same time: one of them serves it. */

#include "../unit.h"

#include <pthread.h>
#include <string.h>

#include "basic/macro.h"
#include "board/board.h"
#include "board/claims.h"

static BoardClaims claims;

static int setup(void **state) {
        memset(&claims, 0, sizeof(claims));
        return 0;
}

static void assert_free(void) {
        for (unsigned i = 0; i < BOARD_CLAIMS; i++)
                assert_true(claims.words[i] == 0);
}

/* The first one has it, as often as it asks, for as long as the other may have it. */
static void test_one_of_two(void **state) {
        for (unsigned cell = 0; cell < BOARD_CELLS; cell += BOARD_CELLS - 1) {
                assert_true(claims_offer(&claims, 5));
                assert_int_equal(claims_take(&claims, 5, cell), CLAIM_WON);
                assert_int_equal(claims_take(&claims, 5, cell ^ 1), CLAIM_LOST);
                assert_int_equal(claims_take(&claims, 5, cell), CLAIM_HELD);
                claims_drop(&claims, 5);
                assert_free();
        }
}

/* The sender has closed its copy before the receiver asks; or there never was anybody else. */
static void test_unknown(void **state) {
        assert_int_equal(claims_take(&claims, 5, 1), CLAIM_WON);
        assert_free();
        assert_true(claims_offer(&claims, 5));
        claims_drop(&claims, 5);
        assert_int_equal(claims_take(&claims, 5, 1), CLAIM_WON);
        claims_drop(&claims, 5);
        assert_free();
}

/* Nothing that happens to one connection says anything of another one, whose word is the same. */
static void test_same_word(void **state) {
        static const uint64_t cookies[] = { 5, 5 + BOARD_CLAIMS, 5 + (UINT64_C(1) << 52), 5 - BOARD_CLAIMS,
                5 - (UINT64_C(1) << 51) };

        for (unsigned i = 0; i < ELEMENTSOF(cookies); i++) {
                assert_true(claims_offer(&claims, cookies[i]));
                assert_int_equal(claims_take(&claims, cookies[i], 1), CLAIM_WON);
                for (unsigned k = 0; k < ELEMENTSOF(cookies); k++) {
                        assert_false(claims_offer(&claims, cookies[k]));
                        assert_int_equal(claims_take(&claims, cookies[k], 2),
                                        k == i ? CLAIM_LOST : CLAIM_WON);
                        if (k != i)
                                claims_drop(&claims, cookies[k]);
                }
                assert_int_equal(claims_take(&claims, cookies[i], 2), CLAIM_LOST);
                claims_drop(&claims, cookies[i]);
                assert_free();
        }
}

/* One that cannot be told from a free word; the kernel does not get so far. */
static void test_no_cookie(void **state) {
        assert_false(claims_offer(&claims, 0));
        assert_false(claims_offer(&claims, UINT64_C(1) << 63));
        assert_int_equal(claims_take(&claims, 0, 1), CLAIM_WON);
        claims_drop(&claims, 0);
        assert_free();
}

#define ROUNDS 200

typedef struct Contender {
        unsigned cell;
        pthread_barrier_t *barrier;
        bool has[BOARD_CLAIMS];
} Contender;

static void *contend(void *userdata) {
        Contender *c = userdata;

        for (uint64_t round = 0; round < ROUNDS; round++) {
                uint64_t first = round * BOARD_CLAIMS + 1;

                pthread_barrier_wait(c->barrier); /* all have been offered */
                for (unsigned i = 0; i < BOARD_CLAIMS; i++) {
                        c->has[i] = claims_take(&claims, first + i, c->cell) == CLAIM_WON;
                        /* Who loses drops it at once, while the other may still be asking. */
                        if (!c->has[i])
                                claims_drop(&claims, first + i);
                }
                pthread_barrier_wait(c->barrier);
                pthread_barrier_wait(c->barrier); /* the test has seen it */
        }
        return NULL;
}

/* At the same time. */
static void test_threads(void **state) {
        static Contender contenders[2];
        unsigned wins[2] = { 0 };
        pthread_barrier_t barrier;
        pthread_t threads[2];

        assert_int_equal(pthread_barrier_init(&barrier, NULL, 3), 0);
        for (unsigned i = 0; i < 2; i++) {
                contenders[i] = (Contender){ .cell = i, .barrier = &barrier };
                assert_int_equal(pthread_create(threads + i, NULL, contend, contenders + i), 0);
        }
        for (uint64_t round = 0; round < ROUNDS; round++) {
                for (unsigned i = 0; i < BOARD_CLAIMS; i++)
                        assert_true(claims_offer(&claims, round * BOARD_CLAIMS + 1 + i));
                pthread_barrier_wait(&barrier);
                pthread_barrier_wait(&barrier);
                for (unsigned i = 0; i < BOARD_CLAIMS; i++) {
                        assert_true(contenders[0].has[i] != contenders[1].has[i]);
                        wins[contenders[1].has[i]]++;
                }
                assert_free();
                pthread_barrier_wait(&barrier);
        }
        for (unsigned i = 0; i < 2; i++)
                assert_int_equal(pthread_join(threads[i], NULL), 0);
        pthread_barrier_destroy(&barrier);
        print_message("%u and %u\n", wins[0], wins[1]);
}

static void *take_all(void *userdata) {
        Contender *c = userdata;

        for (uint64_t cookie = 1; cookie <= ROUNDS * BOARD_CLAIMS; cookie++)
                assert_int_equal(claims_take(&claims, cookie, c->cell), CLAIM_WON);
        return NULL;
}

/* The sender lives and takes its words back, while the receiver asks: all are the receiver's. */
static void test_sender_lives(void **state) {
        Contender receiver = { .cell = 1 };
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, take_all, &receiver), 0);
        for (uint64_t cookie = 1; cookie <= ROUNDS * BOARD_CLAIMS; cookie++) {
                assert_true(claims_offer(&claims, cookie));
                claims_drop(&claims, cookie);
        }
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_free();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_one_of_two, setup),
                cmocka_unit_test_setup(test_unknown, setup),
                cmocka_unit_test_setup(test_same_word, setup),
                cmocka_unit_test_setup(test_no_cookie, setup),
                cmocka_unit_test_setup(test_threads, setup),
                cmocka_unit_test_setup(test_sender_lives, setup),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

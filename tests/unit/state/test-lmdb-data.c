/* SPDX-License-Identifier: MIT */
/* What is kept in LMDB, with a clock that is told. */

#include "../unit.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "basic/clock.h"
#include "state/lmdb-data.h"

typedef struct Fixture {
        char directory[64];
        MDB_env *env;
        LmdbData data;
        uint64_t now_msec;
} Fixture;

static int setup(void **state) {
        Fixture *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        strcpy(f->directory, "/tmp/muster-test-lmdb-XXXXXX");
        assert_non_null(mkdtemp(f->directory));
        assert_int_equal(mdb_env_create(&f->env), 0);
        assert_int_equal(mdb_env_set_maxdbs(f->env, LMDB_DATABASES), 0);
        assert_int_equal(mdb_env_open(f->env, f->directory, MDB_NOTLS | MDB_NOSYNC, 0600), 0);
        assert_int_equal(lmdb_data_open(&f->data, f->env), 0);
        f->now_msec = 1000000;
        *state = f;
        return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
        return remove(path);
}

static int teardown(void **state) {
        Fixture *f = *state;

        mdb_env_close(f->env);
        (void) nftw(f->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
        free(f);
        return 0;
}

static StateBytes text(const char *s) {
        return (StateBytes){ s, strlen(s) };
}

/* One transaction, whose outcome the caller frees. */
static LmdbAnswer run(Fixture *f, const StateOperation *op) {
        LmdbAnswer a;
        MDB_txn *txn;

        assert_int_equal(mdb_txn_begin(f->env, NULL, 0, &txn), 0);
        assert_int_equal(lmdb_data_write(&f->data, txn, op, 0, f->now_msec, &a), 0);
        assert_int_equal(mdb_txn_commit(txn), 0);
        return a;
}

static int run_for_error(Fixture *f, const StateOperation *op) {
        LmdbAnswer a = run(f, op);
        int error = a.outcome.error;

        lmdb_answer_done(&a);
        return error;
}

static int set(Fixture *f, const char *key, const char *value, uint64_t ttl_msec) {
        return run_for_error(f, &(StateOperation){ .verb = STATE_SET,
                                                .key = text(key),
                                                .value = text(value),
                                                .ttl_usec = ttl_msec * USEC_PER_MSEC });
}

static int get(Fixture *f, const char *key) {
        return run_for_error(f, &(StateOperation){ .verb = STATE_GET, .key = text(key) });
}

static size_t count(Fixture *f, MDB_dbi dbi) {
        MDB_stat stat;
        MDB_txn *txn;

        assert_int_equal(mdb_txn_begin(f->env, NULL, MDB_RDONLY, &txn), 0);
        assert_int_equal(mdb_stat(txn, dbi, &stat), 0);
        mdb_txn_abort(txn);
        return stat.ms_entries;
}

static void expire(Fixture *f) {
        MDB_txn *txn;

        assert_int_equal(mdb_txn_begin(f->env, NULL, 0, &txn), 0);
        assert_int_equal(lmdb_data_expire(&f->data, txn, 0, f->now_msec), 0);
        assert_int_equal(mdb_txn_commit(txn), 0);
}

static void test_ends(void **state) {
        Fixture *f = *state;

        assert_int_equal(set(f, "a", "1", 100), 0);
        f->now_msec += 99;
        assert_int_equal(get(f, "a"), 0);
        f->now_msec += 1;
        assert_int_equal(get(f, "a"), -ENOENT);
        assert_int_equal(count(f, f->data.values), 1);
        expire(f);
        assert_int_equal(count(f, f->data.values), 0);
        assert_int_equal(count(f, f->data.ends), 0);
}

static void test_end_is_changed(void **state) {
        Fixture *f = *state;

        assert_int_equal(set(f, "a", "1", 100), 0);
        assert_int_equal(set(f, "a", "2", 200), 0);
        assert_int_equal(count(f, f->data.ends), 1);
        f->now_msec += 150;
        expire(f);
        assert_int_equal(get(f, "a"), 0);
        assert_int_equal(set(f, "a", "3", 0), 0);
        assert_int_equal(count(f, f->data.ends), 0);
        f->now_msec += 1000;
        expire(f);
        assert_int_equal(get(f, "a"), 0);
}

/* A few in each transaction, the earliest first, and none too early. */
static void test_many_end(void **state) {
        Fixture *f = *state;
        char key[16];

        for (unsigned i = 0; i < 100; i++) {
                snprintf(key, sizeof(key), "k%u", i);
                assert_int_equal(set(f, key, "v", 10 + i % 5), 0);
        }
        assert_int_equal(set(f, "later", "v", 5000), 0);
        f->now_msec += 100;
        for (unsigned i = 0; count(f, f->data.ends) > 1; i++) {
                assert_true(i < 10);
                expire(f);
        }
        assert_int_equal(count(f, f->data.values), 1);
        assert_int_equal(get(f, "later"), 0);
}

/* What has ended is not there, for whoever asks for it. */
static void test_ended_is_absent(void **state) {
        Fixture *f = *state;
        LmdbAnswer a;

        assert_int_equal(set(f, "a", "7", 100), 0);
        f->now_msec += 100;
        assert_int_equal(run_for_error(f, &(StateOperation){ .verb = STATE_DELETE, .key = text("a") }),
                        -ENOENT);
        a = run(f, &(StateOperation){ .verb = STATE_SCAN, .key = text(""), .limit = 10 });
        assert_int_equal(a.outcome.n_keys, 0);
        lmdb_answer_done(&a);
        a = run(f, &(StateOperation){ .verb = STATE_ADD, .key = text("a"), .difference = 1 });
        assert_int_equal(a.outcome.number, 1);
        assert_int_equal(run_for_error(f, &(StateOperation){ .verb = STATE_SET,
                                                          .key = text("a"),
                                                          .value = text("x"),
                                                          .if_absent = true }),
                        -EEXIST);
}

static void test_add_keeps_the_end(void **state) {
        Fixture *f = *state;
        const StateOperation add = {
                .verb = STATE_ADD, .key = text("n"), .difference = 2, .ttl_usec = 100 * USEC_PER_MSEC
        };

        assert_int_equal(run_for_error(f, &add), 0);
        f->now_msec += 60;
        assert_int_equal(run_for_error(f, &add), 0);
        f->now_msec += 60;
        assert_int_equal(get(f, "n"), -ENOENT);
}

static void test_numbers(void **state) {
        static const struct {
                const char *value;
                int64_t difference;
                int error;
        } rows[] = {
                { "0", 1, 0 },
                { "-1", 1, 0 },
                { "9223372036854775806", 1, 0 },
                { "9223372036854775807", 1, -ERANGE },
                { "-9223372036854775808", -1, -ERANGE },
                { "9223372036854775808", 0, -EDOM },
                { "", 1, -EDOM },
                { " 1", 1, -EDOM },
                { "+1", 1, -EDOM },
                { "01", 1, -EDOM },
                { "-0", 1, -EDOM },
                { "1 ", 1, -EDOM },
                { "1.0", 1, -EDOM },
                { "x", 1, -EDOM },
                { "111111111111111111111111111", 1, -EDOM },
        };
        Fixture *f = *state;

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                assert_int_equal(set(f, "n", rows[i].value, 0), 0);
                assert_int_equal(run_for_error(f, &(StateOperation){ .verb = STATE_ADD,
                                                                  .key = text("n"),
                                                                  .difference = rows[i].difference }),
                                rows[i].error);
        }
}

static void test_pages(void **state) {
        static const char *const keys[] = { "a", "p", "p1", "p2", "p3", "q" };
        StateOperation scan = { .verb = STATE_SCAN, .key = text("p"), .limit = 2 };
        Fixture *f = *state;
        LmdbAnswer a, b;

        for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                assert_int_equal(set(f, keys[i], "", 0), 0);
        a = run(f, &scan);
        assert_int_equal(a.outcome.n_keys, 2);
        assert_memory_equal(a.outcome.cursor.data, "p1", 2);
        scan.cursor = a.outcome.cursor;
        /* One that is gone is as good a place. */
        assert_int_equal(run_for_error(f, &(StateOperation){ .verb = STATE_DELETE, .key = text("p1") }), 0);
        b = run(f, &scan);
        assert_int_equal(b.outcome.n_keys, 2);
        assert_memory_equal(b.outcome.keys[0].data, "p2", 2);
        assert_memory_equal(b.outcome.keys[1].data, "p3", 2);
        assert_int_equal(b.outcome.cursor.size, 0);
        lmdb_answer_done(&a);
        lmdb_answer_done(&b);
        scan.cursor = text("q"); /* no key of these pages */
        assert_int_equal(run_for_error(f, &scan), -EINVAL);
}

static LmdbAnswer lease(Fixture *f, StateVerb verb, uint8_t owner, uint64_t fence, uint64_t ttl_usec) {
        return run(f, &(StateOperation){ .verb = verb,
                                      .key = text("job"),
                                      .owner = { owner },
                                      .fence = fence,
                                      .ttl_usec = ttl_usec });
}

static void test_leases(void **state) {
        Fixture *f = *state;
        const uint64_t long_usec = 3600 * USEC_PER_SEC;
        LmdbAnswer a;

        f->now_msec = 0;
        assert_int_equal(lease(f, STATE_ACQUIRE, 1, 0, long_usec).outcome.fence, 1);
        assert_int_equal(lease(f, STATE_ACQUIRE, 1, 0, long_usec).outcome.fence, 1);
        a = lease(f, STATE_ACQUIRE, 2, 0, long_usec);
        assert_int_equal(a.outcome.error, -EEXIST);
        assert_in_range(a.outcome.remaining_usec, 1, long_usec);
        assert_int_equal(lease(f, STATE_RENEW, 2, 1, long_usec).outcome.error, -ESTALE);
        assert_int_equal(lease(f, STATE_RENEW, 1, 2, long_usec).outcome.error, -ESTALE);
        assert_int_equal(lease(f, STATE_RENEW, 1, 1, long_usec).outcome.error, 0);
        assert_int_equal(lease(f, STATE_RELEASE, 1, 1, 0).outcome.error, 0);
        assert_int_equal(lease(f, STATE_RENEW, 1, 1, long_usec).outcome.error, -ESTALE);
        assert_int_equal(lease(f, STATE_ACQUIRE, 2, 0, long_usec).outcome.fence, 2);
        /* Another boot. */
        f->data.boot[0] ^= 1;
        assert_int_equal(lease(f, STATE_ACQUIRE, 3, 0, long_usec).outcome.fence, 3);
}

/* A crash of the machine undoes a transaction, or all of them: who comes after it has a higher number than
 * who has acted before it. */
static void test_fence_after_crash(void **state) {
        const StateOperation acquire = {
                .verb = STATE_ACQUIRE, .key = text("job"), .ttl_usec = USEC_PER_SEC
        };
        Fixture *f = *state;
        uint64_t fence;
        LmdbAnswer a;
        MDB_txn *txn;

        assert_int_equal(mdb_txn_begin(f->env, NULL, 0, &txn), 0);
        assert_int_equal(lmdb_data_write(&f->data, txn, &acquire, 0, f->now_msec, &a), 0);
        fence = a.outcome.fence;
        mdb_txn_abort(txn);
        f->now_msec++;
        assert_true(run(f, &acquire).outcome.fence > fence);
}

static void test_versions_differ(void **state) {
        const StateOperation op = { .verb = STATE_SET, .key = text("a"), .value = text("1") };
        Fixture *f = *state;
        uint64_t versions[4];
        LmdbAnswer a;
        MDB_txn *txn;

        assert_int_equal(mdb_txn_begin(f->env, NULL, 0, &txn), 0);
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(lmdb_data_write(&f->data, txn, &op, i, f->now_msec, &a), 0);
                versions[i] = a.outcome.version;
        }
        assert_int_equal(mdb_txn_commit(txn), 0);
        versions[3] = run(f, &op).outcome.version;
        for (unsigned i = 1; i < 4; i++)
                assert_true(versions[i] > versions[i - 1]);
        assert_true(versions[0] > 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
                cmocka_unit_test_setup_teardown(test_end_is_changed, setup, teardown),
                cmocka_unit_test_setup_teardown(test_many_end, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ended_is_absent, setup, teardown),
                cmocka_unit_test_setup_teardown(test_add_keeps_the_end, setup, teardown),
                cmocka_unit_test_setup_teardown(test_numbers, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pages, setup, teardown),
                cmocka_unit_test_setup_teardown(test_leases, setup, teardown),
                cmocka_unit_test_setup_teardown(test_fence_after_crash, setup, teardown),
                cmocka_unit_test_setup_teardown(test_versions_differ, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* One environment for each directory, whoever asks for it. */

#include "../unit.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/macro.h"
#include "state/lmdb-env.h"

typedef struct Fixture {
        char directory[64];
        char error[STATE_TEXT_MAX];
} Fixture;

static int setup(void **state) {
        Fixture *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        strcpy(f->directory, "/tmp/muster-test-lmdb-XXXXXX");
        assert_non_null(mkdtemp(f->directory));
        *state = f;
        return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
        return remove(path);
}

static int teardown(void **state) {
        Fixture *f = *state;

        (void) nftw(f->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
        free(f);
        return 0;
}

static LmdbEnv *get(Fixture *f, LmdbSync sync) {
        LmdbEnv *e;

        assert_int_equal(lmdb_env_get(f->directory, sync, &e, f->error), 0);
        return e;
}

static unsigned flags_of(const LmdbEnv *e) {
        unsigned flags;

        assert_int_equal(mdb_env_get_flags(lmdb_env_handle(e), &flags), 0);
        return flags & (MDB_NOSYNC | MDB_NOMETASYNC);
}

/* Who asks for more safety than who has it open already gets it. */
static void test_strictest_sync(void **state) {
        static const struct {
                LmdbSync first, second;
                unsigned flags;
        } rows[] = {
                { LMDB_SYNC_NONE, LMDB_SYNC_NONE, MDB_NOSYNC },
                { LMDB_SYNC_NONE, LMDB_SYNC_DATA, MDB_NOMETASYNC },
                { LMDB_SYNC_NONE, LMDB_SYNC_FULL, 0 },
                { LMDB_SYNC_DATA, LMDB_SYNC_NONE, MDB_NOMETASYNC },
                { LMDB_SYNC_DATA, LMDB_SYNC_FULL, 0 },
                { LMDB_SYNC_FULL, LMDB_SYNC_NONE, 0 },
                { LMDB_SYNC_FULL, LMDB_SYNC_DATA, 0 },
        };
        Fixture *f = *state;

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                LmdbEnv *first = get(f, rows[i].first), *second = get(f, rows[i].second);

                assert_ptr_equal(first, second);
                assert_int_equal(flags_of(first), rows[i].flags);
                lmdb_env_put(second);
                lmdb_env_put(first);
        }
}

static void remove_file(const Fixture *f, const char *name) {
        char path[128];

        snprintf(path, sizeof(path), "%s/%s", f->directory, name);
        assert_int_equal(unlink(path), 0);
}

/* Files that were removed while they are open: who asks next is with all other processes in new ones. */
static void test_removed_files(void **state) {
        Fixture *f = *state;
        LmdbEnv *old = get(f, LMDB_SYNC_NONE), *new;

        remove_file(f, "data.mdb");
        remove_file(f, "lock.mdb");
        new = get(f, LMDB_SYNC_NONE);
        assert_ptr_not_equal(new, old);
        lmdb_env_put(new);
        lmdb_env_put(old);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_strictest_sync, setup, teardown),
                cmocka_unit_test_setup_teardown(test_removed_files, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

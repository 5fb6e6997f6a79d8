/* SPDX-License-Identifier: MIT */
/* The embedded store as an application has it, beside a process that holds the lock of all who write. */

#include "../unit.h"

#include <errno.h>
#include <ftw.h>
#include <lmdb.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"
#include "muster/state.h"
#include "state/bus.h"

#define TIMEOUT_USEC (30 * USEC_PER_SEC)

typedef struct Fixture {
        char directory[64];
        char url[96];
        sd_event *event;
        muster_state *store;
        muster_state *other;
        unsigned n_calls;
        unsigned n_sets;
        unsigned n_lines;
        int error;
        char value[64];
} Fixture;

static int open_store(Fixture *f, uint64_t timeout_usec, muster_state **ret) {
        const muster_state_options options = {
                .size = sizeof(options), .timeout_usec = timeout_usec, .required = true
        };

        return muster_state_open(f->event, f->url, &options, ret);
}

static int setup(void **state) {
        Fixture *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        strcpy(f->directory, "/tmp/muster-test-lmdb-XXXXXX");
        assert_non_null(mkdtemp(f->directory));
        snprintf(f->url, sizeof(f->url), "lmdb:%s?sync=none", f->directory);
        assert_int_equal(sd_event_new(&f->event), 0);
        *state = f;
        return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
        return remove(path);
}

static void run(Fixture *f) {
        assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
}

static int teardown(void **state) {
        Fixture *f = *state;

        muster_state_close(f->store);
        muster_state_close(f->other);
        while (sd_event_run(f->event, 0) > 0) /* one that was closed by a handler is freed by its turn */
                ;
        sd_event_unref(f->event);
        bus_detach(f);
        (void) nftw(f->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
        free(f);
        return 0;
}

/*
 * A process that stands still in the middle of a transaction
 */

typedef struct Holder {
        pid_t pid;
        int fd; /* it lets go when this is closed */
} Holder;

static void hold(const char *directory, int fd) {
        MDB_env *env;
        MDB_txn *txn;
        char c = 0;

        if (mdb_env_create(&env) != 0 || mdb_env_open(env, directory, MDB_NOSYNC, 0600) != 0 ||
                        mdb_txn_begin(env, NULL, 0, &txn) != 0 || write(fd, &c, 1) != 1)
                _exit(1);
        (void) !read(fd, &c, 1);
        mdb_txn_abort(txn);
        _exit(0);
}

/* Before this process has the store open: no environment survives a fork. */
static Holder process_start(const Fixture *f, void (*child)(const char *directory, int fd)) {
        int fds[2];
        Holder h;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        h.pid = fork();
        assert_true(h.pid >= 0);
        if (h.pid == 0) {
                close(fds[0]);
                child(f->directory, fds[1]);
        }
        close(fds[1]);
        h.fd = fds[0];
        return h;
}

static Holder holder_start(const Fixture *f) {
        Holder h = process_start(f, hold);
        char c;

        assert_int_equal(read(h.fd, &c, 1), 1);
        return h;
}

static void holder_end(Holder *h) {
        int status;

        h->fd = safe_close(h->fd);
        assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
        assert_int_equal(status, 0);
}

static void on_end(muster_state *s, const muster_state_result *result, void *userdata) {
        Fixture *f = userdata;

        f->n_calls++;
        f->error = result->error;
        if (result->error == 0 && result->value_size < sizeof(f->value)) {
                memcpy(f->value, result->value_size > 0 ? result->value : "", result->value_size);
                f->value[result->value_size] = '\0';
        }
}

static void make_store(Fixture *f) {
        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
        f->store = muster_state_close(f->store);
}

/* A store that is there already is opened, and read, without the lock. */
static void test_open_and_read_while_locked(void **state) {
        Fixture *f = *state;
        Holder h;

        make_store(f);
        h = holder_start(f);
        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
        assert_int_equal(muster_state_get(f->store, "key", -1, on_end, f), 0);
        while (f->n_calls == 0)
                run(f);
        assert_int_equal(f->error, -ENOENT);
        holder_end(&h);
}

/* What has timed out and is still with the store counts for the limit, until it is done. */
static void test_late_operations_count(void **state) {
        Fixture *f = *state;
        Holder h;
        int r;

        make_store(f);
        h = holder_start(f);
        do
                r = open_store(f, 10 * USEC_PER_MSEC, &f->store);
        while (r == -ENOTCONN); /* this machine took longer */
        assert_int_equal(r, 0);
        for (unsigned i = 0; i < MUSTER_STATE_WAITING_MAX; i++)
                assert_int_equal(muster_state_set(f->store, "key", -1, "", 0, NULL, on_end, f), 0);
        while (f->n_calls < MUSTER_STATE_WAITING_MAX)
                run(f);
        assert_int_equal(f->error, -ETIMEDOUT);
        assert_int_equal(muster_state_set(f->store, "key", -1, "", 0, NULL, on_end, f), -ENOBUFS);
        holder_end(&h);
        while (muster_state_set(f->store, "key", -1, "", 0, NULL, NULL, NULL) == -ENOBUFS)
                run(f);
}

/* What a thread has in hand that cannot be ended is never freed. */
extern void __lsan_disable(void) __attribute__((weak));
extern void __lsan_enable(void) __attribute__((weak));

/* The thread that writes has the lock of a process that stands still to wait for: the handle is closed
 * nevertheless, and the store opened and read again. */
static void test_close_while_locked(void **state) {
        Fixture *f = *state;
        Holder h;

        make_store(f);
        h = holder_start(f);
        if (__lsan_disable)
                __lsan_disable();
        for (unsigned i = 0; i < 2; i++) {
                f->n_calls = 0;
                assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
                assert_int_equal(muster_state_get(f->store, "key", -1, on_end, f), 0);
                while (f->n_calls < 1)
                        run(f);
                assert_int_equal(f->error, -ENOENT);
                assert_int_equal(muster_state_set(f->store, "key", -1, "1", 1, NULL, on_end, f), 0);
                assert_int_equal(muster_state_get(f->store, "key", -1, on_end, f), 0);
                while (sd_event_run(f->event, 0) > 0) /* the set is with the thread */
                        ;
                f->store = muster_state_close(f->store);
                assert_int_equal(f->n_calls, 3);
                assert_int_equal(f->error, -ECANCELED);
        }
        if (__lsan_enable)
                __lsan_enable();
        holder_end(&h);
        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
        f->n_calls = 0;
        assert_int_equal(muster_state_set(f->store, "key", -1, "2", 1, NULL, on_end, f), 0);
        while (f->n_calls < 1)
                run(f);
        assert_int_equal(f->error, 0);
}

#define TERM_USEC (5 * USEC_PER_SEC)

/* Whether the next one has it before the time of the first one is over. */
static bool close_gives_back(Fixture *f, const char *name) {
        uint64_t start = clock_now_usec();
        muster_lease *first, *second;

        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->other), 0);
        assert_int_equal(muster_state_lease(f->store, name, -1, TERM_USEC, NULL, NULL, &first), 0);
        while (!muster_lease_is_held(first))
                run(f);
        f->store = muster_state_close(f->store);
        assert_int_equal(muster_state_lease(f->other, name, -1, TERM_USEC, NULL, NULL, &second), 0);
        while (!muster_lease_is_held(second))
                run(f);
        f->other = muster_state_close(f->other);
        return clock_now_usec() - start < TERM_USEC;
}

/* A lease that is held is had by the next one at once when the handle is closed: unless the thread that is
 * to give it back does not get to run in the time that closing allows. */
static void test_close_gives_lease_back(void **state) {
        assert_true(close_gives_back(*state, "a") || close_gives_back(*state, "b") ||
                        close_gives_back(*state, "c"));
}

/* A read does not see what was written after it. */
static void test_get_before_set(void **state) {
        Fixture *f = *state;
        char value[16] = "0";

        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
        assert_int_equal(muster_state_set(f->store, "key", -1, "0", 1, NULL, on_end, f), 0);
        while (f->n_calls == 0)
                run(f);
        for (unsigned i = 1; i < 3000; i++) {
                char next[16];

                snprintf(next, sizeof(next), "%u", i);
                f->n_calls = 0;
                assert_int_equal(muster_state_get(f->store, "key", -1, on_end, f), 0);
                assert_int_equal(muster_state_set(f->store, "key", -1, next, strlen(next), NULL, NULL, NULL),
                                0);
                while (f->n_calls == 0)
                        run(f);
                assert_string_equal(f->value, value);
                assert_int_equal(muster_state_delete(f->store, "none", -1, 0, on_end, f), 0);
                while (f->n_calls == 1)
                        run(f);
                strcpy(value, next);
        }
}

#define ROUNDS          20
#define SETS_OF_A_ROUND 1000

static size_t count_values(const Fixture *f) {
        MDB_env *env;
        MDB_txn *txn;
        MDB_dbi values;
        MDB_stat stat;

        assert_int_equal(mdb_env_create(&env), 0);
        assert_int_equal(mdb_env_set_maxdbs(env, 1), 0);
        assert_int_equal(mdb_env_open(env, f->directory, MDB_RDONLY, 0600), 0);
        assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
        assert_int_equal(mdb_dbi_open(txn, "values", 0, &values), 0);
        assert_int_equal(mdb_stat(txn, values, &stat), 0);
        mdb_txn_abort(txn);
        mdb_env_close(env);
        return stat.ms_entries;
}

/* Keys whose time is over are deleted as fast as others are set, however many at a time. */
static void test_expire_as_fast_as_set(void **state) {
        const muster_state_set_options options = { .size = sizeof(options), .ttl_usec = USEC_PER_MSEC };
        Fixture *f = *state;

        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
        for (unsigned round = 0; round < ROUNDS; round++) {
                f->n_calls = 0;
                for (unsigned i = 0; i < SETS_OF_A_ROUND; i++) {
                        char key[32];

                        snprintf(key, sizeof(key), "%u.%u", round, i);
                        assert_int_equal(muster_state_set(f->store, key, -1, "", 0, &options, on_end, f), 0);
                }
                while (f->n_calls < SETS_OF_A_ROUND)
                        run(f);
        }
        f->store = muster_state_close(f->store);
        assert_in_range(count_values(f), 1, (ROUNDS / 2) * SETS_OF_A_ROUND);
}

/*
 * A disk, or a file, that is full
 */

#define BIG_SIZE ((size_t) 3 << 20)

/* More than there is room for, all at once: what fits is done, and the rest was not for lack of room. */
static void test_full(Fixture *f) {
        _cleanup_free_ char *big = calloc(1, BIG_SIZE);

        assert_non_null(big);
        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
        for (unsigned i = 0; i < 4; i++) {
                char key[16];

                snprintf(key, sizeof(key), "big%u", i);
                assert_int_equal(muster_state_set(f->store, key, -1, big, BIG_SIZE, NULL, on_end, f), 0);
        }
        while (f->n_calls < 4)
                run(f);
        assert_int_equal(f->error, -ENOSPC);
        /* Others are not kept from it by that. */
        f->n_calls = 0;
        assert_int_equal(muster_state_delete(f->store, "big0", -1, 0, on_end, f), 0);
        while (f->n_calls < 1)
                run(f);
        assert_int_equal(f->error, 0);
        for (unsigned i = 0; i < 3; i++) { /* until the pages are free */
                f->n_calls = 0;
                assert_int_equal(muster_state_set(f->store, "small", -1, "v", 1, NULL, on_end, f), 0);
                while (f->n_calls < 1)
                        run(f);
                assert_int_equal(f->error, 0);
        }
        f->n_calls = 0;
        /* Smaller: its pages have to be in a row, and a few of those that were freed are taken. */
        assert_int_equal(muster_state_set(f->store, "big3", -1, big, BIG_SIZE / 2, NULL, on_end, f), 0);
        while (f->n_calls < 1)
                run(f);
        assert_int_equal(f->error, 0);
        f->store = muster_state_close(f->store);
}

/* 8 MiB and a bit, so that a write is cut short. */
static void test_file_is_full(void **state) {
        struct rlimit before, limit;

        assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
        limit = before;
        limit.rlim_cur = ((rlim_t) 8 << 20) + 12345;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        test_full(*state);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
}

static void test_disk_is_full(void **state) {
        Fixture *f = *state;

        if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
                        mount("none", f->directory, "tmpfs", 0, "size=8400k,mode=0700") < 0)
                skip(); /* only for root */
        test_full(f);
        assert_int_equal(umount(f->directory), 0);
}

/*
 * A disk that fails once
 */

static unsigned n_failures; /* of writes of the file's head, still to come */

/* What LMDB calls; libc's is pwrite64() here. The heads are at the beginning, and smaller than a page. */
__attribute__((visibility("default"))) ssize_t pwrite_or_fail(
                int fd, const void *buf, size_t n, off_t offset) __asm__("pwrite");

ssize_t pwrite_or_fail(int fd, const void *buf, size_t n, off_t offset) {
        if (n_failures == 0 || offset >= 2 * sysconf(_SC_PAGESIZE) || n >= (size_t) sysconf(_SC_PAGESIZE))
                return pwrite(fd, buf, n, offset);
        n_failures--;
        errno = EIO;
        return -1;
}

/* LMDB gives up then; the store is opened anew, when all of the process have let go of it. */
static void test_disk_fails_once(void **state) {
        Fixture *f = *state;

        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->other), 0);
        assert_int_equal(muster_state_set(f->store, "key", -1, "1", 1, NULL, on_end, f), 0);
        while (f->n_calls < 1)
                run(f);
        assert_int_equal(f->error, 0);
        n_failures = 1;
        assert_int_equal(muster_state_set(f->store, "key", -1, "2", 1, NULL, on_end, f), 0);
        while (f->n_calls < 2)
                run(f);
        if (n_failures > 0) {
                n_failures = 0;
                skip(); /* LMDB calls something else */
        }
        assert_int_equal(f->error, -EIO);
        assert_int_equal(muster_state_get(f->other, "key", -1, on_end, f), 0);
        while (f->n_calls < 3)
                run(f);
        assert_int_equal(f->error, 0);
        assert_string_equal(f->value, "1");
        assert_int_equal(muster_state_set(f->store, "key", -1, "3", 1, NULL, on_end, f), 0);
        while (f->n_calls < 4)
                run(f);
        assert_int_equal(f->error, 0);
}

/*
 * Fewer addresses than others have
 */

/* Makes the file larger than @f has mapped, when told to. */
static void grow(const char *directory, int fd) {
        const size_t size = (size_t) 140 << 20;
        MDB_val k = { .mv_size = 5, .mv_data = (char *) "large" }, v = { .mv_size = size };
        MDB_env *env;
        MDB_txn *txn;
        MDB_dbi values;
        char c = 0;

        if (read(fd, &c, 1) != 1 || mdb_env_create(&env) != 0 || mdb_env_set_maxdbs(env, 1) != 0 ||
                        mdb_env_set_mapsize(env, 2 * size) != 0 ||
                        mdb_env_open(env, directory, MDB_NOSYNC, 0600) != 0 ||
                        mdb_txn_begin(env, NULL, 0, &txn) != 0 ||
                        mdb_dbi_open(txn, "values", 0, &values) != 0 ||
                        mdb_put(txn, values, &k, &v, MDB_RESERVE) != 0)
                _exit(1);
        memset(v.mv_data, 0, size);
        _exit(mdb_txn_commit(txn) != 0 || write(fd, &c, 1) != 1);
}

static rlim_t addresses(void) {
        FILE *file = fopen("/proc/self/statm", "re");
        unsigned long pages;

        assert_non_null(file);
        assert_int_equal(fscanf(file, "%lu", &pages), 1);
        fclose(file);
        return (rlim_t) pages * (rlim_t) sysconf(_SC_PAGESIZE);
}

/* A process that has mapped less than the file has become maps it again. */
static void test_file_outgrows_map(void **state) {
        struct rlimit before, limit;
        Fixture *f = *state;
        Holder h;
        char c = 0;

        if (__lsan_disable)
                skip(); /* its shadow takes all addresses */
        h = process_start(f, grow);
        assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
        limit = before;
        limit.rlim_cur = addresses() + ((rlim_t) 200 << 20);
        assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
        assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
        assert_int_equal(write(h.fd, &c, 1), 1);
        assert_int_equal(read(h.fd, &c, 1), 1);
        holder_end(&h);
        assert_int_equal(muster_state_get(f->store, "key", -1, on_end, f), 0);
        while (f->n_calls < 1)
                run(f);
        assert_int_equal(f->error, -ENOENT);
        assert_int_equal(muster_state_set(f->store, "key", -1, "1", 1, NULL, on_end, f), 0);
        while (f->n_calls < 2)
                run(f);
        assert_int_equal(f->error, 0);
}

/*
 * Messages
 */

static int on_line(const char *line, size_t n, void *userdata) {
        Fixture *f = userdata;

        f->n_lines++;
        return 0;
}

static void on_set_again(muster_state *s, const muster_state_result *result, void *userdata) {
        Fixture *f = userdata;

        if (result->error == 0 && f->n_lines == 0 && ++f->n_sets < 1000)
                assert_int_equal(muster_state_set(s, "key", -1, "", 0, NULL, on_set_again, f), 0);
}

/* A message waits for what was written before it, and not for what is after it. */
static void test_publish_while_writing(void **state) {
        Fixture *f = *state;

        bus_attach(on_line, f);
        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
        for (unsigned i = 0; i < 2; i++)
                assert_int_equal(muster_state_set(f->store, "key", -1, "", 0, NULL, on_set_again, f), 0);
        assert_int_equal(muster_state_publish(f->store, "channel", -1, "", 0, on_end, f), 0);
        while (f->n_calls == 0)
                run(f);
        assert_int_equal(f->error, 0);
        assert_true(f->n_sets < 1000);
}

static void on_end_publish(muster_state *s, const muster_state_result *result, void *userdata) {
        Fixture *f = userdata;

        assert_int_equal(result->error, 0);
        if (++f->n_calls < 10)
                assert_int_equal(muster_state_publish(s, "channel", -1, "", 0, on_end_publish, f), 0);
}

/* Whoever publishes again and again leaves the loop to others in between. */
static void test_publish_in_handler(void **state) {
        Fixture *f = *state;
        unsigned before;

        bus_attach(on_line, f);
        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
        assert_int_equal(muster_state_publish(f->store, "channel", -1, "", 0, on_end_publish, f), 0);
        while ((before = f->n_calls) < 10) {
                run(f);
                assert_true(f->n_calls <= before + 1);
        }
}

static void on_message_close(muster_subscription *n, const void *data, size_t size, void *userdata) {
        Fixture *f = userdata;

        if (data)
                f->store = muster_state_close(f->store);
}

/* Who gets a message closes the handle, in the same process, that it was published with. */
static void test_close_publisher(void **state) {
        muster_subscription *subscription;
        Fixture *f = *state;

        bus_attach(on_line, f);
        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->store), 0);
        assert_int_equal(open_store(f, TIMEOUT_USEC, &f->other), 0);
        assert_int_equal(muster_state_subscribe(f->other, "channel", -1, on_message_close, f, &subscription),
                        0);
        assert_int_equal(muster_state_publish(f->store, "channel", -1, "", 0, on_end, f), 0);
        while (f->n_calls == 0)
                run(f);
        assert_null(f->store);
        assert_int_equal(f->error, -ECANCELED);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_open_and_read_while_locked, setup, teardown),
                cmocka_unit_test_setup_teardown(test_late_operations_count, setup, teardown),
                cmocka_unit_test_setup_teardown(test_close_while_locked, setup, teardown),
                cmocka_unit_test_setup_teardown(test_close_gives_lease_back, setup, teardown),
                cmocka_unit_test_setup_teardown(test_get_before_set, setup, teardown),
                cmocka_unit_test_setup_teardown(test_expire_as_fast_as_set, setup, teardown),
                cmocka_unit_test_setup_teardown(test_file_is_full, setup, teardown),
                cmocka_unit_test_setup_teardown(test_disk_is_full, setup, teardown),
                cmocka_unit_test_setup_teardown(test_disk_fails_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_file_outgrows_map, setup, teardown),
                cmocka_unit_test_setup_teardown(test_publish_while_writing, setup, teardown),
                cmocka_unit_test_setup_teardown(test_publish_in_handler, setup, teardown),
                cmocka_unit_test_setup_teardown(test_close_publisher, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* The shared state through the API, and the bare libraries beneath it:
 * `state WAY OPERATION WINDOW MSEC TARGET [SYNC]`.
 *
 * WAY: muster (TARGET: a URL), lmdb (a folder; SYNC: data or none, as of muster's parameter) or hiredis (the
 * path of a socket). OPERATION: get or set, of 1000 keys with values of 100 bytes. WINDOW: so many are under
 * way at once, and each that ends makes room for the next; LMDB alone knows no such thing, and does each in
 * a transaction of its own. The CPU time is that of this process. */

#include <errno.h>
#include <hiredis/async.h>
#include <lmdb.h>
#include <poll.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "bench.h"
#include "muster/state.h"

#define N_KEYS     1000
#define VALUE_SIZE 100

/* So often the clock is looked at. */
#define ROUND 256

typedef struct Run {
        bool is_set;
        unsigned window;
        uint64_t until;
        uint64_t n_sent, n_ended;
        bool is_filled; /* all keys have a value */
        bool is_over;
        char value[VALUE_SIZE];

        sd_event *event;
        muster_state *state;
        redisAsyncContext *redis;
        short events; /* that hiredis waits for */
} Run;

static size_t make_key(uint64_t i, char key[static 16]) {
        return (size_t) snprintf(key, 16, "key:%u", (unsigned) (i * 7919 % N_KEYS));
}

/* Whether there is another one to be done. */
static bool goes_on(Run *run) {
        if (run->n_sent % ROUND == 0 && clock_now_usec() >= run->until)
                run->is_over = true;
        return !run->is_over;
}

static void check(bool condition, const char *what) {
        if (!condition)
                must(-EIO, what);
}

/*
 * Through the API
 */
static void send_muster(Run *run);

static void on_result(muster_state *state, const muster_state_result *result, void *userdata) {
        Run *run = userdata;

        must(result->error, "operation");
        check(run->is_set || result->value_size == VALUE_SIZE, "value");
        run->n_ended++;
        if (goes_on(run))
                send_muster(run);
        else if (run->n_ended == run->n_sent)
                sd_event_exit(run->event, 0);
}

static void send_muster(Run *run) {
        char key[16];
        ssize_t n = (ssize_t) make_key(run->n_sent++, key);

        if (run->is_set)
                must(muster_state_set(run->state, key, n, run->value, VALUE_SIZE, NULL, on_result, run),
                                "set");
        else
                must(muster_state_get(run->state, key, n, on_result, run), "get");
}

static void on_filled(muster_state *state, const muster_state_result *result, void *userdata) {
        Run *run = userdata;

        must(result->error, "first set");
        run->is_filled = true;
}

/* What is measured does not wait for the first values, which go before it. */
static void open_muster(Run *run, const char *url) {
        muster_state_options o = MUSTER_STATE_OPTIONS_INIT;
        char key[16];

        o.required = true;
        must(sd_event_new(&run->event), "sd_event_new");
        must(muster_state_open(run->event, url, &o, &run->state), url);
        for (uint64_t i = 0; i < N_KEYS; i++) {
                size_t n = make_key(i, key);
                must(muster_state_set(run->state, key, (ssize_t) n, run->value, VALUE_SIZE, NULL,
                                     i + 1 == N_KEYS ? on_filled : NULL, run),
                                "set");
        }
        while (!run->is_filled)
                must(sd_event_run(run->event, UINT64_MAX), "sd_event_run");
}

static void run_muster(Run *run) {
        for (unsigned i = 0; i < run->window; i++)
                send_muster(run);
        must(sd_event_loop(run->event), "sd_event_loop");
}

static void close_muster(Run *run) {
        muster_state_close(run->state);
        sd_event_unref(run->event);
}

/*
 * LMDB
 */
static MDB_env *env;
static MDB_dbi dbi;

static void must_lmdb(int r, const char *what) {
        if (r != 0) {
                fprintf(stderr, "%s: %s\n", what, mdb_strerror(r));
                exit(EXIT_FAILURE);
        }
}

static void do_lmdb(const Run *run, uint64_t i, bool is_set) {
        char name[16];
        MDB_val key = { .mv_size = make_key(i, name), .mv_data = name };
        MDB_val value = { .mv_size = VALUE_SIZE, .mv_data = (void *) run->value };
        MDB_txn *txn;

        must_lmdb(mdb_txn_begin(env, NULL, is_set ? 0 : MDB_RDONLY, &txn), "mdb_txn_begin");
        if (is_set) {
                must_lmdb(mdb_put(txn, dbi, &key, &value, 0), "mdb_put");
                must_lmdb(mdb_txn_commit(txn), "mdb_txn_commit");
                return;
        }
        must_lmdb(mdb_get(txn, dbi, &key, &value), "mdb_get");
        check(value.mv_size == VALUE_SIZE, "value");
        mdb_txn_abort(txn);
}

static void open_lmdb(const Run *run, const char *folder, const char *sync) {
        MDB_txn *txn;

        must_lmdb(mdb_env_create(&env), "mdb_env_create");
        must_lmdb(mdb_env_set_mapsize(env, (size_t) 1 << 30), "mdb_env_set_mapsize");
        must_lmdb(mdb_env_open(env, folder,
                                  MDB_NOTLS | (strcmp(sync, "none") == 0 ? MDB_NOSYNC : MDB_NOMETASYNC),
                                  0600),
                        folder);
        must_lmdb(mdb_txn_begin(env, NULL, 0, &txn), "mdb_txn_begin");
        must_lmdb(mdb_dbi_open(txn, NULL, 0, &dbi), "mdb_dbi_open");
        must_lmdb(mdb_txn_commit(txn), "mdb_txn_commit");
        for (uint64_t i = 0; i < N_KEYS; i++)
                do_lmdb(run, i, /* is_set= */ true);
}

static void run_lmdb(Run *run) {
        for (; goes_on(run); run->n_ended++)
                do_lmdb(run, run->n_sent++, run->is_set);
}

/*
 * hiredis, with the smallest loop there is
 */
static void add_read(void *userdata) {
        ((Run *) userdata)->events |= POLLIN;
}

static void delete_read(void *userdata) {
        ((Run *) userdata)->events &= ~POLLIN;
}

static void add_write(void *userdata) {
        ((Run *) userdata)->events |= POLLOUT;
}

static void delete_write(void *userdata) {
        ((Run *) userdata)->events &= ~POLLOUT;
}

static void send_hiredis(Run *run);

static void on_reply(redisAsyncContext *context, void *reply, void *userdata) {
        const redisReply *r = reply;
        Run *run = userdata;

        check(r && r->type != REDIS_REPLY_ERROR, "operation");
        check(run->is_set || r->len == VALUE_SIZE, "value");
        run->n_ended++;
        if (goes_on(run))
                send_hiredis(run);
}

static void send_hiredis(Run *run) {
        char key[16];
        const char *words[] = { run->is_set ? "SET" : "GET", key, run->value };
        size_t sizes[] = { 3, make_key(run->n_sent++, key), VALUE_SIZE };

        must(redisAsyncCommandArgv(run->redis, on_reply, run, run->is_set ? 3 : 2, words, sizes) == REDIS_OK
                                        ? 0
                                        : -EIO,
                        "redisAsyncCommandArgv");
}

static void open_hiredis(Run *run, const char *path) {
        redisContext *c = redisConnectUnix(path);
        char key[16];

        check(c && !c->err, path);
        for (uint64_t i = 0; i < N_KEYS; i++) {
                size_t n = make_key(i, key);
                freeReplyObject(redisCommand(
                                c, "SET %b %b", key, n, (const char *) run->value, (size_t) VALUE_SIZE));
        }
        redisFree(c);
        run->redis = redisAsyncConnectUnix(path);
        check(run->redis && !run->redis->err, path);
        run->redis->ev.data = run;
        run->redis->ev.addRead = add_read;
        run->redis->ev.delRead = delete_read;
        run->redis->ev.addWrite = add_write;
        run->redis->ev.delWrite = delete_write;
}

static void run_hiredis(Run *run) {
        for (unsigned i = 0; i < run->window; i++)
                send_hiredis(run);
        while (run->n_ended < run->n_sent) {
                struct pollfd p = { .fd = run->redis->c.fd, .events = run->events };

                must(poll(&p, 1, -1) < 0 ? -errno : 0, "poll");
                if (p.revents & (POLLIN | POLLHUP))
                        redisAsyncHandleRead(run->redis);
                if (p.revents & POLLOUT)
                        redisAsyncHandleWrite(run->redis);
        }
}

int main(int argc, char **argv) {
        if (argc < 6)
                return EXIT_FAILURE;

        const char *way = argv[1], *target = argv[5];
        bool is_muster = strcmp(way, "muster") == 0, is_lmdb = strcmp(way, "lmdb") == 0;
        Run run = { .is_set = strcmp(argv[2], "set") == 0, .window = (unsigned) atoi(argv[3]) };

        memset(run.value, 'v', sizeof(run.value));
        if (is_muster)
                open_muster(&run, target);
        else if (is_lmdb)
                open_lmdb(&run, target, argc > 6 ? argv[6] : "data");
        else
                open_hiredis(&run, target);

        Stopwatch watch = stopwatch_start();
        run.until = watch.wall + (uint64_t) atol(argv[4]) * USEC_PER_MSEC;
        if (is_muster)
                run_muster(&run);
        else if (is_lmdb)
                run_lmdb(&run);
        else
                run_hiredis(&run);
        stopwatch_report(&watch, run.n_ended, 0);
        if (is_muster)
                close_muster(&run);
        else if (is_lmdb)
                mdb_env_close(env);
        else
                redisAsyncFree(run.redis);
        return EXIT_SUCCESS;
}

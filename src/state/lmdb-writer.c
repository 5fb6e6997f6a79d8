/* SPDX-License-Identifier: MIT */
/* The thread that writes; see lmdb-writer.h.
 *
 * A transaction is all or nothing. When one operation makes it worthless (the disk is full, the map is
 * full), it is given up, and each of its operations is tried in a transaction of its own, so that a value
 * that is too large for what is left takes no other one with it. */

#include "state/lmdb-writer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"

/* In one transaction: as many as versions are counted for, and not so much that others wait long. */
#define JOBS_MAX   1024
#define BYTES_MAX  (16 * 1024 * 1024)
#define GET_WEIGHT (256 * 1024)

#define TRANSACTIONS_PER_TIDYING 8

/* For the thread to come to its end. */
#define END_TIMEOUT_USEC (500 * USEC_PER_MSEC)

struct LmdbWriter {
        List node; /* of left_behind */
        char *path;
        LmdbSync sync;
        pthread_t thread;
        int fd;

        /* Set by the thread before has_opened, and its own. */
        LmdbEnv *env;
        MDB_txn *reader;
        int error;
        char text[STATE_TEXT_MAX];
        bool is_damaged;
        unsigned n_transactions;

        pthread_mutex_t mutex; /* of all below */
        pthread_cond_t wakeup;
        List waiting;
        List running;
        List done;
        bool has_opened;
        bool ends;
};

/* Those that could not be ended; so they are not lost, for whoever looks for leaks. */
static List left_behind = LIST_INIT(left_behind);

static uint64_t realtime_msec(void) {
        struct timespec ts;

        clock_gettime(CLOCK_REALTIME, &ts);
        return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}

static void move_all(List *from, List *to) {
        while (!list_empty(from)) {
                List *node = from->next;

                list_remove(node);
                list_append(to, node);
        }
}

/*
 * In the thread
 */

typedef struct Batch {
        LmdbWriter *writer;
        List *first, *end; /* without that one */
        MDB_txn *txn;
} Batch;

static int run_jobs(const Batch *b) {
        const LmdbData *d = lmdb_env_data(b->writer->env);
        uint64_t now = realtime_msec();
        unsigned number = 0;
        int r = 0;

        for (List *node = b->first; r == 0 && node != b->end; node = node->next) {
                LmdbJob *job = list_entry(node, LmdbJob, node);

                lmdb_answer_done(&job->answer);
                r = lmdb_data_write(d, b->txn, job->op, number++, now, &job->answer);
        }
        return r == 0 ? lmdb_data_expire(d, b->txn, number, now) : r;
}

static int run_transaction(void *userdata) {
        Batch *b = userdata;
        int r;

        r = mdb_txn_begin(lmdb_env_handle(b->writer->env), NULL, 0, &b->txn);
        if (r != 0)
                return r;
        r = run_jobs(b);
        if (r == 0) {
                MDB_txn *txn = b->txn;

                b->txn = NULL; /* freed, however that ends */
                return mdb_txn_commit(txn);
        }
        return r;
}

static int abort_transaction(void *userdata) {
        Batch *b = userdata;

        if (b->txn)
                mdb_txn_abort(b->txn);
        return 0;
}

/* What processes that were killed have left in the table of readers keeps old pages from being used again.
 */
static void tidy_readers(LmdbWriter *w) {
        int dead;

        if (++w->n_transactions % TRANSACTIONS_PER_TIDYING == 0)
                (void) mdb_reader_check(lmdb_env_handle(w->env), &dead);
}

/* Whatever a damaged file has led LMDB to in its memory, nothing more is written from there. */
static int run_guarded(LmdbWriter *w, List *first, List *end) {
        Batch b = { .writer = w, .first = first, .end = end };
        int r;

        if (w->is_damaged)
                return MDB_CORRUPTED;
        tidy_readers(w);
        r = lmdb_guard(run_transaction, &b);
        if (r != 0)
                (void) lmdb_guard(abort_transaction, &b);
        w->is_damaged = r == MDB_CORRUPTED;
        return r;
}

static void run_batch(LmdbWriter *w, List *jobs) {
        int r;

        r = run_guarded(w, jobs->next, jobs);
        if (r == 0)
                return;
        for (List *node = jobs->next; node != jobs; node = node->next) {
                LmdbJob *job = list_entry(node, LmdbJob, node);

                if (jobs->next->next != jobs)
                        r = run_guarded(w, node, node->next);
                if (r == 0)
                        continue;
                lmdb_answer_done(&job->answer);
                job->answer.outcome.error = lmdb_error(lmdb_env_explain(w->env, r));
        }
}

/* What is read is copied, and nobody knows before how large it is. */
static size_t weight_of(const StateOperation *op) {
        return op->verb == STATE_GET ? GET_WEIGHT : op->value.size;
}

static void take_batch(LmdbWriter *w) {
        size_t n = 0, n_bytes = 0;

        while (!list_empty(&w->waiting) && n < JOBS_MAX && n_bytes < BYTES_MAX) {
                List *node = w->waiting.next;

                list_remove(node);
                list_append(&w->running, node);
                n++;
                n_bytes += weight_of(list_entry(node, LmdbJob, node)->op);
        }
}

static void writer_free(LmdbWriter *w) {
        free(w->path);
        pthread_cond_destroy(&w->wakeup);
        pthread_mutex_destroy(&w->mutex);
        safe_close(w->fd);
        free(w);
}

/* The transaction to read with takes a place in a table that has a lock, too; after that it needs none. */
static int open_env(LmdbWriter *w) {
        int r;

        r = lmdb_env_get(w->path, w->sync, &w->env, w->text);
        if (r < 0)
                return r;
        r = mdb_txn_begin(lmdb_env_handle(w->env), NULL, MDB_RDONLY, &w->reader);
        if (r == 0) {
                mdb_txn_reset(w->reader);
                return 0;
        }
        snprintf(w->text, sizeof(w->text), "The store in %.128s cannot be read: %s", w->path,
                        mdb_strerror(r));
        return lmdb_error(lmdb_env_explain(w->env, r));
}

static void tell_opened(LmdbWriter *w, int error) {
        pthread_mutex_lock(&w->mutex);
        w->error = error;
        w->has_opened = true;
        pthread_mutex_unlock(&w->mutex);
        (void) eventfd_write(w->fd, 1);
}

static void write_until_end(LmdbWriter *w) {
        pthread_mutex_lock(&w->mutex);
        for (;;) {
                while (!w->ends && list_empty(&w->waiting))
                        pthread_cond_wait(&w->wakeup, &w->mutex);
                if (w->ends)
                        break;
                take_batch(w);
                pthread_mutex_unlock(&w->mutex);
                run_batch(w, &w->running);
                pthread_mutex_lock(&w->mutex);
                move_all(&w->running, &w->done);
                (void) eventfd_write(w->fd, 1);
        }
        pthread_mutex_unlock(&w->mutex);
}

static void *writer_main(void *userdata) {
        LmdbWriter *w = userdata;
        int r;

        r = open_env(w);
        tell_opened(w, r);
        if (r >= 0)
                write_until_end(w);
        if (w->reader)
                mdb_txn_abort(w->reader);
        lmdb_env_put(w->env);
        return NULL;
}

/*
 * From the loop
 */

/* Signals are the loop's. */
static int start_thread(LmdbWriter *w) {
        sigset_t all, before;
        int r;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&w->thread, NULL, writer_main, w);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return -r;
}

int lmdb_writer_new(const char *path, LmdbSync sync, LmdbWriter **ret) {
        LmdbWriter *w = calloc(1, sizeof(*w));
        int r;

        if (!w)
                return -ENOMEM;
        w->path = strdup(path);
        w->sync = sync;
        list_init(&w->waiting);
        list_init(&w->running);
        list_init(&w->done);
        pthread_mutex_init(&w->mutex, NULL);
        pthread_cond_init(&w->wakeup, NULL);
        w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = w->fd < 0 ? -errno : !w->path ? -ENOMEM : start_thread(w);
        if (r < 0) {
                writer_free(w);
                return r;
        }
        *ret = w;
        return 0;
}

int lmdb_writer_get_fd(const LmdbWriter *w) {
        return w->fd;
}

bool lmdb_writer_has_opened(LmdbWriter *w, LmdbEnv **ret, MDB_txn **ret_reader, int *ret_error,
                char text[static STATE_TEXT_MAX]) {
        bool opened;

        pthread_mutex_lock(&w->mutex);
        opened = w->has_opened;
        pthread_mutex_unlock(&w->mutex);
        if (!opened)
                return false;
        *ret = w->env;
        *ret_reader = w->reader;
        *ret_error = w->error;
        strcpy(text, w->text);
        return true;
}

void lmdb_writer_submit(LmdbWriter *w, List *jobs) {
        if (list_empty(jobs))
                return;
        pthread_mutex_lock(&w->mutex);
        move_all(jobs, &w->waiting);
        pthread_cond_signal(&w->wakeup);
        pthread_mutex_unlock(&w->mutex);
}

void lmdb_writer_collect(LmdbWriter *w, List *ret) {
        eventfd_t n;

        (void) eventfd_read(w->fd, &n);
        pthread_mutex_lock(&w->mutex);
        move_all(&w->done, ret);
        pthread_mutex_unlock(&w->mutex);
}

static bool join(LmdbWriter *w) {
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += END_TIMEOUT_USEC * NSEC_PER_USEC;
        until.tv_sec += until.tv_nsec / (long) (USEC_PER_SEC * NSEC_PER_USEC);
        until.tv_nsec %= (long) (USEC_PER_SEC * NSEC_PER_USEC);
        return pthread_clockjoin_np(w->thread, NULL, CLOCK_MONOTONIC, &until) == 0;
}

void lmdb_writer_end(LmdbWriter *w, List *ret_rest, void (*abandon)(StateOperation *op, void *userdata),
                void *userdata) {
        bool joined;

        pthread_mutex_lock(&w->mutex);
        w->ends = true;
        pthread_cond_signal(&w->wakeup);
        pthread_mutex_unlock(&w->mutex);

        joined = join(w);
        pthread_mutex_lock(&w->mutex);
        move_all(&w->done, ret_rest);
        move_all(&w->waiting, ret_rest);
        list_foreach (node, &w->running)
                abandon(list_entry(node, LmdbJob, node)->op, userdata);
        pthread_mutex_unlock(&w->mutex);
        if (joined)
                writer_free(w);
        else {
                pthread_detach(w->thread); /* all that it has in hand stays, for ever */
                list_append(&left_behind, &w->node);
        }
}

/* SPDX-License-Identifier: MIT */
#pragma once

/* The thread that opens the store and writes to it: it waits for LMDB's locks, which are those of all
 * processes, and for the disk, so that the loop waits for neither. What has come while it was at it goes
 * into its next transaction, as a whole. */

#include <stdbool.h>

#include "basic/list.h"
#include "state/lmdb-data.h"
#include "state/lmdb-env.h"

/* An operation on its way through the thread. */
typedef struct LmdbJob {
        List node;
        StateOperation *op;
        LmdbAnswer answer;
} LmdbJob;

typedef struct LmdbWriter LmdbWriter;

/* Starts it. The first thing that it does is to open the environment in @path. Returns 0 or a negative
 * errno. */
int lmdb_writer_new(const char *path, LmdbSync sync, LmdbWriter **ret);

/* Readable when it has opened the environment, or failed to, and when there are jobs that are done. */
int lmdb_writer_get_fd(const LmdbWriter *w);

/* Whether it has come so far, and how that ended: with the environment and a transaction to read with, which
 * are borrowed; or with one of the errors of muster/state.h in @ret_error, and a text. */
bool lmdb_writer_has_opened(LmdbWriter *w, LmdbEnv **ret, MDB_txn **ret_reader, int *ret_error,
                char text[static STATE_TEXT_MAX]);

/* Hands over jobs, a list that is empty afterwards. */
void lmdb_writer_submit(LmdbWriter *w, List *jobs);

/* Takes those that are done, in the order in which they were handed over. @ret: an empty list. */
void lmdb_writer_collect(LmdbWriter *w, List *ret);

/* Ends it: what it has not begun is not done. Its lock may be with a process that stands still; then the
 * thread stays until it gets that, and keeps the jobs it has in hand, for whose operations @abandon is
 * called. All other jobs are appended to @ret_rest. */
void lmdb_writer_end(LmdbWriter *w, List *ret_rest, void (*abandon)(StateOperation *op, void *userdata),
                void *userdata);

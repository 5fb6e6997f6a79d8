/* SPDX-License-Identifier: MIT */
#pragma once

/* The environments of LMDB that this process has open: one for each directory, whoever asks, as LMDB's locks
 * do not bear a second one. */

#include <lmdb.h>
#include <stdbool.h>

#include "state/driver.h"
#include "state/lmdb-data.h"

typedef struct LmdbEnv LmdbEnv;

/* When a transaction is on the disk. */
typedef enum LmdbSync {
        LMDB_SYNC_DATA, /* a crash of the machine may undo the latest ones, and does not harm the store */
        LMDB_SYNC_FULL, /* when its outcome is told */
        LMDB_SYNC_NONE, /* some time; a crash of the machine may ruin the store */
        _LMDB_SYNC_MAX,
} LmdbSync;

/* Opens the environment in @path, which is made if need be (its parent is there), or takes the one that is
 * open, with the stricter @sync of both. It waits for LMDB's locks, so it is for a thread. Returns 0, or one
 * of the errors of muster/state.h with a text. */
int lmdb_env_get(const char *path, LmdbSync sync, LmdbEnv **ret, char error[static STATE_TEXT_MAX]);

LmdbEnv *lmdb_env_put(LmdbEnv *e);

/* Of an error of LMDB, when something was to be written: EIO is ENOSPC if there is no more room. */
int lmdb_env_explain(const LmdbEnv *e, int r);

/* Whether an error of LMDB means that the environment has to be opened anew, and only once in a process at a
 * time: its head could not be written, or another process, which has more addresses, has made the file
 * larger than what is mapped here. */
bool lmdb_env_is_over(int r);

MDB_env *lmdb_env_handle(const LmdbEnv *e);
const LmdbData *lmdb_env_data(const LmdbEnv *e);

/* Calls @function, and returns what that does; or MDB_CORRUPTED, where LMDB has found its file to be so
 * damaged that it would end the process. */
int lmdb_guard(int (*function)(void *userdata), void *userdata);

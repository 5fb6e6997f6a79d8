/* SPDX-License-Identifier: MIT */
#pragma once

/* What is kept in the embedded store, and how each operation reads and changes it. All of it within a
 * transaction of the caller's; nothing here waits, but for the disk. */

#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>

#include "state/driver.h"

/* The databases of an environment. */
typedef struct LmdbData {
        MDB_dbi values;   /* key → version, end, value */
        MDB_dbi ends;     /* end → keys: those that have one, the earliest first */
        MDB_dbi leases;   /* name → owner, fence, end */
        uint8_t boot[16]; /* the times of leases are of this boot */
} LmdbData;

#define LMDB_DATABASES 3

/* Opens the databases; they are made by the first of all processes. Returns 0 or an error of LMDB. */
int lmdb_data_open(LmdbData *d, MDB_env *env);

/* How an operation ended, with what belongs to it. */
typedef struct LmdbAnswer {
        StateOutcome outcome;
        void *memory; /* the outcome's, to be freed; NULL: it points into the transaction */
} LmdbAnswer;

/* Carries out what only reads. The outcome points into the transaction. */
void lmdb_data_read(
                const LmdbData *d, MDB_txn *txn, const StateOperation *op, uint64_t now_msec, LmdbAnswer *a);

/* Carries out anything, in a transaction that writes; the outcome has memory of its own. @number: of the
 * operation among those of the transaction, for its version. Returns 0, whatever the outcome; or an error of
 * LMDB, after which the transaction is worth nothing. */
int lmdb_data_write(const LmdbData *d, MDB_txn *txn, const StateOperation *op, unsigned number,
                uint64_t now_msec, LmdbAnswer *a);

/* Deletes some of the keys whose end has come: more than the transaction has made, which has had so many
 * operations. Returns 0 or an error of LMDB. */
int lmdb_data_expire(const LmdbData *d, MDB_txn *txn, unsigned n_operations, uint64_t now_msec);

/* Looks at all there is. Returns 0 or an error of LMDB. @cursor: the one that is open, for who ends it where
 * this does not return; else NULL. */
int lmdb_data_verify(const LmdbData *d, MDB_txn *txn, MDB_cursor **cursor);

/* What LMDB says, as muster/state.h says it. */
int lmdb_error(int r);

void lmdb_answer_done(LmdbAnswer *a);

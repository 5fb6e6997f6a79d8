/* SPDX-License-Identifier: MIT */
#pragma once

/* What is said to the server. The connection's state is not touched here. */

#include <stdbool.h>

#include "state/driver.h"
#include "state/postgresql-types.h"

/* As many rows as a sweep deletes. */
#define POSTGRESQL_SWEEP_ROWS 32

/* Verbs of the driver's own, behind those of StateVerb. */
enum {
        POSTGRESQL_LISTEN = _STATE_VERB_MAX,
        POSTGRESQL_UNLISTEN,
        POSTGRESQL_SWEEP, /* deletes some rows that are over */
};

/* Before the pipeline: sets up the session, and asks whether the table is there (the last column, "t"). */
extern const char *const postgresql_session_sql;

/* Makes the table. */
extern const char *const postgresql_create_sql;

/* Sends the statements to be prepared, in pipeline mode, with a sync behind them. Returns 0, or -EIO: the
 * connection is broken or there is no memory, see PQerrorMessage(). */
int postgresql_statements_prepare(PGconn *conn);

/* Sends an operation and a sync, so that it is a transaction of its own. Of LISTEN and UNLISTEN the key is
 * the channel's identifier. Returns as above. */
int postgresql_statement_send(PGconn *conn, const StateOperation *op);

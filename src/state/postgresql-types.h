/* SPDX-License-Identifier: MIT */
#pragma once

/* libpq's types by their names, so that the headers can be checked where libpq is not installed. */

typedef struct pg_conn PGconn;
typedef struct pg_result PGresult;
typedef struct pgNotify PGnotify;

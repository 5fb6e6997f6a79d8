/* SPDX-License-Identifier: MIT */
#pragma once

/* What PostgreSQL's errors mean; pure. */

#include <stdbool.h>

#include "state/driver.h"
#include "state/postgresql-types.h"

/* The errno of a SQLSTATE; -EIO for all that have no better one. NULL is allowed. */
int postgresql_error_from_sqlstate(const char *sqlstate);

/* The same for a connection that was refused: -ENOTCONN for all that have no better one. */
int postgresql_error_of_connection(const char *sqlstate);

/* Finds the SQLSTATE in libpq's verbose message about a connection that was refused; there is no other place
 * where it tells that. Returns false when there is none: the server has not said anything. */
bool postgresql_error_find_sqlstate(const char *message, char sqlstate[static 6]);

/* The server ends the connection with this one. */
bool postgresql_error_is_fatal(const PGresult *result);

/* What was prepared does not fit the server any more: the table was dropped or altered, or a pooler has
 * discarded the statements. All that helps is to connect anew. */
bool postgresql_error_is_outdated(const PGresult *result);

/* The first line of a text, as far as it fits. */
void postgresql_error_copy_line(char text[static STATE_TEXT_MAX], const char *message);

/* The server's primary message with its SQLSTATE. The details are left out: they may quote keys. */
void postgresql_error_get_text(const PGresult *result, char text[static STATE_TEXT_MAX]);

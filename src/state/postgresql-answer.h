/* SPDX-License-Identifier: MIT */
#pragma once

/* What the answers of the server mean. */

#include "state/driver.h"
#include "state/postgresql-types.h"

/* An outcome and what it points to. */
typedef struct PostgresqlAnswer {
        StateOutcome outcome;
        StateBytes *keys;
} PostgresqlAnswer;

/* @result: of that operation, without an error; has to outlive the answer. */
void postgresql_answer_read(PostgresqlAnswer *a, const StateOperation *op, const PGresult *result);
void postgresql_answer_done(PostgresqlAnswer *a);

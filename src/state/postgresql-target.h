/* SPDX-License-Identifier: MIT */
#pragma once

/* Where to connect to: a URL as libpq's parameters. */

#include <stdbool.h>

#include "state/driver.h"
#include "state/postgresql-types.h"
#include "state/url.h"

#define POSTGRESQL_PARAMETERS_MAX 24

/* The strings are the URL's. */
typedef struct PostgresqlTarget {
        const char *host; /* NULL: the directory of the socket that libpq was built with */
        bool is_name;     /* it has to be resolved first */
        char port[12];
        const char *keywords[POSTGRESQL_PARAMETERS_MAX];
        const char *values[POSTGRESQL_PARAMETERS_MAX];
        size_t n;
} PostgresqlTarget;

/* Returns 0, or -EINVAL with a text. */
int postgresql_target_init(PostgresqlTarget *t, const StateUrl *url, char error[static STATE_TEXT_MAX]);

/* PQconnectStartParams(). @addresses: numeric, with commas between them, when .is_name. NULL: no memory. */
PGconn *postgresql_target_connect(const PostgresqlTarget *t, const char *addresses, const char *password);

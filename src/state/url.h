/* SPDX-License-Identifier: MIT */
#pragma once

/* The URL of a store (RFC 3986), taken apart; pure. */

#include <stdbool.h>
#include <stddef.h>

#include "basic/macro.h"

/* Everything is decoded; what is not there is NULL. */
typedef struct StateUrl {
        char *driver; /* "lmdb", "redis", "postgresql" */
        bool is_unix; /* redis+unix */
        bool is_tls;  /* rediss */
        char *user;
        char *password;
        char *host;    /* without brackets; NULL: none was given */
        unsigned port; /* 0: none was given */
        char *path;    /* redis: the database, without the slash; postgresql: likewise; lmdb, redis+unix: an
                        * absolute path */
        char **parameters; /* "name=value", NULL at the end; NULL: none */
        char *text;        /* as it was given, without the password: may be shown */
} StateUrl;

#define STATE_URL_INVALID 1

/* Returns 0; STATE_URL_INVALID with what was found and expected in @ret_error, which shows no password; or
 * -ENOMEM. */
int state_url_parse(const char *url, StateUrl **ret, char **ret_error);

/* Before the '@', or as a parameter. */
bool state_url_has_password(const StateUrl *url);

/* The value of a parameter; NULL: there is none. */
const char *state_url_get_parameter(const StateUrl *url, const char *name);

/* The first parameter that is none of @names (NULL at the end), with its value, which may be a secret; NULL:
 * there is none. */
const char *state_url_find_unknown(const StateUrl *url, const char *const *names);

StateUrl *state_url_free(StateUrl *url);
DEFINE_CLEANUP(StateUrl, state_url_free)

/* SPDX-License-Identifier: MIT */
#pragma once

/* What %{…} stands for in words of commands and values of variables: pure text.
 *
 * %{fd:NAME} is the number of the descriptor of the socket NAME, %{worker} the worker's slot, %{app} the
 * app's name, %{env:NAME} the value of the variable NAME, %{state_url} the URL of the state with its
 * password, %% a percent sign. A percent sign before anything else means itself: programs have their own.
 */

#include <stddef.h>

/* What may stand there beside %{app} and %{env:NAME}. */
typedef enum ExpandFlags {
        EXPAND_SOCKETS = 1 << 0,
        EXPAND_WORKER = 1 << 1,
        EXPAND_STATE = 1 << 2,
} ExpandFlags;

#define EXPAND_ALL (EXPAND_SOCKETS | EXPAND_WORKER | EXPAND_STATE)

typedef struct ExpandValues {
        const char *app;
        const char *worker;
        const char *socket_names; /* of those from descriptor 3 on, parted by ':'; "": there are none */
        char *const *variables;   /* "NAME=value", NULL at the end; NULL: none */
        const char *state_url;    /* NULL: there is no state */
} ExpandValues;

/* There is something in it that stands for nothing: an outcome for the caller to report. */
#define EXPAND_INVALID 1

/* Returns 0 with a fresh string; EXPAND_INVALID with a text for the user ("found …, expected …"); or
 * -ENOMEM.
 */
int expand_text(const char *text, const ExpandValues *values, char **ret, char **ret_error);

/* Whether expand_text() will know all that stands there, given a socket and a variable of every name, and a
 * state. What is not in @flags is refused. Returns as above. */
int expand_check(const char *text, ExpandFlags flags, char **ret_error);

/* SPDX-License-Identifier: MIT */
#pragma once

/* What %{…} stands for in words of app.command and values of app.environment: pure text.
 *
 * %{fd:NAME} is the number of the descriptor of the socket NAME, %{worker} the worker's slot, %{app} the
 * app's name, %% a percent sign. A percent sign before anything else means itself: programs have their own.
 */

#include <stdbool.h>
#include <stddef.h>

typedef struct ExpandValues {
        const char *app;
        const char *worker;
        const char *socket_names; /* of those from descriptor 3 on, parted by ':'; "": there are none */
} ExpandValues;

/* There is something in it that stands for nothing: an outcome for the caller to report. */
#define EXPAND_INVALID 1

/* Returns 0 with a fresh string; EXPAND_INVALID with a text for the user ("found …, expected …"); or
 * -ENOMEM.
 */
int expand_text(const char *text, const ExpandValues *values, char **ret, char **ret_error);

/* Whether expand_text() will know all that stands there, given a socket of every name. @with_sockets: the
 * program inherits sockets; else %{fd:NAME} is refused. Returns as above. */
int expand_check(const char *text, bool with_sockets, char **ret_error);

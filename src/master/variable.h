/* SPDX-License-Identifier: MIT */
#pragma once

/* Names of environment variables: which can be one, and which are musterd's own. */

#include <stdbool.h>
#include <stddef.h>

/* Whether @variable ("NAME=value" of the master's environment) is for the master alone, or for the one whom
 * it was made for: no child gets it. */
bool variable_is_private(const char *variable);

/* Why nobody else may set a variable of this name of @n bytes: what was expected instead, for people. NULL:
 * everybody may. */
const char *variable_refuse_name(const char *name, size_t n);

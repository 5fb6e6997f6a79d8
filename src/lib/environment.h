/* SPDX-License-Identifier: MIT */
#pragma once

/* Environments of children: vectors of "NAME=value" with NULL at the end. */

#include <stddef.h>

/* A vector of @base with the @n assignments added, each in place of what has the same name. The strings are
 * borrowed; the vector is freed by the caller. Returns 0 or -ENOMEM. */
int environment_new(char *const *base, char *const *assignments, size_t n, char ***ret);

/* The value of a variable, borrowed; NULL: it is not there. */
const char *environment_get(char *const *env, const char *name);

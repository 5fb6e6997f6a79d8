/* SPDX-License-Identifier: MIT */
#pragma once

/* Vectors of strings as argv and environ are: NULL at the end. Array and strings are owned; a vector without
 * strings may be NULL. Made for the some dozen strings of a command line: to add one takes as long as there
 * are others. */

#include <stddef.h>

#include "basic/macro.h"

char **strv_free(char **v);

static inline void strv_freep(char ***v) {
        strv_free(*v);
}
#define _cleanup_strv_ _cleanup_(strv_freep)

size_t strv_length(char *const *v);

/* Appends a string, which is formatted, or copied. Returns 0 or -ENOMEM. */
int strv_addf(char ***v, const char *format, ...) _printf_(2, 3);
int strv_add(char ***v, const char *s);

/* The value of the variable @name in a vector of "NAME=value"; NULL: it is not there. */
const char *strv_get_variable(char *const *v, const char *name);

/* Adds a copy of @assignment ("NAME=value") in place of the first variable of that name, or else at the end.
 * Returns 0 or -ENOMEM. */
int strv_set_variable(char ***v, const char *assignment);
int strv_set_variablef(char ***v, const char *format, ...) _printf_(2, 3);

/* SPDX-License-Identifier: MIT */
/* Vectors of strings; see strv.h. */

#include "basic/strv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char **strv_free(char **v) {
        for (char **s = v; s && *s; s++)
                free(*s);
        free(v);
        return NULL;
}

size_t strv_length(char *const *v) {
        size_t n = 0;

        while (v && v[n])
                n++;
        return n;
}

/* Takes @s over, also when that fails; NULL, which the caller has had from malloc(), fails. */
static int take(char ***v, char *s) {
        size_t n = strv_length(*v);
        char **larger;

        if (!s)
                return -ENOMEM;
        larger = realloc(*v, (n + 2) * sizeof(char *));
        if (!larger) {
                free(s);
                return -ENOMEM;
        }
        larger[n] = s;
        larger[n + 1] = NULL;
        *v = larger;
        return 0;
}

int strv_add(char ***v, const char *s) {
        return take(v, strdup(s));
}

/* NULL: out of memory. */
static _printf_(1, 0) char *format_text(const char *format, va_list ap) {
        char *s;

        return vasprintf(&s, format, ap) < 0 ? NULL : s;
}

int strv_addf(char ***v, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        char *s = format_text(format, ap);
        va_end(ap);
        return take(v, s);
}

static char **find_variable(char *const *v, const char *name, size_t n) {
        for (; v && *v; v++)
                if (strncmp(*v, name, n) == 0 && (*v)[n] == '=')
                        return (char **) v;
        return NULL;
}

const char *strv_get_variable(char *const *v, const char *name) {
        size_t n = strlen(name);
        char **found = find_variable(v, name, n);

        return found ? *found + n + 1 : NULL;
}

static int take_variable(char ***v, char *assignment) {
        char **found;

        if (!assignment)
                return -ENOMEM;
        found = find_variable(*v, assignment, strcspn(assignment, "="));
        if (!found)
                return take(v, assignment);
        free(*found);
        *found = assignment;
        return 0;
}

int strv_set_variable(char ***v, const char *assignment) {
        return take_variable(v, strdup(assignment));
}

int strv_set_variablef(char ***v, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        char *s = format_text(format, ap);
        va_end(ap);
        return take_variable(v, s);
}

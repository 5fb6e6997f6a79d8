/* SPDX-License-Identifier: MIT */
#pragma once

/* From the path of a request's target to the name of a file, and back. Pure. */

#include <stdbool.h>
#include <stddef.h>

#define TARGET_PATH_MAX 4096 /* PATH_MAX: nothing longer can be opened */

typedef struct TargetPath {
        bool directory; /* the target ended in a slash */
        size_t length;
        char text[TARGET_PATH_MAX]; /* relative, without "." or empty components and without a slash at the
                                       end; "" is the root */
} TargetPath;

/* Decodes @n bytes that begin with '/'. Returns 0, or the status to answer: 400 for a broken escape, a NUL
 * and for any "..", 404 for what no file can be called (an escaped slash, a path beyond PATH_MAX). */
int target_to_path(const char *s, size_t n, TargetPath *ret);

/* Writes @path as a target that ends in a slash: with exactly one slash at its head (two would name a host)
 * and with everything escaped that is not plain. Returns the length, or -ENOBUFS. */
int target_from_path(const TargetPath *path, char *buf, size_t size);

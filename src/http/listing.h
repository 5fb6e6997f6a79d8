/* SPDX-License-Identifier: MIT */
#pragma once

/* A page with what is in a folder: directories first, then files, by name. What could not be served is not
 * listed: hidden files (who knows their names can have them), links that are not followed, sockets, devices.
 */

#include <stddef.h>

#include "http/file.h"

/* Of a larger folder as many as come first in the order of the file system, and a note that says so. */
#define LISTING_ENTRIES_MAX 10000

/* Of the directory @path beneath @root, without a slash at its end, that is open for reading as @fd. Returns
 * a fresh buffer of HTML. */
int listing_make(FileRoot *root, const char *path, int fd, char **ret, size_t *ret_size);

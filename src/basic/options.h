/* SPDX-License-Identifier: MIT */
#pragma once

/* Structures of options that may grow: each begins with its own size, as its caller was compiled with. */

#include <stddef.h>

/**
 * Copies @from, which begins with its size, over the @to_size bytes at @to, whose `size` is set. @min_size
 * is what the first version had. What the caller does not know stays as @to has it; a caller that is newer
 * than the library may set only what the library knows, as with openat2(2).
 *
 * Returns 0; -EINVAL: smaller than @min_size; -E2BIG: a member is set that the library does not know.
 */
int options_copy(void *to, size_t to_size, const void *from, size_t min_size);

/* What the structure had when @member was its last. */
#define OPTIONS_SIZE_UP_TO(type, member) (offsetof(type, member) + sizeof(((type *) 0)->member))

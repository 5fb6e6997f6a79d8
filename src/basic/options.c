/* SPDX-License-Identifier: MIT */
/* Options that may grow; see options.h. */

#include "basic/options.h"

#include <errno.h>
#include <string.h>

#include "basic/macro.h"

int options_copy(void *to, size_t to_size, const void *from, size_t min_size) {
        size_t size;

        memcpy(&size, from, sizeof(size));
        if (size < min_size)
                return -EINVAL;
        for (size_t i = to_size; i < size; i++)
                if (((const char *) from)[i] != 0)
                        return -E2BIG;
        memcpy(to, from, MIN(size, to_size));
        memcpy(to, &to_size, sizeof(to_size));
        return 0;
}

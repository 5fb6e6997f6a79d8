/* SPDX-License-Identifier: MIT */
/* RLIMIT_NOFILE, there and back; see descriptor-limit.h. Nothing here is worth an error: what is really
 * missing will be missed by its own call. */

#include "basic/descriptor-limit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "basic/macro.h"
#include "basic/parse.h"

#define ENV_BEFORE "MUSTER_NOFILE"

void descriptor_limit_raise(unsigned n) {
        struct rlimit limit;
        char before[24];

        (void) unsetenv(ENV_BEFORE);
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= n)
                return;
        snprintf(before, sizeof(before), "%ju", (uintmax_t) limit.rlim_cur);
        limit.rlim_cur = MIN(limit.rlim_max, (rlim_t) n);
        if (setenv(ENV_BEFORE, before, 1) >= 0)
                (void) setrlimit(RLIMIT_NOFILE, &limit);
}

void descriptor_limit_restore(void) {
        const char *value = getenv(ENV_BEFORE);
        struct rlimit limit;
        uint64_t before;

        if (!value)
                return;
        if (parse_uint64(value, &before) >= 0 && getrlimit(RLIMIT_NOFILE, &limit) >= 0) {
                limit.rlim_cur = MIN(limit.rlim_max, (rlim_t) before);
                (void) setrlimit(RLIMIT_NOFILE, &limit);
        }
        (void) unsetenv(ENV_BEFORE);
}

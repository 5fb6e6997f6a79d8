/* SPDX-License-Identifier: MIT */
#pragma once

/* Buffers of one size. The one that was given back last is taken first, so that a loop which needs one or
 * two at a time keeps using the same, warm pages, and connections that wait own none. */

#include <stddef.h>

typedef struct Pool {
        size_t size; /* of a buffer */
        unsigned n_spare;
        void *spare; /* a chain through the first bytes of each */
} Pool;

void pool_init(Pool *p, size_t size);
void pool_done(Pool *p);

/* NULL when there is no memory. */
char *pool_take(Pool *p);

/* Takes NULL, returns NULL: `buf = pool_give(pool, buf);` */
char *pool_give(Pool *p, char *buf);

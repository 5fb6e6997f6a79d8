/* SPDX-License-Identifier: MIT */
/* Buffers; see pool.h. */

#include "http/pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* More than this go back to the heap: a burst must not be paid for ever after. */
#define POOL_SPARE_MAX 8

void pool_init(Pool *p, size_t size) {
        assert(size >= sizeof(void *));
        *p = (Pool){ .size = size };
}

void pool_done(Pool *p) {
        while (p->spare)
                free(pool_take(p));
}

char *pool_take(Pool *p) {
        char *buf = p->spare;

        if (!buf)
                return malloc(p->size);
        memcpy(&p->spare, buf, sizeof(p->spare));
        p->n_spare--;
        return buf;
}

char *pool_give(Pool *p, char *buf) {
        if (!buf)
                return NULL;
        if (p->n_spare >= POOL_SPARE_MAX) {
                free(buf);
                return NULL;
        }
        memcpy(buf, &p->spare, sizeof(p->spare));
        p->spare = buf;
        p->n_spare++;
        return NULL;
}

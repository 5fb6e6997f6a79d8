/* SPDX-License-Identifier: MIT */
/* Records and buffers; see table.h. */

#include "http/table.h"

#include <errno.h>
#include <sys/mman.h>

#include "basic/macro.h"

#define PAGE_SIZE 4096

/* More than this give their memory back: a burst must not be paid for ever after. */
#define WARM_MAX 32

/* MAP_NORESERVE: most of it is never touched, and what is does count (memory.max). */
static void *map(size_t size, int sharing) {
        void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        return p == MAP_FAILED ? NULL : p;
}

static void unmap(void *p, size_t size) {
        if (p)
                munmap(p, size);
}

int table_init(Table *t, unsigned n_descriptors, unsigned n_buffers, size_t buffer_size) {
        *t = (Table){
                .n_records = n_descriptors,
                .buffer_size = (buffer_size + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE,
                .n_buffers = n_buffers,
        };
        t->records = map(n_descriptors * sizeof(Record), MAP_SHARED);
        t->buffers = map(n_buffers * t->buffer_size, MAP_SHARED);
        t->spare = map(n_buffers * sizeof(uint32_t), MAP_PRIVATE);
        if (!t->records || !t->buffers || !t->spare) {
                table_done(t);
                return -ENOMEM;
        }
        return 0;
}

void table_done(Table *t) {
        unmap(t->records, t->n_records * sizeof(Record));
        unmap(t->buffers, t->n_buffers * t->buffer_size);
        unmap(t->spare, t->n_buffers * sizeof(uint32_t));
        *t = (Table){ 0 };
}

uint32_t table_take_buffer(Table *t) {
        if (t->n_spare == 0) {
                if (t->n_taken == t->n_buffers)
                        return BUFFER_NONE;
                return t->n_taken++; /* never used before */
        }
        if (t->n_warm > 0)
                t->n_warm--;
        return t->spare[--t->n_spare];
}

uint32_t table_give_buffer(Table *t, uint32_t buffer) {
        if (buffer == BUFFER_NONE)
                return BUFFER_NONE;
        assert(buffer < t->n_taken && t->n_spare < t->n_taken);
        if (t->n_warm < WARM_MAX) {
                t->spare[t->n_spare++] = buffer;
                t->n_warm++;
                return BUFFER_NONE;
        }

        /* Beneath the warm ones, at the cost of moving one of them up. */
        (void) madvise(table_buffer(t, buffer), t->buffer_size, MADV_REMOVE);
        t->spare[t->n_spare] = t->spare[t->n_spare - WARM_MAX];
        t->spare[t->n_spare++ - WARM_MAX] = buffer;
        return BUFFER_NONE;
}

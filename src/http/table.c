/* SPDX-License-Identifier: MIT */
/* Records and buffers; see table.h. */

#include "http/table.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "basic/bitmap.h"
#include "basic/clock.h"
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

/* Need not be secret, only another one each time: early in the boot, too, without a wait. */
static uint64_t random_id(void) {
        uint64_t id;

        if (getrandom(&id, sizeof(id), GRND_INSECURE) != sizeof(id))
                id = clock_now_usec() << 20 ^ (uint64_t) getpid();
        return id;
}

int table_init(Table *t, unsigned n_descriptors, unsigned n_buffers, size_t buffer_size) {
        *t = (Table){
                .n_records = n_descriptors,
                .buffer_size = (buffer_size + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE,
                .n_buffers = n_buffers,
        };
        t->head = map(sizeof(TableHead), MAP_SHARED);
        t->records = map(n_descriptors * sizeof(Record), MAP_SHARED);
        t->buffers = map(n_buffers * t->buffer_size, MAP_SHARED);
        t->spare = map(n_buffers * sizeof(uint32_t), MAP_PRIVATE);
        if (!t->head || !t->records || !t->buffers || !t->spare) {
                table_done(t);
                return -ENOMEM;
        }
        t->head->boot = random_id();
        return 0;
}

void table_done(Table *t) {
        unmap(t->head, sizeof(TableHead));
        unmap(t->records, t->n_records * sizeof(Record));
        unmap(t->buffers, t->n_buffers * t->buffer_size);
        unmap(t->spare, t->n_buffers * sizeof(uint32_t));
        *t = (Table){ 0 };
}

uint64_t table_next_id(Table *t) {
        return ++t->head->next_id;
}

/* Those in between are spare, those behind the last one count as never used. What memory they have is found
 * when they are taken. */
void table_restore_buffers(Table *t, const uint64_t *is_used) {
        t->n_taken = t->n_spare = t->n_warm = 0;
        for (unsigned i = 0; i < t->n_buffers; i += 64)
                if (is_used[i / 64])
                        t->n_taken = i + 64 - (unsigned) __builtin_clzll(is_used[i / 64]);
        for (unsigned i = 0; i < t->n_taken; i++)
                if (!bitmap_has(is_used, i))
                        t->spare[t->n_spare++] = i;
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

/* SPDX-License-Identifier: MIT */
/* Shared memory of a keeper and its workers; see area.h. */

#include "twin/area.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "basic/bitmap.h"
#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/parse.h"

static size_t area_size(unsigned n_descriptors) {
        return sizeof(Area) + bitmap_words(n_descriptors) * sizeof(uint64_t);
}

/* What two starts of a machine may have in common, two keepers at one time do not. */
static uint64_t random_number(void) {
        uint64_t n;

        if (getrandom(&n, sizeof(n), GRND_INSECURE) != sizeof(n))
                n = clock_now_usec() << 20 ^ (uint64_t) getpid();
        return n;
}

Area *area_new(unsigned n_descriptors) {
        Area *a = mmap(NULL, area_size(n_descriptors), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (a == MAP_FAILED)
                return NULL;
        a->n_descriptors = n_descriptors;
        a->boot = random_number();
        a->settled = UINT32_MAX; /* nobody */
        for (int i = 0; i < AREA_SLOTS; i++)
                a->slots[i].pidfd = -1;
        a->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        a->retire_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        return a->bell_fd < 0 || a->retire_fd < 0 ? area_free(a) : a;
}

Area *area_free(Area *a) {
        if (!a)
                return NULL;
        for (int i = 0; i < AREA_SLOTS; i++)
                (void) safe_close(atomic_load(&a->slots[i].pidfd));
        (void) safe_close(a->bell_fd);
        (void) safe_close(a->retire_fd);
        (void) munmap(a, area_size(a->n_descriptors));
        return NULL;
}

static void area_keep(Area *a, unsigned fd) {
        if (fd < a->n_descriptors)
                bitmap_set(a->kept, fd);
}

int area_keep_open(Area *a) {
        DIR *d = opendir("/proc/self/fd");

        if (!d)
                return -errno;
        for (const struct dirent *e; (e = readdir(d));) {
                unsigned fd;
                if (parse_uint(e->d_name, &fd) >= 0 && fd != (unsigned) dirfd(d))
                        area_keep(a, fd);
        }
        (void) closedir(d);
        return 0;
}

bool area_keeps(const Area *a, int fd) {
        for (int i = 0; i < AREA_SLOTS; i++)
                if (atomic_load(&a->slots[i].pidfd) == fd)
                        return true;
        return (unsigned) fd < a->n_descriptors && bitmap_has(a->kept, (unsigned) fd);
}

static void ring(int fd) {
        static const uint64_t one = 1;

        (void) !write(fd, &one, sizeof(one)); /* EAGAIN: it has been rung often enough */
}

void area_retire(Area *a, bool orphaned) {
        if (orphaned)
                atomic_store(&a->orphaned, 1);
        atomic_store(&a->retiring, 1);
        ring(a->retire_fd);
}

void area_tell_served(Area *a) {
        atomic_store(&a->settled, atomic_load(&a->serving));
        atomic_fetch_add(&a->served, 1);
        ring(a->bell_fd);
}

/* A word of 32 bits is what a futex is; both are of one life of the keeper, and seldom differ by more than
 * one. */
static bool is_buried(uint32_t buried, uint32_t serving) {
        return (int16_t) (uint16_t) (buried - area_term(serving)) >= 0;
}

void area_wait_for_burial(Area *a) {
        for (;;) {
                uint32_t buried = atomic_load(&a->buried);

                if (is_buried(buried, atomic_load(&a->serving)))
                        return;
                (void) syscall(SYS_futex, &a->buried, FUTEX_WAIT, buried, NULL, NULL, 0);
        }
}

void area_tell_burial(Area *a) {
        atomic_fetch_add(&a->buried, 1);
        (void) syscall(SYS_futex, &a->buried, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

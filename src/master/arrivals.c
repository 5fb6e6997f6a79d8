/* SPDX-License-Identifier: MIT */
/* Connections that came and may be gone; see arrivals.h.
 *
 * A poll(2) that waits in the kernel is done as soon as a connection arrives, and keeps that to itself until
 * it is asked. epoll(7) will not do: it looks again when it is asked, and finds nothing if the connection
 * was accepted meanwhile; besides, it would wake this process up. */

#include "master/arrivals.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct Arrivals {
        aio_context_t context;
        unsigned n;
        struct iocb polls[]; /* one for each socket; aio_data is its index */
};

static int submit(Arrivals *a, size_t i) {
        struct iocb *poll = a->polls + i;

        return syscall(SYS_io_submit, a->context, 1L, &poll) == 1 ? 0 : -errno;
}

int arrivals_new(const Listeners *l, Arrivals **ret) {
        _cleanup_(arrivals_freep) Arrivals *a = NULL;
        int r;

        a = calloc(1, sizeof(*a) + l->n * sizeof(struct iocb));
        if (!a)
                return -ENOMEM;
        if (syscall(SYS_io_setup, MAX(l->n, (size_t) 1), &a->context) < 0)
                return -errno;
        for (; a->n < l->n; a->n++) {
                a->polls[a->n] = (struct iocb){
                        .aio_data = a->n,
                        .aio_lio_opcode = IOCB_CMD_POLL,
                        .aio_fildes = (uint32_t) l->items[a->n].fd,
                        .aio_buf = POLLIN,
                };
                r = submit(a, a->n);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(a);
        return 0;
}

int arrivals_look(Arrivals *a) {
        bool arrived = false;
        struct io_event event;
        struct timespec at_once = { 0 };
        int r;

        /* A poll that finds a connection waiting is done again at once: no more looks than sockets. */
        for (unsigned i = 0; i < a->n; i++) {
                long n = syscall(SYS_io_getevents, a->context, 0L, 1L, &event, &at_once);
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                arrived = true;
                r = event.data < a->n ? submit(a, event.data) : -EIO;
                if (r < 0)
                        return r;
        }
        return arrived;
}

Arrivals *arrivals_free(Arrivals *a) {
        if (!a)
                return NULL;
        if (a->context)
                (void) syscall(SYS_io_destroy, a->context); /* and what waits in it */
        free(a);
        return NULL;
}

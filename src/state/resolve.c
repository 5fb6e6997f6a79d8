/* SPDX-License-Identifier: MIT */
/* Names without blocking; see resolve.h. The thread and the loop have a reference each, because nothing ends
 * a getaddrinfo() that is under way: who does not want its answer any more leaves it behind. */

#include "state/resolve.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/fd.h"

struct Resolve {
        atomic_uint n_ref;
        int fd; /* an eventfd */
        int gai;
        struct addrinfo *addresses;
        char host[];
};

static int look_up(const char *host, int flags, struct addrinfo **ret) {
        struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = flags };

        return getaddrinfo(host, NULL, &hints, ret);
}

bool resolve_is_numeric(const char *host) {
        struct addrinfo *addresses;

        if (look_up(host, AI_NUMERICHOST, &addresses) != 0)
                return false;
        freeaddrinfo(addresses);
        return true;
}

static Resolve *resolve_unref(Resolve *r) {
        if (atomic_fetch_sub(&r->n_ref, 1) > 1)
                return NULL;
        if (r->addresses)
                freeaddrinfo(r->addresses);
        safe_close(r->fd);
        free(r);
        return NULL;
}

Resolve *resolve_free(Resolve *r) {
        return r ? resolve_unref(r) : NULL;
}

static void *resolve_thread(void *userdata) {
        Resolve *r = userdata;

        r->gai = look_up(r->host, AI_ADDRCONFIG, &r->addresses);
        /* A host of which nothing is configured but the loopback still reaches itself. */
        if (r->gai == EAI_NONAME || r->gai == EAI_ADDRFAMILY)
                r->gai = look_up(r->host, 0, &r->addresses);
        (void) eventfd_write(r->fd, 1); /* cannot fail: it is written once */
        resolve_unref(r);
        return NULL;
}

/* Signals are the program's: none of them is to be taken by this thread. */
static int start_thread(Resolve *r) {
        sigset_t all, saved;
        pthread_t thread;
        int error;

        sigfillset(&all);
        error = pthread_sigmask(SIG_SETMASK, &all, &saved);
        if (error != 0)
                return -error;
        error = pthread_create(&thread, NULL, resolve_thread, r);
        pthread_sigmask(SIG_SETMASK, &saved, NULL);
        if (error != 0)
                return -error;
        pthread_detach(thread);
        return 0;
}

int resolve_new(const char *host, Resolve **ret) {
        size_t size = strlen(host) + 1;
        Resolve *r = malloc(sizeof(*r) + size);
        int error;

        if (!r)
                return -ENOMEM;
        *r = (Resolve){ .n_ref = 2, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
        memcpy(r->host, host, size);
        error = r->fd < 0 ? -errno : start_thread(r);
        if (error < 0) {
                r->n_ref = 1;
                resolve_unref(r);
                return error;
        }
        *ret = r;
        return 0;
}

int resolve_get_fd(const Resolve *r) {
        return r->fd;
}

/* Appends the address to @text, which has room for it. */
static void append_address(char *text, const struct addrinfo *address) {
        char number[NI_MAXHOST];

        if (getnameinfo(address->ai_addr, address->ai_addrlen, number, sizeof(number), NULL, 0,
                            NI_NUMERICHOST) != 0)
                return; /* of a family without numbers */
        if (*text)
                strcat(text, ",");
        strcat(text, number);
}

static const struct addrinfo *find_address(const Resolve *r, unsigned i) {
        const struct addrinfo *a = r->addresses;

        while (i-- > 0)
                a = a->ai_next;
        return a;
}

int resolve_take(Resolve *r, unsigned n, char **ret_addresses, int *ret_gai) {
        _cleanup_free_ char *text = NULL;
        unsigned n_addresses = 0;
        eventfd_t value;

        if (eventfd_read(r->fd, &value) < 0) /* it also orders what the thread has written before */
                return -errno;
        if (r->gai != 0) {
                *ret_gai = r->gai;
                return -EHOSTUNREACH;
        }
        text = calloc(RESOLVE_MAX, NI_MAXHOST + 1);
        if (!text)
                return -ENOMEM;
        for (struct addrinfo *a = r->addresses; a && n_addresses < RESOLVE_MAX; a = a->ai_next)
                n_addresses++;
        for (unsigned i = 0; i < n_addresses; i++)
                append_address(text, find_address(r, (i + n % n_addresses) % n_addresses));
        *ret_addresses = TAKE_PTR(text);
        return 0;
}

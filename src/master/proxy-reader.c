/* SPDX-License-Identifier: MIT */
/* Reading a header; see proxy-reader.h. */

#include "master/proxy-reader.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "basic/clock.h"

#define SKIP_SIZE 4096

struct ProxyReader {
        int fd; /* borrowed */
        sd_event_source *io;
        sd_event_source *timer;
        proxy_reader_handler_t handler;
        void *userdata;
        size_t n;
        size_t needed;
        uint8_t bytes[PROXY_PROTOCOL_MAX];
        ProxyHeader header; /* when all that counts is there */
        bool complete;      /* it is */
        size_t skip;        /* what is still to come of it then */
};

ProxyReader *proxy_reader_free(ProxyReader *r) {
        if (!r)
                return NULL;
        sd_event_source_disable_unref(r->io);
        sd_event_source_disable_unref(r->timer);
        free(r);
        return NULL;
}

/* Returns whether more is awaited; else the handler was called. */
static bool look(ProxyReader *r) {
        char reason[PROXY_REASON_MAX] = "";

        if (!r->complete)
                switch (proxy_protocol_parse(r->bytes, r->n, &r->header, &r->needed, reason)) {
                case PROXY_PROTOCOL_MORE:
                        return true;
                case PROXY_PROTOCOL_DONE:
                        r->complete = true;
                        r->skip = r->header.length - r->n; /* never was more asked for than it needs */
                        break;
                default:
                        r->handler(NULL, reason, r->userdata);
                        return false;
                }
        if (r->skip > 0)
                return true;
        r->handler(&r->header, NULL, r->userdata);
        return false;
}

static ssize_t receive(ProxyReader *r) {
        char skipped[SKIP_SIZE];
        ssize_t n;

        if (r->complete) {
                n = recv(r->fd, skipped, MIN(r->skip, sizeof(skipped)), 0);
                if (n > 0)
                        r->skip -= (size_t) n;
                return n;
        }
        n = recv(r->fd, r->bytes + r->n, r->needed - r->n, 0);
        if (n > 0)
                r->n += (size_t) n;
        return n;
}

static int on_readable(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        ProxyReader *r = userdata;
        ssize_t n;

        do {
                n = receive(r);
                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return 0;
                if (n <= 0) {
                        r->handler(NULL,
                                        n < 0 ? strerror(errno) : "the connection ended in the middle of it",
                                        r->userdata);
                        return 0;
                }
        } while (look(r));
        return 0;
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
        ProxyReader *r = userdata;

        r->handler(NULL, "it did not come in time", r->userdata);
        return 0;
}

int proxy_reader_new(sd_event *event, int fd, uint64_t timeout_usec, proxy_reader_handler_t handler,
                void *userdata, ProxyReader **ret) {
        _cleanup_(proxy_reader_freep) ProxyReader *r = malloc(sizeof(*r));
        int e;

        if (!r)
                return -ENOMEM;
        r->io = r->timer = NULL;
        r->fd = fd;
        r->handler = handler;
        r->userdata = userdata;
        r->n = 0;
        r->complete = false;
        (void) look(r); /* nothing is there: it says how much is needed */
        e = sd_event_add_io(event, &r->io, fd, EPOLLIN, on_readable, r);
        if (e >= 0)
                e = sd_event_add_time_relative(event, &r->timer, CLOCK_MONOTONIC, timeout_usec,
                                clock_accuracy_usec(timeout_usec), on_timeout, r);
        if (e < 0)
                return e;
        *ret = TAKE_PTR(r);
        return 0;
}

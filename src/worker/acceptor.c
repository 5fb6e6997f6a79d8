/* SPDX-License-Identifier: MIT */
/* The listening sockets; see acceptor.h.
 *
 * All workers wait on the same ones. EPOLLEXCLUSIVE wakes one of them, always the one at the head of the
 * queue; leaving and joining after every few accepts moves this worker to its end, which spreads steady
 * arrivals evenly. What then is still uneven is evened out by handing connections over (siblings.h). A
 * worker that is stopped or busy is passed over by the kernel, as it does not wait, and by its siblings, who
 * see it on the board. One that is woken and then lacks room, a descriptor or memory has used up the
 * wake-up: it pokes a sibling that has them. Where there is none, the connection stays in the kernel's queue
 * until the next one wakes somebody, or until this worker tries again, RETRY_USEC later; it waits longer
 * only while the lack lasts. */

#include "worker/acceptor.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "twin/truth.h"
#include "worker/epoll-data.h"
#include "worker/fairness.h"

#define FIRST_FD 3

#define ACCEPTS_MAX 64                 /* in a row, before connections get their turn */
#ifndef ACCEPTS_PER_ADD                /* a benchmark sets it, to see what it costs */
#define ACCEPTS_PER_ADD FAIRNESS_DELTA /* steady arrivals differ by a few per cent then */
#endif

#define WARNING_INTERVAL (60 * USEC_PER_SEC)
#define RETRY_USEC       (1 * USEC_PER_SEC)

static int listener_add(const Acceptor *a, const Listener *li) {
        struct epoll_event ev = {
                .events = EPOLLIN | EPOLLEXCLUSIVE,
                .data.u64 = event_data(EVENT_LISTENER, (unsigned) (li - a->listeners)),
        };

        return epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, li->fd, &ev) < 0 ? -errno : 0;
}

static void listener_remove(const Acceptor *a, const Listener *li) {
        (void) epoll_ctl(a->epoll_fd, EPOLL_CTL_DEL, li->fd, NULL);
}

static int listener_init(Listener *li, int fd) {
        static const int one = 1;
        int value = 0, r;
        socklen_t n = sizeof(value);

        *li = (Listener){ .fd = fd };
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &n) < 0)
                return log_error_errno(-errno, "Descriptor %d of LISTEN_FDS is not a socket: %m", fd);
        if (!value)
                return log_error_errno(
                                -EINVAL, "Descriptor %d of LISTEN_FDS is not a listening socket.", fd);
        n = sizeof(value);
        if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &value, &n) < 0)
                return log_error_errno(-errno, "Failed to look at descriptor %d of LISTEN_FDS: %m", fd);

        /* Accepted sockets inherit both, which saves two calls for each of them. Other protocols do not know
         * it.
         */
        if (value == IPPROTO_TCP) {
                (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                (void) truth_prepare_listener(fd);
        }

        /* One that blocks would hold the whole worker as soon as a sibling is quicker. */
        r = fd_set_nonblock(fd, true);
        if (r >= 0)
                r = fd_set_cloexec(fd, true);
        if (r < 0)
                return log_error_errno(r, "Failed to prepare descriptor %d of LISTEN_FDS: %m", fd);
        return 0;
}

int acceptor_init(Acceptor *a, const Server *server, const AcceptorPlace *place,
                const AcceptorHandlers *handlers, unsigned n_listeners, unsigned max_connections) {
        int r;

        *a = (Acceptor){
                .epoll_fd = -EBADF,
                .server = server,
                .handlers = *handlers,
                .max_connections = max_connections,
                .retry_at = USEC_INFINITY,
        };
        a->listeners = calloc(n_listeners, sizeof(Listener));
        if (!a->listeners)
                return log_oom();
        for (; a->n_listeners < n_listeners; a->n_listeners++) {
                r = listener_init(a->listeners + a->n_listeners, FIRST_FD + (int) a->n_listeners);
                if (r < 0)
                        return r;
        }
        return siblings_init(
                        &a->siblings, place->board, place->cell, place->slot, place->twin, clock_now_usec());
}

void acceptor_done(Acceptor *a) {
        free(a->listeners);
        a->listeners = NULL;
        a->n_listeners = 0;
}

static bool acceptor_is_full(const Acceptor *a) {
        return a->server->n_connections >= a->max_connections;
}

static void acceptor_stop(Acceptor *a) {
        if (!a->listening)
                return;
        a->listening = false;
        (void) siblings_get_up(&a->siblings);
        for (unsigned i = 0; i < a->n_listeners; i++)
                if (!a->listeners[i].broken)
                        listener_remove(a, a->listeners + i);
}

static bool acceptor_has_waiting(const Acceptor *a) {
        for (unsigned i = 0; i < a->n_listeners; i++) {
                struct pollfd p = { .fd = a->listeners[i].fd, .events = POLLIN };

                if (!a->listeners[i].broken && poll(&p, 1, 0) > 0)
                        return true;
        }
        return false;
}

/* For want of room. A connection may have woken up this worker and no other. */
static void acceptor_give_way(Acceptor *a) {
        acceptor_stop(a);
        if (siblings_exist(&a->siblings) && acceptor_has_waiting(a))
                siblings_poke(&a->siblings, a->server->now);
}

static int acceptor_watch_inbox(Acceptor *a, int op) {
        struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP, .data.u64 = event_data(EVENT_INBOX, 0) };
        int fd = siblings_fd(&a->siblings);

        return fd >= 0 && epoll_ctl(a->epoll_fd, op, fd, &ev) < 0 ? -errno : 0;
}

/* What it told epoll is taken back, as nothing else says what that was: listeners are in there or not, and
 * cannot be changed with EPOLLEXCLUSIVE. What it was woken up for is left to others, which listen now. */
void acceptor_inherit(Acceptor *a) {
        uint64_t now = clock_now_usec();

        for (unsigned i = 0; i < a->n_listeners; i++)
                listener_remove(a, a->listeners + i);
        (void) acceptor_watch_inbox(a, EPOLL_CTL_DEL);
        siblings_inherit(&a->siblings, now);
        if (siblings_exist(&a->siblings) && acceptor_has_waiting(a))
                siblings_poke(&a->siblings, now);
}

/* It may have come from a sibling that has it open still. */
void acceptor_adopt(Acceptor *a, int fd) {
        if (siblings_claim(&a->siblings, fd))
                a->handlers.add(a->handlers.userdata, fd, siblings_exist(&a->siblings));
}

static void acceptor_pause(Acceptor *a) {
        acceptor_give_way(a);
        a->retry_at = a->server->now + RETRY_USEC;
}

void acceptor_start(Acceptor *a) {
        int r;

        if (a->listening || a->server->draining || acceptor_is_full(a))
                return;
        a->listening = true;
        a->retry_at = USEC_INFINITY;
        for (unsigned i = 0; i < a->n_listeners; i++) {
                if (a->listeners[i].broken)
                        continue;
                r = listener_add(a, a->listeners + i);
                if (r < 0 && r != -EEXIST) {
                        acceptor_pause(a);
                        return;
                }
        }
        if (a->inbox_rests && acceptor_watch_inbox(a, EPOLL_CTL_ADD) < 0) {
                acceptor_pause(a);
                return;
        }
        a->inbox_rests = false;
        siblings_sit(&a->siblings);
}

int acceptor_begin(Acceptor *a) {
        int r;

        r = acceptor_watch_inbox(a, EPOLL_CTL_ADD);
        if (r < 0)
                return log_error_errno(r, "Failed to wait for connections of other workers: %m");
        siblings_begin(&a->siblings);
        if (!a->listening)
                (void) siblings_get_up(&a->siblings);
        return 0;
}

void acceptor_rest(Acceptor *a) {
        siblings_rest(&a->siblings);
}

void acceptor_wake(Acceptor *a) {
        siblings_wake(&a->siblings, a->server->now);
}

static void listener_rotate(Acceptor *a, Listener *li) {
        li->n_accepted = 0;
        listener_remove(a, li);
        if (listener_add(a, li) < 0)
                acceptor_pause(a);
}

/* Once a minute at most: a lack can come and go with every connection. */
static void acceptor_warn(Acceptor *a, int error) {
        uint64_t now = a->server->now;

        if (a->warned_at > 0 && now - a->warned_at < WARNING_INTERVAL)
                return;
        a->warned_at = now;
        log_warning_errno(-error, "Not accepting connections for now: %m");
}

/* Clients come before what the handler keeps open. */
static bool acceptor_got_descriptors(const Acceptor *a, int error) {
        const Handler *handler = &a->server->handler;

        return (error == EMFILE || error == ENFILE) && handler->give_way &&
               handler->give_way(handler->userdata);
}

static void listener_failed(Acceptor *a, Listener *li, int error) {
        switch (error) {
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
                /* The connection stays in the queue and the socket stays readable. A close of ours ends the
                 * lack, or somebody else's, about which nobody tells us. */
                acceptor_warn(a, error);
                acceptor_pause(a);
                break;
        case EBADF:
        case EINVAL:
        case ENOTSOCK:
        case EOPNOTSUPP:
                log_error_errno(-error, "Listening socket %d is unusable: %m", li->fd);
                li->broken = true;
                a->n_broken++;
                listener_remove(a, li);
                break;
        default:
                break; /* an error of that one connection (accept(2), "Error handling"): the next may be fine
                        */
        }
}

/* Returns whether there may be another one. */
static bool listener_accept(Acceptor *a, Listener *li) {
        int fd = accept4(li->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
                int error = errno;
                if (error == EAGAIN)
                        return false;
                if (!acceptor_got_descriptors(a, error))
                        listener_failed(a, li, error);
                return true;
        }
        li->n_accepted++;
        /* The last ones before the end stay: who hands something over has to stay for a while. */
        if (a->server->draining ||
                        !siblings_offer(&a->siblings, fd, a->server->n_connections, a->server->now))
                a->handlers.add(a->handlers.userdata, fd, /* handed= */ false);
        return true;
}

void acceptor_ready(Acceptor *a, unsigned index) {
        Listener *li = a->listeners + index;

        for (int i = 0; i < ACCEPTS_MAX && a->listening && !li->broken && listener_accept(a, li); i++)
                if (acceptor_is_full(a))
                        acceptor_give_way(a);
                else if (li->n_accepted >= ACCEPTS_PER_ADD)
                        listener_rotate(a, li);
}

/* A connection wakes one worker of those that sleep (EPOLLEXCLUSIVE). For one that came just before this
 * worker stopped listening, that may have been this one, and the others have not heard of it. When something
 * lacks for it, a sibling has been poked. */
static void acceptor_accept_last(Acceptor *a) {
        for (unsigned i = 0; i < a->n_listeners; i++) {
                Listener *li = a->listeners + i;
                for (int k = 0; k < ACCEPTS_MAX && !li->broken && !acceptor_is_full(a); k++)
                        if (!listener_accept(a, li) || a->retry_at != USEC_INFINITY)
                                break;
        }
}

/* What lies in the inbox stays there: a sibling looks after it, or this worker when it listens again. */
static void acceptor_leave_inbox(Acceptor *a) {
        acceptor_warn(a, EMFILE);
        (void) acceptor_watch_inbox(a, EPOLL_CTL_DEL);
        a->inbox_rests = true;
        acceptor_pause(a);
}

/* Returns whether there may be another message, and in *poked whether one asks to look at the sockets. */
static bool acceptor_read_message(Acceptor *a, bool *poked) {
        int fd, r;

        r = siblings_receive(&a->siblings, &fd);
        if (r == 0)
                a->handlers.add(a->handlers.userdata, fd, /* handed= */ true);
        else if (r == INBOX_POKED)
                *poked = true;
        else if (r == -EMFILE && acceptor_got_descriptors(a, EMFILE))
                return true;
        else if (r == -EMFILE)
                acceptor_leave_inbox(a);
        return r >= 0;
}

/* What comes while it is read is marked as pending again, and read as well: nobody would take the mark away.
 */
static bool acceptor_read_messages(Acceptor *a) {
        bool poked = false;
        unsigned n = 0;

        (void) siblings_open_inbox(&a->siblings);
        do
                while (n < ACCEPTS_MAX && acceptor_read_message(a, &poked))
                        n++;
        while (n < ACCEPTS_MAX && siblings_open_inbox(&a->siblings));
        return poked;
}

void acceptor_read_inbox(Acceptor *a, uint32_t events) {
        if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
                /* By another worker: it cannot be mended, and has to be done without. */
                log_error("The inbox of this worker was shut down.");
                (void) acceptor_watch_inbox(a, EPOLL_CTL_DEL);
                (void) siblings_end(&a->siblings);
                return;
        }
        bool poked = acceptor_read_messages(a);
        if (a->listening && acceptor_is_full(a))
                acceptor_give_way(a);
        /* To join the kernel's queue anew tells what is there already. */
        for (unsigned i = 0; i < a->n_listeners && poked && a->listening; i++)
                if (!a->listeners[i].broken)
                        listener_rotate(a, a->listeners + i);
}

/* What siblings have handed over, unless another worker of the slot takes it. */
static void acceptor_end_inbox(Acceptor *a) {
        (void) acceptor_watch_inbox(a, EPOLL_CTL_DEL);
        if (siblings_end(&a->siblings))
                (void) acceptor_read_messages(a);
}

void acceptor_end(Acceptor *a, bool accept_last) {
        bool listening = a->listening;

        acceptor_stop(a);
        if (listening && accept_last)
                acceptor_accept_last(a);
        acceptor_end_inbox(a);
        a->retry_at = USEC_INFINITY; /* also when the last ones could not be taken */
}

uint64_t acceptor_next_deadline(const Acceptor *a) {
        return MIN(a->retry_at, a->siblings.deadline);
}

bool acceptor_has_handed(const Acceptor *a) {
        return a->siblings.deadline != USEC_INFINITY;
}

void acceptor_expire(Acceptor *a) {
        int fd, r;

        while ((r = siblings_rescue(&a->siblings, a->server->now, &fd)) == 0)
                a->handlers.add(a->handlers.userdata, fd, /* handed= */ true);
        (void) acceptor_got_descriptors(a, -r); /* for the next time, which is soon */
        if (a->retry_at > a->server->now)
                return;
        a->retry_at = USEC_INFINITY; /* if it is full by now, the next close starts it */
        acceptor_start(a);
}

bool acceptor_is_broken(const Acceptor *a) {
        return a->n_broken == a->n_listeners;
}

/* SPDX-License-Identifier: MIT */
/* The take-over; see successor.h. */

#include "worker/successor.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/bitmap.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "http/adopt.h"
#include "http/connection.h"
#include "twin/sweep.h"

/* NULL: it is beyond the table, and never was a connection. */
static Record *successor_record(const Successor *s, unsigned fd) {
        return fd < s->in->table.n_records ? s->in->table.records + fd : NULL;
}

static Standing standing_of(const Record *r) {
        switch (r ? atomic_load(&r->state) : CONNECTION_FREE) {
        case CONNECTION_FREE:
                return STANDING_FREE;
        case CONNECTION_IDLE:
                return STANDING_IDLE;
        case CONNECTION_CLOSING:
                return STANDING_CLOSING;
        default:
                return STANDING_WORKING;
        }
}

static bool is_busy(const Record *r) {
        return r && atomic_load(&r->busy);
}

/* It cannot be left as it is. */
static bool is_in_the_middle(const Record *r) {
        Standing standing = standing_of(r);

        return standing == STANDING_WORKING || (standing == STANDING_IDLE && is_busy(r));
}

static void reset_on_close(unsigned fd) {
        const struct linger linger = { .l_onoff = 1 };

        (void) setsockopt((int) fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* A close alone makes epoll forget it no sooner than nobody has it open any more. */
static void successor_close(const Successor *s, unsigned fd) {
        Record *r = successor_record(s, fd);

        if (standing_of(r) == STANDING_CLOSING && r->broken)
                reset_on_close(fd);
        if (standing_of(r) != STANDING_FREE)
                atomic_store(&r->state, CONNECTION_CLOSING);
        (void) epoll_ctl(s->in->epoll_fd, EPOLL_CTL_DEL, (int) fd, NULL);
        (void) close((int) fd);
        bitmap_clear(s->open, fd);
        if (standing_of(r) != STANDING_FREE)
                atomic_store(&r->state, CONNECTION_FREE);
}

/* Nobody can go on with it: the client is to see that. */
static void successor_reset(const Successor *s, unsigned fd) {
        reset_on_close(fd);
        successor_close(s, fd);
}

/*
 * Before the app is opened
 */

/* Whether the process died while it dealt with the request: in the handler; in something that the app has on
 * its loop, such as a timer, or the answer of a store; or, of a signal of its own, on a thread. In the latter
 * two all requests are suspects that it had not answered. */
static unsigned blame_for(uint32_t running, uint32_t crash, unsigned fd, const Record *r) {
        unsigned blame = crash != 0 ? RECORD_BLAME_CRASH : RECORD_BLAME_KILL;

        if (running != 0 && running != AREA_RUNNING_APP)
                return running == fd + 1 ? blame : 0;
        if (running == 0 && crash == 0)
                return 0;
        return atomic_load(&r->state) == CONNECTION_HANDLING ? blame : 0;
}

/* One that had not begun to serve has dealt with no request. */
static bool predecessor_served(const Area *a) {
        uint32_t serving = atomic_load(&a->serving);

        return area_term(atomic_load(&a->settled)) == (uint16_t) (area_term(serving) - 1);
}

static void successor_restore(Successor *s) {
        Area *a = s->in->area;
        /* Taken first: who is killed in here may forget a blame, but counts none twice. */
        uint32_t running = atomic_exchange(&a->running, 0), crash = atomic_exchange(&a->crash, 0);

        if (!predecessor_served(a))
                crash = 0;
        for (unsigned fd = 0; fd < MIN(s->n, s->in->table.n_records); fd++) {
                const Record *r = s->in->table.records + fd;

                if (!is_in_the_middle(r) || !bitmap_has(s->open, fd) || area_keeps(a, (int) fd))
                        continue;
                if (adopt_restore(&s->in->table, (int) fd, blame_for(running, crash, fd, r), s->needed) < 0)
                        successor_reset(s, fd);
        }
}

static void successor_execute(Successor *s, unsigned fd, Fate fate) {
        Record *r = successor_record(s, fd);

        switch (fate) {
        case FATE_FORGET:
                atomic_store(&r->state, CONNECTION_FREE);
                break;
        case FATE_CLOSE:
                successor_close(s, fd);
                break;
        case FATE_ADOPT:
                bitmap_set(s->fresh, fd);
                break;
        case FATE_NOTHING:
        case FATE_KEEP:
        case FATE_LEAVE:
        case FATE_RESUME:
                break;
        }
}

static void successor_sweep_one(Successor *s, unsigned fd, const SweepListener *listeners) {
        const Record *r = successor_record(s, fd);
        Finding f = {
                .standing = standing_of(r),
                .is_open = bitmap_has(s->open, fd),
        };

        if (!f.is_open)
                bitmap_clear(s->needed, fd);
        if (!f.is_open && f.standing == STANDING_FREE)
                return;
        f.busy = is_busy(r);
        f.is_kept = f.is_open && area_keeps(s->in->area, (int) fd);
        f.is_needed = bitmap_has(s->needed, fd);
        if (sweep_must_ask(&f))
                f.is_client = sweep_is_client((int) fd, listeners, s->in->acceptor.n_listeners);
        Fate fate = sweep_decide(&f);
        /* Not a file that this process is to close in the end. */
        if (f.is_kept || (fate != FATE_KEEP && fate != FATE_FORGET))
                bitmap_clear(s->needed, fd);
        successor_execute(s, fd, fate);
}

static int successor_sweep(Successor *s) {
        const Acceptor *a = &s->in->acceptor;
        _cleanup_free_ SweepListener *listeners = calloc(a->n_listeners, sizeof(SweepListener));

        if (!listeners)
                return -ENOMEM;
        for (unsigned i = 0; i < a->n_listeners; i++)
                (void) sweep_listener_init(
                                listeners + i, a->listeners[i].fd); /* nothing is of a broken one */
        for (unsigned fd = 0; fd < s->n; fd++)
                successor_sweep_one(s, fd, listeners);
        return adopt_buffers(&s->in->table, s->n);
}

static int successor_find_open(Successor *s) {
        unsigned limit = s->in->area->n_descriptors;
        size_t words;
        int size;

        (void) close_range(limit, UINT_MAX, 0); /* of an app that has raised its limit; none is ours */
        size = sweep_get_table_size();
        s->n = size < 0 ? limit : MIN((unsigned) size, limit); /* it may lack a descriptor to find out */
        words = bitmap_words(s->n);
        s->open = calloc(words, sizeof(uint64_t));
        s->needed = calloc(bitmap_words(limit), sizeof(uint64_t));
        s->fresh = calloc(words, sizeof(uint64_t));
        if (!s->open || !s->needed || !s->fresh)
                return -ENOMEM;
        return sweep_find_open(s->n, s->open);
}

int successor_init(Successor *s, Inheritance *in) {
        int r;

        *s = (Successor){ .in = in };
        r = successor_find_open(s);
        if (r >= 0) {
                successor_restore(s);
                r = successor_sweep(s);
        }
        if (r < 0)
                return log_error_errno(r, "Failed to take over: %m");
        return 0;
}

void successor_done(Successor *s) {
        free(s->open);
        free(s->needed);
        free(s->fresh);
        *s = (Successor){ 0 };
}

/*
 * With the app
 */

/* Who has handed it over, if somebody has, may not have closed it yet. */
static bool may_be_open_elsewhere(const Successor *s) {
        return siblings_exist(&s->in->acceptor.siblings);
}

static void successor_resume(Successor *s, Server *server, unsigned fd) {
        Connection *c;

        if (adopt_resume(server, (int) fd, s->needed, &c) < 0) {
                successor_reset(s, fd);
                return;
        }
        c->handed = may_be_open_elsewhere(s);
        c->events = UINT32_MAX; /* whatever epoll was told, it is told anew */
        list_append(&server->runnable, &c->runnable);
}

static void successor_leave(const Successor *s, Server *server, unsigned fd) {
        Connection *c;

        adopt_idle(server, (int) fd, &c);
        c->handed = may_be_open_elsewhere(s);
        c->events = EPOLLIN; /* as for any that is idle, since nobody was at it */
}

/* That nobody has taken. */
static void successor_close_files(Successor *s) {
        for (unsigned fd = 0; fd < s->n; fd++)
                if (bitmap_has(s->needed, fd))
                        (void) close((int) fd);
}

void successor_adopt(Successor *s, Server *server) {
        for (unsigned fd = 0; fd < MIN(s->n, s->in->table.n_records); fd++) {
                const Record *r = s->in->table.records + fd;

                if (!bitmap_has(s->open, fd))
                        continue;
                if (is_in_the_middle(r))
                        successor_resume(s, server, fd);
                else if (standing_of(r) == STANDING_IDLE)
                        successor_leave(s, server, fd);
        }
        successor_close_files(s);
}

void successor_add_fresh(Successor *s, Acceptor *acceptor) {
        for (unsigned fd = 0; fd < s->n; fd++)
                if (bitmap_has(s->fresh, fd))
                        acceptor_adopt(acceptor, (int) fd);
}

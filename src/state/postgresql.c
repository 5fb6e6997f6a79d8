/* SPDX-License-Identifier: MIT */
/* The store in a table of a PostgreSQL server: libpq's asynchronous interface on the loop. Statements are in
 * postgresql-statements.c, what differs of channels in postgresql-channel.c; here is what the core calls.
 *
 * A connection goes through the phases below. When it is ready it is a pipeline: each operation is sent with
 * a sync behind it and is thereby a transaction of its own, so that the error of one does not touch the
 * next. It has ended when the answer to its sync is there, not before: the server commits at the sync, and
 * may fail there.
 *
 *     waiting ──(PQsendQueryPrepared, PQpipelineSync)──> sent ──(result, sync)──> finish()
 *
 * libpq copies what it is given. So that it does not keep a second copy of all that waits, and so that what
 * waits can still be dropped, it gets the next operation only after the one before has left the process.
 *
 * libpq reads while it writes when the socket is full, and then nothing tells that there is something to be
 * taken: see has_unread() in postgresql-pipeline.c.
 *
 * The role needs CONNECT on the database and USAGE on the schema, the first of its search_path; there
 * CREATE, unless somebody else has made the table; and SELECT, INSERT, UPDATE and DELETE on muster_state.
 * The session has to be its own: a pooler that hands out transactions loses LISTEN and what was prepared.
 *
 * Any function of the host may let go of the connection. .attempt has another value then, and whoever calls
 * the host looks at it afterwards. */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "basic/clock.h"
#include "basic/macro.h"
#include "state/postgresql-internal.h"
#include "state/postgresql-statements.h"

/* The driver's functions */

static int postgresql_open(const StateHost *host, StateStore *store, sd_event *event, const StateUrl *url,
                void **ret, char error[static STATE_TEXT_MAX]) {
        _cleanup_free_ Postgresql *p = malloc(sizeof(*p));
        int r;

        if (!p)
                return -ENOMEM;
        *p = (Postgresql){
                .host = host,
                .store = store,
                .event = event,
                .fd = -EBADF,
        };
        postgresql_pipeline_init(p);
        r = postgresql_target_init(&p->target, url, error);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(p);
        return 0;
}

/* libpq goes on to the next address by itself only when one refuses. */
static void postgresql_disconnect(void *driver) {
        Postgresql *p = driver;

        if (p->phase != PHASE_IDLE && p->phase != PHASE_RESOLVING && p->phase != PHASE_READY)
                p->n_silent++;
        postgresql_connection_let_go(p);
}

static void postgresql_close(void *driver) {
        postgresql_connection_let_go(driver);
        free(driver);
}

static int postgresql_connect(void *driver, const char *password) {
        Postgresql *p = driver;
        int r;

        assert(p->phase == PHASE_IDLE);
        r = postgresql_connection_begin(p, password);
        if (r < 0)
                postgresql_connection_let_go(p);
        return r;
}

static int postgresql_send(void *driver, StateOperation *op) {
        Postgresql *p = driver;

        if (p->phase != PHASE_READY)
                return -ENOTCONN;
        postgresql_pipeline_push(p, op);
        return 0;
}

static int postgresql_subscribe(void *driver, StateBytes channel) {
        char identifier[POSTGRESQL_IDENTIFIER_SIZE];
        Postgresql *p = driver;
        PostgresqlChannel *c;
        int r;

        if (p->phase != PHASE_READY)
                return -ENOTCONN;
        r = postgresql_channel_name(channel, identifier);
        if (r < 0)
                return r;
        r = postgresql_channels_add(&p->channels, identifier, channel, &c);
        if (r < 0)
                return r;
        r = postgresql_pipeline_push_request(p, POSTGRESQL_LISTEN, identifier, c->serial);
        if (r < 0)
                postgresql_channels_remove(&p->channels, identifier);
        return r;
}

static int postgresql_unsubscribe(void *driver, StateBytes channel) {
        char identifier[POSTGRESQL_IDENTIFIER_SIZE];
        Postgresql *p = driver;
        int r;

        if (p->phase != PHASE_READY)
                return -ENOTCONN;
        r = postgresql_channel_name(channel, identifier);
        if (r < 0)
                return r;
        if (!postgresql_channels_remove(&p->channels, identifier))
                return -ENOENT;
        return postgresql_pipeline_push_request(p, POSTGRESQL_UNLISTEN, identifier, 0);
}

static int postgresql_wait(void *driver, uint64_t timeout_usec) {
        Postgresql *p = driver;
        struct pollfd pollfd = { .fd = p->fd };
        struct timespec timeout = {
                .tv_sec = (time_t) (timeout_usec / USEC_PER_SEC),
                .tv_nsec = (long) (timeout_usec % USEC_PER_SEC * NSEC_PER_USEC),
        };

        if (p->phase == PHASE_IDLE)
                return -ENOTCONN;
        pollfd.events = (short) ((p->events & EPOLLIN ? POLLIN : 0) | (p->events & EPOLLOUT ? POLLOUT : 0));
        if (postgresql_connection_is_due(p))
                timeout = (struct timespec){ 0 };
        if (ppoll(&pollfd, 1,
                            timeout_usec == USEC_INFINITY && !postgresql_connection_is_due(p) ? NULL
                                                                                              : &timeout,
                            NULL) < 0)
                return errno == EINTR ? 0 : -errno;
        if (pollfd.revents || postgresql_connection_is_due(p))
                postgresql_connection_drive(p);
        return 0;
}

const StateDriver muster_state_driver = {
        .abi = STATE_DRIVER_ABI,
        .open = postgresql_open,
        .close = postgresql_close,
        .connect = postgresql_connect,
        .disconnect = postgresql_disconnect,
        .send = postgresql_send,
        .subscribe = postgresql_subscribe,
        .unsubscribe = postgresql_unsubscribe,
        .wait = postgresql_wait,
};

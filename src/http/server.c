/* SPDX-License-Identifier: MIT */
/* What connections share; see server.h. */

#include "http/server.h"

#include <errno.h>
#include <sys/mman.h>

#include "basic/clock.h"
#include "basic/macro.h"
#include "http/connection.h"

/* Coarse on purpose: no time-out of ours has to be met exactly. */
#define DEADLINE_GRAIN (100 * USEC_PER_MSEC)

/* Beyond the head there must be room to read a body into, piece by piece. */
#define BODY_ROOM 1024

/* The head of an answer and a small file behind it. */
#define BUFFER_MIN (20 * 1024)

/* Address space has an end, too. */
#define BUFFERS_MAX (3 * 1024 * 1024)

#define SPARE_EXCHANGES_MAX 64

void server_settings_init(ServerSettings *settings) {
        *settings = (ServerSettings){
                .timeout_usec = {
                        [TIMEOUT_IDLE] = 60 * USEC_PER_SEC,
                        [TIMEOUT_REQUEST] = 10 * USEC_PER_SEC,
                        [TIMEOUT_BODY] = 30 * USEC_PER_SEC,
                        [TIMEOUT_ANSWER] = 60 * USEC_PER_SEC,
                        [TIMEOUT_SEND] = 30 * USEC_PER_SEC,
                        [TIMEOUT_LINGER] = 2 * USEC_PER_SEC,
                        [TIMEOUT_DRAIN] = 1 * USEC_PER_SEC,
                },
                .max_request_head = 16 * 1024,
                .max_body = 1024 * 1024,
                .n_descriptors = 1024,
        };
}

/* Each connection may have one buffer for what comes, one for what goes and one for parts; nearly all have
 * none. */
static unsigned n_buffers(const ServerSettings *settings) {
        return MIN(settings->n_descriptors, (unsigned) BUFFERS_MAX / 3) * 3;
}

int server_init_table(const ServerSettings *settings, Table *ret) {
        size_t buffer_size = MAX(settings->max_request_head + BODY_ROOM, (size_t) BUFFER_MIN);

        return table_init(ret, settings->n_descriptors, n_buffers(settings), buffer_size);
}

int server_init(Server *s, const ServerSettings *settings, const Handler *handler, BoardCell *cell,
                const Table *table) {
        assert(settings->max_request_head >= SERVER_MIN_HEAD &&
                        settings->max_request_head <= SERVER_MAX_HEAD);

        *s = (Server){ .settings = *settings, .handler = *handler, .cell = cell, .table = *table };
        list_init(&s->runnable);
        for (int i = 0; i < _TIMEOUT_MAX; i++)
                list_init(&s->timeouts[i]);

        s->connections = mmap(NULL, settings->n_descriptors * sizeof(Connection), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (s->connections == MAP_FAILED) {
                s->connections = NULL;
                return -ENOMEM;
        }
        return 0;
}

void server_done(Server *s) {
        assert(s->n_connections == 0);
        while (s->spare_exchanges)
                free(server_take_exchange(s));
        if (s->connections)
                munmap(s->connections, s->settings.n_descriptors * sizeof(Connection));
        s->connections = NULL;
}

void server_set_time(Server *s, uint64_t now_usec, int64_t now_seconds) {
        s->now = now_usec;
        s->now_seconds = now_seconds;
}

void server_disarm(Timeout *t) {
        list_remove(&t->node);
}

void server_arm(Server *s, Timeout *t, TimeoutClass class) {
        if (s->settings.timeout_usec[class] == 0) {
                server_disarm(t);
                return;
        }
        t->deadline = s->now + s->settings.timeout_usec[class];
        list_remove(&t->node);
        list_append(&s->timeouts[class], &t->node);
}

static Timeout *first_of_class(const Server *s, int class) {
        const List *head = &s->timeouts[class];

        return list_empty(head) ? NULL : list_entry(head->next, Timeout, node);
}

uint64_t server_next_deadline(const Server *s) {
        uint64_t next = USEC_INFINITY;

        for (int i = 0; i < _TIMEOUT_MAX; i++) {
                const Timeout *t = first_of_class(s, i);
                if (t)
                        next = MIN(next, t->deadline);
        }
        if (next == USEC_INFINITY)
                return next;
        return (next + DEADLINE_GRAIN - 1) / DEADLINE_GRAIN * DEADLINE_GRAIN;
}

Timeout *server_next_expired(Server *s) {
        for (int i = 0; i < _TIMEOUT_MAX; i++) {
                Timeout *t = first_of_class(s, i);
                if (t && t->deadline <= s->now) {
                        list_remove(&t->node);
                        return t;
                }
        }
        return NULL;
}

bool server_has_runnable(const Server *s) {
        return !list_empty(&s->runnable);
}

Connection *server_next_runnable(Server *s) {
        Connection *c;

        if (list_empty(&s->runnable))
                return NULL;
        c = list_entry(s->runnable.next, Connection, runnable);
        list_remove(&c->runnable);
        return c;
}

Connection *server_next_connection(Server *s, unsigned from) {
        for (unsigned i = from; i < s->n_opened; i++)
                if (s->table.records[i].state != CONNECTION_FREE)
                        return s->connections + i;
        return NULL;
}

void server_drain(Server *s) {
        if (s->draining)
                return;
        s->draining = true;
        list_foreach_safe (node, &s->timeouts[TIMEOUT_IDLE])
                server_arm(s, list_entry(node, Timeout, node), TIMEOUT_DRAIN);
}

void server_adopt_connection(Server *s) {
        s->n_connections++;
        atomic_store_explicit(&s->cell->connections, s->n_connections, memory_order_relaxed);
}

void server_count_connection(Server *s) {
        server_adopt_connection(s);
        atomic_store_explicit(&s->cell->accepted,
                        atomic_load_explicit(&s->cell->accepted, memory_order_relaxed) + 1,
                        memory_order_relaxed);
}

void server_uncount_connection(Server *s) {
        assert(s->n_connections > 0);
        s->n_connections--;
        atomic_store_explicit(&s->cell->connections, s->n_connections, memory_order_relaxed);
}

uint64_t server_count_request(Server *s) {
        s->n_requests++;
        atomic_store_explicit(&s->cell->requests, s->n_requests, memory_order_relaxed);
        return s->n_requests;
}

Exchange *server_take_exchange(Server *s) {
        Exchange *x = s->spare_exchanges;

        if (!x)
                return malloc(sizeof(Exchange));
        s->spare_exchanges = x->next_spare;
        s->n_spare_exchanges--;
        return x;
}

void server_give_exchange(Server *s, Exchange *x) {
        if (s->n_spare_exchanges >= SPARE_EXCHANGES_MAX) {
                free(x);
                return;
        }
        x->next_spare = s->spare_exchanges;
        s->spare_exchanges = x;
        s->n_spare_exchanges++;
}

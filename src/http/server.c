/* SPDX-License-Identifier: MIT */
/* What connections share; see server.h. */

#include "http/server.h"

#include "basic/clock.h"
#include "basic/macro.h"

/* Coarse on purpose: no time-out of ours has to be met exactly. */
#define DEADLINE_GRAIN (100 * USEC_PER_MSEC)

/* Beyond the head there must be room to read a body into, piece by piece. */
#define BODY_ROOM 1024

void server_settings_init(ServerSettings *settings) {
        *settings = (ServerSettings){
                .timeout_usec = {
                        [TIMEOUT_IDLE] = 60 * USEC_PER_SEC,
                        [TIMEOUT_REQUEST] = 10 * USEC_PER_SEC,
                        [TIMEOUT_SEND] = 30 * USEC_PER_SEC,
                        [TIMEOUT_LINGER] = 2 * USEC_PER_SEC,
                        [TIMEOUT_DRAIN] = 1 * USEC_PER_SEC,
                },
                .max_request_head = 16 * 1024,
        };
}

void server_init(Server *s, const ServerSettings *settings, const Handler *handler, BoardCell *cell) {
        assert(settings->max_request_head >= SERVER_MIN_HEAD &&
                        settings->max_request_head <= SERVER_MAX_HEAD);

        s->settings = *settings;
        s->handler = *handler;
        s->cell = cell;
        s->draining = false;
        s->n_connections = 0;
        s->n_requests = 0;
        s->now = 0;
        s->now_seconds = 0;
        s->turn_answers = 0;
        s->turn_bytes = 0;
        s->date = (DateCache){ 0 };
        pool_init(&s->pool, MAX(settings->max_request_head + BODY_ROOM, (size_t) 4 * RESPONSE_MAX));
        for (int i = 0; i < _TIMEOUT_MAX; i++)
                list_init(&s->timeouts[i]);
}

void server_done(Server *s) {
        assert(s->n_connections == 0);
        pool_done(&s->pool);
}

void server_set_time(Server *s, uint64_t now_usec, int64_t now_seconds) {
        s->now = now_usec;
        s->now_seconds = now_seconds;
}

void server_arm(Server *s, Timeout *t, TimeoutClass class) {
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

void server_drain(Server *s) {
        if (s->draining)
                return;
        s->draining = true;
        list_foreach_safe (node, &s->timeouts[TIMEOUT_IDLE])
                server_arm(s, list_entry(node, Timeout, node), TIMEOUT_DRAIN);
}

void server_count_connection(Server *s) {
        s->n_connections++;
        atomic_store_explicit(&s->cell->connections, s->n_connections, memory_order_relaxed);
        atomic_store_explicit(&s->cell->accepted,
                        atomic_load_explicit(&s->cell->accepted, memory_order_relaxed) + 1,
                        memory_order_relaxed);
}

void server_uncount_connection(Server *s) {
        assert(s->n_connections > 0);
        s->n_connections--;
        atomic_store_explicit(&s->cell->connections, s->n_connections, memory_order_relaxed);
}

void server_count_request(Server *s) {
        s->n_requests++;
        atomic_store_explicit(&s->cell->requests, s->n_requests, memory_order_relaxed);
}

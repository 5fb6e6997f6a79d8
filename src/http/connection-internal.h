/* SPDX-License-Identifier: MIT */
#pragma once

/* What the connection, its exchange and its sender know of each other. */

#include "http/connection.h"

/* A body of this many bytes that the handler did not want is skipped; past a larger one the connection ends.
 */
#define CONNECTION_SKIP_MAX (64 * 1024)

/* What of a body fits into the buffer stays there, as far as the rest still has so much room. */
#define CONNECTION_BODY_ROOM 4096

/* The deadline belongs to the state and the request: to stay in one does not move it. */
void connection_set_state(Connection *c, ConnectionState to);

/* Only real progress moves the deadline: a byte now and then could hold a connection for ever. */
void connection_progress(Connection *c, size_t n);

/* Something has happened to it, maybe outside of its turn. */
void connection_wake(Connection *c);

/* Makes what this process has of the connection, for connection_open() and adopt_resume(). */
void connection_init(Connection *c, Server *server, int fd);

/* The first byte of what lies in the input from there on, counted from the connection's first one. */
static inline uint64_t connection_offset(const Connection *c, uint32_t at) {
        return c->record->received - (c->record->input_end - at);
}

/* What was put aside of the body is not needed any more. */
void connection_forget_gap(Connection *c);

/* The exchange is over: its head is let go of, what is left of its body is skipped. */
void connection_release_head(Connection *c);

static inline size_t connection_input_size(const Connection *c) {
        return c->record->input_end - c->record->input_start;
}

static inline char *connection_input(const Connection *c) {
        return table_buffer(&c->server->table, c->input);
}

/* The core's end of an exchange: it has been answered, or its client has gone (exchange_lose). */
void exchange_finish(Exchange *x);
void exchange_lose(Exchange *x);

/* Tells the handler that the client has left, once. */
void exchange_tell_gone(Exchange *x);

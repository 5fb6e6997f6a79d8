/* SPDX-License-Identifier: MIT */
#pragma once

/* What a connection sends: a buffer of bytes, then a file, then parts of one with text between them. */

#include <stdbool.h>
#include <stddef.h>

#include "http/connection.h"
#include "http/response.h"

/* Outcome of flushing: the socket's buffer is full, or the turn is over. */
#define SENDER_BLOCKED 1

/* Whether everything is with the kernel. */
bool sender_is_idle(const Connection *c);

/* How many bytes fit behind those that wait. */
size_t sender_room(const Connection *c);

/* Makes sure that there is a buffer with so much room, sending what waits if need be. -ENOMEM: no buffer;
 * -EAGAIN: what waits does not go. */
int sender_prepare(Connection *c, size_t room);

/* There is room for it. */
void sender_put(Connection *c, const void *data, size_t n);

/* Puts the body of an answer behind its head. What is in memory and does not fit becomes a file without a
 * name, so that there is one way in which large answers are sent. */
int sender_put_body(Connection *c, Response *r);

/* Gives to the kernel what it takes. */
int sender_flush(Connection *c);

/* Of a connection that has nothing to send: gives its buffers back. Else it throws away what waits. */
void sender_release(Connection *c);

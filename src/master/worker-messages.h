/* SPDX-License-Identifier: MIT */
#pragma once

/* What a worker says, by whichever way: on its channel, by sd_notify(3), and on the board if it is a native
 * one. It becomes calls of the worker's handlers. A worker gone mad can say anything; what makes no sense in
 * its state is dropped.
 *
 * The messages of the channel, one JSON value a line (see muster/worker.h for the sender's side):
 *   {"cmd":"MUSTER","act":"ready"}
 *   {"cmd":"MUSTER","act":"retire","reason":TEXT} or {"act":"suicide","reason":TEXT}: replace me, then end
 * me
 *   {"cmd":"MUSTER","act":"status","text":TEXT}: for people to read
 * and what it has to say to others (see ipc/forward.h), ready or not; and, from the master,
 * {"cmd":"MUSTER","act":"probe"}, which needs no answer, and whatever others send it.
 */

#include "master/worker.h"

/* The longest message on a worker's channel, and how much more may wait for a worker that does not read than
 * what others send it: the master's own words always have that much room. */
#define WORKER_MESSAGE_MAX FORWARD_MESSAGE_MAX

/* Puts a message on the worker's channel: one JSON value of @n bytes. Returns 0 or 1 when it is on its way,
 * else as muster_channel_send_full(): -ENOBUFS when the worker does not read, -EPIPE when it has closed the
 * channel, or was cut off. */
int worker_send(Worker *w, const char *json, size_t n);

/* The same of what others say: -ENOBUFS comes earlier. */
int worker_send_application(Worker *w, const char *json, size_t n);

/* It has said something of @bytes, or that is copied for others: @n times. When that is too much in a second
 * its channel is not read for the rest of it. */
void worker_charge(Worker *w, uint64_t n, uint64_t bytes);

/* Whether it is time to tell again of what happens again and again, the last time at *@last_usec (0: never).
 */
bool worker_may_log(uint64_t *last_usec);

/* Listens to a worker that is on a loop, or will be. Returns 0 or a negative errno. */
int worker_messages_attach(Worker *w);

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
 * and, from the master, {"cmd":"MUSTER","act":"probe"}, which needs no answer. */

#include "master/worker.h"

/* The longest message on a worker's channel, and how much may wait for a worker that does not read. */
#define WORKER_MESSAGE_MAX (256 * 1024)

/* Listens to a worker that is on a loop, or will be. Returns 0 or a negative errno. */
int worker_messages_attach(Worker *w);

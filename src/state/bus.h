/* SPDX-License-Identifier: MIT */
#pragma once

/* The way from the store of one worker to those of all others, by whoever owns the channel: this process's
 * muster_worker, or muster-worker, into which a module has loaded this library. Messages are objects with
 * "cmd":"MUSTER" and "act":"publish", which the parent forwards as they are to every other worker that is
 * ready and no Node app. One may be lost, as between workers in general; none comes twice.
 *
 * There is one channel in a process, so there is one bus. It belongs to the loop's thread. */

#include <stddef.h>

/* Sends {"cmd":"MUSTER","act":"publish",…} of at most 256 KiB, without a line feed. Returns 0: it is on its
 * way; 1: it waits for room; or a negative errno as muster_channel_send(): -ENOBUFS, too much waits already;
 * -EPIPE, the parent is gone; -EMSGSIZE. -EOPNOTSUPP: this process is no worker. */
int state_bus_send(const char *line, size_t n);

/* @handler is called from the loop with each such message of others; NULL: not any more. May be called
 * before there is a worker. One for the process: the last one counts. */
void state_bus_listen(void (*handler)(const char *json, size_t n));

/*
 * For who owns the channel
 */

/* From here on @send sends lines. */
void bus_attach(int (*send)(const char *line, size_t n, void *userdata), void *userdata);

/* The one with that userdata does so no more. */
void bus_detach(const void *userdata);

/* A message has arrived. */
void bus_deliver(const char *json, size_t n);

/* SPDX-License-Identifier: MIT */
#pragma once

/* Messages for workers of whatever origin: of other workers, or by the control socket. They are passed on as
 * they are. A worker that does not read loses what does not fit into its queue: it holds up nobody, and
 * costs the master no more than that. */

#include "ipc/forward.h"
#include "master/worker.h"

typedef struct Recipients {
        unsigned slot;        /* 0: all; during a replacement a slot may have two */
        const Worker *except; /* NULL: nobody */
        bool without_node;
} Recipients;

/* Told of each worker that cannot be sent it; a negative errno as of worker_send_application(). */
typedef void (*ForwardFailureHandler)(Worker *to, int error, void *userdata);

/* Sends @json to those of the @workers that are ready. @handler may be NULL. Returns how many have it. */
unsigned forward_deliver(const List *workers, const Recipients *recipients, const char *json, size_t n,
                ForwardFailureHandler handler, void *userdata);

/* Carries out what @from, in whatever state, has asked for. What cannot be is counted and logged. */
void forward_from_worker(Worker *from, const Forward *f, const List *workers);

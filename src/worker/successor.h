/* SPDX-License-Identifier: MIT */
#pragma once

/* The take-over: what a process does that has the descriptors and the records of one that has died. It
 * comes in parts, as the app is opened in between: with nothing left open of what the dead one had, and
 * before any connection is gone on with. This process may die at any point of it, and the next one begins
 * again. */

#include <stdint.h>

#include "http/server.h"
#include "worker/acceptor.h"
#include "worker/inheritance.h"

typedef struct Successor {
        Inheritance *in; /* borrowed */
        unsigned n;      /* all numbers are below; one bit for each of them: */
        uint64_t *open;
        uint64_t *needed; /* files from which is sent, of which those who send get descriptors of their own
                           */
        uint64_t *fresh;  /* connections that were not recorded yet, or not any more */
} Successor;

/* Finds out what became of everything, closes what nobody needs, and makes the table's memory spare that
 * nobody uses. Failures are logged, but successor_done() is due all the same. */
int successor_init(Successor *s, Inheritance *in);
void successor_done(Successor *s);

/* Gives the connections to the server. Those that are in the middle of something are runnable then, and
 * epoll may know them or not. */
void successor_adopt(Successor *s, Server *server);

/* The rest, by the acceptor's callback: an app may be called by that. */
void successor_add_fresh(Successor *s, Acceptor *acceptor);

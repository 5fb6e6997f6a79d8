/* SPDX-License-Identifier: MIT */
#pragma once

/* The outer loop of a native worker: raw epoll over listeners and connections. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "board/board.h"
#include "http/server.h"
#include "worker/acceptor.h"
#include "worker/inheritance.h"
#include "worker/log-writer.h"
#include "worker/successor.h"

typedef struct Loop {
        Inheritance *in; /* borrowed, with all that it has */
        int epoll_fd;    /* its, as the next two */
        const Board *board;
        BoardCell *cell;
        Area *area;           /* likewise; NULL: nobody takes over when this process dies */
        Successor *successor; /* borrowed; NULL: nothing is taken over */
        int signal_fd;
        Acceptor acceptor;
        uint64_t leave_at;    /* number of answers; UINT64_MAX: never, or it has been said */
        uint64_t end_at;      /* of a drain that nobody watches over; else USEC_INFINITY */
        LogWriter *log;       /* borrowed; NULL: there is none */
        uint64_t no_proxy_at; /* of the last word about a connection that was no proxy's */
        Server server;

        /* Called once, when it begins to drain; NULL: nobody wants to know. */
        void (*on_drain)(void *userdata);
        void *drain_userdata;
} Loop;

/* Blocks SIGTERM, which is the order to drain and comes in as an event like any other, and ignores what must
 * not end a worker. To be called first of all. */
void loop_block_signals(void);

/* Listens on the descriptors of the inheritance. @successor: has found out what another process has left
 * behind; NULL: there was none. Failures are logged. */
int loop_init(Loop *l, Inheritance *in, Successor *successor, const Handler *handler);
void loop_done(Loop *l);

/* Every exchange that is over is told to @log, which must outlive the loop. */
void loop_set_log(Loop *l, LogWriter *log);

/* Says on the board that it is ready, and serves until it was told to drain (by SIGTERM, or by the end of
 * the channel) and all connections are closed. Every turn beats on the board; an idle loop makes none by
 * itself. After Options.max_requests answers it says there that it wants to leave, and serves on until it is
 * told to drain. Failures are logged; that the last listener is broken is one, and -ESTALE: the module has
 * ended its event loop. */
int loop_run(Loop *l);

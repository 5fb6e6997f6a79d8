/* SPDX-License-Identifier: MIT */
#pragma once

/* What all connections of one worker share: settings, buffers, time, the order of deadlines, the counters on
 * the board. */

#include <stdbool.h>
#include <stdint.h>

#include "basic/list.h"
#include "board/board.h"
#include "http/date.h"
#include "http/exchange.h"
#include "http/table.h"

/* Every class has one constant time-out, so that a list in the order of arming is in the order of deadlines
 * as well. */
typedef enum TimeoutClass {
        TIMEOUT_IDLE,    /* nothing of a request is there: the connection is closed without a word */
        TIMEOUT_REQUEST, /* from the first byte of a head to its last: 408 */
        TIMEOUT_BODY,    /* from one SERVER_PROGRESS of a body to the next */
        TIMEOUT_ANSWER,  /* for the handler to begin its answer, or to go on with the body; 0: for ever */
        TIMEOUT_SEND,    /* from one SERVER_PROGRESS of an answer to the next: reset */
        TIMEOUT_LINGER,  /* for the client to read the last answer and to close */
        TIMEOUT_DRAIN,   /* what an idle connection gets for one more request when the worker retires */
        _TIMEOUT_MAX,
} TimeoutClass;

/* A client that takes or sends less than this in a time-out is as good as gone. */
#define SERVER_PROGRESS 16384

#define SERVER_MIN_HEAD 1024
#define SERVER_MAX_HEAD (1024 * 1024)

typedef struct Timeout {
        List node;
        uint64_t deadline;
} Timeout;

typedef struct ServerSettings {
        uint64_t timeout_usec[_TIMEOUT_MAX];
        size_t max_request_head;
        uint64_t max_body;      /* that a handler is given */
        unsigned n_descriptors; /* the numbers of connections are below it */
        bool proxy_protocol;    /* connections begin with a header of it */
} ServerSettings;

struct Server {
        ServerSettings settings;
        Handler handler;
        /* Called for each exchange that is over, with what was sent; NULL: nobody wants to know. */
        void (*log)(void *userdata, const Exchange *x);
        void *log_userdata;
        /* Called for a connection that does not begin as a proxy's must, with the reason; NULL likewise. */
        void (*on_no_proxy)(void *userdata, const char *reason);
        void *no_proxy_userdata;

        bool alone; /* nobody takes over: nothing is kept for that */

        /* Called for a request that is not run again: with 500, as it killed so many processes, with 503, as
         * it may have had its effect. NULL likewise. */
        void (*on_refused)(void *userdata, const Exchange *x, unsigned status);
        void *refused_userdata;

        BoardCell *cell; /* borrowed; written by this process alone */
        bool draining;   /* every answer closes its connection */
        bool ending;     /* connections are closed by force: the process ends */
        unsigned n_connections;
        uint64_t n_requests;
        uint64_t now; /* monotonic, as of the last server_set_time() */
        int64_t now_seconds;
        DateCache date;

        Table table;
        Connection *connections; /* by descriptor, as in the table */
        unsigned n_opened;       /* the numbers of all that were ever open are below it */
        Exchange *spare_exchanges;
        unsigned n_spare_exchanges;
        List timeouts[_TIMEOUT_MAX];
        List runnable;

        /* The connection that is being dealt with, and what is left of its turn. */
        Connection *current;
        unsigned turn_answers;
        size_t turn_bytes;
};

/* For the settings that nobody sets otherwise. */
void server_settings_init(ServerSettings *settings);

/* Makes a table for these settings. -ENOMEM: there is no room for it. */
int server_init_table(const ServerSettings *settings, Table *ret);

/* Borrows the memory of a table that was made for the same settings. -ENOMEM. */
int server_init(Server *s, const ServerSettings *settings, const Handler *handler, BoardCell *cell,
                const Table *table);
void server_done(Server *s); /* all connections are done */

/* Both clocks, once per turn of the loop. */
void server_set_time(Server *s, uint64_t now_usec, int64_t now_seconds);

/* A time-out of 0 is none. */
void server_arm(Server *s, Timeout *t, TimeoutClass class);
void server_disarm(Timeout *t);

/* When the loop must come back at the latest; USEC_INFINITY while there is nothing to wait for. Rounded up,
 * so that deadlines close to each other share a wake-up. */
uint64_t server_next_deadline(const Server *s);

/* One whose deadline is over, NULL when there is none (left). It is in no list any more. */
Timeout *server_next_expired(Server *s);

/* A connection to which something happened outside of its turn, such as a late answer: to be dealt with by
 * connection_ready() before the loop waits again. NULL when there is none (left). */
Connection *server_next_runnable(Server *s);

bool server_has_runnable(const Server *s);

/* The open connection of the lowest number from @from on; NULL when there is none. */
Connection *server_next_connection(Server *s, unsigned from);

/* From here on connections close after their next answer, idle ones have TIMEOUT_DRAIN left. */
void server_drain(Server *s);

/* Bookkeeping of connections and answers, here and on the board. */
void server_count_connection(Server *s);
void server_adopt_connection(Server *s); /* that was counted by another process before */
void server_uncount_connection(Server *s);
uint64_t server_count_request(Server *s); /* returns its number */

/* NULL when there is no memory. The request in it is not initialised. */
Exchange *server_take_exchange(Server *s);
void server_give_exchange(Server *s, Exchange *x);

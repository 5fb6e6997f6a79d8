/* SPDX-License-Identifier: MIT */
#pragma once

/* What all connections of one worker share: settings, buffers, time, the order of deadlines, the counters on
 * the board. */

#include <stdbool.h>
#include <stdint.h>

#include "basic/list.h"
#include "board/board.h"
#include "http/date.h"
#include "http/handler.h"
#include "http/pool.h"

/* Every class has one constant time-out, so that a list in the order of arming is in the order of deadlines
 * as well. */
typedef enum TimeoutClass {
        TIMEOUT_IDLE,    /* nothing of a request is there: the connection is closed without a word */
        TIMEOUT_REQUEST, /* from the first byte of a request to its last: 408 */
        TIMEOUT_SEND,    /* from one SERVER_SEND_PROGRESS of an answer to the next: reset */
        TIMEOUT_LINGER,  /* for the client to read the last answer and to close */
        TIMEOUT_DRAIN,   /* what an idle connection gets for one more request when the worker retires */
        _TIMEOUT_MAX,
} TimeoutClass;

/* A client that takes less than this in a send time-out is as good as gone. */
#define SERVER_SEND_PROGRESS 16384

#define SERVER_MIN_HEAD 1024
#define SERVER_MAX_HEAD (1024 * 1024)

typedef struct Timeout {
        List node;
        uint64_t deadline;
} Timeout;

typedef struct ServerSettings {
        uint64_t timeout_usec[_TIMEOUT_MAX];
        size_t max_request_head;
} ServerSettings;

typedef struct Server {
        ServerSettings settings;
        Handler handler;
        BoardCell *cell; /* borrowed; written by this process alone */
        bool draining;   /* every answer closes its connection */
        unsigned n_connections;
        uint64_t n_requests;
        uint64_t now; /* monotonic, as of the last server_set_time() */
        int64_t now_seconds;
        Pool pool;
        DateCache date;
        List timeouts[_TIMEOUT_MAX];

        /* Of the request that is being answered: one at a time, so one will do. */
        HttpRequest request;
        Response response;

        /* What is left of the turn of the connection that is being dealt with. */
        unsigned turn_answers;
        size_t turn_bytes;
} Server;

/* For the settings that nobody sets otherwise. */
void server_settings_init(ServerSettings *settings);

void server_init(Server *s, const ServerSettings *settings, const Handler *handler, BoardCell *cell);
void server_done(Server *s); /* all connections are done */

/* Both clocks, once per turn of the loop. */
void server_set_time(Server *s, uint64_t now_usec, int64_t now_seconds);

void server_arm(Server *s, Timeout *t, TimeoutClass class);

/* When the loop must come back at the latest; USEC_INFINITY while there is nothing to wait for. Rounded up,
 * so that deadlines close to each other share a wake-up. */
uint64_t server_next_deadline(const Server *s);

/* One whose deadline is over, NULL when there is none (left). It is in no list any more. */
Timeout *server_next_expired(Server *s);

/* From here on connections close after their next answer, idle ones have TIMEOUT_DRAIN left. */
void server_drain(Server *s);

/* Bookkeeping of connections and answers, here and on the board. */
void server_count_connection(Server *s);
void server_uncount_connection(Server *s);
void server_count_request(Server *s);

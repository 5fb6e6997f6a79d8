/* SPDX-License-Identifier: MIT */
#pragma once

/* What becomes of each descriptor and each connection of a worker that has died: its successor finds out
 * which numbers are open, what it needs to know of each, and decides. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* What the record of a number says. */
typedef enum Standing {
        STANDING_FREE,    /* nothing */
        STANDING_IDLE,    /* a connection between two requests */
        STANDING_WORKING, /* a connection in the middle of something */
        STANDING_CLOSING, /* the connection was about to be closed: the number may be that of anything by now
                           */
        _STANDING_MAX,
} Standing;

typedef enum Fate {
        FATE_NOTHING, /* there is nothing */
        FATE_FORGET,  /* free the record; a descriptor of that number is not its, and stays */
        FATE_KEEP,    /* a descriptor without a record stays */
        FATE_LEAVE,   /* a connection of which epoll knows what it waits for: its next event finds it */
        FATE_RESUME,  /* a connection in the middle of something, or nobody knows */
        FATE_ADOPT,   /* a connection that was not recorded yet: ours, if no other worker has claimed it */
        FATE_CLOSE,   /* the descriptor, then free the record, if there is one */
} Fate;

typedef struct Finding {
        Standing standing;
        bool busy;      /* the record's: somebody was at it, and what epoll knows of it may not hold */
        bool is_open;   /* the descriptor */
        bool is_kept;   /* it is the keeper's */
        bool is_needed; /* an answer is still to be sent from it */
        bool is_client; /* sweep_is_client(); may be unset while sweep_must_ask() says so */
} Finding;

/* Pure. Whether the decision hangs on is_client, which costs system calls. */
bool sweep_must_ask(const Finding *f);

/* Pure. */
Fate sweep_decide(const Finding *f);

/* All numbers of open descriptors are below the size of the kernel's table, whatever the limit is. Needs
 * /proc: negative errno. */
int sweep_get_table_size(void);

/* Bits for the numbers below @n_descriptors (basic/bitmap.h). */
int sweep_find_open(unsigned n_descriptors, uint64_t *ret_open);

/* The addresses of listeners, by which the connections that they accepted are known from others. */
typedef struct SweepListener {
        struct sockaddr_storage address;
        socklen_t size;
} SweepListener;

int sweep_listener_init(SweepListener *l, int listen_fd);

/* A connected stream socket that one of the listeners has accepted. What is reset is none any more. Takes
 * any descriptor. */
bool sweep_is_client(int fd, const SweepListener *listeners, unsigned n_listeners);

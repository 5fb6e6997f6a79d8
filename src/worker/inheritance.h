/* SPDX-License-Identifier: MIT */
#pragma once

/* What all processes have that serve for one worker one after the other: made before the first of them is
 * cloned, at the same address and with the same numbers in all of them. */

#include "board/board.h"
#include "http/server.h"
#include "http/table.h"
#include "twin/area.h"
#include "worker/acceptor.h"
#include "worker/options.h"

typedef struct Inheritance {
        const Board *board; /* borrowed, as are the next three */
        BoardCell *cell;
        const Identity *identity;
        const Options *options;
        ServerSettings settings; /* that the table is made for */
        Table table;
        Acceptor acceptor; /* without a server yet */
        int epoll_fd;
        int channel_fd; /* to the master; -EBADF: there is none, or its end has come */
        Area *area;     /* NULL: nobody takes over */
} Inheritance;

#define INHERITANCE_NULL \
        { .epoll_fd = -EBADF, .channel_fd = -EBADF }

/* Listens to nothing yet. Takes over the channel, unless @channel_fd is -EBADF. Failures are logged, but
 * inheritance_done() is due all the same. */
int inheritance_init(Inheritance *in, const Board *board, BoardCell *cell, const Identity *identity,
                const Options *options, int channel_fd);
void inheritance_done(Inheritance *in); /* but for the area, which is the keeper's, too */

/* There will be no other process, for want of something. */
void inheritance_forgo_twin(Inheritance *in);

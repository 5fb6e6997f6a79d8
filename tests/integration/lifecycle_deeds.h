/* SPDX-License-Identifier: MIT */
#pragma once

/* What lifecycle_worker can be told to do, and the ways in which it speaks to its master. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ANSWER_MAX 1024

/* BoardState of src/board/board.h, read by the other side of the memory: the numbers are the interface. */
enum { STATE_STARTING, STATE_READY, STATE_DRAINING, STATE_LEAVING, STATE_SERVING };

/* BoardCell, likewise. */
typedef struct Cell {
        _Atomic uint32_t state;
        _Atomic uint32_t connections;
        _Atomic uint64_t accepted;
        _Atomic uint64_t requests;
        _Atomic uint64_t beats;
} Cell;

#define CELL_SIZE 1024

/* This process. */
typedef struct Self {
        unsigned worker;
        unsigned generation;
        int channel_fd; /* -1: none, or closed */
        int bell_fd;
        Cell *cell;                    /* the board's, or a private one without a board */
        uint64_t messages;             /* lines that arrived on the channel */
        char received[ANSWER_MAX / 2]; /* the last of them */
        bool deaf;                     /* reads nothing from it */
        bool stubborn;                 /* SIGTERM is not heard */
        bool beating;                  /* says WATCHDOG=1 */
} Self;

extern Self self;

typedef struct Deed {
        const char *path;
        bool deadly; /* the answer is sent first, unless the query is "silent" */
        /* @text: the query, percent-decoded. @answer: ANSWER_MAX bytes for the body, which is empty. */
        void (*run)(const char *query, const char *text, char *answer);
} Deed;

/* NULL: there is none. */
const Deed *deed_find(const char *path);
void deed_run(const Deed *deed, const char *query, char *answer);

/* The number after "NAME=" in a query or a mode, or @otherwise. */
unsigned long number_of(const char *query, const char *name, unsigned long otherwise);

void tell_state(uint32_t state);
void tell_channel(const char *line);
/* Sends a message to $NOTIFY_SOCKET, with a descriptor if that is not -1. */
bool tell_notify(const char *text, int fd);
/* @kind: as the query of /fork. */
void start_grandchild(const char *kind, char *answer);

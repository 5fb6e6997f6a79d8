/* SPDX-License-Identifier: MIT */
#pragma once

/* The scoreboard: shared memory in which native workers count and from which the master reads.
 *
 * The master makes it (a sealed memfd, so that no worker can shrink it under the others) and every native
 * worker maps it. It is an array of cells; a worker process gets one cell for its life, so that the old and
 * the new worker of one slot never write to the same one. Only its worker writes a cell while it lives (but
 * for BOARD_DISMISSED), everybody reads. A worker gone mad can write anything here: readers treat what they
 * find as a claim, never as an index, a length or a pointer.
 *
 * In a slot with a keeper (see muster-worker's src/twin) the cell is the slot's for the keeper's life: the
 * worker, and who takes over from it, count on in it, and the keeper tells there who they are and who died.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "board/claims.h"

#define BOARD_CELLS       1024
#define BOARD_SEATS       64
#define BOARD_REASON_SIZE 184
#define BOARD_DEATHS      4

/* How a native worker finds its board: descriptor numbers and the cell's index, in its environment. */
#define BOARD_ENV_FD      "MUSTER_BOARD_FD"
#define BOARD_ENV_BELL_FD "MUSTER_BELL_FD"
#define BOARD_ENV_CELL    "MUSTER_BOARD_CELL"

/* Likewise the inboxes of the slots, by which workers hand connections to each other: "FIRST:COUNT", the
 * numbers of the descriptors; of each slot, from the first one on, the end to receive from and the end to
 * send to. */
#define BOARD_ENV_INBOX_FDS "MUSTER_INBOX_FDS"

/* And the control groups, if the worker has its own, that its two processes are to be in, one each: "A:B",
 * descriptors of the directories. */
#define BOARD_ENV_TWIN_CGROUP_FDS "MUSTER_TWIN_CGROUP_FDS"

typedef enum BoardState {
        BOARD_STARTING,  /* also what a fresh cell holds */
        BOARD_READY,     /* accepts connections */
        BOARD_DRAINING,  /* finishes what is open */
        BOARD_LEAVING,   /* serves as if it were ready, and asks to be replaced first and then sent away */
        BOARD_SERVING,   /* takes its first clients, and says READY after them */
        BOARD_DISMISSED, /* the master's word: it is not needed, and is killed; it must take no client */
        _BOARD_STATE_MAX,
} BoardState;

/* A process of a slot with a keeper that died, and from which another took over. */
typedef struct BoardDeath {
        int32_t pid;
        int32_t status;                 /* as wait() gives it */
        char reason[BOARD_REASON_SIZE]; /* its last words; "": none */
} BoardDeath;

typedef struct BoardCell {
        _Atomic uint32_t state;         /* BoardState */
        _Atomic uint32_t connections;   /* open now */
        _Atomic uint64_t accepted;      /* connections since the start */
        _Atomic uint64_t requests;      /* answered since the start */
        _Atomic uint64_t beats;         /* signs of life; one that stays silent when it is probed hangs */
        char reason[BOARD_REASON_SIZE]; /* why the worker gives up, written before it exits; may lack its NUL
                                         */
        _Atomic int32_t worker_pid;     /* of a slot with a keeper: who serves; 0: nobody */
        _Atomic int32_t twin_pid;       /* who would take over; 0: nobody */
        _Atomic uint32_t takeovers;     /* completed */
        _Atomic uint32_t n_deaths;      /* that were taken over; the next one goes to [n % BOARD_DEATHS] */
        BoardDeath deaths[BOARD_DEATHS];
} __attribute__((aligned(1024))) BoardCell;

/* How the workers that share listening sockets find out which of them should have the next connection: a
 * seat for each of the first slots, in which the worker sits that accepts for the slot. All of them write
 * here. Times are CLOCK_MONOTONIC in microseconds; 0: it is not so. */
typedef struct BoardSeat {
        _Atomic uint32_t owner;         /* the index of the worker's cell + 1; 0: the seat is empty */
        _Atomic uint32_t in_flight;     /* connections that siblings hand to it and that it has not taken */
        _Atomic uint64_t busy_since;    /* it does not wait for events */
        _Atomic uint64_t pending_since; /* something is in its inbox */
} __attribute__((aligned(64))) BoardSeat;

typedef struct Board {
        int fd;              /* the memfd */
        int bell_fd;         /* an eventfd, rung by a worker whose state changed; the master listens to it */
        BoardCell *cells;    /* BOARD_CELLS of them, mapped shared; pages that nobody touched cost nothing */
        BoardSeat *seats;    /* BOARD_SEATS of them, behind the cells */
        BoardClaims *claims; /* of connections that are handed over, behind the seats */
} Board;

#define BOARD_NULL \
        { .fd = -EBADF, .bell_fd = -EBADF }

/* The master's side: makes the memory and the bell. */
int board_init(Board *b);

/* The worker's side: maps the board that the descriptors in the environment name. -ENXIO: the environment
 * names none, -EINVAL: it is malformed. @ret_cell is this worker's own. The descriptors get O_CLOEXEC. */
int board_init_from_environment(Board *b, BoardCell **ret_cell);

void board_done(Board *b);

/* Empties a cell before it is given to a new worker. */
void board_cell_reset(BoardCell *c);

/* Sets the state and rings the bell. The bell counts no rings: of states that follow each other quickly the
 * reader may see the last one alone. */
void board_cell_set_state(const Board *b, BoardCell *c, BoardState state);

/* STARTING ends in one of two ways, and either side learns which: the worker takes clients, or the master
 * ends it without any loss. Both return whether it went their way. No bell. */
bool board_cell_begin(BoardCell *c);
bool board_cell_dismiss(BoardCell *c);

/* A sign of life, for the worker alone: there is one writer, so that nothing has to be locked. No bell. */
void board_cell_beat(BoardCell *c);
uint64_t board_cell_get_beats(const BoardCell *c);

/* Leaves the reason of a failure where the master finds it after the exit. Cut to what fits. */
void board_cell_set_reason(BoardCell *c, const char *reason);

/* Copies the reason as printable text: what is not printable ASCII or UTF-8 becomes '?'. Empty if there is
 * none. */
void board_cell_get_reason(const BoardCell *c, char ret[static BOARD_REASON_SIZE]);

/* Of a slot with a keeper, by the keeper and the one that serves. None of them rings the bell. */
void board_cell_set_worker(BoardCell *c, pid_t pid);
void board_cell_set_twin(BoardCell *c, pid_t pid);
void board_cell_add_takeover(BoardCell *c);

/* A death that is taken over: takes the reason along that the dead one left, and clears it for the next. For
 * the keeper alone. */
void board_cell_add_death(BoardCell *c, pid_t pid, int status);

/* The death of this number, from 0 on; the reason made printable, as board_cell_get_reason() does. False: it
 * has not been yet, or is overwritten; the last BOARD_DEATHS - 1 are there, as the keeper may be writing. */
bool board_cell_get_death(const BoardCell *c, uint32_t number, BoardDeath *ret);

/* The worker of @cell is not there any more: the seat is free in which it sits, if it does. */
void board_clear_seat(const Board *b, const BoardCell *cell);

/* Wakes the master up: it looks at all cells. */
void board_ring(const Board *b);

/* Waits until the bell rings, at most @timeout_msec. */
void board_bell_wait(const Board *b, int timeout_msec);

/* Silences the bell after it woke the reader up. */
void board_bell_clear(const Board *b);

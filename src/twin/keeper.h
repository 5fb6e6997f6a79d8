/* SPDX-License-Identifier: MIT */
#pragma once

/* The process that keeps the descriptors of a worker: it clones who serves and who waits to take over, and
 * does nothing else, so that nothing in it can fail. */

#include <sys/types.h>

#include "board/board.h"
#include "twin/area.h"

/* Of the children's limit of descriptors, below its own: a new process takes one of the keeper. */
#define KEEPER_DESCRIPTORS 8

typedef enum KeeperRole {
        KEEPER_FIRST,     /* in a child: serve */
        KEEPER_SUCCESSOR, /* in a child: take over from one that has died, and serve */
        KEEPER_OVER,      /* in the keeper: nobody serves any more */
} KeeperRole;

/* Keeps the descriptors that are open by now, and clones. Of the master come SIGTERM, which retires, and
 * SIGABRT, the watchdog's. All signals that matter are blocked meanwhile; in the children the mask is as
 * before. Who serves calls area_tell_served(); nobody waits for the end of one that has not yet.
 *
 * Nothing else may open or close descriptors before that but who serves, and nothing in the keeper may at
 * all, not even a log.
 *
 * Returns a role; for KEEPER_OVER @ret_status has the wait status of the last one that served. Or a negative
 * errno, when nobody has been cloned: -EOPNOTSUPP, the kernel does not say where the thread's number lies
 * (prctl(2), PR_GET_TID_ADDRESS). */
int keeper_run(Area *area, const Board *board, BoardCell *cell, pid_t master, int *ret_status);

/* Ends this process in the way of that status. */
_Noreturn void keeper_exit(int status);

/* SPDX-License-Identifier: MIT */
#pragma once

/* What the keeper, the worker that serves and the twin that waits know of each other: memory that all of
 * them share, made before the first of them is cloned. Whoever dies leaves it behind as it was. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Who serves, who waits, and who has just died and is still looked at. */
#define AREA_SLOTS 4

typedef struct AreaSlot {
        _Atomic int32_t pid;   /* 0: the slot is free */
        _Atomic int32_t pidfd; /* stored by the kernel before the number is open; -1: none */
} AreaSlot;

#define AREA_RUNNING_APP UINT32_MAX

typedef struct Area {
        _Atomic uint32_t serving;  /* term << 16 | slot: who may touch connections */
        _Atomic uint32_t retiring; /* nobody takes over any more */
        _Atomic uint32_t orphaned; /* the master has gone */
        _Atomic uint32_t served; /* how often somebody has begun to serve: after that a death is taken over …
                                  */
        _Atomic uint32_t settled; /* … and the value of serving then */
        _Atomic uint32_t buried;  /* of those that served: dead, with all processes that they had started */
        _Atomic uint32_t running; /* descriptor + 1 of the connection whose request is being handled;
                                   * AREA_RUNNING_APP: what the app has put on its loop; 0: neither */
        _Atomic uint32_t crash;   /* the signal of which the worker knows that it dies; 0: none */
        _Atomic uint32_t line_begun; /* what comes next on the channel may be the rest of a line */
        uint64_t boot;               /* random: by it requests differ from those of other keepers */
        uint64_t next_connection;    /* for who serves */
        AreaSlot slots[AREA_SLOTS];
        int bell_fd;            /* an eventfd: the keeper is to look at this … */
        int retire_fd;          /* … and one that is readable for ever once nobody takes over any more */
        unsigned n_descriptors; /* all numbers are below */
        uint64_t kept[];        /* bits: open before anybody was cloned, and nobody's to close */
} Area;

/* NULL: there is no memory, or no descriptor. */
Area *area_new(unsigned n_descriptors);

/* Of a keeper that has no children. */
Area *area_free(Area *a);

/* Notes all descriptors that are open. */
int area_keep_open(Area *a);

/* It is kept, or names a process of a slot. */
bool area_keeps(const Area *a, int fd);

/* From here on nobody takes over: to be called before whoever serves is told. */
void area_retire(Area *a, bool orphaned);

/* Who serves has got so far that its death is worth a successor. */
void area_tell_served(Area *a);

/* Waits until what the one before this has left behind, other than descriptors, is gone. */
void area_wait_for_burial(Area *a);
void area_tell_burial(Area *a); /* by the keeper, for each one that served */

static inline unsigned area_slot(uint32_t serving) {
        return serving % AREA_SLOTS;
}

/* How many have served before. */
static inline uint16_t area_term(uint32_t serving) {
        return (uint16_t) (serving >> 16);
}

static inline uint32_t area_successor(uint32_t serving, unsigned slot) {
        return (uint32_t) (area_term(serving) + 1) << 16 | slot;
}

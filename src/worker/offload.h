/* SPDX-License-Identifier: MIT */
#pragma once

/* Threads for work that blocks. Work waits in one queue, threads are started when it would have to wait for
 * longer, and what is done comes back to the loop's thread by an eventfd. */

#include <pthread.h>
#include <stdbool.h>

#define OFFLOAD_THREADS_MAX 64

typedef void (*OffloadHandler)(void *userdata);

typedef struct OffloadJob {
        OffloadHandler work, done;
        void *userdata;
        struct OffloadJob *next;
} OffloadJob;

/* First in, first out. */
typedef struct OffloadQueue {
        OffloadJob *first, **last;
        unsigned n;
} OffloadQueue;

typedef struct Offload {
        int fd; /* readable: some work is done */
        unsigned max_threads, max_waiting;
        OffloadHandler begin; /* called by every thread at its start; may be NULL */

        /* What follows is the lock's, which outlives the end: others may be about to take it. */
        pthread_mutex_t lock;
        pthread_cond_t more; /* there is work, or the end */
        OffloadQueue waiting, done;
        unsigned n_threads, n_idle;
        unsigned n_open; /* accepted, and not handed back */
        bool closed;     /* takes nothing more */
        bool ended;      /* threads return */
        pthread_t threads[OFFLOAD_THREADS_MAX];
} Offload;

/* No thread is started yet. */
int offload_init(Offload *o, unsigned max_threads, unsigned max_waiting, OffloadHandler begin);

/* From any thread, also after the end. -EAGAIN: too much waits, or there is no thread; -ESHUTDOWN: it is
 * closed. */
int offload_submit(Offload *o, OffloadHandler work, OffloadHandler done, void *userdata);

/* In the loop's thread, when the descriptor is readable: calls done() of what is done. */
void offload_dispatch(Offload *o);

/* Takes nothing more, does what was accepted, and ends the threads. Waits for that. */
void offload_done(Offload *o);

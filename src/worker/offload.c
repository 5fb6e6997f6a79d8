/* SPDX-License-Identifier: MIT */
/* Threads for work that blocks; see offload.h. */

#include "worker/offload.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"

static void queue_init(OffloadQueue *q) {
        *q = (OffloadQueue){ .last = &q->first };
}

static void queue_push(OffloadQueue *q, OffloadJob *job) {
        job->next = NULL;
        *q->last = job;
        q->last = &job->next;
        q->n++;
}

static OffloadJob *queue_pop(OffloadQueue *q) {
        OffloadJob *job = q->first;

        if (!job)
                return NULL;
        q->first = job->next;
        if (!q->first)
                q->last = &q->first;
        q->n--;
        return job;
}

int offload_init(Offload *o, unsigned max_threads, unsigned max_waiting, OffloadHandler begin) {
        *o = (Offload){
                .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                .max_threads = MIN(max_threads, OFFLOAD_THREADS_MAX),
                .max_waiting = max_waiting,
                .begin = begin,
        };
        if (o->fd < 0)
                return -errno;
        queue_init(&o->waiting);
        queue_init(&o->done);
        (void) pthread_mutex_init(&o->lock, NULL);
        (void) pthread_cond_init(&o->more, NULL);
        return 0;
}

/* The lock is held, but for the work itself. */
static void work_off(Offload *o, OffloadJob *job) {
        static const uint64_t one = 1;

        pthread_mutex_unlock(&o->lock);
        job->work(job->userdata);
        pthread_mutex_lock(&o->lock);
        queue_push(&o->done, job);
        if (o->done.n == 1)
                (void) !write(o->fd, &one, sizeof(one)); /* the loop takes all of them at once */
}

static void *thread_main(void *userdata) {
        Offload *o = userdata;
        OffloadJob *job;

        if (o->begin)
                o->begin(NULL);
        pthread_mutex_lock(&o->lock);
        while (!o->ended) {
                job = queue_pop(&o->waiting);
                if (job) {
                        work_off(o, job);
                        continue;
                }
                o->n_idle++;
                pthread_cond_wait(&o->more, &o->lock);
                o->n_idle--;
        }
        pthread_mutex_unlock(&o->lock);
        return NULL;
}

/* Signals are the loop's: a thread starts with the mask of whoever starts it. Those of a fault are left, as
 * one that is blocked would end the process without a word. */
static int start_thread(Offload *o) {
        static const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS };
        char name[16];
        sigset_t all, before;
        int r;

        sigfillset(&all);
        for (size_t i = 0; i < ELEMENTSOF(faults); i++)
                sigdelset(&all, faults[i]);
        (void) pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(o->threads + o->n_threads, NULL, thread_main, o);
        (void) pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r != 0)
                return -r;
        snprintf(name, sizeof(name), "offload-%u", o->n_threads + 1);
        (void) pthread_setname_np(o->threads[o->n_threads], name);
        o->n_threads++;
        return 0;
}

/* The lock is held. Work never waits for a thread that does not exist yet and may. */
static int make_threads(Offload *o) {
        if (o->n_idle > o->waiting.n || o->n_threads == o->max_threads)
                return 0;
        /* With some threads it will be done, if later. */
        return start_thread(o) < 0 && o->n_threads == 0 ? -EAGAIN : 0;
}

static int submit(Offload *o, OffloadJob *job) {
        int r;

        if (o->closed)
                return -ESHUTDOWN;
        if (o->waiting.n >= o->max_waiting)
                return -EAGAIN;
        r = make_threads(o);
        if (r < 0)
                return r;
        queue_push(&o->waiting, job);
        o->n_open++;
        pthread_cond_signal(&o->more);
        return 0;
}

int offload_submit(Offload *o, OffloadHandler work, OffloadHandler done, void *userdata) {
        _cleanup_free_ OffloadJob *job = malloc(sizeof(*job));
        int r;

        if (!job)
                return -ENOMEM;
        *job = (OffloadJob){ .work = work, .done = done, .userdata = userdata };
        pthread_mutex_lock(&o->lock);
        r = submit(o, job);
        pthread_mutex_unlock(&o->lock);
        if (r == 0)
                job = NULL; /* the queue's */
        return r;
}

void offload_dispatch(Offload *o) {
        OffloadQueue done;
        OffloadJob *job;
        uint64_t n;

        (void) !read(o->fd, &n, sizeof(n));
        pthread_mutex_lock(&o->lock);
        done = o->done;
        if (done.n == 0)
                done.last = &done.first;
        queue_init(&o->done);
        o->n_open -= done.n;
        pthread_mutex_unlock(&o->lock);

        while ((job = queue_pop(&done))) {
                if (job->done)
                        job->done(job->userdata);
                free(job);
        }
}

static bool close_and_look(Offload *o) {
        bool open;

        pthread_mutex_lock(&o->lock);
        o->closed = true;
        open = o->n_open > 0;
        pthread_mutex_unlock(&o->lock);
        return open;
}

void offload_done(Offload *o) {
        struct pollfd p = { .fd = o->fd, .events = POLLIN };

        if (o->fd < 0)
                return;
        while (close_and_look(o)) {
                (void) poll(&p, 1, -1);
                offload_dispatch(o);
        }
        pthread_mutex_lock(&o->lock);
        o->ended = true;
        pthread_cond_broadcast(&o->more);
        pthread_mutex_unlock(&o->lock);
        for (unsigned i = 0; i < o->n_threads; i++)
                (void) pthread_join(o->threads[i], NULL);
        pthread_cond_destroy(&o->more);
        o->fd = safe_close(o->fd);
}

/* SPDX-License-Identifier: MIT */
/* A worker's keeper, and who is behind it; see worker-twin.h. */

#include "master/worker-twin.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "basic/clock.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "master/usage.h"
#include "master/worker.h"
#include "muster/process.h"

/* More deaths than this in that time are not told one by one: a worker gone mad may make up any number. */
#define FLOOD_INTERVAL_USEC (1 * USEC_PER_SEC)
#define FLOOD_MAX           100

/* A number on the board is good for nothing unless it is a child of the keeper, which was not reaped. */
static pid_t find_child(const Worker *w, const _Atomic int32_t *number) {
        pid_t pid = atomic_load_explicit(number, memory_order_relaxed), parent;

        if (pid <= 0 || w->pid <= 0)
                return 0;
        return usage_parent(pid, &parent) >= 0 && parent == w->pid ? pid : 0;
}

bool worker_has_keeper(const Worker *w) {
        return w->twin.has_keeper || (w->twin.enabled && find_child(w, &w->cell->worker_pid) > 0);
}

pid_t worker_get_serving_pid(const Worker *w) {
        return worker_has_keeper(w) ? find_child(w, &w->cell->worker_pid) : w->pid;
}

pid_t worker_get_twin_pid(const Worker *w) {
        return worker_has_keeper(w) ? find_child(w, &w->cell->twin_pid) : 0;
}

pid_t worker_get_last_served_pid(const Worker *w) {
        pid_t pid = w->twin.enabled ? atomic_load_explicit(&w->cell->worker_pid, memory_order_relaxed) : 0;

        return pid > 0 ? pid : w->twin.dead_pid;
}

unsigned worker_get_takeovers(const Worker *w) {
        return worker_has_keeper(w) ? atomic_load_explicit(&w->cell->takeovers, memory_order_relaxed) : 0;
}

int worker_get_memory(const Worker *w, uint64_t *ret_bytes) {
        pid_t pid = worker_get_serving_pid(w);

        return usage_memory(pid > 0 ? pid : w->pid, ret_bytes);
}

int worker_get_cpu(const Worker *w, uint64_t *ret_usec) {
        const pid_t others[] = { worker_get_serving_pid(w), worker_get_twin_pid(w) };
        uint64_t sum, usec;
        int r;

        r = usage_cpu(w->pid, &sum); /* with that of the dead, for which it has waited */
        if (r < 0)
                return r;
        for (size_t i = 0; i < ELEMENTSOF(others); i++)
                if (others[i] > 0 && others[i] != w->pid && usage_cpu(others[i], &usec) >= 0)
                        sum += usec;
        *ret_usec = sum;
        return 0;
}

/*
 * Deaths
 */

static bool is_flooding(WorkerTwin *t, uint64_t now_usec) {
        if (now_usec - t->flood_since_usec >= FLOOD_INTERVAL_USEC) {
                t->flood_since_usec = now_usec;
                t->n_flood = 0;
        }
        return ++t->n_flood > FLOOD_MAX;
}

/* The next one that nobody was told of. */
static bool next_death(Worker *w, uint64_t now_usec, BoardDeath *ret) {
        WorkerTwin *t = &w->twin;
        uint32_t n = atomic_load_explicit(&w->cell->n_deaths, memory_order_acquire);

        if (n - t->n_told > BOARD_DEATHS - 1) {
                t->n_untold += n - t->n_told - (BOARD_DEATHS - 1);
                t->n_told = n - (BOARD_DEATHS - 1); /* those before are overwritten */
        }
        while (t->n_told != n) {
                if (is_flooding(t, now_usec)) {
                        t->n_untold += n - t->n_told;
                        t->n_told = n;
                        break;
                }
                if (board_cell_get_death(w->cell, t->n_told++, ret))
                        return true;
                t->n_untold++;
        }
        return false;
}

/* In a flood that waits, too: for the next look after it. */
static void tell_untold(Worker *w, uint64_t now_usec) {
        WorkerTwin *t = &w->twin;

        if (t->n_untold == 0 || is_flooding(t, now_usec))
                return;
        bool one = t->n_untold == 1;
        log_event(LOG_NOTICE, (.worker = w->slot, .generation = w->generation),
                        "%" PRIu64 " more process%s of worker %u %s taken over.", t->n_untold,
                        one ? "" : "es", w->slot, one ? "has died, and was" : "have died, and were");
        t->n_untold = 0;
}

/* Returns false for a status that no process ends with. */
static bool read_status(int status, WorkerDeath *ret) {
        if (WIFEXITED(status)) {
                ret->code = CLD_EXITED;
                ret->status = WEXITSTATUS(status);
        } else if (WIFSIGNALED(status)) {
                ret->code = WCOREDUMP(status) ? CLD_DUMPED : CLD_KILLED;
                ret->status = WTERMSIG(status);
        } else
                return false;
        return true;
}

static void worker_tell_death(Worker *w, const BoardDeath *b, uint64_t now_usec) {
        WorkerTwin *t = &w->twin;
        uint64_t oom_kills = w->cgroup ? cgroup_get_oom_kills(w->cgroup) : 0;
        WorkerDeath d = {
                .pid = b->pid,
                .hung = t->hangs,
                .uptime_usec = now_usec - (t->since_usec > 0 ? t->since_usec : w->started_usec),
        };

        if (!read_status(b->status, &d))
                return;
        d.out_of_memory = d.code == CLD_KILLED && d.status == SIGKILL && !d.hung && oom_kills > t->oom_kills;
        strcpy(d.reason, b->reason);
        t->oom_kills = oom_kills;
        t->dead_pid = b->pid;
        t->since_usec = now_usec;
        t->hangs = false;
        t->patient_until_usec = now_usec + w->start_timeout_usec;
        /* It may have beaten before this is read, and hang again. */
        t->patient_beats = d.hung ? t->aborted_beats : board_cell_get_beats(w->cell);
        worker_probe(w); /* the successor may have begun long ago, and be idle */
        w->environment->handlers.died(w, &d, w->environment->userdata);
        w->triggered = false;
        w->alive_usec = 0; /* it has not promised anything yet */
}

void worker_look_at_twin(Worker *w) {
        uint64_t now_usec;
        BoardDeath b;

        w->twin.has_keeper = worker_has_keeper(w);
        if (!w->twin.has_keeper)
                return;
        now_usec = clock_now_usec();
        while (next_death(w, now_usec, &b))
                worker_tell_death(w, &b, now_usec);
        tell_untold(w, now_usec);
        if (w->twin.retires && worker_get_serving_pid(w) > 0)
                worker_retire(w);
}

bool worker_was_taken_over_from(Worker *w, pid_t pid) {
        worker_look_at_twin(w);
        return w->twin.dead_pid > 0 && w->twin.dead_pid == pid;
}

void worker_retire_successor(Worker *w) {
        w->twin.retires = true; /* the keeper rings when there is one, and it is looked at again */
}

/*
 * The watchdog
 */

/* Each death is followed by a take-over, unless the next one dies in it. */
static uint32_t count_missing(const Worker *w) {
        return atomic_load_explicit(&w->cell->n_deaths, memory_order_relaxed) - worker_get_takeovers(w);
}

/* That it has begun can be told by its take-over, before it beats: it may hang in what it found. When there
 * were others between, which did not get that far, its first beat tells. */
static bool has_begun(WorkerTwin *t, const Worker *w, uint64_t beats) {
        uint32_t n_missing = count_missing(w);

        if (beats == t->patient_beats)
                return n_missing == t->n_lost;
        t->n_lost = n_missing;
        return true;
}

bool worker_is_taken_over(Worker *w, uint64_t now_usec) {
        WorkerTwin *t = &w->twin;
        uint64_t beats = board_cell_get_beats(w->cell);

        if (t->patient_until_usec == 0)
                return false;
        if (now_usec < t->patient_until_usec && (t->hangs || !has_begun(t, w, beats)))
                return true;
        t->patient_until_usec = 0;
        w->heartbeat = (Heartbeat){ .beats = beats, .since_usec = now_usec };
        return false;
}

/* While the death is not told yet the time is that of the dead one, for its end. */
void worker_extend_takeover(Worker *w, uint64_t usec) {
        WorkerTwin *t = &w->twin;

        worker_look_at_twin(w); /* the death came first, though it may not have been seen yet */
        if (t->patient_until_usec > 0 && !t->hangs)
                t->patient_until_usec = MAX(t->patient_until_usec, clock_now_usec() + usec);
}

/* A second one is of no use when there was no sign of life since the first. */
bool worker_abort_serving(Worker *w) {
        WorkerTwin *t = &w->twin;
        uint64_t beats = board_cell_get_beats(w->cell);
        unsigned takeovers = worker_get_takeovers(w);

        if (!t->has_keeper || w->kill != WORKER_KILL_NONE)
                return false;
        if (t->aborted && t->aborted_beats == beats && t->aborted_takeovers == takeovers)
                return false;
        t->aborted = t->hangs = true;
        t->aborted_beats = t->patient_beats = beats;
        t->aborted_takeovers = takeovers;
        t->patient_until_usec = clock_now_usec() + WORKER_ABORT_TIMEOUT_USEC;
        (void) muster_child_kill(w->child, SIGABRT); /* the keeper does as we would; not if it is stopped */
        (void) muster_child_kill(w->child, SIGCONT);
        return true;
}

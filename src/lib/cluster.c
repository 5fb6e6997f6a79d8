/* SPDX-License-Identifier: MIT */
/* A cluster's primary; the contract is in muster/cluster.h, the structure in cluster-internal.h. */

#include "lib/cluster-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/cpu.h"
#include "basic/fd.h"
#include "basic/assert-return.h"
#include "basic/options.h"
#include "lib/string-list.h"

#define WORKERS_MAX 1024
#define NAME_MAX_   255

#define START_TIMEOUT_DEFAULT (10 * USEC_PER_SEC)
#define STOP_TIMEOUT_DEFAULT  (30 * USEC_PER_SEC)
#define BACKOFF_MIN_DEFAULT   (100 * USEC_PER_MSEC)
#define BACKOFF_MAX_DEFAULT   (15 * USEC_PER_SEC)
#define TIMEOUT_LIMIT         (UINT64_MAX / 8)

DEFINE_CLEANUP(muster_cluster, muster_cluster_free)

/* Whether somebody is there to stay, or will be started. */
static bool slot_has_heir(const Slot *slot) {
        if (slot->pause)
                return true;
        list_foreach (node, &slot->workers)
                if (!list_entry(node, muster_cluster_worker, node)->leaving)
                        return true;
        return false;
}

static void slot_pause(Slot *slot, uint64_t usec);

/* From the loop. */
static void slot_start_worker(Slot *slot) {
        muster_cluster *c = slot->cluster;
        int r;

        r = cluster_worker_start(slot, NULL);
        if (r >= 0)
                return;
        uint64_t pause = restart_after_death(
                        &slot->restart, &c->restart, clock_now_usec(), /* lived_usec= */ 0);
        slot_pause(slot, MAX(pause, c->restart.backoff_min_usec));
        if (c->handlers.failed)
                c->handlers.failed(c, slot->id, r, c->userdata);
}

static int on_pause(sd_event_source *source, uint64_t usec, void *userdata) {
        Slot *slot = userdata;

        slot->pause = sd_event_source_disable_unref(slot->pause);
        slot_start_worker(slot);
        return 0;
}

static void slot_pause(Slot *slot, uint64_t usec) {
        /* Without memory for a timer the slot stays empty until its cluster is made anew. */
        (void) sd_event_add_time_relative(slot->cluster->event, &slot->pause, CLOCK_MONOTONIC, usec,
                        clock_accuracy_usec(usec), on_pause, slot);
}

/* Fills the slot after the pause that its history asks for, which is none as a rule: then in the next turn
 * of the loop, as a failure is told by a handler. Returns that pause. */
static uint64_t slot_fill(Slot *slot, uint64_t lived_usec) {
        muster_cluster *c = slot->cluster;

        if (c->stopping || slot_has_heir(slot))
                return 0;
        uint64_t pause = restart_after_death(&slot->restart, &c->restart, clock_now_usec(), lived_usec);
        slot_pause(slot, pause);
        return pause;
}

void slot_lost_worker(muster_cluster_worker *w) {
        w->leaving = true;
        (void) slot_fill(w->slot, clock_now_usec() - w->started_usec);
}

void slot_worker_is_ready(muster_cluster_worker *w) {
        muster_cluster *c = w->slot->cluster;

        list_foreach (node, &w->slot->workers) {
                muster_cluster_worker *other = list_entry(node, muster_cluster_worker, node);

                if (other->leaving)
                        cluster_worker_dismiss(other);
        }
        if (c->handlers.ready)
                c->handlers.ready(c, w, c->userdata);
}

void slot_forward(muster_cluster_worker *from, const Forward *f) {
        muster_cluster *c = from->slot->cluster;

        if (f->refused)
                return; /* there is nobody here who could be told */
        for (unsigned i = 0; i < c->n_slots; i++)
                list_foreach (node, &c->slots[i].workers) {
                        muster_cluster_worker *w = list_entry(node, muster_cluster_worker, node);

                        if (f->act == FORWARD_SEND ? f->slot == c->slots[i].id : w != from)
                                cluster_worker_forward(w, f->message);
                }
}

/* A worker that serves is replaced first; one that does not yet is of no use to anybody. */
static void replace_worker(muster_cluster_worker *w, uint64_t lived_usec) {
        muster_cluster *c = w->slot->cluster;

        w->leaving = true;
        uint64_t pause = slot_fill(w->slot, lived_usec);
        if (w->state == CLUSTER_WORKER_READY)
                cluster_worker_set_leaving(w, pause + c->start_timeout_usec);
        else
                cluster_worker_dismiss(w);
}

void slot_worker_wants_to_go(muster_cluster_worker *w, const char *reason) {
        muster_cluster *c = w->slot->cluster;

        if (w->leaving)
                return;
        if (c->handlers.retiring)
                c->handlers.retiring(c, w, reason, c->userdata);
        if (!w->leaving) /* by the handler */
                replace_worker(w, clock_now_usec() - w->started_usec);
}

_public_ int muster_cluster_worker_retire(muster_cluster_worker *worker) {
        muster_assert_return(worker, -EINVAL);

        /* Not its own wish: that says nothing about its health. */
        if (!worker->leaving)
                replace_worker(worker, RESTART_HEALTHY_USEC);
        return 0;
}

static bool has_workers(const muster_cluster *c) {
        for (unsigned i = 0; i < c->n_slots; i++)
                if (!list_empty(&c->slots[i].workers))
                        return true;
        return false;
}

/* The handler may free the cluster: nothing follows. */
static int on_stopped(sd_event_source *source, void *userdata) {
        muster_cluster *c = userdata;

        c->stopped = sd_event_source_disable_unref(c->stopped);
        if (c->handlers.stopped)
                c->handlers.stopped(c, c->userdata);
        return 0;
}

static int check_stopped(muster_cluster *c) {
        if (!c->stopping || c->stopped || has_workers(c))
                return 0;
        return sd_event_add_defer(c->event, &c->stopped, on_stopped, c);
}

void slot_worker_has_ended(muster_cluster_worker *w, int code, int status) {
        Slot *slot = w->slot;
        muster_cluster *c = slot->cluster;
        uint64_t lived_usec = clock_now_usec() - w->started_usec;

        w->state = CLUSTER_WORKER_RETIRING;
        w->leaving = true;
        if (c->handlers.exit)
                c->handlers.exit(c, w, code, status, c->userdata);
        cluster_worker_free(w);
        (void) slot_fill(slot, lived_usec);
        (void) check_stopped(c);
}

static int copy_cluster_options(muster_cluster *c, const muster_cluster_options *o) {
        int r = 0;

        if (o->program) {
                c->program = strdup(o->program);
                if (!c->program)
                        return -ENOMEM;
        }
        if (o->argv)
                r = string_list_copy(o->argv, &c->argv);
        else if (!o->program)
                r = string_list_of_arguments(&c->argv);
        if (r >= 0 && o->env)
                r = string_list_copy(o->env, &c->env);
        if (r < 0)
                return r;
        c->start_timeout_usec = o->start_timeout_usec ? o->start_timeout_usec : START_TIMEOUT_DEFAULT;
        c->stop_timeout_usec = o->stop_timeout_usec ? o->stop_timeout_usec : STOP_TIMEOUT_DEFAULT;
        c->restart = (RestartPolicy){
                .backoff_min_usec = o->backoff_min_usec ? o->backoff_min_usec : BACKOFF_MIN_DEFAULT,
                .backoff_max_usec = o->backoff_max_usec ? o->backoff_max_usec : BACKOFF_MAX_DEFAULT,
        };
        muster_assert_return(c->restart.backoff_min_usec <= c->restart.backoff_max_usec, -EINVAL);
        return 0;
}

static int make_slots(muster_cluster *c, unsigned n) {
        c->slots = calloc(n, sizeof(*c->slots));
        if (!c->slots)
                return -ENOMEM;
        c->n_slots = n;
        for (unsigned i = 0; i < n; i++) {
                c->slots[i] = (Slot){ .cluster = c, .id = i + 1 };
                list_init(&c->slots[i].workers);
        }
        return 0;
}

static bool options_are_valid(const muster_cluster_options *o) {
        return (!o->program || *o->program) && (!o->argv || o->argv[0]) && o->n_workers <= WORKERS_MAX &&
               o->start_timeout_usec <= TIMEOUT_LIMIT && o->stop_timeout_usec <= TIMEOUT_LIMIT &&
               o->backoff_min_usec <= TIMEOUT_LIMIT && o->backoff_max_usec <= TIMEOUT_LIMIT;
}

_public_ int muster_cluster_new(sd_event *event, const muster_cluster_options *options,
                const muster_cluster_handlers *handlers, void *userdata, muster_cluster **ret) {
        _cleanup_(muster_cluster_freep) muster_cluster *c = NULL;
        muster_cluster_handlers h = MUSTER_CLUSTER_HANDLERS_INIT;
        muster_cluster_options o = MUSTER_CLUSTER_OPTIONS_INIT;
        int r = 0;

        muster_assert_return(event, -EINVAL);
        muster_assert_return(ret, -EINVAL);
        if (options)
                r = options_copy(&o, sizeof(o), options,
                                OPTIONS_SIZE_UP_TO(muster_cluster_options, backoff_max_usec));
        if (r >= 0 && handlers)
                r = options_copy(&h, sizeof(h), handlers,
                                OPTIONS_SIZE_UP_TO(muster_cluster_handlers, stopped));
        if (r < 0)
                return r;
        muster_assert_return(options_are_valid(&o), -EINVAL);

        c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        c->event = sd_event_ref(event);
        c->handlers = h;
        c->userdata = userdata;
        r = copy_cluster_options(c, &o);
        if (r >= 0)
                r = make_slots(c, o.n_workers ? o.n_workers : MIN(cpu_count(), (unsigned) WORKERS_MAX));
        if (r < 0)
                return r;
        *ret = TAKE_PTR(c);
        return 0;
}

/* It travels in a JSON string as it is. */
static bool name_is_valid(const char *name) {
        size_t n = strlen(name);

        for (const char *p = name; *p; p++)
                if (*p < 0x20 || *p > 0x7E || *p == '"' || *p == '\\')
                        return false;
        return n > 0 && n <= NAME_MAX_;
}

static bool is_listening(int fd) {
        int value = 0;
        socklen_t n = sizeof(value);

        return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &n) == 0 && value;
}

_public_ int muster_cluster_add_server(muster_cluster *cluster, const char *name, int fd) {
        _cleanup_close_ int copy = -EBADF;
        int r;

        muster_assert_return(cluster, -EINVAL);
        muster_assert_return(name && name_is_valid(name), -EINVAL);
        if (cluster->started)
                return -EBUSY;
        for (size_t i = 0; i < cluster->n_servers; i++)
                if (strcmp(cluster->servers[i].name, name) == 0)
                        return -EEXIST;
        copy = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        if (copy < 0)
                return -errno;
        muster_assert_return(is_listening(copy), -EINVAL);
        r = fd_set_nonblock(copy, true);
        if (r < 0)
                return r;

        ClusterServer *servers = reallocarray(cluster->servers, cluster->n_servers + 1, sizeof(*servers));
        if (!servers)
                return -ENOMEM;
        cluster->servers = servers;
        char *own_name = strdup(name);
        if (!own_name)
                return -ENOMEM;
        servers[cluster->n_servers++] = (ClusterServer){ own_name, TAKE_FD(copy) };
        return 0;
}

static void free_workers(muster_cluster *c) {
        for (unsigned i = 0; i < c->n_slots; i++)
                list_foreach_safe (node, &c->slots[i].workers)
                        cluster_worker_free(list_entry(node, muster_cluster_worker, node));
}

_public_ int muster_cluster_start(muster_cluster *cluster) {
        int r;

        muster_assert_return(cluster, -EINVAL);
        if (cluster->started)
                return -EALREADY;
        for (unsigned i = 0; i < cluster->n_slots; i++) {
                r = cluster_worker_start(cluster->slots + i, NULL);
                if (r < 0) {
                        free_workers(cluster);
                        return r;
                }
        }
        cluster->started = true;
        return 0;
}

_public_ int muster_cluster_stop(muster_cluster *cluster) {
        muster_assert_return(cluster, -EINVAL);

        if (cluster->stopping)
                return 0;
        cluster->stopping = cluster->started = true;
        for (unsigned i = 0; i < cluster->n_slots; i++) {
                Slot *slot = cluster->slots + i;

                slot->pause = sd_event_source_disable_unref(slot->pause);
                list_foreach (node, &slot->workers)
                        cluster_worker_dismiss(list_entry(node, muster_cluster_worker, node));
        }
        return check_stopped(cluster);
}

_public_ unsigned muster_cluster_get_n_ready(const muster_cluster *cluster) {
        unsigned n = 0;

        for (unsigned i = 0; cluster && i < cluster->n_slots; i++)
                list_foreach (node, &cluster->slots[i].workers)
                        n += list_entry(node, muster_cluster_worker, node)->state == CLUSTER_WORKER_READY;
        return n;
}

_public_ muster_cluster *muster_cluster_free(muster_cluster *cluster) {
        if (!cluster)
                return NULL;
        free_workers(cluster);
        for (unsigned i = 0; i < cluster->n_slots; i++)
                sd_event_source_disable_unref(cluster->slots[i].pause);
        for (size_t i = 0; i < cluster->n_servers; i++) {
                free(cluster->servers[i].name);
                safe_close(cluster->servers[i].fd);
        }
        free(cluster->servers);
        free(cluster->slots);
        sd_event_source_disable_unref(cluster->stopped);
        sd_event_unref(cluster->event);
        free(cluster->program);
        free(cluster->argv);
        free(cluster->env);
        free(cluster);
        return NULL;
}

/* SPDX-License-Identifier: MIT */
#pragma once

/* The inside of a cluster, which is in two parts: cluster.c keeps the slots filled, and is what the
 * application sees; cluster-worker.c is one worker process, from its start to its end.
 *
 * A slot holds one worker, or for the time of a replacement two or more: those that leave, and their heir.
 * Everything that may leave a slot without an heir (a death, a request to go, a lost channel) ends in
 * slot_lost_worker(), which starts one. */

#include <stdbool.h>

#include "basic/list.h"
#include "basic/restart.h"
#include "ipc/forward.h"
#include "muster/cluster.h"

typedef struct Slot Slot;

typedef enum ClusterWorkerState {
        CLUSTER_WORKER_STARTING,
        CLUSTER_WORKER_READY,
        CLUSTER_WORKER_RETIRING, /* it was told to go */
} ClusterWorkerState;

struct muster_cluster_worker {
        List node; /* of the slot */
        Slot *slot;
        muster_child *child; /* counted */
        ClusterWorkerState state;
        bool leaving; /* it is not to stay, told so or not */
        uint64_t started_usec;
        sd_event_source *deadline; /* to be ready, to be replaced, or to have gone */
};

struct Slot {
        muster_cluster *cluster;
        unsigned id;
        List workers;
        Restart restart;
        sd_event_source *pause; /* before the next start, after early deaths; NULL: none */
};

typedef struct ClusterServer {
        char *name;
        int fd;
} ClusterServer;

struct muster_cluster {
        sd_event *event; /* counted */
        muster_cluster_handlers handlers;
        void *userdata;

        char *program; /* NULL: this very one */
        char **argv;
        char **env; /* NULL: this process's, as it is at each start */
        uint64_t start_timeout_usec;
        uint64_t stop_timeout_usec;
        RestartPolicy restart;

        ClusterServer *servers;
        size_t n_servers;
        Slot *slots;
        unsigned n_slots;
        bool started;
        bool stopping;
        sd_event_source *stopped; /* to tell so from the loop */
};

/* Starts a process for the slot, and hands it the servers. */
int cluster_worker_start(Slot *slot, muster_cluster_worker **ret);

/* Sends it away; it is killed when it has not gone in time. */
void cluster_worker_dismiss(muster_cluster_worker *w);

/* Passes on what another one has to say, if this one serves. What finds no room because it does not read is
 * lost to it. */
void cluster_worker_forward(muster_cluster_worker *w, JsonSpan message);

/* It stays until it is replaced, but no longer than that. */
void cluster_worker_set_leaving(muster_cluster_worker *w, uint64_t timeout_usec);

/* Kills what is left of it, at once. */
muster_cluster_worker *cluster_worker_free(muster_cluster_worker *w);

/* From cluster-worker.c: it serves. */
void slot_worker_is_ready(muster_cluster_worker *w);

/* It wants to go, or must: the replacement comes first. */
void slot_worker_wants_to_go(muster_cluster_worker *w, const char *reason);

/* It has something to say to others. */
void slot_forward(muster_cluster_worker *from, const Forward *f);

/* It will be gone soon, or is gone: the slot needs another, unless it has one. */
void slot_lost_worker(muster_cluster_worker *w);

/* It has ended, and is freed by this. */
void slot_worker_has_ended(muster_cluster_worker *w, int code, int status);

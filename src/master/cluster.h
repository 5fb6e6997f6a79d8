/* SPDX-License-Identifier: MIT */
#pragma once

/* The primary of Node's cluster module, for the workers of one app: an unmodified app calls listen(), its
 * worker asks the primary for the socket, and gets either the listening socket itself ("shared") or, one by
 * one, the connections that the primary has accepted ("passed").
 *
 * It is in four parts: cluster.c keeps the sockets that are asked for; cluster-find.c says where a socket
 * comes from: from systemd, or bound as Node would; cluster-worker.c is the conversation with one worker;
 * dispatch.c accepts and passes connections. The words on the wire are those of ipc/cluster-wire.h.
 *
 * A connection that was passed stays open here until the worker has taken it. If that dies before, or
 * refuses it, another one gets it. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <systemd/sd-event.h>

#include "basic/macro.h"
#include "master/balance-policy.h"
#include "master/listener.h"
#include "muster/channel.h"

typedef struct Cluster Cluster;
typedef struct ClusterWorker ClusterWorker;

/* Returns 0 or -ENOMEM. @listeners are borrowed. */
int cluster_new(const Listeners *listeners, Cluster **ret);

/* Without any worker left. */
Cluster *cluster_free(Cluster *c);
DEFINE_CLEANUP(Cluster, cluster_free)

/* Puts it on a loop, before the first worker is watched. */
void cluster_attach(Cluster *c, sd_event *event);

/* How connections are passed from now on, by those workers that are passed any. */
void cluster_set_balance(Cluster *c, Balance balance, bool proxy_protocol);

/* No connection of those that wait here is going to be served: they are closed. */
void cluster_stop(Cluster *c);

/* How many connections were ever accepted here. */
uint64_t cluster_count_accepted(const Cluster *c);

/* What has happened, when a message of a worker says so. */
typedef enum ClusterNews {
        CLUSTER_NO_NEWS,
        CLUSTER_IS_HELD,      /* it has loaded the app and waits in its first listen() */
        CLUSTER_IS_LISTENING, /* its first listen() has succeeded */
        CLUSTER_LEAVES,       /* the app has disconnected its worker */
        CLUSTER_NO_SCRIPT,    /* it speaks as one that was started without a script, for which Node's cluster
                                 does not work */
        CLUSTER_WATCHED,      /* it is "node --watch", and not the app */
} ClusterNews;

/* @slot: 0 for none yet. @passed: it is passed connections, else it gets the listening sockets. @held: its
 * first listen() is not answered until cluster_worker_release(). Returns 0 or -ENOMEM. */
int cluster_worker_new(Cluster *c, unsigned slot, bool passed, bool held, ClusterWorker **ret);

/* The worker's process has ended: what it has not taken goes to others. */
ClusterWorker *cluster_worker_free(ClusterWorker *w);

/* Its channel, with MUSTER_CHANNEL_INTERNAL, is @channel from now on (counted). */
void cluster_worker_attach(ClusterWorker *w, muster_channel *channel);

/* The message is not for the cluster: an outcome for the caller. */
#define CLUSTER_NOT_OURS 1

/* It has said something. Returns 0, CLUSTER_NOT_OURS, or -EBADMSG: it is Node's own and makes no sense. */
int cluster_worker_receive(ClusterWorker *w, const char *json, size_t n, ClusterNews *ret);

/* Connections may come. */
void cluster_worker_set_ready(ClusterWorker *w);

/* Nothing but its listen() is left: they may come before it has said that it listens, as it finds them
 * behind the answer. Not to one that was refused a socket. */
void cluster_worker_expect_ready(ClusterWorker *w);

/* A held one gets the slot, and the answer that it waits for. */
void cluster_worker_release(ClusterWorker *w, unsigned slot);

/* It gets no more connections, and is told to finish what it has, and to disconnect. */
void cluster_worker_disconnect(ClusterWorker *w);

/* It gets no more connections. */
void cluster_worker_close(ClusterWorker *w);

/* Asks for a sign of life, which is no message that the app could see. */
void cluster_worker_ping(ClusterWorker *w);

/* How often it was heard. */
uint64_t cluster_worker_get_heard(const ClusterWorker *w);

/* Whether it was given a listening socket, and so may have accepted whatever it says. */
bool cluster_worker_has_shared(const ClusterWorker *w);

/* Whether it has any. */
bool cluster_worker_has_sockets(const ClusterWorker *w);

/* Whether it has said that it is a worker of a cluster. */
bool cluster_worker_is_online(const ClusterWorker *w);

/* How long its event loop takes to answer, on the average of the last answers; 0: not known yet. */
uint64_t cluster_worker_get_lag_usec(const ClusterWorker *w);

/* How many connections it has taken, and how many are on their way to it. */
uint64_t cluster_worker_get_taken(const ClusterWorker *w);
unsigned cluster_worker_get_in_flight(const ClusterWorker *w);

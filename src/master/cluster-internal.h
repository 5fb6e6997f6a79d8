/* SPDX-License-Identifier: MIT */
#pragma once

/* The inside of the cluster; see cluster.h for its parts. */

#include "basic/list.h"
#include "ipc/cluster-wire.h"
#include "master/cluster.h"
#include "master/proxy-reader.h"

/* So many connections may be on their way to one worker. The queue is the kernel's. */
#define CLUSTER_WINDOW 16

/* So many may wait here for a worker: those that came back, and those whose worker is chosen by their
 * address. */
#define CLUSTER_WAITING_MAX 1024

/* So many may be awaited that have not said yet whose they are, and for how long (proxy_protocol). */
#define CLUSTER_PROXIES_MAX        1024
#define CLUSTER_PROXY_TIMEOUT_USEC (5 * USEC_PER_SEC)

/* More listening sockets than this no app has. */
#define CLUSTER_SOCKETS_MAX 256

/* Unanswered queries of one worker that is held, or was pinged. */
#define CLUSTER_HELD_MAX 64

typedef struct ClusterSocket ClusterSocket;

/* A descriptor that connections come from. */
typedef struct ClusterSource {
        Cluster *cluster;
        ClusterSocket *socket; /* whose connections they are; NULL: nobody has asked for it */
        size_t first;          /* of several of the same address the first; for those of listeners */
        int fd;
        bool is_unix;
        bool is_datagram;
        sd_event_source *io; /* NULL: not watched yet */
        bool is_watched;
} ClusterSource;

/* What the app listens on, for all its workers that asked for the same. */
struct ClusterSocket {
        List node;
        Cluster *cluster;
        char key[24];
        ClusterQuery query;    /* the first one's; its data is in... */
        char *data;            /* JSON */
        ClusterSource *source; /* a listener's, owned by the cluster, or... */
        bool is_bound;         /* ... one of its own, bound here */
        char *unlink_path;
        Address address; /* where it really is */
        List members;
        List waiting; /* ClusterConnection: they have no worker */
        unsigned n_waiting;
        size_t cursor;
};

/* One worker that listens on one socket. */
typedef struct ClusterMember {
        List in_socket;
        List in_worker;
        ClusterSocket *socket;
        ClusterWorker *worker;
        uint64_t turns;              /* see balance_count_turn() */
        const ClusterSource *shared; /* it accepts from it itself; NULL: it is passed its connections */
} ClusterMember;

typedef struct ClusterConnection {
        List node; /* of those whose header is read, that wait, or that are on their way to a worker */
        Cluster *cluster;
        ClusterSocket *socket; /* NULL: it is gone */
        int fd;
        ProxyReader *reader; /* NULL: it has no header, or that is read */
        Balance balance;
        uint64_t source; /* a hash of the client's address */
        uint64_t seq;
        uint64_t sent_usec;
} ClusterConnection;

/* A query that is not answered yet. */
typedef struct ClusterHeld {
        List node;
        uint64_t seq;
        ClusterQuery query;
        char data[];
} ClusterHeld;

struct ClusterWorker {
        List node;
        Cluster *cluster;
        unsigned slot;
        muster_channel *channel; /* counted */
        uint64_t seq;
        bool is_passed;
        bool is_held;
        bool is_online;
        bool is_ready;
        bool is_closed;             /* no more connections */
        bool was_refused;           /* a socket that it asked for: it may be about to die of that */
        unsigned n_pings_to_listen; /* answered so many more times, it listens in spite of that */
        List members;
        List held;
        unsigned n_held;
        List in_flight; /* ClusterConnection, in the order they were sent */
        unsigned n_in_flight;
        uint64_t saturated_usec; /* until then it wants no more */
        uint64_t answered_usec;  /* when it took or refused the last one */
        uint64_t lag_usec;
        uint64_t measured_usec; /* when the lag was */
        uint64_t pinged_usec;   /* 0: no answer is due */
        uint64_t n_heard;
        uint64_t n_taken;
};

struct Cluster {
        const Listeners *listeners; /* borrowed */
        sd_event *event;            /* borrowed */
        Balance balance;
        bool proxy_protocol;
        ClusterSource *sources; /* one for each listener */
        List sockets;
        unsigned n_sockets;
        uint64_t n_keys;
        List workers;
        List proxies; /* ClusterConnection: it is not known yet whose they are */
        unsigned n_proxies;
        uint64_t n_accepted;
        uint64_t logged_usec;   /* when something that may go on and on was last told of; 0: never */
        sd_event_source *retry; /* when nothing tells that a worker wants connections again */
        bool is_stopping;
};

/* cluster.c */

/* Answers a query: with a socket, or with the errno for which there is none. */
void cluster_answer(ClusterWorker *w, uint64_t seq, const ClusterQuery *q);

/* The worker listens on it no more. A socket that was bound here for nobody else is closed. */
void cluster_leave(ClusterMember *m, bool worker_ended);

/* How many turns the one has had that had most: who comes new has nothing to make up for. */
uint64_t cluster_most_turns(const ClusterSocket *s);

ClusterMember *cluster_find_member(const ClusterWorker *w, JsonSpan key);

/* cluster-find.c */

/* Which listener the query means. @taken[i]: the worker has that one already. Returns its index; -ENOENT:
 * none of them; -EADDRINUSE: it is one that the worker has; -EBADF: no such descriptor; -EINVAL: it is one
 * of the other kind. */
int cluster_find_listener(const Listeners *l, const ClusterQuery *q, const bool *taken);

/* Binds what the query asks for, as Node would. Returns 0 or a negative errno; @ret_unlink_path is NULL or
 * the path that is to be removed with the socket. */
int cluster_bind(const ClusterQuery *q, int *ret_fd, char **ret_unlink_path);

/* cluster-worker.c */

/* Sends a message. A channel that has failed is closed, for the worker's end tells the rest. */
void cluster_worker_send(ClusterWorker *w, const char *json, size_t n, int fd, int type);

/* dispatch.c */

/* The sources of a socket, or of all, are watched as far as somebody can take what comes, and what waits is
 * passed on. To be called when a worker can take more than before, or another one. */
void dispatch_socket(ClusterSocket *s);
void dispatch_all(Cluster *c);

/* A worker has answered to a connection that was on its way to it. */
void dispatch_answered(ClusterWorker *w, ClusterConnection *c, bool accepted);

/* A worker has ended. */
void dispatch_return_all(ClusterWorker *w);

/* A socket is closed. */
void dispatch_forget_socket(ClusterSocket *s);

/* Those whose header is awaited are closed. */
void dispatch_drop_proxies(Cluster *c);

void dispatch_unwatch(ClusterSource *source);

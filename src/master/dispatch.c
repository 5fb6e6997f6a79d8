/* SPDX-License-Identifier: MIT */
/* Accepting connections, and passing them on; see cluster.h.
 *
 * The queue is the kernel's: nothing is accepted that nobody can take. What is accepted all the same without
 * being taken is what has come back from a worker, because that died or refused it, and what has to wait for
 * the one worker that its address has chosen. */

#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "board/board.h"
#include "master/cluster-internal.h"

/* In one turn of the loop, so that a rush on one socket does not keep the others waiting. */
#define ACCEPT_MAX 64

/* How long a worker that refused a connection is left in peace, and how long nothing is accepted when there
 * is no descriptor for it. */
#define SATURATED_USEC (20 * USEC_PER_MSEC)

/* A worker that has not acknowledged for so long does not turn its loop: others are better. */
#define STALLED_USEC (250 * USEC_PER_MSEC)

/* A worker that has been silent for so long though it has something to acknowledge is not waited for. */
#define LATE_USEC (20 * USEC_PER_MSEC)

/* In this time a lag that was measured counts for half. */
#define LAG_HALF_LIFE_USEC (100 * USEC_PER_MSEC)

/* How often is told of what may happen without end. */
#define LOG_INTERVAL_USEC (10 * USEC_PER_SEC)

/* All workers there can be, twice while a reload is under way. */
#define CANDIDATES_MAX BOARD_CELLS

typedef struct Candidates {
        BalanceCandidate items[CANDIDATES_MAX];
        ClusterMember *members[CANDIDATES_MAX];
        size_t n;
} Candidates;

static ClusterConnection *connection_free(ClusterConnection *c) {
        list_remove(&c->node);
        proxy_reader_free(c->reader);
        safe_close(c->fd);
        free(c);
        return NULL;
}

/* Back into the queue, before those that came later. */
static void wait_first(ClusterSocket *s, ClusterConnection *c) {
        list_append(s->waiting.next, &c->node);
        s->n_waiting++;
}

static void take_from_waiting(ClusterConnection *c) {
        list_remove(&c->node);
        c->socket->n_waiting--;
}

/*
 * Who could take one
 */

static bool worker_is_stalled(const ClusterWorker *w, uint64_t now_usec) {
        if (w->pinged_usec > 0 && now_usec >= w->pinged_usec + STALLED_USEC)
                return true;
        return !list_empty(&w->in_flight) &&
               now_usec >= list_entry(w->in_flight.next, ClusterConnection, node)->sent_usec + STALLED_USEC;
}

static bool worker_is_late(const ClusterWorker *w, uint64_t now_usec) {
        if (w->pinged_usec > 0 || now_usec < w->saturated_usec)
                return true;
        if (list_empty(&w->in_flight))
                return false;

        uint64_t sent_usec = list_entry(w->in_flight.next, ClusterConnection, node)->sent_usec;
        return now_usec >= MAX(sent_usec, w->answered_usec) + LATE_USEC;
}

static bool worker_has_room(const ClusterWorker *w, uint64_t now_usec) {
        return w->pinged_usec == 0 && w->n_in_flight < CLUSTER_WINDOW && now_usec >= w->saturated_usec;
}

static bool worker_is_open(const ClusterWorker *w) {
        return w->is_ready && !w->is_closed && !w->is_held && muster_channel_is_connected(w->channel);
}

/* A worker that is there accepts from the source itself: that is not taken out of its hands. */
static bool is_shared(const ClusterSocket *s, const ClusterSource *source) {
        list_foreach (node, &s->members) {
                const ClusterMember *m = list_entry(node, ClusterMember, in_socket);

                if (m->shared == source && worker_is_open(m->worker))
                        return true;
        }
        return false;
}

/* What it was measured at fades: a worker that was slow once would else get nothing, and never be measured
 * again. */
static uint64_t current_lag_usec(const ClusterWorker *w, uint64_t now_usec) {
        uint64_t half_lives = (now_usec - w->measured_usec) / LAG_HALF_LIFE_USEC;

        return half_lives < 64 ? w->lag_usec >> half_lives : 0;
}

/* Those that could be passed a connection that comes from @source, or, if NULL, one that is here already:
 * also workers that share another source. */
static void find_candidates(
                const ClusterSocket *s, const ClusterSource *source, uint64_t now_usec, Candidates *ret) {
        bool all = !source || !is_shared(s, source);

        ret->n = 0;
        list_foreach (node, &s->members) {
                ClusterMember *m = list_entry(node, ClusterMember, in_socket);
                const ClusterWorker *w = m->worker;

                if ((m->shared && !all) || !worker_is_open(w) || ret->n == CANDIDATES_MAX)
                        continue;
                ret->items[ret->n] = (BalanceCandidate){
                        .slot = w->slot,
                        .in_flight = w->n_in_flight,
                        .lag_usec = current_lag_usec(w, now_usec),
                        .has_room = worker_has_room(w, now_usec),
                        .stalled = worker_is_stalled(w, now_usec),
                        .late = worker_is_late(w, now_usec),
                        .turns = m->turns,
                };
                ret->members[ret->n++] = m;
        }
}

static bool anybody_has_room(const Candidates *c) {
        for (size_t i = 0; i < c->n; i++)
                if (c->items[i].has_room)
                        return true;
        return false;
}

/*
 * Pauses
 */

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        Cluster *c = userdata;

        c->retry = sd_event_source_disable_unref(c->retry);
        dispatch_all(c);
        return 0;
}

/* Nothing else would tell that a worker wants connections again. */
static void retry_later(Cluster *c) {
        int r;

        if (c->retry)
                return;
        r = sd_event_add_time_relative(c->event, &c->retry, CLOCK_MONOTONIC, SATURATED_USEC,
                        clock_accuracy_usec(SATURATED_USEC), on_retry, c);
        if (r < 0)
                log_error_errno(r, "Failed to set a timer for connections that wait: %m");
}

/* It wants no more for a moment. */
static void saturate(ClusterWorker *w) {
        w->saturated_usec = clock_now_usec() + SATURATED_USEC;
        retry_later(w->cluster);
}

/* Somebody has room and yet none is to be passed to him: whoever is waited for may turn out to be late, of
 * which nothing else would tell. */
static void retry_if_waited_for(Cluster *c, const Candidates *candidates) {
        if (anybody_has_room(candidates))
                retry_later(c);
}

/*
 * Passing on
 */

/* Returns 0 or a negative errno. */
static int pass(ClusterWorker *w, ClusterConnection *c, uint64_t now_usec) {
        char line[CLUSTER_LINE_MAX];
        size_t n = cluster_wire_connection(line, w->seq, c->socket->key);
        int r;

        r = muster_channel_send_full(w->channel, line, n, c->fd, MUSTER_HANDLE_NET_NATIVE, NULL, NULL);
        if (r < 0)
                return r;
        c->seq = w->seq++;
        c->sent_usec = now_usec;
        list_append(&w->in_flight, &c->node);
        w->n_in_flight++;
        return 0;
}

static void count_turn(Candidates *candidates, size_t chosen) {
        balance_count_turn(candidates->items, candidates->n, chosen);
        for (size_t i = 0; i < candidates->n; i++)
                candidates->members[i]->turns = candidates->items[i].turns;
}

/* Passes on a connection that is in no list. Returns false when nobody is to take it now. */
static bool place(ClusterSocket *s, ClusterConnection *c, Candidates *candidates, uint64_t now_usec) {
        for (;;) {
                size_t i = balance_choose(
                                c->balance, candidates->items, candidates->n, &s->cursor, c->source);
                if (i == BALANCE_NOBODY)
                        return false;

                ClusterWorker *w = candidates->members[i]->worker;
                int r = pass(w, c, now_usec);
                if (r < 0)
                        saturate(w);
                candidates->items[i].in_flight = w->n_in_flight;
                candidates->items[i].has_room = worker_has_room(w, now_usec);
                candidates->items[i].late = worker_is_late(w, now_usec);
                if (r >= 0) {
                        count_turn(candidates, i);
                        return true;
                }
        }
}

static void place_waiting(ClusterSocket *s, Candidates *candidates, uint64_t now_usec) {
        list_foreach_safe (node, &s->waiting) {
                ClusterConnection *c = list_entry(node, ClusterConnection, node);

                take_from_waiting(c);
                if (!place(s, c, candidates, now_usec)) {
                        list_append(_next, &c->node); /* where it was */
                        s->n_waiting++;
                }
        }
}

/*
 * Accepting
 */

/* An IPv4 client is the same one on a socket for both families. */
static uint64_t hash_in6(const void *address) {
        struct in6_addr a;

        memcpy(&a, address, sizeof(a));
        return IN6_IS_ADDR_V4MAPPED(&a) ? balance_hash_address(a.s6_addr + 12, 4)
                                        : balance_hash_address(&a, sizeof(a));
}

static uint64_t hash_peer(const struct sockaddr_storage *a) {
        struct sockaddr_in6 in6;
        struct sockaddr_in in;

        if (a->ss_family == AF_INET6) {
                memcpy(&in6, a, sizeof(in6));
                return hash_in6(&in6.sin6_addr);
        }
        if (a->ss_family == AF_INET) {
                memcpy(&in, a, sizeof(in));
                return balance_hash_address(&in.sin_addr, sizeof(in.sin_addr));
        }
        return 0;
}

static uint64_t hash_proxied(const ProxyHeader *h) {
        switch (h->source.family) {
        case AF_INET6:
                return hash_in6(h->source.bytes);
        case AF_INET:
                return balance_hash_address(h->source.bytes, sizeof(struct in_addr));
        default:
                return balance_hash_address(h->path, sizeof(h->path));
        }
}

/* Where every client looks the same, they would all be one worker's. */
static Balance balance_of(const ClusterSource *source) {
        const Cluster *c = source->cluster;

        return c->balance == BALANCE_SOURCE && source->is_unix && !c->proxy_protocol ? BALANCE_ROUND_ROBIN
                                                                                     : c->balance;
}

/* Returns 1 with a connection; 0: there is none; a negative errno: there is no place for it. */
static int accept_one(ClusterSource *source, ClusterSocket *s, ClusterConnection **ret) {
        struct sockaddr_storage peer;
        socklen_t size;
        int fd;

        do {
                size = sizeof(peer);
                fd = accept4(source->fd, (struct sockaddr *) &peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED || errno == EPROTO));
        if (fd < 0)
                return errno == EAGAIN ? 0 : -errno;

        ClusterConnection *c = malloc(sizeof(*c));
        if (!c) {
                safe_close(fd);
                return -ENOMEM;
        }
        *c = (ClusterConnection){
                .cluster = source->cluster, .socket = s, .fd = fd, .balance = balance_of(source)
        };
        if (c->balance == BALANCE_SOURCE)
                c->source = hash_peer(&peer);
        list_init(&c->node);
        source->cluster->n_accepted++;
        *ret = c;
        return 1;
}

/* Whose connections they are. A unix socket beside the one that the app asks for is the same app's, too. */
static ClusterSocket *socket_of(const ClusterSource *source) {
        const Cluster *c = source->cluster;

        if (source->socket)
                return source->socket;
        if (!source->is_unix)
                return c->sources[source->first].socket;
        list_foreach (node, &c->sockets) {
                ClusterSocket *s = list_entry(node, ClusterSocket, node);

                if (!s->is_bound && !s->source->is_datagram && !list_empty(&s->members))
                        return s;
        }
        return NULL;
}

static int on_connection(sd_event_source *io, int fd, uint32_t revents, void *userdata);

/* To a worker now, or when one can take it. */
static void place_or_wait(
                ClusterSocket *s, ClusterConnection *c, Candidates *candidates, uint64_t now_usec) {
        if (place(s, c, candidates, now_usec))
                return;
        list_append(&s->waiting, &c->node);
        s->n_waiting++;
        retry_if_waited_for(s->cluster, candidates);
}

/* Anybody can send rubbish as fast as he likes, and a want of descriptors lasts. */
static bool may_log(Cluster *c) {
        uint64_t now_usec = clock_now_usec();

        if (c->logged_usec > 0 && now_usec - c->logged_usec < LOG_INTERVAL_USEC)
                return false;
        c->logged_usec = now_usec;
        return true;
}

static void log_no_proxy(Cluster *c, const char *reason) {
        if (may_log(c))
                log_warning("Closed a connection without a header of the PROXY protocol (workers.proxy_protocol): %s",
                                reason);
}

static void on_proxy_header(const ProxyHeader *header, const char *reason, void *userdata) {
        ClusterConnection *c = userdata;
        Cluster *cluster = c->cluster;
        ClusterSocket *s = c->socket;
        uint64_t now_usec = clock_now_usec();
        Candidates candidates;

        list_remove(&c->node);
        if (cluster->n_proxies-- == CLUSTER_PROXIES_MAX)
                dispatch_all(cluster);
        if (!header)
                log_no_proxy(cluster, reason);
        if (!header || !s) {
                connection_free(c);
                return;
        }
        if (header->source.family != AF_UNSPEC)
                c->source = hash_proxied(header);
        c->reader = proxy_reader_free(c->reader); /* with the header */
        find_candidates(s, NULL, now_usec, &candidates);
        place_or_wait(s, c, &candidates, now_usec);
}

/* What comes by a proxy says itself whose it is. */
static void await_proxy_header(Cluster *cluster, ClusterConnection *c) {
        int r = proxy_reader_new(
                        cluster->event, c->fd, CLUSTER_PROXY_TIMEOUT_USEC, on_proxy_header, c, &c->reader);

        if (r < 0) {
                log_no_proxy(cluster, strerror(-r));
                connection_free(c);
                return;
        }
        list_append(&cluster->proxies, &c->node);
        cluster->n_proxies++;
}

/* A worker wakes us two times for each connection: when it has the descriptor, and when it has taken the
 * connection. Having to make way at once each time would cost it a third of the CPU time of a short request.
 * A batch process waits for a pause of those that run, or for its turn, and then finds more to do at a time;
 * on an idle CPU it runs at once as others do. */
static void give_way_to_workers(void) {
        struct sched_param none = { 0 };

        /* They are not to inherit it, and with it would lose a negative nice value (sched(7)). */
        if (sched_getscheduler(0) == SCHED_OTHER && getpriority(PRIO_PROCESS, 0) >= 0 &&
                        sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &none) < 0)
                log_debug_errno(-errno, "Failed to become a batch process: %m");
}

static void set_watched(ClusterSource *source, bool watched) {
        int r;

        if (source->is_watched == watched)
                return;
        if (!source->io) {
                give_way_to_workers();
                r = sd_event_add_io(source->cluster->event, &source->io, source->fd, EPOLLIN, on_connection,
                                source);
        } else
                r = sd_event_source_set_enabled(source->io, watched ? SD_EVENT_ON : SD_EVENT_OFF);
        if (r < 0) {
                log_error_errno(r, "Failed to watch a listening socket: %m");
                return;
        }
        source->is_watched = watched;
}

void dispatch_unwatch(ClusterSource *source) {
        if (source)
                source->io = sd_event_source_disable_unref(source->io);
}

static bool may_accept(const ClusterSocket *s) {
        return !s->cluster->is_stopping && s->n_waiting < CLUSTER_WAITING_MAX &&
               s->cluster->n_proxies < CLUSTER_PROXIES_MAX;
}

/* Whether a connection from the source would be passed on now. */
static bool somebody_is_next(const ClusterSource *source, const Candidates *candidates) {
        if (balance_can_choose(balance_of(source), candidates->items, candidates->n))
                return true;
        retry_if_waited_for(source->cluster, candidates);
        return false;
}

/* Watches the source as far as somebody can take what comes. */
static void update_source(ClusterSource *source, const ClusterSocket *s, uint64_t now_usec) {
        Candidates candidates;

        if (source->is_datagram || !source->cluster->event)
                return;
        find_candidates(s, source, now_usec, &candidates);
        set_watched(source, may_accept(s) && somebody_is_next(source, &candidates));
}

static int on_connection(sd_event_source *io, int fd, uint32_t revents, void *userdata) {
        ClusterSource *source = userdata;
        ClusterSocket *s = socket_of(source);
        uint64_t now_usec = clock_now_usec();
        Candidates candidates;
        int r = 1;

        if (!s) {
                set_watched(source, false);
                return 0;
        }
        find_candidates(s, source, now_usec, &candidates);
        for (unsigned i = 0;
                        i < ACCEPT_MAX && r > 0 && may_accept(s) && somebody_is_next(source, &candidates);
                        i++) {
                ClusterConnection *c = NULL;

                r = accept_one(source, s, &c);
                if (r > 0 && source->cluster->proxy_protocol)
                        await_proxy_header(source->cluster, c);
                else if (r > 0)
                        place_or_wait(s, c, &candidates, now_usec);
        }
        if (!may_accept(s) || !somebody_is_next(source, &candidates))
                set_watched(source, false);
        if (r < 0) {
                if (may_log(source->cluster))
                        log_error_errno(r, "Failed to accept a connection, pausing: %m");
                set_watched(source, false);
                retry_later(source->cluster);
        }
        return 0;
}

/*
 * Events
 */

static bool anybody_is_saturated(const ClusterSocket *s, uint64_t now_usec) {
        list_foreach (node, &s->members)
                if (list_entry(node, ClusterMember, in_socket)->worker->saturated_usec > now_usec)
                        return true;
        return false;
}

void dispatch_socket(ClusterSocket *s) {
        Cluster *c = s->cluster;
        uint64_t now_usec = clock_now_usec();
        Candidates candidates;

        if (!list_empty(&s->waiting)) {
                find_candidates(s, NULL, now_usec, &candidates);
                place_waiting(s, &candidates, now_usec);
                if (s->n_waiting > 0)
                        retry_if_waited_for(c, &candidates);
        }
        update_source(s->source, s, now_usec);
        for (size_t i = 0; i < c->listeners->n; i++)
                if (!c->sources[i].socket && socket_of(c->sources + i) == s)
                        update_source(c->sources + i, s, now_usec);
        if (anybody_is_saturated(s, now_usec))
                retry_later(c);
}

void dispatch_all(Cluster *c) {
        list_foreach_safe (node, &c->sockets)
                dispatch_socket(list_entry(node, ClusterSocket, node));
}

static void take_back(ClusterWorker *w, ClusterConnection *c) {
        list_remove(&c->node);
        w->n_in_flight--;
        if (!c->socket || w->cluster->is_stopping)
                connection_free(c); /* nobody listens any more */
        else
                wait_first(c->socket, c);
}

/* It is another one's turn. */
static void connection_refused(ClusterWorker *w, ClusterConnection *c) {
        ClusterSocket *s = c->socket;

        take_back(w, c);
        saturate(w);
        if (s)
                dispatch_socket(s);
}

static void connection_taken(ClusterWorker *w, ClusterConnection *c, bool was_late) {
        ClusterSocket *s = c->socket;

        connection_free(c);
        w->n_taken++;
        /* Not for every place that becomes free: a full worker is left to empty half of its window. */
        if (--w->n_in_flight == CLUSTER_WINDOW / 2 || was_late || (s && s->n_waiting > 0))
                dispatch_all(w->cluster);
}

void dispatch_answered(ClusterWorker *w, ClusterConnection *c, bool accepted) {
        uint64_t now_usec = clock_now_usec();
        bool was_late = worker_is_late(w, now_usec);

        w->answered_usec = now_usec;
        if (accepted)
                connection_taken(w, c, was_late);
        else
                connection_refused(w, c);
}

void dispatch_return_all(ClusterWorker *w) {
        while (!list_empty(&w->in_flight)) /* the last one first, so that they are in order before those that
                                              wait */
                take_back(w, list_entry(w->in_flight.prev, ClusterConnection, node));
}

static void forget_socket(const ClusterSocket *s, const List *connections) {
        list_foreach (node, connections) {
                ClusterConnection *c = list_entry(node, ClusterConnection, node);

                if (c->socket == s)
                        c->socket = NULL;
        }
}

void dispatch_forget_socket(ClusterSocket *s) {
        list_foreach (node, &s->cluster->workers)
                forget_socket(s, &list_entry(node, ClusterWorker, node)->in_flight);
        forget_socket(s, &s->cluster->proxies);
        while (!list_empty(&s->waiting))
                connection_free(list_entry(s->waiting.next, ClusterConnection, node));
        s->n_waiting = 0;
}

void dispatch_drop_proxies(Cluster *c) {
        while (!list_empty(&c->proxies))
                connection_free(list_entry(c->proxies.next, ClusterConnection, node));
        c->n_proxies = 0;
}

/* SPDX-License-Identifier: MIT */
/* The conversation with one worker of a cluster; see cluster.h. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "basic/clock.h"
#include "basic/log.h"
#include "master/cluster-internal.h"

/* How much the latest measurement of its lag counts. */
#define LAG_WEIGHT 8

int cluster_worker_new(Cluster *c, unsigned slot, bool passed, bool held, ClusterWorker **ret) {
        ClusterWorker *w = malloc(sizeof(*w));

        if (!w)
                return -ENOMEM;
        *w = (ClusterWorker){ .cluster = c, .slot = slot, .is_passed = passed, .is_held = held };
        list_init(&w->members);
        list_init(&w->held);
        list_init(&w->in_flight);
        list_append(&c->workers, &w->node);
        *ret = w;
        return 0;
}

static void drop_held(ClusterWorker *w) {
        while (!list_empty(&w->held)) {
                ClusterHeld *h = list_entry(w->held.next, ClusterHeld, node);

                list_remove(&h->node);
                free(h);
        }
        w->n_held = 0;
}

ClusterWorker *cluster_worker_free(ClusterWorker *w) {
        if (!w)
                return NULL;
        Cluster *c = w->cluster;

        muster_channel_unref(w->channel); /* and with it goes what it was to be told of descriptors */
        while (!list_empty(&w->members))
                cluster_leave(list_entry(w->members.next, ClusterMember, in_worker), !w->is_closed);
        drop_held(w);
        dispatch_return_all(w);
        list_remove(&w->node); /* not before: a socket that goes with it forgets what was on its way here */
        free(w);
        dispatch_all(c);
        return NULL;
}

void cluster_worker_attach(ClusterWorker *w, muster_channel *channel) {
        w->channel = muster_channel_ref(channel);
}

void cluster_worker_send(ClusterWorker *w, const char *json, size_t n, int fd, int type) {
        int r = muster_channel_send_full(w->channel, json, n, fd, type, NULL, NULL);

        if (r < 0 && r != -EPIPE) {
                log_event(LOG_WARNING, (.worker = w->slot), "Worker %u cannot be told anything: %s", w->slot,
                                strerror(-r));
                (void) muster_channel_disconnect(w->channel);
        }
}

static void hold(ClusterWorker *w, const ClusterMessage *m) {
        ClusterHeld *h = NULL;

        if (w->n_held < CLUSTER_HELD_MAX)
                h = calloc(1, sizeof(*h) + m->query.data.n +
                                                1); /* a string, so that it may be looked at as one */
        if (!h)
                return; /* it waits for ever, and is not fit to take a place */
        *h = (ClusterHeld){ .seq = m->seq, .query = m->query };
        if (m->query.data.p) {
                memcpy(h->data, m->query.data.p, m->query.data.n);
                h->query.data.p = h->data;
        }
        list_append(&w->held, &h->node);
        w->n_held++;
}

/* The answer to a ping has to come before an answer that may have a descriptor: the ping would take it. */
static bool may_answer(const ClusterWorker *w) {
        return !w->is_held && w->pinged_usec == 0;
}

static void answer_held(ClusterWorker *w) {
        if (!may_answer(w))
                return;
        list_foreach (node, &w->held) {
                const ClusterHeld *h = list_entry(node, ClusterHeld, node);

                cluster_answer(w, h->seq, &h->query);
        }
        drop_held(w);
}

static ClusterNews receive_query(ClusterWorker *w, const ClusterMessage *m) {
        if (!w->is_online)
                return CLUSTER_NO_SCRIPT;
        if (may_answer(w))
                cluster_answer(w, m->seq, &m->query);
        else
                hold(w, m);
        return w->is_held ? CLUSTER_IS_HELD : CLUSTER_NO_NEWS;
}

static void receive_close(ClusterWorker *w, const ClusterMessage *m) {
        ClusterMember *member = cluster_find_member(w, m->key);

        if (member)
                cluster_leave(member, /* worker_ended= */ false);
}

/* The app has called worker.disconnect(), which waits for our answer. */
static ClusterNews receive_leaving(ClusterWorker *w, const ClusterMessage *m) {
        char line[CLUSTER_LINE_MAX];

        cluster_worker_close(w);
        cluster_worker_send(w, line, cluster_wire_acknowledge(line, m->seq), -EBADF, MUSTER_HANDLE_NONE);
        return CLUSTER_LEAVES;
}

/* The app's server waits for what becomes of the connections that the app has sent here. They are closed as
 * they come: nobody here has a use for them. */
static void receive_about_sent(ClusterWorker *w, const ClusterMessage *m) {
        _cleanup_free_ char *text = m->key.p ? cluster_wire_none_sent(m->act, m->key) : NULL;

        if (text)
                cluster_worker_send(w, text, strlen(text), -EBADF, MUSTER_HANDLE_NONE);
}

static void measure_lag(ClusterWorker *w, uint64_t since_usec) {
        uint64_t lag = clock_now_usec() - since_usec;

        w->lag_usec = w->lag_usec == 0 ? lag : (w->lag_usec * (LAG_WEIGHT - 1) + lag) / LAG_WEIGHT;
        w->measured_usec = clock_now_usec();
}

/* An app that listens on one socket and was refused another one may have said the former just before it dies
 * of the latter. The refusal is under way to it, and is dealt with in the turn of its loop in which it is
 * read: when it has answered a ping, and then another one, it has survived that. */
#define PINGS_TO_LISTEN 2

static ClusterNews receive_listening(ClusterWorker *w) {
        if (!w->was_refused || w->is_ready)
                return CLUSTER_IS_LISTENING;
        if (w->n_pings_to_listen == 0)
                w->n_pings_to_listen = PINGS_TO_LISTEN;
        cluster_worker_ping(w);
        return CLUSTER_NO_NEWS;
}

static ClusterNews has_survived(ClusterWorker *w) {
        if (w->n_pings_to_listen == 0)
                return CLUSTER_NO_NEWS;
        if (--w->n_pings_to_listen == 0)
                return CLUSTER_IS_LISTENING;
        cluster_worker_ping(w);
        return CLUSTER_NO_NEWS;
}

/* A descriptor has not arrived. Everything is answered in order, and no connection is sent after a ping: so
 * it is the first one that is on its way, whose worker has no free descriptor, and without any it is the
 * answer to a ping. */
static ClusterNews receive_nack(ClusterWorker *w) {
        if (!list_empty(&w->in_flight)) {
                dispatch_answered(w, list_entry(w->in_flight.next, ClusterConnection, node), false);
                return CLUSTER_NO_NEWS;
        }
        if (w->pinged_usec == 0)
                return CLUSTER_NO_NEWS;
        measure_lag(w, w->pinged_usec);
        w->pinged_usec = 0;
        answer_held(w);
        dispatch_all(w->cluster);
        return has_survived(w);
}

static void receive_answer(ClusterWorker *w, const ClusterMessage *m) {
        list_foreach (node, &w->in_flight) {
                ClusterConnection *c = list_entry(node, ClusterConnection, node);

                if (c->seq == m->ack) {
                        measure_lag(w, c->sent_usec);
                        dispatch_answered(w, c, m->accepted);
                        return;
                }
        }
}

int cluster_worker_receive(ClusterWorker *w, const char *json, size_t n, ClusterNews *ret) {
        ClusterMessage m;
        int r;

        w->n_heard++; /* whatever it is: it lives */
        r = cluster_wire_parse(json, n, &m);
        if (r < 0)
                return r;
        *ret = CLUSTER_NO_NEWS;
        switch (m.act) {
        case CLUSTER_ONLINE:
                w->is_online = true;
                break;
        case CLUSTER_QUERY:
                *ret = receive_query(w, &m);
                break;
        case CLUSTER_LISTENING:
                *ret = receive_listening(w);
                break;
        case CLUSTER_CLOSE:
                receive_close(w, &m);
                break;
        case CLUSTER_LEAVING:
                *ret = receive_leaving(w, &m);
                break;
        case CLUSTER_ANSWER:
                receive_answer(w, &m);
                break;
        case CLUSTER_NACK:
                *ret = receive_nack(w);
                break;
        case CLUSTER_AWAITS_SENT:
        case CLUSTER_COUNTS_SENT:
                receive_about_sent(w, &m);
                break;
        case CLUSTER_WATCHER:
                *ret = CLUSTER_WATCHED;
                break;
        case CLUSTER_APPLICATION:
                return CLUSTER_NOT_OURS;
        case CLUSTER_OTHER:
                break;
        }
        return 0;
}

void cluster_worker_set_ready(ClusterWorker *w) {
        w->is_ready = true;
        list_foreach (node, &w->members) {
                ClusterMember *m = list_entry(node, ClusterMember, in_worker);

                m->turns = cluster_most_turns(m->socket);
        }
        dispatch_all(w->cluster);
}

void cluster_worker_expect_ready(ClusterWorker *w) {
        if (!w->was_refused)
                cluster_worker_set_ready(w);
}

void cluster_worker_release(ClusterWorker *w, unsigned slot) {
        w->slot = slot;
        w->is_held = false;
        answer_held(w);
}

void cluster_worker_close(ClusterWorker *w) {
        w->is_closed = true;
        dispatch_all(w->cluster);
}

void cluster_worker_disconnect(ClusterWorker *w) {
        char line[CLUSTER_LINE_MAX];

        cluster_worker_close(w);
        cluster_worker_send(w, line, cluster_wire_disconnect(line, w->seq++), -EBADF, MUSTER_HANDLE_NONE);
}

void cluster_worker_ping(ClusterWorker *w) {
        if (w->pinged_usec > 0)
                return;
        w->pinged_usec = clock_now_usec();
        cluster_worker_send(w, CLUSTER_PING, strlen(CLUSTER_PING), -EBADF, MUSTER_HANDLE_NONE);
}

uint64_t cluster_worker_get_heard(const ClusterWorker *w) {
        return w->n_heard;
}

bool cluster_worker_has_shared(const ClusterWorker *w) {
        list_foreach (node, &w->members)
                if (list_entry(node, ClusterMember, in_worker)->shared)
                        return true;
        return false;
}

bool cluster_worker_has_sockets(const ClusterWorker *w) {
        return !list_empty(&w->members);
}

bool cluster_worker_is_online(const ClusterWorker *w) {
        return w->is_online;
}

uint64_t cluster_worker_get_lag_usec(const ClusterWorker *w) {
        return w->lag_usec;
}

uint64_t cluster_worker_get_taken(const ClusterWorker *w) {
        return w->n_taken;
}

unsigned cluster_worker_get_in_flight(const ClusterWorker *w) {
        return w->n_in_flight;
}

/* SPDX-License-Identifier: MIT */
/* The sockets of a cluster: what its workers ask for, and what they get; see cluster.h. */

#include "master/cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "master/activation.h"
#include "master/cluster-internal.h"

/*
 * Sockets
 */

static ClusterSocket *socket_free(ClusterSocket *s) {
        if (!s)
                return NULL;
        dispatch_forget_socket(s);
        list_remove(&s->node);
        if (s->source)
                s->source->socket = NULL;
        if (s->is_bound) {
                dispatch_unwatch(s->source);
                safe_close(s->source->fd);
                free(s->source);
        }
        if (s->unlink_path)
                (void) unlink(s->unlink_path);
        s->cluster->n_sockets--;
        free(s->unlink_path);
        free(s->data);
        free(s);
        return NULL;
}
DEFINE_CLEANUP(ClusterSocket, socket_free)

static int copy_data(JsonSpan data, char **ret) {
        *ret = data.p ? strndup(data.p, data.n) : strdup("null");
        return *ret ? 0 : -ENOMEM;
}

static int socket_new(Cluster *c, const ClusterQuery *q, ClusterSocket **ret) {
        if (c->n_sockets >= CLUSTER_SOCKETS_MAX)
                return -EMFILE;

        ClusterSocket *s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        *s = (ClusterSocket){ .cluster = c, .query = *q };
        s->query.data = (JsonSpan){ NULL, 0 };
        list_init(&s->node);
        list_init(&s->members);
        list_init(&s->waiting);
        snprintf(s->key, sizeof(s->key), "m%" PRIu64, ++c->n_keys);
        c->n_sockets++;
        if (copy_data(q->data, &s->data) < 0) {
                socket_free(s);
                return -ENOMEM;
        }
        *ret = s;
        return 0;
}

static int use_listener(Cluster *c, const ClusterQuery *q, size_t i, ClusterSocket **ret) {
        const Listener *l = c->listeners->items + i;
        char wanted[CLUSTER_QUERY_STRING_MAX], address[ADDRESS_STRING_MAX];
        ClusterSocket *s;
        int r;

        r = socket_new(c, q, &s);
        if (r < 0)
                return r;
        s->source = c->sources + i;
        s->source->socket = s;
        s->address = l->address;
        list_append(&c->sockets, &s->node);
        log_info("The app listens on %s: that is the socket \"%s\" (%s).",
                        cluster_query_to_string(q, wanted), l->name,
                        address_to_string(&l->address, address));
        *ret = s;
        return 0;
}

static int bind_source(Cluster *c, ClusterSocket *s, const ClusterQuery *q) {
        ClusterSource *source = calloc(1, sizeof(*source));
        int r;

        if (!source)
                return -ENOMEM;
        *source = (ClusterSource){
                .cluster = c,
                .socket = s,
                .fd = -EBADF,
                .is_unix = q->family == CLUSTER_PATH,
                .is_datagram = q->is_udp,
        };
        s->source = source;
        s->is_bound = true;
        r = cluster_bind(q, &source->fd, &s->unlink_path);
        return r < 0 ? r : address_of_socket(source->fd, &s->address);
}

static int use_bound(Cluster *c, const ClusterQuery *q, ClusterSocket **ret) {
        _cleanup_(socket_freep) ClusterSocket *s = NULL;
        char wanted[CLUSTER_QUERY_STRING_MAX];
        int r;

        r = socket_new(c, q, &s);
        if (r >= 0)
                r = bind_source(c, s, q);
        if (r < 0)
                return r;
        list_append(&c->sockets, &s->node);
        log_notice("The app listens on %s, for which no socket was passed: bound here.",
                        cluster_query_to_string(q, wanted));
        *ret = TAKE_PTR(s);
        return 0;
}

static ClusterSocket *find_bound(const Cluster *c, const ClusterQuery *q) {
        list_foreach (node, &c->sockets) {
                ClusterSocket *s = list_entry(node, ClusterSocket, node);

                if (s->is_bound && cluster_query_equal(&s->query, q))
                        return s;
        }
        return NULL;
}

/* The socket that the query means, whether or not somebody has asked for it before. */
static int find_socket(const ClusterWorker *w, const ClusterQuery *q, ClusterSocket **ret) {
        bool taken[ACTIVATION_MAX] = { false };
        Cluster *c = w->cluster;

        list_foreach (node, &w->members) {
                const ClusterSocket *s = list_entry(node, ClusterMember, in_worker)->socket;

                if (!s->is_bound)
                        taken[s->source - c->sources] = true;
        }
        int i = cluster_find_listener(c->listeners, q, taken);
        if (i >= 0) {
                *ret = c->sources[i].socket;
                return *ret ? 0 : use_listener(c, q, (size_t) i, ret);
        }
        if (i != -ENOENT)
                return i;
        *ret = find_bound(c, q);
        return *ret ? 0 : use_bound(c, q, ret);
}

/*
 * Members
 */

/* Of several of the same address each slot has one of its own, as far as they go: the kernel spreads the
 * connections over them. */
static const ClusterSource *choose_shared(const ClusterWorker *w, const ClusterSocket *s) {
        const Cluster *c = w->cluster;
        size_t n = 0, first = 0;

        if (s->is_bound || w->slot == 0)
                return s->source;
        first = s->source->first;
        for (size_t i = first; i < c->listeners->n; i++)
                n += c->sources[i].first == first;
        size_t wanted = (w->slot - 1) % n;
        for (size_t i = first; i < c->listeners->n; i++)
                if (c->sources[i].first == first && wanted-- == 0)
                        return c->sources + i;
        return s->source;
}

uint64_t cluster_most_turns(const ClusterSocket *s) {
        uint64_t most = 0;

        list_foreach (node, &s->members)
                most = MAX(most, list_entry(node, ClusterMember, in_socket)->turns);
        return most;
}

static int join(ClusterWorker *w, const ClusterQuery *q, ClusterMember **ret) {
        ClusterSocket *s = NULL;
        int r;

        r = find_socket(w, q, &s);
        if (r < 0)
                return r;
        list_foreach (node, &w->members)
                if (list_entry(node, ClusterMember, in_worker)->socket == s)
                        return -EADDRINUSE;

        ClusterMember *m = malloc(sizeof(*m));
        if (!m)
                return -ENOMEM;
        *m = (ClusterMember){ .socket = s, .worker = w, .turns = cluster_most_turns(s) };
        if (!w->is_passed || s->source->is_datagram)
                m->shared = choose_shared(w, s);
        list_append(&s->members, &m->in_socket);
        list_append(&w->members, &m->in_worker);
        *ret = m;
        return 0;
}

void cluster_leave(ClusterMember *m, bool worker_ended) {
        ClusterSocket *s = m->socket;

        list_remove(&m->in_socket);
        list_remove(&m->in_worker);
        free(m);
        if (s->is_bound && list_empty(&s->members) && !worker_ended)
                socket_free(s);
        else
                dispatch_socket(s);
}

ClusterMember *cluster_find_member(const ClusterWorker *w, JsonSpan key) {
        list_foreach (node, &w->members) {
                ClusterMember *m = list_entry(node, ClusterMember, in_worker);

                if (json_span_is(key, m->socket->key))
                        return m;
        }
        return NULL;
}

/*
 * Answers
 */

static uint16_t port_of(const Address *a) {
        struct sockaddr_in6 in6; /* the port of both is in the same place */

        if (a->sockaddr.any.sa_family != AF_INET && a->sockaddr.any.sa_family != AF_INET6)
                return 0;
        memcpy(&in6, &a->sockaddr, sizeof(in6));
        return ntohs(in6.sin6_port);
}

static void real_address(const Address *a, ClusterQuery *q) {
        struct sockaddr_in6 in6;
        struct sockaddr_in in;

        if (a->sockaddr.any.sa_family == AF_INET6) {
                memcpy(&in6, &a->sockaddr, sizeof(in6));
                (void) inet_ntop(AF_INET6, &in6.sin6_addr, q->address, sizeof(q->address));
        } else {
                memcpy(&in, &a->sockaddr, sizeof(in));
                (void) inet_ntop(AF_INET, &in.sin_addr, q->address, sizeof(q->address));
        }
        q->port = port_of(a);
}

/* What the app is to believe that it listens on: what it asked for, wherever that really is. */
static bool make_sockname(const ClusterSocket *s, const ClusterQuery *q, ClusterQuery *ret) {
        bool is_unix = s->address.sockaddr.any.sa_family == AF_UNIX;

        *ret = *q;
        if (q->family == CLUSTER_FD && !is_unix)
                real_address(&s->address, ret);
        else if (q->family == CLUSTER_FD || q->family == CLUSTER_PATH)
                return false;
        else if (q->port == 0)
                ret->port = port_of(&s->address);
        return true;
}

static void reply(ClusterWorker *w, uint64_t ack, const ClusterMember *m, const ClusterQuery *q) {
        const ClusterSocket *s = m->socket;
        int type = s->source->is_datagram ? MUSTER_HANDLE_DGRAM_NATIVE : MUSTER_HANDLE_NET_NATIVE;
        ClusterQuery sockname;
        bool has_name = !m->shared && make_sockname(s, q, &sockname);

        _cleanup_free_ char *text =
                        cluster_wire_reply(w->seq++, ack, 0, s->key, s->data, has_name ? &sockname : NULL);
        if (text)
                cluster_worker_send(w, text, strlen(text), m->shared ? m->shared->fd : -EBADF,
                                m->shared ? type : MUSTER_HANDLE_NONE);
}

static void reply_error(ClusterWorker *w, uint64_t ack, int error, const ClusterQuery *q) {
        char wanted[CLUSTER_QUERY_STRING_MAX];
        _cleanup_free_ char *data = NULL;

        w->was_refused = true;
        log_event(LOG_WARNING, (.worker = w->slot), "Worker %u cannot listen on %s: %s", w->slot,
                        cluster_query_to_string(q, wanted), strerror(-error));
        /* With its own data: TLS looks at that before it looks for an error. */
        (void) copy_data(q->data, &data);
        _cleanup_free_ char *text = cluster_wire_reply(w->seq++, ack, error, "none", data, NULL);
        if (text)
                cluster_worker_send(w, text, strlen(text), -EBADF, MUSTER_HANDLE_NONE);
}

void cluster_answer(ClusterWorker *w, uint64_t seq, const ClusterQuery *q) {
        ClusterMember *m;
        int r;

        r = join(w, q, &m);
        if (r < 0) {
                reply_error(w, seq, r, q);
                return;
        }
        reply(w, seq, m, q);
        dispatch_socket(m->socket);
}

/*
 * Life
 */

int cluster_new(const Listeners *listeners, Cluster **ret) {
        Cluster *c = calloc(1, sizeof(*c));

        if (!c)
                return -ENOMEM;
        *c = (Cluster){ .listeners = listeners, .balance = BALANCE_ROUND_ROBIN };
        list_init(&c->sockets);
        list_init(&c->workers);
        list_init(&c->proxies);
        c->sources = calloc(MAX(listeners->n, (size_t) 1), sizeof(ClusterSource));
        if (!c->sources) {
                free(c);
                return -ENOMEM;
        }
        for (size_t i = 0; i < listeners->n; i++)
                c->sources[i] = (ClusterSource){
                        .cluster = c,
                        .first = listeners->items[i].first,
                        .fd = listeners->items[i].fd,
                        .is_unix = listeners->items[i].address.sockaddr.any.sa_family == AF_UNIX,
                        .is_datagram = listeners->items[i].type == SOCK_DGRAM,
                };
        *ret = c;
        return 0;
}

Cluster *cluster_free(Cluster *c) {
        if (!c)
                return NULL;
        assert(list_empty(&c->workers));
        list_foreach_safe (node, &c->sockets)
                socket_free(list_entry(node, ClusterSocket, node));
        for (size_t i = 0; i < c->listeners->n; i++)
                dispatch_unwatch(c->sources + i);
        dispatch_drop_proxies(c);
        sd_event_source_disable_unref(c->retry);
        free(c->sources);
        free(c);
        return NULL;
}

void cluster_attach(Cluster *c, sd_event *event) {
        c->event = event;
}

void cluster_set_balance(Cluster *c, Balance balance, bool proxy_protocol) {
        c->balance = balance == BALANCE_AUTO || balance == BALANCE_INHERIT ? BALANCE_ROUND_ROBIN : balance;
        c->proxy_protocol = proxy_protocol;
        dispatch_all(c);
}

void cluster_stop(Cluster *c) {
        c->is_stopping = true;
        dispatch_drop_proxies(c);
        list_foreach (node, &c->sockets)
                dispatch_forget_socket(list_entry(node, ClusterSocket, node));
        dispatch_all(c);
}

uint64_t cluster_count_accepted(const Cluster *c) {
        return c->n_accepted;
}

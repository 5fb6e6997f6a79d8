/* SPDX-License-Identifier: MIT */
/* Where the socket comes from that an app wants: from those that were passed, or bound as Node would; see
 * cluster-internal.h. */

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "master/activation.h"
#include "master/bind.h"
#include "master/cluster-internal.h"

/* lib/net.js: what listen() has when the app says nothing. */
#define BACKLOG_DEFAULT 511

/*
 * Those that were passed
 */

typedef enum SocketClass { CLASS_TCP, CLASS_UNIX, CLASS_UDP } SocketClass;

static SocketClass class_of_query(const ClusterQuery *q) {
        if (q->family == CLUSTER_PATH)
                return CLASS_UNIX;
        return q->is_udp ? CLASS_UDP : CLASS_TCP;
}

static SocketClass class_of_listener(const Listener *l) {
        if (l->type == SOCK_DGRAM)
                return CLASS_UDP;
        return l->address.sockaddr.any.sa_family == AF_UNIX ? CLASS_UNIX : CLASS_TCP;
}

static bool has_name(const Listener *l, const ClusterQuery *q) {
        char port[8];

        snprintf(port, sizeof(port), "%u", q->port);
        return strcmp(l->name, q->family == CLUSTER_PATH ? q->address : port) == 0;
}

static bool has_address(const Listener *l, const ClusterQuery *q) {
        struct sockaddr_in6 in6; /* the port of both is in the same place */

        if (q->family == CLUSTER_PATH)
                return strncmp(l->address.sockaddr.un.sun_path, q->address,
                                       sizeof(l->address.sockaddr.un.sun_path)) == 0;
        memcpy(&in6, &l->address.sockaddr, sizeof(in6));
        return q->port > 0 && ntohs(in6.sin6_port) == q->port;
}

/* By the name that the socket unit gives it, and by its address. */
static int find_by(const Listeners *l, const ClusterQuery *q, const bool *taken,
                bool (*is_meant)(const Listener *l, const ClusterQuery *q)) {
        int found = -ENOENT;

        for (size_t i = 0; i < l->n; i++) {
                if (l->items[i].first != i || class_of_listener(l->items + i) != class_of_query(q) ||
                                !is_meant(l->items + i, q))
                        continue;
                if (!taken[i])
                        return (int) i;
                found = -EADDRINUSE;
        }
        return found;
}

/* An app has but one way to say that it serves, and the administrator but one socket for it: whatever port
 * it has in mind. A port may be a unix socket then, too. Not the other way round: a path that an app has for
 * its own purposes must not be open to the network. */
static int find_only(const Listeners *l, const ClusterQuery *q, const bool *taken) {
        SocketClass class = class_of_query(q);
        size_t n = 0, n_streams = 0, found = 0, stream = 0;

        for (size_t i = 0; i < l->n; i++) {
                if (l->items[i].first != i)
                        continue;
                if (class_of_listener(l->items + i) != CLASS_UDP) {
                        n_streams++;
                        stream = i;
                }
                if (class_of_listener(l->items + i) == class) {
                        n++;
                        found = i;
                }
        }
        if (n == 0 && n_streams == 1 && class == CLASS_TCP) {
                n = 1;
                found = stream;
        }
        return n == 1 && !taken[found] ? (int) found : -ENOENT;
}

/* By its number, which is that of systemd's. Of several of the same address any stands for all. */
static int find_descriptor(const Listeners *l, const ClusterQuery *q, const bool *taken) {
        int i = q->fd - ACTIVATION_FIRST_FD;

        if (i < 0 || (size_t) i >= l->n)
                return -EBADF;
        if ((class_of_listener(l->items + i) == CLASS_UDP) != q->is_udp)
                return -EINVAL;
        i = (int) l->items[i].first;
        return taken[i] ? -EADDRINUSE : i;
}

int cluster_find_listener(const Listeners *l, const ClusterQuery *q, const bool *taken) {
        int r;

        if (q->family == CLUSTER_FD)
                return find_descriptor(l, q, taken);
        r = find_by(l, q, taken, has_name);
        if (r == -ENOENT)
                r = find_by(l, q, taken, has_address);
        return r == -ENOENT ? find_only(l, q, taken) : r;
}

/*
 * Those that were not
 */

/* Numbers only: the worker has resolved the name. With a scope, as in fe80::1%eth0. */
static int parse_host(const ClusterQuery *q, Address *ret) {
        const struct addrinfo hints = { .ai_family = AF_UNSPEC,
                .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
        struct addrinfo *found;
        char port[8];

        snprintf(port, sizeof(port), "%u", q->port);
        if (getaddrinfo(q->address, port, &hints, &found) != 0)
                return -EINVAL;
        *ret = (Address){ .size = found->ai_addrlen };
        memcpy(&ret->sockaddr, found->ai_addr, found->ai_addrlen);
        freeaddrinfo(found);
        return 0;
}

static int bind_inet(const ClusterQuery *q, const BindOptions *options, int *ret_fd) {
        ClusterQuery any = *q;
        BindOptions o = *options;
        Address a;
        int r;

        if (!*q->address)
                strcpy(any.address, q->family == CLUSTER_UDP4 ? "0.0.0.0" : "::");
        r = parse_host(&any, &a);
        if (r < 0)
                return r;
        o.dual_stack = !q->ipv6_only;
        r = bind_address(&a, &o, ret_fd);
        if (r != -EAFNOSUPPORT && r != -EADDRNOTAVAIL)
                return r;
        if (*q->address || q->family == CLUSTER_UDP6)
                return r;
        strcpy(any.address, "0.0.0.0"); /* a kernel without IPv6 */
        r = parse_host(&any, &a);
        return r < 0 ? r : bind_address(&a, &o, ret_fd);
}

/* Anybody may read the file, or write it, as far as the app wants that. */
static int open_path(const ClusterQuery *q) {
        mode_t mode = (q->readable_all ? 0444 : 0) | (q->writable_all ? 0222 : 0);
        struct stat st;

        if (mode == 0)
                return 0;
        if (lstat(q->address, &st) < 0 || chmod(q->address, (st.st_mode & 07777) | mode) < 0)
                return -errno;
        return 0;
}

static int bind_path(
                const ClusterQuery *q, const BindOptions *options, int *ret_fd, char **ret_unlink_path) {
        Address a;
        int r;

        if (address_parse(q->address, &a) < 0 || a.sockaddr.any.sa_family != AF_UNIX)
                return -EINVAL;
        _cleanup_free_ char *path = strdup(q->address);
        if (!path)
                return -ENOMEM;
        r = bind_address(&a, options, ret_fd);
        if (r < 0)
                return r;
        *ret_unlink_path = TAKE_PTR(path);
        return open_path(q);
}

int cluster_bind(const ClusterQuery *q, int *ret_fd, char **ret_unlink_path) {
        BindOptions options = {
                .type = q->is_udp ? SOCK_DGRAM : SOCK_STREAM,
                .backlog = q->backlog > 0 ? q->backlog : BACKLOG_DEFAULT,
                .ipv6_only = q->ipv6_only,
                .reuse_address = q->reuse_address,
        };

        return q->family == CLUSTER_PATH ? bind_path(q, &options, ret_fd, ret_unlink_path)
                                         : bind_inet(q, &options, ret_fd);
}

/* SPDX-License-Identifier: MIT */
/* Connections as the kernel lists them; see connection-count.h.
 *
 * Every dump also asks for sockets that listen, and has to show the very socket that it is about, by its
 * inode. This is the proof that silence means "none": a process in another network namespace gets a list
 * too, only without anything of ours. */

#include "master/connection-count.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"

/* Of a listening unix socket too, whose states have the names of TCP's. */
#define STATE(name) (1U << TCP_##name)

/* The kernel makes its messages to fit into this (NLMSG_GOODSIZE). */
#define BUFFER_SIZE 8192

/* Parts of a dump. Of TCP the kernel sends only sockets with our port, of unix sockets all of the host: some
 * hundred thousands. */
#define PARTS_MAX 4096

/* A dump during which the list changed may lack something. */
#define TRIES_MAX 3

/* MPTCP consists of connections of TCP, which are the ones that are listed. */
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

typedef struct Count {
        Address address;
        ino_t inode;
        bool seen; /* the listening socket */
        uint64_t n;
} Count;

typedef void (*on_socket_t)(Count *c, const struct nlmsghdr *message);

/* What is asked, and what is done with each socket of the answer. */
typedef struct Query {
        union {
                struct inet_diag_req_v2 inet;
                struct unix_diag_req unix_socket;
        };
        size_t size;
        on_socket_t on_socket;
} Query;

/*
 * TCP
 */

/* The connection has the address of the listening socket, unless that takes any. */
static bool has_address(const Address *a, const struct inet_diag_sockid *id) {
        static const struct in6_addr any = IN6ADDR_ANY_INIT;
        struct sockaddr_in6 in6;
        struct sockaddr_in in;

        if (a->sockaddr.any.sa_family == AF_INET) {
                memcpy(&in, &a->sockaddr, sizeof(in));
                return in.sin_addr.s_addr == INADDR_ANY ||
                       memcmp(&in.sin_addr, id->idiag_src, sizeof(in.sin_addr)) == 0;
        }
        memcpy(&in6, &a->sockaddr, sizeof(in6));
        return memcmp(&in6.sin6_addr, &any, sizeof(any)) == 0 ||
               memcmp(&in6.sin6_addr, id->idiag_src, sizeof(in6.sin6_addr)) == 0;
}

static void on_inet_socket(Count *c, const struct nlmsghdr *message) {
        const struct inet_diag_msg *m = NLMSG_DATA(message);

        if (message->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) || !has_address(&c->address, &m->id))
                return;
        switch (m->idiag_state) {
        case TCP_LISTEN:
                c->seen |= m->idiag_inode == c->inode;
                break;
        case TCP_ESTABLISHED:
        case TCP_CLOSE_WAIT: /* the client sends no more, and waits */
                c->n++;
                break;
        case TCP_FIN_WAIT1:
        case TCP_FIN_WAIT2:
                /* The worker sends no more. If it has closed the descriptor, it does not read either. */
                c->n += m->idiag_inode != 0;
                break;
        }
}

static int query_inet(const Listener *l, Query *ret) {
        const Address *a = &l->address;
        struct sockaddr_in in; /* the port has the same place in both */
        int protocol;
        socklen_t n = sizeof(protocol);

        if (getsockopt(l->fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &n) < 0)
                return -errno;
        if (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP)
                return -EOPNOTSUPP;
        memcpy(&in, &a->sockaddr, sizeof(in));
        *ret = (Query){
                .inet = {
                        .sdiag_family = (uint8_t) a->sockaddr.any.sa_family,
                        .sdiag_protocol = IPPROTO_TCP,
                        .idiag_states = STATE(LISTEN) | STATE(ESTABLISHED) | STATE(CLOSE_WAIT) |
                                        STATE(FIN_WAIT1) | STATE(FIN_WAIT2),
                        .id.idiag_sport = in.sin_port,
                },
                .size = sizeof(struct inet_diag_req_v2),
                .on_socket = on_inet_socket,
        };
        return 0;
}

/*
 * Unix sockets: one that was accepted has the name of the one that listens.
 */

static bool has_name(const Address *a, const struct nlmsghdr *message) {
        const struct unix_diag_msg *m = NLMSG_DATA(message);
        const struct rtattr *attribute = (const struct rtattr *) (m + 1);
        int left = (int) (message->nlmsg_len - NLMSG_LENGTH(sizeof(*m)));
        size_t size = a->size - offsetof(struct sockaddr_un, sun_path);

        for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
                if (attribute->rta_type == UNIX_DIAG_NAME)
                        return RTA_PAYLOAD(attribute) == size &&
                               memcmp(RTA_DATA(attribute), a->sockaddr.un.sun_path, size) == 0;
        return false;
}

static void on_unix_socket(Count *c, const struct nlmsghdr *message) {
        const struct unix_diag_msg *m = NLMSG_DATA(message);

        if (message->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) || !has_name(&c->address, message))
                return;
        if (m->udiag_state == TCP_LISTEN)
                c->seen |= m->udiag_ino == c->inode;
        else
                c->n++;
}

static int query_unix(const Listener *l, Query *ret) {
        *ret = (Query){
                .unix_socket = {
                        .sdiag_family = AF_UNIX,
                        .udiag_states = STATE(LISTEN) | STATE(ESTABLISHED),
                        .udiag_show = UDIAG_SHOW_NAME,
                },
                .size = sizeof(struct unix_diag_req),
                .on_socket = on_unix_socket,
        };
        return 0;
}

/*
 * The dump
 */

/* Only the kernel's messages get through to a socket that is connected to it. */
static int open_diag(void) {
        const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
        _cleanup_close_ int fd =
                        socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);

        if (fd < 0 || connect(fd, (const struct sockaddr *) &kernel, sizeof(kernel)) < 0)
                return -errno;
        return TAKE_FD(fd);
}

static int send_query(int fd, const Query *q) {
        struct {
                struct nlmsghdr header;
                char body[MAX(sizeof(struct inet_diag_req_v2), sizeof(struct unix_diag_req))];
        } message = {
                .header = {
                        .nlmsg_len = (uint32_t) NLMSG_LENGTH(q->size),
                        .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                        .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                },
        };
        ssize_t n;

        memcpy(message.body, &q->inet, q->size); /* or the other one: they begin at the same place */
        do
                n = send(fd, &message, message.header.nlmsg_len, 0);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : 0;
}

/* The errno that ends a dump. There may be a family that this kernel has no module for. */
static int read_error(const struct nlmsghdr *message) {
        int error = 0;

        if (message->nlmsg_len >= NLMSG_LENGTH(sizeof(error)))
                memcpy(&error, NLMSG_DATA(message), sizeof(error));
        return error == -ENOENT ? -EOPNOTSUPP : error < 0 ? error : 0;
}

/* Returns 1 at the end of the dump, 0 when there is more, or a negative errno. */
static int read_part(const char *buf, size_t n, const Query *q, Count *c, bool *interrupted) {
        const struct nlmsghdr *message;
        int r;

        for (size_t at = 0; at + sizeof(*message) <= n; at += NLMSG_ALIGN(message->nlmsg_len)) {
                message = (const struct nlmsghdr *) (buf + at);
                if (message->nlmsg_len < sizeof(*message) || message->nlmsg_len > n - at)
                        return -EBADMSG;
                if (message->nlmsg_flags & NLM_F_DUMP_INTR)
                        *interrupted = true;
                if (message->nlmsg_type == NLMSG_DONE || message->nlmsg_type == NLMSG_ERROR) {
                        r = read_error(message);
                        return r < 0 ? r : 1;
                }
                if (message->nlmsg_type == SOCK_DIAG_BY_FAMILY)
                        q->on_socket(c, message);
        }
        return 0;
}

/* The kernel has the next part ready when the last one is fetched: nothing is waited for. Returns 0, -EAGAIN
 * if the list changed meanwhile, or another negative errno. */
static int dump(int fd, const Query *q, Count *c) {
        _Alignas(struct nlmsghdr) char buf[BUFFER_SIZE];
        bool interrupted = false;
        int r;

        r = send_query(fd, q);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < PARTS_MAX; i++) {
                ssize_t n = recv(fd, buf, sizeof(buf), MSG_TRUNC);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return errno == EAGAIN ? -EIO : -errno;
                if ((size_t) n > sizeof(buf))
                        return -EMSGSIZE;
                r = read_part(buf, (size_t) n, q, c, &interrupted);
                if (r != 0)
                        return r < 0 ? r : interrupted ? -EAGAIN : 0;
        }
        return -E2BIG;
}

static int count_one(int fd, const Listener *l, uint64_t *ret) {
        Count c;
        Query q;
        struct stat st;
        int r;

        switch (l->address.sockaddr.any.sa_family) {
        case AF_INET:
        case AF_INET6:
                r = query_inet(l, &q);
                break;
        case AF_UNIX:
                r = query_unix(l, &q);
                break;
        default:
                r = -EOPNOTSUPP;
        }
        if (r < 0)
                return r;
        if (fstat(l->fd, &st) < 0)
                return -errno;

        for (int i = 0; i < TRIES_MAX; i++) {
                c = (Count){ .address = l->address, .inode = st.st_ino };
                r = dump(fd, &q, &c);
                if (r != -EAGAIN)
                        break;
        }
        if (r < 0)
                return r;
        if (!c.seen)
                return -ENONET;
        *ret = c.n;
        return 0;
}

/* Several sockets may share an address (ReusePort=), and then all of its connections. */
static bool is_repeated(const Listeners *l, size_t i) {
        const Address *a = &l->items[i].address;

        for (size_t k = 0; k < i; k++) {
                const Address *b = &l->items[k].address;
                if (a->size == b->size && memcmp(&a->sockaddr, &b->sockaddr, a->size) == 0)
                        return true;
        }
        return false;
}

int connection_count(const Listeners *l, uint64_t *ret) {
        uint64_t n, sum = 0;
        int r;

        _cleanup_close_ int fd = open_diag();
        if (fd < 0)
                return fd;
        for (size_t i = 0; i < l->n; i++) {
                if (is_repeated(l, i))
                        continue;
                r = count_one(fd, l->items + i, &n);
                if (r < 0)
                        return r;
                sum += n;
        }
        *ret = sum;
        return 0;
}

/* SPDX-License-Identifier: MIT */
#pragma once

/* What the tests of the cluster share: a cluster on a loop, with real listening sockets; workers whose end
 * of the channel is a bare socket, on which the test itself is Node; and clients.
 *
 * Clients connect to unix sockets where nothing depends on the address: there a connection is in the queue,
 * and what is written can be read, as soon as the call returns. */

#include "../lib/channel-pair.h"

#include "ipc/json.h"
#include "master/bind.h"
#include "master/cluster-internal.h"

#define LISTENERS_MAX 4

/* What listen() of a path, of a port, and of the first listener asks for. The
 * path cannot be bound. */
#define PLACE_FIRST "\"address\":null,\"port\":null,\"addressType\":null,\"fd\":3"
#define PLACE_PATH  "\"address\":\"/nowhere/app\",\"port\":-1,\"addressType\":-1"
#define PLACE_PORT  "\"address\":null,\"port\":3000,\"addressType\":4"

typedef struct Node {
        ClusterWorker *worker;
        muster_channel *channel;
        int raw;
        uint64_t seq;
        char key[32];         /* of the socket that it asked for last */
        char line[64 * 1024]; /* what it has read, and not looked at yet */
        size_t n;
        int fd;     /* that came along; -1: none */
        int result; /* of what it said last */
        ClusterNews news;
        unsigned n_said;
} Node;

/* A connection that a worker was passed. */
typedef struct Passed {
        int fd;
        uint64_t seq;
        char text[64]; /* what its client has written */
} Passed;

static char directory[] = "/tmp/test-cluster-XXXXXX";
static Listener items[LISTENERS_MAX];
static Listeners listeners;
static Cluster *cluster;

/*
 * The cluster
 */

static inline void have_listener(const char *name, const char *address, int type) {
        Listener *l = items + listeners.n++;
        Address a;

        *l = (Listener){ .fd = -EBADF, .name = (char *) name, .type = type, .first = listeners.n - 1 };
        assert_int_equal(address_parse(address, &a), 0);
        assert_int_equal(bind_address(&a, &(BindOptions){ .type = type }, &l->fd), 0);
        assert_int_equal(address_of_socket(l->fd, &l->address), 0);
}

/* One in the directory of the tests. */
static inline void have_unix(const char *name) {
        char path[64];

        snprintf(path, sizeof(path), "%s/%s", directory, name);
        have_listener(name, path, SOCK_STREAM);
}

/* After the listeners were made. */
static inline void begin(Balance balance, bool proxy_protocol) {
        assert_int_equal(cluster_new(&listeners, &cluster), 0);
        cluster_attach(cluster, event);
        cluster_set_balance(cluster, balance, proxy_protocol);
}

static inline int setup_cluster(void **state) {
        listeners = (Listeners){ .items = items };
        cluster = NULL;
        return setup_channels(state);
}

static inline int teardown_cluster(void **state) {
        while (cluster && !list_empty(&cluster->workers)) /* of a test that has failed */
                cluster_worker_free(list_entry(cluster->workers.next, ClusterWorker, node));
        cluster = cluster_free(cluster);
        for (size_t i = 0; i < listeners.n; i++) {
                if (items[i].address.sockaddr.any.sa_family == AF_UNIX)
                        (void) unlink(items[i].address.sockaddr.un.sun_path);
                safe_close(items[i].fd);
        }
        return teardown_channels(state);
}

#define cluster_test(f) cmocka_unit_test_setup_teardown(f, setup_cluster, teardown_cluster)

static inline int setup_directory(void **state) {
        return mkdtemp(directory) ? 0 : -1;
}

static inline int teardown_directory(void **state) {
        return rmdir(directory);
}

/*
 * Workers
 */

static inline void on_said(muster_channel *channel, muster_message *message, void *userdata) {
        Node *node = userdata;
        size_t n;
        const char *json = muster_message_get_json(message, &n);

        node->result = cluster_worker_receive(node->worker, json, n, &node->news);
        node->n_said++;
}

static inline void node_attach(Node *node) {
        const muster_channel_options options = { .size = sizeof(options), .flags = MUSTER_CHANNEL_INTERNAL };
        muster_channel_handlers handlers = MUSTER_CHANNEL_HANDLERS_INIT;
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        assert_int_equal(muster_channel_new(event, fds[0], &options, &node->channel), 0);
        node->raw = fds[1];
        handlers.message = on_said;
        cluster_worker_attach(node->worker, node->channel);
        assert_int_equal(muster_channel_set_handlers(node->channel, &handlers, node), 0);
}

/* Says something, and waits until the master has heard it. */
static inline void node_say(Node *node, const char *json) {
        unsigned n = node->n_said;

        raw_text(node->raw, json);
        raw_text(node->raw, "\n");
        run_until(node->n_said > n);
}

static inline void node_start(Node *node, unsigned slot, bool passed, bool held) {
        *node = (Node){ .fd = -1 };
        assert_int_equal(cluster_worker_new(cluster, slot, passed, held, &node->worker), 0);
        node_attach(node);
        node_say(node, "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}");
        assert_int_equal(node->result, 0);
}

/* Its process ends: what the master's end has not read yet is read first, as worker.c does it. */
static inline void node_end(Node *node) {
        safe_close(node->raw);
        (void) muster_channel_receive_pending(node->channel);
        node->worker = cluster_worker_free(node->worker);
        node->channel = muster_channel_unref(node->channel);
        safe_close(node->fd);
}

/* Takes in what is there. */
static inline void node_read(Node *node) {
        for (;;) {
                int fd = -1;
                ssize_t k = raw_read(node->raw, node->line + node->n, sizeof(node->line) - 1 - node->n, &fd);

                if (k == -EAGAIN)
                        return;
                assert_true(k > 0);
                node->n += (size_t) k;
                node->line[node->n] = '\0';
                if (fd < 0)
                        continue;
                assert_true(node->fd < 0);
                node->fd = fd;
                return; /* with the first line of a handle that is not read yet */
        }
}

static inline bool node_has_line(Node *node) {
        if (!strchr(node->line, '\n'))
                node_read(node);
        return node->n > 0 && memchr(node->line, '\n', node->n);
}

/* The next line that the master sends, with the descriptor that belongs to it, or -1. */
static inline char *node_line(Node *node, int *ret_fd) {
        run_until(node_has_line(node));

        size_t n = (size_t) (strchr(node->line, '\n') - node->line);
        char *line = strndup(node->line, n);
        assert_non_null(line);
        node->n -= n + 1;
        memmove(node->line, node->line + n + 1, node->n + 1);
        *ret_fd = -1;
        if (strncmp(line, "{\"cmd\":\"NODE_HANDLE\"", 20) == 0)
                *ret_fd = TAKE_FD(node->fd);
        return line;
}

static inline void node_expect(Node *node, const char *expected) {
        int fd;
        _cleanup_free_ char *line = node_line(node, &fd);

        assert_true(fd < 0);
        assert_string_equal(line, expected);
}

/* After all that is due was done. */
static inline void node_expect_nothing(Node *node) {
        run_what_is_due();
        if (node_has_line(node))
                fail_msg("told: %s", node->line);
}

/* A member of a message that is no string within another one. */
static inline void member_of(const char *json, const char *name, char *buf, size_t size) {
        JsonMember m = { .name = name };

        assert_int_equal(json_scan(json, strlen(json), &m, 1), 0);
        if (!m.value.p)
                fail_msg("no %s: %s", name, json);
        snprintf(buf, size, "%.*s", (int) m.value.n, m.value.p);
}

/* Asks, without waiting for the answer. */
static inline void node_ask(Node *node, const char *place) {
        char json[1024];

        snprintf(json, sizeof(json), "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",%s,\"seq\":%u}",
                        place, (unsigned) ++node->seq);
        node_say(node, json);
        assert_int_equal(node->result, 0);
}

/* Calls listen(), and is passed connections from now on. */
static inline void node_listen(Node *node, const char *place) {
        char text[64];
        int fd;

        node_ask(node, place);
        _cleanup_free_ char *line = node_line(node, &fd);
        assert_true(fd < 0);
        member_of(line, "errno", text, sizeof(text));
        assert_string_equal(text, "null");
        member_of(line, "ack", text, sizeof(text));
        assert_int_equal(strtoull(text, NULL, 10), node->seq);
        member_of(line, "key", node->key, sizeof(node->key));
        node_say(node, "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"listening\",\"seq\":0}");
        assert_int_equal(node->news, CLUSTER_IS_LISTENING);
}

/* A worker that is ready for connections. */
static inline void node_serve(Node *node, unsigned slot, const char *place) {
        node_start(node, slot, /* passed= */ true, /* held= */ false);
        node_listen(node, place);
        cluster_worker_set_ready(node->worker);
}

static inline void node_close(Node *node) {
        char json[128];

        snprintf(json, sizeof(json), "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"close\",\"key\":%s,\"seq\":0}",
                        node->key);
        node_say(node, json);
        assert_int_equal(node->result, 0);
}

/* The next thing that it is told is a connection. */
static inline Passed node_take(Node *node) {
        char message[512], text[64];
        Passed p = { .fd = -1 };

        _cleanup_free_ char *line = node_line(node, &p.fd);
        assert_true(p.fd >= 0);
        assert_true(fcntl(p.fd, F_GETFL) & O_NONBLOCK);
        member_of(line, "type", text, sizeof(text));
        assert_string_equal(text, "\"net.Native\"");
        member_of(line, "msg", message, sizeof(message));
        member_of(message, "act", text, sizeof(text));
        assert_string_equal(text, "\"newconn\"");
        member_of(message, "seq", text, sizeof(text));
        p.seq = strtoull(text, NULL, 10);
        ssize_t n = read(p.fd, p.text, sizeof(p.text) - 1);
        p.text[n > 0 ? n : 0] = '\0';
        return p;
}

/* Node answers before the app sees the connection. One that is refused it closes. */
static inline void node_answer(Node *node, Passed *p, bool accepted) {
        char json[256];

        snprintf(json, sizeof(json), ACK "{\"cmd\":\"NODE_CLUSTER\",\"ack\":%u,\"accepted\":%s,\"seq\":9}",
                        (unsigned) p->seq, accepted ? "true" : "false");
        if (!accepted)
                p->fd = safe_close(p->fd);
        unsigned n = node->n_said;
        raw_text(node->raw, json);
        raw_text(node->raw, "\n");
        run_until(node->n_said > n); /* the acknowledgement is the channel's */
        assert_int_equal(node->result, 0);
}

/* A descriptor has not arrived. */
static inline void node_nack(Node *node, Passed *p) {
        p->fd = safe_close(p->fd);
        node_say(node, "{\"cmd\":\"NODE_HANDLE_NACK\"}");
}

/* It is passed the connection of the client that has written that, and takes it. */
static inline void node_serves(Node *node, const char *text) {
        Passed p = node_take(node);

        assert_string_equal(p.text, text);
        node_answer(node, &p, true);
        safe_close(p.fd);
}

/*
 * Clients
 */

static inline int client_of(const Address *a) {
        int fd = socket(a->sockaddr.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(connect(fd, &a->sockaddr.any, a->size), 0);
        return fd;
}

/* Connects to a listener, and writes. */
static inline int client(size_t listener, const char *text) {
        int fd = client_of(&items[listener].address);

        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        return fd;
}

/* Several, called "0", "1" ... */
static inline void clients(size_t listener, int *fds, size_t n) {
        char name[24];

        for (size_t i = 0; i < n; i++) {
                snprintf(name, sizeof(name), "%zu", i);
                fds[i] = client(listener, name);
        }
}

static inline void close_all(int *fds, size_t n) {
        for (size_t i = 0; i < n; i++)
                fds[i] = safe_close(fds[i]);
}

/* The master, or the worker, has closed the connection. */
static inline bool client_is_closed(int fd) {
        char c;
        ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT);

        return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* Somebody waits in the kernel's queue of the listener. */
static inline bool has_queue(size_t listener) {
        return poll(&(struct pollfd){ .fd = items[listener].fd, .events = POLLIN }, 1, 0) == 1;
}

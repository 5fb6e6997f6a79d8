/* SPDX-License-Identifier: MIT */
/* The C side of test_node_channel.py, on what is installed of libmuster.
 *
 *      channel_peer SCENARIO                    the child of a Node program
 *      channel_peer SCENARIO NODE SCRIPT ARG…   the parent of a Node program
 *
 * A scenario knows nothing of who is whose parent. node/peer.js has the same ones, and the test joins two.
 * What is to be seen is said on stdout, in lines; what must hold is checked here, and the program fails if
 * it does not. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <muster/process.h>

#define N_ELEMENTS(x) (sizeof(x) / sizeof((x)[0]))

#define DEADLINE_MSEC 20000 /* as in worker_harness.py */

/* The longest message by default, quotes included. */
#define BIG_SIZE (64U * 1024 * 1024)

/* More than a socket takes at once. */
#define WAITING_SIZE (4U * 1024 * 1024)

/* A message that is cut off. */
#define CUT_SIZE (32U * 1024 * 1024)

#define N_ORDERED  20000
#define N_HANDLES  1000
#define N_FAREWELL 100

/* So many descriptors are open for sending at once. */
#define HANDLE_WINDOW 100

typedef struct Peer Peer;

typedef struct Scenario {
        const char *name;
        void (*start)(Peer *p);
        void (*message)(Peer *p, muster_message *m, const char *json);
        void (*ended)(Peer *p);
        int exit_status;
        const char *argument;
} Scenario;

struct Peer {
        sd_event *event;
        muster_child *child; /* NULL: we are the child */
        muster_channel *channel;
        const Scenario *scenario;
        unsigned n_sent;
        unsigned n_acked;
        unsigned n_received;
        char *big;
};

__attribute__((noreturn)) static void failed(const char *condition, int line) {
        fprintf(stderr, "channel_peer.c:%d: not true: %s (errno: %s)\n", line, condition, strerror(errno));
        _exit(1);
}

#define check(condition) ((condition) ? (void) 0 : failed(#condition, __LINE__))

/* A line in one system call: the other process writes there too. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
        char line[256] = "c ";
        va_list ap;

        va_start(ap, format);
        int n = vsnprintf(line + 2, sizeof(line) - 3, format, ap);
        va_end(ap);
        line[n + 2] = '\n';
        check(write(STDOUT_FILENO, line, (size_t) n + 3) == n + 3);
}

static void send_text(Peer *p, const char *json) {
        check(muster_channel_send(p->channel, json, -1, NULL, NULL) >= 0);
        p->n_sent++;
}

static char *new_string(size_t n) {
        char *text = malloc(n + 1);

        check(text);
        memset(text, 'x', n);
        text[0] = text[n - 1] = '"';
        text[n] = '\0';
        return text;
}

static void disconnect(Peer *p) {
        check(muster_channel_disconnect(p->channel) == 0);
}

static void wait_for(int fd) {
        check(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, DEADLINE_MSEC) == 1);
}

static int open_socket(int domain, int type) {
        struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
        struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
        struct sockaddr_un un = { .sun_family = AF_UNIX };
        struct sockaddr *address = domain == AF_INET    ? (struct sockaddr *) &in
                                   : domain == AF_INET6 ? (struct sockaddr *) &in6
                                                        : (struct sockaddr *) &un;
        socklen_t size = domain == AF_INET ? sizeof(in) : domain == AF_INET6 ? sizeof(in6) : sizeof(un);
        const char *path = getenv("PEER_SOCKET");
        int fd = socket(domain, type | SOCK_CLOEXEC, 0);

        if (domain == AF_UNIX) {
                check(path && strlen(path) < sizeof(un.sun_path));
                memcpy(un.sun_path, path, strlen(path));
        }
        check(fd >= 0 && bind(fd, address, size) == 0);
        check(type == SOCK_DGRAM || listen(fd, 64) == 0);
        return fd;
}

/* echo: everything is sent back as it came, a descriptor as what it was. */

static void echo_message(Peer *p, muster_message *m, const char *json) {
        check(!strstr(json, "NODE_SOMETHING"));
        check(muster_channel_send_full(p->channel, json, strlen(json), muster_message_get_fd(m),
                              muster_message_get_handle_type(m), NULL, NULL) >= 0);
}

/* values: what is sent, and how JSON.stringify() gives it back. */

#define SAME NULL

static const struct {
        const char *sent;
        const char *back;
} values[] = {
        { "null", SAME },
        { "true", SAME },
        { "false", SAME },
        { "0", SAME },
        { "-0.0", "0" },
        { "9007199254740991", SAME },
        { "-1.5e-7", SAME },
        { "1E3", "1000" },
        { "1.7976931348623157e+308", SAME },
        { "5e-324", SAME },
        { "\"\"", SAME },
        { "[]", SAME },
        { "{}", SAME },
        { " { \"a\" : [ 1 , { \"b\" : null } ] }\t", "{\"a\":[1,{\"b\":null}]}" },
        { "{\"\":1,\"__proto__\":2,\"cmd\":\"NODE_\"}", SAME },
        { "{\"cmd\":[\"NODE_HANDLE\"],\"type\":\"net.Server\"}", SAME },
        { "{\"a\":1,\"a\":2}", "{\"a\":2}" },
        { "\"quote \\\" backslash \\\\ slash / \\n\\r\\t\\b\\f\"", SAME },
        { "\"\\u0000 \\u001f \\\\u0000\"", SAME },
        { "\"\\u0041\\/\"", "\"A/\"" },
        { "\"\xf0\x9f\x98\x80 \xe2\x80\xa8 \xe2\x80\xa9 \xef\xbb\xbf \xc3\xa9 \x7f\"", SAME },
        { "\"\\ud83d\\ude00 \\u2028\"", "\"\xf0\x9f\x98\x80 \xe2\x80\xa8\"" },
        { "\"lone \\ud83d and \\ude00\"", SAME },
        { "{\"\xf0\x9f\x98\x80\":{\"\\ud800\":\"\\udfff\"}}", SAME },
};

/* As deep as may be. */
static const char *deep_value(void) {
        static char text[2048 * 6];
        size_t n = 0;

        for (unsigned i = 0; i < 1024; i++)
                n += (size_t) sprintf(text + n, "[{\"a\":");
        text[n++] = '1';
        for (unsigned i = 0; i < 1024; i++)
                n += (size_t) sprintf(text + n, "}]");
        return text;
}

static void values_start(Peer *p) {
        int fd = open_socket(AF_INET, SOCK_STREAM);

        for (size_t i = 0; i < N_ELEMENTS(values); i++)
                send_text(p, values[i].sent);
        send_text(p, "{\"cmd\":\"NODE_SOMETHING\"}"); /* not for the application: it does not come back */
        /* with a descriptor, whose envelope is one level more */
        check(muster_channel_send(p->channel, deep_value(), fd, NULL, NULL) >= 0);
        close(fd);
}

static void values_message(Peer *p, muster_message *m, const char *json) {
        size_t i = p->n_received;
        const char *wanted = deep_value();

        if (i < N_ELEMENTS(values))
                wanted = values[i].back ? values[i].back : values[i].sent;
        if (strcmp(json, wanted) != 0)
                say("%zu: sent %.80s, back %.80s", i, values[i].sent, json);
        check((muster_message_get_fd(m) >= 0) == (i == N_ELEMENTS(values)));
        if (i == N_ELEMENTS(values))
                disconnect(p);
}

/* big: the longest message there is, with characters of two bytes around many ends of a read. */

static void big_start(Peer *p) {
        static const char piece[] = "0123456789abcde\xc3\xa9";

        p->big = new_string(BIG_SIZE);
        for (size_t n = 1; n < BIG_SIZE / 8; n += sizeof(piece) - 1)
                memcpy(p->big + n, piece, sizeof(piece) - 1);
        send_text(p, p->big);
}

static void big_message(Peer *p, muster_message *m, const char *json) {
        size_t n;

        check(muster_message_get_json(m, &n) == json && n == BIG_SIZE);
        check(memcmp(json, p->big, n) == 0);
        say("big %zu", n);
        disconnect(p);
}

/* order */

static void order_start(Peer *p) {
        char json[32];

        while (p->n_sent < N_ORDERED) {
                snprintf(json, sizeof(json), "{\"n\":%u}", p->n_sent);
                send_text(p, json);
        }
}

static void order_message(Peer *p, muster_message *m, const char *json) {
        char wanted[32];

        snprintf(wanted, sizeof(wanted), "{\"n\":%u}", p->n_received);
        check(strcmp(json, wanted) == 0);
        if (p->n_received == N_ORDERED - 1)
                disconnect(p);
}

/* offer-…: a descriptor is opened, its address said, and it is sent; we keep none of it. The end of stdin is
 * the end of the scenario, so that all that happens before does without our end. */

static unsigned port_of(int fd) {
        struct sockaddr_in6 in6; /* the port is where that of sockaddr_in is */
        socklen_t size = sizeof(in6);

        check(getsockname(fd, (struct sockaddr *) &in6, &size) == 0);
        return ntohs(in6.sin6_port);
}

static int on_stdin_end(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        char byte;

        check(read(fd, &byte, 1) == 0);
        sd_event_source_disable_unref(source);
        disconnect(userdata);
        return 0;
}

static void on_offered(muster_channel *channel, int error, void *userdata) {
        Peer *p = userdata;

        check(error == 0);
        check(sd_event_add_io(p->event, &(sd_event_source *){ NULL }, STDIN_FILENO, EPOLLIN, on_stdin_end,
                              p) >= 0);
}

static void offer_start(Peer *p) {
        const char *kind = p->scenario->argument;
        bool udp6 = strcmp(kind, "dgram6") == 0, native = strcmp(kind, "native") == 0;
        int domain = strcmp(kind, "unix") == 0 ? AF_UNIX : udp6 ? AF_INET6 : AF_INET;
        int fd = open_socket(domain, strncmp(kind, "dgram", 5) == 0 ? SOCK_DGRAM : SOCK_STREAM);
        char json[32];

        say("port %u", domain == AF_UNIX ? 0 : port_of(fd));
        if (strcmp(kind, "socket") == 0) {
                wait_for(fd);
                int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
                check(connection >= 0);
                close(fd);
                fd = connection;
        }
        int n = snprintf(json, sizeof(json), "\"%s\"", kind);
        check(muster_channel_send_full(p->channel, json, (size_t) n, fd,
                              native ? MUSTER_HANDLE_NET_NATIVE : MUSTER_HANDLE_AUTO, on_offered, p) >= 0);
        check(fcntl(fd, F_GETFL) & O_NONBLOCK); /* it is the same for the one who has got it */
        close(fd);
}

/* serve: what is offered is served; the answer tells who gave it, and as what the descriptor came. */

static const char *const type_names[] = {
        [MUSTER_HANDLE_NONE] = "none",
        [MUSTER_HANDLE_NET_SERVER] = "net.Server",
        [MUSTER_HANDLE_NET_SOCKET] = "net.Socket",
        [MUSTER_HANDLE_NET_NATIVE] = "net.Native",
        [MUSTER_HANDLE_DGRAM_SOCKET] = "dgram.Socket",
        [MUSTER_HANDLE_DGRAM_NATIVE] = "dgram.Native",
        [MUSTER_HANDLE_OTHER] = "other",
};

static void answer_http(int connection, const char *type) {
        char request[4096], answer[256];

        wait_for(connection);
        check(recv(connection, request, sizeof(request), 0) > 0);
        int n = snprintf(answer, sizeof(answer), "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nc %s\n", type);
        check(send(connection, answer, (size_t) n, MSG_NOSIGNAL) == n);
}

static void answer_dgram(int fd, const char *type) {
        struct sockaddr_in6 from;
        socklen_t size = sizeof(from);
        char request[64], answer[64];

        check(recvfrom(fd, request, sizeof(request), 0, (struct sockaddr *) &from, &size) > 0);
        int n = snprintf(answer, sizeof(answer), "c %s\n", type);
        check(sendto(fd, answer, (size_t) n, 0, (struct sockaddr *) &from, size) == n);
}

static int on_client(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        const char *type = userdata;

        if (strncmp(type, "dgram", 5) == 0) {
                answer_dgram(fd, type);
                return 0;
        }
        int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        check(connection >= 0);
        answer_http(connection, type);
        close(connection);
        return 0;
}

static void serve_message(Peer *p, muster_message *m, const char *json) {
        const char *type = type_names[muster_message_get_handle_type(m)];
        int fd = muster_message_take_fd(m);
        sd_event_source *source;

        check(fd >= 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
        check(muster_message_take_fd(m) == -1);
        if (strcmp(type, "net.Socket") == 0) {
                answer_http(fd, type);
                send_text(p, "\"answered\""); /* before the client sees the end, and with it ours may come */
                close(fd);
                return;
        }
        check(sd_event_add_io(p->event, &source, fd, EPOLLIN, on_client, (void *) type) >= 0);
        check(sd_event_source_set_io_fd_own(source, 1) >= 0 && sd_event_source_set_floating(source, 1) >= 0);
        sd_event_source_unref(source);
}

/* handles: listening sockets, each with its port and with a message of its own behind it. */

static void on_handle_acked(muster_channel *channel, int error, void *userdata);

static void handles_start(Peer *p) {
        char json[64];

        for (; p->n_sent < N_HANDLES && p->n_sent - p->n_acked < HANDLE_WINDOW; p->n_sent++) {
                int fd = open_socket(AF_INET, SOCK_STREAM);

                snprintf(json, sizeof(json), "{\"n\":%u,\"port\":%u}", p->n_sent, port_of(fd));
                check(muster_channel_send(p->channel, json, fd, on_handle_acked, p) >= 0);
                close(fd);
                snprintf(json, sizeof(json), "{\"n\":%u,\"port\":0}", p->n_sent);
                check(muster_channel_send(p->channel, json, -1, NULL, NULL) >= 0);
        }
}

static void on_handle_acked(muster_channel *channel, int error, void *userdata) {
        Peer *p = userdata;

        check(error == 0);
        p->n_acked++;
        handles_start(p);
}

static void handles_message(Peer *p, muster_message *m, const char *json) {
        check(strcmp(json, "\"all\"") == 0);
        disconnect(p);
}

static void handles_ended(Peer *p) {
        check(p->n_acked == N_HANDLES);
}

/* take: the other side of handles. */

static void take_message(Peer *p, muster_message *m, const char *json) {
        unsigned n, port;
        int fd = muster_message_get_fd(m);

        check(sscanf(json, "{\"n\":%u,\"port\":%u}", &n, &port) == 2);
        check(n == p->n_received / 2);
        if (p->n_received % 2 == 0)
                check(fd >= 0 && port_of(fd) == port &&
                                muster_message_get_handle_type(m) == MUSTER_HANDLE_NET_SERVER);
        else
                check(fd == -1 && port == 0);
        if (p->n_received == 2 * N_HANDLES - 1)
                send_text(p, "\"all\"");
}

/* callback: what the sent handlers say. */

static void on_told(muster_channel *channel, int error, void *userdata) {
        say("sent %s %d", (const char *) userdata, error);
}

static void callback_message(Peer *p, muster_message *m, const char *json) {
        if (p->n_received == 0)
                return;
        disconnect(p);
        check(muster_channel_send(p->channel, "1", -1, NULL, NULL) == -EPIPE);
}

static void callback_start(Peer *p) {
        int fd = open_socket(AF_INET, SOCK_STREAM);

        check(muster_channel_send(p->channel, "\"plain\"", -1, on_told, (void *) "plain") == 0);
        check(muster_channel_send(p->channel, "\"handle\"", fd, on_told, (void *) "handle") == 0);
        close(fd);
}

/* bye: what was sent before the end arrives, although it has to wait, and with it a descriptor that is
 * closed here meanwhile. */

static void bye_start(Peer *p) {
        int fd = open_socket(AF_INET, SOCK_STREAM);
        char *text = new_string(WAITING_SIZE);

        check(muster_channel_send(p->channel, text, -1, NULL, NULL) == 1);
        free(text);
        while (p->n_sent < N_FAREWELL)
                send_text(p, "\"bye\"");
        check(muster_channel_send(p->channel, "\"handle\"", fd, on_told, (void *) "handle") == 1);
        close(fd);
        disconnect(p);
        check(!muster_channel_is_connected(p->channel));
}

/* wait: until the peer disconnects. */

static void wait_message(Peer *p, muster_message *m, const char *json) {
        check(muster_message_get_fd(m) == -1);
}

static void wait_ended(Peer *p) {
        say("received %u", p->n_received);
}

/* ready: a message as process managers know it. */

static void ready_start(Peer *p) {
        send_text(p, "\"ready\"");
}

static void ready_message(Peer *p, muster_message *m, const char *json) {
        say("message %s", json);
        disconnect(p);
}

/* kill and die: the peer dies of a message, and does not get the descriptor behind it. */

static void kill_start(Peer *p) {
        int fd = open_socket(AF_INET, SOCK_STREAM);

        send_text(p, "\"die\"");
        check(muster_channel_send(p->channel, "\"handle\"", fd, on_told, (void *) "handle") == 0);
        close(fd);
}

static void die_message(Peer *p, muster_message *m, const char *json) {
        raise(SIGKILL);
}

/* cut: the end in the middle of a message. */

static void cut_off_message(Peer *p, muster_message *m, const char *json) {
        say("message %s", json);
}

static void cut_start(Peer *p) {
        send_text(p, "\"first\"");
        check(muster_channel_send(p->channel, new_string(CUT_SIZE), -1, NULL, NULL) == 1);
        raise(SIGKILL);
}

/* grandchild: a program that is started by what knows nothing of the channel. */

static void run_grandchild(void) {
        check(system("echo environment: $(env | grep -c CHANNEL);"
                     "for fd in /proc/$$/fd/*; do if [ -e $fd ]; then echo fd ${fd##*/}; fi; done") == 0);
}

static void grandchild_start(Peer *p) {
        run_grandchild();
        disconnect(p);
}

static const Scenario scenarios[] = {
        { "bye", bye_start, NULL, NULL, 4, NULL },
        { "big", big_start, big_message, NULL, 0, NULL },
        { "callback", callback_start, callback_message, NULL, 0, NULL },
        { "cut", cut_start, NULL, NULL, 0, NULL },
        { "cut-off", NULL, cut_off_message, NULL, 0, NULL },
        { "die", NULL, die_message, NULL, 0, NULL },
        { "echo", NULL, echo_message, NULL, 0, NULL },
        { "grandchild", grandchild_start, NULL, NULL, 0, NULL },
        { "handles", handles_start, handles_message, handles_ended, 0, NULL },
        { "kill", kill_start, NULL, NULL, 0, NULL },
        { "offer-dgram", offer_start, NULL, NULL, 0, "dgram" },
        { "offer-dgram6", offer_start, NULL, NULL, 0, "dgram6" },
        { "offer-native", offer_start, NULL, NULL, 0, "native" },
        { "offer-server", offer_start, NULL, NULL, 0, "server" },
        { "offer-socket", offer_start, NULL, NULL, 0, "socket" },
        { "offer-unix", offer_start, NULL, NULL, 0, "unix" },
        { "order", order_start, order_message, NULL, 0, NULL },
        { "ready", ready_start, NULL, NULL, 0, NULL },
        { "serve", NULL, serve_message, NULL, 0, NULL },
        { "take", NULL, take_message, NULL, 0, NULL },
        { "values", values_start, values_message, NULL, 0, NULL },
        { "wait", NULL, wait_message, wait_ended, 3, NULL },
        { "wait-ready", NULL, ready_message, NULL, 0, NULL },
};

static void on_message(muster_channel *channel, muster_message *m, void *userdata) {
        Peer *p = userdata;

        check(p->scenario->message);
        p->scenario->message(p, m, muster_message_get_json(m, NULL));
        p->n_received++;
}

static void on_disconnected(muster_channel *channel, int error, void *userdata) {
        Peer *p = userdata;

        say("disconnected %d", error);
        if (p->scenario->ended)
                p->scenario->ended(p);
        if (!p->child)
                check(sd_event_exit(p->event, p->scenario->exit_status) >= 0);
}

static void listen_to(Peer *p) {
        muster_channel_handlers handlers = MUSTER_CHANNEL_HANDLERS_INIT;

        handlers.message = on_message;
        handlers.disconnected = on_disconnected;
        check(muster_channel_set_handlers(p->channel, &handlers, p) == 0);
}

static void on_child_exit(muster_child *child, int code, int status, void *userdata) {
        Peer *p = userdata;

        say("child %s %d", code == CLD_EXITED ? "exited" : "killed", status);
        if (strcmp(p->scenario->name, "cut-off") == 0)
                listen_to(p); /* so late that all it could send is in the socket, and no more */
}

static void on_child_close(muster_child *child, void *userdata) {
        Peer *p = userdata;

        check(sd_event_exit(p->event, p->scenario->exit_status) >= 0);
}

static void start_child(Peer *p, char *argv[]) {
        static const muster_stdio stdio[] = {
                [3] = { .kind = MUSTER_STDIO_CLOSED }, [4] = { .kind = MUSTER_STDIO_IPC }
        };
        muster_spawn_options options = MUSTER_SPAWN_OPTIONS_INIT;

        options.program = argv[0];
        options.argv = argv;
        if (getenv("PEER_SPAWN")) {
                options.stdio = stdio;
                options.n_stdio = N_ELEMENTS(stdio);
                check(muster_spawn(p->event, &options, on_child_exit, p, &p->child) == 0);
        } else
                check(muster_fork(p->event, &options, on_child_exit, p, &p->child) == 0);
        check(muster_child_set_close_handler(p->child, on_child_close) == 0);
        p->channel = muster_channel_ref(muster_child_get_channel(p->child));
        check(p->channel);
}

int main(int argc, char *argv[]) {
        Peer p = { .event = NULL };
        int r;

        check(argc >= 2);
        for (size_t i = 0; i < N_ELEMENTS(scenarios); i++)
                if (strcmp(scenarios[i].name, argv[1]) == 0)
                        p.scenario = scenarios + i;
        check(p.scenario);
        check(sd_event_new(&p.event) >= 0);

        if (argc > 2)
                start_child(&p, argv + 2);
        else {
                r = muster_channel_from_environment(p.event, NULL, &p.channel);
                if (r < 0) {
                        say("no channel %d", r);
                        run_grandchild();
                        sd_event_unref(p.event);
                        return 5;
                }
        }
        if (strcmp(p.scenario->name, "cut-off") != 0)
                listen_to(&p);
        if (p.scenario->start)
                p.scenario->start(&p);
        r = sd_event_loop(p.event);
        check(r >= 0);
        muster_channel_unref(p.channel);
        muster_child_unref(p.child);
        sd_event_unref(p.event);
        free(p.big);
        return r;
}

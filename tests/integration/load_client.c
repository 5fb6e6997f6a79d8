/* SPDX-License-Identifier: MIT */
/* Constant load by HTTP/1.1, and an exact account of it: every request ends as an answer or as one of the
 * failures below. load.py is how tests use it.
 *
 *      load_client ADDRESS [--connections=N] [--fresh=N] [--rate=N] [--limit=MSEC] [--target=PATH]
 * [--body=TEXT]
 *
 * ADDRESS: a port of 127.0.0.1, or the path of a unix socket. --connections: each keeps its connection as
 * long as it may. --fresh: each makes a new connection for every request. --rate: requests per second of all
 * together; without it, the next request follows the answer at once. --body: what every answer must consist
 * of, to the byte.
 *
 * A request begins with the wish for it: when its connection has to be made first, that is part of it, and
 * of its time. With --rate it begins when it is due by the schedule, so that what a stalled server keeps
 * from being sent is counted as waiting, too.
 *
 *      refused          by connect(2)
 *      connect-timeout  not connected within the limit
 *      reset            in the middle of a request, also an end of the stream in the middle of an answer
 *      closed           after the request was sent, without a byte of an answer. The request may have
 * crossed with the close on an idle connection, of which the server could have warned by Connection: close
 *      short            a body or a head other than expected, or bytes that nobody asked for
 *      status           not 200
 *      late             no complete answer within the limit
 *      other            the client's own troubles
 *
 * A close between two requests that is seen before the next one is sent is none, and counted as "clean".
 *
 * Commands on stdin, a line each; answers are lines of JSON:
 *
 *      count            how it stands
 *      wait N           answers when N requests have been answered that were begun after this
 *      reset            how it stands, and then forgets the latencies
 *      pause            begins no request, and answers when none is under way and all connections are closed
 *      resume
 *      stop             as the end of stdin: finishes what is under way, says how it stands, and ends
 */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1000
#define HEAD_MAX        8192
#define FIRST_MAX       10 /* failures told in detail */
#define DETAIL_MAX      160

#define NSEC_PER_USEC 1000ULL
#define NSEC_PER_MSEC 1000000ULL
#define NSEC_PER_SEC  1000000000ULL

#define AFTER_FAILURE (10 * NSEC_PER_MSEC) /* a server that is not there is not asked in a busy loop */
#define AFTER_FULL    (1 * NSEC_PER_MSEC)  /* a unix socket whose queue is full has no event for that */

typedef enum Failure {
        REFUSED,
        CONNECT_TIMEOUT,
        RESET,
        CLOSED,
        SHORT,
        STATUS,
        LATE,
        OTHER,
        _FAILURE_MAX
} Failure;

static const char *const failure_names[_FAILURE_MAX] = { "refused", "connect-timeout", "reset", "closed",
        "short", "status", "late", "other" };

typedef enum State {
        UNCONNECTED, /* the next request is due at some time */
        QUEUEING, /* a request is under way, and the queue of the socket was full: tries again when it is due
                   */
        CONNECTING, /* a request is under way from here on … */
        WAITING,    /* … to here: it was sent */
        IDLE,       /* connected; the next request is due at some time */
} State;

typedef struct Connection {
        int fd;
        State state;
        bool fresh;
        uint64_t due;
        uint64_t begun; /* the request under way */
        unsigned n_answers;
        bool in_body;
        bool closes;   /* so the head has announced */
        size_t n_head; /* bytes there */
        size_t n_body; /* bytes read */
        char head[HEAD_MAX + 1];
} Connection;

typedef struct Told {
        uint64_t at;
        Failure failure;
        char detail[DETAIL_MAX];
} Told;

static Connection connections[CONNECTIONS_MAX];
static size_t n_connections, n_fresh;
static uint64_t interval, limit = 5 * NSEC_PER_SEC;
static const char *body = "hello\n";
static size_t body_size;
static char request[2][512]; /* of a kept connection, and of a fresh one */
static union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
} address;
static socklen_t address_size;

static uint64_t now; /* CLOCK_MONOTONIC, nsec */
static bool pausing, paused, stopping;

static uint64_t n_answered, n_failures[_FAILURE_MAX], n_connected, n_announced, n_clean;
static Told first[FIRST_MAX];
static size_t n_first;
static uint64_t wait_left, wait_from;

/* Latencies in usec: 64 steps for each power of two. */
#define STEPS 64
static uint64_t histogram[64 * STEPS], latency_max;

static void set_now(void) {
        struct timespec ts;

        (void) clock_gettime(CLOCK_MONOTONIC, &ts);
        now = (uint64_t) ts.tv_sec * NSEC_PER_SEC + (uint64_t) ts.tv_nsec;
}

/*
 * The account
 */

static void count_latency(uint64_t usec) {
        unsigned shift = 0;

        while (usec >> shift >= 2 * STEPS)
                shift++;
        histogram[shift * STEPS + (usec >> shift)]++;
        if (usec > latency_max)
                latency_max = usec;
}

static uint64_t latency_at(uint64_t rank) {
        uint64_t seen = 0;

        for (size_t i = 0; i < sizeof(histogram) / sizeof(*histogram); i++) {
                seen += histogram[i];
                if (seen > rank) {
                        size_t shift = i < 2 * STEPS ? 0 : i / STEPS - 1;
                        return (uint64_t) (i - shift * STEPS) << shift;
                }
        }
        return 0;
}

static void say_latencies(void) {
        uint64_t n = 0;

        for (size_t i = 0; i < sizeof(histogram) / sizeof(*histogram); i++)
                n += histogram[i];
        printf("\"latency\":{\"p50\":%" PRIu64 ",\"p90\":%" PRIu64 ",\"p99\":%" PRIu64 ",\"p999\":%" PRIu64
               ",\"max\":%" PRIu64 "}",
                        latency_at(n / 2), latency_at(n * 9 / 10), latency_at(n * 99 / 100),
                        latency_at(n * 999 / 1000), latency_max);
}

static void say_account(void) {
        printf("{\"answered\":%" PRIu64 ",\"connected\":%" PRIu64 ",\"announced\":%" PRIu64
               ",\"clean\":%" PRIu64 ",\"failed\":{",
                        n_answered, n_connected, n_announced, n_clean);
        for (int i = 0; i < _FAILURE_MAX; i++)
                printf("%s\"%s\":%" PRIu64, i > 0 ? "," : "", failure_names[i], n_failures[i]);
        printf("},\"first\":[");
        for (size_t i = 0; i < n_first; i++) {
                printf("%s{\"at\":%.6f,\"failure\":\"%s\",\"detail\":\"", i > 0 ? "," : "",
                                (double) first[i].at / 1e9, failure_names[first[i].failure]);
                for (const unsigned char *p = (const unsigned char *) first[i].detail; *p; p++)
                        if (*p < 0x20 || *p > 0x7E || *p == '"' || *p == '\\')
                                printf("\\u%04x", *p);
                        else
                                putchar(*p);
                printf("\"}");
        }
        printf("],");
        say_latencies();
        printf("}\n");
        (void) fflush(stdout);
}

/*
 * The ends of a request
 */

static void connection_close(Connection *c) {
        if (c->fd >= 0)
                (void) close(c->fd);
        c->fd = -1;
        c->state = UNCONNECTED;
}

/* When the next one begins. What is behind its schedule begins at once; but not all that was missed while
 * nothing was answered. */
static void connection_schedule(Connection *c) {
        if (interval == 0)
                c->due = now;
        else
                c->due = now > c->due + limit ? now : c->due + interval;
}

__attribute__((format(printf, 3, 4))) static void fail(
                Connection *c, Failure failure, const char *format, ...) {
        char what[DETAIL_MAX / 2];
        va_list ap;

        n_failures[failure]++;
        if (n_first < FIRST_MAX) {
                va_start(ap, format);
                vsnprintf(what, sizeof(what), format, ap);
                va_end(ap);
                first[n_first] = (Told){ .at = now, .failure = failure };
                snprintf(first[n_first++].detail, DETAIL_MAX,
                                "%s connection %td, answer %u, after %.3f ms: %s",
                                c->fresh ? "fresh" : "kept", c - connections, c->n_answers + 1,
                                (double) (now - c->begun) / 1e6, what);
        }
        connection_close(c);
        connection_schedule(c);
        if (c->due < now + AFTER_FAILURE)
                c->due = now + AFTER_FAILURE;
}

static void answered(Connection *c) {
        n_answered++;
        c->n_answers++;
        count_latency((now - c->begun) / NSEC_PER_USEC);
        if (wait_left > 0 && c->begun >= wait_from && --wait_left == 0)
                say_account();
        c->state = IDLE;
        if (c->closes) {
                n_announced += !c->fresh;
                connection_close(c);
        }
        connection_schedule(c);
}

/*
 * Reading
 */

static const char *field(const char *head, const char *name) {
        size_t n = strlen(name);

        for (const char *p = head; (p = strstr(p, "\r\n")); p += 2)
                if (strncasecmp(p + 2, name, n) == 0 && p[2 + n] == ':')
                        return p + 2 + n + 1 + strspn(p + 2 + n + 1, " ");
        return NULL;
}

/* Returns whether the head is as it should be. */
static bool take_head(Connection *c) {
        const char *length = field(c->head, "Content-Length"), *option = field(c->head, "Connection");
        unsigned status;

        if (sscanf(c->head, "HTTP/1.%*1[01] %u", &status) != 1) {
                fail(c, SHORT, "not a status line: %.40s", c->head);
                return false;
        }
        if (status != 200) {
                fail(c, STATUS, "%u", status);
                return false;
        }
        if (!length || strtoul(length, NULL, 10) != body_size) {
                fail(c, SHORT, "Content-Length is %.20s, expected %zu", length ? length : "missing",
                                body_size);
                return false;
        }
        c->closes = strncmp(c->head, "HTTP/1.0", 8) == 0 || (option && strncasecmp(option, "close", 5) == 0);
        c->in_body = true;
        c->n_body = 0;
        return true;
}

static void take_body(Connection *c, const char *data, size_t n) {
        if (n > body_size - c->n_body || memcmp(body + c->n_body, data, n) != 0) {
                fail(c, SHORT, "%s", n > body_size - c->n_body ? "more than the body" : "another body");
                return;
        }
        c->n_body += n;
        if (c->n_body == body_size)
                answered(c);
}

static void take(Connection *c, const char *data, size_t n) {
        if (c->in_body) {
                take_body(c, data, n);
                return;
        }
        if (n > HEAD_MAX - c->n_head) {
                fail(c, SHORT, "the head does not end");
                return;
        }
        size_t from = c->n_head > 3 ? c->n_head - 3 : 0;
        memcpy(c->head + c->n_head, data, n);
        c->n_head += n;
        c->head[c->n_head] = '\0';
        char *end = strstr(c->head + from, "\r\n\r\n");
        if (!end)
                return;
        end += 4;
        size_t rest = (size_t) (c->head + c->n_head - end);
        char first_byte = *end;
        *end = '\0';
        if (!take_head(c))
                return;
        *end = first_byte;
        take_body(c, end, rest);
}

static void connection_receive(Connection *c) {
        char data[HEAD_MAX];
        size_t had = c->n_head;

        ssize_t n = recv(c->fd, data, sizeof(data), 0);
        if (n > 0)
                take(c, data, (size_t) n);
        else if (n < 0 && errno == EAGAIN)
                return;
        else if (n < 0)
                fail(c, RESET, "%m, after %zu bytes", had);
        else if (had > 0)
                fail(c, RESET, "the end of the stream after %zu bytes of the head and %zu of the body", had,
                                c->in_body ? c->n_body : 0);
        else
                fail(c, CLOSED, "the end of the stream");
}

/*
 * Beginning
 */

static void request_send(Connection *c) {
        const char *text = request[c->fresh];
        size_t size = strlen(text);

        c->n_head = 0;
        c->in_body = false;
        c->state = WAITING;
        ssize_t n = send(c->fd, text, size, MSG_NOSIGNAL);
        if (n == (ssize_t) size)
                return;
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
                fail(c, CLOSED, "while sending: %m");
        else
                fail(c, OTHER, "while sending: %s", n < 0 ? strerror(errno) : "not all at once");
}

static void connection_open(Connection *c) {
        static const int one = 1;

        if (c->fd < 0)
                c->fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (c->fd < 0) {
                fail(c, OTHER, "no socket: %m");
                return;
        }
        if (address.any.sa_family == AF_INET)
                (void) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (connect(c->fd, &address.any, address_size) >= 0) {
                n_connected++;
                request_send(c);
        } else if (errno == EINPROGRESS)
                c->state = CONNECTING;
        else if (errno == EAGAIN) {
                c->state = QUEUEING;
                c->due = now + AFTER_FULL;
        } else
                fail(c, errno == ECONNREFUSED || errno == ENOENT ? REFUSED : OTHER, "%m");
}

/* Whether an idle connection is still one; it is closed if not. */
static bool connection_is_open(Connection *c) {
        char byte;

        ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
                return true;
        uint64_t due = c->due;
        c->begun = now;
        if (n > 0)
                fail(c, SHORT, "bytes without a request");
        else if (n < 0)
                fail(c, RESET, "between two requests: %m");
        else {
                n_clean++;
                connection_close(c);
                c->due = due;
        }
        return false;
}

static void request_begin(Connection *c) {
        if (c->state == IDLE && !connection_is_open(c) && c->due > now)
                return; /* it was more than a clean close */
        c->begun = interval > 0 && c->due < now ? c->due : now;
        if (c->state == IDLE)
                request_send(c);
        else {
                c->n_answers = 0;
                connection_open(c);
        }
}

static void connection_connected(Connection *c) {
        int error = 0;
        socklen_t n = sizeof(error);

        (void) getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
        if (error != 0) {
                errno = error;
                fail(c,
                                error == ECONNREFUSED ? REFUSED
                                : error == ECONNRESET ? RESET
                                                      : OTHER,
                                "connecting: %m");
                return;
        }
        n_connected++;
        request_send(c);
}

/*
 * The loop
 */

static bool is_under_way(const Connection *c) {
        return c->state == CONNECTING || c->state == WAITING || c->state == QUEUEING;
}

static void connection_on_time(Connection *c) {
        if (is_under_way(c) && now - c->begun >= limit)
                fail(c, c->state == WAITING ? LATE : CONNECT_TIMEOUT, "%s",
                                c->state == WAITING    ? c->n_head > 0 ? "a part of the answer" : "no byte"
                                : c->state == QUEUEING ? "the queue is full"
                                                       : "no connection");
        else if (c->state == QUEUEING && c->due <= now)
                connection_open(c);
        else if ((c->state == UNCONNECTED || c->state == IDLE) && c->due <= now && !pausing && !stopping)
                request_begin(c);
}

static void connection_on_event(Connection *c) {
        if (c->state == CONNECTING)
                connection_connected(c);
        else if (c->state == WAITING)
                connection_receive(c);
        else if (c->state == IDLE)
                (void) connection_is_open(c);
        /* Without a rate the next request follows the answer without another look at the clock or the
         * others. */
        if (c->state == IDLE && interval == 0 && !pausing && !stopping)
                request_begin(c);
}

static uint64_t connection_next(const Connection *c) {
        uint64_t next = UINT64_MAX;

        if (is_under_way(c))
                next = c->begun + limit;
        else if (pausing || stopping)
                return next;
        if (c->state != CONNECTING && c->state != WAITING && c->due < next)
                next = c->due;
        return next;
}

static void command(const char *line) {
        if (strcmp(line, "count") == 0)
                say_account();
        else if (strncmp(line, "wait ", 5) == 0) {
                wait_left = strtoull(line + 5, NULL, 10);
                wait_from = now;
        } else if (strcmp(line, "reset") == 0) {
                say_account();
                memset(histogram, 0, sizeof(histogram));
                latency_max = 0;
        } else if (strcmp(line, "pause") == 0)
                pausing = true;
        else if (strcmp(line, "resume") == 0) {
                pausing = paused = false;
                for (size_t i = 0; i < n_connections; i++)
                        connections[i].due = now;
                say_account();
        } else
                stopping = true;
}

static void read_commands(void) {
        static char text[256];
        static size_t n_text;
        char *end;

        ssize_t n = read(STDIN_FILENO, text + n_text, sizeof(text) - 1 - n_text);
        if (n <= 0) {
                stopping = true;
                return;
        }
        n_text += (size_t) n;
        text[n_text] = '\0';
        while ((end = strchr(text, '\n'))) {
                *end++ = '\0';
                command(text);
                n_text -= (size_t) (end - text);
                memmove(text, end, n_text + 1);
        }
}

static size_t count_under_way(void) {
        size_t n = 0;

        for (size_t i = 0; i < n_connections; i++)
                n += is_under_way(connections + i);
        return n;
}

static void pause_if_done(void) {
        if (!pausing || paused || count_under_way() > 0)
                return;
        paused = true;
        for (size_t i = 0; i < n_connections; i++)
                connection_close(connections + i);
        say_account();
}

static void turn(void) {
        static struct pollfd p[1 + CONNECTIONS_MAX];
        uint64_t next = UINT64_MAX;
        struct timespec ts;

        for (size_t i = 0; i < n_connections; i++) {
                Connection *c = connections + i;

                connection_on_time(c);
                p[i] = (struct pollfd){ c->state == QUEUEING ? -1 : c->fd,
                        c->state == CONNECTING ? POLLOUT : POLLIN, 0 };
                uint64_t t = connection_next(c);
                if (t < next)
                        next = t;
        }
        pause_if_done();
        p[n_connections] = (struct pollfd){ stopping ? -1 : STDIN_FILENO, POLLIN, 0 };

        uint64_t rest = next == UINT64_MAX ? UINT64_MAX : next > now ? next - now : 0;
        ts = (struct timespec){ (time_t) (rest / NSEC_PER_SEC), (long) (rest % NSEC_PER_SEC) };
        if (stopping && count_under_way() == 0)
                return;
        int n = ppoll(p, n_connections + 1, rest == UINT64_MAX ? NULL : &ts, NULL);
        set_now();
        if (n <= 0)
                return;
        for (size_t i = 0; i < n_connections; i++)
                if (p[i].revents)
                        connection_on_event(connections + i);
        if (p[n_connections].revents)
                read_commands();
}

/*
 * The command line
 */

static bool parse_address(const char *text) {
        if (*text == '/') {
                address.un.sun_family = AF_UNIX;
                address_size = sizeof(address.un);
                return (size_t) snprintf(address.un.sun_path, sizeof(address.un.sun_path), "%s", text) <
                       sizeof(address.un.sun_path);
        }
        address.in = (struct sockaddr_in){ .sin_family = AF_INET,
                .sin_port = htons((uint16_t) atoi(text)),
                .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        address_size = sizeof(address.in);
        return address.in.sin_port != 0;
}

static const struct option options[] = {
        { "connections", required_argument, NULL, 'c' },
        { "fresh", required_argument, NULL, 'f' },
        { "rate", required_argument, NULL, 'r' },
        { "limit", required_argument, NULL, 'l' },
        { "target", required_argument, NULL, 't' },
        { "body", required_argument, NULL, 'b' },
        { NULL, 0, NULL, 0 },
};

static bool parse_options(int argc, char *argv[]) {
        unsigned long kept = 16, rate = 0;
        const char *target = "/";
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case 'c':
                        kept = strtoul(optarg, NULL, 10);
                        break;
                case 'f':
                        n_fresh = strtoul(optarg, NULL, 10);
                        break;
                case 'r':
                        rate = strtoul(optarg, NULL, 10);
                        break;
                case 'l':
                        limit = strtoul(optarg, NULL, 10) * NSEC_PER_MSEC;
                        break;
                case 't':
                        target = optarg;
                        break;
                case 'b':
                        body = optarg;
                        break;
                default:
                        return false;
                }
        n_connections = kept + n_fresh;
        body_size = strlen(body);
        if (rate > 0)
                interval = NSEC_PER_SEC * n_connections / rate;
        for (int i = 0; i < 2; i++)
                snprintf(request[i], sizeof(request[i]), "GET %s HTTP/1.1\r\nHost: load\r\n%s\r\n", target,
                                i > 0 ? "Connection: close\r\n" : "");
        return n_connections > 0 && n_connections <= CONNECTIONS_MAX && optind == argc - 1 &&
               parse_address(argv[optind]);
}

int main(int argc, char *argv[]) {
        if (!parse_options(argc, argv)) {
                fprintf(stderr, "usage: load_client ADDRESS [OPTION…]; see load_client.c\n");
                return 2;
        }
        set_now();
        for (size_t i = 0; i < n_connections; i++)
                connections[i] = (Connection){
                        .fd = -1, .fresh = i < n_fresh, .due = now + interval * i / n_connections
                }; /* spread */
        while (!stopping || count_under_way() > 0)
                turn();
        say_account();
        return 0;
}

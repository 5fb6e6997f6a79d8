/* SPDX-License-Identifier: MIT */
/* A client that nothing escapes: it asks for this and that at random, on kept connections and on new ones,
 * in pipelines and in fragments, reads fast and slowly, and checks every byte and the order of all answers,
 * and at the end the effects of what it asked for. What a failure is, is told in tally.h; twin.py is how
 * tests use it.
 *
 *      client ADDRESS [--seed=N] [--seconds=N] [--answers=N] [--stall=MSEC] [--hang=MSEC] [--threads=N]
 *              [--connections=N] [--mix=KIND:WEIGHT,…] [--style=any|keep|once|pipeline] [--static] [--weak]
 *              [--effects=FOLDER] [--corrupt=N]
 *      client --make=FOLDER
 *
 * ADDRESS: a port of 127.0.0.1, or the path of a unix socket. It ends on SIGTERM, after so many seconds, or
 * so many answers, when what is under way has been answered; then it prints a line of JSON. --stall: a
 * connection on which nothing moves for so long is a failure. Time during which this program itself was not
 * run does not count: another thread measures it. --connections: of each thread; it works on one of them at
 * a time, and the others are idle.
 * --weak: connections may be lost, as with unix sockets; answers may not be wrong, or effects be doubled,
 * even so.
 * --static: the server is one of files. --corrupt: changes about one in N of the pieces that are read, to
 * prove that it is noticed. --make: makes the files to be asked for. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "answer.h"

#define NSEC_PER_USEC UINT64_C(1000)
#define NSEC_PER_MSEC UINT64_C(1000000)
#define NSEC_PER_SEC  UINT64_C(1000000000)

#define THREADS_MAX     256
#define CONNECTIONS_MAX 64
#define BUFFER_SIZE     (256 * 1024)
#define BEAT_MSEC       5
#define BEAT_MAX                                                                                  \
        (15 * NSEC_PER_MSEC) /* what a beat counts for at most: the rest, the machine stood still \
                              */

typedef enum Style {
        STYLE_ANY,
        STYLE_KEEP,
        STYLE_ONCE,
        STYLE_PIPELINE,
} Style;

typedef struct Connection {
        int fd;
        unsigned rounds_left;
        bool once, slow, fragmented, half_closes;
} Connection;

typedef struct Thread {
        pthread_t thread;
        unsigned number;
        uint64_t n_requests;
        Random rng;
        Tally tally;
        Connection connections[CONNECTIONS_MAX];
        Connection *c; /* the one that it works on */
        /* the round under way */
        Request requests[PIPELINE_MAX];
        unsigned n, answered;
        Text out;
        size_t out_at, out_cut; /* up to where it may be sent in one go */
        bool closed;            /* for writing */
        bool told;              /* that a stall was a failure: once a round */
        Answer answer;
        uint64_t read_at, write_at; /* not before */
        uint64_t moved, moved_wall; /* when something did last */
        char *buffer;
        size_t n_buffer;
} Thread;

static Thread threads[THREADS_MAX];
static unsigned n_threads = 16, n_connections = 3;
static uint64_t seed = 1, stall = NSEC_PER_SEC, hang = 20 * NSEC_PER_SEC, max_answers = UINT64_MAX, corrupt;
static unsigned max_seconds;
static Mix mix;
static Style style;
static bool is_static, is_weak;
static union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_un un;
} address;
static socklen_t address_size;

static atomic_bool stopping;
static _Atomic uint64_t answers, running, machine_stall;

static void die(const char *what) {
        fprintf(stderr, "client: %s\n", what);
        exit(2);
}

static uint64_t now_wall(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * NSEC_PER_SEC + (uint64_t) t.tv_nsec;
}

/* The time for which this program could run. */
static void *beat(void *userdata) {
        uint64_t last = now_wall();

        for (;;) {
                uint64_t now, elapsed;

                poll(NULL, 0, BEAT_MSEC);
                now = now_wall();
                elapsed = now - last;
                last = now;
                atomic_fetch_add(&running, elapsed < BEAT_MAX ? elapsed : BEAT_MAX);
                if (elapsed > atomic_load(&machine_stall))
                        atomic_store(&machine_stall, elapsed);
        }
        return userdata;
}

/* Stalls */

static void moved(Thread *t) {
        t->moved = atomic_load(&running);
        t->moved_wall = now_wall();
        t->told = false;
}

static Request *current(Thread *t) {
        return t->requests + (t->answered < t->n ? t->answered : t->n - 1);
}

/* True when it is time to give it up. */
static bool check_stall(Thread *t) {
        uint64_t waited = atomic_load(&running) - t->moved, wall = now_wall() - t->moved_wall;
        Request *r = current(t);

        if (waited > t->tally.max_stall)
                t->tally.max_stall = waited;
        if (wall > t->tally.max_wait)
                t->tally.max_wait = wall;
        if (waited > stall && !t->told) {
                t->told = true;
                tally_fail(&t->tally, STALL, r->kind, r->id, t->answer.n_body,
                                "place %d, answered %u of %u, sent %zu of %zu (ends at %zu)%s",
                                t->answer.place, t->answered, t->n, t->out_at, t->out.n, r->end,
                                t->closed ? ", half closed" : "");
        }
        return waited > hang;
}

/* Connections */

static void connection_close(Connection *c, bool by_reset) {
        struct linger l = { .l_onoff = 1 };

        if (by_reset)
                setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
        close(c->fd);
        c->fd = -1;
}

static bool connection_open(Thread *t, Connection *c) {
        int size = 2048 << random_below(&t->rng, 4), one = 1;

        c->fd = socket(address.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (c->fd < 0)
                die("no socket");
        c->once = style == STYLE_ONCE || (style == STYLE_ANY && random_chance(&t->rng, 25));
        c->slow = random_chance(&t->rng, 15);
        c->fragmented = random_chance(&t->rng, 25);
        c->half_closes = random_chance(&t->rng, 15);
        c->rounds_left = c->once ? 1 : 1 + (unsigned) random_size(&t->rng, 200);
        if (c->slow || random_chance(&t->rng, 10))
                setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
        if (address.sa.sa_family == AF_INET)
                setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (connect(c->fd, &address.sa, address_size) < 0) {
                tally_fail(&t->tally, CONNECT, 0, 0, 0, "%s", strerror(errno));
                connection_close(c, false);
                poll(NULL, 0, 20);
                return false;
        }
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        t->tally.connections++;
        return true;
}

/* The end of a round */

static void count_outcomes(Thread *t, Outcome outcome) {
        for (; t->answered < t->n; t->answered++) {
                Request *r = t->requests + t->answered;

                tally_add_deed(&t->tally, r->id, r->kind, outcome);
                t->tally.unprocessed += outcome == UNPROCESSED;
                t->tally.lost += outcome == LOST;
        }
}

/* With what is not answered it is over. */
__attribute__((format(printf, 4, 5))) static void round_fail(
                Thread *t, Failure failure, uint64_t offset, const char *format, ...) {
        Request *r = current(t);
        char detail[256];
        va_list ap;

        va_start(ap, format);
        vsnprintf(detail, sizeof(detail), format, ap);
        va_end(ap);
        tally_fail(&t->tally, failure, r->kind, r->id, offset,
                        "%s (place %d, answered %u of %u, sent %zu of %zu, ends at %zu%s%s)", detail,
                        t->answer.place, t->answered, t->n, t->out_at, t->out.n, r->end,
                        t->closed ? ", half closed" : "", r->expects ? ", expects" : "");
        count_outcomes(t, LOST);
        connection_close(t->c, false);
}

/* The connection ended before all was answered, by @error; 0: in order. */
static void round_cut(Thread *t, int error) {
        Request *r = current(t);

        if (is_weak || (r->kind == BARE && t->answer.place > IN_HEAD)) {
                t->tally.aborted += r->kind == BARE;
                count_outcomes(t, LOST);
                connection_close(t->c, false);
        } else
                round_fail(t, error != 0 ? RESET : CLOSED, t->answer.n_body, "%s",
                                error != 0 ? strerror(error) : "the end");
}

/* Sending */

/* Where it has to wait: for the word to go on. */
static size_t send_limit(const Thread *t) {
        for (unsigned i = t->answered; i < t->n; i++)
                if (t->requests[i].expects)
                        return t->requests[i].gate;
        return t->out.n;
}

static void stamp(Thread *t) {
        for (unsigned i = t->answered; i < t->n; i++)
                if (t->requests[i].sent_at == 0 && t->out_at >= t->requests[i].end)
                        t->requests[i].sent_at = now_wall();
}

static void cut(Thread *t, size_t limit) {
        t->out_cut = limit;
        if (!t->c->fragmented || t->out_at == limit)
                return;
        t->out_cut = t->out_at + 1 + random_size(&t->rng, limit - t->out_at - 1);
        if (random_chance(&t->rng, 30))
                t->write_at = now_wall() + random_below(&t->rng, 3 * NSEC_PER_MSEC);
}

/* 0, or why it is over. */
static int send_some(Thread *t) {
        size_t limit = send_limit(t);
        ssize_t n;

        if (t->out_cut <= t->out_at || t->out_cut > limit)
                cut(t, limit);
        n = send(t->c->fd, t->out.data + t->out_at, t->out_cut - t->out_at, MSG_NOSIGNAL);
        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : errno;
        t->out_at += (size_t) n;
        moved(t);
        stamp(t);
        if (t->out_at == t->out.n && t->c->half_closes && t->c->rounds_left == 1) {
                shutdown(t->c->fd, SHUT_WR);
                t->closed = true;
        }
        return 0;
}

/* Reading */

static void answer_done(Thread *t) {
        Request *r = t->requests + t->answered;

        t->tally.kinds[r->head ? HEAD : r->kind]++;
        t->tally.unknown += t->answer.unknown;
        t->tally.closes += t->answer.closes && !r->last && !r->old;
        if (r->sent_at != 0 && !t->c->slow)
                tally_add_latency(&t->tally, now_wall() - r->sent_at);
        tally_add_deed(&t->tally, r->id, r->kind, t->answer.unknown ? UNKNOWN : ANSWERED);
        t->answered++;
        if (atomic_fetch_add(&answers, 1) + 1 >= max_answers)
                atomic_store(&stopping, true);
}

/* Of all that is there. False: it is wrong. */
static bool check_answers(Thread *t, bool *ret_closes) {
        size_t at = 0;

        while (t->answered < t->n && !*ret_closes) {
                Request *r = t->requests + t->answered;
                bool go_on = false;
                long n = answer_feed(&t->answer, r, !is_static, t->buffer + at, t->n_buffer - at, &go_on);

                if (go_on) {
                        r->expects = false;
                        t->tally.continues++;
                }
                if (n < 0) {
                        round_fail(t, t->answer.failure, t->answer.failed_at, "%s", t->answer.detail);
                        return false;
                }
                at += (size_t) n;
                if (t->answer.place != COMPLETE)
                        break;
                r->expects = false;
                *ret_closes = t->answer.closes || r->last;
                answer_done(t);
                answer_begin(&t->answer);
        }
        t->n_buffer -= at;
        memmove(t->buffer, t->buffer + at, t->n_buffer);
        return true;
}

static size_t read_size(Thread *t) {
        size_t room = BUFFER_SIZE - t->n_buffer, n = 4096;

        if (!t->c->slow)
                return room;
        if (current(t)->size > 256 * 1024)
                n = 65536;
        n = 1 + random_below(&t->rng, n);
        if (random_chance(&t->rng, 50))
                t->read_at = now_wall() + random_below(&t->rng, 2 * NSEC_PER_MSEC);
        return n < room ? n : room;
}

typedef enum Reading {
        READ_MORE,
        READ_CLOSES, /* the last answer has come, and the connection ends */
        READ_OVER,   /* it is over, and told */
} Reading;

static Reading read_end(Thread *t) {
        if (t->answered < t->n && answer_end(&t->answer, current(t))) {
                answer_done(t);
                count_outcomes(t, UNPROCESSED);
                connection_close(t->c, false);
        } else
                round_cut(t, 0);
        return READ_OVER;
}

static Reading read_some(Thread *t) {
        bool closes = false;
        ssize_t n = recv(t->c->fd, t->buffer + t->n_buffer, read_size(t), 0);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return READ_MORE;
        if (n < 0) {
                round_cut(t, errno);
                return READ_OVER;
        }
        if (n == 0)
                return read_end(t);
        moved(t);
        if (corrupt > 0 && random_below(&t->rng, corrupt) == 0)
                t->buffer[t->n_buffer + random_below(&t->rng, (uint64_t) n)] ^= 1
                                                                                << random_below(&t->rng, 8);
        t->n_buffer += (size_t) n;
        if (!check_answers(t, &closes))
                return READ_OVER;
        return closes ? READ_CLOSES : READ_MORE;
}

/* What comes next has to be the end. What was sent and not read makes it a reset. */
static void wait_end(Thread *t) {
        bool unread = t->answered < t->n || t->out_at < t->out.n;

        count_outcomes(t, UNPROCESSED);
        for (;;) {
                struct pollfd p = { .fd = t->c->fd, .events = POLLIN };
                char byte;
                ssize_t n;

                if (t->n_buffer > 0) {
                        tally_fail(&t->tally, EXTRA, 0, current(t)->id, 0, "behind the last answer: %.40s",
                                        t->buffer);
                        break;
                }
                poll(&p, 1, 10);
                n = recv(t->c->fd, &byte, 1, 0);
                if (n == 0 || (n < 0 && errno == ECONNRESET && unread))
                        break;
                if (n > 0 || errno != EAGAIN) {
                        tally_fail(&t->tally, n > 0 ? EXTRA : NO_END, current(t)->kind, current(t)->id, 0,
                                        "behind the last answer: %s", n > 0 ? "a byte" : strerror(errno));
                        break;
                }
                if (check_stall(t)) {
                        tally_fail(&t->tally, NO_END, current(t)->kind, current(t)->id, 0,
                                        "the connection is not closed");
                        break;
                }
        }
        connection_close(t->c, false);
}

/* Rounds */

static uint64_t wait_msec(uint64_t now, uint64_t until) {
        return until > now ? (until - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC : 10;
}

/* What can be done now. */
static short wait_ready(Thread *t) {
        struct pollfd p = { .fd = t->c->fd };
        uint64_t now = now_wall(), msec = 10;
        bool sends = t->out_at < send_limit(t) && !t->closed;

        if (t->read_at <= now)
                p.events |= POLLIN;
        else
                msec = wait_msec(now, t->read_at);
        if (sends && t->write_at <= now)
                p.events |= POLLOUT;
        else if (sends)
                msec = wait_msec(now, t->write_at) < msec ? wait_msec(now, t->write_at) : msec;
        if (p.events == 0)
                p.fd = -1;
        if (poll(&p, 1, (int) msec) <= 0)
                return 0;
        return p.revents & (POLLERR | POLLHUP) ? p.revents | POLLIN : p.revents;
}

static void round_make(Thread *t, bool leaves) {
        Connection *c = t->c;
        bool pipelined = style == STYLE_PIPELINE || (style == STYLE_ANY && random_chance(&t->rng, 40));

        t->n = c->once || !pipelined ? 1 : 1 + (unsigned) random_below(&t->rng, PIPELINE_MAX);
        t->answered = 0;
        t->out.n = t->out_at = t->out_cut = t->n_buffer = 0;
        t->closed = false;
        t->read_at = t->write_at = 0;
        for (unsigned i = 0; i < t->n; i++) {
                uint64_t id = seed << 48 ^ (uint64_t) t->number << 36 ^ t->n_requests++;
                bool last = i == t->n - 1 && c->rounds_left == 1 && !c->half_closes;

                request_make(t->requests + i, &t->rng, &mix, id, is_static, last, leaves, &t->out);
                /* whoever half-closes does not wait for what comes in time */
                if (t->requests[i].kind == TIMED || t->requests[i].kind == BARE)
                        c->half_closes = false;
                /* nothing can come behind what ends with the connection, or may be cut */
                if (t->requests[i].kind == BARE || t->requests[i].old) {
                        t->n = i + 1;
                        c->rounds_left = 1;
                }
        }
        answer_begin(&t->answer);
        moved(t);
}

/* A client that does not wait for the answers. */
static void round_leave(Thread *t) {
        uint64_t end = now_wall() + random_below(&t->rng, 5 * NSEC_PER_MSEC);

        while (t->answered < t->n && now_wall() < end) {
                short ready = wait_ready(t);

                if (ready & POLLOUT && send_some(t) != 0)
                        break;
                if (ready & POLLIN && read_some(t) != READ_MORE)
                        break;
        }
        t->tally.abandoned += t->n - t->answered;
        t->answered = t->n;
        if (t->c->fd >= 0)
                connection_close(t->c, random_chance(&t->rng, 50));
}

static void round_run(Thread *t) {
        while (t->answered < t->n) {
                short ready = wait_ready(t);
                int error = 0;

                /* what it said before is to be read first */
                if (ready & POLLIN) {
                        Reading reading = read_some(t);

                        if (reading == READ_CLOSES)
                                wait_end(t);
                        if (reading != READ_MORE)
                                return;
                } else if (ready & POLLOUT)
                        error = send_some(t);
                if (error != 0) {
                        t->closed = true;
                        t->out_at = t->out.n;
                }
                if (check_stall(t)) {
                        round_fail(t, HANG, t->answer.n_body, "it never went on");
                        return;
                }
        }
        if (t->n_buffer > 0)
                round_fail(t, EXTRA, 0, "%zu bytes that nobody asked for: %.40s", t->n_buffer, t->buffer);
        else if (t->closed)
                wait_end(t);
        else if (--t->c->rounds_left == 0)
                connection_close(t->c, random_chance(&t->rng, 10));
}

/* Between two requests a server may close a connection, and says so by its end. */
static bool connection_is_open(Thread *t, Connection *c) {
        char byte;
        ssize_t n = c->fd >= 0 ? recv(c->fd, &byte, 1, MSG_DONTWAIT) : 0;

        if (c->fd < 0 || (n < 0 && errno == EAGAIN))
                return c->fd >= 0;
        if (n == 0)
                t->tally.ended++;
        else
                tally_fail(&t->tally, n > 0 ? EXTRA : RESET, 0, 0, 0, "between two requests: %s",
                                n > 0 ? "a byte" : strerror(errno));
        connection_close(c, false);
        return false;
}

static void *client_run(void *userdata) {
        Thread *t = userdata;

        for (unsigned i = 0; i < n_connections; i++)
                t->connections[i].fd = -1;
        while (!atomic_load(&stopping)) {
                bool leaves = random_chance(&t->rng, 2);

                t->c = t->connections + random_below(&t->rng, n_connections);
                if (!connection_is_open(t, t->c) && !connection_open(t, t->c))
                        continue;
                round_make(t, leaves);
                if (leaves)
                        round_leave(t);
                else
                        round_run(t);
        }
        for (unsigned i = 0; i < n_connections; i++)
                if (t->connections[i].fd >= 0)
                        connection_close(t->connections + i, false);
        return NULL;
}

/* The program */

static void parse_address(const char *text) {
        if (strchr(text, '/')) {
                address.un.sun_family = AF_UNIX;
                if (strlen(text) >= sizeof(address.un.sun_path))
                        die("the path is too long");
                strcpy(address.un.sun_path, text);
                address_size = sizeof(address.un);
        } else {
                address.in.sin_family = AF_INET;
                address.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
                address.in.sin_port = htons((uint16_t) atoi(text));
                address_size = sizeof(address.in);
        }
}

static Style parse_style(const char *text) {
        static const char *const names[] = { "any", "keep", "once", "pipeline" };

        for (Style s = 0; s < 4; s++)
                if (strcmp(names[s], text) == 0)
                        return s;
        die("no such style");
        return STYLE_ANY;
}

/* The folder of the effects, or NULL. */
static const char *parse_options(int argc, char **argv) {
        static const struct option options[] = { { "seed", required_argument, NULL, 's' },
                { "seconds", required_argument, NULL, 't' }, { "answers", required_argument, NULL, 'a' },
                { "stall", required_argument, NULL, 'w' }, { "hang", required_argument, NULL, 'h' },
                { "threads", required_argument, NULL, 'n' }, { "connections", required_argument, NULL, 'c' },
                { "mix", required_argument, NULL, 'm' }, { "style", required_argument, NULL, 'y' },
                { "static", no_argument, NULL, 'f' }, { "weak", no_argument, NULL, 'u' },
                { "effects", required_argument, NULL, 'e' }, { "corrupt", required_argument, NULL, 'x' },
                { "make", required_argument, NULL, 'k' }, {} };
        const char *effects = NULL;
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
                uint64_t number = optarg ? strtoull(optarg, NULL, 10) : 0;

                switch (c) {
                case 's':
                        seed = number;
                        break;
                case 't':
                        max_seconds = (unsigned) number;
                        break;
                case 'a':
                        max_answers = number;
                        break;
                case 'w':
                        stall = number * NSEC_PER_MSEC;
                        break;
                case 'h':
                        hang = number * NSEC_PER_MSEC;
                        break;
                case 'n':
                        n_threads = number < THREADS_MAX ? (unsigned) number : THREADS_MAX;
                        break;
                case 'c':
                        n_connections = number < CONNECTIONS_MAX ? (unsigned) number : CONNECTIONS_MAX;
                        break;
                case 'm':
                        if (!mix_parse(&mix, optarg))
                                die("--mix is malformed");
                        break;
                case 'y':
                        style = parse_style(optarg);
                        break;
                case 'f':
                        is_static = true;
                        break;
                case 'u':
                        is_weak = true;
                        break;
                case 'e':
                        effects = optarg;
                        break;
                case 'x':
                        corrupt = number;
                        break;
                case 'k':
                        exit(request_make_files(optarg) < 0);
                default:
                        exit(2);
                }
        }
        if (optind != argc - 1)
                die("ADDRESS is missing");
        parse_address(argv[optind]);
        return effects;
}

static void start_threads(void) {
        pthread_t beating;

        if (pthread_create(&beating, NULL, beat, NULL) != 0)
                die("no thread");
        for (unsigned i = 0; i < n_threads; i++) {
                Thread *t = threads + i;

                t->number = i;
                t->rng.state = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15) ^
                               (i + 1) * UINT64_C(0xC2B2AE3D27D4EB4F);
                t->buffer = malloc(BUFFER_SIZE);
                if (!t->buffer || pthread_create(&t->thread, NULL, client_run, t) != 0)
                        die("no thread");
        }
}

/* Until it is told to, or the time is over. */
static void wait_stop(const sigset_t *set) {
        uint64_t end = max_seconds > 0 ? now_wall() + max_seconds * NSEC_PER_SEC : UINT64_MAX;
        const struct timespec beat_time = { .tv_nsec = 20 * 1000000 };

        while (!atomic_load(&stopping) && now_wall() < end)
                if (sigtimedwait(set, NULL, &beat_time) > 0)
                        break;
        atomic_store(&stopping, true);
}

int main(int argc, char **argv) {
        const char *effects;
        static Tally sum;
        sigset_t set;

        mix_parse(&mix, "memory:20,file:20,head:5,range:10,deferred:8,threaded:5,stream:8,timed:5,sized:5,"
                        "keyed:14,unkeyed:6");
        effects = parse_options(argc, argv);
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
        start_threads();
        wait_stop(&set);
        for (unsigned i = 0; i < n_threads; i++) {
                pthread_join(threads[i].thread, NULL);
                tally_merge(&sum, &threads[i].tally);
        }
        return tally_report(&sum, seed, effects, atomic_load(&machine_stall)) > 0;
}

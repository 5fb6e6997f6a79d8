/* SPDX-License-Identifier: MIT */
/* The scenarios; see twin-script.h.
 *
 * What an answer consists of is learned from the first one of its kind, which is given before anything is
 * killed; only the date may differ later. Large bodies follow a formula, and the connections in the
 * background have to live for ever. */

#include "twin-script.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "modules/effects.h"

#define LINKS_MAX   4
#define IDLE_MAX    4
#define SAMPLES_MAX 64
#define SAMPLE_SIZE 8192 /* of a whole answer that is compared as it is */
#define LARGE       4096 /* a body from here on follows the formula */
#define BODY_MAX    (1024 * 1024)

typedef struct Link {
        int fd;
        size_t start, end;
        char data[65536];
} Link;

typedef struct Sample {
        char key[128];
        size_t size;
        char text[SAMPLE_SIZE];
} Sample;

typedef struct Script Script;

typedef struct Scenario {
        const char *name;
        void (*prepare)(Script *);
        void (*begin)(Script *);
        void (*rest)(Script *);
} Scenario;

struct Script {
        const ScriptSettings *settings;
        const Scenario *scenario;
        int control;
        Effect *effects;
        unsigned place; /* of this round's effect */
        unsigned rounds;
        int rcvbuf; /* of links that are opened; 0: the usual one */
        Link links[LINKS_MAX], idle[IDLE_MAX], fresh;
        Sample samples[SAMPLES_MAX];
        size_t n_samples;
        jmp_buf failed;
};

static char body[BODY_MAX];

static void say(const Script *s, char what, const char *text) {
        char message[SCRIPT_TEXT_MAX];
        int n = snprintf(message, sizeof(message), "%c%s", what, text);

        if (send(s->control, message, (size_t) n < sizeof(message) ? (size_t) n : sizeof(message) - 1,
                            MSG_NOSIGNAL) < 0)
                _exit(EXIT_FAILURE);
}

static char hear(const Script *s) {
        char message[SCRIPT_TEXT_MAX];

        if (recv(s->control, message, sizeof(message), 0) <= 0)
                _exit(EXIT_SUCCESS);
        return message[0];
}

__attribute__((format(printf, 2, 3), noreturn)) static void fail(Script *s, const char *format, ...) {
        char text[SCRIPT_TEXT_MAX];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        say(s, SCRIPT_FAILED, text);
        longjmp(s->failed, 1);
}

/*
 * Connections
 */

static void link_close(Link *l) {
        if (l->fd >= 0)
                close(l->fd);
        l->fd = -1;
        l->start = l->end = 0;
}

static void link_open(Script *s, Link *l) {
        const struct sockaddr_in address = { .sin_family = AF_INET,
                .sin_port = htons(s->settings->port),
                .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        const struct timeval patience = { .tv_sec = s->settings->patience };
        const int yes = 1;

        link_close(l);
        l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(l->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        setsockopt(l->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
        setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
        if (s->rcvbuf)
                setsockopt(l->fd, SOL_SOCKET, SO_RCVBUF, &s->rcvbuf, sizeof(s->rcvbuf));
        if (connect(l->fd, (const struct sockaddr *) &address, sizeof(address)) < 0)
                fail(s, "connect: %s", strerror(errno));
}

static void link_send(Script *s, Link *l, const char *data, size_t n) {
        while (n > 0) {
                ssize_t r = send(l->fd, data, n, MSG_NOSIGNAL);
                if (r < 0)
                        fail(s, "send: %s", errno == EAGAIN ? "nobody reads" : strerror(errno));
                data += r;
                n -= (size_t) r;
        }
}

static void link_say(Script *s, Link *l, const char *text) {
        link_send(s, l, text, strlen(text));
}

__attribute__((format(printf, 3, 4))) static void link_printf(Script *s, Link *l, const char *format, ...) {
        char text[1024];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        link_say(s, l, text);
}

/* Returns what recv() did: 0 at the end, -1 for a reset. */
static ssize_t link_fill(Script *s, Link *l) {
        ssize_t n;

        if (l->start == l->end)
                l->start = l->end = 0;
        if (l->end == sizeof(l->data)) {
                memmove(l->data, l->data + l->start, l->end - l->start);
                l->end -= l->start;
                l->start = 0;
        }
        n = recv(l->fd, l->data + l->end, sizeof(l->data) - l->end, 0);
        if (n < 0 && errno == EAGAIN)
                fail(s, "stalled: no byte within %u s", s->settings->patience);
        if (n > 0)
                l->end += (size_t) n;
        return n;
}

static void link_need(Script *s, Link *l, const char *what) {
        ssize_t n = link_fill(s, l);

        if (n <= 0)
                fail(s, "%s: %s, after %zu bytes of it", what,
                                n == 0 ? "the end of the stream" : strerror(errno), l->end - l->start);
}

static void link_expect_end(Script *s, Link *l) {
        ssize_t n;

        if (l->start < l->end)
                fail(s, "%zu bytes too many", l->end - l->start);
        n = link_fill(s, l);
        if (n != 0)
                fail(s, "instead of the end: %s", n > 0 ? "a byte" : strerror(errno));
}

/* The line with its end taken off. */
static void link_read_line(Script *s, Link *l, char *ret, size_t size, const char *what) {
        for (;;) {
                char *found = memmem(l->data + l->start, l->end - l->start, "\r\n", 2);
                if (found) {
                        size_t n = (size_t) (found - l->data) - l->start;
                        if (n >= size)
                                fail(s, "%s: a line too long", what);
                        memcpy(ret, l->data + l->start, n);
                        ret[n] = '\0';
                        l->start += n + 2;
                        return;
                }
                link_need(s, l, what);
        }
}

static void link_expect_pattern(Script *s, Link *l, uint64_t offset, uint64_t size, const char *what) {
        for (uint64_t at = 0; at < size;) {
                if (l->start == l->end) {
                        ssize_t n = link_fill(s, l);
                        if (n <= 0)
                                fail(s, "%s: %s after %llu of %llu bytes", what,
                                                n == 0 ? "the end of the stream" : strerror(errno),
                                                (unsigned long long) at, (unsigned long long) size);
                }
                for (; l->start < l->end && at < size; at++)
                        if (l->data[l->start++] != pattern_at(offset + at))
                                fail(s, "%s: byte %llu of %llu is wrong", what, (unsigned long long) at,
                                                (unsigned long long) size);
        }
}

/*
 * Answers
 */

typedef struct Head {
        unsigned status;
        uint64_t size;
        bool chunked, closes;
        char boundary[128];
        char text[4096];
} Head;

static void head_take_field(Head *h, const char *line) {
        const char *value = strchr(line, ':'), *boundary;

        if (strncasecmp(line, "Content-Length:", 15) == 0)
                h->size = strtoull(value + 1, NULL, 10);
        else if (strcasecmp(line, "Transfer-Encoding: chunked") == 0)
                h->chunked = true;
        else if (strcasecmp(line, "Connection: close") == 0)
                h->closes = true;
        else if (strncasecmp(line, "Content-Type:", 13) == 0 && (boundary = strstr(line, "boundary=")))
                snprintf(h->boundary, sizeof(h->boundary), "%s", boundary + strlen("boundary="));
}

/* Its text is without what may differ. */
static void link_read_head(Script *s, Link *l, Head *h, const char *what) {
        size_t n = 0;
        char line[1024];

        memset(h, 0, sizeof(*h));
        for (;;) {
                link_read_line(s, l, line, sizeof(line), what);
                if (n == 0 && sscanf(line, "HTTP/1.1 %u ", &h->status) != 1)
                        fail(s, "%s: no answer: \"%.100s\"", what, line);
                if (!line[0])
                        return;
                head_take_field(h, line);
                if (strncasecmp(line, "Date:", 5) == 0)
                        line[5] = '\0';
                else if (h->boundary[0] && strstr(line, h->boundary))
                        *strstr(line, h->boundary) = '\0';
                n += (size_t) snprintf(h->text + n, sizeof(h->text) - n, "%s\n", line);
                if (n >= sizeof(h->text))
                        fail(s, "%s: a head too large", what);
        }
}

static void compare_sample(Script *s, const char *key, const char *text, size_t size) {
        Sample *sample = NULL;

        for (size_t i = 0; i < s->n_samples; i++)
                if (strcmp(s->samples[i].key, key) == 0)
                        sample = s->samples + i;
        if (!sample) {
                if (s->n_samples == SAMPLES_MAX || size > SAMPLE_SIZE)
                        abort();
                sample = s->samples + s->n_samples++;
                snprintf(sample->key, sizeof(sample->key), "%s", key);
                memcpy(sample->text, text, size);
                sample->size = size;
        }
        if (sample->size != size || memcmp(sample->text, text, size) != 0)
                fail(s, "%s: other than before: %.*s", key, (int) (size < 300 ? size : 300), text);
}

static void link_read(Script *s, Link *l, char *ret, size_t n, const char *what) {
        while (l->end - l->start < n)
                link_need(s, l, what);
        memcpy(ret, l->data + l->start, n);
        l->start += n;
}

/* Compares what is after each other in memory: the head, and a body that is not large. */
static void link_expect_head(Script *s, Link *l, Head *h, const char *key) {
        link_read_head(s, l, h, key);
        compare_sample(s, key, h->text, strlen(h->text));
}

/* Of which the head was read. */
static void link_expect_answer(Script *s, Link *l, const Head *h, const char *key) {
        char text[LARGE], name[160];

        compare_sample(s, key, h->text, strlen(h->text));
        if (h->size >= LARGE) {
                link_expect_pattern(s, l, 0, h->size, key);
                return;
        }
        link_read(s, l, text, h->size, key);
        snprintf(name, sizeof(name), "%.100s (body)", key);
        compare_sample(s, name, text, h->size);
}

static void link_expect(Script *s, Link *l, const char *key) {
        Head h;

        link_read_head(s, l, &h, key);
        link_expect_answer(s, l, &h, key);
}

static void link_get(Script *s, Link *l, const char *target) {
        link_printf(s, l, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", target);
}

/* Returns false at the end, which may come if @cut. */
static bool link_fill_more(Script *s, Link *l, bool cut, uint64_t at) {
        if (link_fill(s, l) > 0)
                return true;
        if (!cut)
                fail(s, "cut after %llu bytes of the stream", (unsigned long long) at);
        return false;
}

/* Returns whether it was complete: @cut: it need not be. */
static bool link_expect_chunks(Script *s, Link *l, uint64_t size, bool cut, const char *what) {
        uint64_t at = 0;
        char line[64];

        for (;;) {
                while (!memmem(l->data + l->start, l->end - l->start, "\r\n", 2))
                        if (!link_fill_more(s, l, cut, at))
                                return false;
                link_read_line(s, l, line, sizeof(line), what);
                uint64_t n = strtoull(line, NULL, 16);
                for (uint64_t i = 0; i < n; i++, at++) {
                        if (l->start == l->end && !link_fill_more(s, l, cut, at))
                                return false;
                        if (l->data[l->start++] != pattern_at(at))
                                fail(s, "%s: byte %llu of the stream is wrong", what,
                                                (unsigned long long) at);
                }
                while (l->end - l->start < 2)
                        if (!link_fill_more(s, l, cut, at))
                                return false;
                link_read_line(s, l, line, sizeof(line), what);
                if (line[0])
                        fail(s, "%s: no end of a chunk after %llu bytes", what, (unsigned long long) at);
                if (n == 0)
                        break;
        }
        if (at != size)
                fail(s, "%s: %llu bytes instead of %llu", what, (unsigned long long) at,
                                (unsigned long long) size);
        return true;
}

/* Until the worker sleeps: it has dealt with everything that was sent, or has no room to send to. */
static void wait_asleep(const Script *s) {
        say(s, SCRIPT_WAIT, "");
        if (hear(s) != SCRIPT_WAIT)
                abort();
}

/*
 * Scenarios. In each, what was sent with begin() lies in the socket when the worker goes on.
 */

static void open_one(Script *s) {
        link_open(s, s->links);
        link_get(s, s->links, "/small");
        link_expect(s, s->links, "/small");
}

static void open_small_window(Script *s) {
        s->rcvbuf = 8192;
        open_one(s);
        s->rcvbuf = 0;
}

static void nothing(Script *s) {
}

/* The connection lives on, and is at the right byte. */
static void go_on(Script *s) {
        link_get(s, s->links, "/small");
        link_expect(s, s->links, "/small");
        if (s->links->start < s->links->end)
                fail(s, "%zu bytes too many", s->links->end - s->links->start);
}

static void get_begin(Script *s) {
        link_get(s, s->links, "/small");
}

static void get_rest(Script *s) {
        link_expect(s, s->links, "/small");
        go_on(s);
}

static void pipeline_begin(Script *s) {
        link_say(s, s->links,
                        "GET /small HTTP/1.1\r\nHost: test\r\n\r\nGET /missing HTTP/1.1\r\nHost: test\r\n\r\n"
                        "GET /8k HTTP/1.1\r\nHost: test\r\n\r\nGET /tiny HTTP/1.1\r\nHost: test\r\n\r\n"
                        "GET /small HTTP/1.1\r\nHost: test\r\n\r\n");
}

static void pipeline_rest(Script *s) {
        const char *const targets[] = { "/small", "/missing", "/8k", "/tiny", "/small" };

        for (size_t i = 0; i < sizeof(targets) / sizeof(*targets); i++)
                link_expect(s, s->links, targets[i]);
        go_on(s);
}

static void file64k_begin(Script *s) {
        link_get(s, s->links, "/64k");
}

static void file10m_begin(Script *s) {
        link_get(s, s->links, "/10m");
}

/* The worker sleeps again and again, for lack of room. */
static void slow_rest(Script *s, const char *key) {
        Link *l = s->links;
        Head h;

        wait_asleep(s);
        link_expect_head(s, l, &h, key);
        for (uint64_t at = 0; at < h.size;) {
                uint64_t n = h.size - at < h.size / 6 ? h.size - at : h.size / 6 + 1;
                link_expect_pattern(s, l, at, n, key);
                at += n;
                wait_asleep(s);
        }
        go_on(s);
}

static void file64k_rest(Script *s) {
        slow_rest(s, "/64k");
}

static void file10m_rest(Script *s) {
        slow_rest(s, "/10m");
}

static void accept_begin(Script *s) {
        link_open(s, s->links);
        link_get(s, s->links, "/small");
}

static void silent_accept_begin(Script *s) {
        link_open(s, s->links);
        link_open(s, s->links + 1);
}

/* One goes on, the other one leaves without a word. */
static void silent_accept_rest(Script *s) {
        wait_asleep(s);
        link_close(s->links + 1);
        go_on(s);
}

static void fresh_begin(Script *s) {
        link_open(s, s->links);
        link_say(s, s->links, "GET /small HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
}

/* Numbers of descriptors are used again. */
static void fresh_rest(Script *s) {
        for (int i = 0;; i++) {
                link_expect(s, s->links, "/small (close)");
                link_expect_end(s, s->links);
                if (i == 2)
                        return;
                fresh_begin(s);
        }
}

/* Two at a time, so that one is closed while the other one is accepted. */
static void crossing_begin(Script *s) {
        fresh_begin(s);
        link_open(s, s->links + 1);
        link_get(s, s->links + 1, "/8k");
}

static void crossing_rest(Script *s) {
        for (int i = 0; i < 3; i++) {
                Link *a = s->links + (i & 1), *b = s->links + !(i & 1);
                link_expect(s, a, "/small (close)");
                link_expect_end(s, a);
                link_open(s, a);
                link_get(s, a, "/8k");
                link_expect(s, b, "/8k");
                link_say(s, b, "GET /small HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        }
        link_expect(s, s->links + 1, "/small (close)");
        link_expect_end(s, s->links + 1);
        link_expect(s, s->links, "/8k");
}

static void half_begin(Script *s) {
        link_say(s, s->links,
                        "GET /8k HTTP/1.1\r\nHost: test\r\n\r\nGET /small HTTP/1.1\r\nHost: test\r\n\r\n");
        shutdown(s->links->fd, SHUT_WR);
}

static void half_rest(Script *s) {
        link_expect(s, s->links, "/8k");
        link_expect(s, s->links, "/small");
        link_expect_end(s, s->links);
}

static void half_file_begin(Script *s) {
        link_get(s, s->links, "/64k");
        shutdown(s->links->fd, SHUT_WR);
}

static void half_file_rest(Script *s) {
        wait_asleep(s);
        link_expect(s, s->links, "/64k");
        link_expect_end(s, s->links);
}

static void fragments_begin(Script *s) {
        link_say(s, s->links, "GET /sma");
}

static void fragments_rest(Script *s) {
        wait_asleep(s);
        link_say(s, s->links, "ll HTTP/1.1\r\nHo");
        wait_asleep(s);
        link_say(s, s->links, "st: test\r\n\r\nGET /tiny HT");
        link_expect(s, s->links, "/small");
        wait_asleep(s);
        link_say(s, s->links, "TP/1.1\r\nHost: test\r\n\r\n");
        link_expect(s, s->links, "/tiny");
        go_on(s);
}

static void ranges_begin(Script *s) {
        link_say(s, s->links,
                        "GET /64k HTTP/1.1\r\nHost: test\r\nRange: bytes=0-99,1000-1999,20000-59999,65000-\r\n\r\n");
}

static void ranges_rest(Script *s) {
        static const unsigned parts[][2] = { { 0, 100 }, { 1000, 1000 }, { 20000, 40000 }, { 65000, 536 } };
        Link *l = s->links;
        char line[1024], delimiter[160];
        Head h;

        wait_asleep(s);
        link_expect_head(s, l, &h, "ranges");
        if (h.status != 206 || !h.boundary[0])
                fail(s, "ranges: status %u", h.status);
        snprintf(delimiter, sizeof(delimiter), "--%s", h.boundary);
        for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
                char range[64];
                bool found = false;

                do
                        link_read_line(s, l, line, sizeof(line), "ranges: delimiter");
                while (i > 0 && !line[0]);
                if (i == 0 && !line[0])
                        link_read_line(s, l, line, sizeof(line), "ranges: delimiter");
                if (strcmp(line, delimiter) != 0)
                        fail(s, "ranges: \"%.100s\" instead of the delimiter", line);
                snprintf(range, sizeof(range), "Content-Range: bytes %u-%u/65536", parts[i][0],
                                parts[i][0] + parts[i][1] - 1);
                do {
                        link_read_line(s, l, line, sizeof(line), "ranges: field");
                        found = found || strcasecmp(line, range) == 0;
                } while (line[0]);
                if (!found)
                        fail(s, "ranges: no \"%s\"", range);
                link_expect_pattern(s, l, parts[i][0], parts[i][1], "ranges");
        }
        link_read_line(s, l, line, sizeof(line), "ranges: end");
        link_read_line(s, l, line, sizeof(line), "ranges: end");
        if (strncmp(line, delimiter, strlen(delimiter)) != 0 || strcmp(line + strlen(delimiter), "--") != 0)
                fail(s, "ranges: \"%.100s\" instead of the last delimiter", line);
        go_on(s);
}

/* Bodies */

#define POST_SIZE  3000
#define LARGE_SIZE 150000

#define STATUS_SIZE 13 /* of "HTTP/1.1 200 " */

static void post_head(Script *s, const char *path, size_t size) {
        link_printf(s, s->links, "POST %s?place=%u HTTP/1.1\r\nHost: test\r\nContent-Length: %zu\r\n\r\n",
                        path, s->place, size);
}

/* To the path of the scenario's name. */
static void post_begin(Script *s) {
        char text[256 + POST_SIZE];
        int n = snprintf(text, sizeof(text),
                        "POST /%s?place=%u HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n",
                        s->scenario->name, s->place, POST_SIZE);

        memcpy(text + n, body, POST_SIZE);
        link_send(s, s->links, text, (size_t) n + POST_SIZE);
}

/* It was done, and once. */
static void expect_effect(Script *s) {
        const Effect *e = s->effects + s->place;

        if (e->others > 0 || e->plain > 0)
                fail(s, "%u executions by another name, %u by none", e->others, e->plain);
        if (!e->key)
                fail(s, "answered, and not done");
}

/* Nobody knows what was done: a 503 of which the head was read, and the end. */
static void expect_refusal(Script *s, const Head *h) {
        char text[LARGE];

        if (!h->closes || h->size > sizeof(text))
                fail(s, "503 without a close, or with %llu bytes", (unsigned long long) h->size);
        link_read(s, s->links, text, h->size, "503");
        link_expect_end(s, s->links);
}

/* Returns false when it was refused, as the worker was killed after it had begun to call the handler, and
 * before that had asked for the name. */
static bool expect_keyed(Script *s, const char *what) {
        const Effect *e = s->effects + s->place;
        Head h;

        link_read_head(s, s->links, &h, what);
        if (h.status == 503 && s->settings->may_refuse) {
                if (e->key || e->others > 0 || e->plain > 0)
                        fail(s, "done, and answered with 503");
                expect_refusal(s, &h);
                return false;
        }
        link_expect_answer(s, s->links, &h, what);
        expect_effect(s);
        return true;
}

static void keyed_rest(Script *s) {
        if (expect_keyed(s, "/keyed"))
                go_on(s);
}

/* Or it is not known, and the client is told so. */
static void plain_rest(Script *s) {
        const Effect *e = s->effects + s->place;
        Head h;

        link_read_head(s, s->links, &h, "/plain");
        if (e->plain > 1)
                fail(s, "/plain: done %u times", e->plain);
        if (h.status == 503) {
                expect_refusal(s, &h);
                return;
        }
        if (h.status != 200 || e->plain != 1)
                fail(s, "/plain: status %u, done %u times", h.status, e->plain);
        link_expect_answer(s, s->links, &h, "/plain");
        go_on(s);
}

static void parted_begin(Script *s) {
        post_head(s, "/keyed", POST_SIZE);
}

/* The body follows, and the next request with its last byte. */
static void parted_rest(Script *s) {
        wait_asleep(s);
        link_send(s, s->links, body, 1000);
        wait_asleep(s);
        link_send(s, s->links, body + 1000, POST_SIZE - 1001);
        wait_asleep(s);
        char text[64] = "";
        text[0] = body[POST_SIZE - 1];
        int n = snprintf(text + 1, sizeof(text) - 1, "GET /tiny HTTP/1.1\r\nHost: test\r\n\r\n");
        link_send(s, s->links, text, (size_t) n + 1);
        if (!expect_keyed(s, "/keyed"))
                return;
        link_expect(s, s->links, "/tiny");
        go_on(s);
}

static void large_begin(Script *s) {
        post_head(s, "/keyed", LARGE_SIZE);
        link_send(s, s->links, body, 30000);
}

static void large_rest(Script *s) {
        for (size_t at = 30000; at < LARGE_SIZE; at += 30000) {
                if (at % 90000 == 0)
                        wait_asleep(s);
                link_send(s, s->links, body + at, 30000);
        }
        if (expect_keyed(s, "/keyed (large)"))
                go_on(s);
}

static void chunked_begin(Script *s) {
        link_printf(s, s->links,
                        "POST /keyed?place=%u HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n",
                        s->place);
        link_send(s, s->links, body, 1000);
        link_say(s, s->links, "\r\n7");
}

static void chunked_rest(Script *s) {
        wait_asleep(s);
        link_say(s, s->links, "d0\r\n");
        link_send(s, s->links, body + 1000, 500);
        wait_asleep(s);
        link_send(s, s->links, body + 1500, 1500);
        link_say(s, s->links, "\r\n0\r\n");
        wait_asleep(s);
        link_say(s, s->links, "Trailer: x\r\n\r\n");
        if (expect_keyed(s, "/keyed"))
                go_on(s);
}

static void expecting_begin(Script *s) {
        link_printf(s, s->links,
                        "POST /keyed?place=%u HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n",
                        s->place, POST_SIZE);
}

static void expecting_rest(Script *s) {
        char line[256];

        while (s->links->end - s->links->start < STATUS_SIZE)
                if (link_fill(s, s->links) <= 0)
                        fail(s, "no status: %s", strerror(errno));
        if (memcmp(s->links->data + s->links->start, "HTTP/1.1 503 ", STATUS_SIZE) == 0) {
                (void) expect_keyed(s, "/keyed");
                return;
        }
        link_read_line(s, s->links, line, sizeof(line), "100 Continue");
        if (strncmp(line, "HTTP/1.1 100 ", STATUS_SIZE) != 0)
                fail(s, "\"%.100s\" instead of 100 Continue", line);
        link_read_line(s, s->links, line, sizeof(line), "100 Continue");
        link_send(s, s->links, body, POST_SIZE);
        if (expect_keyed(s, "/keyed"))
                go_on(s);
}

/* Streams */

#define STREAM_SIZE "60000"

static void stream_begin(Script *s) {
        link_get(s, s->links, "/stream?size=" STREAM_SIZE);
}

static void stream_rest(Script *s) {
        Head h;

        wait_asleep(s);
        link_expect_head(s, s->links, &h, "/stream");
        link_expect_chunks(s, s->links, strtoull(STREAM_SIZE, NULL, 10), false, "/stream");
        go_on(s);
}

static void unmarked_begin(Script *s) {
        link_get(s, s->links, "/unmarked?size=" STREAM_SIZE);
}

/* It may be cut, but no byte is wrong; nor is there one after the cut. */
static void unmarked_rest(Script *s) {
        Head h;

        wait_asleep(s);
        while (!memmem(s->links->data + s->links->start, s->links->end - s->links->start, "\r\n\r\n", 4))
                if (link_fill(s, s->links) <= 0)
                        return;
        link_expect_head(s, s->links, &h, "/unmarked");
        if (link_expect_chunks(s, s->links, strtoull(STREAM_SIZE, NULL, 10), true, "/unmarked"))
                go_on(s);
}

static void later_begin(Script *s) {
        link_say(s, s->links,
                        "GET /later HTTP/1.1\r\nHost: test\r\n\r\nGET /small HTTP/1.1\r\nHost: test\r\n\r\n"
                        "GET /later HTTP/1.1\r\nHost: test\r\n\r\n");
}

static void later_rest(Script *s) {
        link_expect(s, s->links, "/later");
        link_expect(s, s->links, "/small");
        link_expect(s, s->links, "/later");
        go_on(s);
}

/* PROXY protocol */

static void proxy_begin(Script *s) {
        link_open(s, s->links);
        link_say(s, s->links,
                        "PROXY TCP4 192.0.2.7 198.51.100.9 4711 80\r\nGET /peer HTTP/1.1\r\nHost: test\r\n\r\n");
}

static void proxy_rest(Script *s) {
        link_expect(s, s->links, "/peer");
        link_get(s, s->links, "/peer");
        link_expect(s, s->links, "/peer");
}

static void proxy_parted_begin(Script *s) {
        link_open(s, s->links);
        link_say(s, s->links, "PROXY TCP4 192.0.2.7 198.51");
}

static void proxy_parted_rest(Script *s) {
        wait_asleep(s);
        link_say(s, s->links, ".100.9 4711 80\r\nGET /pe");
        wait_asleep(s);
        link_say(s, s->links, "er HTTP/1.1\r\nHost: test\r\n\r\n");
        proxy_rest(s);
}

static const Scenario scenarios[] = {
        { "get", open_one, get_begin, get_rest },
        { "pipeline", open_one, pipeline_begin, pipeline_rest },
        { "file-64k", open_small_window, file64k_begin, file64k_rest },
        { "file-10m", open_small_window, file10m_begin, file10m_rest },
        { "accept", nothing, accept_begin, get_rest },
        { "silent-accept", nothing, silent_accept_begin, silent_accept_rest },
        { "fresh", nothing, fresh_begin, fresh_rest },
        { "crossing", nothing, crossing_begin, crossing_rest },
        { "half-closed", open_one, half_begin, half_rest },
        { "half-closed-file", open_small_window, half_file_begin, half_file_rest },
        { "fragments", open_one, fragments_begin, fragments_rest },
        { "ranges", open_small_window, ranges_begin, ranges_rest },
        { "keyed", open_one, post_begin, keyed_rest },
        { "plain", open_one, post_begin, plain_rest },
        { "parted", open_one, parted_begin, parted_rest },
        { "large", open_one, large_begin, large_rest },
        { "chunked", open_one, chunked_begin, chunked_rest },
        { "expecting", open_one, expecting_begin, expecting_rest },
        { "stream", open_small_window, stream_begin, stream_rest },
        { "unmarked", open_small_window, unmarked_begin, unmarked_rest },
        { "later", open_one, later_begin, later_rest },
        { "proxy", nothing, proxy_begin, proxy_rest },
        { "proxy-parted", nothing, proxy_parted_begin, proxy_parted_rest },
};

/*
 * The rounds
 */

static bool is_proxied(const Script *s) {
        return strncmp(s->scenario->name, "proxy", 5) == 0;
}

static void idle_ask(Script *s, Link *l) {
        link_get(s, l, "/small");
        link_expect(s, l, "/small (idle)");
        if (l->start < l->end)
                fail(s, "%zu bytes too many", l->end - l->start);
}

static void open_idle(Script *s, Link *l) {
        link_open(s, l);
        if (is_proxied(s))
                link_say(s, l, "PROXY TCP4 192.0.2.8 198.51.100.9 4712 80\r\n");
        idle_ask(s, l);
}

/* What failed is not held against the next round. */
static void prepare(Script *s) {
        for (int i = 0; i < LINKS_MAX; i++)
                link_close(s->links + i);
        for (int i = 0; i < IDLE_MAX; i++)
                if (s->idle[i].fd < 0)
                        open_idle(s, s->idle + i);
        s->place = (s->place + 1) % EFFECTS_MAX;
        if (s->effects)
                memset(s->effects + s->place, 0, sizeof(Effect));
        s->scenario->prepare(s);
}

/* What was done stays done, those that said nothing all the time are there, and new ones are taken. */
static void check(Script *s) {
        const Effect *e = s->effects ? s->effects + s->place : NULL;

        if (e && (e->others > 0 || e->plain > 1))
                fail(s, "executed again after the answer");
        for (int i = 0; i < IDLE_MAX; i++)
                idle_ask(s, s->idle + i);
        open_idle(s, &s->fresh);
        link_close(&s->fresh);
        for (int i = 0; i < LINKS_MAX; i++)
                link_close(s->links + i);
}

static void forget(Script *s) {
        for (int i = 0; i < LINKS_MAX; i++)
                link_close(s->links + i);
        for (int i = 0; i < IDLE_MAX; i++)
                link_close(s->idle + i);
        link_close(&s->fresh);
}

static void obey(Script *s, char order) {
        switch (order) {
        case SCRIPT_PREPARE:
                prepare(s);
                say(s, SCRIPT_PREPARE, "");
                break;
        case SCRIPT_GO:
                s->scenario->begin(s);
                say(s, SCRIPT_GO, "");
                s->scenario->rest(s);
                say(s, SCRIPT_DONE, "");
                break;
        case SCRIPT_CHECK:
                check(s);
                say(s, SCRIPT_CHECK, "");
                break;
        default:
                abort();
        }
}

static _Noreturn void script_run(const ScriptSettings *settings, const Scenario *scenario, int control) {
        static Script s;

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        s = (Script){ .settings = settings,
                .scenario = scenario,
                .control = control,
                .place = settings->first_place };
        for (int i = 0; i < LINKS_MAX; i++)
                s.links[i].fd = -1;
        for (int i = 0; i < IDLE_MAX; i++)
                s.idle[i].fd = -1;
        s.fresh.fd = -1;
        for (size_t i = 0; i < sizeof(body); i++)
                body[i] = pattern_at(i);
        if (settings->effects) {
                int fd = open(settings->effects, O_RDWR | O_CLOEXEC);
                s.effects = fd < 0 ? MAP_FAILED
                                   : mmap(NULL, EFFECTS_MAX * sizeof(Effect), PROT_READ | PROT_WRITE,
                                                     MAP_SHARED, fd, 0);
                if (s.effects == MAP_FAILED)
                        _exit(EXIT_FAILURE);
        }
        for (;;) {
                char order = hear(&s);
                if (setjmp(s.failed) == 0)
                        obey(&s, order);
                else
                        forget(&s);
        }
}

int script_start(const ScriptSettings *settings, int *ret_fd) {
        const Scenario *scenario = NULL;
        int fds[2];
        pid_t pid;

        for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++)
                if (strcmp(scenarios[i].name, settings->scenario) == 0)
                        scenario = scenarios + i;
        if (!scenario)
                return -EINVAL;
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0) {
                close(fds[0]);
                script_run(settings, scenario, fds[1]);
        }
        close(fds[1]);
        *ret_fd = fds[0];
        return 0;
}

void script_list(void) {
        for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++)
                puts(scenarios[i].name);
}

/* SPDX-License-Identifier: MIT */
/* A process that deals with one connection is killed at any instruction, and so is the one that takes over
 * from it; the third one answers. What the client gets must be what it would have got from the first.
 *
 * The processes share descriptors and the table as a keeper's do. They are killed by ptrace(2) after so many
 * single steps. */

#include "http/adopt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"
#include "http/server.h"

#define ANSWER_MAX (2 * 1024 * 1024)
#define OFFSETS    (1024 * 1024)
#define LARGE      200000

/* Of a sanitizer's slow programs a few points at the beginning are enough. */
#if defined(__SANITIZE_ADDRESS__)
#define POINTS    1
#define STEPS_MAX 50000
#else
#define POINTS    4
#define STEPS_MAX LONG_MAX
#endif

/* Seen by all. */
typedef struct Shared {
        unsigned char keyed[OFFSETS];      /* effects that are atomic on the request */
        unsigned char executions[OFFSETS]; /* of what must not be run twice */
        unsigned n_runs;
} Shared;

typedef enum Kind {
        EXACT,   /* the same answer, whatever happens */
        UNKNOWN, /* or 503 in place of an answer, and the end */
        ABORTED, /* or the end within it */
} Kind;

typedef struct Scenario {
        const char *name;
        const char *text; /* the head; may be repeated */
        unsigned times;
        size_t body;  /* so many bytes of it follow */
        bool chunked; /* the body goes in chunks */
        Kind kind;
} Scenario;

static Shared *shared;
static Table table;
static ServerSettings settings;
static int file_fd;
static char pattern[LARGE];

/*
 * The process that serves
 */

static Exchange *pending;

static bool path_is(const Exchange *x, const char *path) {
        size_t n = strlen(path);

        return x->request.path.length == n &&
               memcmp(exchange_head(x) + x->request.path.offset, path, n) == 0;
}

static void answer_memory(Exchange *x, size_t n) {
        x->response.body = RESPONSE_BODY_MEMORY;
        x->response.memory = pattern;
        x->response.size = n;
        exchange_respond(x);
}

static void answer_file(Exchange *x, size_t offset, size_t n) {
        x->response.body = RESPONSE_BODY_FILE;
        x->response.fd = fcntl(file_fd, F_DUPFD_CLOEXEC, 0);
        x->response.offset = offset;
        x->response.size = n;
        exchange_respond(x);
}

static void answer_parts(Exchange *x) {
        static const ResponsePart parts[] = { { 10, 30000, 6 }, { 70000, 5, 7 }, { 0, 20000, 1 } };
        static const char texts[] = "first|second||end";

        x->response.body = RESPONSE_BODY_PARTS;
        x->response.fd = fcntl(file_fd, F_DUPFD_CLOEXEC, 0);
        x->response.parts = parts;
        x->response.n_parts = ELEMENTSOF(parts);
        x->response.memory = texts;
        x->response.memory_size = sizeof(texts) - 1;
        x->response.size = 30000 + 5 + 20000 + sizeof(texts) - 1;
        exchange_respond(x);
}

static void answer_plain_stream(Exchange *x) {
        x->response.size = RESPONSE_SIZE_UNKNOWN;
        if (exchange_begin(x) < 0)
                _exit(1);
        for (int i = 0; i < 5; i++)
                (void) exchange_write(x, pattern + i * 1000, 1000);
        exchange_end(x);
}

/* 8 pieces of 3000 bytes, each with the number of the next one. */
static void stream_on(Exchange *x) {
        unsigned *next = x->userdata;

        while (*next < 8) {
                if (exchange_room(x) < 3000) {
                        x->blocked = true;
                        return;
                }
                if (exchange_write(x, pattern + *next * 3000, 3000) != 3000)
                        _exit(1);
                ++*next;
                if (exchange_checkpoint(x, next, sizeof(*next)) < 0)
                        _exit(1);
        }
        exchange_end(x);
}

static void answer_checkpoints(Exchange *x) {
        static unsigned next;
        size_t n;

        next = 0;
        (void) exchange_get_checkpoint(x, &next, sizeof(next), &n);
        x->response.size = RESPONSE_SIZE_UNKNOWN;
        if (exchange_begin(x) < 0)
                _exit(1);
        x->userdata = &next;
        x->on_writable = stream_on;
        stream_on(x);
}

static size_t n_body;

static void on_body(Exchange *x, const char *data, size_t n) {
        if (memcmp(data, pattern + n_body, n) != 0)
                _exit(3);
        n_body += n;
}

static void answer_size(Exchange *x) {
        static char text[32];

        x->response.body = RESPONSE_BODY_MEMORY;
        x->response.memory = text;
        x->response.size = (uint64_t) snprintf(text, sizeof(text), "%zu bytes", n_body);
        exchange_respond(x);
}

static void on_body_end(Exchange *x, int error) {
        answer_size(x);
}

/* As an atomic one would be: what was done already is not done again. */
static void on_keyed_end(Exchange *x, int error) {
        if (error == 0)
                shared->keyed[x->id_offset] = 1;
        answer_size(x);
}

static void answer_post(Exchange *x, bool keyed) {
        n_body = 0;
        if (keyed)
                exchange_allow_rerun(x);
        else
                shared->executions[x->id_offset]++;
        x->on_body = on_body;
        x->on_body_end = keyed ? on_keyed_end : on_body_end;
        exchange_read_body(x, LARGE);
}

static void request(void *userdata, Exchange *x) {
        shared->n_runs++;
        if (path_is(x, "/small"))
                answer_memory(x, 500);
        else if (path_is(x, "/large"))
                answer_memory(x, LARGE);
        else if (path_is(x, "/file"))
                answer_file(x, 1000, 100000);
        else if (path_is(x, "/parts"))
                answer_parts(x);
        else if (path_is(x, "/stream"))
                answer_plain_stream(x);
        else if (path_is(x, "/checkpoints"))
                answer_checkpoints(x);
        else if (path_is(x, "/late"))
                pending = x;
        else
                answer_post(x, path_is(x, "/keyed"));
}

static Handler handler = { .request = request };

static Connection *take_up(Server *s, int fd, bool first) {
        static BoardCell cell;
        uint64_t needed[16] = { 0 };
        Connection *c;
        Record *r = table.records + fd;

        if (!first && r->state == CONNECTION_CLOSING) {
                close(fd);
                atomic_store(&r->state, CONNECTION_FREE);
                return NULL;
        }
        if (!first && r->state != CONNECTION_FREE && adopt_restore(&table, fd, 0, needed) < 0) {
                (void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 },
                                sizeof(struct linger));
                close(fd);
                return NULL;
        }
        if (!first && adopt_buffers(&table, 64) < 0)
                _exit(1);
        if (server_init(s, &settings, &handler, &cell, &table) < 0)
                _exit(1);
        server_set_time(s, USEC_PER_SEC, 1);
        if (first || r->state == CONNECTION_FREE) {
                if (connection_open(s, fd, &c) < 0)
                        _exit(1);
        } else if (adopt_resume(s, fd, needed, &c) < 0)
                _exit(1);
        return c;
}

/* Until the connection ends or, unless it waits, nothing is left to do. */
static void serve(int fd, bool first, bool waits) {
        static Server s;
        Connection *c = take_up(&s, fd, first);
        ConnectionWant want;

        if (!c)
                _exit(0);
        for (;;) {
                want = connection_ready(c);
                if (pending) {
                        Exchange *x = pending;
                        pending = NULL;
                        answer_memory(x, 700);
                        continue;
                }
                if (want & CONNECTION_WANT_CLOSE)
                        break;
                if (server_next_runnable(&s))
                        continue;
                struct pollfd p = { .fd = fd,
                        .events = (short) ((want & CONNECTION_WANT_READ ? POLLIN : 0) |
                                           (want & CONNECTION_WANT_WRITE ? POLLOUT : 0)) };
                if (poll(&p, 1, waits ? -1 : 0) == 0)
                        _exit(0);
        }
        connection_done(c);
        _exit(0);
}

/*
 * The test
 */

static pid_t start(int fd, bool first, bool waits) {
        pid_t pid = (pid_t) syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);

        if (pid == 0) {
                if (!waits) {
                        (void) ptrace(PTRACE_TRACEME, 0, 0, 0);
                        (void) syscall(SYS_kill, syscall(SYS_getpid), SIGSTOP);
                }
                serve(fd, first, waits);
        }
        assert_true(pid > 0);
        return pid;
}

static void end(pid_t pid) {
        (void) kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Returns how many steps it has made: fewer, if it was over before. */
static long run_steps(pid_t pid, long n) {
        int status;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        for (long i = 0; i < n; i++) {
                assert_true(WIFSTOPPED(status));
                assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, 0, 0), 0);
                assert_int_equal(waitpid(pid, &status, 0), pid);
                if (WIFEXITED(status)) {
                        assert_int_equal(WEXITSTATUS(status), 0);
                        return i;
                }
        }
        end(pid);
        return n;
}

static void connect_pair(int *client, int *server) {
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t n = sizeof(a);
        int size = 1024 * 1024;

        _cleanup_close_ int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(listener, (struct sockaddr *) &a, n), 0);
        (void) setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
        assert_int_equal(listen(listener, 1), 0);
        assert_int_equal(getsockname(listener, (struct sockaddr *) &a, &n), 0);
        *client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        (void) setsockopt(*client, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
        assert_int_equal(connect(*client, (struct sockaddr *) &a, n), 0);
        *server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        assert_true(*server >= 0);
}

static void say(int fd, const void *data, size_t n) {
        assert_int_equal(send(fd, data, n, MSG_NOSIGNAL), n);
}

static void say_body(int fd, const Scenario *s) {
        char line[32];

        if (!s->chunked) {
                say(fd, pattern, s->body);
                return;
        }
        for (size_t at = 0, n; at < s->body; at += n) {
                n = MIN((size_t) 700, s->body - at);
                say(fd, line, (size_t) snprintf(line, sizeof(line), "%zx\r\n", n));
                say(fd, pattern + at, n);
                say(fd, "\r\n", 2);
        }
        say(fd, "0\r\n\r\n", 5);
}

static void ask(int fd, const Scenario *s) {
        for (unsigned i = 0; i < s->times; i++) {
                say(fd, s->text, strlen(s->text));
                if (s->body > 0)
                        say_body(fd, s);
        }
}

/* @want: how much is expected; SIZE_MAX: nobody knows, a pause ends it. */
static size_t hear(int fd, char *got, size_t want) {
        size_t n = 0;

        while (n < want) {
                struct pollfd p = { .fd = fd, .events = POLLIN };
                int k = poll(&p, 1, want == SIZE_MAX ? 200 : 20000);
                if (k == 0)
                        break;
                ssize_t m = recv(fd, got + n, ANSWER_MAX - n, 0);
                if (m <= 0)
                        break;
                n += (size_t) m;
        }
        return n;
}

/* Kills the first process after so many steps, and the second one, unless they are negative. Returns how
 * many steps the first one has made. */
static long run(const Scenario *s, long first, long second, char *got, size_t *ret_n, size_t want) {
        int client, server;
        long steps = 0;
        pid_t pid;

        memset(shared, 0, sizeof(*shared));
        connect_pair(&client, &server);
        ask(client, s);
        if (first >= 0)
                steps = run_steps(start(server, true, false), first);
        if (second >= 0)
                (void) run_steps(start(server, first < 0, false), second);
        pid = start(server, first < 0 && second < 0, true);
        *ret_n = hear(client, got, want);
        end(pid);
        table.records[server].state = CONNECTION_FREE;
        close(client);
        (void) close_range(8, 63, 0);
        return steps;
}

static bool ends_as_it_may(const Scenario *s, const char *got, size_t n, const char *expected, size_t size) {
        static const char unknown[] = "HTTP/1.1 503 ";
        size_t same = 0;

        while (same < MIN(n, size) && got[same] == expected[same])
                same++;
        if (same == size && n == size)
                return true;
        if (s->kind == ABORTED)
                return same == n;
        if (s->kind == UNKNOWN) {
                const char *p = memmem(got, n, unknown, sizeof(unknown) - 1);
                return p && same >= (size_t) (p - got) && same < (size_t) (p - got) + sizeof(unknown);
        }
        return false;
}

static void check_effects(const Scenario *s, const char *got, size_t n, size_t size) {
        for (unsigned i = 0; i < OFFSETS; i++)
                if (shared->executions[i] > 1)
                        fail_msg("%s: executed %u times", s->name, shared->executions[i]);
}

static void check(const Scenario *s, long first, long second, const char *expected, size_t size) {
        static char got[ANSWER_MAX];
        size_t n;

        (void) run(s, first, second, got, &n, size);
        check_effects(s, got, n, size);
        if (!ends_as_it_may(s, got, n, expected, size)) {
                size_t at = 0;
                while (at < MIN(n, size) && got[at] == expected[at])
                        at++;
                fail_msg("%s, killed at %ld and %ld: %zu bytes of %zu, the first difference at %zu: %.60s",
                                s->name, first, second, n, size, at, got + at);
        }
}

static void sweep(const Scenario *s) {
        static char expected[ANSWER_MAX], scratch[ANSWER_MAX];
        size_t size, n;
        long steps, points = POINTS;

        if (getenv("MUSTER_TEST_POINTS"))
                points = atol(getenv("MUSTER_TEST_POINTS"));
        handler.reruns = s->kind == EXACT;
        (void) run(s, -1, -1, expected, &size, SIZE_MAX);
        assert_true(size > 0);
        steps = run(s, STEPS_MAX, -1, scratch, &n, size);
        for (long i = 0; i < points; i++) {
                long first = i * steps / points + random() % (steps / points + 1);
                check(s, first, i % 2 ? -1 : random() % (steps + 3000), expected, size);
        }
        print_message("%s: %ld steps, %zu bytes\n", s->name, steps, size);
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

static const Scenario scenarios[] = {
        { "small", GET("/small"), 1, 0, false, EXACT },
        { "pipelined", GET("/small"), 7, 0, false, EXACT },
        { "large", GET("/large"), 2, 0, false, EXACT },
        { "file", GET("/file"), 2, 0, false, EXACT },
        { "file and others", GET("/small") GET("/file") GET("/small"), 2, 0, false, EXACT },
        { "parts", GET("/parts"), 2, 0, false, EXACT },
        { "stream", GET("/small") GET("/stream") GET("/small"), 1, 0, false, ABORTED },
        { "checkpoints", GET("/small") GET("/checkpoints") GET("/small"), 1, 0, false, EXACT },
        { "late", GET("/late") GET("/small"), 2, 0, false, EXACT },
        { "keyed", "POST /keyed HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n", 3, 3000, false,
                        EXACT },
        { "keyed, large", "POST /keyed HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n", 2, 70000,
                        false, EXACT },
        { "keyed, in chunks", "POST /keyed HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 1,
                        60000, true, EXACT },
        { "unkeyed", "POST /unkeyed HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n", 3, 3000, false,
                        UNKNOWN },
        { "unkeyed, large", "POST /unkeyed HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n", 2, 70000,
                        false, UNKNOWN },
        { "close", "GET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 1, 0, false, EXACT },
        { "malformed", GET("/small") "rubbish\r\n\r\n", 1, 0, false, EXACT },
};

static void test_sweep(void **state) {
        const char *only = getenv("MUSTER_TEST_SCENARIO");

        for (size_t i = 0; i < ELEMENTSOF(scenarios); i++)
                if (!only || strcmp(only, scenarios[i].name) == 0)
                        sweep(scenarios + i);
}

/* From one step to the next the two processes take turns, which is quicker on one processor. */
static void stay_on_one_processor(void) {
        cpu_set_t set;
        int n = sched_getcpu();

        if (n < 0)
                return;
        CPU_ZERO(&set);
        CPU_SET(n, &set);
        (void) sched_setaffinity(0, sizeof(set), &set);
}

static int setup(void **state) {
        stay_on_one_processor();
        server_settings_init(&settings);
        settings.n_descriptors = 64;
        for (size_t i = 0; i < sizeof(pattern); i++)
                pattern[i] = (char) ('!' + i * 7 % 89);
        shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        file_fd = memfd_create("test", MFD_CLOEXEC);
        assert_int_equal(write(file_fd, pattern, sizeof(pattern)), sizeof(pattern));
        assert_int_equal(dup2(file_fd, 7), 7);
        file_fd = 7;
        return server_init_table(&settings, &table);
}

static int teardown(void **state) {
        table_done(&table);
        return 0;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_sweep),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}

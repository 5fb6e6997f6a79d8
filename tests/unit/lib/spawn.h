/* SPDX-License-Identifier: MIT */
#pragma once

/* What the tests of child processes share: one loop, the record of a child's end, and the memory of what its
 * pipes brought. Nothing here waits for a time: a turn of the loop that brings nothing within 20 seconds is
 * a failure. */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "muster/process.h"

/* A vector for argv or env. */
#define STRINGS(...) ((char *const *) (const char *[]){ __VA_ARGS__, NULL })

#define PATIENCE_USEC (20 * UINT64_C(1000000))

static sd_event *event;

static inline void turn(void) {
        assert_true(sd_event_run(event, PATIENCE_USEC) > 0);
}

#define run_until(condition)         \
        do                           \
                while (!(condition)) \
                        turn();      \
        while (0)

/* Whatever is due is handled; nothing is waited for. */
static inline void run_what_is_due(void) {
        while (sd_event_run(event, 0) > 0)
                ;
}

static inline int setup_event(void **state) {
        return sd_event_new(&event);
}

static inline int teardown_event(void **state) {
        event = sd_event_unref(event);
        return 0;
}

/* A loop for each test, so that one that fails leaves nothing to the next. */
#define child_test(f) cmocka_unit_test_setup_teardown(f, setup_event, teardown_event)

/* What a child's handlers were told. */
typedef struct Ended {
        int exits, closes, code, status;
} Ended;

static inline void on_exit_noted(muster_child *child, int code, int status, void *userdata) {
        Ended *e = userdata;

        e->exits++;
        e->code = code;
        e->status = status;
}

static inline void on_close_noted(muster_child *child, void *userdata) {
        Ended *e = userdata;

        assert_int_equal(e->exits, 1);
        e->closes++;
}

/* The text of a stream, cut to what fits, and its end. */
typedef struct Heard {
        char text[4096];
        size_t used, total;
        int ends, error;
} Heard;

static inline void on_data_heard(muster_stream *stream, const void *data, size_t size, void *userdata) {
        Heard *h = userdata;
        size_t n = MIN(size, sizeof(h->text) - 1 - h->used);

        assert_true(size > 0);
        memcpy(h->text + h->used, data, n);
        h->used += n;
        h->text[h->used] = '\0';
        h->total += size;
}

static inline void on_end_heard(muster_stream *stream, int error, void *userdata) {
        Heard *h = userdata;

        h->ends++;
        h->error = error;
}

static inline void hear(muster_stream *stream, Heard *h) {
        muster_stream_handlers handlers = MUSTER_STREAM_HANDLERS_INIT;

        handlers.data = on_data_heard;
        handlers.end = on_end_heard;
        *h = (Heard){ .used = 0 };
        assert_int_equal(muster_stream_set_handlers(stream, &handlers, h), 0);
}

static inline muster_spawn_options options_shell(const char *command) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;

        o.program = command;
        o.flags = MUSTER_SPAWN_SHELL;
        return o;
}

/* Starts it, with its end noted in @e. */
static inline muster_child *start(const muster_spawn_options *o, Ended *e) {
        muster_child *child = NULL;

        *e = (Ended){ 0 };
        assert_int_equal(muster_spawn(event, o, on_exit_noted, e, &child), 0);
        assert_int_equal(muster_child_set_close_handler(child, on_close_noted), 0);
        return child;
}

/* Runs it to its close with stdout on a pipe, and returns what it printed there. */
static inline const char *output_of(muster_spawn_options o, Ended *e) {
        static const muster_stdio stdio[] = {
                { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_INHERIT },
        };
        static Heard h;

        o.stdio = stdio;
        o.n_stdio = ELEMENTSOF(stdio);
        muster_child *child = start(&o, e);
        hear(muster_child_get_stream(child, STDOUT_FILENO), &h);
        run_until(e->closes);
        assert_int_equal(h.ends, 1);
        assert_int_equal(h.error, 0);
        muster_child_unref(child);
        return h.text;
}

/* A pidfd of any process, to wait for its end without being its parent. */
static inline int pidfd_of(pid_t pid) {
        int fd = (int) syscall(SYS_pidfd_open, pid, 0);

        assert_true(fd >= 0);
        return fd;
}

static inline bool has_ended(int pidfd) {
        return poll(&(struct pollfd){ .fd = pidfd, .events = POLLIN }, 1, 0) == 1;
}

static inline void wait_for_end(int pidfd) {
        assert_int_equal(
                        poll(&(struct pollfd){ .fd = pidfd, .events = POLLIN }, 1, PATIENCE_USEC / 1000), 1);
}

/* Reaps nobody itself. */
static inline bool has_children(void) {
        return waitid(P_ALL, 0, &(siginfo_t){ 0 }, WEXITED | WNOHANG | WNOWAIT) >= 0 || errno != ECHILD;
}

/* Runs @f in a process of its own, which may change user, limits, mounts. It returns 0 or the line that
 * failed. */
static inline void in_own_process(int (*f)(void)) {
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                int line = f();
                if (line)
                        fprintf(stderr, "line %d failed, errno %d: %m\n", line, errno);
                _exit(line ? 1 : 0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

/* For functions that run there, where cmocka's assertions have nowhere to jump to. */
#define CHECK(condition)                 \
        do                               \
                if (!(condition))        \
                        return __LINE__; \
        while (0)

/* SPDX-License-Identifier: MIT */
/* The pipes of a child: reading with back-pressure, writing with a queue, and all their ends. */

#include "spawn.h"

#include <sys/ioctl.h>
#include <sys/socket.h>

#define MIB (1024 * 1024)

/*
 * The child
 */

/* Fills stdout until it takes no more, tells stderr how much that was, and prints as much again. */
static int child_fill(void) {
        static const char chunk[4096];
        size_t filled = 0;
        ssize_t n;

        (void) fd_set_nonblock(STDOUT_FILENO, true);
        while ((n = write(STDOUT_FILENO, chunk, sizeof(chunk))) > 0)
                filled += (size_t) n;
        (void) fd_set_nonblock(STDOUT_FILENO, false);
        dprintf(STDERR_FILENO, "%zu\n", filled);
        for (size_t left = filled; left > 0; left -= (size_t) n) {
                n = write(STDOUT_FILENO, chunk, MIN(left, sizeof(chunk)));
                if (n < 0)
                        return 1;
        }
        return 0;
}

/*
 * The parent
 */

/* What the handlers of one stream were told. */
typedef struct Told {
        Heard heard;
        int pieces, drained, broken, error;
        bool in_call;           /* a function of the header is running: no handler may be called */
        bool pause_after_piece; /* what the handlers do */
        bool pause_when_drained;
        bool close_in_handler;
        bool unref_in_handler;
        bool write_in_handler;
} Told;

static void react(muster_stream *stream, Told *t) {
        if (t->write_in_handler) {
                t->write_in_handler = false;
                assert_int_equal(muster_stream_write(stream, "again\n", 6), 0);
        }
        if (t->close_in_handler)
                assert_int_equal(muster_stream_close(stream), 0);
        if (t->unref_in_handler)
                muster_stream_unref(stream);
}

static void on_data(muster_stream *stream, const void *data, size_t size, void *userdata) {
        Told *t = userdata;

        assert_false(t->in_call);
        assert_in_range(size, 1, 64 * 1024);
        t->pieces++;
        on_data_heard(stream, data, size, &t->heard);
        if (t->pause_after_piece)
                assert_int_equal(muster_stream_pause(stream), 0);
        react(stream, t);
}

static void on_end(muster_stream *stream, int error, void *userdata) {
        Told *t = userdata;

        assert_false(t->in_call);
        on_end_heard(stream, error, &t->heard);
        react(stream, t);
}

static void on_drained(muster_stream *stream, void *userdata) {
        Told *t = userdata;

        assert_false(t->in_call);
        t->drained++;
        if (t->pause_when_drained)
                assert_int_equal(muster_stream_pause(stream), 0);
        react(stream, t);
}

static void on_broken(muster_stream *stream, int error, void *userdata) {
        Told *t = userdata;

        assert_false(t->in_call);
        t->broken++;
        t->error = error;
        react(stream, t);
}

static void tell(muster_stream *stream, Told *t) {
        muster_stream_handlers h = MUSTER_STREAM_HANDLERS_INIT;

        h.data = on_data;
        h.end = on_end;
        h.drained = on_drained;
        h.broken = on_broken;
        t->in_call = true;
        assert_int_equal(muster_stream_set_handlers(stream, &h, t), 0);
        t->in_call = false;
}

static int put(muster_stream *stream, Told *t, const void *data, size_t size) {
        t->in_call = true;
        int r = muster_stream_write(stream, data, size);
        t->in_call = false;
        return r;
}

static muster_child *start_piped(muster_spawn_options o, Ended *e) {
        static const muster_stdio pipes[] = {
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_PIPE },
        };

        o.stdio = pipes;
        o.n_stdio = ELEMENTSOF(pipes);
        return start(&o, e);
}

static muster_child *start_shell(const char *command, Ended *e) {
        return start_piped(options_shell(command), e);
}

static void finish(muster_child *child, const Ended *e) {
        run_until(e->closes);
        muster_child_unref(child);
}

/* Lets the child run to its end, with nothing handled meanwhile. */
static void wait_unhandled(const muster_child *child) {
        int pidfd = pidfd_of(muster_child_get_pid(child));

        wait_for_end(pidfd);
        close(pidfd);
}

/* What was written before anybody listened is not lost; the end comes once, after all data. */
static void test_data_and_end(void **state) {
        Told t = { 0 };
        Ended e;

        muster_child *child = start_shell("echo out; echo err >&2; echo again", &e);
        wait_unhandled(child);
        tell(muster_child_get_stream(child, 1), &t);
        run_until(t.heard.ends);
        assert_string_equal(t.heard.text, "out\nagain\n");
        assert_int_equal(t.heard.error, 0);
        run_until(e.closes);
        run_what_is_due();
        assert_int_equal(t.heard.ends, 1);
        assert_int_equal(t.drained + t.broken, 0);
        muster_child_unref(child);
}

/* A paused stream reads nothing: the writer fills the pipe and waits, and goes on with the resumption. */
static void test_pause(void **state) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        Told out = { 0 }, err = { 0 };
        Ended e;

        o.program = "/proc/self/exe";
        o.argv = STRINGS("test", "fill");
        muster_child *child = start_piped(o, &e);
        muster_stream *stream = muster_child_get_stream(child, 1);
        assert_int_equal(muster_stream_pause(stream), 0);
        tell(stream, &out);
        tell(muster_child_get_stream(child, 2), &err);
        run_until(strchr(err.heard.text, '\n')); /* the pipe is full */
        size_t filled = (size_t) atol(err.heard.text);
        run_what_is_due();
        assert_int_equal(out.pieces, 0);
        assert_true(filled >= 4096);
        assert_int_equal(e.exits, 0);

        out.pause_after_piece = true;
        out.in_call = true;
        assert_int_equal(muster_stream_resume(stream), 0);
        out.in_call = false;
        run_until(out.pieces);
        run_what_is_due();
        assert_int_equal(out.pieces, 1);

        out.pause_after_piece = false;
        assert_int_equal(muster_stream_resume(stream), 0);
        run_until(out.heard.ends);
        assert_int_equal(out.heard.total, 2 * filled);
        finish(child, &e);
}

/* Paused at the child's exit, a stream with a reader keeps what is in the pipe until it is resumed. */
static void test_paused_over_exit(void **state) {
        Told t = { 0 };
        Ended e;

        muster_child *child = start_shell("echo kept", &e);
        muster_stream *stream = muster_child_get_stream(child, 1);
        assert_int_equal(muster_stream_pause(stream), 0);
        tell(stream, &t);
        run_until(e.exits);
        run_what_is_due();
        assert_int_equal(t.pieces + t.heard.ends + e.closes, 0);
        assert_int_equal(muster_stream_resume(stream), 0);
        run_until(e.closes);
        assert_string_equal(t.heard.text, "kept\n");
        muster_child_unref(child);
}

static long resident_kib(void) {
        FILE *f = fopen("/proc/self/status", "re");
        char line[256];
        long kib = -1;

        assert_non_null(f);
        while (fgets(line, sizeof(line), f))
                if (sscanf(line, "VmHWM: %ld", &kib) == 1)
                        break;
        fclose(f);
        assert_true(kib > 0);
        return kib;
}

/* However much comes, it does not stay: 1 GiB costs no memory. */
static void test_gigabyte(void **state) {
        Told t = { 0 };
        Ended e;

        muster_child *child = start_shell("head -c 1073741824 /dev/zero", &e);
        tell(muster_child_get_stream(child, 1), &t);
        run_until(t.pieces >= 2);
        long before = resident_kib();
        run_until(t.heard.ends);
        assert_int_equal(t.heard.total, 1073741824);
        assert_true(resident_kib() - before < 1024);
        finish(child, &e);
}

/* What the pipe does not take waits; beyond the limit a write is refused as a whole. "Drained" comes once,
 * when all of it is written. */
static void write_beyond_limit(unsigned fd, const char *command) {
        static char data[MIB];
        Told t = { 0 }, out = { 0 };
        char expected[64];
        size_t sent = 0;
        Ended e;
        int r;

        muster_child *child = start_shell(command, &e);
        muster_stream *stream = muster_child_get_stream(child, fd),
                      *go = muster_child_get_stream(child, fd ? 0 : 3);
        tell(stream, &t);
        tell(muster_child_get_stream(child, 1), &out);
        while ((r = put(stream, &t, data, 1000)) == 0)
                sent += 1000;
        assert_int_equal(r, 1);
        sent += 1000;
        assert_in_range(muster_stream_get_queued_bytes(stream), 1, 1000);
        size_t room = MUSTER_STREAM_QUEUE_MAX - muster_stream_get_queued_bytes(stream);
        assert_int_equal(put(stream, &t, data, room + 1), -ENOBUFS);
        assert_int_equal(muster_stream_get_queued_bytes(stream), MUSTER_STREAM_QUEUE_MAX - room);
        assert_int_equal(put(stream, &t, data, room), 1);
        sent += room;
        assert_int_equal(put(stream, &t, data, 1), -ENOBUFS);
        assert_int_equal(muster_stream_get_queued_bytes(stream), MUSTER_STREAM_QUEUE_MAX);
        run_what_is_due();
        assert_int_equal(t.drained, 0);

        assert_int_equal(muster_stream_write(go, "\n", 1), 0);
        run_until(t.drained);
        assert_int_equal(muster_stream_get_queued_bytes(stream), 0);

        assert_int_equal(muster_stream_end(stream), 0);
        finish(child, &e);
        assert_int_equal(t.drained, 1);
        assert_int_equal(t.broken, 0);
        snprintf(expected, sizeof(expected), "%zu\n", sent);
        assert_string_equal(out.heard.text, expected);
}

/* As nothing waits, any size is taken; the end waits for it. */
static void write_much_and_end(unsigned fd, const char *command) {
        static char data[3 * MIB];
        Told t = { 0 }, out = { 0 };
        char expected[64];
        Ended e;

        muster_child *child = start_shell(command, &e);
        muster_stream *stream = muster_child_get_stream(child, fd),
                      *go = muster_child_get_stream(child, fd ? 0 : 3);
        tell(stream, &t);
        tell(muster_child_get_stream(child, 1), &out);
        assert_int_equal(put(stream, &t, data, sizeof(data)), 1);
        assert_true(muster_stream_get_queued_bytes(stream) > MUSTER_STREAM_QUEUE_MAX);
        assert_int_equal(put(stream, &t, data, 1), -ENOBUFS);
        assert_int_equal(muster_stream_end(stream), 0);
        assert_int_equal(put(stream, &t, data, 1), -EPIPE);
        assert_int_equal(muster_stream_end(stream), -EPIPE);
        assert_int_equal(muster_stream_write(go, "\n", 1), 0);
        finish(child, &e);
        assert_int_equal(t.drained, 1);
        assert_int_equal(t.broken, 0);
        snprintf(expected, sizeof(expected), "%zu\n", sizeof(data));
        assert_string_equal(out.heard.text, expected);
}

static void test_write_queue(void **state) {
        write_beyond_limit(0, "read go <&3; wc -c");
        write_much_and_end(0, "read go <&3; wc -c");
}

static void test_write_queue_socket(void **state) {
        write_beyond_limit(3, "read go; wc -c <&3");
        write_much_and_end(3, "read go; wc -c <&3");
}

/* The caller's SIGPIPE has its default action, and is neither delivered nor left pending. */
static void assert_no_sigpipe(void) {
        struct sigaction act;
        sigset_t set;

        assert_int_equal(sigaction(SIGPIPE, NULL, &act), 0);
        assert_ptr_equal(act.sa_handler, SIG_DFL);
        assert_int_equal(sigpending(&set), 0);
        assert_int_equal(sigismember(&set, SIGPIPE), 0);
        assert_int_equal(sigprocmask(SIG_SETMASK, NULL, &set), 0);
        assert_int_equal(sigismember(&set, SIGPIPE), 0);
}

/* Nobody reads any more: a write says so at once, what waits is told as broken, once. */
static void test_broken(void **state) {
        static const char data[MIB];
        Told t = { 0 }, s = { 0 }, out = { 0 };
        Ended e;

        muster_child *child = start_shell("read go <&3; exec <&-; echo closed; read go <&3", &e);
        muster_stream *stdin_stream = muster_child_get_stream(child, 0),
                      *go = muster_child_get_stream(child, 3);
        tell(stdin_stream, &t);
        tell(muster_child_get_stream(child, 1), &out);
        tell(go, &s);
        assert_int_equal(put(stdin_stream, &t, data, sizeof(data)), 1);
        assert_int_equal(put(go, &s, "\n", 1), 0);
        run_until(t.broken);
        assert_int_equal(t.error, -EPIPE);
        assert_int_equal(put(stdin_stream, &t, "x", 1), -EPIPE);
        assert_int_equal(muster_stream_end(stdin_stream), -EPIPE);
        assert_int_equal(muster_stream_get_queued_bytes(stdin_stream), 0);
        assert_no_sigpipe();
        assert_int_equal(put(go, &s, "\n", 1), 0);
        finish(child, &e);
        assert_int_equal(t.broken, 1);
        assert_int_equal(t.drained, 0);
}

/* A SIGPIPE that the caller had pending before is still pending; one that was not is not. */
static void test_broken_at_once(void **state) {
        static const unsigned fds[] = { 0, 3 };

        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                Told t = { 0 }, out = { 0 };
                sigset_t set, saved;
                Ended e;

                muster_child *child = start_shell("exec <&- 3<&-; echo closed; exec sleep 100", &e);
                muster_stream *stream = muster_child_get_stream(child, fds[i]);
                tell(stream, &t);
                tell(muster_child_get_stream(child, 1), &out);
                run_until(out.pieces);
                assert_int_equal(put(stream, &t, "x", 1), -EPIPE);
                assert_no_sigpipe();

                sigemptyset(&set);
                sigaddset(&set, SIGPIPE);
                sigprocmask(SIG_BLOCK, &set, &saved);
                raise(SIGPIPE);
                assert_int_equal(put(stream, &t, "x", 1), -EPIPE);
                assert_int_equal(sigpending(&set), 0);
                assert_int_equal(sigismember(&set, SIGPIPE), 1);
                sigemptyset(&set);
                sigaddset(&set, SIGPIPE);
                assert_int_equal(sigtimedwait(&set, NULL, &(struct timespec){ 0 }), SIGPIPE);
                sigprocmask(SIG_SETMASK, &saved, NULL);

                assert_int_equal(muster_child_kill(child, SIGKILL), 0);
                finish(child, &e);
                assert_int_equal(t.broken, 0); /* nothing had to wait */
        }
}

/* The child ends while something waits for it: that is told as broken, whatever the loop sees first. */
static void test_broken_by_exit(void **state) {
        static const char data[MIB];
        static const unsigned fds[] = { 0, 3 };

        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                Told t = { 0 };
                Ended e;

                muster_child *child = start_shell("exec sleep 100", &e);
                muster_stream *stream = muster_child_get_stream(child, fds[i]);
                tell(stream, &t);
                assert_int_equal(put(stream, &t, data, sizeof(data)), 1);
                assert_int_equal(muster_child_kill(child, SIGKILL), 0);
                wait_unhandled(child);
                run_until(e.closes);
                assert_int_equal(t.broken, 1);
                assert_int_equal(t.error, -EPIPE);
                assert_int_equal(t.drained, 0);
                assert_no_sigpipe();
                muster_child_unref(child);
        }
}

/* The same when somebody who inherited the pipe still has it, and does not read. */
static void test_broken_by_exit_with_heir(void **state) {
        static const char data[MIB];
        Told t = { 0 };
        Ended e;

        muster_child *child = start_shell(
                        "exec 4<&0; sleep 100 <&4 >/dev/null 2>&1 3>&- & read go <&3; echo $!", &e);
        muster_stream *stream = muster_child_get_stream(child, 0);
        Told out = { 0 };
        tell(stream, &t);
        tell(muster_child_get_stream(child, 1), &out);
        assert_int_equal(put(stream, &t, data, sizeof(data)), 1);
        assert_int_equal(muster_stream_write(muster_child_get_stream(child, 3), "\n", 1), 0);
        run_until(e.closes);
        assert_int_equal(kill((pid_t) atoi(out.heard.text), SIGKILL), 0);
        assert_int_equal(t.broken, 1);
        assert_int_equal(t.error, -EPIPE);
        assert_int_equal(t.drained, 0);
        muster_child_unref(child);
}

/* After the exit nothing can be written. */
static void test_write_after_exit(void **state) {
        Told t[4] = { { .pieces = 0 } };
        Ended e;

        muster_child *child = start_shell("exit 0", &e);
        for (unsigned fd = 0; fd < 4; fd += 3)
                tell(muster_child_get_stream(child, fd), t + fd);
        wait_unhandled(child);
        for (unsigned fd = 0; fd < 4; fd += 3)
                assert_int_equal(put(muster_child_get_stream(child, fd), t + fd, "x", 1), -EPIPE);
        run_until(e.closes);
        for (unsigned fd = 0; fd < 4; fd += 3)
                assert_int_equal(put(muster_child_get_stream(child, fd), t + fd, "x", 1), -EPIPE);
        assert_no_sigpipe();
        muster_child_unref(child);
}

/* What is only for reading is so before and after its end; nothing is never too much. */
static void test_write_limits(void **state) {
        Told t[4] = { { .pieces = 0 } };
        Ended e;

        muster_child *child = start_shell("read line; wc -c <&3", &e);
        for (unsigned fd = 0; fd < 4; fd++)
                tell(muster_child_get_stream(child, fd), t + fd);
        muster_stream *out = muster_child_get_stream(child, 1);
        assert_int_equal(put(out, t + 1, "x", 1), -EBADF);
        assert_int_equal(put(out, t + 1, NULL, 0), -EBADF);
        assert_int_equal(muster_stream_end(out), -EBADF);
        for (unsigned fd = 0; fd < 4; fd += 3) {
                muster_stream *stream = muster_child_get_stream(child, fd);
                assert_int_equal(put(stream, t + fd, NULL, 0), 0);
                assert_int_equal(put(stream, t + fd, "", 0), 0);
                assert_int_equal(put(stream, t + fd, NULL, 1), -EINVAL);
                assert_int_equal(muster_stream_get_queued_bytes(stream), 0);
                assert_int_equal(muster_stream_end(stream), 0);
                assert_int_equal(put(stream, t + fd, "x", 1), -EPIPE);
        }
        run_until(e.closes);
        assert_string_equal(t[1].heard.text, "0\n");
        assert_int_equal(t[0].drained + t[3].drained + t[0].broken + t[3].broken, 0);
        assert_int_equal(put(out, t + 1, "x", 1), -EBADF);
        assert_int_equal(muster_stream_end(out), -EBADF);
        muster_child_unref(child);
}

/* Both ways at descriptor 3: its writing side ends alone, and the answer still comes. */
static void test_both_ways(void **state) {
        Told t = { 0 };
        Ended e;

        muster_child *child = start_shell("read a <&3; echo got $a >&3; wc -l <&3 >&3", &e);
        muster_stream *stream = muster_child_get_stream(child, 3);
        tell(stream, &t);
        assert_int_equal(put(stream, &t, "first\n", 6), 0);
        run_until(t.pieces);
        assert_string_equal(t.heard.text, "got first\n");
        t.write_in_handler = false;
        assert_int_equal(put(stream, &t, "a\nb\nc\n", 6), 0);
        assert_int_equal(muster_stream_end(stream), 0);
        run_until(t.heard.ends);
        assert_string_equal(t.heard.text, "got first\n3\n");
        assert_int_equal(t.broken, 0);
        finish(child, &e);
}

/* A handler may write. */
static void test_write_in_handler(void **state) {
        Told t = { .write_in_handler = true };
        Ended e;

        muster_child *child = start_shell("echo first >&3; read a <&3; echo got $a >&3", &e);
        tell(muster_child_get_stream(child, 3), &t);
        finish(child, &e);
        assert_string_equal(t.heard.text, "first\ngot again\n");
}

/* close() is the end of all handlers, wherever it is called, and does not keep the child's close away. */
static void test_close(void **state) {
        static const char data[MIB];
        Told t = { 0 };
        Ended e;

        muster_child *child = start_shell("echo unread; read line", &e);
        muster_stream *out = muster_child_get_stream(child, 1), *in = muster_child_get_stream(child, 0);
        tell(out, &t);
        tell(in, &t);
        assert_int_equal(put(in, &t, data, sizeof(data)), 1);
        t.in_call = true;
        assert_int_equal(muster_stream_close(out), 0);
        assert_int_equal(muster_stream_close(in), 0);
        assert_int_equal(muster_stream_close(in), 0);
        t.in_call = false;
        assert_int_equal(muster_stream_get_queued_bytes(in), 0);
        assert_int_equal(put(in, &t, "x", 1), -EPIPE);
        assert_int_equal(muster_stream_take_fd(in), -EBADF);
        assert_int_equal(muster_stream_pause(out), 0);
        assert_int_equal(muster_stream_resume(out), 0);
        finish(child, &e);
        assert_int_equal(t.pieces + t.heard.ends + t.drained + t.broken, 0);
}

/* Each handler is tried in turn; @what it does there is close or drop the last reference. */
static void in_each_handler(Told what) {
        static const char data[MIB];
        static const struct {
                const char *command;
                unsigned fd;
                bool write;
        } cases[] = {
                { "echo data >&3; exec sleep 100", 3, false },     /* data */
                { "exec sleep 100 >&-", 1, false },                /* end */
                { "cat >/dev/null; exec sleep 100", 0, true },     /* drained */
                { "read go <&3; exec sleep 100 <&-", 0, true },    /* broken */
                { "cat <&3 >/dev/null; exec sleep 100", 3, true }, /* drained */
                { "read go; exec sleep 100 3<&-", 3, true },       /* broken */
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Told t = what;
                muster_child *child = NULL;
                Ended e;

                child = start_shell(cases[i].command, &e);
                muster_stream *stream = muster_stream_ref(muster_child_get_stream(child, cases[i].fd));
                tell(stream, &t);
                if (cases[i].write) {
                        assert_int_equal(put(stream, &t, data, sizeof(data)), 1);
                        muster_stream *go = muster_child_get_stream(child, cases[i].fd ? 0 : 3);
                        assert_int_equal(muster_stream_write(go, "\n", 1), 0);
                }
                int pidfd = pidfd_of(muster_child_get_pid(child));
                pid_t pid = muster_child_get_pid(child);
                /* then our reference is the only one, and nobody else cares */
                muster_child_unref(child);
                run_until(t.pieces + t.heard.ends + t.drained + t.broken);
                run_what_is_due();
                assert_int_equal(t.pieces + t.heard.ends + t.drained + t.broken, 1);
                if (what.close_in_handler) {
                        assert_int_equal(put(stream, &t, "x", 1), cases[i].fd == 1 ? -EBADF : -EPIPE);
                        muster_stream_unref(stream);
                }
                assert_int_equal(kill(pid, SIGKILL), 0);
                wait_for_end(pidfd);
                close(pidfd);
                assert_int_equal(waitpid(pid, NULL, 0), pid);
        }
}

static void test_close_in_handlers(void **state) {
        in_each_handler((Told){ .close_in_handler = true });
}

static void test_unref_in_handlers(void **state) {
        in_each_handler((Told){ .unref_in_handler = true });
}

/* Fills the socket and a bit more, and returns when the child has read what was in it and has answered: now
 * there is something to write and to read at once. */
static muster_child *start_with_both_due(Told *t, Ended *e) {
        static const char data[1000];
        muster_spawn_options o = options_shell(
                        "read n; head -c $n <&3 >/dev/null; echo data >&3; echo >&1; exec sleep 100");
        uint64_t sent = 0;
        int p[2], r;
        char line[32], ready;

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        o.stdio = (const muster_stdio[]){
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_FD, .fd = p[1] },
                { .kind = MUSTER_STDIO_INHERIT },
                { .kind = MUSTER_STDIO_PIPE },
        };
        o.n_stdio = 4;
        muster_child *child = start(&o, e);
        muster_stream *stream = muster_child_get_stream(child, 3);
        tell(stream, t);
        do {
                r = put(stream, t, data, sizeof(data));
                sent += sizeof(data);
        } while (r == 0);
        assert_int_equal(r, 1);
        int n = snprintf(line, sizeof(line), "%lu\n",
                        (unsigned long) (sent - muster_stream_get_queued_bytes(stream)));
        assert_int_equal(muster_stream_write(muster_child_get_stream(child, 0), line, (size_t) n), 0);
        assert_int_equal(read(p[0], &ready, 1), 1);
        close(p[0]);
        close(p[1]);
        return child;
}

/* What "drained" does to the stream counts for the data that arrived at the same time. */
static void test_both_due(void **state) {
        static const Told whats[] = {
                { .pieces = 0 },
                { .pause_when_drained = true },
                { .close_in_handler = true },
                { .unref_in_handler = true },
        };

        for (size_t i = 0; i < ELEMENTSOF(whats); i++) {
                Told t = whats[i];
                Ended e;

                muster_child *child = start_with_both_due(&t, &e);
                int pidfd = pidfd_of(muster_child_get_pid(child));
                muster_stream *stream = muster_stream_ref(muster_child_get_stream(child, 3));
                pid_t pid = muster_child_get_pid(child);
                muster_child_unref(child);
                run_until(t.drained);
                run_what_is_due();
                assert_int_equal(t.drained, 1);
                assert_int_equal(t.pieces, i == 0);
                if (!t.unref_in_handler)
                        muster_stream_unref(stream);
                assert_int_equal(kill(pid, SIGKILL), 0);
                wait_for_end(pidfd);
                close(pidfd);
                assert_int_equal(waitpid(pid, NULL, 0), pid);
        }
}

/* A descriptor that was taken is the caller's, with the promised flags and all that is in the pipe; the
 * child's close does not wait for it. */
static void test_take_fd(void **state) {
        static const char data[MIB];
        Told t = { 0 };
        char text[64];
        Ended e;

        muster_child *child = start_shell("echo in the pipe", &e);
        muster_stream *out = muster_child_get_stream(child, 1);
        tell(out, &t);
        int fd = muster_stream_take_fd(out);
        assert_true(fd >= 0);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_int_equal(muster_stream_take_fd(out), -EBADF);
        run_until(e.closes);
        assert_int_equal(read(fd, text, sizeof(text)), strlen("in the pipe\n"));
        assert_memory_equal(text, "in the pipe\n", strlen("in the pipe\n"));
        assert_int_equal(read(fd, text, sizeof(text)), 0);
        assert_int_equal(t.pieces + t.heard.ends, 0);
        close(fd);
        muster_child_unref(child);

        child = start_shell("exec sleep 100", &e);
        muster_stream *in = muster_child_get_stream(child, 0);
        assert_int_equal(muster_stream_write(in, data, sizeof(data)), 1);
        assert_int_equal(muster_stream_take_fd(in), -EBUSY);
        assert_true(muster_stream_get_queued_bytes(in) > 0);
        assert_int_equal(muster_child_kill(child, SIGKILL), 0);
        finish(child, &e);
}

/* Without a handler for data nothing is read, until there is one again. */
static void test_set_handlers(void **state) {
        struct {
                muster_stream_handlers known;
                void (*unknown)(void);
        } newer = { .known = { .size = sizeof(newer) } };
        muster_stream_handlers none = MUSTER_STREAM_HANDLERS_INIT;
        Told t = { 0 };
        Ended e;

        muster_child *child = start_shell("read go; echo data; echo told >&2; read go", &e);
        muster_stream *out = muster_child_get_stream(child, 1), *in = muster_child_get_stream(child, 0);
        Told err = { 0 };
        tell(muster_child_get_stream(child, 2), &err);
        tell(out, &t);
        assert_int_equal(muster_stream_set_handlers(out, &newer.known, NULL), 0);
        assert_int_equal(muster_stream_write(in, "\n", 1), 0);
        run_until(err.pieces);
        run_what_is_due();
        assert_int_equal(t.pieces, 0);
        newer.unknown = run_what_is_due;
        assert_int_equal(muster_stream_set_handlers(out, &newer.known, NULL), -E2BIG);
        none.size = sizeof(none) - 1;
        assert_int_equal(muster_stream_set_handlers(out, &none, NULL), -EINVAL);
        assert_int_equal(muster_stream_set_handlers(out, NULL, NULL), -EINVAL);
        tell(out, &t);
        run_until(t.pieces);
        assert_string_equal(t.heard.text, "data\n");
        assert_int_equal(muster_stream_end(in), 0);
        finish(child, &e);
        assert_null(muster_stream_ref(NULL));
        assert_null(muster_stream_unref(NULL));
}

int main(int argc, char *argv[]) {
        const struct CMUnitTest tests[] = {
                child_test(test_data_and_end),
                child_test(test_pause),
                child_test(test_paused_over_exit),
                child_test(test_gigabyte),
                child_test(test_write_queue),
                child_test(test_write_queue_socket),
                child_test(test_broken),
                child_test(test_broken_at_once),
                child_test(test_broken_by_exit),
                child_test(test_broken_by_exit_with_heir),
                child_test(test_write_after_exit),
                child_test(test_write_limits),
                child_test(test_both_ways),
                child_test(test_write_in_handler),
                child_test(test_close),
                child_test(test_close_in_handlers),
                child_test(test_unref_in_handlers),
                child_test(test_both_due),
                child_test(test_take_fd),
                child_test(test_set_handlers),
        };

        if (argc > 1)
                return child_fill();
        return cmocka_run_group_tests(tests, NULL, NULL);
}

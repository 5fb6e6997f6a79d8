/* SPDX-License-Identifier: MIT */
/* How children end: exit and close, groups, time limits, parents that die; and what is left behind. What
 * they start with is in test-spawn-options.c. */

#include "spawn.h"

#include "basic/clock.h"

#include <dirent.h>
#include <pthread.h>
#include <pty.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <time.h>

#define USED_MIB  24
#define USED_USEC 50000

static char report_path[64];

static const muster_stdio pipes[] = {
        { .kind = MUSTER_STDIO_PIPE },
        { .kind = MUSTER_STDIO_PIPE },
        { .kind = MUSTER_STDIO_PIPE },
        { .kind = MUSTER_STDIO_PIPE },
};

/* A line is read from stdin: the child ends when its parent wants. */
static muster_spawn_options options_piped(const char *command, size_t n_stdio) {
        muster_spawn_options o = options_shell(command);

        o.stdio = pipes;
        o.n_stdio = n_stdio;
        return o;
}

/* The pid that the child prints, as a pidfd. */
static int heard_pidfd(Heard *h) {
        run_until(strchr(h->text, '\n'));
        return pidfd_of((pid_t) atoi(h->text));
}

static int setup(void **state) {
        snprintf(report_path, sizeof(report_path), "/tmp/test-process-end-%d", getpid());
        setenv("REPORT", report_path, 1);
        return 0;
}

static int teardown(void **state) {
        (void) unlink(report_path);
        return 0;
}

/*
 * Exit and close
 */

/* The exit comes at the exit, the close when the last who has a pipe has closed it; each once. */
static void test_close_waits_for_pipes(void **state) {
        muster_spawn_options o = options_piped("sleep 100 & echo $!", 2);
        Heard h;
        Ended e;

        muster_child *child = start(&o, &e);
        hear(muster_child_get_stream(child, 1), &h);
        int grandchild = heard_pidfd(&h);
        run_until(e.exits);
        run_what_is_due();
        assert_false(has_ended(grandchild));
        assert_int_equal(h.ends, 0);
        assert_int_equal(e.closes, 0);
        assert_int_equal(kill(atoi(h.text), SIGKILL), 0);
        run_until(e.closes);
        run_what_is_due();
        assert_int_equal(h.ends, 1);
        assert_int_equal(e.exits, 1);
        assert_int_equal(e.closes, 1);
        close(grandchild);
        muster_child_unref(child);
}

/* Takes hold of @pid as a debugger does, until a byte comes by @go. @ready says that it has. */
static void debugger(pid_t pid, int ready, int go) {
        char byte;

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0 || write(ready, "", 1) != 1 || read(go, &byte, 1) != 1)
                _exit(1);
        _exit(waitpid(pid, NULL, 0) == pid ? 0 : 1);
}

/* A debugger learns of the end before the parent does. Meanwhile the loop sleeps. */
static void test_exit_behind_a_debugger(void **state) {
        muster_spawn_options o = options_shell("read line");
        int ready[2], go[2], status, turns = 0;
        char byte;
        Ended e;

        o.stdio = pipes;
        o.n_stdio = 1;
        muster_child *child = start(&o, &e);
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        assert_int_equal(pipe2(go, O_CLOEXEC), 0);
        pid_t tracer = fork();
        if (tracer == 0)
                debugger(muster_child_get_pid(child), ready[1], go[0]);
        assert_int_equal(read(ready[0], &byte, 1), 1);

        int pidfd = pidfd_of(muster_child_get_pid(child));
        assert_int_equal(muster_child_kill(child, SIGKILL), 0);
        while (!has_ended(pidfd))
                ;
        uint64_t end = clock_now_usec() + 500 * USEC_PER_MSEC;
        do {
                assert_true(sd_event_run(event, 500 * USEC_PER_MSEC) >= 0);
                turns++;
        } while (clock_now_usec() < end);
        assert_in_range(turns, 1, 30);
        assert_int_equal(e.exits, 0);

        assert_int_equal(write(go[1], "", 1), 1);
        run_until(e.exits);
        assert_int_equal(e.status, SIGKILL);
        assert_int_equal(waitpid(tracer, &status, 0), tracer);
        assert_int_equal(status, 0);
        for (int i = 0; i < 2; i++) {
                close(ready[i]);
                close(go[i]);
        }
        close(pidfd);
        muster_child_unref(child);
}

/* Pipes that end before the exit do not bring the close early. */
static void test_close_after_exit(void **state) {
        muster_spawn_options o = options_shell("exec >&- 2>&-; read line; exit 5");
        Heard h[2];
        int p[2];
        Ended e;

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        o.stdio = (const muster_stdio[]){ { .kind = MUSTER_STDIO_FD, .fd = p[0] }, pipes[1], pipes[2] };
        o.n_stdio = 3;
        muster_child *child = start(&o, &e);
        hear(muster_child_get_stream(child, 1), h);
        hear(muster_child_get_stream(child, 2), h + 1);
        run_until(h[0].ends && h[1].ends);
        run_what_is_due();
        assert_int_equal(e.exits + e.closes, 0);
        close(p[0]);
        close(p[1]);
        run_until(e.closes);
        assert_int_equal(e.status, 5);
        muster_child_unref(child);
}

/* Pipes and a channel that nobody reads do not keep the close away. */
static void test_close_without_readers(void **state) {
        muster_spawn_options o = options_shell(
                        "echo unread; echo unread >&2; echo unread >&3; echo '\"unread\"' >&4");
        Ended e;

        o.stdio = (const muster_stdio[]){ pipes[0], pipes[1], pipes[2], pipes[3],
                { .kind = MUSTER_STDIO_IPC } };
        o.n_stdio = 5;
        muster_child *child = start(&o, &e);
        assert_int_equal(muster_stream_pause(muster_child_get_stream(child, 2)), 0);
        run_until(e.closes);
        assert_int_equal(e.status, 0);
        run_what_is_due();
        assert_int_equal(e.closes, 1);
        muster_child_unref(child);
}

/* Started and ended before it is watched: the pipes still have all of it. */
static void test_attach_late(void **state) {
        muster_spawn_options o = options_piped("echo early; echo $$ >&2", 3);
        muster_child *child;
        Heard h[2];
        Ended e = { 0 };

        assert_int_equal(muster_spawn(NULL, &o, on_exit_noted, &e, &child), 0);
        assert_int_equal(muster_child_set_close_handler(child, on_close_noted), 0);
        hear(muster_child_get_stream(child, 1), h);
        int pidfd = pidfd_of(muster_child_get_pid(child));
        wait_for_end(pidfd);
        close(pidfd);
        assert_int_equal(sd_event_run(event, 0), 0);
        assert_int_equal(muster_child_attach(child, event), 0);
        assert_int_equal(muster_child_attach(child, event), -EBUSY);
        hear(muster_child_get_stream(child, 2), h + 1);
        run_until(e.closes);
        assert_string_equal(h[0].text, "early\n");
        assert_int_equal(atoi(h[1].text), muster_child_get_pid(child));
        assert_int_equal(muster_child_attach(child, event), -ESRCH);
        muster_child_unref(child);
}

static void on_exit_unref(muster_child *child, int code, int status, void *userdata) {
        on_exit_noted(child, code, status, userdata);
        muster_child_unref(child);
}

static void on_close_unref(muster_child *child, void *userdata) {
        on_close_noted(child, userdata);
        muster_child_unref(child);
}

/* The last reference may go in the exit handler; no close follows, and nobody is left over. */
static void test_unref_in_exit_handler(void **state) {
        static const uint64_t flags[] = { 0, MUSTER_SPAWN_PROCESS_GROUP };

        for (size_t i = 0; i < ELEMENTSOF(flags); i++) {
                muster_spawn_options o = options_piped("echo; sleep 100 & echo $!; echo", 4);
                muster_child *child;
                Ended e = { 0 };
                Heard h;

                o.flags |= flags[i];
                assert_int_equal(muster_spawn(event, &o, on_exit_unref, &e, &child), 0);
                assert_int_equal(muster_child_set_close_handler(child, on_close_noted), 0);
                muster_stream *stream = muster_stream_ref(muster_child_get_stream(child, 1));
                hear(stream, &h);
                run_until(e.exits);
                run_what_is_due();
                assert_int_equal(e.closes, 0);
                assert_false(has_children());
                /* the stream of its own reference lives on */
                run_until(strlen(h.text) > 3);
                assert_int_equal(kill(atoi(h.text + 1), SIGKILL), 0);
                run_until(h.ends);
                muster_stream_unref(stream);
        }
}

static void test_unref_in_close_handler(void **state) {
        muster_spawn_options o = options_piped("echo", 4);
        muster_child *child;
        Ended e = { 0 };

        o.flags |= MUSTER_SPAWN_PROCESS_GROUP;
        assert_int_equal(muster_spawn(event, &o, on_exit_noted, &e, &child), 0);
        assert_int_equal(muster_child_set_close_handler(child, on_close_unref), 0);
        run_until(e.closes);
        run_what_is_due();
        assert_int_equal(e.closes, 1);
        assert_false(has_children());
}

/*
 * What it used
 */

static struct rusage usage_at_exit;
static int usage_result;

static void on_exit_usage(muster_child *child, int code, int status, void *userdata) {
        usage_result = muster_child_get_usage(child, &usage_at_exit);
        on_exit_noted(child, code, status, userdata);
}

/* Touches memory and burns time, so that there is something to tell. Without libc's allocator, which a
 * sanitizer may have replaced. */
static int child_uses(void) {
        const size_t size = (size_t) USED_MIB << 20;
        char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        struct timespec t;

        if (p == MAP_FAILED)
                return 1;
        memset(p, 1, size);
        do
                clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        while (t.tv_sec == 0 && t.tv_nsec < USED_USEC * 1000);
        return 0;
}

static uint64_t cpu_usec(const struct rusage *u) {
        return (uint64_t) (u->ru_utime.tv_sec + u->ru_stime.tv_sec) * USEC_PER_SEC +
               (uint64_t) (u->ru_utime.tv_usec + u->ru_stime.tv_usec);
}

/* What the child used is there from the exit handler on, not earlier, and stays; whether it was reaped by
 * then or, as the leader of a group, not. It is that child's alone. */
static void test_usage(void **state) {
        static const uint64_t flags[] = { 0, MUSTER_SPAWN_PROCESS_GROUP };

        for (size_t i = 0; i < ELEMENTSOF(flags); i++) {
                muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT, small = options_shell("exit 0");
                struct rusage u = { .ru_maxrss = -1 };
                muster_child *child, *other;
                Ended e = { 0 }, e_other;

                o.program = "/proc/self/exe";
                o.argv = STRINGS("test", "use");
                o.flags = small.flags = flags[i];
                small.flags |= MUSTER_SPAWN_SHELL;
                assert_int_equal(muster_spawn(event, &o, on_exit_usage, &e, &child), 0);
                other = start(&small, &e_other);
                int pidfd = pidfd_of(muster_child_get_pid(child));
                wait_for_end(pidfd); /* ended, but nobody was told */
                close(pidfd);
                assert_int_equal(muster_child_get_usage(child, &u), -ENODATA);
                assert_int_equal(u.ru_maxrss, -1);
                run_until(e.exits && e_other.closes);
                assert_int_equal(usage_result, 0);
                assert_in_range(usage_at_exit.ru_maxrss, USED_MIB * 1024, 16 * USED_MIB * 1024);
                assert_true(usage_at_exit.ru_minflt > 0);
                assert_in_range(cpu_usec(&usage_at_exit), USED_USEC, 100 * USED_USEC);
                assert_int_equal(muster_child_get_usage(other, &u), 0);
                assert_true(cpu_usec(&u) < cpu_usec(&usage_at_exit));
                assert_int_equal(muster_child_get_usage(child, &u), 0);
                assert_memory_equal(&u, &usage_at_exit, sizeof(u));
                assert_int_equal(muster_child_get_usage(child, NULL), -EINVAL);
                assert_int_equal(muster_child_get_usage(NULL, &u), -EINVAL);
                muster_child_unref(child);
                muster_child_unref(other);
        }
}

/*
 * Groups
 */

static int group_in_close;

static void on_close_kill_group(muster_child *child, void *userdata) {
        on_close_noted(child, userdata);
        group_in_close = muster_child_kill_group(child, SIGTERM);
}

/* The group dies with all its members, also when the leader has gone before; its number is safe until the
 * close handler has returned. */
static void test_kill_group(void **state) {
        muster_spawn_options o = options_piped("sleep 100 & echo $!; read line", 2);
        Heard h;
        Ended e;

        o.flags |= MUSTER_SPAWN_PROCESS_GROUP;
        for (int leader_first = 0; leader_first < 2; leader_first++) {
                muster_child *child = start(&o, &e);
                assert_int_equal(muster_child_set_close_handler(child, on_close_kill_group), 0);
                hear(muster_child_get_stream(child, 1), &h);
                int grandchild = heard_pidfd(&h);
                assert_int_equal(getpgid(atoi(h.text)), muster_child_get_pid(child));
                if (leader_first) {
                        assert_int_equal(muster_stream_end(muster_child_get_stream(child, 0)), 0);
                        run_until(e.exits);
                        assert_int_equal(muster_child_kill(child, SIGTERM), -ESRCH);
                }
                assert_int_equal(muster_child_kill_group(child, SIGTERM), 0);
                wait_for_end(grandchild);
                close(grandchild);
                group_in_close = 1;
                run_until(e.closes);
                assert_int_equal(e.code, leader_first ? CLD_EXITED : CLD_KILLED);
                assert_int_equal(group_in_close, 0);
                assert_int_equal(muster_child_kill_group(child, SIGTERM), -ESRCH);
                assert_false(has_children());
                muster_child_unref(child);
        }
}

/* Who leads no group is told so: the caller's own group is never hit. */
static void test_kill_no_group(void **state) {
        muster_spawn_options o = options_piped("read line", 1);
        Ended e;

        muster_child *child = start(&o, &e);
        assert_int_equal(muster_child_kill_group(child, SIGTERM), -EINVAL);
        assert_int_equal(muster_child_kill(child, _NSIG), -EINVAL);
        assert_int_equal(getpgid(muster_child_get_pid(child)), getpgrp());
        assert_int_equal(muster_child_kill(child, SIGKILL), 0);
        run_until(e.closes);
        assert_int_equal(e.code, CLD_KILLED);
        assert_int_equal(e.status, SIGKILL);
        muster_child_unref(child);
}

/*
 * Time limits
 */

/* Over its time, it gets the signal that was chosen; in time, it does not. */
static void test_time_limit(void **state) {
        static const int signals[] = { 0, SIGINT, SIGUSR1, SIGKILL };
        Ended e;

        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                muster_spawn_options o = options_piped("exec sleep 100", 1);

                o.timeout_usec = 1000;
                o.kill_signal = signals[i];
                muster_child *child = start(&o, &e);
                assert_int_equal(muster_child_is_timed_out(child), 0);
                run_until(e.closes);
                assert_int_equal(e.code, CLD_KILLED);
                assert_int_equal(e.status, signals[i] ? signals[i] : SIGTERM);
                assert_int_equal(muster_child_is_timed_out(child), 1);
                muster_child_unref(child);
        }
        muster_spawn_options o = options_piped("exit 3", 1);
        o.timeout_usec = PATIENCE_USEC;
        muster_child *child = start(&o, &e);
        run_until(e.closes);
        assert_int_equal(e.status, 3);
        assert_int_equal(muster_child_is_timed_out(child), 0);
        muster_child_unref(child);
}

/* The time begins when it is watched. */
static void test_time_limit_late(void **state) {
        muster_spawn_options o = options_piped("read line; exit 3", 1);
        muster_child *child;
        Ended e = { 0 };

        o.timeout_usec = 1;
        assert_int_equal(muster_spawn(NULL, &o, on_exit_noted, &e, &child), 0);
        assert_int_equal(muster_child_set_close_handler(child, on_close_noted), 0);
        run_what_is_due();
        assert_int_equal(muster_child_is_timed_out(child), 0);
        assert_int_equal(muster_child_kill(child, 0), 0);
        assert_int_equal(muster_child_attach(child, event), 0);
        run_until(e.closes);
        assert_int_equal(muster_child_is_timed_out(child), 1);
        assert_int_equal(e.status, SIGTERM);
        muster_child_unref(child);
}

/* Starts @command with a time limit and stdout on the returned pipe; the time begins with the attachment. */
static muster_child *start_unwatched(const char *command, uint64_t flags, Ended *e, FILE **ret_output) {
        muster_spawn_options o = options_shell(command);
        muster_child *child;
        int p[2];

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        o.stdio = (const muster_stdio[]){
                { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_FD, .fd = p[1] },
                { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_PIPE },
        };
        o.n_stdio = 4;
        o.flags |= flags;
        o.timeout_usec = 1;
        *e = (Ended){ 0 };
        assert_int_equal(muster_spawn(NULL, &o, on_exit_noted, e, &child), 0);
        assert_int_equal(muster_child_set_close_handler(child, on_close_noted), 0);
        close(p[1]);
        *ret_output = fdopen(p[0], "re");
        assert_non_null(*ret_output);
        return child;
}

static pid_t read_pid(FILE *f) {
        char line[32];

        assert_non_null(fgets(line, sizeof(line), f));
        return (pid_t) atoi(line);
}

/* Who ignores the signal is killed 5 seconds later: the child, and what is left of a group without its
 * leader and still has a pipe; not what is outside of the group. */
static void test_time_limit_ignored(void **state) {
        uint64_t begin, now;
        Ended ends[2];
        FILE *output[2];

        muster_child *alone = start_unwatched("trap '' TERM; echo 0; exec sleep 100", 0, ends, output);
        muster_child *group = start_unwatched("trap '' TERM; sleep 100 >&- & echo $!;"
                                              "setsid sh -c 'echo $$; exec sleep 100 >&- 3>&-' & "
                                              "trap - TERM; echo 1; wait",
                        MUSTER_SPAWN_PROCESS_GROUP, ends + 1, output + 1);
        assert_int_equal(read_pid(output[0]), 0);
        int inside = pidfd_of(read_pid(output[1]));
        pid_t a = read_pid(output[1]),
              b = read_pid(output[1]); /* the leader's 1, and the pid of the outsider */
        int outside = pidfd_of(MAX(a, b));
        assert_int_equal(MIN(a, b), 1);
        assert_int_equal(muster_child_attach(alone, event), 0);
        assert_int_equal(muster_child_attach(group, event), 0);
        run_until(muster_child_is_timed_out(alone));
        assert_int_equal(sd_event_now(event, CLOCK_MONOTONIC, &begin), 0);
        run_until(ends[1].exits);
        assert_int_equal(ends[1].status, SIGTERM);
        assert_int_equal(ends[0].exits + ends[1].closes, 0);
        run_until(ends[0].closes);
        assert_int_equal(sd_event_now(event, CLOCK_MONOTONIC, &now), 0);
        assert_int_equal(ends[0].code, CLD_KILLED);
        assert_int_equal(ends[0].status, SIGKILL);
        assert_in_range(now - begin, 4900 * UINT64_C(1000), 15 * UINT64_C(1000000));
        run_until(ends[1].closes);
        wait_for_end(inside);
        assert_false(has_ended(outside));
        assert_int_equal(syscall(SYS_pidfd_send_signal, outside, SIGKILL, NULL, 0), 0);
        close(inside);
        close(outside);
        fclose(output[0]);
        fclose(output[1]);
        muster_child_unref(alone);
        muster_child_unref(group);
}

/*
 * Parents that die
 */

typedef struct Spawner {
        muster_spawn_options options;
        muster_child *child;
        int r;
} Spawner;

static void *spawn_and_end(void *userdata) {
        Spawner *s = userdata;

        s->r = muster_spawn(NULL, &s->options, NULL, NULL, &s->child);
        return NULL;
}

static int status_of(const muster_child *child) {
        int pidfd = pidfd_of(muster_child_get_pid(child));
        siginfo_t si;

        wait_for_end(pidfd);
        close(pidfd);
        assert_int_equal(waitid(P_PID, (id_t) muster_child_get_pid(child), &si, WEXITED), 0);
        assert_int_equal(si.si_code, CLD_KILLED);
        return si.si_status;
}

static muster_child *spawn_in_thread(uint64_t flags) {
        Spawner s = { .options = MUSTER_SPAWN_OPTIONS_INIT };
        pthread_t thread;

        s.options.program = "sleep";
        s.options.argv = STRINGS("sleep", "100");
        s.options.flags = flags;
        s.options.uid = s.options.gid = 65534;
        assert_int_equal(pthread_create(&thread, NULL, spawn_and_end, &s), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(s.r, 0);
        return s.child;
}

/* The parent that it dies with is a thread: it gets SIGTERM when that ends, while the process lives on. */
static void test_die_with_thread(void **state) {
        muster_child *lives = spawn_in_thread(0);
        muster_child *dies = spawn_in_thread(MUSTER_SPAWN_DIE_WITH_PARENT);

        assert_int_equal(status_of(dies), SIGTERM);
        muster_child_unref(dies);
        if (getuid() == 0) { /* also when it is another user's */
                dies = spawn_in_thread(
                                MUSTER_SPAWN_DIE_WITH_PARENT | MUSTER_SPAWN_SET_UID | MUSTER_SPAWN_SET_GID);
                assert_int_equal(status_of(dies), SIGTERM);
                muster_child_unref(dies);
        }
        assert_int_equal(muster_child_kill(lives, SIGKILL), 0);
        assert_int_equal(status_of(lives), SIGKILL);
        muster_child_unref(lives);
}

/* Reports how it is detached, to $REPORT, then stays. */
static int child_detached(void) {
        char cwd[256] = "?", text[512];
        int nulls = 0;

        for (int fd = 0; fd < 3; fd++) {
                struct stat st;
                nulls += fstat(fd, &st) == 0 && st.st_rdev == makedev(1, 3);
        }
        int tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
        int error = tty < 0 ? errno : 0;
        int n = snprintf(text, sizeof(text), "%d %d %s %d %d", getsid(0) == getpid(), getpgrp() == getpid(),
                        getcwd(cwd, sizeof(cwd)), nulls, error);
        int out = open(getenv("REPORT"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        return write(out, text, (size_t) n) == n && kill(atoi(getenv("WAKE")), SIGUSR1) == 0 ? pause() : 1;
}

/* Leads a session with a terminal, starts a detached child and one that is not, and dies when the first has
 * written its report. */
static int start_in_session(int *told) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        muster_child *detached, *attached;
        char wake[16];
        sigset_t set;
        int signal;

        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        sigprocmask(SIG_BLOCK, &set, NULL);
        snprintf(wake, sizeof(wake), "%d", getpid());
        setenv("WAKE", wake, 1);
        o.program = "sleep";
        o.argv = STRINGS("sleep", "100");
        CHECK(muster_spawn(NULL, &o, NULL, NULL, &attached) == 0);
        o.program = "/proc/self/exe";
        o.argv = STRINGS("test", "detached");
        o.flags = MUSTER_SPAWN_DETACHED;
        CHECK(muster_spawn(NULL, &o, NULL, NULL, &detached) == 0);
        CHECK(sigwait(&set, &signal) == 0);
        const pid_t pids[] = { muster_child_get_pid(detached), muster_child_get_pid(attached) };
        return write(told[1], pids, sizeof(pids)) == sizeof(pids) ? 0 : __LINE__;
}

/* A detached child has a session of its own without a terminal, and is not hit by the hang-up with which the
 * session of its parent ends. */
static void test_detached_survives(void **state) {
        _cleanup_free_ char *text = NULL;
        int told[2], terminal, status;
        pid_t pids[2];

        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
        assert_int_equal(pipe2(told, O_CLOEXEC), 0);
        pid_t leader = forkpty(&terminal, NULL, NULL, NULL);
        assert_true(leader >= 0);
        if (leader == 0)
                _exit(start_in_session(told));
        assert_int_equal(read(told[0], pids, sizeof(pids)), sizeof(pids));
        assert_int_equal(waitpid(leader, &status, 0), leader);
        assert_int_equal(status, 0);
        assert_int_equal(waitpid(pids[1], &status, 0), pids[1]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGHUP);

        assert_int_equal(waitpid(pids[0], &status, WNOHANG), 0); /* ours now, and alive */
        assert_int_equal(kill(pids[0], SIGKILL), 0);
        assert_int_equal(waitpid(pids[0], &status, 0), pids[0]);
        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
        assert_int_equal(read_small_file(AT_FDCWD, report_path, 512, &text), 0);
        char expected[64];
        snprintf(expected, sizeof(expected), "1 1 / 3 %d", ENXIO);
        assert_string_equal(text, expected);
        close(terminal);
        close(told[0]);
        close(told[1]);
}

/* What @stdio and @cwd say holds for a detached child too; its group can be killed. */
static void test_detached_options(void **state) {
        muster_spawn_options o = options_piped("pwd; sleep 100 & echo $!; wait", 2);
        Heard h;
        Ended e;

        o.flags |= MUSTER_SPAWN_DETACHED | MUSTER_SPAWN_PROCESS_GROUP;
        o.cwd = "/usr";
        muster_child *child = start(&o, &e);
        hear(muster_child_get_stream(child, 1), &h);
        run_until(strlen(h.text) > strlen("/usr\n") && strchr(h.text + strlen("/usr\n"), '\n'));
        assert_int_equal(strncmp(h.text, "/usr\n", strlen("/usr\n")), 0);
        int grandchild = pidfd_of((pid_t) atoi(h.text + strlen("/usr\n")));
        assert_int_equal(getsid(muster_child_get_pid(child)), muster_child_get_pid(child));
        assert_int_equal(muster_child_kill_group(child, SIGKILL), 0);
        wait_for_end(grandchild);
        close(grandchild);
        run_until(e.closes);
        muster_child_unref(child);
}

/*
 * What is left behind
 */

static void assert_same_mask(const sigset_t *a, const sigset_t *b) {
        for (int sig = 1; sig < _NSIG; sig++)
                assert_int_equal(sigismember(a, sig), sigismember(b, sig));
}

/* One stream's handler drops the child: nobody else hears of it any more. */
static void on_broken_drops(muster_stream *stream, int error, void *userdata) {
        muster_child **child = userdata;

        assert_non_null(*child);
        *child = muster_child_unref(*child);
}

static void test_unref_in_broken_handler(void **state) {
        static const size_t size = 4 * 1024 * 1024;
        /* somebody else keeps the pipes open, so that it is the exit that ends them */
        muster_spawn_options o = options_shell("exec 9<&0; sleep 100 & exit 0");
        const muster_stdio stdio[] = { pipes[0], { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_IGNORE }, pipes[3], pipes[3] };
        muster_stream_handlers h = MUSTER_STREAM_HANDLERS_INIT;
        char *data = calloc(1, size);
        muster_child *child = NULL;

        assert_non_null(data);
        h.broken = on_broken_drops;
        o.stdio = stdio;
        o.n_stdio = ELEMENTSOF(stdio);
        o.flags |= MUSTER_SPAWN_PROCESS_GROUP;
        assert_int_equal(muster_spawn(event, &o, NULL, NULL, &child), 0);
        pid_t group = muster_child_get_pid(child);
        for (unsigned fd = 0; fd < ELEMENTSOF(stdio); fd++) {
                muster_stream *s = muster_child_get_stream(child, fd);

                if (!s)
                        continue;
                assert_int_equal(muster_stream_set_handlers(s, &h, &child), 0);
                assert_int_equal(muster_stream_write(s, data, size), 1);
        }
        run_until(!child);
        run_what_is_due();
        kill(-group, SIGKILL);
        free(data);
}

static void on_sent_counted(muster_channel *channel, int error, void *userdata) {
        assert_int_equal(error, -EPIPE);
        ++*(int *) userdata;
}

/* What was sent to a child that never listened is told of, before the close. */
static void test_sent_to_a_child_that_ends(void **state) {
        muster_spawn_options o = options_piped("read line", 1);
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), n = 0;
        muster_child *child = NULL;
        Ended e = { 0 };

        assert_int_equal(muster_fork(event, &o, on_exit_noted, &e, &child), 0);
        assert_int_equal(muster_child_set_close_handler(child, on_close_noted), 0);
        muster_channel *channel = muster_child_get_channel(child);
        assert_int_equal(muster_channel_send(channel, "1", fd, on_sent_counted, &n), 0);
        assert_int_equal(muster_stream_end(muster_child_get_stream(child, STDIN_FILENO)), 0);
        run_until(e.closes);
        assert_int_equal(n, 1);
        muster_child_unref(child);
        close(fd);
}

static void count_cleanup(void *userdata) {
        atomic_fetch_add((atomic_int *) userdata, 1);
        if (syscall(SYS_gettid) == getpid()) /* in a child there is one thread */
                abort();
}

static void *spawn_when_cancelled(void *userdata) {
        const muster_stdio closed[] = { { .kind = MUSTER_STDIO_CLOSED } };
        muster_spawn_options o = options_shell("exit 0");
        muster_child *child = NULL;

        o.stdio = closed;
        o.n_stdio = ELEMENTSOF(closed);
        pthread_cleanup_push(count_cleanup, userdata);
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
        pthread_cancel(pthread_self());
        pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
        if (muster_spawn(NULL, &o, NULL, NULL, &child) == 0)
                (void) waitid(P_PID, (id_t) muster_child_get_pid(child), &(siginfo_t){ 0 }, WEXITED);
        muster_child_unref(child);
        pthread_testcancel();
        pthread_cleanup_pop(0);
        return NULL;
}

/* A thread that is to be cancelled is, but not by what the child does on its memory. */
static int cancel_a_spawning_thread(void) {
        atomic_int n = 0;
        pthread_t thread;
        void *result;

        CHECK(pthread_create(&thread, NULL, spawn_when_cancelled, &n) == 0);
        CHECK(pthread_join(thread, &result) == 0);
        CHECK(result == PTHREAD_CANCELED);
        CHECK(n == 1);
        return 0;
}

static void test_cancelled_thread(void **state) {
        in_own_process(cancel_a_spawning_thread);
}

/* Neither is a handler for SIGCHLD installed nor anything blocked, while the child runs and after it. */
static void test_sigchld_untouched(void **state) {
        muster_spawn_options o = options_piped("exit 3", 3);
        struct sigaction before, after;
        sigset_t mask[3];
        Ended e;

        assert_int_equal(sigaction(SIGCHLD, NULL, &before), 0);
        assert_int_equal(sigprocmask(SIG_SETMASK, NULL, mask), 0);
        muster_child *child = start(&o, &e);
        assert_int_equal(sigprocmask(SIG_SETMASK, NULL, mask + 1), 0);
        run_until(e.closes);
        muster_child_unref(child);
        assert_int_equal(sigaction(SIGCHLD, NULL, &after), 0);
        assert_int_equal(sigprocmask(SIG_SETMASK, NULL, mask + 2), 0);
        assert_ptr_equal(before.sa_handler, after.sa_handler);
        assert_same_mask(mask, mask + 1);
        assert_same_mask(mask, mask + 2);
}

/* A caller that has its children reaped by the kernel loses their status, not their end. */
static void test_sigchld_ignored(void **state) {
        static const uint64_t flags[] = { 0, MUSTER_SPAWN_PROCESS_GROUP };

        for (size_t i = 0; i < ELEMENTSOF(flags); i++) {
                muster_spawn_options o = options_piped("exit 3", 3);
                Ended e;

                o.flags |= flags[i];
                signal(SIGCHLD, SIG_IGN);
                muster_child *child = start(&o, &e);
                run_until(e.closes);
                muster_child *none = NULL;
                o.flags = 0;
                o.program = "/nonexistent";
                int r = muster_spawn(event, &o, NULL, NULL, &none);
                signal(SIGCHLD, SIG_DFL);
                assert_int_equal(e.exits, 1);
                assert_int_equal(e.code, CLD_EXITED);
                assert_int_equal(e.status, 1); /* and not success */
                assert_int_equal(muster_child_kill(child, SIGKILL), -ESRCH);
                assert_int_equal(muster_child_get_usage(child, &(struct rusage){ 0 }), -ENODATA);
                assert_int_equal(r, -ENOENT);
                assert_null(none);
                muster_child_unref(child);
        }
}

static int count_descriptors(void) {
        DIR *d = opendir("/proc/self/fd");
        int n = 0;

        assert_non_null(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

/* 200 children of all sorts, and as many that could not start, leave no descriptor and no zombie behind. */
static void test_nothing_left(void **state) {
        const muster_stdio stdio[] = { pipes[0], pipes[1], { .kind = MUSTER_STDIO_IGNORE }, pipes[3],
                { .kind = MUSTER_STDIO_IPC }, { .kind = MUSTER_STDIO_FD, .fd = STDERR_FILENO } };
        muster_stdio broken[ELEMENTSOF(stdio)];
        int before = 0;

        memcpy(broken, stdio, sizeof(stdio));
        broken[5].fd = 3000;
        for (int i = 0; i < 200; i++) {
                muster_spawn_options o = options_shell("echo x; echo y >&3");
                muster_child *child, *none = NULL;
                Ended e;

                if (i == 1) /* the first time, the loop has its own to open */
                        before = count_descriptors();
                o.flags |= i % 3 == 0 ? MUSTER_SPAWN_PROCESS_GROUP : i % 3 == 1 ? MUSTER_SPAWN_DETACHED : 0;
                o.stdio = stdio;
                o.n_stdio = ELEMENTSOF(stdio);
                child = start(&o, &e);
                if (i % 2 == 0)
                        run_until(e.closes);
                else
                        run_until(e.exits);
                muster_child_unref(child);

                o.flags = 0;
                o.program = "/nonexistent";
                assert_int_equal(muster_spawn(event, &o, NULL, NULL, &none), -ENOENT);
                o.stdio = broken;
                assert_int_equal(muster_spawn(event, &o, NULL, NULL, &none), -EBADF);
                assert_null(none);
        }
        assert_int_equal(count_descriptors(), before);
        assert_false(has_children());
}

int main(int argc, char *argv[]) {
        const struct CMUnitTest tests[] = {
                child_test(test_close_waits_for_pipes),
                child_test(test_exit_behind_a_debugger),
                child_test(test_close_after_exit),
                child_test(test_close_without_readers),
                child_test(test_attach_late),
                child_test(test_unref_in_exit_handler),
                child_test(test_unref_in_close_handler),
                child_test(test_usage),
                child_test(test_kill_group),
                child_test(test_kill_no_group),
                child_test(test_time_limit),
                child_test(test_time_limit_late),
                child_test(test_time_limit_ignored),
                child_test(test_die_with_thread),
                child_test(test_detached_survives),
                child_test(test_detached_options),
                child_test(test_unref_in_broken_handler),
                child_test(test_sent_to_a_child_that_ends),
                child_test(test_cancelled_thread),
                child_test(test_sigchld_untouched),
                child_test(test_sigchld_ignored),
                child_test(test_nothing_left),
        };

        if (argc > 1)
                return strcmp(argv[1], "use") == 0 ? child_uses() : child_detached();
        return cmocka_run_group_tests(tests, setup, teardown);
}

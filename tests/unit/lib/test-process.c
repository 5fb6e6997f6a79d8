/* SPDX-License-Identifier: MIT */
/* muster_spawn() and its child, seen from both sides: this program starts itself, and the child reports what
 * it found. */

#include "../unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "muster/process.h"

/*
 * The child
 */

/* Writes "0:DEV:INO 1:DEV:INO …", what is open, to @out; so that a place is known by its file. */
static void report_fds(FILE *out) {
        DIR *d = opendir("/proc/self/fd");

        for (int fd = 0; fd < 4096; fd++) {
                struct stat st;
                if (fd == dirfd(d) || fd == fileno(out) || fstat(fd, &st) < 0)
                        continue;
                fprintf(out, "%d:%lu:%lu ", fd, (unsigned long) st.st_dev, (unsigned long) st.st_ino);
        }
        closedir(d);
}

static void report_status(FILE *out, const char *name) {
        FILE *f = fopen("/proc/self/status", "re");
        char line[256];

        while (fgets(line, sizeof(line), f))
                if (strncmp(line, name, strlen(name)) == 0)
                        fprintf(out, "%s", line);
        fclose(f);
}

/* Opens the file named by $REPORT by itself, so that no descriptor is needed for it. */
static int child_main(const char *what, char *argv[]) {
        FILE *out = getenv("REPORT") ? fopen(getenv("REPORT"), "we") : NULL;

        if (strcmp(what, "fds") == 0)
                report_fds(out);
        else if (strcmp(what, "signals") == 0) {
                report_status(out, "SigBlk");
                report_status(out, "SigIgn");
                report_status(out, "SigCgt");
        } else if (strcmp(what, "arguments") == 0) {
                for (char **a = argv; *a; a++)
                        fprintf(out, "%s|", *a);
                for (char **e = environ; *e; e++)
                        if (strncmp(*e, "TEST_", 5) == 0)
                                fprintf(out, "%s|", *e);
        } else if (strcmp(what, "exit") == 0)
                return atoi(argv[2]);
        else if (strcmp(what, "wait") == 0)
                for (;;)
                        pause();
        else if (strcmp(what, "parent") == 0) {
                /* starts a child that dies with it, tells its pid, and waits to be killed */
                muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
                muster_child *child;

                o.program = "/proc/self/exe";
                o.argv = (char *[]){ (char *) "test", (char *) "wait", NULL };
                o.flags = MUSTER_SPAWN_DIE_WITH_PARENT;
                if (muster_spawn(NULL, &o, NULL, NULL, &child) < 0)
                        return 1;
                pid_t pid = muster_child_get_pid(child);
                if (write(STDOUT_FILENO, &pid, sizeof(pid)) != sizeof(pid))
                        return 1;
                for (;;)
                        pause();
        }
        return out ? fclose(out) : 0;
}

/*
 * The parent
 */

static char report_path[64];
static sd_event *event;

typedef struct Exit {
        int n, code, status;
        muster_child **drop; /* the last reference, dropped in the handler */
} Exit;

static void on_ended(muster_child *child, int code, int status, void *userdata) {
        Exit *e = userdata;

        e->n++;
        e->code = code;
        e->status = status;
        if (e->drop)
                *e->drop = muster_child_unref(*e->drop);
}

static int setup(void **state) {
        snprintf(report_path, sizeof(report_path), "/tmp/test-process-%d", getpid());
        setenv("REPORT", report_path, 1);
        return sd_event_new(&event);
}

static int teardown(void **state) {
        (void) unlink(report_path);
        event = sd_event_unref(event);
        return 0;
}

static muster_spawn_options options_self(char **argv) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;

        o.program = "/proc/self/exe";
        o.argv = argv;
        return o;
}

static void run_until_exit(const Exit *e) {
        while (e->n == 0)
                assert_true(sd_event_run(event, 10 * 1000 * 1000) > 0);
}

/* The same places as muster_stdio: a negative number is a closed one. */
static const muster_stdio *stdio_of(const int *fds, size_t n) {
        static muster_stdio stdio[16];

        assert_true(n <= ELEMENTSOF(stdio));
        for (size_t i = 0; i < n; i++)
                stdio[i] = fds[i] < 0 ? (muster_stdio){ .kind = MUSTER_STDIO_CLOSED }
                                      : (muster_stdio){ .kind = MUSTER_STDIO_FD, .fd = fds[i] };
        return stdio;
}

/* Starts this program with @what, waits for its good end, and returns the report. */
static const char *run_report(const char *what, const int *fds, size_t n_fds) {
        static char report[65536];
        char *argv[] = { (char *) "test", (char *) what, NULL };
        muster_spawn_options o = options_self(argv);
        _cleanup_free_ char *text = NULL;
        muster_child *child;
        siginfo_t si;

        /* without the loop, whose descriptor may be in the way of a test */
        o.stdio = fds ? stdio_of(fds, n_fds) : NULL;
        o.n_stdio = n_fds;
        assert_int_equal(muster_spawn(NULL, &o, NULL, NULL, &child), 0);
        assert_int_equal(waitid(P_PID, (id_t) muster_child_get_pid(child), &si, WEXITED), 0);
        assert_int_equal(si.si_code, CLD_EXITED);
        assert_int_equal(si.si_status, 0);
        muster_child_unref(child);
        assert_int_equal(read_small_file(AT_FDCWD, report_path, sizeof(report) - 1, &text), 0);
        return strcpy(report, text);
}

/* "I:DEV:INO " of @fd in place @i. */
static const char *place(char buf[static 128], int i, int fd) {
        struct stat st;

        assert_int_equal(fstat(fd, &st), 0);
        snprintf(buf, 128, "%d:%lu:%lu ", i, (unsigned long) st.st_dev, (unsigned long) st.st_ino);
        return buf;
}

static void assert_places(const int *fds, size_t n) {
        char expected[8192] = "", buf[128];

        for (size_t i = 0; i < n; i++)
                if (fds[i] >= 0)
                        strcat(expected, place(buf, (int) i, fds[i]));
        for (int i = (int) n; i <= STDERR_FILENO; i++) /* not listed: inherited */
                strcat(expected, place(buf, i, i));
        assert_string_equal(run_report("fds", fds, n), expected);
}

/* A file of its own at the descriptor number @fd. */
static int open_at(int fd) {
        char name[] = "/tmp/test-process-fd-XXXXXX";
        int tmp = mkstemp(name);

        assert_true(tmp >= 0);
        assert_int_equal(unlink(name), 0);
        if (tmp == fd)
                return fd;
        assert_int_equal(dup2(tmp, fd), fd);
        close(tmp);
        return fd;
}

/* stdio[i] becomes descriptor i: straight, swapped, in a ring, doubled, far away, in place already, left
 * out; and there is nothing else. */
static void test_placement(void **state) {
        enum { A = 20, B, C, D };
        int saved[8];

        for (int i = 0; i < 8; i++)
                saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 100);
        for (int i = A; i <= D; i++)
                (void) open_at(i);
        for (int i = 3; i < 8; i++)
                (void) open_at(i);

        assert_places((int[]){ A, B, C, D }, 4);
        assert_places((int[]){ 0, 1, 2 }, 3);
        assert_places((int[]){ 0, 1, 2, 4, 3 }, 5);             /* swapped */
        assert_places((int[]){ 1, 0, 2 }, 3);                   /* likewise */
        assert_places((int[]){ 0, 1, 2, 4, 5, 6, 3 }, 7);       /* a ring */
        assert_places((int[]){ 0, 1, 2, 3, 4, 5 }, 6);          /* all in place */
        assert_places((int[]){ 0, 1, 2, A, A, 3, 3 }, 7);       /* doubled */
        assert_places((int[]){ 0, 1, 2, 7, 6, 5, 4, 3 }, 8);    /* reversed */
        assert_places((int[]){ 0, 1, 2, -EBADF, 3 }, 5);        /* a gap whose number is somebody's source */
        assert_places((int[]){ -EBADF, -EBADF, -EBADF, A }, 4); /* no standard streams */
        assert_places((int[]){ 0, 1, 2, -EBADF, -EBADF, B }, 6);
        assert_places((int[]){ -EBADF }, 1);
        assert_places((int[]){ 7 }, 1);

        for (int i = A; i <= D; i++)
                close(i);
        for (int i = 0; i < 8; i++) {
                if (saved[i] < 0)
                        close(i);
                else {
                        dup2(saved[i], i);
                        close(saved[i]);
                }
        }
}

/* Any mapping of up to 12 places, out of descriptors below and above them, ends as it was asked. */
static void test_placement_random(void **state) {
        int saved[12];

        srand(1);
        for (int i = 0; i < 12; i++)
                saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 100);
        for (int i = 3; i < 16; i++)
                (void) open_at(i);
        for (int round = 0; round < 60; round++) {
                size_t n = 3 + (size_t) rand() % 10;
                int fds[12] = { 0, 1, 2 };

                for (size_t i = 3; i < n; i++)
                        fds[i] = rand() % 5 == 0 ? -EBADF : rand() % 16;
                assert_places(fds, n);
        }
        for (int i = 3; i < 16; i++)
                close(i);
        for (int i = 0; i < 12; i++)
                if (saved[i] >= 0) {
                        dup2(saved[i], i);
                        close(saved[i]);
                }
}

/* Without a list the child has the three standard streams, and nothing that was left open without
 * FD_CLOEXEC. */
static void test_no_leaks(void **state) {
        int stray = fcntl(open_at(40), F_DUPFD, 900);

        assert_true(stray >= 900);
        assert_places((int[]){ 0, 1, 2 }, 3);
        _cleanup_free_ char *not_listed = strdup(run_report("fds", NULL, 0));
        assert_string_equal(not_listed, run_report("fds", (int[]){ 0, 1, 2 }, 3));
        close(stray);
        close(40);
}

/* A caller without standard streams can start children: what is not there stays away. */
static void test_closed_standard_stream(void **state) {
        int saved = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
        char expected[256] = "", buf[128];

        close(STDIN_FILENO);
        strcat(expected, place(buf, 1, 1));
        strcat(expected, place(buf, 2, 2));
        assert_string_equal(run_report("fds", NULL, 0), expected);
        assert_int_equal(dup2(saved, STDIN_FILENO), STDIN_FILENO);
        close(saved);
}

/* The caller's own descriptors stay as they were, numbers and flags, and none is left over. */
static void test_parent_unchanged(void **state) {
        int fds[] = { 0, 1, 2, 31, 30 };
        char *argv[] = { (char *) "test", (char *) "exit", (char *) "0", NULL };
        muster_spawn_options o = options_self(argv);
        muster_child *child;
        char before[128], after[128];

        (void) open_at(30);
        (void) open_at(31);
        assert_int_equal(fd_set_cloexec(30, true), 0);
        place(before, 30, 30);
        int next = fcntl(0, F_DUPFD_CLOEXEC, 3);
        close(next);
        o.stdio = stdio_of(fds, ELEMENTSOF(fds));
        o.n_stdio = ELEMENTSOF(fds);
        for (int i = 0; i < 20; i++) {
                Exit e = { 0 };

                assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), 0);
                run_until_exit(&e);
                muster_child_unref(child);
                o.program = "/nonexistent";
                assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), -ENOENT);
                o.program = "/proc/self/exe";
        }
        assert_string_equal(place(after, 30, 30), before);
        assert_int_equal(fcntl(30, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fcntl(31, F_GETFD), 0);
        int now = fcntl(0, F_DUPFD_CLOEXEC, 3);
        close(now);
        assert_int_equal(now, next);
        close(30);
        close(31);
}

/* Arguments and environment arrive as given; without them, the program's path and the caller's. */
static void test_arguments(void **state) {
        char *argv[] = { (char *) "zero", (char *) "arguments", (char *) "", (char *) "a b", NULL };
        char *env[] = { NULL, (char *) "TEST_A=1", (char *) "TEST_B=", NULL };
        char report_variable[128];
        muster_spawn_options o = options_self(argv);
        _cleanup_free_ char *text = NULL;
        muster_child *child;
        Exit e = { 0 };

        snprintf(report_variable, sizeof(report_variable), "REPORT=%s", report_path);
        env[0] = report_variable;
        setenv("TEST_C", "not mine", 1);
        o.env = env;
        assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), 0);
        run_until_exit(&e);
        muster_child_unref(child);
        assert_int_equal(read_small_file(AT_FDCWD, report_path, 4096, &text), 0);
        assert_string_equal(text, "zero|arguments||a b|TEST_A=1|TEST_B=|");
        assert_non_null(strstr(run_report("arguments", NULL, 0), "TEST_C=not mine|"));

        /* no argv at all: this program without arguments would run the tests again, so another one */
        o = (muster_spawn_options) MUSTER_SPAWN_OPTIONS_INIT;
        o.program = "/bin/true";
        e = (Exit){ 0 };
        assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), 0);
        run_until_exit(&e);
        assert_int_equal(e.status, 0);
        muster_child_unref(child);
}

static void handler(int sig) {
}

static void ignore_for_kernel(int sig) {
        const uintptr_t kernel_sigaction[8] = { (uintptr_t) SIG_IGN }; /* the handler comes first */

        assert_int_equal(syscall(SYS_rt_sigaction, sig, kernel_sigaction, NULL, _NSIG / 8), 0);
}

/* Whatever the caller blocked, ignored or caught, the child starts with an open mask and default actions;
 * the caller's own are as before. */
static void test_signals_reset(void **state) {
        sigset_t set, saved, now;
        struct sigaction act;

        signal(SIGPIPE, SIG_IGN);
        signal(SIGUSR1, SIG_IGN);
        signal(SIGRTMIN, SIG_IGN);
        ignore_for_kernel(32); /* libc's own: signal() refuses it, but a parent can pass it on ignored */
        signal(SIGUSR2, handler);
        sigfillset(&set);
        sigprocmask(SIG_BLOCK, &set, &saved);
        sigprocmask(SIG_SETMASK, NULL, &set);
        run_report("fds", NULL, 0);
        const char *report = run_report("signals", NULL, 0);
        sigprocmask(SIG_SETMASK, NULL, &now);
        sigprocmask(SIG_SETMASK, &saved, NULL);

        assert_non_null(strstr(report, "SigBlk:\t0000000000000000\n"));
        assert_non_null(strstr(report, "SigIgn:\t0000000000000000\n"));
        for (int sig = 1; sig < _NSIG; sig++)
                assert_int_equal(sigismember(&set, sig), sigismember(&now, sig));
        assert_int_equal(sigaction(SIGPIPE, NULL, &act), 0);
        assert_ptr_equal(act.sa_handler, SIG_IGN);
        assert_int_equal(sigaction(SIGUSR2, NULL, &act), 0);
        assert_ptr_equal(act.sa_handler, handler);
        signal(SIGPIPE, SIG_DFL);
        signal(SIGUSR1, SIG_DFL);
        signal(SIGRTMIN, SIG_DFL);
        signal(SIGUSR2, SIG_DFL);
}

/* Reaps nobody itself. */
static bool has_children(void) {
        return waitid(P_ALL, 0, &(siginfo_t){ 0 }, WEXITED | WNOHANG | WNOWAIT) >= 0 || errno != ECHILD;
}

/* What cannot be executed is told by execve()'s errno, at once; the handler hears nothing, nobody is left to
 * reap, and the output is untouched. */
static void test_exec_errno(void **state) {
        muster_child *untouched = (muster_child *) &event, *child = untouched;
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        Exit e = { 0 };

        o.program = "/nonexistent/program";
        assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), -ENOENT);
        o.program = "/";
        assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), -EACCES);
        o.program = "/dev/null/x";
        assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), -ENOTDIR);

        FILE *f = fopen(report_path, "we");
        fputs("neither ELF nor script", f);
        fclose(f);
        assert_int_equal(chmod(report_path, 0700), 0);
        o.program = report_path;
        assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), -ENOEXEC);
        assert_int_equal(chmod(report_path, 0600), 0);
        assert_int_equal(muster_spawn(NULL, &o, on_ended, &e, &child), -EACCES);

        o.program = "/bin/true";
        o.stdio = stdio_of((int[]){ 0, 1, 2, 3000 }, 4);
        o.n_stdio = 4;
        assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), -EBADF);

        assert_ptr_equal(child, untouched);
        assert_false(has_children());
        assert_int_equal(sd_event_run(event, 0), 0);
        assert_int_equal(e.n, 0);
}

/* Wrong arguments are -EINVAL and start nothing. */
static void test_wrong_arguments(void **state) {
        muster_child *child = NULL;
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        const muster_stdio stdio = { .kind = MUSTER_STDIO_FD, .fd = 0 };

        assert_int_equal(muster_spawn(event, &o, NULL, NULL, &child), -EINVAL); /* no program */
        o.program = "/bin/true";
        assert_int_equal(muster_spawn(event, NULL, NULL, NULL, &child), -EINVAL);
        assert_int_equal(muster_spawn(event, &o, NULL, NULL, NULL), -EINVAL);
        o.size = 0;
        assert_int_equal(muster_spawn(event, &o, NULL, NULL, &child), -EINVAL);
        o = (muster_spawn_options) MUSTER_SPAWN_OPTIONS_INIT;
        o.program = "/bin/true";
        o.flags = UINT64_C(1) << 63;
        assert_int_equal(muster_spawn(event, &o, NULL, NULL, &child), -EINVAL);
        o.flags = 0;
        o.n_stdio = 1;
        assert_int_equal(muster_spawn(event, &o, NULL, NULL, &child), -EINVAL);
        o.stdio = &stdio;
        o.n_stdio = 1025;
        assert_int_equal(muster_spawn(event, &o, NULL, NULL, &child), -EINVAL);

        assert_int_equal(muster_child_attach(NULL, event), -EINVAL);
        assert_int_equal(muster_child_kill(NULL, SIGTERM), -EINVAL);
        assert_int_equal(muster_child_get_pid(NULL), -EINVAL);
        assert_null(muster_child_ref(NULL));
        assert_null(muster_child_unref(NULL));
        assert_null(child);
        assert_false(has_children());
}

/* Exit status and signal are told as they were; the process is reaped before the handler. */
static void test_exit_report(void **state) {
        static const int signals[] = { SIGKILL, SIGTERM, SIGINT, SIGUSR1, SIGPIPE, SIGALRM };
        muster_child *child;

        for (int status = 0; status < 256; status += 51) {
                char text[8];
                char *argv[] = { (char *) "test", (char *) "exit", text, NULL };
                muster_spawn_options o = options_self(argv);
                Exit e = { 0 };

                snprintf(text, sizeof(text), "%d", status);
                assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), 0);
                run_until_exit(&e);
                assert_int_equal(e.code, CLD_EXITED);
                assert_int_equal(e.status, status);
                assert_false(has_children());
                assert_int_equal(muster_child_kill(child, SIGKILL), -ESRCH);
                muster_child_unref(child);
        }

        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                char *argv[] = { (char *) "test", (char *) "wait", NULL };
                muster_spawn_options o = options_self(argv);
                Exit e = { 0 };

                assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), 0);
                assert_int_equal(muster_child_kill(child, 0), 0);
                assert_int_equal(muster_child_kill(child, signals[i]), 0);
                run_until_exit(&e);
                assert_true(e.code == CLD_KILLED || e.code == CLD_DUMPED);
                assert_int_equal(e.status, signals[i]);
                assert_int_equal(e.n, 1);
                muster_child_unref(child);
        }
}

/* The handler may drop the last reference to its child. */
static void test_unref_in_handler(void **state) {
        char *argv[] = { (char *) "test", (char *) "exit", (char *) "3", NULL };
        muster_spawn_options o = options_self(argv);
        muster_child *child;
        Exit e = { .drop = &child };

        assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), 0);
        run_until_exit(&e);
        assert_int_equal(e.status, 3);
        assert_null(child);
}

/* No handler is fine: the child is still reaped. */
static void test_no_handler(void **state) {
        char *argv[] = { (char *) "test", (char *) "exit", (char *) "0", NULL };
        muster_spawn_options o = options_self(argv);
        muster_child *child;

        assert_int_equal(muster_spawn(event, &o, NULL, NULL, &child), 0);
        while (has_children())
                assert_true(sd_event_run(event, 10 * 1000 * 1000) > 0);
        muster_child_unref(child);
}

/* Dropping the last reference neither kills the child nor reports its end; reaping is then the caller's. */
static void test_unref_early(void **state) {
        char *argv[] = { (char *) "test", (char *) "wait", NULL };
        muster_spawn_options o = options_self(argv);
        muster_child *child;
        siginfo_t si;
        Exit e = { 0 };

        assert_int_equal(muster_spawn(event, &o, on_ended, &e, &child), 0);
        pid_t pid = muster_child_get_pid(child);
        assert_ptr_equal(muster_child_ref(child), child);
        assert_null(muster_child_unref(child));
        assert_int_equal(muster_child_kill(child, 0), 0);
        assert_null(muster_child_unref(child));
        assert_int_equal(kill(pid, 0), 0);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitid(P_PID, (id_t) pid, &si, WEXITED), 0);
        assert_int_equal(sd_event_run(event, 0), 0);
        assert_int_equal(e.n, 0);
}

/* Started without a loop, attached later: an end in between is not lost, and attaching twice is refused,
 * before and after the end. */
static void test_attach(void **state) {
        char *argv[] = { (char *) "test", (char *) "exit", (char *) "7", NULL };
        muster_spawn_options o = options_self(argv);
        muster_child *child;
        siginfo_t si;
        Exit e = { 0 };

        assert_int_equal(muster_spawn(NULL, &o, on_ended, &e, &child), 0);
        /* it has ended, and is not reaped */
        assert_int_equal(waitid(P_PID, (id_t) muster_child_get_pid(child), &si, WEXITED | WNOWAIT), 0);
        assert_int_equal(sd_event_run(event, 0), 0);
        assert_int_equal(e.n, 0);
        assert_int_equal(muster_child_attach(child, event), 0);
        assert_int_equal(muster_child_attach(child, event), -EBUSY);
        run_until_exit(&e);
        assert_int_equal(e.status, 7);

        assert_int_equal(muster_child_attach(child, event), -ESRCH);
        while (sd_event_run(event, 0) > 0)
                ;
        assert_int_equal(e.n, 1);
        muster_child_unref(child);
}

/* A child that is to die with its parent does, even when the parent gets SIGKILL. */
static void test_die_with_parent(void **state) {
        char *argv[] = { (char *) "test", (char *) "parent", NULL };
        muster_spawn_options o = options_self(argv);
        muster_child *parent;
        int p[2];
        pid_t pid;
        Exit e = { 0 };

        /* the orphan comes to us, so that its end can be awaited */
        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        o.stdio = stdio_of((int[]){ 0, p[1], 2 }, 3);
        o.n_stdio = 3;
        assert_int_equal(muster_spawn(event, &o, on_ended, &e, &parent), 0);
        close(p[1]);
        assert_int_equal(read(p[0], &pid, sizeof(pid)), sizeof(pid));
        close(p[0]);

        assert_int_equal(muster_child_kill(parent, SIGKILL), 0);
        run_until_exit(&e);
        muster_child_unref(parent);
        siginfo_t si;
        assert_int_equal(waitid(P_PID, (id_t) pid, &si, WEXITED), 0);
        assert_int_equal(si.si_code, CLD_KILLED);
        assert_int_equal(si.si_status, SIGTERM);
        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

/* Many at once: each end is reported once, to its own handler. */
static void test_many(void **state) {
        enum { N = 50 };
        muster_child *children[N];
        Exit exits[N] = { 0 };

        for (int i = 0; i < N; i++) {
                char text[8];
                char *argv[] = { (char *) "test", (char *) "exit", text, NULL };
                muster_spawn_options o = options_self(argv);

                snprintf(text, sizeof(text), "%d", i);
                assert_int_equal(muster_spawn(event, &o, on_ended, exits + i, children + i), 0);
        }
        for (int i = 0; i < N; i++)
                run_until_exit(exits + i);
        for (int i = 0; i < N; i++) {
                assert_int_equal(exits[i].n, 1);
                assert_int_equal(exits[i].status, i);
                muster_child_unref(children[i]);
        }
        assert_false(has_children());
}

/* The structure may grow: a caller built before is served, one built later as long as it sets nothing
 * unknown. */
static void test_options_size(void **state) {
        struct {
                muster_spawn_options known;
                uint64_t unknown;
        } o = { .known = { .size = sizeof(o), .program = "/bin/true" } };
        muster_child *child;

        assert_int_equal(muster_spawn(NULL, &o.known, NULL, NULL, &child), 0);
        assert_int_equal(waitpid(muster_child_get_pid(child), NULL, 0), muster_child_get_pid(child));
        muster_child_unref(child);

        o.known.size = offsetof(muster_spawn_options, cgroup_fd); /* the first version's */
        o.known.cgroup_fd = -1;
        assert_int_equal(muster_spawn(NULL, &o.known, NULL, NULL, &child), 0);
        assert_int_equal(waitpid(muster_child_get_pid(child), NULL, 0), muster_child_get_pid(child));
        muster_child_unref(child);

        o.known.size = sizeof(o);
        o.unknown = 1;
        assert_int_equal(muster_spawn(NULL, &o.known, NULL, NULL, &child), -E2BIG);
        o.known.size = offsetof(muster_spawn_options, flags);
        assert_int_equal(muster_spawn(NULL, &o.known, NULL, NULL, &child), -EINVAL);
}

int main(int argc, char *argv[]) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_placement),
                cmocka_unit_test(test_placement_random),
                cmocka_unit_test(test_no_leaks),
                cmocka_unit_test(test_closed_standard_stream),
                cmocka_unit_test(test_parent_unchanged),
                cmocka_unit_test(test_arguments),
                cmocka_unit_test(test_signals_reset),
                cmocka_unit_test(test_exec_errno),
                cmocka_unit_test(test_wrong_arguments),
                cmocka_unit_test(test_options_size),
                cmocka_unit_test(test_exit_report),
                cmocka_unit_test(test_unref_in_handler),
                cmocka_unit_test(test_no_handler),
                cmocka_unit_test(test_unref_early),
                cmocka_unit_test(test_attach),
                cmocka_unit_test(test_die_with_parent),
                cmocka_unit_test(test_many),
        };

        if (argc > 1)
                return child_main(argv[1], argv);
        return cmocka_run_group_tests(tests, setup, teardown);
}

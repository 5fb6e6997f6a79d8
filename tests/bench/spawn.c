/* SPDX-License-Identifier: MIT */
/* Starts a program and waits for its end, one after the other, for a while:
 * `spawn WAY STDIO MSEC MIB PROGRAM`.
 *
 * WAY: muster (muster_spawn() on an sd_event loop), posix_spawn, or fork (and exec). STDIO: inherit or
 * ignore. MIB: memory that is touched before, as in a parent of that size. The CPU time is that of the
 * parent and of its children. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "bench.h"
#include "muster/process.h"

extern char **environ;

typedef struct Run {
        char *arguments[2];
        sd_event *event;
        bool ignore;
        uint64_t until;
        uint64_t n;
} Run;

static void start_muster(Run *run);

static void on_exit_muster(muster_child *child, int code, int status, void *userdata) {
        Run *run = userdata;

        muster_child_unref(child);
        run->n++;
        if (clock_now_usec() < run->until)
                start_muster(run);
        else
                sd_event_exit(run->event, 0);
}

static void start_muster(Run *run) {
        static const muster_stdio nothing[] = {
                { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_IGNORE },
        };
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        muster_child *child;

        o.program = run->arguments[0];
        if (run->ignore) {
                o.stdio = nothing;
                o.n_stdio = 3;
        }
        must(muster_spawn(run->event, &o, on_exit_muster, run, &child), "muster_spawn");
}

static void run_muster(Run *run) {
        must(sd_event_default(&run->event), "sd_event_default");
        start_muster(run);
        must(sd_event_loop(run->event), "sd_event_loop");
        sd_event_unref(run->event);
}

static void reap(pid_t pid) {
        if (waitpid(pid, NULL, 0) != pid)
                must(-errno, "waitpid");
}

static void run_posix_spawn(Run *run) {
        posix_spawn_file_actions_t actions;

        posix_spawn_file_actions_init(&actions);
        for (int fd = 0; run->ignore && fd < 3; fd++)
                posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
        while (clock_now_usec() < run->until) {
                pid_t pid;

                must(-posix_spawn(&pid, run->arguments[0], &actions, NULL, run->arguments, environ),
                                "posix_spawn");
                reap(pid);
                run->n++;
        }
        posix_spawn_file_actions_destroy(&actions);
}

static void become_program(const Run *run) {
        if (run->ignore) {
                int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
                for (int i = 0; i < 3; i++)
                        (void) dup2(fd, i);
        }
        execve(run->arguments[0], run->arguments, environ);
        _exit(127);
}

static void run_fork(Run *run) {
        while (clock_now_usec() < run->until) {
                pid_t pid = fork();

                if (pid == 0)
                        become_program(run);
                if (pid < 0)
                        must(-errno, "fork");
                reap(pid);
                run->n++;
        }
}

static void touch_memory(size_t mib) {
        size_t size = mib * 1024 * 1024;

        if (size == 0)
                return;
        char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
                must(-errno, "mmap");
        /* In pages of the ordinary size: a program's many small blocks are seldom in large ones. */
        (void) madvise(p, size, MADV_NOHUGEPAGE);
        memset(p, 'x', size);
}

int main(int argc, char **argv) {
        if (argc != 6)
                return EXIT_FAILURE;

        touch_memory((size_t) atol(argv[4]));
        Run run = { .arguments = { argv[5] }, .ignore = strcmp(argv[2], "ignore") == 0 };
        uint64_t children = usage_usec(RUSAGE_CHILDREN);
        Stopwatch watch = stopwatch_start();
        run.until = watch.wall + (uint64_t) atol(argv[3]) * USEC_PER_MSEC;
        if (strcmp(argv[1], "muster") == 0)
                run_muster(&run);
        else if (strcmp(argv[1], "posix_spawn") == 0)
                run_posix_spawn(&run);
        else
                run_fork(&run);
        stopwatch_report(&watch, run.n, usage_usec(RUSAGE_CHILDREN) - children);
        return EXIT_SUCCESS;
}

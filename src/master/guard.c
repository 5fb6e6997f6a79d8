/* SPDX-License-Identifier: MIT */
/* The guard; see guard.h. */

#include "master/guard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/parse.h"
#include "master/orphans.h"

/* Workers that are well have 5 s to finish what is open. */
#define DRAIN_MSEC 5500

/* Until those that were killed are gone; and how often that is looked at. */
#define ROUNDS     50
#define ROUND_MSEC 100

/* What the master's workers, and whatever they have started, have in their environment. */
static bool is_of(pid_t pid, pid_t master) {
        WorkerId id;

        return orphans_read_owner(pid, master, &id);
}

/* By a pidfd, opened before the last look, so that no other process can be hit. */
static void end(pid_t pid, pid_t master) {
        _cleanup_close_ int fd = (int) syscall(SYS_pidfd_open, pid, 0);

        if (fd >= 0 && is_of(pid, master))
                (void) syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
}

/* Returns how many are left, and ends them if @kill. */
static unsigned look(pid_t master, bool kill) {
        DIR *folder = opendir("/proc");
        const struct dirent *entry;
        unsigned pid, n = 0;

        while (folder && (entry = readdir(folder))) {
                if (parse_uint(entry->d_name, &pid) < 0 || !is_of((pid_t) pid, master))
                        continue;
                if (kill)
                        end((pid_t) pid, master);
                n++;
        }
        if (folder)
                closedir(folder);
        return n;
}

/* Nothing of the master is kept: no socket of its, no terminal, no pipe whose reader waits for its end. */
static void let_go(int keep_fd) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        for (int fd = 0; fd <= STDERR_FILENO && null >= 0; fd++)
                (void) dup2(null, fd);
        if (keep_fd != STDERR_FILENO + 1 && dup2(keep_fd, STDERR_FILENO + 1) < 0)
                _exit(1);
        (void) syscall(SYS_close_range, STDERR_FILENO + 2, ~0U, 0);
        (void) setsid(); /* ^C is for the master */
        (void) !chdir("/");
        (void) prctl(PR_SET_NAME, "muster-guard"); /* the last: who sees it knows that all is let go */
}

static _noreturn_ void guard(pid_t master, int pidfd) {
        struct pollfd p = { .fd = STDERR_FILENO + 1, .events = POLLIN };
        sigset_t all;

        sigfillset(&all);
        (void) sigprocmask(SIG_SETMASK, &all, NULL);
        let_go(pidfd);

        while (poll(&p, 1, -1) < 0 && errno == EINTR)
                ;
        if (look(master, /* kill= */ false) > 0) {
                (void) poll(NULL, 0, DRAIN_MSEC);
                for (int i = 0; i < ROUNDS && look(master, /* kill= */ true) > 0; i++)
                        (void) poll(NULL, 0, ROUND_MSEC);
        }
        _exit(0);
}

pid_t guard_start(void) {
        pid_t master = getpid(), pid;
        _cleanup_close_ int pidfd = (int) syscall(SYS_pidfd_open, master, 0);

        if (pidfd < 0)
                return -errno;
        pid = fork();
        if (pid == 0)
                guard(master, pidfd);
        return pid < 0 ? -errno : pid;
}

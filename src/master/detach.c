/* SPDX-License-Identifier: MIT */
/* Becoming a daemon; see detach.h.
 *
 * One fork, where books show two. The second keeps a daemon from ever getting a controlling terminal, which
 * a leader of a session gets by opening one that is nobody's. The master opens no terminal, and the workers
 * lead no session. So the command is the service's parent: it sees how the service ends, and the kernel
 * tells the service when the command is killed.
 *
 * Either the command succeeds or there is no service: whatever ends the waiting command ends the service.
 *
 * The standard streams are replaced at once, and not when the service is ready, because the workers inherit
 * them: whoever reads our output to its end, as $(…) and ssh do, would wait for the workers. What the master
 * has to say meanwhile goes to a copy of stderr that no worker gets. */

#include "master/detach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "basic/parse.h"
#include "master/activation.h"
#include "master/notify.h"

/* What the service holds of the command until it is ready. */
static int ready_fd = -EBADF;
static int caller_stderr = -EBADF;

/*
 * Before the fork
 */

static int make_absolute(const char *path, char **ret) {
        _cleanup_free_ char *directory = NULL;

        if (*path == '/') {
                *ret = strdup(path);
                return *ret ? 0 : -ENOMEM;
        }
        directory = get_current_dir_name();
        if (!directory)
                return -errno;
        return asprintf(ret, "%s/%s", directory, path) < 0 ? -ENOMEM : 0;
}

/* All that is read as a path later, when the working directory is another one. */
static int make_paths_absolute(char **path) {
        const char *libexec = getenv("MUSTER_LIBEXECDIR");
        _cleanup_free_ char *new_path = NULL, *new_libexec = NULL;
        int r;

        r = make_absolute(*path, &new_path);
        if (r >= 0 && libexec && *libexec)
                r = make_absolute(libexec, &new_libexec);
        if (r < 0)
                return r;
        if (new_libexec && setenv("MUSTER_LIBEXECDIR", new_libexec, 1) < 0)
                return -errno;
        free(*path);
        *path = TAKE_PTR(new_path);
        return 0;
}

static bool variable_is_pid(const char *name, pid_t pid) {
        const char *e = getenv(name);
        unsigned n;

        return e && parse_uint(e, &n) >= 0 && (pid_t) n == pid;
}

/* A service must not hold for ever what its caller has open, such as a lock's file. */
static void close_strays(void) {
        const char *sockets = getenv("LISTEN_FDS");
        unsigned n = 0;

        if (sockets && variable_is_pid("LISTEN_PID", getpid()) &&
                        (parse_uint(sockets, &n) < 0 || n > ACTIVATION_MAX))
                return; /* the service refuses that, in words */
        (void) close_range(ACTIVATION_FIRST_FD + n, ~0U, 0);
}

/*
 * The service
 */

/* The sockets and the watchdog were the command's; now they are ours. */
static int inherit_variable(const char *name, pid_t command) {
        char pid[16];

        if (!variable_is_pid(name, command))
                return 0;
        snprintf(pid, sizeof(pid), "%d", getpid());
        return setenv(name, pid, 1) < 0 ? -errno : 0;
}

/* A file is a log that somebody wants; it holds up nobody and does not go away as a terminal or a reader. */
static bool is_file(int fd) {
        struct stat st;

        return fstat(fd, &st) >= 0 && S_ISREG(st.st_mode);
}

/* By this the log and the workers know that stderr is the journal's (systemd.exec(5)). */
static int set_journal_stream(void) {
        char value[64];
        struct stat st;

        if (fstat(STDERR_FILENO, &st) < 0)
                return -errno;
        snprintf(value, sizeof(value), "%lu:%lu", (unsigned long) st.st_dev, (unsigned long) st.st_ino);
        return setenv("JOURNAL_STREAM", value, 1) < 0 ? -errno : 0;
}

/* stdout and stderr: the journal where there is one, else nowhere. stdin can wait: no worker gets it, and
 * the configuration may come from there. */
static int replace_streams(void) {
        _cleanup_close_ int fd = -EBADF;
        bool journal, keep_stderr = is_file(STDERR_FILENO);

        if (log_stderr_is_journal())
                return 0;
        if (!keep_stderr) {
                caller_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
                if (caller_stderr < 0)
                        return -errno;
                log_copy_to(caller_stderr, LOG_WARNING);
        }
        fd = sd_journal_stream_fd("musterd", LOG_INFO, /* level_prefix= */ 1);
        journal = fd >= 0;
        if (!journal)
                fd = open("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY);
        if (fd < 0 || (!is_file(STDOUT_FILENO) && dup2(fd, STDOUT_FILENO) < 0) ||
                        (!keep_stderr && dup2(fd, STDERR_FILENO) < 0))
                return -errno;
        return journal && !keep_stderr ? set_journal_stream() : 0;
}

/* The order matters: from the first line on the death of the command is ours to notice; what is the caller's
 * is let go before the command returns. */
static void on_ready(void) {
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC | O_NOCTTY);

        (void) prctl(PR_SET_PDEATHSIG, 0);
        (void) dup2(null, STDIN_FILENO);
        safe_close(null);
        log_copy_to(-EBADF, LOG_EMERG);
        caller_stderr = safe_close(caller_stderr);

        if (write(ready_fd, "", 1) < 0) {
                log_error_errno(-errno, "Failed to tell the waiting command that the service is ready: %m");
                (void) kill(getpid(), SIGTERM);
        }
        ready_fd = safe_close(ready_fd);
}

static int become_service(pid_t command) {
        int r;

        (void) signal(SIGPIPE, SIG_IGN); /* nobody need read what we say, nor wait for us */
        r = replace_streams();
        if (r < 0)
                return log_error_errno(r, "Failed to replace the standard streams: %m");
        if (setsid() < 0 || chdir("/") < 0 || prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
                return log_error_errno(-errno, "Failed to detach: %m");
        if (getppid() != command) /* it died before that */
                return log_error_errno(-ESRCH, "The command that started the service is gone.");
        r = inherit_variable("LISTEN_PID", command);
        if (r >= 0)
                r = inherit_variable("WATCHDOG_PID", command);
        if (r < 0)
                return log_error_errno(r, "Failed to set the environment: %m");
        notify_on_ready(on_ready);
        return 0;
}

/*
 * The command
 */

/* Those that end a command, but for what its caller wants it to ignore, as nohup does. They are blocked. */
static int open_signals(void) {
        static const int ending[] = { SIGINT, SIGTERM, SIGHUP };
        struct sigaction action;
        sigset_t set;

        sigemptyset(&set);
        for (size_t i = 0; i < ELEMENTSOF(ending); i++)
                if (sigaction(ending[i], NULL, &action) >= 0 && action.sa_handler != SIG_IGN)
                        sigaddset(&set, ending[i]);
        int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return fd < 0 ? -errno : fd;
}

/* SIGHUP is a reload to the service. A second SIGINT is passed on like the first: it kills the workers.
 * Returns the signal, 0 when none is pending. */
static int pass_signal_on(int signals, pid_t service) {
        struct signalfd_siginfo info;

        if (read(signals, &info, sizeof(info)) != sizeof(info))
                return 0;
        (void) kill(service, info.ssi_signo == SIGHUP ? SIGTERM : (int) info.ssi_signo);
        return (int) info.ssi_signo;
}

/* Returns the signal that the command got meanwhile, 0 for none, or a negative errno. A service that got
 * ready although it was told to end is waited for as well. */
static int wait_for_service(pid_t service, int pidfd, int ready, int signals, bool *ret_ready) {
        enum { SIGNALS, READY, END, _N };
        struct pollfd fds[_N] = { { signals, POLLIN, 0 }, { ready, POLLIN, 0 }, { pidfd, POLLIN, 0 } };
        bool is_ready = false;
        int signo = 0, s;
        char byte;

        for (;;) {
                if (poll(fds, _N, -1) < 0) {
                        if (errno == EINTR)
                                continue;
                        return -errno;
                }
                if (fds[READY].revents) {
                        /* To its end, which comes with the byte: the service holds nothing of ours then. */
                        while (read(ready, &byte, 1) == 1)
                                is_ready = true;
                        fds[READY].fd = -1;
                }
                /* After it, so that a signal that came at the same time counts. */
                s = pass_signal_on(signals, service);
                signo = signo ? signo : s;
                if (is_ready && !signo) {
                        *ret_ready = true;
                        return 0;
                }
                if (fds[END].revents)
                        return signo;
        }
}

static int reap(pid_t service, int *ret_status) {
        while (waitpid(service, ret_status, 0) < 0)
                if (errno != EINTR)
                        return log_error_errno(-errno, "Failed to wait for the service: %m");
        return 0;
}

/* The service has ended without getting ready. With a status of its own it has said why. */
static int failed_with(int status) {
        if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
                return WEXITSTATUS(status);
        if (WIFSIGNALED(status)) {
                const char *name = sigabbrev_np(WTERMSIG(status));
                log_error("Before it was ready, the service was killed by signal %d%s%s.", WTERMSIG(status),
                                name ? ", SIG" : "", name ? name : "");
        } else
                log_error("Before it was ready, the service was stopped.");
        return EXIT_FAILURE;
}

/* As the signal would have ended us: a shell's loop stops on ^C only then. */
static int die_of(int signo) {
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, signo);
        (void) signal(signo, SIG_DFL);
        (void) raise(signo);
        (void) sigprocmask(SIG_UNBLOCK, &set, NULL);
        return EXIT_FAILURE;
}

static int run_command(pid_t service, int ready) {
        _cleanup_close_ int signals = open_signals(), pidfd = (int) syscall(SYS_pidfd_open, service, 0);
        bool is_ready = false;
        int status, r;

        r = signals < 0 ? signals : pidfd < 0 ? -errno : 0;
        if (r >= 0)
                r = wait_for_service(service, pidfd, ready, signals, &is_ready);
        if (r < 0) {
                log_error_errno(r, "Failed to wait for the service: %m");
                (void) kill(service, SIGTERM);
        }
        if (is_ready)
                return EXIT_SUCCESS;
        if (reap(service, &status) < 0)
                return EXIT_FAILURE;
        return r > 0 ? die_of(r) : failed_with(status);
}

int detach(char **path) {
        _cleanup_close_ int read_end = -EBADF, write_end = -EBADF;
        pid_t command = getpid(), pid;
        int fds[2], r;

        r = make_paths_absolute(path);
        if (r < 0) {
                log_error_errno(r, "Failed to make the path of the configuration absolute: %m");
                return EXIT_FAILURE;
        }
        close_strays();
        (void) signal(SIGCHLD, SIG_DFL); /* ignored, it would take the exit status away */
        if (pipe2(fds, O_CLOEXEC) < 0) {
                log_error_errno(-errno, "Failed to make a pipe: %m");
                return EXIT_FAILURE;
        }
        read_end = fds[0];
        write_end = fds[1];

        pid = fork();
        if (pid < 0) {
                log_error_errno(-errno, "Failed to fork: %m");
                return EXIT_FAILURE;
        }
        if (pid > 0) {
                write_end = safe_close(write_end);
                return run_command(pid, read_end);
        }
        r = become_service(command);
        if (r < 0)
                return EXIT_FAILURE;
        ready_fd = TAKE_FD(write_end);
        return DETACHED;
}

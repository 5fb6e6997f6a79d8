/* SPDX-License-Identifier: MIT */
/* Starting and watching child processes; the contract is in muster/process.h.
 *
 * The fork is clone(CLONE_VM | CLONE_VFORK): the child runs on the parent's memory while the parent's thread
 * waits, until it executes the program or gives up. So there is nothing to copy, an error can be left in a
 * variable of the parent, and the pidfd is there from the first moment (CLONE_PIDFD). The price is a rule:
 * between clone() and execve() the child makes system calls on memory prepared beforehand, nothing else;
 * whatever it writes, it writes to the parent. */

#include "muster/process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "lib/assert-return.h"

#define SPAWN_FDS_MAX    1024
#define SPAWN_STACK_SIZE (64 * 1024)

struct muster_child {
        unsigned n_ref;
        pid_t pid;
        int pidfd;
        sd_event_source *source; /* NULL: not watched (yet), or reaped */
        bool reaped;
        muster_child_exit_handler_t handler;
        void *userdata;
};

/* What the child needs to know, prepared by the parent; and where it leaves its error. */
typedef struct Launch {
        const char *program;
        char *const *argv;
        char *const *env;
        int *fds; /* a private copy: moving descriptors around changes it */
        size_t n_fds;
        uint64_t flags;
        pid_t parent;
        int error; /* out: negative errno */
} Launch;

/* Handlers would run on the parent's memory, so every signal was blocked before the clone; here they get
 * their default action first and the mask is opened last. An ignored signal is reset too: a program expects
 * SIGPIPE to be on. */
static int launch_reset_signals(void) {
        static const char kernel_sigaction[64]; /* all zero: the default action, by whatever layout */
        sigset_t none;

        /* The system call itself: sigaction() refuses the two signals that libc keeps for its threads, which
         * a parent may have been started with ignored like any other. */
        for (int sig = 1; sig < _NSIG; sig++)
                if (sig != SIGKILL && sig != SIGSTOP &&
                                syscall(SYS_rt_sigaction, sig, kernel_sigaction, NULL, _NSIG / 8) < 0)
                        return -errno;
        sigemptyset(&none);
        return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

/* Moves fds[i] to descriptor i. First everything that is in the way of another's place goes above all
 * places, then dup2() puts each into its own; that clears FD_CLOEXEC. Everything else is closed on exec. */
static int launch_place_fds(Launch *l) {
        for (size_t i = 0; i < l->n_fds; i++) {
                if (l->fds[i] < 0 || (size_t) l->fds[i] >= l->n_fds || (size_t) l->fds[i] == i)
                        continue;
                int fd = fcntl(l->fds[i], F_DUPFD_CLOEXEC, (int) l->n_fds);
                if (fd < 0)
                        return -errno;
                l->fds[i] = fd;
        }
        for (size_t i = 0; i < l->n_fds; i++) {
                if (l->fds[i] < 0)
                        (void) close((int) i);
                else if ((size_t) l->fds[i] == i) {
                        if (fcntl((int) i, F_SETFD, 0) < 0)
                                return -errno;
                } else if (dup2(l->fds[i], (int) i) < 0)
                        return -errno;
        }

        /* A descriptor that somebody opened without O_CLOEXEC must not leak either. ENOSYS, EINVAL, EPERM: a
         * kernel before 5.9, one before 5.11, or a filter; then O_CLOEXEC at birth has to be enough. */
        if (syscall(SYS_close_range, (unsigned) l->n_fds, ~0U, 1U << 2 /* CLOSE_RANGE_CLOEXEC */) < 0 &&
                        errno != ENOSYS && errno != EINVAL && errno != EPERM)
                return -errno;
        return 0;
}

static int launch_die_with_parent(const Launch *l) {
        if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
                return -errno;
        /* The parent may have died before that line. It waits in vfork, but SIGKILL does not. */
        return getppid() == l->parent ? 0 : -ESRCH;
}

static int launch_main(void *userdata) {
        Launch *l = userdata;

        l->error = launch_place_fds(l);
        if (l->error >= 0 && (l->flags & MUSTER_SPAWN_DIE_WITH_PARENT))
                l->error = launch_die_with_parent(l);
        if (l->error >= 0)
                l->error = launch_reset_signals();
        if (l->error >= 0) {
                (void) execve(l->program, l->argv, l->env);
                l->error = -errno;
        }
        _exit(127);
}

/* Returns the pid, or a negative errno. The pidfd is made by the kernel with O_CLOEXEC. */
static pid_t launch_clone(Launch *l, int *ret_pidfd) {
        sigset_t all, saved;
        pid_t pid;
        int r = 0;

        /* Its own stack, as the parent's frame must survive; freed when the child no longer uses it. */
        char *stack = mmap(NULL, SPAWN_STACK_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED)
                return -errno;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &saved);
        pid = clone(launch_main, stack + SPAWN_STACK_SIZE, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, l,
                        ret_pidfd);
        if (pid < 0)
                r = -errno;
        pthread_sigmask(SIG_SETMASK, &saved, NULL);

        munmap(stack, SPAWN_STACK_SIZE);
        return r < 0 ? r : pid;
}

static int launch_run(Launch *l, pid_t *ret_pid, int *ret_pidfd) {
        _cleanup_close_ int pidfd = -EBADF;
        pid_t pid;

        pid = launch_clone(l, &pidfd);
        if (pid < 0)
                return pid;
        if (l->error < 0) {
                while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                        ;
                return l->error;
        }
        *ret_pid = pid;
        *ret_pidfd = TAKE_FD(pidfd);
        return 0;
}

DEFINE_CLEANUP(muster_child, muster_child_unref)

/* Reaps and reports. A readable pidfd is an ended process, so waitid() does not wait. */
static int on_child_exit(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        /* The handler may drop the last reference. */
        _cleanup_(muster_child_unrefp) muster_child *child = muster_child_ref(userdata);
        siginfo_t si = { .si_pid = 0 };

        if (waitid(P_PIDFD, (id_t) child->pidfd, &si, WEXITED | WNOHANG) < 0) {
                if (errno == EINTR)
                        return 0;
                /* ECHILD: somebody else reaped it, against the rules. Its end is certain, its status is
                 * lost. */
                si = (siginfo_t){ .si_pid = child->pid, .si_code = CLD_EXITED };
        }
        if (si.si_pid == 0)
                return 0;

        child->source = sd_event_source_disable_unref(child->source);
        child->reaped = true;
        if (child->handler)
                (void) child->handler(child, si.si_code, si.si_status, child->userdata);
        return 0;
}

_public_ int muster_child_attach(muster_child *child, sd_event *event) {
        muster_assert_return(child, -EINVAL);
        muster_assert_return(event, -EINVAL);

        if (child->source)
                return -EBUSY;
        if (child->reaped)
                return -ESRCH;
        return sd_event_add_io(event, &child->source, child->pidfd, EPOLLIN, on_child_exit, child);
}

/* What the first version of the structure had; no caller can have less. */
#define OPTIONS_SIZE_MIN (offsetof(muster_spawn_options, flags) + sizeof(uint64_t))

/* Takes over what caller and library both know. A caller that is newer than the library may ask only for
 * what the library knows, as with openat2(2). */
static int copy_options(const muster_spawn_options *o, muster_spawn_options *ret) {
        muster_assert_return(o, -EINVAL);
        muster_assert_return(o->size >= OPTIONS_SIZE_MIN, -EINVAL);

        for (size_t i = sizeof(*ret); i < o->size; i++)
                if (((const char *) o)[i] != 0)
                        return -E2BIG;
        *ret = (muster_spawn_options) MUSTER_SPAWN_OPTIONS_INIT;
        memcpy(ret, o, MIN(o->size, sizeof(*ret)));

        muster_assert_return(ret->program, -EINVAL);
        muster_assert_return(!(ret->flags & ~MUSTER_SPAWN_DIE_WITH_PARENT), -EINVAL);
        muster_assert_return(ret->n_fds <= SPAWN_FDS_MAX, -EINVAL);
        muster_assert_return(ret->fds || ret->n_fds == 0, -EINVAL);
        return 0;
}

static int spawn(const muster_spawn_options *o, muster_child *child) {
        size_t n_fds = o->fds ? o->n_fds : STDERR_FILENO + 1;
        char *argv[] = { (char *) o->program, NULL };

        _cleanup_free_ int *copy = calloc(MAX(n_fds, 1U), sizeof(int));
        if (!copy)
                return -ENOMEM;
        for (size_t i = 0; i < n_fds; i++)
                if (o->fds)
                        copy[i] = o->fds[i];
                else /* a service may have been started without a standard stream */
                        copy[i] = fcntl((int) i, F_GETFD) < 0 ? -EBADF : (int) i;

        Launch l = {
                .program = o->program,
                .argv = o->argv ? o->argv : argv,
                .env = o->env ? o->env : environ,
                .fds = copy,
                .n_fds = n_fds,
                .flags = o->flags,
                .parent = getpid(),
        };
        return launch_run(&l, &child->pid, &child->pidfd);
}

_public_ int muster_spawn(sd_event *event, const muster_spawn_options *options,
                muster_child_exit_handler_t handler, void *userdata, muster_child **ret_child) {
        _cleanup_(muster_child_unrefp) muster_child *child = NULL;
        muster_spawn_options o;
        int r;

        muster_assert_return(ret_child, -EINVAL);
        r = copy_options(options, &o);
        if (r < 0)
                return r;

        child = calloc(1, sizeof(*child));
        if (!child)
                return -ENOMEM;
        *child = (muster_child){ .n_ref = 1, .pidfd = -EBADF, .handler = handler, .userdata = userdata };

        r = spawn(&o, child);
        if (r < 0)
                return r;
        if (event) {
                r = muster_child_attach(child, event);
                if (r < 0) {
                        /* Nobody would ever hear of it. */
                        (void) muster_child_kill(child, SIGKILL);
                        (void) waitid(P_PIDFD, (id_t) child->pidfd, &(siginfo_t){ 0 }, WEXITED);
                        return r;
                }
        }

        *ret_child = TAKE_PTR(child);
        return 0;
}

_public_ muster_child *muster_child_ref(muster_child *child) {
        if (child)
                child->n_ref++;
        return child;
}

_public_ muster_child *muster_child_unref(muster_child *child) {
        if (!child || --child->n_ref > 0)
                return NULL;

        sd_event_source_disable_unref(child->source);
        safe_close(child->pidfd);
        free(child);
        return NULL;
}

_public_ pid_t muster_child_get_pid(const muster_child *child) {
        muster_assert_return(child, -EINVAL);

        return child->pid;
}

_public_ int muster_child_kill(muster_child *child, int signal) {
        muster_assert_return(child, -EINVAL);

        return syscall(SYS_pidfd_send_signal, child->pidfd, signal, NULL, 0) < 0 ? -errno : 0;
}

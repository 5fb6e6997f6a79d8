/* SPDX-License-Identifier: MIT */
/* The fork and the exec; see launch.h.
 *
 * The fork is clone(CLONE_VM | CLONE_VFORK): the child runs on the parent's memory while the parent's thread
 * waits, until it executes the program or gives up. So there is nothing to copy, an error can be left in
 * memory of the parent, and the pidfd is there from the first moment (CLONE_PIDFD). The price is a rule:
 * between clone() and execve() the child makes system calls on memory prepared beforehand, nothing else;
 * whatever it writes, it writes to the parent.
 *
 * A child that becomes another user must not do that on its parent's memory: the kernel would take the
 * parent's right to be debugged and dumped along, and the other user could stop it in the middle. It gets a
 * copy of the memory, and shares only its own stack, with the place for the error on it.
 *
 * A child that is born in a cgroup takes clone3(), which libc has no function for. Without CLONE_VM that is
 * plain C, as the child returns from the system call on its copy of the stack; on shared memory it would
 * take assembly. The copy costs 60 us for a process of 1 MiB, 8 ms for one of 1 GiB. */

#include "lib/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"

#define STACK_SIZE (64 * 1024)

/* A candidate of the search in PATH is put together here, on the child's stack. */
#define CANDIDATE_MAX 4096

/* What lies at the low end of the child's stack; the stack grows down towards it and never gets there. */
typedef struct Shared {
        Launch *launch;
        pid_t parent;
        bool join_cgroup; /* it was not born in it */
        int error;        /* out: negative errno */
} Shared;

/* The marks that AddressSanitizer leaves around variables on the child's stack would stay behind in the
 * parent's memory, for the next child whose stack is mapped there. */
#define _no_stack_marks_ __attribute__((no_sanitize_address))

/* Handlers would run on the parent's memory, so every signal was blocked before the clone; here they get
 * their default action first and the mask is opened last. An ignored signal is reset too: a program expects
 * SIGPIPE to be on. */
static _no_stack_marks_ int reset_signals(void) {
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
static int place_fds(Launch *l) {
        for (size_t i = 0; i < l->n_fds; i++) {
                if (l->fds[i] < 0 || (size_t) l->fds[i] >= l->n_fds || (size_t) l->fds[i] == i)
                        continue;
                int fd = fcntl(l->fds[i], F_DUPFD_CLOEXEC, (int) l->n_fds);
                if (fd < 0)
                        return errno == EINVAL ? -EMFILE
                                               : -errno; /* there are more places than RLIMIT_NOFILE */
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

/* The system calls themselves: libc's functions would change all threads of the parent. */
static int change_user(const Launch *l) {
        if (!l->set_uid && !l->set_gid)
                return 0;
        /* EPERM: not root, as a rule. Then they may stay only if the user does: CAP_SETUID can be there
         * without CAP_SETGID. */
        if (syscall(SYS_setgroups, 0, NULL) < 0 &&
                        (errno != EPERM || (l->set_uid && l->uid != geteuid() && getgroups(0, NULL) != 0)))
                return -errno;
        if (l->set_gid && syscall(SYS_setgid, l->gid) < 0)
                return -errno;
        if (l->set_uid && syscall(SYS_setuid, l->uid) < 0)
                return -errno;
        return 0;
}

/* After change_user(), which would clear it (prctl(2)). */
static int die_with_parent(pid_t parent) {
        if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
                return -errno;
        /* The parent may have died before that line. It waits in vfork, but SIGKILL does not. */
        return getppid() == parent ? 0 : -ESRCH;
}

/* As execvp(3) searches, but for a script without an interpreter line, which is no program here. */
static _no_stack_marks_ int search_and_execute(const Launch *l) {
        char candidate[CANDIDATE_MAX];
        size_t name = strlen(l->program);
        int error = -ENOENT;

        for (const char *p = l->path; p;) {
                size_t n = strcspn(p, ":");

                if (n + name + 2 <= sizeof(candidate)) {
                        memcpy(candidate, p, n);
                        if (n > 0)
                                candidate[n++] = '/'; /* an empty one is the working directory */
                        memcpy(candidate + n, l->program, name + 1);
                        (void) execve(candidate, l->argv, l->env);
                        if (errno == EACCES)
                                error = -EACCES; /* unless another one can be executed */
                        else if (errno != ENOENT && errno != ENOTDIR)
                                return -errno;
                }
                p = strchr(p, ':');
                if (p)
                        p++;
        }
        return error;
}

static int execute(const Launch *l) {
        if (!strchr(l->program, '/'))
                return search_and_execute(l);
        (void) execve(l->program, l->argv, l->env);
        return -errno;
}

static int join_cgroup(int cgroup_fd) {
        int fd = openat(cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOTDIR ? -EBADF : -errno; /* clone3() calls that so */

        int r = write(fd, "0", 1) < 0 ? -errno : 0; /* 0: the one who writes */
        (void) close(fd);
        return r;
}

static int prepare(Launch *l, pid_t parent, bool join) {
        int r;

        /* With the rights of the parent, and before another file takes the number of the descriptor. */
        if (join) {
                r = join_cgroup(l->cgroup_fd);
                if (r < 0)
                        return r;
        }
        if (l->new_session && setsid() < 0)
                return -errno;
        if (l->new_process_group && setpgid(0, 0) < 0)
                return -errno;
        r = place_fds(l);
        if (r < 0)
                return r;
        if (l->cwd && chdir(l->cwd) < 0)
                return -errno;
        r = change_user(l);
        if (r < 0)
                return r;
        if (l->die_with_parent) {
                r = die_with_parent(parent);
                if (r < 0)
                        return r;
        }
        return reset_signals();
}

static int child_main(void *userdata) {
        Shared *s = userdata;

        s->error = prepare(s->launch, s->parent, s->join_cgroup);
        if (s->error >= 0)
                s->error = execute(s->launch);
        _exit(127);
}

static pid_t clone_into_cgroup(Shared *s, int *ret_pidfd) {
        struct clone_args args = {
                .flags = CLONE_VFORK | CLONE_PIDFD | CLONE_INTO_CGROUP,
                .pidfd = (uintptr_t) ret_pidfd,
                .exit_signal = SIGCHLD,
                .cgroup = (uint64_t) s->launch->cgroup_fd,
        };

        pid_t pid = (pid_t) syscall(SYS_clone3, &args, sizeof(args));
        if (pid == 0)
                child_main(s); /* does not return */
        return pid;
}

/* The kernel is older than 5.7; or there is a filter, as of RestrictNamespaces= and of containers, which
 * cannot look into the structure and therefore refuses all of it. */
static bool clone3_is_missing(void) {
        return errno == ENOSYS || errno == E2BIG || errno == EPERM;
}

static pid_t clone_somehow(Shared *s, char *stack_end, bool share_memory, int *ret_pidfd) {
        int flags = CLONE_VFORK | CLONE_PIDFD | SIGCHLD | (share_memory ? CLONE_VM : 0);
        pid_t pid;

        if (s->launch->set_cgroup) {
                pid = clone_into_cgroup(s, ret_pidfd);
                if (pid >= 0 || !clone3_is_missing())
                        return pid;
                /* Nobody can see the difference, as the parent waits until the program runs. But a move
                 * takes longer than a birth: 10 ms with Linux 6.1. */
                s->join_cgroup = true;
        }
        return clone(child_main, stack_end, flags, s, ret_pidfd);
}

/* Returns the pid, or a negative errno. The pidfd is made by the kernel with O_CLOEXEC. */
static pid_t clone_child(Shared *s, char *stack_end, bool share_memory, int *ret_pidfd) {
        sigset_t all, saved;
        int cancel;
        pid_t pid;

        /* close(2) in the child would act on a cancellation of this thread, on this thread's memory. */
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &saved);
        pid = clone_somehow(s, stack_end, share_memory, ret_pidfd);
        if (pid < 0) {
                pid = -errno;
                /* The kernel writes the number early, and frees it again when the clone fails after that. */
                *ret_pidfd = -EBADF;
        }
        pthread_sigmask(SIG_SETMASK, &saved, NULL);
        pthread_setcancelstate(cancel, NULL);
        return pid;
}

int launch(Launch *l, pid_t *ret_pid, int *ret_pidfd) {
        bool share_memory = !l->set_uid && !l->set_gid;
        bool share_stack = !share_memory || l->set_cgroup;
        _cleanup_close_ int pidfd = -EBADF;
        pid_t pid;

        /* Its own stack, as the parent's frame must survive; unmapped when the child no longer uses it. */
        char *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
                        (share_stack ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE,
                        -1, 0);
        if (stack == MAP_FAILED)
                return -errno;
        Shared *s = (Shared *) (void *) stack;
        *s = (Shared){ .launch = l, .parent = getpid() };

        pid = clone_child(s, stack + STACK_SIZE, share_memory, &pidfd);
        int error = pid < 0 ? pid : s->error;
        munmap(stack, STACK_SIZE);
        if (error < 0) {
                while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                        ;
                return error;
        }
        *ret_pid = pid;
        *ret_pidfd = TAKE_FD(pidfd);
        return 0;
}

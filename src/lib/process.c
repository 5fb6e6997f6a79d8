/* SPDX-License-Identifier: MIT */
/* Child processes; the contract is in muster/process.h.
 *
 * The making of a child: child-stdio.c opens what it is to have, spawn.c puts together what it starts with,
 * launch.c forks and executes, and here is the object that lives on: it watches the pidfd, keeps the time
 * limit, owns the parent's ends, and tells of the exit and of the close.
 *
 * The leader of a process group is not reaped before the close: as long as it is there, if only as a zombie,
 * the group's number is not given to another, and what it left behind can be killed by it. */

#include "muster/process.h"

#include <errno.h>
#include <limits.h>
#include <linux/time_types.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/assert-return.h"
#include "lib/channel-internal.h"
#include "lib/child-stdio.h"
#include "lib/child.h"
#include "lib/spawn.h"
#include "lib/stream-internal.h"

/* From the kill signal to SIGKILL. */
#define KILL_GRACE_USEC (5 * USEC_PER_SEC)

#define DEBUGGER_RETRY_USEC (100 * USEC_PER_MSEC)

struct muster_child {
        unsigned n_ref;
        pid_t pid;
        int pidfd;
        bool leads_group;
        bool exited; /* it has ended, and that was told */
        bool reaped; /* ... and its pid may be another's */
        bool closed; /* that was told as well */
        bool has_usage;
        struct rusage usage;
        int timed_out;
        int kill_signal;
        uint64_t timeout_usec; /* 0: none */

        sd_event *event;        /* counted; NULL: not watched yet */
        sd_event_source *exit;  /* NULL: not watched, or exited */
        sd_event_source *retry; /* of the exit that a debugger has before us */
        sd_event_source *timer; /* the time limit, then SIGKILL */
        sd_event_source *close; /* to tell of the close from the loop */

        muster_child_exit_handler_t on_exit;
        muster_child_close_handler_t on_close;
        void (*on_timeout)(void *userdata);
        void *userdata;

        muster_stream **streams; /* by descriptor; counted */
        size_t n_streams;
        muster_channel *channel; /* counted */
};

DEFINE_CLEANUP(muster_child, muster_child_unref)

static int child_signal(const muster_child *child, int signal) {
        return syscall(SYS_pidfd_send_signal, child->pidfd, signal, NULL, 0) < 0 ? -errno : 0;
}

static void child_reap(muster_child *child) {
        if (child->reaped)
                return;
        while (waitid(P_PIDFD, (id_t) child->pidfd, &(siginfo_t){ 0 }, WEXITED | WNOHANG) < 0 &&
                        errno == EINTR)
                ;
        child->reaped = true;
}

static bool all_ends_closed(const muster_child *child) {
        for (size_t i = 0; i < child->n_streams; i++)
                if (child->streams[i] && !stream_is_closed(child->streams[i]))
                        return false;
        return !child->channel || channel_is_ended(child->channel);
}

static int on_close(sd_event_source *source, void *userdata) {
        _cleanup_(muster_child_unrefp) muster_child *child = muster_child_ref(userdata);

        /* The kill signal was sent, and whoever is left in the group has not heeded it. */
        if (child->leads_group && child->timer && child->timeout_usec == 0)
                (void) muster_child_kill_group(child, SIGKILL);
        child->close = sd_event_source_disable_unref(child->close);
        child->timer = sd_event_source_disable_unref(child->timer);
        child->closed = true;
        if (child->on_close)
                child->on_close(child, child->userdata);
        child_reap(child);
        return 0;
}

/* Whatever ended last, the close is told in a turn of the loop of its own. */
static void check_close(muster_child *child) {
        if (!child->exited || child->closed || child->close || !all_ends_closed(child))
                return;
        /* Without memory for it nobody hears of the close, but the child is gone all the same. */
        if (sd_event_add_defer(child->event, &child->close, on_close, child) < 0)
                child_reap(child);
}

static void on_stream_closed(muster_stream *stream, void *userdata) {
        check_close(userdata);
}

static void on_channel_ended(void *userdata) {
        check_close(userdata);
}

/* It has exited: what only it could read or write is over, what nobody wants to hear is not waited for. */
static void let_go_of_ends(muster_child *child) {
        /* A handler may drop the child: then no other one is called. */
        for (size_t i = 0; i < child->n_streams && child->n_ref > 1; i++)
                if (child->streams[i])
                        stream_peer_exited(child->streams[i]);
        if (child->channel && child->n_ref > 1)
                channel_peer_exited(child->channel);
}

static int on_retry_exit(sd_event_source *source, uint64_t usec, void *userdata) {
        muster_child *child = userdata;

        child->retry = sd_event_source_disable_unref(child->retry);
        return child->exit ? sd_event_source_set_enabled(child->exit, SD_EVENT_ON) : 0;
}

/* The pidfd is readable and goes on to be so, but a debugger gets the status before us (ptrace(2)). Without
 * the timer the loop would turn until it has. */
static int wait_for_debugger(muster_child *child) {
        int r;

        r = sd_event_add_time_relative(child->event, &child->retry, CLOCK_MONOTONIC, DEBUGGER_RETRY_USEC,
                        /* accuracy= */ 0, on_retry_exit, child);
        return r < 0 ? 0 : sd_event_source_set_enabled(child->exit, SD_EVENT_OFF);
}

/* What the system call fills in: getrusage(2)'s members, with these times whatever time_t is. */
typedef struct KernelUsage {
        struct __kernel_old_timeval utime, stime;
        __kernel_long_t maxrss, ixrss, idrss, isrss, minflt, majflt, nswap, inblock, oublock;
        __kernel_long_t msgsnd, msgrcv, nsignals, nvcsw, nivcsw;
} KernelUsage;

static struct rusage usage_from_kernel(const KernelUsage *k) {
        return (struct rusage){
                .ru_utime = { .tv_sec = k->utime.tv_sec, .tv_usec = k->utime.tv_usec },
                .ru_stime = { .tv_sec = k->stime.tv_sec, .tv_usec = k->stime.tv_usec },
                .ru_maxrss = k->maxrss,
                .ru_minflt = k->minflt,
                .ru_majflt = k->majflt,
                .ru_inblock = k->inblock,
                .ru_oublock = k->oublock,
                .ru_nvcsw = k->nvcsw,
                .ru_nivcsw = k->nivcsw,
        };
}

/* The system call itself: libc's waitid() has no argument for what the child used. An si_pid of 0: nobody to
 * be had. */
static int child_wait(muster_child *child, int flags, siginfo_t *ret) {
        KernelUsage usage;

        *ret = (siginfo_t){ .si_pid = 0 };
        if (syscall(SYS_waitid, P_PIDFD, child->pidfd, ret, flags, &usage) < 0)
                return -errno;
        child->has_usage = ret->si_pid != 0;
        if (child->has_usage)
                child->usage = usage_from_kernel(&usage);
        return 0;
}

/* A readable pidfd is an ended process, so waitid() does not wait. */
static int on_child_exit(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        /* The handler may drop the last reference. */
        _cleanup_(muster_child_unrefp) muster_child *child = muster_child_ref(userdata);
        bool reap = !child->leads_group; /* the leader of a group stays */
        siginfo_t si;
        int r;

        r = child_wait(child, WEXITED | WNOHANG | (reap ? 0 : WNOWAIT), &si);
        if (r == -EINTR)
                return 0;
        if (r < 0) {
                /* ECHILD: somebody else reaped it, against the rules. Its end is certain, its status is
                 * lost, and must not read as success. */
                si = (siginfo_t){ .si_pid = child->pid, .si_code = CLD_EXITED };
                si.si_status = EXIT_FAILURE; /* not above: another member of the union than si_pid's */
                child->reaped = true;
        }
        if (si.si_pid == 0)
                return wait_for_debugger(child);

        child->exit = sd_event_source_disable_unref(child->exit);
        child->exited = true;
        if (reap) {
                child->timer = sd_event_source_disable_unref(child->timer);
                child->reaped = true;
        }
        if (child->on_exit)
                child->on_exit(child, si.si_code, si.si_status, child->userdata);
        if (child->n_ref > 1) {
                let_go_of_ends(child);
                check_close(child);
        }
        return 0;
}

static int child_set_timer(muster_child *child, uint64_t usec);

void child_terminate(muster_child *child) {
        (void) (child->leads_group ? muster_child_kill_group(child, child->kill_signal)
                                   : muster_child_kill(child, child->kill_signal));
        child->timeout_usec = 0;
        child->timer = sd_event_source_disable_unref(child->timer);
        (void) child_set_timer(child, KILL_GRACE_USEC); /* out of memory: it had its signal */
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        muster_child *child = userdata;

        if (child->timeout_usec > 0) {
                child->timed_out = 1;
                child_terminate(child);
                if (child->on_timeout)
                        child->on_timeout(child->userdata);
                return 0;
        }
        child->timer = sd_event_source_disable_unref(child->timer);
        (void) (child->leads_group ? muster_child_kill_group(child, SIGKILL)
                                   : muster_child_kill(child, SIGKILL));
        return 0;
}

static int child_set_timer(muster_child *child, uint64_t usec) {
        return sd_event_add_time_relative(child->event, &child->timer, CLOCK_MONOTONIC, usec,
                        clock_accuracy_usec(usec), on_timer, child);
}

static int attach_ends(muster_child *child, sd_event *event) {
        int r;

        for (size_t i = 0; i < child->n_streams; i++)
                if (child->streams[i]) {
                        r = stream_attach(child->streams[i], event);
                        if (r < 0)
                                return r;
                }
        return child->channel ? muster_channel_attach(child->channel, event) : 0;
}

_public_ int muster_child_attach(muster_child *child, sd_event *event) {
        int r;

        muster_assert_return(child, -EINVAL);
        muster_assert_return(event, -EINVAL);

        if (child->exited)
                return -ESRCH;
        if (child->event)
                return -EBUSY;
        r = sd_event_add_io(event, &child->exit, child->pidfd, EPOLLIN, on_child_exit, child);
        if (r < 0)
                return r;
        child->event = sd_event_ref(event);
        r = attach_ends(child, event);
        if (r >= 0 && child->timeout_usec > 0)
                r = child_set_timer(child, child->timeout_usec);
        if (r < 0)
                child->exit = sd_event_source_disable_unref(child->exit);
        return r;
}

/* The parent's ends of what stdio_open() made become objects. */
static int child_take_ends(muster_child *child, Stdio *stdio, const muster_channel_options *channel) {
        int r;

        child->streams = calloc(stdio->n, sizeof(*child->streams));
        if (!child->streams)
                return -ENOMEM;
        child->n_streams = stdio->n;
        for (size_t i = 0; i < stdio->n; i++) {
                StdioPlace *p = stdio->places + i;

                if (p->parent < 0)
                        continue;
                if (i == stdio->ipc) {
                        r = muster_channel_new(NULL, p->parent, channel, &child->channel);
                        if (r >= 0)
                                channel_set_owner(child->channel, on_channel_ended, child);
                } else
                        r = stream_new(p->parent, p->direction, on_stream_closed, child, child->streams + i);
                if (r < 0)
                        return r;
                p->parent = -EBADF;
        }
        return 0;
}

void child_set_timeout_handler(muster_child *child, void (*handler)(void *userdata)) {
        child->on_timeout = handler;
}

void child_give_up(muster_child *child) {
        child->exit = sd_event_source_disable_unref(child->exit);
        if (child->leads_group) /* a shell may have started something already */
                (void) muster_child_kill_group(child, SIGKILL);
        (void) child_signal(child, SIGKILL);
        while (!child->reaped && waitid(P_PIDFD, (id_t) child->pidfd, &(siginfo_t){ 0 }, WEXITED) < 0 &&
                        errno == EINTR)
                ;
        child->exited = child->reaped = true;
}

int child_spawn(sd_event *event, const muster_spawn_options *o, bool with_channel,
                muster_child_exit_handler_t handler, void *userdata, muster_child **ret) {
        _cleanup_(muster_child_unrefp) muster_child *child = NULL;
        _cleanup_(stdio_done) Stdio stdio = STDIO_INIT;
        int r;

        child = calloc(1, sizeof(*child));
        if (!child)
                return -ENOMEM;
        *child = (muster_child){
                .n_ref = 1,
                .pidfd = -EBADF,
                .leads_group = o->flags & (MUSTER_SPAWN_PROCESS_GROUP | MUSTER_SPAWN_DETACHED),
                .kill_signal = o->kill_signal ? o->kill_signal : SIGTERM,
                .timeout_usec = o->timeout_usec,
                .on_exit = handler,
                .userdata = userdata,
        };
        r = stdio_open(&stdio, o, with_channel);
        if (r >= 0)
                r = child_take_ends(child, &stdio, o->channel);
        if (r >= 0)
                r = spawn_program(o, &stdio, &child->pid, &child->pidfd);
        if (r < 0)
                return r;
        if (event) {
                r = muster_child_attach(child, event);
                if (r < 0) {
                        child_give_up(child);
                        return r;
                }
        }
        *ret = TAKE_PTR(child);
        return 0;
}

_public_ int muster_spawn(sd_event *event, const muster_spawn_options *options,
                muster_child_exit_handler_t handler, void *userdata, muster_child **ret_child) {
        muster_spawn_options o;
        int r;

        muster_assert_return(ret_child, -EINVAL);
        r = spawn_copy_options(options, &o);
        if (r < 0)
                return r;
        muster_assert_return(o.program, -EINVAL);
        return child_spawn(event, &o, /* with_channel= */ false, handler, userdata, ret_child);
}

_public_ int muster_fork(sd_event *event, const muster_spawn_options *options,
                muster_child_exit_handler_t handler, void *userdata, muster_child **ret_child) {
        char self[PATH_MAX];
        muster_spawn_options o;
        int r;

        muster_assert_return(ret_child, -EINVAL);
        r = spawn_copy_options(options, &o);
        if (r < 0)
                return r;
        if (!o.program) {
                /* The path itself, or the child would be called "exe" by ps and the journal. */
                ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
                if (n < 0)
                        return -errno;
                self[n] = '\0';
                o.program = self;
        }
        return child_spawn(event, &o, /* with_channel= */ true, handler, userdata, ret_child);
}

_public_ int muster_child_set_close_handler(muster_child *child, muster_child_close_handler_t handler) {
        muster_assert_return(child, -EINVAL);

        child->on_close = handler;
        return 0;
}

_public_ muster_channel *muster_child_get_channel(const muster_child *child) {
        return child ? child->channel : NULL;
}

_public_ muster_stream *muster_child_get_stream(const muster_child *child, unsigned fd) {
        return child && fd < child->n_streams ? child->streams[fd] : NULL;
}

_public_ pid_t muster_child_get_pid(const muster_child *child) {
        muster_assert_return(child, -EINVAL);

        return child->pid;
}

_public_ int muster_child_is_timed_out(const muster_child *child) {
        return child ? child->timed_out : 0;
}

_public_ int muster_child_get_usage(const muster_child *child, struct rusage *ret) {
        muster_assert_return(child && ret, -EINVAL);

        if (!child->has_usage)
                return -ENODATA;
        *ret = child->usage;
        return 0;
}

_public_ int muster_child_kill(muster_child *child, int signal) {
        muster_assert_return(child, -EINVAL);

        return child->exited ? -ESRCH : child_signal(child, signal);
}

_public_ int muster_child_kill_group(muster_child *child, int signal) {
        muster_assert_return(child, -EINVAL);
        muster_assert_return(child->leads_group, -EINVAL);

        if (child->reaped)
                return -ESRCH;
        return kill(-child->pid, signal) < 0 ? -errno : 0;
}

_public_ muster_child *muster_child_ref(muster_child *child) {
        if (child)
                child->n_ref++;
        return child;
}

_public_ muster_child *muster_child_unref(muster_child *child) {
        if (!child || --child->n_ref > 0)
                return NULL;

        for (size_t i = 0; i < child->n_streams; i++)
                if (child->streams[i]) {
                        stream_orphan(child->streams[i]);
                        muster_stream_unref(child->streams[i]);
                }
        free(child->streams);
        if (child->channel) {
                channel_set_owner(child->channel, NULL, NULL);
                muster_channel_unref(child->channel);
        }
        if (child->exited)
                child_reap(child);
        sd_event_source_disable_unref(child->exit);
        sd_event_source_disable_unref(child->retry);
        sd_event_source_disable_unref(child->timer);
        sd_event_source_disable_unref(child->close);
        sd_event_unref(child->event);
        safe_close(child->pidfd);
        free(child);
        return NULL;
}

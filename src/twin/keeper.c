/* SPDX-License-Identifier: MIT */
/* Cloning and watching; see keeper.h.
 *
 * All of them share one table of descriptors (CLONE_FILES): nothing that is closed in one stays open in
 * another, and nothing that one leaves behind is closed by its end. The memory is each one's own, but for
 * what is mapped shared.
 *
 * One process serves, and one waits for its end. That one then raises the term (Area.serving), which makes
 * it the one that serves, closes what the dead one has left open, and goes on with the connections; when it
 * has come so far, it rings, and the keeper makes the next one that waits. So the keeper opens and closes
 * descriptors only while nobody waits and nobody takes over, as what it does then is not seen halfway.
 *
 * clone(2) is called as fork(3) would: the C library keeps the thread's number, and the kernel the list of
 * its robust mutexes, at places that the child must be told of anew. It is not clone3(2), which filters of
 * system calls deny, as they cannot look at its flags. */

#include "twin/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/parse.h"

/* In a second: more deaths delay the next one that waits, and many more the next one that serves. */
#define DEATHS_FREE  5
#define DEATHS_QUICK 100
#define DELAY_MIN    (100 * USEC_PER_MSEC)
#define DELAY_MAX    (5 * USEC_PER_SEC)

/* Of those that die in a row before they have begun to serve: the app is broken, and the slot is started
 * anew by the rules of the master. */
#define FAILURES_MAX 5

#define ABORT_TIMEOUT (5 * USEC_PER_SEC) /* from SIGABRT to SIGKILL: time to write a core dump */

/* For the processes of a dead worker to be gone, when they are killed. */
#define BURIAL_TIMEOUT (500 * USEC_PER_MSEC)
#define BURIAL_EVERY   (10 * USEC_PER_MSEC)

#define OOM_SCORE_KEEPER "-1000"

/* What the keeper knows of a slot, besides what all know. */
typedef struct KeeperSlot {
        bool dead;   /* and reaped; the slot is free when nobody waits for that end any more */
        bool serves; /* or has served, or was about to */
        unsigned cgroup;
} KeeperSlot;

typedef struct Keeper {
        Area *area;
        const Board *board;
        BoardCell *cell;
        pid_t master, pid;
        KeeperSlot slots[AREA_SLOTS];

        /* Open before anybody is cloned, for ever. */
        int signal_fd;
        int children_fd;    /* the list of this process's children */
        int oom_fd;         /* its OOM score; -EBADF: stays as it is */
        int cgroup_fds[2];  /* -EBADF: there are none */
        char oom_score[16]; /* of the children */

        sigset_t mask; /* of the children … */
        struct rlimit limit;
        void *tid_address;
        void *robust;
        size_t robust_size;

        int status; /* of the last one that served */
        uint32_t served;
        unsigned failures;
        pid_t worker, twin; /* as told */

        uint64_t deaths_since, died_at;
        unsigned n_deaths;
        uint64_t delay;
        uint64_t retry_at; /* when there was no memory for a process; 0: there was */

        unsigned abort_slot;
        uint64_t abort_until; /* USEC_INFINITY: nobody is being aborted */
} Keeper;

/*
 * In the children
 */

/* The death of the keeper before this was not heard of. A module's own handling of the end of its children
 * must not depend on ours. */
static void child_begin(const Keeper *k) {
        const struct sigaction action = { .sa_handler = SIG_DFL };

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != k->pid)
                _exit(EXIT_FAILURE);
        (void) syscall(SYS_set_robust_list, k->robust, k->robust_size);
        (void) sigaction(SIGCHLD, &action, NULL);
        (void) sigprocmask(SIG_SETMASK, &k->mask, NULL);
        (void) setrlimit(RLIMIT_NOFILE, &k->limit);
}

/* A descriptor that the app has closed by mistake says nothing about anybody's end. */
static void wait_for_end(const Area *a, int pidfd) {
        struct pollfd p[] = { { .fd = pidfd, .events = POLLIN }, { .fd = a->retire_fd, .events = POLLIN } };

        while (poll(p, ELEMENTSOF(p), -1) < 0)
                ; /* EINTR, or a lack of memory that passes */
        if (syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) < 0 && errno == EBADF)
                _exit(EXIT_FAILURE);
}

/* Waits as long as the process that serves. */
static void child_wait_for_turn(const Keeper *k, unsigned slot) {
        Area *a = k->area;
        uint32_t serving = atomic_load(&a->serving);

        if (!k->slots[area_slot(serving)].dead)
                wait_for_end(a, atomic_load(&a->slots[area_slot(serving)].pidfd));
        if (atomic_load(&a->retiring))
                _exit(EXIT_SUCCESS);
        /* Nobody else waits; should it be otherwise, one of them wins. */
        if (!atomic_compare_exchange_strong(&a->serving, &serving, area_successor(serving, slot)))
                _exit(EXIT_FAILURE);
        board_cell_set_twin(k->cell, 0);
        board_cell_set_worker(k->cell, getpid());
}

/*
 * Cloning
 */

static void keeper_set_oom_score(const Keeper *k, const char *score) {
        if (k->oom_fd >= 0)
                (void) !pwrite(k->oom_fd, score, strlen(score), 0);
}

static pid_t call_clone(void *pidfd, void *tid) {
        const unsigned long flags =
                        CLONE_FILES | CLONE_PIDFD | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;

#if defined(__x86_64__) || defined(__loongarch__)
        return (pid_t) syscall(SYS_clone, flags, NULL, pidfd, tid, NULL);
#elif defined(__s390x__)
        return (pid_t) syscall(SYS_clone, NULL, flags, pidfd, tid, NULL);
#else
        return (pid_t) syscall(SYS_clone, flags, NULL, pidfd, NULL, tid);
#endif
}

static void keeper_move(const Keeper *k, unsigned cgroup, pid_t pid) {
        char text[16];
        int n;

        if (k->cgroup_fds[cgroup] < 0)
                return;
        n = snprintf(text, sizeof(text), "%d", pid);
        (void) !write(k->cgroup_fds[cgroup], text, (size_t) n);
}

/* Returns the pid, 0 in the child. The kernel stores the number of the pidfd before it is open: whoever
 * meets it finds it in its slot. */
static pid_t keeper_clone(Keeper *k, unsigned slot, unsigned cgroup) {
        AreaSlot *s = k->area->slots + slot;
        int error;
        pid_t pid;

        keeper_set_oom_score(k, k->oom_score);
        pid = call_clone(&s->pidfd, k->tid_address);
        if (pid == 0) {
                child_begin(k);
                return 0;
        }
        error = errno;
        keeper_set_oom_score(k, OOM_SCORE_KEEPER);
        if (pid < 0) {
                atomic_store(&s->pidfd, -1);
                return -error;
        }
        k->slots[slot] = (KeeperSlot){ .cgroup = cgroup };
        atomic_store(&s->pid, pid);
        keeper_move(k, cgroup, pid);
        return pid;
}

/*
 * Who is there
 */

static unsigned keeper_serving(const Keeper *k) {
        return area_slot(atomic_load(&k->area->serving));
}

/* The slot of one that lives and does not serve; -ESRCH: nobody waits. */
static int keeper_waiting(const Keeper *k) {
        unsigned serving = keeper_serving(k);

        for (unsigned i = 0; i < AREA_SLOTS; i++)
                if (i != serving && !k->slots[i].dead && atomic_load(&k->area->slots[i].pid) > 0)
                        return (int) i;
        return -ESRCH;
}

/* Nobody looks at which descriptors are open, and nobody is about to. */
static bool keeper_is_undisturbed(const Keeper *k) {
        uint32_t serving = atomic_load(&k->area->serving);

        return keeper_waiting(k) < 0 &&
               (k->slots[area_slot(serving)].dead || atomic_load(&k->area->settled) == serving);
}

static bool keeper_is_over(const Keeper *k) {
        if (!k->slots[keeper_serving(k)].dead)
                return false;
        return atomic_load(&k->area->retiring) || atomic_load(&k->area->served) == 0;
}

/* A child that is not reaped yet: the number is its own. */
static void keeper_signal(const Keeper *k, unsigned slot, int signo) {
        if (!k->slots[slot].dead)
                (void) kill(atomic_load(&k->area->slots[slot].pid), signo);
}

/* Who wins tells it itself, and may do so at any time while somebody waits. */
static void keeper_tell_processes(Keeper *k) {
        unsigned serving = keeper_serving(k);
        int waiting = keeper_waiting(k);
        pid_t worker = k->slots[serving].dead ? 0 : atomic_load(&k->area->slots[serving].pid);
        pid_t twin = waiting < 0 ? 0 : atomic_load(&k->area->slots[waiting].pid);

        if (worker == k->worker && twin == k->twin)
                return;
        k->worker = worker;
        k->twin = twin;
        if (worker > 0 || twin == 0)
                board_cell_set_worker(k->cell, worker);
        board_cell_set_twin(k->cell, twin);
        /* Before somebody has served, that one tells it; when this one is to go, nothing is to be done about
         * it. */
        if (atomic_load(&k->area->served) > 0 && !atomic_load(&k->area->retiring))
                board_ring(k->board);
}

/*
 * The master's orders
 */

/* In this order: who wins now reads that it is to retire, or is the one that is signalled. */
static void keeper_retire(Keeper *k, bool orphaned) {
        area_retire(k->area, orphaned);
        keeper_signal(k, keeper_serving(k), SIGTERM);
}

/* When nobody serves, who should take over hangs. One that is stopped gets the signal no earlier than it
 * goes on. */
static void keeper_abort(Keeper *k) {
        unsigned serving = keeper_serving(k);
        int waiting = keeper_waiting(k);

        if (k->slots[serving].dead) {
                if (waiting >= 0)
                        keeper_signal(k, (unsigned) waiting, SIGKILL);
                return;
        }
        /* Whatever it hangs in is as good as one that crashes, also when it does not die of this signal. */
        atomic_store(&k->area->crash, SIGABRT);
        keeper_signal(k, serving, SIGABRT);
        keeper_signal(k, serving, SIGCONT);
        k->abort_slot = serving;
        k->abort_until = clock_now_usec() + ABORT_TIMEOUT;
}

/*
 * Deaths
 */

static void keeper_count_death(Keeper *k, uint64_t now) {
        if (now - k->deaths_since >= USEC_PER_SEC) {
                if (k->n_deaths <= DEATHS_FREE || now - k->died_at > DELAY_MAX)
                        k->delay = 0; /* it was quiet */
                k->deaths_since = now;
                k->n_deaths = 0;
        }
        if (++k->n_deaths > DEATHS_FREE)
                k->delay = MIN(MAX(k->delay * 2, DELAY_MIN), DELAY_MAX);
        k->died_at = now;
}

/* One that died before it had begun to serve counts against the app; one that did makes up for all of them.
 */
static void keeper_count_failure(Keeper *k) {
        uint32_t served = atomic_load(&k->area->served);

        k->failures = served == k->served ? k->failures + 1 : 0;
        k->served = served;
        if (k->failures >= FAILURES_MAX)
                area_retire(k->area, /* orphaned= */ false);
}

static bool is_of_slot(const Area *a, pid_t pid) {
        for (int i = 0; i < AREA_SLOTS; i++)
                if (atomic_load(&a->slots[i].pid) == pid)
                        return true;
        return false;
}

/* The keeper's other children are those that a dead worker has left behind: it is their reaper. Returns
 * whether there are any. */
static bool keeper_kill_leftovers(const Keeper *k) {
        char text[4096];
        ssize_t n = pread(k->children_fd, text, sizeof(text) - 1, 0);
        bool found = false;

        text[MAX(n, (ssize_t) 0)] = '\0';
        for (char *p = text, *end; *p; p = end) {
                pid_t pid = (pid_t) strtol(p, &end, 10);
                if (end == p || *end != ' ') /* the end, or the list is cut here */
                        break;
                if (is_of_slot(k->area, pid))
                        continue;
                (void) kill(pid, SIGKILL); /* not reaped yet: the number is its own */
                (void) waitpid(pid, NULL, WNOHANG);
                found = true;
        }
        return found;
}

/* When it was killed, the list gets its children. Those that do not die, as they wait for a disk, do so
 * later. */
static void keeper_bury_leftovers(const Keeper *k) {
        const struct timespec every = { .tv_nsec = BURIAL_EVERY * NSEC_PER_USEC };
        uint64_t until = clock_now_usec() + BURIAL_TIMEOUT;
        sigset_t mask;

        sigemptyset(&mask);
        sigaddset(&mask, SIGCHLD);
        while (keeper_kill_leftovers(k) && clock_now_usec() < until)
                (void) sigtimedwait(&mask, NULL, &every);
}

static void keeper_served_died(Keeper *k, pid_t pid, int status) {
        int waiting = keeper_waiting(k);

        k->status = status;
        keeper_count_failure(k);
        if (waiting >= 0)
                keeper_signal(k, (unsigned) waiting, SIGCONT); /* it may have been stopped */
        if (atomic_load(&k->area->served) > 0 && !atomic_load(&k->area->retiring)) {
                board_cell_add_death(k->cell, pid, status); /* else the keeper's own end tells it */
                board_ring(k->board);
                keeper_bury_leftovers(k);
        }
        area_tell_burial(k->area);
}

static void keeper_died(Keeper *k, unsigned slot, pid_t pid, int status) {
        /* Who wins after this look is not dead. */
        bool served = k->slots[slot].serves || slot == keeper_serving(k);

        k->slots[slot].dead = true;
        if (k->abort_slot == slot)
                k->abort_until = USEC_INFINITY;
        keeper_count_death(k, clock_now_usec());
        if (served)
                keeper_served_died(k, pid, status);
}

static void keeper_reap(Keeper *k) {
        int status;
        pid_t pid;

        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
                for (unsigned i = 0; i < AREA_SLOTS; i++)
                        if (!k->slots[i].dead && atomic_load(&k->area->slots[i].pid) == pid)
                                keeper_died(k, i, pid, status);
}

/*
 * Spares
 */

/* First the descriptor, as long as the slot still names it. */
static void keeper_free_slots(Keeper *k) {
        unsigned serving = keeper_serving(k);

        for (unsigned i = 0; i < AREA_SLOTS; i++) {
                AreaSlot *s = k->area->slots + i;

                if (!k->slots[i].dead || i == serving)
                        continue;
                (void) safe_close(atomic_load(&s->pidfd));
                atomic_store(&s->pidfd, -1);
                atomic_store(&s->pid, 0);
                k->slots[i] = (KeeperSlot){ 0 };
        }
}

static int keeper_find_free_slot(const Keeper *k) {
        for (int i = 0; i < AREA_SLOTS; i++)
                if (atomic_load(&k->area->slots[i].pid) == 0)
                        return i;
        return -EBUSY;
}

/* While somebody serves there is time. */
static uint64_t keeper_next_clone(const Keeper *k) {
        uint64_t delay = k->delay;

        if (k->slots[keeper_serving(k)].dead)
                delay = k->n_deaths > DEATHS_QUICK ? DELAY_MIN : 0;
        return MAX(k->died_at + delay, k->retry_at);
}

static bool keeper_wants_spare(const Keeper *k) {
        return atomic_load(&k->area->served) > 0 && !atomic_load(&k->area->retiring) &&
               keeper_is_undisturbed(k);
}

/* Returns 0 in the child, when it has won. */
static int keeper_make_spare(Keeper *k) {
        unsigned serving = keeper_serving(k);
        int slot;
        pid_t r;

        keeper_free_slots(k);
        k->slots[serving].serves = true;
        slot = keeper_find_free_slot(k);
        r = slot < 0 ? slot : keeper_clone(k, (unsigned) slot, 1 - k->slots[serving].cgroup);
        if (r == 0) {
                child_wait_for_turn(k, (unsigned) slot);
                return 0;
        }
        k->retry_at = r < 0 ? clock_now_usec() + DELAY_MIN : 0;
        return 1;
}

/*
 * The life of a keeper
 */

static void keeper_read_signals(Keeper *k) {
        struct signalfd_siginfo info;

        while (read(k->signal_fd, &info, sizeof(info)) == sizeof(info))
                if (info.ssi_signo == SIGTERM)
                        /* The master's end sends the same signal as the master does (PR_SET_PDEATHSIG). */
                        keeper_retire(k, getppid() != k->master);
                else if (info.ssi_signo == SIGABRT)
                        keeper_abort(k);
}

static int keeper_timeout_msec(const Keeper *k) {
        uint64_t now = clock_now_usec(), deadline = k->abort_until;

        if (keeper_wants_spare(k))
                deadline = MIN(deadline, keeper_next_clone(k));
        if (deadline == USEC_INFINITY)
                return -1;
        return deadline <= now ? 0 : (int) ((deadline - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC);
}

static void keeper_wait(Keeper *k) {
        struct pollfd p[] = { { .fd = k->signal_fd, .events = POLLIN },
                { .fd = k->area->bell_fd, .events = POLLIN } };
        uint64_t n;

        if (poll(p, ELEMENTSOF(p), keeper_timeout_msec(k)) > 0 && p[1].revents)
                (void) !read(k->area->bell_fd, &n, sizeof(n));
        keeper_read_signals(k);
        if (k->abort_until <= clock_now_usec()) {
                k->abort_until = USEC_INFINITY;
                keeper_signal(k, k->abort_slot, SIGKILL);
        }
}

/* Returns 0 in a child that has won. */
static int keeper_watch(Keeper *k) {
        for (;;) {
                keeper_reap(k);
                if (keeper_is_over(k))
                        return 1;
                if (keeper_wants_spare(k) && keeper_next_clone(k) <= clock_now_usec() &&
                                keeper_make_spare(k) == 0)
                        return 0;
                keeper_tell_processes(k);
                keeper_wait(k);
        }
}

/* It is nobody else's zombie. */
static void keeper_end_waiting(const Keeper *k) {
        int waiting = keeper_waiting(k);

        if (waiting < 0)
                return;
        keeper_signal(k, (unsigned) waiting, SIGKILL);
        (void) waitpid(atomic_load(&k->area->slots[waiting].pid), NULL, 0);
}

static int keeper_find_thread(Keeper *k) {
        if (prctl(PR_GET_TID_ADDRESS, &k->tid_address, 0, 0, 0) < 0)
                return -EOPNOTSUPP;
        if (syscall(SYS_get_robust_list, 0, &k->robust, &k->robust_size) < 0)
                return -errno;
        return 0;
}

/* Children that are only stopped are not heard of. */
static int keeper_init_signals(Keeper *k) {
        const struct sigaction action = { .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP };
        sigset_t mask;

        sigemptyset(&mask);
        sigaddset(&mask, SIGCHLD);
        sigaddset(&mask, SIGTERM);
        sigaddset(&mask, SIGABRT);
        k->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
        if (k->signal_fd < 0 || sigaction(SIGCHLD, &action, NULL) < 0)
                return -errno;
        return sigprocmask(SIG_BLOCK, &mask, &k->mask) < 0 ? -errno : 0;
}

/* The keeper holds no memory worth to be freed, and its end is that of all connections. Without the
 * privilege to have it spared it is as good a victim as the others. */
static void keeper_init_oom_score(Keeper *k) {
        _cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
        ssize_t n;

        k->oom_fd = -EBADF;
        if (fd < 0)
                return;
        n = pread(fd, k->oom_score, sizeof(k->oom_score) - 1, 0);
        if (n <= 0 || pwrite(fd, OOM_SCORE_KEEPER, strlen(OOM_SCORE_KEEPER), 0) < 0)
                return;
        k->oom_score[n] = '\0';
        k->oom_fd = TAKE_FD(fd);
}

/* Of its directory, which is of no further use. */
static int open_cgroup(const char *number) {
        unsigned fd;
        int procs;

        if (parse_uint(number, &fd) < 0 || fd > INT_MAX)
                return -EBADF;
        procs = openat((int) fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
        (void) close((int) fd);
        return procs;
}

static void keeper_init_cgroups(Keeper *k) {
        const char *value = getenv(BOARD_ENV_TWIN_CGROUP_FDS);
        char text[32], *colon;

        k->cgroup_fds[0] = k->cgroup_fds[1] = -EBADF;
        if (!value)
                return;
        snprintf(text, sizeof(text), "%s", value);
        (void) unsetenv(BOARD_ENV_TWIN_CGROUP_FDS);
        colon = strchr(text, ':');
        if (!colon)
                return;
        *colon = '\0';
        k->cgroup_fds[0] = open_cgroup(text);
        k->cgroup_fds[1] = open_cgroup(colon + 1);
}

static int keeper_init_limit(Keeper *k) {
        if (getrlimit(RLIMIT_NOFILE, &k->limit) < 0)
                return -errno;
        if (k->limit.rlim_cur > KEEPER_DESCRIPTORS)
                k->limit.rlim_cur -= KEEPER_DESCRIPTORS;
        return 0;
}

static int keeper_init(Keeper *k) {
        char path[64];
        int r;

        keeper_init_cgroups(k);
        r = keeper_find_thread(k);
        if (r >= 0)
                r = keeper_init_limit(k);
        if (r >= 0)
                r = keeper_init_signals(k);
        if (r < 0)
                return r;
        snprintf(path, sizeof(path), "/proc/self/task/%d/children", k->pid);
        k->children_fd = open(path, O_RDONLY | O_CLOEXEC); /* a kernel without it has no leftovers to show */
        keeper_init_oom_score(k);
        (void) prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        return area_keep_open(k->area);
}

/* What has begun without anybody having been cloned. */
static void keeper_undo(Keeper *k) {
        (void) sigprocmask(SIG_SETMASK, &k->mask, NULL);
        (void) prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
        keeper_set_oom_score(k, k->oom_score);
        (void) safe_close(k->signal_fd);
        (void) safe_close(k->children_fd);
        (void) safe_close(k->oom_fd);
        (void) safe_close(k->cgroup_fds[0]);
        (void) safe_close(k->cgroup_fds[1]);
}

int keeper_run(Area *area, const Board *board, BoardCell *cell, pid_t master, int *ret_status) {
        Keeper k = {
                .area = area,
                .board = board,
                .cell = cell,
                .master = master,
                .pid = getpid(),
                .signal_fd = -EBADF,
                .children_fd = -EBADF,
                .oom_fd = -EBADF,
                .cgroup_fds = { -EBADF, -EBADF },
                .abort_until = USEC_INFINITY,
        };
        int r;

        (void) sigprocmask(SIG_SETMASK, NULL, &k.mask);
        r = keeper_init(&k);
        if (r >= 0)
                r = keeper_clone(&k, 0, 0);
        if (r < 0) {
                keeper_undo(&k);
                return r;
        }
        if (r == 0)
                return KEEPER_FIRST;
        if (keeper_watch(&k) == 0)
                return KEEPER_SUCCESSOR;
        keeper_end_waiting(&k);
        *ret_status = k.status;
        return KEEPER_OVER;
}

/* The core has been dumped by the one that died. */
static void end_by_signal(int signo) {
        const struct rlimit none = { 0 };
        const struct sigaction action = { .sa_handler = SIG_DFL };
        sigset_t mask;

        (void) setrlimit(RLIMIT_CORE, &none);
        (void) prctl(PR_SET_DUMPABLE, 0); /* a program that takes cores is not asked for the limit */
        (void) sigaction(signo, &action, NULL);
        (void) raise(signo);
        sigemptyset(&mask);
        sigaddset(&mask, signo);
        (void) sigprocmask(SIG_UNBLOCK, &mask, NULL);
}

void keeper_exit(int status) {
        if (WIFEXITED(status))
                exit(WEXITSTATUS(status));
        end_by_signal(WTERMSIG(status));
        exit(128 + WTERMSIG(status)); /* one that is not deadly by itself */
}

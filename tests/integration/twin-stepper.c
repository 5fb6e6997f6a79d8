/* SPDX-License-Identifier: MIT */
/* Kills a worker, or the one that takes over from it, at every point of a scenario, one after the other, and
 * looks whether the client notices.
 *
 *      twin-stepper --port=PORT --keeper=PID --board=FD --cell=OFFSET --scenario=NAME [OPTION…]
 *      twin-stepper --list
 *      twin-stepper --probe=PID    whether this process may trace that one
 *
 * The worker is traced (ptrace(2)); nothing in it knows of this. A point is, by --mode=
 *
 *      syscall  the entry or the exit of a system call
 *      store    a change of memory that it shares with others, by itself or by a system call. What another
 *               process can see is the same from one of them to the next, so that these are all there are
 * (but for those of a library function that copies: the first one stands for all) step     an instruction
 *
 * --target=worker: the one that the client has begun to talk to is killed, at each of the points A, A +
 * stride … B of --points=A-B --stride=N. --target=successor: the worker is killed at its --first=N'th point
 * of --mode=syscall, and the point is one of who takes over from it. --point=N: this point alone. --kills=N
 * --seed=S: about so many points, equally far from each other, from a random one on. The last point is that
 * after which nothing happens any more. --failures=N: ends after so many.
 *
 * What came about is told on stdout, by objects of JSON, a line each. */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "twin-operand.h"
#include "twin-script.h"

#define RANGES_MAX  256
#define CALLS_MAX   512
#define WINDOW      64 /* bytes that an instruction may write at its operand */
#define CALLERS_MAX 12 /* of what lies on the stack and may be where it returns to */
#define PATIENCE    10 /* seconds; the machine may stand still meanwhile */

/* In the cell, board/board.h. */
#define CELL_WORKER 216
#define CELL_TWIN   220

typedef enum Mode { MODE_SYSCALL, MODE_STORE, MODE_STEP } Mode;

typedef enum Stop {
        STOP_POINT,  /* it has come to the next one */
        STOP_ASLEEP, /* there is none: the client is content, and it waits for events */
        STOP_DEAD,   /* it has ended by itself */
} Stop;

typedef struct Range {
        uint64_t start, end;
        bool shared, own; /* memory that others see; code of the program itself */
        uint8_t *code;    /* a copy, of code */
} Range;

typedef struct Tracee {
        pid_t pid;
        int signo; /* to be delivered */
        uint64_t n_points;
        bool copying; /* a library function has changed something, and has not returned yet */
        Range ranges[RANGES_MAX];
        unsigned n_ranges;
        uint64_t base; /* of the program */
} Tracee;

typedef struct Stepper {
        ScriptSettings script;
        pid_t keeper;
        int keeper_fd, board_fd;
        size_t cell;
        const char *cells;
        Mode mode;
        bool successor;
        uint64_t first, from, to, stride, n_kills_wanted;
        unsigned failures_max, seed;

        int script_fd;
        bool waits;    /* the client wants to know when the worker sleeps */
        bool finished; /* the client has said DONE, or FAILED: */
        bool failed;
        char said[SCRIPT_TEXT_MAX];

        Tracee worker, heir;
        pid_t dead[2];
        uint64_t point; /* of this round */
        uint64_t n_kills, n_failures, n_calls[CALLS_MAX], slowest, last;
        char place[1024];
} Stepper;

static const char *const modes[] = { "syscall", "store", "step" };

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...) {
        int error = errno;
        va_list ap;

        va_start(ap, format);
        fputs("twin-stepper: ", stderr);
        vfprintf(stderr, format, ap);
        fprintf(stderr, " (%s)\n", strerror(error));
        va_end(ap);
        exit(EXIT_FAILURE);
}

static uint64_t now_msec(void) {
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}

static bool keeper_has_ended(const Stepper *s, int timeout_msec) {
        struct pollfd p = { .fd = s->keeper_fd, .events = POLLIN };

        return poll(&p, 1, timeout_msec) > 0;
}

/* By the numbers of system calls that wait. */
static bool is_asleep(pid_t pid) {
        char path[64], text[256] = "";
        FILE *f;
        long call;

        snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
        f = fopen(path, "re");
        if (!f)
                return false;
        call = fgets(text, sizeof(text), f) && text[0] >= '0' && text[0] <= '9' ? strtol(text, NULL, 10)
                                                                                : -1;
        fclose(f);
        return call == SYS_epoll_wait || call == SYS_epoll_pwait || call == SYS_epoll_pwait2 ||
               call == SYS_poll || call == SYS_ppoll || call == SYS_restart_syscall;
}

static pid_t cell_pid(const Stepper *s, size_t offset) {
        return __atomic_load_n((const int32_t *) (s->cells + s->cell + offset), __ATOMIC_ACQUIRE);
}

/*
 * What is in a process
 */

static void take_code(Tracee *t, Range *r) {
        struct iovec local, remote;

        r->code = calloc(1, r->end - r->start + INSTRUCTION_MAX);
        if (!r->code)
                die("no memory");
        local = (struct iovec){ r->code, r->end - r->start };
        remote = (struct iovec){ (void *) r->start, r->end - r->start }; // NOLINT
        if (process_vm_readv(t->pid, &local, 1, &remote, 1, 0) <
                        0) { /* the kernel's page: it calls nobody */
                free(r->code);
                r->code = NULL;
        }
}

static void tracee_forget(Tracee *t) {
        for (unsigned i = 0; i < t->n_ranges; i++)
                free(t->ranges[i].code);
        *t = (Tracee){ .pid = 0 };
}

static void tracee_look(Tracee *t, bool with_code) {
        char path[64], line[512], perms[8], name[300];
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/maps", t->pid);
        f = fopen(path, "re");
        if (!f)
                die("%s", path);
        while (fgets(line, sizeof(line), f)) {
                Range *r = t->ranges + t->n_ranges;

                name[0] = '\0';
                if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %*s %*s %*s %299s", &r->start, &r->end, perms,
                                    name) < 3)
                        continue;
                r->own = strstr(name, "muster-worker") != NULL;
                if (r->own && !t->base)
                        t->base = r->start;
                r->shared = perms[3] == 's' && perms[1] == 'w';
                if (!r->shared && perms[2] != 'x')
                        continue;
                if (++t->n_ranges == RANGES_MAX)
                        die("%s: too many lines", path);
                if (perms[2] == 'x' && with_code)
                        take_code(t, r);
        }
        fclose(f);
}

static const Range *tracee_code(const Tracee *t, uint64_t address) {
        for (unsigned i = 0; i < t->n_ranges; i++)
                if (t->ranges[i].code && address >= t->ranges[i].start && address < t->ranges[i].end)
                        return t->ranges + i;
        return NULL;
}

static bool tracee_shares(const Tracee *t, uint64_t address) {
        for (unsigned i = 0; i < t->n_ranges; i++)
                if (t->ranges[i].shared && address + WINDOW >= t->ranges[i].start &&
                                address < t->ranges[i].end)
                        return true;
        return false;
}

static size_t tracee_read(const Tracee *t, uint64_t address, void *ret, size_t n) {
        struct iovec local = { ret, n }, remote = { (void *) address, n }; // NOLINT
        ssize_t r = process_vm_readv(t->pid, &local, 1, &remote, 1, 0);

        return r < 0 ? 0 : (size_t) r;
}

/* The instruction, as an offset in the program for addr2line, and what may be its callers. */
static void describe(Stepper *s, const Tracee *t) {
        struct __ptrace_syscall_info info = { .op = 0 };
        struct user_regs_struct regs;
        uint64_t stack[1024];
        size_t n, at;
        int n_callers = 0;

        if (ptrace(PTRACE_GETREGS, t->pid, NULL, &regs) < 0)
                return;
        (void) ptrace(PTRACE_GET_SYSCALL_INFO, t->pid, sizeof(info), &info);
        at = (size_t) snprintf(s->place, sizeof(s->place),
                        "\"call\":%lld,\"stop\":\"%s\",\"result\":%lld,\"at\":[", (long long) regs.orig_rax,
                        info.op == PTRACE_SYSCALL_INFO_ENTRY  ? "entry"
                        : info.op == PTRACE_SYSCALL_INFO_EXIT ? "exit"
                                                              : "between",
                        (long long) regs.rax);
        n = tracee_read(t, regs.rsp, stack, sizeof(stack)) / sizeof(*stack);
        for (size_t i = 0; i <= n && n_callers < CALLERS_MAX; i++) {
                uint64_t address = i == 0 ? regs.rip : stack[i - 1];
                for (unsigned j = 0; j < t->n_ranges; j++)
                        if (t->ranges[j].own && !t->ranges[j].shared && address >= t->ranges[j].start &&
                                        address < t->ranges[j].end)
                                at += (size_t) snprintf(s->place + at, sizeof(s->place) - at,
                                                "%s\"0x%" PRIx64 "\"", n_callers++ ? "," : "",
                                                address - t->base);
        }
        snprintf(s->place + at, sizeof(s->place) - at, "]");
}

/*
 * The client
 */

static void script_tell(const Stepper *s, char what) {
        if (send(s->script_fd, &what, 1, MSG_NOSIGNAL) < 0)
                die("the client has ended");
}

/* Returns what it has said; 0: nothing within that time. */
static char script_hear(Stepper *s, int timeout_msec) {
        struct pollfd p = { .fd = s->script_fd, .events = POLLIN };
        ssize_t n;

        if (poll(&p, 1, timeout_msec) <= 0)
                return 0;
        n = recv(s->script_fd, s->said, sizeof(s->said) - 1, 0);
        if (n <= 0)
                die("the client has ended");
        s->said[n] = '\0';
        if (s->said[0] == SCRIPT_WAIT)
                s->waits = true;
        if (s->said[0] == SCRIPT_FAILED)
                s->failed = true;
        if (s->said[0] == SCRIPT_DONE || s->said[0] == SCRIPT_FAILED)
                s->finished = true;
        return s->said[0];
}

static bool serving_is_asleep(const Stepper *s) {
        pid_t pid = cell_pid(s, CELL_WORKER);

        return pid != s->dead[0] && pid != s->dead[1] && is_asleep(pid);
}

/* With nobody traced any more. Returns false when it failed. */
static bool script_expect(Stepper *s, char wanted) {
        uint64_t end = now_msec() + (uint64_t) (PATIENCE + 2) * 2 * 1000;

        while (now_msec() < end) {
                if (s->waits && (serving_is_asleep(s) || keeper_has_ended(s, 0))) {
                        s->waits = false;
                        script_tell(s, SCRIPT_WAIT);
                }
                char heard = script_hear(s, s->waits ? 1 : 1000);
                if (heard == wanted)
                        return true;
                if (heard == SCRIPT_FAILED)
                        return false;
        }
        s->failed = true;
        snprintf(s->said, sizeof(s->said), "fthe client waits for ever");
        return false;
}

/*
 * Tracing
 */

static void tracee_seize(Tracee *t, pid_t pid) {
        int status;

        tracee_forget(t);
        t->pid = pid;
        if (ptrace(PTRACE_SEIZE, pid, NULL, (void *) PTRACE_O_TRACESYSGOOD) < 0 ||
                        ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) < 0 || waitpid(pid, &status, __WALL) < 0)
                die("cannot trace %d", pid);
}

/* The step over the call that was interrupted has its own signal, which would end it when nobody traces it.
 */
static bool has_pending_trap(const Tracee *t) {
        const struct __ptrace_peeksiginfo_args args = { .nr = 8 };
        siginfo_t info[8];
        long n = ptrace(PTRACE_PEEKSIGINFO, t->pid, &args, info);

        for (long i = 0; i < n; i++)
                if (info[i].si_signo == SIGTRAP)
                        return true;
        return false;
}

static void tracee_let_go(Tracee *t, bool stopped) {
        cpu_set_t all;
        int status;

        memset(&all, 0xFF, sizeof(all));
        (void) sched_setaffinity(t->pid, sizeof(all), &all);
        if (!stopped && ptrace(PTRACE_INTERRUPT, t->pid, NULL, NULL) == 0)
                (void) waitpid(t->pid, &status, __WALL);
        if (has_pending_trap(t) && ptrace(PTRACE_CONT, t->pid, NULL, NULL) == 0)
                (void) waitpid(t->pid, &status, __WALL);
        (void) ptrace(PTRACE_DETACH, t->pid, NULL, (void *) (intptr_t) t->signo);
}

static void on_child(int signo) {
}

/* What stops where its wait begins looks as if it slept. */
static bool has_stopped(pid_t pid, int *ret_status, bool *ret_asleep) {
        *ret_asleep = false;
        if (waitpid(pid, ret_status, __WALL | WNOHANG) != 0)
                return true;
        *ret_asleep = is_asleep(pid);
        return *ret_asleep && waitpid(pid, ret_status, __WALL | WNOHANG) != 0;
}

/* Meanwhile the client goes on. Returns false when nothing comes any more. */
static bool wait_for_stop(Stepper *s, const Tracee *t, int *ret_status) {
        sigset_t mask;
        bool asleep;

        sigemptyset(&mask);
        for (;;) {
                if (has_stopped(t->pid, ret_status, &asleep))
                        return true;
                if (s->finished && asleep)
                        return false;
                if (s->waits && asleep) {
                        s->waits = false;
                        script_tell(s, SCRIPT_WAIT);
                }
                struct pollfd p = { .fd = s->finished ? -1 : s->script_fd, .events = POLLIN };
                const struct timespec soon = { .tv_nsec = 1000000 }, later = { .tv_sec = 1 };
                if (ppoll(&p, 1, s->finished || s->waits ? &soon : &later, &mask) > 0)
                        (void) script_hear(s, 0);
        }
}

/* To the next stop of that kind. */
static Stop tracee_run(Stepper *s, Tracee *t, enum __ptrace_request request, bool may_sleep) {
        for (;;) {
                int status = 0;

                if (ptrace(request, t->pid, NULL, (void *) (intptr_t) t->signo) < 0)
                        return STOP_DEAD;
                t->signo = 0;
                if (may_sleep) {
                        if (!wait_for_stop(s, t, &status))
                                return STOP_ASLEEP;
                } else if (waitpid(t->pid, &status, __WALL) < 0)
                        return STOP_DEAD;
                if (!WIFSTOPPED(status))
                        return STOP_DEAD;
                if (status >> 16 == PTRACE_EVENT_STOP)
                        continue;
                if (WSTOPSIG(status) == (SIGTRAP | 0x80) || WSTOPSIG(status) == SIGTRAP)
                        return STOP_POINT;
                t->signo = WSTOPSIG(status);
        }
}

static void count_call(Stepper *s, Tracee *t) {
        struct user_regs_struct regs;

        if (ptrace(PTRACE_GETREGS, t->pid, NULL, &regs) == 0 && regs.orig_rax < CALLS_MAX)
                s->n_calls[regs.orig_rax]++;
}

/* One instruction. @ret_seen: somebody else can see that it was executed. */
static Stop tracee_step(Stepper *s, Tracee *t, bool *ret_seen) {
        uint8_t before[WINDOW], after[WINDOW];
        struct user_regs_struct regs;
        const uint8_t *code = NULL;
        uint64_t address = 0;
        size_t n = 0;
        bool calls;
        Stop stop;

        if (ptrace(PTRACE_GETREGS, t->pid, NULL, &regs) < 0)
                return STOP_DEAD;
        const Range *range = tracee_code(t, regs.rip);
        if (range)
                code = range->code + (regs.rip - range->start);
        if (!range || range->own)
                t->copying = false;
        calls = code && operand_is_syscall(code);
        if (code && !calls && !t->copying)
                address = operand_address(code, &regs);
        if (address && tracee_shares(t, address))
                n = tracee_read(t, address, before, sizeof(before));
        stop = tracee_run(s, t, PTRACE_SINGLESTEP, calls || !code);
        *ret_seen = calls ||
                    (n > 0 && tracee_read(t, address, after, n) == n && memcmp(before, after, n) != 0);
        t->copying = t->copying || (*ret_seen && !calls && !range->own);
        return stop;
}

static Stop tracee_next(Stepper *s, Tracee *t, Mode mode) {
        bool seen;
        Stop stop;

        do {
                seen = true;
                if (mode == MODE_SYSCALL)
                        stop = tracee_run(s, t, PTRACE_SYSCALL, true);
                else
                        stop = tracee_step(s, t, &seen);
        } while (stop == STOP_POINT && mode == MODE_STORE && !seen);
        if (stop == STOP_POINT)
                t->n_points++;
        return stop;
}

static Stop tracee_go_to(Stepper *s, Tracee *t, Mode mode, uint64_t point) {
        Stop stop = STOP_POINT;

        if (mode != MODE_SYSCALL) { /* two processors have to tell each other of every step */
                cpu_set_t here;
                CPU_ZERO(&here);
                CPU_SET((unsigned) sched_getcpu(), &here);
                (void) sched_setaffinity(t->pid, sizeof(here), &here);
        }
        while (stop == STOP_POINT && t->n_points < point)
                stop = tracee_next(s, t, mode);
        return stop;
}

static void tracee_kill(Stepper *s, Tracee *t) {
        int status;

        describe(s, t);
        count_call(s, t);
        (void) kill(t->pid, SIGKILL);
        while (waitpid(t->pid, &status, __WALL) == t->pid && !WIFSIGNALED(status) && !WIFEXITED(status))
                ;
        s->dead[1] = s->dead[0];
        s->dead[0] = t->pid;
        s->n_kills++;
}

/*
 * Rounds
 */

static bool is_new(const Stepper *s, pid_t pid) {
        return pid > 0 && pid != s->dead[0] && pid != s->dead[1] && kill(pid, 0) == 0;
}

/* Until there are two, and both of them sleep. Without a twin the keeper is the worker. */
static bool wait_for_pair(const Stepper *s, pid_t *ret_worker, pid_t *ret_twin) {
        uint64_t end = now_msec() + 30000;

        for (;;) {
                pid_t worker = cell_pid(s, CELL_WORKER), twin = cell_pid(s, CELL_TWIN);

                if (worker == 0) {
                        worker = s->keeper;
                        twin = 0;
                }
                if (is_new(s, worker) && is_asleep(worker) &&
                                (worker == s->keeper ||
                                                (is_new(s, twin) && twin != worker && is_asleep(twin)))) {
                        *ret_worker = worker;
                        *ret_twin = twin;
                        return true;
                }
                if (keeper_has_ended(s, 1))
                        return false;
                if (now_msec() > end) {
                        fprintf(stderr, "worker %d, twin %d, dead %d and %d\n", worker, twin, s->dead[0],
                                        s->dead[1]);
                        return false;
                }
        }
}

static void print_text(const char *text) {
        for (; *text; text++)
                if (*text == '"' || *text == '\\')
                        printf("\\%c", *text);
                else if ((unsigned char) *text < ' ' || (unsigned char) *text > '~')
                        putchar(' ');
                else
                        putchar(*text);
}

static void report_failure(Stepper *s, const char *when) {
        s->n_failures++;
        printf("{\"failure\":\"");
        print_text(s->said[0] == SCRIPT_FAILED ? s->said + 1 : s->said);
        printf("\",\"when\":\"%s\",\"scenario\":\"%s\",\"mode\":\"%s\",\"target\":\"%s\",\"first\":%" PRIu64
               ",\"point\":%" PRIu64 ",%s}\n",
                        when, s->script.scenario, modes[s->mode], s->successor ? "successor" : "worker",
                        s->first, s->point, s->place[0] ? s->place : "\"at\":[]");
        fflush(stdout);
}

/* The successor waits for the worker's end, and was resumed for its first point. */
static bool arm_successor(Stepper *s, pid_t twin) {
        const enum __ptrace_request request = s->mode == MODE_SYSCALL ? PTRACE_SYSCALL : PTRACE_SINGLESTEP;

        tracee_seize(&s->heir, twin);
        tracee_look(&s->heir, s->mode != MODE_SYSCALL);
        for (uint64_t end = now_msec() + PATIENCE * 1000; now_msec() < end;) {
                bool asleep = false;
                int status;

                if (ptrace(request, twin, NULL, NULL) < 0)
                        return false;
                while (!has_stopped(twin, &status, &asleep))
                        if (asleep)
                                return true;
                if (!WIFSTOPPED(status))
                        return false;
        }
        return false;
}

/* It has been resumed when its wait began, and comes to its first point by the worker's end. */
static Stop successor_go_to(Stepper *s, uint64_t point) {
        int status;

        if (!wait_for_stop(s, &s->heir, &status))
                return STOP_ASLEEP;
        if (!WIFSTOPPED(status))
                return STOP_DEAD;
        s->heir.n_points = 1;
        return tracee_go_to(s, &s->heir, s->mode, point);
}

static Stop round_trace(Stepper *s, uint64_t point) {
        Tracee *target = s->successor ? &s->heir : &s->worker;
        Stop stop = tracee_go_to(s, &s->worker, s->successor ? MODE_SYSCALL : s->mode,
                        s->successor ? s->first : point);

        if (s->successor && stop == STOP_POINT) {
                tracee_kill(s, &s->worker);
                stop = successor_go_to(s, point);
        } else if (s->successor)
                tracee_let_go(&s->heir, /* stopped= */ false);
        if (stop == STOP_POINT)
                tracee_kill(s, target);
        else if (stop == STOP_ASLEEP)
                tracee_let_go(s->successor && s->worker.pid == s->dead[0] ? &s->heir : &s->worker,
                                /* stopped= */ false);
        s->last = target->n_points;
        return stop;
}

/* Returns 1 when it is to go on with the next point, 0 when there is none, negative when nobody is there. */
static int do_round(Stepper *s, uint64_t point) {
        pid_t worker, twin;
        uint64_t begun;
        Stop stop;

        s->point = point;
        s->place[0] = '\0';
        s->finished = s->failed = s->waits = false;
        script_tell(s, SCRIPT_PREPARE);
        if (!script_expect(s, SCRIPT_PREPARE)) {
                report_failure(s, "before");
                return keeper_has_ended(s, 0) ? -1 : 1;
        }
        if (!wait_for_pair(s, &worker, &twin) || (s->successor && twin == 0)) {
                snprintf(s->said, sizeof(s->said), "nobody is there any more");
                report_failure(s, "before");
                return -1;
        }
        if (s->successor && !arm_successor(s, twin))
                die("the successor does not wait");
        tracee_seize(&s->worker, worker);
        tracee_look(&s->worker, s->mode != MODE_SYSCALL && !s->successor);
        script_tell(s, SCRIPT_GO);
        if (!script_expect(s, SCRIPT_GO)) {
                tracee_let_go(&s->worker, true);
                if (s->successor)
                        tracee_let_go(&s->heir, false);
                report_failure(s, "at the begin");
                return 1;
        }
        begun = now_msec();
        stop = round_trace(s, point);
        if (stop == STOP_DEAD) {
                snprintf(s->said, sizeof(s->said), "it has ended by itself");
                report_failure(s, "while it was traced");
                return keeper_has_ended(s, 100) ? -1 : 1;
        }
        if (stop == STOP_POINT)
                begun = now_msec();
        if (!s->finished)
                (void) script_expect(s, SCRIPT_DONE);
        if (stop == STOP_POINT && now_msec() - begun > s->slowest)
                s->slowest = now_msec() - begun;
        if (s->failed) {
                report_failure(s, stop == STOP_POINT ? "after the kill" : "without a kill");
                return keeper_has_ended(s, 100) ? -1 : stop == STOP_POINT;
        }
        script_tell(s, SCRIPT_CHECK);
        if (!script_expect(s, SCRIPT_CHECK)) {
                report_failure(s, "of the connections in the background");
                return keeper_has_ended(s, 100) ? -1 : 1;
        }
        return stop == STOP_POINT;
}

static void report(const Stepper *s, uint64_t n_rounds, bool all, bool ended) {
        bool any = false;

        printf("{\"scenario\":\"%s\",\"mode\":\"%s\",\"target\":\"%s\",\"first\":%" PRIu64
               ",\"rounds\":%" PRIu64 ",\"kills\":%" PRIu64 ",\"failures\":%" PRIu64 ",\"last\":%" PRIu64
               ",\"slowest_msec\":%" PRIu64 ",\"next\":%" PRIu64 ",\"complete\":%s,\"ended\":%s,\"calls\":{",
                        s->script.scenario, modes[s->mode], s->successor ? "successor" : "worker", s->first,
                        n_rounds, s->n_kills, s->n_failures, s->last, s->slowest, s->point + s->stride,
                        all ? "true" : "false", ended ? "true" : "false");
        for (int i = 0; i < CALLS_MAX; i++)
                if (s->n_calls[i] > 0) {
                        printf("%s\"%d\":%" PRIu64, any ? "," : "", i, s->n_calls[i]);
                        any = true;
                }
        printf("}}\n");
}

/* First nothing is killed: so the client learns what it is to expect. Then, for who takes over, where the
 * end is. */
static int sweep_begin(Stepper *s) {
        bool successor = s->successor;
        int r;

        s->successor = false;
        r = do_round(s, UINT64_MAX);
        s->successor = successor;
        if (r == 0 && s->successor)
                r = do_round(s, UINT64_MAX);
        if (s->n_failures > 0)
                return -1;
        if (s->n_kills_wanted > 0) {
                s->stride = MAX(s->last / s->n_kills_wanted, (uint64_t) 1);
                s->from = 1 + (uint64_t) rand_r(&s->seed) % s->stride;
        }
        return r;
}

static int sweep(Stepper *s) {
        uint64_t n_rounds = 0;
        int r = sweep_begin(s);

        if (r < 0) {
                report(s, 0, false, keeper_has_ended(s, 0));
                return EXIT_FAILURE;
        }
        r = 1;
        for (uint64_t point = s->from; r > 0 && point <= s->to && s->n_failures < s->failures_max;
                        point += s->stride) {
                r = do_round(s, point);
                n_rounds++;
        }
        report(s, n_rounds, r == 0, r < 0);
        return s->n_failures > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/*
 * Options
 */

enum {
        ARG_PORT = 256,
        ARG_KEEPER,
        ARG_BOARD,
        ARG_CELL,
        ARG_SCENARIO,
        ARG_MODE,
        ARG_TARGET,
        ARG_FIRST,
        ARG_POINTS,
        ARG_POINT,
        ARG_STRIDE,
        ARG_KILLS,
        ARG_SEED,
        ARG_EFFECTS,
        ARG_PLACE,
        ARG_FAILURES,
        ARG_LIST,
        ARG_PROBE
};

static const struct option long_options[] = {
        { "port", required_argument, NULL, ARG_PORT },
        { "keeper", required_argument, NULL, ARG_KEEPER },
        { "board", required_argument, NULL, ARG_BOARD },
        { "cell", required_argument, NULL, ARG_CELL },
        { "scenario", required_argument, NULL, ARG_SCENARIO },
        { "mode", required_argument, NULL, ARG_MODE },
        { "target", required_argument, NULL, ARG_TARGET },
        { "first", required_argument, NULL, ARG_FIRST },
        { "points", required_argument, NULL, ARG_POINTS },
        { "point", required_argument, NULL, ARG_POINT },
        { "stride", required_argument, NULL, ARG_STRIDE },
        { "kills", required_argument, NULL, ARG_KILLS },
        { "seed", required_argument, NULL, ARG_SEED },
        { "effects", required_argument, NULL, ARG_EFFECTS },
        { "place", required_argument, NULL, ARG_PLACE },
        { "failures", required_argument, NULL, ARG_FAILURES },
        { "list", no_argument, NULL, ARG_LIST },
        { "probe", required_argument, NULL, ARG_PROBE },
        { NULL, 0, NULL, 0 },
};

static void take_number(Stepper *s, int arg, uint64_t number) {
        switch (arg) {
        case ARG_PORT:
                s->script.port = (uint16_t) number;
                break;
        case ARG_KEEPER:
                s->keeper = (pid_t) number;
                break;
        case ARG_BOARD:
                s->board_fd = (int) number;
                break;
        case ARG_CELL:
                s->cell = number;
                break;
        case ARG_FIRST:
                s->first = number;
                break;
        case ARG_POINT:
                s->from = s->to = number;
                break;
        case ARG_STRIDE:
                s->stride = number;
                break;
        case ARG_KILLS:
                s->n_kills_wanted = number;
                break;
        case ARG_SEED:
                s->seed = (unsigned) number;
                break;
        case ARG_PLACE:
                s->script.first_place = (unsigned) number;
                break;
        case ARG_FAILURES:
                s->failures_max = (unsigned) number;
                break;
        default:
                exit(2);
        }
}

static void take_option(Stepper *s, int arg, const char *value) {
        switch (arg) {
        case ARG_SCENARIO:
                s->script.scenario = value;
                break;
        case ARG_EFFECTS:
                s->script.effects = value;
                break;
        case ARG_MODE:
                s->mode = strcmp(value, "step") == 0    ? MODE_STEP
                          : strcmp(value, "store") == 0 ? MODE_STORE
                                                        : MODE_SYSCALL;
                break;
        case ARG_TARGET:
                s->successor = strcmp(value, "successor") == 0;
                break;
        case ARG_POINTS:
                if (sscanf(value, "%" SCNu64 "-%" SCNu64, &s->from, &s->to) != 2)
                        die("--points=A-B");
                break;
        case ARG_LIST:
                script_list();
                exit(EXIT_SUCCESS);
        case ARG_PROBE:
                exit(ptrace(PTRACE_SEIZE, (pid_t) strtol(value, NULL, 10), NULL, NULL) < 0 ? EXIT_FAILURE
                                                                                           : EXIT_SUCCESS);
        default:
                take_number(s, arg, value ? strtoull(value, NULL, 10) : 0);
        }
}

static void parse(Stepper *s, int argc, char *argv[]) {
        int arg;

        while ((arg = getopt_long(argc, argv, "", long_options, NULL)) >= 0)
                take_option(s, arg, optarg);
        if (!s->script.scenario || s->keeper == 0 || s->script.port == 0)
                die("see the head of twin-stepper.c");
}

static void block_child_signal(void) {
        const struct sigaction action = { .sa_handler = on_child };
        sigset_t mask;

        sigemptyset(&mask);
        sigaddset(&mask, SIGCHLD);
        sigprocmask(SIG_BLOCK, &mask, NULL);
        sigaction(SIGCHLD, &action, NULL);
}

int main(int argc, char *argv[]) {
        static Stepper s = {
                .from = 1, .to = UINT64_MAX - 1, .stride = 1, .failures_max = 5, .board_fd = -1
        };
        int r;

        parse(&s, argc, argv);
        s.script.patience = PATIENCE;
        s.script.may_refuse = s.mode != MODE_SYSCALL;
        s.keeper_fd = (int) syscall(SYS_pidfd_open, s.keeper, 0);
        s.cells = mmap(NULL, s.cell + 4096, PROT_READ, MAP_SHARED, s.board_fd, 0);
        if (s.keeper_fd < 0 || s.cells == MAP_FAILED)
                die("the keeper and the board");
        r = script_start(&s.script, &s.script_fd);
        if (r < 0)
                die("no such scenario: %s", s.script.scenario);
        block_child_signal();
        return sweep(&s);
}

/* SPDX-License-Identifier: MIT */
/* Last words; see crash.h. In the handler nothing is called that is not async-signal-safe, and nothing that
 * was written by the module is believed to be intact. */

#include "worker/crash.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#include "basic/log.h"
#include "basic/macro.h"

/* On stderr; the board keeps less. A path and what is told of a request fit. */
#define TEXT_MAX 512

#define STACK_SIZE (64 * 1024) /* the vector registers alone may take 10 KiB of it */

static const struct {
        int signo;
        const char *name;
        bool has_address;
} signals[] = {
        { SIGSEGV, "SIGSEGV", true },
        { SIGBUS, "SIGBUS", true },
        { SIGILL, "SIGILL", true },
        { SIGFPE, "SIGFPE", true },
        { SIGABRT, "SIGABRT", false },
        { SIGSYS, "SIGSYS", false },
};

static struct {
        pid_t pid; /* children of the module have all this, too, and do not speak for the worker */
        BoardCell *cell;
        const char *path;
        char name[64];
        uintptr_t begin, end; /* of the module's memory */
        bool journal;         /* stderr is a stream of it, and takes a priority at the head of a line */
        _Atomic uint32_t *word;
        _Atomic pid_t speaker; /* the thread that died first; 0: none has */
} crash;

static _Thread_local CrashScope *current
                __attribute__((tls_model("initial-exec"))); /* of this program alone */

/* Of the thread that dies of it: two may at once. */
static _Thread_local char misuse[128] __attribute__((tls_model("initial-exec")));

/* Text that is being put together, cut to what fits. */
typedef struct Text {
        size_t n;
        char bytes[TEXT_MAX];
} Text;

static void text_add_bytes(Text *t, const char *s, size_t n) {
        for (size_t i = 0; i < n && t->n < sizeof(t->bytes) - 1; i++)
                t->bytes[t->n++] = s[i] >= 0x20 && s[i] < 0x7F ? s[i] : '?';
}

static void text_add(Text *t, const char *s) {
        text_add_bytes(t, s, strlen(s));
}

static void text_add_hex(Text *t, uintptr_t v) {
        char digits[2 * sizeof(v)];
        size_t i = sizeof(digits);

        do
                digits[--i] = "0123456789abcdef"[v & 0xF];
        while (v >>= 4);
        text_add(t, "0x");
        text_add_bytes(t, digits + i, sizeof(digits) - i);
}

static void text_add_decimal(Text *t, unsigned v) {
        char digits[10];
        size_t i = sizeof(digits);

        do
                digits[--i] = (char) ('0' + v % 10);
        while (v /= 10);
        text_add_bytes(t, digits + i, sizeof(digits) - i);
}

static uintptr_t instruction_of(const void *context) {
        const ucontext_t *u = context;

#if defined(__x86_64__)
        return (uintptr_t) u->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
        return (uintptr_t) u->uc_mcontext.pc;
#else
        (void) u;
        return 0;
#endif
}

/* The place within the file, which addr2line(1) takes. */
static void text_add_place(Text *t, const void *context) {
        uintptr_t at = instruction_of(context);
        const char *slash;

        if (at < crash.begin || at >= crash.end)
                return;
        slash = strrchr(crash.path, '/');
        text_add(t, " (");
        text_add(t, slash ? slash + 1 : crash.path);
        text_add(t, "+");
        text_add_hex(t, at - crash.begin);
        text_add(t, ")");
}

static void text_add_signal(Text *t, int signo, const siginfo_t *si, const void *context) {
        size_t i = 0;

        while (i < ELEMENTSOF(signals) - 1 && signals[i].signo != signo)
                i++;
        text_add(t, signals[i].name);
        if (si->si_code > 0) {
                if (signals[i].has_address) {
                        text_add(t, " at ");
                        text_add_hex(t, (uintptr_t) si->si_addr);
                }
                text_add_place(t, context);
        } else if (si->si_pid != getpid()) {
                text_add(t, " from process ");
                text_add_decimal(t, (unsigned) si->si_pid);
        }
}

/* In the order of what matters: the board cuts the end. */
static void describe(Text *t, int signo, const siginfo_t *si, const void *context) {
        const CrashScope *scope = current;

        text_add(t, "module ");
        text_add(t, crash.name);
        text_add(t, " (");
        text_add(t, crash.path);
        text_add(t, "): ");
        if (*misuse)
                text_add(t, misuse);
        else
                text_add_signal(t, signo, si, context);
        if (!scope)
                return;
        text_add(t, " ");
        text_add(t, scope->doing);
        text_add(t, scope->size > 0 ? " " : "");
        text_add_bytes(t, scope->text, MIN(scope->size, sizeof(scope->text)));
}

static void say(Text *t) {
        static char priority[] = "<2>"; /* critical */
        struct iovec iov[] = { { priority, crash.journal ? sizeof(priority) - 1 : 0 },
                { t->bytes, t->n + 1 } };

        t->bytes[t->n] = '\0';
        board_cell_set_reason(crash.cell, t->bytes);
        t->bytes[t->n] = '\n'; /* in one call, or it is torn */
        (void) !writev(STDERR_FILENO, iov, ELEMENTSOF(iov));
}

/* Two threads may die at once, and the end of one is that of both: the second one leaves it to the first,
 * which may not have spoken yet. A thread that dies once more while it speaks says nothing further. */
static bool may_speak(void) {
        pid_t mine = (pid_t) syscall(SYS_gettid), speaker = 0;

        if (atomic_compare_exchange_strong(&crash.speaker, &speaker, mine))
                return true;
        while (speaker != mine)
                (void) pause();
        return false;
}

/* With the default action back, an instruction that faults does so again when this returns, and leaves a
 * core with the right registers; any other signal is sent again, and comes when this returns. */
static void on_signal(int signo, siginfo_t *si, void *context) {
        Text t = { 0 };

        if (getpid() == crash.pid && crash.word && (si->si_code > 0 || si->si_pid == crash.pid))
                atomic_store(crash.word, (uint32_t) signo);
        if (getpid() == crash.pid && may_speak()) {
                describe(&t, signo, si, context);
                say(&t);
        }
        (void) signal(signo, SIG_DFL);
        if (si->si_code <= 0 || signo == SIGSYS)
                (void) syscall(SYS_tgkill, getpid(), (pid_t) syscall(SYS_gettid), signo);
}

static void *map_stack(void) {
        void *p = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                        -1, 0);

        return p == MAP_FAILED ? NULL : p;
}

static int set_stack(void) {
        const stack_t stack = { .ss_sp = map_stack(), .ss_size = STACK_SIZE };

        if (!stack.ss_sp)
                return -ENOMEM;
        return sigaltstack(&stack, NULL) < 0 ? -errno : 0;
}

int crash_init(BoardCell *cell, const char *path) {
        struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
        int r;

        crash.pid = getpid();
        crash.cell = cell;
        crash.path = path;
        crash.journal = log_stderr_is_journal();
        strcpy(crash.name, "?");
        r = set_stack();
        if (r < 0)
                return r;
        sigemptyset(&action.sa_mask);
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                if (sigaction(signals[i].signo, &action, NULL) < 0)
                        return -errno;
        return 0;
}

/* The stack lives as long as the process: threads end with it alone. */
void crash_init_thread(void) {
        (void) set_stack();
}

static int find_end(struct dl_phdr_info *info, size_t size, void *userdata) {
        if (info->dlpi_addr != crash.begin)
                return 0;
        for (unsigned i = 0; i < info->dlpi_phnum; i++)
                if (info->dlpi_phdr[i].p_type == PT_LOAD)
                        crash.end = MAX(crash.end, info->dlpi_addr + info->dlpi_phdr[i].p_vaddr +
                                                                   info->dlpi_phdr[i].p_memsz);
        return 1;
}

/* The module has called exit(3), which is as good as a crash. */
static void on_end(void) {
        if (getpid() == crash.pid)
                atomic_store(crash.word, SIGABRT);
}

void crash_note_in(_Atomic uint32_t *word) {
        crash.word = word;
        (void) atexit(on_end);
}

void crash_set_module(const char *name, const void *address) {
        Dl_info info;

        snprintf(crash.name, sizeof(crash.name), "%s", name);
        if (dladdr(address, &info) == 0)
                return;
        crash.begin = (uintptr_t) info.dli_fbase;
        (void) dl_iterate_phdr(find_end, NULL);
}

void crash_enter(CrashScope *scope, const char *doing, const char *text, size_t n) {
        scope->doing = doing;
        scope->size = (unsigned) MIN(n, sizeof(scope->text));
        memcpy(scope->text, text, scope->size);
        scope->outer = current;
        current = scope;
        atomic_signal_fence(memory_order_release);
}

void crash_leave(CrashScope *scope) {
        current = scope->outer;
}

void crash_misuse(const char *function, const char *what) {
        snprintf(misuse, sizeof(misuse), "%s() %s", function, what);
        abort();
}

/* SPDX-License-Identifier: MIT */
/* Reads what a child prints: `stream WAY READER MIB`. WAY: muster, or a bare pipe and read(). READER: fast,
 * or slow: it stops for a millisecond after each MiB. Reports the bytes, the time, and how much the memory
 * of the parent has grown meanwhile. `stream child MIB` is the child. */

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "basic/macro.h"
#include "bench.h"
#include "muster/process.h"

#define MIB        ((uint64_t) 1024 * 1024)
#define PAUSE_USEC (1 * USEC_PER_MSEC)

typedef struct Reader {
        sd_event *event;
        sd_event_source *timer;
        muster_stream *stream;
        bool slow;
        uint64_t bytes;
        uint64_t pause_at;
} Reader;

/* A line of /proc/self/status, in KiB. */
static long status_kib(const char *name) {
        char line[256];
        long value = -1;
        size_t n = strlen(name);

        FILE *f = fopen("/proc/self/status", "re");
        while (f && fgets(line, sizeof(line), f))
                if (strncmp(line, name, n) == 0 && line[n] == ':')
                        value = strtol(line + n + 1, NULL, 10);
        if (f)
                fclose(f);
        return value;
}

/* From now on the peak is that of what follows. */
static void forget_peak(void) {
        FILE *f = fopen("/proc/self/clear_refs", "we");

        if (f) {
                fputs("5", f);
                fclose(f);
        }
}

/* On the CPU that BENCH_CHILD_CPU names. */
static int print(uint64_t size) {
        static char block[64 * 1024];
        const char *cpu = getenv("BENCH_CHILD_CPU");
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(cpu ? (unsigned) atoi(cpu) : 0, &set);
        if (cpu && sched_setaffinity(0, sizeof(set), &set) < 0)
                return EXIT_FAILURE;
        while (size > 0) {
                ssize_t n = write(STDOUT_FILENO, block, MIN(size, sizeof(block)));
                if (n < 0)
                        return EXIT_FAILURE;
                size -= (uint64_t) n;
        }
        return EXIT_SUCCESS;
}

static int on_pause_over(sd_event_source *source, uint64_t usec, void *userdata) {
        Reader *r = userdata;

        return muster_stream_resume(r->stream);
}

static void pause_a_little(Reader *r) {
        r->pause_at += MIB;
        must(muster_stream_pause(r->stream), "pause");
        if (r->timer) {
                must(sd_event_source_set_time_relative(r->timer, PAUSE_USEC), "timer");
                must(sd_event_source_set_enabled(r->timer, SD_EVENT_ONESHOT), "timer");
        } else
                must(sd_event_add_time_relative(
                                     r->event, &r->timer, CLOCK_MONOTONIC, PAUSE_USEC, 1, on_pause_over, r),
                                "timer");
}

static void on_data(muster_stream *stream, const void *data, size_t size, void *userdata) {
        Reader *r = userdata;

        r->bytes += size;
        if (r->slow && r->bytes >= r->pause_at)
                pause_a_little(r);
}

static void on_close(muster_child *child, void *userdata) {
        sd_event_exit(userdata, 0);
}

static void read_muster(Reader *r, char *const *arguments) {
        static const muster_stdio stdio[] = {
                { .kind = MUSTER_STDIO_INHERIT },
                { .kind = MUSTER_STDIO_PIPE },
        };
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        muster_stream_handlers h = MUSTER_STREAM_HANDLERS_INIT;
        muster_child *child;

        o.program = "/proc/self/exe";
        o.argv = arguments;
        o.stdio = stdio;
        o.n_stdio = 2;
        h.data = on_data;
        must(muster_spawn(r->event, &o, NULL, r->event, &child), "muster_spawn");
        muster_child_set_close_handler(child, on_close);
        r->stream = muster_child_get_stream(child, STDOUT_FILENO);
        must(muster_stream_set_handlers(r->stream, &h, r), "handlers");
        must(sd_event_loop(r->event), "sd_event_loop");
        muster_child_unref(child);
}

static void read_bare(Reader *r, char *const *arguments) {
        char buf[64 * 1024];
        ssize_t n;
        int fds[2];

        must(pipe(fds), "pipe");
        pid_t pid = must(fork(), "fork");
        if (pid == 0) {
                dup2(fds[1], STDOUT_FILENO);
                close(fds[0]);
                close(fds[1]);
                execv("/proc/self/exe", arguments);
                _exit(127);
        }
        close(fds[1]);
        while ((n = read(fds[0], buf, sizeof(buf))) > 0)
                r->bytes += (uint64_t) n;
        close(fds[0]);
        waitpid(pid, NULL, 0);
}

int main(int argc, char **argv) {
        if (argc == 3)
                return print(strtoull(argv[2], NULL, 10) * MIB);
        if (argc != 4)
                return EXIT_FAILURE;

        char *const arguments[] = { argv[0], (char *) "child", argv[3], NULL };
        Reader r = { .slow = strcmp(argv[2], "slow") == 0, .pause_at = MIB };
        must(sd_event_default(&r.event), "sd_event_default");
        forget_peak();
        long before = status_kib("VmRSS");
        Stopwatch watch = stopwatch_start();
        if (strcmp(argv[1], "muster") == 0)
                read_muster(&r, arguments);
        else
                read_bare(&r, arguments);
        uint64_t wall = clock_now_usec() - watch.wall, cpu = cpu_usec() - watch.cpu;
        printf("{\"operations\": %llu, \"wall\": %llu, \"cpu\": %llu, \"grown\": %ld}\n",
                        (unsigned long long) r.bytes, (unsigned long long) wall, (unsigned long long) cpu,
                        status_kib("VmHWM") - before);
        sd_event_source_disable_unref(r.timer);
        sd_event_unref(r.event);
        return EXIT_SUCCESS;
}

/* SPDX-License-Identifier: MIT */
/* A module that does what its path says, good or bad: see test_module.py. */

#include <errno.h>
#include <fcntl.h>
#include <muster/http.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PARKED_MAX 64

static muster_http_request *parked[PARKED_MAX], *old;
static unsigned n_parked;
static int retires, last_result, closes[256]; /* by errno */
static sem_t gate;

static void say(const char *what) {
        fprintf(stderr, "module: %s\n", what);
}

static void on_close(int error, void *userdata) {
        if (error == -ECANCELED)
                say("canceled");
        closes[-error & 0xFF]++;
}

__attribute__((format(printf, 2, 3))) static void respond(muster_http_request *r, const char *format, ...) {
        char text[256];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        muster_http_respond_text(r, 200, "text/plain", text);
}

/* What a request looks like */

static void do_look(muster_http_request *r) {
        const char *name, *value;
        char *text = NULL;
        size_t n;
        FILE *f = open_memstream(&text, &n);

        fprintf(f, "%d %s\n%s\n%s\n%s\n%s\n1.%d\n%s\n", muster_http_get_method(r),
                        muster_http_get_method_name(r), muster_http_get_target(r), muster_http_get_path(r),
                        muster_http_get_query(r), muster_http_get_authority(r),
                        muster_http_get_minor_version(r), muster_http_get_peer_name(r));
        for (unsigned i = 0; muster_http_get_header_at(r, i, &name, &value) == 0; i++)
                fprintf(f, "%s=%s\n", name, value);
        value = muster_http_get_header(r, "x-TEST");
        fprintf(f, "%s\n", value ? value : "(none)");
        fclose(f);
        muster_http_respond(r, text, n);
        free(text);
}

static void do_parameter(muster_http_request *r) {
        const char *value = muster_http_get_parameter(r, "name");

        respond(r, "%s", value ? value : "(none)");
}

/* What belongs to a request is still there after the answer, until the handler returns. */
static void do_still(muster_http_request *r) {
        const char *value = muster_http_get_parameter(r, "name");
        char before[64];

        snprintf(before, sizeof(before), "%s", value ? value : "(none)");
        muster_http_respond(r, before, strlen(before));
        last_result = value ? strcmp(value, before) : -ENOENT;
}

/* Late answers */

static void do_park(muster_http_request *r) {
        muster_http_set_close_handler(r, on_close, NULL);
        if (n_parked < PARKED_MAX)
                parked[n_parked++] = r;
}

static void do_release(muster_http_request *r) {
        unsigned answered = 0, n = n_parked;

        for (unsigned i = 0; i < n; i++)
                answered += muster_http_respond_text(parked[i], 200, "text/plain", "released") == 0;
        n_parked = 0;
        respond(r, "%u of %u", answered, n);
}

static int on_time(sd_event_source *s, uint64_t usec, void *request) {
        sd_event_source_unref(s);
        return muster_http_respond_text(request, 200, "text/plain", "late");
}

static void do_later(muster_http_request *r) {
        const char *msec = muster_http_get_parameter(r, "msec");
        uint64_t usec = (msec ? strtoul(msec, NULL, 10) : 1) * 1000;
        sd_event_source *s;

        if (sd_event_add_time_relative(muster_http_event(), &s, CLOCK_MONOTONIC, usec, 1, on_time, r) < 0)
                abort();
}

static int on_prepare(sd_event_source *s, void *request) {
        sd_event_source_set_enabled(s, SD_EVENT_OFF);
        return muster_http_respond_text(request, 200, "text/plain", "prepared");
}

/* Answers when the loop is about to wait, for which there is no event. */
static void do_prepare(muster_http_request *r) {
        sd_event_source *s;

        if (sd_event_add_time_relative(muster_http_event(), &s, CLOCK_MONOTONIC, UINT64_C(3600000000), 0,
                            NULL, r) < 0 ||
                        sd_event_source_set_prepare(s, on_prepare) < 0 ||
                        sd_event_source_set_floating(s, 1) < 0)
                abort();
        sd_event_source_unref(s);
}

static void work(void *userdata) {
        sem_wait(&gate);
}

static void worked(void *request) {
        muster_http_respond_text(request, 200, "text/plain", "worked");
}

static void do_offload(muster_http_request *r) {
        if (muster_offload(work, worked, r) < 0)
                muster_http_respond_status(r, 503);
}

static void do_open(muster_http_request *r) {
        sem_post(&gate);
        respond(r, "open");
}

/* Bodies */

static void echo(muster_http_request *r, const char *data, size_t size, int error, void *userdata) {
        const char *trailer = muster_http_get_trailer(r, "X-Sum");

        last_result = error;
        if (error < 0)
                return;
        if (trailer)
                muster_http_add_header(r, "X-Sum", trailer);
        muster_http_respond(r, data, size);
}

static void do_echo(muster_http_request *r) {
        muster_http_set_close_handler(r, on_close, NULL);
        muster_http_collect(r, 100000, echo, NULL);
}

static uint64_t uploaded;

static void count(muster_http_request *r, const char *data, size_t size, int error, void *userdata) {
        last_result = error;
        if (error < 0)
                return;
        uploaded += size;
        if (!data)
                respond(r, "%llu bytes", (unsigned long long) uploaded);
}

static void do_upload(muster_http_request *r) {
        uploaded = 0;
        muster_http_set_close_handler(r, on_close, NULL);
        muster_http_read_body(r, 0, count, NULL);
        if (strcmp(muster_http_get_query(r), "pause") == 0) {
                muster_http_pause_body(r);
                parked[n_parked++] = r;
        }
}

static void do_resume(muster_http_request *r) {
        respond(r, "%d", muster_http_resume_body(parked[--n_parked]));
}

/* Answers at the first piece, and does not want the others. */
static void early(muster_http_request *r, const char *data, size_t size, int error, void *userdata) {
        respond(r, "early");
}

static void do_early(muster_http_request *r) {
        muster_http_read_body(r, 0, early, NULL);
}

/* Answers in pieces */

static char block[50000];
static long long left; /* of one stream at a time */

static void go_on(muster_http_request *r, void *userdata) {
        while (left > 0) {
                size_t n = left < (long long) sizeof(block) ? (size_t) left : sizeof(block);
                ssize_t taken = muster_http_write(r, block, n);

                if (taken < 0)
                        return;
                left -= taken;
                if ((size_t) taken < n)
                        return;
        }
        muster_http_add_trailer(r, "X-Left", "0");
        muster_http_end(r);
}

static void do_stream(muster_http_request *r) {
        left = atoll(muster_http_get_query(r));
        muster_http_set_close_handler(r, on_close, NULL);
        muster_http_set_writable_handler(r, go_on, NULL);
        muster_http_begin(r,
                        muster_http_get_header(r, "X-Length") ? (uint64_t) left : MUSTER_HTTP_SIZE_UNKNOWN);
        go_on(r, NULL);
}

static void do_left(muster_http_request *r) {
        respond(r, "%lld", left);
}

static void do_file(muster_http_request *r) {
        int fd = open(muster_http_get_query(r), O_RDONLY | O_CLOEXEC);
        int result = muster_http_respond_fd(r, fd, 3, MUSTER_HTTP_SIZE_UNKNOWN);

        if (result < 0)
                respond(r, "%d", result);
}

static unsigned n_writable;

static void on_room(muster_http_request *r, void *userdata) {
        n_writable++;
}

static void do_events(muster_http_request *r) {
        do_park(r);
        muster_http_set_writable_handler(r, on_room, NULL);
        muster_http_begin_events(r);
        muster_http_send_comment(r, "hello");
}

static void ignore(muster_http_request *r, const char *data, size_t size, int error, void *userdata) {
        last_result = error;
}

/* While the request is still coming. */
static void do_both_ways(muster_http_request *r) {
        muster_http_read_body(r, 0, ignore, NULL);
        do_events(r);
}

/* An event of so many bytes to all of them: how often it was taken, refused, and how often there was room
 * again. */
static void do_emit(muster_http_request *r) {
        unsigned taken = 0, refused = 0;
        long n = atol(muster_http_get_query(r));
        char *data = malloc((size_t) n + 3);

        memset(data, 'x', (size_t) n);
        strcpy(data + n, "\ny");
        for (unsigned i = 0; i < n_parked; i++) {
                int result = muster_http_send_event(parked[i], "tick", "7", data);

                taken += result == 0;
                refused += result == -EAGAIN;
        }
        free(data);
        respond(r, "%u %u %u", taken, refused, n_writable);
}

static void do_end_all(muster_http_request *r) {
        while (n_parked > 0)
                muster_http_end(parked[--n_parked]);
        respond(r, "ended");
}

/* Counters */

static void do_closes(muster_http_request *r) {
        respond(r, "%d %d %d", closes[0], closes[ECONNRESET], closes[EMSGSIZE]);
}

static void do_last(muster_http_request *r) {
        respond(r, "%d", last_result);
}

/* Misuse */

static void do_twice(muster_http_request *r) {
        old = r;
        muster_http_respond(r, "once", 4);
        last_result = muster_http_respond(r, "twice", 5);
}

/* With a handle whose request is over, and none at all. */
static void do_stale(muster_http_request *r) {
        const char *name, *value;
        struct sockaddr_storage a;
        muster_http_request *const bad[] = { old, NULL, (muster_http_request *) (uintptr_t) -1,
                (muster_http_request *) block };
        int wrong = 0;

        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                muster_http_request *x = bad[i];

                wrong += muster_http_is_gone(x) != 1;
                wrong += muster_http_get_method(x) != -ESTALE;
                wrong += muster_http_get_target(x) || muster_http_get_path(x) || muster_http_get_query(x);
                wrong += muster_http_get_header(x, "host") || muster_http_get_peer_name(x);
                wrong += muster_http_get_header_at(x, 0, &name, &value) != -ESTALE;
                wrong += muster_http_get_peer(x, &a) != -ESTALE;
                wrong += muster_http_set_status(x, 200) != -ESTALE;
                wrong += muster_http_add_header(x, "A", "b") != -ESTALE;
                wrong += muster_http_respond(x, "", 0) != -ESTALE;
                wrong += muster_http_respond_fd(x, -1, 0, 0) != -ESTALE;
                wrong += muster_http_begin(x, 0) != -ESTALE;
                wrong += muster_http_write(x, "", 0) != -ESTALE;
                wrong += muster_http_begin_events(x) != -ESTALE;
                wrong += muster_http_send_event(x, NULL, NULL, "") != -ESTALE;
                wrong += muster_http_end(x) != -ESTALE;
                wrong += muster_http_abort(x) != -ESTALE;
                wrong += muster_http_collect(x, 0, echo, NULL) != -ESTALE;
                wrong += muster_http_resume_body(x) != -ESTALE;
                wrong += muster_http_set_userdata(x, x) != -ESTALE || muster_http_get_userdata(x);
        }
        respond(r, "%d wrong", wrong);
}

static void do_wrong(muster_http_request *r) {
        int wrong = 0;

        wrong += muster_http_set_status(r, 199) != -EINVAL || muster_http_set_status(r, 600) != -EINVAL;
        wrong += muster_http_add_header(r, "A", "b\r\nC: d") != -EINVAL;
        wrong += muster_http_add_header(r, "A b", "c") != -EINVAL;
        wrong += muster_http_add_header(r, "Content-Length", "7") != -EINVAL;
        wrong += muster_http_add_header(r, NULL, "c") != -EINVAL;
        wrong += muster_http_write(r, "x", 1) != -EINVAL || muster_http_end(r) != -EINVAL;
        wrong += muster_http_send_event(r, NULL, NULL, "x") != -EINVAL;
        wrong += muster_offload(NULL, NULL, NULL) != -EINVAL;
        muster_http_begin(r, 10);
        wrong += muster_http_respond(r, "x", 1) != -EALREADY || muster_http_set_status(r, 404) != -EALREADY;
        wrong += muster_http_write(r, "12345678901", 11) != -EMSGSIZE;
        wrong += muster_http_write(r, "123456789", 9) != 9;
        wrong += muster_http_write(r, wrong == 0 ? "0" : "X", 1) != 1;
        muster_http_end(r);
}

static void do_never(muster_http_request *r) {
        muster_http_set_close_handler(r, on_close, NULL);
}

static void do_abort_request(muster_http_request *r) {
        muster_http_abort(r);
}

static void answer_from_thread(void *request) {
        muster_http_respond(request, "", 0);
}

static void do_thread(muster_http_request *r) {
        muster_offload(answer_from_thread, NULL, r);
}

static void ask_for_event_from_thread(void *userdata) {
        muster_http_event();
}

static void do_event_thread(muster_http_request *r) {
        muster_offload(ask_for_event_from_thread, NULL, r);
}

/* Ends */

static int *volatile nowhere = (int *) 16;

static void crash(void *userdata) {
        *nowhere = 7;
}

static void do_segv(muster_http_request *r) {
        crash(NULL);
}

static int crash_in_loop(sd_event_source *s, void *userdata) {
        crash(NULL);
        return 0;
}

static void do_event_segv(muster_http_request *r) {
        sd_event_add_defer(muster_http_event(), NULL, crash_in_loop, NULL);
}

static void do_offload_segv(muster_http_request *r) {
        muster_offload(crash, NULL, NULL);
}

static int overflow(const volatile char *before, unsigned n) {
        volatile char here[4096];

        here[0] = before[0];
        return n == 0 ? 0 : overflow(here, n - 1) + here[0];
}

static void do_overflow(muster_http_request *r) {
        const char first[1] = { 1 };

        last_result = overflow(first, 1000000);
}

static void do_abort(muster_http_request *r) {
        abort();
}

static void do_hang(muster_http_request *r) {
        for (;;)
                pause();
}

/* The child has the connections open, and lives as long as this process. */
static void do_fork(muster_http_request *r) {
        if (fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        pause();
        }
        respond(r, "forked");
}

/* A child that dies before it has started its program. */
static void do_fork_abort(muster_http_request *r) {
        int status = 0;
        pid_t pid = fork();

        if (pid == 0)
                abort();
        waitpid(pid, &status, 0);
        respond(r, "%d", WTERMSIG(status));
}

static void do_exit_loop(muster_http_request *r) {
        sd_event_exit(muster_http_event(), 0);
}

static void do_retires(muster_http_request *r) {
        respond(r, "%d", retires);
}

static const struct {
        const char *path;
        void (*deed)(muster_http_request *r);
} deeds[] = {
        { "/look", do_look },
        { "/parameter", do_parameter },
        { "/still", do_still },
        { "/park", do_park },
        { "/release", do_release },
        { "/later", do_later },
        { "/prepare", do_prepare },
        { "/offload", do_offload },
        { "/open", do_open },
        { "/echo", do_echo },
        { "/early", do_early },
        { "/upload", do_upload },
        { "/resume", do_resume },
        { "/stream", do_stream },
        { "/left", do_left },
        { "/file", do_file },
        { "/events", do_events },
        { "/both-ways", do_both_ways },
        { "/emit", do_emit },
        { "/end", do_end_all },
        { "/closes", do_closes },
        { "/last", do_last },
        { "/twice", do_twice },
        { "/stale", do_stale },
        { "/wrong", do_wrong },
        { "/never", do_never },
        { "/abort-request", do_abort_request },
        { "/thread", do_thread },
        { "/event-thread", do_event_thread },
        { "/segv", do_segv },
        { "/event-segv", do_event_segv },
        { "/offload-segv", do_offload_segv },
        { "/overflow", do_overflow },
        { "/abort", do_abort },
        { "/hang", do_hang },
        { "/fork", do_fork },
        { "/fork-abort", do_fork_abort },
        { "/exit-loop", do_exit_loop },
        { "/retires", do_retires },
};

static void on_request(muster_http_request *r, void *state) {
        for (size_t i = 0; i < sizeof(deeds) / sizeof(*deeds); i++)
                if (strcmp(muster_http_get_path(r), deeds[i].path) == 0) {
                        deeds[i].deed(r);
                        return;
                }
        muster_http_respond_text(r, 200, "text/plain", "hello\n");
}

static int on_start(void **ret_state) {
        const char *error = getenv("DEEDS_START");

        sem_init(&gate, 0, 0);
        memset(block, 'x', sizeof(block));
        return error ? -atoi(error) : 0;
}

/* Streams end with the worker. */
static void on_retire(void *state) {
        retires++;
        say("retire");
        while (n_parked > 0)
                muster_http_end(parked[--n_parked]);
}

static void on_stop(void *state) {
        say("stop");
}

MUSTER_HTTP_MODULE("deeds", .start = on_start, .request = on_request, .retire = on_retire, .stop = on_stop);

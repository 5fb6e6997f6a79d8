/* SPDX-License-Identifier: MIT */
/* The module that tests/integration/twin/client.c visits, in the folder TWIN_FOLDER:
 *
 *   /m?id=&n=[&usec=|&thread=1]   so many bytes, at once, by a timer, or made by a thread
 *   /f/SIZE?id=                   a file
 *   /s?id=&n=&piece=[&usec=][&sized=1|&bare=1]  a stream with checkpoints; bare: without
 *   /keyed?id=&n=&body=&how=&read=  POST: its effect is made once for the name of the request
 *   /unkeyed                      likewise, it is made as often as this is called
 *
 * An effect is a symbolic link from the name to the id in the folder keyed, or a line in the file unkeyed.
 * How: now, before (the answer, which takes its time), after, or by a thread. And deeds for test_twin.py,
 * below. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <muster/http.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../twin/content.h"

#define PIECE_MAX 65536
#define POST_USEC 8000
#define ID_SIZE   128

static int folder = -1, keyed = -1, unkeyed = -1, lock = -1;
static unsigned n_served;

/* A request that takes its time. */
typedef struct Visit {
        muster_http_request *request; /* NULL: it is over */
        unsigned refs;
        sd_event_source *timer;
        void (*next)(struct Visit *v);
        uint64_t id, n, at, usec, body;
        size_t piece;
        bool bare, sized, is_keyed, right;
        char how; /* its first two letters tell them apart: see act() */
        char name[ID_SIZE];
        char *data;
        int result;
} Visit;

static uint64_t parameter(muster_http_request *r, const char *name, int base) {
        const char *value = muster_http_get_parameter(r, name);

        return value ? strtoull(value, NULL, base) : 0;
}

static Visit *visit_unref(Visit *v) {
        if (--v->refs > 0)
                return NULL;
        free(v->data);
        free(v);
        return NULL;
}

static void on_close(int error, void *userdata) {
        Visit *v = userdata;

        (void) error;
        v->request = NULL;
        sd_event_source_disable_unref(v->timer);
        v->timer = NULL;
        visit_unref(v);
}

static Visit *visit_new(muster_http_request *r) {
        Visit *v = calloc(1, sizeof(*v));

        if (!v)
                abort();
        *v = (Visit){
                .request = r,
                .refs = 1,
                .id = parameter(r, "id", 16),
                .n = parameter(r, "n", 10),
                .usec = parameter(r, "usec", 10),
                .right = true,
        };
        muster_http_set_close_handler(r, on_close, v);
        return v;
}

static int on_time(sd_event_source *s, uint64_t usec, void *userdata) {
        Visit *v = userdata;

        (void) usec;
        sd_event_source_set_enabled(s, SD_EVENT_OFF);
        v->next(v);
        return 0;
}

static void later(Visit *v, uint64_t usec, void (*next)(Visit *v)) {
        v->next = next;
        if (!v->timer) {
                if (sd_event_add_time_relative(muster_http_event(), &v->timer, CLOCK_MONOTONIC, usec, 1,
                                    on_time, v) < 0)
                        abort();
        } else if (sd_event_source_set_time_relative(v->timer, usec) < 0 ||
                        sd_event_source_set_enabled(v->timer, SD_EVENT_ONESHOT) < 0)
                abort();
}

static void add_id(muster_http_request *r, uint64_t id) {
        char text[17];

        snprintf(text, sizeof(text), "%016" PRIx64, id);
        muster_http_add_header(r, "X-Id", text);
}

/* What went wrong, which no client expects. */
__attribute__((format(printf, 2, 3))) static void complain(muster_http_request *r, const char *format, ...) {
        char text[256];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        fprintf(stderr, "module: %s\n", text);
        muster_http_respond_text(r, 500, "text/plain", text);
}

/* Memory */

static void make(Visit *v) {
        v->data = malloc(v->n + 1);
        if (!v->data)
                abort();
        content_fill(v->id, 0, v->data, v->n);
}

static void give(Visit *v) {
        if (!v->data)
                make(v);
        add_id(v->request, v->id);
        muster_http_respond(v->request, v->data, v->n);
}

static void work_make(void *userdata) {
        make(userdata);
}

static void made(void *userdata) {
        Visit *v = userdata;

        if (v->request)
                give(v);
        visit_unref(v);
}

static void do_memory(muster_http_request *r) {
        Visit *v = visit_new(r);

        if (muster_http_get_parameter(r, "thread")) {
                v->refs++;
                if (muster_offload(work_make, made, v) < 0)
                        abort();
        } else if (v->usec > 0)
                later(v, v->usec, give);
        else
                give(v);
}

static void do_file(muster_http_request *r) {
        int fd = openat(folder, muster_http_get_path(r) + 1, O_RDONLY | O_CLOEXEC), result;

        add_id(r, parameter(r, "id", 16));
        result = fd < 0 ? -errno : muster_http_respond_fd(r, fd, 0, MUSTER_HTTP_SIZE_UNKNOWN);
        if (result < 0)
                complain(r, "%s: %s", muster_http_get_target(r), strerror(-result));
}

/* Streams */

static int checkpoint(Visit *v) {
        return v->bare ? 0 : muster_http_checkpoint(v->request, &v->at, sizeof(v->at));
}

static void stream_end(Visit *v) {
        if (!v->sized)
                muster_http_add_trailer(v->request, "X-Sum", "1");
        muster_http_end(v->request);
}

static void stream_go_on(Visit *v) {
        char piece[PIECE_MAX];

        while (v->at < v->n) {
                size_t n = v->n - v->at < v->piece ? v->n - v->at : v->piece;
                ssize_t taken;

                content_fill(v->id, v->at, piece, n);
                taken = muster_http_write(v->request, piece, n);
                if (taken < 0)
                        return;
                v->at += (size_t) taken;
                if (taken > 0 && checkpoint(v) < 0)
                        return;
                if ((size_t) taken < n)
                        return;
                if (v->usec > 0 && v->at < v->n) {
                        later(v, v->usec, stream_go_on);
                        return;
                }
        }
        stream_end(v);
}

static void on_writable(muster_http_request *r, void *userdata) {
        (void) r;
        stream_go_on(userdata);
}

static void do_stream(muster_http_request *r) {
        Visit *v = visit_new(r);

        v->piece = parameter(r, "piece", 10);
        if (v->piece == 0 || v->piece > PIECE_MAX)
                v->piece = PIECE_MAX;
        v->bare = muster_http_get_parameter(r, "bare");
        v->sized = muster_http_get_parameter(r, "sized");
        if (!v->bare && muster_http_get_checkpoint(r, &v->at, sizeof(v->at)) != sizeof(v->at))
                v->at = 0;
        add_id(r, v->id);
        muster_http_set_writable_handler(r, on_writable, v);
        if (muster_http_begin(r, v->sized ? v->n : MUSTER_HTTP_SIZE_UNKNOWN) < 0 || checkpoint(v) < 0)
                return;
        stream_go_on(v);
}

/* Effects. Both are atomic to a death. */

static int make_keyed(const Visit *v) {
        char target[17], found[32];
        ssize_t n;

        snprintf(target, sizeof(target), "%016" PRIx64, v->id);
        if (symlinkat(target, keyed, v->name) == 0)
                return 0;
        if (errno != EEXIST)
                return -errno;
        n = readlinkat(keyed, v->name, found, sizeof(found));
        return n == 16 && memcmp(found, target, 16) == 0 ? 0 : -EILSEQ;
}

static int make_unkeyed(const Visit *v) {
        char line[18];

        snprintf(line, sizeof(line), "%016" PRIx64 "\n", v->id);
        return write(unkeyed, line, 17) == 17 ? 0 : -EIO;
}

static void effect(Visit *v) {
        v->result = v->is_keyed ? make_keyed(v) : make_unkeyed(v);
}

static void work_effect(void *userdata) {
        effect(userdata);
}

static void post_answer(Visit *v) {
        if (v->result < 0)
                complain(v->request, "the effect of %016" PRIx64 " failed: %s", v->id, strerror(-v->result));
        else
                give(v);
}

static void post_effect(Visit *v) {
        effect(v);
        post_answer(v);
}

static void effect_made(void *userdata) {
        Visit *v = userdata;

        if (v->request)
                post_answer(v);
        visit_unref(v);
}

/* The body is there. */
static void act(Visit *v) {
        switch (v->how) {
        case 'b':
                effect(v);
                later(v, POST_USEC, post_answer);
                break;
        case 'a':
                later(v, POST_USEC, post_effect);
                break;
        case 't':
                v->refs++;
                if (muster_offload(work_effect, effect_made, v) < 0)
                        abort();
                break;
        default:
                post_effect(v);
        }
}

static void check_piece(Visit *v, const char *data, size_t size) {
        size_t right = content_compare(~v->id, v->at, data, size);

        if (right < size && v->right) {
                v->right = false;
                complain(v->request, "the body of %016" PRIx64 " is wrong at %" PRIu64, v->id,
                                v->at + right);
        }
        v->at += size;
}

static void check_end(Visit *v) {
        if (!v->right)
                return;
        if (v->at != v->body)
                complain(v->request, "the body of %016" PRIx64 " has %" PRIu64 " bytes, not %" PRIu64, v->id,
                                v->at, v->body);
        else
                act(v);
}

static void on_piece(muster_http_request *r, const char *data, size_t size, int error, void *userdata) {
        Visit *v = userdata;

        (void) r;
        if (error < 0)
                return;
        if (data)
                check_piece(v, data, size);
        else
                check_end(v);
}

static void on_body(muster_http_request *r, const char *data, size_t size, int error, void *userdata) {
        Visit *v = userdata;

        (void) r;
        if (error < 0)
                return;
        check_piece(v, data, size);
        check_end(v);
}

/* The client's, when the worker @given none. */
static void set_name(Visit *v, const char *given) {
        if (given)
                snprintf(v->name, sizeof(v->name), "%s", given);
        else
                snprintf(v->name, sizeof(v->name), "%016" PRIx64, v->id);
}

static void post(muster_http_request *r, bool is_keyed, const char *given) {
        const char *how = muster_http_get_parameter(r, "how");
        Visit *v = visit_new(r);

        v->is_keyed = is_keyed;
        v->how = how ? how[0] : 'n';
        v->body = parameter(r, "body", 10);
        if (v->is_keyed)
                set_name(v, given);
        if (parameter(r, "read", 10) == 1)
                muster_http_read_body(r, 0, on_piece, v);
        else
                muster_http_collect(r, 0, on_body, v);
}

/* Up to the first line a death means that nobody knows whether it was done. */
static void do_keyed(muster_http_request *r) {
        const char *given = muster_http_request_id(r);

        post(r, true, given);
}

static void do_unkeyed(muster_http_request *r) {
        post(r, false, NULL);
}

/* Deeds */

__attribute__((format(printf, 2, 3))) static void say(muster_http_request *r, const char *format, ...) {
        char text[64];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        muster_http_respond_text(r, 200, "text/plain", text);
}

static void do_pid(muster_http_request *r) {
        say(r, "%d", getpid());
}

/* What this process has in its memory. */
static void do_served(muster_http_request *r) {
        say(r, "%u", n_served);
}

static void crash(void) {
        raise(SIGSEGV);
}

static void do_segv(muster_http_request *r) {
        (void) r;
        crash();
}

/* The first N times only. */
static void do_segv_times(muster_http_request *r) {
        uint64_t times = parameter(r, "times", 10);
        char mark[ID_SIZE];

        for (uint64_t i = 0; i < times; i++) {
                snprintf(mark, sizeof(mark), "segv-%016" PRIx64 "-%" PRIu64, parameter(r, "id", 16), i);
                if (mkdirat(folder, mark, 0755) == 0)
                        crash();
        }
        say(r, "%" PRIu64, times);
}

static void do_never(muster_http_request *r) {
        (void) r;
}

static void work_crash(void *userdata) {
        (void) userdata;
        crash();
}

static void do_thread_segv(muster_http_request *r) {
        muster_offload(work_crash, NULL, NULL);
        muster_http_respond_text(r, 200, "text/plain", "begun");
}

static void work_wait(void *userdata) {
        (void) userdata;
        for (;;)
                pause();
}

/* A thread that never ends. */
static void do_thread(muster_http_request *r) {
        if (muster_offload(work_wait, NULL, NULL) < 0)
                abort();
        say(r, "%d", getpid());
}

/* A child that does not end with its parent. */
static void do_fork(muster_http_request *r) {
        pid_t pid = fork();

        if (pid == 0)
                for (;;)
                        pause();
        say(r, "%d", pid);
}

static void do_lock(muster_http_request *r) {
        say(r, "%s", lock >= 0 ? "locked" : "open");
}

static const struct {
        const char *path;
        void (*deed)(muster_http_request *r);
} deeds[] = {
        { "/keyed", do_keyed },
        { "/unkeyed", do_unkeyed },
        { "/m", do_memory },
        { "/s", do_stream },
        { "/pid", do_pid },
        { "/served", do_served },
        { "/segv", do_segv },
        { "/segv-times", do_segv_times },
        { "/never", do_never },
        { "/thread", do_thread },
        { "/thread-segv", do_thread_segv },
        { "/fork", do_fork },
        { "/lock", do_lock },
};

static void on_request(muster_http_request *r, void *state) {
        const char *path = muster_http_get_path(r);

        (void) state;
        n_served++;
        if (strncmp(path, "/f/", 3) == 0) {
                do_file(r);
                return;
        }
        for (size_t i = 0; i < sizeof(deeds) / sizeof(*deeds); i++)
                if (strcmp(path, deeds[i].path) == 0) {
                        deeds[i].deed(r);
                        return;
                }
        muster_http_respond_status(r, 404);
}

/* As often as the file says. */
static bool is_due(const char *name) {
        char text[16] = "", mark[64];
        int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);

        if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
                return false;
        close(fd);
        for (long i = 0; i < atol(text); i++) {
                snprintf(mark, sizeof(mark), "%s-%ld", name, i);
                if (mkdirat(folder, mark, 0755) == 0)
                        return true;
        }
        return false;
}

/* Behind where the limit was when the worker was started. */
static int move_up(int fd, int number) {
        struct rlimit limit;
        int copy;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return -1;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
                return -1;
        copy = fcntl(fd, F_DUPFD_CLOEXEC, number);
        close(fd);
        return copy;
}

/* As a store would: one process at a time. */
static int take_lock(void) {
        struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

        lock = openat(folder, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (getenv("TWIN_HIGH"))
                lock = move_up(lock, atoi(getenv("TWIN_HIGH")));
        return lock < 0 || fcntl(lock, F_SETLK, &l) < 0 ? -errno : 0;
}

static int on_start(void **ret_state) {
        const char *path = getenv("TWIN_FOLDER");

        (void) ret_state;
        folder = path ? open(path, O_DIRECTORY | O_CLOEXEC) : -ENOENT;
        if (folder < 0)
                return -ENOENT;
        if (is_due("crash-in-start"))
                crash();
        if (is_due("fail-in-start"))
                return -ECONNREFUSED;
        if (mkdirat(folder, "keyed", 0755) < 0 && errno != EEXIST)
                return -errno;
        keyed = openat(folder, "keyed", O_DIRECTORY | O_CLOEXEC);
        unkeyed = openat(folder, "unkeyed", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (keyed < 0 || unkeyed < 0)
                return -errno;
        return getenv("TWIN_LOCK") ? take_lock() : 0;
}

MUSTER_HTTP_MODULE("twin", .start = on_start, .request = on_request);

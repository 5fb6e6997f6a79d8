/* SPDX-License-Identifier: MIT */
/* A module whose requests are run again after a death, in the folder RERUN_FOLDER, where the file "calls"
 * has a line for everything that a process was told:
 *
 *   /id                       the name of the request, asked for twice
 *   /effect[?deaths=][&anonymous=1][&body=1]  dies so often before it answers with its name; after its body
 *   /limits                   what the functions say that are called wrongly
 *   /stale                    likewise of the request before, which is over
 *   /stream?n=&piece=[&sized=1][&at=&when=before|after]  with a checkpoint behind every piece; dies
 *                             once, before or after that of the piece which ends behind `at`
 *   /events                   a checkpoint where there is none
 *   /other                    answers with a stream, and as a whole when that is to go on
 *
 * With REPEATABLE all requests may be run again; with OLD the module ends before the member that says so. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <muster/http.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_MAX  200000
#define PERIOD     251
#define PREFIX     "the state is "
#define STATE_SIZE 64

static int folder = -1;
static char content[PIECE_MAX + PERIOD];
static muster_http_request *last;

typedef struct Stream {
        uint64_t n, at, piece, end, die_at;
        bool after;
} Stream;

static uint64_t parameter(muster_http_request *r, const char *name) {
        const char *value = muster_http_get_parameter(r, name);

        return value ? strtoull(value, NULL, 10) : 0;
}

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...) {
        char line[128];
        va_list ap;
        int n, fd = openat(folder, "calls", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);

        va_start(ap, format);
        n = vsnprintf(line, sizeof(line), format, ap);
        va_end(ap);
        if (fd < 0 || write(fd, line, (size_t) n) != n)
                abort();
        close(fd);
}

/* So often in all. */
static void die(uint64_t times) {
        char mark[32];

        for (uint64_t i = 0; i < times; i++) {
                snprintf(mark, sizeof(mark), "death-%" PRIu64, i);
                if (mkdirat(folder, mark, 0755) == 0)
                        raise(SIGKILL);
        }
}

static void do_id(muster_http_request *r) {
        const char *first = muster_http_request_id(r), *second = muster_http_request_id(r);

        if (strcmp(first, second) != 0)
                abort();
        muster_http_respond_text(r, 200, "text/plain", first);
}

static void effect(muster_http_request *r) {
        bool anonymous = muster_http_get_parameter(r, "anonymous");
        const char *id = anonymous ? "anonymous" : muster_http_request_id(r);

        note("%s\n", id);
        die(parameter(r, "deaths"));
        muster_http_respond_text(r, 200, "text/plain", id);
}

static void on_body(muster_http_request *r, const char *data, size_t size, int error, void *userdata) {
        (void) userdata;
        if (error < 0)
                return;
        note("body %zu %c\n", size, size > 0 ? data[size - 1] : '-');
        effect(r);
}

static void do_effect(muster_http_request *r) {
        if (!muster_http_get_parameter(r, "body"))
                effect(r);
        else if (muster_http_request_id(r))
                muster_http_collect(r, 0, on_body, NULL);
}

/* Wrong calls */

static size_t put(char *text, size_t n, size_t at, const char *name, long result) {
        return at + (size_t) snprintf(text + at, n - at, "%s %ld\n", name, result);
}

static void do_limits(muster_http_request *r) {
        char state[MUSTER_HTTP_CHECKPOINT_MAX + 1] = "", text[512];
        size_t n = 0;

#define TRY(name, call) n = put(text, sizeof(text), n, name, (long) (call))
        TRY("none", muster_http_get_checkpoint(r, state, sizeof(state)));
        TRY("nowhere", muster_http_get_checkpoint(r, NULL, 0));
        TRY("early", muster_http_checkpoint(r, state, 1));
        muster_http_begin(r, MUSTER_HTTP_SIZE_UNKNOWN);
        TRY("null", muster_http_checkpoint(r, NULL, 1));
        TRY("empty", muster_http_checkpoint(r, state, 0));
        TRY("large", muster_http_checkpoint(r, state, MUSTER_HTTP_CHECKPOINT_MAX + 1));
        TRY("most", muster_http_checkpoint(r, state, MUSTER_HTTP_CHECKPOINT_MAX));
        TRY("begun", muster_http_get_checkpoint(r, state, sizeof(state)));
        muster_http_write(r, text, n);
        muster_http_end(r);
        n = 0;
        TRY("ended", muster_http_checkpoint(r, state, 1));
        note("%s", text);
}

static void do_stale(muster_http_request *r) {
        char state[MUSTER_HTTP_CHECKPOINT_MAX], text[512];
        size_t n = 0;

        TRY("id", (uintptr_t) muster_http_request_id(last));
        TRY("set", muster_http_checkpoint(last, state, sizeof(state)));
        TRY("get", muster_http_get_checkpoint(last, state, sizeof(state)));
        TRY("null", (uintptr_t) muster_http_request_id(NULL));
        muster_http_respond_text(r, 200, "text/plain", text);
}

/* Streams */

/* A text in front of the number, so that a piece of a state is told from the whole. */
static int checkpoint(muster_http_request *r, const Stream *s) {
        char state[STATE_SIZE] = "";

        snprintf(state, sizeof(state), PREFIX "%" PRIu64, s->at);
        return muster_http_checkpoint(r, state, sizeof(state));
}

static void resume(muster_http_request *r, Stream *s) {
        char state[STATE_SIZE] = "", piece[4] = "";
        size_t n = muster_http_get_checkpoint(r, state, sizeof(state));

        if (muster_http_get_checkpoint(r, piece, 3) != n || muster_http_get_checkpoint(r, NULL, 7) != n ||
                        memcmp(state, piece, 3) != 0)
                abort();
        if (n > 0 && (n != sizeof(state) || memcmp(state, PREFIX, strlen(PREFIX)) != 0))
                abort();
        s->at = n > 0 ? strtoull(state + strlen(PREFIX), NULL, 10) : 0;
        note("from %" PRIu64 "\n", s->at);
}

/* A piece may be taken in several. */
static bool send_piece(muster_http_request *r, Stream *s) {
        ssize_t taken = muster_http_write(r, content + s->at % PERIOD, s->end - s->at);
        if (taken < 0)
                return false;
        s->at += (uint64_t) taken;
        return s->at == s->end;
}

static void go_on(muster_http_request *r, void *userdata) {
        Stream *s = userdata;

        for (;;) {
                bool dies = s->die_at > 0 && s->end >= s->die_at;

                if (!send_piece(r, s))
                        return;
                if (dies && !s->after)
                        die(1);
                if (checkpoint(r, s) < 0)
                        return;
                if (dies && s->after)
                        die(1);
                if (s->at == s->n)
                        break;
                s->end = s->n - s->at < s->piece ? s->n : s->at + s->piece;
        }
        muster_http_end(r);
}

static void on_close(int error, void *userdata) {
        (void) error;
        free(userdata);
}

static void do_stream(muster_http_request *r) {
        const char *when = muster_http_get_parameter(r, "when");
        Stream *s = calloc(1, sizeof(*s));

        if (!s)
                abort();
        *s = (Stream){
                .n = parameter(r, "n"),
                .piece = parameter(r, "piece"),
                .die_at = parameter(r, "at"),
                .after = when && strcmp(when, "after") == 0,
        };
        muster_http_set_close_handler(r, on_close, s);
        muster_http_set_writable_handler(r, go_on, s);
        resume(r, s);
        s->end = s->n - s->at < s->piece ? s->n : s->at + s->piece;
        muster_http_add_header(r, "X-Test", "once");
        if (muster_http_begin(r, parameter(r, "sized") ? s->n : MUSTER_HTTP_SIZE_UNKNOWN) >= 0)
                go_on(r, s);
}

static void do_events(muster_http_request *r) {
        char text[32];

        muster_http_begin_events(r);
        snprintf(text, sizeof(text), "%d", muster_http_checkpoint(r, "x", 1));
        muster_http_send_comment(r, text);
        muster_http_end(r);
}

/* Of what a client has a part already the rest has to be given. */
static void do_other(muster_http_request *r) {
        if (muster_http_get_checkpoint(r, NULL, 0) > 0)
                muster_http_respond_text(r, 200, "text/plain", "something else");
        else {
                muster_http_begin(r, 1000);
                muster_http_write(r, "begun", 5);
                muster_http_checkpoint(r, "x", 1);
        }
}

static const struct {
        const char *path;
        void (*deed)(muster_http_request *r);
} deeds[] = {
        { "/id", do_id },
        { "/effect", do_effect },
        { "/limits", do_limits },
        { "/stale", do_stale },
        { "/stream", do_stream },
        { "/events", do_events },
        { "/other", do_other },
};

static void answer(muster_http_request *r) {
        const char *path = muster_http_get_path(r);

        for (size_t i = 0; i < sizeof(deeds) / sizeof(*deeds); i++)
                if (strcmp(path, deeds[i].path) == 0) {
                        deeds[i].deed(r);
                        return;
                }
        muster_http_respond_text(r, 200, "text/plain", "hello\n");
}

static void on_request(muster_http_request *r, void *state) {
        (void) state;
        answer(r);
        last = r;
}

static int on_start(void **ret_state) {
        const char *path = getenv("RERUN_FOLDER");

        (void) ret_state;
        for (size_t i = 0; i < sizeof(content); i++)
                content[i] = (char) (i % PERIOD);
        folder = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        return folder < 0 ? -errno : 0;
}

#if defined(REPEATABLE)
MUSTER_HTTP_MODULE("rerun", .start = on_start, .request = on_request, .repeatable = true);
#elif defined(OLD)
const muster_http_module muster_module = {
        .size = offsetof(muster_http_module, repeatable),
        .abi = MUSTER_HTTP_ABI,
        .name = "rerun",
        .start = on_start,
        .request = on_request,
        .repeatable = true, /* what is behind it in its memory says nothing */
};
#else
MUSTER_HTTP_MODULE("rerun", .start = on_start, .request = on_request);
#endif

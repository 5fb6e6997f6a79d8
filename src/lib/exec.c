/* SPDX-License-Identifier: MIT */
/* Running a program and collecting what it prints; the contract is in muster/exec.h. All of it is made of
 * muster_spawn() and its streams. */

#include "muster/exec.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/macro.h"
#include "basic/assert-return.h"
#include "lib/child.h"
#include "basic/options.h"

#define BUFFER_SIZE_FIRST 4096

#define EXEC_FLAGS (MUSTER_SPAWN_DIE_WITH_PARENT | MUSTER_SPAWN_SET_UID | MUSTER_SPAWN_SET_GID)

/* What one of the two streams has brought. */
typedef struct Collected {
        char *data;
        size_t used;
        size_t size;
} Collected;

/* A run, from the start to the handler's return. */
typedef struct Exec {
        muster_child *child; /* counted */
        muster_exec_handler_t handler;
        void *userdata;
        size_t max_buffer;
        Collected out;
        Collected err;
        muster_exec_result result;
} Exec;

static Exec *exec_free(Exec *e) {
        if (!e)
                return NULL;
        muster_child_unref(e->child);
        free(e->out.data);
        free(e->err.data);
        free(e);
        return NULL;
}

DEFINE_CLEANUP(Exec, exec_free)

/* Always leaves room for a NUL. */
static int collect(Collected *c, const void *data, size_t n) {
        if (c->used + n + 1 > c->size) {
                size_t size = MAX(c->used + n + 1, c->size == 0 ? (size_t) BUFFER_SIZE_FIRST : c->size * 2);
                char *larger = realloc(c->data, size);
                if (!larger)
                        return -ENOMEM;
                c->data = larger;
                c->size = size;
        }
        memcpy(c->data + c->used, data, n);
        c->used += n;
        c->data[c->used] = '\0';
        return 0;
}

static void close_stream(const Exec *e, unsigned fd) {
        muster_stream *s = muster_child_get_stream(e->child, fd);

        if (s)
                (void) muster_stream_close(s);
}

/* No more of it is wanted, and what escaped the group, and holds the pipes, is not waited for. */
static void stop_collecting(Exec *e, int error) {
        if (e->result.error == 0)
                e->result.error = error;
        close_stream(e, STDIN_FILENO);
        close_stream(e, STDOUT_FILENO);
        close_stream(e, STDERR_FILENO);
}

static void abandon(Exec *e, int error) {
        child_terminate(e->child); /* before its pipes close, or it could be SIGPIPE that ends it */
        stop_collecting(e, error);
}

static void on_timeout(void *userdata) {
        stop_collecting(userdata, -ETIMEDOUT);
}

static void on_data(muster_stream *stream, const void *data, size_t n, void *userdata) {
        Exec *e = userdata;
        Collected *c = stream == muster_child_get_stream(e->child, STDOUT_FILENO) ? &e->out : &e->err;
        size_t room = e->max_buffer - c->used;
        int r;

        r = collect(c, data, MIN(n, room));
        if (r < 0)
                abandon(e, r);
        else if (n > room)
                abandon(e, -ENOBUFS);
}

static void on_end(muster_stream *stream, int error, void *userdata) {
        Exec *e = userdata;

        if (error < 0)
                abandon(e, error);
}

static void on_exit_of_child(muster_child *child, int code, int status, void *userdata) {
        Exec *e = userdata;

        e->result.code = code;
        e->result.status = status;
}

static const char *text_of(const Collected *c) {
        return c->data ? c->data : "";
}

static void on_close(muster_child *child, void *userdata) {
        _cleanup_(exec_freep) Exec *e = userdata;

        e->result.out = text_of(&e->out);
        e->result.out_size = e->out.used;
        e->result.err = text_of(&e->err);
        e->result.err_size = e->err.used;
        e->handler(&e->result, e->userdata);
}

/* It has what it gets; the end of the file follows. A program that does not read it is no error. */
static int give_input(Exec *e, const muster_exec_options *o) {
        muster_stream *s = muster_child_get_stream(e->child, STDIN_FILENO);
        int r;

        if (!s)
                return 0;
        r = muster_stream_write(s, o->input, o->input_size);
        if (r < 0 && r != -EPIPE)
                return r;
        (void) muster_stream_end(s);
        return 0;
}

static int exec_start(
                sd_event *event, const muster_spawn_options *spawn, const muster_exec_options *o, Exec *e) {
        const muster_stream_handlers handlers = {
                .size = sizeof(handlers),
                .data = on_data,
                .end = on_end,
        };
        int r;

        r = child_spawn(event, spawn, /* with_channel= */ false, on_exit_of_child, e, &e->child);
        if (r < 0)
                return r;
        (void) muster_child_set_close_handler(e->child, on_close);
        child_set_timeout_handler(e->child, on_timeout);
        r = muster_stream_set_handlers(muster_child_get_stream(e->child, STDOUT_FILENO), &handlers, e);
        if (r >= 0)
                r = muster_stream_set_handlers(
                                muster_child_get_stream(e->child, STDERR_FILENO), &handlers, e);
        if (r >= 0)
                r = give_input(e, o);
        if (r < 0)
                child_give_up(e->child);
        return r;
}

static int run(sd_event *event, const char *program, char *const *argv, uint64_t flags,
                const muster_exec_options *options, muster_exec_handler_t handler, void *userdata,
                muster_child **ret_child) {
        muster_exec_options o = MUSTER_EXEC_OPTIONS_INIT;
        _cleanup_(exec_freep) Exec *e = NULL;
        int r;

        muster_assert_return(event && program && *program && handler, -EINVAL);
        muster_assert_return(!argv || argv[0], -EINVAL);
        if (options) {
                r = options_copy(
                                &o, sizeof(o), options, OPTIONS_SIZE_UP_TO(muster_exec_options, input_size));
                if (r < 0)
                        return r;
        }
        muster_assert_return(!(o.flags & ~EXEC_FLAGS), -EINVAL);
        muster_assert_return(o.max_buffer <= SIZE_MAX / 4 && o.timeout_usec <= UINT64_MAX / 4, -EINVAL);
        muster_assert_return(o.kill_signal >= 0 && o.kill_signal < _NSIG, -EINVAL);
        muster_assert_return(o.input || o.input_size == 0, -EINVAL);

        const muster_stdio stdio[] = {
                { .kind = o.input ? MUSTER_STDIO_PIPE : MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_PIPE },
        };
        const muster_spawn_options spawn = {
                .size = sizeof(spawn),
                .program = program,
                .argv = argv,
                .env = o.env,
                .stdio = stdio,
                .n_stdio = ELEMENTSOF(stdio),
                .flags = o.flags | flags | MUSTER_SPAWN_PROCESS_GROUP,
                .cwd = o.cwd,
                .uid = o.uid,
                .gid = o.gid,
                .timeout_usec = o.timeout_usec,
                .kill_signal = o.kill_signal,
        };
        e = calloc(1, sizeof(*e));
        if (!e)
                return -ENOMEM;
        e->handler = handler;
        e->userdata = userdata;
        e->max_buffer = o.max_buffer ? o.max_buffer : MUSTER_EXEC_MAX_BUFFER_DEFAULT;
        r = exec_start(event, &spawn, &o, e);
        if (r < 0)
                return r;
        if (ret_child)
                *ret_child = muster_child_ref(e->child);
        TAKE_PTR(e); /* on_close() frees it */
        return 0;
}

_public_ int muster_exec(sd_event *event, const char *command, const muster_exec_options *options,
                muster_exec_handler_t handler, void *userdata, muster_child **ret_child) {
        return run(event, command, NULL, MUSTER_SPAWN_SHELL, options, handler, userdata, ret_child);
}

_public_ int muster_exec_file(sd_event *event, const char *file, char *const *argv,
                const muster_exec_options *options, muster_exec_handler_t handler, void *userdata,
                muster_child **ret_child) {
        return run(event, file, argv, 0, options, handler, userdata, ret_child);
}

/* One block: the result, and both texts behind it. */
static muster_exec_result *copy_result(const muster_exec_result *from) {
        muster_exec_result *to = malloc(sizeof(*to) + from->out_size + from->err_size + 2);

        if (!to)
                return NULL;
        char *out = (char *) (to + 1), *err = out + from->out_size + 1;
        memcpy(out, from->out, from->out_size + 1);
        memcpy(err, from->err, from->err_size + 1);
        *to = *from;
        to->out = out;
        to->err = err;
        return to;
}

typedef struct Sync {
        sd_event *event;
        muster_exec_result *result;
} Sync;

static void on_result(const muster_exec_result *result, void *userdata) {
        Sync *s = userdata;

        s->result = copy_result(result);
        (void) sd_event_exit(s->event, s->result ? 0 : -ENOMEM);
}

_public_ int muster_exec_file_sync(const char *file, char *const *argv, const muster_exec_options *options,
                muster_exec_result **ret) {
        Sync s = { .event = NULL };
        int r;

        muster_assert_return(ret, -EINVAL);
        r = sd_event_new(&s.event);
        if (r < 0)
                return r;
        r = muster_exec_file(s.event, file, argv, options, on_result, &s, NULL);
        if (r >= 0)
                r = sd_event_loop(s.event);
        sd_event_unref(s.event);
        if (r >= 0)
                *ret = s.result;
        else
                free(s.result);
        return r;
}

_public_ muster_exec_result *muster_exec_result_free(muster_exec_result *result) {
        free(result);
        return NULL;
}

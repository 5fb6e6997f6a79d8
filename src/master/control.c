/* SPDX-License-Identifier: MIT */
/* The control socket and muster-admin; see control.h.
 *
 * Of three things one is always the case: the socket is watched and muster-admin does not run; it runs, and
 * accepts; or it has died and there is a pause before the socket is watched again, during which clients wait
 * in the socket's queue. */

#include "master/control.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/list.h"
#include "basic/log.h"
#include "basic/parse.h"
#include "basic/restart.h"
#include "ipc/json.h"
#include "master/command.h"
#include "master/variable.h"
#include "muster/process.h"

/* What muster-admin may say at once: a message to workers, and what is around it. */
#define RECEIVE_MAX (CONTROL_MESSAGE_MAX + 1024)

/* What it may be told at once: the status of 2 × 256 workers, with all their texts. */
#define SEND_MAX (1024 * 1024)

#define REQUESTS_MAX 64

#define STOP_TIMEOUT_USEC (2 * USEC_PER_SEC)

/* It ended by itself, as it does when nobody asks; but so soon that it cannot have waited for anybody. */
#define TOO_SOON_USEC USEC_PER_SEC

static const RestartPolicy restart_policy = {
        .backoff_min_usec = 100 * USEC_PER_MSEC,
        .backoff_max_usec = 15 * USEC_PER_SEC,
};

struct Control {
        int listen_fd;
        const char *app; /* borrowed, like the handlers */
        const ControlHandlers *handlers;
        void *userdata;

        sd_event *event; /* counted; NULL: not attached yet */
        sd_event_source *listen;
        sd_event_source *pause; /* before the socket is watched again */

        muster_child *child; /* NULL: it does not run */
        uint64_t serial;     /* of the process, so that no other gets an answer that was meant for it */
        uint64_t started_usec;
        Restart restart;

        List requests; /* those that are not finished, of processes that are gone too */
        unsigned n_requests;

        void (*on_stopped)(void *userdata); /* NULL: not stopping */
        sd_event_source *stop;              /* of the time-out, or of the call from the loop */
};

struct ControlRequest {
        List node;
        Control *control; /* NULL: freed */
        uint64_t serial;
        uint64_t id;
};

static void control_resume(Control *c, uint64_t delay_usec);

/*
 * Answers
 */

static muster_channel *control_channel(const Control *c) {
        return c->child ? muster_child_get_channel(c->child) : NULL;
}

/* A message that cannot be sent finds nobody: the channel has ended, and the process will be told apart. */
static void control_send(Control *c, uint64_t id, const char *json, size_t n) {
        char text[128];
        int r;

        r = muster_channel_send_full(
                        control_channel(c), json, n, /* fd= */ -1, MUSTER_HANDLE_AUTO, NULL, NULL);
        if (r == -EMSGSIZE || r == -ENOBUFS) {
                int k = snprintf(text, sizeof(text),
                                "{\"cmd\":\"MUSTER\",\"act\":\"reply\",\"id\":%" PRIu64
                                ",\"error\":{\"code\":\"failed\",\"message\":\"The answer is too long.\"}}",
                                id);
                r = muster_channel_send_full(
                                control_channel(c), text, (size_t) k, -1, MUSTER_HANDLE_AUTO, NULL, NULL);
        }
        if (r < 0)
                log_debug_errno(r, "Failed to answer muster-admin: %m");
}

static void control_reply(Control *c, uint64_t id, const char *code, const char *text) {
        _cleanup_free_ char *json = NULL;
        char message[1024];
        int n;

        if (code) {
                (void) json_append_string(message, sizeof(message), 0, text);
                n = asprintf(&json,
                                "{\"cmd\":\"MUSTER\",\"act\":\"reply\",\"id\":%" PRIu64
                                ",\"error\":{\"code\":\"%s\",\"message\":%s}}",
                                id, code, message);
        } else
                n = asprintf(&json,
                                "{\"cmd\":\"MUSTER\",\"act\":\"reply\",\"id\":%" PRIu64 ",\"result\":%s}",
                                id, text ? text : "{}");
        if (n < 0) {
                json = NULL;
                log_oom();
                return;
        }
        control_send(c, id, json, (size_t) n);
}

/* What can be told at once. */
static void control_reply_written(Control *c, uint64_t id, void (*write)(FILE *f, void *userdata)) {
        _cleanup_free_ char *json = NULL;
        size_t n = 0;
        FILE *f = open_memstream(&json, &n);

        if (f) {
                fprintf(f, "{\"cmd\":\"MUSTER\",\"act\":\"reply\",\"id\":%" PRIu64 ",\"result\":", id);
                write(f, c->userdata);
                fputc('}', f);
        }
        if (!f || fclose(f) != 0)
                log_oom();
        else
                control_send(c, id, json, n);
}

void control_request_finish(ControlRequest *request, const char *code, const char *text) {
        Control *c = request->control;

        if (c) {
                list_remove(&request->node);
                c->n_requests--;
                if (c->child && c->serial == request->serial)
                        control_reply(c, request->id, code, text);
        }
        free(request);
}

/*
 * Requests
 */

/* Whatever it is that speaks there, it is not muster-admin as it should be. */
static void control_refuse(Control *c, const char *why) {
        log_error("muster-admin (pid %d) sent what the master does not take (%s), killing it.",
                        control_get_pid(c), why);
        (void) muster_channel_disconnect(control_channel(c));
        (void) muster_child_kill_group(c->child, SIGKILL);
}

static int span_to_uint64(JsonSpan span, uint64_t *ret) {
        char buf[24];

        if (!span.p || span.n >= sizeof(buf))
                return -EINVAL;
        memcpy(buf, span.p, span.n);
        buf[span.n] = '\0';
        return parse_uint64(buf, ret);
}

static ControlRequest *control_request_new(Control *c, uint64_t id) {
        ControlRequest *request = NULL;

        if (c->n_requests < REQUESTS_MAX)
                request = malloc(sizeof(*request));
        if (!request) {
                control_reply(c, id, "busy", "Too many requests are under way.");
                return NULL;
        }
        *request = (ControlRequest){ .control = c, .serial = c->serial, .id = id };
        list_append(&c->requests, &request->node);
        c->n_requests++;
        return request;
}

static void control_reload(Control *c, uint64_t id) {
        ControlRequest *request = control_request_new(c, id);

        if (request)
                c->handlers->reload(request, c->userdata);
}

static void control_scale(Control *c, uint64_t id, JsonSpan workers) {
        ControlRequest *request;
        uint64_t n;

        if (span_to_uint64(workers, &n) < 0 || n < 1 || n > CONTROL_WORKERS_MAX) {
                control_reply(c, id, "invalid",
                                "The number of workers must be from 1 to " STRINGIFY(
                                                CONTROL_WORKERS_MAX) ".");
                return;
        }
        request = control_request_new(c, id);
        if (request)
                c->handlers->scale(request, (unsigned) n, c->userdata);
}

static void control_deliver(Control *c, uint64_t id, JsonSpan worker, JsonSpan message) {
        ControlRequest *request;
        uint64_t slot = 0;

        if (worker.p && (span_to_uint64(worker, &slot) < 0 || slot < 1 || slot > CONTROL_WORKERS_MAX)) {
                control_reply(c, id, "invalid",
                                "The worker must be from 1 to " STRINGIFY(CONTROL_WORKERS_MAX) ".");
                return;
        }
        if (!message.p || message.n > CONTROL_MESSAGE_MAX) {
                control_reply(c, id, "invalid",
                                message.p ? "The message is too long." : "There is no message.");
                return;
        }
        request = control_request_new(c, id);
        if (request)
                c->handlers->send(request, (unsigned) slot, message.p, message.n, c->userdata);
}

static void control_take(Control *c, const char *json, size_t n) {
        enum { CMD, ACT, ID, WORKERS, WORKER, MESSAGE };
        JsonMember members[] = { [CMD] = { .name = "cmd" },
                [ACT] = { .name = "act" },
                [ID] = { .name = "id" },
                [WORKERS] = { .name = "workers" },
                [WORKER] = { .name = "worker" },
                [MESSAGE] = { .name = "message" } };
        JsonSpan act;
        uint64_t id;

        if (n > RECEIVE_MAX) {
                control_refuse(c, "a message that is too long");
                return;
        }
        if (json_scan(json, n, members, ELEMENTSOF(members)) < 0 ||
                        !json_span_is(members[CMD].value, "MUSTER") || !members[ACT].value.p ||
                        span_to_uint64(members[ID].value, &id) < 0) {
                control_refuse(c, "no request");
                return;
        }

        act = members[ACT].value;
        if (json_span_is(act, "list"))
                control_reply_written(c, id, c->handlers->write_status);
        else if (json_span_is(act, "exits"))
                control_reply_written(c, id, c->handlers->write_exits);
        else if (json_span_is(act, "reload"))
                control_reload(c, id);
        else if (json_span_is(act, "scale"))
                control_scale(c, id, members[WORKERS].value);
        else if (json_span_is(act, "send"))
                control_deliver(c, id, members[WORKER].value, members[MESSAGE].value);
        else /* after an upgrade muster-admin is newer than the master that runs */
                control_reply(c, id, "unknown",
                                "The master does not know this request: it is older than muster-admin.");
}

static void on_message(muster_channel *channel, muster_message *message, void *userdata) {
        Control *c = userdata;
        size_t n;
        const char *json = muster_message_get_json(message, &n);

        if (muster_message_get_fd(message) >= 0)
                control_refuse(c, "a descriptor");
        else
                control_take(c, json, n);
}

/* It closes its end when it ends; anything else is no way to go on. */
static void on_disconnected(muster_channel *channel, int error, void *userdata) {
        Control *c = userdata;

        if (error < 0 && error != -EPIPE && error != -ECONNRESET)
                log_full(LOG_ERR, error, NULL, "The channel to muster-admin (pid %d) failed, killing it: %m",
                                control_get_pid(c));
        (void) muster_child_kill_group(c->child, error < 0 ? SIGKILL : SIGTERM);
}

/*
 * The process
 */

static void control_finish_stop(Control *c) {
        void (*handler)(void *) = c->on_stopped;

        c->stop = sd_event_source_disable_unref(c->stop);
        c->on_stopped = NULL;
        handler(c->userdata);
}

static bool log_end(pid_t pid, int code, int status) {
        if (code == CLD_EXITED && status == 0) {
                log_debug("muster-admin (pid %d) has ended.", pid);
                return true;
        }
        if (code == CLD_EXITED)
                log_event(LOG_ERR, (.message_id = MESSAGE_ID_ADMIN_ENDED),
                                "muster-admin (pid %d) exited with status %d.", pid, status);
        else
                log_event(LOG_ERR, (.message_id = MESSAGE_ID_ADMIN_ENDED),
                                "muster-admin (pid %d) was killed by signal %d.", pid, status);
        return false;
}

static void on_child_exit(muster_child *child, int code, int status, void *userdata) {
        Control *c = userdata;
        uint64_t lived_usec = clock_now_usec() - c->started_usec, delay_usec = 0;
        bool well = log_end(muster_child_get_pid(child), code, status);

        (void) muster_child_kill_group(child, SIGKILL);
        c->child = muster_child_unref(c->child);
        if (c->on_stopped) {
                control_finish_stop(c);
                return;
        }
        if (well && lived_usec >= TOO_SOON_USEC)
                c->restart = (Restart){ .early_deaths = 0 };
        else
                delay_usec = restart_after_death(&c->restart, &restart_policy, clock_now_usec(), lived_usec);
        control_resume(c, delay_usec);
}

/* What muster-admin has beyond the master's own environment; the library adds the channel. */
typedef struct Additions {
        char text[4][128];
        size_t n;
} Additions;

static _printf_(2, 3) void add(Additions *a, const char *format, ...) {
        va_list ap;

        assert(a->n < ELEMENTSOF(a->text));
        va_start(ap, format);
        vsnprintf(a->text[a->n++], sizeof(a->text[0]), format, ap);
        va_end(ap);
}

/* The strings stay whose they are; the vector is the caller's. */
static char **make_environment(Additions *additions) {
        size_t n = 0, k = 0;
        char **env;

        for (char **e = environ; *e; e++)
                n++;
        env = calloc(n + additions->n + 1, sizeof(char *));
        if (!env)
                return NULL;
        for (char **e = environ; *e; e++)
                if (!variable_is_private(*e))
                        env[k++] = *e;
        for (size_t i = 0; i < additions->n; i++)
                env[k++] = additions->text[i];
        return env;
}

static int control_spawn(Control *c, const char *program) {
        muster_channel_options channel = MUSTER_CHANNEL_OPTIONS_INIT;
        muster_spawn_options options = MUSTER_SPAWN_OPTIONS_INIT;
        const muster_stdio stdio[] = {
                { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_INHERIT },
                { .kind = MUSTER_STDIO_INHERIT },
                { .kind = MUSTER_STDIO_FD, .fd = c->listen_fd },
                { .kind = MUSTER_STDIO_IPC },
        };
        _cleanup_free_ char **env = NULL;
        Additions additions = { .n = 0 };

        add(&additions, "MUSTER_APP=%s", c->app);
        add(&additions, "MUSTER_MASTER_PID=%d", getpid());
        add(&additions, "LISTEN_FDS=1");
        add(&additions, "LISTEN_FDNAMES=control");
        env = make_environment(&additions);
        if (!env)
                return -ENOMEM;

        channel.max_message_bytes = channel.max_queue_bytes = SEND_MAX;
        options.program = program;
        options.env = env;
        options.stdio = stdio;
        options.n_stdio = ELEMENTSOF(stdio);
        options.flags = MUSTER_SPAWN_DIE_WITH_PARENT | MUSTER_SPAWN_PROCESS_GROUP;
        options.channel = &channel;
        return muster_spawn(c->event, &options, on_child_exit, c, &c->child);
}

static int control_start(Control *c) {
        muster_channel_handlers handlers = MUSTER_CHANNEL_HANDLERS_INIT;
        _cleanup_free_ char *program = NULL;
        int r;

        if (asprintf(&program, "%s/muster-admin", command_libexec_dir()) < 0) {
                program = NULL;
                return log_oom();
        }
        r = control_spawn(c, program);
        if (r < 0)
                return log_error_errno(r, "Failed to start %s: %m", program);

        c->serial++;
        c->started_usec = clock_now_usec();
        handlers.message = on_message;
        handlers.disconnected = on_disconnected;
        r = muster_channel_set_handlers(control_channel(c), &handlers, c);
        if (r < 0) {
                (void) muster_child_kill_group(c->child, SIGKILL); /* the exit handler does the rest */
                log_error_errno(r, "Failed to listen to muster-admin: %m");
        }
        log_debug("Started muster-admin (pid %d).", control_get_pid(c));
        return 0;
}

/*
 * The socket
 */

static int on_connection(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Control *c = userdata;

        /* From now on muster-admin accepts, and this would be a busy loop. */
        (void) sd_event_source_set_enabled(c->listen, SD_EVENT_OFF);
        if (control_start(c) < 0)
                control_resume(c, restart_after_death(&c->restart, &restart_policy, clock_now_usec(), 0));
        return 0;
}

static int on_pause_over(sd_event_source *source, uint64_t usec, void *userdata) {
        control_resume(userdata, 0);
        return 0;
}

/* Watches the socket, at once or after a pause. */
static void control_resume(Control *c, uint64_t delay_usec) {
        int r;

        c->pause = sd_event_source_disable_unref(c->pause);
        if (delay_usec == 0)
                r = sd_event_source_set_enabled(c->listen, SD_EVENT_ON);
        else
                r = sd_event_add_time_relative(c->event, &c->pause, CLOCK_MONOTONIC, delay_usec,
                                clock_accuracy_usec(delay_usec), on_pause_over, c);
        if (r < 0)
                log_error_errno(r,
                                "Failed to watch the control socket, it is dead until the next start: %m");
}

int control_new(int listen_fd, const char *app, const ControlHandlers *handlers, void *userdata,
                Control **ret) {
        Control *c = calloc(1, sizeof(*c));

        if (!c)
                return -ENOMEM;
        *c = (Control){
                .listen_fd = listen_fd,
                .app = app,
                .handlers = handlers,
                .userdata = userdata,
        };
        list_init(&c->requests);
        *ret = c;
        return 0;
}

int control_attach(Control *c, sd_event *event) {
        int r;

        r = sd_event_add_io(event, &c->listen, c->listen_fd, EPOLLIN, on_connection, c);
        if (r >= 0)
                c->event = sd_event_ref(event);
        return r;
}

pid_t control_get_pid(const Control *c) {
        return c->child ? muster_child_get_pid(c->child) : 0;
}

/*
 * The end
 */

static int on_nothing_to_stop(sd_event_source *source, void *userdata) {
        control_finish_stop(userdata);
        return 0;
}

static int on_stop_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
        Control *c = userdata;

        c->stop = sd_event_source_disable_unref(c->stop);
        log_warning("muster-admin (pid %d) did not finish, killing it.", control_get_pid(c));
        (void) muster_child_kill_group(c->child, SIGKILL);
        return 0;
}

int control_stop(Control *c, void (*handler)(void *userdata)) {
        int r;

        if (!c->event)
                return -EUNATCH;
        if (c->on_stopped)
                return -EALREADY;
        if (c->child)
                r = sd_event_add_time_relative(c->event, &c->stop, CLOCK_MONOTONIC, STOP_TIMEOUT_USEC,
                                clock_accuracy_usec(STOP_TIMEOUT_USEC), on_stop_timeout, c);
        else
                r = sd_event_add_defer(c->event, &c->stop, on_nothing_to_stop, c);
        if (r < 0)
                return r;

        c->on_stopped = handler;
        c->listen = sd_event_source_disable_unref(c->listen);
        c->pause = sd_event_source_disable_unref(c->pause);
        if (c->child)
                (void) muster_child_kill(c->child, SIGTERM);
        return 0;
}

Control *control_free(Control *c) {
        if (!c)
                return NULL;
        list_foreach_safe (node, &c->requests) {
                ControlRequest *request = list_entry(node, ControlRequest, node);

                list_remove(node);
                request->control = NULL;
        }
        if (c->child)
                (void) muster_child_kill_group(c->child, SIGKILL);
        muster_child_unref(c->child);
        sd_event_source_disable_unref(c->listen);
        sd_event_source_disable_unref(c->pause);
        sd_event_source_disable_unref(c->stop);
        sd_event_unref(c->event);
        safe_close(c->listen_fd);
        free(c);
        return NULL;
}

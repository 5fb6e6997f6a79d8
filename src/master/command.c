/* SPDX-License-Identifier: MIT */
/* Command lines and environments of workers; see command.h. */

#include "master/command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "basic/parse.h"
#include "board/board.h"
#include "build-config.h"
#include "master/variable.h"

#define FIRST_SOCKET_FD 3
#define ARGUMENTS_MAX   16

Command *command_free(Command *c) {
        if (!c)
                return NULL;
        for (char **s = c->argv; s && *s; s++)
                free(*s);
        for (char **s = c->env; s && *s; s++)
                free(*s);
        free(c->argv);
        free(c->env);
        free(c->program);
        free(c);
        return NULL;
}

/* Appends to a zeroed vector whose size the caller knows to be enough. */
static _printf_(3, 4) int append(char **strv, size_t *n, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        int r = vasprintf(strv + *n, format, ap);
        va_end(ap);
        if (r < 0) {
                strv[*n] = NULL;
                return -ENOMEM;
        }
        (*n)++;
        return 0;
}

static int make_environment(Command *c, const CommandIdentity *id) {
        size_t n = 0, board_fd = FIRST_SOCKET_FD + id->n_sockets;
        int r = 0;

        for (char **e = environ; *e; e++)
                n++;
        c->env = calloc(n + ARGUMENTS_MAX, sizeof(char *));
        if (!c->env)
                return -ENOMEM;

        n = 0;
        for (char **e = environ; *e && r >= 0; e++)
                if (!variable_is_private(*e))
                        r = append(c->env, &n, "%s", *e);
        if (r < 0 || append(c->env, &n, "MUSTER_MASTER_PID=%d", getpid()) < 0 ||
                        append(c->env, &n, "MUSTER_APP=%s", id->app) < 0 ||
                        append(c->env, &n, "MUSTER_WORKER=%u", id->slot) < 0 ||
                        append(c->env, &n, "MUSTER_GENERATION=%" PRIu64, id->generation) < 0 ||
                        append(c->env, &n, "%s", id->mark) < 0 ||
                        append(c->env, &n, "LISTEN_FDS=%zu", id->n_sockets) < 0 ||
                        append(c->env, &n, "LISTEN_FDNAMES=%s", id->socket_names) < 0 ||
                        append(c->env, &n, BOARD_ENV_FD "=%zu", board_fd) < 0 ||
                        append(c->env, &n, BOARD_ENV_BELL_FD "=%zu", board_fd + 1) < 0 ||
                        append(c->env, &n, BOARD_ENV_CELL "=%u", id->board_cell) < 0)
                return -ENOMEM;
        if (id->notify_socket && append(c->env, &n, "NOTIFY_SOCKET=%s", id->notify_socket) < 0)
                return -ENOMEM;
        if (id->watchdog_usec > 0 && append(c->env, &n, "WATCHDOG_USEC=%" PRIu64, id->watchdog_usec) < 0)
                return -ENOMEM;
        return 0;
}

const char *command_libexec_dir(void) {
        const char *e = getenv("MUSTER_LIBEXECDIR");

        return e && *e ? e : LIBEXECDIR;
}

static int make_static(Command *c, const Config *cf, const CommandIdentity *id) {
        char idle[DURATION_STRING_MAX], request[DURATION_STRING_MAX], send[DURATION_STRING_MAX];
        char head[SIZE_STRING_MAX];
        size_t n = 0;

        if (asprintf(&c->program, "%s/muster-worker", command_libexec_dir()) < 0) {
                c->program = NULL;
                return -ENOMEM;
        }
        c->argv = calloc(ARGUMENTS_MAX, sizeof(char *));
        if (!c->argv)
                return -ENOMEM;

        if (append(c->argv, &n, "%s", c->program) < 0 ||
                        append(c->argv, &n, "--directory=%s", cf->app_directory) < 0 ||
                        append(c->argv, &n, "--idle-timeout=%s",
                                        duration_to_string(cf->http_idle_timeout_usec, idle)) < 0 ||
                        append(c->argv, &n, "--request-timeout=%s",
                                        duration_to_string(cf->http_request_timeout_usec, request)) < 0 ||
                        append(c->argv, &n, "--send-timeout=%s",
                                        duration_to_string(cf->http_send_timeout_usec, send)) < 0 ||
                        append(c->argv, &n, "--max-request-head=%s",
                                        size_to_string(cf->http_max_request_head_bytes, head)) < 0 ||
                        append(c->argv, &n, "--max-connections=%u", cf->http_max_connections) < 0)
                return -ENOMEM;
        if (id->max_requests > 0 && append(c->argv, &n, "--max-requests=%" PRIu64, id->max_requests) < 0)
                return -ENOMEM;
        if (cf->app_whoami && append(c->argv, &n, "--whoami") < 0)
                return -ENOMEM;
        return 0;
}

int command_new(const Config *config, const CommandIdentity *identity, Command **ret) {
        _cleanup_(command_freep) Command *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return -ENOMEM;
        r = make_static(c, config, identity);
        if (r < 0)
                return r;
        r = make_environment(c, identity);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(c);
        return 0;
}

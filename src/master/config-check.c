/* SPDX-License-Identifier: MIT */
/* How the keys of the configuration go together; see config-check.h. */

#include "master/config-check.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/parse.h"
#include "master/config-schema.h"
#include "master/config-value.h"
#include "master/environment-file.h"
#include "master/expand.h"
#include "master/node-start.h"
#include "state/url.h"

#define refuse(c, member, ret_error, ...) config_refuse(c, offsetof(Config, member), ret_error, __VA_ARGS__)

/* A machine that is only busy delays any process by some milliseconds. */
#define WATCHDOG_MIN_USEC (100 * USEC_PER_MSEC)

static int check_times(const Config *c, char **ret_error) {
        char a[DURATION_STRING_MAX], b[DURATION_STRING_MAX];

        if (c->workers_watchdog_usec > 0 && c->workers_watchdog_usec < WATCHDOG_MIN_USEC)
                return refuse(c, workers_watchdog_usec, ret_error, "found %s, expected 0 or at least %s",
                                duration_to_string(c->workers_watchdog_usec, a),
                                duration_to_string(WATCHDOG_MIN_USEC, b));
        if (c->restart_backoff_min_usec > c->restart_backoff_max_usec)
                return refuse(c, restart_backoff_min_usec, ret_error,
                                "found %s, expected at most restart.backoff_max (%s)",
                                duration_to_string(c->restart_backoff_min_usec, a),
                                duration_to_string(c->restart_backoff_max_usec, b));
        return 0;
}

static const char *kind_name(unsigned kind) {
        static const char *const names[_APP_KIND_MAX] = { [APP_STATIC] = "static",
                [APP_PROGRAM] = "program",
                [APP_NODE] = "node",
                [APP_MODULE] = "module" };

        return names[kind];
}

#define KINDS_MAX 64

static const char *kinds_to_string(unsigned kinds, char buf[static KINDS_MAX]) {
        size_t n = 0;

        for (unsigned kind = 0; kind < _APP_KIND_MAX; kind++)
                if (kinds & (1U << kind))
                        n += (size_t) snprintf(buf + n, KINDS_MAX - n, "%s\"%s\"", n ? " or " : "",
                                        kind_name(kind));
        return buf;
}

/* Anything but its default is refused where a key is not known. */
static int check_kind(const Config *c, char **ret_error) {
        char kinds[KINDS_MAX];

        for (const ConfigKey *k = config_keys; k < config_keys + n_config_keys; k++)
                if (!config_key_is_known(k, c->app_kind) && !config_value_is_default(c, k))
                        return config_refuse(c, k->offset, ret_error,
                                        "found it with app.kind = \"%s\", expected it with %s only: %s",
                                        kind_name(c->app_kind), kinds_to_string(k->kinds, kinds), k->why);
        return 0;
}

static int check_balance(const Config *c, char **ret_error) {
        bool passes = c->workers_balance != BALANCE_AUTO && c->workers_balance != BALANCE_INHERIT;

        if (passes && c->app_kind != APP_NODE)
                return refuse(c, workers_balance, ret_error,
                                "found one that passes connections on, with app.kind = \"%s\", expected \"auto\" or "
                                "\"inherit\": only to a worker of kind \"node\" can a connection be passed",
                                kind_name(c->app_kind));
        if (c->workers_proxy_protocol && c->app_kind == APP_NODE && c->workers_balance == BALANCE_INHERIT)
                return refuse(c, workers_proxy_protocol, ret_error,
                                "found true with workers.balance = \"inherit\", expected false: the header can be taken "
                                "only from connections that the master passes on");
        return 0;
}

static int check_twin(const Config *c, char **ret_error) {
        if (c->workers_twin && !app_kind_is_native(c->app_kind))
                return refuse(c, workers_twin, ret_error,
                                "found true with app.kind = \"%s\", expected false: only from a native worker can "
                                "another process take over",
                                kind_name(c->app_kind));
        return 0;
}

/* An agent is no worker, and has no sockets. */
static ExpandFlags expand_flags(const Config *c) {
        const Config *app = c->app ? c->app : c;
        ExpandFlags flags = app->state_url ? EXPAND_STATE : 0;

        if (!c->agent_name)
                flags |= EXPAND_WORKER | (c->app_kind == APP_PROGRAM ? EXPAND_SOCKETS : 0);
        return flags;
}

static int check_words(const Config *c, char **ret_error) {
        _cleanup_free_ char *error = NULL;
        int r = 0;

        for (char **w = c->app_command; r == 0 && w && *w; w++)
                r = expand_check(*w, expand_flags(c), &error);
        return r == EXPAND_INVALID ? refuse(c, app_command, ret_error, "%s", error) : r;
}

/* The name is all that is shown of a variable: its value may be a secret. */
static int check_environment(const Config *c, char **ret_error) {
        _cleanup_free_ char *error = NULL;
        int r;

        for (char **v = c->app_environment; v && *v; v++) {
                size_t n = strcspn(*v, "=");

                r = expand_check(*v + n + 1, expand_flags(c), &error);
                if (r == EXPAND_INVALID)
                        return refuse(c, app_environment, ret_error, "%.*s: %s", (int) n, *v, error);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int check_command(const Config *c, char **ret_error) {
        _cleanup_free_ char *error = NULL;
        int r;

        if (app_kind_is_native(c->app_kind))
                return 0;
        if (!c->app_command || !*c->app_command[0])
                return refuse(c, app_command, ret_error,
                                "found %s, expected the program and its arguments, such as [ \"/usr/bin/node\", \"server.js\" ]",
                                c->app_command ? "\"\"" : "nothing");
        if (c->app_kind == APP_NODE) {
                r = node_start_check(c->app_command, c->app_directory, &error);
                if (r == NODE_START_INVALID)
                        return refuse(c, app_command, ret_error, "%s", error);
                if (r < 0)
                        return r;
        }
        return check_words(c, ret_error);
}

/* With a letter for each %{…}. Returns NULL without memory. */
static char *fill_in(const char *text) {
        char *filled = malloc(strlen(text) + 1), *to = filled;

        for (const char *p = text; filled && *p; p++)
                if (p[0] == '%' && (p[1] == '{' || p[1] == '%')) {
                        *to++ = 'x';
                        p += p[1] == '{' ? strcspn(p, "}") : 1;
                } else
                        *to++ = *p;
        if (filled)
                *to = '\0';
        return filled;
}

/* Of what stands for something else only the start can tell what it is, and whether there is a URL then; but
 * a password that stands here would be shown. */
static int check_state_url(const Config *c, char **ret_error) {
        _cleanup_(state_url_freep) StateUrl *url = NULL;
        _cleanup_free_ char *error = NULL, *filled = NULL;
        bool is_whole = !strstr(c->state_url, "%{");
        int r;

        r = expand_check(c->state_url, 0, &error);
        if (r == EXPAND_INVALID)
                return refuse(c, state_url, ret_error, "%s", error);
        if (r < 0)
                return r;
        filled = fill_in(c->state_url);
        if (!filled)
                return -ENOMEM;
        r = state_url_parse(filled, &url, &error);
        if (r == STATE_URL_INVALID && !is_whole)
                return 0;
        if (r == STATE_URL_INVALID)
                return refuse(c, state_url, ret_error, "%s", error);
        if (r == 0 && state_url_has_password(url))
                return refuse(c, state_url, ret_error, STATE_PASSWORD_REFUSED);
        if (r == 0 && c->state_credential && strcmp(url->driver, "lmdb") == 0)
                return refuse(c, state_credential, ret_error, STATE_NO_SERVER);
        return r;
}

static int check_state(const Config *c, char **ret_error) {
        if (c->state_url)
                return check_state_url(c, ret_error);
        if (c->state_credential)
                return refuse(c, state_credential, ret_error, STATE_NO_SERVER);
        if (c->state_required)
                return refuse(c, state_required, ret_error,
                                "found true without a state.url, expected false");
        return 0;
}

/* Whatever else may be wrong with it, the worker that loads it will tell. */
static int check_module(const Config *c, char **ret_error) {
        _cleanup_close_ int fd = -EBADF;
        char magic[SELFMAG];
        struct stat st;

        if (c->app_kind != APP_MODULE)
                return 0;
        if (!c->app_module)
                return refuse(c, app_module, ret_error,
                                "found nothing, expected the path of a shared object, such as \"/usr/local/lib/app.so\"");
        fd = open(c->app_module, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0 || fstat(fd, &st) < 0)
                return refuse(c, app_module, ret_error, "cannot open %s: %s", c->app_module,
                                strerror(errno));
        if (!S_ISREG(st.st_mode) || read(fd, magic, SELFMAG) != SELFMAG ||
                        memcmp(magic, ELFMAG, SELFMAG) != 0)
                return refuse(c, app_module, ret_error,
                                "found %s, which is no ELF file, expected a shared object", c->app_module);
        return 0;
}

/* A program does not run where the built-in web site is. */
static int set_directory(Config *c) {
        if (config_is_set(c, offsetof(Config, app_directory)) || c->app_kind == APP_STATIC)
                return 0;
        free(c->app_directory);
        c->app_directory = strdup("/");
        return c->app_directory ? 0 : -ENOMEM;
}

/* What depends on the kind where nothing is said. */
static int set_defaults(Config *c) {
        if (!config_is_set(c, offsetof(Config, workers_twin)))
                c->workers_twin = app_kind_is_native(c->app_kind);
        return set_directory(c);
}

static int read_environment_file(Config *c, char **ret_error) {
        _cleanup_free_ char *error = NULL;
        int r;

        if (!c->app_environment_file)
                return 0;
        r = environment_file_read(c->app_environment_file, &c->app_environment_of_file, &error);
        if (r == ENVIRONMENT_FILE_INVALID)
                return refuse(c, app_environment_file, ret_error, "%s", error);
        return r;
}

/* That the command stands where it is looked for, starting it will tell. */
static int check_agent(const Config *c, char **ret_error) {
        static int (*const checks[])(
                        const Config *, char **) = { check_times, check_command, check_environment };
        int r = 0;

        for (size_t i = 0; r == 0 && i < ELEMENTSOF(checks); i++)
                r = checks[i](c, ret_error);
        return r;
}

int config_check(Config *c, char **ret_error) {
        static int (*const checks[])(const Config *, char **) = { check_times, check_kind, check_balance,
                check_twin, check_state, check_command, check_module, check_environment };
        int r;

        r = set_defaults(c);
        for (size_t i = 0; r == 0 && i < ELEMENTSOF(checks); i++)
                r = checks[i](c, ret_error);
        for (size_t i = 0; r == 0 && i < c->n_agents; i++)
                r = check_agent(c->agents[i], ret_error);
        return r == 0 ? read_environment_file(c, ret_error) : r;
}

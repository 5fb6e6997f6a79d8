/* SPDX-License-Identifier: MIT */
/* Command lines and environments of workers; see command.h. */

#include "master/command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "basic/strv.h"
#include "board/board.h"
#include "build-config.h"
#include "master/config-schema.h"
#include "master/config-value.h"
#include "master/expand.h"
#include "master/state-setting.h"
#include "master/variable.h"

#define WORKER_NAME_MAX 16

Command *command_free(Command *c) {
        if (!c)
                return NULL;
        strv_free(c->argv);
        strv_free(c->env);
        free(c->program);
        free(c);
        return NULL;
}

const char *command_libexec_dir(void) {
        const char *e = getenv("MUSTER_LIBEXECDIR");

        return e && *e ? e : LIBEXECDIR;
}

static const char *worker_name(const CommandIdentity *id, char buf[static WORKER_NAME_MAX]) {
        if (id->slot == 0)
                strcpy(buf, "spare");
        else
                snprintf(buf, WORKER_NAME_MAX, "%u", id->slot);
        return buf;
}

static ExpandValues values_for(const Config *cf, const CommandIdentity *id, const char *worker) {
        const StateSetting *state = cf->app ? cf->app->state : cf->state;

        return (ExpandValues){
                .app = id->app,
                .worker = worker,
                .socket_names = id->n_sockets > 0 ? id->socket_names : "",
                .variables = environ,
                .state_url = state ? state->secret_url : NULL,
        };
}

/* Whether it says the same in an agent. */
static bool is_for_agents(const char *assignment) {
        _cleanup_free_ char *error = NULL;

        return expand_check(assignment, EXPAND_STATE, &error) == 0;
}

static int add_configured(
                Command *c, const Config *cf, bool for_agent, const ExpandValues *values, char **ret_error) {
        int r = 0;

        for (char **e = cf->app_environment_of_file; e && *e && r == 0; e++)
                r = strv_set_variable(&c->env, *e);
        for (char **e = cf->app_environment; e && *e && r == 0; e++) {
                _cleanup_free_ char *assignment = NULL, *error = NULL;

                if (for_agent && !is_for_agents(*e))
                        continue;
                r = expand_text(*e, values, &assignment, &error); /* there is no percent sign in a name */
                if (r == EXPAND_INVALID)
                        return config_refuse(cf, offsetof(Config, app_environment), ret_error, "%.*s: %s",
                                        (int) strcspn(*e, "="), *e, error);
                if (r == 0)
                        r = strv_set_variable(&c->env, assignment);
        }
        return r;
}

/* What every worker has, wherever it comes from. */
static int add_foreign_variables(
                Command *c, const Config *cf, const ExpandValues *values, char **ret_error) {
        int r = 0;

        for (char **e = environ; *e && r == 0; e++)
                if (!variable_is_private(*e))
                        r = strv_add(&c->env, *e);
        if (r == 0 && cf->app)
                r = add_configured(c, cf->app, /* for_agent= */ true, values, ret_error);
        return r == 0 ? add_configured(c, cf, /* for_agent= */ false, values, ret_error) : r;
}

/* A worker has its number, an agent its name. */
static int add_name(Command *c, const CommandIdentity *id, const char *worker) {
        return id->agent ? strv_set_variablef(&c->env, "MUSTER_AGENT=%s", id->agent)
                         : strv_set_variablef(&c->env, "MUSTER_WORKER=%s", worker);
}

static int add_identity(Command *c, const CommandIdentity *id, const char *worker) {
        char ***env = &c->env;

        if (strv_set_variablef(env, "MUSTER_MASTER_PID=%d", getpid()) < 0 ||
                        strv_set_variablef(env, "MUSTER_APP=%s", id->app) < 0 ||
                        add_name(c, id, worker) < 0 ||
                        strv_set_variablef(env, "MUSTER_GENERATION=%" PRIu64, id->generation) < 0 ||
                        strv_add(env, id->mark) < 0) /* beside an outer muster's, which knows it by that */
                return -ENOMEM;
        if (id->notify_socket && strv_set_variablef(env, "NOTIFY_SOCKET=%s", id->notify_socket) < 0)
                return -ENOMEM;
        if (id->watchdog_usec > 0 &&
                        strv_set_variablef(env, "WATCHDOG_USEC=%" PRIu64, id->watchdog_usec) < 0)
                return -ENOMEM;
        return 0;
}

static int add_state(Command *c, const Config *cf) {
        const StateSetting *state = cf->app ? cf->app->state : cf->state;

        if (!state)
                return 0;
        if (strv_set_variablef(&c->env, "MUSTER_STATE_URL=%s", state->url) < 0)
                return -ENOMEM;
        if (state->credential &&
                        strv_set_variablef(&c->env, "MUSTER_STATE_CREDENTIAL=%s", state->credential) < 0)
                return -ENOMEM;
        return state->is_required ? strv_set_variablef(&c->env, "MUSTER_STATE_REQUIRED=1") : 0;
}

static int add_sockets(Command *c, const CommandIdentity *id) {
        if (strv_set_variablef(&c->env, "LISTEN_FDS=%zu", id->n_sockets) < 0 ||
                        strv_set_variablef(&c->env, "LISTEN_FDNAMES=%s", id->socket_names) < 0)
                return -ENOMEM;
        return 0;
}

static int add_board(Command *c, const CommandIdentity *id) {
        size_t board_fd = SD_LISTEN_FDS_START + id->n_sockets;

        if (strv_set_variablef(&c->env, BOARD_ENV_FD "=%zu", board_fd) < 0 ||
                        strv_set_variablef(&c->env, BOARD_ENV_BELL_FD "=%zu", board_fd + 1) < 0 ||
                        strv_set_variablef(&c->env, BOARD_ENV_CELL "=%u", id->board_cell) < 0)
                return -ENOMEM;
        /* Behind the channel. */
        if (id->n_inboxes > 0 && strv_set_variablef(&c->env, BOARD_ENV_INBOX_FDS "=%zu:%u", board_fd + 3,
                                                 id->n_inboxes) < 0)
                return -ENOMEM;
        if (id->has_twin_groups && strv_set_variablef(&c->env, BOARD_ENV_TWIN_CGROUP_FDS "=%zu:%zu",
                                                   board_fd + 3 + 2 * id->n_inboxes,
                                                   board_fd + 4 + 2 * id->n_inboxes) < 0)
                return -ENOMEM;
        return 0;
}

/* In $NODE_OPTIONS a space parts two options unless it stands in quotes, where a backslash makes what
 * follows an ordinary character. */
static int quote_node_option(const char *option, char **ret) {
        char *quoted = malloc(2 * strlen(option) + 3), *p = quoted;

        if (!quoted)
                return -ENOMEM;
        *p++ = '"';
        for (; *option; option++) {
                if (*option == '"' || *option == '\\')
                        *p++ = '\\';
                *p++ = *option;
        }
        strcpy(p, "\"");
        *ret = quoted;
        return 0;
}

static int add_retirement(Command *c) {
        const char *options = strv_get_variable(c->env, "NODE_OPTIONS");
        _cleanup_free_ char *require = NULL, *quoted = NULL;

        if (asprintf(&require, "--require=%s/retire-on-uncaught.js", command_libexec_dir()) < 0) {
                require = NULL;
                return -ENOMEM;
        }
        if (strpbrk(require, " \"\\") && quote_node_option(require, &quoted) < 0)
                return -ENOMEM;
        return strv_set_variablef(&c->env, "NODE_OPTIONS=%s%s%s", options ? options : "",
                        options && *options ? " " : "", quoted ? quoted : require);
}

static int add_node(Command *c, const Config *cf, const CommandIdentity *id) {
        if (strv_set_variablef(&c->env, "NODE_UNIQUE_ID=%u", id->unique_id) < 0 ||
                        strv_set_variablef(&c->env, "NODE_APP_INSTANCE=%u", id->instance) < 0)
                return -ENOMEM;
        return cf->workers_retire_on_uncaught ? add_retirement(c) : 0;
}

static int make_environment(Command *c, const Config *cf, const CommandIdentity *id, char **ret_error) {
        char worker[WORKER_NAME_MAX];
        const ExpandValues values = values_for(cf, id, worker_name(id, worker));
        int r;

        r = add_foreign_variables(c, cf, &values, ret_error);
        if (r == 0)
                r = add_identity(c, id, worker);
        if (r == 0)
                r = add_state(c, cf);
        if (r == 0 && !id->agent)
                r = cf->app_kind == APP_NODE ? add_node(c, cf, id) : add_sockets(c, id);
        if (r == 0 && app_kind_is_native(cf->app_kind))
                r = add_board(c, id);
        return r;
}

static int set_program(Command *c, const char *name) {
        if (asprintf(&c->program, "%s/%s", command_libexec_dir(), name) < 0) {
                c->program = NULL;
                return -ENOMEM;
        }
        return strv_add(&c->argv, c->program);
}

/* All that the worker knows is told it, so that a default has one place. */
static int add_option(Command *c, const Config *cf, const ConfigKey *k) {
        char buf[CONFIG_VALUE_MAX];
        const char *value = config_value_to_string(cf, k, buf);
        bool is_default = config_value_is_default(cf, k);

        if (is_default && (k->type == CONFIG_BOOL || !*value))
                return 0;
        if (k->type == CONFIG_BOOL)
                return strv_addf(&c->argv, "--%s", k->option);
        return strv_addf(&c->argv, "--%s=%s", k->option, value);
}

static int make_native(Command *c, const Config *cf, const CommandIdentity *id) {
        int r;

        r = set_program(c, "muster-worker");
        for (const ConfigKey *k = config_keys; r == 0 && k < config_keys + n_config_keys; k++)
                if (k->option && config_key_is_known(k, cf->app_kind))
                        r = add_option(c, cf, k);
        if (r == 0 && id->max_requests > 0)
                r = strv_addf(&c->argv, "--max-requests=%" PRIu64, id->max_requests);
        return r;
}

static int add_words(Command *c, const Config *cf, const ExpandValues *values, char **ret_error) {
        int r = 0;

        for (char **w = cf->app_command; *w && r == 0; w++) {
                _cleanup_free_ char *word = NULL, *error = NULL;

                r = expand_text(*w, values, &word, &error);
                if (r == EXPAND_INVALID)
                        return config_refuse(cf, offsetof(Config, app_command), ret_error, "%s", error);
                if (r == 0)
                        r = strv_add(&c->argv, word);
        }
        return r;
}

/* Everything that is not ours: muster-exec becomes it. Only to Node is the channel shown by Node's names. */
static int make_foreign(Command *c, const Config *cf, const CommandIdentity *id, char **ret_error) {
        char worker[WORKER_NAME_MAX];
        const ExpandValues values = values_for(cf, id, worker_name(id, worker));
        size_t error_fd = SD_LISTEN_FDS_START + (cf->app_kind == APP_PROGRAM ? id->n_sockets : 0);
        int r;

        r = set_program(c, "muster-exec");
        if (r == 0 && cf->app_kind != APP_NODE)
                r = strv_add(&c->argv, "--plain-channel");
        if (r < 0 || strv_addf(&c->argv, "%s-%s", id->app, id->agent ? id->agent : worker) < 0 ||
                        strv_addf(&c->argv, "%zu", error_fd) < 0 ||
                        strv_add(&c->argv, cf->app_directory) < 0)
                return -ENOMEM;
        return add_words(c, cf, &values, ret_error);
}

int command_new(const Config *config, const CommandIdentity *identity, Command **ret, char **ret_error) {
        _cleanup_(command_freep) Command *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return -ENOMEM;
        r = app_kind_is_native(config->app_kind) ? make_native(c, config, identity)
                                                 : make_foreign(c, config, identity, ret_error);
        if (r == 0)
                r = make_environment(c, config, identity, ret_error);
        if (r == 0)
                *ret = TAKE_PTR(c);
        return r;
}

/* SPDX-License-Identifier: MIT */
#pragma once

/* The configuration of an app as plain data. libconfig is known to config.c and config-value.c alone; the
 * keys with their types, ranges, defaults and help are the table in config-schema.c, from which
 * muster.conf(5) is made too. What no single key can tell is checked by config-check.c.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "basic/macro.h"
#include "master/balance-policy.h"

typedef enum AppKind {
        APP_STATIC,  /* the native HTTP worker serving a folder */
        APP_PROGRAM, /* any program that takes its sockets by LISTEN_FDS */
        APP_NODE,    /* a Node.js app: the master plays the primary of its cluster */
        APP_MODULE,  /* the native HTTP worker with handlers from a shared object */
        _APP_KIND_MAX,
} AppKind;

/* Whether the worker is muster's own, which counts, reports and reacts on the board. */
static inline bool app_kind_is_native(unsigned kind) {
        return kind == APP_STATIC || kind == APP_MODULE;
}

/* A socket that the master binds itself when systemd passed none. */
typedef struct ListenConfig {
        char *address; /* of a form that address_parse() takes */
        char *name;
        unsigned line; /* where it stands, for error messages */
} ListenConfig;

/* Where a key was set. */
typedef struct ConfigPlace {
        char *file;    /* NULL: the configuration file itself */
        unsigned line; /* 0: nowhere, it has its default */
} ConfigPlace;

typedef struct ConfigTable ConfigTable;
typedef struct StateSetting StateSetting;

typedef struct Config Config;

struct Config {
        char *path;
        const ConfigTable *table; /* the keys that it knows */
        ConfigPlace *places;      /* of these, in their order */

        unsigned app_kind;          /* AppKind */
        char *app_directory;        /* static: what is served; any other: where it runs */
        char *app_module;           /* module: its shared object; else NULL */
        char **app_command;         /* program, node: at least one word, NULL at the end; else NULL */
        char **app_environment;     /* "NAME=value", in the order of the file, NULL at the end; NULL: none */
        char *app_environment_file; /* NULL: none */
        char **app_environment_of_file; /* what stood there when the configuration was read; NULL: nothing */
        bool app_whoami;

        unsigned workers_count; /* 0: one per CPU */
        uint64_t workers_start_timeout_usec;
        uint64_t workers_stop_timeout_usec;
        uint64_t workers_soak_usec;
        uint64_t workers_watchdog_usec;    /* 0: none */
        uint64_t workers_max_memory_bytes; /* these three: 0: no limit */
        unsigned workers_max_requests;
        uint64_t workers_max_age_usec;
        unsigned workers_jitter_percent;
        unsigned workers_balance; /* Balance */
        bool workers_wait_ready;
        uint64_t workers_start_grace_usec;
        int workers_stop_signal;
        unsigned workers_spare;
        bool workers_retire_on_uncaught;
        bool workers_proxy_protocol;
        bool workers_twin;        /* false for all but native workers */
        unsigned workers_threads; /* module: for what it hands off */

        unsigned restart_limit; /* 0: none */
        uint64_t restart_window_usec;
        uint64_t restart_backoff_min_usec;
        uint64_t restart_backoff_max_usec;

        uint64_t http_idle_timeout_usec;
        uint64_t http_request_timeout_usec;
        uint64_t http_send_timeout_usec;
        uint64_t http_max_request_head_bytes;
        unsigned http_max_connections;
        uint64_t http_max_body_bytes;
        uint64_t http_body_timeout_usec;
        uint64_t http_answer_timeout_usec; /* 0: none */
        char *http_access_log;             /* a path or "journal"; NULL: none */
        unsigned http_access_log_format; /* these choices concern the worker alone, which is told the word */

        char *static_index; /* NULL: none */
        bool static_listing;
        unsigned static_symlinks;
        bool static_precompressed;
        unsigned static_file_cache; /* 0: none */
        uint64_t static_file_cache_valid_usec;
        char *static_cache_control; /* NULL: none */

        char *state_url;        /* NULL: none */
        char *state_credential; /* NULL: none */
        bool state_required;

        uint64_t idle_exit_usec; /* 0: never */

        ListenConfig *listen;
        size_t n_listen;

        /* The app's companions: processes that are one each. Each of them is a configuration of its own, of
         * kind "program", whose keys are those of an agent. */
        Config **agents;
        size_t n_agents;

        StateSetting *state; /* once config_resolve() has looked; NULL: there is none */

        char *agent_name;  /* of an agent; NULL: this is the app */
        const Config *app; /* likewise: whose environment it has, too; borrowed */
};

/* The file is not a valid configuration: an outcome for the caller to report. */
#define CONFIG_INVALID 1

/* A name is part of the agent's identifier in the journal. */
#define AGENT_NAME_MAX 32

#define AGENTS_MAX 16

/* Reads and checks @path completely. Returns 0; CONFIG_INVALID with a text for the user in @ret_error
 * ("file:line: key: found …, expected …"); or -ENOMEM. */
int config_load(const char *path, Config **ret, char **ret_error);

/* What depends on where this process runs, and is not looked at for a mere check: the state. @app is its
 * name. Returns as above. */
int config_resolve(Config *c, const char *app, char **ret_error);

/* Whether the key that @member (its offset in Config) belongs to has been set by the file. */
bool config_is_set(const Config *c, size_t member);

/* What is said of a state in more than one place. */
#define STATE_PASSWORD_REFUSED "found a password in it, expected it in a file: state.credential"
#define STATE_NO_SERVER        "found it without a server in state.url, expected \"\": nobody asks for a password"

/* Says what is wrong with the key that @member (its offset in Config) belongs to: puts "file:line: key: "
 * and the message into a fresh string and returns CONFIG_INVALID; or -ENOMEM, with NULL. */
int config_refuse(const Config *c, size_t member, char **ret_error, const char *format, ...) _printf_(4, 5);

/* Whether an agent's own keys, its name included, have the same values in both. */
bool config_agent_is_same(const Config *a, const Config *b);

Config *config_free(Config *c);
DEFINE_CLEANUP(Config, config_free)

/* Writes the effective configuration, defaults included, in the form that config_load() reads. */
void config_print(const Config *c, FILE *f);

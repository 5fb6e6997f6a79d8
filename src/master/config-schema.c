/* SPDX-License-Identifier: MIT */
/* The table of all keys, and what can be told from it; see config-schema.h. */

#include "master/config-schema.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "basic/clock.h"
#include "basic/macro.h"
#include "basic/parse.h"
#include "basic/restart.h"
#include "build-config.h"
#include "master/config.h"

#define KEY(g, n, member) .group = (g), .name = (n), .offset = offsetof(Config, member)

static const char *const app_kinds[] = {
        [APP_STATIC] = "static",
        [APP_PROGRAM] = "program",
        [APP_NODE] = "node",
        [APP_MODULE] = "module",
        [_APP_KIND_MAX] = NULL,
};

static const char *const balances[] = {
        [BALANCE_AUTO] = "auto",
        [BALANCE_INHERIT] = "inherit",
        [BALANCE_ROUND_ROBIN] = "round-robin",
        [BALANCE_LEAST_LAG] = "least-lag",
        [BALANCE_SOURCE] = "source",
        [_BALANCE_MAX] = NULL,
};

static const char *const stop_signals[] = { "SIGTERM", "SIGQUIT", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2",
        "SIGWINCH", NULL };
static const unsigned stop_signal_numbers[] = { SIGTERM, SIGQUIT, SIGINT, SIGHUP, SIGUSR1, SIGUSR2,
        SIGWINCH };

static const char *const log_formats[] = { "common", "combined", "json", NULL };
static const char *const symlinks[] = { "beneath", "none", NULL };

#define HOUR (3600 * USEC_PER_SEC)

/* Which kinds of workers know a key, and what to say to the others. */
#define STATIC           (1U << APP_STATIC)
#define PROGRAM          (1U << APP_PROGRAM)
#define NODE             (1U << APP_NODE)
#define MODULE           (1U << APP_MODULE)
#define FOR(k, w)        .kinds = (k), .why = (w)
#define FOR_NATIVE_HTTP  FOR(STATIC | MODULE, "a program looks after its connections itself")
#define FOR_MODULE(w)    FOR(MODULE, (w))
#define FOR_STATIC_FILES FOR(STATIC, "only the native worker that serves a folder has files")

const ConfigKey config_keys[] = {
        {
                        KEY("app", "kind", app_kind),
                        .type = CONFIG_CHOICE,
                        .choices = app_kinds,
                        .fallback = "static",
                        .help = "What a worker is. *static*: the built-in native HTTP worker, serving the files below "
                                "*directory*. *module*: the same worker, answering with what the shared object *module* "
                                "says. *program*: any program that takes its sockets as systemd passes them "
                                "(*sd_listen_fds*(3)), or is told their numbers. *node*: a Node.js app as it is, which "
                                "calls *listen*() as ever; the master is the primary of its cluster. See *muster-http*(7) "
                                "for the first two, *PROGRAMS* and *NODE.JS* below for the others.",
        },
        {
                        KEY("app", "command", app_command),
                        .type = CONFIG_STRINGS,
                        .fallback = "[ ]",
                        .help = "*program*, *node*: the program and its arguments, each a string of its own; there is no shell. A "
                                "program without a slash is looked for in PATH, one with a slash that is no absolute path "
                                "in *directory*. What *%{...}* stands for is told in *PROGRAMS* below.",
                        FOR(PROGRAM | NODE, "the native worker is a program of muster's"),
        },
        {
                        KEY("app", "module", app_module),
                        .type = CONFIG_PATH_OR_NONE,
                        .fallback = CONFIG_EMPTY,
                        .help = "*module*: the shared object with the handlers, which every worker loads: see *muster-http*(7) and "
                                "*muster_http*(3).",
                        FOR(MODULE, "nothing else loads one"),
                        .option = "module",
        },
        {
                        KEY("app", "directory", app_directory),
                        .type = CONFIG_PATH,
                        .fallback = PKGDATADIR "/welcome",
                        .help = "*static*: the folder whose files are served; nothing outside of it is ever reached, by whatever path "
                                "or link. *program*, *node*, *module*: where the worker runs, and */* unless it is set.",
                        .option = "directory",
        },
        {
                        KEY("app", "environment", app_environment),
                        .type = CONFIG_VARIABLES,
                        .fallback = "{ }",
                        .help = "Variables of the workers' environment, beside those of the master's own. A number or a boolean is taken "
                                "by its value; what is to stay as it is written stands in quotes. What *%{...}* stands for "
                                "is told in *PROGRAMS* below.",
        },
        {
                        KEY("app", "environment_file", app_environment_file),
                        .type = CONFIG_PATH_OR_NONE,
                        .fallback = CONFIG_EMPTY,
                        .help = "A file with more of them, which *environment* takes precedence over: lines _NAME=VALUE_ as for "
                                "systemd's *EnvironmentFile=* (*systemd.exec*(5)), with comments, quotes and continued lines. It is "
                                "read with the configuration, by the user that the service runs as: at the start, and at "
                                "every reload.",
        },
        {
                        KEY("app", "whoami", app_whoami),
                        .type = CONFIG_BOOL,
                        .fallback = "false",
                        .help = "*static*: answer */whoami* with a JSON object that names the worker: app, slot, pid, generation, and how many "
                                "requests it has answered.",
                        FOR(STATIC, "whatever else runs answers by itself"),
                        .option = "whoami",
        },
        {
                        KEY("workers", "count", workers_count),
                        .type = CONFIG_COUNT,
                        .min = 1,
                        .max = 256,
                        .fallback = "auto",
                        .help = "How many workers serve. *auto*: one for each CPU that the service may use, which is what its "
                                "affinity (AllowedCPUs=) leaves, and at most its CPU quota (CPUQuota=, the tightest of all its "
                                "control groups) rounded up.",
        },
        {
                        KEY("workers", "start_timeout", workers_start_timeout_usec),
                        .type = CONFIG_DURATION,
                        .min = 10 * USEC_PER_MSEC,
                        .max = HOUR,
                        .fallback = "10s",
                        .help = "How long a worker may take until it is ready. One that takes longer is killed.",
        },
        {
                        KEY("workers", "stop_timeout", workers_stop_timeout_usec),
                        .type = CONFIG_DURATION,
                        .min = 0,
                        .max = HOUR,
                        .fallback = "30s",
                        .help = "How long a worker that was told to go may take to finish its open requests. One that takes "
                                "longer is killed.",
        },
        {
                        KEY("workers", "soak", workers_soak_usec),
                        .type = CONFIG_DURATION,
                        .min = 0,
                        .max = HOUR,
                        .fallback = "1s",
                        .help = "At a reload, how long the first worker of the new generation must live, after it is ready, before any "
                                "other is started. Until all are ready the old workers serve as before.",
        },
        {
                        KEY("workers", "watchdog", workers_watchdog_usec),
                        .type = CONFIG_DURATION,
                        .min = 0,
                        .max = HOUR,
                        .fallback = "10s",
                        .help = "A worker that does not react for this long hangs: it is replaced, and gets SIGABRT (for a core dump) and "
                                "5 seconds later SIGKILL. A native worker is asked by the master, any other that has once sent "
                                "WATCHDOG=1 (*sd_notify*(3)) has to go on doing so. Where there is a *twin* it takes over instead. At least 100ms; 0: "
                                "nobody looks.",
        },
        {
                        KEY("workers", "max_memory", workers_max_memory_bytes),
                        .type = CONFIG_SIZE,
                        .min = 0,
                        .max = UINT64_C(1) << 46,
                        .fallback = "0",
                        .help = "A worker whose memory (RSS) is more than this is replaced: the new worker is ready before the old one "
                                "finishes what it has open and goes. With a *twin* it is the memory of the process that serves. 0: no "
                                "limit. The unit's MemoryMax= is the one that kills.",
        },
        {
                        KEY("workers", "max_requests", workers_max_requests),
                        .type = CONFIG_UINT,
                        .min = 0,
                        .max = 1000000000,
                        .fallback = "0",
                        .help = "A native worker (*static*, *module*) that has answered this many requests is replaced likewise. 0: no limit.",
                        FOR(STATIC | MODULE, "only a native worker counts its requests"),
        },
        {
                        KEY("workers", "max_age", workers_max_age_usec),
                        .type = CONFIG_DURATION,
                        .min = 0,
                        .max = 365 * 24 * HOUR,
                        .fallback = "0",
                        .help = "A worker that has lived this long is replaced likewise. 0: no limit.",
        },
        {
                        KEY("workers", "jitter", workers_jitter_percent),
                        .type = CONFIG_UINT,
                        .min = 0,
                        .max = 50,
                        .fallback = "10",
                        .help = "For each worker the three limits are lowered by a random part of up to this many per cent, so that "
                                "workers that started together do not go together.",
        },
        {
                        KEY("workers", "balance", workers_balance),
                        .type = CONFIG_CHOICE,
                        .choices = balances,
                        .fallback = "auto",
                        .help = "Who gets the next connection. *inherit*: whoever takes it first, as all workers wait on the same "
                                "sockets. The others are for *node* alone, where the master can accept and pass the "
                                "connection on: *round-robin*: by turns; *least-lag*: to the worker whose event loop answers soonest; "
                                "*source*: always to the same worker for the same client address, for apps that "
                                "remember their clients. *auto*: *round-robin* for *node*, else *inherit*.",
        },
        {
                        KEY("workers", "wait_ready", workers_wait_ready),
                        .type = CONFIG_BOOL,
                        .fallback = "false",
                        .help = "A worker is ready only when it says so itself. *program*: by READY=1 (*sd_notify*(3)); *node*: by "
                                "*process.send('ready')*, and not as soon as it listens.",
                        FOR(PROGRAM | NODE, "a native worker says that it is ready in any case"),
        },
        {
                        KEY("workers", "start_grace", workers_start_grace_usec),
                        .type = CONFIG_DURATION,
                        .min = 0,
                        .max = HOUR,
                        .fallback = "1s",
                        .help = "*program*: one that does not say READY=1 is ready when it has lived this long.",
                        FOR(PROGRAM, "a worker of any other kind says when it is ready"),
        },
        {
                        KEY("workers", "stop_signal", workers_stop_signal),
                        .type = CONFIG_CHOICE,
                        .choices = stop_signals,
                        .numbers = stop_signal_numbers,
                        .fallback = "SIGTERM",
                        .help = "*program*, *node*: the signal that tells a worker to finish what it has open and to end: for nginx "
                                "*SIGQUIT*. A Node.js app is first told so on its channel, by which it closes its servers.",
                        FOR(PROGRAM | NODE, "a native worker knows SIGTERM"),
        },
        {
                        KEY("workers", "spare", workers_spare),
                        .type = CONFIG_UINT,
                        .min = 0,
                        .max = 64,
                        .fallback = "0",
                        .help = "*node*: how many workers beyond *count* stand by: they have loaded the app and wait in its *listen*(). "
                                "One of them takes the place of a worker that ends, at once, and the next spare is started behind it.",
                        FOR(NODE, "whoever holds the socket accepts as soon as it runs"),
        },
        {
                        KEY("workers", "retire_on_uncaught", workers_retire_on_uncaught),
                        .type = CONFIG_BOOL,
                        .fallback = "false",
                        .help = "*node*: after an exception that nobody caught a worker does not break off what it has open: it asks to be "
                                "replaced, takes no new connections, finishes, and then ends with status 1. It is done by a small file of "
                                "muster's that *NODE_OPTIONS* names.",
                        FOR(NODE, "it is done in JavaScript"),
        },
        {
                        KEY("workers", "proxy_protocol", workers_proxy_protocol),
                        .type = CONFIG_BOOL,
                        .fallback = "false",
                        .help = "Each connection begins with a header of the PROXY protocol, version 1 or 2, as the proxy in front sends it. "
                                "For *static* and *module* the address in it is the client's, in the access log and for the module. For *node* "
                                "it is taken where the master passes connections on; it is what *source* goes by, and the app does not see "
                                "the header.",
                        FOR(STATIC | NODE | MODULE,
                                        "a program takes its connections as they come, with the header"),
                        .option = "proxy-protocol",
        },
        {
                        KEY("workers", "twin", workers_twin),
                        .type = CONFIG_BOOL,
                        .fallback = "true",
                        .help = "*static*, *module*: a second process stands by each worker and takes over from it when it dies, with its "
                                "connections and what is under way on them, so that no client notices: see *muster-twin*(7). Always "
                                "_false_ for *program* and *node*, whose connections are their own.",
                        .option = "no-twin",
        },
        {
                        KEY("workers", "threads", workers_threads),
                        .type = CONFIG_UINT,
                        .min = 1,
                        .max = 64,
                        .fallback = "4",
                        .help = "*module*: how many threads a worker has at most for what the module hands off (*muster_offload*(), "
                                "*muster_http*(3)). They are started when there is something to do.",
                        FOR(MODULE, "nothing else hands work off"),
                        .option = "threads",
        },
        {
                        KEY("restart", "limit", restart_limit),
                        .type = CONFIG_UINT,
                        .min = 0,
                        .max = RESTART_LIMIT_MAX,
                        .fallback = "10",
                        .help = "A slot whose workers die more often than this within *window* is failing: that is said in the journal and "
                                "in the status, and the next attempts are *backoff_max* apart, until a worker has been well for "
                                "30 seconds or a reload brings something better. 0: no limit.",
        },
        {
                        KEY("restart", "window", restart_window_usec),
                        .type = CONFIG_DURATION,
                        .min = USEC_PER_MSEC,
                        .max = 24 * HOUR,
                        .fallback = "60s",
                        .help = "The time in which deaths are counted for *limit*.",
        },
        {
                        KEY("restart", "backoff_min", restart_backoff_min_usec),
                        .type = CONFIG_DURATION,
                        .min = USEC_PER_MSEC,
                        .max = HOUR,
                        .fallback = "100ms",
                        .help = "A worker that dies is replaced at once. When the replacement dies early too, this is the pause before the "
                                "next one; it doubles with every further early death.",
        },
        {
                        KEY("restart", "backoff_max", restart_backoff_max_usec),
                        .type = CONFIG_DURATION,
                        .min = USEC_PER_MSEC,
                        .max = HOUR,
                        .fallback = "15s",
                        .help = "The longest pause between two attempts to replace a worker.",
        },
        {
                        KEY("http", "idle_timeout", http_idle_timeout_usec),
                        .type = CONFIG_DURATION,
                        .min = 10 * USEC_PER_MSEC,
                        .max = 24 * HOUR,
                        .fallback = "60s",
                        .help = "How long a connection may wait between two requests.",
                        FOR_NATIVE_HTTP,
                        .option = "idle-timeout",
        },
        {
                        KEY("http", "request_timeout", http_request_timeout_usec),
                        .type = CONFIG_DURATION,
                        .min = 10 * USEC_PER_MSEC,
                        .max = HOUR,
                        .fallback = "10s",
                        .help = "How long a client may take from the first byte of a request to the end of its header fields. Past it the answer is 408.",
                        FOR_NATIVE_HTTP,
                        .option = "request-timeout",
        },
        {
                        KEY("http", "send_timeout", http_send_timeout_usec),
                        .type = CONFIG_DURATION,
                        .min = 10 * USEC_PER_MSEC,
                        .max = HOUR,
                        .fallback = "30s",
                        .help = "How long a client may take for the next 16 KiB of an answer. One that is slower is disconnected.",
                        FOR_NATIVE_HTTP,
                        .option = "send-timeout",
        },
        {
                        KEY("http", "max_request_head", http_max_request_head_bytes),
                        .type = CONFIG_SIZE,
                        .min = 1024,
                        .max = 64 * 1024,
                        .fallback = "16K",
                        .help = "The size of a request's line and header fields together. Past it the answer is 414 or 431.",
                        FOR_NATIVE_HTTP,
                        .option = "max-request-head",
        },
        {
                        KEY("http", "max_connections", http_max_connections),
                        .type = CONFIG_UINT,
                        .min = 1,
                        .max = 1000000,
                        .fallback = "10000",
                        .help = "How many connections one worker holds at the same time. Further ones wait in the socket's queue.",
                        FOR_NATIVE_HTTP,
                        .option = "max-connections",
        },
        {
                        KEY("http", "max_body", http_max_body_bytes),
                        .type = CONFIG_SIZE,
                        .min = 0,
                        .max = 1024 * 1024 * 1024,
                        .fallback = "1M",
                        .help = "*module*: how much of a request's body is taken. Past it the answer is 413.",
                        FOR(MODULE, "nothing else takes bodies"),
                        .option = "max-body",
        },
        {
                        KEY("http", "body_timeout", http_body_timeout_usec),
                        .type = CONFIG_DURATION,
                        .min = 10 * USEC_PER_MSEC,
                        .max = HOUR,
                        .fallback = "30s",
                        .help = "How long a client may take for the next 16 KiB of a request's body. Past it the answer is 408.",
                        FOR_NATIVE_HTTP,
                        .option = "body-timeout",
        },
        {
                        KEY("http", "answer_timeout", http_answer_timeout_usec),
                        .type = CONFIG_DURATION,
                        .min = 0,
                        .max = HOUR,
                        .fallback = "60s",
                        .help = "*module*: how long it may take from a complete request until its answer begins. Past it the answer "
                                "is 503. 0: no limit.",
                        FOR(MODULE, "nothing else takes its time"),
                        .option = "answer-timeout",
        },
        {
                        KEY("http", "access_log", http_access_log),
                        .type = CONFIG_LOG,
                        .fallback = CONFIG_EMPTY,
                        .help = "Where a line is written for each answer. *journal*: to the journal; else the file of that path, "
                                "which the worker makes if need be and appends to. See *muster-http*(7).",
                        FOR_NATIVE_HTTP,
                        .option = "access-log",
        },
        {
                        KEY("http", "access_log_format", http_access_log_format),
                        .type = CONFIG_CHOICE,
                        .choices = log_formats,
                        .fallback = "common",
                        .help = "The form of its lines. *common*: the Common Log Format of old; *combined*: the same with Referer "
                                "and User-Agent; *json*: an object each.",
                        FOR_NATIVE_HTTP,
                        .option = "access-log-format",
        },
        {
                        KEY("static", "index", static_index),
                        .type = CONFIG_FILE_NAME,
                        .fallback = "index.html",
                        .help = "The file that stands for its folder.",
                        FOR_STATIC_FILES,
                        .option = "index",
        },
        {
                        KEY("static", "listing", static_listing),
                        .type = CONFIG_BOOL,
                        .fallback = "false",
                        .help = "List what is in a folder that has no *index*.",
                        FOR_STATIC_FILES,
                        .option = "listing",
        },
        {
                        KEY("static", "symlinks", static_symlinks),
                        .type = CONFIG_CHOICE,
                        .choices = symlinks,
                        .fallback = "beneath",
                        .help = "Which symbolic links are followed. *beneath*: those that lead to something below *app.directory*; "
                                "*none*: none at all.",
                        FOR_STATIC_FILES,
                        .option = "symlinks",
        },
        {
                        KEY("static", "precompressed", static_precompressed),
                        .type = CONFIG_BOOL,
                        .fallback = "true",
                        .help = "Serve _FILE_.br, _FILE_.zst or _FILE_.gz in place of _FILE_ to whoever accepts that encoding.",
                        FOR_STATIC_FILES,
                        .option = "no-precompressed",
        },
        {
                        KEY("static", "file_cache", static_file_cache),
                        .type = CONFIG_UINT,
                        .min = 0,
                        .max = 100000,
                        .fallback = "1024",
                        .help = "How many files a worker keeps open for the next request. 0: none.",
                        FOR_STATIC_FILES,
                        .option = "file-cache",
        },
        {
                        KEY("static", "file_cache_valid", static_file_cache_valid_usec),
                        .type = CONFIG_DURATION,
                        .min = 0,
                        .max = HOUR,
                        .fallback = "1s",
                        .help = "How long such a file is served without looking whether there is another one by that name now.",
                        FOR_STATIC_FILES,
                        .option = "file-cache-valid",
        },
        {
                        KEY("static", "cache_control", static_cache_control),
                        .type = CONFIG_FIELD_VALUE,
                        .fallback = CONFIG_EMPTY,
                        .help = "The Cache-Control of every file that is served, such as *max-age=60*.",
                        FOR_STATIC_FILES,
                        .option = "cache-control",
        },
        {
                        KEY("state", "url", state_url),
                        .type = CONFIG_URL,
                        .fallback = "lmdb:",
                        .help = "Where the state is that workers share: see *SHARED STATE* below. *lmdb:* is the embedded store, in the "
                                "directory _state_ of $STATE_DIRECTORY; where there is no such directory it stands for none, unless it is set.",
        },
        {
                        KEY("state", "credential", state_credential),
                        .type = CONFIG_CREDENTIAL,
                        .fallback = CONFIG_EMPTY,
                        .help = "The file with the password for a server: a name is one of $CREDENTIALS_DIRECTORY, where systemd puts what "
                                "*LoadCredential=* names (*systemd.exec*(5)). It has to be there at the start and at every reload.",
        },
        {
                        KEY("state", "required", state_required),
                        .type = CONFIG_BOOL,
                        .fallback = "false",
                        .help = "A worker that cannot reach the store does not start, where its module or program opens it with libmuster. Else "
                                "it starts, and what it asks of the store fails until that can be reached.",
        },
        {
                        KEY("", "idle_exit", idle_exit_usec),
                        .type = CONFIG_DURATION,
                        .min = 0,
                        .max = 24 * HOUR,
                        .fallback = "0",
                        .help = "The service ends, with success, when there was no connection for this long; the next connection "
                                "starts it again. Only behind sockets of systemd, which keeps them open. Below a second the "
                                "socket's TriggerLimitBurst= may be met (*systemd.socket*(5)). Connections of programs and Node.js "
                                "apps are counted by the kernel; where it does not tell (the journal says so), the service stays. A "
                                "client of a unix socket that is in another network namespace counts when it connects, but not for as "
                                "long as it is connected. 0: it stays.",
        },
};

const size_t n_config_keys = ELEMENTSOF(config_keys);

const ConfigTable config_table = { config_keys, ELEMENTSOF(config_keys) };

/* Those that it shares with the app's workers are kept where theirs are. */
static const ConfigKey agent_keys[] = {
        {
                        KEY("agents", "command", app_command),
                        .type = CONFIG_STRINGS,
                        .fallback = "[ ]",
                        .help = "The program and its arguments, as *app.command* has them; *%{fd:NAME}* and *%{worker}* mean nothing here.",
        },
        {
                        KEY("agents", "directory", app_directory),
                        .type = CONFIG_PATH,
                        .fallback = "/",
                        .help = "Where it runs.",
        },
        {
                        KEY("agents", "environment", app_environment),
                        .type = CONFIG_VARIABLES,
                        .fallback = "{ }",
                        .help = "Variables of its environment, beside those that all of the app have (*app.environment_file*, "
                                "*app.environment*), and before them.",
        },
        {
                        KEY("agents", "start_timeout", workers_start_timeout_usec),
                        .type = CONFIG_DURATION,
                        .min = 10 * USEC_PER_MSEC,
                        .max = HOUR,
                        .fallback = "30s",
                        .help = "How long it may take until it is ready. One that takes longer is killed.",
        },
        {
                        KEY("agents", "start_grace", workers_start_grace_usec),
                        .type = CONFIG_DURATION,
                        .min = 0,
                        .max = HOUR,
                        .fallback = "1s",
                        .help = "One that has not said _READY=1_ by then, and lives, is taken for ready.",
        },
        {
                        KEY("agents", "wait_ready", workers_wait_ready),
                        .type = CONFIG_BOOL,
                        .fallback = "false",
                        .help = "Nothing but _READY=1_ makes it ready, however long that takes.",
        },
        {
                        KEY("agents", "stop_timeout", workers_stop_timeout_usec),
                        .type = CONFIG_DURATION,
                        .min = 10 * USEC_PER_MSEC,
                        .max = HOUR,
                        .fallback = "30s",
                        .help = "How long it may take to end. One that takes longer is killed.",
        },
        {
                        KEY("agents", "stop_signal", workers_stop_signal),
                        .type = CONFIG_CHOICE,
                        .choices = stop_signals,
                        .numbers = stop_signal_numbers,
                        .fallback = "SIGTERM",
                        .help = "By which it is told to end.",
        },
        {
                        KEY("agents", "watchdog", workers_watchdog_usec),
                        .type = CONFIG_DURATION,
                        .min = 0,
                        .max = HOUR,
                        .fallback = "10s",
                        .help = "One that has said _WATCHDOG=1_ once, and does not do so again within this time, is ended and started "
                                "anew. 0: nobody looks.",
        },
};

const ConfigTable config_agent_table = { agent_keys, ELEMENTSOF(agent_keys) };

bool config_key_is_known(const ConfigKey *k, unsigned kind) {
        return k->kinds == 0 || k->kinds & (1U << kind);
}

static size_t append_choices(char *buf, size_t size, const ConfigKey *k) {
        size_t n = 0;

        for (const char *const *c = k->choices; *c; c++)
                n += (size_t) snprintf(buf + n, size - n, "%s\"%s\"", c == k->choices ? "" : " or ", *c);
        return n;
}

bool config_key_is_quoted(const ConfigKey *k) {
        return k->type == CONFIG_SIZE && k->max > INT32_MAX;
}

const char *config_key_expected(const ConfigKey *k, char buf[static CONFIG_TEXT_MAX]) {
        char a[DURATION_STRING_MAX], b[DURATION_STRING_MAX];

        switch (k->type) {
        case CONFIG_CHOICE:
                append_choices(buf, CONFIG_TEXT_MAX, k);
                break;
        case CONFIG_PATH:
                strcpy(buf, "an absolute path");
                break;
        case CONFIG_PATH_OR_NONE:
                strcpy(buf, "an absolute path, or \"\" for none");
                break;
        case CONFIG_LOG:
                strcpy(buf, "an absolute path or \"journal\", or \"\" for none");
                break;
        case CONFIG_FILE_NAME:
                strcpy(buf, "the name of a file without a slash, or \"\" for none");
                break;
        case CONFIG_URL:
                strcpy(buf, "a URL, such as \"redis://localhost\", or \"\" for none");
                break;
        case CONFIG_CREDENTIAL:
                strcpy(buf, "an absolute path or the name of a file, or \"\" for none");
                break;
        case CONFIG_FIELD_VALUE:
                strcpy(buf, "what a header field may hold (printable ASCII, at most 200 characters), or \"\" for none");
                break;
        case CONFIG_STRINGS:
                strcpy(buf, "a list of strings, such as [ \"/usr/bin/node\", \"server.js\" ]");
                break;
        case CONFIG_VARIABLES:
                strcpy(buf, "a group of variables, such as { NODE_ENV = \"production\"; }");
                break;
        case CONFIG_BOOL:
                strcpy(buf, "true or false");
                break;
        case CONFIG_UINT:
                snprintf(buf, CONFIG_TEXT_MAX, "a number from %" PRIu64 " to %" PRIu64, k->min, k->max);
                break;
        case CONFIG_COUNT:
                snprintf(buf, CONFIG_TEXT_MAX, "\"auto\" or a number from %" PRIu64 " to %" PRIu64, k->min,
                                k->max);
                break;
        case CONFIG_DURATION:
                snprintf(buf, CONFIG_TEXT_MAX, "a time span from %s to %s, such as \"%s\"",
                                duration_to_string(k->min, a), duration_to_string(k->max, b), k->fallback);
                break;
        case CONFIG_SIZE:
                snprintf(buf, CONFIG_TEXT_MAX, "a size%s from %s to %s, such as \"%s\"",
                                config_key_is_quoted(k) ? ", in quotes," : "", size_to_string(k->min, a),
                                size_to_string(k->max, b), *k->fallback == '0' ? "512M" : k->fallback);
                break;
        case _CONFIG_TYPE_MAX:
                assert(0);
        }
        return buf;
}

static void print_key(const ConfigKey *k, FILE *f) {
        char expected[CONFIG_TEXT_MAX];

        fprintf(f, "*%s*\n\t%s\n\n\tTakes %s. Default: *%s*.\n\n", k->name, k->help,
                        config_key_expected(k, expected), k->fallback);
}

void config_schema_print_agent_reference(FILE *f) {
        for (size_t i = 0; i < config_agent_table.n; i++)
                print_key(config_agent_table.keys + i, f);
}

void config_schema_print_reference(FILE *f) {
        const char *group = NULL;

        for (const ConfigKey *k = config_keys; k < config_keys + n_config_keys; k++) {
                if (!group || strcmp(group, k->group) != 0) {
                        group = k->group;
                        fprintf(f, *group ? "## The group %s\n\n" : "## At the top level%s\n\n", group);
                }
                print_key(k, f);
        }
}

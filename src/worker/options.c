/* SPDX-License-Identifier: MIT */
/* Command line and environment; see options.h. */

#include "worker/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/log.h"
#include "basic/parse.h"
#include "build-config.h"

#define LISTENERS_MAX    512 /* as in the master */
#define TIMEOUT_LIMIT    (24 * 60 * 60 * USEC_PER_SEC)
#define BODY_LIMIT       (UINT64_C(1) << 30)
#define THREADS_LIMIT    64
#define FILE_CACHE_LIMIT 100000
#define FIELD_VALUE_MAX  200

enum {
        ARG_DIRECTORY = 256,
        ARG_WHOAMI,
        ARG_IDLE_TIMEOUT,
        ARG_REQUEST_TIMEOUT,
        ARG_SEND_TIMEOUT,
        ARG_MAX_REQUEST_HEAD,
        ARG_MAX_CONNECTIONS,
        ARG_MAX_REQUESTS,
        ARG_PROXY_PROTOCOL,
        ARG_NO_TWIN,
        ARG_MODULE,
        ARG_THREADS,
        ARG_MAX_BODY,
        ARG_BODY_TIMEOUT,
        ARG_ANSWER_TIMEOUT,
        ARG_ACCESS_LOG,
        ARG_ACCESS_LOG_FORMAT,
        ARG_INDEX,
        ARG_LISTING,
        ARG_SYMLINKS,
        ARG_NO_PRECOMPRESSED,
        ARG_FILE_CACHE,
        ARG_FILE_CACHE_VALID,
        ARG_CACHE_CONTROL,
        ARG_VERSION,
};

static const struct option long_options[] = {
        { "directory", required_argument, NULL, ARG_DIRECTORY },
        { "whoami", no_argument, NULL, ARG_WHOAMI },
        { "idle-timeout", required_argument, NULL, ARG_IDLE_TIMEOUT },
        { "request-timeout", required_argument, NULL, ARG_REQUEST_TIMEOUT },
        { "send-timeout", required_argument, NULL, ARG_SEND_TIMEOUT },
        { "max-request-head", required_argument, NULL, ARG_MAX_REQUEST_HEAD },
        { "max-connections", required_argument, NULL, ARG_MAX_CONNECTIONS },
        { "max-requests", required_argument, NULL, ARG_MAX_REQUESTS },
        { "proxy-protocol", no_argument, NULL, ARG_PROXY_PROTOCOL },
        { "no-twin", no_argument, NULL, ARG_NO_TWIN },
        { "module", required_argument, NULL, ARG_MODULE },
        { "threads", required_argument, NULL, ARG_THREADS },
        { "max-body", required_argument, NULL, ARG_MAX_BODY },
        { "body-timeout", required_argument, NULL, ARG_BODY_TIMEOUT },
        { "answer-timeout", required_argument, NULL, ARG_ANSWER_TIMEOUT },
        { "access-log", required_argument, NULL, ARG_ACCESS_LOG },
        { "access-log-format", required_argument, NULL, ARG_ACCESS_LOG_FORMAT },
        { "index", required_argument, NULL, ARG_INDEX },
        { "listing", no_argument, NULL, ARG_LISTING },
        { "symlinks", required_argument, NULL, ARG_SYMLINKS },
        { "no-precompressed", no_argument, NULL, ARG_NO_PRECOMPRESSED },
        { "file-cache", required_argument, NULL, ARG_FILE_CACHE },
        { "file-cache-valid", required_argument, NULL, ARG_FILE_CACHE_VALID },
        { "cache-control", required_argument, NULL, ARG_CACHE_CONTROL },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, ARG_VERSION },
        { NULL, 0, NULL, 0 },
};

static void print_help(void) {
        printf("muster-worker --directory=DIR [OPTION…]\n"
               "muster-worker --module=FILE [OPTION…]\n\n"
               "Serves the files of a folder, or what a module answers, by HTTP. Started by musterd,\n"
               "which hands over the sockets; see muster-http(7).\n\n"
               "  --directory=DIR          the folder; with a module: where to run\n"
               "  --idle-timeout=60s       close a connection without a request after this time\n"
               "  --request-timeout=10s    for a request's line and fields to arrive completely\n"
               "  --body-timeout=30s       how long a client may take for the next 16 KiB of a body\n"
               "  --send-timeout=30s       how long a client may take for the next 16 KiB of an answer\n"
               "  --max-request-head=16K   request line and fields together\n"
               "  --max-connections=10000  open at a time; more wait in the kernel\n"
               "  --max-requests=0         ask to be replaced after so many; 0: never\n"
               "  --proxy-protocol         connections begin with a header of the PROXY protocol\n"
               "  --no-twin                nobody takes over when it dies\n"
               "  --access-log=            \"journal\" or a file, for a line for each answer\n"
               "  --access-log-format=common  or combined or json\n"
               "  -h --help, --version\n\n"
               "For files:\n"
               "  --whoami                 answer /whoami with what this worker is\n"
               "  --index=index.html       the file that stands for its folder\n"
               "  --listing                list folders that have none\n"
               "  --symlinks=beneath       follow what stays in the folder, or none\n"
               "  --no-precompressed       do not look for FILE.br, FILE.zst, FILE.gz\n"
               "  --file-cache=1024        keep so many files open\n"
               "  --file-cache-valid=1s    and look again whether they are still there after this time\n"
               "  --cache-control=         the Cache-Control of files\n\n"
               "For a module:\n"
               "  --module=FILE            the shared object\n"
               "  --threads=4              at most, for what it hands off\n"
               "  --max-body=1M            what it takes of a request's body\n"
               "  --answer-timeout=60s     how long it may take to begin an answer; 0: any time\n");
}

static int invalid(const char *option, const char *expected) {
        log_error("--%s: found \"%s\", expected %s.", option, optarg, expected);
        return -EINVAL;
}

static int parse_timeout(const char *option, uint64_t *ret) {
        uint64_t v;

        if (parse_duration(optarg, &v) < 0 || v < USEC_PER_MSEC || v > TIMEOUT_LIMIT)
                return invalid(option, "a time span from 1ms to 1d, such as 10s");
        *ret = v;
        return 0;
}

/* What may be none at all. */
static int parse_delay(const char *option, uint64_t *ret) {
        uint64_t v;

        if (parse_duration(optarg, &v) < 0 || v > TIMEOUT_LIMIT)
                return invalid(option, "a time span up to 1d, such as 10s, or 0");
        *ret = v;
        return 0;
}

static int parse_head_size(const char *option, size_t *ret) {
        uint64_t v;

        if (parse_size(optarg, &v) < 0 || v < SERVER_MIN_HEAD || v > SERVER_MAX_HEAD)
                return invalid(option, "a size from 1K to 1M, such as 16K");
        *ret = (size_t) v;
        return 0;
}

static int parse_body_size(const char *option, uint64_t *ret) {
        uint64_t v;

        if (parse_size(optarg, &v) < 0 || v > BODY_LIMIT)
                return invalid(option, "a size up to 1G, such as 1M");
        *ret = v;
        return 0;
}

static int parse_number(const char *option, unsigned min, unsigned max, unsigned *ret) {
        char expected[64];
        unsigned v;

        if (parse_uint(optarg, &v) < 0 || v < min || v > max) {
                snprintf(expected, sizeof(expected), "a number from %u to %u", min, max);
                return invalid(option, expected);
        }
        *ret = v;
        return 0;
}

static int parse_request_count(const char *option, uint64_t *ret) {
        uint64_t v;

        if (parse_uint64(optarg, &v) < 0)
                return invalid(option, "a number, or 0 for no limit");
        *ret = v;
        return 0;
}

static int parse_word(const char *option, const char *const *words, unsigned *ret) {
        char expected[64] = "";

        for (unsigned i = 0; words[i]; i++) {
                if (strcmp(optarg, words[i]) == 0) {
                        *ret = i;
                        return 0;
                }
                snprintf(expected + strlen(expected), sizeof(expected) - strlen(expected), "%s%s",
                                i > 0 ? " or " : "", words[i]);
        }
        return invalid(option, expected);
}

static int parse_log_format(const char *option, OptionsLogFormat *ret) {
        static const char *const words[] = { [OPTIONS_LOG_COMMON] = "common",
                [OPTIONS_LOG_COMBINED] = "combined",
                [OPTIONS_LOG_JSON] = "json",
                NULL };
        unsigned i;
        int r;

        r = parse_word(option, words, &i);
        if (r == 0)
                *ret = (OptionsLogFormat) i;
        return r;
}

static int parse_symlinks(const char *option, OptionsSymlinks *ret) {
        static const char *const words[] = {
                [OPTIONS_SYMLINKS_BENEATH] = "beneath", [OPTIONS_SYMLINKS_NONE] = "none", NULL
        };
        unsigned i;
        int r;

        r = parse_word(option, words, &i);
        if (r == 0)
                *ret = (OptionsSymlinks) i;
        return r;
}

static int parse_log(const char *option, const char **ret) {
        if (*optarg && *optarg != '/' && strcmp(optarg, "journal") != 0)
                return invalid(option, "\"journal\" or an absolute path");
        *ret = *optarg ? optarg : NULL;
        return 0;
}

static int parse_index(const char *option, const char **ret) {
        if (strchr(optarg, '/') || strcmp(optarg, ".") == 0 || strcmp(optarg, "..") == 0)
                return invalid(option, "the name of a file");
        *ret = *optarg ? optarg : NULL;
        return 0;
}

/* It goes into answers as it is. */
static int parse_field_value(const char *option, const char **ret) {
        for (const char *p = optarg; *p; p++)
                if (*p < 0x20 || *p > 0x7E)
                        return invalid(option, "what a header field may hold");
        if (strlen(optarg) > FIELD_VALUE_MAX)
                return invalid(option, "at most " STRINGIFY(FIELD_VALUE_MAX) " characters");
        *ret = *optarg ? optarg : NULL;
        return 0;
}

/* Those that concern files alone or a module alone; see apply_option(). */
static int apply_handler_option(int c, const char *name, Options *o) {
        switch (c) {
        case ARG_WHOAMI:
                o->whoami = true;
                return 0;
        case ARG_INDEX:
                return parse_index(name, &o->index);
        case ARG_LISTING:
                o->listing = true;
                return 0;
        case ARG_SYMLINKS:
                return parse_symlinks(name, &o->symlinks);
        case ARG_NO_PRECOMPRESSED:
                o->precompressed = false;
                return 0;
        case ARG_FILE_CACHE:
                return parse_number(name, 0, FILE_CACHE_LIMIT, &o->file_cache);
        case ARG_FILE_CACHE_VALID:
                return parse_delay(name, &o->file_cache_valid_usec);
        case ARG_CACHE_CONTROL:
                return parse_field_value(name, &o->cache_control);
        case ARG_MODULE:
                o->module = *optarg ? optarg : NULL;
                return 0;
        case ARG_THREADS:
                return parse_number(name, 1, THREADS_LIMIT, &o->threads);
        case ARG_MAX_BODY:
                return parse_body_size(name, &o->max_body_bytes);
        case ARG_ANSWER_TIMEOUT:
                return parse_delay(name, &o->answer_timeout_usec);
        default:
                return -EINVAL;
        }
}

static int apply_option(int c, const char *name, char *argv[], Options *o) {
        switch (c) {
        case ARG_DIRECTORY:
                o->directory = optarg;
                return 0;
        case ARG_IDLE_TIMEOUT:
                return parse_timeout(name, &o->server.timeout_usec[TIMEOUT_IDLE]);
        case ARG_REQUEST_TIMEOUT:
                return parse_timeout(name, &o->server.timeout_usec[TIMEOUT_REQUEST]);
        case ARG_SEND_TIMEOUT:
                return parse_timeout(name, &o->server.timeout_usec[TIMEOUT_SEND]);
        case ARG_MAX_REQUEST_HEAD:
                return parse_head_size(name, &o->server.max_request_head);
        case ARG_MAX_CONNECTIONS:
                return parse_number(name, 1, INT_MAX, &o->max_connections);
        case ARG_MAX_REQUESTS:
                return parse_request_count(name, &o->max_requests);
        case ARG_BODY_TIMEOUT:
                return parse_timeout(name, &o->body_timeout_usec);
        case ARG_PROXY_PROTOCOL:
                o->proxy_protocol = true;
                return 0;
        case ARG_NO_TWIN:
                o->twin = false;
                return 0;
        case ARG_ACCESS_LOG:
                return parse_log(name, &o->access_log);
        case ARG_ACCESS_LOG_FORMAT:
                return parse_log_format(name, &o->access_log_format);
        case 'h':
                print_help();
                return OPTIONS_EXIT;
        case ARG_VERSION:
                printf("muster-worker " MUSTER_VERSION "\n");
                return OPTIONS_EXIT;
        case ':':
                log_error("%s: a value is missing.", argv[optind - 1]);
                return -EINVAL;
        case '?':
                log_error("%s: unknown option; see muster-worker --help.", argv[optind - 1]);
                return -EINVAL;
        default:
                return apply_handler_option(c, name, o);
        }
}

static void set_defaults(Options *o) {
        *o = (Options){
                .max_connections = 10000,
                .twin = true,
                .threads = 4,
                .max_body_bytes = 1024 * 1024,
                .body_timeout_usec = 30 * USEC_PER_SEC,
                .answer_timeout_usec = 60 * USEC_PER_SEC,
                .index = "index.html",
                .precompressed = true,
                .file_cache = 1024,
                .file_cache_valid_usec = USEC_PER_SEC,
        };
        server_settings_init(&o->server);
}

int options_parse(int argc, char *argv[], Options *ret) {
        Options o;
        int c, index, r;

        set_defaults(&o);
        opterr = 0;
        optind = 1;
        while (index = 0, (c = getopt_long(argc, argv, ":h", long_options, &index)) >= 0) {
                r = apply_option(c, long_options[index].name, argv, &o);
                if (r != 0)
                        return r;
        }
        if (optind < argc) {
                log_error("%s: not an option; see muster-worker --help.", argv[optind]);
                return -EINVAL;
        }
        if (o.directory && !*o.directory)
                o.directory = NULL;
        if (!o.directory && !o.module) {
                log_error("--directory= or --module= is missing; see muster-worker --help.");
                return -EINVAL;
        }
        *ret = o;
        return OPTIONS_RUN;
}

/* The name goes into JSON as it is. */
static bool is_app_name(const char *s) {
        for (const char *p = s; *p; p++)
                if ((unsigned char) *p < 0x20 || *p == 0x7F || *p == '"' || *p == '\\')
                        return false;
        return *s && strlen(s) < 128;
}

static int environment_number(const char *name, uint64_t max, uint64_t *ret) {
        const char *e = getenv(name);
        uint64_t v;

        if (!e)
                return -ENXIO;
        if (parse_uint64(e, &v) < 0 || v < 1 || v > max)
                return -EINVAL;
        *ret = v;
        return 0;
}

int identity_from_environment(Identity *ret, const char **ret_variable) {
        static const char *const names[] = { "MUSTER_WORKER", "MUSTER_GENERATION", "LISTEN_FDS",
                "MUSTER_MASTER_PID" };
        static const uint64_t limits[] = { UINT_MAX, UINT64_MAX, LISTENERS_MAX, INT_MAX };
        const char *app = getenv("MUSTER_APP");
        uint64_t values[ELEMENTSOF(names)];
        size_t n = getenv("MUSTER_MASTER_PID") ? ELEMENTSOF(names) : ELEMENTSOF(names) - 1;
        int r;

        if (!app || !is_app_name(app)) {
                *ret_variable = "MUSTER_APP";
                return app ? -EINVAL : -ENXIO;
        }
        for (size_t i = 0; i < n; i++) {
                r = environment_number(names[i], limits[i], values + i);
                if (r < 0) {
                        *ret_variable = names[i];
                        return r;
                }
        }
        *ret = (Identity){
                .app = app,
                .worker = (unsigned) values[0],
                .generation = values[1],
                .n_listeners = (unsigned) values[2],
                .master = n == ELEMENTSOF(names) ? (pid_t) values[3] : getppid(),
        };
        return 0;
}

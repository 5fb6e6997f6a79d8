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

#define LISTENERS_MAX 512 /* as in the master */
#define TIMEOUT_LIMIT (24 * 60 * 60 * USEC_PER_SEC)

enum {
        ARG_DIRECTORY = 256,
        ARG_WHOAMI,
        ARG_IDLE_TIMEOUT,
        ARG_REQUEST_TIMEOUT,
        ARG_SEND_TIMEOUT,
        ARG_MAX_REQUEST_HEAD,
        ARG_MAX_CONNECTIONS,
        ARG_MAX_REQUESTS,
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
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, ARG_VERSION },
        { NULL, 0, NULL, 0 },
};

static void print_help(void) {
        printf("muster-worker --directory=DIR [OPTION…]\n\n"
               "Serves the files of a folder by HTTP. Started by musterd, which hands over the sockets.\n\n"
               "  --directory=DIR          the folder\n"
               "  --whoami                 answer /whoami with what this worker is\n"
               "  --idle-timeout=60s       close a connection without a request after this time\n"
               "  --request-timeout=10s    for a request to arrive completely\n"
               "  --send-timeout=30s       how long a client may take for the next 16 KiB of an answer\n"
               "  --max-request-head=16K   request line and fields together\n"
               "  --max-connections=10000  open at a time; more wait in the kernel\n"
               "  --max-requests=0         ask to be replaced after so many; 0: never\n"
               "  -h --help, --version\n");
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

static int parse_head_size(const char *option, size_t *ret) {
        uint64_t v;

        if (parse_size(optarg, &v) < 0 || v < SERVER_MIN_HEAD || v > SERVER_MAX_HEAD)
                return invalid(option, "a size from 1K to 1M, such as 16K");
        *ret = (size_t) v;
        return 0;
}

static int parse_count(const char *option, unsigned *ret) {
        unsigned v;

        if (parse_uint(optarg, &v) < 0 || v < 1 || v > INT_MAX)
                return invalid(option, "a number from 1 on");
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

static int apply_option(int c, const char *name, char *argv[], Options *o) {
        switch (c) {
        case ARG_DIRECTORY:
                o->directory = optarg;
                return 0;
        case ARG_WHOAMI:
                o->whoami = true;
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
                return parse_count(name, &o->max_connections);
        case ARG_MAX_REQUESTS:
                return parse_request_count(name, &o->max_requests);
        case 'h':
                print_help();
                return OPTIONS_EXIT;
        case ARG_VERSION:
                printf("muster-worker " MUSTER_VERSION "\n");
                return OPTIONS_EXIT;
        case ':':
                log_error("%s: a value is missing.", argv[optind - 1]);
                return -EINVAL;
        default:
                log_error("%s: unknown option; see muster-worker --help.", argv[optind - 1]);
                return -EINVAL;
        }
}

int options_parse(int argc, char *argv[], Options *ret) {
        Options o = { .max_connections = 10000 };
        int c, index, r;

        server_settings_init(&o.server);
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
        if (!o.directory || !*o.directory) {
                log_error("--directory= is missing; see muster-worker --help.");
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

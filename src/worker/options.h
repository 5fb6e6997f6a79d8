/* SPDX-License-Identifier: MIT */
#pragma once

/* What the master tells a worker: settings on the command line, identity and sockets in the environment. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "http/server.h"

/* In the order of their words in muster.conf(5). */
typedef enum OptionsSymlinks {
        OPTIONS_SYMLINKS_BENEATH, /* those that stay below the directory */
        OPTIONS_SYMLINKS_NONE,
} OptionsSymlinks;

typedef enum OptionsLogFormat {
        OPTIONS_LOG_COMMON,
        OPTIONS_LOG_COMBINED,
        OPTIONS_LOG_JSON,
} OptionsLogFormat;

/* Strings are NULL for "none". */
typedef struct Options {
        const char *directory; /* that is served; with a module: where to run, NULL: wherever it is */
        bool whoami;           /* answer /whoami */
        unsigned max_connections;
        uint64_t max_requests; /* after which it asks to be replaced; 0: never */
        bool proxy_protocol;
        bool twin; /* another process takes over when it dies */
        ServerSettings server;

        const char *module; /* NULL: files are served */
        unsigned threads;
        uint64_t max_body_bytes;
        uint64_t body_timeout_usec;
        uint64_t answer_timeout_usec; /* 0: none */

        const char *access_log; /* "journal" or a path */
        OptionsLogFormat access_log_format;

        const char *index;
        bool listing;
        OptionsSymlinks symlinks;
        bool precompressed;
        unsigned file_cache; /* open files; 0: none */
        uint64_t file_cache_valid_usec;
        const char *cache_control;
} Options;

/* Outcomes of options_parse(). */
#define OPTIONS_RUN  0
#define OPTIONS_EXIT 1 /* --help or --version: it has been printed */

/* Logs what is wrong and returns -EINVAL. Strings are borrowed from @argv. */
int options_parse(int argc, char *argv[], Options *ret);

typedef struct Identity {
        const char *app;
        unsigned worker; /* the slot, from 1 */
        uint64_t generation;
        unsigned n_listeners; /* descriptors 3 … 3 + n - 1 */
        pid_t master;
} Identity;

/* Reads MUSTER_APP, MUSTER_WORKER, MUSTER_GENERATION, LISTEN_FDS and MUSTER_MASTER_PID, without which the
 * parent is the master. The name of the variable that is missing or malformed is left in *ret_variable, with
 * -ENXIO or -EINVAL. */
int identity_from_environment(Identity *ret, const char **ret_variable);

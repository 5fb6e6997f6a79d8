/* SPDX-License-Identifier: MIT */
#pragma once

/* What the master tells a worker: settings on the command line, identity and sockets in the environment. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "http/server.h"

typedef struct Options {
        const char *directory;
        bool whoami; /* answer /whoami */
        unsigned max_connections;
        uint64_t max_requests; /* after which it asks to be replaced; 0: never */
        ServerSettings server;
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

/* SPDX-License-Identifier: MIT */
#pragma once

/* What is executed as a worker: program, arguments and environment, made from the configuration. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "basic/macro.h"
#include "master/config.h"

typedef struct Command {
        char *program;
        char **argv;
        char **env;
} Command;

/* Who the worker is and which descriptors it gets: sockets from 3 up, then the board, then the bell. */
typedef struct CommandIdentity {
        const char *app;
        unsigned slot;
        uint64_t generation;
        size_t n_sockets;
        const char *socket_names;
        unsigned board_cell;
        const char *mark;          /* a variable ("NAME=value") by which its processes are known */
        const char *notify_socket; /* NULL: none */
        uint64_t watchdog_usec;    /* 0: none */
        uint64_t max_requests;     /* 0: no limit */
} CommandIdentity;

/* Returns 0 or -ENOMEM. The environment is the master's own, less what concerns the master alone. */
int command_new(const Config *config, const CommandIdentity *identity, Command **ret);

/* Where the internal programs are; tests run them from the build tree. */
const char *command_libexec_dir(void);

Command *command_free(Command *c);
DEFINE_CLEANUP(Command, command_free)

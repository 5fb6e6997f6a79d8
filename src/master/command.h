/* SPDX-License-Identifier: MIT */
#pragma once

/* What is executed as a worker: program, arguments and environment, made from the configuration.
 *
 * Descriptors 0, 1 and 2 are everyone's. What comes from 3 up depends on the kind of worker, and whoever
 * starts the command has to provide it in this order:
 *
 *   static    the sockets, the board, its bell, the channel, the inboxes, the two groups
 *   program   the sockets, the error pipe, the channel
 *   node      the error pipe, the channel; the sockets come over the channel
 *
 * The error pipe's writing end is for muster-exec, by which both other kinds are started: it closes when the
 * program runs, and else a text for people comes out of it. */

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

/* Who the worker is. */
typedef struct CommandIdentity {
        const char *app;
        const char *agent; /* NULL: it is a worker; else an agent, of no slot and without sockets */
        unsigned slot;     /* 0: a spare, of no slot yet */
        uint64_t generation;
        size_t n_sockets;          /* these two: not for node */
        const char *socket_names;  /* parted by ':', as in LISTEN_FDNAMES */
        unsigned n_inboxes;        /* likewise; 0: none */
        bool has_twin_groups;      /* likewise */
        unsigned board_cell;       /* static */
        unsigned unique_id;        /* node: NODE_UNIQUE_ID, of no other worker of this master ever */
        unsigned instance;         /* node: NODE_APP_INSTANCE */
        const char *mark;          /* a variable ("NAME=value") by which its processes are known */
        const char *notify_socket; /* NULL: none */
        uint64_t watchdog_usec;    /* 0: none */
        uint64_t max_requests;     /* static; 0: no limit */
} CommandIdentity;

/* What the configuration asks for cannot be had here: an outcome for the caller to report. */
#define COMMAND_INVALID 1

/* Returns 0; COMMAND_INVALID with a text for the user ("file:line: key: found …, expected …") in @ret_error;
 * or -ENOMEM.
 *
 * The environment is the master's own, less what concerns the master alone, then the variables of
 * app.environment_file, those of app.environment, an agent's own, and those that tell the worker who it is;
 * whichever comes last counts. Of app.environment an agent has no variable that speaks of a worker or of a
 * socket. */
int command_new(const Config *config, const CommandIdentity *identity, Command **ret, char **ret_error);

/* Where the internal programs are; tests run them from the build tree. */
const char *command_libexec_dir(void);

Command *command_free(Command *c);
DEFINE_CLEANUP(Command, command_free)

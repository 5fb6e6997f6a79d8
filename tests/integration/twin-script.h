/* SPDX-License-Identifier: MIT */
#pragma once

/* The client of twin-stepper: a process of its own that goes through a scenario, one step after the other,
 * and checks every byte that it gets. */

#include <stdbool.h>
#include <stdint.h>

#define SCRIPT_TEXT_MAX 512

/* What the two say to each other, by datagrams that begin with one of these. */
enum {
        SCRIPT_PREPARE = 'p', /* make what connections are needed; the same back: done */
        SCRIPT_GO = 'g',      /* begin; the same back: the first bytes are sent */
        SCRIPT_WAIT = 'w',    /* from the client: wants to know when the worker sleeps; the same back */
        SCRIPT_DONE = 'd',    /* from the client: everything came as it should */
        SCRIPT_CHECK = 'c',   /* look whether the other connections are well; the same back: they are */
        SCRIPT_FAILED = 'f',  /* from the client, with the reason, instead of any other answer */
};

typedef struct ScriptSettings {
        uint16_t port;
        const char *scenario;
        const char *effects; /* a file; NULL: there is no such module */
        unsigned patience;   /* seconds in which every byte that is due must come */
        unsigned first_place;
        bool may_refuse; /* a kill may come between the call of a handler and its first own act */
} ScriptSettings;

/* Starts it. @ret_fd: to talk to it; it ends when that is closed. -EINVAL: no such scenario. */
int script_start(const ScriptSettings *settings, int *ret_fd);

/* The names, one a line. */
void script_list(void);

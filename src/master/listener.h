/* SPDX-License-Identifier: MIT */
#pragma once

/* The listening sockets of the app: those systemd passed, or, without any, those that the configuration asks
 * for. The master holds them and never accepts from them. */

#include <stddef.h>

#include "master/address.h"
#include "master/config.h"

typedef struct Listener {
        int fd;
        char *name; /* FileDescriptorName= or listen.name */
        Address address;
        char *unlink_path; /* NULL unless we bound a path ourselves */
} Listener;

typedef struct Listeners {
        Listener *items;
        size_t n;
        char *names; /* all of them, joined by ':', as LISTEN_FDNAMES wants it */
} Listeners;

/* There is no usable socket: an outcome for the caller to report. */
#define LISTENERS_INVALID 1

/* Takes the sockets from systemd (activation.h), else binds those in @config. Sets O_NONBLOCK
 * and O_CLOEXEC whatever the unit said. Returns 0; LISTENERS_INVALID with a text for the user in @ret_error;
 * or -ENOMEM. */
int listeners_open(Listeners *l, const Config *config, char **ret_error);

void listeners_done(Listeners *l);

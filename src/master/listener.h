/* SPDX-License-Identifier: MIT */
#pragma once

/* The listening sockets of the app: those systemd passed, or, without any, those that the configuration asks
 * for. The master holds them and never accepts from them. */

#include <stdbool.h>
#include <stddef.h>

#include "master/address.h"
#include "master/config.h"

typedef struct Listener {
        int fd;
        char *name; /* FileDescriptorName= or listen.name */
        Address address;
        int type;     /* SOCK_STREAM, or SOCK_DGRAM for kinds that know what to do with it */
        size_t first; /* of several of the same address (SO_REUSEPORT) the first; its own index otherwise */
        char *unlink_path; /* NULL unless we bound a path ourselves */
} Listener;

typedef struct Listeners {
        Listener *items;
        size_t n;
        bool from_systemd; /* which keeps them when this process ends */
        char *names;       /* all of them, joined by ':', as LISTEN_FDNAMES wants it */
        Listener *control; /* never among the items, so that no worker gets it; NULL: there is none */
} Listeners;

/* The name by which the control socket is known. */
#define LISTENER_CONTROL "control"

/* There is no usable socket: an outcome for the caller to report. */
#define LISTENERS_INVALID 1

/* Takes the sockets from systemd (activation.h), else binds those in @config. Sets O_NONBLOCK
 * and O_CLOEXEC whatever the unit said. The one called "control", a unix socket, is set aside; without any
 * other there is nothing to serve. Returns 0; LISTENERS_INVALID with a text for the user in @ret_error;
 * or -ENOMEM. */
int listeners_open(Listeners *l, const Config *config, char **ret_error);

/* Whether the configuration goes with the sockets. Returns 0, or CONFIG_INVALID with a text for the user in
 * @ret_error. */
int listeners_check(const Listeners *l, const Config *config, char **ret_error);

/* Hands the descriptor of the control socket over, once. -ENOENT: there is none. A path that we bound
 * ourselves goes with listeners_done() all the same. */
int listeners_take_control(Listeners *l);

void listeners_done(Listeners *l);

/* SPDX-License-Identifier: MIT */
#pragma once

/* All connections: accepts them, up to a limit, and ends the program when nobody needs it. */

#include <stdint.h>
#include <systemd/sd-event.h>

#include "admin/master-link.h"
#include "basic/macro.h"

#define CLIENTS_MAX 64

typedef struct Clients Clients;

typedef struct ClientsSettings {
        uint64_t idle_timeout_usec;    /* without any client: the end */
        uint64_t request_timeout_usec; /* see ClientContext */
} ClientsSettings;

/* @listen_fd is taken over on success, @link is borrowed. The loop is left with sd_event_exit(): 0 when
 * nobody came for the idle time or after clients_drain(). Returns 0 or a negative errno. */
int clients_new(sd_event *event, int listen_fd, MasterLink *link, const ClientsSettings *settings,
                Clients **ret);

/* Lets nobody in any more, finishes the answers under way, and leaves the loop. */
void clients_drain(Clients *c);

Clients *clients_free(Clients *c);
DEFINE_CLEANUP(Clients, clients_free)

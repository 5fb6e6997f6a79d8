/* SPDX-License-Identifier: MIT */
#pragma once

/* One connection: its requests one after the other, each answered before the next is read. */

#include <stdint.h>
#include <systemd/sd-event.h>

#include "admin/master-link.h"
#include "basic/list.h"

typedef struct Client Client;

/* What all connections share; borrowed by each. */
typedef struct ClientContext {
        sd_event *event;
        MasterLink *link;
        uint64_t request_timeout_usec; /* from its first moment to the end of the request */
        List clients;                  /* all of them */
        unsigned n_clients;
        void (*on_gone)(void *userdata); /* one is gone, and not among them any more */
        void *userdata;
} ClientContext;

/* Takes @fd over on success, and frees itself when the connection ends. Returns 0 or a negative errno. */
int client_new(ClientContext *context, int fd);

/* Finishes what was asked and ends. */
void client_drain(Client *c);

Client *client_free(Client *c);

/* The client of a node in context->clients. */
Client *client_of_node(List *node);

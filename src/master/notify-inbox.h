/* SPDX-License-Identifier: MIT */
#pragma once

/* The service manager's end of sd_notify(3), one per worker process: its NOTIFY_SOCKET. */

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "basic/macro.h"
#include "master/notify-message.h"

typedef struct NotifyDirectory NotifyDirectory;
typedef struct NotifyInbox NotifyInbox;

/* @m is the callee's during the call; @sender is the process that sent it, the worker or another one that it
 * told the address. The inbox may be freed in here. */
typedef void (*notify_inbox_handler_t)(const NotifyMessage *m, pid_t sender, void *userdata);

/* Makes a fresh directory for the sockets, which nobody but this user (and root) can enter, in the first of
 * these that takes it: $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR, /tmp. Returns 0 or a negative errno. */
int notify_directory_new(NotifyDirectory **ret);

/* Removes it. The inboxes in it have been freed before. */
NotifyDirectory *notify_directory_free(NotifyDirectory *d);
DEFINE_CLEANUP(NotifyDirectory, notify_directory_free)

/* A socket that receives from now on, for the worker that is to be started in @slot. @d is needed for this
 * call only. Returns 0 or a negative errno. */
int notify_inbox_new(NotifyDirectory *d, unsigned slot, NotifyInbox **ret);

/* The worker's $NOTIFY_SOCKET: an absolute path. */
const char *notify_inbox_get_path(const NotifyInbox *i);

/* It is another slot's from now on, for what is logged. */
void notify_inbox_set_slot(NotifyInbox *i, unsigned slot);

/* It is no worker's but an agent's, likewise. Once. Returns 0 or -ENOMEM. */
int notify_inbox_set_agent(NotifyInbox *i, const char *agent);

/* Hands out what came and what comes, from the loop. Once. Returns 0 or a negative errno. */
int notify_inbox_attach(NotifyInbox *i, sd_event *event, notify_inbox_handler_t handler, void *userdata);

/* The process has ended: hands out at once what is still in the queue, within bounds. Does nothing before
 * notify_inbox_attach() and inside of the handler. */
void notify_inbox_read_rest(NotifyInbox *i);

/* Removes the socket. */
NotifyInbox *notify_inbox_free(NotifyInbox *i);
DEFINE_CLEANUP(NotifyInbox, notify_inbox_free)

/* SPDX-License-Identifier: MIT */
/* The listening socket and who came through it; see clients.h.
 *
 * The socket is shared with the master, which watches it again when this process has ended. So whoever
 * connects in that very moment waits in its queue for the next one. */

#include "admin/clients.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "admin/client.h"
#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"

struct Clients {
        int listen_fd;
        ClientContext context;
        ClientsSettings settings;
        sd_event_source *accept;
        sd_event_source *idle;
        bool draining;
        int exit_status;
};

static void clients_fail(Clients *c, int error, const char *what) {
        log_error_errno(error, "Failed to %s, no more clients are let in: %m", what);
        c->exit_status = 1;
        clients_drain(c);
}

static void clients_check_end(Clients *c) {
        if (c->draining && c->context.n_clients == 0)
                (void) sd_event_exit(c->context.event, c->exit_status);
}

/* A number of clients has become another one. */
static void clients_update(Clients *c) {
        unsigned n = c->context.n_clients;
        int r;

        if (c->draining)
                return;
        /* Those beyond the limit wait in the queue. */
        r = sd_event_source_set_enabled(c->accept, n < CLIENTS_MAX ? SD_EVENT_ON : SD_EVENT_OFF);
        if (r >= 0 && n == 0)
                r = sd_event_source_set_time_relative(c->idle, c->settings.idle_timeout_usec);
        if (r >= 0)
                r = sd_event_source_set_enabled(c->idle, n == 0 ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
        if (r < 0)
                clients_fail(c, r, "watch the control socket");
}

static void on_gone(void *userdata) {
        Clients *c = userdata;

        clients_update(c);
        clients_check_end(c);
}

static int on_connection(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Clients *c = userdata;
        int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), r;

        if (client < 0) {
                if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
                        clients_fail(c, -errno, "accept");
                return 0;
        }
        r = client_new(&c->context, client);
        if (r < 0) {
                safe_close(client);
                log_warning_errno(r, "Failed to take a client: %m");
        }
        clients_update(c);
        return 0;
}

static int on_idle(sd_event_source *source, uint64_t usec, void *userdata) {
        Clients *c = userdata;

        return sd_event_exit(c->context.event, 0);
}

void clients_drain(Clients *c) {
        if (c->draining)
                return;
        c->draining = true;
        c->accept = sd_event_source_disable_unref(c->accept);
        c->idle = sd_event_source_disable_unref(c->idle);
        list_foreach_safe (node, &c->context.clients)
                client_drain(client_of_node(node));
        clients_check_end(c);
}

int clients_new(sd_event *event, int listen_fd, MasterLink *link, const ClientsSettings *settings,
                Clients **ret) {
        _cleanup_(clients_freep) Clients *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return -ENOMEM;
        *c = (Clients){
                .listen_fd = -EBADF,
                .settings = *settings,
                .context = {
                        .event = event,
                        .link = link,
                        .request_timeout_usec = settings->request_timeout_usec,
                        .on_gone = on_gone,
                        .userdata = c,
                },
        };
        list_init(&c->context.clients);

        r = sd_event_add_io(event, &c->accept, listen_fd, EPOLLIN, on_connection, c);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &c->idle, CLOCK_MONOTONIC, settings->idle_timeout_usec,
                                clock_accuracy_usec(settings->idle_timeout_usec), on_idle, c);
        if (r < 0)
                return r;
        c->listen_fd = listen_fd;
        *ret = TAKE_PTR(c);
        return 0;
}

Clients *clients_free(Clients *c) {
        if (!c)
                return NULL;
        c->draining = true; /* those that go now are no news */
        list_foreach_safe (node, &c->context.clients)
                client_free(client_of_node(node));
        sd_event_source_disable_unref(c->accept);
        sd_event_source_disable_unref(c->idle);
        safe_close(c->listen_fd);
        free(c);
        return NULL;
}

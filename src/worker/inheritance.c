/* SPDX-License-Identifier: MIT */
/* Preparations; see inheritance.h. */

#include "worker/inheritance.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "twin/keeper.h"
#include "worker/static.h"

#define DESCRIPTORS_RESERVED 32 /* standard streams, board, folder, what a library opens; not listeners */

#define DESCRIPTORS_MAX (4 * 1024 * 1024)

/* Of the limit, what those that serve do not have. */
static rlim_t kept_back(const Inheritance *in) {
        return in->options->twin ? KEEPER_DESCRIPTORS : 0;
}

/* A connection takes a descriptor, and another one while it is sent a file. What the handler keeps comes on
 * top of that, and gives way where there are not so many. systemd leaves the soft limit at
 * 1024 for the sake of select(2), which is not used here (systemd.exec(5), LimitNOFILE=). */
static void inheritance_fit_connections(Inheritance *in) {
        Acceptor *a = &in->acceptor;
        rlim_t reserved = DESCRIPTORS_RESERVED + (rlim_t) a->n_listeners + 2 * (rlim_t) a->siblings.n +
                          kept_back(in);
        rlim_t needed = (rlim_t) a->max_connections * 2 + reserved;
        rlim_t wanted = needed + (in->options->module ? 0 : static_max_files(in->options));
        struct rlimit limit, raised;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
                return;
        raised = limit;
        raised.rlim_cur = MIN(limit.rlim_max, wanted);
        if (setrlimit(RLIMIT_NOFILE, &raised) >= 0)
                limit = raised;
        if (limit.rlim_cur >= needed)
                return;
        a->max_connections = limit.rlim_cur > reserved + 1 ? (unsigned) (limit.rlim_cur - reserved) / 2 : 1;
        log_debug("The limit of %ju descriptors (LimitNOFILE=) allows %u connections at a time.",
                        (uintmax_t) limit.rlim_cur, a->max_connections);
}

static int inheritance_init_table(Inheritance *in, rlim_t n_descriptors) {
        const Options *options = in->options;
        int r;

        in->settings = options->server;
        in->settings.n_descriptors = (unsigned) MIN(n_descriptors, (rlim_t) DESCRIPTORS_MAX);
        in->settings.proxy_protocol = options->proxy_protocol;
        in->settings.max_body = options->max_body_bytes;
        in->settings.timeout_usec[TIMEOUT_BODY] = options->body_timeout_usec;
        in->settings.timeout_usec[TIMEOUT_ANSWER] = options->answer_timeout_usec;
        r = server_init_table(&in->settings, &in->table);
        if (r < 0)
                return log_error_errno(r, "Failed to reserve memory for connections: %m");
        return 0;
}

static int inheritance_init_area(Inheritance *in, rlim_t n_descriptors) {
        if (!in->options->twin)
                return 0;
        in->area = area_new((unsigned) MIN(n_descriptors, (rlim_t) DESCRIPTORS_MAX));
        if (!in->area)
                return log_error_errno(-ENOMEM, "Failed to prepare for a twin: %m");
        return 0;
}

/* A number is below the limit, and the lowest one that is free. */
static int inheritance_init_memory(Inheritance *in) {
        struct rlimit limit;
        int r;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return log_error_errno(-errno, "Failed to get the limit of descriptors: %m");
        r = inheritance_init_table(in, limit.rlim_cur);
        return r < 0 ? r : inheritance_init_area(in, limit.rlim_cur);
}

int inheritance_init(Inheritance *in, const Board *board, BoardCell *cell, const Identity *identity,
                const Options *options, int channel_fd) {
        const AcceptorPlace place = {
                .board = board, .cell = cell, .slot = identity->worker, .twin = options->twin
        };
        int r;

        *in = (Inheritance){
                .board = board,
                .cell = cell,
                .identity = identity,
                .options = options,
                .epoll_fd = -EBADF,
                .channel_fd = channel_fd,
        };
        r = acceptor_init(&in->acceptor, NULL, &place, &(AcceptorHandlers){ 0 }, identity->n_listeners,
                        options->max_connections);
        if (r < 0)
                return r;
        inheritance_fit_connections(in);
        r = inheritance_init_memory(in);
        if (r < 0)
                return r;
        in->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (in->epoll_fd < 0)
                return log_error_errno(-errno, "Failed to create an epoll instance: %m");
        in->acceptor.epoll_fd = in->epoll_fd;
        return 0;
}

void inheritance_forgo_twin(Inheritance *in) {
        in->area = area_free(in->area);
        in->acceptor.siblings.claimed = false;
}

void inheritance_done(Inheritance *in) {
        acceptor_done(&in->acceptor);
        table_done(&in->table);
        in->epoll_fd = safe_close(in->epoll_fd);
        in->channel_fd = safe_close(in->channel_fd);
}

/* SPDX-License-Identifier: MIT */
/* The channel to the master; see master-link.h. */

#include "worker/master-link.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/parse.h"

/* More than a probe takes, so that one read is enough for it. */
#define READ_SIZE 1024

static int prepare(int fd) {
        int type, r;
        socklen_t n = sizeof(type);

        /* epoll refuses some of what is no socket, and waits for others in vain. */
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0)
                return -errno;
        r = fd_set_cloexec(fd, true);
        return r < 0 ? r : fd_set_nonblock(fd, true);
}

int master_link_from_environment(int *ret_fd) {
        const char *value = getenv(MASTER_LINK_ENV_FD);
        unsigned fd;
        int r;

        if (!value)
                return -ENXIO;
        r = parse_uint(value, &fd) < 0 || fd > INT_MAX ? -EINVAL : 0;
        (void) unsetenv(MASTER_LINK_ENV_FD);
        if (r >= 0)
                r = prepare((int) fd);
        if (r < 0)
                return r;
        *ret_fd = (int) fd;
        return 0;
}

uint32_t master_link_events(void) {
        return EPOLLIN | EPOLLRDHUP;
}

bool master_link_is_alive(int fd, uint32_t events) {
        char buf[READ_SIZE];

        /* However many lines are left to read: nobody waits for what they would bring about. A worker that
         * was stopped has them all, and must not accept connections before it comes to their end. */
        if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                return false;

        /* Descriptors that may come with a line are closed by the kernel, as nothing is there to take them.
         */
        ssize_t n = recv(fd, buf, sizeof(buf), 0);
        return n > 0 || (n < 0 && errno == EAGAIN);
}

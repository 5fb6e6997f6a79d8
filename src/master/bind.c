/* SPDX-License-Identifier: MIT */
/* Binding; see bind.h. */

#include "master/bind.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"

/* Somebody's socket file is in the way. If nobody answers behind it, it is a leftover of a process that was
 * killed. */
static int unlink_stale(const Address *a) {
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct stat st;

        if (fd < 0)
                return -errno;
        if (lstat(a->sockaddr.un.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
                return -EADDRINUSE;
        if (connect(fd, &a->sockaddr.any, a->size) >= 0 || errno != ECONNREFUSED)
                return -EADDRINUSE;
        return unlink(a->sockaddr.un.sun_path) < 0 ? -errno : 0;
}

static int set_option(int fd, int level, int name, int value) {
        return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int set_options(int fd, const Address *a, const BindOptions *o) {
        int r = 0;

        if (a->sockaddr.any.sa_family == AF_UNIX)
                return 0;
        if (o->type == SOCK_STREAM || o->reuse_address)
                r = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        if (r >= 0 && a->sockaddr.any.sa_family == AF_INET6 && (o->ipv6_only || o->dual_stack))
                r = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, o->ipv6_only);
        return r;
}

static int bind_socket(int fd, const Address *a) {
        int r;

        if (bind(fd, &a->sockaddr.any, a->size) >= 0)
                return 0;
        if (errno != EADDRINUSE || a->sockaddr.any.sa_family != AF_UNIX)
                return -errno;

        r = unlink_stale(a);
        if (r < 0)
                return r;
        return bind(fd, &a->sockaddr.any, a->size) < 0 ? -errno : 0;
}

int bind_address(const Address *a, const BindOptions *o, int *ret_fd) {
        _cleanup_close_ int fd =
                        socket(a->sockaddr.any.sa_family, o->type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int r;

        if (fd < 0)
                return -errno;
        r = set_options(fd, a, o);
        if (r >= 0)
                r = bind_socket(fd, a);
        if (r < 0)
                return r;
        /* The kernel cuts it to net.core.somaxconn. */
        if (o->type == SOCK_STREAM && listen(fd, o->backlog > 0 ? o->backlog : SOMAXCONN) < 0)
                return -errno;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* SPDX-License-Identifier: MIT */
/* Helpers for file descriptors; see fd.h. */

#include "basic/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "basic/macro.h"

int safe_close(int fd) {
        int saved = errno;

        if (fd >= 0)
                (void) close(fd); /* EINTR or EIO: the descriptor is gone all the same on Linux */
        errno = saved;
        return -EBADF;
}

int fd_set_nonblock(int fd, bool nonblock) {
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0)
                return -errno;

        int wanted = nonblock ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
        if (wanted != flags && fcntl(fd, F_SETFL, wanted) < 0)
                return -errno;
        return 0;
}

int fd_set_cloexec(int fd, bool cloexec) {
        int flags = fcntl(fd, F_GETFD);
        if (flags < 0)
                return -errno;

        int wanted = cloexec ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC;
        if (wanted != flags && fcntl(fd, F_SETFD, wanted) < 0)
                return -errno;
        return 0;
}

int read_small_file(int dir_fd, const char *path, size_t max_bytes, char **ret) {
        _cleanup_close_ int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return -errno;

        _cleanup_free_ char *buf = malloc(max_bytes + 1);
        if (!buf)
                return -ENOMEM;

        size_t n = 0;
        for (;;) {
                ssize_t k = read(fd, buf + n, max_bytes + 1 - n);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return -errno;
                if (k == 0)
                        break;
                n += (size_t) k;
                if (n > max_bytes)
                        return -EFBIG;
        }

        buf[n] = '\0';
        *ret = TAKE_PTR(buf);
        return 0;
}

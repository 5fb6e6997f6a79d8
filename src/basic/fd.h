/* SPDX-License-Identifier: MIT */
#pragma once

/* File descriptors. An empty one is -EBADF; every one is born with O_CLOEXEC. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Closes @fd unless it is negative, keeps errno, returns -EBADF: `fd = safe_close(fd);` */
int safe_close(int fd);

/* Takes the descriptor out of @fd and leaves -EBADF there. */
#define TAKE_FD(fd)                 \
        ({                          \
                int *_fdp = &(fd);  \
                int _taken = *_fdp; \
                *_fdp = -EBADF;     \
                _taken;             \
        })

static inline void closep(int *fd) {
        safe_close(*fd);
}
#define _cleanup_close_ _cleanup_(closep)

/* Sets or clears O_NONBLOCK, which belongs to the open file description and is shared by all who hold it. */
int fd_set_nonblock(int fd, bool nonblock);

/* Sets or clears FD_CLOEXEC, which belongs to this descriptor alone. */
int fd_set_cloexec(int fd, bool cloexec);

/* Reads a whole small file of at most @max_bytes below @dir_fd (AT_FDCWD for any path) into a fresh string.
 * -EFBIG when there is more. Made for /proc and /sys, where the size is not known beforehand. */
int read_small_file(int dir_fd, const char *path, size_t max_bytes, char **ret);

/* SPDX-License-Identifier: MIT */
/* Files beneath a root; see file.h. */

#include "http/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"

/* O_NONBLOCK: opening a FIFO would wait for a writer. O_NOCTTY: a terminal below the root must not become
 * ours. */
#define FILE_OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

/* openat2 answers EAGAIN when a rename elsewhere makes it unsure about ".." in a link. */
#define FILE_OPEN_TRIES 4

static int open_with_openat2(const FileRoot *root, const char *path) {
        const struct open_how how = {
                .flags = FILE_OPEN_FLAGS,
                .resolve = RESOLVE_BENEATH |
                           (root->links == FILE_LINKS_NONE ? RESOLVE_NO_SYMLINKS : RESOLVE_NO_MAGICLINKS),
        };

        for (int i = 0; i < FILE_OPEN_TRIES; i++) {
                long fd = syscall(SYS_openat2, root->fd, *path ? path : ".", &how, sizeof(how));
                if (fd >= 0)
                        return (int) fd;
                if (errno != EAGAIN)
                        return -errno;
        }
        return -EAGAIN;
}

/* Copies the component at *path and moves *path to the next one. 1: there was one, 0: the path is at its
 * end. */
static int next_component(const char **path, char ret[static NAME_MAX + 1]) {
        size_t n;

        while (**path == '/')
                (*path)++;
        n = strcspn(*path, "/");
        if (n == 0)
                return 0;
        if (n > NAME_MAX)
                return -ENAMETOOLONG;
        memcpy(ret, *path, n);
        ret[n] = '\0';
        *path += n;
        return strcmp(ret, "..") == 0 ? -EXDEV : 1;
}

/* ENOTDIR for a link in the middle is what O_DIRECTORY makes of it, ELOOP at the end what O_NOFOLLOW does.
 */
static int open_component(int dir_fd, const char *name, const char *rest) {
        int flags = *rest ? O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC : FILE_OPEN_FLAGS | O_NOFOLLOW;
        int fd = openat(dir_fd, name, flags);

        return fd < 0 ? -errno : fd;
}

static int open_with_walk(int root, const char *path) {
        _cleanup_close_ int dir = -EBADF;
        char name[NAME_MAX + 1];
        int r;

        if (*path == '/')
                return -EXDEV;
        if (!*path)
                return open_component(root, ".", "");
        for (;;) {
                r = next_component(&path, name);
                if (r < 0)
                        return r;
                if (r == 0) /* the path ended in a slash: what it names is a directory */
                        return open_component(dir, ".", "");

                int fd = open_component(dir < 0 ? root : dir, name, path);
                if (fd < 0 || !*path)
                        return fd;
                safe_close(dir);
                dir = fd;
        }
}

int file_open_beneath(FileRoot *root, const char *path, int *ret_fd) {
        int fd = -ENOSYS;

        if (root->resolver != FILE_RESOLVER_WALK)
                fd = open_with_openat2(root, path);

        /* EPERM is how some filters (those of older container managers) say ENOSYS. If the file itself is
         * what is not permitted, the walk meets the same. */
        if (root->resolver == FILE_RESOLVER_WALK ||
                        (root->resolver == FILE_RESOLVER_AUTO && (fd == -ENOSYS || fd == -EPERM))) {
                fd = open_with_walk(root->fd, path);
                if (fd != -EPERM)
                        root->resolver = FILE_RESOLVER_WALK;
        }
        if (fd < 0)
                return fd;
        *ret_fd = fd;
        return 0;
}

void file_etag(const struct stat *st, char ret[static FILE_ETAG_MAX]) {
        static const char digits[] = "0123456789abcdef";
        uint64_t values[] = {
                (uint64_t) st->st_mtim.tv_sec * UINT64_C(1000000000) + (uint64_t) st->st_mtim.tv_nsec,
                (uint64_t) st->st_size,
        };
        char *p = ret;

        *p++ = '"';
        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                if (i > 0)
                        *p++ = '-';
                for (int shift = values[i] ? 60 - __builtin_clzll(values[i]) / 4 * 4 : 0; shift >= 0;
                                shift -= 4)
                        *p++ = digits[values[i] >> shift & 15];
        }
        *p++ = '"';
        *p = '\0';
}

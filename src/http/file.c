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
#include "http/date.h"

/* O_NONBLOCK: opening a FIFO would wait for a writer. O_NOCTTY: a terminal below the root must not become
 * ours. */
#define FILE_OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

/* openat2 answers EAGAIN when a rename elsewhere makes it unsure about ".." in a link. */
#define FILE_OPEN_TRIES 4

static int open_with_openat2(int root, const char *path) {
        const struct open_how how = {
                .flags = FILE_OPEN_FLAGS,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
        };

        for (int i = 0; i < FILE_OPEN_TRIES; i++) {
                long fd = syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));
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
                fd = open_with_openat2(root->fd, path);

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

/* entity-tag of RFC 9110, section 8.8.3, at *s; moves *s behind it. The opaque part with its quotes in @ret.
 */
static bool next_tag(const char *buf, HttpSlice *list, HttpSlice *ret) {
        const char *p = buf + list->offset, *end = p + list->length, *open;

        while (p < end && (*p == ' ' || *p == '\t' || *p == ','))
                p++;
        if (end - p >= 2 && p[0] == 'W' && p[1] == '/')
                p += 2;
        if (p == end || *p != '"')
                return false;
        open = p++;
        while (p < end && *p != '"')
                p++;
        if (p == end)
                return false;
        p++;
        *ret = (HttpSlice){ (uint32_t) (open - buf), (uint32_t) (p - open) };
        *list = (HttpSlice){ (uint32_t) (p - buf), (uint32_t) (end - p) };
        return true;
}

/* Commas may stand inside of a tag, so this is not the plain list of section 5.6.1. The comparison is the
 * weak one. */
static bool list_has_tag(const char *buf, HttpSlice list, const char *etag) {
        HttpSlice tag;

        if (list.length == 1 && buf[list.offset] == '*')
                return true;
        while (next_tag(buf, &list, &tag))
                if (tag.length == strlen(etag) && memcmp(buf + tag.offset, etag, tag.length) == 0)
                        return true;
        return false;
}

bool file_not_modified(
                const HttpRequest *request, const char *buf, const char *etag, int64_t mtime, int64_t now) {
        bool asked = false;
        HttpSlice value;
        int64_t since;
        unsigned i;

        for (i = 0; parser_next_field(request, buf, "if-none-match", &i, &value);) {
                asked = true;
                if (list_has_tag(buf, value, etag))
                        return true;
        }
        if (asked)
                return false;

        /* A date that cannot be read, or one of several, is no condition (section 13.1.3). */
        i = 0;
        if (!parser_next_field(request, buf, "if-modified-since", &i, &value) ||
                        date_parse(buf + value.offset, value.length, now, &since) < 0)
                return false;
        return !parser_next_field(request, buf, "if-modified-since", &i, &value) && mtime <= since;
}

/* SPDX-License-Identifier: MIT */
/* The descriptors of a child; see child-stdio.h.
 *
 * The three standard streams are pipes, which programs can open again by /dev/stdin and the like; others are
 * socket pairs, and go both ways. The parent's ends do not block, the child's do: no program expects
 * otherwise. */

#include "lib/child-stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <syslog.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/assert-return.h"
#include "lib/stream-internal.h"

#define PLACES_MAX 1024

void stdio_done(Stdio *s) {
        for (size_t i = 0; s->places && i < s->n; i++) {
                safe_close(s->places[i].owned);
                safe_close(s->places[i].parent);
        }
        free(s->places);
        safe_close(s->null_fd);
        *s = STDIO_INIT;
}

static int open_pair(StdioPlace *p) {
        int fds[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        p->parent = fds[0];
        p->owned = p->child = fds[1];
        p->direction = STREAM_READ | STREAM_WRITE;
        return fd_set_nonblock(p->parent, true);
}

static int open_pipe(StdioPlace *p, size_t i) {
        int fds[2];

        if (i > STDERR_FILENO)
                return open_pair(p);
        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        bool child_reads = i == STDIN_FILENO;
        p->parent = fds[child_reads ? 1 : 0];
        p->owned = p->child = fds[child_reads ? 0 : 1];
        p->direction = child_reads ? STREAM_WRITE : STREAM_READ;
        return fd_set_nonblock(p->parent, true);
}

/* One for all. */
static int open_null(Stdio *s, StdioPlace *p) {
        if (s->null_fd < 0) {
                s->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY);
                if (s->null_fd < 0)
                        return -errno;
        }
        p->child = s->null_fd;
        return 0;
}

static int share(StdioPlace *p, int fd) {
        if (fcntl(fd, F_GETFD) < 0)
                return -errno;
        p->child = fd;
        return 0;
}

static int open_place(Stdio *s, size_t i, const muster_stdio *wanted, bool listed) {
        StdioPlace *p = s->places + i;

        p->kind = wanted->kind;
        switch (p->kind) {
        case MUSTER_STDIO_INHERIT:
                /* a service may have been started without a standard stream */
                return share(p, (int) i) < 0 && (listed && i > STDERR_FILENO) ? -EBADF : 0;
        case MUSTER_STDIO_IGNORE:
                return open_null(s, p);
        case MUSTER_STDIO_PIPE:
                return open_pipe(p, i);
        case MUSTER_STDIO_FD:
                return share(p, wanted->fd);
        case MUSTER_STDIO_IPC:
                if (s->ipc != s->n)
                        return -EINVAL;
                s->ipc = i;
                return open_pair(p);
        case MUSTER_STDIO_CLOSED:
                return 0;
        default:
                return -EINVAL;
        }
}

/* One stream for both, in the places that the caller left to us. The parent opens it, the child writes: the
 * journal takes the sender of each message from the kernel. */
static int open_journal(Stdio *s, const char *identifier, size_t n_listed) {
        size_t first = MAX(n_listed, (size_t) STDOUT_FILENO);
        struct stat st;

        if (first > STDERR_FILENO)
                return 0;
        int fd = sd_journal_stream_fd(identifier, LOG_INFO, /* level_prefix= */ 1);
        if (fd < 0)
                return fd;
        s->places[first].owned = fd;
        for (size_t i = first; i <= STDERR_FILENO; i++)
                s->places[i].child = fd;
        if (fstat(fd, &st) < 0)
                return -errno;
        s->journal_dev = st.st_dev;
        s->journal_ino = st.st_ino;
        return 0;
}

static bool is_shared(int kind) {
        return kind == MUSTER_STDIO_INHERIT || kind == MUSTER_STDIO_FD;
}

/* The caller's own descriptors (@shared) come first: what is opened for the others may get a number that the
 * caller does not have. */
static int open_some(Stdio *s, const muster_spawn_options *o, int with_channel, bool shared) {
        static const muster_stdio ipc = { .kind = MUSTER_STDIO_IPC };
        const muster_stdio rest = { .kind = (o->flags & MUSTER_SPAWN_DETACHED) && !o->stdio
                                                            ? MUSTER_STDIO_IGNORE
                                                            : MUSTER_STDIO_INHERIT };
        int r;

        for (size_t i = 0; i < s->n; i++) {
                bool listed = i < o->n_stdio, channel = with_channel && i + 1 == s->n;

                if (!listed && !channel && o->journal_identifier && i >= STDOUT_FILENO)
                        continue;
                const muster_stdio *wanted = channel ? &ipc : listed ? o->stdio + i : &rest;
                r = is_shared(wanted->kind) == shared ? open_place(s, i, wanted, listed) : 0;
                if (r < 0)
                        return r;
        }
        return 0;
}

static int open_all(Stdio *s, const muster_spawn_options *o, int with_channel) {
        int r = open_some(s, o, with_channel, /* shared= */ true);

        if (r >= 0)
                r = open_some(s, o, with_channel, /* shared= */ false);
        if (r < 0)
                return r;
        return o->journal_identifier ? open_journal(s, o->journal_identifier, o->n_stdio) : 0;
}

int stdio_open(Stdio *s, const muster_spawn_options *options, int with_channel) {
        size_t n = MAX(options->n_stdio, (size_t) STDERR_FILENO + 1) + (with_channel ? 1 : 0);
        int r;

        muster_assert_return(options->stdio || options->n_stdio == 0, -EINVAL);
        muster_assert_return(options->n_stdio <= PLACES_MAX, -EINVAL);

        *s = (Stdio){ .places = calloc(n, sizeof(StdioPlace)), .n = n, .ipc = n, .null_fd = -EBADF };
        if (!s->places)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                s->places[i] = (StdioPlace){
                        .kind = -1, .child = -EBADF, .owned = -EBADF, .parent = -EBADF
                };
        r = open_all(s, options, with_channel);
        if (r < 0)
                stdio_done(s);
        return r;
}

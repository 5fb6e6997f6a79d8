/* SPDX-License-Identifier: MIT */
/* The inbox of a slot; see inbox.h. */

#include "worker/inbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/parse.h"
#include "board/board.h"

/* More than the one that is meant to come: a worker gone mad may send many, and they are to be closed. */
#define DESCRIPTORS_MAX 4

#define MESSAGE_VERSION 1

typedef enum MessageKind {
        MESSAGE_POKE = 1,   /* somebody should look whether there is something to accept */
        MESSAGE_CONNECTION, /* with its descriptor */
} MessageKind;

/* Readers let longer ones pass: a later version may have more to say; and shorter ones, down to the first
 * eight bytes, which were all that there was once. */
typedef struct Message {
        uint8_t version;
        uint8_t kind;
        uint8_t reserved[6];
        uint64_t cookie; /* of a connection; 0: nobody else may have it */
} Message;

#define MESSAGE_MIN offsetof(Message, cookie)

static int parse_range(const char *text, unsigned *ret_first, unsigned *ret_n) {
        char first[16];
        const char *colon = strchr(text, ':');

        if (!colon || (size_t) (colon - text) >= sizeof(first))
                return -EINVAL;
        memcpy(first, text, (size_t) (colon - text));
        first[colon - text] = '\0';
        if (parse_uint(first, ret_first) < 0 || parse_uint(colon + 1, ret_n) < 0)
                return -EINVAL;
        return *ret_first > INT_MAX / 2 || *ret_n > INT_MAX / 4 ? -EINVAL : 0;
}

int inbox_from_environment(Inbox *inboxes, unsigned max) {
        const char *value = getenv(BOARD_ENV_INBOX_FDS);
        unsigned first, n;
        int r;

        if (!value)
                return 0;
        r = parse_range(value, &first, &n);
        (void) unsetenv(BOARD_ENV_INBOX_FDS);
        if (r < 0)
                return r;
        n = MIN(n, max);
        for (unsigned i = 0; i < n; i++) {
                inboxes[i] = (Inbox){ (int) (first + 2 * i), (int) (first + 2 * i + 1) };
                if (fd_set_cloexec(inboxes[i].receive_fd, true) < 0 ||
                                fd_set_cloexec(inboxes[i].send_fd, true) < 0)
                        return -EINVAL;
        }
        return (int) n;
}

/* @fd: -EBADF: none is sent. */
static int send_message(const Inbox *inbox, MessageKind kind, int fd, uint64_t cookie) {
        Message message = { .version = MESSAGE_VERSION, .kind = kind, .cookie = cookie };
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = { 0 };
        struct iovec iov = { &message, sizeof(message) };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (fd >= 0) {
                control.header = (struct cmsghdr){
                        .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS
                };
                memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
                msg.msg_control = &control;
                msg.msg_controllen = sizeof(control);
        }
        return sendmsg(inbox->send_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int inbox_send_connection(const Inbox *inbox, int fd, uint64_t cookie) {
        return send_message(inbox, MESSAGE_CONNECTION, fd, cookie);
}

int inbox_send_poke(const Inbox *inbox) {
        return send_message(inbox, MESSAGE_POKE, -EBADF, 0);
}

/* Returns the one descriptor that came, or -EBADF; of several none is kept. */
static int take_descriptor(struct msghdr *msg) {
        int fds[DESCRIPTORS_MAX], kept = -EBADF;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                size_t n = MIN((c->cmsg_len - CMSG_LEN(0)) / sizeof(int), (size_t) DESCRIPTORS_MAX);
                memcpy(fds, CMSG_DATA(c), n * sizeof(int));
                if (n == 1 && kept < 0)
                        kept = fds[0];
                else
                        for (size_t i = 0; i < n; i++)
                                safe_close(fds[i]);
        }
        return kept;
}

/* A worker gone mad may send any descriptor; one that blocks, or that never can be read, would hold this
 * worker up. */
static bool is_connection(int fd) {
        int type = 0, listens = 1;
        socklen_t n = sizeof(int);

        return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_STREAM &&
               getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) == 0 && !listens &&
               fd_set_nonblock(fd, true) >= 0;
}

/* Without one the kernel would close the connection that comes with a message. */
static bool has_free_descriptor(const Inbox *inbox) {
        _cleanup_close_ int fd = fcntl(inbox->receive_fd, F_DUPFD_CLOEXEC, 0);

        return fd >= 0;
}

int inbox_receive(const Inbox *inbox, int *ret_fd, uint64_t *ret_cookie) {
        Message message = { 0 };
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
        } control;
        struct iovec iov = { &message, sizeof(message) };
        struct msghdr msg = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };

        if (!has_free_descriptor(inbox))
                return inbox_is_empty(inbox) ? -EAGAIN : -EMFILE;
        ssize_t n = recvmsg(inbox->receive_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0)
                return -EAGAIN; /* what else may be the matter: nothing can be read from it now */
        _cleanup_close_ int fd = take_descriptor(&msg);
        if ((size_t) n < MESSAGE_MIN || message.version != MESSAGE_VERSION)
                return INBOX_IGNORED;
        if (message.kind == MESSAGE_POKE)
                return INBOX_POKED;
        if (message.kind != MESSAGE_CONNECTION || fd < 0 || !is_connection(fd))
                return INBOX_IGNORED;
        *ret_fd = TAKE_FD(fd);
        *ret_cookie = message.cookie;
        return 0;
}

bool inbox_is_empty(const Inbox *inbox) {
        int n = 0;

        return ioctl(inbox->receive_fd, FIONREAD, &n) < 0 || n == 0;
}

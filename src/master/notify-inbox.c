/* SPDX-License-Identifier: MIT */
/* A worker's NOTIFY_SOCKET; see notify-inbox.h.
 *
 * Whose a message is. systemd has one socket and asks for the cgroup of the sender, which is not known any
 * more when that was a systemd-notify(1) in a shell script: gone before its message is read. Here every
 * worker process has a socket of its own, so the address alone tells.
 *
 * Who may send. The queue of a datagram socket is short (net.unix.max_dgram_qlen), and who fills it makes
 * the worker's own messages wait. An abstract address can be reached by everybody, a socket in a closed
 * directory by this user and root only; and since a descriptor may get about, the kernel's word on the
 * sender is looked at too.
 *
 * What a worker gone mad may cost. It can send without end, with 253 descriptors in each message. A wake-up
 * reads a few messages, and the rate of wake-ups is limited: that is 2 or 3 % of a CPU. What waits meanwhile
 * is no more than a queue, and the senders block. A full one of 512 messages is through in half a second, in
 * 1.3 s if all of them are full of descriptors, so WATCHDOG=1 gets here in time whatever else is sent.
 *
 * Descriptors are of no use here. All of them are closed, and not before the message was handled: for that
 * moment waits who sent a BARRIER=1. */

#include "master/notify-inbox.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"

#define DIRECTORY_TEMPLATE "muster-notify-XXXXXX"

/* "/SLOT-NUMBER", two of 32 bits, and the NUL byte. */
#define NAME_STRING_MAX 23

/* As in systemd: what is longer is refused. */
#define DATAGRAM_MAX 4096

/* The kernel's SCM_MAX_FD: no message has more. */
#define DESCRIPTORS_MAX 253

/* What a wake-up may cost: 1 for a message, and 1 for every so many descriptors in it. */
#define READ_BUDGET          8
#define DESCRIPTORS_PER_COST 64

#define INBOX_INTERVAL_USEC (100 * USEC_PER_MSEC)
#define INBOX_BURST         20

/* The last words of a process that has ended. More than a queue has by default; others, which it started,
 * may still be sending. */
#define REST_MAX 1024

struct NotifyDirectory {
        char *path;
        unsigned n_made; /* sockets, ever */
};

/* What is said about an inbox once only. */
typedef enum Complaint {
        COMPLAINT_SENDER = 1 << 0,
        COMPLAINT_TRUNCATED = 1 << 1,
        COMPLAINT_DESCRIPTORS = 1 << 2,
        COMPLAINT_TEXT = 1 << 3,
        COMPLAINT_VALUE = 1 << 4,
        COMPLAINT_RECEIVE = 1 << 5,
} Complaint;

struct NotifyInbox {
        unsigned slot;
        char *agent;   /* NULL: it is a worker's */
        char name[48]; /* "Worker 3" or "Agent redis": who is spoken of */
        unsigned complaints;
        int fd;
        uid_t uid; /* ours */
        char *path;
        sd_event_source *source;

        notify_inbox_handler_t handler; /* NULL: not attached */
        void *userdata;

        bool reading;
        bool freed; /* by the handler: the reader has to let go of it */
};

typedef struct Datagram {
        char text[DATAGRAM_MAX];
        size_t n;
        int flags;
        bool has_sender;
        struct ucred sender;
        size_t n_fds;
        int fds[DESCRIPTORS_MAX];
} Datagram;

/*
 * The directory
 */

static int directory_try(const char *parent, size_t n, NotifyDirectory **ret) {
        _cleanup_free_ NotifyDirectory *d = NULL;
        _cleanup_free_ char *path = NULL;
        struct sockaddr_un sa;

        if (n == 0 || parent[0] != '/')
                return -ENOENT;
        if (n + strlen("/" DIRECTORY_TEMPLATE) + NAME_STRING_MAX > sizeof(sa.sun_path))
                return -ENAMETOOLONG;

        d = calloc(1, sizeof(*d));
        if (!d)
                return -ENOMEM;
        if (asprintf(&path, "%.*s/" DIRECTORY_TEMPLATE, (int) n, parent) < 0) {
                path = NULL;
                return -ENOMEM;
        }
        if (!mkdtemp(path))
                return -errno;

        d->path = TAKE_PTR(path);
        *ret = TAKE_PTR(d);
        return 0;
}

int notify_directory_new(NotifyDirectory **ret) {
        const char *runtime = getenv("RUNTIME_DIRECTORY"), *user = getenv("XDG_RUNTIME_DIR");
        int r = -ENOENT;

        /* Several RuntimeDirectory= of a unit are joined by colons. */
        if (runtime)
                r = directory_try(runtime, strcspn(runtime, ":"), ret);
        if (r < 0 && user)
                r = directory_try(user, strlen(user), ret);
        return r < 0 ? directory_try("/tmp", strlen("/tmp"), ret) : r;
}

NotifyDirectory *notify_directory_free(NotifyDirectory *d) {
        if (!d)
                return NULL;
        (void) rmdir(d->path);
        free(d->path);
        free(d);
        return NULL;
}

/*
 * Receiving
 */

static void datagram_close(Datagram *d) {
        while (d->n_fds > 0)
                safe_close(d->fds[--d->n_fds]);
}

static void datagram_take_control(Datagram *d, struct msghdr *mh) {
        for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(mh); cmsg; cmsg = CMSG_NXTHDR(mh, cmsg)) {
                size_t n = cmsg->cmsg_len - CMSG_LEN(0);

                if (cmsg->cmsg_level != SOL_SOCKET)
                        continue;
                if (cmsg->cmsg_type == SCM_CREDENTIALS && n >= sizeof(d->sender)) {
                        memcpy(&d->sender, CMSG_DATA(cmsg), sizeof(d->sender));
                        d->has_sender = true;
                }
                if (cmsg->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t i = 0; i < n / sizeof(int) && d->n_fds < DESCRIPTORS_MAX; i++)
                        memcpy(&d->fds[d->n_fds++], CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
        }
}

/* Returns 0, or a negative errno; -EAGAIN: there is none. */
static int datagram_receive(int fd, Datagram *ret) {
        union {
                char buf[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
                struct cmsghdr align;
        } control;
        struct iovec iov = { ret->text, sizeof(ret->text) };
        struct msghdr mh = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        ssize_t n;

        do
                n = recvmsg(fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;

        ret->n = (size_t) n;
        ret->flags = mh.msg_flags;
        ret->has_sender = false;
        ret->n_fds = 0;
        datagram_take_control(ret, &mh);
        return 0;
}

static bool first_time(NotifyInbox *i, Complaint c) {
        bool first = !(i->complaints & c);

        i->complaints |= c;
        return first;
}

#define complain(i, what, level, ...)                                                                  \
        do {                                                                                           \
                if (first_time(i, what))                                                               \
                        log_event(level,                                                               \
                                        (.message_id = MESSAGE_ID_NOTIFY_REFUSED, .worker = (i)->slot, \
                                                        .agent = (i)->agent),                          \
                                        __VA_ARGS__);                                                  \
        } while (0)

static bool inbox_accepts(NotifyInbox *i, const Datagram *d) {
        pid_t pid = d->sender.pid;

        /* No pid has who sends from outside of our PID namespace. */
        if (!d->has_sender || pid <= 0) {
                complain(i, COMPLAINT_SENDER, LOG_WARNING,
                                "%s: ignored a notification whose sender is not known.", i->name);
                return false;
        }
        if (d->sender.uid != i->uid && d->sender.uid != 0) {
                complain(i, COMPLAINT_SENDER, LOG_WARNING,
                                "%s: ignored a notification from process %d of user %u.", i->name, pid,
                                d->sender.uid);
                return false;
        }
        if (d->flags & MSG_TRUNC) {
                complain(i, COMPLAINT_TRUNCATED, LOG_WARNING,
                                "%s: refused a notification from process %d of more than %d bytes.", i->name,
                                pid, DATAGRAM_MAX);
                return false;
        }
        if (d->flags & MSG_CTRUNC) {
                complain(i, COMPLAINT_DESCRIPTORS, LOG_WARNING,
                                "%s: refused a notification from process %d whose descriptors were "
                                "not all received.",
                                i->name, pid);
                return false;
        }
        return true;
}

/* The inbox may be gone afterwards, but for what the reader holds. */
static void inbox_handle(NotifyInbox *i, const Datagram *d) {
        NotifyMessage m;

        if (!inbox_accepts(i, d))
                return;
        if (notify_message_parse(d->text, d->n, &m) < 0) {
                complain(i, COMPLAINT_TEXT, LOG_WARNING,
                                "%s: refused a notification from process %d that is not UTF-8 text.",
                                i->name, d->sender.pid);
                return;
        }
        if (m.n_ignored > 0)
                complain(i, COMPLAINT_VALUE, LOG_WARNING,
                                "%s: ignored in a notification from process %d: \"%s\".", i->name,
                                d->sender.pid, m.ignored);
        i->handler(&m, d->sender.pid, i->userdata);
}

/* No error is known that could happen; it would not go away either, so the loop must not come back to it. */
static void inbox_failed(NotifyInbox *i, int error) {
        if (first_time(i, COMPLAINT_RECEIVE))
                log_event(LOG_ERR, (.worker = i->slot, .agent = i->agent),
                                "%s: no more notifications can be received: %s", i->name, strerror(-error));
        (void) sd_event_source_set_enabled(i->source, SD_EVENT_OFF); /* only fails for wrong arguments */
}

static void inbox_release(NotifyInbox *i) {
        free(i->agent);
        free(i->path);
        free(i);
}

/* Reads up to @max messages, of @budget together. */
static void inbox_read(NotifyInbox *i, size_t max, size_t budget) {
        size_t spent = 0;

        i->reading = true;
        for (size_t n = 0; n < max && spent < budget && !i->freed; n++) {
                Datagram d;
                int r;

                r = datagram_receive(i->fd, &d);
                if (r < 0) {
                        if (r != -EAGAIN)
                                inbox_failed(i, r);
                        break;
                }
                spent += 1 + d.n_fds / DESCRIPTORS_PER_COST;
                inbox_handle(i, &d);
                datagram_close(&d);
        }
        i->reading = false;
        if (i->freed)
                inbox_release(i);
}

static int on_readable(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        inbox_read(userdata, READ_BUDGET, READ_BUDGET);
        return 0;
}

/*
 * The inbox
 */

static int inbox_open(NotifyInbox *i, const char *path) {
        union {
                struct sockaddr_un un;
                struct sockaddr sa;
        } address = { .un.sun_family = AF_UNIX };

        i->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (i->fd < 0)
                return -errno;
        /* Before it has an address: to what was sent earlier the kernel would add no sender. */
        if (setsockopt(i->fd, SOL_SOCKET, SO_PASSCRED, &(int){ 1 }, sizeof(int)) < 0)
                return -errno;
        strcpy(address.un.sun_path, path); /* directory_try() saw to it that it fits */
        if (bind(i->fd, &address.sa, sizeof(address.un)) < 0)
                return -errno;
        return 0;
}

int notify_inbox_new(NotifyDirectory *d, unsigned slot, NotifyInbox **ret) {
        _cleanup_(notify_inbox_freep) NotifyInbox *i = calloc(1, sizeof(*i));
        _cleanup_free_ char *path = NULL;
        int r;

        if (!i)
                return -ENOMEM;
        *i = (NotifyInbox){ .fd = -EBADF, .uid = getuid() };
        notify_inbox_set_slot(i, slot);
        if (asprintf(&path, "%s/%u-%u", d->path, slot, ++d->n_made) < 0) {
                path = NULL;
                return -ENOMEM;
        }
        r = inbox_open(i, path);
        if (r < 0)
                return r;
        i->path = TAKE_PTR(path); /* ours to remove */
        *ret = TAKE_PTR(i);
        return 0;
}

const char *notify_inbox_get_path(const NotifyInbox *i) {
        return i->path;
}

void notify_inbox_set_slot(NotifyInbox *i, unsigned slot) {
        i->slot = slot;
        snprintf(i->name, sizeof(i->name), "Worker %u", slot);
}

int notify_inbox_set_agent(NotifyInbox *i, const char *agent) {
        i->agent = strdup(agent);
        if (!i->agent)
                return -ENOMEM;
        snprintf(i->name, sizeof(i->name), "Agent %s", agent);
        return 0;
}

int notify_inbox_attach(NotifyInbox *i, sd_event *event, notify_inbox_handler_t handler, void *userdata) {
        int r;

        assert(!i->source);
        r = sd_event_add_io(event, &i->source, i->fd, EPOLLIN, on_readable, i);
        if (r >= 0)
                r = sd_event_source_set_ratelimit(i->source, INBOX_INTERVAL_USEC, INBOX_BURST);
        if (r < 0) {
                i->source = sd_event_source_disable_unref(i->source);
                return r;
        }
        i->handler = handler;
        i->userdata = userdata;
        return 0;
}

void notify_inbox_read_rest(NotifyInbox *i) {
        if (i->handler && !i->reading)
                inbox_read(i, REST_MAX, SIZE_MAX);
}

NotifyInbox *notify_inbox_free(NotifyInbox *i) {
        if (!i)
                return NULL;
        i->source = sd_event_source_disable_unref(i->source);
        if (i->path)
                (void) unlink(i->path);
        i->fd = safe_close(i->fd);
        i->freed = true;
        if (!i->reading)
                inbox_release(i);
        return NULL;
}

/* SPDX-License-Identifier: MIT */
/* A channel whose peer sends anything, with descriptors or without, and reads or not.
 *
 * The first byte is a set of bits: what kind of a channel and of an application. Of the rest, the control
 * bytes that are named below make something happen; what is between them is what the peer sends, in system
 * calls of its own. Beyond not crashing: a message is JSON, has a descriptor when it says so, and is not
 * Node's own for one who does not ask for that; every message that was taken is told of once; after the end
 * there is nothing; and no descriptor is left open. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "fuzz.h"
#include "ipc/json.h"
#include "muster/channel.h"

/* The first byte. */
enum {
        FUZZ_INTERNAL = 1 << 0,
        FUZZ_SMALL = 1 << 1,      /* low limits */
        FUZZ_LATE = 1 << 2,       /* nobody listens until all is sent */
        FUZZ_ANSWER = 1 << 3,     /* every message is answered */
        FUZZ_DROP = 1 << 4,       /* the second message is the last that is wanted */
        FUZZ_DISCONNECT = 1 << 5, /* the same, in order */
};

/* The control bytes. */
enum {
        PEER_FD = 1,  /* the next piece comes with a descriptor */
        PEER_TWO_FDS, /* or with two */
        PEER_READ,
        PEER_SHUTDOWN,
        TURN, /* of the loop */
        SEND, /* the application: a message */
        SEND_FD,
        SEND_LONG,
        DISCONNECT = 11, /* not 9 and 10, which are white space and the end of a line */
        _CONTROL_MAX,
};

typedef struct Fuzz {
        sd_event *event;
        muster_channel *channel;
        int peer;
        unsigned bits;
        unsigned n_messages, n_taken, n_told, n_ended;
        bool dropped;
} Fuzz;

static void check(bool condition) {
        if (!condition)
                abort();
}

static void on_sent(muster_channel *channel, int error, void *userdata) {
        Fuzz *f = userdata;

        check(!f->dropped && !f->n_ended && error <= 0);
        f->n_told++;
}

static void send_message(Fuzz *f, const char *json, int fd) {
        int r = muster_channel_send(f->channel, json, fd, on_sent, f);

        check(r == 0 || r == 1 || r == -ENOBUFS || r == -EPIPE ||
                        (r == -EMSGSIZE && (f->bits & FUZZ_SMALL)));
        check(r != -EPIPE || f->n_ended == 0 || !muster_channel_is_connected(f->channel));
        if (r >= 0)
                f->n_taken++;
}

static bool is_internal(const char *json, size_t n) {
        JsonMember cmd = { .name = "cmd" };

        check(json_scan(json, n, &cmd, 1) == 0);
        return cmd.value.p && cmd.value.n > 7 && memcmp(cmd.value.p, "\"NODE_", 6) == 0;
}

static void on_message(muster_channel *channel, muster_message *message, void *userdata) {
        Fuzz *f = userdata;
        const char *json;
        size_t n;

        json = muster_message_get_json(message, &n);
        check(channel == f->channel && !f->dropped && !f->n_ended && muster_channel_is_connected(channel));
        check(strlen(json) == n && n <= (f->bits & FUZZ_SMALL ? 64 : SIZE_MAX));
        check(!is_internal(json, n) || (f->bits & FUZZ_INTERNAL));
        int fd = muster_message_get_fd(message), type = muster_message_get_handle_type(message);
        check((fd >= 0) == (type != MUSTER_HANDLE_NONE) && type >= 0 && type <= MUSTER_HANDLE_OTHER);
        f->n_messages++;
        if (f->bits & FUZZ_ANSWER)
                send_message(f, "\"answer\"", fd);
        if (f->n_messages % 2 == 0)
                safe_close(muster_message_take_fd(message));
        if (f->n_messages < 2)
                return;
        if (f->bits & FUZZ_DISCONNECT)
                check(muster_channel_disconnect(channel) == 0);
        if (f->bits & FUZZ_DROP) {
                f->channel = muster_channel_unref(channel);
                f->dropped = true;
        }
}

static void on_drained(muster_channel *channel, void *userdata) {
        Fuzz *f = userdata;

        check(!f->dropped && !f->n_ended);
        check(muster_channel_get_queued_bytes(channel) == 0);
}

static void on_disconnected(muster_channel *channel, int error, void *userdata) {
        Fuzz *f = userdata;

        check(!f->dropped && !f->n_ended && !muster_channel_is_connected(channel));
        check(error == 0 || error == -EBADMSG || error == -EMSGSIZE || error == -EPROTO ||
                        error == -ENOBUFS);
        f->n_ended++;
}

static void turn(Fuzz *f) {
        for (int i = 0; sd_event_run(f->event, 0) > 0; i++)
                check(i < 100000);
}

static void listen_to(Fuzz *f) {
        muster_channel_handlers h = MUSTER_CHANNEL_HANDLERS_INIT;

        h.message = on_message;
        h.drained = on_drained;
        h.disconnected = on_disconnected;
        int r = muster_channel_set_handlers(f->channel, &h, f);
        /* It may have been disconnected, and be through with that, before anybody listened. */
        check(r == 0 || (r == -EPIPE && !muster_channel_is_connected(f->channel)));
}

static void fuzz_init(Fuzz *f, uint8_t bits) {
        muster_channel_options o = MUSTER_CHANNEL_OPTIONS_INIT;
        int fds[2];

        *f = (Fuzz){ .bits = bits };
        check(sd_event_new(&f->event) >= 0);
        check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
        f->peer = fds[1];
        o.flags = bits & FUZZ_INTERNAL ? MUSTER_CHANNEL_INTERNAL : 0;
        if (bits & FUZZ_SMALL) {
                o.max_message_bytes = 64;
                o.max_queue_bytes = 100;
        }
        check(muster_channel_new(f->event, fds[0], &o, &f->channel) == 0);
        if (!(bits & FUZZ_LATE))
                listen_to(f);
}

/* As much as there is room for. */
static void peer_send(Fuzz *f, const uint8_t *data, size_t size, size_t n_fds) {
        union {
                char buf[CMSG_SPACE(2 * sizeof(int))];
                struct cmsghdr align;
        } control = { .buf = { 0 } };
        struct iovec iov = { (void *) data, size };
        struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (n_fds > 0) {
                int fds[2] = { STDERR_FILENO, STDIN_FILENO };

                mh.msg_control = &control;
                mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                struct cmsghdr *cmsg = CMSG_FIRSTHDR(&mh);
                cmsg->cmsg_level = SOL_SOCKET;
                cmsg->cmsg_type = SCM_RIGHTS;
                cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
        }
        (void) !sendmsg(f->peer, &mh, MSG_NOSIGNAL);
}

static void peer_read(Fuzz *f) {
        static char buf[65536];

        while (recv(f->peer, buf, sizeof(buf), 0) > 0)
                ;
}

static void send_long(Fuzz *f) {
        static char text[100000];

        memset(text, 'x', sizeof(text) - 1);
        text[0] = text[sizeof(text) - 2] = '"';
        send_message(f, text, -1);
}

static void control(Fuzz *f, uint8_t c) {
        switch (c) {
        case PEER_READ:
                peer_read(f);
                break;
        case PEER_SHUTDOWN:
                (void) shutdown(f->peer, SHUT_WR);
                break;
        case TURN:
                turn(f);
                break;
        case SEND:
                if (f->channel)
                        send_message(f, "{\"cmd\":\"hello\"}", -1);
                break;
        case SEND_FD:
                if (f->channel)
                        send_message(f, "[1]", STDERR_FILENO);
                break;
        case SEND_LONG:
                if (f->channel)
                        send_long(f);
                break;
        case DISCONNECT:
                if (f->channel)
                        (void) muster_channel_disconnect(f->channel);
                break;
        default:
                break;
        }
}

static bool is_control(uint8_t c) {
        return c > 0 && c < _CONTROL_MAX && c != '\t' && c != '\n';
}

static void run(Fuzz *f, const uint8_t *data, size_t size) {
        size_t n_fds = 0;

        while (size > 0) {
                size_t n = 0;

                while (n < size && !is_control(data[n]))
                        n++;
                if (n > 0) {
                        peer_send(f, data, n, n_fds);
                        n_fds = 0;
                } else {
                        n_fds = *data == PEER_FD ? 1 : *data == PEER_TWO_FDS ? 2 : n_fds;
                        control(f, *data);
                        n = 1;
                }
                data += n;
                size -= n;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        int lowest = dup(STDERR_FILENO), again;
        Fuzz f;

        if (size == 0)
                return close(lowest);
        close(lowest);
        fuzz_init(&f, data[0]);
        run(&f, data + 1, size - 1);
        if (f.channel && (f.bits & FUZZ_LATE))
                listen_to(&f);
        turn(&f);
        close(f.peer);
        turn(&f);
        if (f.bits & FUZZ_LATE) /* it may have been ended before anybody listened */
                check(f.dropped || !muster_channel_is_connected(f.channel));
        else
                check(f.n_ended == !f.dropped);
        check(f.dropped || f.n_told == f.n_taken);
        check(sd_event_run(f.event, 0) == 0);
        muster_channel_unref(f.channel);
        sd_event_unref(f.event);
        again = dup(STDERR_FILENO);
        check(again == lowest);
        return close(again);
}

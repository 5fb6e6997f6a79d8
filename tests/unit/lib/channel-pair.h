/* SPDX-License-Identifier: MIT */
#pragma once

/* What the tests of the channel share: two channels with each other, or one and a bare socket that plays the
 * peer; and an ear that remembers all that a channel's handlers were told. */

#include "spawn.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "muster/channel.h"

#define ACK  "{\"cmd\":\"NODE_HANDLE_ACK\"}\n"
#define NACK "{\"cmd\":\"NODE_HANDLE_NACK\"}\n"

/* Of the type that was asked for, without anything in front. */
#define ENVELOPE(type, msg) "{\"cmd\":\"NODE_HANDLE\",\"type\":\"" type "\",\"msg\":" msg "}"

typedef struct Letter {
        char *json;
        size_t length;
        int fd; /* taken out of the message */
        int type;
} Letter;

typedef struct Ear {
        muster_channel *channel;
        Letter *letters;
        unsigned n_letters;
        bool only_count; /* do not keep the letters, nor what comes with them */
        unsigned n_drained, n_ended;
        int error;
        void (*on_message)(struct Ear *ear);
        void (*on_drained)(struct Ear *ear);
        void (*on_ended)(struct Ear *ear);
} Ear;

/* The result of one "sent" handler after the other. */
typedef struct Sent {
        unsigned n;
        int errors[64];
} Sent;

/* Is set while a function of the channel runs: no handler may be called from within. */
static bool inside;

#define CALL(function)                                 \
        ({                                             \
                inside = true;                         \
                typeof(function) _result = (function); \
                inside = false;                        \
                _result;                               \
        })

static inline unsigned count_fds(void) {
        DIR *d = opendir("/proc/self/fd");
        unsigned n = 0;

        assert_non_null(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static unsigned n_fds_before;

static inline int setup_channels(void **state) {
        inside = false;
        n_fds_before = count_fds();
        return sd_event_new(&event);
}

/* Whatever a test was about, it leaves no descriptor behind. */
static inline int teardown_channels(void **state) {
        event = sd_event_unref(event);
        if (count_fds() == n_fds_before)
                return 0;
        print_error("%u descriptors open, %u before\n", count_fds(), n_fds_before);
        return -1;
}

#define channel_test(f) cmocka_unit_test_setup_teardown(f, setup_channels, teardown_channels)

/*
 * The ear
 */

static inline void on_message_heard(muster_channel *channel, muster_message *message, void *userdata) {
        Ear *e = userdata;

        assert_false(inside);
        assert_ptr_equal(channel, e->channel);
        assert_int_equal(e->n_ended, 0);
        if (!e->only_count) {
                Letter l = { .type = muster_message_get_handle_type(message) };
                const char *json = muster_message_get_json(message, &l.length);

                assert_int_equal(json[l.length], '\0');
                assert_int_equal(strlen(json), l.length);
                l.json = strdup(json);
                assert_non_null(l.json);
                int fd = muster_message_get_fd(message);
                l.fd = muster_message_take_fd(message);
                assert_int_equal(l.fd, fd);
                assert_int_equal(muster_message_get_fd(message), -1);
                assert_int_equal(muster_message_take_fd(message), -1);
                e->letters = realloc(e->letters, (e->n_letters + 1) * sizeof(Letter));
                assert_non_null(e->letters);
                e->letters[e->n_letters] = l;
        }
        e->n_letters++;
        if (e->on_message)
                e->on_message(e);
}

static inline void on_drained_heard(muster_channel *channel, void *userdata) {
        Ear *e = userdata;

        assert_false(inside);
        assert_int_equal(e->n_ended, 0);
        assert_int_equal(muster_channel_get_queued_bytes(channel), 0);
        e->n_drained++;
        if (e->on_drained)
                e->on_drained(e);
}

static inline void on_ended_heard(muster_channel *channel, int error, void *userdata) {
        Ear *e = userdata;

        assert_false(inside);
        assert_int_equal(e->n_ended, 0);
        assert_false(muster_channel_is_connected(channel));
        assert_int_equal(muster_channel_get_queued_bytes(channel), 0);
        e->n_ended++;
        e->error = error;
        if (e->on_ended)
                e->on_ended(e);
}

static inline void on_sent_noted(muster_channel *channel, int error, void *userdata) {
        Sent *s = userdata;

        assert_false(inside);
        assert_true(error <= 0);
        s->errors[s->n++ % ELEMENTSOF(s->errors)] = error;
}

static inline void ear_listen(Ear *e) {
        muster_channel_handlers h = MUSTER_CHANNEL_HANDLERS_INIT;

        h.message = on_message_heard;
        h.disconnected = on_ended_heard;
        h.drained = on_drained_heard;
        assert_int_equal(CALL(muster_channel_set_handlers(e->channel, &h, e)), 0);
}

/* Forgets the letters, and closes what came with them. */
static inline void ear_forget(Ear *e) {
        for (unsigned i = 0; i < e->n_letters && !e->only_count; i++) {
                free(e->letters[i].json);
                safe_close(e->letters[i].fd);
        }
        free(e->letters);
        e->letters = NULL;
        e->n_letters = 0;
}

static inline void ear_done(Ear *e) {
        e->channel = CALL(muster_channel_unref(e->channel));
        ear_forget(e);
}

static inline int ear_send(Ear *e, const char *json, int fd, Sent *s) {
        return CALL(muster_channel_send(e->channel, json, fd, s ? on_sent_noted : NULL, s));
}

static inline void assert_letter(const Ear *e, unsigned i, const char *json, int type) {
        assert_true(i < e->n_letters);
        assert_string_equal(e->letters[i].json, json);
        assert_int_equal(e->letters[i].type, type);
        assert_int_equal(e->letters[i].fd >= 0, type != MUSTER_HANDLE_NONE);
}

static inline void assert_same_file(int a, int b) {
        struct stat x, y;

        assert_int_equal(fstat(a, &x), 0);
        assert_int_equal(fstat(b, &y), 0);
        assert_int_equal(x.st_dev, y.st_dev);
        assert_int_equal(x.st_ino, y.st_ino);
}

/*
 * Two channels
 */

static inline void channel_make(Ear *e, int fd, const muster_channel_options *options) {
        *e = (Ear){ .channel = NULL };
        assert_int_equal(muster_channel_new(event, fd, options, &e->channel), 0);
}

static inline void pair_make(Ear *a, Ear *b, const muster_channel_options *options) {
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        channel_make(a, fds[0], options);
        channel_make(b, fds[1], options);
        ear_listen(a);
        ear_listen(b);
}

static inline void pair_done(Ear *a, Ear *b) {
        ear_done(a);
        ear_done(b);
}

/*
 * A channel and a bare socket
 */

/* Returns the peer's end. Nothing is heard before ear_listen(). */
static inline int half_make(Ear *e, const muster_channel_options *options) {
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        channel_make(e, fds[0], options);
        return fds[1];
}

static inline int half_listening(Ear *e, const muster_channel_options *options) {
        int raw = half_make(e, options);

        ear_listen(e);
        return raw;
}

/* One system call with descriptors. Returns what it took, or a negative errno. */
static inline ssize_t raw_try(int raw, const void *data, size_t n, const int *fds, size_t n_fds) {
        union {
                char buf[CMSG_SPACE(253 * sizeof(int))];
                struct cmsghdr align;
        } control = { .buf = { 0 } };
        struct iovec iov = { (void *) data, n };
        struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (fds && n_fds > 0) {
                mh.msg_control = &control;
                mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                struct cmsghdr *cmsg = CMSG_FIRSTHDR(&mh);
                cmsg->cmsg_level = SOL_SOCKET;
                cmsg->cmsg_type = SCM_RIGHTS;
                cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
        }
        ssize_t k = sendmsg(raw, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
        return k < 0 ? -errno : k;
}

/* All of it, with turns of the loop where there is no room; the descriptors go with the first byte. */
static inline void raw_send(int raw, const void *data, size_t n, const int *fds, size_t n_fds) {
        while (n > 0) {
                ssize_t k = raw_try(raw, data, n, fds, n_fds);

                if (k == -EAGAIN) {
                        turn();
                        continue;
                }
                assert_true(k > 0);
                data = (const char *) data + k;
                n -= (size_t) k;
                n_fds = 0;
        }
}

static inline void raw_text(int raw, const char *text) {
        raw_send(raw, text, strlen(text), NULL, 0);
}

static inline void raw_text_fd(int raw, const char *text, int fd) {
        raw_send(raw, text, strlen(text), &fd, 1);
}

/* One read. Returns the number of bytes, 0 at the end, or a negative errno; @ret_fd: -1 if none came. */
static inline ssize_t raw_read(int raw, void *buf, size_t n, int *ret_fd) {
        union {
                char buf[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control;
        struct iovec iov = { buf, n };
        struct msghdr mh = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        ssize_t k = recvmsg(raw, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (k < 0)
                return -errno;
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&mh);
        *ret_fd = -1;
        if (cmsg)
                memcpy(ret_fd, CMSG_DATA(cmsg), sizeof(int));
        return k;
}

/* These very bytes come, with turns of the loop as needed. */
static inline void raw_expect(int raw, const char *text) {
        size_t n = strlen(text), at = 0;
        char *buf = calloc(1, n + 1);

        assert_non_null(buf);
        while (at < n) {
                int fd = -1;
                ssize_t k = raw_read(raw, buf + at, n - at, &fd);

                if (k == -EAGAIN) {
                        turn();
                        continue;
                }
                assert_true(k > 0);
                assert_int_equal(fd, -1);
                at += (size_t) k;
        }
        assert_string_equal(buf, text);
        free(buf);
}

static inline void raw_expect_nothing(int raw) {
        char c;

        assert_int_equal(recv(raw, &c, 1, MSG_DONTWAIT), -1);
        assert_int_equal(errno, EAGAIN);
}

static inline void raw_expect_end(int raw) {
        char c;

        assert_int_equal(recv(raw, &c, 1, MSG_DONTWAIT), 0);
}

/* The end that is expected, and nothing else. */
static inline void expect_ended(Ear *e, int error) {
        run_until(e->n_ended > 0);
        assert_int_equal(e->error, error);
        assert_int_equal(ear_send(e, "1", -1, NULL), -EPIPE);
        assert_int_equal(CALL(muster_channel_disconnect(e->channel)), -EPIPE);
        assert_int_equal(sd_event_run(event, 0), 0);
}

/* A JSON string of @n bytes in all. */
static inline char *long_json(size_t n) {
        char *text = malloc(n + 1);

        assert_non_null(text);
        memset(text, 'x', n);
        text[0] = text[n - 1] = '"';
        text[n] = '\0';
        return text;
}

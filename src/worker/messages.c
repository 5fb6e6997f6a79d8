/* SPDX-License-Identifier: MIT */
/* A module's messages; see messages.h.
 *
 * With a twin this process can die at any instruction, and another one goes on with the same stream. Both
 * ways of it have to be left between two lines, or be known not to be.
 *
 * In: what is there is looked at first, and then read up to the last line feed. Only of a line whose end has
 * not come yet its beginning is read, and before that the area is told that the stream may be in the middle
 * of a line. Whoever finds it so drops what comes up to the next line feed. A message is lost if this
 * process dies between reading and handling it; none comes twice.
 *
 * Out: a line goes in one system call, and only when it surely fits as a whole. The kernel cuts a line into
 * pieces of some 48 KiB, and takes another piece as long as the memory of all that wait, which is what
 * SIOCOUTQ tells, is below SO_SNDBUF. Until then the line waits here, and dies with this process. Neither a
 * signal nor a full buffer can then end a line in its middle. */

#include "worker/messages.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "basic/list.h"
#include "basic/macro.h"
#include "ipc/forward.h"
#include "ipc/line-buffer.h"
#include "ipc/worker-bus.h"
#include "muster/http.h"
#include "worker/crash.h"
#include "worker/epoll-data.h"
#include "worker/event.h"
#include "worker/master-link.h"
#include "worker/module-call.h"

static_assert(MUSTER_HTTP_MESSAGE_MAX == FORWARD_VALUE_MAX, "The header says what fits on the channel");

/* What may wait for room in the socket. */
#define QUEUE_BYTES_MAX (1024 * 1024)

/* Asked of the kernel, which gives up to twice that: the longest line is to fit beside others. */
#define SEND_BUFFER_SIZE (512 * 1024)

/* Of what nobody wants. */
#define DROP_SIZE 1024

typedef struct Line {
        List node;
        size_t size;
        char data[];
} Line;

static struct {
        unsigned worker;
        int fd;
        int epoll_fd;
        size_t send_buffer;
        _Atomic uint32_t *begun; /* the area's word, or `alone`: the stream may be in the middle of a line */
        _Atomic uint32_t alone;

        LineBuffer in;
        bool skips; /* what comes up to the next line feed is the rest of a line that nobody wants */
        muster_http_message_handler_t handler;
        void *userdata;
        void (*on_publish)(const char *json, size_t n);

        List waiting;
        size_t waiting_bytes;
        bool watches_room; /* epoll does */
} mail = { .fd = -EBADF, .waiting = LIST_INIT(mail.waiting) };

bool messages_are_on(void) {
        return mail.fd >= 0;
}

void messages_init(unsigned worker, int fd, int epoll_fd, Area *area) {
        static const int wanted = SEND_BUFFER_SIZE;
        int size = 0;
        socklen_t n = sizeof(size);

        mail.worker = worker;
        mail.fd = fd;
        mail.epoll_fd = epoll_fd;
        mail.begun = area ? &area->line_begun : &mail.alone;
        mail.skips = atomic_load_explicit(mail.begun, memory_order_acquire);
        mail.in.max_line = FORWARD_MESSAGE_MAX;
        if (fd < 0)
                return;
        (void) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &wanted, sizeof(wanted));
        (void) getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, &n);
        mail.send_buffer = (size_t) MAX(size, 0);
}

static void drop_waiting(void) {
        list_foreach_safe (node, &mail.waiting) {
                list_remove(node);
                free(list_entry(node, Line, node));
        }
        mail.waiting_bytes = 0;
}

void messages_done(void) {
        drop_waiting();
        line_buffer_done(&mail.in);
        mail.fd = -EBADF;
        mail.watches_room = false;
}

/*
 * Out
 */

/* No less than the memory that the kernel takes for it: it takes powers of two for what is short, and whole
 * pages for the rest, with a head for each piece. */
static size_t memory_of(size_t line) {
        return line <= 16 * 1024 ? 2 * line + 1024 : line + line / 8 + 4096;
}

/* Epoll tells of room when three quarters of the buffer are free: what needs more would be waited for in
 * vain. */
static bool can_ever_fit(size_t line) {
        return memory_of(line) <= mail.send_buffer / 4 * 3;
}

static bool fits(size_t line) {
        int used;

        return ioctl(mail.fd, SIOCOUTQ, &used) >= 0 && (size_t) used + memory_of(line) <= mail.send_buffer;
}

/* Returns 1: it was sent; 0: it does not fit; a negative errno. */
static int send_line(const char *data, size_t size) {
        ssize_t n;

        if (!fits(size))
                return 0;
        n = send(mail.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n == (ssize_t) size)
                return 1;
        if (n >= 0) { /* the kernel is not as it was found to be: what follows would be taken for the rest */
                (void) shutdown(mail.fd, SHUT_WR);
                return -EPIPE;
        }
        return errno == EAGAIN || errno == EINTR ? 0 : errno == ECONNRESET ? -EPIPE : -errno;
}

uint32_t messages_events(void) {
        return master_link_events() | (list_empty(&mail.waiting) ? 0 : EPOLLOUT);
}

/* ENOENT: the loop has not begun yet, and will add the channel for what messages_events() says. */
static void watch_room(void) {
        struct epoll_event ev = { .events = messages_events(), .data.u64 = event_data(EVENT_CHANNEL, 0) };
        bool wanted = !list_empty(&mail.waiting);

        if (wanted == mail.watches_room)
                return;
        if (epoll_ctl(mail.epoll_fd, EPOLL_CTL_MOD, mail.fd, &ev) >= 0 || errno == ENOENT)
                mail.watches_room = wanted;
}

static void flush(void) {
        while (!list_empty(&mail.waiting)) {
                Line *line = list_entry(mail.waiting.next, Line, node);
                int r = send_line(line->data, line->size);

                if (r == 0 || r == -ENOBUFS || r == -ENOMEM)
                        break;
                if (r < 0) {
                        drop_waiting(); /* the way in tells of the end */
                        break;
                }
                mail.waiting_bytes -= line->size;
                list_remove(&line->node);
                free(line);
        }
        watch_room();
}

/* Takes the line. */
static int send_or_queue(Line *line) {
        int r = 0;

        if (list_empty(&mail.waiting))
                r = send_line(line->data, line->size);
        if (r == 0 && !list_empty(&mail.waiting) && mail.waiting_bytes + line->size > QUEUE_BYTES_MAX)
                r = -ENOBUFS;
        if (r != 0) {
                free(line);
                return r < 0 ? r : 0;
        }
        mail.waiting_bytes += line->size;
        list_append(&mail.waiting, &line->node);
        watch_room();
        return 1;
}

/* The pieces, and a line feed. */
static int send_pieces(const char *head, size_t n_head, const char *body, size_t n_body, const char *tail) {
        size_t n_tail = strlen(tail), size = n_head + n_body + n_tail + 1;
        Line *line;

        if (mail.fd < 0)
                return -EPIPE;
        if (size > FORWARD_MESSAGE_MAX || !can_ever_fit(size))
                return -EMSGSIZE;
        line = malloc(sizeof(*line) + size);
        if (!line)
                return -ENOMEM;
        list_init(&line->node);
        line->size = size;
        memcpy(line->data, head, n_head);
        memcpy(line->data + n_head, body, n_body);
        memcpy(line->data + n_head + n_body, tail, n_tail);
        line->data[size - 1] = '\n';
        return send_or_queue(line);
}

static int send_message(ForwardAct act, unsigned worker, const char *json, size_t n) {
        char head[FORWARD_HEAD_MAX];
        int r;

        if (!json)
                return -EINVAL;
        if (n > FORWARD_VALUE_MAX)
                return -EMSGSIZE;
        if (json_scan_content(json, n) < 0 || !forward_is_for_application(json, n))
                return -EINVAL;
        r = send_pieces(head, forward_write_head(act, worker, head), json, n, FORWARD_TAIL);
        return MIN(r, 0);
}

int muster_http_broadcast(const char *json, size_t n) {
        call_check_thread(__func__);
        return send_message(FORWARD_BROADCAST, 0, json, n);
}

int muster_http_send(unsigned worker, const char *json, size_t n) {
        call_check_thread(__func__);
        return worker > 0 ? send_message(FORWARD_SEND, worker, json, n) : -EINVAL;
}

unsigned muster_http_get_worker(void) {
        return mail.worker;
}

int muster_worker_bus_send(const char *line, size_t n) {
        call_check_thread(__func__);
        return send_pieces("", 0, line, n, "");
}

/*
 * In
 */

void muster_http_set_message_handler(muster_http_message_handler_t handler, void *userdata) {
        call_check_thread(__func__);
        mail.handler = handler;
        mail.userdata = userdata;
}

void muster_worker_bus_listen(void (*handler)(const char *json, size_t n)) {
        mail.on_publish = handler;
}

static void hand_over(const char *json, size_t n) {
        enum { CMD, ACT };
        JsonMember m[] = { [CMD] = { .name = "cmd" }, [ACT] = { .name = "act" } };

        if (json_scan(json, n, m, ELEMENTSOF(m)) < 0)
                return;
        _cleanup_(crash_leave) CrashScope scope;
        crash_enter(&scope, "in its handler of messages", "", 0);
        event_touch();
        if (!json_span_is(m[CMD].value, "MUSTER")) {
                if (mail.handler && !json_span_begins(m[CMD].value, "NODE_"))
                        mail.handler(json, n, mail.userdata);
        } else if (mail.on_publish && json_span_is(m[ACT].value, "publish"))
                mail.on_publish(json, n);
}

static void hand_over_lines(void) {
        uint64_t offset;
        char *line;
        size_t n;

        while (line_buffer_next(&mail.in, &line, &n, &offset)) {
                if (!mail.skips)
                        hand_over(line, n);
                mail.skips = false;
        }
        if (mail.skips)
                line_buffer_done(&mail.in);
}

/* Reads what is there, up to the last line feed or, when there is none, all. 0: nothing is there; -EPIPE: it
 * is over. Descriptors that may come with a line are closed by the kernel, as nothing is there to take them.
 */
static ssize_t read_lines(char *room, size_t size) {
        const char *feed;
        ssize_t n;

        n = recv(mail.fd, room, size, MSG_PEEK | MSG_DONTWAIT);
        if (n > 0) {
                feed = memrchr(room, '\n', (size_t) n);
                if (!feed)
                        atomic_store_explicit(mail.begun, 1, memory_order_release);
                n = recv(mail.fd, room, feed ? (size_t) (feed + 1 - room) : (size_t) n, MSG_DONTWAIT);
                if (n > 0 && feed)
                        atomic_store_explicit(mail.begun, 0, memory_order_release);
        }
        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -EPIPE;
        return n == 0 ? -EPIPE : n;
}

/* Nobody listens, and no memory is taken. */
static ssize_t drop_lines(void) {
        char buf[DROP_SIZE];
        ssize_t n;

        line_buffer_done(&mail.in);
        n = read_lines(buf, sizeof(buf));
        mail.skips = atomic_load_explicit(mail.begun, memory_order_relaxed);
        return n;
}

static bool read_once(void) {
        size_t size;
        ssize_t n;
        char *room;

        if ((!mail.handler && !mail.on_publish) || line_buffer_reserve(&mail.in, &room, &size) < 0)
                return drop_lines() >=
                       0; /* also of a line that is too long, or for which there is no memory */
        n = read_lines(room, size);
        if (n <= 0)
                return n == 0;
        line_buffer_add(&mail.in, (size_t) n);
        hand_over_lines();
        return true;
}

bool messages_ready(uint32_t events) {
        /* As for master_link_is_alive(): nobody waits for what is left. */
        if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                return false;
        if (events & EPOLLOUT)
                flush();
        return !(events & EPOLLIN) || read_once();
}

/* SPDX-License-Identifier: MIT */
/* Messages between a parent and its child: `channel WAY echo MSEC` for round trips of one small message, and
 * `channel WAY send COUNT BYTES` for messages of that size to the child, with one answer at the end.
 *
 * WAY: muster, or a bare socket pair with blocking read() and write(), with epoll, or on sd_event. The child
 * is this program again (muster) or a fork of it, and works in the same way as its parent. */

#include <errno.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "bench.h"
#include "muster/process.h"

/* Also a line, as the channel sends it. */
#define SMALL "{\"a\":1}"
#define STOP  "{\"b\":1}"

typedef struct Parent {
        sd_event *event;
        muster_child *child;
        muster_channel *channel;
        Stopwatch watch;
        uint64_t until;
        uint64_t n; /* round trips */
        uint64_t to_send;
        char *text;
        size_t size;
        uint64_t cpu_of_child;
} Parent;

/*
 * The child of muster_fork()
 */
static void on_message_in_child(muster_channel *channel, muster_message *message, void *userdata) {
        static uint64_t cpu; /* since the first message */
        char answer[64];
        size_t n;
        const char *json = muster_message_get_json(message, &n);

        if (cpu == 0)
                cpu = cpu_usec();
        if (n == strlen(STOP) && strcmp(json, STOP) == 0) {
                snprintf(answer, sizeof(answer), "{\"cpu\":%llu}", (unsigned long long) (cpu_usec() - cpu));
                must(muster_channel_send(channel, answer, -1, NULL, NULL), "send");
        } else if (n == strlen(SMALL))
                must(muster_channel_send(channel, json, -1, NULL, NULL), "send");
}

static void on_disconnected_in_child(muster_channel *channel, int error, void *userdata) {
        sd_event_exit(userdata, error);
}

static int run_child(void) {
        muster_channel_handlers h = MUSTER_CHANNEL_HANDLERS_INIT;
        muster_channel *channel;
        sd_event *event;

        h.message = on_message_in_child;
        h.disconnected = on_disconnected_in_child;
        must(sd_event_new(&event), "sd_event_new");
        must(muster_channel_from_environment(event, NULL, &channel), "channel");
        must(muster_channel_set_handlers(channel, &h, event), "handlers");
        int r = must(sd_event_loop(event), "sd_event_loop");
        muster_channel_unref(channel);
        sd_event_unref(event);
        return r;
}

/*
 * Its parent
 */
static bool is_last_answer(Parent *p, const char *json) {
        unsigned long long cpu;

        if (sscanf(json, "{\"cpu\":%llu}", &cpu) != 1)
                return false;
        p->cpu_of_child = cpu;
        return true;
}

static void send_while_taken(Parent *p, muster_channel *channel) {
        while (p->to_send > 0) {
                int r = muster_channel_send_full(
                                channel, p->text, p->size, -1, MUSTER_HANDLE_NONE, NULL, NULL);
                must(r, "send");
                if (--p->to_send == 0)
                        must(muster_channel_send(channel, STOP, -1, NULL, NULL), "send");
                if (r > 0)
                        return; /* until it is drained */
        }
}

static void on_message(muster_channel *channel, muster_message *message, void *userdata) {
        Parent *p = userdata;
        size_t n;
        const char *json = muster_message_get_json(message, &n);
        bool small = n == strlen(SMALL);

        if (!small && is_last_answer(p, json)) {
                stopwatch_report(&p->watch, p->n, p->cpu_of_child);
                muster_channel_disconnect(channel);
                return;
        }
        /* the clock is read once in a while only */
        bool more = ++p->n % 64 != 0 || clock_now_usec() < p->until;
        must(muster_channel_send(channel, more ? SMALL : STOP, -1, NULL, NULL), "send");
}

static void on_drained(muster_channel *channel, void *userdata) {
        send_while_taken(userdata, channel);
}

static void on_child_end(muster_child *child, int code, int status, void *userdata) {
        Parent *p = userdata;

        sd_event_exit(p->event, status);
}

/* The child is up when it has answered; only then the watch runs. */
static void on_first_message(muster_channel *channel, muster_message *message, void *userdata) {
        muster_channel_handlers h = MUSTER_CHANNEL_HANDLERS_INIT;
        Parent *p = userdata;

        h.message = on_message;
        h.drained = on_drained;
        must(muster_channel_set_handlers(channel, &h, p), "handlers");
        p->watch = stopwatch_start();
        p->until += p->watch.wall;
        if (p->to_send == 0)
                must(muster_channel_send(channel, SMALL, -1, NULL, NULL), "send");
        else
                send_while_taken(p, channel);
}

static int run_muster(Parent *p) {
        static char *const arguments[] = { (char *) "channel", (char *) "child", NULL };
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        muster_channel_handlers h = MUSTER_CHANNEL_HANDLERS_INIT;
        muster_channel *channel;

        o.argv = arguments;
        h.message = on_first_message;
        must(sd_event_new(&p->event), "sd_event_new");
        must(muster_fork(p->event, &o, on_child_end, p, &p->child), "muster_fork");
        channel = muster_child_get_channel(p->child);
        must(muster_channel_set_handlers(channel, &h, p), "handlers");
        must(muster_channel_send(channel, SMALL, -1, NULL, NULL), "send");
        int r = must(sd_event_loop(p->event), "sd_event_loop");
        muster_child_unref(p->child);
        sd_event_unref(p->event);
        return r;
}

/*
 * Bare socket pairs: eight bytes there and back
 */
enum { EIGHT = sizeof(SMALL) };

typedef struct Bare {
        Parent *parent; /* NULL in the child */
        int fd;
        uint64_t n;
} Bare;

/* What came is answered. False: that was the last. */
static bool answer_bare(Bare *b) {
        char buf[64];

        ssize_t n = read(b->fd, buf, sizeof(buf));
        if (n <= 0)
                return false;
        bool more = !b->parent || ++b->n % 64 != 0 || clock_now_usec() < b->parent->until;
        return more && write(b->fd, buf, EIGHT) == EIGHT;
}

static void loop_epoll(Bare *b) {
        struct epoll_event e = { .events = EPOLLIN };
        int epoll = epoll_create1(EPOLL_CLOEXEC);

        must(epoll_ctl(epoll, EPOLL_CTL_ADD, b->fd, &e) < 0 ? -errno : 0, "epoll_ctl");
        while (epoll_wait(epoll, &e, 1, -1) == 1 && answer_bare(b))
                ;
        close(epoll);
}

static int on_bare_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        return answer_bare(userdata) ? 0 : sd_event_exit(sd_event_source_get_event(source), 0);
}

static void loop_sd_event(Bare *b) {
        sd_event *event;

        must(sd_event_new(&event), "sd_event_new");
        must(sd_event_add_io(event, NULL, b->fd, EPOLLIN, on_bare_io, b), "sd_event_add_io");
        must(sd_event_loop(event), "sd_event_loop");
        sd_event_unref(event);
}

static void loop_bare(Bare *b, const char *way) {
        if (strcmp(way, "epoll") == 0)
                loop_epoll(b);
        else if (strcmp(way, "sd_event") == 0)
                loop_sd_event(b);
        else
                while (answer_bare(b))
                        ;
}

static int run_bare(Parent *p, const char *way) {
        int fds[2];

        must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0 ? -errno : 0, "socketpair");
        uint64_t before = usage_usec(RUSAGE_CHILDREN);
        pid_t pid = must(fork(), "fork");
        Bare b = { .parent = pid > 0 ? p : NULL, .fd = fds[pid > 0] };
        close(fds[pid == 0]);
        if (pid > 0) {
                p->watch = stopwatch_start();
                p->until += p->watch.wall;
                must(write(b.fd, SMALL "\n", EIGHT) == EIGHT ? 0 : -errno, "write");
        }
        loop_bare(&b, way);
        close(b.fd);
        if (pid == 0)
                _exit(0);
        waitpid(pid, NULL, 0);
        stopwatch_report(&p->watch, b.n, usage_usec(RUSAGE_CHILDREN) - before);
        return 0;
}

/* {"s":"xxx…"} of @size bytes. */
static char *make_text(size_t size) {
        char *text = malloc(size + 1);

        memset(text, 'x', size);
        memcpy(text, "{\"s\":\"", 6);
        memcpy(text + size - 2, "\"}", 3);
        return text;
}

int main(int argc, char **argv) {
        if (argc == 2)
                return run_child();
        if (argc < 4)
                return EXIT_FAILURE;

        uint64_t count = strtoull(argv[3], NULL, 10);
        Parent p = { .until = count * USEC_PER_MSEC };
        if (strcmp(argv[2], "send") == 0 && argc == 5) {
                p.n = p.to_send = count;
                p.size = strtoul(argv[4], NULL, 10);
                p.text = make_text(p.size);
        }
        int r = strcmp(argv[1], "muster") == 0 ? run_muster(&p) : run_bare(&p, argv[1]);
        free(p.text);
        return r;
}

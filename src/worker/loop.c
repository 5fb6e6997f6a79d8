/* SPDX-License-Identifier: MIT */
/* The loop; see loop.h.
 *
 * Interest is level-triggered: a turn may stop wherever it likes, what is left wakes the loop up again.
 *
 * Every turn beats on the board, and the master, which cannot tell an idle worker from one that hangs, makes
 * a silent one turn by a line on its channel. So an idle worker wakes up when it is looked after, and never
 * by itself. */

#include "worker/loop.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "basic/memory.h"
#include "http/connection.h"
#include "worker/epoll-data.h"
#include "worker/event.h"
#include "worker/master-link.h"
#include "worker/messages.h"

#define EVENTS_MAX 64

#define ORPHAN_DRAIN (5 * USEC_PER_SEC)

#define NO_PROXY_INTERVAL (10 * USEC_PER_SEC)

#define TARGET_LOGGED_MAX 200

void loop_block_signals(void) {
        const struct sigaction ignore = { .sa_handler = SIG_IGN };
        sigset_t mask;

        /* The mask is set, not added to: whatever was blocked in the parent is not our business. */
        sigemptyset(&mask);
        sigaddset(&mask, SIGTERM);
        (void) sigprocmask(SIG_SETMASK, &mask, NULL);

        (void) sigaction(SIGPIPE, &ignore, NULL); /* sendfile(2) has no flag against it */
        (void) sigaction(SIGHUP, &ignore, NULL);  /* reload is for the master */
        (void) sigaction(SIGINT, &ignore, NULL);  /* so is ^C, which the terminal sends to all */
}

static int loop_epoll(const Loop *l, int op, int fd, uint32_t events, uint64_t data) {
        struct epoll_event ev = { .events = events, .data.u64 = data };

        return epoll_ctl(l->epoll_fd, op, fd, &ev) < 0 ? -errno : 0;
}

/* Not a handler with the signal let in by epoll_pwait(2): that call returns without it as long as there are
 * events, so that a busy worker would never hear of it. */
static int loop_init_signals(Loop *l) {
        sigset_t mask;
        int r;

        sigemptyset(&mask);
        sigaddset(&mask, SIGTERM);
        l->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
        if (l->signal_fd < 0)
                return log_error_errno(-errno, "Failed to create a signal descriptor: %m");
        r = loop_epoll(l, EPOLL_CTL_ADD, l->signal_fd, EPOLLIN, event_data(EVENT_SIGNAL, 0));
        if (r < 0)
                return log_error_errno(r, "Failed to wait for signals: %m");
        return 0;
}

static int loop_init_channel(Loop *l) {
        int r;

        uint32_t events = messages_are_on() ? messages_events() : master_link_events();

        if (l->in->channel_fd < 0)
                return 0;
        r = loop_epoll(l, EPOLL_CTL_ADD, l->in->channel_fd, events, event_data(EVENT_CHANNEL, 0));
        if (r == -EEXIST) /* by who served before, who may have waited for something else */
                r = loop_epoll(l, EPOLL_CTL_MOD, l->in->channel_fd, events, event_data(EVENT_CHANNEL, 0));
        if (r < 0)
                return log_error_errno(r, "Failed to listen to the master: %m");
        return 0;
}

static int loop_init_inner(Loop *l) {
        int r;

        if (event_fd() < 0)
                return 0;
        r = loop_epoll(l, EPOLL_CTL_ADD, event_fd(), EPOLLIN, event_data(EVENT_INNER, 0));
        if (r < 0)
                return log_error_errno(r, "Failed to listen to the module's events: %m");
        return 0;
}

static void loop_set_time(Loop *l) {
        struct timespec ts;

        clock_gettime(CLOCK_REALTIME_COARSE, &ts);
        server_set_time(&l->server, clock_now_usec(), ts.tv_sec);
}

/* Anybody can send rubbish as fast as he likes. */
static void loop_on_no_proxy(void *userdata, const char *reason) {
        Loop *l = userdata;

        if (l->no_proxy_at > 0 && l->server.now - l->no_proxy_at < NO_PROXY_INTERVAL)
                return;
        l->no_proxy_at = l->server.now;
        log_warning("Closed a connection without a header of the PROXY protocol (workers.proxy_protocol): %s",
                        reason);
}

/* So that whoever looks for the reason finds the request. */
static void loop_on_refused(void *userdata, const Exchange *x, unsigned status) {
        const char *head = exchange_head(x);
        HttpSlice method = x->request.method_name, path = x->request.path;

        log_warning("%s the request %.*s %.*s, which is answered %u.",
                        status == 500 ? "Several processes in a row have died of"
                                      : "A process has died, and nobody knows what became of",
                        (int) method.length, head + method.offset,
                        (int) MIN(path.length, (uint32_t) TARGET_LOGGED_MAX), head + path.offset, status);
}

static int loop_init_server(Loop *l, const Handler *handler) {
        Server *s = &l->server;
        int r;

        r = server_init(s, &l->in->settings, handler, l->cell, &l->in->table);
        if (r < 0)
                return log_error_errno(r, "Failed to reserve memory for connections: %m");
        s->n_requests = atomic_load_explicit(&l->cell->requests, memory_order_relaxed);
        s->on_no_proxy = loop_on_no_proxy;
        s->no_proxy_userdata = l;
        s->alone = !l->area;
        s->on_refused = loop_on_refused;
        s->refused_userdata = l;
        loop_set_time(l);
        return 0;
}

/* Whoever takes over goes by this: which connection was being dealt with, and that epoll may not know yet
 * what it waits for. */
static void loop_touch(const Loop *l, Connection *c) {
        connection_touch(c);
        if (l->area)
                atomic_store_explicit(&l->area->running, (uint32_t) c->fd + 1, memory_order_release);
}

static void loop_settle(const Loop *l) {
        if (l->area)
                atomic_store_explicit(&l->area->running, 0, memory_order_release);
}

/* A close alone makes epoll forget the socket, and tells the client, no sooner than nobody has it open any
 * more (epoll(7)). A module's child has, until it starts its program: an event that came by then would be
 * taken for one of the next connection with that number. So has who handed it over, and that one may be
 * stopped for long. A client whose answer is not complete is to see a reset. */
static void loop_let_go(const Loop *l, Connection *c) {
        connection_begin_close(c);
        if (c->watched)
                (void) loop_epoll(l, EPOLL_CTL_DEL, c->fd, 0, 0);
        if (c->handed && !c->record->broken)
                (void) shutdown(c->fd, SHUT_RDWR);
}

static void loop_close(Loop *l, Connection *c) {
        loop_let_go(l, c);
        connection_done(c);
        acceptor_start(&l->acceptor); /* if it was the lack of room that stopped it */
}

/* The rest is closed by force: the time is over. */
static void loop_close_all(Loop *l) {
        Server *s = &l->server;

        for (Connection *c = NULL;
                        (c = server_next_connection(s, c ? (unsigned) (c - s->connections) + 1 : 0));) {
                loop_let_go(l, c);
                connection_done(c);
        }
}

void loop_set_log(Loop *l, LogWriter *log) {
        l->log = log;
        l->server.log = log_writer_log;
        l->server.log_userdata = log;
}

void loop_done(Loop *l) {
        l->server.draining = l->server.ending = true;
        loop_close_all(l);
        server_done(&l->server);
        l->signal_fd = safe_close(l->signal_fd);
}

static uint32_t events_for(ConnectionWant want) {
        return (want & CONNECTION_WANT_READ ? EPOLLIN : 0) | (want & CONNECTION_WANT_WRITE ? EPOLLOUT : 0) |
               (want & CONNECTION_WANT_HANGUP ? EPOLLRDHUP : 0);
}

/* What epoll knows of one that was taken over is not known here. */
static int loop_watch(const Loop *l, const Connection *c, int op, uint32_t events) {
        uint64_t data = event_data(EVENT_CONNECTION, (unsigned) c->fd);
        int r;

        r = loop_epoll(l, op, c->fd, events, data);
        if (r == -ENOENT && op == EPOLL_CTL_MOD)
                r = loop_epoll(l, EPOLL_CTL_ADD, c->fd, events, data);
        return r;
}

/* Does what the connection wants next, after it was touched. @op: EPOLL_CTL_MOD, or EPOLL_CTL_ADD for one
 * that epoll does not know yet. */
static void loop_apply(Loop *l, Connection *c, int op, ConnectionWant want) {
        uint32_t events = events_for(want);

        /* A turn of many connections on a slow disk may last, and is no hang as long as one after the other
         * is dealt with. */
        board_cell_beat(l->cell);
        if (!(want & CONNECTION_WANT_CLOSE) && (c->events != events || op == EPOLL_CTL_ADD)) {
                if (loop_watch(l, c, op, events) < 0)
                        want = CONNECTION_WANT_CLOSE;
                c->watched = true;
                c->events = events;
        }
        if (want & CONNECTION_WANT_CLOSE)
                loop_close(l, c);
        else
                connection_settle(c);
        loop_settle(l);
}

/* The request has mostly arrived together with the connection, so it is tried at once. If not, the time for
 * it begins now: since the turn began, this process may have stood still for longer than it is given. */
static void loop_add_connection(void *userdata, int fd, bool handed) {
        Loop *l = userdata;
        Connection *c;

        loop_set_time(l);
        if (connection_open(&l->server, fd, &c) < 0) {
                close(fd); /* the limits are such that it does not happen */
                return;
        }
        c->handed = handed;
        loop_touch(l, c);
        loop_apply(l, c, EPOLL_CTL_ADD, connection_ready(c));
}

static void loop_init_acceptor(Loop *l) {
        l->acceptor = l->in->acceptor;
        l->acceptor.server = &l->server;
        l->acceptor.handlers = (AcceptorHandlers){ .add = loop_add_connection, .userdata = l };
        if (l->successor)
                acceptor_inherit(&l->acceptor);
}

int loop_init(Loop *l, Inheritance *in, Successor *successor, const Handler *handler) {
        uint64_t max_requests = in->options->max_requests;
        int r;

        *l = (Loop){
                .in = in,
                .epoll_fd = in->epoll_fd,
                .board = in->board,
                .cell = in->cell,
                .area = in->area,
                .successor = successor,
                .signal_fd = -EBADF,
                .leave_at = max_requests > 0 ? max_requests : UINT64_MAX,
                .end_at = USEC_INFINITY,
        };
        r = loop_init_server(l, handler);
        if (r >= 0)
                r = loop_init_signals(l);
        if (r >= 0)
                r = loop_init_channel(l);
        if (r >= 0)
                r = loop_init_inner(l);
        if (r < 0)
                return r;
        loop_init_acceptor(l);
        if (!l->successor) /* which does not know yet whether it has room */
                acceptor_start(&l->acceptor);
        return 0;
}

/* What was accepted is answered, the rest of the queue belongs to others. Of an orphan all of it does: what
 * that one accepts may end with it. */
static void loop_drain(Loop *l, bool orphan) {
        loop_set_time(l); /* as for a new connection: what idle ones have left begins now */
        /* Nobody is left to set a limit. */
        if (orphan && l->end_at == USEC_INFINITY)
                l->end_at = l->server.now + ORPHAN_DRAIN;
        if (l->server.draining)
                return;
        server_drain(&l->server);
        acceptor_end(&l->acceptor, /* accept_last= */ !orphan);
        board_cell_set_state(l->board, l->cell, BOARD_DRAINING);
        if (l->on_drain)
                l->on_drain(l->drain_userdata);
}

/* The master's end sends the same signal as the master does (PR_SET_PDEATHSIG); a keeper knows which it was.
 */
static bool loop_is_orphan(const Loop *l) {
        return l->area ? atomic_load(&l->area->orphaned) : getppid() != l->in->identity->master;
}

/* Whoever told it, this process or all of the unit's: nobody is to take over from one that drains. */
static void loop_retire(Loop *l, bool orphan) {
        if (l->area && !atomic_load(&l->area->retiring))
                area_retire(l->area, orphan);
        loop_drain(l, orphan);
}

static void loop_read_signals(Loop *l) {
        struct signalfd_siginfo info;

        while (read(l->signal_fd, &info, sizeof(info)) == sizeof(info))
                loop_retire(l, loop_is_orphan(l));
}

static void loop_read_channel(Loop *l, uint32_t events) {
        bool alive = messages_are_on() ? messages_ready(events)
                                       : master_link_is_alive(l->in->channel_fd, events);

        if (alive)
                return;
        messages_done();
        (void) loop_epoll(l, EPOLL_CTL_DEL, l->in->channel_fd, 0, 0);
        if (!l->area) /* else the number stays taken, as it is the keeper's */
                l->in->channel_fd = safe_close(l->in->channel_fd);
        loop_retire(l, /* orphan= */ true);
}

static bool is_order(const struct epoll_event *ev) {
        return event_kind(ev) == EVENT_SIGNAL || event_kind(ev) == EVENT_CHANNEL;
}

static void loop_obey(Loop *l, const struct epoll_event *ev) {
        if (event_kind(ev) == EVENT_SIGNAL)
                loop_read_signals(l);
        else
                loop_read_channel(l, ev->events);
}

static void loop_dispatch_connection(Loop *l, const struct epoll_event *ev) {
        Connection *c = l->server.connections + event_number(ev);
        const uint32_t broken = EPOLLERR | EPOLLHUP;

        loop_touch(l, c);
        if (ev->events & (broken | EPOLLRDHUP))
                loop_apply(l, c, EPOLL_CTL_MOD, connection_hung_up(c, !(ev->events & broken)));
        else
                loop_apply(l, c, EPOLL_CTL_MOD, connection_ready(c));
}

static void loop_dispatch(Loop *l, const struct epoll_event *ev) {
        if (event_kind(ev) == EVENT_CONNECTION)
                loop_dispatch_connection(l, ev);
        else if (event_kind(ev) == EVENT_LISTENER)
                acceptor_ready(&l->acceptor, event_number(ev));
        else if (event_kind(ev) == EVENT_INBOX)
                acceptor_read_inbox(&l->acceptor, ev->events);
}

static void loop_expire(Loop *l) {
        Timeout *t;

        while ((t = server_next_expired(&l->server))) {
                Connection *c = connection_from_timeout(t);
                loop_touch(l, c);
                loop_apply(l, c, EPOLL_CTL_MOD, connection_expired(c));
        }
        acceptor_expire(&l->acceptor);
        if (l->log && log_writer_deadline(l->log) <= l->server.now)
                log_writer_flush(l->log, l->server.now);
}

/* What came about outside of the connections' own turns. */
static void loop_run_runnable(Loop *l) {
        Connection *c;

        while ((c = server_next_runnable(&l->server))) {
                loop_touch(l, c);
                loop_apply(l, c, EPOLL_CTL_MOD, connection_ready(c));
        }
}

static int loop_timeout_msec(const Loop *l) {
        uint64_t deadline = MIN(server_next_deadline(&l->server),
                        MIN(acceptor_next_deadline(&l->acceptor), l->end_at));
        uint64_t now = l->server.now;

        if (l->log)
                deadline = MIN(deadline, log_writer_deadline(l->log));
        if (deadline == USEC_INFINITY)
                return -1;
        if (deadline <= now)
                return 0;
        return (int) MIN((deadline - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC, (uint64_t) INT_MAX);
}

static bool loop_is_finished(const Loop *l) {
        bool done = l->server.n_connections == 0 && !acceptor_has_handed(&l->acceptor);

        return l->server.draining && (done || l->server.now >= l->end_at);
}

/* Waits for events, at most so long (-1: for ever), and deals with them. */
static int loop_turn(Loop *l, int timeout_msec) {
        struct epoll_event events[EVENTS_MAX];
        bool inner = false;
        int r;

        /* The module may also answer while its loop prepares to wait. */
        if (event_prepare() || server_has_runnable(&l->server))
                timeout_msec = 0;
        acceptor_rest(&l->acceptor);
        int n = epoll_wait(l->epoll_fd, events, EVENTS_MAX, timeout_msec);
        if (n < 0 && errno == EINTR) /* it was stopped: what has come by now is older than any deadline */
                n = epoll_wait(l->epoll_fd, events, EVENTS_MAX, 0);
        if (n < 0 && errno != EINTR)
                return log_error_errno(-errno, "Failed to wait for events: %m");

        board_cell_beat(l->cell);
        loop_set_time(l);
        acceptor_wake(&l->acceptor);
        /* The order to drain first: what is accepted in spite of it may end with this process. */
        for (int i = 0; i < n; i++)
                if (is_order(events + i))
                        loop_obey(l, events + i);
        for (int i = 0; i < n; i++)
                if (event_kind(events + i) == EVENT_INNER)
                        inner = true;
                else
                        loop_dispatch(l, events + i);
        if (l->area)
                atomic_store_explicit(&l->area->running, AREA_RUNNING_APP, memory_order_release);
        r = event_dispatch(inner);
        if (r < 0)
                return r;
        loop_settle(l);
        /* Deadlines last: it may be us who are late. */
        loop_run_runnable(l);
        loop_expire(l);
        loop_run_runnable(l);
        if (acceptor_is_broken(&l->acceptor) && !l->server.draining)
                return log_error_errno(-ENOTSOCK, "No listening socket is left.");
        return 0;
}

/* Asks for the replacement, and serves on: not before that one is ready does the order to drain come. Who
 * has it already asks for nothing. */
static void loop_leave(Loop *l) {
        l->leave_at = UINT64_MAX;
        if (!l->server.draining)
                board_cell_set_state(l->board, l->cell, BOARD_LEAVING);
}

/* From here on a death of this process is taken over. The master is told what it has not been told yet by
 * one that served before. */
static void loop_tell_ready(Loop *l) {
        uint32_t state = atomic_load_explicit(&l->cell->state, memory_order_relaxed);

        if (l->area)
                area_tell_served(l->area);
        if (!l->server.draining && state != BOARD_READY && state != BOARD_LEAVING)
                board_cell_set_state(l->board, l->cell, BOARD_READY);
}

/* First what is there already, without a call of the app: what it dies of then is a request, and not that it
 * was taken over. */
static void loop_take_over(Loop *l) {
        successor_adopt(l->successor, &l->server);
        acceptor_start(&l->acceptor);
        board_cell_add_takeover(l->cell);
        board_cell_beat(l->cell); /* a request at which it hangs now is no slow start */
        loop_tell_ready(l);
        if (atomic_load(&l->area->retiring))
                loop_drain(l, loop_is_orphan(l));
        loop_run_runnable(l);
        successor_add_fresh(l->successor, &l->acceptor);
}

/* The client whose connection started the service is answered first; what the bell sets off in the master
 * takes longer than that. */
static int loop_begin(Loop *l) {
        int r;

        r = acceptor_begin(&l->acceptor);
        if (r < 0)
                return r;
        if (l->successor)
                loop_take_over(l);
        r = loop_turn(l, 0);
        if (r >= 0 && !l->successor)
                loop_tell_ready(l);
        memory_trim();
        return r;
}

int loop_run(Loop *l) {
        int r;

        if (!l->successor && !board_cell_begin(l->cell))
                return 0; /* the master has no use for it any more, and is about to kill it */
        r = loop_begin(l);
        while (r >= 0 && !loop_is_finished(l)) {
                if (l->server.n_requests >= l->leave_at)
                        loop_leave(l);
                r = loop_turn(l, loop_timeout_msec(l));
        }
        return r;
}

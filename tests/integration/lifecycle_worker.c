/* SPDX-License-Identifier: MIT */
/* A worker that serves like muster-worker and goes wrong on command: what the tests of a worker's life run
 * in its place (lifecycle.py). Plain libc, so that it knows nothing but the interface.
 *
 * A request's path says what to do; all answer with 200. Those marked * answer first, so that the client
 * knows that the command has arrived; with the query "silent" they do not answer at all.
 *
 *      /                   "hello\n"
 *      /whoami             pid, worker, generation … in JSON
 *      /suicide?REASON     {"act":"suicide"} on the channel; serves on until SIGTERM. Answers with its pid
 *      /retire?REASON      {"cmd":"MUSTER","act":"retire"}, likewise
 *      /leave              the board's way to say the same
 *      /status?TEXT        {"cmd":"MUSTER","act":"status"}
 *      /channel?BYTES      exactly these on the channel; end a line by %0A
 *      /close-channel
 *      /received           the last line that came on the channel
 *      /deaf               reads nothing from it from now on
 *      /notify?TEXT        to NOTIFY_SOCKET; lines are parted by %0A
 *      /barrier?TEXT       likewise with a descriptor, without TEXT BARRIER=1: "closed" when it was closed
 *      /watchdog?on=1      from now on WATCHDOG=1 in half of WATCHDOG_USEC
 *      /crash*             abort(3)
 *      /signal?n=N*        sends itself a signal: 9 as an OOM kill, 11, 19 to be stopped
 *      /exit?code=N*
 *      /hang*              an endless loop
 *      /deadlock*, /sleep* blocked for ever
 *      /block?msec=N*      blocked for a while
 *      /leak?mib=N         so much memory more, touched
 *      /stubborn           SIGTERM is ignored from now on; ?abort=1: SIGABRT as well
 *      /fork               a daemon that ignores SIGTERM; answers with its pid
 *      /fork?child         likewise, in the process group
 *      /fork?hidden        likewise, a child in a session of its own and without environment
 *
 * LIFECYCLE_MODE, or if that is set the file that LIFECYCLE_MODE_FILE names (so that a test can change it),
 * is a list of words, parted by blanks, that say how it starts. A word counts only for the worker and the
 * generation behind it: "never-ready@generation=2@worker=1".
 *
 *      never-ready         waits for SIGTERM
 *      crash-at-start      abort(3) at once
 *      exit=CODE           at once
 *      hang-at-start       an endless loop at once
 *      serves-first        takes clients and never says that it is ready, as muster-worker in its first turn
 *      gate=PATH           opens a FIFO and waits until all writers have closed it, before it is ready
 *      slow-ready=MSEC     ready after so long
 *      crash-after=MSEC    abort(3) so long after it was ready
 *      exit-after=MSEC     likewise exit(3)
 *      stubborn            as /stubborn
 *      fork                as /fork
 *      watchdog            as /watchdog
 *      notify              says READY=1 on NOTIFY_SOCKET, and nothing on the board
 *      channel             says {"cmd":"MUSTER","act":"ready"}, and nothing on the board
 */

#include "lifecycle_deeds.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FIRST_FD        3
#define LISTENERS_MAX   16
#define CONNECTIONS_MAX 1000
#define REQUEST_MAX     4096
#define MODE_MAX        1024

#define DRAIN_MSEC        1000 /* what an idle connection gets for one more request, as in muster-worker */
#define ORPHAN_DRAIN_MSEC 5000
#define SEND_MSEC         20000

typedef struct Connection {
        int fd;
        size_t n;
        char request[REQUEST_MAX + 1];
} Connection;

Self self = { .channel_fd = -1, .bell_fd = -1 };

static Connection *connections[CONNECTIONS_MAX];
static size_t n_connections;
static int n_listeners;
static int signal_fd = -1;
static bool draining;
static char mode[MODE_MAX];

/* When, in the monotonic clock's milliseconds; UINT64_MAX: never. */
static uint64_t ready_at = UINT64_MAX, crash_at = UINT64_MAX, exit_at = UINT64_MAX;
static uint64_t idle_end_at = UINT64_MAX, end_at = UINT64_MAX, beat_at = 0;

static uint64_t now_msec(void) {
        struct timespec ts;

        (void) clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}

static unsigned long environment_number(const char *name, unsigned long otherwise) {
        const char *e = getenv(name);

        return e ? strtoul(e, NULL, 10) : otherwise;
}

/*
 * The mode
 */

static void mode_read(void) {
        const char *path = getenv("LIFECYCLE_MODE_FILE"), *text = getenv("LIFECYCLE_MODE");

        if (!path) {
                snprintf(mode, sizeof(mode), "%s", text ? text : "");
                return;
        }
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = read(fd, mode, sizeof(mode) - 1);
        mode[n > 0 ? n : 0] = '\0';
        (void) close(fd);
}

/* Whether the conditions behind a word hold. */
static bool is_meant(const char *conditions) {
        return number_of(conditions, "worker", self.worker) == self.worker &&
               number_of(conditions, "generation", self.generation) == self.generation;
}

/* Returns the value of a word of the mode, "" if it has none, or NULL when it is not there or not for this
 * worker. */
static const char *mode_get(const char *name) {
        static char word[MODE_MAX];
        size_t n = strlen(name);

        for (const char *p = mode; *p;) {
                size_t length = strcspn(p, " \t\n;");

                if (strncmp(p, name, n) == 0 && (n == length || p[n] == '=' || p[n] == '@')) {
                        snprintf(word, sizeof(word), "%.*s", (int) (length - n), p + n);
                        char *conditions = strchrnul(word, '@');
                        if (is_meant(conditions)) {
                                *conditions = '\0';
                                return *word == '=' ? word + 1 : "";
                        }
                }
                p += length + (p[length] != '\0');
        }
        return NULL;
}

static bool mode_has(const char *name) {
        return mode_get(name);
}

/* When it is time, if the mode says so. */
static uint64_t mode_time(const char *name, uint64_t from) {
        const char *msec = mode_get(name);

        return msec ? from + strtoul(msec, NULL, 10) : UINT64_MAX;
}

/*
 * What the master gave
 */

static void board_open(void) {
        static _Alignas(CELL_SIZE) char own[CELL_SIZE];
        unsigned long fd = environment_number("MUSTER_BOARD_FD", 0);
        struct stat st;

        self.cell = (Cell *) own;
        if (fd == 0 || fstat((int) fd, &st) < 0)
                return;
        char *board = mmap(NULL, (size_t) st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, (int) fd, 0);
        size_t offset = environment_number("MUSTER_BOARD_CELL", 0) * CELL_SIZE;
        if (board == MAP_FAILED || offset + CELL_SIZE > (size_t) st.st_size)
                return;
        self.cell = (Cell *) (board + offset);
        self.bell_fd = (int) environment_number("MUSTER_BELL_FD", 0);
}

static void signals_open(void) {
        sigset_t mask;

        (void) sigemptyset(&mask);
        (void) sigaddset(&mask, SIGTERM);
        (void) sigprocmask(SIG_SETMASK, &mask, NULL);
        signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
        (void) signal(SIGPIPE, SIG_IGN);
        (void) signal(SIGHUP, SIG_IGN);
        (void) signal(SIGINT, SIG_IGN);
        /* Nobody looks at the core of a crash that was ordered. */
        (void) setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
}

static void listeners_open(void) {
        n_listeners = (int) environment_number("LISTEN_FDS", 0);
        if (n_listeners > LISTENERS_MAX)
                n_listeners = LISTENERS_MAX;
        for (int i = 0; i < n_listeners; i++)
                (void) fcntl(FIRST_FD + i, F_SETFL, fcntl(FIRST_FD + i, F_GETFL) | O_NONBLOCK);
}

/*
 * The life
 */

static void become_ready(void) {
        uint64_t now = now_msec();

        ready_at = UINT64_MAX;
        crash_at = mode_time("crash-after", now);
        exit_at = mode_time("exit-after", now);
        if (mode_has("notify"))
                (void) tell_notify("READY=1", -1);
        else if (mode_has("channel"))
                tell_channel("{\"cmd\":\"MUSTER\",\"act\":\"ready\"}\n");
        else {
                self.cell->beats++; /* as muster-worker, whose first turn comes before */
                tell_state(STATE_READY);
        }
}

static void begin(void) {
        char answer[ANSWER_MAX], byte;
        const char *value;

        if (mode_has("crash-at-start"))
                abort();
        if ((value = mode_get("exit")))
                _exit(atoi(value));
        if (mode_has("hang-at-start"))
                for (volatile unsigned turns = 0;; turns++)
                        ;
        self.stubborn = mode_has("stubborn");
        self.beating = mode_has("watchdog");
        if (mode_has("fork"))
                start_grandchild("", answer);
        if ((value = mode_get("gate"))) {
                int fd = open(value, O_RDONLY | O_CLOEXEC);
                while (fd >= 0 && read(fd, &byte, 1) > 0)
                        ;
                (void) close(fd);
        }
        ready_at = mode_time("slow-ready", now_msec());
        if (mode_has("serves-first"))
                self.cell->state = STATE_SERVING;
        else if (ready_at == UINT64_MAX && !mode_has("never-ready"))
                become_ready();
}

/* What was accepted is answered, the rest of the queue is for the others. */
static void drain(void) {
        if (draining)
                return;
        draining = true;
        ready_at = UINT64_MAX;
        idle_end_at = now_msec() + DRAIN_MSEC;
        if (self.cell->state != STATE_STARTING)
                tell_state(STATE_DRAINING);
}

static void on_signal(void) {
        struct signalfd_siginfo info;

        while (read(signal_fd, &info, sizeof(info)) == sizeof(info))
                drain();
}

/* As much of a line as an answer takes. */
static void take_received(char c) {
        static char line[sizeof(self.received) - 1];
        static size_t n;

        if (c == '\n') {
                snprintf(self.received, sizeof(self.received), "%.*s", (int) n, line);
                self.messages++;
                n = 0;
        } else if (n < sizeof(line))
                line[n++] = c;
}

/* Nothing is done about a message: that the loop has turned is the answer to a probe. */
static void on_channel(void) {
        char data[65536];

        ssize_t n = recv(self.channel_fd, data, sizeof(data), MSG_DONTWAIT);
        if (n > 0) {
                for (ssize_t i = 0; i < n; i++)
                        take_received(data[i]);
                return;
        }
        if (n < 0 && errno == EAGAIN)
                return;
        (void) close(self.channel_fd);
        self.channel_fd = -1;
        end_at = now_msec() + ORPHAN_DRAIN_MSEC;
        drain();
}

/*
 * HTTP
 */

static void connection_close(size_t i) {
        (void) close(connections[i]->fd);
        free(connections[i]);
        connections[i] = connections[--n_connections];
        self.cell->connections = (uint32_t) n_connections;
}

static bool send_all(int fd, const char *data, size_t n) {
        while (n > 0) {
                ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
                if (sent > 0) {
                        data += sent;
                        n -= (size_t) sent;
                } else if (errno != EAGAIN || poll(&(struct pollfd){ fd, POLLOUT, 0 }, 1, SEND_MSEC) != 1)
                        return false;
        }
        return true;
}

static bool respond(Connection *c, int code, const char *body, bool keep) {
        char answer[ANSWER_MAX + 256];

        int n = snprintf(answer, sizeof(answer),
                        "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n%s",
                        code, code == 200 ? "OK" : "Not Found", strlen(body),
                        keep ? "" : "Connection: close\r\n", body);
        self.cell->requests++;
        return send_all(c->fd, answer, (size_t) n);
}

/* @head is one request without its empty line. Returns whether the connection goes on. */
static bool answer_request(Connection *c, char *head) {
        char *rest, *body = (char[ANSWER_MAX]){ 0 };
        bool keep = !draining && !strcasestr(head, "\r\nConnection: close");

        (void) strtok_r(head, " ", &rest);
        char *target = strtok_r(NULL, " ", &rest);
        if (!target)
                return false;
        char *path = strsep(&target, "?");
        const char *query = target ? target : "";
        const Deed *deed = deed_find(path);
        if (!deed)
                return respond(c, 404, "no such deed\n", keep) && keep;
        bool silent = deed->deadly && strcmp(query, "silent") == 0;
        if (deed->deadly && !silent && !respond(c, 200, "", keep))
                return false;
        deed_run(deed, query, body);
        return deed->deadly ? keep && !silent : respond(c, 200, body, keep) && keep;
}

/* Returns whether the connection goes on. */
static bool connection_read(Connection *c) {
        char *end;

        ssize_t n = recv(c->fd, c->request + c->n, REQUEST_MAX - c->n, 0);
        if (n <= 0)
                return n < 0 && errno == EAGAIN;
        c->n += (size_t) n;
        c->request[c->n] = '\0';
        while ((end = strstr(c->request, "\r\n\r\n"))) {
                *end = '\0';
                size_t used = (size_t) (end + 4 - c->request);
                if (!answer_request(c, c->request))
                        return false;
                c->n -= used;
                memmove(c->request, c->request + used, c->n + 1);
        }
        return c->n < REQUEST_MAX;
}

/* One a turn, so that the siblings get theirs. */
static void listener_accept(int listener) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
                return;
        Connection *c = malloc(sizeof(*c));
        if (!c) {
                (void) close(fd);
                return;
        }
        c->fd = fd;
        c->n = 0;
        connections[n_connections++] = c;
        self.cell->accepted++;
        self.cell->connections = (uint32_t) n_connections;
}

/*
 * The loop
 */

static void on_time(void) {
        uint64_t now = now_msec();

        if (now >= ready_at)
                become_ready();
        if (now >= crash_at)
                abort();
        if (now >= exit_at || now >= end_at)
                exit(0);
        if (now >= idle_end_at) {
                idle_end_at = UINT64_MAX; /* no other one becomes idle: each answer is its connection's last
                                           */
                for (size_t i = n_connections; i-- > 0;)
                        if (connections[i]->n == 0)
                                connection_close(i);
        }
        if (self.beating && now >= beat_at) {
                (void) tell_notify("WATCHDOG=1", -1);
                beat_at = now + environment_number("WATCHDOG_USEC", 2000000) / 2000;
        }
}

static int timeout_msec(void) {
        const uint64_t times[] = { ready_at, crash_at, exit_at, end_at, self.beating ? beat_at : UINT64_MAX,
                n_connections > 0 ? idle_end_at : UINT64_MAX };
        uint64_t next = UINT64_MAX, now = now_msec();

        for (size_t i = 0; i < sizeof(times) / sizeof(*times); i++)
                if (times[i] < next)
                        next = times[i];
        return next == UINT64_MAX ? -1 : next <= now ? 0 : (int) (next - now);
}

static void turn(void) {
        static struct pollfd p[2 + LISTENERS_MAX + CONNECTIONS_MAX];
        bool accepting = !draining && (ready_at == UINT64_MAX && !mode_has("never-ready")) &&
                         n_connections + LISTENERS_MAX < CONNECTIONS_MAX;
        size_t n = 0, n_before = n_connections;

        /* A descriptor of -1 is passed over by poll(2). */
        p[n++] = (struct pollfd){ self.stubborn ? -1 : signal_fd, POLLIN, 0 };
        p[n++] = (struct pollfd){ self.deaf ? -1 : self.channel_fd, POLLIN, 0 };
        for (int i = 0; i < n_listeners; i++)
                p[n++] = (struct pollfd){ accepting ? FIRST_FD + i : -1, POLLIN, 0 };
        for (size_t i = 0; i < n_before; i++)
                p[n++] = (struct pollfd){ connections[i]->fd, POLLIN, 0 };

        if (poll(p, n, timeout_msec()) < 0)
                return;
        self.cell->beats++;
        if (p[0].revents)
                on_signal();
        if (p[1].revents)
                on_channel();
        /* From the last on: a closed one's place is taken by the last. */
        for (size_t i = n_before; i-- > 0;)
                if (p[2 + (size_t) n_listeners + i].revents && !connection_read(connections[i]))
                        connection_close(i);
        for (int i = 0; i < n_listeners && !draining; i++)
                if (p[2 + i].revents)
                        listener_accept(FIRST_FD + i);
        on_time();
}

int main(void) {
        self.worker = (unsigned) environment_number("MUSTER_WORKER", 1);
        self.generation = (unsigned) environment_number("MUSTER_GENERATION", 1);
        self.channel_fd = (int) environment_number("MUSTER_CHANNEL_FD", 0) ?: -1;
        board_open();
        signals_open();
        listeners_open();
        mode_read();
        begin();
        while (!draining || n_connections > 0)
                turn();
        return 0;
}

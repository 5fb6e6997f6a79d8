/* SPDX-License-Identifier: MIT */
/* The deeds of lifecycle_worker; see lifecycle_deeds.h, and lifecycle_worker.c for what they are for. */

#include "lifecycle_deeds.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_MSEC 20000 /* as in worker_harness.py */

/*
 * Ways to the master
 */

void tell_state(uint32_t state) {
        static const uint64_t one = 1;

        self.cell->state = state;
        (void) !write(self.bell_fd, &one, sizeof(one));
}

void tell_channel(const char *line) {
        size_t n = strlen(line);

        while (n > 0) {
                ssize_t sent = send(self.channel_fd, line, n, MSG_NOSIGNAL);
                if (sent > 0) {
                        line += sent;
                        n -= (size_t) sent;
                } else if (errno == EAGAIN)
                        (void) poll(&(struct pollfd){ self.channel_fd, POLLOUT, 0 }, 1, DEADLINE_MSEC);
                else {
                        perror("lifecycle_worker: channel");
                        return;
                }
        }
}

bool tell_notify(const char *text, int fd) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
        struct iovec iov = { (char *) text, strlen(text) };
        const char *path = getenv("NOTIFY_SOCKET");

        errno = ENXIO;
        if (!path || strlen(path) >= sizeof(address.sun_path))
                return false;
        memcpy(address.sun_path, path, strlen(path));
        if (*path == '@')
                address.sun_path[0] = '\0';
        struct msghdr message = {
                .msg_name = &address,
                .msg_namelen = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + strlen(path)),
                .msg_iov = &iov,
                .msg_iovlen = 1,
        };
        if (fd >= 0) {
                memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
                message.msg_control = &control;
                message.msg_controllen = sizeof(control.space);
        }
        int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        bool sent = s >= 0 && sendmsg(s, &message, MSG_NOSIGNAL) >= 0;
        (void) close(s);
        return sent;
}

/* {"act":ACT,KEY:TEXT}, with what JSON demands escaped. */
static void tell_act(const char *before, const char *key, const char *text) {
        char line[ANSWER_MAX * 6 + 128];
        size_t n = (size_t) snprintf(line, sizeof(line), "{%s", before);

        if (*text) {
                n += (size_t) snprintf(line + n, sizeof(line) - n, ",\"%s\":\"", key);
                for (const char *p = text; *p && n < sizeof(line) - 16; p++)
                        if (*p == '"' || *p == '\\' || (unsigned char) *p < 0x20)
                                n += (size_t) snprintf(
                                                line + n, sizeof(line) - n, "\\u%04x", (unsigned char) *p);
                        else
                                line[n++] = *p;
                line[n++] = '"';
        }
        memcpy(line + n, "}\n", sizeof("}\n"));
        tell_channel(line);
}

/*
 * What is asked for
 */

unsigned long number_of(const char *query, const char *name, unsigned long otherwise) {
        size_t n = strlen(name);

        for (const char *p = query; (p = strstr(p, name)); p += n)
                if (p[n] == '=' && (p == query || !isalnum((unsigned char) p[-1])))
                        return strtoul(p + n + 1, NULL, 10);
        return otherwise;
}

static void decode(const char *query, char *text) {
        unsigned byte;
        size_t n = 0;

        for (const char *p = query; *p && n < ANSWER_MAX - 1; n++)
                if (*p == '%' && sscanf(p + 1, "%2x", &byte) == 1 && isxdigit((unsigned char) p[2])) {
                        text[n] = (char) byte;
                        p += 3;
                } else
                        text[n] = *p++;
        text[n] = '\0';
}

static void whoami(const char *query, const char *text, char *answer) {
        snprintf(answer, ANSWER_MAX,
                        "{\"pid\":%d,\"worker\":%u,\"generation\":%u,\"connections\":%u,\"requests\":%llu,"
                        "\"messages\":%llu}\n",
                        getpid(), self.worker, self.generation, self.cell->connections,
                        (unsigned long long) self.cell->requests, (unsigned long long) self.messages);
}

static void hello(const char *query, const char *text, char *answer) {
        snprintf(answer, ANSWER_MAX, "hello\n");
}

/*
 * Talking to the master
 */

static void suicide(const char *query, const char *text, char *answer) {
        tell_act("\"act\":\"suicide\"", "reason", text);
        snprintf(answer, ANSWER_MAX, "%d\n", getpid());
}

static void retire(const char *query, const char *text, char *answer) {
        tell_act("\"cmd\":\"MUSTER\",\"act\":\"retire\"", "reason", text);
        snprintf(answer, ANSWER_MAX, "%d\n", getpid());
}

static void leave(const char *query, const char *text, char *answer) {
        tell_state(STATE_LEAVING);
        snprintf(answer, ANSWER_MAX, "%d\n", getpid());
}

static void status(const char *query, const char *text, char *answer) {
        tell_act("\"cmd\":\"MUSTER\",\"act\":\"status\"", "text", text);
}

static void channel(const char *query, const char *text, char *answer) {
        tell_channel(text);
}

static void received(const char *query, const char *text, char *answer) {
        snprintf(answer, ANSWER_MAX, "%s\n", self.received);
}

static void be_deaf(const char *query, const char *text, char *answer) {
        self.deaf = true;
}

static void close_channel(const char *query, const char *text, char *answer) {
        (void) close(self.channel_fd);
        self.channel_fd = -1;
}

static void notify(const char *query, const char *text, char *answer) {
        snprintf(answer, ANSWER_MAX, "%s\n", tell_notify(text, -1) ? "sent" : strerror(errno));
}

/* The end that is kept tells whether the other one was closed by whoever was sent it. */
static void barrier(const char *query, const char *text, char *answer) {
        int ends[2];

        if (pipe(ends) < 0)
                return;
        bool sent = tell_notify(*text ? text : "BARRIER=1", ends[1]);
        (void) close(ends[1]);
        struct pollfd p = { .fd = ends[0] };
        if (!sent)
                snprintf(answer, ANSWER_MAX, "not sent\n");
        else
                snprintf(answer, ANSWER_MAX, "%s\n",
                                poll(&p, 1, DEADLINE_MSEC) == 1 ? "closed" : "still open");
        (void) close(ends[0]);
}

static void watchdog(const char *query, const char *text, char *answer) {
        self.beating = number_of(query, "on", 1);
}

/*
 * Going wrong
 */

static void crash(const char *query, const char *text, char *answer) {
        abort();
}

static void raise_signal(const char *query, const char *text, char *answer) {
        (void) raise((int) number_of(query, "n", SIGKILL));
}

static void leave_at_once(const char *query, const char *text, char *answer) {
        _exit((int) number_of(query, "code", 0));
}

static void hang(const char *query, const char *text, char *answer) {
        for (volatile unsigned turns = 0;; turns++)
                ;
}

static void deadlock(const char *query, const char *text, char *answer) {
        pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

        (void) pthread_mutex_lock(&mutex);
        (void) pthread_mutex_lock(&mutex);
}

/* The loop stands still for a while, and then goes on. */
static void block(const char *query, const char *text, char *answer) {
        unsigned long msec = number_of(query, "msec", 1000);
        struct timespec rest = { (time_t) (msec / 1000), (long) (msec % 1000) * 1000000 };

        while (nanosleep(&rest, &rest) < 0)
                ;
}

static void leak(const char *query, const char *text, char *answer) {
        size_t size = number_of(query, "mib", 1) << 20;
        char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED) {
                snprintf(answer, ANSWER_MAX, "%s\n", strerror(errno));
                return;
        }
        /* Not zeros: pages that are all alike could be merged. */
        for (size_t i = 0; i < size; i += 64)
                memcpy(p + i, &i, sizeof(i));
        snprintf(answer, ANSWER_MAX, "%zu\n", size);
}

static void be_stubborn(const char *query, const char *text, char *answer) {
        self.stubborn = true;
        if (number_of(query, "abort", 0))
                (void) signal(SIGABRT, SIG_IGN);
}

/*
 * Grandchildren
 */

/* As one that has started with an empty environment: what /proc shows is this memory. */
static void forget_environment(void) {
        for (char **e = environ; *e; e++)
                memset(*e, 0, strlen(*e));
}

__attribute__((noreturn)) static void be_grandchild(int said) {
        pid_t pid = getpid();

        (void) signal(SIGTERM, SIG_IGN);
        (void) signal(SIGHUP, SIG_IGN);
        (void) !write(said, &pid, sizeof(pid));
        /* The listening sockets, the board, the clients: nothing of it is to stay open by this process. */
        for (int fd = 3; fd < 1024; fd++)
                (void) close(fd);
        for (;;)
                (void) pause();
}

/* Its pid comes through a pipe: a daemon's parent has only ever seen the process between. */
void start_grandchild(const char *kind, char *answer) {
        bool hidden = strcmp(kind, "hidden") == 0, daemon = !hidden && strcmp(kind, "child") != 0;
        pid_t pid = -1;
        int ends[2];

        if (pipe(ends) < 0)
                return;
        pid_t child = fork();
        if (child == 0) {
                if (hidden) {
                        (void) setsid();
                        forget_environment();
                }
                if (!daemon)
                        be_grandchild(ends[1]);
                (void) setsid();
                if (fork() == 0)
                        be_grandchild(ends[1]);
                _exit(0);
        }
        (void) close(ends[1]);
        (void) !read(ends[0], &pid, sizeof(pid));
        (void) close(ends[0]);
        if (daemon)
                (void) waitpid(child, NULL, 0);
        snprintf(answer, ANSWER_MAX, "%d\n", pid);
}

static void fork_some(const char *query, const char *text, char *answer) {
        start_grandchild(query, answer);
}

static const Deed deeds[] = {
        { "/", false, hello },
        { "/whoami", false, whoami },

        { "/suicide", false, suicide },
        { "/retire", false, retire },
        { "/leave", false, leave },
        { "/status", false, status },
        { "/channel", false, channel },
        { "/close-channel", false, close_channel },
        { "/received", false, received },
        { "/deaf", false, be_deaf },
        { "/notify", false, notify },
        { "/barrier", false, barrier },
        { "/watchdog", false, watchdog },

        { "/crash", true, crash },
        { "/signal", true, raise_signal },
        { "/exit", true, leave_at_once },
        { "/hang", true, hang },
        { "/deadlock", true, deadlock },
        { "/sleep", true, deadlock },
        { "/block", true, block },
        { "/leak", false, leak },
        { "/stubborn", false, be_stubborn },
        { "/fork", false, fork_some },
};

const Deed *deed_find(const char *path) {
        for (size_t i = 0; i < sizeof(deeds) / sizeof(*deeds); i++)
                if (strcmp(deeds[i].path, path) == 0)
                        return deeds + i;
        return NULL;
}

void deed_run(const Deed *deed, const char *query, char *answer) {
        char text[ANSWER_MAX];

        decode(query, text);
        *answer = '\0';
        deed->run(query, text, answer);
}

/* SPDX-License-Identifier: MIT */
#pragma once

/* A PostgreSQL server of the test's own, in a directory of its own. It ends with the test. */

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <libpq-fe.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/macro.h"

typedef struct Server {
        char bin[256]; /* where initdb is */
        char dir[64];  /* also that of its socket */
        char port[8];
        pid_t pid;
        int log; /* its stderr; read by .reader, or it would stand still when the pipe is full */
        pthread_t reader;
        sem_t told; /* it is ready, or has ended */
        bool is_ready;
} Server;

#define MUST(condition)                                                                    \
        do {                                                                               \
                if (!(condition)) {                                                        \
                        fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, \
                                        strerror(errno));                                  \
                        exit(EXIT_FAILURE);                                                \
                }                                                                          \
        } while (0)

/* Debian keeps them out of $PATH. The newest one comes last. */
static inline bool server_find(Server *s) {
        glob_t g = { 0 };

        for (const char *p = getenv("PATH"); p && *p; p += strcspn(p, ":"), p += *p == ':') {
                char name[300];

                snprintf(s->bin, sizeof(s->bin), "%.*s", (int) strcspn(p, ":"), p);
                snprintf(name, sizeof(name), "%s/initdb", s->bin);
                if (access(name, X_OK) == 0)
                        return true;
        }
        *s->bin = '\0';
        if (glob("/usr/lib/postgresql/*/bin/initdb", 0, NULL, &g) == 0)
                snprintf(s->bin, sizeof(s->bin), "%.*s",
                                (int) (strlen(g.gl_pathv[g.gl_pathc - 1]) - strlen("/initdb")),
                                g.gl_pathv[g.gl_pathc - 1]);
        globfree(&g);
        return *s->bin;
}

/* It refuses to run as root. */
static inline const struct passwd *server_user(void) {
        return geteuid() == 0 ? getpwnam("postgres") : getpwuid(geteuid());
}

static inline pid_t server_exec(const Server *s, const char *program, char *const *argv, int err) {
        const struct passwd *user = server_user();
        pid_t parent = getpid(), pid = fork();
        char path[300];

        MUST(pid >= 0);
        if (pid > 0)
                return pid;
        snprintf(path, sizeof(path), "%s/%s", s->bin, program);
        if (geteuid() == 0)
                MUST(setgroups(0, NULL) == 0 && setgid(user->pw_gid) == 0 && setuid(user->pw_uid) == 0);
        prctl(PR_SET_PDEATHSIG, SIGQUIT);
        if (getppid() != parent)
                _exit(EXIT_FAILURE);
        MUST(chdir(s->dir) == 0);
        if (err >= 0) {
                dup2(err, STDOUT_FILENO);
                dup2(err, STDERR_FILENO);
        }
        setenv("LC_ALL", "C", 1);
        execv(path, argv);
        _exit(127);
}

static inline void *server_read_log(void *userdata) {
        Server *s = userdata;
        FILE *f = fdopen(s->log, "r");
        char line[1024];

        while (fgets(line, sizeof(line), f)) {
                if (getenv("SERVER_LOG"))
                        fputs(line, stderr);
                if (strstr(line, "ready to accept connections")) {
                        s->is_ready = true;
                        sem_post(&s->told);
                }
        }
        sem_post(&s->told);
        fclose(f);
        return NULL;
}

static inline void server_choose_port(Server *s) {
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
        socklen_t size = sizeof(a);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        MUST(fd >= 0 && bind(fd, (struct sockaddr *) &a, size) == 0);
        MUST(getsockname(fd, (struct sockaddr *) &a, &size) == 0);
        snprintf(s->port, sizeof(s->port), "%u", ntohs(a.sin_port));
        close(fd);
}

static inline void server_stop(Server *s, int sig) {
        if (s->pid <= 0)
                return;
        kill(s->pid, sig);
        MUST(waitpid(s->pid, NULL, 0) == s->pid);
        pthread_join(s->reader, NULL);
        sem_destroy(&s->told);
        s->pid = 0;
}

/* Returns false when it has ended at once: somebody else got the port meanwhile. */
static inline bool server_try_start(Server *s) {
        char data[100];
        char *argv[] = { (char *) "postgres", (char *) "-D", data, (char *) "-k", s->dir, (char *) "-p",
                s->port, (char *) "-c", (char *) "listen_addresses=127.0.0.1", NULL };
        int fds[2];

        snprintf(data, sizeof(data), "%s/data", s->dir);
        MUST(pipe2(fds, O_CLOEXEC) == 0);
        sem_init(&s->told, 0, 0);
        s->is_ready = false;
        s->log = fds[0];
        s->pid = server_exec(s, "postgres", argv, fds[1]);
        close(fds[1]);
        MUST(pthread_create(&s->reader, NULL, server_read_log, s) == 0);
        while (sem_wait(&s->told) < 0)
                MUST(errno == EINTR);
        if (!s->is_ready)
                server_stop(s, SIGQUIT);
        return s->is_ready;
}

/* @port: kept when it was started before, so that the same URL leads to it. */
static inline void server_start(Server *s) {
        for (int i = 0; i < 10; i++) {
                if (!*s->port)
                        server_choose_port(s);
                if (server_try_start(s))
                        return;
                *s->port = '\0';
        }
        MUST(!"the server does not start");
}

static inline void server_append(const Server *s, const char *file, const char *text) {
        char path[128];
        FILE *f;

        snprintf(path, sizeof(path), "%s/data/%s", s->dir, file);
        f = fopen(path, "ae");
        MUST(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* Makes the cluster. Returns false when PostgreSQL is not installed. */
static inline bool server_init(Server *s) {
        char data[100];
        char *argv[] = { (char *) "initdb", (char *) "-D", data, (char *) "-N", (char *) "-A",
                (char *) "trust", (char *) "-U", (char *) "postgres", (char *) "-E", (char *) "UTF8",
                (char *) "--locale=C", NULL };
        int status, null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        pid_t pid;

        *s = (Server){ 0 };
        if (!server_user() || !server_find(s))
                return false;
        strcpy(s->dir, "/tmp/muster-postgresql-XXXXXX");
        MUST(mkdtemp(s->dir));
        if (geteuid() == 0)
                MUST(chown(s->dir, server_user()->pw_uid, server_user()->pw_gid) == 0);
        snprintf(data, sizeof(data), "%s/data", s->dir);
        pid = server_exec(s, "initdb", argv, null);
        close(null);
        MUST(waitpid(pid, &status, 0) == pid && status == 0);
        server_append(s, "postgresql.conf",
                        "fsync = off\nmax_connections = 40\nshared_buffers = 32MB\nlogging_collector = off\n"
                        "autovacuum = off\nlog_min_messages = log\n");
        return true;
}

static inline int server_remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
        return remove(path);
}

static inline void server_done(Server *s) {
        server_stop(s, SIGQUIT);
        if (*s->dir)
                nftw(s->dir, server_remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* The answer's first field, by a connection of its own, to be freed; "" when there is none. */
static inline char *server_ask(const Server *s, const char *database, const char *sql) {
        const char *keywords[] = { "host", "port", "user", "dbname", NULL };
        const char *values[] = { s->dir, s->port, "postgres", database, NULL };
        PGconn *conn = PQconnectdbParams(keywords, values, 0);
        PGresult *result = PQexec(conn, sql);
        char *text;

        if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK) {
                fprintf(stderr, "%s: %s%s", sql, PQerrorMessage(conn), PQresultErrorMessage(result));
                exit(EXIT_FAILURE);
        }
        text = strdup(PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
        PQclear(result);
        PQfinish(conn);
        return text;
}

static inline void server_do(const Server *s, const char *sql) {
        free(server_ask(s, "postgres", sql));
}

static inline long server_count(const Server *s, const char *sql) {
        _cleanup_free_ char *text = server_ask(s, "postgres", sql);

        return atol(text);
}

/* Whether the file of @fd is that of one of the others, a socket. */
static inline bool server_has_socket(const struct pollfd *others, size_t n, int fd) {
        struct stat st, other;

        MUST(fstat(fd, &st) == 0);
        for (size_t i = 0; i < n; i++) {
                MUST(fstat(others[i].fd, &other) == 0);
                if (other.st_ino == st.st_ino)
                        return true;
        }
        return false;
}

/* The sockets of this process that are connected to the server, each once, with libpq's number: duplicates
 * come behind it. Returns how many. */
static inline size_t server_find_sockets(const Server *s, struct pollfd *ret, size_t max) {
        size_t n = 0;

        for (int fd = 3; fd < 1024 && n < max; fd++) {
                struct sockaddr_un peer = { 0 };
                socklen_t size = sizeof(peer);

                if (getpeername(fd, (struct sockaddr *) &peer, &size) == 0 && peer.sun_family == AF_UNIX &&
                                strncmp(peer.sun_path, s->dir, strlen(s->dir)) == 0 &&
                                !server_has_socket(ret, n, fd))
                        ret[n++].fd = fd;
        }
        return n;
}

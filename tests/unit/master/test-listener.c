/* SPDX-License-Identifier: MIT */
/* Taking sockets over from systemd, and binding our own. Each case runs in a child process, because it needs
 * descriptors from 3 up and $LISTEN_PID. */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "master/activation.h"
#include "master/listener.h"

static char dir[] = "/tmp/test-listener-XXXXXX";

/* What a case in the child found, shared with the parent, who judges it. */
static struct Result {
        int r;
        size_t n;
        char error[512];
        char names[256];
        char addresses[4][ADDRESS_STRING_MAX];
        bool flags_right; /* O_NONBLOCK and FD_CLOEXEC on all */
        bool environment_left;
        bool path_left; /* after listeners_done() */
        in_port_t port;
        int control;            /* what listeners_take_control() returned */
        bool control_is_unix;   /* ... and that this is the one */
        bool control_twice;     /* it could be taken again */
        bool control_path_left; /* after listeners_done() */
} * result;

/* Where the control socket of a case is bound, if it is. */
static char control_path[64];

static int setup(void **state) {
        result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        return result != MAP_FAILED && mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state) {
        munmap(result, sizeof(*result));
        return rmdir(dir);
}

static void open_listeners(const Config *c) {
        char *error = NULL;
        Listeners l;

        result->r = listeners_open(&l, c, &error);
        if (result->r != 0) {
                snprintf(result->error, sizeof(result->error), "%s", error ? error : "");
                free(error);
                return;
        }
        result->n = l.n;
        result->flags_right = true;
        snprintf(result->names, sizeof(result->names), "%s", l.names);
        for (size_t i = 0; i < l.n; i++) {
                if (i < ELEMENTSOF(result->addresses))
                        address_to_string(&l.items[i].address, result->addresses[i]);
                if (!(fcntl(l.items[i].fd, F_GETFL) & O_NONBLOCK) ||
                                fcntl(l.items[i].fd, F_GETFD) != FD_CLOEXEC)
                        result->flags_right = false;
        }
        if (l.n > 0 && l.items[0].address.sockaddr.any.sa_family != AF_UNIX) {
                struct sockaddr_in6 in6;
                memcpy(&in6, &l.items[0].address.sockaddr, sizeof(in6));
                result->port = ntohs(in6.sin6_port); /* in the same place as in sockaddr_in */
        }
        result->control = listeners_take_control(&l);
        if (result->control >= 0) {
                Address a;

                result->control_is_unix = address_of_socket(result->control, &a) == 0 &&
                                          a.sockaddr.any.sa_family == AF_UNIX &&
                                          fcntl(result->control, F_GETFD) == FD_CLOEXEC;
                result->control_twice = listeners_take_control(&l) != -ENOENT;
                close(result->control);
        }
        result->environment_left = getenv("LISTEN_FDS") || getenv("LISTEN_PID") || getenv("LISTEN_FDNAMES");
        listeners_done(&l);
        result->path_left = c->n_listen > 0 && access(c->listen[0].address, F_OK) == 0;
        result->control_path_left = *control_path && access(control_path, F_OK) == 0;
}

/* In a child: makes fds[i] descriptor 3 + i, tells so in the environment, and opens. */
static void run_from_systemd(const int *fds, int n, const char *names) {
        Config c = { .path = (char *) "app.conf" };

        memset(result, 0, sizeof(*result));
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                char text[16];

                for (int i = 0; i < n; i++) {
                        int fd = fcntl(fds[i], F_DUPFD, 900);
                        dup2(fd, 3 + i);
                        close(fd);
                }
                snprintf(text, sizeof(text), "%d", getpid());
                setenv("LISTEN_PID", text, 1);
                snprintf(text, sizeof(text), "%d", n);
                setenv("LISTEN_FDS", text, 1);
                if (names)
                        setenv("LISTEN_FDNAMES", names, 1);
                open_listeners(&c);
                _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

static int bound(int family, int type, const char *path) {
        struct sockaddr_storage a = { .ss_family = (sa_family_t) family };
        socklen_t size = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        struct sockaddr_un un = { .sun_family = AF_UNIX };
        int fd = socket(family, type | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        if (family == AF_UNIX) {
                snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
                memcpy(&a, &un, sizeof(un));
                size = sizeof(un);
        }
        assert_int_equal(bind(fd, (struct sockaddr *) &a, size), 0);
        return fd;
}

static int listening(int family, const char *path) {
        int fd = bound(family, SOCK_STREAM, path);

        assert_int_equal(listen(fd, 1), 0);
        return fd;
}

/* TCP over IPv4 and IPv6 and a unix socket are taken with their names, O_NONBLOCK and FD_CLOEXEC are set
 * whatever they were, and a child does not see LISTEN_FDS as its own. */
static void test_taken_over(void **state) {
        char path[64];

        snprintf(path, sizeof(path), "%s/sock", dir);
        _cleanup_close_ int in = listening(AF_INET, NULL);
        _cleanup_close_ int in6 = listening(AF_INET6, NULL);
        _cleanup_close_ int un = listening(AF_UNIX, path);
        unlink(path);
        run_from_systemd((int[]){ in, in6, un }, 3, "http:https:local");

        assert_int_equal(result->r, 0);
        assert_int_equal(result->n, 3);
        assert_string_equal(result->names, "http:https:local");
        assert_int_equal(strncmp(result->addresses[0], "0.0.0.0:", 8), 0);
        assert_int_equal(strncmp(result->addresses[1], "[::]:", 5), 0);
        assert_string_equal(result->addresses[2], path);
        assert_true(result->flags_right);
        assert_false(result->environment_left);
}

/* Sockets without names are called "unknown", as sd_listen_fds_with_names(3) does. */
static void test_unnamed(void **state) {
        _cleanup_close_ int a = listening(AF_INET, NULL);
        _cleanup_close_ int b = listening(AF_INET, NULL);

        run_from_systemd((int[]){ a, b }, 2, NULL);
        assert_int_equal(result->r, 0);
        assert_string_equal(result->names, "unknown:unknown");
}

/* What is no listening stream socket is refused, and the message says what it is instead. */
static void test_wrong_descriptors(void **state) {
        static const char rest[] = ", expected a listening stream socket (ListenStream=, Accept=no)";
        char path[64], expected[256];

        snprintf(path, sizeof(path), "%s/seq", dir);
        _cleanup_close_ int good = listening(AF_INET, NULL);
        _cleanup_close_ int datagram = bound(AF_INET, SOCK_DGRAM, NULL);
        _cleanup_close_ int seqpacket = bound(AF_UNIX, SOCK_SEQPACKET, path);
        _cleanup_close_ int silent = bound(AF_INET, SOCK_STREAM, NULL);
        _cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        unlink(path);

        const struct {
                int fd;
                const char *what;
        } cases[] = {
                { datagram, "a datagram socket (ListenDatagram=)" },
                { seqpacket, "a socket that is no stream" },
                { silent, "a socket that does not listen" },
                { pair[0], "a connected socket (Accept=yes)" },
                { null, "something that is no socket" },
        };
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                run_from_systemd((int[]){ good, cases[i].fd }, 2, "good:bad");
                assert_int_equal(result->r, LISTENERS_INVALID);
                snprintf(expected, sizeof(expected), "descriptor 4 (\"bad\"): found %s%s", cases[i].what,
                                rest);
                assert_string_equal(result->error, expected);
        }
        close(pair[0]);
        close(pair[1]);
}

/* Up to 512 sockets, no more. */
static void test_number(void **state) {
        _cleanup_close_ int fd = listening(AF_INET, NULL);
        _cleanup_close_ int high = fcntl(fd, F_DUPFD_CLOEXEC, 900); /* above all places */
        int fds[ACTIVATION_MAX + 1];

        assert_true(high >= 900);
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                fds[i] = high;
        run_from_systemd(fds, ACTIVATION_MAX, NULL);
        assert_int_equal(result->r, 0);
        assert_int_equal(result->n, ACTIVATION_MAX);
        run_from_systemd(fds, ACTIVATION_MAX + 1, NULL);
        assert_int_equal(result->r, LISTENERS_INVALID);
        assert_string_equal(result->error, "LISTEN_FDS: found too many sockets, expected at most 512");
}

/* A number in LISTEN_FDS behind which is nothing is an error, not a crash. */
static void test_not_open(void **state) {
        memset(result, 0, sizeof(*result));
        pid_t pid = fork();
        if (pid == 0) {
                char text[16];

                closefrom(3);
                snprintf(text, sizeof(text), "%d", getpid());
                setenv("LISTEN_PID", text, 1);
                setenv("LISTEN_FDS", "2", 1);
                open_listeners(&(Config){ .path = (char *) "app.conf" });
                _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(result->r, LISTENERS_INVALID);
        assert_string_equal(result->error,
                        "descriptor 3 (\"unknown\"): found no open descriptor, expected a listening stream socket (ListenStream=, Accept=no)");
}

static void run_from_config(ListenConfig *listen, size_t n) {
        Config c = { .path = (char *) "app.conf", .listen = listen, .n_listen = n };

        memset(result, 0, sizeof(*result));
        open_listeners(&c);
}

/* Neither sockets nor addresses: the message says what to do. */
static void test_nothing(void **state) {
        run_from_config(NULL, 0);
        assert_int_equal(result->r, LISTENERS_INVALID);
        assert_string_equal(result->error,
                        "app.conf: listen: found no socket from systemd (LISTEN_FDS) and no address here, expected one: "
                        "start the .socket unit, or set listen: ( { address = \"8080\"; } );");
}

/* LISTEN_FDS that is meant for another process is not ours. */
static void test_for_another(void **state) {
        setenv("LISTEN_FDS", "1", 1);
        setenv("LISTEN_PID", "1", 1);
        run_from_config(NULL, 0);
        assert_int_equal(result->r, LISTENERS_INVALID);
        assert_non_null(strstr(result->error, "found no socket from systemd"));
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_PID");
}

/* Every form of address is bound, with a port from the kernel where it says 0; all flags are right. */
static void test_bound(void **state) {
        char path[64];

        snprintf(path, sizeof(path), "%s/own", dir);
        ListenConfig listen[] = {
                { path, (char *) "local", 1 },
                { (char *) "127.0.0.1:0", (char *) "four", 2 },
                { (char *) "[::1]:0", (char *) "six", 3 },
                { (char *) "0", (char *) "any", 4 },
        };
        run_from_config(listen, ELEMENTSOF(listen));
        assert_int_equal(result->r, 0);
        assert_string_equal(result->names, "local:four:six:any");
        assert_string_equal(result->addresses[0], path);
        assert_int_equal(strncmp(result->addresses[1], "127.0.0.1:", 10), 0);
        assert_int_equal(strncmp(result->addresses[2], "[::1]:", 6), 0);
        assert_int_equal(strncmp(result->addresses[3], "[::]:", 5), 0);
        assert_true(result->flags_right);
        assert_false(result->path_left); /* it goes with us */
}

/* The path of a process that was killed is taken over; that of a living one, or a file, is not. */
static void test_stale_path(void **state) {
        char path[64], expected[256];
        ListenConfig listen = { path, (char *) "local", 5 };

        snprintf(path, sizeof(path), "%s/stale", dir);
        close(listening(AF_UNIX, path));
        run_from_config(&listen, 1);
        assert_int_equal(result->r, 0);

        int alive = listening(AF_UNIX, path);
        run_from_config(&listen, 1);
        assert_int_equal(result->r, LISTENERS_INVALID);
        snprintf(expected, sizeof(expected),
                        "app.conf:5: listen.address: cannot listen on \"%s\" for \"local\": Address already in use",
                        path);
        assert_string_equal(result->error, expected);
        assert_int_equal(access(path, F_OK), 0);
        close(alive);
        unlink(path);

        FILE *f = fopen(path, "we");
        assert_non_null(f);
        fclose(f);
        run_from_config(&listen, 1);
        assert_int_equal(result->r, LISTENERS_INVALID);
        assert_string_equal(result->error, expected);
        assert_int_equal(unlink(path), 0);
}

/* A busy port is refused with file, line and who asked; those bound before it are let go. */
static void test_busy_port(void **state) {
        char address[32], path[64], expected[256];
        struct sockaddr_in in;
        socklen_t size = sizeof(in);
        _cleanup_close_ int busy = listening(AF_INET, NULL);

        snprintf(path, sizeof(path), "%s/first", dir);
        assert_int_equal(getsockname(busy, (struct sockaddr *) &in, &size), 0);
        snprintf(address, sizeof(address), "127.0.0.1:%u", ntohs(in.sin_port));
        ListenConfig listen[] = { { path, (char *) "first", 8 }, { address, (char *) "web", 9 } };
        run_from_config(listen, 2);
        assert_int_equal(result->r, LISTENERS_INVALID);
        snprintf(expected, sizeof(expected),
                        "app.conf:9: listen.address: cannot listen on \"%s\" for \"web\": Address already in use",
                        address);
        assert_string_equal(result->error, expected);
        assert_int_equal(access(path, F_OK), -1);
}

/* A port whose last user went a moment ago can be bound again at once (SO_REUSEADDR). */
static void test_reuse(void **state) {
        struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t size = sizeof(in);
        char address[32];

        /* a connection that the server closed first leaves the port in TIME_WAIT */
        int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
        assert_int_equal(setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)),
                        0); /* as ours has */
        assert_int_equal(bind(server, (struct sockaddr *) &in, size), 0);
        assert_int_equal(listen(server, 1), 0);
        assert_int_equal(getsockname(server, (struct sockaddr *) &in, &size), 0);
        int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(client, (struct sockaddr *) &in, size), 0);
        int accepted = accept4(server, NULL, NULL, SOCK_CLOEXEC);
        close(accepted);
        close(client);
        close(server);

        snprintf(address, sizeof(address), "127.0.0.1:%u", ntohs(in.sin_port));
        ListenConfig listen = { address, (char *) "web", 1 };
        run_from_config(&listen, 1);
        assert_int_equal(result->r, 0);
        assert_int_equal(result->port, ntohs(in.sin_port));
}

/* Above the places to which run_from_systemd() moves them in another order. */
static int moved_up(int fd) {
        int high = fcntl(fd, F_DUPFD_CLOEXEC, 950);

        assert_true(high >= 950);
        close(fd);
        return high;
}

/* The socket called "control" is for the master alone, wherever it comes in the list. */
static void test_control(void **state) {
        static const char *const names[] = { "control:http:https", "http:control:https",
                "http:https:control" };
        char path[64];

        snprintf(path, sizeof(path), "%s/control", dir);
        _cleanup_close_ int a = moved_up(listening(AF_INET, NULL));
        _cleanup_close_ int b = moved_up(listening(AF_INET6, NULL));
        _cleanup_close_ int control = moved_up(listening(AF_UNIX, path));
        unlink(path);
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                int fds[3] = { a, b }, n = 0;

                for (size_t k = 0; k < 3; k++)
                        fds[k] = k == i ? control : n++ == 0 ? a : b;
                run_from_systemd(fds, 3, names[i]);
                assert_int_equal(result->r, 0);
                assert_int_equal(result->n, 2);
                assert_string_equal(result->names, "http:https");
                assert_int_equal(strncmp(result->addresses[0], "0.0.0.0:", 8), 0);
                assert_int_equal(strncmp(result->addresses[1], "[::]:", 5), 0);
                assert_true(result->control >= 0 && result->control_is_unix);
                assert_false(result->control_twice);
        }

        run_from_systemd((int[]){ a, b }, 2, "http:https");
        assert_int_equal(result->n, 2);
        assert_int_equal(result->control, -ENOENT);
}

/* Alone it serves nobody; two, or one that anybody can reach, are refused. */
static void test_control_refused(void **state) {
        char path[64];

        snprintf(path, sizeof(path), "%s/control", dir);
        _cleanup_close_ int in = listening(AF_INET, NULL);
        _cleanup_close_ int control = listening(AF_UNIX, path);
        unlink(path);

        run_from_systemd((int[]){ control }, 1, "control");
        assert_int_equal(result->r, LISTENERS_INVALID);
        assert_string_equal(result->error,
                        "found no socket but the one called \"control\", expected one to serve: start the app's .socket "
                        "unit too, or give it another FileDescriptorName=");
        run_from_systemd((int[]){ in, control, control }, 3, "http:control:control");
        assert_int_equal(result->r, LISTENERS_INVALID);
        assert_string_equal(result->error, "found two sockets called \"control\", expected one at most");
        run_from_systemd((int[]){ in, in }, 2, "http:control");
        assert_int_equal(result->r, LISTENERS_INVALID);
        assert_string_equal(result->error,
                        "the socket \"control\": found a TCP port, expected a unix socket, whose mode says who may "
                        "command the app");
}

/* Without systemd it is bound like the others, and its file goes with us although the socket was taken. */
static void test_control_bound(void **state) {
        ListenConfig listen[] = {
                { (char *) "127.0.0.1:0", (char *) "http", 1 },
                { control_path, (char *) "control", 2 },
        };

        snprintf(control_path, sizeof(control_path), "%s/control", dir);
        run_from_config(listen, ELEMENTSOF(listen));
        assert_int_equal(result->r, 0);
        assert_string_equal(result->names, "http");
        assert_true(result->control >= 0 && result->control_is_unix);
        assert_false(result->control_path_left);
        control_path[0] = '\0';
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_taken_over),
                cmocka_unit_test(test_unnamed),
                cmocka_unit_test(test_wrong_descriptors),
                cmocka_unit_test(test_number),
                cmocka_unit_test(test_not_open),
                cmocka_unit_test(test_nothing),
                cmocka_unit_test(test_for_another),
                cmocka_unit_test(test_bound),
                cmocka_unit_test(test_stale_path),
                cmocka_unit_test(test_busy_port),
                cmocka_unit_test(test_reuse),
                cmocka_unit_test(test_control),
                cmocka_unit_test(test_control_refused),
                cmocka_unit_test(test_control_bound),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}

/* SPDX-License-Identifier: MIT */
/* The driver for Redis when the server is gone, stands still, refuses, or is none. */

#include "redis-host.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"
#include "two-addresses.h"

#define MANY 10000

static Operation *new_add(const char *key) {
        Operation *o = operation_new(STATE_ADD, key, strlen(key));

        o->op.difference = 1;
        return o;
}

static int run(StateStore *s, Operation *o) {
        int error;

        operation_run(s, o);
        error = o->error;
        operation_free(o);
        return error;
}

/* Killed with answers under way: what has ended has been done, of the rest nobody is told but by lost(), and
 * the next connection works. */
static void test_killed(void **state) {
        Operation **o = calloc(MANY, sizeof(Operation *));
        Server server;
        StateStore s;
        unsigned ended;

        server_start(&server, NULL);
        store_open_at(&s, &server);
        store_connected(&s, NULL);
        for (unsigned i = 0; i < MANY; i++) {
                o[i] = new_add("n");
                operation_send(&s, o[i]);
        }
        run_until(&s, s.n_finished > 0);
        server_kill(&server);
        run_until(&s, s.n_lost == 1);
        assert_int_equal(s.lost_error, -ENOTCONN);
        ended = s.n_finished;
        for (unsigned i = 0; i < MANY; i++) {
                assert_int_equal(o[i]->has_ended, i < ended);
                operation_free(o[i]);
        }
        free(o);
        store_refused(&s, NULL, -ENOTCONN);

        assert_true(server_try(&server, NULL));
        store_connected(&s, NULL);
        assert_int_equal(run(&s, new_add("n")), 0);
        assert_int_equal(s.n_finished, ended + 1);
        store_close(&s);
        server_done(&server);
}

/* What is sent to a server that has just gone raises no signal. */
static void test_killed_idle(void **state) {
        Operation *o = new_add("n");
        Server server;
        StateStore s;

        signal(SIGPIPE, SIG_DFL);
        server_start(&server, NULL);
        store_open_at(&s, &server);
        store_connected(&s, NULL);
        server_kill(&server);
        operation_send(&s, o);
        run_until(&s, s.n_lost == 1);
        assert_int_equal(s.lost_error, -ENOTCONN);
        assert_false(o->has_ended);
        operation_free(o);
        store_close(&s);
        server_done(&server);
}

/* A server that stands still keeps nobody who does not want to wait, and what was let go of is not touched:
 * not when it is connected to, not with operations under way, nor with a large one half sent. */
static void test_stopped(void **state) {
        Server server;
        StateStore s;
        char *value = calloc(1, MUSTER_STATE_VALUE_MAX);
        Operation *o, *first;

        server_start(&server, NULL);
        store_open_at(&s, &server);
        store_connected(&s, NULL);
        assert_int_equal(s.driver->subscribe(s.handle, BYTES("c")), 0);
        kill(server.pid, SIGSTOP);
        first = new_add("n");
        operation_send(&s, first);
        o = operation_new(STATE_SET, STRING("large"));
        o->op.value = (StateBytes){ .data = value, .size = MUSTER_STATE_VALUE_MAX };
        operation_send(&s, o);
        while (sd_event_run(s.event, 0) > 0)
                ;
        s.driver->disconnect(s.handle);
        operation_free(o);
        operation_free(first);

        store_connect(&s, NULL);
        while (sd_event_run(s.event, 0) > 0)
                ;
        assert_int_equal(s.n_connected, 1);
        s.driver->disconnect(s.handle);
        kill(server.pid, SIGCONT);
        store_connected(&s, NULL);
        assert_int_equal(run(&s, new_add("m")), 0);
        assert_int_equal(server_ask_number(&server, "EXISTS large"), 0);
        assert_int_equal(s.n_lost, 0);
        assert_int_equal(s.n_finished, 1);
        store_close(&s);
        server_done(&server);
        free(value);
}

static void disconnect_then(StateStore *s, Operation *o) {
        s->driver->disconnect(s->handle);
}

static void reconnect_then(StateStore *s, Operation *o) {
        s->driver->disconnect(s->handle);
        store_connect(s, NULL);
}

/* The end of an operation may be that of the connection, and the begin of the next. */
static void test_disconnect_from_within(void **state) {
        Operation *o[3];
        Server server;
        StateStore s;

        server_start(&server, NULL);
        store_open_at(&s, &server);
        for (unsigned round = 0; round < 2; round++) {
                if (round == 0)
                        store_connected(&s, NULL);
                s.when_finished = round == 0 ? disconnect_then : reconnect_then;
                for (unsigned i = 0; i < ELEMENTSOF(o); i++) {
                        o[i] = new_add("n");
                        operation_send(&s, o[i]);
                }
                run_until(&s, o[0]->has_ended);
                while (round == 0 && sd_event_run(s.event, 0) > 0)
                        ;
                run_until(&s, s.n_connected >= 2 * round);
                assert_false(o[1]->has_ended);
                for (unsigned i = 0; i < ELEMENTSOF(o); i++)
                        operation_free(o[i]);
                if (round == 0)
                        store_connected(&s, NULL);
        }
        s.when_finished = NULL;
        run_until(&s, s.n_connected == 3);
        assert_int_equal(run(&s, new_add("n")), 0);
        assert_int_equal(s.n_finished, 3);
        store_close(&s);
        server_done(&server);
}

static void reconnect_once(StateStore *s) {
        s->when_lost = NULL;
        store_connect(s, NULL);
}

/* Who is told of the loss may connect at once. */
static void test_reconnect_from_within(void **state) {
        Server server;
        StateStore s;

        server_start(&server, NULL);
        store_open_at(&s, &server);
        store_connected(&s, NULL);
        s.when_lost = reconnect_once;
        server_tell(&server, "CLIENT KILL TYPE normal");
        run_until(&s, s.n_connected == 2);
        assert_int_equal(run(&s, new_add("n")), 0);
        store_close(&s);
        server_done(&server);
}

/* A wrong password is told as one, and shown to nobody. */
static void test_password(void **state) {
        static const char *const options[] = { "--requirepass", "RIGHT", NULL };
        Server server;
        StateStore s;

        server_start(&server, options);
        store_open_at(&s, &server);
        store_refused(&s, NULL, -EACCES);
        store_refused(&s, "WRONG", -EACCES);
        assert_null(strstr(s.lost_text, "WRONG "));
        store_connected(&s, "RIGHT");
        assert_int_equal(run(&s, new_add("n")), 0);
        assert_int_equal(s.driver->subscribe(s.handle, BYTES("c")), 0);
        run_until(&s, s.n_subscribed == 1);
        store_close(&s);
        server_done(&server);
}

/* A server without a password refuses one, since it is not the server that was meant. */
static void test_password_too_many(void **state) {
        Server server;
        StateStore s;

        server_start(&server, NULL);
        store_open_at(&s, &server);
        store_refused(&s, "any", -EACCES);
        store_close(&s);
        server_done(&server);
}

/* A user may do what is allowed to it, and the rest is refused without harm; not even PING is needed. */
static void test_user(void **state) {
        Server server;
        StateStore s;

        server_start(&server, NULL);
        server_tell(&server,
                        "ACL SETUSER app on >secret ~own:* &own:* resetchannels &own:* +get +set +incrby +eval +subscribe "
                        "+unsubscribe +ping -ping");
        store_open(&s, &(StateUrl){ .driver = (char *) "redis",
                                       .is_unix = true,
                                       .path = server.path,
                                       .user = (char *) "app" });
        store_refused(&s, NULL, -EACCES);
        store_refused(&s, "wrong", -EACCES);
        store_connected(&s, "secret");
        assert_int_equal(run(&s, new_add("own:n")), 0);
        assert_int_equal(run(&s, new_add("n")), -EACCES);
        assert_int_equal(s.n_complaints, 1);
        assert_non_null(strstr(s.complaint, "NOPERM"));
        assert_int_equal(run(&s, operation_new(STATE_DELETE, STRING("own:n"))), -EACCES);
        /* Within a script: SET may be, DEL not. */
        Operation *o = operation_new(STATE_SET, STRING("own:v"));
        o->op.value = BYTES("v");
        assert_int_equal(run(&s, o), 0);
        o = operation_new(STATE_DELETE, STRING("own:v"));
        o->op.if_version = s.driver->version(s.handle, BYTES("v"));
        assert_int_equal(run(&s, o), -EACCES);
        assert_int_equal(s.driver->subscribe(s.handle, BYTES("other")), 0);
        assert_int_equal(s.driver->subscribe(s.handle, BYTES("own:c")), 0);
        run_until(&s, s.n_subscribed == 1);
        assert_string_equal(s.channel, "own:c");
        assert_int_equal(s.n_refused, 1);
        assert_int_equal(s.n_lost, 2);
        store_close(&s);
        server_done(&server);
}

/* Another database is another set of keys; one that is not there is told of. */
static void test_database(void **state) {
        char *parameters[] = { (char *) "db=3", NULL };
        char *too_high[] = { (char *) "db=300", NULL };
        Server server;
        StateStore s;

        server_start(&server, NULL);
        store_open(&s, &(StateUrl){ .driver = (char *) "redis",
                                       .is_unix = true,
                                       .path = server.path,
                                       .parameters = parameters });
        store_connected(&s, NULL);
        assert_int_equal(run(&s, new_add("n")), 0);
        store_close(&s);
        assert_int_equal(server_ask_number(&server, "EXISTS n"), 0);

        store_open(&s, &(StateUrl){ .driver = (char *) "redis",
                                       .is_unix = true,
                                       .path = server.path,
                                       .parameters = too_high });
        store_refused(&s, NULL, -EIO);
        assert_non_null(strstr(s.lost_text, "out of range"));
        store_close(&s);
        server_done(&server);
}

static Operation *new_set_large(const char *key, char *value) {
        Operation *o = operation_new(STATE_SET, key, strlen(key));

        memset(value, 'x', 65536);
        o->op.value = (StateBytes){ .data = value, .size = 65536 };
        return o;
}

/* A server without memory says so, and nothing was done. */
static void test_full(void **state) {
        static const char *const options[] = { "--maxmemory", "3mb", "--maxmemory-policy", "noeviction",
                NULL };
        char value[65536];
        int error = 0;
        Server server;
        StateStore s;
        Operation *o;

        server_start(&server, options);
        store_open_at(&s, &server);
        store_connected(&s, NULL);
        for (unsigned i = 0; i < 200 && error == 0; i++) {
                char key[16];

                snprintf(key, sizeof(key), "k%u", i);
                error = run(&s, new_set_large(key, value));
        }
        assert_int_equal(error, -ENOSPC);
        assert_true(s.n_complaints > 0);
        /* Nor is there room for less, in a script. */
        server_tell(&server, "CONFIG SET maxmemory 1mb");
        o = new_add("t");
        o->op.ttl_usec = USEC_PER_SEC;
        assert_int_equal(run(&s, o), -ENOSPC);
        assert_int_equal(server_ask_number(&server, "EXISTS t"), 0);
        assert_int_equal(run(&s, operation_new(STATE_DELETE, STRING("k0"))), 0);
        store_close(&s);
        server_done(&server);
}

/* A replica takes no writes. */
static void test_read_only(void **state) {
        static const char *const options[] = { "--replicaof", "127.0.0.1 1", NULL };
        Server server;
        StateStore s;

        server_start(&server, options);
        store_open_at(&s, &server);
        store_connected(&s, NULL);
        assert_int_equal(run(&s, new_add("n")), -EIO);
        assert_non_null(strstr(s.complaint, "READONLY"));
        store_close(&s);
        server_done(&server);
}

/* A command that the server does not have is told without the values that came with it. */
static void test_renamed(void **state) {
        static const char *const options[] = { "--rename-command", "SET", "HIDDEN", NULL };
        Server server;
        StateStore s;
        Operation *o;

        server_start(&server, options);
        store_open_at(&s, &server);
        store_connected(&s, NULL);
        o = operation_new(STATE_SET, STRING("k"));
        o->op.value = BYTES("private");
        assert_int_equal(run(&s, o), -EOPNOTSUPP);
        assert_null(strstr(s.complaint, "private"));
        store_close(&s);
        server_done(&server);
}

/* Something that listens but is no Redis: answers each connection with the same bytes. */

typedef struct Liar {
        char folder[64], path[96];
        int fd;
        const void *data;
        size_t size;
        pthread_t thread;
} Liar;

/* Waits for the first command, or every answer would come before its question. */
static void liar_talk(const Liar *l, int fd) {
        const char *p = l->data;
        size_t left = l->size;
        char buffer[4096];

        if (recv(fd, buffer, sizeof(buffer), 0) <= 0)
                return;
        while (left > 0) {
                ssize_t n = send(fd, p, left, MSG_NOSIGNAL);

                if (n <= 0)
                        return;
                p += n;
                left -= (size_t) n;
        }
        shutdown(fd, SHUT_WR);
        while (recv(fd, buffer, sizeof(buffer), 0) > 0)
                ;
}

static void *liar_run(void *userdata) {
        Liar *l = userdata;

        for (;;) {
                int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);

                if (fd < 0)
                        return NULL;
                liar_talk(l, fd);
                close(fd);
        }
}

static void liar_start(Liar *l) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        strcpy(l->folder, "/tmp/muster-liar-XXXXXX");
        assert_non_null(mkdtemp(l->folder));
        snprintf(l->path, sizeof(l->path), "%s/socket", l->folder);
        strcpy(address.sun_path, l->path);
        l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(l->fd, (struct sockaddr *) &address, sizeof(address)), 0);
        assert_int_equal(listen(l->fd, 10), 0);
        assert_int_equal(pthread_create(&l->thread, NULL, liar_run, l), 0);
}

static void liar_done(Liar *l) {
        shutdown(l->fd, SHUT_RDWR);
        pthread_join(l->thread, NULL);
        close(l->fd);
        unlink(l->path);
        rmdir(l->folder);
}

static const struct {
        StateBytes bytes;
        int error;
} lies[] = {
        { BYTES("HTTP/1.1 400 Bad Request\r\n\r\n"), -EBADMSG },
        { BYTES(":1\r\n"), -EBADMSG },
        { BYTES("$4\r\nPONG\r\n"), -EBADMSG },
        { BYTES("*-1\r\n"), -EBADMSG },
        { BYTES("*2147483647\r\n"), -EBADMSG },
        { BYTES("*1000000000000\r\n"), -EBADMSG },
        { BYTES("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"), -ENOTCONN },
        { BYTES("$99999999999999999999\r\nx"), -EBADMSG },
        { BYTES("$5000000000\r\nx"), -EBADMSG },
        { BYTES("$12\rx\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"), -EBADMSG },
        { BYTES("$-2\r\n"), -EBADMSG },
        { BYTES(""), -ENOTCONN },
        { BYTES("-"), -ENOTCONN },
        { BYTES("-\r\n"), -EIO },
        { BYTES("-LOADING Redis is loading the dataset in memory\r\n"), -ENOTCONN },
        { BYTES("-ERR max number of clients reached\r\n"), -ENOTCONN },
        { BYTES("-DENIED Redis is running in protected mode\r\n"), -EACCES },
        { BYTES("-NOAUTH Authentication required.\r\n"), -EACCES },
        { BYTES("-ERR \033[31mred\a\r\n"), -EIO },
};

/* None of them is taken for a server, and none does harm. */
static void test_liars(void **state) {
        Liar l;

        liar_start(&l);
        for (size_t i = 0; i < ELEMENTSOF(lies); i++) {
                StateStore s;

                store_open(&s, &(StateUrl){ .driver = (char *) "redis", .is_unix = true, .path = l.path });
                l.data = lies[i].bytes.data;
                l.size = lies[i].bytes.size;
                store_connect(&s, NULL);
                run_until(&s, s.n_lost == 1);
                /* Which of the two depends on the parser's version, for what is nested. */
                if (s.lost_error != lies[i].error &&
                                !(lies[i].error == -ENOTCONN && s.lost_error == -EBADMSG))
                        fail_msg("%zu: %i (%s)", i, s.lost_error, s.lost_text);
                assert_int_equal(s.n_connected, 0);
                assert_null(strchr(s.lost_text, '\033'));
                store_close(&s);
        }
        liar_done(&l);
}

/* What a server says of a password may repeat it, and is not shown. */
static void test_echoed_password(void **state) {
        StateStore s;
        Liar l;

        liar_start(&l);
        store_open(&s, &(StateUrl){ .driver = (char *) "redis", .is_unix = true, .path = l.path });
        l.data = "-ERR hunter2 is no password\r\n";
        l.size = strlen(l.data);
        store_refused(&s, "hunter2", -EACCES);
        assert_null(strstr(s.lost_text, "hunter2"));
        store_close(&s);
        liar_done(&l);
}

/* A line, or a length, that never ends is given up, and so is an answer of many small parts. */
static void test_liars_without_end(void **state) {
        size_t size = 100 * 1024 * 1024;
        char *data = malloc(size);
        Liar l;

        liar_start(&l);
        for (unsigned i = 0; i < 4; i++) {
                static const char *const begins[] = { "+", "$5x", "$", "*300000\r\n" };
                static const char *const texts[] = { "does not end", "that is none", "that is none",
                        "too large" };
                StateStore s;
                size_t n = strlen(begins[i]);

                memset(data, '1', size);
                memcpy(data, begins[i], n);
                /* Strings of 100 bytes, in an array that would be of some 30 MB, and behind it no end. */
                for (size_t at = n; i == 3 && at + 112 <= size; at += 112) {
                        char *p = data + at;

                        memcpy(p, "$104\r\n", 6);
                        memset(p + 6, 'x', 104);
                        memcpy(p + 110, "\r\n", 2);
                }
                store_open(&s, &(StateUrl){ .driver = (char *) "redis", .is_unix = true, .path = l.path });
                l.data = data;
                l.size = size;
                store_connect(&s, NULL);
                run_until(&s, s.n_lost == 1);
                if (s.lost_error != -EBADMSG || !strstr(s.lost_text, texts[i]))
                        fail_msg("%u: %i (%s)", i, s.lost_error, s.lost_text);
                store_close(&s);
        }
        liar_done(&l);
        free(data);
}

/* Once it is connected no answer may be of another kind than what was asked for, nor come unasked. */
static void test_wrong_answers(void **state) {
        static const struct {
                StateVerb verb;
                StateBytes bytes;
        } cases[] = {
                { STATE_GET, BYTES("+PONG\r\n:1\r\n") },
                { STATE_GET, BYTES("+PONG\r\n*0\r\n") },
                { STATE_SET, BYTES("+PONG\r\n$-1\r\n") },
                { STATE_SET, BYTES("+PONG\r\n:1\r\n") },
                { STATE_DELETE, BYTES("+PONG\r\n+OK\r\n") },
                { STATE_ADD, BYTES("+PONG\r\n$2\r\n1x\r\n") },
                { STATE_ADD, BYTES("+PONG\r\n$0\r\n\r\n") },
                { STATE_ADD, BYTES("+PONG\r\n$20\r\n99999999999999999999\r\n") },
                { STATE_SCAN, BYTES("+PONG\r\n*0\r\n") },
                { STATE_SCAN, BYTES("+PONG\r\n*2\r\n*0\r\n*0\r\n") },
                { STATE_SCAN, BYTES("+PONG\r\n*2\r\n$2\r\n-1\r\n*0\r\n") },
                { STATE_SCAN, BYTES("+PONG\r\n*2\r\n$1\r\n0\r\n*1\r\n:1\r\n") },
                { STATE_SCAN, BYTES("+PONG\r\n*2\r\n$1\r\n0\r\n*1\r\n$-1\r\n") },
                { STATE_ACQUIRE, BYTES("+PONG\r\n$2\r\n-5\r\n") },
                { STATE_ACQUIRE, BYTES("+PONG\r\n+OK\r\n") },
                { STATE_RENEW, BYTES("+PONG\r\n$-1\r\n") },
                { STATE_PUBLISH, BYTES("+PONG\r\n+OK\r\n") },
        };
        Liar l;

        liar_start(&l);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Operation *o = operation_new(cases[i].verb, STRING("k"));
                StateStore s;

                store_open(&s, &(StateUrl){ .driver = (char *) "redis", .is_unix = true, .path = l.path });
                /* The greeting is answered, and the rest is what comes for the operation. */
                l.data = cases[i].bytes.data;
                l.size = cases[i].bytes.size;
                store_connect(&s, NULL);
                o->op.limit = 10;
                run_until(&s, s.n_connected + s.n_lost > 0);
                /* All of it may have come at once: an answer that nobody asked for. */
                if (s.n_lost == 0)
                        operation_send(&s, o);
                run_until(&s, s.n_lost > 0);
                if (s.lost_error != -EBADMSG)
                        fail_msg("%zu: %i (%s)", i, s.lost_error, s.lost_text);
                assert_int_equal(s.n_finished, 0);
                operation_free(o);
                store_close(&s);
        }
        liar_done(&l);
}

/* Bytes as they fall, from a seed that is told. */
static void test_noise(void **state) {
        static const char pieces[][8] = { "*", "$", ":", "+", "-", "1", "2", "3", "\r\n", "\r\n", "\r\n",
                "-1", "x", "PONG", "\n", "%" };
        char data[512];
        Liar l;

        liar_start(&l);
        srandom(7);
        for (unsigned i = 0; i < 300; i++) {
                StateStore s;
                size_t n = 0;

                while (n < sizeof(data) - 8 && random() % 60 != 0)
                        n = (size_t) (stpcpy(data + n, pieces[random() % (long) ELEMENTSOF(pieces)]) - data);
                store_open(&s, &(StateUrl){ .driver = (char *) "redis", .is_unix = true, .path = l.path });
                l.data = data;
                l.size = n;
                store_connect(&s, NULL);
                run_until(&s, s.n_lost == 1);
                store_close(&s);
        }
        liar_done(&l);
}

/* Nothing there, no permission, a name that nobody has: each is told with what it was. */
static void test_unreachable(void **state) {
        StateStore s;

        store_open(&s, &(StateUrl){ .driver = (char *) "redis",
                                       .is_unix = true,
                                       .path = (char *) "/nonexistent/socket" });
        store_refused(&s, NULL, -ENOTCONN);
        assert_string_equal(s.lost_text, "/nonexistent/socket: No such file or directory");
        store_close(&s);

        store_open(&s, &(StateUrl){ .driver = (char *) "redis",
                                       .is_unix = true,
                                       .path = (char *) "/nonexistent\033[1m" });
        store_refused(&s, NULL, -ENOTCONN);
        assert_null(strchr(s.lost_text, '\033'));
        store_close(&s);

        store_open(&s, &(StateUrl){ .driver = (char *) "redis", .host = (char *) "127.0.0.1", .port = 1 });
        store_refused(&s, NULL, -ENOTCONN);
        assert_non_null(strstr(s.lost_text, "127.0.0.1:1: Connection refused"));
        store_close(&s);

        store_open(&s, &(StateUrl){ .driver = (char *) "redis", .host = (char *) "nobody.invalid" });
        store_refused(&s, NULL, -ENOTCONN);
        assert_non_null(strstr(s.lost_text, "nobody.invalid: "));
        /* Let go of while it is looked up. */
        store_connect(&s, NULL);
        s.driver->disconnect(s.handle);
        store_connect(&s, NULL);
        store_close(&s);
}

/* A URL is refused with what was found and what was expected. */
static void test_bad_urls(void **state) {
        static const StateHost host = { 0 };
        char *unknown[] = { (char *) "fast=1", NULL };
        char *database[] = { (char *) "db=x", NULL };
        char *authority[] = { (char *) "cacert=/nonexistent", NULL };
        char path[200];
        const StateUrl urls[] = {
                { .path = (char *) "1x" },
                { .path = (char *) "-1" },
                { .parameters = unknown },
                { .is_unix = true, .path = (char *) "/socket", .parameters = database },
                { .is_unix = true, .path = path },
                { .is_unix = true },
                { .is_tls = true, .parameters = authority },
        };
        StateStore s;

        memset(path, '/', sizeof(path) - 1);
        path[sizeof(path) - 1] = '\0';
        store_open(&s, &(StateUrl){ .driver = (char *) "redis" });
        for (size_t i = 0; i < ELEMENTSOF(urls); i++) {
                char error[STATE_TEXT_MAX] = "";
                void *handle = NULL;

                assert_int_equal(s.driver->open(&host, &s, s.event, &urls[i], &handle, error), -EINVAL);
                assert_non_null(strstr(error, "found "));
                assert_non_null(strstr(error, ", expected "));
                assert_null(handle);
        }
        store_close(&s);
}

/* A port that is free now. Another process may take it, so it is tried again. */
static unsigned free_port(void) {
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t size = sizeof(address);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_int_equal(bind(fd, (struct sockaddr *) &address, size), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *) &address, &size), 0);
        close(fd);
        return ntohs(address.sin_port);
}

/* @options: with a place for the port's text at @at. */
static unsigned start_on_port(Server *s, const char **options, size_t at) {
        static char text[12];
        unsigned port;

        *s = (Server){ .output = -EBADF };
        strcpy(s->folder, "/tmp/muster-redis-XXXXXX");
        assert_non_null(mkdtemp(s->folder));
        snprintf(s->path, sizeof(s->path), "%s/socket", s->folder);
        options[at] = text;
        for (unsigned i = 0; i < 10; i++) {
                port = free_port();
                snprintf(text, sizeof(text), "%u", port);
                if (server_try(s, options))
                        return port;
        }
        fail_msg("there is no free port");
        return 0;
}

/* By TCP, by a number and by a name, each address of which is tried. */
static void test_tcp(void **state) {
        const char *options[] = { "--bind", "127.0.0.1", "--port", NULL, NULL };
        char *hosts[] = { (char *) "127.0.0.1", (char *) "localhost", NULL };
        Server server;
        unsigned port = start_on_port(&server, options, 3);

        for (size_t i = 0; i < ELEMENTSOF(hosts); i++) {
                StateStore s;

                store_open(&s, &(StateUrl){ .driver = (char *) "redis",
                                               .host = hosts[i],
                                               .port = port,
                                               .path = (char *) "2" });
                store_connected(&s, NULL);
                assert_int_equal(run(&s, new_add("n")), 0);
                assert_int_equal(s.driver->subscribe(s.handle, BYTES("c")), 0);
                run_until(&s, s.n_subscribed == 1);
                store_close(&s);
        }
        server_done(&server);
}

/* An address where nobody answers keeps nobody from the next one but for one attempt. What works is the
 * first that is tried from then on. */
static void test_silent_address(void **state) {
        const char *options[] = { "--bind", "127.0.0.1", "--port", NULL, NULL };
        Server server;
        unsigned port = start_on_port(&server, options, 3);
        int fd = silence_start(port);
        StateStore s;

        store_open(&s, &(StateUrl){ .driver = (char *) "redis",
                                       .host = (char *) TWO_ADDRESSES,
                                       .port = port });
        store_connect(&s, NULL);
        assert_true(sd_event_run(s.event, UINT64_MAX) >= 0); /* the name is looked up */
        s.driver->disconnect(s.handle);
        store_connected(&s, NULL);
        s.driver->disconnect(s.handle);
        store_connected(&s, NULL);
        assert_int_equal(s.n_lost, 0);
        store_close(&s);
        close(fd);
        server_done(&server);
}

static int tls_use(unsigned port, const char *host, char *authority) {
        char *parameters[] = { authority, NULL };
        char *value = calloc(1, MUSTER_STATE_VALUE_MAX);
        int error = 0;
        Operation *o;
        StateStore s;

        store_open(&s, &(StateUrl){ .driver = (char *) "redis",
                                       .is_tls = true,
                                       .host = (char *) host,
                                       .port = port,
                                       .parameters = parameters });
        store_connect(&s, NULL);
        run_until(&s, s.n_connected + s.n_lost > 0);
        if (s.n_connected > 0) {
                assert_int_equal(run(&s, new_add("n")), 0);
                o = operation_new(STATE_SET, STRING("large"));
                o->op.value = (StateBytes){ .data = value, .size = MUSTER_STATE_VALUE_MAX };
                assert_int_equal(run(&s, o), 0);
                o = operation_run(&s, operation_new(STATE_GET, STRING("large")));
                assert_int_equal(o->size, MUSTER_STATE_VALUE_MAX);
                operation_free(o);
                assert_int_equal(s.driver->subscribe(s.handle, BYTES("c")), 0);
                run_until(&s, s.n_subscribed == 1);
        } else {
                assert_non_null(strstr(s.lost_text, "TLS: "));
                error = s.lost_error;
        }
        store_close(&s);
        free(value);
        return error;
}

/* A certificate that is its own authority. False: there is no openssl. */
static bool make_certificate(const char *name, const char *certificate, const char *key) {
        char command[512];

        snprintf(command, sizeof(command),
                        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=test "
                        "-addext subjectAltName=%s -days 2 -out %s -keyout %s 2>/dev/null",
                        name, certificate, key);
        return system(command) == 0;
}

/* With TLS only the server that has a certificate for the host is spoken to, from an authority that is
 * trusted. */
static void test_tls(void **state) {
        static const char *const names[] = { "IP:127.0.0.1", "DNS:localhost" };
        static const char *const hosts[] = { "127.0.0.1", "localhost" };
        char folder[] = "/tmp/muster-tls-XXXXXX", certificate[64], key[64], authority[80];

        assert_non_null(mkdtemp(folder));
        snprintf(certificate, sizeof(certificate), "%s/cert", folder);
        snprintf(key, sizeof(key), "%s/key", folder);
        snprintf(authority, sizeof(authority), "cacert=%s", certificate);
        for (size_t i = 0; i < ELEMENTSOF(names) && make_certificate(names[i], certificate, key); i++) {
                const char *options[] = { "--tls-port", NULL, "--tls-auth-clients", "no", "--tls-cert-file",
                        certificate, "--tls-key-file", key, NULL };
                Server server;
                unsigned port = start_on_port(&server, options, 1);

                assert_int_equal(tls_use(port, hosts[i], authority), 0);
                assert_int_equal(tls_use(port, hosts[1 - i], authority), -ENOTCONN);
                assert_int_equal(tls_use(port, hosts[i], NULL), -ENOTCONN);
                server_done(&server);
        }
        unlink(certificate);
        unlink(key);
        rmdir(folder);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_killed),
                cmocka_unit_test(test_killed_idle),
                cmocka_unit_test(test_stopped),
                cmocka_unit_test(test_disconnect_from_within),
                cmocka_unit_test(test_reconnect_from_within),
                cmocka_unit_test(test_password),
                cmocka_unit_test(test_password_too_many),
                cmocka_unit_test(test_user),
                cmocka_unit_test(test_database),
                cmocka_unit_test(test_full),
                cmocka_unit_test(test_read_only),
                cmocka_unit_test(test_renamed),
                cmocka_unit_test(test_liars),
                cmocka_unit_test(test_echoed_password),
                cmocka_unit_test(test_liars_without_end),
                cmocka_unit_test(test_wrong_answers),
                cmocka_unit_test(test_noise),
                cmocka_unit_test(test_unreachable),
                cmocka_unit_test(test_bad_urls),
                cmocka_unit_test(test_tcp),
                cmocka_unit_test(test_silent_address),
                cmocka_unit_test(test_tls),
        };

        server_require();
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* How a connection to PostgreSQL is made, refused and lost, and what becomes of what was on its way. */

#include "../unit.h"

#include <sys/epoll.h>
#include <sys/syscall.h>

#include "basic/clock.h"
#include "postgresql-server.h"
#include "state-client.h"
#include "two-addresses.h"

static Server server;
static const StateDriver *driver;
static sd_event *event;
static Client one;

/* What a URL is made of; the strings of the parameters are kept until the next call. */
static StateUrl url_of(const char *user, const char *database, const char *parameter) {
        static char host[80], port[20], more[200], *parameters[4];

        snprintf(host, sizeof(host), "host=%s", server.dir);
        snprintf(port, sizeof(port), "port=%s", server.port);
        snprintf(more, sizeof(more), "%s", parameter ? parameter : "");
        parameters[0] = host;
        parameters[1] = port;
        parameters[2] = parameter ? more : NULL;
        return (StateUrl){ .driver = (char *) "postgresql",
                .user = (char *) user,
                .path = (char *) database,
                .parameters = parameters };
}

static StateUrl tcp_url(const char *host, char **parameters) {
        return (StateUrl){ .driver = (char *) "postgresql",
                .user = (char *) "postgres",
                .path = (char *) "postgres",
                .host = (char *) host,
                .port = (unsigned) atoi(server.port),
                .parameters = parameters };
}

static void open_as(Client *c, const char *user, const char *database, const char *parameter) {
        StateUrl url = url_of(user, database, parameter);

        client_init(c, driver, event, &url);
}

static int set_up(void **state) {
        open_as(&one, "postgres", "postgres", NULL);
        assert_int_equal(client_connect(&one, NULL), 0);
        return 0;
}

static int tear_down(void **state) {
        client_done(&one);
        return 0;
}

static char *refused_url(const StateUrl *url) {
        static char error[STATE_TEXT_MAX];
        Client c = { 0 };

        assert_int_equal(driver->open(&client_host, &c, event, url, &c.d, error), -EINVAL);
        return error;
}

static char *refused(const char *parameter) {
        StateUrl url = url_of("postgres", "postgres", parameter);

        return refused_url(&url);
}

/* What is not taken is told with what would be. */
static void test_bad_urls(void **state) {
        StateUrl url = tcp_url("a,b", NULL);

        assert_string_equal(refused_url(&url),
                        "found the host \"a,b\", expected a name, an address or a directory");
        assert_string_equal(refused("sslmode=yes"),
                        "found sslmode=yes, expected disable, allow, prefer, require, verify-ca or verify-full");
        assert_string_equal(refused("sslmod=require"),
                        "found the parameter \"sslmod\", expected host, port, sslmode, sslrootcert, sslcert, sslkey, "
                        "application_name or options");
        assert_string_equal(refused("service=x"),
                        "found the parameter \"service\", expected host, port, sslmode, sslrootcert, sslcert, sslkey, "
                        "application_name or options");
        assert_string_equal(refused("host=/tmp"), "found the host \"/tmp\" and another one, expected one");
        assert_string_equal(refused("port=1"), "found the port \"1\" and another one, expected one");
        url = tcp_url("a", (char *[]){ (char *) "application_name=a", (char *) "application_name=b", NULL });
        assert_string_equal(refused_url(&url), "found application_name twice, expected it once");
        url = tcp_url(NULL, (char *[]){ (char *) "port=65536", NULL });
        url.port = 0;
        assert_string_equal(refused_url(&url), "found the port \"65536\", expected 1 … 65535");
        url = tcp_url(NULL, (char *[]){ (char *) "host=", NULL });
        assert_string_equal(refused_url(&url),
                        "found the host \"\", expected a name, an address or a directory");
}

/* Listens where a server with that URL would. */
static int listen_as_server(char dir[static 64], StateUrl *url) {
        static char host[80], *parameters[] = { host, NULL };
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        strcpy(dir, "/tmp/muster-postgresql-XXXXXX");
        MUST(mkdtemp(dir));
        snprintf(a.sun_path, sizeof(a.sun_path), "%s/.s.PGSQL.5432", dir);
        MUST(bind(fd, (struct sockaddr *) &a, sizeof(a)) == 0 && listen(fd, 1) == 0);
        snprintf(host, sizeof(host), "host=%s", dir);
        *url = (StateUrl){ .driver = (char *) "postgresql",
                .user = (char *) "postgres",
                .path = (char *) "postgres",
                .parameters = parameters };
        return fd;
}

/* Welcomes who connects, and answers what is asked then. */
static int on_question(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        const StateBytes *answer = userdata, welcome = BYTES("R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
        char question[4096];
        ssize_t n = read(fd, question, sizeof(question));

        if (n <= 0)
                return sd_event_source_set_enabled(source, SD_EVENT_OFF);
        if (*question != 'Q')
                answer = &welcome;
        assert_int_equal(write(fd, answer->data, answer->size), answer->size);
        return 0;
}

/* A server that says of the table: no row; a row without a field. */
static void test_no_answer_of_the_table(void **state) {
#define NO_FIELDS     "T\0\0\0\x06\0\0"
#define EMPTY_ROW     "D\0\0\0\x06\0\0"
#define END_OF_SELECT "C\0\0\0\x0bSELECT\0Z\0\0\0\x05I"
        StateBytes answers[] = { BYTES(NO_FIELDS END_OF_SELECT), BYTES(NO_FIELDS EMPTY_ROW END_OF_SELECT) };
        char dir[64];
        StateUrl url;
        int listener = listen_as_server(dir, &url), fd;
        sd_event_source *source;
        Client c;

        client_init(&c, driver, event, &url);
        for (unsigned i = 0; i < ELEMENTSOF(answers); i++) {
                assert_int_equal(driver->connect(c.d, NULL), 0);
                fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                assert_true(sd_event_add_io(event, &source, fd, EPOLLIN, on_question, &answers[i]) >= 0);
                RUN_UNTIL(event, c.n_lost > i);
                assert_int_equal(c.lost_error, -EBADMSG);
                sd_event_source_disable_unref(source);
                close(fd);
        }
        client_done(&c);
        close(listener);
        nftw(dir, server_remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* The table, by whom it is made first: all of those who come at once. */
static void test_table_made_at_once(void **state) {
        Client clients[8];
        _cleanup_free_ char *n = NULL;

        server_do(&server, "DROP DATABASE IF EXISTS fresh");
        server_do(&server, "CREATE DATABASE fresh");
        for (size_t i = 0; i < ELEMENTSOF(clients); i++) {
                open_as(&clients[i], "postgres", "fresh", NULL);
                assert_int_equal(driver->connect(clients[i].d, NULL), 0);
        }
        for (size_t i = 0; i < ELEMENTSOF(clients); i++) {
                RUN_UNTIL(event, clients[i].n_connected + clients[i].n_lost > 0);
                assert_int_equal(clients[i].n_lost, 0);
                assert_int_equal(do_set(&clients[i], bytes("k"), bytes("x")), 0);
        }
        for (size_t i = 0; i < ELEMENTSOF(clients); i++)
                client_done(&clients[i]);
        n = server_ask(&server, "fresh", "SELECT count(*) FROM pg_class WHERE relname = 'muster_state'");
        assert_string_equal(n, "1");
}

/* A table that was dropped meanwhile: that is told, and the next connection makes it again. */
static void test_table_dropped(void **state) {
        server_do(&server, "DROP TABLE muster_state");
        assert_int_equal(do_set(&one, bytes("k"), bytes("x")), -EIO);
        assert_int_equal(one.n_complaints, 1);
        assert_string_equal(one.complaint, "relation \"muster_state\" does not exist (42P01)");
        assert_int_equal(one.n_lost, 1);
        assert_int_equal(one.lost_error, -ENOTCONN);
        assert_int_equal(client_connect(&one, NULL), 0);
        assert_int_equal(do_set(&one, bytes("k"), bytes("x")), 0);
}

/* A table of that name that is not ours. */
static void test_foreign_table(void **state) {
        Client c;

        server_do(&server, "CREATE SCHEMA foreigner CREATE TABLE muster_state (key text)");
        open_as(&c, "postgres", "postgres", "options=-csearch_path=foreigner");
        assert_int_equal(client_connect(&c, NULL), -ENOTCONN);
        assert_non_null(strstr(c.lost_text, "does not exist"));
        client_done(&c);
        server_do(&server, "DROP SCHEMA foreigner CASCADE");
}

/* The schema is the first of the connection's search_path. */
static void test_schema(void **state) {
        Client c;

        server_do(&server, "CREATE SCHEMA app");
        open_as(&c, "postgres", "postgres", "options=-csearch_path=app");
        assert_int_equal(client_connect(&c, NULL), 0);
        assert_int_equal(do_set(&c, bytes("only here"), bytes("x")), 0);
        ASSERT_ABSENT(&one, bytes("only here"));
        client_done(&c);
        server_do(&server, "DROP SCHEMA app CASCADE");
}

static int connect_as(const char *user, const char *database, const char *password,
                char text[static STATE_TEXT_MAX]) {
        Client c;
        int r;

        open_as(&c, user, database, NULL);
        r = client_connect(&c, password);
        strcpy(text, c.lost_text);
        client_done(&c);
        return r;
}

/* Who may not come in, and why; the password is in no text. */
static void test_passwords(void **state) {
        char text[STATE_TEXT_MAX];

        assert_int_equal(connect_as("secret", "postgres", "moonlight", text), 0);
        assert_int_equal(connect_as("secret", "postgres", "moonlighr", text), -EACCES);
        assert_non_null(strstr(text, "password authentication failed for user \"secret\""));
        assert_null(strstr(text, "moon"));
        assert_int_equal(connect_as("secret", "postgres", NULL, text), -EACCES);
        assert_non_null(strstr(text, "no password supplied"));
        assert_int_equal(connect_as("nobody", "postgres", NULL, text), -EACCES);
        assert_non_null(strstr(text, "role \"nobody\" does not exist"));
        assert_int_equal(connect_as("barred", "postgres", NULL, text), -EACCES);
        assert_int_equal(connect_as("postgres", "none", NULL, text), -ENOTCONN);
        assert_non_null(strstr(text, "database \"none\" does not exist"));
}

/* Rights: who may not make the table; who may only read it. */
static void test_rights(void **state) {
        char text[STATE_TEXT_MAX];
        Client c;

        server_do(&server, "CREATE ROLE weak LOGIN");
        server_do(&server, "ALTER TABLE muster_state RENAME TO hidden");
        server_do(&server, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
        assert_int_equal(connect_as("weak", "postgres", NULL, text), -EACCES);
        assert_string_equal(text, "permission denied for schema public (42501)");

        server_do(&server, "ALTER TABLE hidden RENAME TO muster_state");
        server_do(&server, "GRANT SELECT ON muster_state TO weak");
        assert_int_equal(do_set(&one, bytes("k"), bytes("x")), 0);
        open_as(&c, "weak", "postgres", NULL);
        assert_int_equal(client_connect(&c, NULL), 0);
        ASSERT_VALUE(&c, bytes("k"), "x");
        assert_int_equal(do_set(&c, bytes("k"), bytes("y")), -EACCES);
        assert_string_equal(c.complaint, "permission denied for table muster_state (42501)");
        ASSERT_VALUE(&c, bytes("k"), "x");

        /* What the manual says is enough. */
        server_do(&server, "GRANT SELECT, INSERT, UPDATE, DELETE ON muster_state TO weak");
        assert_int_equal(do_set(&c, bytes("k"), bytes("y")), 0);
        assert_int_equal(DO(&c, { .verb = STATE_SET, .key = bytes("k2"), .if_absent = true }), 0);
        assert_int_equal(DO(&c, { .verb = STATE_ADD, .key = bytes("weak n") }), 0);
        assert_int_equal(DO(&c, { .verb = STATE_ACQUIRE, .key = bytes("weak l"), .ttl_usec = 1000000 }), 0);
        assert_int_equal(DO(&c, { .verb = STATE_DELETE, .key = bytes("k2") }), 0);
        for (int i = 0; i < 40; i++) /* a sweep is among them */
                assert_int_equal(do_set(&c, bytes("k"), bytes("z")), 0);
        assert_int_equal(c.n_complaints, 1);
        client_done(&c);
        server_do(&server, "DROP OWNED BY weak; DROP ROLE weak");
}

/* As on a standby. */
static void test_read_only(void **state) {
        Client c;

        assert_int_equal(do_set(&one, bytes("k"), bytes("x")), 0);
        open_as(&c, "postgres", "postgres", "options=-cdefault_transaction_read_only=on");
        assert_int_equal(client_connect(&c, NULL), 0);
        ASSERT_VALUE(&c, bytes("k"), "x");
        assert_int_equal(do_set(&c, bytes("k"), bytes("y")), -EOPNOTSUPP);
        assert_int_equal(c.n_complaints, 0);
        client_done(&c);
}

#define N_WAITING 4000

static Op *begin_many(Client *c, size_t n) {
        Op *ops = calloc(n, sizeof(*ops));

        for (size_t i = 0; i < n; i++) {
                ops[i].op = (StateOperation){ .verb = STATE_ADD, .key = bytes("many"), .difference = 1 };
                op_begin(c, &ops[i]);
        }
        return ops;
}

/* Those that have not ended are never heard of again. */
static size_t count_and_free(Op *ops, size_t n) {
        size_t n_finished = 0;

        for (size_t i = 0; i < n; i++) {
                n_finished += ops[i].place > 0;
                if (ops[i].place > 0)
                        assert_int_equal(ops[i].error, 0);
                op_done(&ops[i]);
        }
        free(ops);
        return n_finished;
}

static long stored_number(const char *key) {
        char sql[200];

        snprintf(sql, sizeof(sql),
                        "SELECT encode(value, 'escape') FROM muster_state WHERE kind = 0 AND key = '%s'",
                        key);
        return server_count(&server, sql);
}

/* The server ends at once in the middle of it: told once, and what was answered is done. It comes back. */
static void test_server_ends(void **state) {
        Op *ops;
        size_t n_finished;
        long stored;

        (void) DO(&one, { .verb = STATE_DELETE, .key = bytes("many") });
        one.n_finished = 0;
        ops = begin_many(&one, N_WAITING);
        RUN_UNTIL(event, one.n_finished > 100);
        server_stop(&server, SIGQUIT);
        RUN_UNTIL(event, one.n_lost > 0);
        assert_int_equal(one.n_lost, 1);
        assert_int_equal(one.lost_error, -ENOTCONN);
        assert_true(*one.lost_text);
        assert_int_equal(driver->send(one.d, &ops[0].op), -ENOTCONN);
        n_finished = count_and_free(ops, N_WAITING);
        assert_in_range(n_finished, 100, N_WAITING);

        assert_int_equal(client_connect(&one, NULL), -ENOTCONN); /* nobody is there */
        server_start(&server);
        assert_int_equal(client_connect(&one, NULL), 0);
        stored = stored_number("many");
        assert_in_range(stored, n_finished, N_WAITING);
        assert_int_equal(do_set(&one, bytes("after"), bytes("x")), 0);
}

/* The reason is told, also when nothing was asked. */
static void test_backend_terminated(void **state) {
        server_do(&server,
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'muster'");
        RUN_UNTIL(event, one.n_lost > 0);
        assert_string_equal(one.lost_text, "terminating connection due to administrator command (57P01)");
        assert_int_equal(client_connect(&one, NULL), 0);
        assert_int_equal(do_set(&one, bytes("k"), bytes("x")), 0);
}

/* Of the latest connection: the backend of one that is closed may not have ended yet. */
static pid_t backend_pid(void) {
        return (pid_t) server_count(&server,
                        "SELECT pid FROM pg_stat_activity WHERE application_name = 'muster'"
                        " ORDER BY backend_start DESC LIMIT 1");
}

static void wait_for_exit(int pidfd) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };

        assert_int_equal(poll(&p, 1, PATIENCE_USEC / 1000), 1);
        close(pidfd);
}

/* A backend that stands still holds nobody up: the connection is let go of at once, and what has not left is
 * not sent. */
static void test_stopped_backend(void **state) {
        size_t size = MUSTER_STATE_VALUE_MAX;
        char *data = calloc(1, size);
        pid_t pid = backend_pid();
        int pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        Op ops[4] = { 0 };
        uint64_t start;

        assert_true(pidfd >= 0);
        (void) DO(&one, { .verb = STATE_DELETE, .key = bytes("0") });
        assert_int_equal(kill(pid, SIGSTOP), 0);
        for (size_t i = 0; i < ELEMENTSOF(ops); i++) {
                ops[i].op = (StateOperation){ .verb = STATE_SET,
                        .key = bytes((const char *[]){ "0", "1", "2", "3" }[i]),
                        .value = { data, size } };
                op_begin(&one, &ops[i]);
        }
        while (sd_event_run(event, 0) > 0)
                ;
        start = clock_now_usec();
        driver->disconnect(one.d);
        assert_true(clock_now_usec() - start < PATIENCE_USEC);
        driver->disconnect(one.d);
        free(data); /* it is not looked at any more */
        memset(ops, 0xFF, sizeof(ops));

        assert_int_equal(client_connect(&one, NULL), 0);
        assert_int_equal(do_set(&one, bytes("meanwhile"), bytes("x")), 0);
        assert_int_equal(kill(pid, SIGCONT), 0);
        wait_for_exit(pidfd);
        for (size_t i = 0; i < ELEMENTSOF(ops); i++)
                ASSERT_ABSENT(&one, bytes((const char *[]){ "0", "1", "2", "3" }[i]));
        assert_int_equal(one.n_lost, 0);
}

static int on_readable(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        *(bool *) userdata = true;
        return 0;
}

/* libpq closes its socket while something is sent on a connection that is gone. Who gets the number next is
 * heard by the loop, also when the driver has noticed. */
static void test_reused_descriptor(void **state) {
        pid_t pid = backend_pid();
        int fds[2], pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        sd_event_source *source = NULL;
        bool is_heard = false;
        struct pollfd socket;
        Op ops[8] = { 0 };

        assert_true(pidfd >= 0);
        assert_int_equal(server_find_sockets(&server, &socket, 1), 1);
        server_do(&server,
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'muster'");
        wait_for_exit(pidfd);
        for (size_t i = 0; i < ELEMENTSOF(ops); i++) {
                ops[i].op = (StateOperation){ .verb = STATE_GET, .key = bytes("k") };
                op_begin(&one, &ops[i]);
        }
        assert_int_equal(fcntl(socket.fd, F_GETFD), -1);

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        if (fds[0] != socket.fd) {
                assert_int_equal(dup3(fds[0], socket.fd, O_CLOEXEC), socket.fd);
                close(fds[0]);
        }
        assert_true(sd_event_add_io(event, &source, socket.fd, EPOLLIN, on_readable, &is_heard) >= 0);
        RUN_UNTIL(event, one.n_lost > 0);
        assert_int_equal(write(fds[1], "x", 1), 1);
        RUN_UNTIL(event, is_heard);
        sd_event_source_disable_unref(source);
        close(socket.fd);
        close(fds[1]);
}

/* What libpq has and the socket had no room for is not sent by the end of the connection, even when there is
 * room now. */
static void test_not_sent_at_the_end(void **state) {
        static char data[300000]; /* a little more than the socket takes */
        pid_t pid = backend_pid();
        struct pollfd room = { .events = POLLOUT };
        int pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        Op o = { .op = { .verb = STATE_SET, .key = bytes("unsent"), .value = { data, sizeof(data) } } };

        assert_true(pidfd >= 0);
        assert_int_equal(server_find_sockets(&server, &room, 1), 1);
        assert_int_equal(kill(pid, SIGSTOP), 0);
        op_begin(&one, &o);
        assert_int_equal(poll(&room, 1, 0), 0);
        assert_int_equal(kill(pid, SIGCONT), 0);
        assert_int_equal(poll(&room, 1, PATIENCE_USEC / 1000), 1);
        driver->disconnect(one.d);
        wait_for_exit(pidfd);
        assert_int_equal(client_connect(&one, NULL), 0);
        ASSERT_ABSENT(&one, bytes("unsent"));
}

static Op first;

static void send_much(Client *c, const char *event_name) {
        if (strcmp(event_name, "connected") == 0)
                op_begin(c, &first);
}

/* What is sent from within connected() may be more than the socket takes. */
static void test_send_much_when_connected(void **state) {
        char *data = calloc(1, MUSTER_STATE_VALUE_MAX);

        first = (Op){
                .op = { .verb = STATE_SET, .key = bytes("first"), .value = { data, MUSTER_STATE_VALUE_MAX } }
        };
        driver->disconnect(one.d);
        one.on_event = send_much;
        assert_int_equal(client_connect(&one, NULL), 0);
        assert_int_equal(op_wait(&first), 0);
        op_done(&first);
        free(data);
}

/* Disconnected in the middle of a pipeline: no function of the host is called any more. */
static void test_disconnect(void **state) {
        Op *ops = begin_many(&one, N_WAITING);
        unsigned n;

        RUN_UNTIL(event, one.n_finished > 10);
        n = one.n_finished;
        driver->disconnect(one.d);
        free(ops[0].value);
        for (size_t i = 1; i < N_WAITING; i++)
                op_done(&ops[i]);
        memset(ops, 0xFF, N_WAITING * sizeof(*ops));
        free(ops);
        while (sd_event_run(event, 0) > 0)
                ;
        assert_int_equal(one.n_finished, n);
        assert_int_equal(one.n_lost, 0);
}

static const char *let_go_on;
static unsigned n_let_go;

static void let_go(Client *c, const char *event_name) {
        if (!let_go_on || strcmp(event_name, let_go_on) != 0)
                return;
        let_go_on = NULL;
        n_let_go++;
        driver->disconnect(c->d);
        assert_int_equal(driver->connect(c->d, NULL), 0);
}

/* The host may let go of the connection, and begin a new one, from within each of its functions. */
static void test_let_go_from_within(void **state) {
        static const char *const events[] = { "finish", "complain", "subscribed", "message", "connected" };

        for (size_t i = 0; i < ELEMENTSOF(events); i++) {
                unsigned n_connected = one.n_connected;
                Op ops[6] = { 0 };

                one.on_event = NULL;
                if (i == 3) {
                        assert_int_equal(driver->subscribe(one.d, bytes("c")), 0);
                        RUN_UNTIL(event, one.n_subscribed > 1);
                }
                one.on_event = let_go;
                let_go_on = events[i];
                n_let_go = 0;
                if (i == 4) {
                        driver->disconnect(one.d);
                        assert_int_equal(driver->connect(one.d, NULL), 0);
                } else {
                        for (size_t k = 0; k < 5; k++) {
                                ops[k].op = (StateOperation){ .verb = k == 1 ? STATE_PUBLISH : STATE_GET,
                                        .key = bytes("c"),
                                        .value = bytes("x") };
                                if (i == 1)
                                        ops[k].op = (StateOperation){ .verb = STATE_SET,
                                                .key = { calloc(1, 600), 600 } };
                                op_begin(&one, &ops[k]);
                        }
                        if (i == 2)
                                assert_int_equal(driver->subscribe(one.d, bytes("c")), 0);
                        ops[5].op = (StateOperation){ .verb = STATE_GET, .key = bytes("c") };
                        op_begin(&one, &ops[5]);
                }
                RUN_UNTIL(event, n_let_go == 1);
                RUN_UNTIL(event, one.n_connected == n_connected + 1 + (i == 4));
                for (size_t k = 0; k < 6; k++) {
                        if (i == 1 && k < 5)
                                free((void *) ops[k].op.key.data);
                        op_done(&ops[k]);
                }
                one.on_event = NULL;
                assert_int_equal(do_set(&one, bytes("k"), bytes("x")), 0);
        }
        assert_int_equal(one.n_lost, 0);
}

static Op chain[100];

static void send_next(Client *c, const char *event_name) {
        unsigned n = c->n_finished;

        if (strcmp(event_name, "finish") == 0 && n < ELEMENTSOF(chain)) {
                chain[n].op = (StateOperation){ .verb = STATE_ADD, .key = bytes("chain"), .difference = 1 };
                op_begin(c, &chain[n]);
        }
        if (strcmp(event_name, "lost") == 0)
                assert_int_equal(driver->connect(c->d, NULL), 0);
        if (strcmp(event_name, "connected") == 0) {
                chain[0].op = (StateOperation){ .verb = STATE_ADD, .key = bytes("chain"), .difference = 1 };
                op_begin(c, &chain[0]);
        }
}

/* It may also send, and connect again, from within them. */
static void test_send_from_within(void **state) {
        one.on_event = send_next;
        one.n_finished = 0;
        server_do(&server,
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'muster'");
        RUN_UNTIL(event, one.n_finished == ELEMENTSOF(chain));
        assert_int_equal(chain[ELEMENTSOF(chain) - 1].number, ELEMENTSOF(chain));
        for (size_t i = 0; i < ELEMENTSOF(chain); i++)
                op_done(&chain[i]);
}

/* Let go of in each phase of connecting, by running the loop so many times before. */
static void test_let_go_while_connecting(void **state) {
        StateUrl url = tcp_url("localhost", NULL);
        Client c;

        client_init(&c, driver, event, &url);
        for (int turns = 0;; turns++) {
                assert_int_equal(driver->connect(c.d, "x"), 0);
                for (int i = 0; i < turns && !c.n_connected; i++)
                        assert_true(sd_event_run(event, PATIENCE_USEC) > 0);
                if (c.n_connected)
                        break;
                driver->disconnect(c.d);
        }
        assert_int_equal(c.n_lost, 0);
        assert_int_equal(do_set(&c, bytes("k"), bytes("x")), 0);
        client_done(&c);
}

/* A name is looked up without blocking; a number, and what the environment says, are not in the way. */
static void test_names(void **state) {
        static const char *const hosts[] = { "127.0.0.1", "localhost" };
        StateUrl url;
        Client c;

        setenv("PGHOST", "nowhere.invalid", 1);
        setenv("PGHOSTADDR", "192.0.2.1", 1);
        setenv("PGPORT", "1", 1);
        for (size_t i = 0; i < ELEMENTSOF(hosts); i++) {
                url = tcp_url(hosts[i], NULL);
                client_init(&c, driver, event, &url);
                assert_int_equal(client_connect(&c, NULL), 0);
                assert_int_equal(do_set(&c, bytes("k"), bytes("x")), 0);
                client_done(&c);
        }
        open_as(&c, "postgres", "postgres", NULL);
        assert_int_equal(client_connect(&c, NULL), 0);
        client_done(&c);
        unsetenv("PGHOST");
        unsetenv("PGHOSTADDR");
        unsetenv("PGPORT");

        url = tcp_url("nowhere.invalid", NULL);
        client_init(&c, driver, event, &url);
        assert_int_equal(client_connect(&c, NULL), -ENOTCONN);
        assert_non_null(strstr(c.lost_text, "cannot look up nowhere.invalid: "));
        client_done(&c);

        url = tcp_url("127.0.0.1", NULL);
        url.port = 1;
        client_init(&c, driver, event, &url);
        assert_int_equal(client_connect(&c, NULL), -ENOTCONN);
        assert_non_null(strstr(c.lost_text, "127.0.0.1"));
        client_done(&c);
}

static bool make_certificate(void) {
        char command[400];

        snprintf(command, sizeof(command),
                        "cd %s/data && openssl req -new -x509 -days 2 -nodes -subj /CN=localhost -addext "
                        "subjectAltName=DNS:localhost -newkey rsa:2048 -keyout server.key -out server.crt 2>/dev/null && chmod 600 "
                        "server.key && chown --reference=. server.key server.crt",
                        server.dir);
        return system(command) == 0;
}

/* Over TLS, with a certificate that is looked at. Records are larger than what libpq reads at once: nothing
 * is left lying. */
static void test_tls(void **state) {
        char root[128], *parameters[] = { (char *) "sslmode=verify-full", root, NULL };
        StateUrl url = tcp_url("localhost", parameters);
        char *data = calloc(1, 100000);
        Op ops[200] = { 0 };
        Client c;

        if (!make_certificate())
                skip();
        server_stop(&server, SIGINT);
        server_append(&server, "postgresql.conf", "ssl = on\n");
        server_start(&server);
        snprintf(root, sizeof(root), "sslrootcert=%s/data/server.crt", server.dir);
        client_init(&c, driver, event, &url);
        assert_int_equal(client_connect(&c, NULL), 0);
        assert_int_equal(server_count(&server, "SELECT count(*) FROM pg_stat_ssl WHERE ssl"), 1);
        for (size_t i = 0; i < 100000; i++)
                data[i] = (char) ('a' + i * i % 23);
        for (size_t i = 0; i < ELEMENTSOF(ops); i++) {
                ops[i].op = (StateOperation){ .verb = i % 10 ? STATE_GET : STATE_SET,
                        .key = bytes("tls"),
                        .value = { data, i * 500 } };
                op_begin(&c, &ops[i]);
        }
        for (size_t i = 0; i < ELEMENTSOF(ops); i++) {
                assert_int_equal(op_wait(&ops[i]), 0);
                if (i % 10)
                        assert_int_equal(ops[i].value_size, i / 10 * 10 * 500);
                op_done(&ops[i]);
        }
        client_done(&c);
        free(data);

        /* One that the certificate is not for. */
        url = tcp_url("127.0.0.1", parameters);
        client_init(&c, driver, event, &url);
        assert_int_equal(client_connect(&c, NULL), -ENOTCONN);
        assert_non_null(strstr(c.lost_text, "certificate"));
        client_done(&c);
}

static void configure_access(void) {
        server_do(&server,
                        "CREATE ROLE secret LOGIN PASSWORD 'moonlight' SUPERUSER; CREATE ROLE barred LOGIN");
}

static void write_access_file(void) {
        char path[128];
        FILE *f;

        snprintf(path, sizeof(path), "%s/data/pg_hba.conf", server.dir);
        f = fopen(path, "we");
        MUST(f &&
                        fputs("local all secret scram-sha-256\n"
                              "local all barred reject\n"
                              "local all all trust\n"
                              "host all all 127.0.0.1/32 trust\n",
                                        f) >= 0 &&
                        fclose(f) == 0);
}

/* An address where nobody answers keeps nobody from the next one but for one attempt. What works is the
 * first that is tried from then on. */
static void test_silent_address(void **state) {
        StateUrl url = tcp_url(TWO_ADDRESSES, NULL);
        int fd = silence_start(url.port);
        Client c;

        client_init(&c, driver, event, &url);
        assert_int_equal(driver->connect(c.d, NULL), 0);
        assert_true(sd_event_run(event, UINT64_MAX) >= 0); /* the name is looked up */
        driver->disconnect(c.d);
        assert_int_equal(client_connect(&c, NULL), 0);
        driver->disconnect(c.d);
        assert_int_equal(client_connect(&c, NULL), 0);
        assert_int_equal(c.n_lost, 0);
        client_done(&c);
        close(fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_bad_urls),
                cmocka_unit_test(test_no_answer_of_the_table),
                cmocka_unit_test(test_table_made_at_once),
                cmocka_unit_test_setup_teardown(test_table_dropped, set_up, tear_down),
                cmocka_unit_test(test_foreign_table),
                cmocka_unit_test_setup_teardown(test_schema, set_up, tear_down),
                cmocka_unit_test(test_passwords),
                cmocka_unit_test_setup_teardown(test_rights, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_read_only, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_server_ends, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_backend_terminated, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_stopped_backend, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_reused_descriptor, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_not_sent_at_the_end, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_send_much_when_connected, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_disconnect, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_let_go_from_within, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_send_from_within, set_up, tear_down),
                cmocka_unit_test(test_let_go_while_connecting),
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_silent_address),
                cmocka_unit_test(test_tls),
        };
        int r;

        if (!server_init(&server)) {
                fprintf(stderr, "skipped: PostgreSQL is not installed\n");
                return 77;
        }
        write_access_file();
        server_start(&server);
        configure_access();
        driver = client_load_driver("postgresql");
        MUST(sd_event_new(&event) >= 0);
        r = cmocka_run_group_tests(tests, NULL, NULL);
        sd_event_unref(event);
        server_done(&server);
        return r;
}

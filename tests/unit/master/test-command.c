/* SPDX-License-Identifier: MIT */
/* What is executed as a worker, and what it learns from its environment. */

#include "../unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/macro.h"
#include "board/board.h"
#include "build-config.h"
#include "master/command.h"
#include "master/config.h"

static const CommandIdentity identity = {
        .app = "web",
        .slot = 3,
        .generation = 7,
        .n_sockets = 2,
        .socket_names = "http:admin",
        .board_cell = 11,
        .mark = "MUSTER_WORKER_ID=1.3.5",
};

static Config *load(const char *text) {
        char path[] = "/tmp/test-command-XXXXXX";
        _cleanup_free_ char *error = NULL;
        Config *c = NULL;
        int fd = mkstemp(path);

        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        close(fd);
        assert_int_equal(config_load(path, &c, &error), 0);
        unlink(path);
        return c;
}

static Command *make_as(const Config *config, const CommandIdentity *who) {
        _cleanup_free_ char *error = NULL;
        Command *c = NULL;

        if (command_new(config, who, &c, &error) != 0)
                fail_msg("%s", error);
        return c;
}

static Command *make(const Config *config) {
        return make_as(config, &identity);
}

static const char *variable(const Command *c, const char *name) {
        const char *found = NULL;
        size_t n = strlen(name);

        for (char **e = c->env; *e; e++)
                if (strncmp(*e, name, n) == 0 && (*e)[n] == '=') {
                        assert_null(found); /* twice would be a matter of luck */
                        found = *e + n + 1;
                }
        return found;
}

/* Settings become arguments, in a form that the worker's parser reads back. */
static void test_arguments(void **state) {
        static const char *const expected[] = {
                NULL,
                "--directory=/srv/my site",
                "--whoami",
                "--proxy-protocol",
                "--no-twin",
                "--idle-timeout=1min30s",
                "--request-timeout=5s",
                "--send-timeout=250ms",
                "--max-request-head=8K",
                "--max-connections=12",
                "--body-timeout=1s",
                "--access-log=journal",
                "--access-log-format=json",
                "--index=",
                "--listing",
                "--symlinks=none",
                "--no-precompressed",
                "--file-cache=7",
                "--file-cache-valid=2s",
                "--cache-control=max-age=60",
        };
        _cleanup_(config_freep) Config *config = load(
                        "app: { directory = \"/srv/my site\"; whoami = true; };\n"
                        "http: { idle_timeout = \"90s\"; request_timeout = \"5s\"; send_timeout = \"250ms\";\n"
                        "        max_request_head = 8192; max_connections = 12; body_timeout = \"1s\";\n"
                        "        access_log = \"journal\"; access_log_format = \"json\"; };\n"
                        "static: { index = \"\"; listing = true; symlinks = \"none\"; precompressed = false;\n"
                        "          file_cache = 7; file_cache_valid = \"2s\"; cache_control = \"max-age=60\"; };\n"
                        "workers: { proxy_protocol = true; twin = false; };");
        _cleanup_(command_freep) Command *c = NULL;

        unsetenv("MUSTER_LIBEXECDIR");
        c = make(config);
        assert_string_equal(c->program, LIBEXECDIR "/muster-worker");
        assert_string_equal(c->argv[0], c->program);
        for (size_t i = 1; i < ELEMENTSOF(expected); i++)
                assert_string_equal(c->argv[i], expected[i]);
        assert_null(c->argv[ELEMENTSOF(expected)]);
}

/* A module's settings, and none that concern files; it has the board, as every native worker. */
static void test_module(void **state) {
        static const char *const expected[] = { "--module=/proc/self/exe", "--directory=/srv", "--threads=2",
                "--idle-timeout=1min", "--request-timeout=10s", "--send-timeout=30s",
                "--max-request-head=16K", "--max-connections=10000", "--max-body=2K", "--body-timeout=30s",
                "--answer-timeout=0", "--access-log-format=common", "--max-requests=5" };
        CommandIdentity who = identity;
        _cleanup_(config_freep) Config *config = load(
                        "app: { kind = \"module\"; module = \"/proc/self/exe\"; directory = \"/srv\";\n"
                        "       environment = { A = \"%{worker}\"; }; };\n"
                        "workers: { threads = 2; }; http: { max_body = 2048; answer_timeout = \"0\"; };");
        _cleanup_(command_freep) Command *c = NULL;

        who.max_requests = 5;
        c = make_as(config, &who);
        assert_string_equal(c->program, LIBEXECDIR "/muster-worker");
        for (size_t i = 0; i < ELEMENTSOF(expected); i++)
                assert_string_equal(c->argv[i + 1], expected[i]);
        assert_null(c->argv[ELEMENTSOF(expected) + 1]);
        assert_string_equal(variable(c, "A"), "3");
        assert_string_equal(variable(c, BOARD_ENV_FD), "5");
}

/* The groups of the two processes come last, behind the inboxes where there are some. */
static void test_twin_groups(void **state) {
        _cleanup_(config_freep) Config *config = load("");
        CommandIdentity who = identity;

        who.has_twin_groups = true;
        for (unsigned n = 0; n <= 3; n += 3) {
                _cleanup_(command_freep) Command *c = NULL;

                who.n_inboxes = n;
                c = make_as(config, &who);
                assert_string_equal(variable(c, BOARD_ENV_TWIN_CGROUP_FDS), n ? "14:15" : "8:9");
        }
        _cleanup_(command_freep) Command *c = make(config);
        assert_null(variable(c, BOARD_ENV_TWIN_CGROUP_FDS));
}

/* What is off by default is not passed. */
static void test_defaults(void **state) {
        _cleanup_(config_freep) Config *config = load("");
        _cleanup_(command_freep) Command *c = NULL;

        setenv("MUSTER_LIBEXECDIR", "/elsewhere", 1);
        c = make(config);
        assert_string_equal(c->program, "/elsewhere/muster-worker");
        for (char **a = c->argv; *a; a++) {
                assert_string_not_equal(*a, "--whoami");
                assert_string_not_equal(*a, "--no-precompressed");
                assert_string_not_equal(*a, "--no-twin");
                assert_string_not_equal(*a, "--access-log=");
        }
        unsetenv("MUSTER_LIBEXECDIR");
}

/* Sockets from 3 up, then the board, then the bell; the worker's own identity. */
static void test_environment(void **state) {
        _cleanup_(config_freep) Config *config = load("");
        _cleanup_(command_freep) Command *c = NULL;

        setenv("TEST_KEPT", "as=it is", 1);
        setenv("TEST_EMPTY", "", 1);
        c = make(config);
        assert_string_equal(variable(c, "MUSTER_APP"), "web");
        assert_string_equal(variable(c, "MUSTER_WORKER"), "3");
        assert_string_equal(variable(c, "MUSTER_GENERATION"), "7");
        assert_string_equal(variable(c, "MUSTER_WORKER_ID"), "1.3.5");
        assert_string_equal(variable(c, "LISTEN_FDS"), "2");
        assert_string_equal(variable(c, "LISTEN_FDNAMES"), "http:admin");
        assert_string_equal(variable(c, BOARD_ENV_FD), "5");
        assert_string_equal(variable(c, BOARD_ENV_BELL_FD), "6");
        assert_string_equal(variable(c, BOARD_ENV_CELL), "11");
        assert_string_equal(variable(c, "TEST_KEPT"), "as=it is");
        assert_string_equal(variable(c, "TEST_EMPTY"), "");
}

static void assert_arguments(const Command *c, const char *const *expected) {
        assert_string_equal(c->argv[0], c->program);
        for (size_t i = 1; c->argv[i] || expected[i - 1]; i++) {
                assert_true(c->argv[i] && expected[i - 1]);
                assert_string_equal(c->argv[i], expected[i - 1]);
        }
}

/* A program is started by muster-exec: its identifier, where the error pipe is, where it runs, and its words
 * with the numbers of its sockets. */
static void test_program(void **state) {
        static const char *const expected[] = { "--plain-channel", "web-3", "5", "/srv", "uvicorn", "--fd",
                "4", "100% of web-3", "", NULL };
        _cleanup_(config_freep) Config *config = load(
                        "app: { kind = \"program\"; directory = \"/srv\";\n"
                        "  command = [ \"uvicorn\", \"--fd\", \"%{fd:admin}\", \"100%% of %{app}-%{worker}\", \"\" ];\n"
                        "  environment = { NGINX = \"%{fd:http};%{fd:admin};\"; }; };\n");
        _cleanup_(command_freep) Command *c = make(config);

        assert_string_equal(c->program, LIBEXECDIR "/muster-exec");
        assert_arguments(c, expected);
        assert_string_equal(variable(c, "NGINX"), "3;4;");
        assert_string_equal(variable(c, "LISTEN_FDS"), "2");
        assert_string_equal(variable(c, "LISTEN_FDNAMES"), "http:admin");
        assert_string_equal(variable(c, "MUSTER_WORKER"), "3");
        assert_null(variable(c, BOARD_ENV_FD));
        assert_null(variable(c, "NODE_UNIQUE_ID"));
        assert_null(variable(c, "NODE_APP_INSTANCE"));
}

/* A Node app has no sockets but its place in a cluster; its error pipe comes first. */
static void test_node(void **state) {
        static const char *const expected[] = { "web-3", "3", "/", "/usr/bin/node", "server.js", NULL };
        CommandIdentity node = identity;
        _cleanup_(config_freep) Config *config =
                        load("app: { kind = \"node\"; command = [ \"/usr/bin/node\", \"server.js\" ]; };\n");

        node.unique_id = 19;
        node.instance = 2;
        _cleanup_(command_freep) Command *c = make_as(config, &node);
        assert_string_equal(c->program, LIBEXECDIR "/muster-exec");
        assert_arguments(c, expected);
        assert_string_equal(variable(c, "NODE_UNIQUE_ID"), "19");
        assert_string_equal(variable(c, "NODE_APP_INSTANCE"), "2");
        assert_null(variable(c, "LISTEN_FDS"));
        assert_null(variable(c, "LISTEN_FDNAMES"));
        assert_null(variable(c, BOARD_ENV_FD));
        assert_null(variable(c, "NODE_OPTIONS"));
}

/* One that has no slot yet is called so. */
static void test_spare(void **state) {
        CommandIdentity spare = identity;
        _cleanup_(config_freep) Config *config =
                        load("app: { kind = \"node\"; command = [ \"node\", \"x\", \"%{worker}\" ]; };\n");

        spare.slot = 0;
        _cleanup_(command_freep) Command *c = make_as(config, &spare);
        assert_string_equal(c->argv[1], "web-spare");
        assert_string_equal(c->argv[6], "spare");
        assert_string_equal(variable(c, "MUSTER_WORKER"), "spare");
}

/* A socket that is not there: only now can that be known. */
static void test_unknown_socket(void **state) {
        _cleanup_(config_freep) Config *
                        word = load("app: { kind = \"program\";\n command = [ \"x\", \"%{fd:web}\" ]; };\n"),
                       *value = load("app: { kind = \"program\"; command = [ \"x\" ];\n\n"
                                     " environment = { FD = \"%{fd:web}\"; }; };\n");
        _cleanup_free_ char *first = NULL, *second = NULL;
        CommandIdentity none = identity;
        char expected[256];
        Command *c = NULL;

        assert_int_equal(command_new(word, &identity, &c, &first), COMMAND_INVALID);
        snprintf(expected, sizeof(expected),
                        "%s:2: app.command: found \"%%{fd:web}\", expected the name of a socket, of which there are http:admin",
                        word->path);
        assert_string_equal(first, expected);
        none.n_sockets = 0;
        assert_int_equal(command_new(value, &none, &c, &second), COMMAND_INVALID);
        snprintf(expected, sizeof(expected),
                        "%s:3: app.environment: FD: found \"%%{fd:web}\", expected no %%{fd:NAME}: there is no socket",
                        value->path);
        assert_string_equal(second, expected);
        assert_null(c);
}

/* The master's own environment, then the file's, then the configuration's, then the worker's identity. */
static void test_precedence(void **state) {
        char path[] = "/tmp/test-command-XXXXXX", text[256];
        static const char variables[] = "A=file\nB=file\nC=%{worker}\nB=file again\n";
        int fd = mkstemp(path);

        assert_int_equal(write(fd, variables, strlen(variables)), strlen(variables));
        close(fd);
        snprintf(text, sizeof(text),
                        "app: { environment_file = \"%s\"; environment = { B = \"%%{worker}\"; D = \"set\"; }; };",
                        path);
        _cleanup_(config_freep) Config *config = load(text);
        unlink(path);
        setenv("A", "master", 1);
        setenv("D", "master", 1);
        setenv("E", "master", 1);
        setenv("NODE_UNIQUE_ID", "1", 1);
        _cleanup_(command_freep) Command *c = make(config);
        assert_string_equal(variable(c, "A"), "file");
        assert_string_equal(variable(c, "B"), "3");
        assert_string_equal(variable(c, "C"), "%{worker}");
        assert_string_equal(variable(c, "D"), "set");
        assert_string_equal(variable(c, "E"), "master");
        assert_null(variable(c, "NODE_UNIQUE_ID"));
}

/* NODE_OPTIONS of whoever has set them stay, and ours comes behind them. */
static void test_retire_on_uncaught(void **state) {
        _cleanup_(config_freep) Config *config = load(
                        "app: { kind = \"node\"; command = [ \"x\" ]; environment = { NODE_OPTIONS = \"--no-warnings\"; }; };\n"
                        "workers: { retire_on_uncaught = true; };\n");
        _cleanup_(command_freep) Command *c = make(config);

        assert_string_equal(variable(c, "NODE_OPTIONS"),
                        "--no-warnings --require=" LIBEXECDIR "/retire-on-uncaught.js");
        setenv("MUSTER_LIBEXECDIR", "/a b\\\"c", 1);
        c = command_free(c);
        c = make(config);
        unsetenv("MUSTER_LIBEXECDIR");
        assert_string_equal(variable(c, "NODE_OPTIONS"),
                        "--no-warnings \"--require=/a b\\\\\\\"c/retire-on-uncaught.js\"");
}

/* What systemd said to the master alone, or an outer muster to its worker, does not reach this worker. */
static void test_private_variables(void **state) {
        static const char *const names[] = { "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID",
                "MAINPID", "MANAGERPID", "NODE_CHANNEL_FD", "NODE_UNIQUE_ID",
                "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_CLUSTER_SCHED_POLICY", "MUSTER_CHANNEL_FD" };
        static const char *const replaced[] = { "MUSTER_APP", "MUSTER_WORKER", "MUSTER_GENERATION",
                "LISTEN_FDS", "LISTEN_FDNAMES", BOARD_ENV_FD, BOARD_ENV_BELL_FD, BOARD_ENV_CELL };
        _cleanup_(config_freep) Config *config = load("");
        _cleanup_(command_freep) Command *c = NULL;

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                setenv(names[i], "outer", 1);
        for (size_t i = 0; i < ELEMENTSOF(replaced); i++)
                setenv(replaced[i], "outer", 1);
        setenv("NOTIFY_SOCKET_OF_MINE", "kept", 1);
        c = make(config);
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                assert_null(variable(c, names[i]));
                unsetenv(names[i]);
        }
        for (size_t i = 0; i < ELEMENTSOF(replaced); i++) {
                assert_non_null(variable(c, replaced[i]));
                assert_string_not_equal(variable(c, replaced[i]), "outer");
                unsetenv(replaced[i]);
        }
        assert_string_equal(variable(c, "NOTIFY_SOCKET_OF_MINE"), "kept");
}

/* Freeing takes nothing and half-built objects. */
static void test_half_built(void **state) {
        assert_null(command_free(NULL));
        assert_null(command_free(calloc(1, sizeof(Command))));
}

/* An agent has the app's variables but those that speak of a worker or a socket, then its own; a name
 * instead of a number, and no sockets. */
static void test_agent(void **state) {
        const CommandIdentity who = { .app = "web",
                .agent = "redis",
                .generation = 7,
                .socket_names = "",
                .mark = "MUSTER_WORKER_ID=1.0.5" };
        _cleanup_(config_freep) Config *config = load(
                        "app: { kind = \"program\"; command = [ \"x\" ];\n"
                        "       environment = { A = \"%{app}\"; B = \"b\"; AGENT_C = \"%{worker}\"; AGENT_D = \"%{fd:http}\"; }; };\n"
                        "agents: ( { name = \"redis\"; command = [ \"redis-server\", \"%{app}\" ]; directory = \"/srv\";\n"
                        "            environment = { B = \"own\"; }; } );");
        _cleanup_(command_freep) Command *c = make_as(config->agents[0], &who);

        assert_string_equal(c->argv[1], "--plain-channel");
        assert_string_equal(c->argv[2], "web-redis");
        assert_string_equal(c->argv[3], "3");
        assert_string_equal(c->argv[4], "/srv");
        assert_string_equal(c->argv[5], "redis-server");
        assert_string_equal(c->argv[6], "web");
        assert_null(c->argv[7]);
        assert_string_equal(variable(c, "A"), "web");
        assert_string_equal(variable(c, "B"), "own");
        assert_null(variable(c, "AGENT_C"));
        assert_null(variable(c, "AGENT_D"));
        assert_string_equal(variable(c, "MUSTER_APP"), "web");
        assert_string_equal(variable(c, "MUSTER_AGENT"), "redis");
        assert_string_equal(variable(c, "MUSTER_GENERATION"), "7");
        assert_null(variable(c, "MUSTER_WORKER"));
        assert_null(variable(c, "LISTEN_FDS"));
        assert_null(variable(c, "LISTEN_FDNAMES"));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_arguments),
                cmocka_unit_test(test_module),
                cmocka_unit_test(test_twin_groups),
                cmocka_unit_test(test_defaults),
                cmocka_unit_test(test_environment),
                cmocka_unit_test(test_program),
                cmocka_unit_test(test_node),
                cmocka_unit_test(test_spare),
                cmocka_unit_test(test_unknown_socket),
                cmocka_unit_test(test_precedence),
                cmocka_unit_test(test_retire_on_uncaught),
                cmocka_unit_test(test_private_variables),
                cmocka_unit_test(test_agent),
                cmocka_unit_test(test_half_built),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

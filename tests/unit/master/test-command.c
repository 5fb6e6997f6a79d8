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
                "--idle-timeout=1min30s",
                "--request-timeout=5s",
                "--send-timeout=250ms",
                "--max-request-head=8K",
                "--max-connections=12",
                "--whoami",
        };
        _cleanup_(config_freep) Config *config = load(
                        "app: { directory = \"/srv/my site\"; whoami = true; };\n"
                        "http: { idle_timeout = \"90s\"; request_timeout = \"5s\"; send_timeout = \"250ms\";\n"
                        "        max_request_head = 8192; max_connections = 12; };\n");
        _cleanup_(command_freep) Command *c = NULL;

        unsetenv("MUSTER_LIBEXECDIR");
        assert_int_equal(command_new(config, &identity, &c), 0);
        assert_string_equal(c->program, LIBEXECDIR "/muster-worker");
        assert_string_equal(c->argv[0], c->program);
        for (size_t i = 1; i < ELEMENTSOF(expected); i++)
                assert_string_equal(c->argv[i], expected[i]);
        assert_null(c->argv[ELEMENTSOF(expected)]);
}

/* What is off by default is not passed. */
static void test_defaults(void **state) {
        _cleanup_(config_freep) Config *config = load("");
        _cleanup_(command_freep) Command *c = NULL;

        setenv("MUSTER_LIBEXECDIR", "/elsewhere", 1);
        assert_int_equal(command_new(config, &identity, &c), 0);
        assert_string_equal(c->program, "/elsewhere/muster-worker");
        for (char **a = c->argv; *a; a++)
                assert_string_not_equal(*a, "--whoami");
        unsetenv("MUSTER_LIBEXECDIR");
}

/* Sockets from 3 up, then the board, then the bell; the worker's own identity. */
static void test_environment(void **state) {
        _cleanup_(config_freep) Config *config = load("");
        _cleanup_(command_freep) Command *c = NULL;

        setenv("TEST_KEPT", "as=it is", 1);
        setenv("TEST_EMPTY", "", 1);
        assert_int_equal(command_new(config, &identity, &c), 0);
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

/* What systemd said to the master alone, or an outer muster to its worker, does not reach this worker. */
static void test_private_variables(void **state) {
        static const char *const names[] = { "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID",
                "MAINPID", "MANAGERPID" };
        static const char *const replaced[] = { "MUSTER_APP", "MUSTER_WORKER", "MUSTER_GENERATION",
                "LISTEN_FDS", "LISTEN_FDNAMES", BOARD_ENV_FD, BOARD_ENV_BELL_FD, BOARD_ENV_CELL };
        _cleanup_(config_freep) Config *config = load("");
        _cleanup_(command_freep) Command *c = NULL;

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                setenv(names[i], "outer", 1);
        for (size_t i = 0; i < ELEMENTSOF(replaced); i++)
                setenv(replaced[i], "outer", 1);
        setenv("NOTIFY_SOCKET_OF_MINE", "kept", 1);
        assert_int_equal(command_new(config, &identity, &c), 0);
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

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_arguments),
                cmocka_unit_test(test_defaults),
                cmocka_unit_test(test_environment),
                cmocka_unit_test(test_private_variables),
                cmocka_unit_test(test_half_built),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

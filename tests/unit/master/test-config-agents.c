/* SPDX-License-Identifier: MIT */
/* The configuration's agents: what is taken, what is refused with which words, and when one has changed. */

#include "config-text.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/clock.h"
#include "master/config-schema.h"

static int setup(void **state) {
        int fd;

        strcpy(file, "/tmp/test-config-agents-XXXXXX");
        fd = mkstemp(file);
        return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state) {
        return unlink(file);
}

static int load(const char *text, Config **ret, char **ret_error) {
        write_file(file, text);
        return config_load(file, ret, ret_error);
}

/* Every key of an agent arrives, and what is not set has its default. */
static void test_values(void **state) {
        _cleanup_(config_freep) Config *c = load_valid(
                        "agents: ( { name = \"redis\"; command = [ \"redis-server\", \"%{app}\" ]; },\n"
                        "          { name = \"a-1_b\"; command = [ \"x\" ]; directory = \"/srv\";\n"
                        "            environment = { A = 1; B = \"%{env:HOME}\"; }; start_timeout = \"5s\"; start_grace = \"2s\";\n"
                        "            wait_ready = true; stop_timeout = \"3s\"; stop_signal = \"SIGINT\"; watchdog = \"0\"; } );\n");
        const Config *a = c->agents[0], *b = c->agents[1];

        assert_int_equal(c->n_agents, 2);
        assert_string_equal(a->agent_name, "redis");
        assert_int_equal(a->app_kind, APP_PROGRAM);
        assert_ptr_equal(a->app, c);
        assert_string_equal(a->app_command[1], "%{app}");
        assert_null(a->app_command[2]);
        assert_string_equal(a->app_directory, "/");
        assert_null(a->app_environment);
        assert_int_equal(a->workers_start_timeout_usec, 30 * USEC_PER_SEC);
        assert_int_equal(a->workers_start_grace_usec, USEC_PER_SEC);
        assert_false(a->workers_wait_ready);
        assert_int_equal(a->workers_stop_timeout_usec, 30 * USEC_PER_SEC);
        assert_int_equal(a->workers_stop_signal, SIGTERM);
        assert_int_equal(a->workers_watchdog_usec, 10 * USEC_PER_SEC);

        assert_string_equal(b->agent_name, "a-1_b");
        assert_string_equal(b->app_directory, "/srv");
        assert_string_equal(b->app_environment[0], "A=1");
        assert_string_equal(b->app_environment[1], "B=%{env:HOME}");
        assert_int_equal(b->workers_start_timeout_usec, 5 * USEC_PER_SEC);
        assert_int_equal(b->workers_start_grace_usec, 2 * USEC_PER_SEC);
        assert_true(b->workers_wait_ready);
        assert_int_equal(b->workers_stop_timeout_usec, 3 * USEC_PER_SEC);
        assert_int_equal(b->workers_stop_signal, SIGINT);
        assert_int_equal(b->workers_watchdog_usec, 0);
}

/* Nobody has to have one. */
static void test_none(void **state) {
        _cleanup_(config_freep) Config *a = load_valid(""), *b = load_valid("agents: ( );");

        assert_int_equal(a->n_agents, 0);
        assert_int_equal(b->n_agents, 0);
}

#define EXPECTED_LIST \
        "expected a list of at most 16 agents: ( { name = \"redis\"; command = [ \"/usr/bin/redis-server\" ]; } )"
#define EXPECTED_NAME "expected 1 to 32 of a-z, 0-9, _ and -, the first a letter, of no other agent"

/* What is no agent is refused, where it stands. */
static void test_refused(void **state) {
        refuse("agents = 5;", ":1: agents: found 5, " EXPECTED_LIST);
        refuse("agents: { name = \"redis\"; };", ":1: agents: found a group { … }, " EXPECTED_LIST);
        refuse("agents: ( \"redis\" );",
                        ":1: agents: found \"redis\", expected { name = \"redis\"; command = [ \"/usr/bin/redis-server\" ]; }");
        refuse("agents: (\n { command = [ \"x\" ]; } );", ":2: agents.name: found nothing, " EXPECTED_NAME);
        refuse("agents: (\n { name = \"x\";\n } );",
                        ":2: agents.command: found nothing, expected the program and its arguments, such as [ \"/usr/bin/node\", \"server.js\" ]");
        refuse("agents: ( { name = \"x\";\n command = [ ]; } );",
                        ":2: agents.command: found nothing, expected the program and its arguments, such as [ \"/usr/bin/node\", \"server.js\" ]");
        refuse("agents: ( { name = \"x\";\n comand = [ \"x\" ]; } );",
                        ":2: agents.comand: found an unknown key, expected one of: name, command, directory, environment, start_timeout, "
                        "start_grace, wait_ready, stop_timeout, stop_signal, watchdog");
        refuse("agents: ( { name = \"x\"; command = [ \"x\" ];\n directory = \"srv\"; } );",
                        ":2: agents.directory: found \"srv\", expected an absolute path");
        refuse("agents: ( { name = \"x\"; command = [ \"x\" ];\n environment = { MUSTER_AGENT = \"y\"; }; } );",
                        ":2: agents.environment: found \"MUSTER_AGENT\", expected a name that is not musterd's own to set or to remove");
        refuse("agents: ( { name = \"x\"; command = [ \"x\" ];\n start_timeout = \"1ms\"; } );",
                        ":2: agents.start_timeout: found \"1ms\", expected a time span from 10ms to 1h, such as \"30s\"");
        refuse("agents: ( { name = \"x\"; command = [ \"x\" ];\n watchdog = \"1ms\"; } );",
                        ":2: agents.watchdog: found 1ms, expected 0 or at least 100ms");
        refuse("agents: ( { name = \"x\"; command = [ \"x\" ];\n stop_signal = \"SIGKILL\"; } );",
                        ":2: agents.stop_signal: found \"SIGKILL\", expected \"SIGTERM\" or \"SIGQUIT\" or \"SIGINT\" or \"SIGHUP\" or "
                        "\"SIGUSR1\" or \"SIGUSR2\" or \"SIGWINCH\"");
        refuse("agents: ( { name = \"x\"; name = \"y\"; } );",
                        ":1: agents: found it a second time, expected each key once");
}

static void refuse_name(const char *name) {
        char text[256], expected[256];

        snprintf(text, sizeof(text), "agents: ( { name = \"%s\"; command = [ \"x\" ]; } );", name);
        snprintf(expected, sizeof(expected), ":1: agents.name: found \"%s\", " EXPECTED_NAME, name);
        refuse(text, expected);
}

/* Names are parts of identifiers, variables and control groups; each is there once. */
static void test_names(void **state) {
        char text[256];

        refuse_name("");
        refuse_name("Redis");
        refuse_name("1redis");
        refuse_name("-redis");
        refuse_name("a.b");
        refuse_name("a/b");
        refuse_name("redis server");
        refuse_name("a23456789012345678901234567890123");
        snprintf(text, sizeof(text), "agents: ( { name = \"%s\"; command = [ \"x\" ]; } );",
                        "a2345678901234567890123456789012");
        config_free(load_valid(text));
        refuse("agents: ( { name = \"x\"; command = [ \"x\" ]; },\n { name = \"x\"; command = [ \"x\" ]; } );",
                        ":2: agents.name: found \"x\", " EXPECTED_NAME);
        refuse("agents: ( { name = 5; command = [ \"x\" ]; } );",
                        ":1: agents.name: found 5, " EXPECTED_NAME);
}

static void write_agents(unsigned n, char text[static 4096]) {
        size_t k = (size_t) sprintf(text, "agents: (");

        for (unsigned i = 0; i < n; i++)
                k += (size_t) sprintf(
                                text + k, "%s{ name = \"x%u\"; command = [ \"x\" ]; }", i ? ", " : "", i);
        sprintf(text + k, ");");
}

static void test_number(void **state) {
        _cleanup_(config_freep) Config *c = NULL;
        char text[4096];

        write_agents(16, text);
        c = load_valid(text);
        assert_int_equal(c->n_agents, 16);
        write_agents(17, text);
        refuse(text, ":1: agents: found a list ( … ), " EXPECTED_LIST);
}

/* An agent is no worker and has no socket. */
static void test_expansions(void **state) {
#define EXPECTED "expected %{app}, %{env:NAME}, %{state_url}, or %% for a percent sign"
        refuse("agents: ( { name = \"x\";\n command = [ \"x\", \"%{worker}\" ]; } );",
                        ":2: agents.command: found \"%{worker}\", " EXPECTED);
        refuse("agents: ( { name = \"x\"; command = [ \"x\" ];\n environment = { A = \"%{fd:http}\"; }; } );",
                        ":2: agents.environment: A: found \"%{fd:http}\", " EXPECTED);
        refuse("agents: ( { name = \"x\";\n command = [ \"x\", \"%{state_url}\" ]; } ); state: { url = \"\"; };",
                        ":2: agents.command: found \"%{state_url}\", expected %{app}, %{env:NAME}, or %% for a percent sign");
}

/* What is printed is the same when it is read. */
static void test_print(void **state) {
        static const char text[] =
                        "agents: ( { name = \"a\"; command = [ \"x\", \"y \\\"z\\\"\" ]; environment = { A = \"b\"; }; wait_ready = true; },\n"
                        "          { name = \"b\"; command = [ \"x\" ]; stop_signal = \"SIGINT\"; watchdog = \"90s\"; } );";
        _cleanup_(config_freep) Config *a = load_valid(text), *b = NULL;
        _cleanup_free_ char *printed = NULL;
        size_t n;
        FILE *f = open_memstream(&printed, &n);

        config_print(a, f);
        assert_int_equal(fclose(f), 0);
        b = load_valid(printed);
        assert_int_equal(b->n_agents, 2);
        for (size_t i = 0; i < 2; i++)
                assert_true(config_agent_is_same(a->agents[i], b->agents[i]));
}

/* Each of its own keys makes another agent of it, and nothing else does. */
static void test_same(void **state) {
        static const char *const others[] = {
                "name = \"y\"; command = [ \"x\", \"y\" ]; environment = { A = \"1\"; };",
                "name = \"x\"; command = [ \"x\" ]; environment = { A = \"1\"; };",
                "name = \"x\"; command = [ \"x\", \"z\" ]; environment = { A = \"1\"; };",
                "name = \"x\"; command = [ \"x\", \"y\" ]; environment = { A = \"2\"; };",
                "name = \"x\"; command = [ \"x\", \"y\" ];",
                "name = \"x\"; command = [ \"x\", \"y\" ]; environment = { A = \"1\"; }; directory = \"/srv\";",
                "name = \"x\"; command = [ \"x\", \"y\" ]; environment = { A = \"1\"; }; wait_ready = true;",
                "name = \"x\"; command = [ \"x\", \"y\" ]; environment = { A = \"1\"; }; stop_timeout = \"1s\";",
                "name = \"x\"; command = [ \"x\", \"y\" ]; environment = { A = \"1\"; }; stop_signal = \"SIGHUP\";",
        };
        _cleanup_(config_freep) Config *a = load_valid(
                        "agents: ( { name = \"x\"; command = [ \"x\", \"y\" ]; environment = { A = \"1\"; }; } );");
        _cleanup_(config_freep) Config *b = load_valid(
                        "app: { environment = { B = \"1\"; }; };\n\n"
                        "agents: ( { environment = { A = 1; }; start_timeout = \"30s\"; command = [ \"x\", \"y\" ]; name = \"x\"; } );");

        assert_true(config_agent_is_same(a->agents[0], b->agents[0]));
        for (size_t i = 0; i < ELEMENTSOF(others); i++) {
                _cleanup_(config_freep) Config *c = NULL;
                char text[512];

                snprintf(text, sizeof(text), "agents: ( { %s } );", others[i]);
                c = load_valid(text);
                assert_false(config_agent_is_same(a->agents[0], c->agents[0]));
        }
}

/* The manual's reference has every key with its default and what it takes. */
static void test_reference(void **state) {
        char *text = NULL, line[512], expected[CONFIG_TEXT_MAX];
        size_t n;
        FILE *f = open_memstream(&text, &n);

        config_schema_print_agent_reference(f);
        assert_int_equal(fclose(f), 0);
        for (const ConfigKey *k = config_agent_table.keys;
                        k < config_agent_table.keys + config_agent_table.n; k++) {
                snprintf(line, sizeof(line), "*%s*\n\t", k->name);
                assert_non_null(strstr(text, line));
                snprintf(line, sizeof(line), "Takes %s. Default: *%s*.", config_key_expected(k, expected),
                                k->fallback);
                assert_non_null(strstr(text, line));
        }
        free(text);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_values),
                cmocka_unit_test(test_none),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_number),
                cmocka_unit_test(test_expansions),
                cmocka_unit_test(test_print),
                cmocka_unit_test(test_same),
                cmocka_unit_test(test_reference),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}

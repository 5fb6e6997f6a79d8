/* SPDX-License-Identifier: MIT */
/* What workers are told of the state: which URL, and never a password that nobody asked for. */

#include "config-text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/strv.h"
#include "master/command.h"
#include "master/state-setting.h"

static char dir[] = "/tmp/test-state-XXXXXX";
static char secret[64];

static int setup(void **state) {
        if (!mkdtemp(dir))
                return -1;
        snprintf(file, sizeof(file), "%s/app.conf", dir);
        snprintf(secret, sizeof(secret), "%s/password", dir);
        return 0;
}

static int teardown(void **state) {
        (void) unlink(file);
        (void) unlink(secret);
        return rmdir(dir);
}

/* Each test begins with what systemd has set, and no more. */
static int forget(void **state) {
        unsetenv("STATE_DIRECTORY");
        unsetenv("CREDENTIALS_DIRECTORY");
        (void) unlink(secret);
        return 0;
}

static int load(const char *text, Config **ret, char **ret_error) {
        int r;

        write_file(file, text);
        r = config_load(file, ret, ret_error);
        return r == 0 ? config_resolve(*ret, "web", ret_error) : r;
}

static void refuse_resolved(const char *text, const char *expected) {
        _cleanup_free_ char *error = NULL;
        _cleanup_(config_freep) Config *c = NULL;

        assert_int_equal(load(text, &c, &error), CONFIG_INVALID);
        assert_error(error, expected);
}

/* Likewise, without being started. */
static void refuse_check(const char *text, const char *expected) {
        _cleanup_free_ char *error = NULL;
        Config *c = NULL;

        write_file(file, text);
        assert_int_equal(config_load(file, &c, &error), CONFIG_INVALID);
        assert_string_equal(error + strlen(file), expected);
}

static void expect_url(const char *text, const char *url) {
        _cleanup_(config_freep) Config *c = load_valid(text);

        if (!url)
                assert_null(c->state);
        else {
                assert_non_null(c->state);
                assert_string_equal(c->state->url, url);
                assert_string_equal(c->state->secret_url, url);
                assert_null(c->state->credential);
        }
}

/* Without a word the store is where systemd has made a place for it, and nowhere else. */
static void test_default(void **state) {
        expect_url("", NULL);
        setenv("STATE_DIRECTORY", "/var/lib/muster/web", 1);
        expect_url("", "lmdb:/var/lib/muster/web/state");
        expect_url("state: { url = \"\"; };", NULL);
        setenv("STATE_DIRECTORY", "/a b%:/second", 1);
        expect_url("", "lmdb:/a%20b%25/state");
        setenv("STATE_DIRECTORY", "", 1);
        expect_url("", NULL);
}

/* What is wanted has to be possible. */
static void test_lmdb(void **state) {
        expect_url("state: { url = \"lmdb:/srv/state\"; };", "lmdb:/srv/state");
        refuse_resolved("\nstate: { url = \"lmdb:\"; };",
                        ":2: state.url: found \"lmdb:\", but there is no $STATE_DIRECTORY, which systemd sets for StateDirectory=; "
                        "expected a path, such as \"lmdb:/var/lib/app/state\"");
        setenv("STATE_DIRECTORY", "/s", 1);
        expect_url("state: { url = \"lmdb:\"; };", "lmdb:/s/state");
}

static void test_expanded(void **state) {
        setenv("HERE", "/run/muster/web", 1);
        expect_url("state: { url = \"redis+unix://%{env:HERE}/%{app}.sock\"; };",
                        "redis+unix:///run/muster/web/web.sock");
        unsetenv("HERE");
        refuse_resolved("state: { url = \"redis+unix://%{env:HERE}/redis.sock\"; };",
                        ":1: state.url: found \"%{env:HERE}\", expected the name of a variable of musterd's own environment");
        refuse_check("state: { url = \"redis://%{worker}\"; };",
                        ":1: state.url: found \"%{worker}\", expected %{app}, %{env:NAME}, or %% for a percent sign");
}

/* A password in the file is refused without being shown, however it got there. */
static void test_password_refused(void **state) {
        static const char expected[] =
                        ":1: state.url: found a password in it, expected it in a file: state.credential";

        refuse_check("state: { url = \"redis://user:hunter2@host/0\"; };", expected);
        refuse_check("state: { url = \"redis://:hunter2@host\"; };", expected);
        refuse_check("state: { url = \"postgresql://user:hunter2@host/name\"; };", expected);
        refuse_check("state: { url = \"postgresql://user@host/name?password=hunter2\"; };", expected);
        refuse_check("state: { url = \"postgresql:///name?host=%2Frun&%70assword=hunter2\"; };", expected);
        refuse_check("state: { url = \"postgresql://host/name?sslpassword=hunter2&port=1\"; };", expected);
        setenv("SECRET", "hunter2", 1);
        refuse_resolved("state: { url = \"redis://:%{env:SECRET}@host\"; };", expected);
        refuse_resolved("state: { url = \"postgresql://host/name?password=%{env:SECRET}\"; };", expected);
        unsetenv("SECRET");
        refuse_check("state: { url = \"mysql://user:hunter2@host\"; };",
                        ":1: state.url: found \"mysql://user@host\", expected a URL that begins with lmdb:, redis://, rediss://, "
                        "redis+unix:// or postgresql://");
        refuse_check("state: { url = \"postgresql://host:x/name?%70assword=hunter2\"; };",
                        ":1: state.url: found \"postgresql://host:x/name?\", expected a port from 1 to 65535");
}

/* What would have no effect is a mistake. */
static void test_useless(void **state) {
        static const char expected[] =
                        ":1: state.credential: found it without a server in state.url, expected "
                        "\"\": nobody asks for a password";

        refuse_check("state: { url = \"\"; credential = \"x\"; };", expected);
        refuse_check("state: { url = \"lmdb:/x\"; credential = \"x\"; };", expected);
        refuse_check("state: { credential = \"x\"; };", expected);
        refuse_check("state: { url = \"\"; required = true; };",
                        ":1: state.required: found true without a state.url, expected false");
        refuse_check("state: { url = \"redis://h\"; credential = \"a/b\"; };",
                        ":1: state.credential: found \"a/b\", expected an absolute path or the name of a file, or \"\" for none");
        refuse_check("state: { url = 5; };",
                        ":1: state.url: found 5, expected a URL, such as \"redis://localhost\", or \"\" for none");
}

/* The password is read from where it is said to be, and is in no URL but the one that asks for it. */
static void test_credential(void **state) {
        _cleanup_(config_freep) Config *a = NULL, *b = NULL;
        char text[256], expected[256];

        write_file(secret, "p@ss/w%rd ä\n");
        setenv("CREDENTIALS_DIRECTORY", dir, 1);
        a = load_valid("state: { url = \"redis://me@host:1/2\"; credential = \"password\"; required = true; };");
        assert_string_equal(a->state->url, "redis://me@host:1/2");
        assert_string_equal(a->state->secret_url, "redis://me:p%40ss%2Fw%25rd%20%C3%A4@host:1/2");
        assert_string_equal(a->state->credential, secret);
        assert_true(a->state->is_required);

        unsetenv("CREDENTIALS_DIRECTORY");
        snprintf(text, sizeof(text), "state: { url = \"redis+unix:///run/x?db=1\"; credential = \"%s\"; };",
                        secret);
        b = load_valid(text);
        assert_string_equal(b->state->secret_url, "redis+unix://:p%40ss%2Fw%25rd%20%C3%A4@/run/x?db=1");

        refuse_resolved("state: { url = \"redis://h\"; credential = \"password\"; };",
                        ":1: state.credential: found \"password\", but there is no $CREDENTIALS_DIRECTORY, which systemd sets for "
                        "LoadCredential=; expected an absolute path");
        write_file(secret, "\n");
        snprintf(expected, sizeof(expected),
                        ":1: state.credential: found in %s no text, expected a password of 1 to 4095 bytes on one line",
                        secret);
        refuse_resolved(text, expected);
        assert_int_equal(unlink(secret), 0);
        snprintf(expected, sizeof(expected),
                        ":1: state.credential: cannot read %s: No such file or directory", secret);
        refuse_resolved(text, expected);
        assert_int_equal(mkdir(secret, 0700), 0);
        snprintf(expected, sizeof(expected), ":1: state.credential: cannot read %s: Is a directory", secret);
        refuse_resolved(text, expected);
        assert_int_equal(rmdir(secret), 0);
}

static Command *make(const Config *c, const Config *agent, const char *name) {
        const CommandIdentity who = { .app = "web",
                .agent = name,
                .slot = name ? 0 : 1,
                .socket_names = "",
                .mark = "MUSTER_WORKER_ID=1.1.1" };
        _cleanup_free_ char *error = NULL;
        Command *command = NULL;

        if (command_new(agent ? agent : c, &who, &command, &error) != 0)
                fail_msg("%s", error);
        return command;
}

/* Who is told what: all of the app the URL and the file, and only who asks the password. */
static void test_told(void **state) {
        _cleanup_(command_freep) Command *worker = NULL, *agent = NULL;
        _cleanup_(config_freep) Config *c = NULL;
        char text[512];

        write_file(secret, "hunter2");
        snprintf(text, sizeof(text),
                        "app: { kind = \"program\"; command = [ \"x\", \"%%{state_url}\" ]; environment = { REDIS_URL = \"%%{state_url}\"; }; };\n"
                        "state: { url = \"redis://h\"; credential = \"%s\"; };\n"
                        "agents: ( { name = \"y\"; command = [ \"y\", \"%%{state_url}\" ]; } );",
                        secret);
        c = load_valid(text);
        worker = make(c, NULL, NULL);
        agent = make(c, c->agents[0], "y");
        assert_string_equal(strv_get_variable(worker->env, "MUSTER_STATE_URL"), "redis://h");
        assert_string_equal(strv_get_variable(worker->env, "MUSTER_STATE_CREDENTIAL"), secret);
        assert_null(strv_get_variable(worker->env, "MUSTER_STATE_REQUIRED"));
        assert_string_equal(strv_get_variable(worker->env, "REDIS_URL"), "redis://:hunter2@h");
        assert_string_equal(worker->argv[strv_length(worker->argv) - 1], "redis://:hunter2@h");
        assert_string_equal(strv_get_variable(agent->env, "MUSTER_STATE_URL"), "redis://h");
        assert_string_equal(strv_get_variable(agent->env, "REDIS_URL"), "redis://:hunter2@h");
        assert_string_equal(agent->argv[strv_length(agent->argv) - 1], "redis://:hunter2@h");
}

/* Those of an outer muster are not this app's. */
static void test_inherited(void **state) {
        _cleanup_(command_freep) Command *worker = NULL;
        _cleanup_(config_freep) Config *c = load_valid("");

        setenv("MUSTER_STATE_URL", "redis://outer", 1);
        setenv("MUSTER_STATE_CREDENTIAL", "/outer", 1);
        setenv("MUSTER_STATE_REQUIRED", "1", 1);
        worker = make(c, NULL, NULL);
        assert_null(strv_get_variable(worker->env, "MUSTER_STATE_URL"));
        assert_null(strv_get_variable(worker->env, "MUSTER_STATE_CREDENTIAL"));
        assert_null(strv_get_variable(worker->env, "MUSTER_STATE_REQUIRED"));
        unsetenv("MUSTER_STATE_URL");
        unsetenv("MUSTER_STATE_CREDENTIAL");
        unsetenv("MUSTER_STATE_REQUIRED");
}

/* What is printed has no password in it. */
static void test_printed(void **state) {
        _cleanup_(config_freep) Config *c = NULL;
        _cleanup_free_ char *printed = NULL;
        char text[256];
        size_t n;
        FILE *f = open_memstream(&printed, &n);

        write_file(secret, "hunter2");
        snprintf(text, sizeof(text),
                        "app: { environment = { A = \"%%{state_url}\"; }; }; state: { url = \"redis://h\"; credential = \"%s\"; };",
                        secret);
        c = load_valid(text);
        config_print(c, f);
        assert_int_equal(fclose(f), 0);
        assert_non_null(strstr(printed, "A = \"%{state_url}\""));
        assert_null(strstr(printed, "hunter2"));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_default, forget),
                cmocka_unit_test_setup(test_lmdb, forget),
                cmocka_unit_test_setup(test_expanded, forget),
                cmocka_unit_test_setup(test_password_refused, forget),
                cmocka_unit_test_setup(test_useless, forget),
                cmocka_unit_test_setup(test_credential, forget),
                cmocka_unit_test_setup(test_told, forget),
                cmocka_unit_test_setup(test_inherited, forget),
                cmocka_unit_test_setup(test_printed, forget),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}

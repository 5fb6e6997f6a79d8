/* SPDX-License-Identifier: MIT */
/* The configuration: what is taken, what is refused, and with which words exactly. */

#include "config-text.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/parse.h"
#include "basic/strv.h"
#include "build-config.h"
#include "master/config-schema.h"

/* libconfig 1.5 loses the string of a file that it cannot include. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
        return "leak:libconfig";
}

static char dir[] = "/tmp/test-config-XXXXXX";

static int setup(void **state) {
        if (!mkdtemp(dir))
                return -1;
        snprintf(file, sizeof(file), "%s/app.conf", dir);
        return chdir(dir);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
        return remove(path);
}

static int teardown(void **state) {
        return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int load(const char *text, Config **ret, char **ret_error) {
        write_file(file, text);
        return config_load(file, ret, ret_error);
}

/* An empty file is a whole configuration: every key has its default. */
static void test_defaults(void **state) {
        _cleanup_(config_freep) Config *c = load_valid("");

        assert_string_equal(c->path, file);
        assert_int_equal(c->app_kind, APP_STATIC);
        assert_string_equal(c->app_directory, PKGDATADIR "/welcome");
        assert_null(c->app_command);
        assert_null(c->app_environment);
        assert_null(c->app_environment_file);
        assert_null(c->app_environment_of_file);
        assert_false(c->app_whoami);
        assert_int_equal(c->workers_balance, BALANCE_AUTO);
        assert_int_equal(c->workers_start_grace_usec, USEC_PER_SEC);
        assert_int_equal(c->workers_stop_signal, SIGTERM);
        assert_int_equal(c->workers_spare, 0);
        assert_false(c->workers_wait_ready || c->workers_retire_on_uncaught || c->workers_proxy_protocol);
        assert_int_equal(c->workers_count, 0);
        assert_int_equal(c->workers_start_timeout_usec, 10 * USEC_PER_SEC);
        assert_int_equal(c->workers_stop_timeout_usec, 30 * USEC_PER_SEC);
        assert_int_equal(c->restart_backoff_min_usec, 100 * USEC_PER_MSEC);
        assert_int_equal(c->restart_backoff_max_usec, 15 * USEC_PER_SEC);
        assert_int_equal(c->http_idle_timeout_usec, 60 * USEC_PER_SEC);
        assert_int_equal(c->http_request_timeout_usec, 10 * USEC_PER_SEC);
        assert_int_equal(c->http_send_timeout_usec, 30 * USEC_PER_SEC);
        assert_int_equal(c->http_max_request_head_bytes, 16384);
        assert_int_equal(c->http_max_connections, 10000);
        assert_int_equal(c->http_max_body_bytes, 1024 * 1024);
        assert_int_equal(c->http_body_timeout_usec, 30 * USEC_PER_SEC);
        assert_int_equal(c->http_answer_timeout_usec, 60 * USEC_PER_SEC);
        assert_null(c->http_access_log);
        assert_int_equal(c->http_access_log_format, 0);
        assert_null(c->app_module);
        assert_int_equal(c->workers_threads, 4);
        assert_true(c->workers_twin);
        assert_string_equal(c->static_index, "index.html");
        assert_false(c->static_listing);
        assert_int_equal(c->static_symlinks, 0);
        assert_true(c->static_precompressed);
        assert_int_equal(c->static_file_cache, 1024);
        assert_int_equal(c->static_file_cache_valid_usec, USEC_PER_SEC);
        assert_null(c->static_cache_control);
        assert_int_equal(c->n_listen, 0);
}

/* Every key is taken, in each form that its type has. */
static void test_values(void **state) {
        _cleanup_(config_freep) Config *c = load_valid(
                        "# a comment\n"
                        "app: { kind = \"static\"; directory = \"/srv/a \\\"b\\\" \\\\\"; whoami = true; };\n"
                        "workers = { count = 256, start_timeout = \"10ms\"; stop_timeout = \"0\"; };\n"
                        "restart: { backoff_min = \"1ms\"; backoff_max = \"1h\"; };\n"
                        "http: { idle_timeout = \"1min 30s\"; request_timeout = \"1h\"; send_timeout = \"5s\";\n"
                        "        max_request_head = \"64K\"; max_connections = 0x10; };\n"
                        "listen: ( { address = \"8080\"; }, { name = \"x\"; address = \"/run/x\"; } );\n");

        assert_string_equal(c->app_directory, "/srv/a \"b\" \\");
        assert_true(c->app_whoami);
        assert_int_equal(c->workers_count, 256);
        assert_int_equal(c->workers_start_timeout_usec, 10000);
        assert_int_equal(c->workers_stop_timeout_usec, 0);
        assert_int_equal(c->restart_backoff_min_usec, 1000);
        assert_int_equal(c->restart_backoff_max_usec, 3600 * USEC_PER_SEC);
        assert_int_equal(c->http_idle_timeout_usec, 90 * USEC_PER_SEC);
        assert_int_equal(c->http_max_request_head_bytes, 65536);
        assert_int_equal(c->http_max_connections, 16);
        assert_int_equal(c->n_listen, 2);
        assert_string_equal(c->listen[0].address, "8080");
        assert_string_equal(c->listen[0].name, "http");
        assert_int_equal(c->listen[0].line, 7);
        assert_string_equal(c->listen[1].address, "/run/x");
        assert_string_equal(c->listen[1].name, "x");

        c = config_free(c);
        c = load_valid("workers: { count = \"auto\"; }; http: { max_request_head = 2000; }; listen: ();");
        assert_int_equal(c->workers_count, 0);
        assert_int_equal(c->http_max_request_head_bytes, 2000);
        assert_int_equal(c->n_listen, 0);
}

static void assert_strings_equal(char *const *a, const char *const *b) {
        for (; *a && *b; a++, b++)
                assert_string_equal(*a, *b);
        assert_ptr_equal(*a, *b);
}

/* A program's keys; a list is as good as an array, and the directory is / unless it is set. */
static void test_program(void **state) {
        const char *const command[] = { "sh", "-c", "exec \"$0\" %% %(h)s", "%{fd:http}", "", NULL };
        const char *const environment[] = { "PORT=8080", "QUIET=true", "X=a b=%{worker}", "EMPTY=", NULL };
        _cleanup_(config_freep) Config *c = load_valid(
                        "app: { command = ( \"sh\", \"-c\", \"exec \\\"$0\\\" %% %(h)s\", \"%{fd:http}\", \"\" ); kind = \"program\";\n"
                        "       environment: { PORT = 8080; QUIET = true; X = \"a b=%{worker}\"; EMPTY = \"\"; }; };\n"
                        "workers: { balance = \"inherit\"; wait_ready = true; start_grace = \"250ms\"; stop_signal = \"SIGWINCH\"; };");

        assert_int_equal(c->app_kind, APP_PROGRAM);
        assert_strings_equal(c->app_command, command);
        assert_strings_equal(c->app_environment, environment);
        assert_string_equal(c->app_directory, "/");
        assert_int_equal(c->workers_balance, BALANCE_INHERIT);
        assert_true(c->workers_wait_ready);
        assert_int_equal(c->workers_start_grace_usec, 250 * USEC_PER_MSEC);
        assert_int_equal(c->workers_stop_signal, SIGWINCH);

        c = config_free(c);
        c = load_valid("app: { kind = \"program\"; command = [ \"x\" ]; directory = \"/srv\"; };");
        assert_string_equal(c->app_directory, "/srv");
}

/* A Node app's keys. */
static void test_node(void **state) {
        _cleanup_(config_freep) Config *c = load_valid(
                        "app: { kind = \"node\"; command = [ \"node\", \"server.js\" ]; };\n"
                        "workers: { balance = \"source\"; spare = 64; retire_on_uncaught = true; proxy_protocol = true; stop_signal = \"SIGUSR2\"; };");

        assert_int_equal(c->app_kind, APP_NODE);
        assert_int_equal(c->workers_balance, BALANCE_SOURCE);
        assert_int_equal(c->workers_spare, 64);
        assert_true(c->workers_retire_on_uncaught);
        assert_true(c->workers_proxy_protocol);
        assert_int_equal(c->workers_stop_signal, SIGUSR2);
}

/* Where the native worker's logs go, and what its files are served with. */
static void test_native(void **state) {
        _cleanup_(config_freep) Config *c = load_valid(
                        "workers: { proxy_protocol = true; };\n"
                        "http: { body_timeout = \"5s\"; access_log = \"/var/log/muster/web.log\"; access_log_format = \"json\"; };\n"
                        "static: { index = \"default.htm\"; listing = true; symlinks = \"none\"; precompressed = false;\n"
                        "          file_cache = 0; file_cache_valid = \"0\"; cache_control = \"public, max-age=60\"; };");

        assert_true(c->workers_proxy_protocol);
        assert_int_equal(c->http_body_timeout_usec, 5 * USEC_PER_SEC);
        assert_string_equal(c->http_access_log, "/var/log/muster/web.log");
        assert_int_equal(c->http_access_log_format, 2);
        assert_string_equal(c->static_index, "default.htm");
        assert_true(c->static_listing);
        assert_int_equal(c->static_symlinks, 1);
        assert_false(c->static_precompressed);
        assert_int_equal(c->static_file_cache, 0);
        assert_int_equal(c->static_file_cache_valid_usec, 0);
        assert_string_equal(c->static_cache_control, "public, max-age=60");

        c = config_free(c);
        c = load_valid("http: { access_log = \"journal\"; }; static: { index = \"\"; };");
        assert_string_equal(c->http_access_log, "journal");
        assert_null(c->static_index);
}

static void write_module(const char *path) {
        write_file(path, "\177ELF and what the worker alone can judge");
}

/* A module's keys; it runs in / unless that is set. */
static void test_module(void **state) {
        char module[80], text[512];

        snprintf(module, sizeof(module), "%s/app.so", dir);
        write_module(module);
        snprintf(text, sizeof(text),
                        "app: { kind = \"module\"; module = \"%s\"; environment = { A = 1; }; };\n"
                        "workers: { threads = 64; proxy_protocol = true; max_requests = 9; balance = \"inherit\"; };\n"
                        "http: { max_body = \"1G\"; answer_timeout = \"0\"; max_connections = 5; };",
                        module);
        _cleanup_(config_freep) Config *c = load_valid(text);
        assert_int_equal(c->app_kind, APP_MODULE);
        assert_string_equal(c->app_module, module);
        assert_string_equal(c->app_directory, "/");
        assert_int_equal(c->workers_threads, 64);
        assert_int_equal(c->http_max_body_bytes, 1024 * 1024 * 1024);
        assert_int_equal(c->http_answer_timeout_usec, 0);
        unlink(module);
}

/* A module that cannot be one is refused before a worker is started for it. */
static void test_bad_module(void **state) {
        char module[80], text[256], expected[256];

        refuse("app: { kind = \"module\"; };",
                        ": app.module: found nothing, expected the path of a shared object, such as \"/usr/local/lib/app.so\"");
        refuse("app: { kind = \"module\"; module = \"app.so\"; };",
                        ":1: app.module: found \"app.so\", expected an absolute path, or \"\" for none");
        refuse("app: { kind = \"module\"; module = \"/\\nREADY=1\"; };",
                        ":1: app.module: cannot open /?READY=1: No such file or directory");
        snprintf(module, sizeof(module), "%s/app.so", dir);
        snprintf(text, sizeof(text), "app: {\n kind = \"module\";\n module = \"%s\"; };", module);
        snprintf(expected, sizeof(expected), ":3: app.module: cannot open %s: No such file or directory",
                        module);
        refuse(text, expected);
        snprintf(expected, sizeof(expected),
                        ":3: app.module: found %s, which is no ELF file, expected a shared object", module);
        write_file(module, "int main;");
        refuse(text, expected);
        write_file(module, "");
        refuse(text, expected);
        unlink(module);
        assert_int_equal(mkdir(module, 0700), 0);
        refuse(text, expected);
        rmdir(module);
        assert_int_equal(mkfifo(module, 0600), 0);
        refuse(text, expected);
        unlink(module);
}

/* Names, values of fields and logs that no worker could use. */
static void test_strings(void **state) {
        static const char name[] = "expected the name of a file without a slash, or \"\" for none",
                          field[] = "expected what a header field may hold (printable ASCII, at most 200 "
                                    "characters), or \"\" for none",
                          log[] = "expected an absolute path or \"journal\", or \"\" for none";
        static const struct {
                const char *key, *value, *found, *expected;
        } cases[] = {
                { "static: { index", "a/b", "a/b", name },
                { "static: { index", "..", "..", name },
                { "static: { cache_control", "a\\nSet-Cookie: x", "a?Set-Cookie: x", field },
                { "static: { cache_control", " a", " a", field },
                { "static: { cache_control", "caf\\xC3\\xA9", "caf\303\251", field },
                { "http: { access_log", "access.log", "access.log", log },
                { "http: { access_log", "Journal", "Journal", log },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char text[256], expected[512];
                size_t n = strcspn(cases[i].key, ":");

                snprintf(text, sizeof(text), "%s = \"%s\"; };", cases[i].key, cases[i].value);
                snprintf(expected, sizeof(expected), ":1: %.*s.%s: found \"%s\", %s", (int) n, cases[i].key,
                                cases[i].key + n + 4, cases[i].found, cases[i].expected);
                refuse(text, expected);
        }
}

#define PROGRAM "app: { kind = \"program\"; command = [ \"x\" ]; };\n"
#define NODE    "app: { kind = \"node\"; command = [ \"x\" ]; };\n"

/* A command is wanted by the kinds that have one, and by no other. */
static void test_command(void **state) {
        refuse("app: { kind = \"program\"; };",
                        ": app.command: found nothing, expected the program and its arguments, such as [ \"/usr/bin/node\", \"server.js\" ]");
        refuse("app: { kind = \"node\";\n command = [ ]; };",
                        ":2: app.command: found nothing, expected the program and its arguments, such as [ \"/usr/bin/node\", \"server.js\" ]");
        refuse("app: { kind = \"node\"; command = [ \"\" ]; };",
                        ":1: app.command: found \"\", expected the program and its arguments, such as [ \"/usr/bin/node\", \"server.js\" ]");
        refuse("app: { command = [ \"x\" ]; };",
                        ":1: app.command: found it with app.kind = \"static\", expected it with \"program\" or \"node\" only: "
                        "the native worker is a program of muster's");
        refuse("app: { command = \"x\"; };",
                        ":1: app.command: found \"x\", expected a list of strings, such as [ \"/usr/bin/node\", \"server.js\" ]");
        refuse("app: { command = ( \"x\",\n 5 ); };",
                        ":2: app.command: found 5, expected a list of strings, such as [ \"/usr/bin/node\", \"server.js\" ]");
}

/* What a kind of workers does not know is refused for it, with the reason; its default is not. */
static void test_kinds(void **state) {
        refuse(PROGRAM "workers: { spare = 1; };",
                        ":2: workers.spare: found it with app.kind = \"program\", expected it with \"node\" only: "
                        "whoever holds the socket accepts as soon as it runs");
        refuse(PROGRAM "workers: { retire_on_uncaught = true; };",
                        ":2: workers.retire_on_uncaught: found it with app.kind = \"program\", expected it with \"node\" only: "
                        "it is done in JavaScript");
        refuse(PROGRAM "workers: { proxy_protocol = true; };",
                        ":2: workers.proxy_protocol: found it with app.kind = \"program\", expected it with \"static\" or "
                        "\"node\" or \"module\" only: a program takes its connections as they come, with the header");
        refuse(PROGRAM "workers: { max_requests = 5; };",
                        ":2: workers.max_requests: found it with app.kind = \"program\", expected it with \"static\" or \"module\" only: "
                        "only a native worker counts its requests");
        refuse(NODE "http: { max_connections = 5; };",
                        ":2: http.max_connections: found it with app.kind = \"node\", expected it with \"static\" or \"module\" only: "
                        "a program looks after its connections itself");
        refuse(NODE "workers: { start_grace = \"5s\"; };",
                        ":2: workers.start_grace: found it with app.kind = \"node\", expected it with \"program\" only: "
                        "a worker of any other kind says when it is ready");
        refuse("workers: { stop_signal = \"SIGINT\"; };",
                        ":1: workers.stop_signal: found it with app.kind = \"static\", expected it with \"program\" or \"node\" only: "
                        "a native worker knows SIGTERM");
        config_free(load_valid(PROGRAM
                        "workers: { spare = 0; max_requests = 0; }; http: { idle_timeout = \"1min\"; };"));
        refuse("workers: { threads = 8; };",
                        ":1: workers.threads: found it with app.kind = \"static\", expected it with \"module\" only: "
                        "nothing else hands work off");
        refuse("app: { module = \"/x.so\"; };",
                        ":1: app.module: found it with app.kind = \"static\", expected it with \"module\" only: "
                        "nothing else loads one");
        refuse(NODE "static: { index = \"\"; };",
                        ":2: static.index: found it with app.kind = \"node\", expected it with \"static\" only: "
                        "only the native worker that serves a folder has files");
        config_free(load_valid(NODE "static: { index = \"index.html\"; cache_control = \"\"; };"));
        config_free(load_valid("workers: { proxy_protocol = true; balance = \"inherit\"; };"));
        config_free(load_valid(PROGRAM "idle_exit = \"5s\";"));
        config_free(load_valid(NODE "idle_exit = \"5s\";"));
}

/* Connections are passed to Node apps alone, and their headers are taken only there. */
static void test_balance(void **state) {
        refuse("workers: { balance = \"round-robin\"; };",
                        ":1: workers.balance: found one that passes connections on, with app.kind = \"static\", expected "
                        "\"auto\" or \"inherit\": only to a worker of kind \"node\" can a connection be passed");
        refuse(PROGRAM "workers: { balance = \"source\"; };",
                        ":2: workers.balance: found one that passes connections on, with app.kind = \"program\", expected "
                        "\"auto\" or \"inherit\": only to a worker of kind \"node\" can a connection be passed");
        refuse("workers: { balance = \"random\"; };",
                        ":1: workers.balance: found \"random\", expected \"auto\" or \"inherit\" or \"round-robin\" or "
                        "\"least-lag\" or \"source\"");
        refuse(NODE "workers: { proxy_protocol = true; balance = \"inherit\"; };",
                        ":2: workers.proxy_protocol: found true with workers.balance = \"inherit\", expected false: the header can be "
                        "taken only from connections that the master passes on");
        config_free(load_valid(NODE "workers: { proxy_protocol = true; balance = \"auto\"; };"));
}

/* Native workers have a twin unless it is said otherwise; the others cannot have one, and need not say so.
 */
static void test_twin(void **state) {
        static const struct {
                const char *text;
                bool twin;
        } cases[] = {
                { "workers: { twin = true; };", true },
                { "workers: { twin = false; };", false },
                { "app: { kind = \"module\"; module = \"/proc/self/exe\"; };", true },
                { "app: { kind = \"module\"; module = \"/proc/self/exe\"; }; workers: { twin = false; };",
                                false },
                { PROGRAM, false },
                { NODE "workers: { twin = false; };", false },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(config_freep) Config *c = load_valid(cases[i].text);

                assert_int_equal(c->workers_twin, cases[i].twin);
        }
        refuse(PROGRAM "workers: { twin = true; };",
                        ":2: workers.twin: found true with app.kind = \"program\", expected false: only from a native worker "
                        "can another process take over");
        refuse(NODE "workers: { twin = true; };",
                        ":2: workers.twin: found true with app.kind = \"node\", expected false: only from a native worker "
                        "can another process take over");
        refuse("workers: { twin = 1; };", ":1: workers.twin: found 1, expected true or false");
}

/* Names that cannot be variables, or are musterd's, are refused; so are values of another type. */
static void test_environment(void **state) {
        refuse("app: { environment: {\n LISTEN_FDS = 3; }; };",
                        ":2: app.environment: found \"LISTEN_FDS\", expected a name that is not musterd's own to set or to remove");
        refuse("app: { environment: { MUSTER_WORKER_ID = 3; }; };",
                        ":1: app.environment: found \"MUSTER_WORKER_ID\", expected a name that is not musterd's own to set or to remove");
        refuse("app: { environment: { NODE_CHANNEL_FD = 3; }; };",
                        ":1: app.environment: found \"NODE_CHANNEL_FD\", expected a name that is not musterd's own to set or to remove");
        refuse("app: { environment: { A-B = 3; }; };",
                        ":1: app.environment: found \"A-B\", expected a name of letters, digits and _ that begins with no digit");
        refuse("app: { environment: { VERSION = 1.10; }; };",
                        ":1: app.environment.VERSION: found 1.1, expected a string, a whole number, true or false");
        refuse("app: { environment: { A = [ \"x\" ]; }; };",
                        ":1: app.environment.A: found an array [ … ], expected a string, a whole number, true or false");
        refuse("app: { environment = \"A=1\"; };",
                        ":1: app.environment: found \"A=1\", expected a group of variables, such as { NODE_ENV = \"production\"; }");
        refuse("app: { environment: { A = 1; A = 2; }; };",
                        ":1: app: found it a second time, expected each key once");
}

/* %{…} that stands for nothing is refused, by name for a value, which may be a secret; descriptors have
 * numbers for programs alone. */
static void test_expansions(void **state) {
        refuse("app: { kind = \"program\"; command = [ \"x\", \"%{Host}i\" ]; };",
                        ":1: app.command: found \"%{Host}\", expected %{fd:NAME}, %{worker}, %{app}, %{env:NAME}, %{state_url}, or %% for a percent sign");
        refuse("app: { kind = \"node\"; command = [ \"x\", \"%{fd:http}\" ]; };",
                        ":1: app.command: found \"%{fd:http}\", expected %{worker}, %{app}, %{env:NAME}, %{state_url}, or %% for a percent sign "
                        "(%{fd:NAME} is for kind \"program\")");
        refuse("app: { environment: { A = 1; SECRET = \"5f%{2dd4\"; }; };",
                        ":1: app.environment: SECRET: found \"%{\", expected a } behind it, or %% for a percent sign");
        refuse("app: { environment: { A = \"%{fd:http}\"; }; };",
                        ":1: app.environment: A: found \"%{fd:http}\", expected %{worker}, %{app}, %{env:NAME}, %{state_url}, or %% for a percent sign "
                        "(%{fd:NAME} is for kind \"program\")");
}

/* The file with variables is read with the configuration: what is wrong there is told like everything else.
 */
static void test_environment_file(void **state) {
        char text[256], other[128], expected[512];
        const char *const variables[] = { "A=1", "B=two words", NULL };

        snprintf(other, sizeof(other), "%s/environment", dir);
        write_file(other, "# a comment\nA=1\nB=\"two words\"\n");
        snprintf(text, sizeof(text), "app: { environment_file = \"%s\"; };", other);
        _cleanup_(config_freep) Config *c = load_valid(text);
        assert_string_equal(c->app_environment_file, other);
        assert_strings_equal(c->app_environment_of_file, variables);

        write_file(other, "A=1\nsecret\n");
        snprintf(expected, sizeof(expected),
                        ":1: app.environment_file: %s:2: found a line without an equals sign, expected NAME=VALUE",
                        other);
        refuse(text, expected);
        unlink(other);
        snprintf(expected, sizeof(expected),
                        ":1: app.environment_file: %s: cannot read: No such file or directory", other);
        refuse(text, expected);
        refuse("app: { environment_file = \"x\"; };",
                        ":1: app.environment_file: found \"x\", expected an absolute path, or \"\" for none");
}

/* What starts a Node app as somebody else's is refused; package.json of the app's directory says what is
 * meant. */
static void test_node_start(void **state) {
        char text[256], package[128];

        snprintf(package, sizeof(package), "%s/package.json", dir);
        write_file(package, "{\n  \"scripts\": {\n    \"start\": \"node server.js\"\n  }\n}\n");
        snprintf(text, sizeof(text),
                        "app: { kind = \"node\"; command = [ \"npm\", \"start\" ]; directory = \"%s\"; };",
                        dir);
        refuse(text, ":1: app.command: found \"npm start\", expected the program itself: npm is a Node process too and takes "
                     "the app's channel for itself; say what \"scripts.start\" in package.json says: node server.js");
        unlink(package);
}

/* A value of the wrong type is refused for every type of key, and what was found is said. */
static void test_wrong_types(void **state) {
        refuse("app: {\n kind = 1;\n};\n",
                        ":2: app.kind: found 1, expected \"static\" or \"program\" or \"node\" or \"module\"");
        refuse("app: { kind = \"Static\"; };",
                        ":1: app.kind: found \"Static\", expected \"static\" or \"program\" or \"node\" or \"module\"");
        refuse("app: { kind = \"\"; };",
                        ":1: app.kind: found \"\", expected \"static\" or \"program\" or \"node\" or \"module\"");
        refuse("app: { directory = true; };", ":1: app.directory: found true, expected an absolute path");
        refuse("app: { directory = \"srv\"; };",
                        ":1: app.directory: found \"srv\", expected an absolute path");
        refuse("app: { directory = \"\"; };", ":1: app.directory: found \"\", expected an absolute path");
        refuse("app: { whoami = 1; };", ":1: app.whoami: found 1, expected true or false");
        refuse("app: { whoami = \"true\"; };", ":1: app.whoami: found \"true\", expected true or false");
        refuse("workers: { count = \"two\"; };",
                        ":1: workers.count: found \"two\", expected \"auto\" or a number from 1 to 256");
        refuse("workers: { count = \"2\"; };",
                        ":1: workers.count: found \"2\", expected \"auto\" or a number from 1 to 256");
        refuse("workers: { count = 1.5; };",
                        ":1: workers.count: found 1.5, expected \"auto\" or a number from 1 to 256");
        refuse("workers: { count = false; };",
                        ":1: workers.count: found false, expected \"auto\" or a number from 1 to 256");
        refuse("workers: { count = [ 1 ]; };",
                        ":1: workers.count: found an array [ … ], expected \"auto\" or a number from 1 to 256");
        refuse("workers: { count = ( ); };",
                        ":1: workers.count: found a list ( … ), expected \"auto\" or a number from 1 to 256");
        refuse("workers: { count: { }; };",
                        ":1: workers.count: found a group { … }, expected \"auto\" or a number from 1 to 256");
        refuse("workers: { start_timeout = 10; };",
                        ":1: workers.start_timeout: found 10, expected a time span from 10ms to 1h, such as \"10s\"");
        refuse("workers: { start_timeout = \"10\"; };",
                        ":1: workers.start_timeout: found \"10\", expected a time span from 10ms to 1h, such as \"10s\"");
        refuse("http: { max_request_head = \"16 K\"; };",
                        ":1: http.max_request_head: found \"16 K\", expected a size from 1K to 64K, such as \"16K\"");
        refuse("http: { max_connections = \"5\"; };",
                        ":1: http.max_connections: found \"5\", expected a number from 1 to 1000000");
        refuse("app = 5;", ":1: app: found 5, expected a group { … }");
        refuse("\n\napp = ( { kind = \"static\"; } );",
                        ":3: app: found a list ( … ), expected a group { … }");
}

#define TEXT_MAX 512

/* A file with this one setting. */
static void setting_text(const ConfigKey *k, const char *value, char text[static TEXT_MAX]) {
        snprintf(text, TEXT_MAX, *k->group ? "%s: { %s = %s; };" : "%s%s = %s;", k->group, k->name, value);
}

/* One below the least and one above the most are refused, for every ranged key; numbers that would fit only
 * after being cut are refused too. */
static void test_ranges(void **state) {
        refuse("workers: { count = 0; };",
                        ":1: workers.count: found 0, expected \"auto\" or a number from 1 to 256");
        refuse("workers: { count = 257; };",
                        ":1: workers.count: found 257, expected \"auto\" or a number from 1 to 256");
        refuse("workers: { count = -1; };",
                        ":1: workers.count: found -1, expected \"auto\" or a number from 1 to 256");
        refuse("workers: { count = 4294967298L; };",
                        ":1: workers.count: found 4294967298, expected \"auto\" or a number from 1 to 256");
        refuse("http: { max_request_head = -1; };",
                        ":1: http.max_request_head: found -1, expected a size from 1K to 64K, such as \"16K\"");
        refuse("http: { idle_timeout = \"99999999999999999999s\"; };",
                        ":1: http.idle_timeout: found \"99999999999999999999s\", expected a time span from 10ms to 1d, "
                        "such as \"60s\"");

        for (const ConfigKey *k = config_keys; k < config_keys + n_config_keys; k++) {
                char text[TEXT_MAX], expected[1024], what[CONFIG_TEXT_MAX], buf[DURATION_STRING_MAX];
                uint64_t values[] = { k->min - 1, k->max + 1 };

                if (k->max == 0)
                        continue;
                for (size_t i = k->min == 0; i < 2; i++) {
                        if (k->type == CONFIG_DURATION)
                                snprintf(what, sizeof(what), "\"%s\"", duration_to_string(values[i], buf));
                        else
                                snprintf(what, sizeof(what), config_key_is_quoted(k) ? "\"%llu\"" : "%llu",
                                                (unsigned long long) values[i]);
                        setting_text(k, what, text);
                        snprintf(expected, sizeof(expected), ":1: %s%s%s: found %s, expected ", k->group,
                                        *k->group ? "." : "", k->name, what);
                        config_key_expected(k, expected + strlen(expected));
                        refuse(text, expected);
                }
        }
}

/* A number of bytes beyond 32 bits would arrive as another one, so those keys take no bare numbers. */
static void test_cut_numbers(void **state) {
        refuse("workers: { max_memory = 5; };",
                        ":1: workers.max_memory: found 5, expected a size, in quotes, from 0 to 64T, such as \"512M\"");
        config_free(load_valid("workers: { max_memory = \"4294967296\"; };"));
}

static void append_kind_that_knows(const ConfigKey *k, char text[static TEXT_MAX]) {
        static const char *const kinds[] = {
                [APP_STATIC] = "",
                [APP_PROGRAM] = "app: { kind = \"program\"; command = [ \"x\" ]; };",
                [APP_NODE] = "app: { kind = \"node\"; command = [ \"x\" ]; };",
                [APP_MODULE] = "app: { kind = \"module\"; module = \"/proc/self/exe\"; };",
        };
        unsigned kind = APP_STATIC;

        while (!config_key_is_known(k, kind))
                kind++;
        strcat(text, kinds[kind]);
}

/* What the table calls least, most and default is itself taken. */
static void test_limits_are_taken(void **state) {
        for (const ConfigKey *k = config_keys; k < config_keys + n_config_keys; k++) {
                uint64_t values[] = { k->min, k->max };
                char text[TEXT_MAX], what[CONFIG_TEXT_MAX], buf[DURATION_STRING_MAX];

                for (size_t i = 0; k->max > 0 && i < 2; i++) {
                        if (k->type == CONFIG_DURATION)
                                snprintf(what, sizeof(what), "\"%s\"", duration_to_string(values[i], buf));
                        else
                                snprintf(what, sizeof(what), config_key_is_quoted(k) ? "\"%llu\"" : "%llu",
                                                (unsigned long long) values[i]);
                        setting_text(k, what, text);
                        if (strcmp(k->group, "app") != 0)
                                append_kind_that_knows(k, text);
                        if (strncmp(k->name, "backoff", 7) == 0)
                                snprintf(text, sizeof(text),
                                                "restart: { backoff_min = \"%s\"; backoff_max = \"%s\"; };",
                                                duration_to_string(k->min, buf),
                                                values[i] == k->min ? "1ms" : "1h");
                        config_free(load_valid(text));
                }
                if (k->type == CONFIG_UINT || k->type == CONFIG_BOOL || k->type == CONFIG_STRINGS ||
                                k->type == CONFIG_VARIABLES || strcmp(k->fallback, CONFIG_EMPTY) == 0)
                        snprintf(what, sizeof(what), "%s", k->fallback);
                else
                        snprintf(what, sizeof(what), "\"%s\"", k->fallback);
                setting_text(k, what, text);
                config_free(load_valid(text));
        }
}

/* An unknown key is refused, and the known ones are named. */
static void test_unknown(void **state) {
        refuse("application: { };",
                        ":1: application: found an unknown name, expected one of: app, workers, restart, http, static, state, idle_exit, listen, agents");
        refuse("kind = \"static\";",
                        ":1: kind: found an unknown name, expected one of: app, workers, restart, http, static, state, idle_exit, listen, agents");
        refuse("app: {\n  directory = \"/srv\";\n  dirctory = \"/srv\";\n};",
                        ":3: app.dirctory: found an unknown key, expected one of: kind, command, module, directory, environment, environment_file, whoami");
        refuse("workers: { directory = \"/srv\"; };",
                        ":1: workers.directory: found an unknown key, expected one of: count, start_timeout, stop_timeout, soak, watchdog, max_memory, max_requests, max_age, jitter, balance, wait_ready, start_grace, stop_signal, spare, retire_on_uncaught, proxy_protocol, twin, threads");
        refuse("listen: ( { address = \"8080\"; port = 1; } );",
                        ":1: listen.port: found an unknown key, expected one of: address, name");
}

/* A key or a group that stands there twice is refused: which of the two would count? */
static void test_duplicates(void **state) {
        refuse("app: {\n kind = \"static\";\n kind = \"static\";\n};",
                        ":3: kind: found it a second time, expected each key once");
        refuse("app: { };\nworkers: { };\napp: { };\n",
                        ":3: app: found it a second time, expected each key once");
        refuse("listen: ( );\nlisten: ( );\n", ":2: listen: found it a second time, expected each key once");
        refuse("listen: (\n {\n address = \"1\";\n address = \"2\";\n } );\n",
                        ":4: address: found it a second time, expected each key once");
}

/* What the parser cannot read is told with its line. */
static void test_syntax(void **state) {
        refuse("app: {\n kind \"static\";\n};",
                        ":2: kind: found a syntax error, expected KEY = VALUE; or GROUP: { … };");
        refuse("app: {\n", ":2: app: found a syntax error, expected KEY = VALUE; or GROUP: { … };");
        refuse("\n\n}\n", ":3: found a syntax error, expected KEY = VALUE; or GROUP: { … };");
        refuse("app: { kind = static; };",
                        ":1: app: found a syntax error, expected KEY = VALUE; or GROUP: { … };");
}

/* The sockets to bind: each needs an address that can be one, names must be what systemd allows in
 * LISTEN_FDNAMES. */
static void test_listen(void **state) {
        refuse("listen = 8080;",
                        ":1: listen: found 8080, expected a list of at most 64 sockets: ( { address = \"8080\"; name = \"http\"; } )");
        refuse("listen: { address = \"8080\"; };",
                        ":1: listen: found a group { … }, expected a list of at most 64 sockets: ( { address = \"8080\"; "
                        "name = \"http\"; } )");
        refuse("listen = ( \"8080\" );",
                        ":1: listen: found \"8080\", expected { address = \"8080\"; name = \"http\"; }");
        refuse("listen = (\n { name = \"x\"; } );",
                        ":2: listen.address: found nothing, expected PORT, IPV4:PORT, [IPV6]:PORT or /PATH");
        refuse("listen = ( { address = 8080; } );",
                        ":1: listen.address: found 8080, expected PORT, IPV4:PORT, [IPV6]:PORT or /PATH");
        refuse("listen = ( { address = \"\"; } );",
                        ":1: listen.address: found \"\", expected PORT, IPV4:PORT, [IPV6]:PORT or /PATH");
        refuse("listen = ( { address = \"localhost:80\"; } );",
                        ":1: listen.address: found \"localhost:80\", expected PORT, IPV4:PORT, [IPV6]:PORT or /PATH");
        refuse("listen = ( { address = \"80\";\n name = \"\"; } );",
                        ":2: listen.name: found \"\", expected 1 to 255 printable ASCII characters, none of them ':'");
        refuse("listen = ( { address = \"80\"; name = 5; } );",
                        ":1: listen.name: found 5, expected 1 to 255 printable ASCII characters, none of them ':'");
        refuse("listen = ( { address = \"80\"; name = \"a:b\"; } );",
                        ":1: listen.name: found \"a:b\", expected 1 to 255 printable ASCII characters, none of them ':'");
        refuse("listen = ( { address = \"80\"; name = \"ä\"; } );",
                        ":1: listen.name: found \"ä\", expected 1 to 255 printable ASCII characters, none of them ':'");
}

/* At most 64 sockets, and names of at most 255 bytes. */
static void test_listen_limits(void **state) {
        char text[8192] = "listen: ( ", name[300];

        for (int i = 0; i < 64; i++)
                strcat(text, i ? ", { address = \"80\"; }" : "{ address = \"80\"; }");
        size_t end = strlen(text);
        strcat(text, " );");
        _cleanup_(config_freep) Config *c = load_valid(text);
        assert_int_equal(c->n_listen, 64);
        strcpy(text + end, ", { address = \"80\"; } );");
        refuse(text, ":1: listen: found a list ( … ), expected a list of at most 64 sockets: ( { address = \"8080\"; "
                     "name = \"http\"; } )");

        memset(name, 'n', sizeof(name));
        name[255] = '\0';
        snprintf(text, sizeof(text), "listen: ( { address = \"80\"; name = \"%s\"; } );", name);
        c = config_free(c);
        c = load_valid(text);
        assert_string_equal(c->listen[0].name, name);
}

/* Settings that contradict each other are refused. */
static void test_relations(void **state) {
        refuse("workers: { watchdog = \"99ms\"; };",
                        ":1: workers.watchdog: found 99ms, expected 0 or at least 100ms");
        config_free(load_valid("workers: { watchdog = \"100ms\"; };"));
        config_free(load_valid("workers: { watchdog = \"0\"; };"));
        refuse("restart: { backoff_min = \"2s\"; backoff_max = \"1s\"; };",
                        ":1: restart.backoff_min: found 2s, expected at most restart.backoff_max (1s)");
        refuse("restart: { backoff_min = \"1min\"; };",
                        ":1: restart.backoff_min: found 1min, expected at most restart.backoff_max (15s)");
}

/* An error is one line, whatever the value holds: it goes into logs and into systemd's status. */
static void test_error_is_one_line(void **state) {
        char text[2048], value[1024];

        refuse("app: { kind = \"a\\nREADY=1\\x1b\"; };",
                        ":1: app.kind: found \"a?READY=1?\", expected \"static\" or \"program\" or \"node\" or \"module\"");

        memset(value, 'x', sizeof(value) - 1);
        value[sizeof(value) - 1] = '\0';
        snprintf(text, sizeof(text), "app: { kind = \"%s\"; };", value);
        write_file(file, text);
        Config *c = NULL;
        _cleanup_free_ char *error = NULL;
        assert_int_equal(config_load(file, &c, &error), CONFIG_INVALID);
        assert_non_null(strstr(error, "…\", expected \"static\" or \"program\" or \"node\" or \"module\""));
        assert_true(strlen(error) < 512);
}

/* Included files are part of the configuration, and an error in one names that file. */
static void test_include(void **state) {
        _cleanup_free_ char *error = NULL;
        char text[256], other[128];

        snprintf(other, sizeof(other), "%s/other.conf", dir);
        write_file(other, "workers: {\n count = 7;\n};\n");
        snprintf(text, sizeof(text), "app: { };\n@include \"%s\"\nhttp: { max_connections = 5; };\n", other);
        _cleanup_(config_freep) Config *c = load_valid(text);
        assert_int_equal(c->workers_count, 7);
        assert_int_equal(c->http_max_connections, 5);

        write_file(other, "workers: {\n count = 700;\n};\n");
        Config *none = NULL;
        assert_int_equal(config_load(file, &none, &error), CONFIG_INVALID);
        char expected[512];
        snprintf(expected, sizeof(expected),
                        "%s:2: workers.count: found 700, expected \"auto\" or a number from 1 to 256",
                        other);
        assert_string_equal(error, expected);

        unlink(other);
        free(error);
        error = NULL;
        assert_int_equal(config_load(file, &none, &error), CONFIG_INVALID);
        snprintf(expected, sizeof(expected), "%s:2: @include: cannot open include file", file);
        assert_string_equal(error, expected);
}

/* What is no readable file is said so. */
static void test_no_file(void **state) {
        _cleanup_free_ char *missing = NULL, *directory = NULL, *below = NULL;
        char path[128], expected[256];
        Config *c = NULL;

        assert_int_equal(config_load("/nonexistent/x.conf", &c, &missing), CONFIG_INVALID);
        assert_string_equal(missing, "/nonexistent/x.conf: cannot open: No such file or directory");
        assert_int_equal(config_load(dir, &c, &directory), CONFIG_INVALID);
        snprintf(expected, sizeof(expected), "%s: found a directory, expected a configuration file", dir);
        assert_string_equal(directory, expected);
        write_file(file, "");
        snprintf(path, sizeof(path), "%s/x", file);
        snprintf(expected, sizeof(expected), "%s: cannot open: Not a directory", path);
        assert_int_equal(config_load(path, &c, &below), CONFIG_INVALID);
        assert_string_equal(below, expected);
        assert_null(c);
}

/* Without the right to read: said, and nothing is started. Root reads all, so it steps down. */
static void test_unreadable(void **state) {
        _cleanup_free_ char *error = NULL;
        char expected[256];
        Config *c = NULL;

        write_file(file, "");
        assert_int_equal(chmod(file, 0), 0);
        uid_t uid = geteuid();
        if (uid == 0) {
                assert_int_equal(chmod(dir, 0755), 0);
                assert_int_equal(seteuid(65534), 0);
        }
        int r = config_load(file, &c, &error);
        assert_int_equal(seteuid(uid), 0);
        assert_int_equal(unlink(file), 0);
        assert_int_equal(r, CONFIG_INVALID);
        snprintf(expected, sizeof(expected), "%s: cannot open: Permission denied", file);
        assert_string_equal(error, expected);
}

static char *print(const Config *c) {
        char *text = NULL;
        size_t n;
        FILE *f = open_memstream(&text, &n);

        config_print(c, f);
        assert_int_equal(fclose(f), 0);
        return text;
}

static void assert_same_strings(char *const *a, char *const *b) {
        assert_int_equal(strv_length(a), strv_length(b));
        for (size_t i = 0; i < strv_length(a); i++)
                assert_string_equal(a[i], b[i]);
}

/* What --print-config prints reads back as the same configuration, and prints the same again. */
static void test_print_round_trip(void **state) {
        static const char *const cases[] = {
                "",
                "app: { directory = \"/q\\\"uote \\\\ back\\nline\\ttab\\x01\"; whoami = true; };"
                "workers: { count = 3; start_timeout = \"1min30s\"; stop_timeout = \"0\"; };"
                "restart: { backoff_min = \"1s\"; backoff_max = \"1s\"; };"
                "http: { max_request_head = 1025; max_connections = 1; idle_timeout = \"1d\"; };"
                "listen: ( { address = \"8080\"; name = \"a b\\\"c\"; }, { address = \"[::1]:1\"; } );",
                PROGRAM "workers: { stop_signal = \"SIGUSR1\"; wait_ready = true; start_grace = \"0\"; };",
                "app: { kind = \"program\"; command = ( \"a \\\"b\\\" \\\\\", \"\", \"\\n\" ); environment = { A = 0x10; B = \"\\\"\"; }; };",
                "app: { kind = \"node\"; command = [ \"x\" ]; }; workers: { balance = \"least-lag\"; spare = 3; };",
                "http: { access_log = \"/a \\\"b\\\"\"; access_log_format = \"combined\"; }; static: { index = \"\"; symlinks = \"none\"; };",
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(config_freep) Config *a = load_valid(cases[i]);
                _cleanup_free_ char *first = print(a);
                _cleanup_(config_freep) Config *b = load_valid(first);
                _cleanup_free_ char *second = print(b);

                assert_string_equal(first, second);
                assert_string_equal(a->app_directory, b->app_directory);
                assert_same_strings(a->app_command, b->app_command);
                assert_same_strings(a->app_environment, b->app_environment);
                assert_int_equal(a->n_listen, b->n_listen);
                for (size_t k = 0; k < a->n_listen; k++) {
                        assert_string_equal(a->listen[k].address, b->listen[k].address);
                        assert_string_equal(a->listen[k].name, b->listen[k].name);
                }
                for (const ConfigKey *k = config_keys; k < config_keys + n_config_keys; k++) {
                        static const size_t sizes[] = { [CONFIG_CHOICE] = sizeof(unsigned),
                                [CONFIG_PATH_OR_NONE] = 0,
                                [CONFIG_LOG] = 0,
                                [CONFIG_FILE_NAME] = 0,
                                [CONFIG_FIELD_VALUE] = 0,
                                [CONFIG_STRINGS] = 0,
                                [CONFIG_VARIABLES] = 0,
                                [CONFIG_BOOL] = sizeof(bool),
                                [CONFIG_UINT] = sizeof(unsigned),
                                [CONFIG_COUNT] = sizeof(unsigned),
                                [CONFIG_DURATION] = sizeof(uint64_t),
                                [CONFIG_SIZE] = sizeof(uint64_t),
                                [_CONFIG_TYPE_MAX] = 0 };
                        assert_memory_equal((char *) a + k->offset, (char *) b + k->offset, sizes[k->type]);
                        assert_non_null(strstr(first, k->name));
                }
        }
}

/* The manual's reference has every key with its default and what it takes. */
static void test_reference(void **state) {
        char *text = NULL, line[512], expected[CONFIG_TEXT_MAX];
        size_t n;
        FILE *f = open_memstream(&text, &n);

        config_schema_print_reference(f);
        assert_int_equal(fclose(f), 0);
        for (const ConfigKey *k = config_keys; k < config_keys + n_config_keys; k++) {
                snprintf(line, sizeof(line), "\n*%s*\n\t", k->name);
                assert_non_null(strstr(text, line));
                snprintf(line, sizeof(line), "Takes %s. Default: *%s*.", config_key_expected(k, expected),
                                k->fallback);
                assert_non_null(strstr(text, line));
        }
        free(text);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_defaults),
                cmocka_unit_test(test_values),
                cmocka_unit_test(test_program),
                cmocka_unit_test(test_node),
                cmocka_unit_test(test_native),
                cmocka_unit_test(test_module),
                cmocka_unit_test(test_bad_module),
                cmocka_unit_test(test_strings),
                cmocka_unit_test(test_command),
                cmocka_unit_test(test_kinds),
                cmocka_unit_test(test_balance),
                cmocka_unit_test(test_twin),
                cmocka_unit_test(test_environment),
                cmocka_unit_test(test_expansions),
                cmocka_unit_test(test_environment_file),
                cmocka_unit_test(test_node_start),
                cmocka_unit_test(test_wrong_types),
                cmocka_unit_test(test_ranges),
                cmocka_unit_test(test_cut_numbers),
                cmocka_unit_test(test_limits_are_taken),
                cmocka_unit_test(test_unknown),
                cmocka_unit_test(test_duplicates),
                cmocka_unit_test(test_syntax),
                cmocka_unit_test(test_listen),
                cmocka_unit_test(test_listen_limits),
                cmocka_unit_test(test_relations),
                cmocka_unit_test(test_error_is_one_line),
                cmocka_unit_test(test_include),
                cmocka_unit_test(test_no_file),
                cmocka_unit_test(test_unreadable),
                cmocka_unit_test(test_print_round_trip),
                cmocka_unit_test(test_reference),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}

/* SPDX-License-Identifier: MIT */
#include "worker/options.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <syslog.h>
#include <unistd.h>

#include <cmocka.h>

#include "basic/clock.h"
#include "basic/log.h"
#include "basic/macro.h"

static Options options;

static int parse(char *first, char *second) {
        char *argv[] = { (char *) "muster-worker", first, second, NULL };

        return options_parse(second ? 3 : 2, argv, &options);
}

/* The defaults are those of the documentation. */
static void test_defaults(void **state) {
        assert_int_equal(parse((char *) "--directory=/srv", NULL), OPTIONS_RUN);
        assert_string_equal(options.directory, "/srv");
        assert_false(options.whoami);
        assert_int_equal(options.max_connections, 10000);
        assert_int_equal(options.max_requests, 0);
        assert_int_equal(options.server.max_request_head, 16384);
        assert_true(options.server.timeout_usec[TIMEOUT_IDLE] == 60 * USEC_PER_SEC);
        assert_true(options.server.timeout_usec[TIMEOUT_REQUEST] == 10 * USEC_PER_SEC);
        assert_true(options.server.timeout_usec[TIMEOUT_SEND] == 30 * USEC_PER_SEC);
        assert_false(options.proxy_protocol);
        assert_true(options.twin);
        assert_null(options.module);
        assert_int_equal(options.threads, 4);
        assert_int_equal(options.max_body_bytes, 1024 * 1024);
        assert_true(options.body_timeout_usec == 30 * USEC_PER_SEC);
        assert_true(options.answer_timeout_usec == 60 * USEC_PER_SEC);
        assert_null(options.access_log);
        assert_int_equal(options.access_log_format, OPTIONS_LOG_COMMON);
        assert_string_equal(options.index, "index.html");
        assert_false(options.listing);
        assert_int_equal(options.symlinks, OPTIONS_SYMLINKS_BENEATH);
        assert_true(options.precompressed);
        assert_int_equal(options.file_cache, 1024);
        assert_true(options.file_cache_valid_usec == USEC_PER_SEC);
        assert_null(options.cache_control);
}

/* What concerns files alone, as the master passes it. */
static void test_files(void **state) {
        char *argv[] = { (char *) "muster-worker", (char *) "--directory=/srv",
                (char *) "--index=", (char *) "--listing", (char *) "--symlinks=none",
                (char *) "--no-precompressed", (char *) "--file-cache=0", (char *) "--file-cache-valid=0",
                (char *) "--cache-control=public, max-age=60", (char *) "--access-log=/log",
                (char *) "--access-log-format=json", (char *) "--proxy-protocol", (char *) "--whoami",
                (char *) "--no-twin", NULL };

        assert_int_equal(options_parse(ELEMENTSOF(argv) - 1, argv, &options), OPTIONS_RUN);
        assert_null(options.index);
        assert_true(options.listing && options.proxy_protocol && options.whoami);
        assert_int_equal(options.symlinks, OPTIONS_SYMLINKS_NONE);
        assert_false(options.precompressed || options.twin);
        assert_int_equal(options.file_cache, 0);
        assert_true(options.file_cache_valid_usec == 0);
        assert_string_equal(options.cache_control, "public, max-age=60");
        assert_string_equal(options.access_log, "/log");
        assert_int_equal(options.access_log_format, OPTIONS_LOG_JSON);
}

/* And what a module gets. */
static void test_module(void **state) {
        char *argv[] = { (char *) "muster-worker", (char *) "--module=/x.so", (char *) "--threads=64",
                (char *) "--max-body=1G", (char *) "--body-timeout=1h", (char *) "--answer-timeout=0",
                (char *) "--access-log=journal", NULL };

        assert_int_equal(options_parse(ELEMENTSOF(argv) - 1, argv, &options), OPTIONS_RUN);
        assert_string_equal(options.module, "/x.so");
        assert_null(options.directory);
        assert_int_equal(options.threads, 64);
        assert_true(options.max_body_bytes == 1 << 30);
        assert_true(options.body_timeout_usec == 3600 * USEC_PER_SEC);
        assert_true(options.answer_timeout_usec == 0);
        assert_string_equal(options.access_log, "journal");
}

/* Values have the forms of the configuration. */
static void test_values(void **state) {
        assert_int_equal(parse((char *) "--directory=/", (char *) "--idle-timeout=1min 30s"), OPTIONS_RUN);
        assert_true(options.server.timeout_usec[TIMEOUT_IDLE] == 90 * USEC_PER_SEC);
        assert_int_equal(parse((char *) "--directory=/", (char *) "--max-request-head=1M"), OPTIONS_RUN);
        assert_int_equal(options.server.max_request_head, 1024 * 1024);
        assert_int_equal(parse((char *) "--directory=/", (char *) "--max-requests=18446744073709551615"),
                        OPTIONS_RUN);
        assert_true(options.max_requests == UINT64_MAX);
        assert_int_equal(parse((char *) "--directory=/", (char *) "--max-requests=0"), OPTIONS_RUN);
        assert_int_equal(options.max_requests, 0);
}

/* Nothing is run with a setting that was not understood. */
static void test_refused(void **state) {
        static const char *const bad[] = { "--idle-timeout=60", "--idle-timeout=2d",
                "--max-request-head=1023", "--max-request-head=-1", "--max-connections=0",
                "--max-connections=1K", "--max-requests=-1", "--max-requests=", "--max-requests=1K",
                "--max-requests=18446744073709551616", "--threads=0", "--threads=65", "--max-body=1025M",
                "--max-body=-1", "--body-timeout=0", "--answer-timeout=5", "--access-log=log",
                "--access-log-format=clf", "--access-log-format=", "--index=a/b", "--index=..",
                "--symlinks=all", "--file-cache=100001", "--file-cache-valid=2d", "--cache-control=a\nb",
                "--listing=yes", "--what", "-x", "file" };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_int_equal(parse((char *) "--directory=/", (char *) bad[i]), -EINVAL);
        assert_int_equal(parse((char *) "--whoami", NULL), -EINVAL);
        assert_int_equal(parse((char *) "--directory=", NULL), -EINVAL);
}

static void set_environment(const char *app, const char *worker, const char *generation, const char *fds) {
        setenv("MUSTER_APP", app, 1);
        setenv("MUSTER_WORKER", worker, 1);
        setenv("MUSTER_GENERATION", generation, 1);
        setenv("LISTEN_FDS", fds, 1);
}

/* Who this is comes from the environment, complete or not at all; the culprit is named. */
static void test_identity(void **state) {
        const char *variable = NULL;
        Identity id;

        set_environment("web", "2", "18446744073709551615", "1");
        assert_int_equal(identity_from_environment(&id, &variable), 0);
        assert_string_equal(id.app, "web");
        assert_int_equal(id.worker, 2);
        assert_true(id.generation == UINT64_MAX);
        assert_int_equal(id.n_listeners, 1);

        assert_int_equal(id.master, getppid());

        /* Told by the master, as the parent may have become another one by now. */
        setenv("MUSTER_MASTER_PID", "4711", 1);
        assert_int_equal(identity_from_environment(&id, &variable), 0);
        assert_int_equal(id.master, 4711);
        setenv("MUSTER_MASTER_PID", "0", 1);
        assert_int_equal(identity_from_environment(&id, &variable), -EINVAL);
        assert_string_equal(variable, "MUSTER_MASTER_PID");
        unsetenv("MUSTER_MASTER_PID");

        set_environment("we\"b", "2", "1", "1");
        assert_int_equal(identity_from_environment(&id, &variable), -EINVAL);
        assert_string_equal(variable, "MUSTER_APP");
        set_environment("web", "2", "1", "0");
        assert_int_equal(identity_from_environment(&id, &variable), -EINVAL);
        assert_string_equal(variable, "LISTEN_FDS");
        unsetenv("MUSTER_WORKER");
        assert_int_equal(identity_from_environment(&id, &variable), -ENXIO);
        assert_string_equal(variable, "MUSTER_WORKER");
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_defaults),
                cmocka_unit_test(test_files),
                cmocka_unit_test(test_module),
                cmocka_unit_test(test_values),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_identity),
        };
        log_set_max_level(LOG_EMERG);
        return cmocka_run_group_tests(tests, NULL, NULL);
}

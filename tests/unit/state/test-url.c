/* SPDX-License-Identifier: MIT */
/* URLs taken apart. */

#include "../unit.h"

#include <string.h>

#include "state/url.h"

typedef struct Row {
        const char *url, *driver, *user, *password, *host;
        unsigned port;
        const char *path, *shown;
} Row;

static void assert_text(const char *found, const char *expected) {
        if (expected)
                assert_string_equal(found ? found : "(none)", expected);
        else
                assert_null(found);
}

static void test_parts(void **state) {
        static const Row rows[] = {
                { "lmdb:", "lmdb", NULL, NULL, NULL, 0, NULL, "lmdb:" },
                { "lmdb:/var/lib/a%20b?sync=none", "lmdb", NULL, NULL, NULL, 0, "/var/lib/a b",
                                "lmdb:/var/lib/a%20b?sync=none" },
                { "redis://", "redis", NULL, NULL, NULL, 0, NULL, "redis://" },
                { "redis://h", "redis", NULL, NULL, "h", 0, NULL, "redis://h" },
                { "redis://u@h:6380/3", "redis", "u", NULL, "h", 6380, "3", "redis://u@h:6380/3" },
                { "redis://u:p%40ss@h/", "redis", "u", "p@ss", "h", 0, NULL, "redis://u@h/" },
                { "redis://:secret@[::1]:1/0", "redis", NULL, "secret", "::1", 1, "0",
                                "redis://@[::1]:1/0" },
                { "rediss://h", "redis", NULL, NULL, "h", 0, NULL, "rediss://h" },
                { "redis+unix:///run/r.sock?db=2", "redis", NULL, NULL, NULL, 0, "/run/r.sock",
                                "redis+unix:///run/r.sock?db=2" },
                { "redis+unix://u:p@/run/r", "redis", "u", "p", NULL, 0, "/run/r", "redis+unix://u@/run/r" },
                { "redis+unix:///run/r@1", "redis", NULL, NULL, NULL, 0, "/run/r@1",
                                "redis+unix:///run/r@1" },
                { "postgresql://u@h/n%40me?a=b%40c", "postgresql", "u", NULL, "h", 0, "n@me",
                                "postgresql://u@h/n%40me?a=b%40c" },
                { "postgresql://u@h/name", "postgresql", "u", NULL, "h", 0, "name",
                                "postgresql://u@h/name" },
                { "postgres:///name?host=%2Frun%2Fpg", "postgresql", NULL, NULL, NULL, 0, "name",
                                "postgres:///name?host=%2Frun%2Fpg" },
                { "postgresql://h/name?password=x&host=b", "postgresql", NULL, NULL, "h", 0, "name",
                                "postgresql://h/name?password=&host=b" },
                { "postgresql://h/name?sslpassword=x&a=b&pass%77ord=y", "postgresql", NULL, NULL, "h", 0,
                                "name", "postgresql://h/name?sslpassword=&a=b&pass" },
                { "postgresql://h/?password=a%40b", "postgresql", NULL, NULL, "h", 0, NULL,
                                "postgresql://h/?password=" },
                { "postgresql://u:p@h:1/?", "postgresql", "u", "p", "h", 1, NULL, "postgresql://u@h:1/?" },
                { "lmdb:/a:b@c/d?password%3Dx=y", "lmdb", NULL, NULL, NULL, 0, "/a:b@c/d",
                                "lmdb:/a:b@c/d?password" },
                { "lmdb:/a:b@c/d", "lmdb", NULL, NULL, NULL, 0, "/a:b@c/d", "lmdb:/a:b@c/d" },
        };

        for (const Row *row = rows; row < rows + ELEMENTSOF(rows); row++) {
                _cleanup_(state_url_freep) StateUrl *u = NULL;
                _cleanup_free_ char *error = NULL;

                assert_int_equal(state_url_parse(row->url, &u, &error), 0);
                assert_text(u->driver, row->driver);
                assert_text(u->user, row->user);
                assert_text(u->password, row->password);
                assert_text(u->host, row->host);
                assert_int_equal(u->port, row->port);
                assert_text(u->path, row->path);
                assert_text(u->text, row->shown);
        }
}

static void test_parameters(void **state) {
        static const char *const known[] = { "sync", "a", NULL };
        _cleanup_(state_url_freep) StateUrl *u = NULL;
        _cleanup_free_ char *error = NULL;

        assert_int_equal(state_url_parse("lmdb:/x?sync=full&a=b%26c&syncs=1", &u, &error), 0);
        assert_string_equal(state_url_get_parameter(u, "sync"), "full");
        assert_string_equal(state_url_get_parameter(u, "a"), "b&c");
        assert_null(state_url_get_parameter(u, "b"));
        assert_string_equal(state_url_find_unknown(u, known), "syncs=1");
}

/* Wherever it is, and however its name is written. */
static void test_has_password(void **state) {
        static const struct {
                const char *url;
                bool has;
        } rows[] = {
                { "lmdb:/password", false },
                { "redis://u@h/0?db=1", false },
                { "postgresql://u@h/password?user=password&passwords=1", false },
                { "redis://u:p@h", true },
                { "redis://u:@h", true },
                { "postgresql://u@h/name?password=x", true },
                { "postgresql://u@h/name?host=b&password=", true },
                { "postgresql://u@h/name?sslpassword=x", true },
                { "postgresql://u@h/name?a=b&%70assword=x&c=d", true },
                { "postgresql://u@h/name?password%3Dx=y", true },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                _cleanup_(state_url_freep) StateUrl *u = NULL;
                _cleanup_free_ char *error = NULL;

                assert_int_equal(state_url_parse(rows[i].url, &u, &error), 0);
                assert_int_equal(state_url_has_password(u), rows[i].has);
        }
}

static void test_refused(void **state) {
        static const char *const rows[][2] = {
                { "", "lmdb:" },
                { "lmdb", "lmdb:" },
                { "mysql://h/d", "lmdb:" },
                { "lmdb:relative", "an absolute path" },
                { "lmdb://host/path", "an absolute path" },
                { "redis://ho st", "no spaces" },
                { "redis://\x7Fhost", "no spaces" },
                { "lmdb:/a\nb", "no spaces" },
                { "lmdb:/a%2", "hexadecimal" },
                { "lmdb:/a%00b", "hexadecimal" },
                { "redis:h", "\"//\"" },
                { "redis://h:0", "port" },
                { "redis://h:65536", "port" },
                { "redis://h:12x", "port" },
                { "redis://h:111111111111", "port" },
                { "redis://[::1", "']'" },
                { "redis://[::1]x", "']'" },
                { "redis+unix://host/run/r", "no host" },
                { "redis+unix://", "path of a socket" },
                { "redis://u:hunter2@h:x", "port" },
                { "redis://u:hun/ter2@h:x", "port" },
                { "redis://:/hunter2@h/0", "%40" },
                { "redis://u:6379/hunter2@h", "%40" },
                { "redis://u:p@ss/hunter2@h", "%40" },
                { "redis://:?a=hunter2@h", "%40" },
                { "redis+unix://:/hunter2@/run/r", "%40" },
                { "postgresql://u:5432/hunter2@h/name", "%40" },
                { "redis:u:hunter2@h", "\"//\"" },
                { "redis:/u:hun/ter2@h", "\"//\"" },
                { "redi://u:hunter2@h", "lmdb:" },
                { "u:hunter2@h", "lmdb:" },
                { "redis://h:x/?password=hunter2", "port" },
                { "redis://h:x/?db=1&password=hunter2&a=b", "port" },
                { "postgresql://h:x/?sslpassword=hunter2", "port" },
                { "postgresql://h:x/?pass%77ord=hunter2", "port" },
                { "postgresql://h:x/?password%3Dhunter2=x", "port" },
                { "postgresql://h:1/?password=hun@ter2", "%40" },
                { "postgresql://h/?password=hunter2%", "hexadecimal" },
                { "postgresql://h/?pass%77ord=hunter2%z", "hexadecimal" },
                { "redis://u:hun?ter2@h", "port" },
                { "redis://u:ter2?password=x@h", "port" },
                { "redis://h?db", "NAME=VALUE" },
                { "redis://h?=1", "NAME=VALUE" },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                _cleanup_(state_url_freep) StateUrl *u = NULL;
                _cleanup_free_ char *error = NULL;

                assert_int_equal(state_url_parse(rows[i][0], &u, &error), STATE_URL_INVALID);
                assert_null(u);
                assert_non_null(strstr(error, "found \""));
                assert_non_null(strstr(error, "expected"));
                assert_non_null(strstr(error, rows[i][1]));
                assert_null(strstr(error, "hunter2"));
                assert_null(strstr(error, "ter2"));
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parts),
                cmocka_unit_test(test_parameters),
                cmocka_unit_test(test_has_password),
                cmocka_unit_test(test_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

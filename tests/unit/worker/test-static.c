/* SPDX-License-Identifier: MIT */
#include "worker/static.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../http/fixture.h"

static char top[] = "/tmp/test-worker-static-XXXXXX";
static const Identity identity = { .app = "web", .worker = 2, .generation = 3 };
static StaticSite site = { .whoami = true, .identity = &identity };
static const char *answer; /* the last one, whole */

static int setup(void **state) {
        assert_non_null(mkdtemp(top));
        site.root.fd = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_true(site.root.fd >= 0);
        assert_int_equal(mkdirat(site.root.fd, "d", 0700), 0);
        close(openat(site.root.fd, "whoami", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        return 0;
}

static int teardown(void **state) {
        unlinkat(site.root.fd, "whoami", 0);
        unlinkat(site.root.fd, "d", AT_REMOVEDIR);
        close(site.root.fd);
        return rmdir(top);
}

static unsigned ask(const char *method, const char *target) {
        static char buf[16384];
        ServerSettings settings;

        server_settings_init(&settings);
        fixture_open(&settings, &(Handler){ .request = static_request, .userdata = &site });
        snprintf(buf, sizeof(buf), "%s %s HTTP/1.1\r\nHost: a\r\n\r\n", method, target);
        say(buf);
        answer = heard();
        fixture_close();
        assert_memory_equal(answer, "HTTP/1.1 ", 9);
        return (unsigned) atoi(answer + 9);
}

/* /whoami is the worker's own, before any file of that name, and only when it is wanted. */
static void test_whoami(void **state) {
        char expected[128];

        assert_int_equal(ask("GET", "/whoami"), 200);
        snprintf(expected, sizeof(expected),
                        "{\"app\":\"web\",\"slot\":2,\"pid\":%d,\"generation\":3,\"requests\":1}\n",
                        getpid());
        assert_string_equal(strstr(answer, "\r\n\r\n") + 4, expected);
        site.whoami = false;
        assert_int_equal(ask("GET", "/whoami"), 200);
        assert_non_null(strstr(answer, "Content-Length: 0\r\n"));
        site.whoami = true;
}

/* RFC 9110, section 15.5.6: what is not GET or HEAD gets a list of what would be. */
static void test_methods(void **state) {
        assert_int_equal(ask("POST", "/whoami"), 405);
        assert_non_null(strstr(answer, "Allow: GET, HEAD\r\n"));
        assert_int_equal(ask("OPTIONS", "*"), 405);
        assert_int_equal(ask("CONNECT", "a:1"), 405);
        assert_int_equal(ask("HEAD", "/whoami"), 200);
        assert_int_equal(ask("get", "/whoami"), 501); /* section 9.1: what is not even known */
}

/* A redirect that does not fit into an answer is refused, never cut. */
static void test_long_redirect(void **state) {
        char target[4096] = "/d?";

        assert_int_equal(ask("GET", "/d?q"), 301);
        assert_non_null(strstr(answer, "Location: /d/?q\r\n"));
        memset(target + 3, 'x', 2048 - 5);
        assert_int_equal(ask("GET", target), 301);
        assert_non_null(strstr(answer, "x\r\n"));
        strcat(target, "x");
        assert_int_equal(ask("GET", target), 414);
        assert_null(strstr(answer, "Location"));
}

/* A folder that has no index is there, but closed. */
static void test_folders(void **state) {
        assert_int_equal(ask("GET", "/d/"), 403);
        assert_int_equal(ask("GET", "/x/"), 404);
        assert_int_equal(ask("GET", "/whoami/"), 404);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_whoami),
                cmocka_unit_test(test_methods),
                cmocka_unit_test(test_long_redirect),
                cmocka_unit_test(test_folders),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}

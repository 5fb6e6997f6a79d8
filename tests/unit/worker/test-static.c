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

static char top[] = "/tmp/test-worker-static-XXXXXX";
static const Identity identity = { .app = "web", .worker = 2, .generation = 3 };
static StaticSite site = { .whoami = true, .identity = &identity };
static Response response;

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
        char buf[16384];
        HttpRequest request;
        ParserScan scan = { 0 };
        HandlerCall call = { .request = &request, .buf = buf, .request_number = 42 };

        snprintf(buf, sizeof(buf), "%s %s HTTP/1.1\r\nHost: a\r\n\r\n", method, target);
        assert_int_equal(parser_parse_head(&scan, buf, strlen(buf), sizeof(buf), &request), PARSER_DONE);
        response_init(&response);
        assert_int_equal(static_answer(&site, &call, &response), 0);
        response_done(&response);
        return response.status;
}

/* /whoami is the worker's own, before any file of that name, and only when it is wanted. */
static void test_whoami(void **state) {
        char expected[128];

        assert_int_equal(ask("GET", "/whoami"), 200);
        snprintf(expected, sizeof(expected),
                        "{\"app\":\"web\",\"slot\":2,\"pid\":%d,\"generation\":3,\"requests\":42}\n",
                        getpid());
        assert_memory_equal(response.text, expected, strlen(expected));
        assert_int_equal(response.size, strlen(expected));
        site.whoami = false;
        assert_int_equal(ask("GET", "/whoami"), 200);
        assert_int_equal(response.size, 0);
        site.whoami = true;
}

/* RFC 9110, section 15.5.6: what is not GET or HEAD gets a list of what would be. */
static void test_methods(void **state) {
        assert_int_equal(ask("POST", "/whoami"), 405);
        assert_string_equal(response.allow, "GET, HEAD");
        assert_int_equal(ask("OPTIONS", "*"), 405);
        assert_int_equal(ask("CONNECT", "a:1"), 405);
        assert_int_equal(ask("HEAD", "/whoami"), 200);
}

/* A redirect that does not fit into an answer is refused, never cut. */
static void test_long_redirect(void **state) {
        char target[4096] = "/d?";

        assert_int_equal(ask("GET", "/d?q"), 301);
        assert_string_equal(response.location, "/d/?q");
        memset(target + 3, 'x', RESPONSE_LOCATION_MAX - 5);
        assert_int_equal(ask("GET", target), 301);
        assert_int_equal(strlen(response.location), RESPONSE_LOCATION_MAX - 1);
        strcat(target, "x");
        assert_int_equal(ask("GET", target), 414);
        assert_string_equal(response.location, "");
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

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
static Options options = {
        .whoami = true,
        .index = "index.html",
        .precompressed = true,
        .file_cache = 16,
        .file_cache_valid_usec = USEC_PER_SEC,
};
static StaticSite site;
static int root;
static const char *answer; /* the last one, whole */

static void write_file(const char *path, const char *text) {
        int fd = openat(root, path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        close(fd);
}

static int setup(void **state) {
        assert_non_null(mkdtemp(top));
        root = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_true(root >= 0);
        assert_int_equal(mkdirat(root, "d", 0700), 0);
        write_file("whoami", "");
        write_file("f.txt", "0123456789");
        write_file("c.js", "plain");
        write_file("c.js.gz", "gz");
        write_file("c.js.br", "b");
        write_file("large.bin", "x");
        int fd = openat(root, "large.bin", O_WRONLY | O_CLOEXEC);
        assert_int_equal(pwrite(fd, "0123456789", 10, 20000), 10);
        close(fd);
        return 0;
}

static int teardown(void **state) {
        char command[64];

        close(root);
        snprintf(command, sizeof(command), "rm -r %s", top);
        return system(command);
}

static int init(void **state) {
        static_site_init(&site, root, &options, &identity);
        return 0;
}

static int done(void **state) {
        static_site_done(&site);
        return 0;
}

static unsigned ask_with(const char *method, const char *target, const char *fields) {
        static char buf[16384];
        ServerSettings settings;

        server_settings_init(&settings);
        fixture_open(&settings, &(Handler){ .request = static_request, .userdata = &site });
        server_set_time(&server, USEC_PER_SEC, INT64_C(1) << 34); /* later than any file */
        snprintf(buf, sizeof(buf), "%s %s HTTP/1.1\r\nHost: a\r\n%s\r\n", method, target, fields);
        say(buf);
        answer = heard();
        fixture_close();
        assert_memory_equal(answer, "HTTP/1.1 ", 9);
        return (unsigned) atoi(answer + 9);
}

static unsigned ask(const char *method, const char *target) {
        return ask_with(method, target, "");
}

static bool has(const char *text) {
        return strstr(answer, text) != NULL;
}

static const char *body(void) {
        return strstr(answer, "\r\n\r\n") + 4;
}

/* /whoami is the worker's own, before any file of that name, and only when it is wanted. */
static void test_whoami(void **state) {
        char expected[128];

        assert_int_equal(ask("GET", "/whoami"), 200);
        snprintf(expected, sizeof(expected),
                        "{\"app\":\"web\",\"slot\":2,\"pid\":%d,\"generation\":3,\"requests\":1}\n",
                        getpid());
        assert_string_equal(strstr(answer, "\r\n\r\n") + 4, expected);
        assert_int_equal(ask("GET", "//%77hoami"), 200);
        assert_string_equal(body(), expected);
        site.whoami = false;
        assert_int_equal(ask("GET", "/whoami"), 200);
        assert_true(has("Content-Length: 0\r\n"));
}

/* RFC 9110, section 15.5.6: what is not GET or HEAD gets a list of what would be. */
static void test_methods(void **state) {
        assert_int_equal(ask("POST", "/whoami"), 405);
        assert_true(has("Allow: GET, HEAD, OPTIONS\r\n"));
        assert_int_equal(ask("OPTIONS", "*"), 204);
        assert_true(has("Allow: GET, HEAD, OPTIONS\r\n") && !has("Content-Length"));
        assert_int_equal(ask("OPTIONS", "/f.txt"), 204);
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

/* The same answer from the file and from the cache, however the target is written. */
static void test_cached(void **state) {
        static const char *const targets[] = { "/f.txt", "/f.txt", "//f.txt", "/./f.txt", "/%66.txt",
                "/d/.//../f.txt", "/f.txt?q" };

        for (size_t i = 0; i < ELEMENTSOF(targets); i++) {
                if (strstr(targets[i], "..")) {
                        assert_int_equal(ask("GET", targets[i]), 400);
                        continue;
                }
                assert_int_equal(ask("GET", targets[i]), 200);
                assert_true(has("Content-Type: text/plain; charset=utf-8\r\n") &&
                                has("Accept-Ranges: bytes\r\n") && has("Content-Length: 10\r\n"));
                assert_string_equal(body(), "0123456789");
        }
        assert_int_equal(site.cache.n_files, 1);
        assert_int_equal(ask("HEAD", "/f.txt"), 200);
        assert_true(has("Content-Length: 10\r\n"));
        assert_string_equal(body(), "");
}

/* RFC 9110, sections 14 and 15.3.7: from memory and from a file. */
static void test_ranges(void **state) {
        assert_int_equal(ask_with("GET", "/f.txt", "Range: bytes=2-4\r\n"), 206);
        assert_true(has("Content-Range: bytes 2-4/10\r\n") && has("Content-Length: 3\r\n") && has("ETag: "));
        assert_string_equal(body(), "234");
        assert_int_equal(ask_with("GET", "/large.bin", "Range: bytes=-10\r\n"), 206);
        assert_true(has("Content-Range: bytes 20000-20009/20010\r\n"));
        assert_string_equal(body(), "0123456789");
        assert_int_equal(ask_with("GET", "/f.txt", "Range: bytes=10-\r\n"), 416);
        assert_true(has("Content-Range: bytes */10\r\n"));
        assert_int_equal(ask_with("GET", "/f.txt", "Range: bytes=1-0\r\n"), 200);
        assert_int_equal(ask_with("HEAD", "/f.txt", "Range: bytes=2-4\r\n"), 200);
        assert_int_equal(ask_with("GET", "/f.txt", "Range: bytes=2-4\r\nRange: bytes=2-4\r\n"), 200);
        assert_int_equal(ask_with("GET", "/f.txt", "Range: bytes=2-4\r\nIf-Range: \"x\"\r\n"), 200);
        assert_int_equal(ask_with("GET", "/whoami", "Range: bytes=2-4\r\n"), 200);
}

static void check_parts(const char *target, uint64_t first) {
        char fields[128], expected[1024], boundary[40];
        const char *p;
        unsigned long long n = first;

        snprintf(fields, sizeof(fields), "Range: bytes=%llu-%llu,%llu-\r\n", n, n + 1, n + 8);
        assert_int_equal(ask_with("GET", target, fields), 206);
        p = strstr(answer, "Content-Type: multipart/byteranges; boundary=");
        assert_non_null(p);
        assert_int_equal(sscanf(strchr(p, '=') + 1, "%39[0-9a-f]\r\n", boundary), 1);
        const char *type = strstr(target, "txt") ? "text/plain; charset=utf-8" : "application/octet-stream";
        int k = snprintf(expected, sizeof(expected),
                        "--%s\r\nContent-Type: %s\r\nContent-Range: bytes %llu-%llu/%llu\r\n\r\n01\r\n"
                        "--%s\r\nContent-Type: %s\r\nContent-Range: bytes %llu-%llu/%llu\r\n\r\n89\r\n"
                        "--%s--\r\n",
                        boundary, type, n, n + 1, n + 10, boundary, type, n + 8, n + 9, n + 10, boundary);
        assert_string_equal(body(), expected);
        snprintf(fields, sizeof(fields), "Content-Length: %d\r\n", k);
        assert_true(has(fields));
}

/* Section 14.6: several parts, of a small file and of a large one. */
static void test_parts(void **state) {
        check_parts("/f.txt", 0);
        check_parts("/large.bin", 20000);
}

/* Section 13: what the client has it is not sent; what it expects must be so. */
static void test_conditions(void **state) {
        assert_int_equal(ask_with("GET", "/f.txt", "If-None-Match: *\r\n"), 304);
        assert_true(has("ETag: ") && has("Last-Modified: ") && !has("Content-") && !has("Accept-Ranges"));
        assert_int_equal(ask_with("GET", "/f.txt", "If-Match: \"x\"\r\n"), 412);
        assert_int_equal(ask_with("GET", "/f.txt", "If-Match: *\r\nRange: bytes=0-0\r\n"), 206);
        assert_int_equal(ask_with("GET", "/none", "If-Match: *\r\n"), 404);
}

/* Section 12.5.3: what lies beside the file, with all that belongs to it. */
static void test_encodings(void **state) {
        assert_int_equal(ask_with("GET", "/c.js", "Accept-Encoding: gzip, br\r\n"), 200);
        assert_true(has("Content-Encoding: br\r\n") && has("Vary: Accept-Encoding\r\n") && has("-br\"\r\n"));
        assert_string_equal(body(), "b");
        assert_int_equal(ask_with("GET", "/c.js", "Accept-Encoding: gzip\r\nRange: bytes=1-\r\n"), 206);
        assert_true(has("Content-Encoding: gzip\r\n") && has("Content-Range: bytes 1-1/2\r\n"));
        assert_string_equal(body(), "z");
        assert_int_equal(ask("GET", "/c.js"), 200);
        assert_true(!has("Content-Encoding") && has("Vary: Accept-Encoding\r\n"));
        assert_int_equal(ask_with("GET", "/c.js", "If-None-Match: *\r\n"), 304);
        assert_true(has("Vary: Accept-Encoding\r\n"));
        assert_int_equal(ask_with("GET", "/c.js", "Accept-Language: gzip\r\n"), 200);
        assert_true(!has("Content-Encoding"));
        assert_int_equal(ask_with("GET", "/c.js", "Accept-Encoding: *;q=0\r\n"), 406);
        assert_true(has("Vary: Accept-Encoding\r\n") && !has("ETag"));
        assert_int_equal(ask_with("GET", "/f.txt", "Accept-Encoding: identity;q=0\r\n"), 406);
        assert_int_equal(ask_with("GET", "/f.txt", "Accept-Encoding: gzip, br\r\n"), 200);
        site.cache.settings.precompressed = false;
        assert_int_equal(ask_with("GET", "/f.txt", "Accept-Encoding: *;q=0\r\n"), 200);
}

/* A page of what is there, only where it is wanted. */
static void test_listing(void **state) {
        site.listing = true;
        assert_int_equal(ask("GET", "/"), 200);
        assert_true(has("<a href=\"f.txt\">") && has("Content-Security-Policy: "));
        assert_int_equal(ask("GET", "/d/"), 200);
        assert_int_equal(ask("GET", "/x/"), 404);
        assert_int_equal(ask("GET", "/f.txt/"), 404);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, init, done)

int main(void) {
        static const struct CMUnitTest tests[] = {
                TEST(test_whoami),
                TEST(test_methods),
                TEST(test_long_redirect),
                TEST(test_folders),
                TEST(test_cached),
                TEST(test_ranges),
                TEST(test_parts),
                TEST(test_conditions),
                TEST(test_encodings),
                TEST(test_listing),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}

/* SPDX-License-Identifier: MIT */
#include "http/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "basic/fd.h"
#include "basic/macro.h"

static char top[] = "/tmp/test-http-file-XXXXXX";
static FileRoot root;

static void make_file(const char *path) {
        int fd = openat(root.fd, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        close(fd);
}

static int setup(void **state) {
        assert_non_null(mkdtemp(top));
        root.fd = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_true(root.fd >= 0);
        assert_int_equal(mkdirat(root.fd, "outer", 0700), 0);
        make_file("secret");

        int inner = openat(root.fd, "outer", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(root.fd);
        root.fd = inner;
        assert_int_equal(mkdirat(inner, "d", 0700), 0);
        make_file("f");
        make_file("d/f");
        assert_int_equal(symlinkat("d/f", inner, "inside"), 0);
        assert_int_equal(symlinkat("d", inner, "dir"), 0);
        assert_int_equal(symlinkat("../secret", inner, "outside"), 0);
        assert_int_equal(symlinkat("..", inner, "up"), 0);
        assert_int_equal(symlinkat("/etc/passwd", inner, "absolute"), 0);
        assert_int_equal(mkfifoat(inner, "fifo", 0600), 0);
        return 0;
}

static int teardown(void **state) {
        char command[PATH_MAX];

        close(root.fd);
        snprintf(command, sizeof(command), "rm -r %s", top);
        return system(command);
}

static int try_open(FileResolver resolver, const char *path) {
        int fd = -EBADF, r;

        root.resolver = resolver;
        r = file_open_beneath(&root, path, &fd);
        assert_true(r < 0 ? fd == -EBADF : fd >= 0);
        safe_close(fd);
        return r;
}

/* Both ways of resolving come to the same result wherever no link is involved. */
static void test_same_result(void **state) {
        static const struct {
                const char *path;
                int r;
        } rows[] = {
                { "", 0 },
                { "f", 0 },
                { "d", 0 },
                { "d/", 0 },
                { "d/f", 0 },
                { "d//f", 0 },
                { "fifo", 0 },
                { "x", -ENOENT },
                { "d/x", -ENOENT },
                { "x/f", -ENOENT },
                { "f/x", -ENOTDIR },
                { "f/", -ENOTDIR },
                { "/f", -EXDEV },
                { "..", -EXDEV },
                { "../secret", -EXDEV },
                { "d/../../secret", -EXDEV },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                int kernel = try_open(FILE_RESOLVER_OPENAT2, rows[i].path);

                if (kernel != -ENOSYS && kernel != -EPERM)
                        assert_int_equal(kernel, rows[i].r);
                assert_int_equal(try_open(FILE_RESOLVER_WALK, rows[i].path), rows[i].r);
        }
}

/* openat2 follows links that stay inside; the walk follows none. Neither leaves the root. */
static void test_links(void **state) {
        static const char *const out[] = { "outside", "up", "up/secret", "absolute" };

        for (size_t i = 0; i < ELEMENTSOF(out); i++) {
                assert_true(try_open(FILE_RESOLVER_OPENAT2, out[i]) < 0);
                assert_true(try_open(FILE_RESOLVER_WALK, out[i]) < 0);
        }
        assert_int_equal(try_open(FILE_RESOLVER_WALK, "inside"), -ELOOP);
        assert_int_equal(try_open(FILE_RESOLVER_WALK, "dir/f"), -ENOTDIR);
        if (try_open(FILE_RESOLVER_OPENAT2, "f") < 0)
                skip();
        assert_int_equal(try_open(FILE_RESOLVER_OPENAT2, "inside"), 0);
        assert_int_equal(try_open(FILE_RESOLVER_OPENAT2, "dir/f"), 0);
}

/* A component longer than any name is an error of the path, not of ours. */
static void test_long_name(void **state) {
        char name[NAME_MAX + 2];

        memset(name, 'x', NAME_MAX + 1);
        name[NAME_MAX + 1] = '\0';
        assert_int_equal(try_open(FILE_RESOLVER_WALK, name), -ENAMETOOLONG);
        name[NAME_MAX] = '\0';
        assert_int_equal(try_open(FILE_RESOLVER_WALK, name), -ENOENT);
}

/* The tag differs when the time or the size does, and zero has one too. */
static void test_etag(void **state) {
        struct stat st = { .st_mtim = { .tv_sec = 1, .tv_nsec = 0x234 }, .st_size = 0xabc };
        char etag[FILE_ETAG_MAX];

        file_etag(&st, etag);
        assert_string_equal(etag, "\"3b9acc34-abc\"");
        file_etag(&(struct stat){ 0 }, etag);
        assert_string_equal(etag, "\"0-0\"");
        st.st_mtim.tv_sec = INT64_MAX;
        st.st_size = INT64_MAX;
        file_etag(&st, etag);
        assert_true(strlen(etag) < FILE_ETAG_MAX);
}

/* Where links are not wanted, none is followed, in the middle or at the end, whichever way it is resolved.
 */
static void test_no_links(void **state) {
        root.links = FILE_LINKS_NONE;
        if (try_open(FILE_RESOLVER_OPENAT2, "f") == 0) {
                assert_int_equal(try_open(FILE_RESOLVER_OPENAT2, "inside"), -ELOOP);
                assert_int_equal(try_open(FILE_RESOLVER_OPENAT2, "dir/f"), -ELOOP);
                assert_int_equal(try_open(FILE_RESOLVER_OPENAT2, "d/f"), 0);
        }
        assert_int_equal(try_open(FILE_RESOLVER_WALK, "inside"), -ELOOP);
        assert_int_equal(try_open(FILE_RESOLVER_WALK, "d/f"), 0);
        root.links = FILE_LINKS_BENEATH;
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_same_result),
                cmocka_unit_test(test_links),
                cmocka_unit_test(test_long_name),
                cmocka_unit_test(test_etag),
                cmocka_unit_test(test_no_links),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}

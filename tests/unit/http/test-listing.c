/* SPDX-License-Identifier: MIT */
#include "http/listing.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char top[] = "/tmp/test-http-listing-XXXXXX";
static FileRoot root;
static char *page;
static size_t size;

static void make_file(const char *path, off_t length) {
        int fd = openat(root.fd, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, length), 0);
        close(fd);
}

static int setup(void **state) {
        assert_non_null(mkdtemp(top));
        root.fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(root.fd >= 0);
        assert_int_equal(mkdirat(root.fd, "z dir", 0700), 0);
        assert_int_equal(mkdirat(root.fd, "empty", 0700), 0);
        make_file("b", 1023);
        make_file("a<script>'\"&.txt", 1024);
        make_file("javascript:alert(1)", 1536);
        make_file("bad\xff\x01name", 0);
        make_file("\xC3\xBC%", 10485760);
        make_file(".hidden", 1);
        assert_int_equal(symlinkat("b", root.fd, "link"), 0);
        assert_int_equal(symlinkat("/etc/passwd", root.fd, "outside"), 0);
        assert_int_equal(symlinkat("nothing", root.fd, "dangling"), 0);
        assert_int_equal(mkfifoat(root.fd, "fifo", 0600), 0);
        return 0;
}

static int teardown(void **state) {
        char command[64];

        close(root.fd);
        snprintf(command, sizeof(command), "rm -r %s", top);
        return system(command);
}

static void list(const char *path) {
        int fd = openat(root.fd, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        assert_true(fd >= 0);
        free(page);
        assert_int_equal(listing_make(&root, path, fd, &page, &size), 0);
        assert_int_equal(strlen(page), size);
        close(fd);
}

static const char *find(const char *text) {
        const char *p = strstr(page, text);

        assert_non_null(p);
        return p;
}

/* Names are escaped for where they stand, and nothing that is no text comes through. */
static void test_escapes(void **state) {
        list("");
        find("<a href=\"a%3Cscript%3E%27%22%26.txt\">a&lt;script&gt;&#39;&quot;&amp;.txt</a>");
        find("<a href=\"javascript%3Aalert%281%29\">");
        find("<a href=\"bad%FF%01name\">bad\xEF\xBF\xBD\xEF\xBF\xBDname</a>");
        find("<a href=\"%C3%BC%25\">\xC3\xBC%</a>");
        find("<title>/</title>");
        assert_null(strstr(page, "<script"));
        assert_null(strstr(page, "../"));
}

/* Directories come first, each in the order of bytes; sizes are read by people. */
static void test_order(void **state) {
        list("");
        assert_true(find("\"empty/\"") < find("\"z%20dir/\""));
        assert_true(find("\"z%20dir/\"") < find("\"a%3C"));
        assert_true(find("\"a%3C") < find("\"b\""));
        find(">b</a><td>1023<td>");
        find("</a><td>1.0 KiB<td>");
        find("</a><td>1.5 KiB<td>");
        find("</a><td>10.0 MiB<td>");
        find(">empty/</a><td><td>");
        find(" GMT\n");
}

/* What would not be served is not listed. */
static void test_left_out(void **state) {
        list("");
        assert_null(strstr(page, "hidden"));
        assert_null(strstr(page, "outside"));
        assert_null(strstr(page, "dangling"));
        assert_null(strstr(page, "fifo"));
        if (root.resolver != FILE_RESOLVER_WALK)
                find("\"link\"");
        root.links = FILE_LINKS_NONE;
        list("");
        root.links = FILE_LINKS_BENEATH;
        assert_null(strstr(page, "link"));
}

/* Below the root there is a way up; an empty folder is a page too. */
static void test_below(void **state) {
        list("z dir");
        find("<title>/z dir</title>");
        find("<a href=\"../\">");
}

/* A folder of any size makes a page of bounded size. */
static void test_large(void **state) {
        char name[64];

        for (int i = 0; i <= LISTING_ENTRIES_MAX; i++) {
                snprintf(name, sizeof(name), "empty/%05d", i);
                make_file(name, 0);
                if (i == LISTING_ENTRIES_MAX - 1) {
                        list("empty");
                        find("\"09999\"");
                        assert_null(strstr(page, "There are more"));
                }
        }
        list("empty");
        find("There are more");
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_escapes),
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_left_out),
                cmocka_unit_test(test_below),
                cmocka_unit_test(test_large),
        };
        int r = cmocka_run_group_tests(tests, setup, teardown);

        free(page);
        return r;
}

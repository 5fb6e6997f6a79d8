/* SPDX-License-Identifier: MIT */
#include "http/file-cache.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "basic/fd.h"
#include "basic/macro.h"

#define VALID USEC_PER_SEC

static char top[] = "/tmp/test-http-file-cache-XXXXXX";
static FileRoot root;
static FileCache cache;
static uint64_t now = 1000 * USEC_PER_SEC;
static const int64_t later = INT64_C(1) << 34; /* no file is from the future */

static void write_file(const char *path, const char *text, size_t size) {
        int fd = openat(root.fd, path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, size), size);
        close(fd);
}

static void write_text(const char *path, const char *text) {
        write_file(path, text, strlen(text));
}

static void write_large(const char *path) {
        write_text(path, "");
        assert_int_equal(truncate(path, FILE_CACHE_CONTENT_MAX + 1), 0);
}

static int setup(void **state) {
        assert_non_null(mkdtemp(top));
        assert_int_equal(chdir(top), 0);
        root.fd = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_true(root.fd >= 0);
        assert_int_equal(mkdir("d", 0700), 0);
        assert_int_equal(mkfifo("fifo", 0600), 0);
        return 0;
}

static int teardown(void **state) {
        char command[64];

        close(root.fd);
        snprintf(command, sizeof(command), "rm -r %s", top);
        return system(command);
}

static int init(void **state) {
        file_cache_init(&cache, &root,
                        &(FileCacheSettings){
                                        .max_files = 8,
                                        .valid_usec = VALID,
                                        .index = "index.html",
                                        .precompressed = true,
                        });
        return 0;
}

static int done(void **state) {
        file_cache_done(&cache);
        assert_int_equal(cache.n_files, 0);
        assert_int_equal(cache.memory, 0);
        return 0;
}

static FileEntry *get(const char *key) {
        FileEntry *e = NULL;

        assert_int_equal(file_cache_get(&cache, key, strlen(key), now, later, &e), 0);
        return e;
}

static int try(const char *key) {
        FileEntry *e;

        return file_cache_get(&cache, key, strlen(key), now, later, &e);
}

static FileEntry *find(const char *key) {
        return file_cache_find(&cache, key, strlen(key), now);
}

static const FileVariant *plain(const FileEntry *e) {
        return e->variants[ENCODING_IDENTITY];
}

static int count_fds(void) {
        int n = 0;

        for (int fd = 0; fd < 256; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

static void expect_text(const char *key, const char *text) {
        const FileVariant *v = plain(get(key));

        assert_int_equal(v->size, strlen(text));
        assert_memory_equal(v->content, text, v->size);
}

/* A small file is in memory and keeps no descriptor; a large one is open. */
static void test_content(void **state) {
        int before = count_fds();

        write_text("small", "content");
        write_text("empty", "");
        write_large("large");
        expect_text("small", "content");
        expect_text("empty", "");
        assert_int_equal(count_fds(), before);
        assert_int_equal(plain(get("small"))->fd, -EBADF);
        assert_true(plain(get("large"))->fd >= 0);
        assert_null(plain(get("large"))->content);
        assert_int_equal(cache.n_files, 3);
        assert_int_equal(cache.memory, 7);
}

/* The fields are those of the file, with what 304 has as well at the end. */
static void test_fields(void **state) {
        const FileVariant *v;
        char fields[512];

        cache.settings.cache_control = "max-age=60";
        write_text("a.css", "a");
        v = plain(get("a.css"));
        snprintf(fields, sizeof(fields), "%.*s", (int) v->fields_size, v->fields);
        assert_memory_equal(fields, "Content-Type: text/css; charset=utf-8\r\nAccept-Ranges: bytes\r\nLast-",
                        66);
        assert_non_null(strstr(fields, "\r\nETag: \""));
        assert_non_null(strstr(fields, "\r\nCache-Control: max-age=60\r\n"));
        assert_null(strstr(fields, "Vary"));
        assert_memory_equal(v->fields + v->kept_at, "Last-Modified: ", 15);
        assert_memory_equal(v->fields + v->type_size, "Accept-Ranges: ", 15);
}

/* The index stands for its folder; a folder without the slash is an outcome of its own. */
static void test_folders(void **state) {
        write_text("d/index.html", "index");
        write_text("index.html", "top");
        expect_text("d/", "index");
        expect_text("", "top");
        assert_int_equal(try("d"), FILE_CACHE_DIRECTORY);
        assert_int_equal(try("x/"), -ENOENT);
        assert_int_equal(try("index.html/"), -ENOTDIR);
        assert_int_equal(try("fifo"), -ENODEV);
        unlink("index.html");
}

/* What is not there is not remembered. */
static void test_nothing(void **state) {
        assert_int_equal(try("new"), -ENOENT);
        assert_int_equal(cache.n_files, 0);
        write_text("new", "new");
        expect_text("new", "new");
}

/* While it is valid nothing is looked at; after that an unchanged file keeps what it has, a changed one, a
 * replaced one and one that is gone are seen. */
static void test_validity(void **state) {
        const FileVariant *first;

        write_text("f", "one");
        first = plain(get("f"));
        write_text("f", "three");
        assert_ptr_equal(plain(get("f")), first);
        now += VALID - 1;
        assert_ptr_equal(plain(find("f")), first);
        now++;
        assert_null(find("f"));
        expect_text("f", "three");

        first = plain(get("f"));
        now += VALID;
        assert_ptr_equal(plain(get("f")), first);
        write_text("other", "THREE");
        assert_int_equal(rename("other", "f"), 0);
        now += VALID;
        expect_text("f", "THREE");
        unlink("f");
        now += VALID;
        assert_int_equal(try("f"), -ENOENT);
        assert_int_equal(cache.n_files, 0);
}

/* What lies beside a file is part of its entry, each with its own tag and with Vary; it comes and goes. */
static void test_variants(void **state) {
        FileEntry *e;

        write_text("v.js", "plain");
        assert_int_equal(get("v.js")->available, 1u << ENCODING_IDENTITY);
        write_text("v.js.br", "br");
        write_text("v.js.gz", "gzip");
        assert_int_equal(mkdir("v.js.zst", 0700), 0);
        now += VALID;
        e = get("v.js");
        assert_int_equal(e->available, 1u << ENCODING_IDENTITY | 1u << ENCODING_BR | 1u << ENCODING_GZIP);
        assert_non_null(strstr(e->variants[ENCODING_BR]->etag, "-br\""));
        assert_non_null(strstr(e->variants[ENCODING_BR]->fields, "Content-Encoding: br\r\n"));
        assert_non_null(strstr(e->variants[ENCODING_BR]->fields, "Content-Type: text/javascript"));
        for (int i = 0; i < _ENCODING_MAX; i++)
                if (e->variants[i])
                        assert_non_null(strstr(e->variants[i]->fields, "Vary: Accept-Encoding\r\n"));
        assert_int_equal(cache.n_files, 3);
        unlink("v.js.br");
        unlink("v.js.gz");
        now += VALID;
        assert_null(strstr(plain(get("v.js"))->fields, "Vary"));
        assert_int_equal(cache.n_files, 1);
}

/* The number of files is bounded; what has not been used for the longest time goes, and what somebody still
 * sends from stays open for him. */
static void test_bound(void **state) {
        char name[16];
        FileVariant *held;
        int before = count_fds();

        for (int i = 0; i < 20; i++) {
                snprintf(name, sizeof(name), "large%d", i);
                write_large(name);
        }
        held = file_variant_ref(get("large0")->variants[ENCODING_IDENTITY]);
        (void) get("large1");
        for (int i = 2; i < 20; i++) {
                snprintf(name, sizeof(name), "large%d", i);
                (void) get(name);
                (void) find("large1");
        }
        assert_int_equal(cache.n_files, 8);
        assert_null(find("large0"));
        assert_non_null(find("large1"));
        assert_null(find("large12"));
        assert_non_null(find("large13"));
        assert_true(file_variant_is_current(held, now));
        assert_int_equal(count_fds(), before + 9);
        held->hold.release(&held->hold);
        assert_int_equal(count_fds(), before + 8);
}

/* So is the memory that their contents take. */
static void test_memory_bound(void **state) {
        static char text[FILE_CACHE_CONTENT_MAX];
        char name[16];

        cache.settings.max_files = 10000;
        for (int i = 0; i < FILE_CACHE_MEMORY_MAX / FILE_CACHE_CONTENT_MAX + 10; i++) {
                snprintf(name, sizeof(name), "m%d", i);
                write_file(name, text, sizeof(text));
                (void) get(name);
                unlink(name);
        }
        assert_int_equal(cache.memory, FILE_CACHE_MEMORY_MAX);
        assert_null(find("m9"));
        assert_non_null(find("m10"));
}

/* What nobody asks for leaves when something else is asked for, even if that is not there. */
static void test_sweep(void **state) {
        int before = count_fds();

        write_large("gone");
        write_large("used");
        (void) get("gone");
        (void) get("used");
        unlink("gone");
        now += FILE_CACHE_UNUSED_USEC;
        (void) get("used");
        assert_int_equal(count_fds(), before + 2);
        now++;
        (void) find("nothing");
        assert_int_equal(count_fds(), before + 1);
        assert_int_equal(cache.n_files, 1);
}

/* Without a cache an entry is its caller's alone; without a time of validity it is compared at each use. */
static void test_off(void **state) {
        FileEntry *e;
        int before = count_fds();

        write_large("l");
        cache.settings.max_files = 0;
        e = get("l");
        assert_false(e->in_table);
        assert_int_equal(count_fds(), before + 1);
        file_cache_release(&cache, e);
        assert_int_equal(count_fds(), before);

        cache.settings.max_files = 8;
        cache.settings.valid_usec = 0;
        write_text("s", "one");
        expect_text("s", "one");
        assert_null(find("s"));
        write_text("s", "two!");
        expect_text("s", "two!");
}

/* A file from the future is compared at each use, and so is one that has just been changed. */
static void test_future(void **state) {
        FileEntry *e;

        write_text("s", "one");
        assert_int_equal(file_cache_get(&cache, "s", 1, now, 1000, &e), 0);
        assert_non_null(strstr(plain(e)->fields, "Last-Modified: Thu, 01 Jan 1970 00:16:40 GMT\r\n"));
        assert_null(find("s"));

        int64_t changed = plain(e)->stamp.changed.tv_sec;
        assert_int_equal(file_cache_get(&cache, "s", 1, now, changed + 1, &e), 0);
        assert_null(strstr(plain(e)->fields, "1970"));
        assert_null(find("s"));
        assert_int_equal(file_cache_get(&cache, "s", 1, now, changed + 2, &e), 0);
        assert_ptr_equal(find("s"), e);
}

/* A change in place is seen on the descriptor. */
static void test_current(void **state) {
        FileVariant *v;

        write_large("c");
        v = get("c")->variants[ENCODING_IDENTITY];
        assert_true(file_variant_is_current(v, now));
        assert_int_equal(truncate("c", 5), 0);
        assert_true(file_variant_is_current(v, now));
        assert_false(file_variant_is_current(v, now + 1));
}

/* When there is no descriptor left, the cache is where they are. */
static void test_lack(void **state) {
        struct rlimit limit, low;
        char name[16];

        for (int i = 0; i < 8; i++) {
                snprintf(name, sizeof(name), "large%d", i);
                (void) get(name);
        }
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        low = (struct rlimit){ (rlim_t) count_fds(), limit.rlim_max };
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
        int r = try("large9");
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        assert_int_equal(r, 0);
        assert_non_null(find("large9"));
}

/* With one descriptor a file is opened alone, without what lies beside it: for now. */
static unsigned available_with_one_descriptor(const char *key) {
        int lowest = fcntl(root.fd, F_DUPFD_CLOEXEC, 0);
        struct rlimit limit, low;
        FileEntry *e;

        close(lowest);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        low = (struct rlimit){ (rlim_t) lowest + 1, limit.rlim_max };
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
        int r = file_cache_get(&cache, key, strlen(key), now, later, &e);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        assert_int_equal(r, 0);
        return e->available;
}

static void test_lack_of_the_second(void **state) {
        const unsigned both = 1u << ENCODING_IDENTITY | 1u << ENCODING_GZIP;

        write_text("both", "text");
        write_text("both.gz", "coded");
        assert_int_equal(available_with_one_descriptor("both"), 1u << ENCODING_IDENTITY);
        assert_null(find("both"));
        assert_int_equal(get("both")->available, both);

        write_text("too", "text");
        write_text("too.gz", "coded");
        (void) get("large0");
        assert_int_equal(available_with_one_descriptor("too"), both);
        assert_non_null(find("too"));
}

/* Keys are compared whole, whatever they are. */
static void test_keys(void **state) {
        char key[300], path[310];

        for (int i = 1; i < 40; i++) {
                memset(key, 'k', (size_t) i);
                key[i] = '\0';
                snprintf(path, sizeof(path), "%s", key);
                write_text(path, key);
        }
        cache.settings.max_files = 100;
        for (int round = 0; round < 2; round++)
                for (int i = 1; i < 40; i++) {
                        memset(key, 'k', (size_t) i);
                        key[i] = '\0';
                        expect_text(key, key);
                }
        assert_int_equal(cache.n_files, 39);
        memset(key, 'x', sizeof(key) - 1);
        key[sizeof(key) - 1] = '\0';
        assert_int_equal(try(key), -ENAMETOOLONG);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, init, done)

int main(void) {
        static const struct CMUnitTest tests[] = {
                TEST(test_content),
                TEST(test_fields),
                TEST(test_folders),
                TEST(test_nothing),
                TEST(test_validity),
                TEST(test_variants),
                TEST(test_bound),
                TEST(test_memory_bound),
                TEST(test_sweep),
                TEST(test_off),
                TEST(test_future),
                TEST(test_current),
                TEST(test_lack),
                TEST(test_lack_of_the_second),
                TEST(test_keys),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}

/* SPDX-License-Identifier: MIT */
/* Lines out of a stream: the same ones however the stream is cut into reads. */

#include "../unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "ipc/line-buffer.h"

/* What a buffer that holds nothing long may keep. */
#define SMALL (64 * 1024)

/* One read of at most @n bytes. Returns what it took. */
static size_t feed(LineBuffer *b, const char *data, size_t n) {
        size_t size = 0;
        char *room = NULL;

        assert_int_equal(line_buffer_reserve(b, &room, &size), 0);
        assert_non_null(room);
        assert_true(size > 0);
        n = MIN(n, size);
        memcpy(room, data, n);
        line_buffer_add(b, n);
        return n;
}

static void feed_all(LineBuffer *b, const char *data, size_t n) {
        while (n > 0) {
                size_t k = feed(b, data, n);

                data += k;
                n -= k;
        }
}

static void assert_next(LineBuffer *b, const char *expected, uint64_t expected_offset) {
        uint64_t offset;
        char *line;
        size_t n;

        assert_true(line_buffer_next(b, &line, &n, &offset));
        assert_string_equal(line, expected);
        assert_int_equal(n, strlen(expected));
        assert_int_equal(offset, expected_offset);
}

static void assert_no_next(LineBuffer *b) {
        uint64_t offset;
        char *line;
        size_t n;

        assert_false(line_buffer_next(b, &line, &n, &offset));
}

static void test_lines(void **state) {
        LineBuffer b = { .max_line = 100 };

        assert_false(line_buffer_partial(&b));
        assert_int_equal(line_buffer_received(&b), 0);
        assert_no_next(&b);
        feed(&b, "one\n\ntwo\nthr", 12);
        assert_next(&b, "one", 0);
        assert_next(&b, "", 4);
        assert_true(line_buffer_partial(&b));
        assert_next(&b, "two", 5);
        assert_no_next(&b);
        assert_true(line_buffer_partial(&b));
        assert_int_equal(line_buffer_received(&b), 12);
        feed(&b, "ee\n", 3);
        assert_next(&b, "three", 9);
        assert_no_next(&b);
        assert_false(line_buffer_partial(&b));
        assert_int_equal(line_buffer_received(&b), 15);
        line_buffer_done(&b);
}

/* A NUL is a byte like another. */
static void test_nul(void **state) {
        LineBuffer b = { .max_line = 100 };
        uint64_t offset;
        char *line;
        size_t n;

        feed(&b, "a\0b\n\0\n", 6);
        assert_true(line_buffer_next(&b, &line, &n, &offset));
        assert_int_equal(n, 3);
        assert_memory_equal(line, "a\0b", 4);
        assert_true(line_buffer_next(&b, &line, &n, &offset));
        assert_int_equal(n, 1);
        assert_int_equal(offset, 4);
        line_buffer_done(&b);
}

static void check_last_begin(LineBuffer *b, const char *data, bool expected, uint64_t expected_offset) {
        uint64_t offset = 12345;

        assert_int_equal(feed(b, data, strlen(data)), strlen(data));
        assert_int_equal(line_buffer_last_begin(b, strlen(data), &offset), expected);
        if (expected)
                assert_int_equal(offset, expected_offset);
        for (char *line; line_buffer_next(b, &line, &(size_t){ 0 }, &offset);)
                ;
}

/* A line begins with its first byte: one of which nothing has come yet has not begun. */
static void test_last_begin(void **state) {
        LineBuffer b = { .max_line = 100 };

        check_last_begin(&b, "a", true, 0);        /* 0: "a" */
        check_last_begin(&b, "b", false, 0);       /* goes on */
        check_last_begin(&b, "\n", false, 0);      /* ends; the next one is to come */
        check_last_begin(&b, "c\n", true, 3);      /* 3: whole at once */
        check_last_begin(&b, "\n", true, 5);       /* 5: an empty one */
        check_last_begin(&b, "d\ne\nf", true, 10); /* 6, 8, 10: the last one counts */
        check_last_begin(&b, "g\nh\n", true, 13);  /* of 10 on; 13 */
        check_last_begin(&b, "i\n\n", true, 17);   /* 15; 17 */
        check_last_begin(&b, "j", true, 18);
        check_last_begin(&b, "k\nl", true, 21);
        line_buffer_done(&b);
}

/*
 * Random histories
 */

typedef struct History {
        unsigned seed;
        char *stream;
        size_t size;
        size_t fed;  /* of it */
        size_t next; /* where the next line begins that is to be handed out */
} History;

/* Mostly short lines, some long, few very long. */
static size_t random_line(unsigned *seed) {
        switch (rand_r(seed) % 16) {
        case 0:
                return 0;
        case 1:
                return (size_t) rand_r(seed) % 300000;
        case 2:
        case 3:
                return (size_t) rand_r(seed) % 20000;
        default:
                return (size_t) rand_r(seed) % 100;
        }
}

static void history_init(History *h, unsigned seed) {
        unsigned n_lines;

        *h = (History){ .seed = seed };
        n_lines = 1 + (unsigned) rand_r(&h->seed) % 60;
        for (unsigned i = 0; i < n_lines; i++) {
                size_t n = random_line(&h->seed);

                h->stream = realloc(h->stream, h->size + n + 1);
                assert_non_null(h->stream);
                for (size_t k = 0; k < n; k++)
                        h->stream[h->size + k] = (char) ('a' + (h->size + k) % 23 + i % 3);
                h->stream[h->size + n] = '\n';
                h->size += n + 1;
        }
        h->size -= (size_t) rand_r(&h->seed) % 2; /* the last one may be without its end */
}

/* By looking at every byte. */
static bool last_begin(const History *h, size_t n, uint64_t *ret) {
        for (size_t i = h->fed; i-- > h->fed - n;)
                if (i == 0 || h->stream[i - 1] == '\n') {
                        *ret = i;
                        return true;
                }
        return false;
}

/* After a read of @n_added bytes. */
static void check_lines(History *h, LineBuffer *b, size_t n_added) {
        uint64_t offset;
        char *line;
        size_t n;

        while (line_buffer_next(b, &line, &n, &offset)) {
                assert_int_equal(offset, h->next);
                assert_true(h->next + n < h->fed);
                if (memcmp(line, h->stream + h->next, n) != 0 || h->stream[h->next + n] != '\n' ||
                                line[n] != '\0')
                        fail_msg("the line at %zu of %zu bytes is not what was sent", h->next, n);
                h->next += n + 1;
        }
        /* No complete one was left behind, neither now nor before. */
        size_t from = MAX(h->next, h->fed - n_added);
        assert_null(memchr(h->stream + from, '\n', h->fed - from));
        assert_int_equal(line_buffer_partial(b), h->fed > h->next);
        assert_int_equal(line_buffer_received(b), h->fed);
}

static size_t random_read(unsigned *seed, unsigned style) {
        switch (style) {
        case 0:
                return 1 + (size_t) rand_r(seed) % 7;
        case 1:
                return 1 + (size_t) rand_r(seed) % 3000;
        case 2:
                return SIZE_MAX;
        default:
                return rand_r(seed) % 2 ? 1 : 1 + (size_t) rand_r(seed) % 200000;
        }
}

static void run_history(unsigned seed) {
        LineBuffer b = { .max_line = 400000 };
        History h;

        history_init(&h, seed);
        unsigned style = (unsigned) rand_r(&h.seed) % 4;
        while (h.fed < h.size) {
                uint64_t is = 0, should = 0;
                size_t n = random_read(&h.seed, style);

                n = feed(&b, h.stream + h.fed, MIN(n, h.size - h.fed));

                h.fed += n;
                assert_true(b.size <= b.max_line + 2);
                assert_int_equal(line_buffer_last_begin(&b, n, &is), last_begin(&h, n, &should));
                assert_int_equal(is, should);
                check_lines(&h, &b, n);
        }
        assert_int_equal(h.next == h.size, !line_buffer_partial(&b));
        line_buffer_done(&b);
        free(h.stream);
}

static unsigned seed_under_way;

static void test_random_histories(void **state) {
        for (seed_under_way = 1; seed_under_way <= 100; seed_under_way++)
                run_history(seed_under_way);
        seed_under_way = 0;
}

static int tell_seed(void **state) {
        if (seed_under_way > 0)
                print_error("run_history(%u) failed\n", seed_under_way);
        return 0;
}

/*
 * Limits
 */

/* A line may be as long as it may be, and one byte more is too much, if its end is not seen before. */
static void check_max_line(size_t max) {
        LineBuffer b = { .max_line = max };
        char *text = malloc(max + 1), *room, *line;
        uint64_t offset;
        size_t n;

        assert_non_null(text);
        memset(text, 'x', max + 1);
        feed_all(&b, "\n", 1);
        assert_next(&b, "", 0);
        feed_all(&b, text, max);
        assert_no_next(&b);
        feed_all(&b, "\n", 1);
        assert_true(line_buffer_next(&b, &line, &n, &offset));
        assert_int_equal(n, max);
        assert_int_equal(offset, 1);
        assert_no_next(&b);

        feed_all(&b, text, max + 1);
        assert_no_next(&b);
        assert_int_equal(line_buffer_reserve(&b, &room, &n), -EMSGSIZE);
        assert_int_equal(line_buffer_reserve(&b, &room, &n), -EMSGSIZE);
        line_buffer_done(&b);
        free(text);
}

static void test_max_line(void **state) {
        check_max_line(0);
        check_max_line(1);
        check_max_line(10);
        check_max_line(SMALL - 2);
        check_max_line(SMALL - 1);
        check_max_line(SMALL);
        check_max_line(SMALL + 1);
        check_max_line(2 * SMALL);
        check_max_line(1000000);
}

/* Whatever is sent without a line feed, no more memory is taken than the longest line needs. */
static void test_memory_of_endless_line(void **state) {
        LineBuffer b = { .max_line = 1000000 };
        size_t size, total = 0;
        char *room;
        int r;

        while ((r = line_buffer_reserve(&b, &room, &size)) == 0) {
                assert_true(b.size <= b.max_line + 2);
                memset(room, 'x', size);
                line_buffer_add(&b, size);
                assert_no_next(&b);
                total += size;
                assert_true(total < 2000000);
        }
        assert_int_equal(r, -EMSGSIZE);
        line_buffer_done(&b);
}

/* The memory of a long line goes with it: nothing of it stays while nothing more comes. */
static void test_memory_after_long_line(void **state) {
        LineBuffer b = { .max_line = 10000000 };
        char *text = malloc(5000000);

        assert_non_null(text);
        memset(text, 'x', 5000000);
        text[4999999] = '\n';
        feed_all(&b, text, 5000000);
        assert_true(b.size >= 5000000);
        assert_true(line_buffer_next(&b, &(char *){ NULL }, &(size_t){ 0 }, &(uint64_t){ 0 }));
        assert_no_next(&b);
        assert_true(b.size <= SMALL);
        assert_false(line_buffer_partial(&b));
        assert_int_equal(line_buffer_received(&b), 5000000);
        feed_all(&b, "next\n", 5);
        assert_true(b.size <= SMALL);
        assert_next(&b, "next", 5000000);
        line_buffer_done(&b);
        free(text);
}

/* Short lines for ever need the room of a few. */
static void test_memory_of_many_lines(void **state) {
        LineBuffer b = { .max_line = 10000000 };
        uint64_t offset, n_lines = 0;
        char *line;
        size_t n;

        for (int i = 0; i < 20000; i++) {
                feed_all(&b, "a short line\nand half", 21); /* so that a line is always under way */
                while (line_buffer_next(&b, &line, &n, &offset))
                        n_lines++;
                assert_true(b.size <= 2 * SMALL);
        }
        assert_int_equal(n_lines, 20000);
        line_buffer_done(&b);
}

/* What is given up can be begun anew, with the same limit. */
static void test_done(void **state) {
        LineBuffer b = { .max_line = 100 };

        line_buffer_done(&b);
        feed(&b, "one\ntw", 6);
        assert_next(&b, "one", 0);
        line_buffer_done(&b);
        assert_int_equal(b.max_line, 100);
        assert_false(line_buffer_partial(&b));
        assert_no_next(&b);
        feed(&b, "two\n", 4);
        assert_next(&b, "two", 0);
        line_buffer_done(&b);
        assert_null(b.data);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lines),
                cmocka_unit_test(test_nul),
                cmocka_unit_test(test_last_begin),
                cmocka_unit_test_teardown(test_random_histories, tell_seed),
                cmocka_unit_test(test_max_line),
                cmocka_unit_test(test_memory_of_endless_line),
                cmocka_unit_test(test_memory_after_long_line),
                cmocka_unit_test(test_memory_of_many_lines),
                cmocka_unit_test(test_done),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

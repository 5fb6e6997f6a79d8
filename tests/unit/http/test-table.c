/* SPDX-License-Identifier: MIT */
#include "http/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

static Table table;

static int setup(void **state) {
        return table_init(&table, 8, 100, 5000);
}

static int teardown(void **state) {
        table_done(&table);
        return 0;
}

/* The warmest buffer comes back first; buffers begin and end with pages, so that one of them can be let go
 * of. */
static void test_last_in_first_out(void **state) {
        uint32_t a = table_take_buffer(&table), b = table_take_buffer(&table);

        assert_int_equal(table.buffer_size, 8192);
        assert_int_not_equal(a, b);
        assert_int_equal(table_give_buffer(&table, a), BUFFER_NONE);
        assert_int_equal(table_give_buffer(&table, b), BUFFER_NONE);
        assert_int_equal(table_take_buffer(&table), b);
        assert_int_equal(table_take_buffer(&table), a);
        assert_int_equal(table_give_buffer(&table, BUFFER_NONE), BUFFER_NONE);
}

static unsigned n_resident(void) {
        static unsigned char pages[200];
        unsigned n = 0;

        assert_int_equal(mincore(table.buffers, 100 * table.buffer_size, pages), 0);
        for (size_t i = 0; i < sizeof(pages); i++)
                n += pages[i] & 1;
        return n;
}

/* There are as many as was said, each is given out once, and a burst does not keep its memory for ever. */
static void test_burst(void **state) {
        unsigned char seen[100];

        for (int round = 0; round < 3; round++) {
                memset(seen, 0, sizeof(seen));
                for (int i = 0; i < 100; i++) {
                        uint32_t b = table_take_buffer(&table);
                        assert_in_range(b, 0, 99);
                        assert_int_equal(seen[b]++, 0);
                        memset(table_buffer(&table, b), 1, table.buffer_size);
                }
                assert_int_equal(table_take_buffer(&table), BUFFER_NONE);
                assert_int_equal(n_resident(), 200);
                for (uint32_t i = 0; i < 100; i++)
                        table_give_buffer(&table, (i * 37 + (uint32_t) round) % 100);
                assert_in_range(n_resident(), 1, 100);
        }
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_last_in_first_out, setup, teardown),
                cmocka_unit_test_setup_teardown(test_burst, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* Aligned columns. */

#include "../unit.h"

#include <stdlib.h>

#include "basic/macro.h"
#include "cli/table.h"

static const TableColumn columns[] = { { "N", true }, { "NAME", false }, { "SIZE", true },
        { "TEXT", false } };

static char *printed(const Table *t, bool bold) {
        char *text = NULL;
        size_t n;
        FILE *f = open_memstream(&text, &n);

        assert_non_null(f);
        table_print(t, f, bold);
        assert_int_equal(fclose(f), 0);
        return text;
}

/* Numbers to the right, texts to the left, no white space at the end of a line; characters count, not bytes.
 */
static void test_aligned(void **state) {
        _cleanup_(table_freep) Table *t = NULL;
        _cleanup_free_ char *text = NULL;

        assert_int_equal(table_new(columns, ELEMENTSOF(columns), &t), 0);
        assert_int_equal(table_add(t, (const char *[]){ "1", "größe", "12", "all" }), 0);
        assert_int_equal(table_add(t, (const char *[]){ "100", "x", "1.5K", "" }), 0);
        assert_int_equal(table_add(t, (const char *[]){ NULL, NULL, NULL, NULL }), 0);
        text = printed(t, false);
        assert_string_equal(text, "  N  NAME   SIZE  TEXT\n"
                                  "  1  größe    12  all\n"
                                  "100  x      1.5K\n"
                                  "  -  -         -  -\n");
}

/* Only titles are there without rows; bold is for them alone. */
static void test_titles(void **state) {
        _cleanup_(table_freep) Table *t = NULL;
        _cleanup_free_ char *plain = NULL, *bold = NULL;

        assert_int_equal(table_new(columns, ELEMENTSOF(columns), &t), 0);
        plain = printed(t, false);
        assert_string_equal(plain, "N  NAME  SIZE  TEXT\n");
        bold = printed(t, true);
        assert_string_equal(bold, "\033[1mN  NAME  SIZE  TEXT\033[0m\n");
}

/* Whatever a cell holds, it is one line, and speaks to no terminal. */
static void test_printable(void **state) {
        _cleanup_(table_freep) Table *t = NULL;
        _cleanup_free_ char *text = NULL;

        assert_int_equal(table_new(columns, ELEMENTSOF(columns), &t), 0);
        assert_int_equal(table_add(t, (const char *[]){ "1", "a\nb", "\033[2J",
                                                      "\xc2\x9b"
                                                      "2J\xff" }),
                        0);
        text = printed(t, false);
        assert_string_equal(text, "N  NAME  SIZE  TEXT\n"
                                  "1  a?b   ?[2J  ??2J?\n");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_aligned),
                cmocka_unit_test(test_titles),
                cmocka_unit_test(test_printable),
        };

        assert_null(table_free(NULL));
        return cmocka_run_group_tests(tests, NULL, NULL);
}

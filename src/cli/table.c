/* SPDX-License-Identifier: MIT */
/* Aligned columns; see table.h. */

#include "cli/table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "basic/text.h"

#define GAP 2

struct Table {
        const TableColumn *columns; /* borrowed */
        size_t n_columns;
        char **cells; /* row by row */
        size_t n_rows;
        size_t widths[TABLE_COLUMNS_MAX];
};

/* Of printable text: bytes that do not continue a character. Wide ones are taken for one, which the eye
 * forgives. */
static size_t width_of(const char *s) {
        size_t n = 0;

        for (; *s; s++)
                n += ((unsigned char) *s & 0xC0) != 0x80;
        return n;
}

int table_new(const TableColumn *columns, size_t n, Table **ret) {
        Table *t;

        assert(n > 0 && n <= TABLE_COLUMNS_MAX);
        t = calloc(1, sizeof(*t));
        if (!t)
                return -ENOMEM;
        t->columns = columns;
        t->n_columns = n;
        for (size_t i = 0; i < n; i++)
                t->widths[i] = width_of(columns[i].title);
        *ret = t;
        return 0;
}

int table_add(Table *t, const char *const *cells) {
        char **all, **row;

        all = reallocarray(t->cells, (t->n_rows + 1) * t->n_columns, sizeof(char *));
        if (!all)
                return -ENOMEM;
        t->cells = all;
        row = all + t->n_rows * t->n_columns;
        for (size_t i = 0; i < t->n_columns; i++) {
                row[i] = strdup(cells[i] ? cells[i] : "-");
                if (!row[i]) {
                        while (i-- > 0)
                                free(row[i]);
                        return -ENOMEM;
                }
                text_make_printable(row[i]);
        }
        for (size_t i = 0; i < t->n_columns; i++)
                t->widths[i] = MAX(t->widths[i], width_of(row[i]));
        t->n_rows++;
        return 0;
}

static void print_cell(const Table *t, size_t column, const char *text, bool last, FILE *f) {
        int padding = (int) (t->widths[column] - width_of(text));

        if (t->columns[column].right)
                fprintf(f, "%*s%s", padding, "", text);
        else
                fprintf(f, "%s%*s", text, last ? 0 : padding, "");
        if (!last)
                fprintf(f, "%*s", GAP, "");
}

/* No white space at the end, also when the last cells are empty. */
static void print_row(const Table *t, char **cells, FILE *f) {
        size_t n = t->n_columns;

        while (n > 0 && !*cells[n - 1])
                n--;
        for (size_t i = 0; i < n; i++)
                print_cell(t, i, cells[i], i + 1 == n, f);
        fputc('\n', f);
}

void table_print(const Table *t, FILE *f, bool bold) {
        fputs(bold ? "\033[1m" : "", f);
        for (size_t i = 0; i < t->n_columns; i++)
                print_cell(t, i, t->columns[i].title, i + 1 == t->n_columns, f);
        fputs(bold ? "\033[0m\n" : "\n", f);
        for (size_t row = 0; row < t->n_rows; row++)
                print_row(t, t->cells + row * t->n_columns, f);
}

Table *table_free(Table *t) {
        if (!t)
                return NULL;
        for (size_t i = 0; i < t->n_rows * t->n_columns; i++)
                free(t->cells[i]);
        free(t->cells);
        free(t);
        return NULL;
}

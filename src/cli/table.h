/* SPDX-License-Identifier: MIT */
#pragma once

/* Rows of text in aligned columns. What a cell holds is made printable: it comes from others. */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "basic/macro.h"

#define TABLE_COLUMNS_MAX 16

typedef struct TableColumn {
        const char *title;
        bool right; /* numbers, with their last digits below each other */
} TableColumn;

typedef struct Table Table;

/* @columns, at most TABLE_COLUMNS_MAX, are borrowed. Returns 0 or -ENOMEM. */
int table_new(const TableColumn *columns, size_t n, Table **ret);

/* Adds a row. @cells has one text for each column; NULL is "-". Returns 0 or -ENOMEM. */
int table_add(Table *t, const char *const *cells);

/* The titles and all rows; @bold: titles for a terminal that has colours. */
void table_print(const Table *t, FILE *f, bool bold);

Table *table_free(Table *t);
DEFINE_CLEANUP(Table, table_free)

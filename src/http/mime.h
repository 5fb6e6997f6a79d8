/* SPDX-License-Identifier: MIT */
#pragma once

/* The media type of a file by its name's extension: from a built-in table, so that what the web is made of
 * is served alike on every host, and after that from the system's. Text is declared as UTF-8. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MIME_DEFAULT      "application/octet-stream"
#define MIME_SYSTEM_TABLE "/etc/mime.types"

/* From the built-in table; never NULL, MIME_DEFAULT for what is not known. */
const char *mime_from_path(const char *path);

typedef struct MimeEntry {
        uint32_t extension, type; /* offsets into the texts */
} MimeEntry;

/* The system's table, read at the first name that the built-in one does not know. A table that is not there,
 * or cannot be read, is an empty one. */
typedef struct MimeTable {
        const char *path; /* borrowed; NULL: there is none */
        bool read;
        char *texts;
        MimeEntry *entries; /* in the order of their extensions */
        size_t n_entries;
} MimeTable;

#define MIME_TABLE_INIT(p) ((MimeTable){ .path = (p) })

void mime_table_done(MimeTable *t);

/* As mime_from_path(), with both tables. The answer may lie in @buf, or in the table. */
#define MIME_TYPE_MAX 128
const char *mime_table_find(MimeTable *t, const char *path, char buf[static MIME_TYPE_MAX]);

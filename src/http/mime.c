/* SPDX-License-Identifier: MIT */
/* Media types; see mime.h. Text is declared as UTF-8: everything else has been rare for a decade.
 *
 * Of the system's table each line is a type and the extensions that go with it. Some hundred types have some
 * thousand extensions: the lines that have any are packed into one text in which every word ends in NUL,
 * with a sorted index beside it, about 60 KiB together. */

#include "http/mime.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "basic/fd.h"
#include "basic/macro.h"

/* A table beyond these is not read, or not further: it is the host's, but it is not to be trusted to be
 * sane. */
#define TABLE_SIZE_MAX    (1024 * 1024)
#define TABLE_ENTRIES_MAX 16384

#define CHARSET "; charset=utf-8"

/* The frequent ones first. */
static const struct {
        const char *extension;
        const char *type;
} types[] = {
        { "html", "text/html; charset=utf-8" },
        { "css", "text/css; charset=utf-8" },
        { "js", "text/javascript; charset=utf-8" },
        { "mjs", "text/javascript; charset=utf-8" },
        { "json", "application/json" },
        { "svg", "image/svg+xml" },
        { "png", "image/png" },
        { "jpg", "image/jpeg" },
        { "jpeg", "image/jpeg" },
        { "webp", "image/webp" },
        { "avif", "image/avif" },
        { "gif", "image/gif" },
        { "ico", "image/vnd.microsoft.icon" },
        { "woff2", "font/woff2" },
        { "woff", "font/woff" },
        { "ttf", "font/ttf" },
        { "otf", "font/otf" },
        { "htm", "text/html; charset=utf-8" },
        { "xhtml", "application/xhtml+xml" },
        { "txt", "text/plain; charset=utf-8" },
        { "text", "text/plain; charset=utf-8" },
        { "log", "text/plain; charset=utf-8" },
        { "md", "text/markdown; charset=utf-8" },
        { "csv", "text/csv; charset=utf-8" },
        { "xml", "application/xml" },
        { "rss", "application/rss+xml" },
        { "atom", "application/atom+xml" },
        { "map", "application/json" },
        { "jsonld", "application/ld+json" },
        { "webmanifest", "application/manifest+json" },
        { "wasm", "application/wasm" },
        { "pdf", "application/pdf" },
        { "zip", "application/zip" },
        { "gz", "application/gzip" },
        { "xz", "application/x-xz" },
        { "zst", "application/zstd" },
        { "tar", "application/x-tar" },
        { "bmp", "image/bmp" },
        { "tif", "image/tiff" },
        { "tiff", "image/tiff" },
        { "mp3", "audio/mpeg" },
        { "ogg", "audio/ogg" },
        { "oga", "audio/ogg" },
        { "opus", "audio/ogg" },
        { "wav", "audio/wav" },
        { "flac", "audio/flac" },
        { "m4a", "audio/mp4" },
        { "mp4", "video/mp4" },
        { "webm", "video/webm" },
        { "ogv", "video/ogg" },
        { "mov", "video/quicktime" },
        { "ics", "text/calendar; charset=utf-8" },
        { "vtt", "text/vtt; charset=utf-8" },
};

/* NULL: there is none. A name that only begins with a dot has no extension. */
static const char *path_extension(const char *path) {
        const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');

        return dot && dot > name && dot[1] ? dot + 1 : NULL;
}

static const char *find_builtin(const char *extension) {
        for (size_t i = 0; i < ELEMENTSOF(types); i++)
                if (strcasecmp(extension, types[i].extension) == 0)
                        return types[i].type;
        return NULL;
}

const char *mime_from_path(const char *path) {
        const char *extension = path_extension(path), *type = extension ? find_builtin(extension) : NULL;

        return type ? type : MIME_DEFAULT;
}

/* The next word of a line, terminated in place; NULL at its end. */
static char *next_word(char **line) {
        char *word = *line + strspn(*line, " \t\r"), *end = word + strcspn(word, " \t\r");

        if (!*word)
                return NULL;
        *line = *end ? end + 1 : end;
        *end = '\0';
        return word;
}

/* It becomes a field's value: two tokens and a slash, and short enough for "; charset=utf-8" behind it. */
static bool is_type(const char *s) {
        static const char token[] =
                        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&^_.+-";
        size_t n = strspn(s, token), k = s[n] == '/' ? strspn(s + n + 1, token) : 0;

        return n > 0 && k > 0 && !s[n + 1 + k] && n + 1 + k + sizeof(CHARSET) <= MIME_TYPE_MAX;
}

/* Moves a word to the end of what is packed, which is never behind where the word was. */
static uint32_t pack(char *texts, size_t *n, const char *word) {
        size_t at = *n, size = strlen(word) + 1;

        memmove(texts + at, word, size);
        *n += size;
        return (uint32_t) at;
}

static bool add_entry(MimeTable *t, size_t *room, uint32_t extension, uint32_t type) {
        if (t->n_entries == *room) {
                size_t n = *room ? 2 * *room : 1024;
                MimeEntry *entries = n <= TABLE_ENTRIES_MAX ? reallocarray(t->entries, n, sizeof(*entries))
                                                            : NULL;

                if (!entries)
                        return false;
                t->entries = entries;
                *room = n;
        }
        t->entries[t->n_entries++] = (MimeEntry){ .extension = extension, .type = type };
        return true;
}

/* False: there is no room for more. */
static bool read_line(MimeTable *t, char *line, size_t *used, size_t *room) {
        char *type, *extension;
        uint32_t at;

        line[strcspn(line, "#")] = '\0';
        type = next_word(&line);
        extension = type && is_type(type) ? next_word(&line) : NULL;
        if (!extension)
                return true;
        at = pack(t->texts, used, type);
        for (; extension; extension = next_word(&line))
                if (!add_entry(t, room, pack(t->texts, used, extension), at))
                        return false;
        return true;
}

/* For equal extensions the first line wins, and qsort(3) is not stable. */
static int compare_entries(const void *a, const void *b, void *userdata) {
        const MimeEntry *x = a, *y = b;
        const char *texts = userdata;
        int r = strcasecmp(texts + x->extension, texts + y->extension);

        return r != 0 ? r : (x->extension > y->extension) - (x->extension < y->extension);
}

static void table_read(MimeTable *t) {
        size_t used = 0, room = 0;
        char *p, *line;

        t->read = true;
        if (!t->path || read_small_file(AT_FDCWD, t->path, TABLE_SIZE_MAX, &t->texts) < 0)
                return;
        p = t->texts;
        while ((line = strsep(&p, "\n")) && read_line(t, line, &used, &room))
                ;
        if (t->n_entries > 0)
                qsort_r(t->entries, t->n_entries, sizeof(*t->entries), compare_entries, t->texts);
        p = realloc(t->texts, used + 1); /* in vain, it stays as large as it was */
        if (p)
                t->texts = p;
}

void mime_table_done(MimeTable *t) {
        free(t->texts);
        free(t->entries);
        *t = MIME_TABLE_INIT(t->path);
}

static const char *find_in_table(const MimeTable *t, const char *extension) {
        size_t low = 0, high = t->n_entries;

        while (low < high) {
                size_t middle = (low + high) / 2;

                if (strcasecmp(t->texts + t->entries[middle].extension, extension) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        if (low == t->n_entries || strcasecmp(t->texts + t->entries[low].extension, extension) != 0)
                return NULL;
        return t->texts + t->entries[low].type;
}

const char *mime_table_find(MimeTable *t, const char *path, char buf[static MIME_TYPE_MAX]) {
        const char *extension = path_extension(path), *type = extension ? find_builtin(extension) : NULL;

        if (!extension || type)
                return type ? type : MIME_DEFAULT;
        if (!t->read)
                table_read(t);
        type = find_in_table(t, extension);
        if (!type)
                return MIME_DEFAULT;
        if (strncasecmp(type, "text/", 5) != 0)
                return type;
        snprintf(buf, MIME_TYPE_MAX, "%s" CHARSET, type);
        return buf;
}

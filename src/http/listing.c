/* SPDX-License-Identifier: MIT */
/* Directory listings; see listing.h. All text on the page that is not ours is a name of somebody's file. */

#include "http/listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/text.h"
#include "http/chars.h"
#include "http/date.h"

typedef struct Item {
        char *name;
        uint64_t size;
        int64_t modified;
        bool directory;
} Item;

typedef struct Listing {
        FileRoot *root;
        const char *path;
        Item *items;
        size_t n, room;
        bool cut; /* there are more */
} Listing;

static void listing_done(Listing *l) {
        for (size_t i = 0; i < l->n; i++)
                free(l->items[i].name);
        free(l->items);
}

static void closedirp(DIR **d) {
        if (*d)
                closedir(*d);
}

static void fclosep(FILE **f) {
        if (*f)
                fclose(*f);
}

/* Where a link leads to, if it may be followed. */
static int stat_link(const Listing *l, const char *name, struct stat *ret) {
        _cleanup_close_ int fd = -EBADF;
        char path[PATH_MAX];
        int r;

        r = snprintf(path, sizeof(path), "%s%s%s", l->path, *l->path ? "/" : "", name);
        if (r < 0 || (size_t) r >= sizeof(path))
                return -ENAMETOOLONG;
        r = file_open_beneath(l->root, path, &fd);
        if (r < 0)
                return r;
        return fstat(fd, ret) < 0 ? -errno : 0;
}

/* 1: it is to be listed, 0: it is not, or not any more. */
static int stat_entry(const Listing *l, int dir_fd, const char *name, struct stat *ret) {
        if (*name == '.' || fstatat(dir_fd, name, ret, AT_SYMLINK_NOFOLLOW) < 0)
                return 0;
        if (S_ISLNK(ret->st_mode) && (l->root->links == FILE_LINKS_NONE || stat_link(l, name, ret) < 0))
                return 0;
        return S_ISREG(ret->st_mode) || S_ISDIR(ret->st_mode);
}

static int listing_add(Listing *l, const char *name, const struct stat *st) {
        if (l->n == l->room) {
                size_t room = l->room ? 2 * l->room : 64;
                Item *items = reallocarray(l->items, room, sizeof(*items));

                if (!items)
                        return -ENOMEM;
                l->items = items;
                l->room = room;
        }

        Item item = {
                .name = strdup(name),
                .size = (uint64_t) st->st_size,
                .modified = st->st_mtim.tv_sec,
                .directory = S_ISDIR(st->st_mode),
        };
        if (!item.name)
                return -ENOMEM;
        l->items[l->n++] = item;
        return 0;
}

/* Reads a descriptor of its own, since closedir(3) closes it and the offset is changed. */
static int listing_read(Listing *l, int fd) {
        int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _cleanup_(closedirp) DIR *d = own < 0 ? NULL : fdopendir(own);
        struct dirent *entry;
        struct stat st;
        int r;

        if (!d) {
                r = -errno;
                safe_close(own);
                return r;
        }
        while ((entry = readdir(d))) {
                if (!stat_entry(l, own, entry->d_name, &st))
                        continue;
                if (l->n == LISTING_ENTRIES_MAX) {
                        l->cut = true;
                        break;
                }
                r = listing_add(l, entry->d_name, &st);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int compare_items(const void *a, const void *b) {
        const Item *x = a, *y = b;

        return x->directory != y->directory ? (x->directory ? -1 : 1) : strcmp(x->name, y->name);
}

static void put_char(FILE *f, char c) {
        switch (c) {
        case '&':
                fputs("&amp;", f);
                break;
        case '<':
                fputs("&lt;", f);
                break;
        case '>':
                fputs("&gt;", f);
                break;
        case '"':
                fputs("&quot;", f);
                break;
        case '\'':
                fputs("&#39;", f);
                break;
        default:
                putc(c, f);
        }
}

/* A name is any bytes: those that are no text show as what browsers show for them. */
static void put_text(FILE *f, const char *s) {
        for (size_t left = strlen(s), n; left > 0; s += n, left -= n) {
                n = text_utf8_sequence((const unsigned char *) s, left);
                if (n > 0) {
                        fwrite(s, 1, n, f);
                        continue;
                }
                n = 1;
                if ((unsigned char) *s < 0x20 || (unsigned char) *s >= 0x7F)
                        fputs("\xEF\xBF\xBD", f);
                else
                        put_char(f, *s);
        }
}

/* Everything but what is unreserved is escaped (RFC 3986, section 2.3): so no name is taken for a scheme, a
 * query, or the end of the attribute. */
static void put_link(FILE *f, const char *s) {
        for (; *s; s++)
                if ((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || char_is_digit(*s) ||
                                strchr("-._~", *s))
                        putc(*s, f);
                else
                        fprintf(f, "%%%02X", (unsigned char) *s);
}

static void put_size(FILE *f, uint64_t size) {
        static const char units[] = "KMGTPE";
        uint64_t tenths = size * 10 / 1024;
        int unit = 0;

        if (size < 1024) {
                fprintf(f, "%" PRIu64, size);
                return;
        }
        if (size > UINT64_MAX / 10)
                tenths = size / 1024 * 10;
        for (; tenths >= 10240; tenths /= 1024)
                unit++;
        fprintf(f, "%" PRIu64 ".%u %ciB", tenths / 10, (unsigned) (tenths % 10), units[unit]);
}

static void put_item(FILE *f, const Item *item) {
        const char *slash = item->directory ? "/" : "";
        char date[DATE_LENGTH + 1];

        fputs("<tr><td><a href=\"", f);
        put_link(f, item->name);
        fprintf(f, "%s\">", slash);
        put_text(f, item->name);
        fprintf(f, "%s</a><td>", slash);
        if (!item->directory)
                put_size(f, item->size);
        date_format(item->modified, date);
        fprintf(f, "<td>%s\n", date);
}

static void put_page(FILE *f, const Listing *l) {
        fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
              "<meta name=\"viewport\" content=\"width=device-width\"><title>/",
                        f);
        put_text(f, l->path);
        fputs("</title><style>:root{color-scheme:light dark}body{font:1em system-ui,sans-serif;margin:2em}"
              "td{padding:.1em 2em .1em 0}td+td{text-align:right;white-space:nowrap;"
              "font-variant-numeric:tabular-nums}a{unicode-bidi:isolate}</style></head>\n<body><h1>/",
                        f);
        put_text(f, l->path);
        fputs("</h1><table>\n", f);
        if (*l->path)
                fputs("<tr><td><a href=\"../\">../</a><td><td>\n", f);
        for (size_t i = 0; i < l->n; i++)
                put_item(f, &l->items[i]);
        fputs("</table>\n", f);
        if (l->cut)
                fprintf(f, "<p>There are more: these are %d of them.</p>\n", LISTING_ENTRIES_MAX);
        fputs("</body></html>\n", f);
}

static int listing_print(const Listing *l, char **ret, size_t *ret_size) {
        _cleanup_free_ char *text = NULL;
        size_t size = 0;

        {
                _cleanup_(fclosep) FILE *f = open_memstream(&text, &size);

                if (!f)
                        return -ENOMEM;
                put_page(f, l);
                if (fflush(f) != 0 || ferror(f))
                        return -ENOMEM;
        }
        *ret = TAKE_PTR(text);
        *ret_size = size;
        return 0;
}

int listing_make(FileRoot *root, const char *path, int fd, char **ret, size_t *ret_size) {
        _cleanup_(listing_done) Listing l = { .root = root, .path = path };
        int r;

        r = listing_read(&l, fd);
        if (r < 0)
                return r;
        if (l.n > 0)
                qsort(l.items, l.n, sizeof(*l.items), compare_items);
        return listing_print(&l, ret, ret_size);
}

/* SPDX-License-Identifier: MIT */
/* The cache of files; see file-cache.h.
 *
 * Keys come from clients, but only those of files that are there get in, and a file has one key: nobody can
 * choose names that fall into one bucket, so the hash needs to be quick alone. */

#include "http/file-cache.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "http/date.h"

/* How often a small file is read that changes under our hands, before it is left to be sent as it is. */
#define READ_TRIES 3

#define SETTLED_SECONDS 1

/* How many entries one call lets go of because of their age: they go as they came, little by little. */
#define SWEEP_MAX 4

/* How many go when descriptors lack, for whoever may need one next. */
#define LACK_EVICT 16

/* Content-Type, Accept-Ranges, Content-Encoding, Last-Modified, ETag, Vary, without the configured one. */
#define FIELDS_MAX (MIME_TYPE_MAX + FILE_ETAG_MAX + 8 + DATE_LENGTH + 160)

typedef struct Opened {
        int fd;
        struct stat st;
} Opened;

static FileStamp stamp_of(const struct stat *st) {
        return (FileStamp){
                .device = st->st_dev,
                .inode = st->st_ino,
                .modified = st->st_mtim,
                .changed = st->st_ctim,
                .size = st->st_size,
        };
}

static bool same_time(const struct timespec *a, const struct timespec *b) {
        return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool stamp_equals(const FileStamp *a, const struct stat *st) {
        return a->device == st->st_dev && a->inode == st->st_ino && a->size == st->st_size &&
               same_time(&a->modified, &st->st_mtim) && same_time(&a->changed, &st->st_ctim);
}

FileVariant *file_variant_ref(FileVariant *v) {
        v->n_refs++;
        return v;
}

FileVariant *file_variant_unref(FileVariant *v) {
        if (v && --v->n_refs == 0) {
                safe_close(v->fd);
                free(v);
        }
        return NULL;
}

static void variant_release(FileHold *hold) {
        file_variant_unref(CONTAINER_OF(hold, FileVariant, hold));
}

bool file_variant_is_current(FileVariant *v, uint64_t now) {
        struct stat st;

        if (v->fd < 0 || v->seen == now)
                return true;
        v->seen = now;
        return fstat(v->fd, &st) >= 0 && stamp_equals(&v->stamp, &st);
}

/* A tag of its own for each coding: a strong one names bytes (RFC 9110, section 8.8.3). */
static void variant_set_etag(FileVariant *v, const struct stat *st, Encoding encoding) {
        char etag[FILE_ETAG_MAX];

        file_etag(st, etag);
        if (encoding == ENCODING_IDENTITY)
                strcpy(v->etag, etag);
        else
                snprintf(v->etag, sizeof(v->etag), "%.*s-%s\"", (int) strlen(etag) - 1, etag,
                                encoding_name(encoding));
}

/* Writes the fields; returns their length. A date in the future would be sent as now (section 8.8.2.1). */
static size_t write_fields(FileVariant *v, const char *type, Encoding encoding, const char *cache_control,
                int64_t now, char *buf, size_t size) {
        char date[DATE_LENGTH + 1];
        bool coded = encoding != ENCODING_IDENTITY, controlled = cache_control && *cache_control;
        int n;

        n = v->type_size = (uint32_t) snprintf(buf, size, "Content-Type: %s\r\n", type);
        n += snprintf(buf + n, size - (size_t) n, "Accept-Ranges: bytes\r\n%s%s%s",
                        coded ? "Content-Encoding: " : "", coded ? encoding_name(encoding) : "",
                        coded ? "\r\n" : "");
        v->kept_at = (uint32_t) n;
        date_format(MIN(v->modified, now), date);
        n += snprintf(buf + n, size - (size_t) n, "Last-Modified: %s\r\nETag: %s\r\n%s%s%s%s", date, v->etag,
                        v->varies ? "Vary: Accept-Encoding\r\n" : "", controlled ? "Cache-Control: " : "",
                        controlled ? cache_control : "", controlled ? "\r\n" : "");
        assert((size_t) n < size);
        return (size_t) n;
}

static int read_whole(int fd, char *to, size_t size) {
        for (size_t n = 0; n < size;) {
                ssize_t k = pread(fd, to + n, size - n, (off_t) n);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return -errno;
                if (k == 0)
                        return -ESTALE;
                n += (size_t) k;
        }
        return 0;
}

/* The content belongs to the stamp only if that is the same before and after. Fills in the new one
 * otherwise, with -ESTALE. */
static int read_content(int fd, struct stat *st, char *to) {
        FileStamp before = stamp_of(st);
        int r = read_whole(fd, to, (size_t) st->st_size);

        if (r < 0 && r != -ESTALE)
                return r;
        if (fstat(fd, st) < 0)
                return -errno;
        return r == 0 && stamp_equals(&before, st) ? 0 : -ESTALE;
}

static int variant_new(const FileCache *c, const struct stat *st, const char *type, Encoding encoding,
                bool varies, bool with_content, int64_t now, FileVariant **ret) {
        const char *control = c->settings.cache_control;
        size_t room = FIELDS_MAX + (control ? strlen(control) + 20 : 0);
        FileVariant *v = malloc(sizeof(*v) + room + (with_content ? (size_t) st->st_size : 0));
        char *fields;

        if (!v)
                return -ENOMEM;
        fields = (char *) (v + 1);
        *v = (FileVariant){
                .hold.release = variant_release,
                .n_refs = 1,
                .fd = -EBADF,
                .content = with_content ? fields + room : NULL,
                .size = (uint64_t) st->st_size,
                .modified = st->st_mtim.tv_sec,
                .stamp = stamp_of(st),
                .varies = varies,
                .ahead = st->st_mtim.tv_sec > now,
                .fields = fields,
        };
        variant_set_etag(v, st, encoding);
        v->fields_size = (uint32_t) write_fields(v, type, encoding, control, now, fields, room);
        *ret = v;
        return 0;
}

/* Of a small file, with its content; -ESTALE when it does not stay the same for so long. */
static int variant_load(const FileCache *c, Opened *file, const char *type, Encoding encoding, bool varies,
                int64_t now, FileVariant **ret) {
        FileVariant *v;
        int r = -ESTALE;

        for (int i = 0; i < READ_TRIES && r == -ESTALE && file->st.st_size <= FILE_CACHE_CONTENT_MAX; i++) {
                struct stat st = file->st;

                r = variant_new(c, &st, type, encoding, varies, /* with_content= */ true, now, &v);
                if (r < 0)
                        return r;
                r = read_content(file->fd, &file->st, (char *) v->content);
                if (r == 0)
                        *ret = v;
                else
                        file_variant_unref(v);
        }
        return r;
}

static int variant_make(const FileCache *c, Opened *file, const char *type, Encoding encoding, bool varies,
                int64_t now, FileVariant **ret) {
        int r = variant_load(c, file, type, encoding, varies, now, ret);

        if (r != -ESTALE)
                return r;
        r = variant_new(c, &file->st, type, encoding, varies, /* with_content= */ false, now, ret);
        if (r < 0)
                return r;
        (*ret)->fd = TAKE_FD(file->fd);
        return 0;
}

static void close_all(Opened files[static _ENCODING_MAX]) {
        for (int i = 0; i < _ENCODING_MAX; i++)
                files[i].fd = safe_close(files[i].fd);
}

static int open_file(FileCache *c, const char *path, Opened *ret) {
        _cleanup_close_ int fd = -EBADF;
        int r = file_open_beneath(c->root, path, &fd);

        if (r < 0)
                return r;
        if (fstat(fd, &ret->st) < 0)
                return -errno;
        ret->fd = TAKE_FD(fd);
        return 0;
}

static bool is_lack(int error) {
        return error == -EMFILE || error == -ENFILE;
}

/* What lies beside a file compressed is taken for it by its name alone, as nginx and Caddy do: times are no
 * sign of what belongs together, since copying, unpacking and checking out set them in any order. What
 * cannot be opened is as good as not there: there is the file itself. Returns whether that is so for want of
 * a descriptor. */
static bool open_compressed(FileCache *c, const char *path, Opened files[static _ENCODING_MAX]) {
        char name[PATH_MAX];
        bool lacks = false;
        Opened *file;
        int r;

        for (int i = 0; i < ENCODING_IDENTITY; i++) {
                int n = snprintf(name, sizeof(name), "%s%s", path, encoding_suffix((Encoding) i));

                file = &files[i];
                r = (size_t) n < sizeof(name) ? open_file(c, name, file) : -ENAMETOOLONG;
                if (r >= 0 && !S_ISREG(file->st.st_mode))
                        file->fd = safe_close(file->fd);
                lacks |= is_lack(r);
        }
        return lacks;
}

static int open_all(FileCache *c, FileEntry *e, const char *path, bool is_index,
                Opened files[static _ENCODING_MAX]) {
        Opened *file = &files[ENCODING_IDENTITY];
        int r = open_file(c, path, file);

        if (r < 0)
                return r;
        if (S_ISDIR(file->st.st_mode) && !is_index)
                return FILE_CACHE_DIRECTORY;
        if (!S_ISREG(file->st.st_mode))
                return -ENODEV;
        e->lacks = c->settings.precompressed && open_compressed(c, path, files);
        return 0;
}

/* Fills in @variants, with those that the entry has where the files are still the same. */
static int make_variants(FileCache *c, const FileEntry *e, const char *path,
                Opened files[static _ENCODING_MAX], int64_t now,
                FileVariant *variants[static _ENCODING_MAX]) {
        char buf[MIME_TYPE_MAX];
        const char *type = mime_table_find(&c->mime, path, buf);
        bool varies = false;
        int r;

        for (int i = 0; i < ENCODING_IDENTITY; i++)
                varies |= files[i].fd >= 0;
        for (int i = 0; i < _ENCODING_MAX; i++) {
                FileVariant *old = e->variants[i];

                if (files[i].fd < 0)
                        continue;
                if (old && !old->ahead && old->varies == varies && stamp_equals(&old->stamp, &files[i].st)) {
                        variants[i] = file_variant_ref(old);
                        continue;
                }
                r = variant_make(c, &files[i], type, (Encoding) i, varies, now, &variants[i]);
                if (r < 0)
                        return r;
        }
        return 0;
}

static void entry_drop_variants(FileEntry *e) {
        for (int i = 0; i < _ENCODING_MAX; i++)
                e->variants[i] = file_variant_unref(e->variants[i]);
        e->available = 0;
}

static void cache_count(FileCache *c, const FileEntry *e, int sign) {
        for (int i = 0; i < _ENCODING_MAX; i++) {
                const FileVariant *v = e->variants[i];

                if (!v)
                        continue;
                c->n_files += (unsigned) sign;
                if (v->content)
                        c->memory += (size_t) sign * (size_t) v->size;
        }
}

static void entry_set_variants(FileCache *c, FileEntry *e, FileVariant *variants[static _ENCODING_MAX]) {
        if (e->in_table)
                cache_count(c, e, -1);
        entry_drop_variants(e);
        for (int i = 0; i < _ENCODING_MAX; i++) {
                e->variants[i] = TAKE_PTR(variants[i]);
                if (e->variants[i])
                        e->available |= 1u << i;
        }
        if (e->in_table)
                cache_count(c, e, 1);
}

static int entry_path(const FileCache *c, const FileEntry *e, bool *ret_index, char path[static PATH_MAX]) {
        int n;

        *ret_index = e->key_size == 0 || e->key[e->key_size - 1] == '/';
        n = snprintf(path, PATH_MAX, "%s%s", e->key, *ret_index ? c->settings.index : "");
        return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int entry_load(FileCache *c, FileEntry *e, int64_t now) {
        FileVariant *variants[_ENCODING_MAX] = { NULL };
        Opened files[_ENCODING_MAX];
        char path[PATH_MAX];
        bool is_index;
        int r;

        for (int i = 0; i < _ENCODING_MAX; i++)
                files[i].fd = -EBADF;
        r = entry_path(c, e, &is_index, path);
        if (r == 0)
                r = open_all(c, e, path, is_index, files);
        if (r == 0)
                r = make_variants(c, e, path, files, now, variants);
        close_all(files);
        if (r == 0)
                entry_set_variants(c, e, variants);
        for (int i = 0; i < _ENCODING_MAX; i++)
                file_variant_unref(variants[i]);
        return r;
}

static void entry_free(FileEntry *e) {
        entry_drop_variants(e);
        free(e);
}

static void cache_evict(FileCache *c, FileEntry *e) {
        FileEntry **p = &c->buckets[e->hash & (c->n_buckets - 1)];

        while (*p != e)
                p = &(*p)->next;
        *p = e->next;
        list_remove(&e->node);
        cache_count(c, e, -1);
        entry_free(e);
}

/* The one that has not been used for the longest time; NULL: there is none. */
static FileEntry *cache_oldest(const FileCache *c) {
        return list_empty(&c->used) ? NULL : list_entry(c->used.next, FileEntry, node);
}

static void cache_sweep(FileCache *c, uint64_t now) {
        FileEntry *e;

        for (int i = 0; i < SWEEP_MAX && (e = cache_oldest(c)) && e->used + FILE_CACHE_UNUSED_USEC < now;
                        i++)
                cache_evict(c, e);
}

/* Never the one that has just been used, which is the last. */
static void cache_trim(FileCache *c) {
        while ((c->n_files > c->settings.max_files || c->memory > FILE_CACHE_MEMORY_MAX) &&
                        c->used.next != c->used.prev)
                cache_evict(c, cache_oldest(c));
}

static uint64_t hash_key(const char *p, size_t n) {
        const uint64_t k = UINT64_C(0x9E3779B97F4A7C15); /* 2^64 divided by the golden ratio */
        uint64_t h = n * k, v;

        for (; n >= sizeof(v); p += sizeof(v), n -= sizeof(v)) {
                memcpy(&v, p, sizeof(v));
                h = (h ^ v) * k;
                h ^= h >> 32;
        }
        for (v = 0; n > 0; n--)
                v = v << 8 | (unsigned char) *p++;
        h = (h ^ v) * k;
        return h ^ h >> 32;
}

static FileEntry *cache_lookup(const FileCache *c, const char *key, size_t n, uint64_t hash) {
        FileEntry *e = c->buckets ? c->buckets[hash & (c->n_buckets - 1)] : NULL;

        while (e && (e->hash != hash || e->key_size != n || memcmp(e->key, key, n) != 0))
                e = e->next;
        return e;
}

static void cache_use(FileCache *c, FileEntry *e, uint64_t now) {
        e->used = now;
        if (c->used.prev == &e->node)
                return;
        list_remove(&e->node);
        list_append(&c->used, &e->node);
}

/* It stays the caller's when there is no room for it. */
static void cache_insert(FileCache *c, FileEntry *e) {
        FileEntry **bucket;

        if ((unsigned) __builtin_popcount(e->available) > c->settings.max_files)
                return;
        if (!c->buckets) {
                size_t n = 64;

                while (n < c->settings.max_files)
                        n *= 2;
                c->buckets = calloc(n, sizeof(*c->buckets));
                if (!c->buckets)
                        return;
                c->n_buckets = n;
        }
        bucket = &c->buckets[e->hash & (c->n_buckets - 1)];
        e->next = *bucket;
        *bucket = e;
        e->in_table = true;
        list_append(&c->used, &e->node);
        cache_count(c, e, 1);
}

static FileEntry *entry_new(const char *key, size_t n, uint64_t hash) {
        FileEntry *e = calloc(1, sizeof(*e) + n + 1);

        if (!e)
                return NULL;
        list_init(&e->node);
        e->hash = hash;
        e->key_size = n;
        memcpy(e->key, key, n);
        return e;
}

static bool cache_evict_some(FileCache *c, const FileEntry *except) {
        bool gave = false;
        FileEntry *e;

        for (int i = 0; i < LACK_EVICT && (e = cache_oldest(c)) && e != except; i++) {
                cache_evict(c, e);
                gave = true;
        }
        return gave;
}

bool file_cache_give_way(FileCache *c) {
        return cache_evict_some(c, NULL);
}

/* What has just been changed may be changed again, with time stamps too coarse to tell and people who look
 * at once whether it is there: it is compared at each use. So is what comes from the future, the
 * Last-Modified of which is the time of the answer. */
static bool entry_is_settled(const FileEntry *e, int64_t now) {
        for (int i = 0; i < _ENCODING_MAX; i++) {
                const FileVariant *v = e->variants[i];

                if (v && MAX(v->stamp.modified.tv_sec, v->stamp.changed.tv_sec) >= now - SETTLED_SECONDS)
                        return false;
        }
        return true;
}

FileEntry *file_cache_find(FileCache *c, const char *key, size_t n, uint64_t now) {
        FileEntry *e;

        cache_sweep(c, now);
        e = cache_lookup(c, key, n, hash_key(key, n));
        if (!e || e->valid_until <= now)
                return NULL;
        cache_use(c, e, now);
        return e;
}

static int cache_renew(FileCache *c, FileEntry *e, uint64_t now, int64_t seconds) {
        int r;

        do /* the descriptors that are lacking may be ours */
                r = entry_load(c, e, seconds);
        while ((r == 0 ? e->lacks : is_lack(r)) && cache_evict_some(c, e));
        if (r != 0)
                return r;
        e->valid_until = !e->lacks && entry_is_settled(e, seconds) ? now + c->settings.valid_usec : now;
        if (!e->in_table)
                cache_insert(c, e);
        if (e->in_table) {
                cache_use(c, e, now);
                cache_trim(c);
        }
        return 0;
}

int file_cache_get(FileCache *c, const char *key, size_t n, uint64_t now, int64_t seconds, FileEntry **ret) {
        uint64_t hash = hash_key(key, n);
        FileEntry *e;
        int r;

        cache_sweep(c, now);
        e = cache_lookup(c, key, n, hash);
        if (e)
                cache_use(c, e, now); /* it must not be among those that give way */
        else
                e = entry_new(key, n, hash);
        if (!e)
                return -ENOMEM;
        r = e->valid_until > now ? 0 : cache_renew(c, e, now, seconds);
        if (r == 0)
                *ret = e;
        else if (e->in_table)
                cache_evict(c, e);
        else
                entry_free(e);
        return r;
}

void file_cache_release(FileCache *c, FileEntry *e) {
        if (e && !e->in_table)
                entry_free(e);
}

void file_cache_init(FileCache *c, FileRoot *root, const FileCacheSettings *settings) {
        *c = (FileCache){
                .root = root,
                .settings = *settings,
                .mime = MIME_TABLE_INIT(settings->mime_types),
        };
        list_init(&c->used);
}

void file_cache_done(FileCache *c) {
        FileEntry *e;

        while ((e = cache_oldest(c)))
                cache_evict(c, e);
        free(c->buckets);
        c->buckets = NULL;
        mime_table_done(&c->mime);
}

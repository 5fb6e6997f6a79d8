/* SPDX-License-Identifier: MIT */
#pragma once

/* Files that are asked for again and again: open, with their fields as they go on the wire, the content of
 * small ones in memory, and with what lies beside them compressed.
 *
 * An entry is taken as it is for a while (valid_usec) and then compared with the file of that name: one that
 * is the same keeps what it has; one that was changed a moment ago is compared at each use. What is not
 * there is not remembered, or anybody could fill the cache with names, and a file that is put there would
 * not be seen at once. Nothing here needs a timer: what nobody has asked for in FILE_CACHE_UNUSED_USEC is
 * let go of when something else is asked for. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "basic/clock.h"
#include "basic/list.h"
#include "http/encoding.h"
#include "http/file.h"
#include "http/mime.h"
#include "http/response.h"

/* Of a file up to the one the content is kept, in all of them together up to the other. */
#define FILE_CACHE_CONTENT_MAX (16 * 1024)
#define FILE_CACHE_MEMORY_MAX  (8 * 1024 * 1024)

#define FILE_CACHE_UNUSED_USEC (10 * USEC_PER_SEC)

/* By which it is seen that a file is not the one that it was. */
typedef struct FileStamp {
        dev_t device;
        ino_t inode;
        struct timespec modified, changed;
        off_t size;
} FileStamp;

/* One representation of a file: as it is, or compressed. Counted; what is sent from its descriptor holds a
 * reference, so that it may leave the cache meanwhile. */
typedef struct FileVariant {
        FileHold hold;
        unsigned n_refs;
        int fd;              /* -EBADF: the content is in memory */
        const char *content; /* NULL: it is to be read from fd */
        uint64_t seen;       /* when the descriptor was last looked at */
        uint64_t size;
        int64_t modified; /* in seconds */
        FileStamp stamp;
        bool varies; /* there are others: told by Vary */
        bool ahead;  /* it comes from the future: what is said of its time is true for a moment */
        char etag[FILE_ETAG_MAX + 8];

        /* Content-Type, first of all; what else belongs to the content; from kept_at on what an answer
         * without it has as well (RFC 9110, section 15.4.5). */
        const char *fields;
        uint32_t fields_size;
        uint32_t type_size;
        uint32_t kept_at;
} FileVariant;

typedef struct FileEntry FileEntry;

struct FileEntry {
        FileEntry *next; /* of the same bucket */
        List node;       /* in the order of their use */
        uint64_t hash;
        uint64_t valid_until, used;
        bool in_table;      /* else it is the caller's */
        bool lacks;         /* no descriptor was left for what may lie beside the file */
        unsigned available; /* set of Encoding; never without identity */
        FileVariant *variants[_ENCODING_MAX];
        size_t key_size;
        char key[];
};

typedef struct FileCacheSettings {
        unsigned max_files;        /* variants; 0: nothing is kept */
        uint64_t valid_usec;       /* 0: every use is a comparison */
        const char *index;         /* of a directory; all strings are borrowed */
        bool precompressed;        /* look for what lies beside a file */
        const char *cache_control; /* NULL or empty: none */
        const char *mime_types;    /* the system's table; NULL: none */
} FileCacheSettings;

typedef struct FileCache {
        FileRoot *root; /* borrowed */
        FileCacheSettings settings;
        MimeTable mime;
        FileEntry **buckets; /* allocated for the first entry */
        size_t n_buckets;
        List used; /* the one that was used last is the last */
        unsigned n_files;
        size_t memory;
} FileCache;

void file_cache_init(FileCache *c, FileRoot *root, const FileCacheSettings *settings);
void file_cache_done(FileCache *c);

/* The entry of a key if it is there and still valid; NULL otherwise. A key is a path relative to the root,
 * without "." or ".." or empty components; it ends in a slash, or is "", for the index of a directory. */
FileEntry *file_cache_find(FileCache *c, const char *key, size_t n, uint64_t now);

/* Outcome of file_cache_get(): a directory, and the key does not end in a slash. */
#define FILE_CACHE_DIRECTORY 1

/* As file_cache_find(), but makes or renews the entry. @seconds is the time of day. -ENODEV: it is no
 * regular file; other errors are those of opening it. The entry is valid until the next call, or its
 * release. */
int file_cache_get(FileCache *c, const char *key, size_t n, uint64_t now, int64_t seconds, FileEntry **ret);

/* Descriptors lack: lets go of some entries. Returns whether there were any. */
bool file_cache_give_way(FileCache *c);

/* The caller is done with an entry; variants to which it has a reference stay. */
void file_cache_release(FileCache *c, FileEntry *e);

/* Whether what is sent from the descriptor is what the fields say. It is looked at once in a moment. */
bool file_variant_is_current(FileVariant *v, uint64_t now);

FileVariant *file_variant_ref(FileVariant *v);
FileVariant *file_variant_unref(FileVariant *v);

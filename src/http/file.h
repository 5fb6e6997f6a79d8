/* SPDX-License-Identifier: MIT */
#pragma once

/* Files below one directory. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* Which symbolic links are followed: those that stay beneath the root, or none. */
typedef enum FileLinks {
        FILE_LINKS_BENEATH,
        FILE_LINKS_NONE,
} FileLinks;

/* How a path is kept beneath the root. openat2(2) resolves it in the kernel, with links as wanted. The walk
 * opens one component after the other and follows no link at all; it is for where a seccomp filter has taken
 * openat2 away (RestrictSUIDSGID=, and so DynamicUser=, does that). */
typedef enum FileResolver {
        FILE_RESOLVER_AUTO, /* openat2 until it turns out not to be there */
        FILE_RESOLVER_OPENAT2,
        FILE_RESOLVER_WALK,
} FileResolver;

typedef struct FileRoot {
        int fd; /* O_PATH will do; borrowed */
        FileResolver resolver;
        FileLinks links;
} FileRoot;

/* Opens @path for reading, whatever it is. Never blocks on a FIFO. -EXDEV or -ELOOP when it leads out of the
 * root, or over a link where links are not followed. "" is the root itself. */
int file_open_beneath(FileRoot *root, const char *path, int *ret_fd);

/* The quoted entity tag: changes whenever the time stamp (in ns) or the size does. */
#define FILE_ETAG_MAX 40
void file_etag(const struct stat *st, char ret[static FILE_ETAG_MAX]);

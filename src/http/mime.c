/* SPDX-License-Identifier: MIT */
/* Media types; see mime.h. Text is declared as UTF-8: everything else has been rare for a decade. */

#include "http/mime.h"

#include <string.h>
#include <strings.h>

#include "basic/macro.h"

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

const char *mime_from_path(const char *path) {
        const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');

        /* A name that only begins with a dot has no extension. */
        if (dot && dot > name)
                for (size_t i = 0; i < ELEMENTSOF(types); i++)
                        if (strcasecmp(dot + 1, types[i].extension) == 0)
                                return types[i].type;
        return "application/octet-stream";
}

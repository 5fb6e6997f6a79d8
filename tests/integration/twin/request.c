/* SPDX-License-Identifier: MIT */
#include "request.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "content.h"

#define MEMORY_MAX (64 * 1024)
#define STREAM_MAX (512 * 1024)

/* The small ones more often. */
static const uint32_t file_sizes[] = { 1024, 1024, 1024, 1024, 4096, 4096, 10000, 10000, 65536, 65536,
        262144, 262144, 1048576, 10485760 };
#define N_FILES (sizeof(file_sizes) / sizeof(*file_sizes))

uint64_t random_next(Random *r) {
        r->state ^= r->state >> 12;
        r->state ^= r->state << 25;
        r->state ^= r->state >> 27;
        return r->state * UINT64_C(0x2545F4914F6CDD1D);
}

uint64_t random_below(Random *r, uint64_t n) {
        return (random_next(r) >> 11) % n;
}

bool random_chance(Random *r, unsigned percent) {
        return random_below(r, 100) < percent;
}

uint64_t random_size(Random *r, uint64_t max) {
        unsigned bits = 0;

        while (max >> bits > 0)
                bits++;
        bits = (unsigned) random_below(r, bits + 1);
        return random_below(r, (UINT64_C(1) << bits < max ? UINT64_C(1) << bits : max) + 1);
}

bool mix_parse(Mix *m, const char *text) {
        *m = (Mix){};
        while (*text) {
                char name[16];
                unsigned weight;
                int n = 0, kind = 0;

                if (sscanf(text, "%15[a-z]:%u%n", name, &weight, &n) != 2)
                        return false;
                while (kind < _KIND_MAX && strcmp(kind_name(kind), name) != 0)
                        kind++;
                if (kind == _KIND_MAX)
                        return false;
                m->weights[kind] = weight;
                text += n;
                text += *text == ',';
        }
        return true;
}

static bool kind_is_safe(Kind kind) {
        return kind != KEYED && kind != UNKEYED;
}

/* Of a static site there are files alone. */
static bool kind_is_possible(Kind kind, bool is_static, bool safe) {
        if (is_static)
                return kind == FILE_ || kind == HEAD || kind == RANGE;
        return kind != RANGE && (!safe || kind_is_safe(kind));
}

static Kind choose_kind(Random *rng, const Mix *mix, bool is_static, bool safe) {
        unsigned total = 0;
        uint64_t at;

        for (Kind k = 0; k < _KIND_MAX; k++)
                if (kind_is_possible(k, is_static, safe))
                        total += mix->weights[k];
        if (total == 0)
                return is_static ? FILE_ : MEMORY;
        at = random_below(rng, total);
        for (Kind k = 0; k < _KIND_MAX; k++) {
                if (!kind_is_possible(k, is_static, safe))
                        continue;
                if (at < mix->weights[k])
                        return k;
                at -= mix->weights[k];
        }
        abort();
}

/* Text */

static void *text_room(Text *t, size_t n) {
        if (t->size - t->n < n) {
                t->size = 2 * t->size + n;
                t->data = realloc(t->data, t->size);
                if (!t->data)
                        abort();
        }
        return t->data + t->n;
}

__attribute__((format(printf, 2, 3))) static void text_add(Text *t, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        t->n += (size_t) vsnprintf(text_room(t, 512), 512, format, ap);
        va_end(ap);
}

static void text_add_content(Text *t, uint64_t key, uint64_t offset, size_t n) {
        content_fill(key, offset, text_room(t, n), n);
        t->n += n;
}

/* Requests */

static void add_target(Request *r, Random *rng, Text *out) {
        /* Far less than the time between two kills: what is begun anew after each would take long else. */
        unsigned usec = random_chance(rng, 70) ? (unsigned) random_below(rng, 5000) : 0;
        unsigned piece = 1 + (unsigned) random_size(rng, 32768);

        r->key = r->id;
        switch (r->kind) {
        case FILE_:
        case RANGE:
                r->size = r->whole = r->key = file_sizes[random_below(rng, N_FILES)];
                text_add(out, "/f/%" PRIu64 "?id=%016" PRIx64, r->size, r->id);
                break;
        case DEFERRED:
                r->size = random_size(rng, MEMORY_MAX);
                text_add(out, "/m?id=%016" PRIx64 "&n=%" PRIu64 "&usec=%u", r->id, r->size, usec);
                break;
        case THREADED:
                r->size = random_size(rng, MEMORY_MAX);
                text_add(out, "/m?id=%016" PRIx64 "&n=%" PRIu64 "&thread=1", r->id, r->size);
                break;
        case STREAM:
        case SIZED:
        case BARE:
                r->size = random_size(rng, STREAM_MAX);
                text_add(out, "/s?id=%016" PRIx64 "&n=%" PRIu64 "&piece=%u&%s=1", r->id, r->size, piece,
                                kind_name(r->kind));
                break;
        case TIMED: /* about twenty pieces */
                r->size = random_size(rng, STREAM_MAX / 4);
                piece = 1 + (unsigned) (r->size / (1 + random_below(rng, 30)));
                text_add(out, "/s?id=%016" PRIx64 "&n=%" PRIu64 "&piece=%u&usec=%u", r->id, r->size, piece,
                                1 + usec / 4);
                break;
        default:
                r->size = random_chance(rng, 2) ? 16 * MEMORY_MAX : random_size(rng, MEMORY_MAX);
                text_add(out, "/m?id=%016" PRIx64 "&n=%" PRIu64, r->id, r->size);
        }
}

/* HEAD is asked of this and that. */
static void choose_head(Request *r, Random *rng, bool is_static) {
        static const Kind kinds[] = { FILE_, MEMORY, STREAM, SIZED };

        if (r->kind == HEAD) {
                r->head = true;
                r->kind = kinds[random_below(rng, is_static ? 1 : 4)];
        }
}

static void add_range(Request *r, Random *rng, Text *out) {
        uint64_t first = random_below(rng, r->whole), n = 1 + random_size(rng, r->whole - first - 1);

        r->offset = first;
        r->size = n;
        text_add(out, "Range: bytes=%" PRIu64 "-%" PRIu64 "\r\n", first, first + n - 1);
}

static void make_get(Request *r, Random *rng, bool is_static, Text *out) {
        choose_head(r, rng, is_static);
        text_add(out, r->head ? "HEAD " : "GET ");
        add_target(r, rng, out);
        text_add(out, " HTTP/1.%c\r\nHost: twin\r\n", r->old ? '0' : '1');
        if (r->kind == RANGE)
                add_range(r, rng, out);
        if (r->last != r->old)
                text_add(out, "Connection: %s\r\n", r->last ? "close" : "keep-alive");
        if (random_chance(rng, 10))
                text_add(out, "X-Filler: %0*d\r\n", 1 + (int) random_below(rng, 400), 0);
        text_add(out, "\r\n");
        r->gate = out->n;
}

static void add_chunks(Request *r, Random *rng, uint64_t n, Text *out) {
        for (uint64_t at = 0; at < n;) {
                uint64_t k = 1 + random_size(rng, 65536);

                if (k > n - at)
                        k = n - at;
                text_add(out, "%" PRIx64 "%s\r\n", k, random_chance(rng, 5) ? ";a=b" : "");
                text_add_content(out, ~r->id, at, k);
                text_add(out, "\r\n");
                at += k;
        }
        text_add(out, random_chance(rng, 10) ? "0\r\nX-Sum: 1\r\n\r\n" : "0\r\n\r\n");
}

/* Its body is read, and the effect made, in one of several ways. */
static void make_post(Request *r, Random *rng, Text *out) {
        static const char *const ways[] = { "now", "now", "before", "after", "thread" };
        uint64_t n = random_chance(rng, 10) ? 0 : random_size(rng, BODY_MAX);
        bool chunked = random_chance(rng, 40);

        r->old = false;
        r->expects = n > 0 && random_chance(rng, 15);
        r->key = r->id;
        r->size = random_size(rng, MEMORY_MAX / 16);
        text_add(out,
                        "POST /%s?id=%016" PRIx64 "&n=%" PRIu64 "&body=%" PRIu64
                        "&how=%s&read=%d HTTP/1.1\r\n",
                        kind_name(r->kind), r->id, r->size, n, ways[random_below(rng, 5)],
                        random_chance(rng, 50));
        text_add(out, "Host: twin\r\n");
        if (r->last)
                text_add(out, "Connection: close\r\n");
        if (r->expects)
                text_add(out, "Expect: 100-continue\r\n");
        if (chunked)
                text_add(out, "Transfer-Encoding: chunked\r\n\r\n");
        else
                text_add(out, "Content-Length: %" PRIu64 "\r\n\r\n", n);
        r->gate = out->n;
        if (chunked)
                add_chunks(r, rng, n, out);
        else
                text_add_content(out, ~r->id, 0, n);
}

void request_make(Request *r, Random *rng, const Mix *mix, uint64_t id, bool is_static, bool last, bool safe,
                Text *out) {
        *r = (Request){
                .id = id,
                .kind = choose_kind(rng, mix, is_static, safe),
                .last = last,
                .old = random_chance(rng, 5),
        };
        if (kind_is_safe(r->kind))
                make_get(r, rng, is_static, out);
        else
                make_post(r, rng, out);
        r->end = out->n;
}

/* Files */

static int make_file(int dir, uint32_t size) {
        char name[16], block[65536];
        int fd;

        snprintf(name, sizeof(name), "%u", size);
        fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0)
                return -errno;
        for (uint32_t at = 0; at < size;) {
                uint32_t n = size - at < sizeof(block) ? size - at : (uint32_t) sizeof(block);

                content_fill(size, at, block, n);
                if (write(fd, block, n) != (ssize_t) n)
                        return -EIO;
                at += n;
        }
        close(fd);
        return 0;
}

int request_make_files(const char *directory) {
        int r = 0, dir, f;

        dir = open(directory, O_DIRECTORY | O_CLOEXEC);
        if (dir < 0 || (mkdirat(dir, "f", 0755) < 0 && errno != EEXIST))
                return -errno;
        f = openat(dir, "f", O_DIRECTORY | O_CLOEXEC);
        for (size_t i = 0; i < N_FILES && r >= 0; i++)
                r = make_file(f, file_sizes[i]);
        close(f);
        close(dir);
        return r;
}

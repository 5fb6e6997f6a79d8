/* SPDX-License-Identifier: MIT */
/* The lines of a channel, out of a stream that is cut in any way.
 *
 * The first byte decides how the stream is cut into reads, the second how long a line may be. Beyond not
 * crashing: the lines are those of the stream however it is cut, with their offsets; there is no more memory
 * than a line may have; what a line is said to carry is JSON and lies inside of it, and means the same in an
 * envelope. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "fuzz.h"
#include "ipc/line-buffer.h"
#include "ipc/wire.h"
#include "muster/channel.h"

#define BUFFER_SIZE (64 * 1024)

typedef struct Fuzz {
        const char *stream;
        size_t size;
        size_t fed;
        size_t next; /* where the next line begins that is to be handed out */
        uint32_t random;
} Fuzz;

static void check(bool condition) {
        if (!condition)
                abort();
}

static uint32_t fuzz_next(Fuzz *f, uint32_t n) {
        f->random = f->random * 1664525 + 1013904223;
        return (f->random >> 8) % n;
}

/* Without white space around it, which is no part of a value in an envelope. */
static bool is_trimmed(JsonSpan s) {
        return s.n > 0 && !strchr(" \t\r", s.p[0]) && !strchr(" \t\r", s.p[s.n - 1]);
}

/* In an allocation of the very size, so that a sanitizer sees a read beyond it. */
static char *copy_exactly(const char *p, size_t n) {
        char *copy = malloc(n > 0 ? n : 1);

        check(copy != NULL);
        memcpy(copy, p, n);
        return copy;
}

static void check_envelope(JsonSpan message, int type) {
        WireEnvelope e = wire_envelope(type, message.n % 2);
        size_t head = strlen(e.head), tail = strlen(e.tail);
        char *line = malloc(head + message.n + tail);
        WireLine w;

        check(line && head + tail <= WIRE_ENVELOPE_MAX);
        memcpy(line, e.head, head);
        memcpy(line + head, message.p, message.n);
        memcpy(line + head + message.n, e.tail, tail);
        check(wire_parse(line, head + message.n + tail, &w) == 0);
        check(w.kind == WIRE_HANDLE && w.handle_type == type);
        check(w.message.p >= line + head && w.message.n <= message.n);
        if (is_trimmed(message))
                check(w.message.n == message.n && memcmp(w.message.p, message.p, message.n) == 0);
        free(line);
}

static void check_line(const char *text, size_t n) {
        _cleanup_free_ char *copy = copy_exactly(text, n);
        JsonMember type = { .name = "type" };
        char shown[32];
        WireLine w;
        int r;

        r = wire_parse(copy, n, &w);
        check(r == 0 || r == -EBADMSG);
        if (r < 0)
                return;
        check(!memchr(w.message.p, '\n', w.message.n) && !memchr(w.message.p, '\0', w.message.n));
        check(json_scan(w.message.p, w.message.n, NULL, 0) == 0);
        check((w.handle_type != MUSTER_HANDLE_NONE) == (w.kind == WIRE_HANDLE));
        if (w.kind != WIRE_HANDLE)
                check(w.message.p == copy && w.message.n == n);
        else if (w.message.p < copy || w.message.p >= copy + n)
                check(w.message.n == 4 && memcmp(w.message.p, "null", 4) == 0);
        else
                check(w.message.p + w.message.n <= copy + n);
        check_envelope(w.message, MUSTER_HANDLE_NET_SERVER + (int) (n % 5));

        (void) json_scan_frame(copy, n, &type, 1);
        if (json_span_to_text(type.value, shown, sizeof(shown)))
                check(memchr(shown, '\0', sizeof(shown)) && strlen(shown) <= type.value.n);
}

static void check_lines(Fuzz *f, LineBuffer *b) {
        uint64_t offset;
        char *line;
        size_t n;

        while (line_buffer_next(b, &line, &n, &offset)) {
                check(offset == f->next && f->next + n < f->fed);
                check(memcmp(line, f->stream + f->next, n) == 0 && line[n] == '\0');
                check(f->stream[f->next + n] == '\n' && !memchr(line, '\n', n));
                f->next += n + 1;
                check_line(line, n);
        }
        check(!memchr(f->stream + f->next, '\n', f->fed - f->next));
        check(line_buffer_partial(b) == (f->fed > f->next));
        check(line_buffer_received(b) == f->fed);
}

static void check_last_begin(const Fuzz *f, const LineBuffer *b, size_t n) {
        uint64_t offset = 0;
        size_t i = f->fed;

        while (i > f->fed - n && i != 1 && f->stream[i - 2] != '\n')
                i--;
        check(line_buffer_last_begin(b, n, &offset) == (i > f->fed - n));
        if (i > f->fed - n)
                check(offset == i - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        LineBuffer b = { .max_line = 0 };
        Fuzz f = { .random = 0 };
        char *room;
        size_t n;

        if (size < 2)
                return 0;
        f = (Fuzz){ .stream = (const char *) data + 2, .size = size - 2, .random = data[0] };
        b.max_line = (size_t) data[1] * data[1];
        uint32_t step = 1 + (uint32_t) data[0] % 61;
        while (f.fed < f.size) {
                int r = line_buffer_reserve(&b, &room, &n);
                check(r == 0 || (r == -EMSGSIZE && f.fed - f.next > b.max_line));
                if (r < 0)
                        break;
                check(n > 0 && f.fed - f.next <= b.max_line);
                check(b.size <= MAX(b.max_line + 2, (size_t) BUFFER_SIZE));
                size_t wanted = 1 + fuzz_next(&f, step);
                n = MIN(MIN(n, wanted), f.size - f.fed);
                memcpy(room, f.stream + f.fed, n);
                line_buffer_add(&b, n);
                f.fed += n;
                check_last_begin(&f, &b, n);
                check_lines(&f, &b);
        }
        line_buffer_done(&b);
        return 0;
}

/* SPDX-License-Identifier: MIT */
/* A chunked body, in one go, byte by byte and in pieces of any size: the outcome, the data and the trailers
 * are the same.
 *
 * And the same as those of a second reading, which is as plain as the grammar and knows nothing of states:
 * it needs the body as a whole, and finds out whether it is complete and right, or anything else. */

#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "fuzz.h"
#include "http/chunked.h"

#define INPUT_MAX 65536

typedef struct Body {
        Chunked chunked;
        size_t used, n_data, n_trailers;
        char data[INPUT_MAX], trailers[INPUT_MAX];
} Body;

static void check(bool condition) {
        if (!condition)
                abort();
}

static void body_reset(Body *b) {
        b->chunked = (Chunked){ 0 };
        b->used = b->n_data = b->n_trailers = 0;
}

static void body_take(Body *b, const ChunkedPiece *piece) {
        char *to = piece->is_trailer ? b->trailers : b->data;
        size_t *n = piece->is_trailer ? &b->n_trailers : &b->n_data;

        if (piece->size > 0)
                memcpy(to + *n, piece->data, piece->size);
        *n += piece->size;
}

static int body_decode(Body *b, const char *buf, size_t n, uint64_t max) {
        int r = PARSER_MORE;

        for (size_t i = 0, used; i < n && r == PARSER_MORE; i += used) {
                ChunkedPiece piece;

                r = chunked_decode(&b->chunked, buf + i, n - i, max, &used, &piece);
                if (r >= 400) {
                        check(r == 400 || r == 413 || r == 431);
                        return r;
                }
                check(used > 0 && used <= n - i);
                check(piece.size == 0 ||
                                (piece.data >= buf + i && piece.data + piece.size == buf + i + used));
                b->used += used;
                body_take(b, &piece);
        }
        return r;
}

static int body_decode_pieces(Body *b, const char *buf, size_t n, size_t step) {
        int r = PARSER_MORE;

        for (size_t i = 0, k; i < n && r == PARSER_MORE; i += k) {
                k = MIN(n - i, step);
                step = step > 1 ? step * 7 % 61 + 1 : 1;
                r = body_decode(b, buf + i, k, UINT64_MAX);
        }
        return r;
}

/* The second reading: each takes what it is named after, or gives false. */
typedef struct Text {
        const char *p, *end;
} Text;

static bool is_token(char c) {
        return c &&
               strchr("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", c);
}

static bool is_text(char c) {
        unsigned char u = (unsigned char) c;

        return c == '\t' || (u >= ' ' && u != 127);
}

static bool take(Text *t, const char *word) {
        size_t n = strlen(word);

        if ((size_t) (t->end - t->p) < n || memcmp(t->p, word, n) != 0)
                return false;
        t->p += n;
        return true;
}

static bool take_token(Text *t) {
        const char *begin = t->p;

        while (t->p < t->end && is_token(*t->p))
                t->p++;
        return t->p > begin;
}

static bool take_quoted(Text *t) {
        if (!take(t, "\""))
                return false;
        while (t->p < t->end && *t->p != '"') {
                if (*t->p == '\\')
                        t->p++;
                if (t->p == t->end || !is_text(*t->p))
                        return false;
                t->p++;
        }
        return take(t, "\"");
}

static bool take_size_line(Text *t, uint64_t *ret) {
        int n = 0;

        for (*ret = 0; t->p < t->end && *t->p && strchr("0123456789abcdefABCDEF", *t->p); t->p++, n++) {
                char digit[] = { *t->p, '\0' };

                *ret = *ret * 16 + strtoul(digit, NULL, 16);
        }
        if (n < 1 || n > 16)
                return false;
        while (take(t, ";"))
                if (!take_token(t) || (take(t, "=") && !take_token(t) && !take_quoted(t)))
                        return false;
        return take(t, "\r\n");
}

static bool take_trailer(Text *t) {
        if (!take_token(t) || !take(t, ":"))
                return false;
        while (t->p < t->end && is_text(*t->p))
                t->p++;
        return take(t, "\r\n");
}

/* The size of the body, 0 when it is not complete or not right. */
static size_t read_again(const char *buf, size_t n, Body *b) {
        Text t = { buf, buf + n };

        for (uint64_t left = 1; left > 0;) {
                if (!take_size_line(&t, &left) || left > (uint64_t) (t.end - t.p))
                        return 0;
                body_take(b, &(ChunkedPiece){ .data = t.p, .size = left });
                t.p += left;
                if (left > 0 && !take(&t, "\r\n"))
                        return 0;
        }
        while (!take(&t, "\r\n")) {
                const char *line = t.p;

                if (!take_trailer(&t))
                        return 0;
                body_take(b, &(ChunkedPiece){ .data = line,
                                             .size = (size_t) (t.p - line),
                                             .is_trailer = true });
        }
        return (size_t) (t.p - buf);
}

static void check_equal(const Body *a, const Body *b) {
        check(a->n_data == b->n_data && memcmp(a->data, b->data, a->n_data) == 0);
        check(a->n_trailers == b->n_trailers && memcmp(a->trailers, b->trailers, a->n_trailers) == 0);
}

/* Every line is one field, and nothing but that. */
static void check_trailers(const Body *b) {
        size_t i = 0, n = 0;
        HttpField f;

        while (chunked_next_trailer(b->trailers, b->n_trailers, &i, &f)) {
                check(f.name.length > 0 && f.name.offset == n && f.value.offset + f.value.length <= i);
                check(!memchr(b->trailers + f.value.offset, '\r', f.value.length));
                n = i;
        }
        check(n == b->n_trailers);
}

/* A limit makes a difference only where the data exceed it, and then it is kept. */
static void check_limit(const char *buf, size_t n, uint64_t max, int r, size_t n_data) {
        static Body b;
        int r2;

        body_reset(&b);
        r2 = body_decode(&b, buf, n, max);
        check(b.n_data <= max && (r2 == 413 || r2 == r));
        check(r != PARSER_DONE || (r2 == 413) == (n_data > max));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const size_t steps[] = { 1, 2, 7, 30 };
        static Body whole, pieces, again;
        const char *buf = (const char *) data;
        int r;

        if (size > INPUT_MAX)
                return 0;
        body_reset(&whole);
        r = body_decode(&whole, buf, size, UINT64_MAX);
        for (size_t i = 0; i < ELEMENTSOF(steps); i++) {
                body_reset(&pieces);
                check(body_decode_pieces(&pieces, buf, size, steps[i]) == r);
                if (r < 400) {
                        check(memcmp(&whole.chunked, &pieces.chunked, sizeof(Chunked)) == 0);
                        check(whole.used == pieces.used);
                        check_equal(&whole, &pieces);
                }
        }
        body_reset(&again);
        size_t k = read_again(buf, size, &again);
        if (r == PARSER_DONE) {
                check(k == whole.used && whole.chunked.total == k && whole.chunked.size == whole.n_data);
                check_equal(&whole, &again);
                check_trailers(&whole);
        } else
                check(k == 0 || whole.chunked.n_extensions > CHUNKED_EXTENSIONS_MAX || r == 431);
        check_limit(buf, size, 64, r, whole.n_data);
        check_limit(buf, size, 0, r, whole.n_data);
        return 0;
}

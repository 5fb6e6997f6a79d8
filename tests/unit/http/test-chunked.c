/* SPDX-License-Identifier: MIT */
#include "http/chunked.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "basic/macro.h"
#include "http/parser.h"

#define BODY_MAX 1000

/* A body as a caller sees it. */
typedef struct Body {
        Chunked chunked;
        size_t used, n_data, n_trailers, n_pieces;
        char data[32 * 1024];
        char trailers[CHUNKED_TRAILERS_MAX];
} Body;

static Body body, pieces;

/* Goes on with the @n bytes at @s. */
static int decode_more(Body *b, const char *s, size_t n, uint64_t max) {
        int r = PARSER_MORE;

        for (size_t i = 0, used; i < n && r == PARSER_MORE; i += used) {
                ChunkedPiece piece;

                r = chunked_decode(&b->chunked, s + i, n - i, max, &used, &piece);
                if (r >= 400)
                        return r;
                assert_in_range(used, 1, n - i);
                assert_true(piece.size == 0 ||
                                (piece.data >= s + i && piece.data + piece.size == s + i + used));
                b->used += used;
                b->n_pieces += piece.size > 0;
                if (piece.size == 0)
                        continue;

                char *to = piece.is_trailer ? b->trailers : b->data;
                size_t *have = piece.is_trailer ? &b->n_trailers : &b->n_data;
                assert_true(*have + piece.size <=
                                (piece.is_trailer ? sizeof(b->trailers) : sizeof(b->data)));
                memcpy(to + *have, piece.data, piece.size);
                *have += piece.size;
        }
        return r;
}

/* The outcome of a body, which must be the same if it comes byte by byte. */
static int decode_n(const char *s, size_t n, uint64_t max) {
        int r, r2 = PARSER_MORE;

        body = pieces = (Body){ 0 };
        r = decode_more(&body, s, n, max);
        for (size_t i = 0; i < n && r2 == PARSER_MORE; i++)
                r2 = decode_more(&pieces, s + i, 1, max);
        assert_int_equal(r, r2);
        if (r < 400) {
                assert_int_equal(body.used, pieces.used);
                assert_int_equal(body.n_data, pieces.n_data);
                assert_int_equal(body.n_trailers, pieces.n_trailers);
                assert_memory_equal(body.data, pieces.data, body.n_data);
                assert_memory_equal(body.trailers, pieces.trailers, body.n_trailers);
                assert_memory_equal(&body.chunked, &pieces.chunked, sizeof(Chunked));
        }
        return r;
}

static int decode(const char *s) {
        return decode_n(s, strlen(s), BODY_MAX);
}

/* Of a chunk of one byte with @extension, and the end. */
static int decode_extension(const char *extension) {
        char text[256];

        snprintf(text, sizeof(text), "1%s\r\na\r\n0%s\r\n\r\n", extension, extension);
        return decode(text);
}

static int decode_trailer(const char *line) {
        char text[256];

        snprintf(text, sizeof(text), "0\r\n%s\r\n", line);
        return decode(text);
}

/* RFC 9112, section 7.1: the body ends behind the empty line after the trailers, and not a byte later. */
static void test_end(void **state) {
        static const struct {
                const char *text, *data, *trailers;
        } rows[] = {
                { "0\r\n\r\n", "", "" },
                { "000\r\n\r\n", "", "" },
                { "5\r\nhello\r\n0\r\n\r\n", "hello", "" },
                { "5\r\n\r\n0\r\n\r\n0\r\n\r\n", "\r\n0\r\n", "" },
                { "3\r\nabc\r\n02\r\nde\r\n0\r\n\r\n", "abcde", "" },
                { "A;name=value;x=\"y z\"\r\n0123456789\r\n0;a\r\nT: v\r\nU: w\r\n\r\n", "0123456789",
                                "T: v\r\nU: w\r\n" },
        };
        char text[128];

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                snprintf(text, sizeof(text), "%sGET", rows[i].text);
                assert_int_equal(decode(text), PARSER_DONE);
                assert_int_equal(body.used, strlen(rows[i].text));
                assert_int_equal(body.chunked.total, body.used);
                assert_int_equal(body.n_data, strlen(rows[i].data));
                assert_memory_equal(body.data, rows[i].data, body.n_data);
                assert_int_equal(body.n_trailers, strlen(rows[i].trailers));
                assert_memory_equal(body.trailers, rows[i].trailers, body.n_trailers);
        }
}

/* A chunk that is there as a whole is one piece, and nothing is copied. */
static void test_pieces(void **state) {
        static const char text[] = "5\r\nhello\r\n3\r\nabc\r\n0\r\nT: v\r\nU: w\r\n\r\n";

        assert_int_equal(decode(text), PARSER_DONE);
        assert_int_equal(body.n_pieces, 4);
        for (size_t n = 0; n < sizeof(text) - 1; n++)
                assert_int_equal(decode_n(text, n, BODY_MAX), PARSER_MORE);
}

/* RFC 9112, section 7.1: chunk-size is 1*HEXDIG and ends at once. */
static void test_size(void **state) {
        static const char *const bad[] = { "x", ";\r\n", "\r\n", " 1\r\n", "\t1\r\n", "-1\r\n", "+1\r\n",
                "0x1\r\n", "1 \r\n", "1\t\r\n", "1\n", "1\rx", "1_0\r\n", "1,\r\n", "g\r\n", "1h\r\n",
                "\n1\r\n", "\v1\r\n", "1\v\r\n", "1\f\r\n", "1\x80\r\n" };
        static const char nul[] = "1\0\r\na\r\n";

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_int_equal(decode(bad[i]), 400);
        assert_int_equal(decode_n(nul, sizeof(nul) - 1, BODY_MAX), 400);
        assert_int_equal(decode("aB\r\n"), PARSER_MORE);
        assert_int_equal(body.chunked.left, 0xAB);
}

/* No overflow: 16 digits at most, zeros count too, and of each chunk anew. */
static void test_size_digits(void **state) {
        static const char max[] = "ffffffffffffffff\r\n";

        assert_int_equal(decode_n(max, sizeof(max) - 1, UINT64_MAX), PARSER_MORE);
        assert_true(body.chunked.left == UINT64_MAX);
        assert_int_equal(decode("ffffffffffffffff\r\n"), 413);
        assert_int_equal(decode("ffffffffffffffff1\r\n"), 400);
        assert_int_equal(decode("10000000000000001\r\n"), 400);
        assert_int_equal(decode("0000000000000001\r\na\r\n0000000000000000\r\n\r\n"), PARSER_DONE);
        assert_int_equal(decode("00000000000000001\r\na\r\n"), 400);
        assert_int_equal(decode("00000000000000000\r\n\r\n"), 400);
}

/* RFC 9112, section 7.1: CRLF, and nothing else, behind the data; of what is longer or shorter nobody knows
 * where it ends. */
static void test_data_end(void **state) {
        static const char *const bad[] = { "1\r\nab", "1\r\na\n", "1\r\na\rx", "1\r\na\r\r\n",
                "1\r\na0\r\n\r\n", "1\r\na\r\n\r\n", "0\r\n\rx", "0\r\n\n", "0\r\n\r\r\n" };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_int_equal(decode(bad[i]), 400);
}

/* RFC 9112, section 7.1.1: the grammar of extensions, without white space that is called bad. */
static void test_extensions(void **state) {
        static const char *const good[] = { ";a", ";a=b", ";a=\"\"", ";a=\"b;c\\\"\td\x80\"", ";a;b=c;d",
                ";!#$%&'*+-.^_`|~9=!#$%&'*+-.^_`|~9", ";a=\"\\\\\"" };
        static const char *const bad[] = { ";", ";;", ";a;", ";a=", ";a=;b", ";=b", "; a", " ;a", ";a ",
                ";a =b", ";a= b", ";a=b c", ";a=\"", ";a=\"b\"c", ";a=\"b\" ", ";a=\"\x01\"", ";a=\"\x7f\"",
                ";a=\"\\\x01\"", ";a=b\"", ";a=b=c", ";\x80", ";a=\x80", ";a@", ";a\t", "a=b", "=b" };

        for (size_t i = 0; i < ELEMENTSOF(good); i++)
                assert_int_equal(decode_extension(good[i]), PARSER_DONE);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_int_equal(decode_extension(bad[i]), 400);
}

/* RFC 9112, section 2.2: neither a bare CR nor a bare LF ends a line of framing, wherever in it they are.
 * Recipients that disagree about this are how a second request hides in a chunk extension. ('@' is the
 * place.) */
static void test_bare_line_ends(void **state) {
        static const char *const places[] = { "@1\r\n", "1@\r\n", "1;@\r\n", "1;a@\r\n", "1;a@b\r\n",
                "1;a=@\r\n", "1;a=b@\r\n", "1;a=\"@\"\r\n", "1;a=\"\\@\"\r\n", "1;a=\"b\"@\r\n",
                "1\r\na@\r\n", "0\r\n@\r\n", "0\r\nT@: v\r\n", "0\r\nT:@\r\n", "0\r\nT: v@\r\n",
                "0\r\nT: v\r\n@\r\n" };

        for (size_t i = 0; i < ELEMENTSOF(places); i++)
                for (const char *c = "\r\n"; *c; c++) {
                        char text[64];

                        strcpy(text, places[i]);
                        *strchr(text, '@') = *c;
                        assert_int_equal(decode(text), 400);
                }
}

/* RFC 9112, section 7.1.2: trailers are fields and are read as strictly as those of a head. */
static void test_trailers(void **state) {
        static const char *const good[] = { "", "T:\r\n", "T:v\r\n", "T: \tv w\x80\t \r\nU:\r\n",
                "!#$%&'*+-.^_`|~9: v\r\n" };
        static const char *const bad[] = { " T: v\r\n", "\tT: v\r\n", "T: v\r\n w\r\n", "T: v\r\n\tw\r\n",
                "T : v\r\n", ": v\r\n", "T\r\n", "T v\r\n", "T: \x01\r\n", "T: \x7f\r\n", "T@: v\r\n",
                "\x80: v\r\n", "T: v\rxU: w\r\n" };

        for (size_t i = 0; i < ELEMENTSOF(good); i++)
                assert_int_equal(decode_trailer(good[i]), PARSER_DONE);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_int_equal(decode_trailer(bad[i]), 400);
}

static void assert_slice(const char *text, HttpSlice s, const char *expected) {
        assert_int_equal(s.length, strlen(expected));
        assert_memory_equal(text + s.offset, expected, s.length);
}

/* RFC 9110, section 5.5: white space around a value is no part of it. */
static void test_next_trailer(void **state) {
        static const char text[] = "T: \t v w\t \r\nEmpty:\r\nBlank: \r\nU:w:x\r\n";
        size_t n = sizeof(text) - 1, i = 0;
        HttpField f;

        assert_true(chunked_next_trailer(text, n, &i, &f));
        assert_slice(text, f.name, "T");
        assert_slice(text, f.value, "v w");
        assert_true(chunked_next_trailer(text, n, &i, &f));
        assert_slice(text, f.name, "Empty");
        assert_slice(text, f.value, "");
        assert_true(chunked_next_trailer(text, n, &i, &f));
        assert_slice(text, f.value, "");
        assert_true(chunked_next_trailer(text, n, &i, &f));
        assert_slice(text, f.name, "U");
        assert_slice(text, f.value, "w:x");
        assert_false(chunked_next_trailer(text, n, &i, &f));

        i = 0; /* a line that is not complete is none */
        assert_false(chunked_next_trailer(text, 3, &i, &f));
        assert_false(chunked_next_trailer("T\r\nU: v\r\n", 9, &i, &f));
}

/* The data are limited when they are announced; each up to its last byte. */
static void test_data_limit(void **state) {
        static const char text[] = "5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n";

        assert_int_equal(decode_n(text, sizeof(text) - 1, 8), PARSER_DONE);
        assert_int_equal(decode_n(text, sizeof(text) - 1, 7), 413);
        assert_int_equal(decode_n("5\r\n", 3, 4), 413);
        assert_int_equal(decode_n("0\r\n\r\n", 5, 0), PARSER_DONE);
        assert_int_equal(decode_n("1\r\n", 3, 0), 413);

        /* a limit that has become less meanwhile */
        body = (Body){ 0 };
        assert_int_equal(decode_more(&body, text, 10, 8), PARSER_MORE);
        assert_int_equal(decode_more(&body, text + 10, 3, 2), 413);
}

/* Section 7.1.1: a body's extensions have a limit together, not each. */
static void test_extensions_limit(void **state) {
        static const char chunk[] = "1;x=yyyy\r\na\r\n"; /* 7 bytes and the CR count */
        int n, r = PARSER_MORE;

        body = (Body){ 0 };
        for (n = 0; r == PARSER_MORE; n++)
                r = decode_more(&body, chunk, sizeof(chunk) - 1, UINT64_MAX);
        assert_int_equal(r, 400);
        assert_int_equal(n - 1, CHUNKED_EXTENSIONS_MAX / 7);

        static char line[CHUNKED_EXTENSIONS_MAX + 16] = "1;";
        memset(line + 2, 'x', sizeof(line) - 2);
        assert_int_equal(decode_n(line, 2 + CHUNKED_EXTENSIONS_MAX, BODY_MAX), PARSER_MORE);
        assert_int_equal(decode_n(line, 3 + CHUNKED_EXTENSIONS_MAX, BODY_MAX), 400);
}

/* RFC 6585, section 5: too many trailers are as bad as too many fields. */
static void test_trailers_limit(void **state) {
        static char text[CHUNKED_TRAILERS_MAX + 16] = "0\r\nT:";
        char *end = text + 3 + CHUNKED_TRAILERS_MAX;

        memset(text + 5, 'x', sizeof(text) - 5);
        memcpy(end - 2, "\r\n\r\n", 4);
        assert_int_equal(decode_n(text, CHUNKED_TRAILERS_MAX + 5, BODY_MAX), PARSER_DONE);
        assert_int_equal(body.n_trailers, CHUNKED_TRAILERS_MAX);
        memcpy(end - 2, "x\r\n\r\n", 5);
        assert_int_equal(decode_n(text, CHUNKED_TRAILERS_MAX + 6, BODY_MAX), 431);
}

static int skip_body(const char *s, uint64_t max, size_t *used) {
        Chunked c = { 0 };

        return chunked_skip(&c, s, strlen(s), max, used);
}

/* The limit of a body that nobody wants counts the bytes on the wire. */
static void test_skip(void **state) {
        size_t used;

        assert_int_equal(skip_body("5\r\nhello\r\n0\r\n\r\nGET", 15, &used), PARSER_DONE);
        assert_int_equal(used, 15);
        assert_int_equal(skip_body("5\r\nhello\r\n0\r\n\r\n", 14, &used), 413);
        assert_int_equal(skip_body("64\r\n", 100, &used), 413);
        assert_int_equal(skip_body("7fffffffffffffff\r\n", 100, &used), 413);
        assert_int_equal(skip_body("1;xxxxxxxxxxxxxxxxxxx", 20, &used), 413);
        assert_int_equal(skip_body("0\r\nT: xxxxxxxxxxxxxxxxxxx", 20, &used), 413);
        assert_int_equal(skip_body("5\r\nhello\n", 100, &used), 400);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_end),
                cmocka_unit_test(test_pieces),
                cmocka_unit_test(test_size),
                cmocka_unit_test(test_size_digits),
                cmocka_unit_test(test_data_end),
                cmocka_unit_test(test_extensions),
                cmocka_unit_test(test_bare_line_ends),
                cmocka_unit_test(test_trailers),
                cmocka_unit_test(test_next_trailer),
                cmocka_unit_test(test_data_limit),
                cmocka_unit_test(test_extensions_limit),
                cmocka_unit_test(test_trailers_limit),
                cmocka_unit_test(test_skip),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

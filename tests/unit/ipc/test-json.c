/* SPDX-License-Identifier: MIT */
/* The scanner for JSON texts. Every text that it is given ends at the end of a page behind which there is
 * nothing, so that a read beyond it is the end of the test. */

#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "basic/macro.h"
#include "ipc/json.h"

#define EDGE_SIZE (1024 * 1024)

/* The end of the memory that may be read. */
static char *edge;

static int setup(void **state) {
        char *p = mmap(NULL, EDGE_SIZE + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED || mprotect(p + EDGE_SIZE, 4096, PROT_NONE) < 0)
                return -1;
        edge = p + EDGE_SIZE;
        return 0;
}

static int scan_members(const char *text, size_t n, JsonMember *members, size_t n_members) {
        assert_true(n <= EDGE_SIZE);
        memcpy(edge - n, text, n);
        return json_scan(edge - n, n, members, n_members);
}

static int scan(const char *text, size_t n) {
        return scan_members(text, n, NULL, 0);
}

#define assert_valid(text, n)                                                                   \
        do                                                                                      \
                if (scan(text, n) != 0)                                                         \
                        fail_msg("should be valid: %.*s", (int) MIN((size_t) (n), 200U), text); \
        while (0)

#define assert_invalid(text, n)                                                                   \
        do                                                                                        \
                if (scan(text, n) != -EBADMSG)                                                    \
                        fail_msg("should be invalid: %.*s", (int) MIN((size_t) (n), 200U), text); \
        while (0)

/* For a literal, which may have NULs in it. */
#define VALID(literal)   assert_valid(literal, sizeof(literal) - 1)
#define INVALID(literal) assert_invalid(literal, sizeof(literal) - 1)

/* A text with something of everything. */
static const char rich[] =
                "{\"a\": [1, -0.5e+10, {\"b\":{}, \"c\" :[ ]}, true,false , null],\t"
                "\"\\u00e4\\n\\\"\":\"x\\\\\\/\\b\\f\\r\\t\\uD83D gr\xC3\xB6\xC3\x9F"
                "e \xE2\x86\x92 "
                "\xF0\x9F\x99\x82 and a stretch of plain text that is longer than 32 bytes\",\r\"\":[[[0]]]}";

/* Any value may stand alone (RFC 8259, section 2). */
static void test_values(void **state) {
        VALID("null");
        VALID("true");
        VALID("false");
        VALID("0");
        VALID("\"\"");
        VALID("[]");
        VALID("{}");
        VALID("[[],{},\"\",0,null]");
        VALID("{\"a\":{\"a\":{}},\"b\":[{}]}");
        assert_valid(rich, strlen(rich));
}

static void test_no_values(void **state) {
        INVALID("");
        INVALID(" ");
        INVALID("nul");
        INVALID("nulll");
        INVALID("Null");
        INVALID("truefalse");
        INVALID("undefined");
        INVALID("NaN");
        INVALID("Infinity");
        INVALID("'a'");
        INVALID("{a:1}");
        INVALID("// comment");
        INVALID("1 2");
        INVALID("{} {}");
        INVALID("\"a\"\"b\"");
        INVALID("null\0");
        INVALID("\0null");
        INVALID("[\0]");
        INVALID("\"a\0b\"");
        INVALID("\xEF\xBB\xBF{}");
}

/* Commas and colons are where they belong, and nowhere else. */
static void test_structure(void **state) {
        INVALID("[");
        INVALID("{");
        INVALID("]");
        INVALID("}");
        INVALID(",");
        INVALID(":");
        INVALID("[1");
        INVALID("[1,");
        INVALID("[1,]");
        INVALID("[,1]");
        INVALID("[,]");
        INVALID("[1,,2]");
        INVALID("[1 2]");
        INVALID("[1:2]");
        INVALID("[\"a\":1]");
        INVALID("[1]]");
        INVALID("[1}");
        INVALID("{\"a\":1]");
        INVALID("{\"a\"}");
        INVALID("{\"a\":}");
        INVALID("{\"a\":1,}");
        INVALID("{,\"a\":1}");
        INVALID("{,}");
        INVALID("{\"a\":1,,\"b\":2}");
        INVALID("{\"a\":1 \"b\":2}");
        INVALID("{\"a\" 1}");
        INVALID("{\"a\"::1}");
        INVALID("{\"a\":1:2}");
        INVALID("{\"a\",1}");
        INVALID("{1:2}");
        INVALID("{null:2}");
        INVALID("{[]:2}");
        INVALID("{\"a\":1}}");
        INVALID("{\"a\":1},");
        INVALID("[{]}");
        INVALID("[{\"a\":[}]]");
}

static void test_numbers(void **state) {
        VALID("-0");
        VALID("10");
        VALID("1234567890123456789012345678901234567890");
        VALID("0.0");
        VALID("-0.10e-05");
        VALID("1e5");
        VALID("1E+5");
        VALID("0e0");
        VALID("1.5E-300000");
        VALID("[0,-1]");
        INVALID("-");
        INVALID("+1");
        INVALID("01");
        INVALID("-01");
        INVALID("00");
        INVALID("1.");
        INVALID(".5");
        INVALID("-.5");
        INVALID("1.e5");
        INVALID("1e");
        INVALID("1e+");
        INVALID("1e+-5");
        INVALID("1e5.5");
        INVALID("1.2.3");
        INVALID("--1");
        INVALID("- 1");
        INVALID("0x10");
        INVALID("1a");
        INVALID("1_000");
        INVALID("[1.]");
        INVALID("[-]");
        INVALID("\xEF\xBC\x91"); /* a full-width 1 */
}

/* What is no whole text yet is invalid at every place where it may have been cut. */
static void test_prefixes(void **state) {
        for (size_t n = 0; n < strlen(rich); n++)
                assert_invalid(rich, n);
}

/* A line feed ends a message, so none can be in it: not even where JSON takes one for white space. */
static void test_line_feed(void **state) {
        char text[sizeof(rich) + 1];
        size_t n = strlen(rich);

        for (size_t i = 0; i <= n; i++) {
                memcpy(text, rich, i);
                text[i] = '\n';
                memcpy(text + i + 1, rich + i, n - i);
                assert_invalid(text, n + 1);
        }
}

/* Space, tab and carriage return may be around every token; no other byte may. */
static void test_white_space(void **state) {
        static const char *const tokens[] = { "[", "{", "\"a\"", ":", "1", ",", "\"b\"", ":", "[", "]", "}",
                ",", "true", ",", "{", "}", "]" };

        for (int c = 0; c < 256; c++)
                for (size_t place = 0; place <= ELEMENTSOF(tokens); place++) {
                        char text[64];
                        size_t n = 0;

                        for (size_t i = 0; i <= ELEMENTSOF(tokens); i++) {
                                if (i == place) {
                                        text[n++] = (char) c;
                                        text[n++] = (char) c;
                                }
                                for (const char *p = i < ELEMENTSOF(tokens) ? tokens[i] : ""; *p; p++)
                                        text[n++] = *p;
                        }
                        if (c == ' ' || c == '\t' || c == '\r')
                                assert_valid(text, n);
                        else if (c != '"' && (c < '0' || c > '9')) /* an empty string, a longer number */
                                assert_invalid(text, n);
                }
}

static void test_escapes(void **state) {
        for (int c = 0; c < 256; c++) {
                char text[] = "\"\\?0123\"";

                text[2] = (char) c;
                if (c && strchr("\"\\/bfnrtu", c))
                        assert_valid(text, sizeof(text) - 1);
                else
                        assert_invalid(text, sizeof(text) - 1);
                for (size_t digit = 0; digit < 4; digit++) {
                        char u[] = "\"\\u0aF9\"";

                        u[3 + digit] = (char) c;
                        if (c && strchr("0123456789abcdefABCDEF", c))
                                assert_valid(u, sizeof(u) - 1);
                        else
                                assert_invalid(u, sizeof(u) - 1);
                }
        }
        INVALID("\"\\u12\"");
        INVALID("\"\\u123");
        INVALID("\"\\x41\"");
        INVALID("\"\\");
        INVALID("\\n");
        VALID("\"\\ud800\""); /* half a surrogate pair: JSON.stringify() writes such, and JSON.parse() takes
                                 it */
}

/*
 * UTF-8
 */

/* By the definition: what it decodes to, encoded again, is the same (so it is not overlong), and is no
 * surrogate. */
static bool is_utf8_of(const unsigned char *p, size_t n) {
        static const unsigned first[] = { 0, 0, 0xC0, 0xE0, 0xF0 },
                              minimum[] = { 0, 0, 0x80, 0x800, 0x10000 };
        unsigned code, mask = n == 2 ? 0x1F : n == 3 ? 0x0F : 0x07;

        if ((p[0] & ~mask) != first[n])
                return false;
        code = p[0] & mask;
        for (size_t i = 1; i < n; i++) {
                if (p[i] >> 6 != 2)
                        return false;
                code = code << 6 | (p[i] & 0x3F);
        }
        return code >= minimum[n] && code <= 0x10FFFF && !(code >= 0xD800 && code <= 0xDFFF);
}

static void check_sequence(const unsigned char *p, size_t n) {
        char text[8] = "\"";

        memcpy(text + 1, p, n);
        text[n + 1] = '"';
        if (is_utf8_of(p, n) != (scan(text, n + 2) == 0))
                fail_msg("%02x %02x %02x %02x as %zu bytes", p[0], p[1], p[2], p[3], n);
}

/* All pairs and triples that begin with a byte of their length, and four bytes with the edges of each place.
 */
static void test_utf8(void **state) {
        static const unsigned char edges[] = { 0x00, 0x22, 0x5C, 0x7F, 0x80, 0x81, 0x8F, 0x90, 0x9F, 0xA0,
                0xBF, 0xC0, 0xC2, 0xFF };

        for (unsigned a = 0x80; a < 0x100; a++)
                for (unsigned b = 0x80; b < 0x100; b++)
                        check_sequence((unsigned char[4]){ (unsigned char) a, (unsigned char) b }, 2);
        for (unsigned a = 0xE0; a < 0xF0; a++)
                for (unsigned b = 0; b < 0x100; b++)
                        for (unsigned c = 0x7E; c < 0xC2; c++)
                                check_sequence((unsigned char[4]){ (unsigned char) a, (unsigned char) b,
                                                               (unsigned char) c },
                                                3);
        for (unsigned a = 0xF0; a < 0x100; a++)
                for (size_t i = 0; i < ELEMENTSOF(edges); i++)
                        for (size_t j = 0; j < ELEMENTSOF(edges); j++)
                                for (size_t k = 0; k < ELEMENTSOF(edges); k++)
                                        check_sequence((unsigned char[4]){ (unsigned char) a, edges[i],
                                                                       edges[j], edges[k] },
                                                        4);
}

/* The famous ones by name. */
static void test_utf8_examples(void **state) {
        VALID("\"\xC2\x80 \xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xEE\x80\x80 \xEF\xBF\xBF\"");
        VALID("\"\xF0\x90\x80\x80 \xF4\x8F\xBF\xBF \xE2\x80\xA8 \xE2\x80\xA9\"");
        INVALID("\"\xC0\x80\""); /* Java's NUL */
        INVALID("\"\xC0\xAF\""); /* an overlong slash */
        INVALID("\"\xE0\x80\xAF\"");
        INVALID("\"\xF0\x80\x80\xAF\"");
        INVALID("\"\xED\xA0\x80\"");             /* a surrogate */
        INVALID("\"\xED\xA0\xBD\xED\xB8\x80\""); /* CESU-8 */
        INVALID("\"\xF4\x90\x80\x80\"");         /* beyond Unicode */
        INVALID("\"\xF8\x88\x80\x80\x80\"");
        INVALID("\"\x80\"");
        INVALID("\"\xFF\"");
        INVALID("\"\xC3\""); /* cut by the quote, and by the end */
        INVALID("\"\xE2\x86\"");
        INVALID("\"\xF0\x9F\x99\"");
        INVALID("\"\xC3");
        INVALID("\"\xE2\x86");
        INVALID("\"\xF0\x9F\x99");
        INVALID("\xC3\xA4");     /* outside of a string */
        INVALID("[1\xC2\xA0]");  /* no white space of JSON */
        INVALID("{\"\xC3\":1}"); /* names as well */
}

/*
 * Long strings, which are walked in steps
 */

static bool means_itself(int c) {
        return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* No byte is overlooked, wherever it is in a string of whatever length. */
static void test_each_byte_at_each_place(void **state) {
        char text[128];

        for (size_t n = 1; n <= 70; n++)
                for (size_t at = 0; at < n; at++)
                        for (int c = 0; c < 256; c++) {
                                memset(text, 'a', n + 2);
                                text[0] = text[n + 1] = '"';
                                text[1 + at] = (char) c;
                                if ((scan(text, n + 2) == 0) != means_itself(c))
                                        fail_msg("byte %d at %zu of %zu", c, at, n);
                        }
}

/* Nor anything that is right, of more than one byte. */
static void test_each_sequence_at_each_place(void **state) {
        static const char *const pieces[] = { "\\\"", "\\\\", "\\n", "\\u12aF", "\xC3\xA4", "\xE2\x86\x92",
                "\xF0\x9F\x99\x82", "\\\\\\\"", "\xC3\xA4\\\\" };
        char text[160];

        for (size_t p = 0; p < ELEMENTSOF(pieces); p++)
                for (size_t before = 0; before <= 70; before++)
                        for (size_t after = 0; after <= 40; after++) {
                                size_t n = strlen(pieces[p]);

                                memset(text, 'a', sizeof(text));
                                text[0] = '"';
                                memcpy(text + 1 + before, pieces[p], n);
                                text[1 + before + n + after] = '"';
                                assert_valid(text, before + n + after + 2);
                                assert_invalid(text, before + n + after + 1);
                        }
}

/*
 * Nesting
 */

static size_t repeat(char *to, const char *what, size_t times) {
        size_t n = strlen(what);

        for (size_t i = 0; i < times; i++)
                memcpy(to + i * n, what, n);
        return n * times;
}

static void check_depth(const char *open, const char *close, size_t depth, int expected) {
        static char text[EDGE_SIZE];
        size_t n;

        n = repeat(text, open, depth);
        n += repeat(text + n, "1", 1);
        n += repeat(text + n, close, depth);
        assert_int_equal(scan(text, n), expected);
}

static void test_depth(void **state) {
        check_depth("[", "]", JSON_DEPTH_MAX, 0);
        check_depth("[", "]", JSON_DEPTH_MAX + 1, -EBADMSG);
        check_depth("{\"a\":", "}", JSON_DEPTH_MAX, 0);
        check_depth("{\"a\":", "}", JSON_DEPTH_MAX + 1, -EBADMSG);
        check_depth("[{\"a\":", "}]", JSON_DEPTH_MAX / 2, 0);
        check_depth("[{\"a\":", "}]", JSON_DEPTH_MAX / 2 + 1, -EBADMSG);
        check_depth("[", "]", 500000, -EBADMSG);
}

/* What wraps a message does not take from its depth. */
static void test_depth_of_frame(void **state) {
        static char text[2 * JSON_DEPTH_MAX + 4];
        size_t n;

        n = repeat(text, "[", JSON_DEPTH_MAX + 1);
        n += repeat(text + n, "]", JSON_DEPTH_MAX + 1);
        assert_int_equal(json_scan_frame(text, n, NULL, 0), 0);
        assert_invalid(text, n);
        n = repeat(text, "[", JSON_DEPTH_MAX + 2);
        n += repeat(text + n, "]", JSON_DEPTH_MAX + 2);
        assert_int_equal(json_scan_frame(text, n, NULL, 0), -EBADMSG);
}

/* What is closed counts no more. */
static void test_depth_is_not_length(void **state) {
        static char text[EDGE_SIZE];
        size_t n;

        text[0] = '[';
        n = 1 + repeat(text + 1, "[[]],{\"a\":{}},", 20000);
        n += repeat(text + n, "0]", 1);
        assert_valid(text, n);
}

/* Whatever is open is known at every level: random kinds of brackets close in their order, and one that is
 * closed as the other kind is an error. */
static void test_random_nesting(void **state) {
        unsigned seed = 42;

        for (size_t depth = 1; depth <= 300; depth++) {
                char text[300 * 8], kinds[300];
                size_t n = 0, wrong, at_wrong = 0;

                for (size_t i = 0; i < depth; i++) {
                        kinds[i] = rand_r(&seed) % 2 ? '}' : ']';
                        n += repeat(text + n, kinds[i] == '}' ? "{\"\":" : "[", 1);
                }
                text[n++] = '0';
                wrong = (size_t) rand_r(&seed) % depth;
                for (size_t i = depth; i-- > 0;) {
                        if (i == wrong)
                                at_wrong = n;
                        text[n++] = kinds[i];
                }
                assert_valid(text, n);
                text[at_wrong] = (char) (text[at_wrong] == '}' ? ']' : '}');
                assert_invalid(text, n);
        }
}

/*
 * Members
 */

static void check_member(const char *text, const char *name, const char *expected) {
        JsonMember member = { .name = name, .value = { "old", 3 } };

        assert_int_equal(scan_members(text, strlen(text), &member, 1), 0);
        if (!expected) {
                assert_null(member.value.p);
                return;
        }
        assert_non_null(member.value.p);
        assert_true(member.value.p >= edge - strlen(text) && member.value.p + member.value.n <= edge);
        if (member.value.n != strlen(expected) || memcmp(member.value.p, expected, member.value.n) != 0)
                fail_msg("%s of %s is %.*s", name, text, (int) member.value.n, member.value.p);
}

/* The span is that of the value alone, whatever its kind and wherever it is. */
static void test_members(void **state) {
        static const char *const values[] = { "null", "true", "false", "0", "-1.5e3", "\"\"", "\"x\"",
                "\"a\\\"}\"", "[]", "{}", "[ 1 , [2] , {\"a\":3} ]", "{ \"a\" : 4, \"b\":{\"a\":5} }",
                "[[[[]]]]", "\"\xC3\xA4\"" };
        static const char *const frames[] = { "{\"a\":%s}", " { \"a\" : %s } ",
                "{\"x\":1,\"a\":%s,\"y\":[2]}", "{\"y\":{\"a\":9},\"a\":\t%s\r,\"z\":{\"a\":7}}",
                "{\"a\":0,\"a\":%s}", "{\"a\":[{}],\"b\":1,\"a\":%s}" };

        for (size_t f = 0; f < ELEMENTSOF(frames); f++)
                for (size_t v = 0; v < ELEMENTSOF(values); v++) {
                        char text[256];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
                        snprintf(text, sizeof(text), frames[f], values[v]);
#pragma GCC diagnostic pop
                        check_member(text, "a", values[v]);
                }
}

/* Only the top level, only an object, only the name as it is asked for. */
static void test_members_that_are_not(void **state) {
        check_member("{}", "a", NULL);
        check_member("[]", "a", NULL);
        check_member("\"a\"", "a", NULL);
        check_member("null", "a", NULL);
        check_member("[{\"a\":1}]", "a", NULL);
        check_member("{\"b\":{\"a\":1}}", "a", NULL);
        check_member("{\"b\":[{\"a\":1}],\"c\":{\"d\":{\"a\":2}}}", "a", NULL);
        check_member("{\"b\":\"a\"}", "a", NULL);
        check_member("{\"aa\":1,\"A\":2,\"\":3,\"a \":4}", "a", NULL);
        check_member("{\"ab\":1}", "abc", NULL);
        check_member("{\"\\u0061\":1}", "a", NULL);
        check_member("{\"\":1}", "", "1");
        check_member("{\"\xC3\xA4\":1}", "\xC3\xA4", "1");
        check_member("{\"a\\\"\":1}", "a", NULL);
}

/* Several are found in one pass, in any order, and one that is missing is told. */
static void test_several_members(void **state) {
        static const char text[] = "{\"c\":[1,{\"b\":0}],\"d\":5,\"a\":\"x\",\"c\":{\"a\":[]}}";
        JsonMember m[] = { { .name = "a" }, { .name = "b" }, { .name = "c" } };

        assert_int_equal(scan_members(text, strlen(text), m, ELEMENTSOF(m)), 0);
        assert_int_equal(m[0].value.n, 3);
        assert_memory_equal(m[0].value.p, "\"x\"", 3);
        assert_null(m[1].value.p);
        assert_int_equal(m[2].value.n, strlen("{\"a\":[]}"));
        assert_memory_equal(m[2].value.p, "{\"a\":[]}", m[2].value.n);
}

/*
 * Strings
 */

static JsonSpan span(const char *text) {
        return (JsonSpan){ text, strlen(text) };
}

static void test_span_is(void **state) {
        assert_true(json_span_is(span("\"abc\""), "abc"));
        assert_true(json_span_is(span("\"\""), ""));
        assert_false(json_span_is(span("\"abc\""), "ab"));
        assert_false(json_span_is(span("\"ab\""), "abc"));
        assert_false(json_span_is(span("\"abd\""), "abc"));
        assert_false(json_span_is(span("12345"), "234"));
        assert_false(json_span_is(span("[\"a\"]"), "\"a\""));
        assert_false(json_span_is(span("null"), "ul"));
        assert_false(json_span_is(span("\"\\u0061\""), "a"));
        assert_false(json_span_is((JsonSpan){ .p = NULL }, ""));
}

static void check_text(const char *value, size_t size, const char *expected) {
        char buf[64];

        memset(buf, 'Z', sizeof(buf));
        assert_true(json_span_to_text(span(value), buf, size));
        assert_string_equal(buf, expected);
        for (size_t i = size; i < sizeof(buf); i++)
                assert_int_equal(buf[i], 'Z');
}

/* Escapes become what they stand for, and what could speak to a terminal a question mark. */
/* Likewise, of which only the beginning matters. */
static void test_span_begins(void **state) {
        assert_true(json_span_begins(span("\"NODE_HANDLE\""), "NODE_"));
        assert_true(json_span_begins(span("\"NODE_\""), "NODE_"));
        assert_true(json_span_begins(span("\"\""), ""));
        assert_false(json_span_begins(span("\"NODE\""), "NODE_"));
        assert_false(json_span_begins(span("\"NODE\""), "NODE\""));
        assert_false(json_span_begins(span("\"node_x\""), "NODE_"));
        assert_false(json_span_begins(span("123456789"), "23456"));
        assert_false(json_span_begins((JsonSpan){ .p = NULL }, ""));
}

static void check_integer(const char *text, int64_t min, int64_t max, int64_t expected) {
        int64_t v = 0;

        assert_true(json_span_to_integer(span(text), min, max, &v));
        assert_true(v == expected);
}

static void check_no_integer(const char *text, int64_t min, int64_t max) {
        int64_t v = 42;

        assert_false(json_span_to_integer(span(text), min, max, &v));
        assert_int_equal(v, 42);
}

static void test_to_integer(void **state) {
        check_integer("0", 0, 0, 0);
        check_integer("-0", 0, 0, 0);
        check_integer("65535", 0, 65535, 65535);
        check_integer("-1", -1, 6, -1);
        check_integer("9007199254740991", INT64_MIN, INT64_MAX,
                        INT64_C(9007199254740991)); /* JavaScript's */
        check_integer("-9007199254740991", INT64_MIN, INT64_MAX, INT64_C(-9007199254740991));
        check_integer("9223372036854775807", INT64_MIN, INT64_MAX, INT64_MAX);
        check_integer("-9223372036854775807", INT64_MIN, INT64_MAX, -INT64_MAX);
}

static void test_to_integer_of_no_integer(void **state) {
        static const char *const values[] = { "1.0", "1.5", "1e3", "1E3", "null", "true", "false", "\"1\"",
                "[1]", "{}", "-", "", "+1", "--1", "1-", " 1", "1 ", "9223372036854775808",
                "-9223372036854775809", "99999999999999999999", "18446744073709551617" };

        for (size_t i = 0; i < ELEMENTSOF(values); i++)
                check_no_integer(values[i], INT64_MIN, INT64_MAX);
        check_no_integer("65536", 0, 65535);
        check_no_integer("-1", 0, 65535);
        check_no_integer("-2", -1, 6);
        assert_false(json_span_to_integer((JsonSpan){ .p = NULL }, INT64_MIN, INT64_MAX, &(int64_t){ 0 }));
}

static void test_to_text(void **state) {
        check_text("\"\"", 64, "");
        check_text("\"plain\"", 64, "plain");
        check_text("\"a\\\"b\\\\c\\/d\"", 64, "a\"b\\c/d");
        check_text("\"\\u0041\\u007a\\u007A\"", 64, "Azz");
        check_text("\"\\b\\f\\n\\r\\t\"", 64, "?????");
        check_text("\"\\u0000x\\u001b[0m\"", 64, "?x?[0m");
        check_text("\"\\u00e4\\ud83d\\ude00\"", 64, "???");
        check_text("\"\x7F\"", 64, "?");
        check_text("\"gr\xC3\xB6\xC3\x9F"
                   "e\"",
                        64,
                        "gr\xC3\xB6\xC3\x9F"
                        "e");
}

/* A text that does not fit is cut, never within an escape or a sequence of UTF-8. */
static void test_to_text_cut(void **state) {
        check_text("\"abc\"", 4, "abc");
        check_text("\"abc\"", 3, "ab");
        check_text("\"abc\"", 1, "");
        check_text("\"a\\nb\"", 3, "a?");
        check_text("\"a\\\"b\"", 3, "a\"");
        check_text("\"a\xE2\x86\x92\"", 5, "a\xE2\x86\x92");
        check_text("\"a\xE2\x86\x92\"", 4, "a??");
}

static void test_to_text_of_no_string(void **state) {
        static const char *const values[] = { "null", "1", "[]", "{}", "[\"a\"]" };
        char buf[8];

        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                strcpy(buf, "old");
                assert_false(json_span_to_text(span(values[i]), buf, sizeof(buf)));
                assert_string_equal(buf, "");
        }
        strcpy(buf, "old");
        assert_false(json_span_to_text((JsonSpan){ .p = NULL }, buf, sizeof(buf)));
        assert_string_equal(buf, "");
}

static void test_append(void **state) {
        char buf[64] = "[1,";
        size_t n;

        n = json_append_string(buf, sizeof(buf), 3, "a\"b\\c");
        assert_int_equal(n, strlen(buf));
        assert_string_equal(buf, "[1,\"a\\\"b\\\\c\"");
        n = json_append_string(buf, sizeof(buf), 0, "");
        assert_int_equal(n, 2);
        assert_string_equal(buf, "\"\"");
        json_append_string(buf, sizeof(buf), 0, "\n\t\x01\x7F\xC3\xA4~ ");
        assert_string_equal(buf, "\"?????"
                                 "?~ \"");
}

/* In whatever room: a whole JSON string and a NUL, or nothing; and no byte beyond. */
static void test_append_cut(void **state) {
        static const char text[] = "ab\"\"c\\\\d";

        for (size_t offset = 0; offset < 4; offset++)
                for (size_t size = offset; size < 24; size++) {
                        char buf[32];

                        memset(buf, 'Z', sizeof(buf));
                        size_t end = json_append_string(buf, size, offset, text);
                        for (size_t i = 0; i < sizeof(buf); i++)
                                if (i < offset || i >= size)
                                        assert_int_equal(buf[i], 'Z');
                        if (size - offset < 3) {
                                assert_int_equal(end, offset);
                                continue;
                        }
                        assert_true(end < size);
                        assert_int_equal(buf[end], '\0');
                        assert_valid(buf + offset, end - offset);
                        assert_int_equal(buf[offset], '"');
                        if (size - offset > strlen(text) + 4 + 3) /* four escapes, quotes, NUL */
                                assert_string_equal(buf + offset, "\"ab\\\"\\\"c\\\\\\\\d\"");
                }
}

static void test_write_string(void **state) {
        static const struct {
                const char *in, *out;
        } cases[] = {
                { "", "\"\"" },
                { "plain", "\"plain\"" },
                { "a \"quote\" and a \\", "\"a \\\"quote\\\" and a \\\\\"" },
                { "line\nfeed\x1b[31m\x7f", "\"line\\u000afeed\\u001b[31m\\u007f\"" },
                { "größer €", "\"größer €\"" },
                { "broken \xc3( \xff\xe2\x82", "\"broken ?( ???\"" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = NULL;
                size_t n;
                FILE *f = open_memstream(&text, &n);

                assert_non_null(f);
                json_write_string(f, cases[i].in);
                assert_int_equal(fclose(f), 0);
                assert_string_equal(text, cases[i].out);
                assert_int_equal(json_scan(text, n, NULL, 0), 0);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_write_string),
                cmocka_unit_test(test_values),
                cmocka_unit_test(test_no_values),
                cmocka_unit_test(test_structure),
                cmocka_unit_test(test_numbers),
                cmocka_unit_test(test_prefixes),
                cmocka_unit_test(test_line_feed),
                cmocka_unit_test(test_white_space),
                cmocka_unit_test(test_escapes),
                cmocka_unit_test(test_utf8),
                cmocka_unit_test(test_utf8_examples),
                cmocka_unit_test(test_each_byte_at_each_place),
                cmocka_unit_test(test_each_sequence_at_each_place),
                cmocka_unit_test(test_depth),
                cmocka_unit_test(test_depth_of_frame),
                cmocka_unit_test(test_depth_is_not_length),
                cmocka_unit_test(test_random_nesting),
                cmocka_unit_test(test_members),
                cmocka_unit_test(test_members_that_are_not),
                cmocka_unit_test(test_several_members),
                cmocka_unit_test(test_span_is),
                cmocka_unit_test(test_span_begins),
                cmocka_unit_test(test_to_integer),
                cmocka_unit_test(test_to_integer_of_no_integer),
                cmocka_unit_test(test_to_text),
                cmocka_unit_test(test_to_text_cut),
                cmocka_unit_test(test_to_text_of_no_string),
                cmocka_unit_test(test_append),
                cmocka_unit_test(test_append_cut),
        };

        return cmocka_run_group_tests(tests, setup, NULL);
}

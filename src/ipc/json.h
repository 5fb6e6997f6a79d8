/* SPDX-License-Identifier: MIT */
#pragma once

/* Looks through the text of a JSON value without building anything: is it one, and what are certain members
 * of its top level? Messages are forwarded as they are, so this is all that a channel needs to know. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Nesting beyond this is refused. */
#define JSON_DEPTH_MAX 2048

/* A piece of the text. */
typedef struct JsonSpan {
        const char *p; /* NULL: there is none */
        size_t n;
} JsonSpan;

/* A member of the top-level object that is asked for. */
typedef struct JsonMember {
        const char *name;
        JsonSpan value;    /* out: the raw text of its value; of the last one if there are several, as in
                              JSON.parse() */
        bool any_spelling; /* in: also when its name is written with escapes, as JSON.parse() finds it */
        bool (*accept)(JsonSpan value); /* in: others do not count; NULL: all do */
} JsonMember;

/* Checks that the @n bytes are exactly one JSON value (RFC 8259) in well-formed UTF-8, with white space
 * around it but without a line feed anywhere, and fills in the @members. Names are compared as they are
 * written: one that is spelled with escapes is not found, unless that is asked for.
 *
 * Returns 0; or -EBADMSG, and then the members are undefined. */
int json_scan(const char *text, size_t n, JsonMember *members, size_t n_members);

/* The same for what a value may be wrapped in: one level more is allowed. */
int json_scan_frame(const char *text, size_t n, JsonMember *members, size_t n_members);

/* Checks that it is one, and has the level to spare that a frame takes. Returns as json_scan(). */
int json_scan_content(const char *text, size_t n);

/* Whether the value is the string @s, written without escapes. */
bool json_span_is(JsonSpan value, const char *s);

/* Whether the value is a whole number from @min to @max, written as JSON.stringify() writes one. */
bool json_span_to_integer(JsonSpan value, int64_t min, int64_t max, int64_t *ret);

/* Whether the value is a string that begins with @s, likewise. */
bool json_span_begins(JsonSpan value, const char *s);

/* Copies a string value into @buf as far as it fits, without escapes: they become what they stand for, or
 * '?' where that is not ASCII. Returns false, with an empty text, when the value is no string. For texts
 * that people read. */
bool json_span_to_text(JsonSpan value, char *buf, size_t size);

/* Appends @s as a JSON string, quotes included, to a buffer of @size bytes at @offset; what is not printable
 * ASCII becomes '?'. Returns the offset behind it; the text is cut so that it is always whole. */
size_t json_append_string(char *buf, size_t size, size_t offset, const char *s);

/* Writes @s as a JSON string, quotes included. What is no well-formed UTF-8 becomes '?'. */
void json_write_string(FILE *f, const char *s);

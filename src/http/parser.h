/* SPDX-License-Identifier: MIT */
#pragma once

/* The head of an HTTP/1.x request, strictly by RFC 9112 and RFC 9110: what two parsers could read in two
 * ways is refused.
 *
 * Pure: no allocation, no clock, no I/O. What is found is kept as offsets into the caller's buffer, counted
 * from the first byte handed in, so that a head can be moved, or looked at by another process, without any
 * repair. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_FIELDS_MAX 100
#define HTTP_TARGET_MAX 8192
#define HTTP_METHOD_MAX 32 /* no registered one has more than 17 bytes */

/* Outcomes of parsing; anything else is the status to answer with before the connection is closed. */
#define PARSER_MORE 0 /* so far so good, the end is not there yet */
#define PARSER_DONE 1

typedef enum HttpMethod {
        HTTP_GET,
        HTTP_HEAD,
        HTTP_POST,
        HTTP_PUT,
        HTTP_DELETE,
        HTTP_CONNECT,
        HTTP_OPTIONS,
        HTTP_TRACE,
        HTTP_PATCH,
        HTTP_OTHER, /* any other token, which a handler may know */
        _HTTP_METHOD_MAX,
        _HTTP_METHOD_INVALID = -22,
} HttpMethod;

/* RFC 9110, section 9.2.1: nobody asks for an effect by it. */
static inline bool http_method_is_safe(HttpMethod method) {
        return method == HTTP_GET || method == HTTP_HEAD || method == HTTP_OPTIONS || method == HTTP_TRACE;
}

typedef struct HttpSlice {
        uint32_t offset;
        uint32_t length;
} HttpSlice;

typedef struct HttpField {
        HttpSlice name;
        HttpSlice value; /* without the white space around it; may be empty */
} HttpField;

typedef struct HttpRequest {
        uint32_t head_size; /* up to and with the empty line */
        HttpMethod method;
        HttpSlice method_name;   /* as it was sent; names are case-sensitive */
        uint8_t minor_version;   /* 0 or 1 */
        bool keep_alive;         /* the client would send another request after this one */
        bool chunked;            /* the body comes in chunks, else it has content_length bytes */
        bool expect_continue;    /* the client waits for a word before it sends the body */
        uint64_t content_length; /* 0: there is no body */
        HttpSlice authority;     /* from an absolute target, else from Host */
        HttpSlice path;  /* begins with '/'; "*" for OPTIONS; all of the target for CONNECT; empty means "/"
                          */
        HttpSlice query; /* behind the '?', which is not part of it */
        unsigned n_fields;
        HttpField fields[HTTP_FIELDS_MAX];
} HttpRequest;

/* How far the search for the end of the head came. All zero at the first byte of a request. */
typedef struct ParserScan {
        uint32_t start; /* of the request line: behind an empty line that came before it */
        uint32_t line;  /* of the line that is not complete yet */
        uint32_t seen;  /* there is no unseen line end before this */
} ParserScan;

/* Looks for a head in the @n bytes at @buf, which hold the request from its first byte on. Call again with
 * more bytes and the same @scan after PARSER_MORE. A head longer than @max is 414 or 431. @ret is valid
 * after PARSER_DONE only. */
int parser_parse_head(ParserScan *scan, const char *buf, size_t n, size_t max, HttpRequest *ret);

/* The first field from index *@i on that is called @name (lower case); *@i moves behind it. False when there
 * is none. */
bool parser_next_field(
                const HttpRequest *request, const char *buf, const char *name, unsigned *i, HttpSlice *ret);

/* Takes the next element off a comma-separated list (RFC 9110, section 5.6.1); empty ones are passed over.
 */
bool parser_next_element(const char *buf, HttpSlice *list, HttpSlice *ret);

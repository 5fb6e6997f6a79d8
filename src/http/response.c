/* SPDX-License-Identifier: MIT */
/* Answers; see response.h. */

#include "http/response.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "http/date.h"

static const struct {
        unsigned status;
        const char *phrase;
} phrases[] = {
        { 200, "OK" },
        { 301, "Moved Permanently" },
        { 304, "Not Modified" },
        { 400, "Bad Request" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 417, "Expectation Failed" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 503, "Service Unavailable" },
        { 505, "HTTP Version Not Supported" },
};

const char *response_phrase(unsigned status) {
        for (size_t i = 0; i < ELEMENTSOF(phrases); i++)
                if (phrases[i].status == status)
                        return phrases[i].phrase;
        return "Unknown";
}

void response_init(Response *r) {
        r->status = 200;
        r->fd = -EBADF;
        r->size = 0;
        r->last_modified = -1;
        r->content_type = r->cache_control = r->allow = NULL;
        r->etag[0] = r->location[0] = '\0';
}

void response_done(Response *r) {
        r->fd = safe_close(r->fd);
}

void response_set_error(Response *r, unsigned status) {
        const char *phrase = response_phrase(status);

        response_done(r);
        r->status = status;
        r->content_type = "text/html; charset=utf-8";
        r->last_modified = -1;
        r->etag[0] = '\0';
        r->size = (uint64_t) snprintf(r->text, sizeof(r->text),
                        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                        "<title>%u %s</title><style>:root{color-scheme:light dark}"
                        "body{font:1.1em system-ui,sans-serif;text-align:center;margin-top:20vh}</style>"
                        "</head>\n"
                        "<body><h1>%u</h1><p>%s</p></body></html>\n",
                        status, phrase, status, phrase);
}

/* Heads are put together by hand: printf(3) would take most of the time of a small answer. */
typedef struct Writer {
        char *p;
        const char *end;
} Writer;

static void put(Writer *w, const char *s, size_t n) {
        assert((size_t) (w->end - w->p) >= n); /* RESPONSE_MAX covers the sum of all limits */
        memcpy(w->p, s, n);
        w->p += n;
}

static void put_string(Writer *w, const char *s) {
        put(w, s, strlen(s));
}

static void put_number(Writer *w, uint64_t v) {
        char digits[20];
        size_t n = sizeof(digits);

        do {
                digits[--n] = (char) ('0' + v % 10);
                v /= 10;
        } while (v > 0);
        put(w, digits + n, sizeof(digits) - n);
}

static void put_field(Writer *w, const char *name, const char *value) {
        if (!value || !*value)
                return;
        put_string(w, name);
        put(w, ": ", 2);
        put_string(w, value);
        put(w, "\r\n", 2);
}

size_t response_write_head(
                const Response *r, const ResponseFraming *framing, char buf[static RESPONSE_MAX]) {
        char date[DATE_LENGTH + 1];
        Writer w = { .p = buf, .end = buf + RESPONSE_MAX };

        put_string(&w, "HTTP/1.1 ");
        put_number(&w, r->status);
        put(&w, " ", 1);
        put_string(&w, response_phrase(r->status));
        put(&w, "\r\n", 2);
        put_field(&w, "Date", framing->date);
        if (r->status !=
                        304) { /* where it could only repeat what the client has: RFC 9110, section 15.4.5 */
                put_field(&w, "Content-Type", r->content_type);
                put_string(&w, "Content-Length: ");
                put_number(&w, r->size);
                put(&w, "\r\n", 2);
        }
        if (r->last_modified >= 0) {
                date_format(r->last_modified, date);
                put_field(&w, "Last-Modified", date);
        }
        put_field(&w, "ETag", r->etag);
        put_field(&w, "Location", r->location);
        put_field(&w, "Allow", r->allow);
        put_field(&w, "Cache-Control", r->cache_control);
        if (!framing->keep_alive)
                put_field(&w, "Connection", "close");
        else if (framing->old_client)
                put_field(&w, "Connection", "keep-alive");
        put(&w, "\r\n", 2);
        return (size_t) (w.p - buf);
}

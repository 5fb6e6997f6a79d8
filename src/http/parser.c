/* SPDX-License-Identifier: MIT */
/* The request head; see parser.h.
 *
 * Two passes: the first looks for the empty line, resuming where it stopped, and refuses any line end but
 * CRLF; only a complete head is read in the second. A head that drips in byte by byte is therefore looked at
 * once, and what does not look like HTTP at all (a TLS greeting on the wrong port) is refused at its first
 * byte. */

#include "http/parser.h"

#include <string.h>

#include "basic/macro.h"
#include "http/chars.h"
#include "http/scan.h"

/* A head while it is read. */
typedef struct Head {
        const char *buf;
        HttpRequest *request;
        unsigned n_hosts, n_lengths, n_codings;
        bool named;      /* the target named the authority: Host does not count */
        bool says_close; /* options of the Connection field */
        bool says_keep_alive;
} Head;

static HttpSlice slice(const char *buf, const char *from, const char *to) {
        return (HttpSlice){ .offset = (uint32_t) (from - buf), .length = (uint32_t) (to - from) };
}

/* Whether they are the same but for the case of letters. @word is lower case. */
static bool equals(const char *p, size_t n, const char *word) {
        size_t i = 0;

        while (i < n && word[i] && char_to_lower(p[i]) == word[i])
                i++;
        return i == n && !word[i];
}

/* Of a byte inside a head, where every LF has its CR: a CR alone is none. */
static bool is_line_end(const char *p) {
        return *p == '\r' && p[1] == '\n';
}

static int too_long(const ParserScan *s) {
        return s->line == s->start ? 414 : 431;
}

/* Whether what is there can begin a request at all. */
static bool is_first(const ParserScan *s, const char *buf, size_t n) {
        return n <= s->start || char_is(buf[s->start], CHAR_TOKEN) ||
               (buf[s->start] == '\r' && s->start == 0);
}

/* PARSER_DONE when s->seen is the end of the head. */
static int find_end(ParserScan *s, const char *buf, size_t n, size_t max) {
        for (;;) {
                if (!is_first(s, buf, n))
                        return 400;

                const char *lf = scan_line(buf + s->seen, buf + n);
                if (lf == buf + n) {
                        s->seen = (uint32_t) n;
                        return n >= max ? too_long(s) : PARSER_MORE;
                }

                uint32_t end = (uint32_t) (lf - buf);
                if (end >= max)
                        return too_long(s);
                if (end == s->line || buf[end - 1] != '\r')
                        return 400; /* a recipient may take a bare LF; smuggling lives on that */
                s->seen = end + 1;
                if (end - 1 == s->line) {
                        if (s->line > s->start)
                                return PARSER_DONE;
                        s->start = s->seen; /* RFC 9112, section 2.2: one empty line is forgiven */
                }
                s->line = s->seen;
        }
}

static HttpMethod method_from_string(const char *p, size_t n) {
        static const struct {
                char name[8];
                HttpMethod method;
        } methods[] = {
                { "GET", HTTP_GET },
                { "HEAD", HTTP_HEAD },
                { "POST", HTTP_POST },
                { "PUT", HTTP_PUT },
                { "DELETE", HTTP_DELETE },
                { "CONNECT", HTTP_CONNECT },
                { "OPTIONS", HTTP_OPTIONS },
                { "TRACE", HTTP_TRACE },
                { "PATCH", HTTP_PATCH },
        };
        char name[8] = "";

        if (n >= sizeof(name))
                return HTTP_OTHER;
        memcpy(name, p, n);
        for (size_t i = 0; i < ELEMENTSOF(methods); i++)
                if (memcmp(name, methods[i].name, sizeof(name)) == 0)
                        return methods[i].method;
        return HTTP_OTHER;
}

/* RFC 3986, section 3.2.2, but no check of what is between the brackets of an IP-literal beyond its
 * characters. NULL: it is none. */
static const char *skip_host(const char *p, const char *end) {
        const char *begin = p;
        bool literal = p < end && *p == '[';

        for (p += literal; p < end && (char_is(*p, CHAR_HOST) || (literal && *p == ':')); p++)
                if (*p == '%' && (end - p < 3 || char_hex_value(p[1]) < 0 || char_hex_value(p[2]) < 0))
                        return NULL;
        if (!literal)
                return p;
        return p < end && *p == ']' && p > begin + 1 ? p + 1 : NULL;
}

/* uri-host [ ":" port ] (RFC 9110, section 7.2); no user information (section 4.2.4), and no port without a
 * host (section 4.2.1). */
static bool is_authority(const char *p, const char *end) {
        const char *host = p;

        p = skip_host(p, end);
        if (!p || p == end)
                return p;
        if (*p != ':' || p == host)
                return false;
        for (p++; p < end; p++)
                if (!char_is_digit(*p))
                        return false;
        return true;
}

static void split_query(Head *h, const char *path, const char *end) {
        const char *mark = memchr(path, '?', (size_t) (end - path));

        h->request->path = slice(h->buf, path, mark ?: end);
        h->request->query = mark ? slice(h->buf, mark + 1, end) : (HttpSlice){ 0 };
}

/* RFC 9112, section 3.2.2: "http://host/path"; an empty path is "/". */
static int parse_absolute_form(Head *h, const char *p, const char *end) {
        size_t n = (size_t) (end - p);
        const char *authority, *path;

        if (n > 7 && equals(p, 7, "http://"))
                authority = p + 7;
        else if (n > 8 && equals(p, 8, "https://"))
                authority = p + 8;
        else
                return 400;

        for (path = authority; path < end && *path != '/' && *path != '?';)
                path++;
        if (path == authority || !is_authority(authority, path))
                return 400;
        h->named = true;
        h->request->authority = slice(h->buf, authority, path);
        split_query(h, path, end);
        return 0;
}

/* RFC 9112, section 3.2.3: a host and a port, neither of them empty (RFC 9110, section 9.3.6). */
static int parse_authority_form(Head *h, const char *p, const char *end) {
        if (!is_authority(p, end) || !char_is_digit(end[-1]) || !memchr(p, ':', (size_t) (end - p)))
                return 400;
        h->named = true;
        h->request->authority = h->request->path = slice(h->buf, p, end);
        h->request->query = (HttpSlice){ 0 };
        return 0;
}

/* Its characters are right. */
static int parse_target(Head *h, const char *p, const char *end) {
        if (p == end)
                return 400;
        if (end - p > HTTP_TARGET_MAX)
                return 414;
        if (h->request->method == HTTP_CONNECT)
                return parse_authority_form(h, p, end);
        if (*p == '/' || (h->request->method == HTTP_OPTIONS && end - p == 1 && *p == '*')) {
                split_query(h, p, end);
                return 0;
        }
        return parse_absolute_form(h, p, end);
}

/* RFC 9112, section 2.3. A higher minor version of 1 is understood as 1.1 (RFC 9110, section 2.5). */
static int parse_version(Head *h, const char *p, const char *end) {
        if (end - p != 8 || memcmp(p, "HTTP/", 5) != 0 || !char_is_digit(p[5]) || p[6] != '.' ||
                        !char_is_digit(p[7]))
                return 400;
        if (p[5] != '1')
                return 505;
        h->request->minor_version = p[7] == '0' ? 0 : 1;
        return 0;
}

/* RFC 9112, section 3: exactly one space between the three parts. */
static int parse_request_line(Head *h, const char *p, const char *end, const char **ret_next) {
        const char *method = p, *target, *space, *version, *cr;
        int r;

        p = scan_token(p, end);
        if (*p != ' ')
                return 400; /* its first byte is one of a token: see is_first() */
        target = p + 1;
        space = scan_target(target, end);
        if (*space != ' ')
                return 400;
        version = space + 1;
        cr = scan_text(version, end);
        if (!is_line_end(cr))
                return 400;

        r = parse_version(h, version, cr);
        if (r != 0)
                return r;
        if (p - method > HTTP_METHOD_MAX)
                return 501; /* longer than any that somebody implements: RFC 9112, section 3 */
        h->request->method = method_from_string(method, (size_t) (p - method));
        h->request->method_name = slice(h->buf, method, p);
        *ret_next = cr + 2;
        return parse_target(h, target, space);
}

static int apply_host(Head *h, const char *p, const char *end) {
        if (++h->n_hosts > 1 || !is_authority(p, end))
                return 400;
        if (!h->named)
                h->request->authority = slice(h->buf, p, end);
        return 0;
}

static int apply_connection(Head *h, const char *p, const char *end) {
        HttpSlice list = slice(h->buf, p, end), e;

        while (parser_next_element(h->buf, &list, &e)) {
                if (equals(h->buf + e.offset, e.length, "close"))
                        h->says_close = true;
                else if (equals(h->buf + e.offset, e.length, "keep-alive"))
                        h->says_keep_alive = true;
        }
        return 0;
}

/* RFC 9112, section 6.3: equal values might be taken as one; nobody honest sends them. */
static int apply_content_length(Head *h, const char *p, const char *end) {
        uint64_t v = 0;

        if (++h->n_lengths > 1 || p == end)
                return 400;
        for (; p < end; p++) {
                if (!char_is_digit(*p))
                        return 400;
                if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
                                __builtin_add_overflow(v, (uint64_t) (*p - '0'), &v))
                        return 413;
        }
        h->request->content_length = v;
        return 0;
}

/* RFC 9112, section 6.1: chunked alone is understood, once, and without the empty elements that a list might
 * have. If it is there but not the last coding, nobody knows where the body ends: 400; other codings are
 * merely not implemented. */
static int apply_transfer_encoding(Head *h, const char *p, const char *end) {
        HttpSlice list = slice(h->buf, p, end), e;
        unsigned n = 0, n_chunked = 0;
        bool last = false;

        if (++h->n_codings > 1)
                return 400;
        if (equals(p, (size_t) (end - p), "chunked")) {
                h->request->chunked = true;
                return 0;
        }
        for (; parser_next_element(h->buf, &list, &e); n++) {
                last = equals(h->buf + e.offset, e.length, "chunked");
                n_chunked += last;
        }
        return n == n_chunked || n_chunked > 1 || (n_chunked == 1 && !last) ? 400 : 501;
}

static int apply_expect(Head *h, const char *p, const char *end) {
        if (!equals(p, (size_t) (end - p), "100-continue"))
                return 417;
        h->request->expect_continue = true;
        return 0;
}

/* The fields that matter to the parser itself have names of different lengths. */
static int apply_field(Head *h, const char *name, size_t n, const char *value, const char *end) {
        switch (n) {
        case 4:
                return equals(name, n, "host") ? apply_host(h, value, end) : 0;
        case 6:
                return equals(name, n, "expect") ? apply_expect(h, value, end) : 0;
        case 10:
                return equals(name, n, "connection") ? apply_connection(h, value, end) : 0;
        case 14:
                return equals(name, n, "content-length") ? apply_content_length(h, value, end) : 0;
        case 17:
                return equals(name, n, "transfer-encoding") ? apply_transfer_encoding(h, value, end) : 0;
        default:
                return 0;
        }
}

/* RFC 9112, section 5: no white space before the colon (5.1), no folded lines (5.2). */
static int parse_field(Head *h, const char *p, const char *end, const char **ret_next) {
        HttpRequest *request = h->request;
        const char *name = p, *colon, *value, *stop;

        colon = scan_token(p, end);
        if (colon == name || *colon != ':')
                return 400;
        for (value = colon + 1; char_is_space(*value);)
                value++;
        stop = scan_text(value, end);
        if (!is_line_end(stop))
                return 400;
        *ret_next = stop + 2;
        while (stop > value && char_is_space(stop[-1]))
                stop--;
        if (request->n_fields >= HTTP_FIELDS_MAX)
                return 431;

        request->fields[request->n_fields++] = (HttpField){
                .name = slice(h->buf, name, colon),
                .value = slice(h->buf, value, stop),
        };
        return apply_field(h, name, (size_t) (colon - name), value, stop);
}

/* What only all fields together tell. */
static int check_head(const Head *h) {
        HttpRequest *request = h->request;

        if (request->minor_version == 1 && h->n_hosts == 0)
                return 400; /* RFC 9112, section 3.2 */
        if (request->chunked && (h->n_lengths > 0 || request->minor_version == 0))
                return 400; /* RFC 9112, section 6.1: ought to be handled as an attack */
        if (request->minor_version == 0)
                request->expect_continue = false; /* RFC 9110, section 10.1.1 */

        /* RFC 9112, section 9.3. What follows CONNECT is not HTTP. */
        request->keep_alive = !h->says_close && (request->minor_version == 1 || h->says_keep_alive) &&
                              request->method != HTTP_CONNECT;
        return PARSER_DONE;
}

static void request_init(HttpRequest *request, uint32_t head_size) {
        /* The table of fields is large and filled from the front: it needs no clearing. */
        memset(request, 0, offsetof(HttpRequest, fields));
        request->head_size = head_size;
}

/* Nothing in here looks at or behind @end: the empty line before it stops every run of bytes. */
static int parse_lines(Head *h, const char *p, const char *end) {
        int r;

        r = parse_request_line(h, p, end, &p);
        while (r == 0 && p < end - 2)
                r = parse_field(h, p, end, &p);
        return r;
}

int parser_parse_head(ParserScan *scan, const char *buf, size_t n, size_t max, HttpRequest *ret) {
        Head h = { .buf = buf, .request = ret };
        int r;

        r = find_end(scan, buf, n, max);
        if (r != PARSER_DONE)
                return r;

        request_init(ret, scan->seen);
        r = parse_lines(&h, buf + scan->start, buf + scan->seen);
        return r != 0 ? r : check_head(&h);
}

bool parser_next_field(
                const HttpRequest *request, const char *buf, const char *name, unsigned *i, HttpSlice *ret) {
        while (*i < request->n_fields) {
                const HttpField *f = request->fields + (*i)++;

                if (equals(buf + f->name.offset, f->name.length, name)) {
                        *ret = f->value;
                        return true;
                }
        }
        return false;
}

bool parser_next_element(const char *buf, HttpSlice *list, HttpSlice *ret) {
        const char *p = buf + list->offset, *end = p + list->length, *comma, *stop;

        while (p < end && (char_is_space(*p) || *p == ','))
                p++;
        if (p == end)
                return false;
        comma = memchr(p, ',', (size_t) (end - p));
        stop = comma ?: end;
        *list = slice(buf, stop, end);
        while (stop > p && char_is_space(stop[-1]))
                stop--;
        *ret = slice(buf, p, stop);
        return true;
}

/* SPDX-License-Identifier: MIT */
/* The request head; see parser.h.
 *
 * Two passes: the first looks for the empty line, resuming where it stopped, and refuses any line end but
 * CRLF; only a complete head is read in the second. A head that drips in byte by byte is therefore looked at
 * once, and what does not look like HTTP at all (a TLS greeting on the wrong port) is refused at its first
 * byte. */

#include "http/parser.h"

#include <string.h>
#include <strings.h>

#include "basic/macro.h"
#include "http/chars.h"

#define TOKEN 1 /* tchar, RFC 9110, section 5.6.2 */
#define HOST  2 /* reg-name, RFC 3986, section 3.2.2 */

static const uint8_t classes[256] = {
        ['0' ... '9'] = TOKEN | HOST,
        ['A' ... 'Z'] = TOKEN | HOST,
        ['a' ... 'z'] = TOKEN | HOST,
        ['!'] = TOKEN | HOST,
        ['$'] = TOKEN | HOST,
        ['%'] = TOKEN | HOST,
        ['&'] = TOKEN | HOST,
        ['\''] = TOKEN | HOST,
        ['*'] = TOKEN | HOST,
        ['+'] = TOKEN | HOST,
        ['-'] = TOKEN | HOST,
        ['.'] = TOKEN | HOST,
        ['_'] = TOKEN | HOST,
        ['~'] = TOKEN | HOST,
        ['#'] = TOKEN,
        ['^'] = TOKEN,
        ['`'] = TOKEN,
        ['|'] = TOKEN,
        ['('] = HOST,
        [')'] = HOST,
        [','] = HOST,
        [';'] = HOST,
        ['='] = HOST,
};

static const char *const method_names[HTTP_OTHER] = {
        [HTTP_GET] = "GET",
        [HTTP_HEAD] = "HEAD",
        [HTTP_POST] = "POST",
        [HTTP_PUT] = "PUT",
        [HTTP_DELETE] = "DELETE",
        [HTTP_CONNECT] = "CONNECT",
        [HTTP_OPTIONS] = "OPTIONS",
        [HTTP_TRACE] = "TRACE",
        [HTTP_PATCH] = "PATCH",
};

/* A head while it is read. */
typedef struct Head {
        const char *buf;
        HttpRequest *request;
        unsigned n_hosts, n_lengths, n_codings;
        bool absolute;   /* the target named the authority: Host does not count */
        bool says_close; /* options of the Connection field */
        bool says_keep_alive;
} Head;

static bool is_class(char c, uint8_t class) {
        return classes[(uint8_t) c] & class;
}

static bool is_space(char c) {
        return c == ' ' || c == '\t';
}

/* More than RFC 3986 allows (browsers send | and { as they are), but no space, control, '#' or byte beyond
 * ASCII. */
static bool is_target_char(char c) {
        return c > 0x20 && c < 0x7F && c != '#';
}

static HttpSlice slice(const char *buf, const char *from, const char *to) {
        return (HttpSlice){ .offset = (uint32_t) (from - buf), .length = (uint32_t) (to - from) };
}

static bool equals(const char *p, size_t n, const char *word) {
        return n == strlen(word) && strncasecmp(p, word, n) == 0;
}

static int too_long(const ParserScan *s) {
        return s->line == s->start ? 414 : 431;
}

/* Whether what is there can begin a request at all. */
static bool is_first(const ParserScan *s, const char *buf, size_t n) {
        return n <= s->start || is_class(buf[s->start], TOKEN) || (buf[s->start] == '\r' && s->start == 0);
}

/* PARSER_DONE when s->seen is the end of the head. */
static int find_end(ParserScan *s, const char *buf, size_t n, size_t max) {
        for (;;) {
                if (!is_first(s, buf, n))
                        return 400;

                const char *lf = memchr(buf + s->seen, '\n', n - s->seen);
                if (!lf) {
                        s->seen = (uint32_t) n;
                        return n >= max ? too_long(s) : PARSER_MORE;
                }

                uint32_t end = (uint32_t) (lf - buf);
                if (end >= max)
                        return too_long(s);
                if (end == s->line || buf[end - 1] != '\r')
                        return 400; /* a bare LF: allowed to a recipient, but the stuff smuggling is made of
                                     */
                s->seen = end + 1;
                if (end - 1 == s->line) {
                        if (s->line > s->start)
                                return PARSER_DONE;
                        if (s->start > 0)
                                return 400;
                        s->start = s->seen; /* one empty line before a request is forgiven: RFC 9112,
                                               section 2.2 */
                }
                s->line = s->seen;
        }
}

static HttpMethod method_from_string(const char *p, size_t n) {
        for (int m = 0; m < HTTP_OTHER; m++)
                if (n == strlen(method_names[m]) && memcmp(p, method_names[m], n) == 0)
                        return (HttpMethod) m;
        return HTTP_OTHER;
}

/* uri-host [ ":" port ] (RFC 9110, section 7.2); no user information (section 4.2.4). */
static bool is_authority(const char *p, const char *end) {
        if (p < end && *p == '[') {
                for (p++; p < end && *p != ']'; p++)
                        if (!is_class(*p, HOST) && *p != ':')
                                return false;
                if (p == end)
                        return false;
                p++;
        } else
                while (p < end && is_class(*p, HOST))
                        p++;
        if (p < end && *p != ':')
                return false;
        for (p += p < end; p < end; p++)
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

        if (n > 7 && strncasecmp(p, "http://", 7) == 0)
                authority = p + 7;
        else if (n > 8 && strncasecmp(p, "https://", 8) == 0)
                authority = p + 8;
        else
                return 400;

        for (path = authority; path < end && *path != '/' && *path != '?';)
                path++;
        if (path == authority || !is_authority(authority, path))
                return 400;
        h->absolute = true;
        h->request->authority = slice(h->buf, authority, path);
        split_query(h, path, end);
        return 0;
}

static int parse_target(Head *h, const char *p, const char *end) {
        if (p == end)
                return 400;
        if (end - p > HTTP_TARGET_MAX)
                return 414;
        for (const char *q = p; q < end; q++)
                if (!is_target_char(*q))
                        return 400;

        if (h->request->method == HTTP_CONNECT) {
                h->request->path = slice(h->buf, p, end);
                h->request->query = (HttpSlice){ 0 };
                return is_authority(p, end) ? 0 : 400;
        }
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
static int parse_request_line(Head *h, const char *p, const char *end) {
        const char *method = p, *target, *version;
        int r;

        while (p < end && is_class(*p, TOKEN))
                p++;
        if (p == method || p == end || *p != ' ')
                return 400;
        target = p + 1;
        version = memchr(target, ' ', (size_t) (end - target));
        if (!version)
                return 400;

        r = parse_version(h, version + 1, end);
        if (r != 0)
                return r;
        if (p - method > HTTP_METHOD_MAX)
                return 501; /* longer than any that somebody implements: RFC 9112, section 3 */
        h->request->method = method_from_string(method, (size_t) (p - method));
        h->request->method_name = slice(h->buf, method, p);
        return parse_target(h, target, version);
}

static int apply_host(Head *h, const char *p, const char *end) {
        if (++h->n_hosts > 1 || !is_authority(p, end))
                return 400;
        if (!h->absolute)
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

/* RFC 9112, section 6.1: chunked alone is understood. If it is there but not the last coding, nobody knows
 * where the body ends: 400; other codings are merely not implemented. */
static int apply_transfer_encoding(Head *h, const char *p, const char *end) {
        HttpSlice list = slice(h->buf, p, end), e;
        unsigned n = 0, n_chunked = 0;
        bool last = false;

        if (++h->n_codings > 1)
                return 400;
        while (parser_next_element(h->buf, &list, &e)) {
                last = equals(h->buf + e.offset, e.length, "chunked");
                n_chunked += last;
                n++;
        }
        if (n == 0 || n_chunked > 1 || (n_chunked == 1 && !last))
                return 400;
        if (n > 1 || n_chunked == 0)
                return 501;
        h->request->chunked = true;
        return 0;
}

static int apply_expect(Head *h, const char *p, const char *end) {
        if (!equals(p, (size_t) (end - p), "100-continue"))
                return 417;
        h->request->expect_continue = true;
        return 0;
}

static const struct {
        const char *name;
        int (*apply)(Head *h, const char *p, const char *end);
} known_fields[] = {
        { "host", apply_host },
        { "connection", apply_connection },
        { "content-length", apply_content_length },
        { "transfer-encoding", apply_transfer_encoding },
        { "expect", apply_expect },
};

static int apply_field(Head *h, const HttpField *f) {
        const char *value = h->buf + f->value.offset;

        for (size_t i = 0; i < ELEMENTSOF(known_fields); i++)
                if (equals(h->buf + f->name.offset, f->name.length, known_fields[i].name))
                        return known_fields[i].apply(h, value, value + f->value.length);
        return 0;
}

/* RFC 9112, section 5: no white space before the colon (5.1), no folded lines (5.2). */
static int parse_field(Head *h, const char *p, const char *end) {
        HttpRequest *request = h->request;
        const char *name = p;

        while (p < end && is_class(*p, TOKEN))
                p++;
        if (p == name || p == end || *p != ':')
                return 400;
        if (request->n_fields >= HTTP_FIELDS_MAX)
                return 431;

        HttpField *f = request->fields + request->n_fields++;
        f->name = slice(h->buf, name, p);
        for (p++; p < end && is_space(*p);)
                p++;
        for (const char *q = p; q < end; q++)
                if (!char_is_text(*q))
                        return 400;
        while (end > p && is_space(end[-1]))
                end--;
        f->value = slice(h->buf, p, end);
        return apply_field(h, f);
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

int parser_parse_head(ParserScan *scan, const char *buf, size_t n, size_t max, HttpRequest *ret) {
        Head h = { .buf = buf, .request = ret };
        const char *p, *end;
        int r;

        r = find_end(scan, buf, n, max);
        if (r != PARSER_DONE)
                return r;

        request_init(ret, scan->seen);
        end = buf + scan->seen - 2;
        for (p = buf + scan->start; p < end;) {
                const char *lf = memchr(p, '\n', (size_t) (end - p));

                r = p == buf + scan->start ? parse_request_line(&h, p, lf - 1) : parse_field(&h, p, lf - 1);
                if (r != 0)
                        return r;
                p = lf + 1;
        }
        return check_head(&h);
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

        while (p < end && (is_space(*p) || *p == ','))
                p++;
        if (p == end)
                return false;
        comma = memchr(p, ',', (size_t) (end - p));
        stop = comma ?: end;
        *list = slice(buf, stop, end);
        while (stop > p && is_space(stop[-1]))
                stop--;
        *ret = slice(buf, p, stop);
        return true;
}

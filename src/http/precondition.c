/* SPDX-License-Identifier: MIT */
/* Conditional requests; see precondition.h. */

#include "http/precondition.h"

#include <string.h>

#include "http/date.h"

/* entity-tag of RFC 9110, section 8.8.3, at the head of @list, which moves behind it. The opaque part with
 * its quotes in @ret. */
static bool next_tag(const char *buf, HttpSlice *list, HttpSlice *ret, bool *ret_weak) {
        const char *p = buf + list->offset, *end = p + list->length, *open;

        while (p < end && (*p == ' ' || *p == '\t' || *p == ','))
                p++;
        *ret_weak = end - p >= 2 && p[0] == 'W' && p[1] == '/';
        if (*ret_weak)
                p += 2;
        if (p == end || *p != '"')
                return false;
        open = p++;
        while (p < end && *p != '"')
                p++;
        if (p == end)
                return false;
        p++;
        *ret = (HttpSlice){ (uint32_t) (open - buf), (uint32_t) (p - open) };
        *list = (HttpSlice){ (uint32_t) (p - buf), (uint32_t) (end - p) };
        return true;
}

static bool slice_equals(const char *buf, HttpSlice s, const char *text) {
        return s.length == strlen(text) && memcmp(buf + s.offset, text, s.length) == 0;
}

/* Commas may stand inside of a tag, so this is not the plain list of section 5.6.1. */
static bool list_has_tag(const char *buf, HttpSlice list, const char *etag, bool strong) {
        HttpSlice tag;
        bool weak;

        if (list.length == 1 && buf[list.offset] == '*')
                return true;
        while (next_tag(buf, &list, &tag, &weak))
                if (!(strong && weak) && slice_equals(buf, tag, etag))
                        return true;
        return false;
}

typedef enum Match { MATCH_ABSENT, MATCH_NONE, MATCH_FOUND } Match;

static Match match_tags(const HttpRequest *request, const char *buf, const char *name, const char *etag,
                bool strong) {
        Match found = MATCH_ABSENT;
        HttpSlice value;

        for (unsigned i = 0; parser_next_field(request, buf, name, &i, &value);) {
                if (list_has_tag(buf, value, etag, strong))
                        return MATCH_FOUND;
                found = MATCH_NONE;
        }
        return found;
}

/* A date that cannot be read, or one of several, is no condition (sections 13.1.3 and 13.1.4). */
static bool field_date(
                const HttpRequest *request, const char *buf, const char *name, int64_t now, int64_t *ret) {
        HttpSlice value, another;
        unsigned i = 0;

        return parser_next_field(request, buf, name, &i, &value) &&
               date_parse(buf + value.offset, value.length, now, ret) >= 0 &&
               !parser_next_field(request, buf, name, &i, &another);
}

unsigned precondition_check(const HttpRequest *request, const char *buf, const Validators *v, int64_t now) {
        int64_t date;
        Match match;

        match = match_tags(request, buf, "if-match", v->etag, /* strong= */ true);
        if (match == MATCH_NONE)
                return 412;
        if (match == MATCH_ABSENT && field_date(request, buf, "if-unmodified-since", now, &date) &&
                        v->modified > date)
                return 412;

        match = match_tags(request, buf, "if-none-match", v->etag, /* strong= */ false);
        if (match == MATCH_FOUND)
                return 304;
        if (match == MATCH_ABSENT && field_date(request, buf, "if-modified-since", now, &date) &&
                        v->modified <= date)
                return 304;
        return 0;
}

/* A date of this very second is no strong validator, since the file may change again in it (section
 * 8.8.2.2), and another than the exact one is none at all (section 13.1.5). */
static bool date_names(const char *s, size_t n, const Validators *v, int64_t now) {
        int64_t date;

        return date_parse(s, n, now, &date) >= 0 && date == v->modified && v->modified < now;
}

bool precondition_allows_range(
                const HttpRequest *request, const char *buf, const Validators *v, int64_t now) {
        HttpSlice value, another;
        unsigned i = 0;
        const char *s;

        if (!parser_next_field(request, buf, "if-range", &i, &value))
                return true;
        if (parser_next_field(request, buf, "if-range", &i, &another))
                return false;
        s = buf + value.offset;
        if (value.length > 0 && (*s == '"' || (*s == 'W' && value.length > 1 && s[1] == '/')))
                return slice_equals(buf, value, v->etag); /* a weak tag is never equal */
        return date_names(s, value.length, v, now);
}

/* SPDX-License-Identifier: MIT */
/* The pure parts that see what clients send: head, fields, target, dates.
 *
 * Beyond not crashing they must keep their promises: a head has the same outcome whole or in pieces, and
 * every offset lies inside of it; vectors find what plain loops find; a path has nothing in it that leads
 * upwards. */

#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "fuzz.h"
#include "http/date.h"
#include "http/parser.h"
#include "http/precondition.h"
#include "http/scan.h"
#include "http/target.h"

#define MAX_HEAD 4096

static void check(bool condition) {
        if (!condition)
                abort();
}

static void check_slice(const HttpRequest *request, HttpSlice s) {
        check(s.length == 0 || (uint64_t) s.offset + s.length <= request->head_size);
}

static void check_path(const TargetPath *path) {
        const char *p = path->text;

        check(path->length < TARGET_PATH_MAX && strlen(p) == path->length && *p != '/');
        while (*p) {
                size_t n = strcspn(p, "/");

                check(n > 0 && !(n == 1 && p[0] == '.') && !(n == 2 && p[0] == '.' && p[1] == '.'));
                p += n;
                if (*p)
                        check(*++p != '\0');
        }
}

static void check_target(const char *text, size_t n) {
        char location[3 * TARGET_PATH_MAX + 3];
        TargetPath path, again;

        if (target_to_path(text, n, &path) != 0)
                return;
        check_path(&path);

        int k = target_from_path(&path, location, sizeof(location));
        check(k > 0 && location[0] == '/' && location[1] != '/' && !strpbrk(location, "\\\r\n "));
        check(target_to_path(location, (size_t) k, &again) == 0 && strcmp(again.text, path.text) == 0);
}

static void check_request(const HttpRequest *request, const char *buf) {
        check(request->n_fields <= HTTP_FIELDS_MAX);
        check_slice(request, request->method_name);
        check_slice(request, request->path);
        check_slice(request, request->query);
        check_slice(request, request->authority);
        for (unsigned i = 0; i < request->n_fields; i++) {
                check(request->fields[i].name.length > 0);
                check_slice(request, request->fields[i].name);
                check_slice(request, request->fields[i].value);
                check(!memchr(buf + request->fields[i].value.offset, '\r', request->fields[i].value.length));
        }
        (void) precondition_check(request, buf, &(Validators){ .etag = "\"1-2\"" }, 0);
        check_target(buf + request->path.offset, request->path.length);
}

static void check_head(const char *buf, size_t n) {
        ParserScan scan = { 0 }, pieces = { 0 };
        HttpRequest whole, piecewise;
        int r, r2 = PARSER_MORE;

        r = parser_parse_head(&scan, buf, n, MAX_HEAD, &whole);
        for (size_t i = 1; i <= n && r2 == PARSER_MORE; i++)
                r2 = parser_parse_head(&pieces, buf, i, MAX_HEAD, &piecewise);
        if (n == 0)
                check(r == PARSER_MORE);
        else
                check(r == r2);
        if (r != PARSER_DONE)
                return;
        check(whole.head_size <= n);
        check(memcmp(&whole, &piecewise, offsetof(HttpRequest, fields)) == 0);
        check(memcmp(whole.fields, piecewise.fields, whole.n_fields * sizeof(HttpField)) == 0);
        check_request(&whole, buf);
}

/* Vectors stop where plain loops do. */
static void check_scans(const char *buf, size_t n) {
        const char *end = buf + n;

        for (const char *p = buf; p < end; p += 1 + (size_t) (p - buf) / 8) {
                const char *lf = memchr(p, '\n', (size_t) (end - p));

                check(scan_text(p, end) == scan_plain(p, end, CHAR_TEXT));
                check(scan_target(p, end) == scan_plain(p, end, CHAR_TARGET));
                check(scan_line(p, end) == (lf ?: end));
        }
}

static void check_date(const char *buf, size_t n) {
        char text[DATE_LENGTH + 1];
        int64_t t, again;

        if (date_parse(buf, n, 0, &t) < 0)
                return;
        date_format(t, text);
        check(date_parse(text, DATE_LENGTH, 0, &again) == 0 && again == t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = (const char *) data;

        check_scans(text, size);
        check_head(text, size);
        check_date(text, size);
        check_target(text, size);
        return 0;
}

/* SPDX-License-Identifier: MIT */
/* The table of the API, and the bodies it takes; see api.h.
 *
 * A browser on this host may be made to send requests by any page, if only a proxy leads to the socket. Of
 * such a request a page cannot choose the type application/json without being asked for permission first,
 * which nobody here gives; and what changes something is refused when it has an Origin. */

#include "admin/api.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "basic/macro.h"

/* What of a value is repeated in a message. */
#define FOUND_MAX 64

typedef struct Route {
        const char *path;
        bool changes; /* POST; else GET and HEAD */
        const char *act;
        /* Reads the body of a POST: the members that it may have. NULL: it has none. */
        bool (*read)(const json_t *body, ApiDecision *ret);
        size_t body_max;
} Route;

/* More than anybody needs for anything but a message. */
#define COMMAND_MAX ((size_t) 64 * 1024)

static bool read_workers(const json_t *body, ApiDecision *ret);
static bool read_message(const json_t *body, ApiDecision *ret);

static const Route routes[] = {
        { "/v1/status", false, "list", NULL, COMMAND_MAX },
        { "/v1/exits", false, "exits", NULL, COMMAND_MAX },
        { "/v1/reload", true, "reload", NULL, COMMAND_MAX },
        { "/v1/scale", true, "scale", read_workers, COMMAND_MAX },
        { "/v1/send", true, "send", read_message, API_BODY_MAX },
};

static const struct {
        unsigned status;
        const char *code;
        const char *message;
} statuses[] = {
        { 400, "invalid", "The request is no well-formed HTTP/1.1." },
        { 403, "forbidden", "A request of a web page is not taken here." },
        { 404, "not-found", "There is nothing of this name." },
        { 405, "method-not-allowed", "The method is not allowed for this." },
        { 408, "timeout", "The request did not come in time." },
        { 411, "length-required", "The body must have a Content-Length." },
        { 413, "too-large", "The body is too long." },
        { 414, "too-large", "The target of the request is too long." },
        { 415, "unsupported-media-type", "The body must be application/json." },
        { 417, "expectation-failed", "No expectation but 100-continue is met." },
        { 431, "too-large", "The head of the request is too long, expected at most 16384 bytes." },
        { 500, "failed", "muster-admin failed." },
        { 501, "not-implemented", "The method is unknown." },
        { 503, "unavailable", "The master is ending, or gone." },
        { 505, "version", "This version of HTTP is not spoken here, expected HTTP/1.1." },
};

static _printf_(4, 5) bool refuse(
                ApiDecision *d, unsigned status, const char *code, const char *format, ...) {
        va_list ap;

        *d = (ApiDecision){ .status = status, .code = code };
        va_start(ap, format);
        vsnprintf(d->message, sizeof(d->message), format, ap);
        va_end(ap);
        return false;
}

void api_set_status(ApiDecision *d, unsigned status) {
        for (size_t i = 0; i < ELEMENTSOF(statuses); i++)
                if (statuses[i].status == status) {
                        (void) refuse(d, status, statuses[i].code, "%s", statuses[i].message);
                        return;
                }
        api_set_status(d, 500);
}

static bool refuse_status(ApiDecision *d, unsigned status) {
        api_set_status(d, status);
        return false;
}

unsigned api_status_of_code(const char *code) {
        static const struct {
                const char *code;
                unsigned status;
        } codes[] = { { "busy", 409 }, { "failed", 422 }, { "invalid", 422 }, { "unknown", 501 } };

        for (size_t i = 0; code && i < ELEMENTSOF(codes); i++)
                if (strcmp(codes[i].code, code) == 0)
                        return codes[i].status;
        return 500;
}

static const Route *find_route(const char *path, size_t n) {
        for (size_t i = 0; i < ELEMENTSOF(routes); i++)
                if (strlen(routes[i].path) == n && memcmp(routes[i].path, path, n) == 0)
                        return routes + i;
        return NULL;
}

static const Route *route_of(const HttpRequest *request, const char *buf) {
        return find_route(buf + request->path.offset, request->path.length);
}

/* RFC 9110, section 8.3: type "/" subtype, and parameters that do not matter here. */
static bool is_json_type(const char *value, size_t n) {
        static const char type[] = "application/json";
        size_t k = sizeof(type) - 1;

        return n >= k && strncasecmp(value, type, k) == 0 &&
               (n == k || value[k] == ';' || value[k] == ' ' || value[k] == '\t');
}

static bool has_field(const HttpRequest *request, const char *buf, const char *name, HttpSlice *ret) {
        unsigned i = 0;

        return parser_next_field(request, buf, name, &i, ret);
}

static bool check_method(const Route *route, HttpMethod method, ApiDecision *ret) {
        bool right = route->changes ? method == HTTP_POST : method == HTTP_GET || method == HTTP_HEAD;

        if (right)
                return true;
        api_set_status(ret, 405);
        ret->allow = route->changes ? "POST" : "GET, HEAD";
        snprintf(ret->message, sizeof(ret->message), "The method is not allowed for this, expected %s.",
                        route->changes ? "POST" : "GET or HEAD");
        return false;
}

/* Scalars alone could be sent by a page as text/plain. */
static bool check_body_type(
                const Route *route, const HttpRequest *request, const char *buf, ApiDecision *ret) {
        HttpSlice type;

        if (!route->changes)
                return request->content_length == 0 ||
                       refuse(ret, 400, "invalid", "A GET takes no body, found one of %llu bytes.",
                                       (unsigned long long) request->content_length);
        if (!route->read && request->content_length == 0)
                return true;
        if (!has_field(request, buf, "content-type", &type))
                return refuse(ret, 415, "unsupported-media-type",
                                "Found no Content-Type, expected application/json.");
        return is_json_type(buf + type.offset, type.length) ||
               refuse(ret, 415, "unsupported-media-type",
                               "Found another Content-Type, expected application/json.");
}

bool api_check_head(const HttpRequest *request, const char *buf, ApiDecision *ret) {
        const Route *route = route_of(request, buf);
        HttpSlice origin;

        *ret = (ApiDecision){ .status = 0 };
        if (!route)
                return refuse_status(ret, 404);
        if (!check_method(route, request->method, ret))
                return false;
        if (route->changes && has_field(request, buf, "origin", &origin))
                return refuse_status(ret, 403);
        if (request->chunked)
                return refuse_status(ret, 411);
        if (request->content_length > route->body_max)
                return refuse(ret, 413, "too-large", "The body: found %llu bytes, expected at most %zu.",
                                (unsigned long long) request->content_length, route->body_max);
        return check_body_type(route, request, buf, ret);
}

/* The value as it was written, or its beginning; all of it printable. */
static const char *found(const json_t *value, char buf[static FOUND_MAX]) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_COMPACT);
        bool whole = text && strlen(text) < FOUND_MAX - 3;

        snprintf(buf, FOUND_MAX, "%.*s%s", FOUND_MAX - 4, text ? text : "?", whole ? "" : "...");
        free(text);
        return buf;
}

/* What nobody reads was meant to do something. */
static bool check_members(const json_t *body, size_t n, const char *expected, ApiDecision *ret) {
        return json_object_size(body) == n ||
               refuse(ret, 400, "invalid", "The body: found %zu members, expected %s.",
                               json_object_size(body), expected);
}

static bool read_number(const json_t *value, const char *name, unsigned *ret_number, ApiDecision *ret) {
        char buf[FOUND_MAX];

        if (!json_is_integer(value) || json_integer_value(value) < 1 ||
                        json_integer_value(value) > API_WORKERS_MAX)
                return refuse(ret, 400, "invalid", "%s: found %s, expected a number from 1 to %d.", name,
                                value ? found(value, buf) : "nothing", API_WORKERS_MAX);
        *ret_number = (unsigned) json_integer_value(value);
        return true;
}

static bool read_workers(const json_t *body, ApiDecision *ret) {
        return read_number(json_object_get(body, "workers"), "workers", &ret->workers, ret) &&
               check_members(body, 1, "\"workers\" alone", ret);
}

static bool read_message(const json_t *body, ApiDecision *ret) {
        const json_t *message = json_object_get(body, "message"), *worker = json_object_get(body, "worker");
        _cleanup_free_ char *text = NULL;

        if (!message)
                return refuse(ret, 400, "invalid", "message: found nothing, expected a JSON value.");
        if (worker && !read_number(worker, "worker", &ret->worker, ret))
                return false;
        if (!check_members(body, worker ? 2 : 1, "\"message\" and at most \"worker\" besides", ret))
                return false;
        text = json_dumps(message, JSON_ENCODE_ANY | JSON_COMPACT);
        if (!text)
                return refuse_status(ret, 500);
        if (strlen(text) > API_PAYLOAD_MAX)
                return refuse(ret, 413, "too-large", "message: found %zu bytes, expected at most %d.",
                                strlen(text), API_PAYLOAD_MAX);
        ret->payload = TAKE_PTR(text);
        return true;
}

static bool read_body(const Route *route, const char *text, size_t n, ApiDecision *ret) {
        char buf[FOUND_MAX];
        json_error_t error;
        bool done = false;
        json_t *body;

        body = json_loadb(text, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
        if (!body)
                return refuse(ret, 400, "invalid", "The body is no JSON, at byte %d: expected an object.",
                                error.position);
        if (!json_is_object(body))
                (void) refuse(ret, 400, "invalid", "The body: found %s, expected an object.",
                                found(body, buf));
        else
                done = route->read ? route->read(body, ret) : check_members(body, 0, "none", ret);
        json_decref(body);
        return done;
}

void api_decide(const HttpRequest *request, const char *buf, const char *body, size_t n, ApiDecision *ret) {
        const Route *route = route_of(request, buf);

        *ret = (ApiDecision){ .status = 0 };
        if ((route->read || n > 0) && !read_body(route, body, n, ret))
                return;
        ret->act = route->act;
}

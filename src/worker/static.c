/* SPDX-License-Identifier: MIT */
/* Static files; see static.h. */

#include "worker/static.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "http/mime.h"
#include "http/precondition.h"
#include "http/server.h"
#include "http/target.h"

#define LOCATION_MAX 2048

#define INDEX_NAME "index.html"

/* 0: no status of its own, the errno is passed up. What lies outside of the folder looks as if it were not
 * there. */
static unsigned status_from_open_error(int r) {
        switch (r) {
        case -ENOENT:
        case -ENOTDIR:
        case -ENAMETOOLONG:
        case -ELOOP: /* a link in a circle, or one that the walk does not follow */
        case -EXDEV:
        case -ENXIO: /* a socket */
        case -ENODEV:
                return 404;
        case -EACCES:
        case -EPERM:
                return 403;
        default:
                return 0;
        }
}

static int set_open_error(Response *response, int r) {
        unsigned status = status_from_open_error(r);

        if (status == 0)
                return r;
        response_set_error(response, status);
        return 0;
}

static int answer_whoami(const StaticSite *site, Exchange *x, Response *response) {
        const Identity *id = site->identity;

        (void) response_add_field(response, "Content-Type", "application/json");
        (void) response_add_field(response, "Cache-Control", "no-store");
        response->body = RESPONSE_BODY_MEMORY;
        response->memory = response->page;
        response->size = (uint64_t) snprintf(response->page, sizeof(response->page),
                        "{\"app\":\"%s\",\"slot\":%u,\"pid\":%d,\"generation\":%" PRIu64
                        ",\"requests\":%" PRIu64 "}\n",
                        id->app, id->worker, getpid(), id->generation, x->number);
        assert(response->size < sizeof(response->page));
        return 0;
}

/* "/folder" to "/folder/", so that relative links in its index work. */
static int redirect_to_directory(Exchange *x, const TargetPath *path, Response *response) {
        const HttpSlice *query = &x->request.query;
        char location[LOCATION_MAX];
        int n = target_from_path(path, location, sizeof(location));

        if (n < 0 || (size_t) n + 1 + query->length + 1 > sizeof(location)) {
                response_set_error(response, 414);
                return 0;
        }
        if (query->length > 0) {
                location[n++] = '?';
                memcpy(location + n, exchange_head(x) + query->offset, query->length);
                location[n + (int) query->length] = '\0';
        }
        (void) response_add_field(response, "Location", location);
        response_set_error(response, 301);
        return 0;
}

static int answer_file(
                Exchange *x, const TargetPath *path, int *fd, const struct stat *st, Response *response) {
        int64_t now = x->server->now_seconds, modified = st->st_mtim.tv_sec;
        char etag[FILE_ETAG_MAX], date[DATE_LENGTH + 1];
        Validators validators = { .etag = etag, .modified = st->st_mtim.tv_sec };
        unsigned status;

        /* A date in the future would be sent as now (RFC 9110, section 8.8.2.1). */
        if (modified > now)
                modified = now;
        file_etag(st, etag);
        date_format(modified, date);
        (void) response_add_field(response, "Last-Modified", date);
        (void) response_add_field(response, "ETag", etag);
        status = precondition_check(&x->request, exchange_head(x), &validators, now);
        if (status == 412) {
                response_set_error(response, status);
                return 0;
        }
        if (status == 304) {
                response->status = 304;
                return 0;
        }
        (void) response_add_field(response, "Content-Type", mime_from_path(path->text));
        response->body = RESPONSE_BODY_FILE;
        response->size = (uint64_t) st->st_size;
        response->fd = TAKE_FD(*fd);
        return 0;
}

/* There is no index in it: a folder that is there may not be listed, and one that is not is not found. */
static int answer_missing_index(StaticSite *site, TargetPath *path, Response *response) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;

        if (file_open_beneath(&site->root, path->text, &fd) < 0 || fstat(fd, &st) < 0 ||
                        !S_ISDIR(st.st_mode))
                response_set_error(response, 404);
        else
                response_set_error(response, 403);
        return 0;
}

static int append_index(TargetPath *path) {
        size_t n = path->length;

        if (n + sizeof("/" INDEX_NAME) > sizeof(path->text))
                return -ENAMETOOLONG;
        strcpy(path->text + n, n > 0 ? "/" INDEX_NAME : INDEX_NAME);
        return 0;
}

static int answer_path(StaticSite *site, Exchange *x, TargetPath *path, Response *response) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;
        int r = 0;

        if (path->directory)
                r = append_index(path);
        if (r >= 0)
                r = file_open_beneath(&site->root, path->text, &fd);
        if (r == -ENOENT && path->directory) {
                path->text[path->length] = '\0';
                return answer_missing_index(site, path, response);
        }
        if (r < 0)
                return set_open_error(response, r);
        if (fstat(fd, &st) < 0)
                return -errno;

        if (S_ISDIR(st.st_mode) && !path->directory)
                return redirect_to_directory(x, path, response);
        if (!S_ISREG(st.st_mode))
                return set_open_error(response, -ENODEV);
        return answer_file(x, path, &fd, &st, response);
}

static int static_answer(StaticSite *site, Exchange *x, Response *response) {
        const HttpRequest *request = &x->request;
        TargetPath path;
        int r;

        if (request->method == HTTP_OTHER) {
                response_set_error(response, 501); /* RFC 9110, section 9.1: not even known */
                return 0;
        }
        if (request->method != HTTP_GET && request->method != HTTP_HEAD) {
                (void) response_add_field(response, "Allow", "GET, HEAD");
                response_set_error(response, 405);
                return 0;
        }
        r = target_to_path(exchange_head(x) + request->path.offset, request->path.length, &path);
        if (r > 0) {
                response_set_error(response, (unsigned) r);
                return 0;
        }
        if (site->whoami && !path.directory && strcmp(path.text, "whoami") == 0)
                return answer_whoami(site, x, response);
        return answer_path(site, x, &path, response);
}

void static_request(void *userdata, Exchange *x) {
        int r = static_answer(userdata, x, &x->response);

        if (r < 0)
                response_set_error(&x->response, r == -EMFILE || r == -ENFILE || r == -ENOMEM ? 503 : 500);
        exchange_respond(x);
}

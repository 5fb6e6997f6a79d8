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
#include "http/target.h"

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

static int answer_whoami(const StaticSite *site, const HandlerCall *call, Response *response) {
        const Identity *id = site->identity;

        response->content_type = "application/json";
        response->cache_control = "no-store";
        response->size = (uint64_t) snprintf(response->text, sizeof(response->text),
                        "{\"app\":\"%s\",\"slot\":%u,\"pid\":%d,\"generation\":%" PRIu64
                        ",\"requests\":%" PRIu64 "}\n",
                        id->app, id->worker, getpid(), id->generation, call->request_number);
        assert(response->size < sizeof(response->text));
        return 0;
}

/* "/folder" to "/folder/", so that relative links in its index work. */
static int redirect_to_directory(const HandlerCall *call, const TargetPath *path, Response *response) {
        const HttpSlice *query = &call->request->query;
        int n = target_from_path(path, response->location, sizeof(response->location));

        if (n < 0 || (size_t) n + 1 + query->length + 1 > sizeof(response->location)) {
                response->location[0] = '\0';
                response_set_error(response, 414);
                return 0;
        }
        if (query->length > 0) {
                response->location[n++] = '?';
                memcpy(response->location + n, call->buf + query->offset, query->length);
                response->location[n + (int) query->length] = '\0';
        }
        response_set_error(response, 301);
        return 0;
}

static int answer_file(const HandlerCall *call, const TargetPath *path, int *fd, const struct stat *st,
                Response *response) {
        response->content_type = mime_from_path(path->text);
        response->last_modified = st->st_mtim.tv_sec;
        response->size = (uint64_t) st->st_size;
        file_etag(st, response->etag);

        /* A date in the future would be sent as now (RFC 9110, section 8.8.2.1). */
        if (response->last_modified > call->now)
                response->last_modified = call->now;
        if (file_not_modified(call->request, call->buf, response->etag, st->st_mtim.tv_sec, call->now)) {
                response->status = 304;
                response->size = 0;
                return 0;
        }
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

static int answer_path(StaticSite *site, const HandlerCall *call, TargetPath *path, Response *response) {
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
                return redirect_to_directory(call, path, response);
        if (!S_ISREG(st.st_mode))
                return set_open_error(response, -ENODEV);
        return answer_file(call, path, &fd, &st, response);
}

int static_answer(void *userdata, const HandlerCall *call, Response *response) {
        const HttpRequest *request = call->request;
        StaticSite *site = userdata;
        TargetPath path;
        int r;

        if (request->method != HTTP_GET && request->method != HTTP_HEAD) {
                response->allow = "GET, HEAD";
                response_set_error(response, 405);
                return 0;
        }
        r = target_to_path(call->buf + request->path.offset, request->path.length, &path);
        if (r > 0) {
                response_set_error(response, (unsigned) r);
                return 0;
        }
        if (site->whoami && !path.directory && strcmp(path.text, "whoami") == 0)
                return answer_whoami(site, call, response);
        return answer_path(site, call, &path, response);
}

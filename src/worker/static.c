/* SPDX-License-Identifier: MIT */
/* Static files; see static.h.
 *
 * What matters is the small file that is asked for again: its target is the key of the cache as it stands,
 * unless something in it is escaped, and what the cache has is copied into the answer. All else may take its
 * time.
 *
 * Hidden files are served, as by other servers: "/.well-known/" is made of them, and what is not for
 * everybody does not belong into a folder that is. They are not listed. */

#include "worker/static.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "http/encoding.h"
#include "http/listing.h"
#include "http/precondition.h"
#include "http/range.h"
#include "http/target.h"

#define LOCATION_MAX 2048
#define METHODS      "GET, HEAD, OPTIONS"

/* "--", the boundary, two line ends before and behind; Content-Range. Without the type, which has its size
 * in the variant. */
#define BOUNDARY_MAX  40
#define PART_TEXT_MAX (BOUNDARY_MAX + RANGE_TEXT_MAX + 32)

/* Which fields of a request make a difference. */
enum {
        ASKS_CONDITION = 1 << 0,
        ASKS_RANGE = 1 << 1,
        ASKS_ENCODING = 1 << 2,
};

/* An answer in the making, and what it borrows until it is given. */
typedef struct Answer {
        StaticSite *site;
        Exchange *x;
        Response *response;
        unsigned asks;
        FileVariant *variant; /* counted */
        char *buffer;
        ResponsePart parts[RESPONSE_PARTS_MAX];
} Answer;

static bool starts_with(const char *s, char lower) {
        return (*s | 0x20) == lower;
}

/* One look at all fields, by the length and a letter of their names: the few that seem to be what is looked
 * for are read properly after that. */
static unsigned request_asks(const HttpRequest *request, const char *head) {
        unsigned asks = 0;

        for (unsigned i = 0; i < request->n_fields; i++) {
                const char *name = head + request->fields[i].name.offset;

                switch (request->fields[i].name.length) {
                case 5: /* range */
                        asks |= starts_with(name, 'r') ? ASKS_RANGE : 0;
                        break;
                case 8:  /* if-match */
                case 13: /* if-none-match */
                case 17: /* if-modified-since */
                case 19: /* if-unmodified-since */
                        asks |= starts_with(name, 'i') ? ASKS_CONDITION : 0;
                        break;
                case 15: /* accept-encoding, not accept-language */
                        asks |= starts_with(name + 7, 'e') ? ASKS_ENCODING : 0;
                        break;
                default:
                        break;
                }
        }
        return asks;
}

/* 0: no status of its own, the errno is passed up. What lies outside of the folder looks as if it were not
 * there. */
static unsigned status_from_open_error(int r) {
        switch (r) {
        case -ENOENT:
        case -ENOTDIR:
        case -ENAMETOOLONG:
        case -ELOOP: /* a link in a circle, or one that is not followed */
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

static int answer_status(Answer *a, unsigned status) {
        response_set_error(a->response, status);
        return 0;
}

static int answer_open_error(Answer *a, int r) {
        unsigned status = status_from_open_error(r);

        return status == 0 ? r : answer_status(a, status);
}

static void set_memory(Response *response, const char *data, size_t size) {
        response->body = RESPONSE_BODY_MEMORY;
        response->memory = data;
        response->size = size;
}

static int answer_whoami(Answer *a) {
        const Identity *id = a->site->identity;
        Response *response = a->response;
        int n;

        (void) response_add_field(response, "Content-Type", "application/json");
        (void) response_add_field(response, "Cache-Control", "no-store");
        n = snprintf(response->page, sizeof(response->page),
                        "{\"app\":\"%s\",\"slot\":%u,\"pid\":%d,\"generation\":%" PRIu64
                        ",\"requests\":%" PRIu64 "}\n",
                        id->app, id->worker, getpid(), id->generation, a->x->number);
        assert((size_t) n < sizeof(response->page));
        set_memory(response, response->page, (size_t) n);
        return 0;
}

/* "/folder" to "/folder/", so that relative links in its index work. */
static int answer_redirect(Answer *a, const TargetPath *path) {
        const HttpSlice *query = &a->x->request.query;
        char location[LOCATION_MAX];
        int n = target_from_path(path, location, sizeof(location));

        if (n < 0 || (size_t) n + 1 + query->length + 1 > sizeof(location))
                return answer_status(a, 414);
        if (query->length > 0) {
                location[n++] = '?';
                memcpy(location + n, exchange_head(a->x) + query->offset, query->length);
                location[n + (int) query->length] = '\0';
        }
        (void) response_add_field(a->response, "Location", location);
        return answer_status(a, 301);
}

/* The body from @offset on. What is sent from a descriptor keeps the variant for so long. */
static void set_content(Answer *a, uint64_t offset, uint64_t size) {
        FileVariant *v = a->variant;
        Response *response = a->response;

        if (v->content) {
                set_memory(response, v->content + offset, (size_t) size);
                return;
        }
        response->body = RESPONSE_BODY_FILE;
        response->offset = offset;
        response->size = size;
        response->fd = v->fd;
        response->hold = &file_variant_ref(v)->hold;
}

static int answer_whole(Answer *a) {
        const FileVariant *v = a->variant;

        set_content(a, 0, v->size);
        return response_add_raw(a->response, v->fields, v->fields_size);
}

static int answer_part(Answer *a, const RangePart *part) {
        const FileVariant *v = a->variant;
        char text[RANGE_TEXT_MAX];

        a->response->status = 206;
        set_content(a, part->offset, part->length);
        range_format(part, v->size, text);
        (void) response_add_field(a->response, "Content-Range", text);
        return response_add_raw(a->response, v->fields, v->fields_size);
}

/* Of this answer alone, and not to be guessed: whoever wrote the file must not be able to end a part in it.
 */
static int make_boundary(char ret[static BOUNDARY_MAX]) {
        uint64_t random[2];

        if (getrandom(random, sizeof(random), 0) != sizeof(random))
                return -EIO;
        snprintf(ret, BOUNDARY_MAX, "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
        return 0;
}

static size_t write_part_text(
                char *to, const char *boundary, const FileVariant *v, const RangePart *part, bool first) {
        char range[RANGE_TEXT_MAX];

        range_format(part, v->size, range);
        return (size_t) sprintf(to, "%s--%s\r\n%.*sContent-Range: %s\r\n\r\n", first ? "" : "\r\n", boundary,
                        (int) v->type_size, v->fields, range);
}

/* RFC 9110, section 14.6. Writes all texts, with the content between them if it is in memory; returns the
 * size, and that of the body. */
static size_t write_parts(Answer *a, const RangeSet *set, const char *boundary, uint64_t *ret_body_size) {
        const FileVariant *v = a->variant;
        uint64_t content = 0;
        char *p = a->buffer;

        for (unsigned i = 0; i < set->n; i++) {
                const RangePart *part = &set->parts[i];
                size_t n = write_part_text(p, boundary, v, part, i == 0);

                a->parts[i] = (ResponsePart){ part->offset, part->length, (uint32_t) n };
                p += n;
                if (v->content)
                        p = mempcpy(p, v->content + part->offset, part->length);
                else
                        content += part->length;
        }
        p += sprintf(p, "\r\n--%s--\r\n", boundary);
        *ret_body_size = (uint64_t) (p - a->buffer) + content;
        return (size_t) (p - a->buffer);
}

/* The connection takes the texts into a buffer of its own. */
static bool parts_fit(const Answer *a, const RangeSet *set, size_t texts) {
        return a->variant->content ||
               texts + set->n * sizeof(ResponsePart) <= a->x->server->table.buffer_size;
}

static int answer_parts(Answer *a, const RangeSet *set) {
        Response *response = a->response;
        const FileVariant *v = a->variant;
        size_t room = (set->n + 1) * (PART_TEXT_MAX + v->type_size), n;
        char boundary[BOUNDARY_MAX], type[BOUNDARY_MAX + 40];
        uint64_t size;
        int r;

        r = make_boundary(boundary);
        if (r < 0)
                return r;
        a->buffer = malloc(room + (v->content ? v->size : 0)); /* no byte is in two parts */
        if (!a->buffer)
                return -ENOMEM;
        n = write_parts(a, set, boundary, &size);
        if (!parts_fit(a, set, n))
                return answer_whole(a);

        set_content(a, 0, size);
        response->status = 206;
        response->memory = a->buffer;
        if (!v->content) {
                response->body = RESPONSE_BODY_PARTS;
                response->memory_size = (uint32_t) n;
                response->parts = a->parts;
                response->n_parts = set->n;
        }
        snprintf(type, sizeof(type), "multipart/byteranges; boundary=%s", boundary);
        (void) response_add_field(response, "Content-Type", type);
        return response_add_raw(response, v->fields + v->type_size, v->fields_size - v->type_size);
}

static int answer_vary(Answer *a, unsigned status) {
        if (a->variant->varies)
                (void) response_add_field(a->response, "Vary", "Accept-Encoding");
        return answer_status(a, status);
}

static int answer_unsatisfiable(Answer *a) {
        char text[RANGE_TEXT_MAX];

        range_format(NULL, a->variant->size, text);
        (void) response_add_field(a->response, "Content-Range", text);
        return answer_vary(a, 416);
}

/* Ranges are defined for GET alone (RFC 9110, section 14.2), and there cannot be two of the field. */
static unsigned find_range(Answer *a, const Validators *validators, RangeSet *ret) {
        const HttpRequest *request = &a->x->request;
        const char *head = exchange_head(a->x);
        HttpSlice value, another;
        unsigned i = 0;

        if (request->method != HTTP_GET || !parser_next_field(request, head, "range", &i, &value) ||
                        parser_next_field(request, head, "range", &i, &another) ||
                        !precondition_allows_range(request, head, validators, a->x->server->now_seconds))
                return RANGE_IGNORED;
        return range_parse(head + value.offset, value.length, a->variant->size, ret);
}

static int answer_range(Answer *a, const Validators *validators) {
        RangeSet set;

        switch (find_range(a, validators, &set)) {
        case RANGE_PARTIAL:
                return set.n == 1 ? answer_part(a, &set.parts[0]) : answer_parts(a, &set);
        case RANGE_UNSATISFIABLE:
                return answer_unsatisfiable(a);
        default:
                return answer_whole(a);
        }
}

/* What the client asks for beyond the file: in the order of RFC 9110, section 13.2.2. */
static int answer_asked(Answer *a) {
        const FileVariant *v = a->variant;
        const Validators validators = { .etag = v->etag, .modified = v->modified };
        unsigned status = 0;

        if (a->asks & ASKS_CONDITION)
                status = precondition_check(
                                &a->x->request, exchange_head(a->x), &validators, a->x->server->now_seconds);
        if (status == 412)
                return answer_vary(a, status);
        if (status == 304) {
                a->response->status = status;
                return response_add_raw(a->response, v->fields + v->kept_at, v->fields_size - v->kept_at);
        }
        return a->asks & ASKS_RANGE ? answer_range(a, &validators) : answer_whole(a);
}

/* Where there is nothing to choose, only a refusal would make a difference, which takes a weight. */
static bool encoding_matters(const Answer *a, const FileEntry *e) {
        const HttpRequest *request = &a->x->request;
        const char *head = exchange_head(a->x);
        HttpSlice value;

        if (!a->site->cache.settings.precompressed || !(a->asks & ASKS_ENCODING))
                return false;
        if (e->available != 1u << ENCODING_IDENTITY)
                return true;
        for (unsigned i = 0; parser_next_field(request, head, "accept-encoding", &i, &value);)
                if (memchr(head + value.offset, ';', value.length))
                        return true;
        return false;
}

/* False: the client refuses every one. The variant is taken all the same, for its fields. */
static bool choose_variant(Answer *a, const FileEntry *e) {
        Encoding encoding = ENCODING_IDENTITY;

        if (encoding_matters(a, e))
                encoding = encoding_choose(&a->x->request, exchange_head(a->x), e->available);
        file_variant_unref(a->variant);
        a->variant = file_variant_ref(e->variants[encoding < 0 ? ENCODING_IDENTITY : encoding]);
        return encoding >= 0;
}

static int answer_entry(Answer *a, FileEntry *e) {
        bool acceptable = choose_variant(a, e);

        file_cache_release(&a->site->cache, e);
        return acceptable ? answer_asked(a) : answer_vary(a, 406);
}

static int get_entry(Answer *a, const char *key, size_t n, FileEntry **ret) {
        const Server *s = a->x->server;

        return file_cache_get(&a->site->cache, key, n, s->now, s->now_seconds, ret);
}

/* An entry that the cache had. A large file may have been changed in place meanwhile: what is sent would be
 * the new content under the old tag, so it costs another look, which is nothing beside sending it. */
static int answer_cached(Answer *a, FileEntry *e) {
        bool current = true;
        int r;

        for (int i = 0; i < _ENCODING_MAX; i++)
                current &= !e->variants[i] || file_variant_is_current(e->variants[i], a->x->server->now);
        if (!current) {
                e->valid_until = 0;
                r = get_entry(a, e->key, e->key_size, &e);
                if (r != 0)
                        return answer_open_error(a, r < 0 ? r : -ENODEV);
        }
        return answer_entry(a, e);
}

/* The path is the key of the cache unless something in it is escaped: what is not in its shortest form is no
 * key, and so it is not found. */
static FileEntry *find_plain(Answer *a) {
        const HttpSlice *path = &a->x->request.path;
        const char *s = exchange_head(a->x) + path->offset;

        if (path->length == 0 || *s != '/' || memchr(s, '%', path->length))
                return NULL;
        return file_cache_find(&a->site->cache, s + 1, path->length - 1, a->x->server->now);
}

static int answer_listing(Answer *a, const TargetPath *path, int fd) {
        const char *control = a->site->cache.settings.cache_control;
        size_t size;
        int r;

        r = listing_make(&a->site->root, path->text, fd, &a->buffer, &size);
        if (r < 0)
                return answer_open_error(a, r);
        (void) response_add_field(a->response, "Content-Type", "text/html; charset=utf-8");
        (void) response_add_field(a->response, "Content-Security-Policy",
                        "default-src 'none'; style-src 'unsafe-inline'");
        if (control && *control)
                (void) response_add_field(a->response, "Cache-Control", control);
        set_memory(a->response, a->buffer, size);
        return 0;
}

/* There is no index in it: a folder that is there may not be listed, and one that is not is not found. */
static int answer_missing_index(Answer *a, const TargetPath *path) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;

        if (file_open_beneath(&a->site->root, path->text, &fd) < 0 || fstat(fd, &st) < 0 ||
                        !S_ISDIR(st.st_mode))
                return answer_status(a, 404);
        return a->site->listing ? answer_listing(a, path, fd) : answer_status(a, 403);
}

static int answer_path(Answer *a, const TargetPath *path) {
        char key[TARGET_PATH_MAX + 1];
        size_t n = path->length;
        FileEntry *e;
        int r;

        memcpy(key, path->text, n);
        if (path->directory && n > 0)
                key[n++] = '/';
        r = get_entry(a, key, n, &e);
        if (r == 0)
                return answer_entry(a, e);
        if (r == FILE_CACHE_DIRECTORY)
                return answer_redirect(a, path);
        if (r == -ENOENT && path->directory)
                return answer_missing_index(a, path);
        return answer_open_error(a, r);
}

static int answer_target(Answer *a) {
        const HttpSlice *target = &a->x->request.path;
        TargetPath path;
        int r;

        r = target_to_path(exchange_head(a->x) + target->offset, target->length, &path);
        if (r > 0)
                return answer_status(a, (unsigned) r);
        if (a->site->whoami && !path.directory && strcmp(path.text, "whoami") == 0)
                return answer_whoami(a);
        return answer_path(a, &path);
}

/* Allow belongs to 405 (RFC 9110, section 15.5.6), and is what OPTIONS is for; a method that is not even
 * known gets 501 (section 9.1). */
static int answer_method(Answer *a) {
        if (a->x->request.method == HTTP_OTHER)
                return answer_status(a, 501);
        (void) response_add_field(a->response, "Allow", METHODS);
        if (a->x->request.method != HTTP_OPTIONS)
                return answer_status(a, 405);
        a->response->status = 204;
        return 0;
}

static int answer_make(Answer *a) {
        const HttpRequest *request = &a->x->request;
        FileEntry *e;

        if (request->method != HTTP_GET && request->method != HTTP_HEAD)
                return answer_method(a);
        a->asks = request_asks(request, exchange_head(a->x));
        e = find_plain(a);
        return e ? answer_cached(a, e) : answer_target(a);
}

static unsigned status_from_errno(int r) {
        switch (r) {
        case -EMFILE:
        case -ENFILE:
        case -ENOMEM:
        case -EAGAIN:
                return 503;
        default:
                return 500;
        }
}

void static_request(void *userdata, Exchange *x) {
        Answer a; /* the parts need no clearing */
        int r;

        a.site = userdata;
        a.x = x;
        a.response = &x->response;
        a.asks = 0;
        a.variant = NULL;
        a.buffer = NULL;
        r = answer_make(&a);
        if (r < 0) {
                response_clear_fields(a.response);
                answer_status(&a, status_from_errno(r));
        }
        exchange_respond(x);
        file_variant_unref(a.variant);
        free(a.buffer);
}

bool static_give_way(void *userdata) {
        StaticSite *site = userdata;

        return file_cache_give_way(&site->cache);
}

/* How many files may be kept open: most of the descriptors that the process may have are for clients. */
unsigned static_max_files(const Options *options) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return 0;
        return (unsigned) MIN((rlim_t) options->file_cache, limit.rlim_max / 4);
}

void static_site_init(StaticSite *site, int directory, const Options *options, const Identity *identity) {
        *site = (StaticSite){
                .root.fd = directory,
                .root.links = options->symlinks == OPTIONS_SYMLINKS_NONE ? FILE_LINKS_NONE
                                                                         : FILE_LINKS_BENEATH,
                .whoami = options->whoami,
                .listing = options->listing,
                .identity = identity,
        };
        file_cache_init(&site->cache, &site->root,
                        &(FileCacheSettings){
                                        .max_files = static_max_files(options),
                                        .valid_usec = options->file_cache_valid_usec,
                                        .index = options->index ? options->index : "index.html",
                                        .precompressed = options->precompressed,
                                        .cache_control = options->cache_control,
                                        .mime_types = MIME_SYSTEM_TABLE,
                        });
}

void static_site_done(StaticSite *site) {
        file_cache_done(&site->cache);
}

/* SPDX-License-Identifier: MIT */
/* Takes the URL of a store apart; see url.h.
 *
 * No more is taken than the stores have a use for. A text that is refused is shown without what may be a
 * password: what stands before an '@', or is a parameter of that name. */

#include "state/url.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "basic/parse.h"
#include "basic/strv.h"
#include "basic/text.h"

#define PORT_MAX 65535

typedef enum Shape {
        SHAPE_PATH,      /* lmdb:/path */
        SHAPE_AUTHORITY, /* redis://user@host:port/name */
        SHAPE_SOCKET,    /* redis+unix://user@/path */
} Shape;

static const struct Scheme {
        const char *name;
        const char *driver;
        Shape shape;
        bool is_tls;
} schemes[] = {
        { "lmdb", "lmdb", SHAPE_PATH, false },
        { "redis", "redis", SHAPE_AUTHORITY, false },
        { "rediss", "redis", SHAPE_AUTHORITY, true },
        { "redis+unix", "redis", SHAPE_SOCKET, false },
        { "postgresql", "postgresql", SHAPE_AUTHORITY, false },
        { "postgres", "postgresql", SHAPE_AUTHORITY, false },
};

StateUrl *state_url_free(StateUrl *url) {
        if (!url)
                return NULL;
        free(url->driver);
        free(url->user);
        if (url->password)
                explicit_bzero(url->password, strlen(url->password));
        free(url->password);
        free(url->host);
        free(url->path);
        strv_free(url->parameters);
        free(url->text);
        free(url);
        return NULL;
}

static const struct Scheme *find_scheme(const char *url) {
        size_t n = strcspn(url, ":");

        for (size_t i = 0; url[n] && i < ELEMENTSOF(schemes); i++)
                if (strlen(schemes[i].name) == n && strncmp(schemes[i].name, url, n) == 0)
                        return schemes + i;
        return NULL;
}

static int hex_value(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        c = (char) (c | 0x20);
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes %XX into a fresh string (RFC 3986, section 2.1). Returns 0, -EINVAL or -ENOMEM. */
static int decode(const char *p, size_t n, char **ret) {
        char *decoded = malloc(n + 1), *to = decoded;

        if (!decoded)
                return -ENOMEM;
        for (const char *end = p + n; p < end; p++) {
                int high = -1, low = -1;

                if (*p != '%') {
                        *to++ = *p;
                        continue;
                }
                if (end - p > 2) {
                        high = hex_value(p[1]);
                        low = hex_value(p[2]);
                }
                if (high < 0 || low < 0 || (high == 0 && low == 0)) {
                        free(decoded);
                        return -EINVAL;
                }
                *to++ = (char) (high << 4 | low);
                p += 2;
        }
        *to = '\0';
        *ret = decoded;
        return 0;
}

static void cut(char *p, size_t n) {
        memmove(p, p + n, strlen(p + n) + 1);
}

/* What stands between a ':' and the last '@', as a password that was not encoded may hold an '@' or a '/'
 * itself; also when it is no URL that can be read. Behind a '?' the '@' may be in a parameter as well, and a
 * part of another password: then nothing is shown from the ':' on. */
static void hide_user_password(char *url, const struct Scheme *s) {
        char *from = strstr(url, "://"), *at, *colon;

        if (s && s->shape == SHAPE_PATH)
                return;
        from = from ? from + 3 : s ? url + strlen(s->name) + 1 : url;
        at = strrchr(from, '@');
        colon = at ? memchr(from, ':', (size_t) (at - from)) : NULL;
        if (!colon)
                return;
        if (memchr(from, '?', (size_t) (at - from)))
                *colon = '\0';
        else
                cut(colon, (size_t) (at - colon));
}

/* Whether a parameter that is decoded is a secret, as libpq knows them: password, and that of a key. */
static bool is_secret(const char *parameter) {
        return strstr(parameter, "password=");
}

/* Of what is a secret, or may be one as it cannot be decoded, only the beginning of its name is shown, which
 * may be encoded itself. Returns how much of the @n characters is left. */
static size_t hide_parameter(char *p, size_t n) {
        _cleanup_free_ char *decoded = NULL;
        size_t keep;

        if (decode(p, n, &decoded) == 0 && !is_secret(decoded))
                return n;
        keep = strcspn(p, "=%&");
        keep += p[keep] == '=';
        cut(p + keep, n - keep);
        return keep;
}

static void hide_parameters(char *url) {
        for (char *p = strchr(url, '?'); p && *p; p += *p == '&') {
                p += *p == '?';
                p += hide_parameter(p, strcspn(p, "&"));
        }
}

static char *hide_passwords(const char *url, const struct Scheme *s) {
        char *shown = strdup(url);

        if (shown) {
                hide_user_password(shown, s);
                hide_parameters(shown);
        }
        return shown;
}

#define REFUSED_MAX 200

static int refuse(const StateUrl *u, char **ret_error, const char *expected) {
        char quoted[REFUSED_MAX];

        return text_outcome(STATE_URL_INVALID, ret_error, "found %s, expected %s",
                        text_quote(u->text, quoted, sizeof(quoted)), expected);
}

static int parse_user(StateUrl *u, const char *p, size_t n, char **ret_error) {
        const char *colon = memchr(p, ':', n);
        size_t n_user = colon ? (size_t) (colon - p) : n;
        int r = 0;

        if (n_user > 0)
                r = decode(p, n_user, &u->user);
        if (r == 0 && colon)
                r = decode(colon + 1, n - n_user - 1, &u->password);
        return r == -EINVAL ? refuse(u, ret_error, "a '%' only before two hexadecimal digits") : r;
}

static int parse_port(StateUrl *u, const char *p, size_t n, char **ret_error) {
        char text[8] = "";

        if (n < sizeof(text))
                memcpy(text, p, n);
        if (n == 0)
                return 0;
        if (parse_uint(text, &u->port) < 0 || u->port < 1 || u->port > PORT_MAX)
                return refuse(u, ret_error, "a port from 1 to 65535");
        return 0;
}

static int parse_host(StateUrl *u, const char *p, size_t n, char **ret_error) {
        const char *end = p + n, *colon;
        int r;

        if (n > 0 && *p == '[') {
                const char *bracket = memchr(p, ']', n);

                if (!bracket || (bracket + 1 < end && bracket[1] != ':'))
                        return refuse(u, ret_error, "a ']' at the end of the address");
                r = decode(p + 1, (size_t) (bracket - p) - 1, &u->host);
                colon = bracket + 1 < end ? bracket + 1 : NULL;
        } else {
                colon = memchr(p, ':', n);
                r = (colon ? colon : end) > p ? decode(p, (size_t) ((colon ? colon : end) - p), &u->host)
                                              : 0;
        }
        if (r == -EINVAL)
                return refuse(u, ret_error, "a '%' only before two hexadecimal digits");
        if (r < 0 || !colon)
                return r;
        return parse_port(u, colon + 1, (size_t) (end - colon) - 1, ret_error);
}

static int parse_authority(StateUrl *u, const char *p, size_t n, char **ret_error) {
        const char *at = memrchr(p, '@', n);
        int r = 0;

        if (at) {
                r = parse_user(u, p, (size_t) (at - p), ret_error);
                n -= (size_t) (at - p) + 1;
                p = at + 1;
        }
        return r == 0 ? parse_host(u, p, n, ret_error) : r;
}

static int parse_parameters(StateUrl *u, const char *p, char **ret_error) {
        int r = 0;

        while (*p && r == 0) {
                _cleanup_free_ char *parameter = NULL;
                size_t n = strcspn(p, "&");
                const char *equals = memchr(p, '=', n);

                if (!equals || equals == p)
                        return refuse(u, ret_error, "parameters of the form NAME=VALUE behind the '?'");
                r = decode(p, n, &parameter);
                if (r == -EINVAL)
                        return refuse(u, ret_error, "a '%' only before two hexadecimal digits");
                if (r == 0)
                        r = strv_add(&u->parameters, parameter);
                p += n;
                p += *p == '&';
        }
        return r;
}

static int parse_path(StateUrl *u, Shape shape, const char *p, size_t n, char **ret_error) {
        int r;

        if (shape == SHAPE_AUTHORITY && n > 0) { /* the slash only parts it from the host */
                p++;
                n--;
        }
        if (n == 0)
                return shape == SHAPE_SOCKET ? refuse(u, ret_error, "the path of a socket") : 0;
        if (shape != SHAPE_AUTHORITY && (*p != '/' || p[1] == '/'))
                return refuse(u, ret_error, "an absolute path");
        r = decode(p, n, &u->path);
        return r == -EINVAL ? refuse(u, ret_error, "a '%' only before two hexadecimal digits") : r;
}

/* An '@' behind the host is most likely that of a password with a '/' or a '?' in it, which would be taken
 * for something that may be shown. A socket's path may well have one, unless there is a ':' before it. */
static int check_behind_authority(
                StateUrl *u, Shape shape, const char *authority, size_t n, char **ret_error) {
        if (shape == SHAPE_PATH || (shape == SHAPE_SOCKET && !memchr(authority, ':', n)) ||
                        !strchr(authority + n, '@'))
                return 0;
        return refuse(u, ret_error, "an '@' behind the host, or in a password, only as %40");
}

static int parse_rest(StateUrl *u, const struct Scheme *s, const char *p, char **ret_error) {
        size_t n_path, n_authority = 0;
        int r = 0;

        if (s->shape != SHAPE_PATH) {
                if (strncmp(p, "//", 2) != 0)
                        return refuse(u, ret_error, "\"//\" behind the colon");
                p += 2;
                n_authority = strcspn(p, "/?");
                r = parse_authority(u, p, n_authority, ret_error);
                if (r == 0)
                        r = check_behind_authority(u, s->shape, p, n_authority, ret_error);
                p += n_authority;
        }
        if (r == 0 && s->shape == SHAPE_SOCKET && u->host)
                r = refuse(u, ret_error, "no host before the path of a socket");
        n_path = strcspn(p, "?");
        if (r == 0)
                r = parse_path(u, s->shape, p, n_path, ret_error);
        p += n_path;
        return r == 0 && *p ? parse_parameters(u, p + 1, ret_error) : r;
}

/* What must not stand in a URL as it is (RFC 3986, section 2); bytes of UTF-8 do no harm. */
static bool is_printable(const char *url) {
        for (const unsigned char *p = (const unsigned char *) url; *p; p++)
                if (*p <= ' ' || *p == 0x7F || strchr("\"<>\\^`{|}", *p))
                        return false;
        return true;
}

int state_url_parse(const char *url, StateUrl **ret, char **ret_error) {
        _cleanup_(state_url_freep) StateUrl *u = calloc(1, sizeof(*u));
        const struct Scheme *s = find_scheme(url);
        int r;

        if (!u)
                return -ENOMEM;
        u->text = hide_passwords(url, s);
        if (!u->text)
                return -ENOMEM;
        if (!s)
                return refuse(u, ret_error,
                                "a URL that begins with lmdb:, redis://, rediss://, redis+unix:// or postgresql://");
        if (!is_printable(url))
                return refuse(u, ret_error, "no spaces or other characters that must be written as %XX");
        u->driver = strdup(s->driver);
        if (!u->driver)
                return -ENOMEM;
        u->is_tls = s->is_tls;
        u->is_unix = s->shape == SHAPE_SOCKET;
        r = parse_rest(u, s, url + strlen(s->name) + 1, ret_error);
        if (r == 0)
                *ret = TAKE_PTR(u);
        return r;
}

const char *state_url_get_parameter(const StateUrl *url, const char *name) {
        return strv_get_variable(url->parameters, name);
}

bool state_url_has_password(const StateUrl *url) {
        if (url->password)
                return true;
        for (char **p = url->parameters; p && *p; p++)
                if (is_secret(*p))
                        return true;
        return false;
}

const char *state_url_find_unknown(const StateUrl *url, const char *const *names) {
        for (char **p = url->parameters; p && *p; p++) {
                const char *const *name = names;
                size_t n = strcspn(*p, "=");

                while (*name && (strlen(*name) != n || strncmp(*name, *p, n) != 0))
                        name++;
                if (!*name)
                        return *p;
        }
        return NULL;
}

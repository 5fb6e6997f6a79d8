/* SPDX-License-Identifier: MIT */
/* The state that workers are told of; see state-setting.h. */

#include "master/state-setting.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/credential.h"
#include "master/config-value.h"
#include "master/config.h"
#include "master/expand.h"
#include "state/url.h"

#define refuse(c, member, ret_error, ...) config_refuse(c, offsetof(Config, member), ret_error, __VA_ARGS__)

static char *free_secret(char *s) {
        if (s)
                explicit_bzero(s, strlen(s));
        free(s);
        return NULL;
}

StateSetting *state_setting_free(StateSetting *s) {
        if (!s)
                return NULL;
        free(s->url);
        free_secret(s->secret_url);
        free(s->credential);
        free(s);
        return NULL;
}

static bool is_plain(char c, bool keep_slash) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               (c && strchr("-._~", c)) || (c == '/' && keep_slash);
}

char *state_setting_encode(const char *text, bool keep_slash) {
        static const char digits[] = "0123456789ABCDEF";
        char *encoded = malloc(3 * strlen(text) + 1), *to = encoded;

        if (!encoded)
                return NULL;
        for (; *text; text++) {
                if (is_plain(*text, keep_slash)) {
                        *to++ = *text;
                        continue;
                }
                *to++ = '%';
                *to++ = digits[(unsigned char) *text >> 4];
                *to++ = digits[(unsigned char) *text & 0xF];
        }
        *to = '\0';
        return encoded;
}

char *state_setting_add_password(const char *url, const char *password) {
        const char *authority = strstr(url, "://"), *at;
        char *encoded = state_setting_encode(password, /* keep_slash= */ false), *whole = NULL;

        if (!encoded || !authority) {
                free_secret(encoded);
                return authority ? NULL : strdup(url);
        }
        authority += 3;
        at = memrchr(authority, '@', strcspn(authority, "/?"));
        if (!at)
                at = authority;
        if (asprintf(&whole, "%.*s:%s%s%s", (int) (at - url), url, encoded, *at == '@' ? "" : "@", at) < 0)
                whole = NULL;
        free_secret(encoded);
        return whole;
}

/* An explicit one wants a place; by default there is a state where there is a place for it. */
static int find_lmdb(const Config *c, char **ret, char **ret_error) {
        const char *directory = getenv("STATE_DIRECTORY");
        _cleanup_free_ char *first = NULL, *encoded = NULL;

        if (!directory || *directory != '/') {
                if (!config_is_set(c, offsetof(Config, state_url)))
                        return 0;
                return refuse(c, state_url, ret_error,
                                "found \"lmdb:\", but there is no $STATE_DIRECTORY, which systemd sets for StateDirectory=; "
                                "expected a path, such as \"lmdb:/var/lib/app/state\"");
        }
        first = strndup(directory, strcspn(directory, ":"));
        encoded = first ? state_setting_encode(first, /* keep_slash= */ true) : NULL;
        if (!encoded || asprintf(ret, "lmdb:%s/state", encoded) < 0) {
                *ret = NULL;
                return -ENOMEM;
        }
        return 0;
}

static int expand_url(const Config *c, const char *app, char **ret, char **ret_error) {
        const ExpandValues values = { .app = app, .socket_names = "", .variables = environ };
        _cleanup_free_ char *error = NULL;
        int r;

        r = expand_text(c->state_url, &values, ret, &error);
        return r == EXPAND_INVALID ? refuse(c, state_url, ret_error, "%s", error) : r;
}

/* What was checked already as far as it does not depend on the environment. */
static int find_url(const Config *c, const char *app, char **ret, StateUrl **ret_parsed, char **ret_error) {
        _cleanup_(state_url_freep) StateUrl *parsed = NULL;
        _cleanup_free_ char *url = NULL, *error = NULL;
        int r;

        r = expand_url(c, app, &url, ret_error);
        if (r != 0)
                return r;
        r = state_url_parse(url, &parsed, &error);
        if (r == STATE_URL_INVALID)
                return refuse(c, state_url, ret_error, "%s", error);
        if (r < 0)
                return r;
        if (state_url_has_password(parsed))
                return refuse(c, state_url, ret_error, STATE_PASSWORD_REFUSED);
        if (strcmp(parsed->driver, "lmdb") == 0 && !parsed->path)
                r = find_lmdb(c, ret, ret_error);
        else
                *ret = TAKE_PTR(url);
        *ret_parsed = TAKE_PTR(parsed);
        return r;
}

static int find_credential(const Config *c, char **ret, char **ret_error) {
        const char *directory = getenv("CREDENTIALS_DIRECTORY");

        if (*c->state_credential == '/') {
                *ret = strdup(c->state_credential);
                return *ret ? 0 : -ENOMEM;
        }
        if (!directory || *directory != '/')
                return refuse(c, state_credential, ret_error,
                                "found \"%s\", but there is no $CREDENTIALS_DIRECTORY, which systemd sets for LoadCredential=; "
                                "expected an absolute path",
                                c->state_credential);
        if (asprintf(ret, "%s/%s", directory, c->state_credential) < 0) {
                *ret = NULL;
                return -ENOMEM;
        }
        return 0;
}

static int refuse_credential(const Config *c, const char *path, int error, char **ret_error) {
        if (error == -EINVAL || error == -EMSGSIZE)
                return refuse(c, state_credential, ret_error,
                                "found in %s %s, expected a password of 1 to %d bytes on one line", path,
                                error == -EINVAL ? "no text" : "too much", CREDENTIAL_MAX - 1);
        return refuse(c, state_credential, ret_error, "cannot read %s: %s", path, strerror(-error));
}

static int set_credential(StateSetting *s, const Config *c, char **ret_error) {
        char password[CREDENTIAL_MAX];
        int r;

        r = find_credential(c, &s->credential, ret_error);
        if (r != 0)
                return r;
        r = credential_read(s->credential, password);
        if (r < 0)
                r = refuse_credential(c, s->credential, r, ret_error);
        else {
                s->secret_url = state_setting_add_password(s->url, password);
                r = s->secret_url ? 0 : -ENOMEM;
        }
        explicit_bzero(password, sizeof(password));
        return r;
}

int state_setting_new(const Config *c, const char *app, StateSetting **ret, char **ret_error) {
        _cleanup_(state_setting_freep) StateSetting *s = NULL;
        _cleanup_(state_url_freep) StateUrl *parsed = NULL;
        int r;

        *ret = NULL;
        if (!c->state_url)
                return 0;
        s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->is_required = c->state_required;
        r = find_url(c, app, &s->url, &parsed, ret_error);
        if (r != 0 || !s->url)
                return r;
        if (c->state_credential && strcmp(parsed->driver, "lmdb") == 0)
                return refuse(c, state_credential, ret_error, STATE_NO_SERVER);
        if (c->state_credential)
                r = set_credential(s, c, ret_error);
        else if (!(s->secret_url = strdup(s->url)))
                r = -ENOMEM;
        if (r == 0)
                *ret = TAKE_PTR(s);
        return r;
}

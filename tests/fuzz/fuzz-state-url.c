/* SPDX-License-Identifier: MIT */
/* The URL of a store.
 *
 * Beyond not crashing: what is refused is told in printable text; neither that nor what may be shown has the
 * password in it; what may be shown is a URL itself, of the same store without the password. */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "basic/text.h"
#include "fuzz.h"
#include "state/url.h"

static void check(bool condition) {
        if (!condition)
                abort();
}

static bool is_same(const char *a, const char *b) {
        return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

/* Behind the user's colon, up to the last '@': the longest that may be a password. NULL: there is none, or
 * it is too short to tell from chance, or stands elsewhere as well, maybe by way of what a '?' is shown for.
 */
static char *find_secret(const char *url) {
        const char *from = strstr(url, "://"), *at = from ? strrchr(from, '@') : NULL;
        const char *colon = at ? memchr(from + 3, ':', (size_t) MAX(at - from - 3, 0)) : NULL;
        char *secret;

        if (!colon || at - colon < 9)
                return NULL;
        secret = fuzz_text(colon + 1, (size_t) (at - colon) - 1);
        if (strncmp(strstr(url, secret), colon + 1, strlen(colon + 1)) == 0 &&
                        !strstr(strstr(url, secret) + 1, secret) && !strchr(secret, '?'))
                return secret;
        free(secret);
        return NULL;
}

/* What is expected are words of ours. */
static void check_error(char *error, const char *secret) {
        _cleanup_free_ char *printable = strdup(error);
        char *expected = strstr(error, ", expected ");

        check(printable && strncmp(error, "found ", 6) == 0 && expected);
        text_make_printable(printable);
        check(strcmp(printable, error) == 0);
        for (char *next = expected; next; next = strstr(next + 1, ", expected "))
                expected = next;
        *expected = '\0';
        check(!secret || !strstr(error, secret));
}

static void check_fields(const StateUrl *u) {
        check(u->driver && u->text);
        check(strcmp(u->driver, "lmdb") == 0 || strcmp(u->driver, "redis") == 0 ||
                        strcmp(u->driver, "postgresql") == 0);
        check(u->port <= 65535);
        check(!u->is_unix || (strcmp(u->driver, "redis") == 0 && !u->host && u->path && u->path[0] == '/'));
        check(!u->is_tls || strcmp(u->driver, "redis") == 0);
        check(strcmp(u->driver, "lmdb") != 0 || (!u->user && !u->password && !u->host && u->port == 0));
        check(strcmp(u->driver, "lmdb") != 0 || !u->path || u->path[0] == '/');
        for (char **p = u->parameters; p && *p; p++)
                check(strchr(*p, '=') && **p != '=');
}

static void check_shown(const StateUrl *u, const char *url) {
        _cleanup_(state_url_freep) StateUrl *shown = NULL;
        _cleanup_free_ char *error = NULL;
        const char *from = strstr(url, "://"), *at = strrchr(url, '@');

        /* One behind the authority may be that of a password that was not encoded: more is hidden then. */
        if (at && (strcmp(u->driver, "lmdb") == 0 || at > from + 3 + strcspn(from + 3, "/?")))
                return;
        check(state_url_parse(u->text, &shown, &error) == 0);
        check(!shown->password && strcmp(shown->text, u->text) == 0);
        check(strcmp(shown->driver, u->driver) == 0 && shown->is_unix == u->is_unix);
        check(shown->is_tls == u->is_tls && shown->port == u->port);
        check(is_same(shown->user, u->user) && is_same(shown->host, u->host) &&
                        is_same(shown->path, u->path));
}

static void check_parameters(const StateUrl *u) {
        static const char *const names[] = { "db", NULL }, *const no_names[] = { NULL };
        const char *unknown = state_url_find_unknown(u, names);

        check(!unknown || strncmp(unknown, "db=", 3) != 0);
        check((state_url_find_unknown(u, no_names) != NULL) == (u->parameters && *u->parameters));
        if (!unknown && u->parameters && *u->parameters)
                check(state_url_get_parameter(u, "db") != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_(state_url_freep) StateUrl *u = NULL;
        _cleanup_free_ char *url = fuzz_text(data, size), *secret = find_secret(url), *error = NULL;
        int r = state_url_parse(url, &u, &error);

        check(r == 0 || r == STATE_URL_INVALID);
        check((r == 0) == (u != NULL) && (r == 0) == (error == NULL));
        if (error)
                check_error(error, secret);
        if (!u)
                return 0;
        check(!secret || !u->password || !strstr(u->text, secret));
        check_fields(u);
        check_shown(u, url);
        check_parameters(u);
        return 0;
}

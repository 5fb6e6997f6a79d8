/* SPDX-License-Identifier: MIT */
/* What %{…} stands for; see expand.h. */

#include "master/expand.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "basic/macro.h"
#include "basic/text.h"

#define FOUND_MAX 128
#define FD        "fd:"

static int refuse(const char *p, size_t n, const char *expected, char **ret_error) {
        char text[FOUND_MAX], found[FOUND_MAX];

        snprintf(text, sizeof(text), "%.*s", (int) MIN(n, sizeof(text)), p);
        return text_outcome(EXPAND_INVALID, ret_error, "found %s, expected %s",
                        text_quote(text, found, sizeof(found)), expected);
}

static int refuse_braces(const char *p, size_t n, const char *expected, char **ret_error) {
        return refuse(p - strlen("%{"), n + strlen("%{}"), expected, ret_error);
}

static bool span_is(const char *p, size_t n, const char *word) {
        return strlen(word) == n && memcmp(p, word, n) == 0;
}

/* The place of a name in a list with ':' between; negative: it is not there. */
static int find_name(const char *names, const char *name, size_t n) {
        for (int i = 0; *names; i++) {
                size_t length = strcspn(names, ":");

                if (length == n && memcmp(names, name, n) == 0)
                        return i;
                names += length + (names[length] == ':');
        }
        return -ENOENT;
}

/* @p is what stands between the braces, here and below. */
static int expand_fd(const char *p, size_t n, const ExpandValues *values, FILE *f, char **ret_error) {
        char expected[2 * FOUND_MAX];
        int i = find_name(values->socket_names, p + strlen(FD), n - strlen(FD));

        if (i >= 0)
                return fprintf(f, "%d", SD_LISTEN_FDS_START + i) < 0 ? -ENOMEM : 0;
        if (*values->socket_names)
                snprintf(expected, sizeof(expected), "the name of a socket, of which there are %.128s",
                                values->socket_names);
        else
                strcpy(expected, "no %{fd:NAME}: there is no socket");
        text_make_printable(expected); /* it may have been cut within a character */
        return refuse_braces(p, n, expected, ret_error);
}

/* Without @values it is only looked at. */
static int expand_name(const char *p, size_t n, bool with_sockets, const ExpandValues *values, FILE *f,
                char **ret_error) {
        bool is_app = span_is(p, n, "app"), is_worker = span_is(p, n, "worker");
        bool is_fd = with_sockets && n > strlen(FD) && strncmp(p, FD, strlen(FD)) == 0;

        if (!is_app && !is_worker && !is_fd)
                return refuse_braces(p, n,
                                with_sockets ? "%{fd:NAME}, %{worker}, %{app}, or %% for a percent sign"
                                             : "%{worker}, %{app}, or %% for a percent sign (%{fd:NAME} is for kind \"program\")",
                                ret_error);
        if (!values)
                return 0;
        if (is_fd)
                return expand_fd(p, n, values, f, ret_error);
        return fputs(is_app ? values->app : values->worker, f) < 0 ? -ENOMEM : 0;
}

static int expand(const char *p, bool with_sockets, const ExpandValues *values, FILE *f, char **ret_error) {
        for (int r; *p; p++) {
                if (p[0] == '%' && p[1] == '{') {
                        size_t n = strcspn(p, "}");

                        if (!p[n])
                                return refuse(p, 2, "a } behind it, or %% for a percent sign", ret_error);
                        r = expand_name(p + 2, n - 2, with_sockets, values, f, ret_error);
                        if (r != 0)
                                return r;
                        p += n;
                        continue;
                }
                if (p[0] == '%' && p[1] == '%')
                        p++;
                if (f && fputc(*p, f) == EOF)
                        return -ENOMEM;
        }
        return 0;
}

int expand_check(const char *text, bool with_sockets, char **ret_error) {
        return expand(text, with_sockets, /* values= */ NULL, /* f= */ NULL, ret_error);
}

int expand_text(const char *text, const ExpandValues *values, char **ret, char **ret_error) {
        _cleanup_free_ char *result = NULL;
        size_t size;
        FILE *f = open_memstream(&result, &size);
        int r;

        if (!f)
                return -ENOMEM;
        r = expand(text, /* with_sockets= */ true, values, f, ret_error);
        if (fclose(f) != 0 && r == 0)
                r = -ENOMEM;
        if (r == 0)
                *ret = TAKE_PTR(result);
        return r;
}

/* SPDX-License-Identifier: MIT */
/* What %{…} stands for; see expand.h. */

#include "master/expand.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "basic/macro.h"
#include "basic/strv.h"
#include "basic/text.h"

#define FOUND_MAX 128
#define FD        "fd:"
#define ENV       "env:"

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

/* A value may be a secret, but a name that is not there has none. */
static int expand_variable(const char *p, size_t n, const ExpandValues *values, FILE *f, char **ret_error) {
        _cleanup_free_ char *name = strndup(p + strlen(ENV), n - strlen(ENV));
        const char *value = name ? strv_get_variable(values->variables, name) : NULL;

        if (!name)
                return -ENOMEM;
        if (!value)
                return refuse_braces(p, n, "the name of a variable of musterd's own environment", ret_error);
        return fputs(value, f) < 0 ? -ENOMEM : 0;
}

static int expand_state_url(const char *p, size_t n, const ExpandValues *values, FILE *f, char **ret_error) {
        if (!values->state_url)
                return refuse_braces(p, n,
                                "no %{state_url}: there is no state, as state.url is not set and systemd has given no $STATE_DIRECTORY",
                                ret_error);
        return fputs(values->state_url, f) < 0 ? -ENOMEM : 0;
}

#define EXPECTED_MAX 256

static const char *expected_names(ExpandFlags flags, char buf[static EXPECTED_MAX]) {
        snprintf(buf, EXPECTED_MAX, "%s%s%%{app}, %%{env:NAME}%s, or %%%% for a percent sign%s",
                        flags & EXPAND_SOCKETS ? "%{fd:NAME}, " : "",
                        flags & EXPAND_WORKER ? "%{worker}, " : "",
                        flags & EXPAND_STATE ? ", %{state_url}" : "",
                        flags & EXPAND_SOCKETS || !(flags & EXPAND_WORKER)
                                        ? ""
                                        : " (%{fd:NAME} is for kind \"program\")");
        return buf;
}

static bool has_name(const char *p, size_t n, const char *prefix) {
        return n > strlen(prefix) && strncmp(p, prefix, strlen(prefix)) == 0;
}

/* Without @values it is only looked at. */
static int expand_name(const char *p, size_t n, ExpandFlags flags, const ExpandValues *values, FILE *f,
                char **ret_error) {
        bool is_app = span_is(p, n, "app"), is_variable = has_name(p, n, ENV);
        bool is_worker = flags & EXPAND_WORKER && span_is(p, n, "worker");
        bool is_state = flags & EXPAND_STATE && span_is(p, n, "state_url");
        bool is_fd = flags & EXPAND_SOCKETS && has_name(p, n, FD);
        char expected[EXPECTED_MAX];

        if (!is_app && !is_worker && !is_fd && !is_variable && !is_state)
                return refuse_braces(p, n, expected_names(flags, expected), ret_error);
        if (!values)
                return 0;
        if (is_fd)
                return expand_fd(p, n, values, f, ret_error);
        if (is_variable)
                return expand_variable(p, n, values, f, ret_error);
        if (is_state)
                return expand_state_url(p, n, values, f, ret_error);
        return fputs(is_app ? values->app : values->worker, f) < 0 ? -ENOMEM : 0;
}

static int expand(const char *p, ExpandFlags flags, const ExpandValues *values, FILE *f, char **ret_error) {
        for (int r; *p; p++) {
                if (p[0] == '%' && p[1] == '{') {
                        size_t n = strcspn(p, "}");

                        if (!p[n])
                                return refuse(p, 2, "a } behind it, or %% for a percent sign", ret_error);
                        r = expand_name(p + 2, n - 2, flags, values, f, ret_error);
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

int expand_check(const char *text, ExpandFlags flags, char **ret_error) {
        return expand(text, flags, /* values= */ NULL, /* f= */ NULL, ret_error);
}

int expand_text(const char *text, const ExpandValues *values, char **ret, char **ret_error) {
        _cleanup_free_ char *result = NULL;
        size_t size;
        FILE *f = open_memstream(&result, &size);
        int r;

        if (!f)
                return -ENOMEM;
        r = expand(text, EXPAND_ALL, values, f, ret_error);
        if (fclose(f) != 0 && r == 0)
                r = -ENOMEM;
        if (r == 0)
                *ret = TAKE_PTR(result);
        return r;
}

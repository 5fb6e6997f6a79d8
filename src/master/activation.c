/* SPDX-License-Identifier: MIT */
/* Socket activation; see activation.h. */

#include "master/activation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/parse.h"

void activation_names_free(char **names) {
        for (char **s = names; s && *s; s++)
                free(*s);
        free(names);
}

static int count_sockets(void) {
        const char *listen_pid = getenv("LISTEN_PID"), *listen_fds = getenv("LISTEN_FDS");
        unsigned pid, n;

        if (!listen_pid || !listen_fds)
                return 0;
        if (parse_uint(listen_pid, &pid) < 0 || parse_uint(listen_fds, &n) < 0)
                return -EINVAL;
        if ((pid_t) pid != getpid()) /* meant for somebody else, such as a shell that started us */
                return 0;
        return n <= ACTIVATION_MAX ? (int) n : -E2BIG;
}

/* Splits "http:control" into exactly @n names. An empty name is one too. */
static int split_names(const char *text, int n, char ***ret) {
        _cleanup_(activation_names_freep) char **names = calloc((size_t) n + 1, sizeof(char *));
        int i = 0;

        if (!names)
                return -ENOMEM;
        for (const char *p = text; p; i++) {
                size_t length = strcspn(p, ":");

                if (i == n)
                        return -EINVAL;
                names[i] = strndup(p, length);
                if (!names[i])
                        return -ENOMEM;
                p = p[length] ? p + length + 1 : NULL;
        }
        if (i != n)
                return -EINVAL;
        *ret = TAKE_PTR(names);
        return 0;
}

static int default_names(int n, char ***ret) {
        _cleanup_(activation_names_freep) char **names = calloc((size_t) n + 1, sizeof(char *));

        if (!names)
                return -ENOMEM;
        for (int i = 0; i < n; i++) {
                names[i] = strdup("unknown");
                if (!names[i])
                        return -ENOMEM;
        }
        *ret = TAKE_PTR(names);
        return 0;
}

int activation_sockets(char ***ret_names) {
        const char *text = getenv("LISTEN_FDNAMES");
        int n = count_sockets(), r = n;

        if (n >= 0)
                r = text && n > 0 ? split_names(text, n, ret_names) : default_names(n, ret_names);
        (void) unsetenv("LISTEN_PID");
        (void) unsetenv("LISTEN_FDS");
        (void) unsetenv("LISTEN_FDNAMES");
        return r < 0 ? r : n;
}

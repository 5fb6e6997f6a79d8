/* SPDX-License-Identifier: MIT */
/* Environments of children; see environment.h. */

#include "lib/environment.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool same_name(const char *a, const char *b) {
        size_t n = strcspn(a, "=");

        return strncmp(a, b, n) == 0 && b[n] == '=';
}

int environment_new(char *const *base, char *const *assignments, size_t n, char ***ret) {
        size_t n_base = 0, k = 0;

        while (base && base[n_base]) /* clearenv(3) leaves NULL */
                n_base++;
        char **env = calloc(n_base + n + 1, sizeof(char *));
        if (!env)
                return -ENOMEM;

        for (size_t i = 0; i < n_base; i++) {
                bool replaced = false;

                for (size_t j = 0; j < n; j++)
                        replaced = replaced || same_name(assignments[j], base[i]);
                if (!replaced)
                        env[k++] = base[i];
        }
        for (size_t j = 0; j < n; j++)
                env[k++] = assignments[j];
        *ret = env;
        return 0;
}

const char *environment_get(char *const *env, const char *name) {
        size_t n = strlen(name);

        for (; *env; env++)
                if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
                        return *env + n + 1;
        return NULL;
}

/* SPDX-License-Identifier: MIT */
/* Arrays of strings; see string-list.h. */

#include "lib/string-list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"

int string_list_copy(char *const *from, char ***ret) {
        size_t n = 0, bytes = 0;

        for (; from[n]; n++)
                bytes += strlen(from[n]) + 1;
        char **list = malloc((n + 1) * sizeof(char *) + bytes);
        if (!list)
                return -ENOMEM;
        char *text = (char *) (list + n + 1);
        for (size_t i = 0; i < n; i++) {
                list[i] = text;
                text = stpcpy(text, from[i]) + 1;
        }
        list[n] = NULL;
        *ret = list;
        return 0;
}

static void closefilep(FILE **f) {
        if (*f)
                fclose(*f);
}

int string_list_of_arguments(char ***ret) {
        _cleanup_(closefilep) FILE *f = fopen("/proc/self/cmdline", "re");
        _cleanup_free_ char *text = NULL;
        _cleanup_free_ char **list = NULL;
        size_t size = 0, n_list = 0;

        if (!f)
                return -errno;
        for (;;) {
                char *larger = realloc(text, size + BUFSIZ + 1);
                if (!larger)
                        return -ENOMEM;
                text = larger;
                size_t n = fread(text + size, 1, BUFSIZ, f);
                size += n;
                if (n < BUFSIZ)
                        break;
        }
        if (ferror(f))
                return -EIO;
        text[size] = '\0';

        list = calloc(size + 2, sizeof(char *));
        if (!list)
                return -ENOMEM;
        for (char *p = text; p < text + size; p += strlen(p) + 1)
                list[n_list++] = p;
        return n_list > 0 ? string_list_copy(list, ret) : -ENODATA;
}

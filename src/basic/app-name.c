/* SPDX-License-Identifier: MIT */
/* The names of apps; see app-name.h. */

#include "basic/app-name.h"

#include <string.h>

bool app_name_is_valid(const char *s) {
        size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-");

        return n > 0 && n <= APP_NAME_MAX && !s[n] && s[0] != '.' && s[0] != '-';
}

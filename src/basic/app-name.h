/* SPDX-License-Identifier: MIT */
#pragma once

/* The names of apps, which become parts of paths, of unit names as they are, and of journal fields. */

#include <stdbool.h>

#define APP_NAME_MAX 64

/* 1 to APP_NAME_MAX letters, digits and _.:-, beginning with none of .- */
bool app_name_is_valid(const char *s);

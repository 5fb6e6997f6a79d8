/* SPDX-License-Identifier: MIT */
#pragma once

/* The conditions under which a client wants an answer (RFC 9110, section 13), for GET and HEAD. Pure. */

#include <stdbool.h>
#include <stdint.h>

#include "http/parser.h"

/* What the selected representation is compared by. */
typedef struct Validators {
        const char *etag; /* quoted and strong */
        int64_t modified; /* in seconds */
} Validators;

/* If-Match, If-Unmodified-Since, If-None-Match, If-Modified-Since in the order of section 13.2.2. Returns 0
 * when the request is to be answered, else 412 or 304. */
unsigned precondition_check(const HttpRequest *request, const char *buf, const Validators *v, int64_t now);

/* Whether Range is to be looked at: If-Range is absent or names this very representation. */
bool precondition_allows_range(
                const HttpRequest *request, const char *buf, const Validators *v, int64_t now);

/* SPDX-License-Identifier: MIT */
#pragma once

/* Responses as they go over the wire. Pure, but for the memory. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Answer {
        unsigned status;
        const char *allow; /* of a 405; NULL: none */
        const char *body;  /* a JSON text */
        bool head_only;    /* the request was a HEAD */
        bool keep_alive;
        bool old_client; /* HTTP/1.0: it must be told that the connection stays */
        uint64_t now_seconds;
} Answer;

/* Head and body in a fresh text. Returns 0 or -ENOMEM. */
int answer_format(const Answer *a, char **ret, size_t *ret_n);

/* {"error":{"code":…,"message":…}} in a fresh text, NULL without memory. The texts need not be UTF-8. */
char *answer_error_body(const char *code, const char *message);

/* SPDX-License-Identifier: MIT */
#pragma once

/* What a request asks for: which question to the master it is, or why it is none. Pure: no I/O. */

#include <stdbool.h>
#include <stddef.h>

#include "http/parser.h"

#define API_MESSAGE_MAX 320
#define API_WORKERS_MAX 256

/* What a worker's channel takes, and a body that holds as much. */
#define API_PAYLOAD_MAX (256 * 1024)
#define API_BODY_MAX    (API_PAYLOAD_MAX + 4 * 1024)

typedef struct ApiDecision {
        /* When it is to be put to the master; else NULL. A string that lives for ever, like all here. */
        const char *act;
        unsigned workers; /* of a "scale"; else 0 */
        unsigned worker;  /* of a "send", 0 for all; else 0 */
        char *payload;    /* of a "send", its message as JSON on one line, freed by the caller; else NULL */

        /* When it is answered with an error. */
        unsigned status;
        const char *code;
        const char *allow; /* the methods, for 405; else NULL */
        char message[API_MESSAGE_MAX];
} ApiDecision;

/* What the head alone tells. Returns true when the request may go on, to its body if it has one; else
 * @ret says what is wrong. */
bool api_check_head(const HttpRequest *request, const char *buf, ApiDecision *ret);

/* The whole request, whose head was found to be right. @body may have any bytes. */
void api_decide(const HttpRequest *request, const char *buf, const char *body, size_t n, ApiDecision *ret);

/* The name for programs, and a sentence for people, of an error that HTTP itself defines. */
void api_set_status(ApiDecision *d, unsigned status);

/* The status by which an error of the master is answered; @code as it came from it, NULL for none. */
unsigned api_status_of_code(const char *code);

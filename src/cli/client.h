/* SPDX-License-Identifier: MIT */
#pragma once

/* HTTP over the control socket. All that is known of libcurl is behind this. */

#include <stddef.h>
#include <stdint.h>

#define CLIENT_ERROR_MAX 256

typedef struct ClientRequest {
        const char *socket_path;
        const char *method; /* "GET" or "POST" */
        const char *path;
        const char *json;      /* the body; NULL: none */
        uint64_t timeout_usec; /* of all of it; 0: none */
} ClientRequest;

typedef struct ClientAnswer {
        long status;
        char *body; /* with a NUL behind it, which is not counted */
        size_t n;
        char error[CLIENT_ERROR_MAX]; /* when it failed, for people */
} ClientAnswer;

/* Returns 0 when there is an answer, whatever its status; the errno of connect(2); -ETIMEDOUT; -ECONNRESET
 * when the other side ended without an answer; -EFBIG; -ENOMEM; -EPROTO for what else libcurl may say, in
 * @ret->error. @ret is to be freed by client_answer_done() in every case. */
int client_ask(const ClientRequest *request, ClientAnswer *ret);

void client_answer_done(ClientAnswer *a);

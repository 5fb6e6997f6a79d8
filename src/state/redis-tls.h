/* SPDX-License-Identifier: MIT */
#pragma once

/* TLS for one connection, above its socket. */

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "state/driver.h"
#include "state/url.h"

typedef struct RedisTls RedisTls;

/* What is common to all connections of a handle. The parameters are "cacert", "cert" and "key", each a file;
 * without the first the system's authorities are trusted. Returns 0, or -EINVAL with a text, or -ENOMEM. */
int redis_tls_context_new(const char *ca, const char *certificate, const char *key, SSL_CTX **ret,
                char error[static STATE_TEXT_MAX]);

/* @host: the name, or the numeric address, that the server's certificate is to be for. */
RedisTls *redis_tls_new(SSL_CTX *context, int fd, const char *host);
RedisTls *redis_tls_free(RedisTls *tls);

/* Returns 0 when it is done, -EAGAIN when the socket is to be waited for, or -EPROTO with a text. */
int redis_tls_handshake(RedisTls *tls);

/* As recv() and send(): the bytes, 0 at the end, -EAGAIN; or -EPROTO with a text. */
ssize_t redis_tls_receive(RedisTls *tls, void *data, size_t size);
ssize_t redis_tls_send(RedisTls *tls, const void *data, size_t size);

/* After -EAGAIN: the socket is to be waited for until it can be written to. */
bool redis_tls_wants_to_write(const RedisTls *tls);

const char *redis_tls_get_text(const RedisTls *tls);

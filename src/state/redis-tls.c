/* SPDX-License-Identifier: MIT */
/* OpenSSL itself, not what hiredis wraps around it: that is only in later versions, does not look whether
 * the certificate is for the host that was asked for, and writes in a way that raises SIGPIPE. */

#include "state/redis-tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "basic/macro.h"

struct RedisTls {
        SSL *ssl;
        BIO_METHOD *socket;
        bool wants_to_write;
        char text[STATE_TEXT_MAX];
};

static int tls_file_error(const char *what, const char *path, char error[static STATE_TEXT_MAX]) {
        const char *reason = ERR_reason_error_string(ERR_peek_last_error());

        snprintf(error, STATE_TEXT_MAX, "found %s=%.128s (%s), expected a PEM file that can be read", what,
                        path, reason ? reason : "?");
        ERR_clear_error();
        return -EINVAL;
}

static int context_load(SSL_CTX *c, const char *ca, const char *certificate, const char *key,
                char error[static STATE_TEXT_MAX]) {
        if (ca ? SSL_CTX_load_verify_file(c, ca) != 1 : SSL_CTX_set_default_verify_paths(c) != 1)
                return tls_file_error("cacert", ca ? ca : "", error);
        if (certificate && SSL_CTX_use_certificate_chain_file(c, certificate) != 1)
                return tls_file_error("cert", certificate, error);
        if (key && SSL_CTX_use_PrivateKey_file(c, key, SSL_FILETYPE_PEM) != 1)
                return tls_file_error("key", key, error);
        return 0;
}

int redis_tls_context_new(const char *ca, const char *certificate, const char *key, SSL_CTX **ret,
                char error[static STATE_TEXT_MAX]) {
        SSL_CTX *c = SSL_CTX_new(TLS_client_method());
        int r;

        if (!c)
                return -ENOMEM;
        SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
        /* Or what is to be written might have to wait for something to be read. */
        SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION);
        SSL_CTX_set_verify(c, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                            SSL_MODE_RELEASE_BUFFERS);
        r = context_load(c, ca, certificate, key, error);
        if (r < 0) {
                SSL_CTX_free(c);
                return r;
        }
        *ret = c;
        return 0;
}

static int socket_fd(BIO *b) {
        return (int) (intptr_t) BIO_get_data(b);
}

/* OpenSSL's own would raise SIGPIPE. */
static int socket_write(BIO *b, const char *data, int size) {
        ssize_t n = send(socket_fd(b), data, (size_t) size, MSG_NOSIGNAL);

        BIO_clear_retry_flags(b);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                BIO_set_retry_write(b);
        return (int) n;
}

static int socket_read(BIO *b, char *data, int size) {
        ssize_t n = recv(socket_fd(b), data, (size_t) size, 0);

        BIO_clear_retry_flags(b);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                BIO_set_retry_read(b);
        return (int) n;
}

static long socket_control(BIO *b, int command, long number, void *pointer) {
        return command == BIO_CTRL_FLUSH;
}

static BIO *socket_new(RedisTls *t, int fd) {
        BIO *b;

        t->socket = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "redis");
        if (!t->socket || !BIO_meth_set_write(t->socket, socket_write) ||
                        !BIO_meth_set_read(t->socket, socket_read) ||
                        !BIO_meth_set_ctrl(t->socket, socket_control))
                return NULL;
        b = BIO_new(t->socket);
        if (!b)
                return NULL;
        BIO_set_data(b, (void *) (intptr_t) fd);
        BIO_set_init(b, 1);
        return b;
}

static bool is_numeric(const char *host) {
        unsigned char address[sizeof(struct in6_addr)];

        return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

/* A certificate is for a name or for an address; an address is no name that a server is told of. */
static bool tls_expect(SSL *ssl, const char *host) {
        if (is_numeric(host))
                return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
        return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

RedisTls *redis_tls_new(SSL_CTX *context, int fd, const char *host) {
        RedisTls *t = calloc(1, sizeof(*t));
        BIO *b;

        if (!t)
                return NULL;
        t->ssl = SSL_new(context);
        b = t->ssl ? socket_new(t, fd) : NULL;
        if (!b)
                return redis_tls_free(t);
        SSL_set_bio(t->ssl, b, b);
        SSL_set_connect_state(t->ssl);
        if (!tls_expect(t->ssl, host))
                return redis_tls_free(t);
        return t;
}

RedisTls *redis_tls_free(RedisTls *t) {
        if (!t)
                return NULL;
        if (t->ssl)
                SSL_free(t->ssl);
        if (t->socket)
                BIO_meth_free(t->socket);
        free(t);
        return NULL;
}

static const char *tls_reason(RedisTls *t) {
        long verified = SSL_get_verify_result(t->ssl);
        const char *reason = ERR_reason_error_string(ERR_peek_last_error());

        if (verified != X509_V_OK)
                return X509_verify_cert_error_string(verified);
        return reason ? reason : "the connection ended";
}

/* @r: what OpenSSL returned, not more than 0. @code: its errno. */
static ssize_t tls_result(RedisTls *t, int r, int code) {
        int e = SSL_get_error(t->ssl, r);

        t->wants_to_write = e == SSL_ERROR_WANT_WRITE;
        if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE)
                return -EAGAIN;
        if (e == SSL_ERROR_ZERO_RETURN)
                return 0;
        if (e == SSL_ERROR_SYSCALL && code != 0)
                snprintf(t->text, sizeof(t->text), "%s", strerrordesc_np(code));
        else
                snprintf(t->text, sizeof(t->text), "TLS: %s", tls_reason(t));
        ERR_clear_error();
        return -EPROTO;
}

/* What the application's own use of OpenSSL has left in this thread would be taken for ours. */
static void tls_prepare(void) {
        ERR_clear_error();
        errno = 0;
}

int redis_tls_handshake(RedisTls *t) {
        int r;

        tls_prepare();
        r = SSL_do_handshake(t->ssl);
        if (r == 1)
                return 0;
        r = (int) tls_result(t, r, errno);
        if (r == 0)
                snprintf(t->text, sizeof(t->text), "TLS: the server ended the connection");
        return r < 0 ? r : -EPROTO;
}

ssize_t redis_tls_receive(RedisTls *t, void *data, size_t size) {
        int r;

        tls_prepare();
        r = SSL_read(t->ssl, data, (int) MIN(size, (size_t) INT32_MAX));
        if (r <= 0)
                return tls_result(t, r, errno);
        t->wants_to_write = false;
        return r;
}

ssize_t redis_tls_send(RedisTls *t, const void *data, size_t size) {
        int r;

        tls_prepare();
        r = SSL_write(t->ssl, data, (int) MIN(size, (size_t) INT32_MAX));
        if (r <= 0)
                return tls_result(t, r, errno);
        t->wants_to_write = false;
        return r;
}

bool redis_tls_wants_to_write(const RedisTls *t) {
        return t->wants_to_write;
}

const char *redis_tls_get_text(const RedisTls *t) {
        return t->text;
}

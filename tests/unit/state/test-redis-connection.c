/* SPDX-License-Identifier: MIT */
/* One connection, with several addresses to try. */

#include "redis-host.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "state/redis-connection.h"
#include "state/redis-tls.h"

typedef struct Fixture {
        unsigned n_opened, n_replied, n_lost;
        int family; /* of the address that it was made to */
        int error;
        char text[STATE_TEXT_MAX];
} Fixture;

static void on_opened(RedisConnection *c, const RedisAddress *address, void *userdata) {
        Fixture *f = userdata;

        f->n_opened++;
        f->family = address->socket.any.sa_family;
}

static void on_replied(RedisConnection *c, const redisReply *reply, void *userdata) {
        Fixture *f = userdata;

        assert_int_equal(reply->type, REDIS_REPLY_STATUS);
        assert_string_equal(reply->str, "PONG");
        f->n_replied++;
}

static void on_lost(RedisConnection *c, int error, const char *text, void *userdata) {
        Fixture *f = userdata;

        f->n_lost++;
        f->error = error;
        strcpy(f->text, text);
}

static const RedisConnectionHandlers handlers = {
        .opened = on_opened,
        .replied = on_replied,
        .lost = on_lost,
};

/* An address where nobody listens: it is bound, so that nobody else begins to. */
static int closed_address(RedisAddress *ret) {
        struct sockaddr_in *a = &ret->socket.ipv4;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        memset(ret, 0, sizeof(*ret));
        a->sin_family = AF_INET;
        a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        ret->size = sizeof(*a);
        assert_int_equal(bind(fd, &ret->socket.any, ret->size), 0);
        assert_int_equal(getsockname(fd, &ret->socket.any, &ret->size), 0);
        return fd;
}

/* Refused by one address, which takes a while, and by one at once, it is made to the third; and it is lost
 * when all have refused. */
static void test_addresses(void **state) {
        RedisAddresses closed = { .n = 1 }, missing, listening;
        RedisAddress all[3];
        sd_event *event;
        Server server;
        int fd = closed_address(&closed.items[0]);

        server_start(&server, NULL);
        assert_int_equal(sd_event_new(&event), 0);
        assert_int_equal(redis_address_of_path("/nonexistent/socket", &missing), 0);
        assert_int_equal(redis_address_of_path(server.path, &listening), 0);
        all[0] = closed.items[0];
        all[1] = missing.items[0];
        all[2] = listening.items[0];
        for (size_t n = 1; n <= 3; n++) {
                RedisConnection *c;
                Fixture f = { 0 };

                assert_int_equal(redis_connection_new(event, &handlers, &f, &c), 0);
                assert_int_equal(redis_connection_send(c, &BYTES("PING"), 1), 0);
                redis_connection_start(c, all, n, NULL, NULL);
                assert_int_equal(f.n_lost, 0);
                while (f.n_replied + f.n_lost == 0)
                        assert_true(sd_event_run(event, UINT64_MAX) >= 0);
                assert_int_equal(f.n_opened, n == 3);
                assert_int_equal(f.n_lost, n < 3);
                if (n == 3)
                        assert_int_equal(f.family, AF_UNIX);
                else
                        assert_int_equal(f.error, -ENOTCONN);
                redis_connection_free(c);
        }
        close(fd);
        sd_event_unref(event);
        server_done(&server);
}

typedef struct TlsServer {
        char folder[64], certificate[96], key[96], path[96];
        SSL_CTX *context;
        int listener;
        sem_t may_end;
        pthread_t thread;
} TlsServer;

/* A server that asks for a new handshake and ends TLS in the middle of it. The socket stays open, so that
 * the connection breaks by what is said over it alone. */
static void *tls_server_run(void *userdata) {
        TlsServer *t = userdata;
        SSL *ssl = SSL_new(t->context);
        int fd = accept4(t->listener, NULL, NULL, SOCK_CLOEXEC);
        char data[4096];

        SSL_set_fd(ssl, fd);
        if (SSL_accept(ssl) == 1 && SSL_read(ssl, data, sizeof(data)) > 0 && SSL_renegotiate(ssl) == 1 &&
                        SSL_do_handshake(ssl) == 1 && SSL_write(ssl, "+PONG\r\n", 7) == 7 &&
                        sem_wait(&t->may_end) == 0)
                (void) SSL_shutdown(ssl);
        SSL_free(ssl);
        return (void *) (intptr_t) fd;
}

/* False: there is no openssl. */
static bool tls_server_start(TlsServer *t, RedisAddresses *ret) {
        char command[512];

        *t = (TlsServer){ .folder = "/tmp/muster-tls-XXXXXX" };
        assert_non_null(mkdtemp(t->folder));
        snprintf(t->certificate, sizeof(t->certificate), "%s/cert", t->folder);
        snprintf(t->key, sizeof(t->key), "%s/key", t->folder);
        snprintf(t->path, sizeof(t->path), "%s/socket", t->folder);
        snprintf(command, sizeof(command),
                        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=test "
                        "-addext subjectAltName=DNS:test -days 2 -out %s -keyout %s 2>/dev/null",
                        t->certificate, t->key);
        if (system(command) != 0)
                return false;
        assert_int_equal(sem_init(&t->may_end, 0, 0), 0);
        t->context = SSL_CTX_new(TLS_server_method());
        SSL_CTX_set_max_proto_version(t->context, TLS1_2_VERSION);
        assert_int_equal(SSL_CTX_use_certificate_chain_file(t->context, t->certificate), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(t->context, t->key, SSL_FILETYPE_PEM), 1);
        assert_int_equal(redis_address_of_path(t->path, ret), 0);
        t->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(t->listener, &ret->items[0].socket.any, ret->items[0].size), 0);
        assert_int_equal(listen(t->listener, 1), 0);
        assert_int_equal(pthread_create(&t->thread, NULL, tls_server_run, t), 0);
        return true;
}

static void tls_server_done(TlsServer *t) {
        if (t->context) {
                close(t->listener);
                sem_destroy(&t->may_end);
                SSL_CTX_free(t->context);
        }
        unlink(t->path);
        unlink(t->certificate);
        unlink(t->key);
        rmdir(t->folder);
}

/* A handshake that the server asks for and does not go on with does not make the loop busy: what is to be
 * sent does not wait for it. */
static void test_tls_new_handshake(void **state) {
        RedisAddresses address;
        char error[STATE_TEXT_MAX];
        SSL_CTX *context;
        RedisConnection *c;
        sd_event *event;
        Fixture f = { 0 };
        unsigned n = 0;
        TlsServer t;
        void *fd;

        if (tls_server_start(&t, &address)) {
                assert_int_equal(sd_event_new(&event), 0);
                assert_int_equal(redis_tls_context_new(t.certificate, NULL, NULL, &context, error), 0);
                assert_int_equal(redis_connection_new(event, &handlers, &f, &c), 0);
                assert_int_equal(redis_connection_send(c, &BYTES("PING"), 1), 0);
                redis_connection_start(c, address.items, 1, context, "test");
                while (f.n_replied == 0) {
                        assert_true(sd_event_run(event, UINT64_MAX) >= 0);
                        assert_int_equal(f.n_lost, 0);
                }
                assert_int_equal(redis_connection_send(c, &BYTES("PING"), 1), 0);
                while (sd_event_run(event, 0) > 0)
                        assert_true(++n < 100);
                sem_post(&t.may_end);
                assert_int_equal(pthread_join(t.thread, &fd), 0);
                while (f.n_lost == 0)
                        assert_true(sd_event_run(event, UINT64_MAX) >= 0);
                assert_int_equal(f.error, -ENOTCONN);
                redis_connection_free(c);
                close((int) (intptr_t) fd);
                SSL_CTX_free(context);
                sd_event_unref(event);
        }
        tls_server_done(&t);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_addresses),
                cmocka_unit_test(test_tls_new_handshake),
        };

        server_require();
        return cmocka_run_group_tests(tests, NULL, NULL);
}

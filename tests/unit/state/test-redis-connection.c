/* SPDX-License-Identifier: MIT */
/* One connection, with several addresses to try. */

#include "redis-host.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "state/redis-connection.h"

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

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_addresses),
        };

        server_require();
        return cmocka_run_group_tests(tests, NULL, NULL);
}

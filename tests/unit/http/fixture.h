/* SPDX-License-Identifier: MIT */
#pragma once

/* A server with one connection, whose other end the test holds. To be included after cmocka.h. */

#include <string.h>
#include <sys/socket.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "http/connection.h"

#define GET "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

static BoardCell cell;
static Table table;
static Server server;
static Connection *connection;
static int client;

static inline void fixture_open(const ServerSettings *settings, const Handler *handler) {
        int fds[2];

        cell = (BoardCell){ 0 };
        assert_int_equal(server_init_table(settings, &table), 0);
        assert_int_equal(server_init(&server, settings, handler, &cell, &table), 0);
        server_set_time(&server, USEC_PER_SEC, 1);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        client = fds[1];
        assert_int_equal(connection_open(&server, fds[0], &connection), 0);
}

static inline void fixture_close(void) {
        if (connection)
                connection_done(connection);
        connection = NULL;
        server_done(&server);
        table_done(&table);
        client = safe_close(client);
}

static inline ConnectionWant say_bytes(const void *data, size_t n) {
        assert_int_equal(send(client, data, n, MSG_NOSIGNAL), n);
        return connection_ready(connection);
}

static inline ConnectionWant say(const char *text) {
        return say_bytes(text, strlen(text));
}

/* What the client has got so far. */
static inline const char *heard(void) {
        static char buf[65536];
        ssize_t n = recv(client, buf, sizeof(buf) - 1, 0);

        buf[n > 0 ? n : 0] = '\0';
        return buf;
}

static inline Timeout *wait_usec(uint64_t usec) {
        server_set_time(&server, server.now + usec, 1);
        return server_next_expired(&server);
}

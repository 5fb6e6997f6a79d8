/* SPDX-License-Identifier: MIT */
#include "http/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "basic/clock.h"

static BoardCell cell;
static Table table;
static Server server;

static int setup(void **state) {
        ServerSettings settings;

        server_settings_init(&settings);
        cell = (BoardCell){ 0 };
        assert_int_equal(server_init_table(&settings, &table), 0);
        assert_int_equal(server_init(&server, &settings, &(Handler){ 0 }, &cell, &table), 0);
        server_set_time(&server, 1000 * USEC_PER_SEC, 0);
        return 0;
}

static int teardown(void **state) {
        server_done(&server);
        table_done(&table);
        return 0;
}

/* Deadlines come due in their order and over all classes; nothing armed means nothing to wake up for. */
static void test_deadlines(void **state) {
        Timeout idle, request;

        list_init(&idle.node);
        list_init(&request.node);
        assert_true(server_next_deadline(&server) == USEC_INFINITY);
        server_arm(&server, &idle, TIMEOUT_IDLE);
        server_arm(&server, &request, TIMEOUT_REQUEST);
        assert_true(server_next_deadline(&server) == 1010 * USEC_PER_SEC);
        assert_null(server_next_expired(&server));

        server_set_time(&server, 1010 * USEC_PER_SEC, 0);
        assert_ptr_equal(server_next_expired(&server), &request);
        assert_null(server_next_expired(&server));
        assert_true(server_next_deadline(&server) == 1060 * USEC_PER_SEC);
        server_set_time(&server, 1060 * USEC_PER_SEC, 0);
        assert_ptr_equal(server_next_expired(&server), &idle);
        assert_true(server_next_deadline(&server) == USEC_INFINITY);
}

/* Deadlines close together share a wake-up, which never comes too early. */
static void test_grain(void **state) {
        Timeout t;

        list_init(&t.node);
        server_set_time(&server, 1000 * USEC_PER_SEC + 1, 0);
        server_arm(&server, &t, TIMEOUT_REQUEST);
        assert_true(server_next_deadline(&server) == 1010 * USEC_PER_SEC + 100 * USEC_PER_MSEC);
}

/* Arming again moves the deadline, and to the end of its list. */
static void test_rearm(void **state) {
        Timeout a, b;

        list_init(&a.node);
        list_init(&b.node);
        server_arm(&server, &a, TIMEOUT_SEND);
        server_arm(&server, &b, TIMEOUT_SEND);
        server_set_time(&server, 1001 * USEC_PER_SEC, 0);
        server_arm(&server, &a, TIMEOUT_SEND);
        server_set_time(&server, 1100 * USEC_PER_SEC, 0);
        assert_ptr_equal(server_next_expired(&server), &b);
        assert_ptr_equal(server_next_expired(&server), &a);
}

/* A drain shortens what idle connections have left, and nothing else; the second call changes nothing. */
static void test_drain(void **state) {
        Timeout idle, request;

        list_init(&idle.node);
        list_init(&request.node);
        server_arm(&server, &idle, TIMEOUT_IDLE);
        server_arm(&server, &request, TIMEOUT_REQUEST);
        server_drain(&server);
        server_set_time(&server, 1001 * USEC_PER_SEC, 0);
        server_drain(&server);
        assert_ptr_equal(server_next_expired(&server), &idle);
        assert_null(server_next_expired(&server));
}

/* The board says what is, whatever else is written there. */
static void test_counters(void **state) {
        server_count_connection(&server);
        server_count_connection(&server);
        server_count_request(&server);
        server_uncount_connection(&server);
        assert_int_equal(cell.connections, 1);
        assert_int_equal(cell.accepted, 2);
        assert_int_equal(cell.requests, 1);
        cell.connections = 77;
        server_uncount_connection(&server);
        assert_int_equal(cell.connections, 0);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_deadlines, setup, teardown),
                cmocka_unit_test_setup_teardown(test_grain, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rearm, setup, teardown),
                cmocka_unit_test_setup_teardown(test_drain, setup, teardown),
                cmocka_unit_test_setup_teardown(test_counters, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

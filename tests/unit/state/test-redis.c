/* SPDX-License-Identifier: MIT */
/* The driver for Redis with a server that does what it should. */

#include "redis-host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/macro.h"

#define MANY 10000

typedef struct Fixture {
        Server server;
        StateStore store;
} Fixture;

static int setup_server(void **state) {
        Fixture *f = calloc(1, sizeof(*f));

        server_start(&f->server, NULL);
        *state = f;
        return 0;
}

static int teardown_server(void **state) {
        Fixture *f = *state;

        server_done(&f->server);
        free(f);
        return 0;
}

static int setup(void **state) {
        Fixture *f = *state;

        server_tell(&f->server, "FLUSHALL");
        store_open_at(&f->store, &f->server);
        store_connected(&f->store, NULL);
        return 0;
}

static int teardown(void **state) {
        Fixture *f = *state;

        store_close(&f->store);
        return 0;
}

static int run(StateStore *s, Operation *o) {
        int error;

        operation_run(s, o);
        error = o->error;
        operation_free(o);
        return error;
}

static Operation *get(StateStore *s, const void *key, size_t size) {
        return operation_run(s, operation_new(STATE_GET, key, size));
}

static Operation *new_set(const void *key, size_t size, const void *value, size_t value_size) {
        Operation *o = operation_new(STATE_SET, key, size);

        o->op.value = (StateBytes){ .data = value, .size = value_size };
        return o;
}

static int set(StateStore *s, const void *key, size_t size, const void *value, size_t value_size) {
        return run(s, new_set(key, size, value, value_size));
}

static int set_if(StateStore *s, const void *key, size_t size, const char *value, uint64_t version,
                uint64_t ttl_usec) {
        Operation *o = new_set(key, size, value, strlen(value));

        o->op.if_version = version;
        o->op.ttl_usec = ttl_usec;
        return run(s, o);
}

static int delete (StateStore *s, const void *key, size_t size, uint64_t version) {
        Operation *o = operation_new(STATE_DELETE, key, size);

        o->op.if_version = version;
        return run(s, o);
}

static int add(StateStore *s, const char *key, int64_t difference, uint64_t ttl_usec, int64_t *ret) {
        Operation *o = operation_new(STATE_ADD, key, strlen(key));
        int error;

        o->op.difference = difference;
        o->op.ttl_usec = ttl_usec;
        operation_run(s, o);
        error = o->error;
        if (ret)
                *ret = o->number;
        operation_free(o);
        return error;
}

static void assert_value(StateStore *s, const void *key, size_t size, const void *value, size_t value_size) {
        Operation *o = get(s, key, size);

        assert_int_equal(o->error, 0);
        assert_int_equal(o->size, value_size);
        assert_memory_equal(o->value, value, value_size);
        assert_int_not_equal(o->version, 0);
        operation_free(o);
}

static uint64_t version_of(StateStore *s, const char *key) {
        Operation *o = get(s, key, strlen(key));
        uint64_t version = o->version;

        operation_free(o);
        return version;
}

/* Keys and values are bytes, none is a value as well, and the server has them as they are. */
static void test_values(void **state) {
        Fixture *f = *state;
        StateStore *s = &f->store;
        redisReply *reply;

        assert_int_equal(run(s, operation_new(STATE_GET, STRING("none"))), -ENOENT);
        assert_int_equal(set(s, STRING("a\0b\r\n$5\xFF"), STRING("\0v\r\n\0\xFE")), 0);
        assert_value(s, STRING("a\0b\r\n$5\xFF"), STRING("\0v\r\n\0\xFE"));
        assert_int_equal(run(s, operation_new(STATE_GET, STRING("a"))), -ENOENT);
        assert_int_equal(set(s, STRING("empty"), NULL, 0), 0);
        assert_value(s, STRING("empty"), STRING(""));
        assert_int_equal(set(s, STRING("plain"), STRING("text")), 0);
        reply = server_ask(&f->server, "GET plain");
        assert_string_equal(reply->str, "text");
        freeReplyObject(reply);
        assert_int_equal(delete (s, STRING("plain"), 0), 0);
        assert_int_equal(delete (s, STRING("plain"), 0), -ENOENT);
}

/* The largest value goes there and back; a larger one, which another program has put there, is too large,
 * and the connection lives. */
static void test_large(void **state) {
        Fixture *f = *state;
        size_t size = MUSTER_STATE_VALUE_MAX;
        char *value = malloc(size + 1);
        Operation *large, *behind;

        for (size_t i = 0; i < size + 1; i++)
                value[i] = (char) (i * 7 + i / 251);
        assert_int_equal(set(&f->store, STRING("large"), value, size), 0);
        assert_value(&f->store, STRING("large"), value, size);

        server_tell(&f->server, "SET larger %b", value, size + 1);
        large = operation_new(STATE_GET, STRING("larger"));
        behind = operation_new(STATE_GET, STRING("none"));
        operation_send(&f->store, large);
        operation_send(&f->store, behind);
        run_until(&f->store, behind->has_ended);
        assert_int_equal(large->error, -EMSGSIZE);
        assert_int_equal(behind->error, -ENOENT);
        operation_free(large);
        operation_free(behind);
        assert_int_equal(f->store.n_lost, 0);
        free(value);
}

/* A key ends when its time is over; set anew without one it has none. */
static void test_ttl(void **state) {
        Fixture *f = *state;
        Operation *o = new_set(STRING("k"), STRING("v"));
        long long left;

        o->op.ttl_usec = 60 * USEC_PER_SEC;
        assert_int_equal(run(&f->store, o), 0);
        left = server_ask_number(&f->server, "PTTL k");
        assert_true(left > 0 && left <= 60000);
        assert_int_equal(set(&f->store, STRING("k"), STRING("w")), 0);
        assert_int_equal(server_ask_number(&f->server, "PTTL k"), -1);

        o = new_set(STRING("short"), STRING("v"));
        o->op.ttl_usec = USEC_PER_MSEC;
        assert_int_equal(run(&f->store, o), 0);
        while (run(&f->store, operation_new(STATE_GET, STRING("short"))) == 0)
                ;
        assert_int_equal(run(&f->store, operation_new(STATE_GET, STRING("short"))), -ENOENT);
}

/* Of two who set a key that is not there one does. */
static void test_if_absent(void **state) {
        Fixture *f = *state;
        Operation *o = new_set(STRING("k"), STRING("first"));

        o->op.if_absent = true;
        o->op.ttl_usec = 60 * USEC_PER_SEC;
        assert_int_equal(run(&f->store, o), 0);
        assert_true(server_ask_number(&f->server, "PTTL k") > 0);
        o = new_set(STRING("k"), STRING("second"));
        o->op.if_absent = true;
        assert_int_equal(run(&f->store, o), -EEXIST);
        assert_value(&f->store, STRING("k"), STRING("first"));
}

/* A version is that of a value: a write with an older one is refused, also when the server has forgotten all
 * scripts. */
static void test_if_version(void **state) {
        Fixture *f = *state;
        StateStore *s = &f->store;
        uint64_t first, second;

        assert_int_equal(set_if(s, STRING("k"), "v", 1, 0), -ESTALE);
        assert_int_equal(set(s, STRING("k"), STRING("first")), 0);
        first = version_of(s, "k");
        assert_int_equal(first, s->driver->version(s->handle, BYTES("first")));
        assert_int_equal(set_if(s, STRING("k"), "second", first, 0), 0);
        server_tell(&f->server, "SCRIPT FLUSH");
        assert_int_equal(set_if(s, STRING("k"), "third", first, 0), -ESTALE);
        second = version_of(s, "k");
        assert_int_not_equal(first, second);
        assert_int_equal(set_if(s, STRING("k"), "third", second, 60 * USEC_PER_SEC), 0);
        assert_true(server_ask_number(&f->server, "PTTL k") > 0);
        assert_value(s, STRING("k"), STRING("third"));

        assert_int_equal(delete (s, STRING("k"), second), -ESTALE);
        assert_int_equal(delete (s, STRING("k"), version_of(s, "k")), 0);
        assert_int_equal(delete (s, STRING("k"), second), -ESTALE);
        server_tell(&f->server, "LPUSH list x");
        assert_int_equal(set_if(s, STRING("list"), "v", 1, 0), -EDOM);
        assert_int_equal(delete (s, STRING("list"), 1), -EDOM);
}

/* Sums are exact in all 64 bits, also of keys that have a time. */
static void test_add(void **state) {
        Fixture *f = *state;
        StateStore *s = &f->store;
        int64_t n;

        assert_int_equal(add(s, "n", 5, 0, &n), 0);
        assert_int_equal(n, 5);
        assert_int_equal(add(s, "n", -7, 0, &n), 0);
        assert_int_equal(n, -2);
        assert_int_equal(server_ask_number(&f->server, "PTTL n"), -1);
        assert_int_equal(add(s, "n", 1, 60 * USEC_PER_SEC, &n), 0);
        assert_int_equal(n, -1);
        assert_int_equal(server_ask_number(&f->server, "PTTL n"), -1);

        assert_int_equal(add(s, "t", INT64_C(9007199254740993), 60 * USEC_PER_SEC, &n), 0);
        assert_true(n == INT64_C(9007199254740993));
        server_tell(&f->server, "PEXPIRE t 30000");
        assert_int_equal(add(s, "t", 2, 60 * USEC_PER_SEC, &n), 0);
        assert_true(n == INT64_C(9007199254740995));
        assert_true(server_ask_number(&f->server, "PTTL t") <= 30000);
        assert_int_equal(add(s, "t", 1, 0, &n), 0);
        assert_true(n == INT64_C(9007199254740996));
        assert_true(server_ask_number(&f->server, "PTTL t") > 0);

        assert_int_equal(add(s, "min", INT64_MIN, 0, &n), 0);
        assert_true(n == INT64_MIN);
        assert_int_equal(add(s, "min", -1, 0, &n), -ERANGE);
        assert_int_equal(add(s, "min", -1, USEC_PER_SEC, &n), -ERANGE);
        assert_int_equal(set(s, STRING("text"), STRING("12x")), 0);
        assert_int_equal(add(s, "text", 1, 0, &n), -EDOM);
        assert_int_equal(add(s, "text", 1, USEC_PER_SEC, &n), -EDOM);
        server_tell(&f->server, "LPUSH list x");
        assert_int_equal(add(s, "list", 1, 0, &n), -EDOM);
        assert_int_equal(add(s, "list", 1, USEC_PER_SEC, &n), -EDOM);
        assert_int_equal(run(s, operation_new(STATE_GET, STRING("list"))), -EDOM);
        assert_int_equal(s->n_complaints, 0);
}

/* All keys with the prefix, over all pages: how many there were; @pages: of how many. */
static size_t scan_all(StateStore *s, const void *prefix, size_t size, unsigned limit, unsigned *pages) {
        char cursor[64];
        size_t cursor_size = 0, n = 0;

        *pages = 0;
        do {
                Operation *o = operation_new(STATE_SCAN, prefix, size);

                o->op.limit = limit;
                o->op.cursor = (StateBytes){ .data = cursor, .size = cursor_size };
                operation_run(s, o);
                assert_int_equal(o->error, 0);
                for (size_t i = 0; i < o->n_keys; i++) {
                        assert_true(o->key_sizes[i] >= size);
                        if (size > 0)
                                assert_memory_equal(o->keys[i], prefix, size);
                }
                n += o->n_keys;
                memcpy(cursor, o->cursor, sizeof(cursor));
                cursor_size = o->cursor_size;
                ++*pages;
                operation_free(o);
        } while (cursor_size > 0);
        return n;
}

static int acquire(StateStore *s, const char *name, uint8_t owner, uint64_t ttl_usec, Operation **ret) {
        Operation *o = operation_new(STATE_ACQUIRE, name, strlen(name));

        memset(o->op.owner, owner, sizeof(o->op.owner));
        o->op.ttl_usec = ttl_usec;
        *ret = operation_run(s, o);
        return o->error;
}

/* Pages hold what begins with the prefix, whatever bytes that is of, and no lease. */
static void test_scan(void **state) {
        Fixture *f = *state;
        static const char odd[] = "*[a-c]?\\^\0{";
        Operation *o;
        unsigned pages;

        for (int i = 0; i < 1000; i++) {
                char key[32];
                int n = snprintf(key, sizeof(key), "many:%d", i);

                assert_int_equal(set(&f->store, key, (size_t) n, STRING("v")), 0);
        }
        assert_int_equal(set(&f->store, odd, sizeof(odd), STRING("v")), 0);
        assert_int_equal(set(&f->store, STRING("xa"), STRING("v")), 0);
        server_tell(&f->server, "SET %b v", "", (size_t) 0);
        assert_int_equal(acquire(&f->store, "job", 1, USEC_PER_SEC * 60, &o), 0);
        operation_free(o);

        /* A key may be told of twice only while the server's table grows, which it has done. */
        assert_int_equal(scan_all(&f->store, STRING("many:"), 10, &pages), 1000);
        assert_true(pages > 10);
        assert_int_equal(scan_all(&f->store, odd, sizeof(odd) - 1, 100, &pages), 1);
        assert_int_equal(scan_all(&f->store, STRING("*"), 1000, &pages), 1);
        assert_int_equal(scan_all(&f->store, STRING("[xm]"), 1000, &pages), 0);
        assert_int_equal(scan_all(&f->store, NULL, 0, 1000, &pages), 1002);

        o = operation_new(STATE_SCAN, STRING("x"));
        o->op.limit = 1;
        o->op.cursor = BYTES("12x");
        assert_int_equal(f->store.driver->send(f->store.handle, &o->op), -EINVAL);
        operation_free(o);
}

static void publish(StateStore *s, const char *channel, const void *data, size_t size) {
        Operation *o = operation_new(STATE_PUBLISH, channel, strlen(channel));

        o->op.value = (StateBytes){ .data = data, .size = size };
        assert_int_equal(run(s, o), 0);
}

/* Messages come from the time on that is told, of channels that are wanted. */
static void test_messages(void **state) {
        Fixture *f = *state;
        StateStore *s = &f->store;
        char *large = calloc(1, MUSTER_STATE_MESSAGE_MAX + 1);

        publish(s, "c", STRING("before"));
        assert_int_equal(s->driver->subscribe(s->handle, BYTES("c")), 0);
        run_until(s, s->n_subscribed == 1);
        assert_int_equal(s->channel_size, 1);
        publish(s, "c", STRING("\0one\n"));
        run_until(s, s->n_messages == 1);
        assert_int_equal(s->message_size, 5);
        assert_memory_equal(s->message, "\0one\n", 5);

        assert_int_equal(s->driver->subscribe(s->handle, BYTES("d\0*")), 0);
        run_until(s, s->n_subscribed == 2);
        assert_int_equal(s->channel_size, 3);
        assert_int_equal(s->driver->unsubscribe(s->handle, BYTES("c")), 0);
        assert_int_equal(s->driver->subscribe(s->handle, BYTES("e")), 0);
        run_until(s, s->n_subscribed == 3);
        publish(s, "c", STRING("unwanted"));
        server_tell(&f->server, "PUBLISH e %b", large, (size_t) MUSTER_STATE_MESSAGE_MAX + 1);
        publish(s, "e", large, MUSTER_STATE_MESSAGE_MAX);
        run_until(s, s->n_messages == 2);
        assert_int_equal(s->message_size, MUSTER_STATE_MESSAGE_MAX);
        assert_int_equal(s->n_complaints, 1);
        assert_memory_equal(s->channel, "e", 1);
        free(large);
}

/* The answer to a subscription that has ended meanwhile is not taken for that to a later one. */
static void test_subscribe_anew(void **state) {
        Fixture *f = *state;
        StateStore *s = &f->store;

        assert_int_equal(s->driver->subscribe(s->handle, BYTES("c")), 0);
        assert_int_equal(s->driver->unsubscribe(s->handle, BYTES("c")), 0);
        assert_int_equal(s->driver->subscribe(s->handle, BYTES("between")), 0);
        assert_int_equal(s->driver->subscribe(s->handle, BYTES("c")), 0);
        run_until(s, s->n_subscribed >= 2);
        assert_int_equal(s->channel_size, 1); /* the latest */
        publish(s, "c", STRING("one"));
        run_until(s, s->n_messages == 1);
        assert_int_equal(s->n_subscribed, 2);
}

/* Who ends it all gives up what is subscribed to as well, and gets it back when it asks again. */
static void test_messages_again(void **state) {
        Fixture *f = *state;
        StateStore *s = &f->store;

        assert_int_equal(s->driver->subscribe(s->handle, BYTES("c")), 0);
        run_until(s, s->n_subscribed == 1);
        server_tell(&f->server, "CLIENT KILL TYPE pubsub");
        run_until(s, s->n_lost == 1);
        assert_int_equal(s->lost_error, -ENOTCONN);
        store_connected(s, NULL);
        assert_int_equal(s->driver->subscribe(s->handle, BYTES("c")), 0);
        run_until(s, s->n_subscribed == 2);
        publish(s, "c", STRING("again"));
        run_until(s, s->n_messages == 1);
        assert_string_equal(s->message, "again");
}

static int held(StateStore *s, StateVerb verb, const char *name, uint8_t owner, uint64_t fence,
                uint64_t ttl_usec) {
        Operation *o = operation_new(verb, name, strlen(name));

        memset(o->op.owner, owner, sizeof(o->op.owner));
        o->op.fence = fence;
        o->op.ttl_usec = ttl_usec;
        return run(s, o);
}

/* One owner at a time, and each later one has a higher number, whatever the server has forgotten. */
static void test_leases(void **state) {
        Fixture *f = *state;
        StateStore *s = &f->store;
        const uint64_t ttl = 60 * USEC_PER_SEC;
        uint64_t fence;
        Operation *o;

        assert_int_equal(acquire(s, "job", 1, ttl, &o), 0);
        fence = o->fence;
        assert_true(fence > 0);
        operation_free(o);
        assert_int_equal(acquire(s, "job", 2, ttl, &o), -EEXIST);
        assert_true(o->remaining_usec > 0 && o->remaining_usec <= ttl);
        operation_free(o);
        assert_int_equal(acquire(s, "job", 1, ttl, &o), 0);
        assert_int_equal(o->fence, fence);
        operation_free(o);

        assert_int_equal(held(s, STATE_RENEW, "job", 1, fence, 2 * ttl), 0);
        assert_true(server_ask_number(&f->server, "PTTL muster:lease:job") > 60000);
        assert_int_equal(held(s, STATE_RENEW, "job", 2, fence, ttl), -ESTALE);
        assert_int_equal(held(s, STATE_RENEW, "job", 1, fence + 1, ttl), -ESTALE);
        assert_int_equal(held(s, STATE_RELEASE, "job", 2, fence, 0), -ESTALE);
        assert_int_equal(held(s, STATE_RELEASE, "job", 1, fence, 0), 0);
        assert_int_equal(held(s, STATE_RELEASE, "job", 1, fence, 0), -ESTALE);
        assert_int_equal(held(s, STATE_RENEW, "job", 1, fence, ttl), -ESTALE);

        assert_int_equal(acquire(s, "job", 2, ttl, &o), 0);
        assert_true(o->fence > fence);
        fence = o->fence;
        operation_free(o);
        server_tell(&f->server, "FLUSHALL");
        assert_int_equal(acquire(s, "job", 1, 100 * USEC_PER_MSEC, &o), 0);
        assert_true(o->fence > fence);
        fence = o->fence;
        operation_free(o);

        /* The clock of the server is no reason to go down. */
        server_tell(&f->server, "SET muster:fence:job 9000000000000000");
        server_tell(&f->server, "DEL muster:lease:job");
        assert_int_equal(acquire(s, "job", 3, 100 * USEC_PER_MSEC, &o), 0);
        assert_true(o->fence == UINT64_C(9000000000000001));
        operation_free(o);

        /* It ends by itself. */
        do {
                int r = acquire(s, "job", 4, ttl, &o);

                assert_true(r == 0 || (r == -EEXIST && o->remaining_usec <= 100 * USEC_PER_MSEC));
                fence = o->fence;
                operation_free(o);
        } while (fence == 0);
        assert_true(fence == UINT64_C(9000000000000002));
        server_tell(&f->server, "SET muster:fence:other nan");
        assert_int_equal(acquire(s, "other", 1, ttl, &o), -EIO);
        operation_free(o);
}

static long long server_reads(const Server *s) {
        redisReply *reply = server_ask(s, "INFO stats");
        char *p = strstr(reply->str, "total_reads_processed:");
        long long n = p ? strtoll(strchr(p, ':') + 1, NULL, 10) : -1;

        freeReplyObject(reply);
        return n;
}

/* What is sent in one turn is answered in order, and does not take a write each. */
static void test_pipeline(void **state) {
        Fixture *f = *state;
        Operation **o = calloc(MANY, sizeof(Operation *));
        long long reads = server_reads(&f->server);

        for (unsigned i = 0; i < MANY; i++) {
                o[i] = operation_new(STATE_ADD, STRING("n"));
                o[i]->op.difference = 1;
                operation_send(&f->store, o[i]);
        }
        run_until(&f->store, o[MANY - 1]->has_ended);
        for (unsigned i = 0; i < MANY; i++) {
                assert_int_equal(o[i]->error, 0);
                assert_int_equal(o[i]->number, i + 1);
                assert_int_equal(o[i]->order, i);
                operation_free(o[i]);
        }
        if (reads >= 0)
                assert_true(server_reads(&f->server) - reads < MANY / 10);
        free(o);
}

static void send_next(StateStore *s, Operation *o) {
        if (o->number < 100) {
                Operation *next = operation_new(STATE_ADD, STRING("chain"));

                next->op.difference = 1;
                operation_send(s, next);
        }
        operation_free(o);
}

/* The end of one operation may send the next. */
static void test_send_from_within(void **state) {
        Fixture *f = *state;
        Operation *o = operation_new(STATE_ADD, STRING("chain"));

        f->store.when_finished = send_next;
        o->op.difference = 1;
        operation_send(&f->store, o);
        run_until(&f->store, f->store.n_finished == 100);
        assert_int_equal(server_ask_number(&f->server, "INCRBY chain 0"), 100);
}

static unsigned loose_descriptors(unsigned *ret_all) {
        unsigned loose = 0;

        *ret_all = 0;
        for (int fd = 3; fd < 256; fd++) {
                int flags = fcntl(fd, F_GETFD);

                if (flags < 0)
                        continue;
                ++*ret_all;
                loose += !(flags & FD_CLOEXEC);
        }
        return loose;
}

/* No program that is executed gets a connection, and none is left open. */
static void test_descriptors(void **state) {
        Fixture *f = *state;
        StateStore *s = &f->store;
        unsigned loose, before, with;

        s->driver->disconnect(s->handle);
        loose = loose_descriptors(&before);
        store_connected(s, NULL);
        assert_int_equal(s->driver->subscribe(s->handle, BYTES("c")), 0);
        run_until(s, s->n_subscribed == 1);
        assert_int_equal(loose_descriptors(&with), loose);
        assert_int_equal(with, before + 2);
        s->driver->disconnect(s->handle);
        assert_int_equal(loose_descriptors(&with), loose);
        assert_int_equal(with, before);
}

/* Nothing is done, and nothing wakes, while nothing is asked. */
static void test_idle(void **state) {
        Fixture *f = *state;

        assert_int_equal(f->store.driver->subscribe(f->store.handle, BYTES("c")), 0);
        run_until(&f->store, f->store.n_subscribed == 1);
        assert_int_equal(run(&f->store, operation_new(STATE_GET, STRING("none"))), -ENOENT);
        /* What is left of the turn. */
        while (sd_event_run(f->store.event, 0) > 0)
                ;
        assert_int_equal(sd_event_run(f->store.event, 300 * USEC_PER_MSEC), 0);
}

/* All of it without the loop. */
static void test_wait(void **state) {
        Fixture *f = *state;
        StateStore *s = &f->store;
        Operation *o = operation_new(STATE_ADD, STRING("n"));
        uint64_t until = store_deadline();

        s->driver->disconnect(s->handle);
        assert_int_equal(s->driver->wait(s->handle, 0), -ENOTCONN);
        store_connect(s, NULL);
        while (s->n_connected < 2)
                assert_int_equal(s->driver->wait(s->handle, until - clock_now_usec()), 0);
        o->op.difference = 3;
        operation_send(s, o);
        assert_int_equal(s->driver->subscribe(s->handle, BYTES("c")), 0);
        while (!o->has_ended || s->n_subscribed == 0)
                assert_int_equal(s->driver->wait(s->handle, until - clock_now_usec()), 0);
        assert_int_equal(o->number, 3);
        operation_free(o);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_values, setup, teardown),
                cmocka_unit_test_setup_teardown(test_large, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ttl, setup, teardown),
                cmocka_unit_test_setup_teardown(test_if_absent, setup, teardown),
                cmocka_unit_test_setup_teardown(test_if_version, setup, teardown),
                cmocka_unit_test_setup_teardown(test_add, setup, teardown),
                cmocka_unit_test_setup_teardown(test_scan, setup, teardown),
                cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
                cmocka_unit_test_setup_teardown(test_subscribe_anew, setup, teardown),
                cmocka_unit_test_setup_teardown(test_messages_again, setup, teardown),
                cmocka_unit_test_setup_teardown(test_leases, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pipeline, setup, teardown),
                cmocka_unit_test_setup_teardown(test_send_from_within, setup, teardown),
                cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
                cmocka_unit_test_setup_teardown(test_idle, setup, teardown),
                cmocka_unit_test_setup_teardown(test_wait, setup, teardown),
        };

        server_require();
        return cmocka_run_group_tests(tests, setup_server, teardown_server);
}

/* SPDX-License-Identifier: MIT */
/* The core of a handle, with a driver that is told what to do: handlers that end what is being gone through,
 * and time-outs. */

#include "../unit.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/clock.h"
#include "fake-driver.h"
#include "muster/state.h"
#include "state/store.h"

/* So long may this process stand still without that a test fails. */
#define TIMEOUT_USEC (2 * USEC_PER_SEC)

/* Longer than anything takes here, also on a busy machine. */
#define PATIENCE_USEC (20 * USEC_PER_SEC)

typedef struct Fixture {
        sd_event *event;
        muster_state *store;
        Fake *fake;
        unsigned n_calls;
        int errors[16];
        muster_lease *lease;
        muster_subscription *subscription;
        uint64_t at_usec[16];
} Fixture;

static Fake *find_fake(void) {
        char path[4096];
        void *handle;
        Fake *fake;

        snprintf(path, sizeof(path), "%s/state-redis.so", getenv("MUSTER_PLUGINDIR"));
        handle = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
        assert_non_null(handle);
        fake = dlsym(handle, FAKE_SYMBOL);
        assert_non_null(fake);
        dlclose(handle);
        return fake;
}

static void run_until_connected(Fixture *f) {
        while (!muster_state_is_connected(f->store))
                assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
}

static int setup(void **state) {
        const muster_state_options options = { .size = sizeof(options), .timeout_usec = TIMEOUT_USEC };
        Fixture *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        assert_int_equal(sd_event_new(&f->event), 0);
        assert_int_equal(muster_state_open(f->event, "redis://", &options, &f->store), 0);
        f->fake = find_fake();
        run_until_connected(f);
        *state = f;
        return 0;
}

static int teardown(void **state) {
        Fixture *f = *state;

        f->fake->keeps_silent = f->fake->refuses = f->fake->ignores_subscriptions = false;
        muster_state_close(f->store);
        /* One that was closed by a handler is freed by its turn. */
        while (sd_event_run(f->event, 0) > 0)
                ;
        sd_event_unref(f->event);
        free(f);
        return 0;
}

static void lose(Fixture *f) {
        list_init(&f->fake->operations);
        f->fake->host->lost(f->fake->store, -ENOTCONN, "It has gone.");
}

static void record(Fixture *f, int error) {
        assert_true(f->n_calls < ELEMENTSOF(f->errors));
        f->at_usec[f->n_calls] = clock_now_usec();
        f->errors[f->n_calls++] = error;
}

static void on_end(muster_state *s, const muster_state_result *result, void *userdata) {
        record(userdata, result->error);
}

static void on_end_close(muster_state *s, const muster_state_result *result, void *userdata) {
        Fixture *f = userdata;

        record(f, result->error);
        f->store = muster_state_close(f->store);
}

/* When the connection is lost, a handler that is told so closes the handle: all others have been called when
 * that returns, with -ECANCELED, and what they are called with may be freed. */
static void test_close_when_lost(void **state) {
        Fixture *f = *state;

        assert_int_equal(muster_state_set(f->store, "a", -1, "", 0, NULL, on_end_close, f), 0);
        assert_int_equal(muster_state_set(f->store, "b", -1, "", 0, NULL, on_end, f), 0);
        assert_int_equal(muster_state_get(f->store, "c", -1, on_end, f), 0);
        lose(f);
        assert_null(f->store);
        assert_int_equal(f->n_calls, 3);
        assert_int_equal(f->errors[0], -ECONNABORTED);
        assert_int_equal(f->errors[1], -ECANCELED);
        assert_int_equal(f->errors[2], -ECANCELED);
}

/* The same, with a lease that is being asked for, which is freed with the handle. */
static void test_close_when_lost_with_lease(void **state) {
        Fixture *f = *state;

        assert_int_equal(muster_state_set(f->store, "a", -1, "", 0, NULL, on_end_close, f), 0);
        assert_int_equal(muster_state_lease(f->store, "l", -1, 1000000, NULL, NULL, &f->lease), 0);
        while (f->fake->n_operations < 2)
                assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
        lose(f);
        assert_null(f->store);
        assert_int_equal(f->n_calls, 1);
}

/* Until the next attempt, by the loop's clock, which stands still meanwhile. */
static uint64_t pause_usec(Fixture *f) {
        uint64_t now, at;

        assert_true(sd_event_now(f->event, CLOCK_MONOTONIC, &now) >= 0);
        assert_true(sd_event_source_get_time(f->store->attempt, &at) >= 0);
        return at - now;
}

/* A connection that is lost soon after it is made is tried again with growing pauses, as one that is not
 * made; one that has lasted is tried again soon. */
static void test_pauses(void **state) {
        Fixture *f = *state;
        uint64_t usec = 100 * USEC_PER_MSEC;

        for (int i = 0; i < 3; i++, usec *= 2) {
                lose(f);
                assert_in_range(pause_usec(f), usec, usec * 5 / 4);
                run_until_connected(f);
        }
        f->store->connected_usec -= 5 * USEC_PER_SEC;
        lose(f);
        assert_in_range(pause_usec(f), 100 * USEC_PER_MSEC, 125 * USEC_PER_MSEC);
}

static void on_end_again(muster_state *s, const muster_state_result *result, void *userdata) {
        on_end(s, result, userdata);
        assert_int_equal(muster_state_get(s, "again", -1, NULL, NULL), 0);
}

/* What a handler asks for when its own time is over does not put off the end of what was asked for before.
 */
static void test_time_outs_one_by_one(void **state) {
        Fixture *f = *state;
        uint64_t begin = clock_now_usec();

        f->fake->keeps_silent = true;
        lose(f);
        assert_int_equal(muster_state_get(f->store, "a", -1, on_end_again, f), 0);
        assert_true(sd_event_run(f->event, 50 * USEC_PER_MSEC) >= 0);
        assert_int_equal(muster_state_get(f->store, "b", -1, on_end, f), 0);
        while (f->n_calls < 2)
                assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
        assert_int_equal(f->errors[0], -ENOTCONN);
        assert_int_equal(f->errors[1], -ENOTCONN);
        assert_true(f->at_usec[0] - begin >= TIMEOUT_USEC);
        /* The deadline of what was asked for again is one time-out later. */
        assert_true(f->at_usec[1] - f->at_usec[0] < TIMEOUT_USEC);
}

static void on_message_again(muster_subscription *n, const void *data, size_t size, void *userdata) {
        Fixture *f = userdata;

        record(f, data ? 1 : 0);
        assert_ptr_equal(n, f->subscription);
        muster_subscription_free(n);
        assert_int_equal(
                        muster_state_subscribe(f->store, "c", -1, on_message_again, f, &f->subscription), 0);
}

/* A handler subscribes anew, in place of its own: it gets the next message, not this one again. */
static void test_subscribe_in_handler(void **state) {
        const StateBytes channel = { "c", 1 }, data = { "m", 1 };
        Fixture *f = *state;

        assert_int_equal(
                        muster_state_subscribe(f->store, "c", -1, on_message_again, f, &f->subscription), 0);
        for (unsigned i = 1; i < 4; i++) {
                f->fake->host->message(f->fake->store, channel, data);
                assert_int_equal(f->n_calls, i);
                assert_int_equal(f->errors[i - 1], 0);
        }
        assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
        assert_int_equal(f->n_calls, 4);
}

static void run_for(Fixture *f, uint64_t usec) {
        uint64_t until = clock_now_usec() + usec, now;

        while ((now = clock_now_usec()) < until)
                assert_true(sd_event_run(f->event, until - now) >= 0);
}

static void on_message(muster_subscription *n, const void *data, size_t size, void *userdata) {
        record(userdata, data ? 1 : 0);
}

/* A subscription that is answered by nothing within the time-out ends the connection, as who only listens
 * would never know; a refusal is an answer. */
static void test_subscription_times_out(void **state) {
        muster_subscription *refused, *first, *second;
        Fixture *f = *state;
        uint64_t begin;

        f->fake->ignores_subscriptions = true;
        assert_int_equal(muster_state_subscribe(f->store, "refused", -1, on_message, f, &refused), 0);
        f->fake->host->refused(f->fake->store, (StateBytes){ "refused", 7 });
        run_for(f, TIMEOUT_USEC / 4);
        begin = clock_now_usec();
        assert_int_equal(muster_state_subscribe(f->store, "c", -1, on_message, f, &first), 0);
        assert_int_equal(muster_state_subscribe(f->store, "c", -1, on_message, f, &second), 0);
        muster_subscription_free(first);
        while (muster_state_is_connected(f->store))
                assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
        assert_true(clock_now_usec() - begin >= TIMEOUT_USEC);
        assert_int_equal(f->n_calls, 0);

        f->fake->ignores_subscriptions = false;
        while (f->n_calls < 2)
                assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
        assert_true(muster_state_is_connected(f->store));
}

static void on_change_subscribe(muster_state *s, int error, const char *text, void *userdata) {
        Fixture *f = userdata;
        muster_subscription *n;

        if (error < 0)
                return;
        assert_int_equal(muster_state_subscribe(s, "c", -1, on_message, f, &n), 0);
        assert_int_equal(muster_state_subscribe(s, "d", -1, on_message, f, &n), 0);
}

/* The driver is asked once for each channel, also when the handler that hears of the connection subscribes:
 * to one that is subscribed to already, and to another. */
static void test_subscribe_when_connected(void **state) {
        Fixture *f = *state;
        const muster_state_options options = { .size = sizeof(options),
                .timeout_usec = TIMEOUT_USEC,
                .changed = on_change_subscribe,
                .userdata = f };

        f->store = muster_state_close(f->store);
        assert_int_equal(muster_state_open(f->event, "redis://", &options, &f->store), 0);
        assert_int_equal(muster_state_subscribe(f->store, "c", -1, on_message, f, &f->subscription), 0);
        run_until_connected(f);
        assert_int_equal(f->fake->n_subscribed, 2);
        while (f->n_calls < 3)
                assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
}

static StateOperation *latest(Fixture *f) {
        return list_entry(f->fake->operations.prev, StateOperation, driver_node);
}

static void finish(Fixture *f, StateOperation *op, const StateOutcome *outcome) {
        list_remove(&op->driver_node);
        f->fake->n_operations--;
        f->fake->host->finish(f->fake->store, op, outcome);
}

/* A lease is given back that is released while it is being renewed, and whose handle is closed before the
 * answer. */
static void test_release_while_renewing(void **state) {
        Fixture *f = *state;
        unsigned n;

        assert_int_equal(muster_state_lease(f->store, "l", -1, 3 * USEC_PER_SEC, NULL, NULL, &f->lease), 0);
        while (f->fake->n_operations < 1)
                assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
        finish(f, latest(f), &(const StateOutcome){ .fence = 7 });
        assert_true(muster_lease_is_held(f->lease));
        while (f->fake->n_operations < 1)
                assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
        assert_int_equal(f->fake->latest.verb, STATE_RENEW);
        n = f->fake->n_operations;
        muster_lease_release(f->lease);
        f->store = muster_state_close(f->store);
        assert_int_equal(n, 1);
        assert_int_equal(f->fake->latest.verb, STATE_RELEASE);
        assert_int_equal(f->fake->latest.fence, 7);
}

static void run_until_asked(Fixture *f) {
        while (f->fake->n_operations < 1)
                assert_int_not_equal(sd_event_run(f->event, PATIENCE_USEC), 0);
}

/* That a lease was given back may be told before the answer that somebody has it, which was true before: it
 * is asked for again at once. */
static void test_return_before_refusal(void **state) {
        const StateBytes channel = { "muster:lease:l", 14 }, data = { "", 0 };
        const StateOutcome refusal = { .error = -EEXIST, .remaining_usec = 3600 * USEC_PER_SEC };
        Fixture *f = *state;

        assert_int_equal(muster_state_lease(f->store, "l", -1, 3600 * USEC_PER_SEC, NULL, NULL, &f->lease),
                        0);
        run_until_asked(f);
        f->fake->host->message(f->fake->store, channel, data);
        finish(f, latest(f), &refusal);
        run_until_asked(f);
        finish(f, latest(f), &(const StateOutcome){ .fence = 7 });
        assert_true(muster_lease_is_held(f->lease));
}

static void on_change_ask(muster_state *s, int error, const char *text, void *userdata) {
        Fixture *f = userdata;

        if (f->lease)
                return;
        assert_int_equal(muster_state_lease(s, "l", -1, USEC_PER_SEC, NULL, NULL, &f->lease), 0);
        assert_int_equal(muster_state_get(s, "key", -1, on_end, f), 0);
}

static void on_change_close(muster_state *s, int error, const char *text, void *userdata) {
        muster_state_close(s);
}

/* What was asked for while a store is opened, which then fails, ends with that. */
static void test_ask_when_open_fails(void **state) {
        Fixture *f = *state;
        const muster_state_options options = { .size = sizeof(options),
                .timeout_usec = TIMEOUT_USEC,
                .required = true,
                .changed = on_change_ask,
                .userdata = f };
        muster_state *store = NULL;

        f->store = muster_state_close(f->store);
        f->fake->refuses = true;
        assert_int_equal(muster_state_open(f->event, "redis://", &options, &store), -ENOTCONN);
        assert_null(store);
        assert_int_equal(f->n_calls, 1);
        assert_int_equal(f->errors[0], -ECANCELED);
        assert_int_equal(sd_event_run(f->event, 0), 0);
}

/* The handler of changes closes what is being opened. */
static void test_close_while_opened(void **state) {
        Fixture *f = *state;
        muster_state_options options = { .size = sizeof(options),
                .timeout_usec = TIMEOUT_USEC,
                .required = true,
                .changed = on_change_close };
        muster_state *store = NULL;

        f->store = muster_state_close(f->store);
        assert_int_equal(muster_state_open(f->event, "redis://", &options, &store), -ECANCELED);
        assert_null(store);
        assert_int_equal(muster_state_open(f->event, "redis:", &options, &store), -EINVAL);
        assert_null(store);
        assert_int_equal(sd_event_run(f->event, 0), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_close_when_lost, setup, teardown),
                cmocka_unit_test_setup_teardown(test_close_when_lost_with_lease, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pauses, setup, teardown),
                cmocka_unit_test_setup_teardown(test_time_outs_one_by_one, setup, teardown),
                cmocka_unit_test_setup_teardown(test_subscribe_in_handler, setup, teardown),
                cmocka_unit_test_setup_teardown(test_subscription_times_out, setup, teardown),
                cmocka_unit_test_setup_teardown(test_subscribe_when_connected, setup, teardown),
                cmocka_unit_test_setup_teardown(test_release_while_renewing, setup, teardown),
                cmocka_unit_test_setup_teardown(test_return_before_refusal, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ask_when_open_fails, setup, teardown),
                cmocka_unit_test_setup_teardown(test_close_while_opened, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

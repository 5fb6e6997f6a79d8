/* SPDX-License-Identifier: MIT */
/* The pool of threads, with gates instead of time: what waits, waits until the test says so. */

#include "../unit.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "basic/macro.h"
#include "worker/offload.h"

static sem_t gate, began;
static _Atomic unsigned n_worked, n_not_locked;
static unsigned n_done, order[2000];

/* The pool's calls come here, as this is linked before the C library. */
int pthread_mutex_lock(pthread_mutex_t *lock) {
        int (*real)(pthread_mutex_t *) = dlsym(RTLD_NEXT, "pthread_mutex_lock");
        int r = real(lock);

        n_not_locked += r != 0;
        return r;
}

static int set_up(void **state) {
        sem_init(&gate, 0, 0);
        sem_init(&began, 0, 0);
        n_worked = n_not_locked = 0;
        n_done = 0;
        return 0;
}

static void wait_at_gate(void *userdata) {
        sem_post(&began);
        sem_wait(&gate);
        n_worked++;
}

static void work(void *userdata) {
        n_worked++;
}

static void done(void *userdata) {
        order[n_done++] = (unsigned) (uintptr_t) userdata;
}

static void dispatch_until(Offload *o, unsigned n) {
        struct pollfd p = { .fd = o->fd, .events = POLLIN };

        while (n_done < n) {
                assert_int_equal(poll(&p, 1, 20000), 1);
                offload_dispatch(o);
        }
}

/* What is done is told in this thread, once each, and in the order of the calls if there is one thread. */
static void test_order(void **state) {
        Offload o;

        assert_int_equal(offload_init(&o, 1, 2000, NULL), 0);
        assert_int_equal(o.n_threads, 0);
        for (uintptr_t i = 0; i < 1000; i++)
                assert_int_equal(offload_submit(&o, work, done, (void *) i), 0);
        dispatch_until(&o, 1000);
        for (unsigned i = 0; i < 1000; i++)
                assert_int_equal(order[i], i);
        assert_int_equal(o.n_threads, 1);
        offload_done(&o);
        assert_int_equal(n_done, 1000);
}

/* A thread is started for work that would have to wait, and no more of them than may be. */
static void test_threads(void **state) {
        Offload o;

        assert_int_equal(offload_init(&o, 3, 10, NULL), 0);
        for (unsigned i = 0; i < 5; i++)
                assert_int_equal(offload_submit(&o, wait_at_gate, done, NULL), 0);
        for (unsigned i = 0; i < 3; i++)
                sem_wait(&began);
        assert_int_equal(o.n_threads, 3);
        for (unsigned i = 0; i < 5; i++)
                sem_post(&gate);
        dispatch_until(&o, 5);
        offload_done(&o);
}

/* More than may wait is refused, and there is room again when some of it has begun. */
static void test_limit(void **state) {
        Offload o;

        assert_int_equal(offload_init(&o, 1, 2, NULL), 0);
        assert_int_equal(offload_submit(&o, wait_at_gate, done, NULL), 0);
        sem_wait(&began);
        assert_int_equal(offload_submit(&o, wait_at_gate, done, NULL), 0);
        assert_int_equal(offload_submit(&o, wait_at_gate, NULL, NULL), 0);
        assert_int_equal(offload_submit(&o, wait_at_gate, done, NULL), -EAGAIN);
        sem_post(&gate);
        sem_wait(&began);
        assert_int_equal(offload_submit(&o, wait_at_gate, done, NULL), 0);
        for (unsigned i = 0; i < 3; i++)
                sem_post(&gate);
        offload_done(&o);
        assert_int_equal(n_worked, 4);
        assert_int_equal(n_done, 3);
}

static int refused;

static void done_and_more(void *offload) {
        n_done++;
        refused = offload_submit(offload, work, done, NULL);
}

/* The end does what was accepted, with its handlers, and takes nothing more. */
static void test_end(void **state) {
        Offload o;

        assert_int_equal(offload_init(&o, 2, 100, NULL), 0);
        for (unsigned i = 0; i < 50; i++)
                assert_int_equal(offload_submit(&o, work, done, NULL), 0);
        assert_int_equal(offload_submit(&o, work, done_and_more, &o), 0);
        offload_done(&o);
        assert_int_equal(n_worked, 51);
        assert_int_equal(n_done, 51);
        assert_int_equal(refused, -ESHUTDOWN);
        assert_true(o.fd < 0);
        offload_done(&o);
}

static _Atomic bool ended;

static void *submit_until_refused(void *offload) {
        bool late;

        do {
                late = ended;
                refused = offload_submit(offload, work, NULL, NULL);
                sem_post(&began);
        } while (!late);
        return NULL;
}

/* Threads that are not the pool's may go on asking, also when all is over. */
static void test_end_amid_calls(void **state) {
        pthread_t thread;
        Offload o;

        ended = false;
        assert_int_equal(offload_init(&o, 2, 100, NULL), 0);
        assert_int_equal(pthread_create(&thread, NULL, submit_until_refused, &o), 0);
        sem_wait(&began);
        offload_done(&o);
        ended = true;
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(refused, -ESHUTDOWN);
        assert_int_equal(n_not_locked, 0);
}

static void submit_more(void *offload) {
        n_worked++;
        assert_int_equal(offload_submit(offload, work, done, NULL), 0);
}

/* Work may bring more work. */
static void test_from_a_thread(void **state) {
        Offload o;

        assert_int_equal(offload_init(&o, 2, 100, NULL), 0);
        for (unsigned i = 0; i < 10; i++)
                assert_int_equal(offload_submit(&o, submit_more, done, &o), 0);
        dispatch_until(&o, 20);
        assert_int_equal(n_worked, 20);
        offload_done(&o);
}

static sigset_t mask;

static void look_at_mask(void *userdata) {
        (void) pthread_sigmask(SIG_SETMASK, NULL, &mask);
}

static void on_begin(void *userdata) {
        n_worked += 100;
}

/* Signals are the loop's, but for those of a fault. Every thread is told of its beginning. */
static void test_signals(void **state) {
        sigset_t here;
        Offload o;

        assert_int_equal(offload_init(&o, 1, 100, on_begin), 0);
        assert_int_equal(offload_submit(&o, look_at_mask, done, NULL), 0);
        dispatch_until(&o, 1);
        assert_true(sigismember(&mask, SIGTERM));
        assert_true(sigismember(&mask, SIGCHLD));
        assert_false(sigismember(&mask, SIGSEGV));
        assert_false(sigismember(&mask, SIGABRT));
        (void) pthread_sigmask(SIG_SETMASK, NULL, &here);
        assert_false(sigismember(&here, SIGTERM));
        assert_int_equal(n_worked, 100);
        offload_done(&o);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_order, set_up),
                cmocka_unit_test_setup(test_threads, set_up),
                cmocka_unit_test_setup(test_limit, set_up),
                cmocka_unit_test_setup(test_end, set_up),
                cmocka_unit_test_setup(test_end_amid_calls, set_up),
                cmocka_unit_test_setup(test_from_a_thread, set_up),
                cmocka_unit_test_setup(test_signals, set_up),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

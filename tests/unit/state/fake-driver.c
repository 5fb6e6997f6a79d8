/* SPDX-License-Identifier: MIT */
#include "fake-driver.h"

#include <errno.h>

__attribute__((visibility("default"))) Fake muster_fake;

static void let_go(Fake *f) {
        list_init(&f->operations);
        f->n_operations = 0;
}

static int fake_open(const StateHost *host, StateStore *store, sd_event *event, const StateUrl *url,
                void **ret, char error[static STATE_TEXT_MAX]) {
        muster_fake.host = host;
        muster_fake.store = store;
        muster_fake.n_subscribed = 0;
        let_go(&muster_fake);
        *ret = &muster_fake;
        return 0;
}

static void fake_disconnect(void *driver) {
        let_go(driver);
}

static int fake_connect(void *driver, const char *password) {
        Fake *f = driver;

        if (f->refuses)
                f->host->lost(f->store, -ENOTCONN, "It refuses.");
        else if (!f->keeps_silent)
                f->host->connected(f->store);
        return 0;
}

static int fake_send(void *driver, StateOperation *op) {
        Fake *f = driver;

        list_append(&f->operations, &op->driver_node);
        f->n_operations++;
        if (op->verb != STATE_PUBLISH)
                f->latest = *op;
        return 0;
}

static int fake_subscribe(void *driver, StateBytes channel) {
        Fake *f = driver;

        f->n_subscribed++;
        if (!f->ignores_subscriptions)
                f->host->subscribed(f->store, channel);
        return 0;
}

static int fake_unsubscribe(void *driver, StateBytes channel) {
        return 0;
}

static int fake_wait(void *driver, uint64_t timeout_usec) {
        return -EIO;
}

const StateDriver muster_state_driver = {
        .abi = STATE_DRIVER_ABI,
        .open = fake_open,
        .close = fake_disconnect,
        .connect = fake_connect,
        .disconnect = fake_disconnect,
        .send = fake_send,
        .subscribe = fake_subscribe,
        .unsubscribe = fake_unsubscribe,
        .wait = fake_wait,
};

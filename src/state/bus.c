/* SPDX-License-Identifier: MIT */
/* The way to other workers; see bus.h. */

#include "state/bus.h"

#include <errno.h>

#include "ipc/worker-bus.h"

#pragma weak muster_worker_bus_send
#pragma weak muster_worker_bus_listen

static struct {
        int (*send)(const char *line, size_t n, void *userdata);
        void *userdata;
        void (*handler)(const char *json, size_t n);
} bus;

int state_bus_send(const char *line, size_t n) {
        if (bus.send)
                return bus.send(line, n, bus.userdata);
        return muster_worker_bus_send ? muster_worker_bus_send(line, n) : -EOPNOTSUPP;
}

void state_bus_listen(void (*handler)(const char *json, size_t n)) {
        bus.handler = handler;
        if (muster_worker_bus_listen)
                muster_worker_bus_listen(handler);
}

void bus_attach(int (*send)(const char *line, size_t n, void *userdata), void *userdata) {
        bus.send = send;
        bus.userdata = userdata;
}

void bus_detach(const void *userdata) {
        if (bus.userdata != userdata)
                return;
        bus.send = NULL;
        bus.userdata = NULL;
}

void bus_deliver(const char *json, size_t n) {
        if (bus.handler)
                bus.handler(json, n);
}

/* SPDX-License-Identifier: MIT */
#pragma once

/* A driver that does what a test tells it: what no store does when it is asked to. It is loaded as that for
 * Redis, and is one for the process. */

#include <stdbool.h>

#include "state/driver.h"

typedef struct Fake {
        const StateHost *host;
        StateStore *store;
        List operations; /* that it was given, by driver_node */
        unsigned n_operations;
        unsigned n_subscribed; /* calls of subscribe() for this handle */
        StateOperation latest; /* that is no message: a copy, whose bytes are not valid */
        bool keeps_silent;     /* connect() does not end; these two are kept from one handle to the next */
        bool refuses;          /* connect() fails */
        bool ignores_subscriptions;
} Fake;

#define FAKE_SYMBOL "muster_fake"

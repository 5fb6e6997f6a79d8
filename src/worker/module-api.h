/* SPDX-License-Identifier: MIT */
#pragma once

/* The functions of muster/http.h, and the module's side of a request's life. */

#include "http/exchange.h"
#include "muster/http.h"

typedef struct ModuleTarget {
        const muster_http_module *descriptor; /* borrowed */
        void *state;
} ModuleTarget;

/* A Handler's request() with a ModuleTarget as its userdata. */
void module_api_request(void *userdata, Exchange *x);

/* Before the module is started: threads for muster_offload(), none of which exists yet. */
int module_api_init(unsigned n_threads);

/* Does the work that was accepted. No request is left. */
void module_api_done(void);

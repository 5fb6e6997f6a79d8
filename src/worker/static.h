/* SPDX-License-Identifier: MIT */
#pragma once

/* The handler of kind "static": the files of a folder, and /whoami. */

#include <stdbool.h>

#include "http/file.h"
#include "http/exchange.h"
#include "worker/options.h"

typedef struct StaticSite {
        FileRoot root;
        bool whoami;
        const Identity *identity; /* borrowed */
} StaticSite;

/* A Handler's request() with a StaticSite as its userdata. */
void static_request(void *userdata, Exchange *x);

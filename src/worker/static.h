/* SPDX-License-Identifier: MIT */
#pragma once

/* The handler of kind "static": the files of a folder, and /whoami. */

#include <stdbool.h>

#include "http/exchange.h"
#include "http/file-cache.h"
#include "http/file.h"
#include "worker/options.h"

typedef struct StaticSite {
        FileRoot root;
        FileCache cache;
        bool whoami;
        bool listing;
        const Identity *identity; /* borrowed, as are the strings of the options */
} StaticSite;

/* How many files are kept open at most. */
unsigned static_max_files(const Options *options);

/* Borrows @directory, which may be O_PATH. */
void static_site_init(StaticSite *site, int directory, const Options *options, const Identity *identity);
void static_site_done(StaticSite *site);

/* A Handler's request() with a StaticSite as its userdata. */
void static_request(void *userdata, Exchange *x);

/* … and its give_way(). */
bool static_give_way(void *userdata);

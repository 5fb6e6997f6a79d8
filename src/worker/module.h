/* SPDX-License-Identifier: MIT */
#pragma once

/* The shared object of kind "module": loaded, checked, started, and ended. */

#include <stdbool.h>
#include <stddef.h>

#include "board/board.h"
#include "http/exchange.h"
#include "worker/module-api.h"

/* Room for what is wrong with one. */
#define MODULE_ERROR_MAX 512

typedef struct Module {
        const char *path; /* borrowed */
        void *handle;
        bool started;
        ModuleTarget target;
} Module;

/* Loads and starts it; from here on fatal signals are told on the cell. Negative errno: it cannot be had,
 * for the reason in @ret_error, which names the file, what was found, and what was expected. */
int module_init(Module *m, const char *path, unsigned n_threads, BoardCell *cell,
                char ret_error[static MODULE_ERROR_MAX]);

/* The module's part in the end: no request is left. It stays loaded, for the threads of a library that it
 * brought along. */
void module_done(Module *m);

Handler module_handler(Module *m);

/* The worker has been told to go. @userdata: a Module. */
void module_retire(void *userdata);

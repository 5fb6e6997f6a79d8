/* SPDX-License-Identifier: MIT */
#pragma once

/* The master itself: slots and the workers in them, what to do when one comes or goes, reload and stop. */

#include "basic/macro.h"
#include "master/config.h"
#include "master/listener.h"

typedef struct Manager Manager;

/* To be called before anything that takes time: a signal that comes before the event loop is there then
 * waits for it. */
void manager_block_signals(void);

/* Takes the configuration and the sockets over on success. Starts nothing yet. @app
 * is borrowed. Returns 0 or a negative errno, logged; a worker that fails later is reported by
 * manager_run(). */
int manager_new(const char *app, Config *config, Listeners *listeners, Manager **ret);

/* Runs until the service ends. Returns the exit status: 0 after a stop, 1 when the app could not start. */
int manager_run(Manager *m);

/* The number of workers that a configuration or a scale may ask for. */
#define MANAGER_WORKERS_MAX 256U

/* Another number of workers, until the next reload reads the configuration's. Returns 0 or a negative errno;
 * -EBUSY: not while the service starts, reloads or stops; -ERANGE: 1 to MANAGER_WORKERS_MAX. */
int manager_scale(Manager *m, unsigned n);

Manager *manager_free(Manager *m);
DEFINE_CLEANUP(Manager, manager_free)

/* SPDX-License-Identifier: MIT */
#pragma once

/* Where an app can be reached, and in what state it is when it cannot. */

#include <stdbool.h>

#include "basic/macro.h"
#include "cli/unit.h"

typedef struct App {
        const char *name; /* borrowed */
        char *socket_path;
        bool of_system; /* systemd's own socket: to connect would start an app that is stopped */
} App;

/* @socket_path is what the user said, NULL for nothing: then /run/muster/NAME/control, or, if only that is
 * there, the same below $XDG_RUNTIME_DIR. Returns 0 or -ENOMEM. */
int app_init(App *app, const char *name, const char *socket_path);
void app_done(App *app);

/* Whether there is a configuration of that name. */
bool app_is_configured(const App *app);

/* UNIT_UNKNOWN also when it does not matter, because nothing can be started by a connection. */
UnitState app_get_state(const App *app);

/* Why there is no answer, a sentence in a fresh string; NULL without memory. */
char *app_explain_state(const App *app, UnitState state);
char *app_explain_error(const App *app, int error, const char *text);

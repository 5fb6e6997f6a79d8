/* SPDX-License-Identifier: MIT */
#pragma once

/* What no single key of the configuration can tell: how they go together, and what they name. */

#include "master/config.h"

/* Checks a configuration whose keys are read, and fills in what follows from them: the directory of a
 * program, and the variables of app.environment_file. Returns 0, CONFIG_INVALID with a text for the user, or
 * -ENOMEM. */
int config_check(Config *c, char **ret_error);

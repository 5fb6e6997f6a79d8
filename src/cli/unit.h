/* SPDX-License-Identifier: MIT */
#pragma once

/* What systemd says of an app's units. */

typedef enum UnitState {
        UNIT_UNKNOWN, /* systemd does not run, or does not tell */
        UNIT_ACTIVE,  /* or on its way to or from that */
        UNIT_INACTIVE,
        UNIT_FAILED,
} UnitState;

#define UNIT_NAME_MAX 96

/* "muster.service" for "default", else "muster@NAME.service". The name of an app needs no escaping: the
 * units take their instance as it is (%i), and it has no character that a unit's name may not have. */
const char *unit_name(const char *app, const char *suffix, char buf[static UNIT_NAME_MAX]);

/* Asks the system's service manager. */
UnitState unit_get_state(const char *unit);

/* ActiveState= as systemd spells it. */
UnitState unit_state_from_string(const char *s);

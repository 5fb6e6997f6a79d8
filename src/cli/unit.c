/* SPDX-License-Identifier: MIT */
/* Units of the system's service manager; see unit.h. */

#include "cli/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>

#include "basic/macro.h"

const char *unit_name(const char *app, const char *suffix, char buf[static UNIT_NAME_MAX]) {
        if (strcmp(app, "default") == 0)
                snprintf(buf, UNIT_NAME_MAX, "muster.%s", suffix);
        else
                snprintf(buf, UNIT_NAME_MAX, "muster@%s.%s", app, suffix);
        return buf;
}

UnitState unit_state_from_string(const char *s) {
        if (strcmp(s, "inactive") == 0)
                return UNIT_INACTIVE;
        return strcmp(s, "failed") == 0 ? UNIT_FAILED : UNIT_ACTIVE;
}

static void bus_freep(sd_bus **bus) {
        sd_bus_flush_close_unref(*bus);
}

UnitState unit_get_state(const char *unit) {
        _cleanup_(bus_freep) sd_bus *bus = NULL;
        _cleanup_free_ char *path = NULL, *state = NULL;

        if (sd_booted() <= 0)
                return UNIT_UNKNOWN;
        if (sd_bus_open_system(&bus) < 0 ||
                        sd_bus_path_encode("/org/freedesktop/systemd1/unit", unit, &path) < 0 ||
                        sd_bus_get_property_string(bus, "org.freedesktop.systemd1", path,
                                        "org.freedesktop.systemd1.Unit", "ActiveState", NULL, &state) < 0)
                return UNIT_UNKNOWN;
        return unit_state_from_string(state);
}

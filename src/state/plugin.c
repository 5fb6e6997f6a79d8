/* SPDX-License-Identifier: MIT */
/* Loads what a URL asks for. A plugin stays for the life of the process (it is linked so): it may have a
 * thread that outlives the handle. */

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "build-config.h"
#include "state/store.h"

/* For tests, which run what is not installed. Not for a process with more rights than its caller. */
static const char *plugin_dir(void) {
        const char *e = secure_getenv("MUSTER_PLUGINDIR");

        return e && *e ? e : PLUGINDIR;
}

int plugin_load(const char *name, const StateDriver **ret, char error[static STATE_TEXT_MAX]) {
        _cleanup_free_ char *path = NULL;
        const StateDriver *driver;
        void *handle;

        if (asprintf(&path, "%s/state-%s.so", plugin_dir(), name) < 0) {
                path = NULL;
                return -ENOMEM;
        }
        handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!handle) {
                snprintf(error, STATE_TEXT_MAX, "The plugin for %s cannot be loaded: %s", name, dlerror());
                return -ELIBACC;
        }
        driver = dlsym(handle, STATE_DRIVER_SYMBOL);
        (void) dlclose(handle);
        if (!driver || driver->abi != STATE_DRIVER_ABI) {
                snprintf(error, STATE_TEXT_MAX, "%s: found a plugin of another version, expected version %d",
                                path, STATE_DRIVER_ABI);
                return -ELIBACC;
        }
        *ret = driver;
        return 0;
}

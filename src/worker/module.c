/* SPDX-License-Identifier: MIT */
/* Modules; see module.h. */

#include "worker/module.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "basic/macro.h"
#include "worker/crash.h"
#include "worker/event.h"

#define SYMBOL "muster_module"

/* What every module has. One that was made with an older header ends before what came later. */
#define SIZE_MIN offsetof(muster_http_module, repeatable)

static int module_check(const Module *m, char error[static MODULE_ERROR_MAX]) {
        const muster_http_module *d = m->target.descriptor;

        if (d->abi != MUSTER_HTTP_ABI)
                snprintf(error, MODULE_ERROR_MAX,
                                "%s: found a module for version %" PRIu32
                                " of muster/http.h, expected version %d: it must be compiled again.",
                                m->path, d->abi, MUSTER_HTTP_ABI);
        else if (d->size < SIZE_MIN)
                snprintf(error, MODULE_ERROR_MAX, "%s: found a module of %zu bytes, expected at least %zu.",
                                m->path, d->size, SIZE_MIN);
        else if (!d->name || !*d->name)
                snprintf(error, MODULE_ERROR_MAX, "%s: found a module without a name, expected one.",
                                m->path);
        else if (!d->request)
                snprintf(error, MODULE_ERROR_MAX,
                                "%s: found a module without a handler for requests, expected one.", m->path);
        else
                return 0;
        return -ENOEXEC;
}

/* Every symbol is looked up now: one that is missing is found before the first client is accepted. Without a
 * slash the name would be looked for in the folders of libraries. */
static int module_load(Module *m, char error[static MODULE_ERROR_MAX]) {
        if (m->path[0] != '/') {
                snprintf(error, MODULE_ERROR_MAX, "%s: expected an absolute path.", m->path);
                return -EINVAL;
        }
        m->handle = dlopen(m->path, RTLD_NOW | RTLD_LOCAL);
        if (!m->handle) {
                snprintf(error, MODULE_ERROR_MAX, "The module cannot be loaded: %s", dlerror());
                return -ENOEXEC;
        }
        m->target.descriptor = dlsym(m->handle, SYMBOL);
        if (!m->target.descriptor) {
                snprintf(error, MODULE_ERROR_MAX,
                                "%s: found no symbol \"" SYMBOL
                                "\", expected a module (see MUSTER_HTTP_MODULE in muster/http.h).",
                                m->path);
                return -ENOEXEC;
        }
        return module_check(m, error);
}

static int module_start(Module *m, char error[static MODULE_ERROR_MAX]) {
        CrashScope scope;
        int r = 0;

        crash_enter(&scope, "in its start()", "", 0);
        event_touch();
        if (m->target.descriptor->start)
                r = m->target.descriptor->start(&m->target.state);
        crash_leave(&scope);
        if (r >= 0) {
                m->started = true;
                return 0;
        }
        errno = -r;
        snprintf(error, MODULE_ERROR_MAX, "The module %s (%s) failed to start: %m",
                        m->target.descriptor->name, m->path);
        return r;
}

int module_init(Module *m, const char *path, unsigned n_threads, BoardCell *cell,
                char ret_error[static MODULE_ERROR_MAX]) {
        CrashScope scope;
        int r;

        *m = (Module){ .path = path };
        r = crash_init(cell, path);
        if (r >= 0)
                r = event_init();
        if (r >= 0)
                r = module_api_init(n_threads);
        if (r < 0) {
                errno = -r;
                snprintf(ret_error, MODULE_ERROR_MAX, "Failed to prepare for the module %s: %m", path);
                return r;
        }

        /* The code of its constructors runs there. */
        crash_enter(&scope, "while it was loaded", "", 0);
        r = module_load(m, ret_error);
        crash_leave(&scope);
        if (r < 0)
                return r;
        crash_set_module(m->target.descriptor->name, m->target.descriptor);
        return module_start(m, ret_error);
}

static bool module_is_repeatable(const muster_http_module *d) {
        return d->size > SIZE_MIN && d->repeatable;
}

Handler module_handler(Module *m) {
        return (Handler){ .request = module_api_request,
                .userdata = &m->target,
                .reruns = module_is_repeatable(m->target.descriptor) };
}

void module_retire(void *userdata) {
        Module *m = userdata;
        CrashScope scope;

        if (!m->target.descriptor->retire)
                return;
        crash_enter(&scope, "in its retire()", "", 0);
        event_touch();
        m->target.descriptor->retire(m->target.state);
        crash_leave(&scope);
}

void module_done(Module *m) {
        CrashScope scope;

        if (m->started) {
                module_api_done();
                crash_enter(&scope, "in its stop()", "", 0);
                if (m->target.descriptor->stop)
                        m->target.descriptor->stop(m->target.state);
                crash_leave(&scope);
        }
        event_done();
}

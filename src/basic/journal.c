/* SPDX-License-Identifier: MIT */
/* sd-journal on first use; see journal.h. */

#include "basic/journal.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

bool journal_on_stderr(void) {
        const char *e = getenv("JOURNAL_STREAM");
        unsigned long dev, ino;
        struct stat st;

        return e && sscanf(e, "%lu:%lu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
               st.st_dev == dev && st.st_ino == ino;
}

/* The handle is kept for ever: the library registers destructors and must not be unloaded. */
static void *libsystemd_symbol(const char *name) {
        static void *handle;

        if (!handle)
                handle = dlopen("libsystemd.so.0", RTLD_LAZY | RTLD_NODELETE);
        return handle ? dlsym(handle, name) : NULL;
}

int journal_sendv(const struct iovec *iov, int n) {
        static typeof(&sd_journal_sendv) function;

        if (!function)
                function = libsystemd_symbol("sd_journal_sendv");
        return function ? function(iov, n) : -EOPNOTSUPP;
}

int journal_stream_fd(const char *identifier, int priority, int level_prefix) {
        static typeof(&sd_journal_stream_fd) function;

        if (!function)
                function = libsystemd_symbol("sd_journal_stream_fd");
        return function ? function(identifier, priority, level_prefix) : -EOPNOTSUPP;
}

/* SPDX-License-Identifier: MIT */
/* libsystemd, loaded by the first call into it. The programs link this instead of -lsystemd and include its
 * headers as usual; a function that is missing here is a linker's error. (libmuster, which others link, is
 * linked with the real one.)
 *
 * Why: libsystemd brings up to seven libraries along. Loading them takes half a millisecond, which in a
 * service that starts on the first connection is a fifth of the time to the first answer; and a native
 * worker, which has no use for them until it has something to log, saves some 150 KiB of private memory. So
 * the master starts its first worker before it needs its event loop, and both happen at the same time.
 *
 * The note at the end tells packagers' tools of the dependency, as systemd's own ELF files do for what they
 * load. */

#define SD_JOURNAL_SUPPRESS_LOCATION  /* CODE_FILE= and so on are our own; else sd_journal_sendv is a macro \
                                       */

#include <dlfcn.h>
#include <errno.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <systemd/sd-journal.h>

#include "basic/macro.h"

/* The handle is kept for ever: the library registers destructors of threads and must not be unloaded. */
static void *libsystemd_symbol(const char *name) {
        static void *handle;

        if (!handle)
                handle = dlopen("libsystemd.so.0", RTLD_LAZY | RTLD_NODELETE);
        return handle ? dlsym(handle, name) : NULL;
}

/* Defines the function @name as a call of the real one; without the library it returns @missing. */
#define LAZY(type, missing, name, parameters, arguments)                     \
        type name parameters {                                               \
                static typeof(&name) function;                               \
                if (!function)                                               \
                        function = (typeof(&name)) libsystemd_symbol(#name); \
                return function ? function arguments : (missing);            \
        }
#define LAZY_INT(name, parameters, arguments) LAZY(int, -EOPNOTSUPP, name, parameters, arguments)

LAZY_INT(sd_event_new, (sd_event * *ret), (ret))
LAZY_INT(sd_event_loop, (sd_event * e), (e))
LAZY_INT(sd_event_get_fd, (sd_event * e), (e))
LAZY_INT(sd_event_prepare, (sd_event * e), (e))
LAZY_INT(sd_event_wait, (sd_event * e, uint64_t usec), (e, usec))
LAZY_INT(sd_event_dispatch, (sd_event * e), (e))
LAZY_INT(sd_event_exit, (sd_event * e, int code), (e, code))
LAZY_INT(sd_event_add_io,
                (sd_event * e, sd_event_source **s, int fd, uint32_t events, sd_event_io_handler_t f,
                                void *u),
                (e, s, fd, events, f, u))
LAZY_INT(sd_event_add_defer, (sd_event * e, sd_event_source **s, sd_event_handler_t f, void *u),
                (e, s, f, u))
LAZY_INT(sd_event_add_signal,
                (sd_event * e, sd_event_source **s, int sig, sd_event_signal_handler_t f, void *u),
                (e, s, sig, f, u))
LAZY_INT(sd_event_add_time_relative,
                (sd_event * e, sd_event_source **s, clockid_t clock, uint64_t usec, uint64_t accuracy,
                                sd_event_time_handler_t f, void *u),
                (e, s, clock, usec, accuracy, f, u))
LAZY_INT(sd_event_source_set_enabled, (sd_event_source * s, int mode), (s, mode))
LAZY_INT(sd_event_source_set_io_events, (sd_event_source * s, uint32_t events), (s, events))
LAZY_INT(sd_event_source_set_ratelimit, (sd_event_source * s, uint64_t interval, unsigned burst),
                (s, interval, burst))
LAZY_INT(sd_event_source_set_priority, (sd_event_source * s, int64_t priority), (s, priority))
LAZY_INT(sd_event_source_set_time_relative, (sd_event_source * s, uint64_t usec), (s, usec))
LAZY_INT(sd_event_source_set_time_accuracy, (sd_event_source * s, uint64_t usec), (s, usec))
LAZY_INT(sd_notify, (int unset_environment, const char *state), (unset_environment, state))
LAZY_INT(sd_watchdog_enabled, (int unset_environment, uint64_t *ret), (unset_environment, ret))
LAZY_INT(sd_journal_sendv, (const struct iovec *iov, int n), (iov, n))
LAZY_INT(sd_journal_stream_fd, (const char *identifier, int priority, int level_prefix),
                (identifier, priority, level_prefix))

sd_event *sd_event_ref(sd_event *e) {
        typeof(&sd_event_ref) function =
                        (typeof(&sd_event_ref)) (e ? libsystemd_symbol("sd_event_ref") : NULL);

        return function ? function(e) : NULL;
}

/* Dropping what is not there is done at once. */
sd_event *sd_event_unref(sd_event *e) {
        typeof(&sd_event_unref) function =
                        (typeof(&sd_event_unref)) (e ? libsystemd_symbol("sd_event_unref") : NULL);

        return function ? function(e) : NULL;
}

sd_event_source *sd_event_source_disable_unref(sd_event_source *s) {
        static typeof(&sd_event_source_disable_unref) function;

        if (s && !function)
                function = (typeof(&sd_event_source_disable_unref)) libsystemd_symbol(
                                "sd_event_source_disable_unref");
        return s ? function(s) : NULL;
}

/* https://systemd.io/ELF_DLOPEN_METADATA/: owner "FDO", type 0x407c0c0a, a JSON array. */
#define DLOPEN_NOTE                                                                        \
        "[{\"feature\":\"systemd\",\"description\":\"event loop, journal and readiness\"," \
        "\"priority\":\"required\",\"soname\":[\"libsystemd.so.0\"]}]"

static const struct {
        struct {
                uint32_t n_namesz, n_descsz, n_type;
        } header;
        char name[4];
        char json[sizeof(DLOPEN_NOTE)] __attribute__((aligned(4)));
} dlopen_note __attribute__((used, section(".note.dlopen"), aligned(4))) = {
        .header = { 4, sizeof(DLOPEN_NOTE), 0x407c0c0a },
        .name = "FDO",
        .json = DLOPEN_NOTE,
};

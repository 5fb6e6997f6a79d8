/* SPDX-License-Identifier: MIT */
/* The stage of a fresh child; see stage.h. */

#include "exec/stage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <syslog.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "basic/descriptor-limit.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "basic/macro.h"

/* Opened here and not in the master, so that journald knows this process as the sender: _PID is right from
 * the first byte, and so is _STREAM_ID. */
static int open_journal_stream(const char *identifier) {
        _cleanup_close_ int fd = sd_journal_stream_fd(identifier, LOG_INFO, /* level_prefix= */ 1);
        char value[64];
        struct stat st;

        if (fd < 0)
                return fd;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
                return -errno;

        /* The inherited value names the master's stream and would be taken for a lie. */
        snprintf(value, sizeof(value), "%lu:%lu", (unsigned long) st.st_dev, (unsigned long) st.st_ino);
        if (setenv("JOURNAL_STREAM", value, 1) < 0)
                return -errno;
        return 0;
}

/* Some settings count for one process alone, and say for which. The inherited value names another one. */
static int name_this_process(const char *setting, const char *variable) {
        char pid[16];

        if (!getenv(setting))
                return 0;
        snprintf(pid, sizeof(pid), "%d", getpid());
        return setenv(variable, pid, 1) < 0 ? -errno : 0;
}

int stage_enter(const char *identifier) {
        int r;

        descriptor_limit_restore();
        if (log_stderr_is_journal())
                (void) open_journal_stream(
                                identifier); /* the inherited stream is journald's too, and good enough */

        r = name_this_process("LISTEN_FDS", "LISTEN_PID");
        return r < 0 ? r : name_this_process("WATCHDOG_USEC", "WATCHDOG_PID");
}

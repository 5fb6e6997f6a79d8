/* SPDX-License-Identifier: MIT */
/* muster-exec: enters the stage (stage.h) and becomes the program of a child that is not ours.
 *
 * Internal, for a master: `muster-exec IDENTIFIER ERROR_FD PROGRAM ARGUMENT…`. ERROR_FD is the writing end
 * of a pipe; it closes by itself when the program runs, and carries the errno as an int when it could not be
 * executed. The native worker needs no such step: it enters the stage itself. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/parse.h"
#include "exec/stage.h"

enum { ARG_IDENTIFIER = 1, ARG_ERROR_FD, ARG_PROGRAM };

static int fail(int error_fd, int error) {
        if (error_fd >= 0)
                (void) !write(error_fd, &error, sizeof(error)); /* EPIPE: nobody wants to know */
        return 127;
}

int main(int argc, char *argv[]) {
        unsigned error_fd;
        int r;

        if (argc <= ARG_PROGRAM || parse_uint(argv[ARG_ERROR_FD], &error_fd) < 0 || error_fd > INT_MAX) {
                fprintf(stderr, "muster-exec is started by musterd: muster-exec IDENTIFIER ERROR_FD PROGRAM ARGUMENT…\n");
                return 2;
        }
        log_open(&(LogContext){ .program = "muster-exec" });

        r = fd_set_cloexec((int) error_fd, true);
        if (r < 0) {
                log_error_errno(r, "The error descriptor %u is not open: %m", error_fd);
                return fail(-EBADF, -r);
        }
        r = stage_enter(argv[ARG_IDENTIFIER]);
        if (r < 0) {
                log_error_errno(r, "Failed to prepare %s: %m", argv[ARG_IDENTIFIER]);
                return fail((int) error_fd, -r);
        }

        execv(argv[ARG_PROGRAM], argv + ARG_PROGRAM);
        r = -errno;
        log_error_errno(r, "Failed to execute %s: %m", argv[ARG_PROGRAM]);
        return fail((int) error_fd, -r);
}

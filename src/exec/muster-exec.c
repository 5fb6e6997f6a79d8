/* SPDX-License-Identifier: MIT */
/* muster-exec: enters the stage (stage.h) and becomes the program of a child that is not ours.
 *
 * Internal, for a master: `muster-exec [--plain-channel] IDENTIFIER ERROR_FD DIRECTORY PROGRAM ARGUMENT…`.
 * It runs in DIRECTORY, and looks for a PROGRAM without a slash in PATH. ERROR_FD is the writing end of a
 * pipe; it closes by itself when the program runs, and carries a text for people, at once and of at most 512
 * bytes, when it does not. With --plain-channel the program's channel to the master is not told by the names
 * that a Node.js program would take it by. The native worker needs no such step: it enters the stage itself.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/parse.h"
#include "basic/text.h"
#include "exec/stage.h"

enum { ARG_IDENTIFIER, ARG_ERROR_FD, ARG_DIRECTORY, ARG_PROGRAM };

#define PLAIN_CHANNEL "--plain-channel"
#define PATH_DEFAULT  "/usr/local/bin:/usr/bin:/bin"
#define TEXT_MAX      512
#define QUOTED_MAX    300

/* Nobody but the reader of the pipe is told: it is the master, which logs it. */
static _printf_(2, 3) int fail(int error_fd, const char *format, ...) {
        char text[TEXT_MAX + 1];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        text_make_printable(text);
        (void) !write(error_fd, text, strlen(text)); /* EPIPE: nobody wants to know */
        return 127;
}

static int usage(void) {
        fprintf(stderr, "muster-exec is started by musterd: "
                        "muster-exec [" PLAIN_CHANNEL "] IDENTIFIER ERROR_FD DIRECTORY PROGRAM ARGUMENT…\n");
        return 2;
}

/* As execvp(3) searches, but for a script without an interpreter line, which is no program here. */
static int search_and_execute(char *argv[]) {
        const char *path = getenv("PATH");
        int error = -ENOENT;

        for (const char *p = path ? path : PATH_DEFAULT; p;) {
                _cleanup_free_ char *candidate = NULL;
                int n = (int) strcspn(p, ":"); /* an empty one is the working directory */

                if (asprintf(&candidate, "%.*s%s%s", n, p, n > 0 ? "/" : "", argv[0]) < 0)
                        return -ENOMEM;
                execv(candidate, argv);
                if (errno == EACCES)
                        error = -EACCES; /* unless another one can be executed */
                else if (errno != ENOENT && errno != ENOTDIR)
                        return -errno;
                p = strchr(p, ':');
                if (p)
                        p++;
        }
        return error;
}

static int execute(int error_fd, char *argv[]) {
        char program[QUOTED_MAX];
        int r;

        text_quote(argv[0], program, sizeof(program));
        if (!strchr(argv[0], '/')) {
                r = search_and_execute(argv);
                if (r == -ENOENT)
                        return fail(error_fd, "cannot find %s in PATH", program);
                return fail(error_fd, "cannot execute %s: %s", program, strerror(-r));
        }
        execv(argv[0], argv);
        r = -errno;
        if (r == -ENOENT && access(argv[0], F_OK) == 0)
                return fail(error_fd, "cannot execute %s: its interpreter (#!) does not exist", program);
        return fail(error_fd, "cannot execute %s: %s", program, strerror(-r));
}

int main(int argc, char *argv[]) {
        bool plain = argc > 1 && strcmp(argv[1], PLAIN_CHANNEL) == 0;
        char **arguments = argv + 1 + plain, directory[QUOTED_MAX];
        unsigned error_fd;
        int r;

        if (argc - 1 - plain <= ARG_PROGRAM || parse_uint(arguments[ARG_ERROR_FD], &error_fd) < 0 ||
                        error_fd > INT_MAX)
                return usage();
        int fd = (int) error_fd;
        r = fd_set_cloexec(fd, true);
        if (r < 0) {
                fprintf(stderr, "muster-exec: the error descriptor %d is not open\n", fd);
                return 127;
        }
        if (plain) {
                (void) unsetenv("NODE_CHANNEL_FD");
                (void) unsetenv("NODE_CHANNEL_SERIALIZATION_MODE");
        }

        r = stage_enter(arguments[ARG_IDENTIFIER]);
        if (r < 0)
                return fail(fd, "cannot prepare its streams: %s", strerror(-r));
        if (chdir(arguments[ARG_DIRECTORY]) < 0)
                return fail(fd, "cannot enter the directory %s: %s",
                                text_quote(arguments[ARG_DIRECTORY], directory, sizeof(directory)),
                                strerror(errno));
        return execute(fd, arguments + ARG_PROGRAM);
}

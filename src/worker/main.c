/* SPDX-License-Identifier: MIT */
/* muster-worker: serves one folder on the sockets that musterd hands over.
 *
 * It is started by the first connection of a socket, with the client waiting: before the first accept it
 * does nothing that could be done later, and it links libc alone. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "board/board.h"
#include "exec/stage.h"
#include "worker/loop.h"
#include "worker/master-link.h"
#include "worker/options.h"
#include "worker/static.h"

#define EXIT_USAGE 2

/* Logs, and tells the master, who tells whoever asked for the start. */
static int fail(BoardCell *cell, int error, const char *what, const char *directory) {
        char reason[BOARD_REASON_SIZE];

        errno = -error;
        snprintf(reason, sizeof(reason), "%s %s: %m", what, directory);
        board_cell_set_reason(cell, reason);
        return log_error_errno(error, "%s", reason);
}

static int serve(const Options *options, const Identity *identity, const Board *board, BoardCell *cell,
                int channel_fd) {
        _cleanup_close_ int directory = open(options->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        StaticSite site = { .root.fd = directory, .whoami = options->whoami, .identity = identity };
        const Handler handler = { .request = static_request, .userdata = &site };
        Loop loop;
        int r;

        if (directory < 0)
                return fail(cell, -errno, "Failed to open the directory", options->directory);

        r = loop_init(&loop, board, cell, identity, channel_fd, options, &handler);
        if (r >= 0)
                r = loop_run(&loop);
        if (r < 0)
                board_cell_set_reason(
                                cell, "Failed to listen on the sockets of LISTEN_FDS; the log says why.");
        loop_done(&loop);
        return r;
}

static int environment_error(int r, const char *variable) {
        log_error("muster-worker is started by musterd, which sets the environment: %s is %s.", variable,
                        r == -ENXIO ? "missing" : "malformed");
        return EXIT_USAGE;
}

static void enter_stage(const Identity *identity) {
        char identifier[160];

        snprintf(identifier, sizeof(identifier), "%s-%u", identity->app, identity->worker);
        (void) stage_enter(identifier); /* the streams that were inherited are good enough */
}

static int run(int argc, char *argv[]) {
        Board board = BOARD_NULL;
        Identity identity = { 0 };
        const char *variable;
        Options options;
        BoardCell *cell;
        int channel_fd = -EBADF, known, r;

        known = identity_from_environment(&identity, &variable);
        if (known >= 0)
                enter_stage(&identity);
        log_open(&(LogContext){
                        .program = "muster-worker",
                        .app = identity.app,
                        .worker = identity.worker,
                        .generation = identity.generation,
        });

        r = options_parse(argc, argv, &options);
        if (r != OPTIONS_RUN)
                return r == OPTIONS_EXIT ? EXIT_SUCCESS : EXIT_USAGE;
        if (known < 0)
                return environment_error(known, variable);
        r = board_init_from_environment(&board, &cell);
        if (r < 0)
                return environment_error(r, BOARD_ENV_FD ", " BOARD_ENV_BELL_FD " or " BOARD_ENV_CELL);
        r = master_link_from_environment(&channel_fd);
        if (r < 0 && r != -ENXIO)
                return environment_error(r, MASTER_LINK_ENV_FD);

        r = serve(&options, &identity, &board, cell, channel_fd);
        board_done(&board);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char *argv[]) {
        loop_block_signals();
        return run(argc, argv);
}

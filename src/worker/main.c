/* SPDX-License-Identifier: MIT */
/* muster-worker: serves one folder, or what a module answers, on the sockets that musterd hands over.
 *
 * It is started by the first connection of a socket, with the client waiting: before the first accept it
 * does nothing that could be done later, and it links libc alone. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "board/board.h"
#include "exec/stage.h"
#include "twin/keeper.h"
#include "worker/crash.h"
#include "worker/inheritance.h"
#include "worker/loop.h"
#include "worker/master-link.h"
#include "worker/messages.h"
#include "worker/module.h"
#include "worker/options.h"
#include "worker/static.h"
#include "worker/successor.h"

#define EXIT_USAGE 2

#define LISTEN_FAILED "Failed to listen on the sockets of LISTEN_FDS; the log says why."

typedef struct Job {
        Inheritance *in;
        Successor *successor; /* NULL: nothing is taken over */
        const Options *options;
        const Identity *identity;
        BoardCell *cell;
} Job;

/* Logs, and tells the master, who tells whoever asked for the start. */
static int fail(const Job *j, int error, const char *text) {
        board_cell_set_reason(j->cell, text);
        return log_error_errno(error, "%s", text);
}

static int fail_directory(const Job *j, int error, const char *what) {
        char reason[BOARD_REASON_SIZE];

        errno = -error;
        snprintf(reason, sizeof(reason), "%s %s: %m", what, j->options->directory);
        return fail(j, error, reason);
}

static int open_log(const Job *j, LogWriter *log) {
        static const AccessLogFormat formats[] = {
                [OPTIONS_LOG_COMMON] = ACCESS_LOG_COMMON,
                [OPTIONS_LOG_COMBINED] = ACCESS_LOG_COMBINED,
                [OPTIONS_LOG_JSON] = ACCESS_LOG_JSON,
        };
        const char *target = j->options->access_log;
        char reason[BOARD_REASON_SIZE];
        int r;

        if (!target)
                return 0;
        r = log_writer_init(log, target, formats[j->options->access_log_format], j->identity->app,
                        j->identity->worker);
        if (r == 0)
                return 0;
        errno = -r;
        if (r < 0)
                snprintf(reason, sizeof(reason), "Failed to open the access log %s: %m", target);
        else
                snprintf(reason, sizeof(reason), "The access log %s is not a regular file.", target);
        log_writer_done(log);
        return fail(j, r < 0 ? r : -EINVAL, reason);
}

static bool is_lack(int error) {
        return error == -ENOMEM || error == -ENOBUFS || error == -ENOSPC || error == -EMFILE ||
               error == -ENFILE;
}

/* What the module was doing may be the reason, and counts as after a crash. A lack may be over for the next
 * process. Other errors are of the sockets, which it would find as they are. */
static void loop_failed(const Job *j, int error) {
        Area *a = j->in->area;

        if (!a)
                return;
        if (error == -ESTALE)
                atomic_store(&a->crash, SIGABRT);
        else if (!is_lack(error))
                area_retire(a, /* orphaned= */ false);
}

/* Whoever takes over needs what is open, in the table that all share: to close it in order would end the
 * connections. */
static void leave_to_successor(const Area *a, int r) {
        if (a && atomic_load(&a->served) > 0 && !atomic_load(&a->retiring))
                _exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

static int run_loop(const Job *j, const Handler *handler, void (*on_drain)(void *userdata), void *userdata) {
        LogWriter log = LOG_WRITER_NULL;
        Loop loop;
        int r;

        r = open_log(j, &log);
        if (r < 0)
                return r;
        r = loop_init(&loop, j->in, j->successor, handler);
        loop.on_drain = on_drain;
        loop.drain_userdata = userdata;
        if (j->options->access_log)
                loop_set_log(&loop, &log);
        if (r >= 0)
                r = loop_run(&loop);
        if (r < 0) {
                board_cell_set_reason(j->cell,
                                r == -ESTALE ? "The module has ended its event loop." : LISTEN_FAILED);
                loop_failed(j, r);
                log_writer_done(&log);
                leave_to_successor(j->in->area, r);
        }
        loop_done(&loop);
        log_writer_done(&log);
        return r;
}

static int serve_files(const Job *j) {
        _cleanup_close_ int directory = open(j->options->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        StaticSite site;
        int r;

        if (directory < 0)
                return fail_directory(j, -errno, "Failed to open the directory");
        static_site_init(&site, directory, j->options, j->identity);
        const Handler handler = {
                .request = static_request,
                .reruns = true,
                .userdata = &site,
                .give_way = static_give_way,
                .n_kept = site.cache.settings.max_files,
        };
        r = run_loop(j, &handler, NULL, NULL);
        static_site_done(&site);
        return r;
}

static int serve_module(const Job *j) {
        char error[MODULE_ERROR_MAX];
        Handler handler;
        Module module;
        int r;

        if (j->options->directory && chdir(j->options->directory) < 0)
                return fail_directory(j, -errno, "Failed to change to the directory");
        if (j->in->area) {
                crash_note_in(&j->in->area->crash);
                area_wait_for_burial(j->in->area); /* the app finds nothing of what ran before it */
        }
        messages_init(j->identity->worker, j->in->channel_fd, j->in->epoll_fd, j->in->area);
        r = module_init(&module, j->options->module, j->options->threads, j->cell, error);
        if (r < 0)
                fail(j, r, error);
        else {
                handler = module_handler(&module);
                r = run_loop(j, &handler, module_retire, &module);
        }
        module_done(&module);
        messages_done();
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

static int serve(const Job *j) {
        int r;

        r = j->successor ? successor_init(j->successor, j->in) : 0;
        if (r >= 0)
                r = j->options->module ? serve_module(j) : serve_files(j);
        if (j->successor)
                successor_done(j->successor);
        return r;
}

/* Returns where somebody is to serve: in a process of the keeper's, or in this one. The keeper does not
 * return. */
static KeeperRole find_role(Inheritance *in) {
        int status = 0, r;

        if (!in->area)
                return KEEPER_FIRST;
        r = keeper_run(in->area, in->board, in->cell, in->identity->master, &status);
        if (r == KEEPER_OVER)
                keeper_exit(status);
        if (r >= 0)
                return (KeeperRole) r;
        log_warning_errno(r, "Nobody can take over from this worker when it dies (workers.twin): %m");
        inheritance_forgo_twin(in);
        return KEEPER_FIRST;
}

static int inherit(const Board *board, BoardCell *cell, const Identity *identity, const Options *options,
                int channel_fd) {
        Inheritance in;
        Successor successor;
        Job job = { .in = &in, .options = options, .identity = identity, .cell = cell };
        int r;

        r = inheritance_init(&in, board, cell, identity, options, channel_fd);
        if (r < 0)
                board_cell_set_reason(cell, LISTEN_FAILED);
        else {
                job.successor = find_role(&in) == KEEPER_SUCCESSOR ? &successor : NULL;
                r = serve(&job);
                leave_to_successor(in.area, r);
        }
        inheritance_done(&in);
        return r;
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

        r = inherit(&board, cell, &identity, &options, channel_fd);
        board_done(&board);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char *argv[]) {
        loop_block_signals();
        return run(argc, argv);
}

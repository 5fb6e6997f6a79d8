/* SPDX-License-Identifier: MIT */
/* A program of somebody who has installed libmuster-dev. It prints the pid of the child that it starts:
 *
 *   spawn journal IDENTIFIER   a shell whose output goes to the journal; waits for it
 *   spawn detached             a process that outlives it */

#include <muster/process.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_exit_of_child(muster_child *child, int code, int status, void *event) {
        (void) sd_event_exit(event, status);
}

int main(int argc, char *argv[]) {
        muster_spawn_options options = MUSTER_SPAWN_OPTIONS_INIT;
        char *const sleeper[] = { "sleep", "infinity", NULL };
        sd_event *event;
        muster_child *child;
        int r;

        if (argc > 2 && strcmp(argv[1], "journal") == 0) {
                options.program = "echo from stdout; echo '<4>from stderr' >&2; echo $JOURNAL_STREAM";
                options.flags = MUSTER_SPAWN_SHELL;
                options.journal_identifier = argv[2];
        } else {
                options.program = "sleep";
                options.argv = sleeper;
                options.flags = MUSTER_SPAWN_DETACHED;
        }
        r = sd_event_new(&event);
        if (r >= 0)
                r = muster_spawn(event, &options, on_exit_of_child, event, &child);
        if (r < 0) {
                fprintf(stderr, "spawn: %s\n", strerror(-r));
                return EXIT_FAILURE;
        }
        printf("%d\n", (int) muster_child_get_pid(child));
        return options.flags & MUSTER_SPAWN_DETACHED ? EXIT_SUCCESS : sd_event_loop(event);
}

/* SPDX-License-Identifier: MIT */
#pragma once

/* What workers leave behind, and agents, which are workers here.
 *
 * A worker leads a process group, which is killed when it has ended. What has left the group (a daemon, by
 * fork and setsid) comes to the master, its subreaper (PR_SET_CHILD_SUBREAPER), as soon as its parent has
 * died. As long as its worker lives it is left alone; then it is killed, and reaped in any case. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "basic/list.h"
#include "basic/macro.h"
#include "master/worker.h"

typedef struct Orphans Orphans;

/* Whether a child is neither worker nor orphan. */
typedef bool (*orphans_companion_t)(pid_t pid, void *userdata);

/* Called once after orphans_finish(), from the loop. */
typedef void (*orphans_finished_handler_t)(void *userdata);

/* Makes this process the subreaper and blocks SIGCHLD: before the first worker starts. @workers and @agents
 * are the lists of all their processes, borrowed; every child that is in none of them, nor a companion, is
 * taken for an orphan. Returns 0 or -ENOMEM. */
int orphans_new(const List *workers, const List *agents, orphans_companion_t companion,
                orphans_finished_handler_t on_finished, void *userdata, Orphans **ret);

/* Hears of orphans that end. Returns 0 or a negative errno. */
int orphans_attach(Orphans *o, sd_event *event);

/* Kills what @w, which has ended and is still in the list, left behind. */
void orphans_worker_ended(Orphans *o, Worker *w);

/* Looks for orphans that came unheard: nobody is told that a process has lost its parent. */
void orphans_look(Orphans *o);

/* The last worker is gone: kills and reaps all there is, and says when that is done, or when it takes too
 * long. May be called again. */
void orphans_finish(Orphans *o);

Orphans *orphans_free(Orphans *o);
DEFINE_CLEANUP(Orphans, orphans_free)

/*
 * Parts of it, for the tests
 */

/* The children of @parent, which is this process, in ascending order: as the kernel lists them, or by a
 * @scan of all processes where it does not (no CONFIG_PROC_CHILDREN). Returns 0 or a negative errno. */
int orphans_list_children(pid_t parent, bool scan, pid_t **ret_pids, size_t *ret_n);

/* Whose process @pid says that it is, by the environment with which it was executed. False: it says nothing,
 * or it cannot be read. */
bool orphans_read_owner(pid_t pid, pid_t master, WorkerId *ret);

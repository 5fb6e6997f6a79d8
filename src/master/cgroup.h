/* SPDX-License-Identifier: MIT */
#pragma once

/* A control group (cgroup v2) for each worker, where systemd has delegated the service's own (Delegate=). It
 * makes three things sharp that are guesses without it: what belongs to a worker (and ends with it), what
 * its memory is, and that the OOM killer took it.
 *
 * All of it is optional: without delegation there is no Cgroups, and without the memory controller the calls
 * for memory say -EOPNOTSUPP.
 *
 *      UNIT                the root: ours, without processes of its own once settled
 *      |- supervisor       the master and whatever else the unit runs
 *      |- agent-NAME.N     one agent each
 *      `- worker-SLOT.N    one worker each; N counts up
 *         `- a, b          of a worker with a twin: the two processes that take over from each other. No
 *                          controllers are enabled for them, so memory is counted for the worker as a whole
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "basic/macro.h"

/* The groups of this service. */
typedef struct Cgroups Cgroups;

/* One worker's. It is freed before its Cgroups. */
typedef struct Cgroup Cgroup;

/* Finds out whether this process's group was delegated to it: systemd has marked it so (the attribute
 * user.delegate), and it can be written. That root can write its group is not enough: in a shell, or in a
 * unit without Delegate=, what is there is not ours to move. The root is the group of this process, or the
 * one above it when this one is called "supervisor" (DelegateSubgroup=, or an earlier cgroups_settle()).
 *
 * Cheap, and changes nothing. Returns 0; -EOPNOTSUPP: not delegated, or no cgroup v2; -ENOMEM. */
int cgroups_new(Cgroups **ret);

/* The same for a given root, which nobody is asked about. */
int cgroups_new_at(const char *root, Cgroups **ret);

/* Moves all processes of the root, this one above all, to UNIT/supervisor, and has the kernel count memory
 * and processes of the workers' groups, which it does only below a group without processes. Groups that are
 * there already are included, but what their processes have allocated until then stays counted in the root.
 *
 * The children of a worker are left to its keeper for 90 ms at most, if they are in the root, as they are
 * where nobody can be born in a group. The move may take milliseconds, so it is for when the first worker
 * has been started and no client waits. May be called again. Returns 1: the workers' groups have the memory
 * controller; 0: they have not; or a negative errno: then they have not either. */
int cgroups_settle(Cgroups *c);

/* Tries once more to remove what cgroup_free() could not. */
void cgroups_tidy(Cgroups *c);

/* Does that too; what is still not empty is left to systemd. NULL is allowed. Always returns NULL. */
Cgroups *cgroups_free(Cgroups *c);
DEFINE_CLEANUP(Cgroups, cgroups_free)

/* Makes an empty group for a worker of @slot, or for an agent. */
int cgroup_new(Cgroups *c, unsigned slot, Cgroup **ret);
int cgroup_new_for_agent(Cgroups *c, const char *agent, Cgroup **ret);

/* Its directory, for MUSTER_SPAWN_SET_CGROUP; stays the group's own. */
int cgroup_fd(const Cgroup *g);

/* Makes two groups below it, for the two processes of a worker with a twin: cgroup.kill in one of them takes
 * that one alone. The directories are the caller's to close; the groups go with this one. */
int cgroup_make_pair(Cgroup *g, int ret_fds[static 2]);

/* Whether a process can be born in a group (clone3(2)). Where that is filtered, as it is by systemd's
 * RestrictNamespaces=, it can only be moved, for which the kernel may take 10 ms. */
bool cgroups_can_give_birth(void);

/* Moves a running process into it; what that has started already stays where it is. */
int cgroup_add(Cgroup *g, pid_t pid);

/* Sends SIGKILL to all that is in it and in the groups below, whoever runs it and however fast it forks
 * (cgroup.kill). With a kernel before 5.14 to each process, as far as that is allowed. Does not wait for
 * their end. */
int cgroup_kill(Cgroup *g);

/* Whether the OOM killer shall take the group as a whole. Missing before Linux 4.19; then it takes one
 * process. Returns 0 or a negative errno. */
int cgroup_set_oom_group(Cgroup *g, bool whole);

/* At @bytes (0: never) there is a trip wire, at which the handler of cgroup_watch() is called.
 *
 * The wire is memory.high. That counts page cache as well, and above it the kernel slows the group down and
 * has it give page cache back. So when the handler is called, cgroup_get_memory() tells which it was. At the
 * worker's limit: the memory is its own, and the caller takes the wire away (0) at once, as a worker that is
 * to be replaced must not serve at a crawl meanwhile. Below the limit: it was page cache, which is gone by
 * then, and the wire stays.
 *
 * @bytes is best a quarter more than the limit: with both the same, a worker just below its limit would have
 * no room for the pages of its own program, read them again and again, and never get there.
 *
 * Returns 0 or a negative errno; -EOPNOTSUPP: there is no memory controller. */
int cgroup_set_memory_trip(Cgroup *g, uint64_t bytes);

/* What the group has and cannot give back: anonymous and shared memory, what of it is swapped out, and what
 * the kernel keeps for it (socket buffers, page tables). No page cache. -EOPNOTSUPP: there is no memory
 * controller. */
int cgroup_get_memory(const Cgroup *g, uint64_t *ret);

/* The most that was ever charged to it, page cache included. -EOPNOTSUPP: there is no memory controller, or
 * the kernel is older than 5.19. */
int cgroup_get_peak(const Cgroup *g, uint64_t *ret);

/* How many of its processes the OOM killer has killed (the first one counts twice where the whole group was
 * taken); 0 when that is not known. It can be asked until cgroup_free(), also when all of them have gone. */
uint64_t cgroup_get_oom_kills(const Cgroup *g);

/* Calls @handler from the loop when something happened to the group's memory: the trip wire, the limit of a
 * group above, the OOM killer. At most five times a second, and never too late by more than a second. The
 * handler may free the group. One watch for each group: -EBUSY. -EOPNOTSUPP: there is no memory controller.
 */
int cgroup_watch(Cgroup *g, sd_event *event, void (*handler)(void *userdata), void *userdata);

/* The same for any other file of the group that the kernel tells changes of. */
int cgroup_watch_file(Cgroup *g, const char *file, sd_event *event, void (*handler)(void *userdata),
                void *userdata);

/* Removes the group, with those that the worker made below it. One that is not empty yet, as killed
 * processes take a moment, is remembered for cgroups_tidy(). NULL is allowed. Always returns NULL. */
Cgroup *cgroup_free(Cgroup *g);
DEFINE_CLEANUP(Cgroup, cgroup_free)

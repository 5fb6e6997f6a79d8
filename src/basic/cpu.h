/* SPDX-License-Identifier: MIT */
#pragma once

/* How many CPUs this service may use: what sched_setaffinity(2) or AllowedCPUs= left of the machine, and no
 * more than the CPU time that cpu.max grants (CPUQuota=), rounded up. */

/* The CPUs in this process's affinity mask; at least 1. */
unsigned cpu_count_affinity(void);

/* The smallest quota / period of cpu.max in @cgroup and all its ancestors, rounded up; 0 when there is no
 * limit.
 * @root is where the cgroup2 tree is mounted, @cgroup a path below it as in /proc/self/cgroup. */
unsigned cpu_count_quota(const char *root, const char *cgroup);

/* The path of cgroup v2 in the text of /proc/PID/cgroup ("0::/path"), as a fresh string; -ENOENT when there
 * is none. */
int cgroup_path_from_text(const char *text, char **ret);

/* The smaller of both for this very process; at least 1. */
unsigned cpu_count(void);

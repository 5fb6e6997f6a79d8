/* SPDX-License-Identifier: MIT */
#pragma once

/* Whether a command starts a Node.js app so that it is a worker of the master's cluster: the process that
 * has the channel must be the app itself, started from a script. */

/* It is not: an outcome for the caller to report. */
#define NODE_START_INVALID 1

/* Looks at the words of the command, NULL at the end, of which there is at least one. For a package manager
 * the file package.json in @directory is asked what the command would be instead. Returns 0;
 * NODE_START_INVALID with a text for the user ("found …, expected …"); or -ENOMEM. */
int node_start_check(char *const *command, const char *directory, char **ret_error);

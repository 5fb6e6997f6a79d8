/* SPDX-License-Identifier: MIT */
#pragma once

/* musterd --detach: a service in the background, whose command returns when it is ready or has failed. */

/* What detach() returns in the service; every other value is the exit status of the command. */
#define DETACHED (-1)

/* Forks. The command, which is the process that was called, waits until notify_status() sends READY=1: 0; or
 * until the service has ended before: its exit status, with the reason on stderr. The service, in a session
 * of its own, goes on with the sockets that were passed to the command. Until it is ready, warnings and
 * errors of the log go to the command's stderr too.
 *
 * To be called before there is a thread, and with the signals of manager_block_signals() blocked. @path is
 * made absolute, as the service works in "/". */
int detach(char **path);

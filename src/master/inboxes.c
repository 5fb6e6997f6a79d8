/* SPDX-License-Identifier: MIT */
/* The inboxes of the slots; see inboxes.h. */

#include "master/inboxes.h"

#include <errno.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/macro.h"

int inboxes_fit(Inboxes *inboxes, unsigned n_slots) {
        n_slots = MIN(n_slots, (unsigned) BOARD_SEATS);
        for (; inboxes->n < n_slots; inboxes->n++)
                /* With borders between messages, and a limit for what is not read. */
                if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, inboxes->fds + 2 * inboxes->n) < 0)
                        return -errno;
        return 0;
}

void inboxes_done(Inboxes *inboxes) {
        while (inboxes->n > 0) {
                inboxes->n--;
                safe_close(inboxes->fds[2 * inboxes->n]);
                safe_close(inboxes->fds[2 * inboxes->n + 1]);
        }
}

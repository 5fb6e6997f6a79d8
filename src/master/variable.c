/* SPDX-License-Identifier: MIT */
/* Names of environment variables; see variable.h. */

#include "master/variable.h"

#include <string.h>

#include "basic/macro.h"
#include "board/board.h"

/* systemd's words for the master alone (a worker that spoke to systemd's NOTIFY_SOCKET would not be heard,
 * and one that believed the master's LISTEN_PID would find no sockets), Node's for a worker of its cluster
 * (a worker with a NODE_UNIQUE_ID and no channel ends without a word), and our own from an outer muster. */
static const char *const private_names[] = {
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_PIDFDID",
        "MAINPID",
        "MANAGERPID",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "NODE_APP_INSTANCE",
        "NODE_CHANNEL_FD",
        "NODE_CHANNEL_SERIALIZATION_MODE",
        "NODE_CLUSTER_SCHED_POLICY",
        "NODE_UNIQUE_ID",
        "MUSTER_AGENT",
        "MUSTER_APP",
        "MUSTER_CHANNEL_FD",
        "MUSTER_GENERATION",
        "MUSTER_MASTER_PID",
        "MUSTER_STATE_CREDENTIAL",
        "MUSTER_STATE_REQUIRED",
        "MUSTER_STATE_URL",
        "MUSTER_WORKER",
        BOARD_ENV_FD,
        BOARD_ENV_BELL_FD,
        BOARD_ENV_CELL,
        BOARD_ENV_INBOX_FDS,
        BOARD_ENV_TWIN_CGROUP_FDS,
};

static bool is_one_of(const char *const *names, size_t n_names, const char *name, size_t n) {
        for (size_t i = 0; i < n_names; i++)
                if (strlen(names[i]) == n && strncmp(names[i], name, n) == 0)
                        return true;
        return false;
}

bool variable_is_private(const char *variable) {
        return is_one_of(private_names, ELEMENTSOF(private_names), variable, strcspn(variable, "="));
}

static bool name_is_valid(const char *name, size_t n) {
        static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
        static const char digits[] = "0123456789";

        for (size_t i = 0; i < n; i++)
                if (!memchr(letters, name[i], strlen(letters)) &&
                                (i == 0 || !memchr(digits, name[i], strlen(digits))))
                        return false;
        return n > 0;
}

const char *variable_refuse_name(const char *name, size_t n) {
        /* These are inherited: an outer muster knows its processes by them. */
        static const char *const set_for_each[] = { "MUSTER_WORKER_ID" };

        if (!name_is_valid(name, n))
                return "a name of letters, digits and _ that begins with no digit";
        if (is_one_of(private_names, ELEMENTSOF(private_names), name, n) ||
                        is_one_of(set_for_each, ELEMENTSOF(set_for_each), name, n))
                return "a name that is not musterd's own to set or to remove";
        return NULL;
}

/* SPDX-License-Identifier: MIT */
#include "basic/credential.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"

int credential_read(const char *path, char buf[static CREDENTIAL_MAX]) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        size_t used = 0;
        ssize_t n;

        if (fd < 0)
                return -errno;
        while ((n = read(fd, buf + used, CREDENTIAL_MAX - used)) > 0 && used + (size_t) n < CREDENTIAL_MAX)
                used += (size_t) n;
        if (n != 0)
                return n < 0 ? -errno : -EMSGSIZE;
        if (used > 0 && buf[used - 1] == '\n') {
                used--;
                if (used > 0 && buf[used - 1] == '\r')
                        used--;
        }
        buf[used] = '\0';
        return used > 0 && strlen(buf) == used ? 0 : -EINVAL;
}

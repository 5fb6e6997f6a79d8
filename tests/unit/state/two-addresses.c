/* SPDX-License-Identifier: MIT */
#include "two-addresses.h"

#include "../unit.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>

/* In the place of the C library's, for this process. */
__attribute__((visibility("default"))) int getaddrinfo(
                const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **ret) {
        const struct addrinfo stream = { .ai_socktype = SOCK_STREAM };
        int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
        int r;

        *(void **) &next = dlsym(RTLD_NEXT, "getaddrinfo");
        if (!node || strcmp(node, TWO_ADDRESSES) != 0)
                return next(node, service, hints, ret);
        if (hints && hints->ai_flags & AI_NUMERICHOST)
                return EAI_NONAME;
        r = next("127.0.0.2", service, &stream, ret);
        return r == 0 ? next("127.0.0.1", service, &stream, &(*ret)->ai_next) : r;
}

int silence_start(unsigned port) {
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t) port) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(inet_pton(AF_INET, "127.0.0.2", &a.sin_addr), 1);
        assert_int_equal(bind(fd, (struct sockaddr *) &a, sizeof(a)), 0);
        assert_int_equal(listen(fd, 10), 0);
        return fd;
}

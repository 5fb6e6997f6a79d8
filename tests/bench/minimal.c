/* SPDX-License-Identifier: MIT */
/* The least that can answer behind a socket from systemd: accepts from descriptor 3 and sends a fixed answer. What every start-up
 * time is compared with. */

#include <sys/socket.h>
#include <unistd.h>

int main(void) {
        static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";
        char request[4096];

        for (;;) {
                int fd = accept(3, NULL, NULL);
                if (fd < 0)
                        return 1;
                if (read(fd, request, sizeof(request)) > 0)
                        (void) !write(fd, answer, sizeof(answer) - 1);
                close(fd);
        }
}

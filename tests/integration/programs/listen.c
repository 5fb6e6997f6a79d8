/* SPDX-License-Identifier: MIT */
/* The least that a C program does: its sockets by sd_listen_fds(3), READY=1 and WATCHDOG=1 by sd_notify(3),
 * and SIGTERM only between two requests. Answers as wsgi.py. */

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

static volatile sig_atomic_t stop;

static void on_sigterm(int signo) {
        (void) signo;
        stop = 1;
}

/* Until every writer has closed the FIFO. */
static void wait_for(const char *path) {
        char c;
        int fd;

        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return;
        while (read(fd, &c, 1) > 0)
                ;
        close(fd);
}

static void serve(int fd) {
        char request[4096], body[256] = "hello\n", path[256];
        size_t n = 0;
        ssize_t k;

        do {
                k = read(fd, request + n, sizeof(request) - 1 - n);
                if (k <= 0)
                        return;
                n += (size_t) k;
                request[n] = '\0';
        } while (!strstr(request, "\r\n\r\n"));

        if (strncmp(request, "GET /pid ", strlen("GET /pid ")) == 0)
                snprintf(body, sizeof(body), "%d", (int) getpid());
        else if (sscanf(request, "GET /slow?%255s ", path) == 1)
                wait_for(path);
        dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(body),
                        body);
}

/* A timer for WATCHDOG=1, as often as is asked for; -1 when it is not. Not with every request: each is a
 * message. */
static int watchdog_timer(void) {
        struct itimerspec half = {};
        uint64_t usec;
        int fd;

        if (sd_watchdog_enabled(1, &usec) <= 0)
                return -1;
        half.it_interval.tv_sec = (time_t) (usec / 2 / 1000000);
        half.it_interval.tv_nsec = (long) (usec / 2 % 1000000 * 1000);
        half.it_value = half.it_interval;
        fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (fd < 0 || timerfd_settime(fd, 0, &half, NULL) < 0)
                exit(EXIT_FAILURE);
        sd_notify(0, "WATCHDOG=1");
        return fd;
}

int main(void) {
        struct pollfd polled[] = { { .fd = SD_LISTEN_FDS_START, .events = POLLIN }, { .events = POLLIN } };
        sigset_t blocked, none;

        if (sd_listen_fds(1) != 1) {
                fputs("there must be one socket\n", stderr);
                return EXIT_FAILURE;
        }

        sigemptyset(&none);
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGTERM);
        sigprocmask(SIG_BLOCK, &blocked, NULL); /* it comes in ppoll() alone */
        sigaction(SIGTERM, &(struct sigaction){ .sa_handler = on_sigterm }, NULL);

        polled[1].fd = watchdog_timer();
        sd_notify(0, "READY=1");
        while (!stop) {
                uint64_t n;
                int fd;

                if (ppoll(polled, 2, NULL, &none) < 0)
                        continue; /* EINTR */
                if (polled[1].revents & POLLIN && read(polled[1].fd, &n, sizeof(n)) > 0)
                        sd_notify(0, "WATCHDOG=1");
                if (!(polled[0].revents & POLLIN))
                        continue;
                fd = accept4(polled[0].fd, NULL, NULL, SOCK_CLOEXEC);
                if (fd < 0)
                        continue; /* another worker was quicker */
                serve(fd);
                close(fd);
        }
        sd_notify(0, "STOPPING=1");
        return EXIT_SUCCESS;
}

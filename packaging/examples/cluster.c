/* SPDX-License-Identifier: MIT */
/* A server on every CPU, one program that is primary and worker: ./cluster 8080 & curl 127.0.0.1:8080/
 * Made with: cc cluster.c -o cluster $(pkg-config --cflags --libs muster)
 * GET /fail is an error that a worker should not live on with: its replacement is there before it goes. */
#include <arpa/inet.h>
#include <errno.h>
#include <muster/cluster.h>
#include <muster/worker.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static sd_event *event;

/* The workers' part. A real server would not wait for one client while others do. */
static int on_connection(sd_event_source *s, int server, uint32_t revents, void *worker) {
        char request[4096], answer[128];
        int fd = accept(server, NULL, NULL); /* fails when another worker was faster */
        ssize_t n = fd < 0 ? 0 : recv(fd, request, sizeof(request), 0);

        if (n > 0) {
                int fatal = n > 9 && memcmp(request, "GET /fail", 9) == 0;
                n = snprintf(answer, sizeof(answer), "HTTP/1.0 %s\r\n\r\nworker %u, pid %d\n",
                                fatal ? "500 Oops" : "200 OK", muster_worker_get_id(worker), getpid());
                (void) send(fd, answer, (size_t) n, MSG_NOSIGNAL);
                if (fatal)
                        (void) muster_worker_retire(worker, "somebody asked for /fail");
        }
        return fd >= 0 ? close(fd) : 0;
}

static void on_server(muster_worker *worker, const char *name, int fd, void *userdata) {
        if (sd_event_add_io(event, NULL, fd, EPOLLIN, on_connection, worker) < 0)
                exit(EXIT_FAILURE);
}

static void on_started(muster_worker *worker, void *userdata) {
        (void) muster_worker_ready(worker);
}

static void on_retire(muster_worker *worker, void *userdata) {
        (void) sd_event_exit(event, 0); /* between two events no request is open */
}

/* The primary's part: it opens the server, and looks after the workers. */
static void on_ready(muster_cluster *c, muster_cluster_worker *w, void *userdata) {
        printf("worker %u is ready\n", muster_cluster_worker_get_id(w));
}

static void on_retiring(muster_cluster *c, muster_cluster_worker *w, const char *reason, void *userdata) {
        printf("worker %u wants to go: %s\n", muster_cluster_worker_get_id(w), reason);
}

static void on_exit_of_worker(muster_cluster *c, muster_cluster_worker *w, int code, int status, void *u) {
        printf("worker %u (pid %d) ended: %s %d\n", muster_cluster_worker_get_id(w),
                        muster_cluster_worker_get_pid(w), code == CLD_EXITED ? "status" : "signal", status);
}

static void on_stopped(muster_cluster *c, void *userdata) {
        (void) sd_event_exit(event, 0);
}

static int on_sigterm(sd_event_source *s, const struct signalfd_siginfo *si, void *cluster) {
        return cluster ? muster_cluster_stop(cluster) : sd_event_exit(event, 0);
}

static int open_server(int port) {
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t) port) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
        return bind(fd, (struct sockaddr *) &a, sizeof(a)) < 0 || listen(fd, SOMAXCONN) < 0 ? -1 : fd;
}

int main(int argc, char *argv[]) {
        const muster_worker_handlers as_worker = { sizeof(as_worker), on_server, on_started, on_retire, NULL };
        const muster_cluster_handlers as_primary = { .size = sizeof(as_primary), .ready = on_ready,
                .retiring = on_retiring, .exit = on_exit_of_worker, .stopped = on_stopped };
        muster_cluster *cluster = NULL;
        muster_worker *worker;
        int port = argc > 1 ? atoi(argv[1]) : 8080, r;
        sigset_t set;

        setlinebuf(stdout);
        if (sigemptyset(&set) < 0 || sigaddset(&set, SIGTERM) < 0 || sigprocmask(SIG_BLOCK, &set, NULL) < 0 ||
                        sd_event_new(&event) < 0)
                return EXIT_FAILURE;
        r = muster_worker_from_environment(event, &as_worker, NULL, &worker);
        if (r == -ENXIO && muster_cluster_new(event, NULL, &as_primary, NULL, &cluster) >= 0 &&
                        muster_cluster_add_server(cluster, "http", open_server(port)) >= 0)
                r = muster_cluster_start(cluster);
        if (r < 0 || sd_event_add_signal(event, NULL, SIGTERM, on_sigterm, cluster) < 0)
                return EXIT_FAILURE;
        return sd_event_loop(event);
}

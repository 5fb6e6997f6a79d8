/* SPDX-License-Identifier: MIT */
/* A module that tells where it is, and does what it is told. */
#include <errno.h>
#include <muster/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION 1
#endif

/* As if it had been made for another one. */
#ifdef OTHER_ABI
#undef MUSTER_HTTP_ABI
#define MUSTER_HTTP_ABI OTHER_ABI
#endif

typedef struct Job {
        muster_http_request *request;
        pid_t thread;
} Job;

static void work(void *userdata) {
        Job *job = userdata;

        job->thread = gettid();
        usleep(1000);
}

static void done(void *userdata) {
        Job *job = userdata;

        muster_http_respond_text(
                        job->request, 200, "text/plain", job->thread == getpid() ? "the loop" : "a thread");
        free(job);
}

static void hand_off(muster_http_request *request) {
        Job *job = calloc(1, sizeof(*job));

        if (job)
                job->request = request;
        if (!job || muster_offload(work, done, job) < 0) {
                muster_http_respond_status(request, 503);
                free(job);
        }
}

static void on_request(muster_http_request *request, void *state) {
        const char *path = muster_http_get_path(request), *value = NULL;
        char text[4096] = "";

        if (strcmp(path, "/thread") == 0) {
                hand_off(request);
                return;
        }
        if (strcmp(path, "/crash") == 0)
                *(volatile int *) state = 1;
        else if (strcmp(path, "/hello") == 0)
                value = "hello\n";
        else if (strcmp(path, "/pid") == 0)
                snprintf(text, sizeof(text), "%d", getpid());
        else if (strcmp(path, "/version") == 0)
                snprintf(text, sizeof(text), "%d", VERSION);
        else if (strcmp(path, "/directory") == 0)
                value = getcwd(text, sizeof(text));
        else if (strcmp(path, "/environment") == 0)
                value = getenv(muster_http_get_query(request));
        muster_http_respond_text(request, 200, "text/plain", value ? value : text);
}

static int on_start(void **ret_state) {
        *ret_state = NULL;
        return access("refuse", F_OK) == 0 ? -ENOLINK : 0;
}

MUSTER_HTTP_MODULE("native", .start = on_start, .request = on_request);

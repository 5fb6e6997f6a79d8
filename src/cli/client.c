/* SPDX-License-Identifier: MIT */
/* Requests by libcurl; see client.h. */

#include "cli/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/clock.h"
#include "basic/macro.h"

/* Far more than any answer; against something else that listens there. */
#define BODY_MAX (16 * 1024 * 1024)

_Static_assert(CLIENT_ERROR_MAX >= CURL_ERROR_SIZE, "libcurl writes so much");

static void easy_cleanupp(CURL **curl) {
        curl_easy_cleanup(*curl);
}

static void slist_freep(struct curl_slist **list) {
        curl_slist_free_all(*list);
}

void client_answer_done(ClientAnswer *a) {
        free(a->body);
        *a = (ClientAnswer){ .status = 0 };
}

static size_t on_body(char *data, size_t size, size_t n, void *userdata) {
        ClientAnswer *a = userdata;
        char *p;

        if (n > BODY_MAX - a->n)
                return 0;
        p = realloc(a->body, a->n + n + 1);
        if (!p)
                return 0;
        memcpy(p + a->n, data, n);
        a->body = p;
        a->n += n;
        p[a->n] = '\0';
        return n;
}

static int add_header(struct curl_slist **list, const char *text) {
        struct curl_slist *l = curl_slist_append(*list, text);

        if (!l)
                return -ENOMEM;
        *list = l;
        return 0;
}

/* POST without the fields that libcurl would make up. */
static int set_body(CURL *curl, const ClientRequest *request, struct curl_slist **headers) {
        int r;

        if (strcmp(request->method, "POST") != 0)
                return 0;
        r = add_header(headers, request->json ? "Content-Type: application/json" : "Content-Type:");
        if (r >= 0)
                r = add_header(headers, "Expect:");
        if (r < 0)
                return r;
        curl_easy_setopt(curl, CURLOPT_POST, 1L);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request->json ? request->json : "");
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, request->json ? (long) strlen(request->json) : 0L);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, *headers);
        return 0;
}

static int error_of(CURL *curl, CURLcode code) {
        long os_errno = 0;

        switch (code) {
        case CURLE_OK:
                return 0;
        case CURLE_COULDNT_CONNECT:
                (void) curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &os_errno);
                return os_errno > 0 ? -(int) os_errno : -ECONNREFUSED;
        case CURLE_OPERATION_TIMEDOUT:
                return -ETIMEDOUT;
        case CURLE_GOT_NOTHING:
        case CURLE_RECV_ERROR:
        case CURLE_SEND_ERROR:
        case CURLE_PARTIAL_FILE:
                return -ECONNRESET;
        case CURLE_WRITE_ERROR:
                return -EFBIG;
        case CURLE_OUT_OF_MEMORY:
                return -ENOMEM;
        default:
                return -EPROTO;
        }
}

int client_ask(const ClientRequest *request, ClientAnswer *ret) {
        _cleanup_(slist_freep) struct curl_slist *headers = NULL;
        _cleanup_(easy_cleanupp) CURL *curl = NULL;
        char url[256];
        CURLcode code;
        int r;

        *ret = (ClientAnswer){ .status = 0 };
        curl = curl_easy_init();
        if (!curl)
                return -ENOMEM;
        r = set_body(curl, request, &headers);
        if (r < 0)
                return r;

        snprintf(url, sizeof(url), "http://localhost%s", request->path);
        curl_easy_setopt(curl, CURLOPT_URL, url);
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, request->socket_path);
        curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* whatever the environment says */
        curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(curl, CURLOPT_USERAGENT, "muster");
        curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, ret->error);
        curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
        curl_easy_setopt(curl, CURLOPT_WRITEDATA, ret);
        if (request->timeout_usec > 0)
                curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS,
                                (long) MAX(request->timeout_usec / USEC_PER_MSEC, UINT64_C(1)));

        code = curl_easy_perform(curl);
        (void) curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &ret->status);
        r = error_of(curl, code);
        if (r < 0 && !*ret->error)
                snprintf(ret->error, sizeof(ret->error), "%s", curl_easy_strerror(code));
        if (r == 0 && !ret->body) {
                ret->body = strdup("");
                if (!ret->body)
                        return -ENOMEM;
        }
        return r;
}

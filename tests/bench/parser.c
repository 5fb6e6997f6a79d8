/* SPDX-License-Identifier: MIT */
/* How long it takes to read a request's head, and a body in chunks. The best of many rounds: what else the
 * machine does can only add to it. */

#include <inttypes.h>

#include "basic/macro.h"
#include "bench.h"
#include "http/chunked.h"
#include "http/parser.h"

#define MAX_HEAD   16384
#define BODY       (64 * 1024)
#define ROUNDS     60
#define ROUND_NSEC (3 * 1000 * 1000)
#define BATCH      256

static const char wrk[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

static const char curl[] = "GET /a/page.html HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/8.5.0\r\n"
                           "Accept: */*\r\n\r\n";

static const char browser[] =
                "GET /assets/images/logo-large.png?version=20260512 HTTP/1.1\r\n"
                "Host: www.example.com\r\n"
                "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
                "Accept: image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5\r\n"
                "Accept-Language: en-US,en;q=0.5\r\n"
                "Accept-Encoding: gzip, deflate, br, zstd\r\n"
                "Referer: https://www.example.com/index.html\r\n"
                "Connection: keep-alive\r\n"
                "Cookie: session=5f2c9b1e8a7d4c3b; theme=dark\r\n"
                "If-None-Match: \"6650f3a2-4d1c\"\r\n"
                "Sec-Fetch-Dest: image\r\n"
                "Sec-Fetch-Mode: no-cors\r\n"
                "Sec-Fetch-Site: same-origin\r\n"
                "Priority: u=5, i\r\n"
                "\r\n";

static char cookies[6000], chunks[BODY * 2];
static size_t n_chunks;
static HttpRequest request;

static uint64_t now_nsec(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000 + (uint64_t) t.tv_nsec;
}

static void read_head(const char *text, size_t n) {
        ParserScan scan = { 0 };

        /* The compiler must not know that the text is the same every time. */
        __asm__ volatile("" : "+r"(text) : : "memory");
        if (parser_parse_head(&scan, text, n, MAX_HEAD, &request) != PARSER_DONE)
                abort();
}

static void read_head_by_bytes(const char *text, size_t n) {
        ParserScan scan = { 0 };

        for (size_t i = 1; i <= n; i++)
                if (parser_parse_head(&scan, text, i, MAX_HEAD, &request) != (i == n))
                        abort();
}

static void read_chunks(const char *text, size_t n) {
        Chunked c = { 0 };
        size_t i = 0, used;
        ChunkedPiece piece;
        int r;

        do {
                r = chunked_decode(&c, text + i, n - i, UINT64_MAX, &used, &piece);
                i += used;
        } while (r == PARSER_MORE);
        if (r != PARSER_DONE)
                abort();
}

static void measure(const char *name, void (*read)(const char *text, size_t n), const char *text, size_t n) {
        double best = 1e9;

        for (int i = 0; i < ROUNDS; i++) {
                uint64_t begin = now_nsec(), calls = 0, end;

                do {
                        for (int k = 0; k < BATCH; k++)
                                read(text, n);
                        calls += BATCH;
                        end = now_nsec();
                } while (end - begin < ROUND_NSEC);
                best = MIN(best, (double) (end - begin) / (double) calls);
        }
        printf("%-28s %6zu bytes %10.0f ns\n", name, n, best);
}

static void fill_cookies(void) {
        size_t n = (size_t) snprintf(cookies, sizeof(cookies), "GET / HTTP/1.1\r\nHost: a\r\nCookie: ");

        memset(cookies + n, 'x', sizeof(cookies) - n);
        memcpy(cookies + sizeof(cookies) - 4, "\r\n\r\n", 4);
}

static void fill_chunks(size_t size) {
        n_chunks = 0;
        for (size_t i = 0; i < BODY; i += size) {
                n_chunks += (size_t) sprintf(chunks + n_chunks, "%zx\r\n", size);
                memset(chunks + n_chunks, 'x', size);
                n_chunks += size;
                n_chunks += (size_t) sprintf(chunks + n_chunks, "\r\n");
        }
        n_chunks += (size_t) sprintf(chunks + n_chunks, "0\r\n\r\n");
}

int main(void) {
        fill_cookies();
        measure("head of wrk", read_head, wrk, sizeof(wrk) - 1);
        measure("head of curl", read_head, curl, sizeof(curl) - 1);
        measure("head of a browser", read_head, browser, sizeof(browser) - 1);
        measure("head with a long cookie", read_head, cookies, sizeof(cookies));
        measure("head of wrk, byte by byte", read_head_by_bytes, wrk, sizeof(wrk) - 1);
        measure("browser's, byte by byte", read_head_by_bytes, browser, sizeof(browser) - 1);
        fill_chunks(4096);
        measure("body in chunks of 4096", read_chunks, chunks, n_chunks);
        fill_chunks(16);
        measure("body in chunks of 16", read_chunks, chunks, n_chunks);
        return EXIT_SUCCESS;
}

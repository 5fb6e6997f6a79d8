/* SPDX-License-Identifier: MIT */
/* A connection that gets anything, in any pieces, from a client that reads when it likes and lets any time
 * pass.
 *
 * The first byte seeds the order of events, the rest is what the client sends. Whatever happens, no
 * assertion of the state machine fails, an idle connection owns no buffer, and nothing is left behind. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"
#include "fuzz.h"
#include "http/connection.h"

typedef struct Fuzz {
        BoardCell cell;
        Server server;
        Connection connection;
        ConnectionWant want;
        int client;
        uint32_t random;
} Fuzz;

static void check(bool condition) {
        if (!condition)
                abort();
}

static uint32_t fuzz_next(Fuzz *f, uint32_t n) {
        f->random = f->random * 1664525 + 1013904223;
        return (f->random >> 8) % n;
}

/* Answers of all kinds: text, small and large files, files that are shorter than they seem, errors. */
static int answer(void *userdata, const HandlerCall *call, Response *response) {
        static const uint32_t sizes[] = { 0, 100, 9000, 400000 };
        Fuzz *f = userdata;
        uint32_t kind = fuzz_next(f, 8);

        check(call->request->head_size > 0);
        if (kind == 7)
                return -EIO;
        if (kind >= 4)
                return response_set_error(response, 404), 0;
        response->size = sizes[kind];
        if (kind > 0) {
                response->fd = memfd_create("fuzz", MFD_CLOEXEC);
                check(response->fd >= 0);
                check(ftruncate(response->fd, (off_t) sizes[kind] - (fuzz_next(f, 8) == 0)) == 0);
        }
        return 0;
}

static void fuzz_init(Fuzz *f, uint8_t seed) {
        ServerSettings settings;
        int fds[2];

        *f = (Fuzz){ .random = seed };
        server_settings_init(&settings);
        settings.max_request_head = SERVER_MIN_HEAD;
        server_init(&f->server, &settings, &(Handler){ .answer = answer, .userdata = f }, &f->cell);
        server_set_time(&f->server, USEC_PER_SEC, 1);
        check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
        f->client = fds[1];
        connection_init(&f->connection, &f->server, fds[0]);
}

static void fuzz_read(Fuzz *f) {
        static char buf[65536];

        (void) !recv(f->client, buf, sizeof(buf), 0);
}

static void fuzz_pass_time(Fuzz *f) {
        server_set_time(&f->server, f->server.now + fuzz_next(f, 20) * USEC_PER_SEC, 1);

        Timeout *t = server_next_expired(&f->server);
        if (t) {
                check(t == &f->connection.timeout);
                f->want = connection_expired(&f->connection);
        }
}

/* One event; bytes that were sent are returned. */
static size_t fuzz_step(Fuzz *f, const uint8_t *data, size_t size) {
        size_t n = 1 + fuzz_next(f, 8) * fuzz_next(f, 200);
        ssize_t k = 0;

        switch (fuzz_next(f, 16)) {
        case 0:
                fuzz_pass_time(f);
                return 0;
        case 1:
        case 2:
                fuzz_read(f);
                break;
        case 3:
                if (fuzz_next(f, 8) == 0)
                        server_drain(&f->server);
                break;
        default:
                k = send(f->client, data, MIN(n, size), MSG_NOSIGNAL);
        }
        f->want = connection_ready(&f->connection);
        return k > 0 ? (size_t) k : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static Fuzz f;

        if (size == 0)
                return 0;
        fuzz_init(&f, data[0]);
        data++;
        size--;
        for (int i = 0; i < 1000 && size > 0 && f.want != CONNECTION_WANT_CLOSE; i++) {
                size_t n = fuzz_step(&f, data, size);

                data += n;
                size -= n;
                if (f.connection.state == CONNECTION_IDLE)
                        check(!f.connection.input && !f.connection.output && f.connection.file_fd < 0);
                check((f.want == CONNECTION_WANT_WRITE) <= (f.connection.state == CONNECTION_SENDING));
        }
        connection_done(&f.connection);
        server_done(&f.server);
        safe_close(f.client);
        check(f.cell.connections == 0);
        return 0;
}

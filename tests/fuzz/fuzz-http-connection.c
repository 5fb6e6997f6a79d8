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
        Table table;
        Server server;
        Connection *connection;
        Exchange *open; /* not answered yet */
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

/* Answers of all kinds: text, small and large files, files that are shorter than they seem, errors; streams,
 * and answers that come later or never; with the body, or without. */
static void finish(Exchange *x) {
        static char text[30000];
        static const uint32_t sizes[] = { 0, 100, 9000, 400000 };
        Fuzz *f = x->userdata;
        uint32_t kind = fuzz_next(f, 8);

        f->open = NULL;
        x->response.size = sizes[kind % 4];
        if (kind >= 6) {
                exchange_respond_status(x, 404 + kind);
                return;
        }
        if (kind >= 4) {
                x->response.body = RESPONSE_BODY_MEMORY;
                x->response.memory = text;
                x->response.size = MIN(x->response.size, sizeof(text));
        } else if (kind > 0) {
                x->response.body = RESPONSE_BODY_FILE;
                x->response.fd = memfd_create("fuzz", MFD_CLOEXEC);
                check(x->response.fd >= 0);
                check(ftruncate(x->response.fd, (off_t) sizes[kind] - (fuzz_next(f, 8) == 0)) == 0);
        }
        exchange_respond(x);
}

static void stream(Exchange *x) {
        static const char text[60000];
        Fuzz *f = x->userdata;

        for (uint32_t n = fuzz_next(f, 10); n > 0; n--)
                if (exchange_write(x, text, fuzz_next(f, sizeof(text))) < 0)
                        break;
        if (fuzz_next(f, 4) == 0) {
                f->open = NULL;
                if (fuzz_next(f, 4) == 0)
                        exchange_abort(x);
                else
                        exchange_end(x);
        }
}

static void on_body(Exchange *x, const char *data, size_t n) {
        Fuzz *f = x->userdata;

        check(n > 0 && memchr(data, 0, 0) == NULL);
        exchange_pause_body(x, fuzz_next(f, 4) == 0);
        if (x->phase == EXCHANGE_OPEN && fuzz_next(f, 16) == 0)
                finish(x);
}

static void on_body_end(Exchange *x, int error) {
        Fuzz *f = x->userdata;

        if (x->phase == EXCHANGE_OPEN && fuzz_next(f, 4) > 0)
                finish(x);
}

/* What is open goes on. */
static void go_on(Fuzz *f) {
        Exchange *x = f->open;

        if (!x)
                return;
        exchange_pause_body(x, fuzz_next(f, 8) == 0);
        if (x->phase == EXCHANGE_STREAM)
                stream(x);
        else if (fuzz_next(f, 2) == 0)
                finish(x);
        else if (fuzz_next(f, 2) == 0) {
                if (fuzz_next(f, 2) == 0)
                        x->response.size = RESPONSE_SIZE_UNKNOWN;
                (void) exchange_begin(x);
        }
}

static void request(void *userdata, Exchange *x) {
        Fuzz *f = userdata;

        check(x->request.head_size > 0 && !f->open);
        f->open = x;
        x->userdata = f;
        x->on_body = on_body;
        x->on_body_end = on_body_end;
        x->on_writable = stream;
        if (fuzz_next(f, 2) == 0)
                exchange_read_body(x, 1000);
        if (fuzz_next(f, 4) > 0)
                go_on(f);
}

static void fuzz_init(Fuzz *f, uint8_t seed) {
        ServerSettings settings;
        int fds[2];

        *f = (Fuzz){ .random = seed, .want = CONNECTION_WANT_READ };
        server_settings_init(&settings);
        settings.max_request_head = SERVER_MIN_HEAD;
        settings.proxy_protocol = seed & 1;
        check(server_init_table(&settings, &f->table) == 0);
        check(server_init(&f->server, &settings, &(Handler){ .request = request, .userdata = f }, &f->cell,
                              &f->table) == 0);
        server_set_time(&f->server, USEC_PER_SEC, 1);
        check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
        f->client = fds[1];
        check(connection_open(&f->server, fds[0], &f->connection) == 0);
}

static void fuzz_read(Fuzz *f) {
        static char buf[65536];

        (void) !recv(f->client, buf, sizeof(buf), 0);
}

static void fuzz_pass_time(Fuzz *f) {
        server_set_time(&f->server, f->server.now + fuzz_next(f, 20) * USEC_PER_SEC, 1);

        Timeout *t = server_next_expired(&f->server);
        if (t) {
                check(t == &f->connection->timeout);
                f->want = connection_expired(f->connection);
        }
}

/* It waits for something: an event of its socket, its handler, or the end of a time. */
static void check_alive(const Fuzz *f) {
        const Connection *c = f->connection;
        bool streams = c->exchange && c->exchange->phase == EXCHANGE_STREAM;

        if (f->want == CONNECTION_WANT_CLOSE)
                return;
        check((f->want & (CONNECTION_WANT_READ | CONNECTION_WANT_WRITE)) || c->exchange);
        check(!list_empty(&c->timeout.node) || (streams && c->record->state == CONNECTION_HANDLING));
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
        case 4:
                go_on(f);
                break;
        case 3:
                if (fuzz_next(f, 8) == 0)
                        server_drain(&f->server);
                break;
        case 5:
                if (fuzz_next(f, 8) > 0)
                        break;
                (void) shutdown(f->client, SHUT_WR);
                f->want = connection_hung_up(f->connection, /* half_closed= */ true);
                return 0;
        default:
                k = send(f->client, data, MIN(n, size), MSG_NOSIGNAL);
        }
        f->want = connection_ready(f->connection);
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
                check_alive(&f);
                const Record *r = f.connection->record;
                if (r->state == CONNECTION_IDLE && f.want != CONNECTION_WANT_CLOSE)
                        check(f.connection->input == BUFFER_NONE && r->out.buffer == BUFFER_NONE &&
                                        !f.connection->exchange);
                check(!(f.want & CONNECTION_WANT_WRITE) || r->state == CONNECTION_SENDING ||
                                f.connection->exchange);
        }
        connection_done(f.connection);
        if (f.open)
                exchange_abort(f.open);
        server_done(&f.server);
        table_done(&f.table);
        safe_close(f.client);
        check(f.cell.connections == 0);
        return 0;
}

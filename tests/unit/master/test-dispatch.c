/* SPDX-License-Identifier: MIT */
/* Which worker gets a connection, when, and what becomes of it if that one does not take it. */

#include "node-worker.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "basic/clock.h"

/* What a worker that has refused is left in peace for. */
#define PAUSE_USEC (20 * USEC_PER_MSEC)

#define HOUR_USEC (3600 * USEC_PER_SEC)

#define BIND_PORT "\"address\":\"127.0.0.1\",\"port\":0,\"addressType\":4"

/* Takes so many, which are called after @first and the following numbers, and answers none. */
static void take_all(Node *node, Passed *p, size_t n, unsigned first) {
        char name[16];

        for (size_t i = 0; i < n; i++) {
                p[i] = node_take(node);
                snprintf(name, sizeof(name), "%u", first + (unsigned) i);
                assert_string_equal(p[i].text, name);
        }
}

static void answer_all(Node *node, Passed *p, size_t n) {
        for (size_t i = 0; i < n; i++) {
                node_answer(node, p + i, true);
                p[i].fd = safe_close(p[i].fd);
        }
}

static void forget_all(Passed *p, size_t n) {
        for (size_t i = 0; i < n; i++)
                p[i].fd = safe_close(p[i].fd);
}

/* Whether it seems to hang is a matter of time, which is not to depend on how long a test takes. */
static void set_sent(Node *node, uint64_t usec) {
        list_foreach (n, &node->worker->in_flight)
                list_entry(n, ClusterConnection, node)->sent_usec = usec;
}

/*
 * In turns
 */

/* Each connection is one worker's, by turns, and what is written at one end is read at the other. */
static void test_turns(void **state) {
        Node nodes[3];
        int fds[9];

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        for (unsigned i = 0; i < ELEMENTSOF(nodes); i++)
                node_serve(nodes + i, i + 1, PLACE_PATH);
        clients(0, fds, ELEMENTSOF(fds));
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                Node *node = nodes + i % ELEMENTSOF(nodes);
                Passed p = node_take(node);
                char echo[16] = "";

                assert_int_equal(atoi(p.text), i);
                assert_int_equal(write(p.fd, p.text, strlen(p.text)), strlen(p.text));
                assert_int_equal(read(fds[i], echo, sizeof(echo)), strlen(p.text));
                assert_string_equal(echo, p.text);
                assert_false(client_is_closed(fds[i]));
                node_answer(node, &p, true);
                close(p.fd); /* the worker's was the only one that is left */
                assert_true(client_is_closed(fds[i]));
        }
        assert_int_equal(cluster_count_accepted(cluster), ELEMENTSOF(fds));
        for (size_t i = 0; i < ELEMENTSOF(nodes); i++) {
                assert_int_equal(cluster_worker_get_taken(nodes[i].worker), 3);
                node_end(nodes + i);
        }
        close_all(fds, ELEMENTSOF(fds));
}

/* One that is not ready, is held, was told to go, or has not asked for this socket gets nothing. */
static void test_not_open(void **state) {
        Node ready, starting, held, closed, other;
        int fds[4];

        have_unix("sock");
        have_unix("other");
        begin(BALANCE_AUTO, false);
        node_start(&starting, 1, true, false);
        node_listen(&starting, PLACE_FIRST);
        node_start(&held, 0, true, /* held= */ true);
        node_ask(&held, PLACE_FIRST);
        node_serve(&closed, 2, PLACE_FIRST);
        cluster_worker_close(closed.worker);
        node_serve(&other, 3, "\"address\":null,\"port\":null,\"addressType\":null,\"fd\":4");
        fds[0] = client(0, "0");
        fds[1] = client(0, "1");
        run_what_is_due();
        assert_int_equal(cluster_count_accepted(cluster), 0);
        assert_true(has_queue(0)); /* and nobody turns in circles for it */

        node_serve(&ready, 4, PLACE_FIRST);
        node_serves(&ready, "0");
        node_serves(&ready, "1");
        cluster_worker_set_ready(starting.worker);
        fds[2] = client(0, "2");
        fds[3] = client(0, "3");
        node_serves(&ready, "2");
        node_serves(&starting, "3");
        close_all(fds, 4);

        Node *const nodes[] = { &ready, &starting, &held, &closed, &other };
        for (size_t i = 0; i < ELEMENTSOF(nodes); i++) {
                node_expect_nothing(nodes[i]);
                node_end(nodes[i]);
        }
}

/*
 * The window
 */

/* What nobody can take stays in the kernel's queue; and a full worker is asked again when half of what it
 * had is answered. */
static void test_window(void **state) {
        Passed p[CLUSTER_WINDOW + 4];
        int fds[CLUSTER_WINDOW + 4];
        Node a;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        clients(0, fds, ELEMENTSOF(fds));
        take_all(&a, p, CLUSTER_WINDOW, 0);
        set_sent(&a, clock_now_usec() + HOUR_USEC);
        node_expect_nothing(&a);
        assert_int_equal(cluster_count_accepted(cluster), CLUSTER_WINDOW);
        assert_int_equal(cluster_worker_get_in_flight(a.worker), CLUSTER_WINDOW);
        assert_true(has_queue(0));

        answer_all(&a, p, CLUSTER_WINDOW / 2 - 1);
        node_expect_nothing(&a);
        assert_int_equal(cluster_count_accepted(cluster), CLUSTER_WINDOW);
        answer_all(&a, p + CLUSTER_WINDOW / 2 - 1, 1);
        take_all(&a, p + CLUSTER_WINDOW, 4, CLUSTER_WINDOW);
        assert_false(has_queue(0));
        answer_all(&a, p + CLUSTER_WINDOW / 2, CLUSTER_WINDOW / 2 + 4);
        assert_int_equal(cluster_worker_get_taken(a.worker), ELEMENTSOF(fds));
        assert_int_equal(cluster_worker_get_in_flight(a.worker), 0);
        close_all(fds, ELEMENTSOF(fds));
        node_end(&a);
}

/* Its sibling has room, and gets the rest, also when it gets far ahead by that. */
static void test_one_full(void **state) {
        Passed p[CLUSTER_WINDOW], q;
        int fds[3 * CLUSTER_WINDOW];
        Node a, b;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        clients(0, fds, CLUSTER_WINDOW);
        take_all(&a, p, CLUSTER_WINDOW, 0);
        node_serve(&b, 2, PLACE_PATH);
        clients(0, fds + CLUSTER_WINDOW, 2 * CLUSTER_WINDOW);
        for (unsigned i = 0; i < 2 * CLUSTER_WINDOW; i++) {
                take_all(&b, &q, 1, i);
                answer_all(&b, &q, 1);
        }
        node_expect_nothing(&a);
        answer_all(&a, p, CLUSTER_WINDOW);
        close_all(fds, ELEMENTSOF(fds));
        node_end(&a);
        node_end(&b);
}

/* The answers may come in any order. */
static void test_answers_in_any_order(void **state) {
        Passed p[5];
        int fds[5];
        Node a;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        clients(0, fds, 5);
        take_all(&a, p, 5, 0);
        for (size_t i = 5; i-- > 0;)
                answer_all(&a, p + i, 1);
        assert_int_equal(cluster_worker_get_taken(a.worker), 5);
        assert_true(cluster_worker_get_lag_usec(a.worker) > 0);
        close_all(fds, 5);
        node_end(&a);
}

/*
 * Refused
 */

/* Another one gets it, and the one that has refused is left in peace for a moment. */
static void test_refused(void **state) {
        Node a, b;
        int fds[3];

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        node_serve(&b, 2, PLACE_PATH);
        fds[0] = client(0, "0");
        Passed p = node_take(&a);
        uint64_t refused_usec = clock_now_usec();
        node_answer(&a, &p, false);
        p = node_take(&b); /* its text is read already */
        assert_int_equal(write(fds[0], "again", 5), 5);
        char text[8] = "";
        assert_int_equal(read(p.fd, text, sizeof(text)), 5);
        node_answer(&b, &p, true);
        close(p.fd);

        fds[1] = client(0, "1");
        run_until(node_has_line(&a) || node_has_line(&b));
        if (node_has_line(&a)) /* this process has stood still */
                assert_true(clock_now_usec() - refused_usec >= PAUSE_USEC);
        node_serves(node_has_line(&a) ? &a : &b, "1");
        run_until(a.worker->saturated_usec <= clock_now_usec());
        fds[2] = client(0, "2");
        run_until(node_has_line(&a) || node_has_line(&b));
        node_serves(node_has_line(&a) ? &a : &b, "2");
        close_all(fds, 3);
        node_end(&a);
        node_end(&b);
}

/* All that there are refuse it: it is offered again and again, but not more often than it has to be. */
static void test_refused_by_all(void **state) {
        Node a, b;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        node_serve(&b, 2, PLACE_PATH);
        int fd = client(0, "0");
        uint64_t begin_usec = clock_now_usec();
        for (unsigned i = 0; i < 5; i++) {
                Passed p = node_take(&a);
                node_answer(&a, &p, false);
                p = node_take(&b);
                node_answer(&b, &p, false);
        }
        assert_true(clock_now_usec() - begin_usec >= 4 * PAUSE_USEC);
        Passed p = node_take(&a);
        node_answer(&a, &p, true);
        assert_false(client_is_closed(fd));
        close(p.fd);
        assert_true(client_is_closed(fd));
        assert_int_equal(cluster_count_accepted(cluster), 1);
        close(fd);
        node_end(&a);
        node_end(&b);
}

/* Its descriptor has not arrived: as good as refused, and it was the first one that is not answered. */
static void test_nack(void **state) {
        Passed p[2];
        int fds[4];
        Node a, b;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        node_serve(&b, 2, PLACE_PATH);
        clients(0, fds, 4);
        for (size_t i = 0; i < 2; i++) {
                p[i] = node_take(&a);
                node_serves(&b, i == 0 ? "1" : "3");
        }
        assert_string_equal(p[1].text, "2");
        node_nack(&a, p);
        Passed q = node_take(&b);
        assert_string_equal(q.text, "");
        assert_int_equal(write(fds[0], "0", 1), 1);
        assert_int_equal(read(q.fd, q.text, 2), 1);
        node_answer(&b, &q, true);
        close(q.fd);
        answer_all(&a, p + 1, 1);
        assert_int_equal(cluster_worker_get_taken(a.worker), 1);
        assert_int_equal(cluster_worker_get_taken(b.worker), 3);
        close_all(fds, 4);
        node_end(&a);
        node_end(&b);
}

/* The socket of a connection that is refused was closed meanwhile: nobody wants it, but the worker wants
 * those of its other one. */
static void test_refused_after_close(void **state) {
        Address bound;
        Node a;

        have_unix("sock");
        have_unix("other");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, BIND_PORT);
        bound = list_entry(cluster->sockets.next, ClusterSocket, node)->address;
        int fd = client_of(&bound);
        Passed p = node_take(&a);
        node_close(&a);
        node_listen(&a, PLACE_FIRST);
        node_answer(&a, &p, false);
        assert_true(client_is_closed(fd));
        close(fd);
        fd = client(0, "x"); /* while it is left in peace */
        node_serves(&a, "x");
        close(fd);
        node_end(&a);
}

/* Not if it has taken it. */
static void test_taken_after_close(void **state) {
        Node a;

        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, BIND_PORT);
        int fd = client_of(&list_entry(cluster->sockets.next, ClusterSocket, node)->address);
        Passed p = node_take(&a);
        node_close(&a);
        node_answer(&a, &p, true);
        assert_false(client_is_closed(fd));
        close(p.fd);
        close(fd);
        node_end(&a);
}

/* A worker closes its socket and has it again: meanwhile they wait in the kernel's queue. */
static void test_close_and_listen(void **state) {
        Node a;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        node_close(&a);
        int fd = client(0, "x");
        node_expect_nothing(&a);
        assert_true(has_queue(0));
        node_listen(&a, PLACE_PATH);
        node_serves(&a, "x");
        close(fd);
        node_end(&a);
}

/*
 * A ping
 */

/* Before it is answered nothing with a descriptor follows: connections are for its sibling, and what that
 * has no room for waits in the kernel's queue. */
static void test_ping(void **state) {
        Passed p[CLUSTER_WINDOW];
        int fds[CLUSTER_WINDOW + 1];
        Node a, b;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        node_serve(&b, 2, PLACE_PATH);
        cluster_worker_ping(a.worker);
        cluster_worker_ping(a.worker);
        clients(0, fds, ELEMENTSOF(fds));
        take_all(&b, p, CLUSTER_WINDOW, 0);
        node_expect_nothing(&b);
        node_expect(&a, CLUSTER_PING);
        node_expect_nothing(&a);
        assert_true(has_queue(0));
        node_say(&a, "{\"cmd\":\"NODE_HANDLE_NACK\"}");
        assert_true(cluster_worker_get_lag_usec(a.worker) > 0);
        node_serves(&a, "16");
        answer_all(&b, p, CLUSTER_WINDOW);
        cluster_worker_ping(a.worker);
        node_expect(&a, CLUSTER_PING);
        close_all(fds, ELEMENTSOF(fds));
        node_end(&a);
        node_end(&b);
}

/* It comes behind connections that are on their way, and is answered after them. */
static void test_ping_behind_connections(void **state) {
        Passed p[2];
        int fds[3];
        Node a;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        clients(0, fds, 2);
        take_all(&a, p, 2, 0);
        cluster_worker_ping(a.worker);
        fds[2] = client(0, "2");
        answer_all(&a, p, 2);
        node_expect(&a, CLUSTER_PING);
        node_expect_nothing(&a);
        node_say(&a, "{\"cmd\":\"NODE_HANDLE_NACK\"}");
        node_serves(&a, "2");
        close_all(fds, 3);
        node_end(&a);
}

/*
 * A worker's end
 */

/* What it has not answered is its sibling's, in the order in which it came. */
static void test_end(void **state) {
        Passed p[6], q[6];
        int fds[12];
        Node a, b;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        node_serve(&b, 2, PLACE_PATH);
        clients(0, fds, 12);
        for (size_t i = 0; i < 6; i++) {
                p[i] = node_take(&a);
                q[i] = node_take(&b);
                assert_int_equal(atoi(p[i].text), 2 * i);
        }
        answer_all(&b, q, 6);
        answer_all(&a, p + 3, 1); /* that one it had, and that one is lost with it */
        forget_all(p, 6);
        node_end(&a);
        for (size_t i = 0; i < 6; i++) {
                char text[4] = "";

                if (i == 3)
                        continue;
                Passed again = node_take(&b);
                assert_int_equal(write(fds[2 * i], "me", 2), 2);
                assert_int_equal(read(again.fd, text, sizeof(text)), 2);
                node_answer(&b, &again, true);
                close(again.fd);
        }
        node_expect_nothing(&b);
        assert_true(client_is_closed(fds[6]));
        close_all(fds, 12);
        node_end(&b);
}

/* What it has said before its end counts, also if nobody has listened yet. */
static void test_last_words(void **state) {
        Passed p[3];
        int fds[3];
        Node a, b;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        clients(0, fds, 3);
        take_all(&a, p, 3, 0);
        node_serve(&b, 2, PLACE_PATH);
        raw_text(a.raw, ACK "{\"cmd\":\"NODE_CLUSTER\",\"ack\":1,\"accepted\":true}\n" ACK
                            "{\"cmd\":\"NODE_CLUSTER\",\"ack\":2,\"accepted\":true}\n");
        assert_int_equal(p[0].seq, 1);
        forget_all(p, 3);
        node_end(&a);
        Passed q = node_take(&b);
        node_answer(&b, &q, true);
        close(q.fd);
        node_expect_nothing(&b);
        assert_true(client_is_closed(fds[0]) && client_is_closed(fds[1]));
        close_all(fds, 3);
        node_end(&b);
}

/* Without a sibling they wait for the successor, who has them before those in the kernel's queue. */
static void test_end_of_the_last(void **state) {
        Passed p[3];
        int fds[4];
        Node a;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        clients(0, fds, 3);
        take_all(&a, p, 3, 0);
        forget_all(p, 3);
        node_end(&a);
        fds[3] = client(0, "3");
        for (size_t i = 0; i < 3; i++)
                assert_false(client_is_closed(fds[i]));

        node_serve(&a, 1, PLACE_PATH);
        for (size_t i = 0; i < 3; i++) {
                Passed q = node_take(&a);
                char text[2] = "";

                assert_int_equal(write(fds[i], &"012"[i], 1), 1);
                assert_int_equal(read(q.fd, text, 1), 1);
                assert_int_equal(atoi(text), i);
                node_answer(&a, &q, true);
                close(q.fd);
        }
        node_serves(&a, "3");
        close_all(fds, 4);
        node_end(&a);
}

/* One that has retired takes the socket with it that was bound for it alone, and so what has not been
 * answered has nowhere to go. */
static void test_end_with_its_socket(void **state) {
        Passed p[2];
        int fds[2];
        Node a;

        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, BIND_PORT);
        for (size_t i = 0; i < 2; i++) {
                fds[i] = client_of(&list_entry(cluster->sockets.next, ClusterSocket, node)->address);
                p[i] = node_take(&a);
        }
        cluster_worker_close(a.worker);
        forget_all(p, 2);
        node_end(&a);
        assert_true(list_empty(&cluster->sockets));
        assert_true(client_is_closed(fds[0]) && client_is_closed(fds[1]));
        close_all(fds, 2);
}

/* It may end with its channel full of what it has not read. */
static void test_end_in_a_rush(void **state) {
        int fds[3 * CLUSTER_WINDOW];
        Node a, b;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        node_serve(&b, 2, PLACE_PATH);
        clients(0, fds, ELEMENTSOF(fds));
        run_what_is_due();
        assert_int_equal(cluster_count_accepted(cluster), 2 * CLUSTER_WINDOW);
        node_end(&a); /* without having read a line */
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                Passed p = node_take(&b);
                node_answer(&b, &p, true);
                close(p.fd);
        }
        node_expect_nothing(&b);
        close_all(fds, ELEMENTSOF(fds));
        node_end(&b);
}

/*
 * By the client's address
 */

/* From that address of the loopback network, which all are this machine's. */
static int client_from(const char *host, const Address *to) {
        struct sockaddr_in in = { .sin_family = AF_INET };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(inet_pton(AF_INET, host, &in.sin_addr), 1);
        assert_int_equal(bind(fd, (const struct sockaddr *) &in, sizeof(in)), 0);
        assert_int_equal(connect(fd, &to->sockaddr.any, to->size), 0);
        return fd;
}

static Passed take_of_either(Node *a, Node *b, Node **ret) {
        run_until(node_has_line(a) || node_has_line(b));
        *ret = node_has_line(a) ? a : b;
        return node_take(*ret);
}

/* A client is always one worker's, and others are the other one's. */
static void test_source(void **state) {
        Node a, b, *whose[8];

        have_listener("http", "127.0.0.1:0", SOCK_STREAM);
        begin(BALANCE_SOURCE, false);
        node_serve(&a, 1, PLACE_PORT);
        node_serve(&b, 2, PLACE_PORT);
        for (size_t i = 0; i < 3 * ELEMENTSOF(whose); i++) {
                size_t who = i % ELEMENTSOF(whose);
                char host[16];
                Node *node;

                snprintf(host, sizeof(host), "127.0.0.%zu", 10 + who);
                int fd = client_from(host, &items[0].address);
                Passed p = take_of_either(&a, &b, &node);
                if (i >= ELEMENTSOF(whose))
                        assert_ptr_equal(node, whose[who]);
                whose[who] = node;
                node_answer(node, &p, true);
                close(p.fd);
                close(fd);
        }
        assert_true(cluster_worker_get_taken(a.worker) > 0);
        assert_true(cluster_worker_get_taken(b.worker) > 0);
        node_end(&a);
        node_end(&b);
}

/* One client's connections are all that its worker can take. Returns that. */
static Node *fill_its_worker(Node *a, Node *b, Passed *p, int *fds) {
        Node *mine;

        have_listener("http", "127.0.0.1:0", SOCK_STREAM);
        begin(BALANCE_SOURCE, false);
        node_serve(a, 1, PLACE_PORT);
        node_serve(b, 2, PLACE_PORT);
        for (size_t i = 0; i < CLUSTER_WINDOW; i++) {
                fds[i] = client_from("127.0.0.1", &items[0].address);
                p[i] = take_of_either(a, b, &mine);
                set_sent(mine, clock_now_usec() + HOUR_USEC);
        }
        assert_int_equal(cluster_worker_get_in_flight(mine->worker), CLUSTER_WINDOW);
        return mine;
}

/* It waits for that one, and goes to the other one when that one ends. */
static void test_source_waits(void **state) {
        Passed p[CLUSTER_WINDOW + 1];
        int fds[CLUSTER_WINDOW + 1];
        Node a, b, *mine, *other;

        mine = fill_its_worker(&a, &b, p, fds);
        other = mine == &a ? &b : &a;
        fds[CLUSTER_WINDOW] = client_from("127.0.0.1", &items[0].address);
        run_until(cluster_count_accepted(cluster) == CLUSTER_WINDOW + 1);
        node_expect_nothing(&a);
        node_expect_nothing(&b);

        forget_all(p, CLUSTER_WINDOW);
        node_end(mine);
        for (size_t i = 0; i < CLUSTER_WINDOW + 1; i++) {
                p[i] = node_take(other);
                answer_all(other, p + i, 1);
        }
        close_all(fds, CLUSTER_WINDOW + 1);
        node_end(other);
}

/* For one that hangs it does not wait, also if nothing else happens. */
static void test_source_stalled(void **state) {
        Passed p[CLUSTER_WINDOW + 1];
        int fds[CLUSTER_WINDOW + 1];
        Node a, b, *mine, *other;

        mine = fill_its_worker(&a, &b, p, fds);
        other = mine == &a ? &b : &a;
        fds[CLUSTER_WINDOW] = client_from("127.0.0.1", &items[0].address);
        run_until(cluster_count_accepted(cluster) == CLUSTER_WINDOW + 1);
        node_expect_nothing(other);
        set_sent(mine, clock_now_usec() - USEC_PER_SEC);
        p[CLUSTER_WINDOW] = node_take(other);
        forget_all(p, CLUSTER_WINDOW + 1);
        close_all(fds, CLUSTER_WINDOW + 1);
        node_end(mine);
        node_end(other);
}

/* All clients of a unix socket look the same. */
static void test_source_of_unix(void **state) {
        Node a, b;
        int fds[2];

        have_unix("sock");
        begin(BALANCE_SOURCE, false);
        node_serve(&a, 1, PLACE_PATH);
        node_serve(&b, 2, PLACE_PATH);
        clients(0, fds, 2);
        node_serves(&a, "0");
        node_serves(&b, "1");
        close_all(fds, 2);
        node_end(&a);
        node_end(&b);
}

/*
 * Behind a proxy
 */

#define PROXY_HEADER_SIZE 28

/* A header of a client at 10.0.0.@host. */
static void proxy_header(uint8_t buf[static PROXY_HEADER_SIZE], uint8_t host) {
        static const uint8_t head[] =
                        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\x0A\0\0\0\x0A\0\0\x63\x30\x39\0\x50";

        assert_int_equal(sizeof(head) - 1, PROXY_HEADER_SIZE);
        memcpy(buf, head, PROXY_HEADER_SIZE);
        buf[19] = host;
}

static void begin_behind_proxy(Node *a, Node *b) {
        have_unix("sock");
        have_unix("other");
        begin(BALANCE_SOURCE, /* proxy_protocol= */ true);
        node_serve(a, 1, PLACE_FIRST);
        node_serve(b, 2, PLACE_FIRST);
}

/* The header says who the client is, also where the connection does not; the app sees what follows. */
static void test_proxy(void **state) {
        uint8_t header[PROXY_HEADER_SIZE];
        Node a, b, *whose[8];

        begin_behind_proxy(&a, &b);
        for (size_t i = 0; i < 2 * ELEMENTSOF(whose); i++) {
                size_t who = i % ELEMENTSOF(whose);
                Node *node;

                proxy_header(header, (uint8_t) who);
                int fd = client_of(&items[0].address);
                assert_int_equal(write(fd, header, sizeof(header)), sizeof(header));
                assert_int_equal(write(fd, "GET /", 5), 5);
                Passed p = take_of_either(&a, &b, &node);
                assert_string_equal(p.text, "GET /");
                if (i >= ELEMENTSOF(whose))
                        assert_ptr_equal(node, whose[who]);
                whose[who] = node;
                node_answer(node, &p, true);
                close(p.fd);
                close(fd);
        }
        assert_true(cluster_worker_get_taken(a.worker) > 0);
        assert_true(cluster_worker_get_taken(b.worker) > 0);
        node_end(&a);
        node_end(&b);
}

/* It may come byte by byte, and other connections do not wait for it. */
static void test_proxy_in_pieces(void **state) {
        uint8_t header[PROXY_HEADER_SIZE];
        Node a, b, *node;

        begin_behind_proxy(&a, &b);
        proxy_header(header, 1);
        int slow = client_of(&items[0].address);
        for (size_t i = 0; i < PROXY_HEADER_SIZE - 1; i++) {
                assert_int_equal(write(slow, header + i, 1), 1);
                node_expect_nothing(&a);
                node_expect_nothing(&b);
        }
        int fast = client_of(&items[0].address);
        assert_int_equal(write(fast, header, sizeof(header)), sizeof(header));
        Passed p = take_of_either(&a, &b, &node);
        assert_string_equal(p.text, "");
        node_answer(node, &p, true);
        close(p.fd);
        assert_int_equal(write(slow, header + PROXY_HEADER_SIZE - 1, 1), 1);
        assert_int_equal(write(slow, "slow", 4), 4);
        p = take_of_either(&a, &b, &node);
        assert_string_equal(p.text, "slow");
        node_answer(node, &p, true);
        close(p.fd);
        close(slow);
        close(fast);
        node_end(&a);
        node_end(&b);
}

/* Without a header a connection is nobody's, and closed. */
static void test_proxy_wrong(void **state) {
        static const char *const texts[] = { "GET / HTTP/1.1\r\n", "\r\n\r\nX",
                "PROXY TCP4 10.0.0.1 10.0.0.2 1 02\r\n" };
        Node a, b;

        begin_behind_proxy(&a, &b);
        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                int fd = client(0, texts[i]);
                run_until(client_is_closed(fd));
                close(fd);
        }
        int fd = client(0, "\r\n\r\n");
        run_what_is_due();
        close(fd); /* in the middle of it */
        run_until(cluster->n_proxies == 0);
        node_expect_nothing(&a);
        node_expect_nothing(&b);
        node_end(&a);
        node_end(&b);
}

/* Its worker goes while it is read, and so does the socket: it is closed, or waits for the next one. */
static void test_proxy_without_worker(void **state) {
        uint8_t header[PROXY_HEADER_SIZE];
        Node a, b;

        begin_behind_proxy(&a, &b);
        proxy_header(header, 1);
        int fd = client_of(&items[0].address);
        run_until(cluster->n_proxies == 1);
        node_end(&a);
        node_end(&b);
        assert_int_equal(write(fd, header, sizeof(header)), sizeof(header));
        run_until(cluster->n_proxies == 0);
        assert_false(client_is_closed(fd));
        node_serve(&a, 1, PLACE_FIRST);
        node_serves(&a, "");
        close(fd);
        node_end(&a);

        node_serve(&a, 1, BIND_PORT ",\"index\":1");
        ClusterSocket *s = list_entry(cluster->sockets.prev, ClusterSocket, node);
        assert_true(s->is_bound);
        fd = client_of(&s->address);
        run_until(cluster->n_proxies == 1);
        node_close(&a);
        assert_int_equal(write(fd, header, sizeof(header)), sizeof(header));
        run_until(client_is_closed(fd));
        close(fd);
        node_end(&a);
}

static void on_header(const ProxyHeader *header, const char *reason, void *userdata) {
        char *buf = userdata;

        assert_null(header);
        assert_string_equal(buf, "");
        strcpy(buf, reason);
}

/* Whoever does not say in time who he is is not waited for. */
static void test_proxy_too_late(void **state) {
        char reason[PROXY_REASON_MAX] = "";
        ProxyReader *r;
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
        assert_int_equal(write(fds[1], "\r\n\r\n", 4), 4);
        assert_int_equal(proxy_reader_new(event, fds[0], 1000, on_header, reason, &r), 0);
        run_until(*reason);
        assert_string_equal(reason, "it did not come in time");
        proxy_reader_free(r);
        run_what_is_due();
        close_all(fds, 2);
}

/* All of the limit are awaited: no more are accepted until one is done. */
static void test_many_proxies(void **state) {
        int *fds = calloc(CLUSTER_PROXIES_MAX + 1, sizeof(int));
        Node a, b;

        assert_non_null(fds);
        begin_behind_proxy(&a, &b);
        for (size_t i = 0; i <= CLUSTER_PROXIES_MAX; i++) {
                fds[i] = client_of(&items[0].address);
                run_what_is_due();
        }
        assert_int_equal(cluster->n_proxies, CLUSTER_PROXIES_MAX);
        assert_true(has_queue(0));
        fds[0] = safe_close(fds[0]);
        run_until(cluster_count_accepted(cluster) == CLUSTER_PROXIES_MAX + 1);
        assert_int_equal(cluster->n_proxies, CLUSTER_PROXIES_MAX);
        close_all(fds, CLUSTER_PROXIES_MAX + 1);
        node_end(&a);
        node_end(&b);
        free(fds);
}

/*
 * Beside the cluster
 */

/* A unix socket that nobody asks for is the app's too, whatever its port. */
static void test_unix_beside(void **state) {
        Node a;
        int fd;

        have_unix("sock");
        have_listener("http", "127.0.0.1:0", SOCK_STREAM);
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PORT);
        int near = client(0, "near");
        node_serves(&a, "near");
        int far = client(1, "far");
        Passed p = node_take(&a);
        node_answer(&a, &p, true);
        close(p.fd);
        close(near);
        close(far);
        node_end(&a);

        /* Also where the workers have the port themselves. */
        node_start(&a, 1, /* passed= */ false, false);
        node_ask(&a, PLACE_PORT);
        free(node_line(&a, &fd));
        close(fd);
        cluster_worker_set_ready(a.worker);
        far = client(1, "far");
        near = client(0, "near");
        node_serves(&a, "near");
        node_expect_nothing(&a);
        assert_true(has_queue(1));
        close(near);
        close(far);
        node_end(&a);
}

/* What waits at the stop of the service is closed, and so is what comes back; what a worker has is its. */
static void test_stop(void **state) {
        Passed p[3];
        int fds[3];
        Node a, b;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        fds[0] = client(0, "0");
        take_all(&a, p, 1, 0);
        forget_all(p, 1);
        node_end(&a);
        node_serve(&b, 2, PLACE_PATH);
        p[0] = node_take(&b);
        fds[1] = client(0, "1");
        fds[2] = client(0, "2");
        take_all(&b, p + 1, 2, 1);
        node_answer(&b, p, false); /* it waits */
        cluster_stop(cluster);
        cluster_worker_disconnect(b.worker);
        assert_true(client_is_closed(fds[0]));
        node_answer(&b, p + 1, true);
        assert_false(client_is_closed(fds[1]));
        node_answer(&b, p + 2, false);
        assert_true(client_is_closed(fds[2]));
        forget_all(p, 3);
        close_all(fds, 3);
        node_end(&b);
}

/* Those whose header is awaited wait as well. */
static void test_stop_behind_proxy(void **state) {
        Node a, b;

        begin_behind_proxy(&a, &b);
        int fd = client_of(&items[0].address);
        run_until(cluster->n_proxies == 1);
        cluster_stop(cluster);
        assert_true(client_is_closed(fd));
        close(fd);
        node_end(&a);
        node_end(&b);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cluster_test(test_turns),
                cluster_test(test_not_open),
                cluster_test(test_window),
                cluster_test(test_one_full),
                cluster_test(test_answers_in_any_order),
                cluster_test(test_refused),
                cluster_test(test_refused_by_all),
                cluster_test(test_nack),
                cluster_test(test_refused_after_close),
                cluster_test(test_taken_after_close),
                cluster_test(test_close_and_listen),
                cluster_test(test_ping),
                cluster_test(test_ping_behind_connections),
                cluster_test(test_end),
                cluster_test(test_last_words),
                cluster_test(test_end_of_the_last),
                cluster_test(test_end_with_its_socket),
                cluster_test(test_end_in_a_rush),
                cluster_test(test_source),
                cluster_test(test_source_waits),
                cluster_test(test_source_stalled),
                cluster_test(test_source_of_unix),
                cluster_test(test_proxy),
                cluster_test(test_proxy_in_pieces),
                cluster_test(test_proxy_wrong),
                cluster_test(test_proxy_without_worker),
                cluster_test(test_proxy_too_late),
                cluster_test(test_many_proxies),
                cluster_test(test_unix_beside),
                cluster_test(test_stop),
                cluster_test(test_stop_behind_proxy),
        };

        return cmocka_run_group_tests(tests, setup_directory, teardown_directory);
}

/* SPDX-License-Identifier: MIT */
/* What the operations do, in the table of a real server: its answers, its errors, and two who want the same
 * thing at once. */

#include "../unit.h"

#include <sys/syscall.h>

#include "postgresql-server.h"
#include "state-client.h"

static Server server;
static const StateDriver *driver;
static sd_event *event;
static Client one, two;

static StateUrl server_url(void) {
        static char host[80], port[20], *parameters[] = { host, port, NULL };

        snprintf(host, sizeof(host), "host=%s", server.dir);
        snprintf(port, sizeof(port), "port=%s", server.port);
        return (StateUrl){ .driver = (char *) "postgresql",
                .user = (char *) "postgres",
                .path = (char *) "postgres",
                .parameters = parameters };
}

static int set_up(void **state) {
        StateUrl url = server_url();

        client_init(&one, driver, event, &url);
        client_init(&two, driver, event, &url);
        assert_int_equal(client_connect(&one, NULL), 0);
        assert_int_equal(client_connect(&two, NULL), 0);
        return 0;
}

static int tear_down(void **state) {
        client_done(&one);
        client_done(&two);
        server_do(&server, "TRUNCATE muster_state");
        return 0;
}

static void expire(const char *keys) {
        _cleanup_free_ char *sql = NULL;

        assert_true(asprintf(&sql,
                                    "UPDATE muster_state SET expires = clock_timestamp()"
                                    " WHERE encode(key, 'escape') LIKE '%s'",
                                    keys) > 0);
        server_do(&server, sql);
}

static int do_add(Client *c, StateBytes key, int64_t difference, int64_t *ret) {
        _cleanup_op_ Op o = { .op = { .verb = STATE_ADD, .key = key, .difference = difference } };
        int r = op_do(c, &o);

        if (r == 0)
                *ret = o.number;
        return r;
}

/* Bytes are bytes, in keys and in values, and may be none in a value. */
static void test_bytes(void **state) {
        StateBytes key = BYTES("k\0e\xff\x80y\0"), value = BYTES("\0v\0\xfe\n\\x00'");
        _cleanup_op_ Op get = { .op = { .verb = STATE_GET, .key = key } };

        assert_int_equal(DO(&one, { .verb = STATE_GET, .key = key }), -ENOENT);
        assert_int_equal(do_set(&one, key, value), 0);
        assert_int_equal(op_do(&two, &get), 0);
        assert_int_equal(get.value_size, value.size);
        assert_memory_equal(get.value, value.data, value.size);
        ASSERT_ABSENT(&one, BYTES("k\0e\xff\x80y"));
        ASSERT_ABSENT(&one, BYTES("k"));

        assert_int_equal(do_set(&one, key, (StateBytes){ NULL, 0 }), 0);
        ASSERT_VALUE(&two, key, "");
        assert_int_equal(DO(&one, { .verb = STATE_DELETE, .key = key }), 0);
        assert_int_equal(DO(&one, { .verb = STATE_DELETE, .key = key }), -ENOENT);
        ASSERT_ABSENT(&two, key);
}

static void test_longest_key(void **state) {
        char name[MUSTER_STATE_KEY_MAX];
        StateBytes key = { name, sizeof(name) };

        memset(name, 0xFF, sizeof(name));
        assert_int_equal(do_set(&one, key, bytes("x")), 0);
        ASSERT_VALUE(&one, key, "x");
        key.size--;
        ASSERT_ABSENT(&one, key);
}

/* A version is another one after each write, also when the key was deleted in between. */
static void test_versions(void **state) {
        StateBytes key = bytes("v");
        uint64_t first, second;
        Op o[4];

        for (size_t i = 0; i < 4; i++)
                o[i] = (Op){ .op = { .verb = STATE_SET, .key = key, .value = bytes("same") } };
        assert_int_equal(op_do(&one, &o[0]), 0);
        first = o[0].version;
        assert_true(first > 0);
        o[1].op.if_version = first + 1000;
        assert_int_equal(op_do(&two, &o[1]), -ESTALE);
        o[2].op.if_version = first;
        assert_int_equal(op_do(&two, &o[2]), 0);
        second = o[2].version;
        assert_true(second > 0 && second != first);
        o[3].op.if_version = first;
        assert_int_equal(op_do(&one, &o[3]), -ESTALE);
        for (size_t i = 0; i < 4; i++)
                op_done(&o[i]);

        _cleanup_op_ Op get = { .op = { .verb = STATE_GET, .key = key } };
        assert_int_equal(op_do(&one, &get), 0);
        assert_true(get.version == second);

        assert_int_equal(DO(&one, { .verb = STATE_DELETE, .key = key, .if_version = first }), -ESTALE);
        assert_int_equal(DO(&one, { .verb = STATE_DELETE, .key = key, .if_version = second }), 0);
        assert_int_equal(DO(&one, { .verb = STATE_DELETE, .key = key, .if_version = second }), -ESTALE);
        assert_int_equal(DO(&one, { .verb = STATE_SET, .key = key, .if_version = second }), -ESTALE);
        _cleanup_op_ Op again = { .op = { .verb = STATE_SET, .key = key, .if_absent = true } };
        assert_int_equal(op_do(&one, &again), 0);
        assert_true(again.version != first && again.version != second);
        assert_int_equal(DO(&one, { .verb = STATE_SET, .key = key, .if_absent = true }), -EEXIST);
}

static void fill(char *data, size_t size, unsigned seed) {
        for (size_t i = 0; i + 4 <= size; i += 4) {
                seed = seed * 1664525 + 1013904223;
                memcpy(data + i, &seed, 4);
        }
}

/* The largest values, with small operations before and behind them; they come in the order of the calls. */
static void test_large_values(void **state) {
        char *data = malloc(MUSTER_STATE_VALUE_MAX);
        Op o[9] = { 0 };

        fill(data, MUSTER_STATE_VALUE_MAX, 1);
        for (size_t i = 0; i < ELEMENTSOF(o); i++) {
                o[i].op = (StateOperation){ .verb = i < 6 ? STATE_SET : STATE_GET,
                        .key = bytes(i % 2 ? "large" : "small") };
                if (i < 6)
                        o[i].op.value = (StateBytes){ data, i % 2 ? MUSTER_STATE_VALUE_MAX : 10 + i };
                op_begin(&one, &o[i]);
        }
        for (size_t i = 0; i < ELEMENTSOF(o); i++) {
                assert_int_equal(op_wait(&o[i]), 0);
                assert_int_equal(o[i].place, i + 1);
        }
        assert_int_equal(o[6].value_size, 14);
        assert_int_equal(o[7].value_size, MUSTER_STATE_VALUE_MAX);
        assert_memory_equal(o[7].value, data, MUSTER_STATE_VALUE_MAX);
        for (size_t i = 0; i < ELEMENTSOF(o); i++)
                op_done(&o[i]);
        free(data);
}

#define N_PIPELINED 10000

/* As many as the core lets wait, all at once: each ends once, in order, with its own outcome. */
static void test_pipeline(void **state) {
        Op *o = calloc(N_PIPELINED, sizeof(*o));
        char(*keys)[16] = calloc(N_PIPELINED, sizeof(*keys));

        for (size_t i = 0; i < N_PIPELINED; i++) {
                snprintf(keys[i], sizeof(keys[i]), "p%zu", i % 4 == 3 ? i : i % 400 / 4);
                o[i].op.key = bytes(keys[i]);
                o[i].op.verb = (StateVerb[]){ STATE_SET, STATE_GET, STATE_ADD, STATE_GET }[i % 4];
                o[i].op.value = bytes("41");
                o[i].op.difference = 1;
                op_begin(&one, &o[i]);
        }
        RUN_UNTIL(event, one.n_finished == N_PIPELINED);
        for (size_t i = 0; i < N_PIPELINED; i++) {
                assert_int_equal(o[i].place, i + 1);
                assert_int_equal(o[i].error, i % 4 == 3 ? -ENOENT : 0);
                if (i % 4 == 1)
                        assert_string_equal(o[i].value, "41");
                if (i % 4 == 2)
                        assert_int_equal(o[i].number, 42);
                op_done(&o[i]);
        }
        free(keys);
        free(o);
}

/* One that the server refuses, at the statement or only when it commits, leaves its neighbours alone. */
static void test_error_in_pipeline(void **state) {
        static const char *const keys[] = { "a", "statement", "b", "commit", "c" };
        Op o[ELEMENTSOF(keys)] = { 0 };

        server_do(&server, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                           " $$ BEGIN RAISE EXCEPTION 'not %', encode(NEW.key, 'escape'); END $$;"
                           "CREATE TRIGGER refuse_statement BEFORE INSERT ON muster_state FOR EACH ROW"
                           " WHEN (NEW.key = 'statement') EXECUTE FUNCTION refuse();"
                           "CREATE CONSTRAINT TRIGGER refuse_commit AFTER INSERT ON muster_state"
                           " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
                           " WHEN (NEW.key = 'commit') EXECUTE FUNCTION refuse()");
        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                o[i].op = (StateOperation){ .verb = STATE_SET, .key = bytes(keys[i]), .value = bytes("x") };
                op_begin(&one, &o[i]);
        }
        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                assert_int_equal(op_wait(&o[i]), i % 2 ? -EIO : 0);
                op_done(&o[i]);
        }
        server_do(&server, "DROP FUNCTION refuse CASCADE");
        assert_int_equal(one.n_complaints, 2);
        assert_string_equal(one.complaint, "not commit (P0001)");
        assert_int_equal(one.n_lost, 0);
        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                _cleanup_free_ char *value = do_get(&two, bytes(keys[i]));
                assert_true(i % 2 ? !value : value != NULL);
        }
}

/* Numbers as text, as Redis has them. */
static void test_add(void **state) {
        StateBytes key = bytes("n");
        int64_t n;

        assert_int_equal(do_add(&one, key, 5, &n), 0);
        assert_int_equal(n, 5);
        assert_int_equal(do_add(&two, key, -7, &n), 0);
        assert_int_equal(n, -2);
        ASSERT_VALUE(&one, key, "-2");
        assert_int_equal(do_add(&one, key, 2, &n), 0);
        ASSERT_VALUE(&one, key, "0");
        assert_int_equal(do_add(&one, key, INT64_MAX, &n), 0);
        assert_true(n == INT64_MAX);
        assert_int_equal(do_add(&one, key, 1, &n), -ERANGE);
        ASSERT_VALUE(&one, key, "9223372036854775807");
        assert_int_equal(do_add(&one, key, INT64_MIN, &n), 0);
        assert_int_equal(n, -1);
        assert_int_equal(do_add(&one, key, INT64_MIN, &n), -ERANGE);
        assert_int_equal(do_add(&one, bytes("least"), INT64_MIN, &n), 0);
        assert_true(n == INT64_MIN);
        assert_int_equal(do_add(&one, bytes("least"), -1, &n), -ERANGE);
        assert_int_equal(do_add(&one, bytes("least"), 1, &n), 0);
        ASSERT_VALUE(&one, bytes("least"), "-9223372036854775807");
        assert_int_equal(one.n_complaints, 0);
}

/* What is none is left as it is, with its version. */
static void test_add_to_what_is_no_number(void **state) {
        static const StateBytes values[] = {
                { "", 0 },
                { " 1", 2 },
                { "1 ", 2 },
                { "+1", 2 },
                { "01", 2 },
                { "-0", 2 },
                { "-", 1 },
                { "1\n", 2 },
                { "1\0", 2 },
                { "\0", 1 },
                { "\xff", 1 },
                { "1e3", 3 },
                { "0x1", 3 },
                { "\\061", 4 },
                { "9223372036854775808", 19 },
                { "-9223372036854775809", 20 },
                { "99999999999999999999", 20 },
                { "100000000000000000000", 21 },
        };
        int64_t n;

        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                _cleanup_op_ Op set = { .op = { .verb = STATE_SET, .key = bytes("n"), .value = values[i] } };
                _cleanup_op_ Op get = { .op = { .verb = STATE_GET, .key = bytes("n") } };

                assert_int_equal(op_do(&one, &set), 0);
                assert_int_equal(do_add(&one, bytes("n"), 0, &n), -EDOM);
                assert_int_equal(op_do(&one, &get), 0);
                assert_int_equal(get.value_size, values[i].size);
                assert_memory_equal(get.value, values[i].data, values[i].size);
                assert_true(get.version == set.version);
        }
}

static long remaining_msec(const char *key) {
        char sql[200];

        snprintf(sql, sizeof(sql),
                        "SELECT extract(epoch FROM expires - clock_timestamp()) * 1000 FROM muster_state"
                        " WHERE key = '%s'",
                        key);
        return server_count(&server, sql);
}

/* A set gives the key its own time, an addition only to a key that it makes. */
static void test_ttl(void **state) {
        uint64_t century = UINT64_C(100) * 365 * 24 * 3600 * 1000000;

        assert_int_equal(DO(&one, { .verb = STATE_SET, .key = bytes("t"), .ttl_usec = 100000000 }), 0);
        assert_in_range(remaining_msec("t"), 40000, 100000);
        assert_int_equal(do_set(&one, bytes("t"), bytes("1")), 0);
        assert_int_equal(
                        server_count(&server, "SELECT count(*) FROM muster_state WHERE expires IS NULL"), 1);
        assert_int_equal(DO(&one, { .verb = STATE_ADD, .key = bytes("t"), .ttl_usec = 100000000 }), 0);
        assert_int_equal(
                        server_count(&server, "SELECT count(*) FROM muster_state WHERE expires IS NULL"), 1);

        assert_int_equal(DO(&one, { .verb = STATE_ADD, .key = bytes("u"), .ttl_usec = 100000000 }), 0);
        assert_in_range(remaining_msec("u"), 40000, 100000);
        assert_int_equal(DO(&one, { .verb = STATE_ADD, .key = bytes("u"), .ttl_usec = 900000000 }), 0);
        assert_in_range(remaining_msec("u"), 40000, 100000);

        assert_int_equal(DO(&one, { .verb = STATE_SET, .key = bytes("c"), .ttl_usec = century }), 0);
        assert_in_range(remaining_msec("c"), century / 1000 - 60000, century / 1000);
}

/* A row that is over is no row for anybody, before it is deleted as well. */
static void test_expired(void **state) {
        _cleanup_op_ Op scan = { .op = { .verb = STATE_SCAN, .limit = 10 } };
        static const char *const keys[] = { "e-get", "e-delete", "e-version", "e-absent", "e-add" };
        uint64_t version = 0;
        int64_t n;

        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                _cleanup_op_ Op set = {
                        .op = { .verb = STATE_SET, .key = bytes(keys[i]), .value = bytes("7") }
                };
                assert_int_equal(op_do(&one, &set), 0);
                if (i == 2)
                        version = set.version;
        }
        assert_int_equal(do_set(&one, bytes("f"), bytes("stays")), 0);
        expire("e-%");

        ASSERT_ABSENT(&one, bytes("e-get"));
        assert_int_equal(op_do(&one, &scan), 0);
        assert_int_equal(scan.n_keys, 1);
        assert_string_equal(scan.keys, "f");
        assert_int_equal(DO(&one, { .verb = STATE_DELETE, .key = bytes("e-delete") }), -ENOENT);
        assert_int_equal(DO(&one, { .verb = STATE_SET, .key = bytes("e-version"), .if_version = version }),
                        -ESTALE);
        assert_int_equal(
                        DO(&one, { .verb = STATE_DELETE, .key = bytes("e-version"), .if_version = version }),
                        -ESTALE);
        assert_int_equal(DO(&one, { .verb = STATE_SET,
                                                  .key = bytes("e-absent"),
                                                  .value = bytes("new"),
                                                  .if_absent = true }),
                        0);
        assert_int_equal(DO(&one, { .verb = STATE_SET, .key = bytes("e-absent"), .if_absent = true }),
                        -EEXIST);
        ASSERT_VALUE(&one, bytes("e-absent"), "new");
        assert_int_equal(do_add(&one, bytes("e-add"), 3, &n), 0);
        assert_int_equal(n, 3);
        assert_int_equal(do_add(&one, bytes("e-add"), 3, &n), 0);
        assert_int_equal(n, 6);
}

static long count_over(void) {
        return server_count(&server,
                        "SELECT count(*) FROM muster_state WHERE kind = 0 AND expires <= clock_timestamp()");
}

/* Writes delete what is over, faster than they can make it; not what somebody else has locked, and they do
 * not wait for that; never a lease. */
static void test_sweep(void **state) {
        const char *keywords[] = { "host", "port", "user", NULL },
                   *values[] = { server.dir, server.port, "postgres", NULL };
        PGconn *locker = PQconnectdbParams(keywords, values, 0);

        server_do(&server, "INSERT INTO muster_state (kind, key, value, expires)"
                           " SELECT k, ('s' || i)::bytea, 'x', '2000-01-01' FROM generate_series(1, 200) i,"
                           " generate_series(0, 1) k");
        PQclear(PQexec(locker, "BEGIN"));
        PQclear(PQexec(locker, "SELECT * FROM muster_state WHERE kind = 0 AND key = 's7' FOR UPDATE"));
        for (int i = 0; i < 100; i++)
                assert_int_equal(do_set(&one, bytes("written"), bytes("x")), 0);
        assert_int_equal(count_over(), 1);
        PQclear(PQexec(locker, "ROLLBACK"));
        PQfinish(locker);
        for (int i = 0; i < 100; i++)
                assert_int_equal(DO(&one, { .verb = STATE_DELETE, .key = bytes("none") }), -ENOENT);
        assert_int_equal(count_over(), 0);
        assert_int_equal(server_count(&server, "SELECT count(*) FROM muster_state WHERE kind = 1"), 200);
        assert_int_equal(one.n_complaints, 0);
}

static void assert_page(Client *c, StateBytes prefix, const char *cursor, unsigned limit,
                const char *const *keys, const char *next) {
        _cleanup_op_ Op o = { .op = { .verb = STATE_SCAN, .key = prefix, .limit = limit } };
        const char *p = o.keys;
        size_t n = 0;

        o.op.cursor = bytes(cursor);
        assert_int_equal(op_do(c, &o), 0);
        for (; keys[n]; n++, p += strlen(p) + 1) {
                assert_true(n < o.n_keys);
                assert_string_equal(p, keys[n]);
        }
        assert_int_equal(o.n_keys, n);
        assert_int_equal(o.cursor_size, strlen(next));
        assert_memory_equal(o.cursor, next, o.cursor_size);
}

#define KEYS(...)                 \
        (const char *const[]) {   \
                __VA_ARGS__, NULL \
        }

/* Pages in the order of the bytes; a prefix ends where it ends, also at the last byte there is. */
static void test_scan(void **state) {
        static const char *const keys[] = { "a", "a\x01", "aa", "a\xff", "a\xff\xff", "a\xff\xff\x01", "b",
                "\xff", "\xff\xff" };
        uint8_t owner_byte = 1;

        for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                assert_int_equal(do_set(&one, bytes(keys[ELEMENTSOF(keys) - 1 - i]), bytes("x")), 0);
        assert_int_equal(DO(&one, { .verb = STATE_ACQUIRE,
                                                  .key = bytes("aa"),
                                                  .ttl_usec = 60000000,
                                                  .owner = { owner_byte } }),
                        0);

        assert_page(&one, bytes(""), "", 100,
                        KEYS("a", "a\x01", "aa", "a\xff", "a\xff\xff", "a\xff\xff\x01", "b", "\xff",
                                        "\xff\xff"),
                        "");
        assert_page(&one, bytes(""), "", 9,
                        KEYS("a", "a\x01", "aa", "a\xff", "a\xff\xff", "a\xff\xff\x01", "b", "\xff",
                                        "\xff\xff"),
                        "");
        assert_page(&one, bytes(""), "", 4, KEYS("a", "a\x01", "aa", "a\xff"), "a\xff");
        assert_page(&one, bytes(""), "a\xff", 4, KEYS("a\xff\xff", "a\xff\xff\x01", "b", "\xff"), "\xff");
        assert_page(&one, bytes(""), "\xff", 4, KEYS("\xff\xff"), "");
        assert_page(&one, bytes("a"), "", 100,
                        KEYS("a", "a\x01", "aa", "a\xff", "a\xff\xff", "a\xff\xff\x01"), "");
        assert_page(&one, bytes("a\xff"), "", 100, KEYS("a\xff", "a\xff\xff", "a\xff\xff\x01"), "");
        assert_page(&one, bytes("a\xff\xff"), "", 1, KEYS("a\xff\xff"), "a\xff\xff");
        assert_page(&one, bytes("a\xff\xff"), "a\xff\xff", 1, KEYS("a\xff\xff\x01"), "");
        assert_page(&one, bytes("\xff"), "", 1, KEYS("\xff"), "\xff");
        assert_page(&one, bytes("\xff"), "\xff", 1, KEYS("\xff\xff"), "");
        assert_page(&one, bytes("b"), "a", 1, KEYS("b"), ""); /* a cursor that is none of this prefix */

        _cleanup_op_ Op next = { .op = { .verb = STATE_SCAN, .cursor = bytes("b"), .limit = 1 } };
        assert_int_equal(do_set(&one, BYTES("b\0"), bytes("x")), 0); /* what comes next after "b" */
        assert_int_equal(op_do(&one, &next), 0);
        assert_int_equal(next.n_keys, 1);
        assert_memory_equal(next.keys, "b\0", 3);

        assert_page(&one, bytes("aa"), "b", 1, (const char *const[]){ NULL }, "");
        assert_page(&one, bytes("c"), "", 1, (const char *const[]){ NULL }, "");
}

/* Every statement reads by an index, also when its plan was made for a table of one page. */
static void use_all_statements(void) {
        _cleanup_op_ Op scan = { .op = { .verb = STATE_SCAN, .key = bytes("i1"), .limit = 10 } };

        ASSERT_VALUE(&one, bytes("i77"), "x");
        assert_int_equal(op_do(&one, &scan), 0);
        assert_string_equal(scan.keys, "i1");
        assert_int_equal(DO(&one, { .verb = STATE_SET, .key = bytes("i1"), .if_version = 1 }), -ESTALE);
        assert_int_equal(DO(&one, { .verb = STATE_RENEW, .key = bytes("i1"), .ttl_usec = 1000 }), -ESTALE);
        assert_int_equal(DO(&one, { .verb = STATE_RELEASE, .key = bytes("i1") }), -ESTALE);
        for (int i = 0; i < 40; i++) /* a sweep is among them */
                assert_int_equal(DO(&one, { .verb = STATE_DELETE, .key = bytes("none") }), -ENOENT);
}

static long count_full_scans(void) {
        return server_count(
                        &server, "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'muster_state'");
}

/* That of the latest connection but one, as those of the test before may not have ended yet. */
static void test_no_full_scan(void **state) {
        pid_t pid = (pid_t) server_count(&server,
                        "SELECT pid FROM pg_stat_activity WHERE application_name = 'muster'"
                        " ORDER BY backend_start DESC OFFSET 1 LIMIT 1");
        int pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        struct pollfd p = { .fd = pidfd, .events = POLLIN };
        StateUrl url = server_url();
        long before;

        server_do(&server,
                        "INSERT INTO muster_state (kind, key, value) VALUES (0, 'i1', 'x'), (0, 'i77', 'x');"
                        "ANALYZE muster_state");
        before = count_full_scans();
        use_all_statements();
        server_do(&server, "INSERT INTO muster_state (kind, key, value)"
                           " SELECT 0, ('i1' || i)::bytea, 'x' FROM generate_series(1, 20000) i");
        use_all_statements();

        /* A process tells what it has counted when it ends, at the latest. */
        client_done(&one);
        assert_true(pidfd >= 0);
        assert_int_equal(poll(&p, 1, PATIENCE_USEC / 1000), 1);
        close(pidfd);
        assert_int_equal(count_full_scans(), before);
        client_init(&one, driver, event, &url);
        assert_int_equal(client_connect(&one, NULL), 0);
}

static int acquire(
                Client *c, const char *name, uint8_t owner, uint64_t *ret_fence, uint64_t *ret_remaining) {
        _cleanup_op_ Op o = { .op = { .verb = STATE_ACQUIRE,
                                              .key = bytes(name),
                                              .ttl_usec = 60000000,
                                              .owner = { [15] = owner } } };
        int r = op_do(c, &o);

        if (r == 0)
                *ret_fence = o.fence;
        if (ret_remaining)
                *ret_remaining = o.remaining_usec;
        return r;
}

static int keep(Client *c, StateVerb verb, const char *name, uint8_t owner, uint64_t fence) {
        return DO(c, { .verb = verb,
                                     .key = bytes(name),
                                     .ttl_usec = 90000000,
                                     .owner = { [15] = owner },
                                     .fence = fence });
}

/* One owner at a time, and the fence only goes up. */
static void test_lease(void **state) {
        uint64_t fence = 0, next = 0, remaining = 0;

        assert_int_equal(acquire(&one, "l", 1, &fence, NULL), 0);
        assert_true(fence > 0);
        assert_int_equal(acquire(&two, "l", 2, &next, &remaining), -EEXIST);
        assert_in_range(remaining, 1000000, 60000000);
        assert_int_equal(keep(&two, STATE_RENEW, "l", 2, fence), -ESTALE);
        assert_int_equal(keep(&one, STATE_RENEW, "l", 1, fence + 1), -ESTALE);
        assert_int_equal(keep(&one, STATE_RENEW, "l", 1, fence), 0);
        assert_in_range(remaining_msec("l"), 60001, 90000);
        assert_int_equal(keep(&two, STATE_RELEASE, "l", 2, fence), -ESTALE);
        assert_int_equal(acquire(&two, "l", 2, &next, &remaining), -EEXIST);

        /* The owner's own, asked for again: with the same number, and for a new time. */
        assert_int_equal(acquire(&one, "l", 1, &next, NULL), 0);
        assert_true(next == fence);
        assert_in_range(remaining_msec("l"), 1, 60000);
        assert_int_equal(keep(&one, STATE_RENEW, "l", 1, fence), 0);

        assert_int_equal(keep(&one, STATE_RELEASE, "l", 1, fence), 0);
        assert_int_equal(keep(&one, STATE_RELEASE, "l", 1, fence), -ESTALE);
        assert_int_equal(keep(&one, STATE_RENEW, "l", 1, fence), -ESTALE);
        assert_int_equal(acquire(&two, "l", 2, &next, NULL), 0);
        assert_true(next == fence + 1);
        fence = next;

        expire("l");
        assert_int_equal(keep(&two, STATE_RENEW, "l", 2, fence), -ESTALE);
        assert_int_equal(keep(&two, STATE_RELEASE, "l", 2, fence), -ESTALE);
        assert_int_equal(acquire(&one, "l", 1, &next, NULL), 0);
        assert_true(next == fence + 1);
        assert_int_equal(keep(&two, STATE_RENEW, "l", 2, fence), -ESTALE);

        /* One that is over is a new one also for its owner. */
        fence = next;
        expire("l");
        assert_int_equal(acquire(&one, "l", 1, &next, NULL), 0);
        assert_true(next == fence + 1);
        assert_int_equal(keep(&one, STATE_RENEW, "l", 1, fence), -ESTALE);

        ASSERT_ABSENT(&one, bytes("l")); /* leases are no keys */
        assert_int_equal(keep(&one, STATE_RENEW, "none", 1, 1), -ESTALE);
}

#define N_RACES 300

/* Two want the same hundreds of things at once, both with all of them on their way: new keys, keys that are
 * over, leases, leases that are over. Each has one winner. */
static void test_races(void **state) {
        static Op ops[2][4 * N_RACES];
        static char keys[4 * N_RACES][16];

        memset(ops, 0, sizeof(ops));
        for (size_t i = 0; i < 4 * N_RACES; i++)
                snprintf(keys[i], sizeof(keys[i]), "%s%zu", i % 4 < 2 ? "new" : "old", i);
        server_do(&server, "INSERT INTO muster_state (kind, key, value, owner, fence, expires)"
                           " SELECT k, ('old' || i)::bytea, 'x', '0123456789abcdef', 5, '2000-01-01'"
                           " FROM generate_series(0, 1200) i, generate_series(0, 1) k");
        for (size_t i = 0; i < 4 * N_RACES; i++)
                for (size_t c = 0; c < 2; c++) {
                        ops[c][i].op = (StateOperation){
                                .verb = i % 2 ? STATE_SET : STATE_ACQUIRE,
                                .key = bytes(keys[i]),
                                .value = bytes(c ? "two" : "one"),
                                .ttl_usec = 60000000,
                                .if_absent = true,
                                .owner = { (uint8_t) (c + 1) },
                        };
                        op_begin(c ? &two : &one, &ops[c][i]);
                }
        RUN_UNTIL(event, one.n_finished == 4 * N_RACES && two.n_finished == 4 * N_RACES);
        for (size_t i = 0; i < 4 * N_RACES; i++) {
                int r = ops[0][i].error, s = ops[1][i].error;

                assert_true((r == 0 && s == -EEXIST) || (r == -EEXIST && s == 0));
                if (i % 2)
                        ASSERT_VALUE(&one, bytes(keys[i]), r == 0 ? "one" : "two");
                else
                        assert_true(ops[r != 0][i].fence == (i % 4 < 2 ? 1 : 6));
                op_done(&ops[0][i]);
                op_done(&ops[1][i]);
        }
}

static void race_additions(void) {
        static Op ops[2][2000];
        int64_t n;

        memset(ops, 0, sizeof(ops));
        one.n_finished = two.n_finished = 0;
        for (size_t i = 0; i < 2000; i++)
                for (size_t c = 0; c < 2; c++) {
                        ops[c][i].op = (StateOperation){
                                .verb = STATE_ADD, .key = bytes("sum"), .difference = c ? 10 : 1
                        };
                        op_begin(c ? &two : &one, &ops[c][i]);
                }
        RUN_UNTIL(event, one.n_finished == 2000 && two.n_finished == 2000);
        for (size_t i = 0; i < 2000; i++)
                for (size_t c = 0; c < 2; c++) {
                        assert_int_equal(ops[c][i].error, 0);
                        op_done(&ops[c][i]);
                }
        assert_int_equal(do_add(&one, bytes("sum"), 0, &n), 0);
        assert_int_equal(n, 22000);
        assert_int_equal(DO(&one, { .verb = STATE_DELETE, .key = bytes("sum") }), 0);
}

/* No addition gets lost, whatever isolation the role has by default. */
static void test_racing_additions(void **state) {
        StateUrl url = server_url();

        race_additions();
        server_do(&server, "ALTER ROLE postgres SET default_transaction_isolation = 'serializable'");
        client_done(&one);
        client_done(&two);
        client_init(&one, driver, event, &url);
        client_init(&two, driver, event, &url);
        assert_int_equal(client_connect(&one, NULL), 0);
        assert_int_equal(client_connect(&two, NULL), 0);
        race_additions();
        server_do(&server, "ALTER ROLE postgres RESET default_transaction_isolation");
}

/* Of those who count a version up, each sees each value once. */
static void test_racing_versions(void **state) {
        Client *clients[] = { &one, &two };
        unsigned done[2] = { 0 };

        assert_int_equal(do_set(&one, bytes("v"), bytes("0")), 0);
        while (done[0] + done[1] < 200) {
                Op get[2], set[2];
                char text[2][24];

                for (size_t c = 0; c < 2; c++) {
                        get[c] = (Op){ .op = { .verb = STATE_GET, .key = bytes("v") } };
                        op_begin(clients[c], &get[c]);
                }
                for (size_t c = 0; c < 2; c++) {
                        assert_int_equal(op_wait(&get[c]), 0);
                        snprintf(text[c], sizeof(text[c]), "%d", atoi(get[c].value) + 1);
                        set[c] = (Op){ .op = { .verb = STATE_SET,
                                                       .key = bytes("v"),
                                                       .value = bytes(text[c]),
                                                       .if_version = get[c].version } };
                        op_begin(clients[c], &set[c]);
                }
                for (size_t c = 0; c < 2; c++) {
                        int r = op_wait(&set[c]);

                        assert_true(r == 0 || r == -ESTALE);
                        done[c] += r == 0;
                        op_done(&get[c]);
                        op_done(&set[c]);
                }
        }
        _cleanup_free_ char *value = do_get(&one, bytes("v"));
        assert_int_equal(atoi(value), done[0] + done[1]);
}

static void subscribe(Client *c, StateBytes channel) {
        unsigned n = c->n_subscribed;

        assert_int_equal(c->driver->subscribe(c->d, channel), 0);
        RUN_UNTIL(event, c->n_subscribed == n + 1);
}

static void assert_message(Client *c, unsigned n, StateBytes channel, StateBytes data) {
        RUN_UNTIL(event, c->n_messages >= n);
        assert_int_equal(c->n_messages, n);
        assert_int_equal(c->channel_size, channel.size);
        assert_memory_equal(c->channel, channel.data, channel.size);
        assert_int_equal(c->message_size, data.size);
        assert_memory_equal(c->message, data.data, data.size);
}

static int publish(Client *c, StateBytes channel, StateBytes data) {
        return DO(c, { .verb = STATE_PUBLISH, .key = channel, .value = data });
}

/* Messages of all sizes reach all who have subscribed, oneself as well. */
static void test_messages(void **state) {
        char name[MUSTER_STATE_KEY_MAX], data[MUSTER_STATE_MESSAGE_MAX];
        StateBytes channel = { name, sizeof(name) };
        unsigned n = 0;

        memset(name, 0xEE, sizeof(name));
        fill(data, sizeof(data), 2);
        subscribe(&one, channel);
        subscribe(&two, channel);
        for (size_t size = 0; size <= sizeof(data); size += size < 8      ? 1
                                                            : size < 4000 ? 509
                                                                          : sizeof(data) - size + 1) {
                if (size > 4000)
                        size = sizeof(data);
                assert_int_equal(publish(&one, channel, (StateBytes){ data, size }), 0);
                n++;
                assert_message(&one, n, channel, (StateBytes){ data, size });
                assert_message(&two, n, channel, (StateBytes){ data, size });
        }
        assert_true(n > 10);
}

/* What was ended brings nothing more; subscribed to again it does. Another channel is another one. */
static void test_unsubscribe(void **state) {
        StateBytes a = BYTES("a\0b"), b = BYTES("a\0c");

        subscribe(&one, a);
        subscribe(&one, b);
        assert_int_equal(one.driver->subscribe(one.d, a), -EEXIST);
        assert_int_equal(publish(&two, a, bytes("1")), 0);
        assert_message(&one, 1, a, bytes("1"));
        assert_int_equal(one.driver->unsubscribe(one.d, a), 0);
        assert_int_equal(one.driver->unsubscribe(one.d, a), -ENOENT);
        assert_int_equal(publish(&one, a, bytes("2")), 0);
        assert_int_equal(publish(&one, b, bytes("3")), 0);
        assert_message(&one, 2, b, bytes("3"));

        /* One after the other at once: only the last of them counts. */
        unsigned n = one.n_subscribed;
        assert_int_equal(one.driver->subscribe(one.d, a), 0);
        assert_int_equal(one.driver->unsubscribe(one.d, a), 0);
        subscribe(&one, a);
        assert_int_equal(one.n_subscribed, n + 1);
        assert_int_equal(publish(&two, a, bytes("4")), 0);
        assert_message(&one, 3, a, bytes("4"));
        assert_int_equal(one.n_complaints, 0);
}

static void expect_two_subscriptions(Client *c, const char *event_name) {
        if (strcmp(event_name, "message") == 0)
                assert_int_equal(c->n_subscribed, 2);
}

/* Nothing comes before the subscription takes effect, also not what was for one before it that has ended. */
static void test_late_message(void **state) {
        _cleanup_op_ Op o = { .op = { .verb = STATE_PUBLISH, .key = bytes("c"), .value = bytes("late") } };
        struct pollfd sockets[2] = { { .events = POLLIN }, { .events = POLLIN } };

        subscribe(&one, bytes("c"));
        one.on_event = expect_two_subscriptions;
        assert_int_equal(driver->send(two.d, &o.op), 0);
        while (!o.place)
                assert_int_equal(driver->wait(two.d, PATIENCE_USEC), 0);
        assert_int_equal(server_find_sockets(&server, sockets, 2), 2);
        assert_int_equal(poll(sockets, 2, PATIENCE_USEC / 1000), 1); /* it is there, and not taken yet */
        assert_int_equal(driver->unsubscribe(one.d, bytes("c")), 0);
        subscribe(&one, bytes("c"));
        assert_int_equal(publish(&two, bytes("c"), bytes("new")), 0);
        RUN_UNTIL(event, one.n_messages > 0 && one.message_size == 3);
        assert_memory_equal(one.message, "new", 3);
}

static void notify(const char *payload) {
        char sql[300];

        snprintf(sql, sizeof(sql),
                        "SELECT pg_notify('muster_' || left(encode(sha256('jobs'), 'hex'), 56), %s)",
                        payload);
        server_do(&server, sql);
}

/* Others may take part as the manual says; what is no message is dropped. */
static void test_foreign_messages(void **state) {
        subscribe(&one, bytes("jobs"));
        notify("'no base64!'");
        notify("'QUJ'");
        notify("'QQ==QQ=='");
        notify("'Q==='");
        notify("encode(convert_to(repeat('x', 5000), 'UTF8'), 'base64')");
        notify("encode(convert_to(repeat('y', 100), 'UTF8'), 'base64')"); /* with line ends */
        RUN_UNTIL(event, one.n_messages > 0);
        assert_int_equal(one.message_size, 100);
        assert_int_equal(one.message[99], 'y');
        assert_int_equal(one.n_messages, 1);
}

/* Thousands of messages among thousands of answers. */
static void test_many_messages(void **state) {
        static Op ops[4000];

        memset(ops, 0, sizeof(ops));
        subscribe(&one, bytes("m"));
        for (size_t i = 0; i < ELEMENTSOF(ops); i++) {
                ops[i].op = (StateOperation){
                        .verb = i % 2 ? STATE_GET : STATE_PUBLISH, .key = bytes("m"), .value = bytes("x")
                };
                op_begin(i % 4 ? &one : &two, &ops[i]);
        }
        RUN_UNTIL(event, one.n_messages == ELEMENTSOF(ops) / 2);
        RUN_UNTIL(event, one.n_finished + two.n_finished == ELEMENTSOF(ops));
        for (size_t i = 0; i < ELEMENTSOF(ops); i++)
                op_done(&ops[i]);
}

/* Without the loop. */
static void test_wait(void **state) {
        _cleanup_op_ Op o = { .op = { .verb = STATE_SET, .key = bytes("w"), .value = bytes("x") } };
        StateUrl url = server_url();
        Client c;

        client_init(&c, driver, event, &url);
        assert_int_equal(driver->wait(c.d, 0), -ENOTCONN);
        assert_int_equal(driver->connect(c.d, NULL), 0);
        while (!c.n_connected)
                assert_int_equal(driver->wait(c.d, PATIENCE_USEC), 0);
        assert_int_equal(driver->wait(c.d, 1000), 0); /* nothing comes */
        assert_int_equal(driver->send(c.d, &o.op), 0);
        while (!o.place)
                assert_int_equal(driver->wait(c.d, UINT64_MAX), 0);
        assert_int_equal(o.error, 0);
        client_done(&c);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_bytes, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_longest_key, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_versions, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_large_values, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_pipeline, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_error_in_pipeline, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_add, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_add_to_what_is_no_number, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_ttl, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_expired, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_sweep, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_scan, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_no_full_scan, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_lease, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_races, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_racing_additions, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_racing_versions, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_messages, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_unsubscribe, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_late_message, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_foreign_messages, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_many_messages, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_wait, set_up, tear_down),
        };
        int r;

        if (!server_init(&server)) {
                fprintf(stderr, "skipped: PostgreSQL is not installed\n");
                return 77;
        }
        server_start(&server);
        driver = client_load_driver("postgresql");
        MUST(sd_event_new(&event) >= 0);
        r = cmocka_run_group_tests(tests, NULL, NULL);
        sd_event_unref(event);
        server_done(&server);
        return r;
}

/* SPDX-License-Identifier: MIT */
/* The worker's side of a cluster alone: this process is the worker, and a socket its primary. */

#include "cluster.h"
#include "state/bus.h"

static struct {
        char log[1024];
        muster_worker *worker;
        int primary; /* our end */
        int fd;
} here;

static void here_note(const char *what, const char *text) {
        strcat(strcat(strcat(here.log, what), text), "\n");
}

static void here_server(muster_worker *worker, const char *name, int fd, void *userdata) {
        assert_ptr_equal(userdata, &here);
        here_note("server ", name);
        safe_close(here.fd);
        here.fd = fd;
}

static void here_started(muster_worker *worker, void *userdata) {
        here_note("started", "");
}

static void here_retire(muster_worker *worker, void *userdata) {
        assert_ptr_equal(worker, here.worker);
        here_note("retire", "");
}

static void here_message(muster_worker *worker, muster_message *message, void *userdata) {
        const char *json = muster_message_get_json(message, NULL);

        here_note("message ", json);
        if (strcmp(json, "\"free\"") == 0)
                here.worker = muster_worker_free(here.worker);
}

static void set_worker_environment(const char *id, int fd) {
        char text[16];

        snprintf(text, sizeof(text), "%d", fd);
        setenv("MUSTER_WORKER", id, 1);
        setenv("MUSTER_CHANNEL_FD", text, 1);
}

static const muster_worker_handlers all_handlers = {
        .size = sizeof(all_handlers),
        .server = here_server,
        .started = here_started,
        .retire = here_retire,
        .message = here_message,
};

static int setup_worker(void **state) {
        int ends[2];

        memset(&here, 0, sizeof(here));
        here.fd = -EBADF;
        if (setup_event(state) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
                return -1;
        here.primary = ends[0];
        set_worker_environment("7", ends[1]);
        return muster_worker_from_environment(event, &all_handlers, &here, &here.worker);
}

static int teardown_worker(void **state) {
        here.worker = muster_worker_free(here.worker);
        here.primary = safe_close(here.primary);
        here.fd = safe_close(here.fd);
        return teardown_event(state);
}

static void say(const char *line) {
        assert_int_equal(write(here.primary, line, strlen(line)), strlen(line));
}

#define ACT(act) "{\"cmd\":\"MUSTER\",\"act\":\"" act "\"}\n"

static void test_worker(void **state) {
        assert_null(getenv("MUSTER_WORKER"));
        assert_null(getenv("MUSTER_CHANNEL_FD"));
        assert_int_equal(muster_worker_get_id(here.worker), 7);
        assert_non_null(muster_worker_get_channel(here.worker));
        say("{\"hello\":1}\n" ACT("started") ACT("of a later version") "2\n");
        run_what_is_due();
        assert_string_equal(here.log, "message {\"hello\":1}\nstarted\nmessage 2\n");
}

static void test_worker_retires_once(void **state) {
        say(ACT("retire") ACT("retire"));
        run_what_is_due();
        here.primary = safe_close(here.primary);
        run_what_is_due();
        assert_string_equal(here.log, "retire\n");
        assert_int_equal(muster_worker_ready(here.worker), -EPIPE);
        assert_int_equal(muster_worker_retire(here.worker, "too late"), -EPIPE);
}

static void test_worker_whose_primary_is_gone(void **state) {
        here.primary = safe_close(here.primary);
        run_what_is_due();
        assert_string_equal(here.log, "retire\n");
}

static void test_worker_whose_primary_talks_rubbish(void **state) {
        say("rubbish\n");
        run_what_is_due();
        assert_string_equal(here.log, "retire\n");
}

static void test_worker_freed_in_handler(void **state) {
        say("\"free\"\n\"more\"\n" ACT("retire"));
        run_what_is_due();
        assert_null(here.worker);
        assert_string_equal(here.log, "message \"free\"\n");
}

static void assert_said(const char *expected) {
        char text[1024];
        ssize_t n = recv(here.primary, text, sizeof(text) - 1, MSG_DONTWAIT);

        assert_true(n >= 0);
        text[n] = '\0';
        assert_string_equal(text, expected);
}

static void test_worker_speaks(void **state) {
        assert_int_equal(muster_worker_ready(here.worker), 0);
        assert_said("{\"cmd\":\"MUSTER\",\"act\":\"ready\"}\n");
        assert_int_equal(muster_worker_retire(here.worker, NULL), 0);
        assert_said("{\"cmd\":\"MUSTER\",\"act\":\"retire\",\"reason\":\"\"}\n");
        assert_int_equal(muster_worker_retire(here.worker, "a \"b\\\n"), 0);
        assert_said("{\"cmd\":\"MUSTER\",\"act\":\"retire\",\"reason\":\"a \\\"b\\\\?\"}\n");
}

static void assert_reason(const char *reason, const char *expected) {
        char line[1024];

        snprintf(line, sizeof(line), "{\"cmd\":\"MUSTER\",\"act\":\"retire\",\"reason\":\"%s\"}\n",
                        expected);
        assert_int_equal(muster_worker_retire(here.worker, reason), 0);
        assert_said(line);
}

/* A long reason is cut to what is promised, and the message is whole however much of it has to be escaped.
 */
static void test_worker_reason(void **state) {
        char reason[300], expected[600] = "";

        memset(reason, 'x', sizeof(reason) - 1);
        reason[sizeof(reason) - 1] = '\0';
        assert_reason(reason, memset(expected, 'x', 256));
        memset(reason, '"', sizeof(reason) - 1);
        for (int i = 0; i < 256; i++)
                memcpy(expected + 2 * (size_t) i, "\\\"", 3);
        assert_reason(reason, expected);
        assert_reason("ü\x7F\x1B", "????");
        assert_reason("", "");
}

/* To ask is not to go: the worker serves on until the primary, whose replacement is ready, says so. */
static void test_worker_asks_to_go(void **state) {
        assert_int_equal(muster_worker_retire(here.worker, "bad state"), 0);
        run_what_is_due();
        assert_string_equal(here.log, "");
        say("\"still here\"\n");
        run_what_is_due();
        assert_string_equal(here.log, "message \"still here\"\n");
        say(ACT("retire"));
        run_what_is_due();
        assert_string_equal(here.log, "message \"still here\"\nretire\n");
}

static void expect_said(const char *expected) {
        char said[1000];
        ssize_t n = recv(here.primary, said, sizeof(said) - 1, MSG_DONTWAIT);

        said[n > 0 ? n : 0] = '\0';
        assert_string_equal(said, expected);
}

/* What is for others goes out with that written on it; what would be taken for something else does not. */
static void test_worker_says_to_others(void **state) {
        static const char *const wrong[] = { "", "x", "1\n", "1,\"act\":\"retire\"" };
        static const char *const ours[] = { "{\"cmd\":\"MUSTER\"}", "{\"\\u0063md\":\"NODE_X\"}" };
        char *longest = malloc(MUSTER_WORKER_MESSAGE_MAX + 1);

        assert_int_equal(muster_worker_broadcast(here.worker, "[1]x", 3), 0);
        assert_int_equal(muster_worker_send(here.worker, 7, "\"x\"", 3), 0);
        expect_said("{\"cmd\":\"MUSTER\",\"act\":\"broadcast\",\"data\":[1]}\n"
                    "{\"cmd\":\"MUSTER\",\"act\":\"send\",\"worker\":7,\"data\":\"x\"}\n");
        for (size_t i = 0; i < ELEMENTSOF(wrong); i++)
                assert_int_equal(muster_worker_broadcast(here.worker, wrong[i], strlen(wrong[i])), -EBADMSG);
        for (size_t i = 0; i < ELEMENTSOF(ours); i++)
                assert_int_equal(muster_worker_send(here.worker, 1, ours[i], strlen(ours[i])), -EINVAL);
        assert_int_equal(muster_worker_send(here.worker, 0, "1", 1), -EINVAL);
        assert_int_equal(muster_worker_broadcast(NULL, "1", 1), -EINVAL);
        assert_int_equal(muster_worker_broadcast(here.worker, NULL, 0), -EINVAL);
        memset(longest, '1', MUSTER_WORKER_MESSAGE_MAX + 1);
        assert_int_equal(muster_worker_broadcast(here.worker, longest, MUSTER_WORKER_MESSAGE_MAX + 1),
                        -EMSGSIZE);
        expect_said("");
        assert_in_range(muster_worker_broadcast(here.worker, longest, MUSTER_WORKER_MESSAGE_MAX), 0, 1);
        free(longest);
}

static void on_published(const char *json, size_t n) {
        assert_int_equal(strlen(json), n);
        here_note("published ", json);
}

/* The store's way leads by the worker, as long as there is one, and by muster-worker only where that is. */
static void test_worker_is_the_bus(void **state) {
        static const char line[] = "{\"cmd\":\"MUSTER\",\"act\":\"publish\"}";
        char *longest = calloc(1, 256 * 1024 + 1);

        assert_int_equal(state_bus_send(line, strlen(line)), 0);
        expect_said("{\"cmd\":\"MUSTER\",\"act\":\"publish\"}\n");
        assert_int_equal(state_bus_send(longest, 256 * 1024 + 1), -EMSGSIZE);
        free(longest);

        say(ACT("publish"));
        run_what_is_due();
        assert_string_equal(here.log, ""); /* nobody listens, and it is not the application's */
        state_bus_listen(on_published);
        say(ACT("publish") "1\n");
        run_what_is_due();
        assert_string_equal(here.log, "published {\"cmd\":\"MUSTER\",\"act\":\"publish\"}\nmessage 1\n");
        state_bus_listen(NULL);

        here.primary = safe_close(here.primary);
        run_what_is_due();
        assert_int_equal(state_bus_send(line, strlen(line)), -EPIPE);
        here.worker = muster_worker_free(here.worker);
        assert_int_equal(state_bus_send(line, strlen(line)), -EOPNOTSUPP);
}

/* Sends the line with a descriptor, as a primary does. */
static void say_with_fd(const char *line, int fd) {
        union {
                char buf[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = { .buf = { 0 } };
        struct iovec iov = { (void *) line, strlen(line) };
        struct msghdr mh = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&mh);

        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
        assert_int_equal(sendmsg(here.primary, &mh, 0), strlen(line));
}

#define SERVER_LINE                                                 \
        "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Server\",\"msg\":" \
        "{\"cmd\":\"MUSTER\",\"act\":\"server\",\"name\":\"http\"}}\n"

static void test_worker_is_handed_a_server(void **state) {
        int fd = listen_anywhere();

        say_with_fd(SERVER_LINE, fd);
        say(ACT("server")); /* without one, and without a name */
        run_what_is_due();
        assert_string_equal(here.log, "server http\n");
        assert_int_equal(port_of(here.fd), port_of(fd));
        assert_int_equal(fcntl(here.fd, F_GETFD), FD_CLOEXEC);
        close(fd);
}

/* Nothing is kept that nobody asked for. */
static void test_worker_without_handlers(void **state) {
        const muster_worker_handlers none = { .size = sizeof(none) };
        int fd = listen_anywhere(), ends[2];

        (void) teardown_worker(state);
        assert_int_equal(sd_event_new(&event), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        here.primary = ends[0];
        set_worker_environment("1", ends[1]);
        assert_int_equal(muster_worker_from_environment(event, &none, NULL, &here.worker), 0);
        run_what_is_due();
        int next = dup(fd);
        close(next);
        say_with_fd(SERVER_LINE, fd);
        say("1\n" ACT("started") ACT("retire"));
        run_what_is_due();
        assert_int_equal(dup(fd), next);
        close(next);
        close(fd);
}

static void assert_refused(const char *id, const muster_worker_handlers *handlers, int error) {
        muster_worker *w = NULL;

        if (id)
                setenv("MUSTER_WORKER", id, 1);
        assert_int_equal(muster_worker_from_environment(event, handlers, NULL, &w), error);
        assert_null(w);
        unsetenv("MUSTER_WORKER");
        unsetenv("MUSTER_CHANNEL_FD");
}

static void test_worker_environment(void **state) {
        muster_worker_handlers handlers = MUSTER_WORKER_HANDLERS_INIT;
        muster_worker *w = NULL;

        assert_refused(NULL, &handlers, -ENXIO);
        assert_refused("", &handlers, -EINVAL);
        assert_refused("x", &handlers, -EINVAL);
        assert_refused("-1", &handlers, -EINVAL);
        assert_refused("1", NULL, -EINVAL);
        assert_refused("1", &handlers, -ENXIO); /* no channel */
        setenv("MUSTER_CHANNEL_FD", "zero", 1);
        assert_refused("1", &handlers, -EINVAL);
        setenv("MUSTER_CHANNEL_FD", "12345", 1);
        assert_refused("1", &handlers, -EBADF);
        handlers.size--;
        assert_refused("1", &handlers, -EINVAL);
        handlers.size++;
        assert_int_equal(muster_worker_from_environment(NULL, &handlers, NULL, &w), -EINVAL);
        assert_int_equal(muster_worker_from_environment(event, &handlers, NULL, NULL), -EINVAL);
}

static void test_worker_null(void **state) {
        assert_int_equal(muster_worker_get_id(NULL), 0);
        assert_null(muster_worker_get_channel(NULL));
        assert_int_equal(muster_worker_ready(NULL), -EINVAL);
        assert_int_equal(muster_worker_retire(NULL, "x"), -EINVAL);
        assert_null(muster_worker_free(NULL));
}

#define worker_test(f) cmocka_unit_test_setup_teardown(f, setup_worker, teardown_worker)

int main(void) {
        static const struct CMUnitTest tests[] = {
                worker_test(test_worker),
                worker_test(test_worker_retires_once),
                worker_test(test_worker_whose_primary_is_gone),
                worker_test(test_worker_whose_primary_talks_rubbish),
                worker_test(test_worker_freed_in_handler),
                worker_test(test_worker_speaks),
                worker_test(test_worker_reason),
                worker_test(test_worker_asks_to_go),
                worker_test(test_worker_says_to_others),
                worker_test(test_worker_is_the_bus),
                worker_test(test_worker_is_handed_a_server),
                worker_test(test_worker_without_handlers),
                cluster_test(test_worker_environment),
                cluster_test(test_worker_null),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* Real sockets and senders, on a real loop. What the kernel does only rarely, recvmsg() below does on
 * request. */

#include "../unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "master/notify-inbox.h"

#define NOBODY 65534

#define DESCRIPTORS_MOST 253

/*
 * A kernel with whims
 */

static struct {
        unsigned n_calls;
        int error;            /* of the next calls … */
        unsigned n_errors;    /* … as many */
        bool without_control; /* the sender is not told */
        bool pid_zero;        /* it is of another PID namespace */
        int refill_fd;        /* one more message is sent here before each is read; -EBADF: none */
} kernel = { .refill_fd = -EBADF };

ssize_t recvmsg(int fd, struct msghdr *mh, int flags) {
        kernel.n_calls++;
        if (kernel.n_errors > 0) {
                kernel.n_errors--;
                errno = kernel.error;
                return -1;
        }
        if (kernel.refill_fd >= 0)
                (void) !send(kernel.refill_fd, "STATUS=more", 11, MSG_DONTWAIT);
        ssize_t n = syscall(SYS_recvmsg, fd, mh, flags);
        if (n >= 0 && kernel.without_control)
                mh->msg_controllen = 0;
        if (n >= 0 && kernel.pid_zero)
                memset(CMSG_DATA(CMSG_FIRSTHDR(mh)), 0, sizeof(pid_t));
        return n;
}

/*
 * A master
 */

typedef struct Test {
        NotifyDirectory *directory;
        NotifyInbox *inbox;
        sd_event *event;

        unsigned n;         /* messages that were handed out */
        NotifyMessage last; /* the latest */
        pid_t sender;
        bool watchdog; /* one of them said so */

        int barrier_fd;     /* the reading end of a barrier's pipe; -EBADF: none */
        bool barrier_early; /* it was answered before the message was handled */
        bool handling;
        bool free_in_handler;
        bool rest_in_handler;
        bool done; /* what the loop was turned for has happened */
        int log_fd;
} Test;

static bool is_closed(int fd) {
        struct pollfd p = { .fd = fd };

        assert_true(poll(&p, 1, 0) >= 0);
        return p.revents & POLLHUP;
}

static void on_message(const NotifyMessage *m, pid_t sender, void *userdata) {
        Test *t = userdata;

        assert_false(t->handling);
        t->handling = true;
        t->n++;
        t->last = *m;
        t->sender = sender;
        t->watchdog |= m->watchdog;
        if (t->barrier_fd >= 0)
                t->barrier_early |= is_closed(t->barrier_fd);
        if (t->rest_in_handler)
                notify_inbox_read_rest(t->inbox);
        if (t->free_in_handler)
                t->inbox = notify_inbox_free(t->inbox);
        t->handling = false;
}

static int setup(void **state) {
        Test *t = calloc(1, sizeof(*t));

        assert_non_null(t);
        *t = (Test){ .barrier_fd = -EBADF };
        *state = t;
        assert_int_equal(notify_directory_new(&t->directory), 0);
        assert_int_equal(notify_inbox_new(t->directory, 3, &t->inbox), 0);
        assert_true(sd_event_new(&t->event) >= 0);
        assert_int_equal(notify_inbox_attach(t->inbox, t->event, on_message, t), 0);
        t->log_fd = memfd_create("log", MFD_CLOEXEC);
        assert_true(t->log_fd >= 0);
        log_copy_to(t->log_fd, LOG_DEBUG);
        return 0;
}

static int teardown(void **state) {
        Test *t = *state;

        log_copy_to(-EBADF, LOG_DEBUG);
        kernel = (typeof(kernel)){ .refill_fd = -EBADF };
        safe_close(t->log_fd);
        notify_inbox_free(t->inbox);
        notify_directory_free(t->directory);
        sd_event_unref(t->event);
        free(t);
        return 0;
}

/* How many lines the log has, all of which have @part. */
static unsigned log_lines(const Test *t, const char *part) {
        char buf[65536];
        ssize_t n = pread(t->log_fd, buf, sizeof(buf) - 1, 0);
        unsigned lines = 0;

        assert_true(n >= 0);
        buf[n] = '\0';
        for (char *line = buf, *end; (end = strchr(line, '\n')); line = end + 1) {
                *end = '\0';
                if (!strstr(line, part))
                        fail_msg("\"%s\" is not in \"%s\"", part, line);
                lines++;
        }
        return lines;
}

/* Turns the loop until @n messages have been handed out, or for long if that does not happen. */
static void run_until(Test *t, unsigned n) {
        while (t->n < n)
                if (sd_event_run(t->event, 10 * USEC_PER_SEC) <= 0)
                        fail_msg("%u messages instead of %u", t->n, n);
}

/* Turns it for what has come already, beyond the limit of the rate. */
static void run_now(Test *t) {
        while (sd_event_run(t->event, 0) > 0)
                ;
}

static void reread(Test *t) {
        t->n = 0;
        t->last = (NotifyMessage){ .ready = false };
        t->sender = 0;
}

/*
 * Senders
 */

static int connect_to(const char *path) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        strcpy(sa.sun_path, path);
        if (fd >= 0 && connect(fd, (struct sockaddr *) &sa, sizeof(sa)) < 0)
                return safe_close(fd);
        return fd;
}

/* A message with @n_fds descriptors, all of them the same @fd. Returns 0 or a negative errno. */
static int send_fds(int s, const char *text, size_t n, int fd, size_t n_fds, int flags) {
        union {
                char buf[CMSG_SPACE(DESCRIPTORS_MOST * sizeof(int))];
                struct cmsghdr align;
        } control = { .buf = { 0 } };
        struct iovec iov = { (void *) text, n };
        struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (n_fds > 0) {
                mh.msg_control = &control;
                mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                struct cmsghdr *cmsg = CMSG_FIRSTHDR(&mh);
                cmsg->cmsg_level = SOL_SOCKET;
                cmsg->cmsg_type = SCM_RIGHTS;
                cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                for (size_t i = 0; i < n_fds; i++)
                        memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &fd, sizeof(int));
        }
        return sendmsg(s, &mh, flags | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void send_text(const Test *t, const char *text) {
        _cleanup_close_ int s = connect_to(notify_inbox_get_path(t->inbox));

        assert_true(s >= 0);
        assert_int_equal(send_fds(s, text, strlen(text), -EBADF, 0, MSG_DONTWAIT), 0);
}

static void send_text_with_fds(const Test *t, const char *text, int fd, size_t n) {
        _cleanup_close_ int s = connect_to(notify_inbox_get_path(t->inbox));

        assert_true(s >= 0);
        assert_int_equal(send_fds(s, text, strlen(text), fd, n, MSG_DONTWAIT), 0);
}

/* Sends a barrier by hand, and keeps the end where its answer is seen. */
static void send_barrier(Test *t, const char *text) {
        int p[2];

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        send_text_with_fds(t, text, p[1], 1);
        close(p[1]);
        t->barrier_fd = p[0];
        assert_false(is_closed(t->barrier_fd));
}

/* A process that does not outlive the test; 0 in the child. */
static pid_t start(void) {
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        return pid;
}

/* Its exit status. */
static int wait_for(pid_t pid) {
        int status;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int on_exit_of_child(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        ((Test *) userdata)->done = true;
        return 0;
}

/* Turns the loop until the process has ended; @fd is a pipe that only it has. Returns its exit status. */
static int run_until_exit(Test *t, pid_t pid, int fd) {
        sd_event_source *source = NULL;

        assert_true(sd_event_add_io(t->event, &source, fd, EPOLLIN, on_exit_of_child, t) >= 0);
        while (!t->done)
                assert_true(sd_event_run(t->event, UINT64_MAX) > 0);
        sd_event_source_disable_unref(source);
        return wait_for(pid);
}

static unsigned count_fds(void) {
        DIR *dir = opendir("/proc/self/fd");
        unsigned n = 0;

        assert_non_null(dir);
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

/*
 * Where it is
 */

static void check_directory(const char *runtime, const char *user, const char *parent) {
        _cleanup_(notify_directory_freep) NotifyDirectory *d = NULL;
        _cleanup_(notify_inbox_freep) NotifyInbox *one = NULL, *two = NULL;
        char path[256];
        struct stat st;

        (runtime ? setenv("RUNTIME_DIRECTORY", runtime, 1) : unsetenv("RUNTIME_DIRECTORY"));
        (user ? setenv("XDG_RUNTIME_DIR", user, 1) : unsetenv("XDG_RUNTIME_DIR"));
        assert_int_equal(notify_directory_new(&d), 0);
        assert_int_equal(notify_inbox_new(d, UINT32_MAX, &one), 0);
        assert_int_equal(notify_inbox_new(d, UINT32_MAX, &two), 0);
        assert_string_not_equal(notify_inbox_get_path(one), notify_inbox_get_path(two));

        assert_int_equal(strncmp(notify_inbox_get_path(one), parent, strlen(parent)), 0);
        assert_string_equal(strchr(notify_inbox_get_path(one) + strlen(parent) + 1, '/'), "/4294967295-1");
        snprintf(path, sizeof(path), "%s", notify_inbox_get_path(one));
        assert_int_equal(stat(path, &st), 0);
        assert_true(S_ISSOCK(st.st_mode));

        one = notify_inbox_free(one);
        assert_int_equal(stat(path, &st), -1);
        *strrchr(path, '/') = '\0';
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode, S_IFDIR | 0700);
        two = notify_inbox_free(two);
        d = notify_directory_free(d);
        assert_int_equal(stat(path, &st), -1);
}

/* In systemd's directory before the user's before /tmp; in the next one where a name would not fit into an
 * address, or which is none. */
static void test_directory(void **state) {
        char runtime[] = "/tmp/test-notify-XXXXXX", user[128], list[256], longest[256], longer[260];

        assert_non_null(mkdtemp(runtime));
        snprintf(user, sizeof(user), "%s/u", runtime);
        snprintf(list, sizeof(list), "%s:/nowhere", runtime);
        /* With "/muster-notify-XXXXXX/4294967295-4294967295" it is 107 bytes long. */
        snprintf(longest, sizeof(longest), "%s/%.*d", runtime, (int) (107 - 43 - strlen(runtime) - 1), 0);
        snprintf(longer, sizeof(longer), "%s0", longest);
        assert_int_equal(mkdir(user, 0700), 0);
        assert_int_equal(mkdir(longest, 0700), 0);
        assert_int_equal(mkdir(longer, 0700), 0);

        check_directory(runtime, user, runtime);
        check_directory(list, user, runtime);
        check_directory(NULL, user, user);
        check_directory(NULL, NULL, "/tmp");
        check_directory("", "", "/tmp");
        check_directory(longest, user, longest);
        check_directory(longer, user, user);
        check_directory(longer, longer, "/tmp");
        check_directory("/nowhere", user, user);
        check_directory("/nowhere", "tmp", "/tmp");

        assert_int_equal(rmdir(longer), 0);
        assert_int_equal(rmdir(longest), 0);
        assert_int_equal(rmdir(user), 0);
        assert_int_equal(rmdir(runtime), 0); /* nothing was left in it */
        unsetenv("RUNTIME_DIRECTORY");
        unsetenv("XDG_RUNTIME_DIR");
}

/* Nobody takes away the address of a socket that is there. */
static void test_address_taken(void **state) {
        Test *t = *state;
        char path[108];
        NotifyInbox *other = NULL;
        struct stat st;

        snprintf(path, sizeof(path), "%.*s/3-2",
                        (int) (strrchr(notify_inbox_get_path(t->inbox), '/') -
                                        notify_inbox_get_path(t->inbox)),
                        notify_inbox_get_path(t->inbox));
        _cleanup_close_ int fd = open(path, O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(notify_inbox_new(t->directory, 3, &other), -EADDRINUSE);
        assert_null(other);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(notify_inbox_new(t->directory, 3, &other), 0);
        notify_inbox_free(other);
}

/*
 * Who sends
 */

/* A message is attributed to its worker although its sender is gone before it is read. */
static void test_sender_gone(void **state) {
        Test *t = *state;
        pid_t pid = start();

        if (pid == 0) {
                (void) setenv("NOTIFY_SOCKET", notify_inbox_get_path(t->inbox), 1);
                _exit(sd_notify(0, "READY=1\nSTATUS=said by a child") > 0 ? 0 : 1);
        }
        assert_int_equal(wait_for(pid), 0);
        run_until(t, 1);
        assert_true(t->last.ready);
        assert_string_equal(t->last.status, "said by a child");
        assert_int_equal(t->sender, pid);
        assert_int_equal(log_lines(t, ""), 0);
}

static pid_t start_systemd_notify(const Test *t, int keep_fd, const char *option) {
        pid_t pid = start();

        if (pid == 0) {
                if (keep_fd >= 0)
                        (void) fd_set_cloexec(keep_fd, false);
                (void) setenv("NOTIFY_SOCKET", notify_inbox_get_path(t->inbox), 1);
                execlp("systemd-notify", "systemd-notify", "--ready", "--status=from a script", option,
                                (char *) NULL);
                _exit(errno == ENOENT ? 77 : 1);
        }
        return pid;
}

/* The real program, which does not wait, and is gone. */
static void test_systemd_notify_gone(void **state) {
        Test *t = *state;
        int r = wait_for(start_systemd_notify(t, -EBADF, "--no-block"));

        if (r == 77) {
                print_message("systemd-notify is not installed\n");
                skip();
        }
        assert_int_equal(r, 0);
        run_until(t, 1);
        assert_true(t->last.ready);
        assert_string_equal(t->last.status, "from a script");
}

/* The real program, which waits for its barrier by default. */
static void test_systemd_notify_waits(void **state) {
        Test *t = *state;
        int p[2], r;

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        pid_t pid = start_systemd_notify(t, p[1], NULL);
        close(p[1]);
        r = run_until_exit(t, pid, p[0]);
        close(p[0]);
        if (r == 77) {
                print_message("systemd-notify is not installed\n");
                skip();
        }
        assert_int_equal(r, 0);
        assert_int_equal(t->n, 2);
        assert_true(t->last.barrier);
        assert_int_equal(log_lines(t, ""), 0);
}

static void send_as(const Test *t, uid_t uid, const char *text, int expected) {
        pid_t pid = start();

        if (pid == 0) {
                int s = connect_to(notify_inbox_get_path(t->inbox)); /* while it may */

                if (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
                        _exit(1);
                _exit(send(s, text, strlen(text), MSG_DONTWAIT) < 0 ? 2 : 0);
        }
        assert_int_equal(wait_for(pid), expected);
}

/* Another user, however it came to the socket, is not heard; nor can it come there. */
static void test_other_user(void **state) {
        Test *t = *state;

        if (getuid() != 0)
                skip();
        send_as(t, NOBODY, "READY=1", 0);
        send_as(t, NOBODY, "STOPPING=1", 0);
        send_text(t, "STATUS=ours");
        run_until(t, 1);
        run_now(t);
        assert_int_equal(t->n, 1);
        assert_string_equal(t->last.status, "ours");
        assert_int_equal(log_lines(t, "Worker 3: ignored a notification from process "), 1);

        pid_t pid = start();
        if (pid == 0) {
                if (setresuid(NOBODY, NOBODY, NOBODY) < 0)
                        _exit(1);
                _exit(connect_to(notify_inbox_get_path(t->inbox)) < 0 && errno == EACCES ? 0 : 2);
        }
        assert_int_equal(wait_for(pid), 0);
}

/* The master of another user takes messages of its own user's, and of root's. */
static void test_root_sends(void **state) {
        int p[2];

        if (getuid() != 0)
                skip();
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), 0);
        pid_t pid = start();
        if (pid == 0) {
                Test t = { .barrier_fd = -EBADF };

                if (setresuid(NOBODY, NOBODY, NOBODY) < 0 || notify_directory_new(&t.directory) < 0 ||
                                notify_inbox_new(t.directory, 1, &t.inbox) < 0 ||
                                sd_event_new(&t.event) < 0 ||
                                notify_inbox_attach(t.inbox, t.event, on_message, &t) < 0)
                        _exit(1);
                (void) !write(p[1], notify_inbox_get_path(t.inbox), strlen(notify_inbox_get_path(t.inbox)));
                send_text(&t, "STATUS=ours");
                while (t.n < 2 && sd_event_run(t.event, 10 * USEC_PER_SEC) > 0)
                        ;
                notify_inbox_free(t.inbox);
                notify_directory_free(t.directory);
                _exit(t.n == 2 ? 0 : 2);
        }
        char path[128] = "";
        assert_true(read(p[0], path, sizeof(path) - 1) > 0);
        int s = connect_to(path);
        assert_true(s >= 0);
        assert_int_equal(send_fds(s, "READY=1", 7, -EBADF, 0, 0), 0);
        assert_int_equal(wait_for(pid), 0);
        close(s);
        close(p[0]);
        close(p[1]);
}

/* Of whom the kernel does not tell is not heard. */
static void test_sender_unknown(void **state) {
        Test *t = *state;

        kernel.without_control = true;
        send_text(t, "READY=1");
        run_now(t);
        kernel.without_control = false;
        kernel.pid_zero = true;
        send_text(t, "READY=1");
        run_now(t);
        kernel.pid_zero = false;
        assert_int_equal(t->n, 0);
        assert_int_equal(log_lines(t, "Worker 3: ignored a notification whose sender is not known"), 1);
        send_text(t, "STOPPING=1");
        run_until(t, 1);
        assert_true(t->last.stopping);
}

/*
 * What is sent
 */

/* Up to 4096 bytes are read; a longer one is refused, told of once, and does no harm to the next. */
static void test_truncated(void **state) {
        Test *t = *state;
        char text[4098];

        memset(text, 'x', sizeof(text));
        memcpy(text, "STATUS=", 7);
        text[4096] = '\0';
        send_text(t, text);
        run_until(t, 1);
        assert_int_equal(strlen(t->last.status), NOTIFY_STATUS_MAX - 1);

        reread(t);
        memcpy(text, "READY=1\n", 8);
        text[4096] = 'x';
        text[4097] = '\0';
        send_text(t, text);
        send_text(t, text);
        send_barrier(t, text);
        send_text(t, "WATCHDOG=1");
        run_until(t, 1);
        assert_true(t->last.watchdog && !t->last.ready);
        assert_true(is_closed(t->barrier_fd));
        assert_int_equal(log_lines(t, "of more than 4096 bytes"), 1);
        close(t->barrier_fd);
}

/* What is no text is refused, what makes no sense ignored; both are told of once. */
static void test_malformed(void **state) {
        Test *t = *state;

        send_text(t, "READY=1\nSTATUS=caf\xe9");
        send_text(t, "READY=1\nSTATUS=caf\xe9");
        run_now(t);
        assert_int_equal(t->n, 0);
        assert_int_equal(log_lines(t, "that is not UTF-8 text"), 1);
        assert_int_equal(ftruncate(t->log_fd, 0), 0);
        assert_int_equal(lseek(t->log_fd, 0, SEEK_SET), 0);

        send_text(t, "READY=1\nERRNO=\033[2J");
        send_text(t, "READY=1\nERRNO=y");
        run_until(t, 2);
        assert_true(t->last.ready);
        assert_int_equal(log_lines(t, "\"ERRNO=?[2J\""), 1);
}

/* A barrier is answered when it was handled, and not before. */
static void test_barrier(void **state) {
        Test *t = *state;

        send_text(t, "READY=1");
        send_barrier(t, "BARRIER=1");
        run_until(t, 2);
        assert_true(t->last.barrier);
        assert_false(t->barrier_early);
        assert_true(is_closed(t->barrier_fd));
        close(t->barrier_fd);
}

/* sd_notify_barrier(3) gets its answer, with what was sent before it handled. */
static void test_barrier_call(void **state) {
        Test *t = *state;
        int p[2];

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        pid_t pid = start();
        if (pid == 0) {
                (void) setenv("NOTIFY_SOCKET", notify_inbox_get_path(t->inbox), 1);
                if (sd_notify(0, "STATUS=first") <= 0)
                        _exit(1);
                _exit(sd_notify_barrier(0, 10 * USEC_PER_SEC) > 0 ? 0 : 2);
        }
        close(p[1]);
        assert_int_equal(run_until_exit(t, pid, p[0]), 0);
        assert_int_equal(t->n, 2);
        close(p[0]);
}

/* Descriptors that nobody asked for are closed, however many, and the message counts. */
static void test_stray_descriptors(void **state) {
        Test *t = *state;
        int p[2];

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        unsigned before = count_fds();
        send_text_with_fds(t, "FDSTORE=1\nFDNAME=x\nSTATUS=stored", p[1], 1);
        for (int i = 0; i < 5; i++)
                send_text_with_fds(t, "WATCHDOG=1", p[1], DESCRIPTORS_MOST);
        close(p[1]);
        run_until(t, 6);
        assert_true(t->last.watchdog);
        assert_int_equal(count_fds(), before - 1);
        assert_true(is_closed(p[0]));
        assert_int_equal(log_lines(t, ""), 0);
        close(p[0]);
}

/* There is no room for all of them: the message is refused, and those that did come are closed. */
static void test_no_room_for_descriptors(void **state) {
        Test *t = *state;
        struct rlimit old, low;
        int lowest = dup(STDERR_FILENO);

        close(lowest);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
        send_barrier(t, "READY=1");
        send_text_with_fds(t, "READY=1", t->barrier_fd, 100);
        low = (struct rlimit){ .rlim_cur = (rlim_t) lowest + 20, .rlim_max = old.rlim_max };
        unsigned before = count_fds();
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
        run_until(t, 1); /* the first one has only one */
        run_now(t);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        assert_int_equal(t->n, 1);
        assert_int_equal(count_fds(), before);
        assert_true(is_closed(t->barrier_fd));
        assert_int_equal(log_lines(t, "descriptors were not all received"), 1);
        close(t->barrier_fd);
}

/*
 * When
 */

/* What came before anybody listened is not lost. */
static void test_before_attach(void **state) {
        Test *t = *state;

        notify_inbox_free(t->inbox);
        assert_int_equal(notify_inbox_new(t->directory, 3, &t->inbox), 0);
        send_text(t, "READY=1");
        notify_inbox_read_rest(t->inbox);
        assert_int_equal(t->n, 0);
        assert_int_equal(notify_inbox_attach(t->inbox, t->event, on_message, t), 0);
        run_until(t, 1);
        assert_true(t->last.ready);
}

/* The last words of a process are there without a turn of the loop. */
static void test_rest(void **state) {
        Test *t = *state;

        send_text(t, "STOPPING=1");
        send_text(t, "ERRNO=5\nSTATUS=the disk is gone");
        notify_inbox_read_rest(t->inbox);
        assert_int_equal(t->n, 2);
        assert_int_equal(t->last.error, 5);
        notify_inbox_read_rest(t->inbox);
        run_now(t);
        assert_int_equal(t->n, 2);
}

/* They end, although others go on sending. */
static void test_rest_is_bounded(void **state) {
        Test *t = *state;
        int s = connect_to(notify_inbox_get_path(t->inbox));

        kernel.refill_fd = s;
        notify_inbox_read_rest(t->inbox);
        kernel.refill_fd = -EBADF;
        assert_int_equal(t->n, 1024);
        close(s);
}

/* The handler may free the inbox, from the loop and from the rest, with more in the queue. */
static void test_free_in_handler(void **state) {
        Test *t = *state;
        unsigned before = count_fds();

        for (int rest = 0; rest <= 1; rest++) {
                t->free_in_handler = true;
                send_barrier(t, "BARRIER=1");
                send_text(t, "READY=1");
                if (rest)
                        notify_inbox_read_rest(t->inbox);
                else
                        run_until(t, 1);
                assert_null(t->inbox);
                assert_int_equal(t->n, 1);
                assert_true(is_closed(t->barrier_fd));
                close(t->barrier_fd);
                run_now(t);
                assert_int_equal(count_fds(), before - 1);
                assert_int_equal(log_lines(t, ""), 0);

                reread(t);
                assert_int_equal(notify_inbox_new(t->directory, 3, &t->inbox), 0);
                assert_int_equal(notify_inbox_attach(t->inbox, t->event, on_message, t), 0);
        }
}

/* A handler that asks for the rest gets it in turn, and no handler inside of a handler. */
static void test_rest_in_handler(void **state) {
        Test *t = *state;

        t->rest_in_handler = true;
        send_text(t, "READY=1");
        send_text(t, "STOPPING=1");
        run_until(t, 2);
        assert_true(t->last.stopping);
}

/* A signal in between is no error. */
static void test_interrupted(void **state) {
        Test *t = *state;

        kernel.error = EINTR;
        kernel.n_errors = 3;
        send_text(t, "READY=1");
        notify_inbox_read_rest(t->inbox);
        assert_int_equal(t->n, 1);

        kernel.error = EAGAIN; /* the kernel woke us for nothing */
        kernel.n_errors = 1;
        send_text(t, "READY=1");
        run_until(t, 2);
        assert_int_equal(log_lines(t, ""), 0);
}

/* After an error that cannot be the loop is at rest, and it was told of once. */
static void test_error(void **state) {
        Test *t = *state;

        kernel.error = EIO;
        kernel.n_errors = 1000;
        send_text(t, "READY=1");
        run_now(t);
        assert_int_equal(kernel.n_calls, 1);
        send_text(t, "READY=1");
        run_now(t);
        assert_int_equal(kernel.n_calls, 1);
        notify_inbox_read_rest(t->inbox);
        assert_int_equal(kernel.n_calls, 2);
        assert_int_equal(log_lines(t, "Worker 3: no more notifications can be received: Input/output error"),
                        1);
}

/* A wake-up reads a few messages: others have their turn. Many descriptors count as many messages. */
static void test_turn_is_bounded(void **state) {
        Test *t = *state;

        for (int i = 0; i < 10; i++)
                send_text(t, "READY=1");
        assert_true(sd_event_run(t->event, 0) > 0);
        assert_int_equal(t->n, 8);
        run_until(t, 10);

        reread(t);
        for (int i = 0; i < 10; i++)
                send_text_with_fds(t, "READY=1", STDERR_FILENO, DESCRIPTORS_MOST);
        assert_true(sd_event_run(t->event, 0) > 0);
        assert_int_equal(t->n, 2);
        run_until(t, 10);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        ((Test *) userdata)->done = true;
        return 0;
}

/* Does nothing but send, as fast as it can. */
static pid_t start_mad_one(const Test *t) {
        pid_t pid = start();

        if (pid == 0) {
                int s = connect_to(notify_inbox_get_path(t->inbox));

                while (send(s, "STATUS=mad", 10, 0) > 0)
                        ;
                _exit(1);
        }
        return pid;
}

/* Sends a sign of life when there is something in @fd. */
static pid_t start_sane_one(const Test *t, int fd) {
        pid_t pid = start();

        if (pid == 0) {
                int s = connect_to(notify_inbox_get_path(t->inbox));

                (void) !read(fd, &(char){ 0 }, 1);
                _exit(send(s, "WATCHDOG=1", 10, 0) > 0 ? 0 : 1);
        }
        return pid;
}

/* A worker that sends without end costs a bounded number of messages, and a sign of life gets through. */
static void test_flood(void **state) {
        Test *t = *state;
        pid_t mad[2], sane;
        int p[2];

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        sane = start_sane_one(t, p[0]);
        for (size_t i = 0; i < ELEMENTSOF(mad); i++)
                mad[i] = start_mad_one(t);
        uint64_t began = clock_now_usec();
        assert_true(sd_event_add_time_relative(
                                    t->event, NULL, CLOCK_MONOTONIC, USEC_PER_SEC, 1, on_timer, t) >= 0);
        while (!t->done || t->n <= 100) /* it is a flood, once both run */
                assert_true(sd_event_run(t->event, UINT64_MAX) > 0);
        uint64_t intervals = (clock_now_usec() - began) / (100 * USEC_PER_MSEC);
        assert_true(t->n <= (intervals + 2) * 20 * 8);

        began = clock_now_usec();
        assert_int_equal(write(p[1], "!", 1), 1);
        while (!t->watchdog)
                assert_true(sd_event_run(t->event, UINT64_MAX) > 0);
        assert_true(clock_now_usec() - began < 20 * USEC_PER_SEC);
        assert_int_equal(wait_for(sane), 0);
        for (size_t i = 0; i < ELEMENTSOF(mad); i++) {
                assert_int_equal(kill(mad[i], SIGKILL), 0);
                (void) wait_for(mad[i]);
        }
        close(p[0]);
        close(p[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_directory),
                TEST(test_address_taken),
                TEST(test_sender_gone),
                TEST(test_systemd_notify_gone),
                TEST(test_systemd_notify_waits),
                TEST(test_other_user),
                cmocka_unit_test(test_root_sends),
                TEST(test_sender_unknown),
                TEST(test_truncated),
                TEST(test_malformed),
                TEST(test_barrier),
                TEST(test_barrier_call),
                TEST(test_stray_descriptors),
                TEST(test_no_room_for_descriptors),
                TEST(test_before_attach),
                TEST(test_rest),
                TEST(test_rest_is_bounded),
                TEST(test_free_in_handler),
                TEST(test_rest_in_handler),
                TEST(test_interrupted),
                TEST(test_error),
                TEST(test_turn_is_bounded),
                TEST(test_flood),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

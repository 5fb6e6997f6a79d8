/* SPDX-License-Identifier: MIT */
/* Control groups of workers; see cgroup.h. Everything is a file below the root's descriptor: nothing here
 * depends on where that is mounted or what it is called.
 *
 * Changes of memory.events are heard by poll(2) (EPOLLPRI until the file is read again) and not by inotify,
 * of which a user has only 128 instances. */

#include "master/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/cpu.h"
#include "basic/fd.h"
#include "master/usage.h"

#define SUPERVISOR "supervisor"

/* Each file read here is a page or less, but for a memory.stat of some future kernel. */
#define FILE_MAX (64 * 1024)

/* A process that forks while we move or kill is seen in the next round; nothing forks faster than this. */
#define ROUNDS_MAX 16

/* The first of them leave a keeper's children to the keeper, with pauses, as a move may take it 10 ms. */
#define PATIENT_ROUNDS 10
#define PAUSE_USEC     (10 * USEC_PER_MSEC)

/* A worker that makes groups below its own may make them this deep. */
#define DEPTH_MAX 8

/* Another master's leftovers may have taken the next names. */
#define NAMES_MAX 1000

#define WATCH_INTERVAL_USEC USEC_PER_SEC
#define WATCH_BURST         5

struct Cgroups {
        int root_fd;
        unsigned n_made;
        char **left; /* names of groups that were not empty when they were to be removed */
        size_t n_left;
};

struct Cgroup {
        Cgroups *groups;
        char name[64];
        int fd;

        int watched_fd;
        sd_event_source *watch; /* NULL: not watched */
        void (*on_change)(void *userdata);
        void *userdata;
};

/*
 * Files
 */

static int write_file(int dir_fd, const char *name, const char *text) {
        _cleanup_close_ int fd = openat(dir_fd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/* A file of the memory controller that is not there: there is no controller, or an old kernel. */
static int memory_error(int r) {
        return r == -ENOENT ? -EOPNOTSUPP : r;
}

/* The number of the line "KEY NUMBER". */
static bool find_number(const char *text, const char *key, uint64_t *ret) {
        size_t n = strlen(key);

        for (const char *p = text; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
                if (strncmp(p, key, n) == 0 && p[n] == ' ')
                        return sscanf(p + n, "%" SCNu64, ret) == 1;
        return false;
}

/* The number that is all of a file. */
static int read_number(int dir_fd, const char *name, uint64_t *ret) {
        _cleanup_free_ char *text = NULL;
        int r;

        r = read_small_file(dir_fd, name, FILE_MAX, &text);
        if (r < 0)
                return memory_error(r);
        return sscanf(text, "%" SCNu64, ret) == 1 ? 0 : -EOPNOTSUPP;
}

static bool has_word(const char *text, const char *word) {
        size_t n = strlen(word);

        for (const char *p = text; *p; p += strspn(p, " \n")) {
                size_t k = strcspn(p, " \n");
                if (k == n && memcmp(p, word, n) == 0)
                        return true;
                p += k;
        }
        return false;
}

/* Calls @f for each process of the group, but for those of an outer pid namespace, which have no number
 * here (cgroup.procs says 0). Returns how many there were, or what @f or the kernel failed with first. */
static int each_process(int dir_fd, int (*f)(pid_t pid, int fd), int fd) {
        int n = 0, r = 0, pid;

        int procs = openat(dir_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        FILE *file = procs < 0 ? NULL : fdopen(procs, "re");
        if (!file) {
                r = -errno;
                safe_close(procs);
                return r;
        }
        while (fscanf(file, "%d", &pid) == 1) {
                if (pid <= 0)
                        continue;
                int k = f(pid, fd);
                if (k < 0 && k != -ESRCH && r == 0)
                        r = k;
                n++;
        }
        (void) fclose(file);
        return r < 0 ? r : n;
}

/* Calls @f for each group directly below. Returns what it failed with first. */
static int each_group(int dir_fd, int (*f)(int dir_fd, const char *name, unsigned depth), unsigned depth) {
        struct dirent *entry;
        int r = 0;

        if (depth > DEPTH_MAX)
                return -ELOOP;
        /* a fresh one: its position would be shared with a duplicate */
        int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *d = fd < 0 ? NULL : fdopendir(fd);
        if (!d) {
                r = -errno;
                safe_close(fd);
                return r;
        }
        while ((entry = readdir(d)))
                if (entry->d_type == DT_DIR && entry->d_name[0] != '.') {
                        int k = f(fd, entry->d_name, depth);
                        if (k < 0 && r == 0)
                                r = k;
                }
        (void) closedir(d);
        return r;
}

/*
 * The service's groups
 */

static bool is_marked(int fd) {
        static const char *const names[] = { "user.delegate", "trusted.delegate" };
        char value[2];

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (fgetxattr(fd, names[i], value, sizeof(value)) == 1 && value[0] == '1')
                        return true;
        return false;
}

static bool is_delegated(int fd) {
        struct statfs s;

        return fstatfs(fd, &s) == 0 && s.f_type == CGROUP2_SUPER_MAGIC && is_marked(fd) &&
               faccessat(fd, ".", W_OK, AT_EACCESS) == 0 &&
               faccessat(fd, "cgroup.procs", W_OK, AT_EACCESS) == 0;
}

/* Takes the descriptor, whatever comes of it. */
static int cgroups_new_from(int root_fd, Cgroups **ret) {
        Cgroups *c = calloc(1, sizeof(*c));

        if (!c) {
                safe_close(root_fd);
                return -ENOMEM;
        }
        c->root_fd = root_fd;
        *ret = c;
        return 0;
}

int cgroups_new_at(const char *root, Cgroups **ret) {
        int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        return fd < 0 ? -errno : cgroups_new_from(fd, ret);
}

int cgroups_new(Cgroups **ret) {
        /* alone, or beside version 1 */
        static const char *const mounts[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
        _cleanup_free_ char *text = NULL, *own = NULL;
        char path[PATH_MAX];
        int r;

        r = read_small_file(AT_FDCWD, "/proc/self/cgroup", FILE_MAX, &text);
        if (r >= 0)
                r = cgroup_path_from_text(text, &own);
        if (r < 0)
                return r == -ENOMEM ? r : -EOPNOTSUPP;
        char *name = strrchr(own, '/');
        if (strcmp(name, "/" SUPERVISOR) == 0)
                *name = '\0';

        for (size_t i = 0; i < ELEMENTSOF(mounts); i++) {
                if (snprintf(path, sizeof(path), "%s%s", mounts[i], own) >= (int) sizeof(path))
                        continue;
                int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (fd >= 0 && is_delegated(fd))
                        return cgroups_new_from(fd, ret);
                safe_close(fd);
        }
        return -EOPNOTSUPP;
}

static int move_process(pid_t pid, int procs_fd) {
        char text[16];
        int n = snprintf(text, sizeof(text), "%d", pid);

        return write(procs_fd, text, (size_t) n) < 0 ? -errno : 0;
}

/* A worker's keeper that was born in the root moves its children to groups of their own: to be moved by us
 * at the same time would take them out of there. */
static bool is_child_of_child(pid_t pid) {
        pid_t parent, grandparent;

        return usage_parent(pid, &parent) >= 0 && usage_parent(parent, &grandparent) >= 0 &&
               grandparent == getpid();
}

static int move_unless_kept(pid_t pid, int procs_fd) {
        return is_child_of_child(pid) ? 0 : move_process(pid, procs_fd);
}

static int empty_root(Cgroups *c) {
        const struct timespec pause = { .tv_nsec = PAUSE_USEC * NSEC_PER_USEC };
        int r = 1;

        if (mkdirat(c->root_fd, SUPERVISOR, 0755) < 0 && errno != EEXIST)
                return -errno;
        _cleanup_close_ int procs = openat(c->root_fd, SUPERVISOR "/cgroup.procs", O_WRONLY | O_CLOEXEC);
        if (procs < 0)
                return -errno;
        for (int i = 0; i < ROUNDS_MAX && r > 0; i++) {
                if (i > 0 && i < PATIENT_ROUNDS)
                        (void) nanosleep(&pause, NULL);
                r = each_process(c->root_fd, i < PATIENT_ROUNDS ? move_unless_kept : move_process, procs);
        }
        return r < 0 ? r : 0;
}

int cgroups_settle(Cgroups *c) {
        _cleanup_free_ char *controllers = NULL;
        int r;

        r = empty_root(c);
        if (r < 0)
                return r;
        r = read_small_file(c->root_fd, "cgroup.controllers", FILE_MAX, &controllers);
        if (r < 0)
                return r;
        /* Only for who looks at it (systemd-cgtop), so it may fail. */
        if (has_word(controllers, "pids"))
                (void) write_file(c->root_fd, "cgroup.subtree_control", "+pids");
        if (!has_word(controllers, "memory"))
                return 0;
        r = write_file(c->root_fd, "cgroup.subtree_control", "+memory");
        return r < 0 ? r : 1;
}

static int remove_group(int dir_fd, const char *name, unsigned depth) {
        if (unlinkat(dir_fd, name, AT_REMOVEDIR) >= 0 || errno == ENOENT)
                return 0;
        if (errno != EBUSY)
                return -errno;

        _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        (void) each_group(fd, remove_group, depth + 1);
        return unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

void cgroups_tidy(Cgroups *c) {
        size_t n = 0;

        for (size_t i = 0; i < c->n_left; i++)
                if (remove_group(c->root_fd, c->left[i], 0) == -EBUSY)
                        c->left[n++] = c->left[i];
                else
                        free(c->left[i]);
        c->n_left = n;
}

/* Without memory for it the group stays until systemd removes all of them. */
static void remember(Cgroups *c, const char *name) {
        char **left = reallocarray(c->left, c->n_left + 1, sizeof(*left));

        if (!left)
                return;
        c->left = left;
        left[c->n_left] = strdup(name);
        if (left[c->n_left])
                c->n_left++;
}

Cgroups *cgroups_free(Cgroups *c) {
        if (!c)
                return NULL;

        cgroups_tidy(c);
        for (size_t i = 0; i < c->n_left; i++)
                free(c->left[i]);
        free(c->left);
        safe_close(c->root_fd);
        free(c);
        return NULL;
}

/*
 * One worker's
 */

static int make_directory(Cgroups *c, const char *whose, Cgroup *g) {
        for (int i = 0; i < NAMES_MAX; i++) {
                snprintf(g->name, sizeof(g->name), "%s.%u", whose, ++c->n_made);
                if (mkdirat(c->root_fd, g->name, 0755) >= 0)
                        return 0;
                if (errno != EEXIST)
                        return -errno;
        }
        return -EEXIST;
}

static int make(Cgroups *c, const char *whose, Cgroup **ret) {
        _cleanup_free_ Cgroup *g = calloc(1, sizeof(*g));
        int r;

        if (!g)
                return -ENOMEM;
        *g = (Cgroup){ .groups = c, .fd = -EBADF, .watched_fd = -EBADF };
        r = make_directory(c, whose, g);
        if (r < 0)
                return r;
        g->fd = openat(c->root_fd, g->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (g->fd < 0) {
                r = -errno;
                (void) unlinkat(c->root_fd, g->name, AT_REMOVEDIR);
                return r;
        }
        *ret = TAKE_PTR(g);
        return 0;
}

int cgroup_new(Cgroups *c, unsigned slot, Cgroup **ret) {
        char whose[32];

        snprintf(whose, sizeof(whose), "worker-%u", slot);
        return make(c, whose, ret);
}

int cgroup_new_for_agent(Cgroups *c, const char *agent, Cgroup **ret) {
        char whose[64];

        snprintf(whose, sizeof(whose), "agent-%s", agent);
        return make(c, whose, ret);
}

int cgroup_make_pair(Cgroup *g, int ret_fds[static 2]) {
        static const char *const names[] = { "a", "b" };
        int fds[2] = { -EBADF, -EBADF }, r = 0;

        for (size_t i = 0; i < ELEMENTSOF(names) && r == 0; i++) {
                if (mkdirat(g->fd, names[i], 0755) >= 0)
                        fds[i] = openat(g->fd, names[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
                r = fds[i] < 0 ? -errno : 0;
        }
        if (r < 0) {
                safe_close(fds[0]);
                return r; /* what was made goes with the group */
        }
        memcpy(ret_fds, fds, sizeof(fds));
        return 0;
}

int cgroup_fd(const Cgroup *g) {
        return g->fd;
}

bool cgroups_can_give_birth(void) {
        /* Without arguments it fails in any case; how tells whether it is there. */
        return syscall(SYS_clone3, NULL, 0) < 0 && errno == EINVAL;
}

int cgroup_add(Cgroup *g, pid_t pid) {
        _cleanup_close_ int procs = openat(g->fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);

        return procs < 0 ? -errno : move_process(pid, procs);
}

static int kill_process(pid_t pid, int unused) {
        return kill(pid, SIGKILL) < 0 ? -errno : 0;
}

static int kill_each(int dir_fd, unsigned depth);

static int kill_group(int dir_fd, const char *name, unsigned depth) {
        _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

        return fd < 0 ? -errno : kill_each(fd, depth);
}

static int kill_each(int dir_fd, unsigned depth) {
        int r = 1, k;

        /* Frozen processes do not fork, and die all the same; those that may not be killed go on after that.
         */
        (void) write_file(dir_fd, "cgroup.freeze", "1");
        for (int i = 0; i < ROUNDS_MAX && r > 0; i++)
                r = each_process(dir_fd, kill_process, /* fd= */ -EBADF);
        k = each_group(dir_fd, kill_group, depth + 1);
        (void) write_file(dir_fd, "cgroup.freeze", "0");
        return r < 0 ? r : k;
}

int cgroup_kill(Cgroup *g) {
        int r = write_file(g->fd, "cgroup.kill", "1");

        return r == -ENOENT ? kill_each(g->fd, 0) : r;
}

int cgroup_set_oom_group(Cgroup *g, bool whole) {
        int r = write_file(g->fd, "memory.oom.group", whole ? "1" : "0");

        return r == -ENOENT ? 0 : r;
}

int cgroup_set_memory_trip(Cgroup *g, uint64_t bytes) {
        char text[24];

        snprintf(text, sizeof(text), "%" PRIu64, bytes);
        return memory_error(write_file(g->fd, "memory.high", bytes > 0 ? text : "max"));
}

int cgroup_get_memory(const Cgroup *g, uint64_t *ret) {
        /* All that memory.high counts and reclaim cannot get at; what a kernel does not list is nothing. */
        static const char *const kept[] = { "anon", "shmem", "sock", "slab_unreclaimable", "kernel_stack",
                "pagetables", "percpu", "vmalloc" };
        _cleanup_free_ char *text = NULL;
        uint64_t sum = 0, n;
        int r;

        r = read_small_file(g->fd, "memory.stat", FILE_MAX, &text);
        if (r < 0)
                return memory_error(r);
        for (size_t i = 0; i < ELEMENTSOF(kept); i++)
                if (find_number(text, kept[i], &n))
                        sum += n;
        /* Swap need not be there, nor be counted. */
        if (read_number(g->fd, "memory.swap.current", &n) >= 0)
                sum += n;
        *ret = sum;
        return 0;
}

int cgroup_get_peak(const Cgroup *g, uint64_t *ret) {
        return read_number(g->fd, "memory.peak", ret);
}

uint64_t cgroup_get_oom_kills(const Cgroup *g) {
        _cleanup_free_ char *text = NULL;
        uint64_t n;

        return read_small_file(g->fd, "memory.events", FILE_MAX, &text) >= 0 &&
                                               find_number(text, "oom_kill", &n)
                               ? n
                               : 0;
}

/* The kernel goes on to report the change until the file is read again. */
static int acknowledge(int fd) {
        char text[4096];

        return pread(fd, text, sizeof(text), 0) < 0 ? -errno : 0;
}

static int on_file_changed(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Cgroup *g = userdata;

        /* Somebody else removed the group: it would be reported for ever. */
        if (acknowledge(fd) < 0) {
                g->watch = sd_event_source_disable_unref(g->watch);
                return 0;
        }
        g->on_change(g->userdata);
        return 0;
}

int cgroup_watch_file(Cgroup *g, const char *file, sd_event *event, void (*handler)(void *userdata),
                void *userdata) {
        int r;

        if (g->watched_fd >= 0)
                return -EBUSY;
        _cleanup_close_ int fd = openat(g->fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        r = acknowledge(fd);
        if (r >= 0)
                r = sd_event_add_io(event, &g->watch, fd, EPOLLPRI, on_file_changed, g);
        if (r < 0)
                return r;
        r = sd_event_source_set_ratelimit(g->watch, WATCH_INTERVAL_USEC, WATCH_BURST);
        if (r < 0) {
                g->watch = sd_event_source_disable_unref(g->watch);
                return r;
        }
        g->on_change = handler;
        g->userdata = userdata;
        g->watched_fd = TAKE_FD(fd);
        return 0;
}

int cgroup_watch(Cgroup *g, sd_event *event, void (*handler)(void *userdata), void *userdata) {
        return memory_error(cgroup_watch_file(g, "memory.events", event, handler, userdata));
}

Cgroup *cgroup_free(Cgroup *g) {
        if (!g)
                return NULL;

        sd_event_source_disable_unref(g->watch);
        safe_close(g->watched_fd);
        safe_close(g->fd);
        if (remove_group(g->groups->root_fd, g->name, 0) == -EBUSY)
                remember(g->groups, g->name);
        free(g);
        return NULL;
}

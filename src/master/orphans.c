/* SPDX-License-Identifier: MIT */
/* The subreaper's work; see orphans.h.
 *
 * Whose an orphan is, is decided once, when it is first seen: the worker whose process group it is in, or
 * else the one that its environment names (WORKER_ENV_ID). An orphan that names nobody, because it cleared
 * its environment or does not let itself be read, is nobody's, and killed; but not at the first look, as the
 * environment of a process that is just executing a program is empty for a moment.
 *
 * No pidfds are needed here: an orphan is a child of this process, so its pid stays its own until it is
 * reaped, and nobody but this file reaps orphans. The workers are left to the library, which wants to read
 * their status: hence waitid() for single pids only, never for any child. */

#include "master/orphans.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "basic/parse.h"
#include "basic/text.h"
#include "master/usage.h"

/* How long an orphan that names nobody may be in the middle of execve(2). */
#define EXEC_WINDOW_USEC (100 * USEC_PER_MSEC)

/* A look costs in proportion to the number of orphans; this bounds how often many that end cause one. */
#define LOOK_INTERVAL_USEC (100 * USEC_PER_MSEC)
#define LOOK_BURST         20

/* At the stop, from the death of the last worker: SIGKILL takes a moment, and longer than this only for a
 * process that hangs in the kernel. Within the margin that the manager grants itself. */
#define FINISH_TIMEOUT_USEC (2 * USEC_PER_SEC)

/* No more lines than this in that time: a worker that leaves something at every request is not to fill the
 * journal. */
#define LOG_INTERVAL_USEC (10 * USEC_PER_SEC)
#define LOG_BURST         10

typedef enum OrphanState {
        ORPHAN_LEFT,         /* its worker lives, or it is none of ours */
        ORPHAN_KILLED,       /* and not gone yet */
        ORPHAN_OUT_OF_REACH, /* it became another user */
} OrphanState;

typedef struct Orphan {
        pid_t pid;
        OrphanState state;
        uint64_t seen_usec;
        WorkerId owner; /* started_usec 0: not known */
} Orphan;

struct Orphans {
        pid_t master;
        const List *lists[2]; /* of workers, of agents */
        bool has_strangers;   /* there may be orphans that are no worker's */
        bool complained;

        Orphan *items; /* by pid */
        size_t n;

        bool finishing;
        bool finished;
        orphans_companion_t companion;
        orphans_finished_handler_t on_finished;
        void *userdata;

        sd_event *event; /* counted; NULL: not attached yet */
        sd_event_source *sigchld;
        sd_event_source *later;    /* a look from the loop */
        sd_event_source *again;    /* the second look at what names nobody */
        sd_event_source *deadline; /* of the finish */

        uint64_t log_began_usec;
        unsigned n_logged;
};

/*
 * Children
 */

static int compare_pids(const void *a, const void *b) {
        pid_t x = *(const pid_t *) a, y = *(const pid_t *) b;

        return (x > y) - (x < y);
}

typedef struct Pids {
        pid_t *items;
        size_t n;
        size_t n_allocated;
} Pids;

static void pids_done(Pids *p) {
        free(p->items);
}

static int pids_append(Pids *p, pid_t pid) {
        if (p->n == p->n_allocated) {
                size_t n = p->n_allocated > 0 ? p->n_allocated * 2 : 16;
                pid_t *items = reallocarray(p->items, n, sizeof(pid_t));

                if (!items)
                        return -ENOMEM;
                p->items = items;
                p->n_allocated = n;
        }
        p->items[p->n++] = pid;
        return 0;
}

static void fclosep(FILE **f) {
        if (*f)
                (void) fclose(*f);
}

static FILE *open_proc(pid_t pid, const char *file) {
        char path[64];

        snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
        return fopen(path, "re");
}

/* Nobody but us takes children out of the list, and new ones come at its end: so it is complete. The main
 * thread has them all, whichever thread forked them; the master has no other. */
static int read_children(pid_t parent, Pids *p) {
        _cleanup_(fclosep) FILE *f = NULL;
        char file[32];
        int pid, r = 0;

        snprintf(file, sizeof(file), "task/%d/children", parent);
        f = open_proc(parent, file);
        if (!f)
                return -errno;
        while (r >= 0 && fscanf(f, "%d", &pid) == 1)
                r = pids_append(p, pid);
        return r < 0 ? r : ferror(f) ? -EIO : 0;
}

static bool is_child(pid_t pid, pid_t parent) {
        pid_t its_parent;

        return usage_parent(pid, &its_parent) >= 0 && its_parent == parent;
}

static int scan_children(pid_t parent, Pids *p) {
        DIR *folder = opendir("/proc");
        const struct dirent *entry;
        unsigned pid;
        int r = 0;

        if (!folder)
                return -errno;
        while (r >= 0 && (entry = readdir(folder)))
                if (parse_uint(entry->d_name, &pid) >= 0 && is_child((pid_t) pid, parent))
                        r = pids_append(p, (pid_t) pid);
        closedir(folder);
        return r;
}

int orphans_list_children(pid_t parent, bool scan, pid_t **ret_pids, size_t *ret_n) {
        _cleanup_(pids_done) Pids p = { .items = NULL };
        int r;

        r = scan ? scan_children(parent, &p) : read_children(parent, &p);
        if (r < 0)
                return r;
        if (p.n > 0)
                qsort(p.items, p.n, sizeof(pid_t), compare_pids);
        *ret_pids = TAKE_PTR(p.items);
        *ret_n = p.n;
        return 0;
}

static int list_children(const Orphans *o, pid_t **ret_pids, size_t *ret_n) {
        int r;

        r = orphans_list_children(o->master, /* scan= */ false, ret_pids, ret_n);
        return r == -ENOENT ? orphans_list_children(o->master, /* scan= */ true, ret_pids, ret_n) : r;
}

/*
 * Owners
 */

bool orphans_read_owner(pid_t pid, pid_t master, WorkerId *ret) {
        _cleanup_(fclosep) FILE *f = open_proc(pid, "environ");
        _cleanup_free_ char *variable = NULL;
        size_t size = 0;

        while (f && getdelim(&variable, &size, '\0', f) > 0)
                if (worker_id_from_variable(variable, master, ret))
                        return true;
        return false;
}

/* The first of all workers for which @is says so; NULL: there is none. */
static const Worker *find(
                const Orphans *o, bool (*is)(const Worker *w, const void *what), const void *what) {
        for (size_t i = 0; i < ELEMENTSOF(o->lists); i++)
                list_foreach (node, o->lists[i])
                        if (is(list_entry(node, Worker, node), what))
                                return list_entry(node, Worker, node);
        return NULL;
}

static bool has_pid(const Worker *w, const void *pid) {
        return w->pid == *(const pid_t *) pid;
}

static bool has_id(const Worker *w, const void *id) {
        const WorkerId *its = id;

        return w->id.slot == its->slot && w->id.started_usec == its->started_usec;
}

static bool lives(const Worker *w, const void *nothing) {
        return w->state != WORKER_EXITED;
}

static bool find_group(const Orphans *o, pid_t pid, WorkerId *ret) {
        pid_t group = getpgid(pid);
        const Worker *w = find(o, has_pid, &group);

        if (w)
                *ret = worker_get_id(w);
        return w;
}

static bool is_orphan(const Orphans *o, pid_t pid) {
        return !o->companion(pid, o->userdata) && !find(o, has_pid, &pid);
}

static bool any_lives(const Orphans *o) {
        return find(o, lives, NULL);
}

static bool owner_lives(const Orphans *o, const WorkerId *id) {
        const Worker *w = find(o, has_id, id);

        return w && lives(w, NULL);
}

/*
 * Ends
 */

static void log_killed(Orphans *o, const Orphan *p) {
        uint64_t now_usec = clock_now_usec();
        char name[32] = "?", buf[DURATION_STRING_MAX], whose[WORKER_STRING_MAX] = "A worker that is gone";
        const Worker *w = find(o, has_id, &p->owner);
        _cleanup_(fclosep) FILE *f = NULL;

        if (now_usec - o->log_began_usec >= LOG_INTERVAL_USEC) {
                o->log_began_usec = now_usec;
                o->n_logged = 0;
        }
        if (o->n_logged > LOG_BURST)
                return;
        if (o->n_logged++ == LOG_BURST) {
                log_notice("Workers leave many processes behind; no more is said of them within %s.",
                                duration_to_string(LOG_INTERVAL_USEC, buf));
                return;
        }

        f = open_proc(p->pid, "comm");
        if (f && fgets(name, sizeof(name), f))
                name[strcspn(name, "\n")] = '\0';
        text_make_printable(name);
        if (w)
                (void) worker_to_subject(w, whose);
        else if (p->owner.slot > 0)
                snprintf(whose, sizeof(whose), "Worker %u", p->owner.slot);
        if (p->owner.started_usec > 0)
                log_event(LOG_NOTICE,
                                (.message_id = MESSAGE_ID_LEFT_BEHIND, .worker = p->owner.slot,
                                                .agent = w ? worker_get_agent(w) : NULL),
                                "%s left process %d (%s) behind; killed.", whose, p->pid, name);
        else
                log_event(LOG_NOTICE, (.message_id = MESSAGE_ID_LEFT_BEHIND),
                                "Process %d (%s) was left behind and is no worker's; killed.", p->pid, name);
}

/* The process of a worker with a twin that served, or stood by: its end follows from that of the keeper
 * (PR_SET_PDEATHSIG), and is a moment late. What the board says decides on a line in the log alone. */
static bool is_of_keeper(const Orphans *o, const Orphan *p) {
        const Worker *w = find(o, has_id, &p->owner);

        return w && w->twin.enabled &&
               (p->pid == atomic_load(&w->cell->worker_pid) || p->pid == atomic_load(&w->cell->twin_pid));
}

/* With its group, if it leads one; as long as it is not reaped, no other can. */
static void orphan_kill(Orphans *o, Orphan *p) {
        bool leads_group = getpgid(p->pid) == p->pid;

        if (!is_of_keeper(o, p))
                log_killed(o, p);
        p->state = ORPHAN_KILLED;
        if (leads_group)
                (void) kill(-p->pid, SIGKILL);
        if (kill(p->pid, SIGKILL) < 0) {
                log_warning_errno(-errno, "Failed to kill process %d: %m", p->pid);
                p->state = ORPHAN_OUT_OF_REACH;
        }
}

/* One look at an orphan that has not ended. Returns whether it needs a second one. */
static bool orphan_look(Orphans *o, Orphan *p, uint64_t now_usec) {
        bool young = now_usec - p->seen_usec < EXEC_WINDOW_USEC;

        if (p->state != ORPHAN_LEFT)
                return false;
        if (p->owner.started_usec == 0 && !find_group(o, p->pid, &p->owner))
                (void) orphans_read_owner(p->pid, o->master, &p->owner);
        if (p->owner.started_usec > 0 && owner_lives(o, &p->owner))
                return false;
        if (p->owner.started_usec == 0 && o->has_strangers)
                return false;
        if (p->owner.started_usec == 0 && young && any_lives(o))
                return true;
        orphan_kill(o, p);
        return false;
}

/* What it says to have been does not matter: it was no worker. */
static bool orphan_reap(const Orphan *p) {
        siginfo_t si = { .si_pid = 0 };

        while (waitid(P_PID, (id_t) p->pid, &si, WEXITED | WNOHANG) < 0)
                if (errno != EINTR)
                        return true; /* ECHILD */
        return si.si_pid != 0;
}

/*
 * Looks
 */

/* Brings the table up to date with the children, both in ascending order. */
static int update_items(Orphans *o, const pid_t *pids, size_t n, uint64_t now_usec) {
        size_t n_items = 0, old = 0;
        Orphan *items;

        if (n == 0) {
                free(TAKE_PTR(o->items));
                o->n = 0;
                return 0;
        }
        items = calloc(n, sizeof(*items));
        if (!items)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                while (old < o->n && o->items[old].pid < pids[i])
                        old++;
                if (old < o->n && o->items[old].pid == pids[i])
                        items[n_items++] = o->items[old];
                else if (is_orphan(o, pids[i]))
                        items[n_items++] = (Orphan){ .pid = pids[i], .seen_usec = now_usec };
        }
        free(o->items);
        o->items = items;
        o->n = n_items;
        return 0;
}

static int refresh(Orphans *o, uint64_t now_usec) {
        _cleanup_free_ pid_t *pids = NULL;
        size_t n;
        int r;

        r = list_children(o, &pids, &n);
        return r < 0 ? r : update_items(o, pids, n, now_usec);
}

static void look_again(Orphans *o) {
        int r;

        if (!o->again)
                return;
        r = sd_event_source_set_time_relative(o->again, EXEC_WINDOW_USEC);
        if (r >= 0)
                r = sd_event_source_set_enabled(o->again, SD_EVENT_ONESHOT);
        if (r < 0)
                log_warning_errno(r, "Failed to set a timer for orphans: %m");
}

void orphans_look(Orphans *o) {
        uint64_t now_usec = clock_now_usec();
        bool again = false;
        size_t n = 0;
        int r;

        r = refresh(o, now_usec);
        if (r < 0 && !o->complained)
                log_warning_errno(r, "Failed to list what workers left behind: %m");
        o->complained = r < 0;

        for (size_t i = 0; i < o->n; i++) {
                if (orphan_reap(o->items + i))
                        continue;
                again |= orphan_look(o, o->items + i, now_usec);
                o->items[n++] = o->items[i];
        }
        o->n = n;
        if (n == 0)
                free(TAKE_PTR(o->items));
        if (again)
                look_again(o);
}

void orphans_worker_ended(Orphans *o, Worker *w) {
        orphans_look(o);
        worker_kill_rest(w);
}

static size_t count_killed(const Orphans *o) {
        size_t n = 0;

        for (size_t i = 0; i < o->n; i++)
                n += o->items[i].state == ORPHAN_KILLED;
        return n;
}

static void finish(Orphans *o) {
        if (o->finished)
                return;
        o->finished = true;
        o->on_finished(o->userdata);
}

static void look_from_loop(Orphans *o) {
        orphans_look(o);
        if (o->finishing && count_killed(o) == 0)
                finish(o);
}

static int on_sigchld(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        look_from_loop(userdata);
        return 0;
}

static int on_later(sd_event_source *source, void *userdata) {
        look_from_loop(userdata);
        return 0;
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata) {
        look_from_loop(userdata);
        return 0;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
        Orphans *o = userdata;
        size_t n;

        orphans_look(o);
        n = count_killed(o);
        if (n > 0)
                log_warning("%zu process%s that workers left behind did not end.", n, n == 1 ? "" : "es");
        finish(o);
        return 0;
}

/* From the loop, as the library has not reaped the last worker yet when its end is told. */
void orphans_finish(Orphans *o) {
        int r;

        if (o->finishing)
                return;
        o->finishing = true;
        r = sd_event_source_set_enabled(o->later, SD_EVENT_ONESHOT);
        if (r >= 0)
                r = sd_event_add_time_relative(o->event, &o->deadline, CLOCK_MONOTONIC, FINISH_TIMEOUT_USEC,
                                clock_accuracy_usec(FINISH_TIMEOUT_USEC), on_deadline, o);
        if (r < 0) {
                log_warning_errno(r, "Failed to wait for what workers left behind: %m");
                finish(o);
        }
}

int orphans_attach(Orphans *o, sd_event *event) {
        int r;

        o->event = sd_event_ref(event);
        r = sd_event_add_signal(event, &o->sigchld, SIGCHLD, on_sigchld, o);
        if (r >= 0)
                r = sd_event_source_set_ratelimit(o->sigchld, LOOK_INTERVAL_USEC, LOOK_BURST);
        if (r >= 0)
                r = sd_event_add_defer(event, &o->later, on_later, o);
        if (r >= 0)
                r = sd_event_source_set_enabled(o->later, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &o->again, CLOCK_MONOTONIC, EXEC_WINDOW_USEC,
                                clock_accuracy_usec(EXEC_WINDOW_USEC), on_again, o);
        if (r >= 0)
                r = sd_event_source_set_enabled(o->again, SD_EVENT_OFF);
        return r;
}

/* A process that is ours by birth (the shell that became musterd had started it) or because we are the init
 * of a container does not have to be a worker's. */
static bool may_have_strangers(const Orphans *o) {
        _cleanup_free_ pid_t *pids = NULL;
        size_t n;

        return o->master == 1 || list_children(o, &pids, &n) < 0 || n > 0;
}

/* Ignored, as a parent may have left it to us, it would make the kernel reap children before anybody knew.
 * A child that is stopped is no news. */
static void prepare_sigchld(void) {
        const struct sigaction action = { .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP };
        sigset_t set;

        (void) sigaction(SIGCHLD, &action, NULL); /* these two fail for wrong arguments only */
        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        (void) sigprocmask(SIG_BLOCK, &set, NULL);
}

int orphans_new(const List *workers, const List *agents, orphans_companion_t companion,
                orphans_finished_handler_t on_finished, void *userdata, Orphans **ret) {
        Orphans *o = calloc(1, sizeof(*o));

        if (!o)
                return -ENOMEM;
        *o = (Orphans){
                .master = getpid(),
                .lists = { workers, agents },
                .companion = companion,
                .on_finished = on_finished,
                .userdata = userdata,
        };
        prepare_sigchld();
        o->has_strangers = may_have_strangers(o);
        if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
                log_warning_errno(-errno, "Failed to become a subreaper, daemons of workers stay: %m");
        *ret = o;
        return 0;
}

Orphans *orphans_free(Orphans *o) {
        if (!o)
                return NULL;
        sd_event_source_disable_unref(o->sigchld);
        sd_event_source_disable_unref(o->later);
        sd_event_source_disable_unref(o->again);
        sd_event_source_disable_unref(o->deadline);
        sd_event_unref(o->event);
        free(o->items);
        free(o);
        return NULL;
}

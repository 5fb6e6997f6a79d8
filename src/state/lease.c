/* SPDX-License-Identifier: MIT */
/* Leases. The store decides who has one; here is who asks for it again and again.
 *
 * Time is counted twice. The store counts from when it hears of a lease, by its clock; the owner from before
 * it has asked, by its own, so that its time is over first. It is CLOCK_BOOTTIME, which goes on while the
 * machine sleeps.
 *
 * Who gives a lease back says so on a channel, so that nobody has to ask often. That is only a hint: one who
 * does not get it asks when the time of the other would be over.
 *
 * One operation at most is under way for a lease. An answer that comes late says nothing that would still
 * be true: it is asked again, and the store gives the owner what it has already, with the same number. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "basic/assert-return.h"
#include "basic/clock.h"
#include "state/store.h"

/* A third of the time for each attempt to renew it, and a third for what is slow. */
#define RENEWALS 3

/* After a failure, and behind the end of somebody else's. */
#define RETRY_MIN_USEC (20 * USEC_PER_MSEC)
#define RETRY_MAX_USEC (1 * USEC_PER_SEC)

struct muster_lease {
        List node;
        muster_state *state;
        StateBytes name;
        uint64_t ttl_usec;
        muster_lease_handler_t handler;
        void *userdata;
        sd_event_source *timer; /* when to ask, or when it is over */
        muster_subscription
                        *returns; /* told when somebody gives one of that name back; NULL: nobody tells */
        uint8_t owner[STATE_OWNER_SIZE];

        bool is_asking; /* an operation is under way */
        bool is_hinted; /* meanwhile somebody has given one of that name back */
        bool is_released;
        bool is_held; /* as told; the clock may know better */
        uint64_t fence;
        uint64_t asked_usec; /* these two by CLOCK_BOOTTIME */
        uint64_t until_usec;
        char data[];
};

static uint64_t now_usec(void) {
        struct timespec ts;

        clock_gettime(CLOCK_BOOTTIME, &ts);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / NSEC_PER_USEC;
}

static muster_lease *lease_free(muster_lease *l) {
        list_remove(&l->node);
        sd_event_source_disable_unref(l->timer);
        muster_subscription_free(l->returns);
        free(l);
        return NULL;
}

static void set_timer(muster_lease *l, uint64_t at_usec) {
        if (sd_event_source_set_time(l->timer, at_usec) >= 0)
                (void) sd_event_source_set_enabled(l->timer, SD_EVENT_ONESHOT);
}

static void tell(muster_lease *l, bool held) {
        muster_state *s = l->state;

        l->is_held = held;
        if (!l->handler || l->is_released)
                return;
        store_enter(s);
        l->handler(l, held, l->userdata);
        store_leave(s);
}

static void on_end(muster_state *s, Operation *o, const StateOutcome *outcome);

#define CHANNEL_PREFIX     "muster:lease:"
#define CHANNEL_PREFIX_LEN (sizeof(CHANNEL_PREFIX) - 1)

static StateBytes channel_of(StateBytes name, char buf[static MUSTER_STATE_KEY_MAX]) {
        if (name.size > MUSTER_STATE_KEY_MAX - CHANNEL_PREFIX_LEN)
                return (StateBytes){ 0 };
        memcpy(mempcpy(buf, CHANNEL_PREFIX, CHANNEL_PREFIX_LEN), name.data, name.size);
        return (StateBytes){ buf, CHANNEL_PREFIX_LEN + name.size };
}

static void tell_return(const muster_lease *l) {
        char buf[MUSTER_STATE_KEY_MAX];
        StateBytes channel = channel_of(l->name, buf);
        Operation *o = NULL;

        if (channel.size > 0)
                o = operation_new(STATE_PUBLISH, channel, (StateBytes){ 0 }, (StateBytes){ 0 });
        if (o)
                (void) store_submit(l->state, o);
}

static int submit(muster_lease *l, StateVerb verb) {
        Operation *o = operation_new(verb, l->name, (StateBytes){ 0 }, (StateBytes){ 0 });
        int r;

        if (!o)
                return -ENOMEM;
        memcpy(o->op.owner, l->owner, sizeof(o->op.owner));
        o->op.ttl_usec = l->ttl_usec;
        o->op.fence = l->fence;
        if (verb != STATE_RELEASE) {
                o->on_end = on_end;
                o->owner = l;
                l->is_asking = true;
                l->is_hinted = false;
                l->asked_usec = now_usec();
        }
        r = store_submit(l->state, o);
        if (r < 0)
                l->is_asking = false;
        return r;
}

static void give_back(muster_lease *l) {
        if (submit(l, STATE_RELEASE) >= 0)
                tell_return(l);
}

static uint64_t retry_usec(const muster_lease *l) {
        return MIN(MAX(l->ttl_usec / 10, RETRY_MIN_USEC), RETRY_MAX_USEC);
}

static void ask(muster_lease *l) {
        if (submit(l, l->is_held ? STATE_RENEW : STATE_ACQUIRE) < 0)
                set_timer(l, now_usec() + retry_usec(l));
}

/* The next thing to be done about one that is held: to renew it, or to see that it is over. */
static void wait_while_held(muster_lease *l, uint64_t renew_at_usec) {
        set_timer(l, l->is_asking ? l->until_usec : MIN(renew_at_usec, l->until_usec));
}

static void lose(muster_lease *l) {
        if (!l->is_asking)
                set_timer(l, now_usec()); /* before the handler, which may release it */
        else
                (void) sd_event_source_set_enabled(l->timer, SD_EVENT_OFF);
        tell(l, false);
}

static void got(muster_lease *l, const StateOutcome *outcome) {
        bool was_held = l->is_held;

        if (l->asked_usec + l->ttl_usec <= now_usec()) { /* it is over already */
                if (was_held)
                        lose(l);
                else
                        set_timer(l, now_usec());
                return;
        }
        l->until_usec = l->asked_usec + l->ttl_usec;
        if (outcome->fence > 0)
                l->fence = outcome->fence;
        wait_while_held(l, l->asked_usec + l->ttl_usec / RENEWALS);
        if (!was_held)
                tell(l, true);
}

/* Others may come at the same time, so that not all of them do. */
static uint64_t random_spread_usec(void) {
        uint8_t n = 0;

        (void) !getrandom(&n, sizeof(n), GRND_NONBLOCK);
        return n * (8 * USEC_PER_MSEC / 256);
}

static uint64_t until_free_usec(const muster_lease *l, uint64_t remaining_usec) {
        if (remaining_usec == 0 || remaining_usec > l->ttl_usec)
                remaining_usec = MIN(l->ttl_usec, remaining_usec > 0 ? remaining_usec : retry_usec(l));
        return remaining_usec + USEC_PER_MSEC + random_spread_usec();
}

static void refused(muster_lease *l, const StateOutcome *outcome) {
        if (l->is_held && (outcome->error == -ESTALE || now_usec() >= l->until_usec))
                lose(l);
        else if (l->is_held)
                wait_while_held(l, now_usec() + retry_usec(l));
        else if (outcome->error == -EEXIST && l->is_hinted)
                set_timer(l, now_usec() + random_spread_usec());
        else if (outcome->error == -EEXIST)
                set_timer(l, now_usec() + until_free_usec(l, outcome->remaining_usec));
        else
                set_timer(l, now_usec() + retry_usec(l));
}

static void on_end(muster_state *s, Operation *o, const StateOutcome *outcome) {
        muster_lease *l = o->owner;

        l->is_asking = false;
        if (outcome->fence > 0 && outcome->error == 0)
                l->fence = outcome->fence;
        if (l->is_released) {
                if (outcome->error == 0 || muster_lease_is_held(l))
                        give_back(l);
                lease_free(l);
        } else if (outcome->error == 0)
                got(l, outcome);
        else if (outcome->error != -ECANCELED)
                refused(l, outcome);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        muster_lease *l = userdata;

        if (l->is_held && now_usec() >= l->until_usec) {
                lose(l);
                return 0;
        }
        if (!l->is_asking)
                ask(l);
        if (l->is_held && l->is_asking)
                wait_while_held(l, l->until_usec);
        return 0;
}

/* Those that wait come at different times: the first gets it. The hint may overtake the answer that somebody
 * else has it, where messages have a connection of their own. */
static void on_return(muster_subscription *subscription, const void *data, size_t size, void *userdata) {
        muster_lease *l = userdata;

        if (!data || l->is_held || l->is_released)
                return;
        if (l->is_asking)
                l->is_hinted = true;
        else
                set_timer(l, now_usec() + random_spread_usec());
}

static int lease_new(muster_state *s, StateBytes name, muster_lease **ret) {
        muster_lease *l = calloc(1, sizeof(*l) + name.size);
        int r = 0;

        if (!l)
                return -ENOMEM;
        list_init(&l->node);
        l->state = s;
        l->name = (StateBytes){ l->data, name.size };
        memcpy(l->data, name.data, name.size);
        if (getrandom(l->owner, sizeof(l->owner), 0) != sizeof(l->owner))
                r = -EIO;
        if (r >= 0)
                r = sd_event_add_time(s->event, &l->timer, CLOCK_BOOTTIME, 0, 1, on_timer, l);
        if (r < 0) {
                free(l);
                return r;
        }
        list_append(&s->leases, &l->node);
        *ret = l;
        return 0;
}

_public_ int muster_state_lease(muster_state *s, const void *name, ssize_t name_size, uint64_t ttl_usec,
                muster_lease_handler_t handler, void *userdata, muster_lease **ret) {
        char buf[MUSTER_STATE_KEY_MAX];
        StateBytes n, channel;
        muster_lease *l;
        int r;

        muster_assert_return(s && name && ret && !s->is_closed, -EINVAL);
        n = (StateBytes){ name, name_size < 0 ? strlen(name) : (size_t) name_size };
        muster_assert_return(n.size > 0, -EINVAL);
        if (n.size > MUSTER_STATE_KEY_MAX)
                return -EMSGSIZE;
        if (ttl_usec < MUSTER_LEASE_TTL_MIN_USEC || ttl_usec > MUSTER_LEASE_TTL_MAX_USEC)
                return -ERANGE;
        r = lease_new(s, n, &l);
        if (r < 0)
                return r;
        channel = channel_of(n, buf);
        if (channel.size > 0)
                r = muster_state_subscribe(
                                s, channel.data, (ssize_t) channel.size, on_return, l, &l->returns);
        if (r < 0) {
                lease_free(l);
                return r;
        }
        l->ttl_usec = ttl_usec / USEC_PER_MSEC * USEC_PER_MSEC;
        l->handler = handler;
        l->userdata = userdata;
        *ret = l; /* its first time is at once: the timer is armed */
        return 0;
}

_public_ bool muster_lease_is_held(const muster_lease *l) {
        return l && l->is_held && now_usec() < l->until_usec;
}

_public_ uint64_t muster_lease_get_fence(const muster_lease *l) {
        return muster_lease_is_held(l) ? l->fence : 0;
}

_public_ muster_lease *muster_lease_release(muster_lease *l) {
        if (!l || l->is_released)
                return NULL;
        l->is_released = true;
        (void) sd_event_source_set_enabled(l->timer, SD_EVENT_OFF);
        if (l->is_asking)
                return NULL; /* it goes with the answer */
        if (muster_lease_is_held(l))
                give_back(l);
        return lease_free(l);
}

void leases_free(muster_state *s) {
        list_foreach_safe (node, &s->leases) {
                muster_lease *l = list_entry(node, muster_lease, node);

                if (muster_lease_is_held(l))
                        give_back(l);
                lease_free(l);
        }
}

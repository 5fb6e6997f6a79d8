/* SPDX-License-Identifier: MIT */
/* Who listens to which channel. The driver is asked once for each channel; the first subscription to it and
 * the last one make the difference.
 *
 * A handler may end any subscription, its own included, and the handle. So one that is ended while handlers
 * run stays in the list, deaf, until none does. It may also subscribe; what is new is told of nothing that
 * was there before it. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "basic/assert-return.h"
#include "basic/clock.h"
#include "state/store.h"

struct muster_subscription {
        List node;
        muster_state *state;
        muster_subscription_handler_t handler;
        void *userdata;
        bool is_asked;     /* the driver was, for its channel */
        bool is_effective; /* what is published now comes */
        bool is_told;      /* of that */
        bool is_over;
        uint64_t deadline_usec; /* of the driver's answer; 0: none is waited for */
        StateBytes channel;
        char data[];
};

static bool is_of(const muster_subscription *n, StateBytes channel) {
        return !n->is_over && n->channel.size == channel.size &&
               memcmp(n->channel.data, channel.data, channel.size) == 0;
}

static muster_subscription *find(const muster_state *s, StateBytes channel) {
        list_foreach (node, &s->subscriptions) {
                muster_subscription *n = list_entry(node, muster_subscription, node);

                if (is_of(n, channel))
                        return n;
        }
        return NULL;
}

static void sweep(muster_state *s) {
        if (s->depth > 0)
                return;
        list_foreach_safe (node, &s->subscriptions) {
                muster_subscription *n = list_entry(node, muster_subscription, node);

                if (n->is_over) {
                        list_remove(node);
                        free(n);
                }
        }
}

static void tell(muster_subscription *n, StateBytes data) {
        n->handler(n, data.data, data.size, n->userdata);
}

static void tell_effect(muster_subscription *n) {
        if (n->is_told)
                return;
        n->is_told = true;
        tell(n, (StateBytes){ 0 });
}

void subscriptions_tell(muster_state *s) {
        const List *last = s->subscriptions.prev;

        s->has_news = false;
        store_enter(s);
        list_foreach (node, &s->subscriptions) {
                muster_subscription *n = list_entry(node, muster_subscription, node);

                if (!n->is_over && n->is_effective)
                        tell_effect(n);
                if (node == last)
                        break;
        }
        store_leave(s);
        sweep(s);
}

/* Of all its subscriptions; those that have been told of it before were told what is still true. */
void subscription_took_effect(StateStore *s, StateBytes channel) {
        list_foreach (node, &s->subscriptions) {
                muster_subscription *n = list_entry(node, muster_subscription, node);

                if (is_of(n, channel)) {
                        n->is_effective = true;
                        n->deadline_usec = 0;
                }
        }
        s->has_news = true;
        store_want_turn(s);
}

void subscription_was_refused(StateStore *s, StateBytes channel) {
        list_foreach (node, &s->subscriptions) {
                muster_subscription *n = list_entry(node, muster_subscription, node);

                if (is_of(n, channel))
                        n->deadline_usec = 0;
        }
}

uint64_t subscriptions_get_deadline(const muster_state *s) {
        uint64_t usec = USEC_INFINITY;

        list_foreach (node, &s->subscriptions) {
                const muster_subscription *n = list_entry(node, muster_subscription, node);

                if (!n->is_over && n->deadline_usec > 0)
                        usec = MIN(usec, n->deadline_usec);
        }
        return usec;
}

void subscription_message(StateStore *s, StateBytes channel, StateBytes data) {
        const List *last = s->subscriptions.prev;

        if (!data.data)
                data.data = ""; /* empty is not none */
        store_enter(s);
        list_foreach (node, &s->subscriptions) {
                muster_subscription *n = list_entry(node, muster_subscription, node);

                if (is_of(n, channel) && n->is_effective)
                        tell_effect(n);
                if (is_of(n, channel) && n->is_effective)
                        tell(n, data);
                if (node == last)
                        break;
        }
        store_leave(s);
        sweep(s);
}

static int ask(muster_state *s, muster_subscription *n) {
        int r;

        n->deadline_usec = clock_now_usec() + s->timeout_usec;
        r = s->driver->subscribe(s->driver_data, n->channel); /* it may be answered already */
        n->is_asked = r >= 0;
        if (r < 0)
                n->deadline_usec = 0;
        else if (n->deadline_usec > 0)
                store_arm_deadline(s, n->deadline_usec);
        return r;
}

void subscriptions_connect(muster_state *s) {
        list_foreach (node, &s->subscriptions) {
                muster_subscription *n = list_entry(node, muster_subscription, node);
                const muster_subscription *first = find(s, n->channel);

                if (n->is_over || s->link != STATE_UP)
                        continue;
                if (first == n)
                        (void) ask(s, n); /* what cannot even be asked for shows when the connection breaks
                                           */
                else {
                        n->is_asked = first && first->is_asked;
                        n->deadline_usec = first ? first->deadline_usec : 0;
                }
        }
}

void subscriptions_lost(muster_state *s) {
        list_foreach (node, &s->subscriptions) {
                muster_subscription *n = list_entry(node, muster_subscription, node);

                n->is_asked = n->is_effective = n->is_told = false;
                n->deadline_usec = 0;
        }
}

void subscriptions_free(muster_state *s) {
        list_foreach (node, &s->subscriptions)
                list_entry(node, muster_subscription, node)->is_over = true;
        sweep(s);
}

static muster_subscription *subscription_new(
                muster_state *s, StateBytes channel, muster_subscription_handler_t handler, void *userdata) {
        muster_subscription *n = calloc(1, sizeof(*n) + channel.size);

        if (!n)
                return NULL;
        list_init(&n->node);
        n->state = s;
        n->handler = handler;
        n->userdata = userdata;
        n->channel = (StateBytes){ n->data, channel.size };
        memcpy(n->data, channel.data, channel.size);
        return n;
}

_public_ int muster_state_subscribe(muster_state *s, const void *channel, ssize_t channel_size,
                muster_subscription_handler_t handler, void *userdata, muster_subscription **ret) {
        muster_subscription *n;
        const muster_subscription *other;
        StateBytes c;
        int r = 0;

        muster_assert_return(s && channel && handler && ret && !s->is_closed, -EINVAL);
        c = (StateBytes){ channel, channel_size < 0 ? strlen(channel) : (size_t) channel_size };
        muster_assert_return(c.size > 0, -EINVAL);
        if (c.size > MUSTER_STATE_KEY_MAX)
                return -EMSGSIZE;
        other = find(s, c);
        n = subscription_new(s, c, handler, userdata);
        if (!n)
                return -ENOMEM;
        if (other) {
                n->is_asked = other->is_asked;
                n->is_effective = other->is_effective;
                n->deadline_usec = other->deadline_usec;
                s->has_news = s->has_news || n->is_effective;
                if (n->is_effective)
                        store_want_turn(s);
        }
        list_append(&s->subscriptions, &n->node);
        if (s->link == STATE_UP && !n->is_asked)
                r = ask(s, n);
        if (r < 0) {
                list_remove(&n->node);
                free(n);
                return r;
        }
        *ret = n;
        return 0;
}

_public_ muster_subscription *muster_subscription_free(muster_subscription *n) {
        muster_state *s;

        if (!n || n->is_over)
                return NULL;
        s = n->state;
        n->is_over = true;
        if (s->link == STATE_UP && n->is_asked && !find(s, n->channel))
                (void) s->driver->unsubscribe(s->driver_data, n->channel);
        sweep(s);
        return NULL;
}

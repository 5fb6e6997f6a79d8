/* SPDX-License-Identifier: MIT */
/* The event source of one descriptor; see io-watch.h. */

#include "lib/io-watch.h"

int io_watch_set(IoWatch *w, sd_event *event, int fd, uint32_t events, sd_event_io_handler_t handler,
                void *userdata) {
        int r = 0;

        if (w->events == events)
                return 0;
        if (!w->source)
                r = sd_event_add_io(event, &w->source, fd, events, handler, userdata);
        else {
                if (events)
                        r = sd_event_source_set_io_events(w->source, events);
                if (r >= 0 && (events == 0) != (w->events == 0))
                        r = sd_event_source_set_enabled(w->source, events ? SD_EVENT_ON : SD_EVENT_OFF);
        }
        if (r < 0)
                return r;
        w->events = events;
        return 0;
}

void io_watch_done(IoWatch *w) {
        w->source = sd_event_source_disable_unref(w->source);
        w->events = 0;
}

/* SPDX-License-Identifier: MIT */
#pragma once

/* The body of a request on its way from the input to the handler, or past it. */

#include <stdbool.h>

#include "http/connection.h"

/* What the head says of the body. */
void request_body_begin(Record *r, const HttpRequest *request);

/* Whether the handler waits for more of it. */
bool request_body_is_wanted(const Exchange *x);

/* Hands one piece over, or says how it ended. Returns whether anything was done. */
bool request_body_deliver(Connection *c, Exchange *x);

/* Passes over what is there. 0; or 1: it is malformed or there is too much of it. */
int request_body_skip(Connection *c);

/* There will be no more of it: the handler is told why. The connection ends with this answer. */
void request_body_fail(Connection *c, Exchange *x, int error);

/* Makes room behind the unread rest of the body. */
void request_body_make_room(Connection *c);

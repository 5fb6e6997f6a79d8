/* SPDX-License-Identifier: MIT */
#pragma once

/* Takes the header of the PROXY protocol off a connection before anybody else gets that. Not a byte more is
 * read. */

#include <systemd/sd-event.h>

#include "basic/macro.h"
#include "basic/proxy-protocol.h"

typedef struct ProxyReader ProxyReader;

/* Called once, from the loop; may free the reader. @header: NULL when there is none: then @reason says why.
 */
typedef void (*proxy_reader_handler_t)(const ProxyHeader *header, const char *reason, void *userdata);

/* Reads from @fd, which does not block and is borrowed. A proxy that takes longer than @timeout_usec is not
 * waited for. Returns 0 or a negative errno. */
int proxy_reader_new(sd_event *event, int fd, uint64_t timeout_usec, proxy_reader_handler_t handler,
                void *userdata, ProxyReader **ret);

ProxyReader *proxy_reader_free(ProxyReader *r);
DEFINE_CLEANUP(ProxyReader, proxy_reader_free)

/* SPDX-License-Identifier: MIT */
#pragma once

/* Which content coding of a file a client is given (RFC 9110, section 12.5.3). Pure. */

#include "http/parser.h"

/* In the order of our preference where the client has none: the smaller ones first. */
typedef enum Encoding {
        ENCODING_BR,
        ENCODING_ZSTD,
        ENCODING_GZIP,
        ENCODING_IDENTITY, /* the file as it is */
        _ENCODING_MAX,
        _ENCODING_INVALID = -22,
} Encoding;

/* The coding's registered name, and what is appended to the name of a file: "" for identity. */
const char *encoding_name(Encoding encoding);
const char *encoding_suffix(Encoding encoding);

/* Picks one of the set @available (1 << Encoding), which always holds identity. _ENCODING_INVALID when the
 * client refuses all of them, identity among them by name or by "*;q=0". */
Encoding encoding_choose(const HttpRequest *request, const char *buf, unsigned available);

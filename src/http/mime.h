/* SPDX-License-Identifier: MIT */
#pragma once

/* The media type of a file by its name's extension, from a built-in table: what is served does not depend on
 * the host. */

/* Never NULL; application/octet-stream for what is not known. */
const char *mime_from_path(const char *path);

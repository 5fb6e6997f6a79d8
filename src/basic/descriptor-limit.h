/* SPDX-License-Identifier: MIT */
#pragma once

/* The soft limit of descriptors. systemd leaves it at 1024 for programs that use select(2), and lets those
 * raise it that do not (systemd.exec(5), LimitNOFILE=). What a process starts must find it as it was. */

/* Raises the limit to @n, or as far as is allowed, and notes in the environment what it was. */
void descriptor_limit_raise(unsigned n);

/* In a child of one that did so: back to what it was, and the note is gone. */
void descriptor_limit_restore(void);

/* SPDX-License-Identifier: MIT */
#pragma once

/* Marks of libmuster's public entry points. */

/* A wrong argument is the caller's bug, but a library does not end its caller for it. */
#define muster_assert_return(condition, value)         \
        do {                                           \
                if (__builtin_expect(!(condition), 0)) \
                        return (value);                \
        } while (0)

#define _public_ __attribute__((visibility("default")))

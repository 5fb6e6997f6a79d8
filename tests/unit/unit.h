/* SPDX-License-Identifier: MIT */
#pragma once

/* What every unit test includes before anything else: cmocka wants these four headers first. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

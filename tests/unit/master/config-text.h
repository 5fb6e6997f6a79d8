/* SPDX-License-Identifier: MIT */
#pragma once

/* Configurations that are given as text, by way of a file. */

#include "../unit.h"

#include <stdio.h>
#include <string.h>

#include "basic/macro.h"
#include "master/config.h"

static char file[64]; /* its path, which setup() chooses */

static inline void write_file(const char *path, const char *text) {
        FILE *f = fopen(path, "we");

        assert_non_null(f);
        fputs(text, f);
        assert_int_equal(fclose(f), 0);
}

/* The test's own: writes @text to the file, and does with it what is to be looked at. */
static int load(const char *text, Config **ret, char **ret_error);

static inline Config *load_valid(const char *text) {
        _cleanup_free_ char *error = NULL;
        Config *c = NULL;

        if (load(text, &c, &error) != 0)
                fail_msg("%s: %s", text, error);
        return c;
}

/* @error names the file, and goes on with exactly @expected. */
static inline void assert_error(const char *error, const char *expected) {
        assert_non_null(error);
        assert_int_equal(strncmp(error, file, strlen(file)), 0);
        assert_string_equal(error + strlen(file), expected);
}

/* @text is refused with exactly that, and nothing is returned. */
static inline void refuse(const char *text, const char *expected) {
        Config *untouched = (Config *) &file, *c = untouched;
        _cleanup_free_ char *error = NULL;

        assert_int_equal(load(text, &c, &error), CONFIG_INVALID);
        assert_ptr_equal(c, untouched);
        assert_error(error, expected);
}

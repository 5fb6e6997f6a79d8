/* SPDX-License-Identifier: MIT */
#pragma once

/* What the configuration's group "state" means here and now: the store that workers are told of. The
 * password of a server is in a file, of which they are told the path; it is in no variable but where the
 * configuration asks for the whole URL by %{state_url}, for programs with a client of their own. */

#include <stdbool.h>

#include "basic/macro.h"

typedef struct Config Config;

typedef struct StateSetting {
        char *url;        /* without a password */
        char *secret_url; /* with it, or the same */
        char *credential; /* the file with the password, an absolute path; NULL: there is none */
        bool is_required;
} StateSetting;

/* Resolves it in this process's environment, with $STATE_DIRECTORY and $CREDENTIALS_DIRECTORY, and reads the
 * password. @ret is NULL where there is no state. Returns 0; CONFIG_INVALID with a text for the user
 * ("file:line: key: found …, expected …") in @ret_error, which shows no password; or -ENOMEM. */
int state_setting_new(const Config *config, const char *app, StateSetting **ret, char **ret_error);

StateSetting *state_setting_free(StateSetting *s);
DEFINE_CLEANUP(StateSetting, state_setting_free)

/*
 * Parts of it, for the tests
 */

/* Every byte but letters, digits and -._~/ (the slash only if @keep_slash) as %XX, into a fresh string;
 * NULL: no memory. */
char *state_setting_encode(const char *text, bool keep_slash);

/* Puts the encoded password into a URL without one; NULL: no memory. */
char *state_setting_add_password(const char *url, const char *password);

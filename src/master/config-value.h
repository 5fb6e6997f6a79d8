/* SPDX-License-Identifier: MIT */
#pragma once

/* The value of one key: from a setting of libconfig, or from its default, into the member of Config. */

#include <stdbool.h>

#include "basic/parse.h"
#include "master/config-schema.h"
#include "master/config.h"

struct config_setting_t;

/* The member of @c that the key is kept in. */
void *config_value_member(const Config *c, const ConfigKey *k);

/* Reads the setting, called @name in messages. Returns 0, CONFIG_INVALID with a text, or -ENOMEM. */
int config_value_read(Config *c, const ConfigKey *k, const struct config_setting_t *s, const char *name,
                char **ret_error);

/* Sets the default, into a member that is empty yet. Returns 0 or -ENOMEM. */
int config_value_set_default(Config *c, const ConfigKey *k);

bool config_value_is_default(const Config *c, const ConfigKey *k);

/* Whether both have the same. */
bool config_value_is_same(const Config *a, const Config *b, const ConfigKey *k);

/* The value of a key that has no parts, in the words of the file but without quotes; @buf may hold it. */
#define CONFIG_VALUE_MAX DURATION_STRING_MAX
const char *config_value_to_string(const Config *c, const ConfigKey *k, char buf[static CONFIG_VALUE_MAX]);

/* Frees what the member owns. */
void config_value_done(Config *c, const ConfigKey *k);

/* The file in which the setting stands; borrowed. */
const char *config_value_file(const Config *c, const struct config_setting_t *s);

/* Puts "file:line: name: found …, expected …" into a fresh string. Returns CONFIG_INVALID or -ENOMEM. */
int config_value_refuse(const Config *c, const struct config_setting_t *s, const char *name,
                const char *expected, char **ret_error);

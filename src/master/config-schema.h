/* SPDX-License-Identifier: MIT */
#pragma once

/* Every key of the configuration, as a table: one row is all there is to say about a key. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum ConfigType {
        CONFIG_CHOICE,       /* unsigned: index of the word in `choices`, or what `numbers` has for it */
        CONFIG_PATH,         /* char *: an absolute path */
        CONFIG_PATH_OR_NONE, /* the same, or "" = NULL */
        CONFIG_LOG,          /* char *: an absolute path or "journal", or "" = NULL */
        CONFIG_FILE_NAME,    /* char *: without a slash, or "" = NULL */
        CONFIG_URL,          /* char *: or "" = NULL */
        CONFIG_CREDENTIAL,   /* char *: an absolute path or the name of a file, or "" = NULL */
        CONFIG_FIELD_VALUE,  /* char *: of a header field of HTTP, or "" = NULL */
        CONFIG_STRINGS,      /* char **: strings, NULL at the end; NULL: none */
        CONFIG_VARIABLES,    /* char **: likewise, "NAME=value" */
        CONFIG_BOOL,         /* bool */
        CONFIG_UINT,         /* unsigned, min … max */
        CONFIG_COUNT,        /* unsigned, min … max, or "auto" = 0 */
        CONFIG_DURATION,     /* uint64_t, microseconds, min … max */
        CONFIG_SIZE,         /* uint64_t, bytes, min … max */
        _CONFIG_TYPE_MAX,
} ConfigType;

typedef struct ConfigKey {
        const char *group;
        const char *name;
        ConfigType type;
        size_t offset; /* of the member in Config */
        uint64_t min;
        uint64_t max;
        const char *const *choices; /* NULL at the end */
        const unsigned *numbers;    /* NULL: the index is meant */
        const char *fallback;       /* the default, as text that the type's reader takes */
        const char *help;           /* one or two sentences, for the manual */
        unsigned kinds;             /* bits, 1 << AppKind, of those that know it; 0: all do */
        const char *why;            /* the others do not, for whoever sets it nevertheless */
        const char *option;         /* of the native worker, which hands it on; NULL: none. A switch is given
                                     * when it is not as the default has it */
} ConfigKey;

/* The default of a key that may be empty, as it stands in a file. */
#define CONFIG_EMPTY "\"\""

extern const ConfigKey config_keys[];
extern const size_t n_config_keys;

/* The keys of an app, or of one of its agents. */
typedef struct ConfigTable {
        const ConfigKey *keys;
        size_t n;
} ConfigTable;

extern const ConfigTable config_table, config_agent_table;

/* Whether workers of this kind know the key. */
bool config_key_is_known(const ConfigKey *k, unsigned kind);

/* Whether a number must stand in quotes: libconfig cuts a bare one to 32 bits without a word. */
bool config_key_is_quoted(const ConfigKey *k);

/* The longest text that a key's value or expectation needs. */
#define CONFIG_TEXT_MAX 256

/* What the key takes, in words: `a time span from 100ms to 1h, such as "30s"`. */
const char *config_key_expected(const ConfigKey *k, char buf[static CONFIG_TEXT_MAX]);

/* The rows of muster.conf(5), as scdoc: of the groups, of an agent. */
void config_schema_print_reference(FILE *f);
void config_schema_print_agent_reference(FILE *f);

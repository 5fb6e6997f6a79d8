/* SPDX-License-Identifier: MIT */
/* Values of keys; see config-value.h. */

#include "master/config-value.h"

#include <errno.h>
#include <libconfig.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/parse.h"
#include "basic/strv.h"
#include "basic/text.h"
#include "master/variable.h"

#define FIELD_VALUE_MAX 200

void *config_value_member(const Config *c, const ConfigKey *k) {
        return (char *) c + k->offset;
}

const char *config_value_file(const Config *c, const config_setting_t *s) {
        const char *file = config_setting_source_file(s);

        return file ? file : c->path; /* set only for what came by @include */
}

/* The value as the user wrote it, more or less. */
static const char *setting_found(const config_setting_t *s, char buf[static CONFIG_TEXT_MAX]) {
        switch (config_setting_type(s)) {
        case CONFIG_TYPE_INT:
        case CONFIG_TYPE_INT64:
                snprintf(buf, CONFIG_TEXT_MAX, "%lld", config_setting_get_int64(s));
                break;
        case CONFIG_TYPE_FLOAT:
                snprintf(buf, CONFIG_TEXT_MAX, "%g", config_setting_get_float(s));
                break;
        case CONFIG_TYPE_STRING:
                text_quote(config_setting_get_string(s), buf, CONFIG_TEXT_MAX);
                break;
        case CONFIG_TYPE_BOOL:
                strcpy(buf, config_setting_get_bool(s) ? "true" : "false");
                break;
        case CONFIG_TYPE_GROUP:
                strcpy(buf, "a group { … }");
                break;
        case CONFIG_TYPE_ARRAY:
                strcpy(buf, "an array [ … ]");
                break;
        case CONFIG_TYPE_LIST:
                strcpy(buf, "a list ( … )");
                break;
        default:
                strcpy(buf, "nothing");
        }
        return buf;
}

int config_value_refuse(const Config *c, const config_setting_t *s, const char *name, const char *expected,
                char **ret_error) {
        char found[CONFIG_TEXT_MAX];

        return text_outcome(CONFIG_INVALID, ret_error, "%s:%u: %s: found %s, expected %s",
                        config_value_file(c, s), config_setting_source_line(s), name,
                        setting_found(s, found), expected);
}

/* Readers of one value each. They return 0, -ENOMEM, or -EINVAL and -ERANGE for "not what the key takes". */

static int read_choice(const ConfigKey *k, const char *text, unsigned *ret) {
        for (unsigned i = 0; k->choices[i]; i++)
                if (strcmp(text, k->choices[i]) == 0) {
                        *ret = k->numbers ? k->numbers[i] : i;
                        return 0;
                }
        return -EINVAL;
}

/* NULL for the empty one. */
static int set_string(const char *text, char **ret) {
        char *copy = *text ? strdup(text) : NULL;

        if (*text && !copy)
                return -ENOMEM;
        free(*ret);
        *ret = copy;
        return 0;
}

static bool is_file_name(const char *s) {
        return !strchr(s, '/') && strlen(s) <= NAME_MAX && strcmp(s, ".") != 0 && strcmp(s, "..") != 0;
}

static bool is_field_value(const char *s) {
        size_t n = strlen(s);

        for (size_t i = 0; i < n; i++)
                if (s[i] < 0x20 || s[i] > 0x7E)
                        return false;
        return n <= FIELD_VALUE_MAX && (n == 0 || (s[0] != ' ' && s[n - 1] != ' '));
}

/* Those that an empty string is a value of. */
static int read_string(const ConfigKey *k, const char *text, char **ret) {
        bool valid = false;

        switch (k->type) {
        case CONFIG_PATH_OR_NONE:
                valid = !*text || *text == '/';
                break;
        case CONFIG_LOG:
                valid = !*text || *text == '/' || strcmp(text, "journal") == 0;
                break;
        case CONFIG_FILE_NAME:
                valid = is_file_name(text);
                break;
        case CONFIG_URL: /* config-check.c looks at it, and shows no password */
                valid = true;
                break;
        case CONFIG_CREDENTIAL:
                valid = *text == '/' || is_file_name(text);
                break;
        case CONFIG_FIELD_VALUE:
                valid = is_field_value(text);
                break;
        default:
                break;
        }
        return valid ? set_string(text, ret) : -EINVAL;
}

static int read_path(const char *text, char **ret) {
        return text[0] == '/' ? set_string(text, ret) : -EINVAL;
}

static int read_ranged(const ConfigKey *k, uint64_t v, uint64_t *ret) {
        if (v < k->min || v > k->max)
                return -ERANGE;
        *ret = v;
        return 0;
}

static int read_text(const ConfigKey *k, const char *text, void *member) {
        uint64_t v;
        int r;

        switch (k->type) {
        case CONFIG_CHOICE:
                return read_choice(k, text, member);
        case CONFIG_PATH_OR_NONE:
        case CONFIG_LOG:
        case CONFIG_FILE_NAME:
        case CONFIG_URL:
        case CONFIG_CREDENTIAL:
        case CONFIG_FIELD_VALUE:
                return read_string(k, text, member);
        case CONFIG_PATH:
                return read_path(text, member);
        case CONFIG_DURATION:
                r = parse_duration(text, &v);
                return r < 0 ? r : read_ranged(k, v, member);
        case CONFIG_SIZE:
                r = parse_size(text, &v);
                return r < 0 ? r : read_ranged(k, v, member);
        case CONFIG_COUNT:
                if (strcmp(text, "auto") != 0)
                        return -EINVAL;
                *(unsigned *) member = 0;
                return 0;
        default:
                return -EINVAL;
        }
}

static int read_number(const ConfigKey *k, long long n, void *member) {
        uint64_t v;
        int r;

        if (n < 0)
                return -ERANGE;
        r = read_ranged(k, (uint64_t) n, &v);
        if (r < 0)
                return r;

        switch (k->type) {
        case CONFIG_UINT:
        case CONFIG_COUNT:
                *(unsigned *) member = (unsigned) v;
                return 0;
        case CONFIG_SIZE: /* bytes; a duration without its unit would be a guess */
                if (config_key_is_quoted(k))
                        return -EINVAL;
                *(uint64_t *) member = v;
                return 0;
        default:
                return -EINVAL;
        }
}

static int read_scalar(const ConfigKey *k, const config_setting_t *s, void *member) {
        switch (config_setting_type(s)) {
        case CONFIG_TYPE_STRING:
                return read_text(k, config_setting_get_string(s), member);
        case CONFIG_TYPE_INT:
        case CONFIG_TYPE_INT64:
                return read_number(k, config_setting_get_int64(s), member);
        case CONFIG_TYPE_BOOL:
                if (k->type != CONFIG_BOOL)
                        return -EINVAL;
                *(bool *) member = config_setting_get_bool(s);
                return 0;
        default:
                return -EINVAL;
        }
}

/* Readers of what has parts, each of which has a line of its own. They return as config_value_read(). */

static int read_strings(const Config *c, const ConfigKey *k, const config_setting_t *s, const char *name,
                char **ret_error) {
        char ***member = config_value_member(c, k), expected[CONFIG_TEXT_MAX];

        if (!config_setting_is_array(s) && !config_setting_is_list(s))
                return config_value_refuse(c, s, name, config_key_expected(k, expected), ret_error);
        for (int i = 0; i < config_setting_length(s); i++) {
                const config_setting_t *element = config_setting_get_elem(s, (unsigned) i);

                if (config_setting_type(element) != CONFIG_TYPE_STRING)
                        return config_value_refuse(
                                        c, element, name, config_key_expected(k, expected), ret_error);
                if (strv_add(member, config_setting_get_string(element)) < 0)
                        return -ENOMEM;
        }
        return 0;
}

static int add_variable(char ***variables, const char *name, const config_setting_t *s) {
        switch (config_setting_type(s)) {
        case CONFIG_TYPE_STRING:
                return strv_addf(variables, "%s=%s", name, config_setting_get_string(s));
        case CONFIG_TYPE_INT:
        case CONFIG_TYPE_INT64:
                return strv_addf(variables, "%s=%lld", name, config_setting_get_int64(s));
        case CONFIG_TYPE_BOOL:
                return strv_addf(variables, "%s=%s", name, config_setting_get_bool(s) ? "true" : "false");
        default: /* of 1.10 only 1.1 is left */
                return -EINVAL;
        }
}

static int read_variable(const Config *c, const config_setting_t *s, const char *key, char ***member,
                char **ret_error) {
        const char *name = config_setting_name(s), *problem = variable_refuse_name(name, strlen(name));
        char path[CONFIG_TEXT_MAX];
        int r;

        if (problem)
                return text_outcome(CONFIG_INVALID, ret_error, "%s:%u: %s: found \"%.128s\", expected %s",
                                config_value_file(c, s), config_setting_source_line(s), key, name, problem);
        r = add_variable(member, name, s);
        if (r != -EINVAL)
                return r;
        snprintf(path, sizeof(path), "%s.%s", key, name);
        return config_value_refuse(c, s, path, "a string, a whole number, true or false", ret_error);
}

static int read_variables(const Config *c, const ConfigKey *k, const config_setting_t *s, const char *name,
                char **ret_error) {
        char expected[CONFIG_TEXT_MAX];
        int r = 0;

        if (!config_setting_is_group(s))
                return config_value_refuse(c, s, name, config_key_expected(k, expected), ret_error);
        for (int i = 0; r == 0 && i < config_setting_length(s); i++)
                r = read_variable(c, config_setting_get_elem(s, (unsigned) i), name,
                                config_value_member(c, k), ret_error);
        return r;
}

int config_value_read(Config *c, const ConfigKey *k, const config_setting_t *s, const char *name,
                char **ret_error) {
        char expected[CONFIG_TEXT_MAX];
        int r;

        switch (k->type) {
        case CONFIG_STRINGS:
                return read_strings(c, k, s, name, ret_error);
        case CONFIG_VARIABLES:
                return read_variables(c, k, s, name, ret_error);
        default:
                r = read_scalar(k, s, config_value_member(c, k));
        }
        if (r == -EINVAL || r == -ERANGE)
                return config_value_refuse(c, s, name, config_key_expected(k, expected), ret_error);
        return r;
}

static int set_default(const ConfigKey *k, void *member) {
        uint64_t n;
        int r;

        switch (k->type) {
        case CONFIG_BOOL:
                *(bool *) member = strcmp(k->fallback, "true") == 0;
                return 0;
        case CONFIG_UINT:
                r = parse_uint64(k->fallback, &n);
                assert(r == 0);
                return read_number(k, (long long) n, member);
        case CONFIG_STRINGS:
        case CONFIG_VARIABLES: /* none */
                *(void **) member = NULL;
                return 0;
        default:
                return read_text(k, strcmp(k->fallback, CONFIG_EMPTY) == 0 ? "" : k->fallback, member);
        }
}

int config_value_set_default(Config *c, const ConfigKey *k) {
        int r = set_default(k, config_value_member(c, k));

        assert(r == 0 || r == -ENOMEM);
        return r;
}

static bool is_string(const ConfigKey *k) {
        switch (k->type) {
        case CONFIG_PATH:
        case CONFIG_PATH_OR_NONE:
        case CONFIG_LOG:
        case CONFIG_FILE_NAME:
        case CONFIG_URL:
        case CONFIG_CREDENTIAL:
        case CONFIG_FIELD_VALUE:
                return true;
        default:
                return false;
        }
}

static size_t value_size(const ConfigKey *k) {
        static const size_t sizes[_CONFIG_TYPE_MAX] = {
                [CONFIG_CHOICE] = sizeof(unsigned),
                [CONFIG_STRINGS] = sizeof(char **),
                [CONFIG_VARIABLES] = sizeof(char **),
                [CONFIG_BOOL] = sizeof(bool),
                [CONFIG_UINT] = sizeof(unsigned),
                [CONFIG_COUNT] = sizeof(unsigned),
                [CONFIG_DURATION] = sizeof(uint64_t),
                [CONFIG_SIZE] = sizeof(uint64_t),
        };

        assert(sizes[k->type] > 0);
        return sizes[k->type];
}

bool config_value_is_default(const Config *c, const ConfigKey *k) {
        const void *member = config_value_member(c, k);
        uint64_t fallback = 0;

        if (is_string(k)) {
                const char *s = *(char *const *) member;
                return strcmp(s ? s : CONFIG_EMPTY, k->fallback) == 0;
        }
        (void) set_default(k, &fallback);
        return memcmp(member, &fallback, value_size(k)) == 0;
}

static bool same_string(const char *a, const char *b) {
        return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_strings(char *const *a, char *const *b) {
        size_t n = strv_length(a);

        if (strv_length(b) != n)
                return false;
        for (size_t i = 0; i < n; i++)
                if (strcmp(a[i], b[i]) != 0)
                        return false;
        return true;
}

bool config_value_is_same(const Config *a, const Config *b, const ConfigKey *k) {
        const void *x = config_value_member(a, k), *y = config_value_member(b, k);

        if (is_string(k))
                return same_string(*(char *const *) x, *(char *const *) y);
        if (k->type == CONFIG_STRINGS || k->type == CONFIG_VARIABLES)
                return same_strings(*(char **const *) x, *(char **const *) y);
        return memcmp(x, y, value_size(k)) == 0;
}

static const char *choice_name(const ConfigKey *k, unsigned value) {
        unsigned i = 0;

        while (k->numbers && k->numbers[i] != value)
                i++;
        return k->choices[k->numbers ? i : value];
}

static const char *number_to_string(unsigned v, char buf[static CONFIG_VALUE_MAX]) {
        snprintf(buf, CONFIG_VALUE_MAX, "%u", v);
        return buf;
}

const char *config_value_to_string(const Config *c, const ConfigKey *k, char buf[static CONFIG_VALUE_MAX]) {
        const void *member = config_value_member(c, k);

        switch (k->type) {
        case CONFIG_CHOICE:
                return choice_name(k, *(const unsigned *) member);
        case CONFIG_BOOL:
                return *(const bool *) member ? "true" : "false";
        case CONFIG_COUNT:
                return *(const unsigned *) member == 0 ? "auto"
                                                       : number_to_string(*(const unsigned *) member, buf);
        case CONFIG_UINT:
                return number_to_string(*(const unsigned *) member, buf);
        case CONFIG_DURATION:
                return duration_to_string(*(const uint64_t *) member, buf);
        case CONFIG_SIZE:
                return size_to_string(*(const uint64_t *) member, buf);
        default:
                assert(is_string(k));
                return *(char *const *) member ? *(char *const *) member : "";
        }
}

void config_value_done(Config *c, const ConfigKey *k) {
        void **member = config_value_member(c, k);

        if (is_string(k))
                free(*member);
        else if (k->type == CONFIG_STRINGS || k->type == CONFIG_VARIABLES)
                strv_free(*member);
}

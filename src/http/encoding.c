/* SPDX-License-Identifier: MIT */
/* The choice of a content coding; see encoding.h. */

#include "http/encoding.h"

#include <string.h>
#include <strings.h>

#include "basic/macro.h"
#include "http/chars.h"

#define WEIGHT_ONE    1000 /* qvalues have three digits */
#define WEIGHT_UNSAID (-1)

static const struct {
        const char *name, *suffix;
        size_t name_size;
} encodings[_ENCODING_MAX] = {
        [ENCODING_BR] = { "br", ".br", 2 },
        [ENCODING_ZSTD] = { "zstd", ".zst", 4 },
        [ENCODING_GZIP] = { "gzip", ".gz", 4 },
        [ENCODING_IDENTITY] = { "identity", "", 8 },
};

/* What the client says of each coding, and of those that it does not name. */
typedef struct Weights {
        int of[_ENCODING_MAX];
        int others;
} Weights;

const char *encoding_name(Encoding encoding) {
        return encodings[encoding].name;
}

const char *encoding_suffix(Encoding encoding) {
        return encodings[encoding].suffix;
}

static void skip_white(const char **p, const char *end) {
        while (*p < end && (**p == ' ' || **p == '\t'))
                (*p)++;
}

/* qvalue of section 12.4.2, in thousandths; -1: it is none. */
static int parse_weight(const char *p, const char *end) {
        int v, digits = 0;

        if (p == end || (*p != '0' && *p != '1'))
                return -1;
        v = *p++ - '0';
        if (p < end && *p++ != '.')
                return -1;
        for (; p < end && digits < 3 && char_is_digit(*p); digits++)
                v = v * 10 + *p++ - '0';
        for (; digits < 3; digits++)
                v *= 10;
        return p == end && v <= WEIGHT_ONE ? v : -1;
}

/* The weight of an element whose name ends at @p. One that is malformed does not count. */
static int element_weight(const char *p, const char *end) {
        skip_white(&p, end);
        if (p == end)
                return WEIGHT_ONE;
        if (*p++ != ';')
                return -1;
        skip_white(&p, end);
        if (end - p < 2 || (*p | 0x20) != 'q' || p[1] != '=')
                return -1;
        return parse_weight(p + 2, end);
}

static int *weight_of_name(Weights *weights, const char *s, size_t n) {
        if (n == 1 && *s == '*')
                return &weights->others;
        for (int i = 0; i < _ENCODING_MAX; i++)
                if (n == encodings[i].name_size && strncasecmp(s, encodings[i].name, n) == 0)
                        return &weights->of[i];
        return n == 6 && strncasecmp(s, "x-gzip", n) == 0 ? &weights->of[ENCODING_GZIP]
                                                          : NULL; /* section 8.4.1.3 */
}

static void read_element(Weights *weights, const char *p, size_t n) {
        const char *end = p + n, *name_end = p;
        int weight, *to;

        while (name_end < end && *name_end != ';' && *name_end != ' ' && *name_end != '\t')
                name_end++;
        to = weight_of_name(weights, p, (size_t) (name_end - p));
        weight = element_weight(name_end, end);
        if (to && weight >= 0)
                *to = weight;
}

/* What is not named is as good as "*". Identity that nobody mentions is acceptable, but after everything
 * else. */
static int weight_get(const Weights *weights, Encoding encoding) {
        int own = weights->of[encoding];

        if (own != WEIGHT_UNSAID)
                return 2 * own;
        if (weights->others != WEIGHT_UNSAID)
                return 2 * weights->others;
        return encoding == ENCODING_IDENTITY ? 1 : 0;
}

static Encoding choose(const Weights *weights, unsigned available) {
        Encoding best = _ENCODING_INVALID;
        int highest = 0;

        for (int i = 0; i < _ENCODING_MAX; i++) {
                int weight = weight_get(weights, (Encoding) i);

                if ((available & 1u << i) && weight > highest) {
                        best = (Encoding) i;
                        highest = weight;
                }
        }
        return best;
}

/* Without the field any coding would do (section 12.5.3), but who does not say that it decodes one may not.
 */
Encoding encoding_choose(const HttpRequest *request, const char *buf, unsigned available) {
        Weights weights = { .others = WEIGHT_UNSAID };
        HttpSlice list, element;

        for (int i = 0; i < _ENCODING_MAX; i++)
                weights.of[i] = WEIGHT_UNSAID;
        for (unsigned i = 0; parser_next_field(request, buf, "accept-encoding", &i, &list);)
                while (parser_next_element(buf, &list, &element))
                        read_element(&weights, buf + element.offset, element.length);
        return choose(&weights, available);
}

/* SPDX-License-Identifier: MIT */
/* HTTP dates; see date.h. The calendar arithmetic counts years from March, so that the leap day is a year's
 * last. */

#include "http/date.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "basic/macro.h"
#include "http/chars.h"

#define SECONDS_PER_DAY INT64_C(86400)
#define DAYS_PER_ERA    146097 /* 400 years */
#define YEAR_0          (INT64_C(-719528) * SECONDS_PER_DAY)
#define YEAR_10000      (INT64_C(2932897) * SECONDS_PER_DAY)

static const char days[] = "SunMonTueWedThuFriSat";
static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

typedef struct DateParts {
        int year, month, day; /* month and day count from 1 */
        int hour, minute, second;
} DateParts;

static int64_t days_from_civil(int64_t y, int m, int d) {
        y -= m <= 2;
        int64_t era = (y >= 0 ? y : y - 399) / 400, year = y - era * 400;
        int64_t day = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;

        /* 719468 days lie between 1 March of the year 0 and the epoch. */
        return era * DAYS_PER_ERA + year * 365 + year / 4 - year / 100 + day - 719468;
}

static void civil_from_days(int64_t z, DateParts *p) {
        z += 719468;
        int64_t era = (z >= 0 ? z : z - DAYS_PER_ERA + 1) / DAYS_PER_ERA, doe = z - era * DAYS_PER_ERA;
        int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / (DAYS_PER_ERA - 1)) / 365;
        int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;

        p->day = (int) (doy - (153 * mp + 2) / 5 + 1);
        p->month = (int) (mp < 10 ? mp + 3 : mp - 9);
        p->year = (int) (yoe + era * 400 + (p->month <= 2));
}

static void put_digits(char *s, int n, int value) {
        for (; n > 0; value /= 10)
                s[--n] = (char) ('0' + value % 10);
}

/* Returns the day since the epoch. */
static int64_t split(int64_t seconds, DateParts *p) {
        seconds = MIN(MAX(seconds, YEAR_0), YEAR_10000 - 1);
        int64_t day = seconds / SECONDS_PER_DAY;
        int rest = (int) (seconds % SECONDS_PER_DAY);
        if (rest < 0) {
                rest += SECONDS_PER_DAY;
                day--;
        }
        civil_from_days(day, p);
        p->hour = rest / 3600;
        p->minute = rest / 60 % 60;
        p->second = rest % 60;
        return day;
}

static void put_time(char *s, const DateParts *p) {
        put_digits(s, 2, p->hour);
        put_digits(s + 3, 2, p->minute);
        put_digits(s + 6, 2, p->second);
}

void date_format(int64_t seconds, char ret[static DATE_LENGTH + 1]) {
        DateParts p;
        int64_t day = split(seconds, &p);

        memcpy(ret, "Day, 00 Mon 0000 00:00:00 GMT", DATE_LENGTH + 1);
        memcpy(ret, days + 3 * (((day + 4) % 7 + 7) % 7), 3); /* the epoch was a Thursday */
        put_digits(ret + 5, 2, p.day);
        memcpy(ret + 8, months + 3 * (p.month - 1), 3);
        put_digits(ret + 12, 4, p.year);
        put_time(ret + 17, &p);
}

void date_format_iso(int64_t seconds, char ret[static DATE_ISO_LENGTH + 1]) {
        DateParts p;

        (void) split(seconds, &p);
        memcpy(ret, "0000-00-00T00:00:00Z", DATE_ISO_LENGTH + 1);
        put_digits(ret, 4, p.year);
        put_digits(ret + 5, 2, p.month);
        put_digits(ret + 8, 2, p.day);
        put_time(ret + 11, &p);
}

static bool is_letter(char c) {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static int month_from_name(const char *s) {
        for (int i = 0; i < 12; i++)
                if (memcmp(s, months + 3 * i, 3) == 0)
                        return i + 1;
        return 0;
}

static int *part_of(DateParts *p, char c) {
        switch (c) {
        case 'D':
                return &p->day;
        case 'Y':
                return &p->year;
        case 'h':
                return &p->hour;
        case 'm':
                return &p->minute;
        case 's':
                return &p->second;
        default:
                return NULL;
        }
}

/* Reads @s of the same length as @pattern, in which D Y h m s stand for a digit of their part, _ for a space
 * or a digit of the day, NNN for the month, a for any letter and everything else for itself. */
static bool match(const char *s, const char *pattern, DateParts *p) {
        *p = (DateParts){ 0 };
        for (; *pattern; s++, pattern++) {
                int *part = part_of(p, *pattern == '_' && *s != ' ' ? 'D' : *pattern);

                if (part) {
                        if (!char_is_digit(*s))
                                return false;
                        *part = *part * 10 + *s - '0';
                } else if (*pattern == 'N') {
                        p->month = month_from_name(s);
                        if (p->month == 0)
                                return false;
                        s += 2;
                        pattern += 2;
                } else if (*pattern == 'a' ? !is_letter(*s) : *s != (*pattern == '_' ? ' ' : *pattern))
                        return false;
        }
        return true;
}

/* A short year more than 50 years ahead lies in the past century (RFC 9110, section 5.6.7). */
static void complete_year(DateParts *p, int64_t now) {
        DateParts today;

        civil_from_days(now / SECONDS_PER_DAY, &today);
        p->year += today.year / 100 * 100;
        if (p->year > today.year + 50)
                p->year -= 100;
}

static bool parse_rfc850(const char *s, size_t n, int64_t now, DateParts *p) {
        const char *comma = memchr(s, ',', n);

        if (!comma || n - (size_t) (comma - s) != strlen(", DD-NNN-YY hh:mm:ss GMT") || comma - s < 6)
                return false;
        for (const char *q = s; q < comma; q++)
                if (!is_letter(*q))
                        return false;
        if (!match(comma, ", DD-NNN-YY hh:mm:ss GMT", p))
                return false;
        complete_year(p, now);
        return true;
}

static bool is_valid(const DateParts *p) {
        static const int lengths[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

        return p->month >= 1 && p->day >= 1 && p->day <= lengths[p->month - 1] && p->hour < 24 &&
               p->minute < 60 && p->second <= 60; /* a leap second */
}

int date_parse(const char *s, size_t n, int64_t now, int64_t *ret) {
        DateParts p;

        if (!(n == DATE_LENGTH && match(s, "aaa, DD NNN YYYY hh:mm:ss GMT", &p)) &&
                        !(n == 24 && match(s, "aaa NNN _D hh:mm:ss YYYY", &p)) &&
                        !parse_rfc850(s, n, now, &p))
                return -EINVAL;
        if (!is_valid(&p))
                return -EINVAL;
        *ret = days_from_civil(p.year, p.month, p.day) * SECONDS_PER_DAY + p.hour * 3600 + p.minute * 60 +
               p.second;
        return 0;
}

const char *date_cache_get(DateCache *c, int64_t now) {
        if (c->seconds != now || !c->text[0]) {
                date_format(now, c->text);
                c->seconds = now;
        }
        return c->text;
}

/* SPDX-License-Identifier: MIT */
#pragma once

/* An intrusive circular list. A node that is in no list points to itself, so that removing it twice is
 * harmless. */

#include <stdbool.h>

#include "basic/macro.h"

typedef struct List List;

struct List {
        List *next;
        List *prev;
};

#define LIST_INIT(l) ((List){ .next = &(l), .prev = &(l) })

static inline void list_init(List *l) {
        l->next = l->prev = l;
}

static inline bool list_empty(const List *l) {
        return l->next == l;
}

static inline void list_append(List *head, List *node) {
        node->prev = head->prev;
        node->next = head;
        head->prev->next = node;
        head->prev = node;
}

static inline void list_remove(List *node) {
        node->prev->next = node->next;
        node->next->prev = node->prev;
        list_init(node);
}

#define list_entry(node, type, member) CONTAINER_OF(node, type, member)

#define list_foreach(node, head) for (List *node = (head)->next; node != (head); node = node->next)

/* The current node may be removed or freed in the body. */
#define list_foreach_safe(node, head)                                        \
        for (List *node = (head)->next, *_next = node->next; node != (head); \
                        node = _next, _next = node->next)

/* SPDX-License-Identifier: MIT */
/* The intrusive list. */

#include "../unit.h"

#include <string.h>

#include "basic/list.h"

typedef struct Item {
        int value;
        List node;
} Item;

/* The values in order, as text. */
static const char *walk(List *head) {
        static char text[64];
        size_t n = 0;

        list_foreach (node, head)
                text[n++] = (char) ('0' + list_entry(node, Item, node)->value);
        text[n] = '\0';
        return text;
}

/* Items come out in the order in which they went in. */
static void test_order(void **state) {
        List head = LIST_INIT(head);
        Item items[5];

        assert_true(list_empty(&head));
        assert_string_equal(walk(&head), "");
        for (int i = 0; i < 5; i++) {
                items[i].value = i;
                list_append(&head, &items[i].node);
        }
        assert_false(list_empty(&head));
        assert_string_equal(walk(&head), "01234");

        list_remove(&items[0].node);
        list_remove(&items[4].node);
        list_remove(&items[2].node);
        assert_string_equal(walk(&head), "13");
        list_append(&head, &items[0].node);
        assert_string_equal(walk(&head), "130");
}

/* Removing a node twice, or one that was never in a list, does nothing. */
static void test_remove_twice(void **state) {
        List head = LIST_INIT(head);
        Item a = { .value = 1 }, b = { .value = 2 };

        list_init(&a.node);
        list_remove(&a.node);
        list_append(&head, &a.node);
        list_append(&head, &b.node);
        list_remove(&a.node);
        list_remove(&a.node);
        assert_string_equal(walk(&head), "2");
        list_remove(&b.node);
        assert_true(list_empty(&head));
}

/* In the safe walk the current node may go, and what is appended meanwhile does no harm. */
static void test_safe_walk(void **state) {
        List head = LIST_INIT(head);
        Item items[4], late = { .value = 9 };
        int seen = 0;

        for (int i = 0; i < 4; i++) {
                items[i].value = i;
                list_append(&head, &items[i].node);
        }
        list_foreach_safe (node, &head) {
                Item *item = list_entry(node, Item, node);

                list_remove(node);
                if (item->value == 1)
                        list_append(&head, &late.node);
                memset(item, 0xAA, sizeof(*item)); /* as good as freed */
                if (++seen > 5)
                        break;
        }
        assert_in_range(seen, 4, 5);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_remove_twice),
                cmocka_unit_test(test_safe_walk),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

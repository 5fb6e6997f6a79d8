/* SPDX-License-Identifier: MIT */
/* As much of the instruction format as says where the operand is (Intel SDM, volume 2, chapter 2). What an
 * instruction does with it is not needed: whoever asks compares the memory before and after. */

#include "twin-operand.h"

#include <stdbool.h>
#include <string.h>

typedef struct Code {
        const uint8_t *at;
        bool x, b;        /* bit 3 of the index's and the base's number */
        unsigned scale;   /* of a displacement of one byte */
        bool other_bytes; /* address size prefix, or FS or GS: not of this program's memory */
} Code;

static void skip_prefixes(Code *c) {
        for (;; c->at++)
                switch (*c->at) {
                case 0x64:
                case 0x65:
                case 0x67:
                        c->other_bytes = true;
                        break;
                case 0x26:
                case 0x2E:
                case 0x36:
                case 0x3E:
                case 0x66:
                case 0xF0:
                case 0xF2:
                case 0xF3:
                        break;
                default:
                        return;
                }
}

static void take_rex(Code *c) {
        if ((*c->at & 0xF0) != 0x40)
                return;
        c->x = *c->at & 2;
        c->b = *c->at & 1;
        c->at++;
}

/* VEX and EVEX: the operand follows the opcode, always. */
static bool take_vector(Code *c) {
        if (*c->at == 0xC5) {
                c->at += 3;
                return true;
        }
        if (*c->at != 0xC4 && *c->at != 0x62)
                return false;
        c->x = !(c->at[1] & 0x40);
        c->b = !(c->at[1] & 0x20);
        if (*c->at == 0x62)
                c->scale = 16u << (c->at[3] >> 5 & 3);
        c->at += *c->at == 0xC4 ? 4 : 5;
        return true;
}

static bool has_operand_of_one(uint8_t op) {
        if (op < 0x40)
                return (op & 7) < 4;
        return op == 0x63 || op == 0x69 || op == 0x6B || (op >= 0x80 && op <= 0x8F) || op == 0xC0 ||
               op == 0xC1 || op == 0xC6 || op == 0xC7 || (op >= 0xD0 && op <= 0xD3) ||
               (op >= 0xD8 && op <= 0xDF) || op == 0xF6 || op == 0xF7 || op == 0xFE || op == 0xFF;
}

static bool has_operand_of_two(uint8_t op) {
        return op != 0x05 && op != 0x0B && op != 0x31 && op != 0x77 && !(op >= 0x80 && op <= 0x8F) &&
               !(op >= 0xA0 && op <= 0xA2) && !(op >= 0xA8 && op <= 0xAA) && !(op >= 0xC8 && op <= 0xCF);
}

static bool take_opcode(Code *c) {
        uint8_t op = *c->at++;

        if (op != 0x0F)
                return has_operand_of_one(op);
        op = *c->at++;
        if (op == 0x38 || op == 0x3A) {
                c->at++;
                return true;
        }
        return has_operand_of_two(op);
}

static uint64_t value_of(const struct user_regs_struct *r, unsigned number) {
        const unsigned long long values[] = { r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
                r->r8, r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15 };

        return values[number];
}

static int64_t take_displacement(Code *c, unsigned mod) {
        int32_t wide;

        if (mod == 1)
                return (int64_t) (int8_t) *c->at * c->scale;
        memcpy(&wide, c->at, sizeof(wide));
        return wide;
}

static uint64_t take_address(Code *c, const struct user_regs_struct *r) {
        unsigned modrm = *c->at++, mod = modrm >> 6, rm = modrm & 7, sib = 0;
        uint64_t address = 0;
        bool no_base = false;

        if (mod == 3 || (mod == 0 && rm == 5)) /* a register, or next to the code */
                return 0;
        if (rm == 4) {
                sib = *c->at++;
                rm = sib & 7;
                no_base = mod == 0 && rm == 5;
                if ((sib >> 3 & 7) != 4 || c->x)
                        address += value_of(r, (sib >> 3 & 7) | (c->x ? 8 : 0)) << (sib >> 6);
        }
        if (!no_base)
                address += value_of(r, rm | (c->b ? 8 : 0));
        if (mod != 0 || no_base)
                address += (uint64_t) take_displacement(c, no_base ? 2 : mod);
        return address;
}

static bool is_string_store(uint8_t op) {
        return op == 0xA4 || op == 0xA5 || op == 0xAA || op == 0xAB;
}

uint64_t operand_address(const uint8_t *code, const struct user_regs_struct *regs) {
        Code c = { .at = code, .scale = 1 };

        skip_prefixes(&c);
        take_rex(&c);
        if (c.other_bytes)
                return 0;
        if (is_string_store(*c.at))
                return regs->rdi;
        if (!take_vector(&c) && !take_opcode(&c))
                return 0;
        return take_address(&c, regs);
}

int operand_is_syscall(const uint8_t *code) {
        return code[0] == 0x0F && code[1] == 0x05;
}

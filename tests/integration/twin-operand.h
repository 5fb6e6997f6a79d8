/* SPDX-License-Identifier: MIT */
#pragma once

/* Where in memory an instruction of x86-64 may write. */

#include <stddef.h>
#include <stdint.h>
#include <sys/user.h>

#define INSTRUCTION_MAX 15 /* bytes */

/* The address of its operand in memory; 0: it has none, or none but the stack. An instruction that only
 * reads there has one, too. @code: INSTRUCTION_MAX bytes. */
uint64_t operand_address(const uint8_t *code, const struct user_regs_struct *regs);

/* It is a system call. */
int operand_is_syscall(const uint8_t *code);

/* SPDX-License-Identifier: MIT */
#pragma once

/* States of a connection that another process can go on from: how they are made, and what follows from one
 * and from the kernel's counters. */

#include <stdbool.h>

#include "http/connection.h"
#include "twin/truth.h"

/* Makes the state that the connection is in now the one that holds, by one store. */
void connection_commit(Connection *c);

const Commit *commit_holding(const Record *r);

/* Makes the record's working state anew from the commit that holds. False: that and the kernel's word do not
 * belong together, and nothing can be said about this connection. */
bool commit_restore(const Table *t, Record *r, const Truth *truth);

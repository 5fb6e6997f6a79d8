// SPDX-License-Identifier: MIT
// An app that has forgotten to serve. In a cluster its channel keeps it alive.
console.error(`returned ${process.pid}`);

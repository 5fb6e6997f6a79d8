// SPDX-License-Identifier: MIT
// Node's own primary, as its manual shows it: it forks the app, and anew what has ended.
'use strict';
const cluster = require('cluster');
const path = require('path');

cluster.setupPrimary({ exec: path.join(__dirname, 'hello.js') });
cluster.on('exit', () => cluster.fork());
for (let i = 0; i < Number(process.env.BENCH_WORKERS); i++) {
        cluster.fork();
}

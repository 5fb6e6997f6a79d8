// SPDX-License-Identifier: MIT
// An app that has its own primary: under muster all of it is the workers' branch.
const cluster = require('cluster');
const http = require('http');

if (cluster.isPrimary) {
        cluster.fork();
        cluster.fork();
} else {
        http.createServer((request, response) => response.end(JSON.stringify({ pid: process.pid }))).listen(3000);
}

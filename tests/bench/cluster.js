// SPDX-License-Identifier: MIT
// Two workers that answer, for refill.py and lifecycle.py: by Node's own cluster, which forks anew what has ended, or, under PM2, by
// PM2's. With "graceful", a worker says when it is ready, and finishes what is open when it is told to go.
'use strict';
const cluster = require('cluster');
const http = require('http');

const port = Number(process.env.BENCH_PORT);

if (cluster.isPrimary && !('NODE_APP_INSTANCE' in process.env)) {
        cluster.on('exit', () => cluster.fork());
        cluster.fork();
        cluster.fork();
} else {
        const server = http.createServer((request, response) => {
                const body = request.url === '/whoami' ? `{"pid":${process.pid}}\n` : 'hello\n';
                response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': body.length });
                response.end(body);
        });
        const graceful = process.env.BENCH_GRACEFUL === '1';
        server.listen(port, '127.0.0.1', () => graceful && process.send('ready'));
        if (graceful) {
                process.on('SIGINT', () => server.close(() => process.exit(0)));
        }
}

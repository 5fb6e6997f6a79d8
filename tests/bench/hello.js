// SPDX-License-Identifier: MIT
// An app that knows of nobody who starts it: what all primaries of Node run here. With "graceful", under PM2, it says when it is ready, and
// finishes what is open when it is told to go.
'use strict';
const http = require('http');

const server = http.createServer((request, response) => {
        const body = request.url === '/whoami' ? `{"pid":${process.pid}}\n` : 'hello\n';
        response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': body.length });
        response.end(body);
});
const graceful = process.env.BENCH_GRACEFUL === '1';

server.listen(Number(process.env.BENCH_PORT), '127.0.0.1', () => graceful && process.send('ready'));
if (graceful) {
        process.on('SIGINT', () => server.close(() => process.exit(0)));
}

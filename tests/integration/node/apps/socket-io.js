// SPDX-License-Identifier: MIT
const http = require('http');
const { Server } = require('socket.io');

const server = http.createServer();

new Server(server).on('connection', socket =>
        socket.on('hello', (name, answer) => answer({ pid: process.pid, hello: name })));
server.listen(3000);

// SPDX-License-Identifier: MIT
const { WebSocketServer } = require('ws');

new WebSocketServer({ port: 3000 }).on('connection', socket =>
        socket.on('message', message => socket.send(`${process.pid} ${message}`)));

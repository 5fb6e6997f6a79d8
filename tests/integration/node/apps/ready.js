// SPDX-License-Identifier: MIT
//
// Listens, and says that it is ready only when the gate lets it, as for PM2's wait_ready.
const http = require('http');
const net = require('net');

http.createServer((request, response) => response.end(JSON.stringify({ pid: process.pid }))).listen(3000, () => {
        const gate = net.connect(process.env.GATE, () => gate.write(`ready ${process.pid}\n`));
        gate.resume().on('end', () => process.send('ready'));
});

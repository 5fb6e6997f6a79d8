// SPDX-License-Identifier: MIT
//
//      io-client.js PORT TRANSPORT ADDRESS...
//
// A client of socket-io.js for each local address. By polling, every request has a connection of its own.
const http = require('http');
const { io } = require('socket.io-client');

const [port, transport, ...addresses] = process.argv.slice(2);
const times = 5;

function ask(socket, address, left) {
        socket.emit('hello', `${address} ${left}`, answer => {
                console.log(JSON.stringify({ address, id: socket.id, ...answer }));
                if (left > 1)
                        ask(socket, address, left - 1);
                else
                        socket.disconnect();
        });
}

for (const address of addresses) {
        const agent = new http.Agent({ localAddress: address, keepAlive: false });
        const socket = io(`http://127.0.0.1:${port}`, { transports: [transport], agent, reconnection: false, forceNew: true });
        const fail = why => {
                console.error(`${address}: ${why}`);
                process.exit(1);
        };
        socket.on('connect_error', fail);
        socket.on('disconnect', why => why === 'io client disconnect' || fail(why));
        socket.on('connect', () => ask(socket, address, times));
}

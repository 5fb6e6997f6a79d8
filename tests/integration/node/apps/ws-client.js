// SPDX-License-Identifier: MIT
//
//      ws-client.js PORT N
//
// N clients of ws.js at once, each of which says something and prints the answer when all have theirs.
const { WebSocket } = require('ws');

const [port, n] = process.argv.slice(2);
const open = [];

for (let i = 0; i < n; i++) {
        const socket = new WebSocket(`ws://127.0.0.1:${port}`);
        socket.on('open', () => socket.send(`hello ${i}`));
        socket.on('message', message => {
                console.log(JSON.stringify(message.toString()));
                if (open.push(socket) === Number(n))
                        open.forEach(one => one.close());
        });
}

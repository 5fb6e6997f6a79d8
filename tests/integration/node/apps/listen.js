// SPDX-License-Identifier: MIT
//
// Listens on each of what is in LISTEN, a list of arguments of listen() in JSON, and answers with what it was told: addresses,
// and the codes of errors.
const http = require('http');

const told = { pid: process.pid, listening: [], errors: [] };
let left = JSON.parse(process.env.LISTEN).length;

function settled() {
        if (--left === 0)
                console.error(`settled ${process.pid}`);
}

for (const [i, options] of JSON.parse(process.env.LISTEN).entries()) {
        const server = http.createServer((request, response) => response.end(JSON.stringify({ ...told, server: i })));
        server.on('error', error => {
                told.errors.push(error.code);
                settled();
        });
        server.listen(options, () => {
                told.listening[i] = server.address();
                settled();
        });
}

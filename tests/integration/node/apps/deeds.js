// SPDX-License-Identifier: MIT
//
// An app that does what it is asked for, by the path of a request. / is "hello\n", and what it says goes to stderr.
const cluster = require('cluster');
const fs = require('fs');
const http = require('http');
const net = require('net');

// The gate is a socket of the test: a line tells it who waits, and its end lets that one go on.
function gate(line, then) {
        const socket = net.connect(process.env.GATE, () => socket.write(`${line} ${process.pid}\n`));
        socket.resume().on('end', then);
}

function block() {
        fs.writeSync(2, `blocked ${process.pid}\n`);
        for (;;)
                continue;
}

function flood(text) {
        process.send(text, () => setImmediate(flood, text));
}

// Sockets that nobody has asked for: some of its own that listen, and in the end the connection of the client.
function sendHandles(n, connection) {
        if (n === 0)
                return process.send({ unasked: 'connection' }, connection);
        const listening = net.createServer().listen({ port: 0, exclusive: true }, () =>
                process.send({ unasked: n }, listening, () => listening.close(() => sendHandles(n - 1, connection))));
}

const deeds = {
        '/': (request, response) => response.end('hello\n'),
        '/pid': (request, response) => response.end(JSON.stringify({
                pid: process.pid,
                instance: process.env.NODE_APP_INSTANCE,
                environment: Object.keys(process.env).filter(name => /^(NODE|MUSTER|LISTEN)_/.test(name)).sort(),
                heard,
        })),
        '/slow': (request, response) => gate('slow', () => response.end('slow\n')),
        '/block': block,
        '/block-after': (request, response) => response.end('ok\n', () => setImmediate(block)),
        '/crash': () => setImmediate(() => {
                throw new Error('on purpose');
        }),
        '/exit': () => process.exit(0),
        '/disconnect': (request, response) => {
                cluster.worker.disconnect();
                response.end('ok\n');
        },
        '/again': (request, response) => {
                response.setHeader('Connection', 'close');
                response.end('ok\n');
                server.close(() => server.listen(3000, () => console.error(`again ${process.pid}`)));
        },
        '/status': (request, response) =>
                process.send({ cmd: 'MUSTER', act: 'status', text: 'well' }, () => response.end('ok\n')),
        '/rubbish': (request, response) => {
                fs.writeSync(process.channel.fd, 'this is not JSON\n');
                response.end('ok\n');
        },
        '/long': (request, response) => {
                process.send({ text: 'x'.repeat(1 << 20) });
                response.end('ok\n');
        },
        '/flood': (request, response) => {
                response.end('ok\n');
                for (let i = 0; i < 64; i++)
                        flood({ flood: 'x'.repeat(20000) });
        },
        '/handles': request => sendHandles(20, request.socket),
};

const heard = [];
process.on('message', message => heard.push(message));

const server = http.createServer((request, response) => (deeds[request.url] ?? deeds['/'])(request, response));
server.keepAliveTimeout = 60000; // as a proxy in front wants it
server.listen(3000);
fs.writeSync(2, `listens ${process.pid}\n`); // or waits until it may

module.exports = { deeds, server };

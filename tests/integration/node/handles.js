// SPDX-License-Identifier: MIT
//
// The scenarios with handles.
'use strict';

const assert = require('assert');
const dgram = require('dgram');
const fs = require('fs');
const http = require('http');
const net = require('net');
const { say } = require('./say.js');

const HANDLES = 1000;
const WINDOW = 100;

const loopback = { port: 0, host: '127.0.0.1' };

const done = (error) => assert.ifError(error);

// The end of stdin is the end of the scenario, so that all that happens before does without our end.
function untilEnd(peer) {
        process.stdin.resume().on('end', () => peer.disconnect());
}

function offerServer(kind, where, select) {
        return {
                start(peer) {
                        const server = net.createServer().listen(where, () => {
                                if (kind === 'unix') // close() takes the path away
                                        fs.linkSync(server.address(), `${server.address()}.kept`);
                                say(`port ${server.address().port ?? 0}`);
                                peer.send(kind, select(server), (error) => {
                                        done(error);
                                        server.close();
                                });
                                untilEnd(peer);
                        });
                },
                message: assert.fail,
        };
}

function offerSocket(options, answered) {
        let offered;
        return {
                start(peer) {
                        const server = net.createServer({ pauseOnConnect: true }, (socket) => {
                                peer.send('socket', socket, options, done);
                                server.close();
                                offered = socket;
                                untilEnd(peer);
                        });
                        server.listen(loopback, () => say(`port ${server.address().port}`));
                },
                message(peer, message) {
                        assert.strictEqual(message, 'answered');
                        answered(offered);
                },
        };
}

function offerDgram(type, address) {
        return {
                start(peer) {
                        const socket = dgram.createSocket(type).bind(0, address, () => {
                                say(`port ${socket.address().port}`);
                                peer.send('dgram', socket, (error) => {
                                        done(error);
                                        socket.close();
                                });
                                untilEnd(peer);
                        });
                },
                message: assert.fail,
        };
}

const served = [];

// What it came as, in the words of the documentation.
function typeOf(handle) {
        const types = { 'net.Server': net.Server, 'net.Socket': net.Socket, 'dgram.Socket': dgram.Socket };
        return Object.keys(types).find((name) => handle instanceof types[name]) ?? 'net.Native';
}

function httpServer(type) {
        const server = http.createServer((request, response) => response.end(`node ${type}\n`));
        served.push(server);
        return server;
}

exports.scenarios = {
        'offer-server': offerServer('server', loopback, (server) => server),
        'offer-native': offerServer('native', loopback, (server) => server._handle),
        'offer-unix': offerServer('unix', { path: process.env.PEER_SOCKET }, (server) => server),
        'offer-socket': offerSocket(undefined, () => {}),
        'offer-socket-keep-open': offerSocket({ keepOpen: true }, (socket) => socket.end('and node\n')),
        'offer-dgram': offerDgram('udp4', '127.0.0.1'),
        'offer-dgram6': offerDgram('udp6', '::1'),

        serve: {
                message(peer, message, handle) {
                        const type = typeOf(handle);
                        if (type === 'net.Socket')
                                httpServer(type).emit('connection', handle);
                        else if (message === 'unix') { // Node can listen() again on TCP alone
                                const server = httpServer(type);
                                handle.on('connection', (socket) => server.emit('connection', socket));
                                served.push(handle);
                        } else if (type === 'dgram.Socket') {
                                served.push(handle);
                                handle.on('message', (request, from) =>
                                        handle.send(`node ${type}\n`, from.port, from.address));
                        } else
                                httpServer(type).listen(handle);
                },
                ended: () => served.forEach((server) => server.close()),
        },

        handles: {
                start(peer) {
                        let n = 0;
                        const next = () => {
                                const server = net.createServer().listen(loopback, () => {
                                        if (n === HANDLES)
                                                return server.close();
                                        const { port } = server.address();
                                        peer.send({ n, port }, server, (error) => {
                                                done(error);
                                                server.close();
                                                next();
                                        });
                                        peer.send({ n, port: 0 });
                                        n++;
                                });
                        };
                        for (let i = 0; i < WINDOW; i++)
                                next();
                },
                message(peer, message) {
                        assert.strictEqual(message, 'all');
                        peer.disconnect();
                },
        },

        take: {
                message(peer, message, handle, number) {
                        assert.strictEqual(handle === undefined, number % 2 === 1);
                        const port = handle ? handle.address().port : 0;
                        assert.deepStrictEqual(message, { n: Math.floor(number / 2), port });
                        handle?.close();
                        if (number === 2 * HANDLES - 1)
                                peer.send('all');
                },
        },
};

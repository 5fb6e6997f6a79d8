// SPDX-License-Identifier: MIT
//
// By name: start(peer), message(peer, message, handle, number), ended(received), exitCode. A peer is a
// ChildProcess or `process`: for a channel they are the same.
'use strict';

const assert = require('assert');
const net = require('net');
const handles = require('./handles.js');
const { say } = require('./say.js');
const { values } = require('./values.js');

const BIG_SIZE = 64 * 1024 * 1024;
const CUT_SIZE = 32 * 1024 * 1024;
const ORDERED = 20000;
const FAREWELL = 100;

let big;

function listening(then) {
        const server = net.createServer().listen(0, '127.0.0.1', () => then(server));
}

function tell(what) {
        return (error) => say(`sent ${what} ${error ? error.code : 0}`);
}

exports.scenarios = {
        ...handles.scenarios,

        echo: {
                message(peer, message, handle) {
                        peer.send(message, handle, () => handle?.close());
                },
        },

        values: {
                start(peer) {
                        for (const value of values)
                                peer.send(value);
                        peer.send({ cmd: 'NODE_SOMETHING' }); // not for the application: it does not come back
                        peer.send('end');
                },
                message(peer, message, handle, number) {
                        const wanted = number < values.length ? values[number] : 'end';
                        assert.strictEqual(JSON.stringify(message), JSON.stringify(wanted));
                        if (number === values.length)
                                peer.disconnect();
                },
        },

        big: {
                start(peer) {
                        big = 'Node'.repeat(BIG_SIZE / 4).slice(2); // less the quotes
                        peer.send(big);
                },
                message(peer, message) {
                        assert(message === big);
                        say(`big ${message.length + 2}`);
                        peer.disconnect();
                },
        },

        order: {
                start(peer) {
                        for (let n = 0; n < ORDERED; n++)
                                peer.send({ n });
                },
                message(peer, message, handle, number) {
                        assert.deepStrictEqual(message, { n: number });
                        if (number === ORDERED - 1)
                                peer.disconnect();
                },
        },

        callback: {
                start(peer) {
                        listening((server) => {
                                peer.send('plain', tell('plain'));
                                peer.send('handle', server, (error) => {
                                        tell('handle')(error);
                                        server.close();
                                });
                        });
                },
                message(peer, message, handle, number) {
                        handle?.close();
                        if (number === 0)
                                return;
                        peer.disconnect();
                        peer.send('late', tell('late'));
                },
        },

        bye: {
                start(peer) {
                        for (let n = 0; n < FAREWELL; n++)
                                peer.send('bye');
                        peer.disconnect();
                },
                message: assert.fail,
                exitCode: 4,
        },

        wait: {
                message: (peer, message, handle) => handle?.close(),
                ended: (received) => say(`received ${received}`),
                exitCode: 3,
        },

        ready: {
                start(peer) {
                        peer.send('ready');
                },
                message: assert.fail,
        },

        'wait-ready': {
                message(peer, message) {
                        say(`message ${JSON.stringify(message)}`);
                        peer.disconnect();
                },
        },

        kill: {
                start(peer) {
                        peer.send('die');
                },
                message: assert.fail,
        },

        die: {
                message: () => process.kill(process.pid, 'SIGKILL'),
        },

        cut: {
                start(peer) {
                        peer.send('first');
                        peer.send('x'.repeat(CUT_SIZE));
                        process.kill(process.pid, 'SIGKILL');
                },
        },

        'cut-off': {
                message: (peer, message) => say(`message ${JSON.stringify(message)}`),
        },
};

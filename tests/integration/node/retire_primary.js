// SPDX-License-Identifier: MIT
//
// node retire_primary.js PRELOADED APP: Node's own primary with one worker. What it hears it tells in lines of JSON; what it is
// told, likewise, goes to the worker, but "disconnect", which is what a master says when the replacement is ready.
'use strict';

const cluster = require('cluster');
const readline = require('readline');
const { writeSync } = require('fs');

const tell = (event, value) => writeSync(1, `${JSON.stringify([event, value])}\n`);

cluster.setupPrimary({ exec: process.argv[3], execArgv: ['--require', process.argv[2]] });
const worker = cluster.fork();
worker.on('message', (message) => tell('message', message));
worker.on('listening', ({ port }) => tell('listening', port));
worker.on('exit', (code, signal) => tell('exit', signal ?? code));
worker.on('error', () => {}); // an answer that it did not wait for

readline.createInterface({ input: process.stdin }).on('line', (line) => {
        const message = JSON.parse(line);

        if (message === 'disconnect')
                worker.disconnect();
        else
                worker.send(message);
}).on('close', () => worker.kill('SIGKILL'));

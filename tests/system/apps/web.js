// SPDX-License-Identifier: MIT
//
// An app as anybody writes it, which knows of no muster. It listens on port 3000, and before on PORT, if that is set.
'use strict';

const child_process = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const { Worker } = require('node:worker_threads');

const VERSION = 1;

function whoami(request, response) {
        const { MUSTER_WORKER, MUSTER_GENERATION, NODE_APP_INSTANCE, NODE_ENV } = process.env;

        response.end(JSON.stringify({ version: VERSION, pid: process.pid, uid: process.getuid(), slot: Number(MUSTER_WORKER),
                generation: Number(MUSTER_GENERATION), instance: NODE_APP_INSTANCE, environment: NODE_ENV }));
}

// What it answers with comes when the client has sent all of its request.
function hold(request, response) {
        response.write('begun\n');
        request.resume().on('end', () => response.end('done\n'));
}

function attempt(deed) {
        try {
                return deed() ?? 'ok';
        } catch (error) {
                return error.code ?? String(error);
        }
}

// An empty module in WebAssembly, which is compiled to native code.
const WASM = new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);

async function sandbox(request, response) {
        const thread = new Worker('require("node:worker_threads").parentPort.postMessage("ok")', { eval: true });
        const connected = (port) => new Promise((resolve) => {
                net.connect(port, '127.0.0.1').on('connect', () => resolve('ok')).on('error', (error) => resolve(error.code));
        });
        const { STATE_DIRECTORY, RUNTIME_DIRECTORY } = process.env;

        response.end(JSON.stringify({
                cpus: os.cpus().length > 0,
                interfaces: Object.keys(os.networkInterfaces()),
                wasm: attempt(() => WebAssembly.validate(WASM) && new WebAssembly.Instance(new WebAssembly.Module(WASM)) && 'ok'),
                thread: await new Promise((resolve) => thread.on('message', resolve)),
                child: attempt(() => child_process.execFileSync('/bin/echo', ['ok'], { encoding: 'utf8' }).trim()),
                tmp: attempt(() => fs.writeFileSync('/tmp/file', '')),
                state: attempt(() => fs.writeFileSync(`${STATE_DIRECTORY}/file`, '')),
                runtime: attempt(() => fs.writeFileSync(`${RUNTIME_DIRECTORY}/file`, '')),
                owner: attempt(() => fs.chownSync('/tmp/file', process.getuid(), process.getgid())),
                own: attempt(() => fs.writeFileSync(__filename, '')),
                etc: attempt(() => fs.writeFileSync('/etc/file', '')),
                outgoing: await connected(Number(new URL(request.url, 'http://app').searchParams.get('port'))),
        }));
}

const paths = {
        '/whoami': whoami,
        '/hold': hold,
        '/sandbox': sandbox,
        '/hello': (request, response) => response.end('hello\n'),
        '/say': (request, response) => {
                console.log('said by', process.pid);
                console.error('complained by', process.pid);
                response.end(String(process.pid));
        },
        '/status': (request, response) => {
                process.send({ cmd: 'MUSTER', act: 'status', text: 'said by the app' });
                response.end();
        },
        '/loop': () => {
                for (;;)
                        ;
        },
};

const server = http.createServer((request, response) => paths[request.url.split('?')[0]](request, response));

process.on('message', (message) => console.log('told', JSON.stringify(message)));
if (process.env.PORT)
        http.createServer(whoami).listen(Number(process.env.PORT), '127.0.0.1');
server.listen(3000);

// SPDX-License-Identifier: MIT
//
// An app that knows nothing of muster, and throws. A request's path says what is done:
//
//      /           "hello\n"
//      /slow       the same, when it is told "release"
//      /begun      the head and a part of the body; the rest when it is told "release"
//      /NAME       an exception, with NAME as its message, by one of the ways below
//
// Of the messages, "throw" does so without a request, and "pid" is answered. $HANDLER is how it handles exceptions by itself, and
// when it begins to.
'use strict';

const { AsyncLocalStorage, AsyncResource } = require('async_hooks');
const { execFile } = require('child_process');
const crypto = require('crypto');
const { EventEmitter, once } = require('events');
const fs = require('fs');
const http = require('http');

const fail = (name) => {
        throw new Error(name);
};
const pause = () => new Promise((resolve) => setTimeout(resolve, 1));

const ways = {
        sync: fail,
        timer: (name) => setTimeout(fail, 1, name),
        interval: (name) => setInterval(fail, 1, name),
        immediate: (name) => setImmediate(fail, name),
        tick: (name) => process.nextTick(fail, name),
        microtask: (name) => queueMicrotask(() => fail(name)),
        rejection: (name) => void Promise.reject(new Error(name)),
        rejected_later: (name) => void new Promise((resolve, reject) => setTimeout(() => reject(new Error(name)), 1)),
        awaited: (name) => pause().then(() => fail(name)),
        read: (name) => fs.readFile(__filename, () => fail(name)),
        read_awaited: async (name) => fail(name, await fs.promises.readFile(__filename)),
        thread_pool: (name) => crypto.randomBytes(8, () => fail(name)),
        child: (name) => execFile('/bin/true', () => fail(name)),
        client: (name, { socket }) => http.get({ port: socket.localPort, agent: false }, (response) =>
                response.resume().on('end', () => fail(name))),
        data: (name, request) => request.on('data', () => fail(name)),
        end: (name, request) => request.resume().on('end', () => fail(name)),
        iterated: async (name, request) => {
                for await (const chunk of request)
                        await chunk;
                fail(name);
        },
        once: (name, request) => once(request.resume(), 'end').then(() => fail(name)),
        error_event: (name) => setTimeout(() => new EventEmitter().emit('error', new Error(name)), 1),
        bound: (name) => setTimeout(AsyncResource.bind(() => fail(name)), 1),
        other_context: (name) => setTimeout(() => new AsyncLocalStorage().run(1, fail, name), 1),
        other_answer: (name, request, response) => {
                response.setHeader('Content-Length', 1000).setHeader('Content-Encoding', 'gzip');
                pause().then(() => fail(name));
        },

        // What is thrown need not be an error.
        nothing: () => setTimeout(() => {
                throw undefined;
        }, 1),
        text: () => setTimeout(() => {
                throw 'text\nof two lines';
        }, 1),
        long: () => setTimeout(fail, 1, 'x'.repeat(1000)),
        silent: () => setTimeout(() => {
                throw new Error();
        }, 1),
        bare: () => setTimeout(() => {
                throw Object.create(null);
        }, 1),
        hostile: () => setTimeout(() => {
                throw Object.defineProperty({}, 'message', { get: fail });
        }, 1),
};

const held = [];

const server = http.createServer((request, response) => {
        const name = request.url.slice(1);

        if (name === '')
                response.end('hello\n');
        else if (name === 'slow')
                held.push(() => response.end('hello\n'));
        else if (name === 'begun') {
                response.write('a part\n');
                held.push(() => response.end('the rest\n'));
        } else if (name === 'begun_and_thrown') {
                response.write('a part\n', () => setTimeout(fail, 1, name));
        } else
                return void ways[name](name, request, response);
        process.send(name); // the request has arrived
});

// What is idle stays for ever, if nobody closes it.
server.keepAliveTimeout = server.headersTimeout = server.requestTimeout = 0;

const told = (error) => process.send(`handled ${error.message}`);
const handlers = {
        early: () => process.on('uncaughtException', told),
        once: () => process.once('uncaughtException', told),
        first: () => process.prependOnceListener('uncaughtException', told),
        rejection: () => process.on('unhandledRejection', told),
        captured: () => process.setUncaughtExceptionCaptureCallback(told),
        monitor: () => process.on('uncaughtExceptionMonitor', () => process.once('uncaughtException', told)),
        late: () => server.on('listening', () => process.on('uncaughtException', told)),
};
handlers[process.env.HANDLER]?.();

server.listen(0, '127.0.0.1');

process.on('message', (message) => {
        if (message === 'release')
                held.splice(0).forEach((answer) => answer());
        else if (message === 'throw')
                setImmediate(fail, message);
        else
                process.send(process.pid);
});

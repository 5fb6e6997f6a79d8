// SPDX-License-Identifier: MIT
//
// Lets a worker of an unmodified app leave in good order after an exception that nobody caught, or a rejection that nobody
// handled, which Node makes one. It is loaded before the app, by --require, with workers.retire_on_uncaught = true.
//
// Node alone would end the process at once, and all of its requests with it. Here the master is asked for a replacement first. The
// request in which the exception was thrown is answered with 500, the others are finished, and nothing new is accepted: it waits
// in the socket's queue, or goes to other workers. Then the process exits with status 1. How long that may take is up to
// the master, which kills the worker after workers.stop_timeout.
//
// An app that handles such exceptions, from whenever on, is left alone; and so is every process but a cluster worker, as what an
// app starts inherits its NODE_OPTIONS.
//
// Which request it was tells the context (AsyncLocalStorage), as far as Node keeps it. When it does not - in a callback from a
// pool of connections, say, that another request has opened - the answer is missing, and the worker is killed in the end.
'use strict';

const cluster = require('cluster');

if (!cluster.isWorker || !process.send) // nor is one of a worker's threads
        return;

const { AsyncLocalStorage, AsyncResource } = require('async_hooks');
const { subscribe } = require('diagnostics_channel');
const { inspect } = require('util');
// As they are before something is put in front of them.
const { writeHead, end } = require('http').ServerResponse.prototype;
const { runInAsyncScope } = AsyncResource.prototype;

const REASON_MAX = 150; // the master shows 159 bytes
const GRACE_MSEC = 1000; // in which a connection may bring one more request, as with native workers
const SORRY = 'Internal Server Error\n';

const current = new AsyncLocalStorage(); // the response of the request that what runs belongs to
const responses = new Set(); // the open ones
const connections = new Set(); // likewise, whatever is spoken on them
const servers = new Set(); // of HTTP, that have had a request

let leaving = false;
let graceIsOver = false;
let thrown = {}; // an exception on its way up, and the response of where it comes from

//
// The context
//

subscribe('net.server.socket', ({ socket }) => {
        connections.add(socket);
        socket.once('close', () => {
                connections.delete(socket);
                exitWhenDone();
        });
});

subscribe('http.server.request.start', ({ request, response, server }) => {
        current.enterWith(response);
        keepContext(request, response);
        servers.add(server);
        responses.add(response);
        response.once('close', () => {
                responses.delete(response);
                if (graceIsOver)
                        closeIdle();
        });
        if (leaving)
                announceEnd(response);
});

// What arrives of the body comes from the connection, whose context is another one since Node 24.
function keepContext(request, response) {
        const { emit } = request;

        Object.defineProperty(request, 'emit', {
                value(...args) {
                        current.enterWith(response);
                        return emit.apply(this, args);
                },
                configurable: true,
                writable: true,
        });
}

// An exception that leaves such a scope, as of AsyncResource.bind() or queueMicrotask(), is heard of outside of it.
AsyncResource.prototype.runInAsyncScope = function (callback, thisArg, ...args) {
        const remember = function (...given) {
                try {
                        return callback.apply(this, given);
                } catch (error) {
                        if (thrown.error !== error)
                                thrown = { error, response: current.getStore() };
                        throw error;
                }
        };
        return runInAsyncScope.call(this, typeof callback === 'function' ? remember : callback, thisArg, ...args);
};

function responseOf(error) {
        const { response } = thrown.error === error ? thrown : {};

        thrown = {};
        return response ?? current.getStore();
}

//
// The exception
//

// Node looks for a handler only after this, so that the app sees none of ours as long as all is well.
process.on('uncaughtExceptionMonitor', () => {
        if (!isHandled())
                process.once('uncaughtException', onUncaught);
});

function isHandled() {
        return process.listenerCount('uncaughtException') > 0 || process.hasUncaughtExceptionCaptureCallback();
}

function onUncaught(error) {
        if (isHandled())
                return;
        try {
                const response = responseOf(error);
                const isOpen = response && !response.writableEnded && !response.destroyed;

                if (isOpen || !leaving) // a timer may come again and again
                        print(error);
                if (!leaving)
                        leave(error);
                if (isOpen)
                        answer(response);
                exitWhenDone();
        } catch { // it would not even be told, and the status be 7
                process.exit(1);
        }
}

function print(error) {
        const text = error instanceof Error ? inspect(error) : `Uncaught ${inspect(error)}`;

        process.stderr.write(`${text}\n\nNode.js ${process.version}\n`);
}

function reasonOf(error) {
        const text = typeof error === 'string' ? error : error?.message || inspect(error);

        return String(text).split('\n', 1)[0].slice(0, REASON_MAX);
}

function answer(response) {
        if (response.headersSent) {
                response.destroy();
                return;
        }
        for (const name of response.getHeaderNames()) // of another answer
                response.removeHeader(name);
        writeHead.call(response, 500, { 'Content-Type': 'text/plain', 'Content-Length': SORRY.length, Connection: 'close' });
        end.call(response, SORRY);
}

//
// The end
//

function leave(error) {
        leaving = true;
        process.exitCode = 1;
        process.send({ act: 'suicide', reason: reasonOf(error) }, undefined, undefined, () => {}); // the master may be gone
        responses.forEach(announceEnd);
        // Node ends the channel when its servers are closed; or at once, when they are and the master says "disconnect". The
        // master is to see that end together with ours.
        process.disconnect = () => {};
        cluster.worker.disconnect();
        setTimeout(() => {
                graceIsOver = true;
                closeIdle();
        }, GRACE_MSEC);
}

function announceEnd(response) {
        if (!response.headersSent)
                response.setHeader('Connection', 'close');
}

// Connections between two requests; and when there is no request any more, those before their first one too.
function closeIdle() {
        const busy = [...responses].some((response) => !response.req.socket.destroyed);

        for (const server of servers)
                if (busy)
                        server.closeIdleConnections();
                else
                        server.closeAllConnections();
        for (const socket of connections)
                if (socket.bytesRead === 0 && socket.bytesWritten === 0)
                        socket.destroy();
}

function exitWhenDone() {
        if (leaving && connections.size === 0)
                process.exit(1);
}

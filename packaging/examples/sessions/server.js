// SPDX-License-Identifier: MIT
//
// Sessions that all workers share, in the Redis of web.conf: an Express app as it would be with any other Redis. What runs
// it, and how: muster-recipes(7).

'use strict';

const { randomBytes } = require('node:crypto');
const { RedisStore } = require('connect-redis');
const express = require('express');
const session = require('express-session');
const { createClient } = require('redis');

// The client wants the path alone of a socket on this host.
function clientOptions(url) {
        return url.startsWith('redis+unix:') ? { socket: { path: new URL(url).pathname } } : { url };
}

const client = createClient(clientOptions(process.env.REDIS_URL));
// It connects again by itself, and what is asked for meanwhile waits.
client.on('error', (error) => console.error(`redis: ${error.message}`));

// The worker is to go and has answered everything: its own connection is the last thing that keeps it.
process.once('disconnect', () => client.quit());

// By which cookies are signed: the same for all workers, made by the first one ever.
async function secret() {
        await client.set('secret', randomBytes(32).toString('hex'), { NX: true });
        return client.get('secret');
}

async function main() {
        const app = express();

        await client.connect();
        app.use(session({
                store: new RedisStore({ client, prefix: 'session:' }),
                secret: await secret(),
                resave: false,
                saveUninitialized: false,
        }));
        app.get('/', (request, response) => {
                request.session.views = (request.session.views ?? 0) + 1;
                response.json({ views: request.session.views, worker: Number(process.env.MUSTER_WORKER) });
        });
        app.listen(3000);
}

main();

// SPDX-License-Identifier: MIT
const fastify = require('fastify')();

fastify.get('/', async () => ({ pid: process.pid }));
fastify.listen({ port: 3000, host: '::' });

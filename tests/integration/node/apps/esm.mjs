// SPDX-License-Identifier: MIT
import { once } from 'node:events';
import express from 'express';

const app = express();
app.get('/', (request, response) => response.json({ pid: process.pid }));

const name = await new Promise(resolve => setImmediate(resolve, 'esm')); // as a database would be waited for
const server = app.listen(3000);
await once(server, 'listening');
console.error(`${name} ${process.pid} listens on ${server.address().port}`);

// SPDX-License-Identifier: MIT
// Says to other workers what it is told to say, and writes down what it hears: see talk.py.
'use strict';

const fs = require('fs');
const http = require('http');

const slot = process.env.MUSTER_WORKER;

function say(words) {
  const [act, ...rest] = words;
  if (act === 'broadcast')
    process.send({ cmd: 'MUSTER', act, data: rest[0] });
  else if (act === 'send')
    process.send({ cmd: 'MUSTER', act, worker: rest[0], data: rest[1] });
  else if (act === 'big')
    process.send({ cmd: 'MUSTER', act: 'broadcast', data: 'x'.repeat(rest[0] - 2) });
  else if (act === 'raw')
    process.send(rest[0]);
}

process.on('message', (m) => {
  if (Array.isArray(m) && ['broadcast', 'send', 'big', 'raw'].includes(m[0]))
    say(m);
  else
    fs.appendFileSync(process.env.HEARD, `${slot} ${process.pid} ${JSON.stringify(m)}\n`);
});
http.createServer((request, response) => response.end('ok\n')).listen(8080);

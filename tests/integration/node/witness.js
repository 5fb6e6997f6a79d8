// SPDX-License-Identifier: MIT
//
// Given to a program by --require: what it sends to its parent is a line of the file WITNESS, too, and so is its start. With
// WITNESS_READY it says that it is ready, as it can be sent something from here on; its children do not.

'use strict';
const fs = require('fs');

const note = (message) =>
  fs.appendFileSync(process.env.WITNESS, JSON.stringify({ pid: process.pid, message }) + '\n');

const send = process.send;
if (send) {
  process.send = function (message, ...rest) {
    note(message);
    return send.call(this, message, ...rest);
  };
  note('loaded');
  if (process.env.WITNESS_READY) {
    delete process.env.WITNESS_READY;
    send.call(process, 'ready');
  }
}

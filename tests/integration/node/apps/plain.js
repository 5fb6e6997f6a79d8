// SPDX-License-Identifier: MIT
require('http').createServer((request, response) => response.end(JSON.stringify({ pid: process.pid }))).listen(3000);

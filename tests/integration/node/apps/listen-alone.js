// SPDX-License-Identifier: MIT
require('http').createServer((request, response) => response.end()).listen(JSON.parse(process.env.LISTEN));

// SPDX-License-Identifier: MIT
const fs = require('fs');
const https = require('https');

const options = { key: fs.readFileSync(process.env.KEY), cert: fs.readFileSync(process.env.CERTIFICATE) };

https.createServer(options, (request, response) => response.end(JSON.stringify({ pid: process.pid }))).listen(3000);

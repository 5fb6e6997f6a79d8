// SPDX-License-Identifier: MIT
const { server } = require('./deeds.js');

server.maxConnections = 2;

// SPDX-License-Identifier: MIT
require('http').createServer((request, response => response.end()).listen(3000);

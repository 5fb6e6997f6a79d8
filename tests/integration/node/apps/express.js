// SPDX-License-Identifier: MIT
const express = require('express');

const app = express();

app.get('/', (request, response) => response.json({ pid: process.pid }));
app.listen(3000);

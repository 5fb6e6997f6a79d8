// SPDX-License-Identifier: MIT
// The app of the release that is deployed: its name is in a file.
const fs = require('fs');
const path = require('path');

require(path.resolve(__dirname, fs.readFileSync(process.env.RELEASE, 'utf8').trim()));

// SPDX-License-Identifier: MIT
// What it does besides serving keeps it alive when nobody is to be served any more.
setInterval(() => {}, 1000);
require('./deeds.js');

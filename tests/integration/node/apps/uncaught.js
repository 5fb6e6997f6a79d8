// SPDX-License-Identifier: MIT
// Knows that it cannot go on after an error of its own, and asks to be replaced.
process.on('uncaughtException', error => {
        console.error(`caught ${process.pid} ${error.message}`);
        process.send({ act: 'suicide' });
});
require('./deeds.js');

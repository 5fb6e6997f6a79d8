// SPDX-License-Identifier: MIT
// Opens 500 connections to the service that it is part of, and then does nothing any more.
const net = require('net');
const { deeds } = require('./deeds.js');

deeds['/greedy'] = () => {
        let open = 0;
        for (let i = 0; i < 500; i++)
                net.connect(process.env.PORT, '127.0.0.1', () => ++open === 500 && deeds['/block']());
};

// SPDX-License-Identifier: MIT
//
// The Node side of test_node_channel.py: what child_process gives to every program, and nothing of ours.
//
//      peer.js SCENARIO                    the child of channel_peer
//      peer.js SCENARIO PROGRAM ARG        the parent of channel_peer
//
// The scenarios are those of channel_peer.c.
'use strict';

const child_process = require('child_process');
const os = require('os');
const { say } = require('./say.js');
const { scenarios } = require('./scenarios.js');

const [name, program, argument] = process.argv.slice(2);

function start() {
        const { PEER_SERIALIZATION: serialization } = process.env;
        const stdio = ['inherit', 'inherit', 'inherit', 'ignore', 'ipc'];
        const child = process.env.PEER_SPAWN ?
                child_process.spawn(program, [argument], { stdio }) :
                child_process.fork(argument, { execPath: program, execArgv: [], serialization });
        child.channel.ref(); // once a handle is sent, Node would not wait for the end of the channel
        child.on('exit', (code, signal) =>
                say(signal ? `child killed ${os.constants.signals[signal]}` : `child exited ${code}`));
        return child;
}

const peer = program ? start() : process;
let received = 0;
const scenario = scenarios[name];

peer.on('message', (message, handle) => scenario.message(peer, message, handle, received++));
peer.on('disconnect', () => {
        say(`disconnected ${peer.connected ? 1 : 0}`);
        scenario.ended?.(received);
        process.exitCode = scenario.exitCode;
});
scenario.start?.(peer);

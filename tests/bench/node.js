// SPDX-License-Identifier: MIT
// What spawn.c, channel.c and stream.c measure, in Node: `node node.js MEASUREMENT ARGUMENT...`; see there.
'use strict';

const { spawn, fork } = require('child_process');
const fs = require('fs');

function cpu() {
    const u = process.cpuUsage();
    return u.user + u.system;
}

/** Of the children that were reaped, in steps of 10 ms. */
function cpuOfChildren() {
    const fields = fs.readFileSync('/proc/self/stat', 'latin1').split(') ').pop().split(' ');
    return (Number(fields[13]) + Number(fields[14])) * 10000;
}

function wall() {
    return Number(process.hrtime.bigint() / 1000n);
}

function report(watch, operations, cpuElsewhere, more = {}) {
    console.log(JSON.stringify({
        operations, wall: wall() - watch.wall, cpu: cpu() - watch.cpu + cpuElsewhere, ...more,
    }));
}

function start() {
    return { wall: wall(), cpu: cpu() };
}

function measureSpawn(stdio, msec, mib, program) {
    const memory = Buffer.alloc(Number(mib) * 1024 * 1024, 'x');
    const children = cpuOfChildren();
    const watch = start();
    const until = watch.wall + Number(msec) * 1000;
    let n = 0;

    (function next() {
        spawn(program, [], { stdio }).on('exit', () => {
            n++;
            if (wall() < until)
                next();
            else
                report(watch, n, cpuOfChildren() - children, { memory: memory.length });
        });
    })();
}

function beChild() {
    let before;

    process.on('message', (m) => {
        before ??= cpu();
        if (m.a)
            process.send(m);
        else if (m.b)
            process.send({ cpu: cpu() - before });
    });
}

/** As in channel.c, with as many messages under way as keep the channel busy: a callback for every 64th. */
function sendAll(child, count, bytes) {
    const message = { s: 'x'.repeat(bytes - '{"s":""}'.length) };

    (function batch() {
        for (let i = 0; i < 63 && count > 1; i++, count--)
            child.send(message);
        if (count > 1)
            child.send(message, batch);
        else {
            child.send(message);
            child.send({ b: 1 });
        }
        count--;
    })();
}

function measureChannel(kind, count, bytes) {
    const child = fork(__filename, ['child']);
    let n = 0, until, watch;

    child.on('message', (m) => {
        if (!watch) {
            watch = start();
            until = watch.wall + Number(count) * 1000;
            if (kind === 'send')
                sendAll(child, Number(count), Number(bytes));
            else
                child.send({ a: 1 });
        } else if (m.cpu !== undefined) {
            report(watch, kind === 'send' ? Number(count) : n, m.cpu);
            child.disconnect();
        } else
            child.send(++n % 64 !== 0 || wall() < until ? { a: 1 } : { b: 1 });
    });
    child.send({ a: 1 });
}

function status(name) {
    return Number(new RegExp(name + ':\\s*(\\d+)').exec(fs.readFileSync('/proc/self/status', 'latin1'))[1]);
}

function measureStream(program, reader, mib) {
    const step = 1024 * 1024;

    fs.writeFileSync('/proc/self/clear_refs', '5');
    const before = status('VmRSS');
    const watch = start();
    let bytes = 0, pauseAt = step;
    const child = spawn(program, ['child', mib], { stdio: ['inherit', 'pipe', 'inherit'] });

    child.stdout.on('data', (data) => {
        bytes += data.length;
        if (reader === 'slow' && bytes >= pauseAt) {
            pauseAt += step;
            child.stdout.pause();
            setTimeout(() => child.stdout.resume(), 1);
        }
    });
    child.on('close', () => report(watch, bytes, 0, { grown: status('VmHWM') - before }));
}

const [measurement, ...args] = process.argv.slice(2);

({ spawn: measureSpawn, channel: measureChannel, stream: measureStream, child: beChild })[measurement](...args);

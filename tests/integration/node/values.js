// SPDX-License-Identifier: MIT
//
// What JSON can say, and where a reader of it may stumble.
'use strict';

function deep(levels) {
        let value = 1;
        for (let i = 0; i < levels; i += 2)
                value = [{ a: value }];
        return value;
}

const everyControl = Array.from({ length: 0x20 }, (_, i) => String.fromCharCode(i)).join('');

exports.values = [
        null, true, false,
        0, -0, 1, -1, 0.1, 1e21, 1e-7, Number.MAX_SAFE_INTEGER, Number.MAX_VALUE, Number.MIN_VALUE,
        '', 'ready', 'quote " backslash \\ slash /', everyControl, 'NUL \0 inside', '\\u0000',
        'emoji \u{1F600}\u{1F468}\u200D\u{1F469}', '\u2028 and \u2029', '\uFEFFmark',
        '\u00E9\u4E2D\u007F\u0080\uFFFF',
        'lone \uD83D and \uDE00', '\uD800',
        [], {}, [[], {}, [null, [true, 'x', 1.5]]],
        { '': 1, a: undefined, 'key with "quotes" \n and \u{1F600}': { '\uD800': '\uDFFF' } },
        JSON.parse('{"__proto__": {"a": 1}}'),
        { cmd: 'NODE_' }, { cmd: 5 }, { cmd: ['NODE_HANDLE'], type: 'net.Server', msg: 1 },
        { a: { cmd: 'NODE_HANDLE' } },
        Array.from({ length: 10000 }, (_, i) => i),
        Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`key${i}`, { i }])),
        deep(2048),
];

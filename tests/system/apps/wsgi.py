# SPDX-License-Identifier: MIT
"""An app as gunicorn runs it: /pid, /big, anything else: hello."""

import os

BIG = 32 * 1024 * 1024
VERSION = 1


def answer(path):
    if path == '/pid':
        return str(os.getpid()).encode()
    if path == '/version':
        return str(VERSION).encode()
    return b'x' * BIG if path == '/big' else b'hello\n'


def application(environ, start_response):
    body = answer(environ['PATH_INFO'])
    start_response('200 OK', [('Content-Length', str(len(body))), ('Content-Type', 'text/plain')])
    return [body]

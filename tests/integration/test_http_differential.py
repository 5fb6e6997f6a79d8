# SPDX-License-Identifier: MIT
"""The same bytes for a native worker and for nginx: what both take for requests, both must read the same.

Two servers that differ about where a request ends are what request smuggling needs. Every case is sent on a connection of
its own, followed by one more request, the sentinel, and the end of the stream; from the answers follows which targets the
server has served, and how it ended. A request that only one of them takes is no danger by itself, but must be on a list
with its reason: LOOSER for what the worker takes and nginx does not, STRICTER for the reverse.
"""

import contextlib
import fnmatch
import os
import shutil
import socket
import subprocess
import time

import pytest
from worker_harness import BINARY, DEADLINE, READY, Worker

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")

pytestmark = [
    pytest.mark.skipif(not NGINX, reason="no nginx"),
    pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built"),
]

TARGETS = ("a", "b", "smuggled", "sentinel")
SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
HOST = b"Host: h\r\n"
REFUSALS = (400, 413, 414, 417, 431, 501, 505)  # of what is no request, rather than of what one asks for

CONFIGURATION = """
daemon off; master_process off; pid {top}/pid; error_log {top}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off; server_tokens off;
    client_body_temp_path {top}/t1; proxy_temp_path {top}/t2; fastcgi_temp_path {top}/t3; uwsgi_temp_path {top}/t4; scgi_temp_path {top}/t5;
    server {{
        listen unix:{top}/socket;
        location / {{ add_header X-Target "$uri" always; return 200 "nginx"; }}
    }}
}}
"""

# What the worker takes and nginx does not: pattern of the case, and why none of it can be read in two ways.
LOOSER = {
    "line b'[gG]et *": "any token is a method (RFC 9110, 9.1); this one is answered with 501",
    "line b'G!T *": "as above",
    "line b'1 *": "as above",
    "line b'OPTIONS [*] *": "asterisk-form is right for OPTIONS (RFC 9112, 3.2.4)",
    "line b'CONNECT h:80 *": "authority-form is right for CONNECT (3.2.3); 405, and the connection ends",
    "line b'GET /../a *": "refused by the handler, not by the parser: the connection goes on",
    "line b'GET /%zz *": "as above",
    "line b'GET /a%00 *": "as above",
    "*host b''": "an empty Host is right where there is no authority (RFC 9110, 7.2)",
    "*host b'*.'": "a reg-name may have empty labels (RFC 3986, 3.2.2); no file is chosen by it",
    "*host b'*..i'": "as above",
    "byte 0x09 in length": "a tab before or behind a value is white space (RFC 9110, 5.6.3)",
    "byte 0x09 in coding": "as above",
    "framing * b'\\t5' None": "as above",
    "framing 1.1 None b'\\tchunked'": "as above",
}

# What nginx takes and the worker does not.
STRICTER = {
    "line b'GET  /a HTTP/1.1'": "exactly one space between the parts (RFC 9112, 3)",
    "line b'GET /a  HTTP/1.1'": "as above",
    "line b'GET /a HTTP/1.1 '": "as above",
    "byte 0x20 in *": "as above",
    "line b'GET /a'": "HTTP/0.9 is no more",
    "line b'GET /a '": "as above",
    "line b'GET /a HTTP/1.10'": "a version is one digit, a dot and one digit (RFC 9112, 2.3)",
    "line b'CONNECT /a *": "CONNECT has a host and a port for its target (3.2.3)",
    "line b'GET /a#b *": "a fragment is no part of a target (3.2)",
    "line b'GET /a[?]b#c *": "as above",
    "line b'GET ftp:*": "another scheme is not served here",
    "line *\\x*": "bytes beyond ASCII must be escaped (RFC 3986, 2.5)",
    "byte 0x[8af]0 in target": "as above",
    "byte 0x[8af]0 in query": "as above",
    "byte 0xff in target": "as above",
    "byte 0xff in query": "as above",
    "before: *": "one empty line before a request, and it is CRLF (RFC 9112, 2.2)",
    "between: *": "as above",
    "ends: *": "a line ends in CRLF, and nothing else ends a line (2.2)",
    "byte 0x0[ad] in *": "as above",
    "byte 0x?? in name*": "a field's name is a token (RFC 9110, 5.1)",
    "byte 0x?? in colon": "as above",
    "field b'X\\r\\n'": "a field has a colon (RFC 9112, 5)",
    "1.0 field b'X\\r\\n'": "as above",
    "byte 0x?? in value*": "no control characters in values (RFC 9110, 5.5)",
    "*host b'h:x'": "what is neither a reg-name nor an IP-literal is no host (RFC 3986, 3.2.2), and a port is a number",
    "*host b'h:*:*'": "as above",
    "*host b'[[]*'": "as above",
    "*host b'*[@?#]h'": "as above",
    "*host b'h[?#]i'": "as above",
    "*host b'%zz'": "as above",
    "byte 0x?? in host": "as above",
    "host: bad, absolute": "an invalid Host is 400 also where it does not count (RFC 9112, 3.2)",
    "*field b'Expect: dinner*": "an expectation that cannot be met is 417 (RFC 9110, 10.1.1)",
    "body b'1;*": "chunk extensions are read by their grammar, without bad white space (RFC 9112, 7.1.1)",
    "body b'1 *": "as above",
    "body b'1\\t*": "as above",
    "body b'1\\nx*": "CRLF, and nothing else, ends lines and chunks (7.1)",
    "body b'1\\r\\nx\\n0*": "as above",
    "body b'1\\r\\nx\\r\\n0\\n*": "as above",
    "body b'1\\r\\nx\\r\\n0\\r\\n\\n'": "as above",
    "body b'2\\r\\nx\\r\\n0*": "as above",
    "body b'0;a\\n*": "as above",
    "body b'0\\r\\nT: v\\n*": "as above",
    "body b'0\\r\\nT: v\\r\\n\\n'": "as above",
    "body b'0\\r\\n T*": "a trailer is a field and is read as one (7.1.2)",
    "body b'0\\r\\nT: v\\r\\n w*": "as above",
    "body b'0\\r\\nT :*": "as above",
    "body b'0\\r\\n: v*": "as above",
    "body b'0\\r\\nT\\r*": "as above",
    "body b'0\\r\\nT: \\x00*": "as above",
    "body b'0\\r\\nXGET *": "as above",
    "body b'00000000000000001*": "a size has 16 digits at most",
}

# Where one of them ends the connection after its answer, and says so.
SOONER = {
    "line b'TRACE *": "nginx ends the connection after 405 for TRACE",
    "* b'Connection: closed*": "nginx looks for the letters of close anywhere in the field",
}


class Nginx:
    def __init__(self, top):
        self.path = str(top / "socket")
        (top / "nginx.conf").write_text(CONFIGURATION.format(top=top))
        self.process = subprocess.Popen([NGINX, "-p", str(top), "-c", str(top / "nginx.conf")], stderr=subprocess.DEVNULL)

    def connect(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(self.path)
        return sock

    def wait_ready(self):
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                self.connect().close()
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.skip(f"nginx does not start here: {self.process.wait(0.01)}")
        raise AssertionError("nginx is not ready")

    def close(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Two functions that connect."""
    root, top = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("nginx")
    for name in TARGETS:
        (root / name).write_text(f"/{name}")
    nginx = Nginx(top)
    with contextlib.closing(nginx), Worker(root) as worker:
        nginx.wait_ready()
        worker.wait_state(READY)
        yield (lambda: worker.connect().sock), nginx.connect


def stream_of(connect, data, half_close):
    """Everything that comes back until the server closes."""
    with contextlib.closing(connect()) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(65536):
                answer += piece
        return answer


def answers_of(stream):
    """(status, fields, body) of each; the body of an answer to HEAD is not there, which shows by what follows."""
    while stream:
        head, found, stream = stream.partition(b"\r\n\r\n")
        if not found:  # HTTP/0.9
            yield 200, {"connection": "close"}, "?"
            return
        assert head.startswith(b"HTTP/1."), head
        status, *lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        size = int(fields.get("content-length", 0))
        if stream.startswith(b"HTTP/1.") or len(stream) < size:
            size = 0
        yield int(status.split()[1]), fields, stream[:size].decode("latin-1")
        stream = stream[size:]


def reading_of(connect, data, half_close):
    """What was served, as a list of targets ("?": one of which the answer does not tell), and how it ended: "refused", "close"
    (as announced) or "silence". Whoever closes a connection that is open on our side does not wait for more of anything."""
    served = []
    for status, fields, body in answers_of(stream_of(connect, data, half_close)):
        closes = fields.get("connection") == "close"
        if status == 100:
            continue
        if status in REFUSALS and closes:
            return served, "refused"
        served.append(fields.get("x-target") or (body if body.startswith("/") else "?"))
        if closes:
            return served, "close"
    return served, "silence" if half_close else "refused"


def same(a, b):
    return all(x == y or "?" in (x, y) for x, y in zip(a, b))


def compare(worker, nginx):
    """What the two readings of the same bytes are to each other."""
    (ours, our_end), (theirs, their_end) = worker, nginx
    if not same(ours, theirs):
        return "differ"
    if len(ours) == len(theirs):
        return "same"
    end = our_end if len(ours) < len(theirs) else their_end
    if end == "silence":
        return "differ"  # it waits for the rest of something where the other has seen the next request
    if end == "close":
        return "closes sooner"
    return "stricter" if len(ours) < len(theirs) else "looser"


def request(line=b"GET /a HTTP/1.1", fields=HOST, body=b""):
    return line + b"\r\n" + fields + b"\r\n" + body


def lines():
    """Request lines."""
    for text in (
        b"GET /a HTTP/1.1", b"GET  /a HTTP/1.1", b"GET /a  HTTP/1.1", b"GET /a HTTP/1.1 ", b" GET /a HTTP/1.1", b"\tGET /a HTTP/1.1",
        b"GET\t/a HTTP/1.1", b"GET /a\tHTTP/1.1", b"GET /a", b"GET /a ", b"GET", b"", b"GET /a /b HTTP/1.1", b"GET /a b HTTP/1.1",
        b"GET /a HTTP/1.0", b"GET /a HTTP/1.2", b"GET /a HTTP/1.9", b"GET /a HTTP/1.10", b"GET /a HTTP/1.1x", b"GET /a HTTP/1.",
        b"GET /a HTTP/1", b"GET /a HTTP/11", b"GET /a HTTP/01.1", b"GET /a HTTP/0.9", b"GET /a HTTP/2.0", b"GET /a HTTP/3.1",
        b"GET /a http/1.1", b"GET /a Http/1.1", b"GET /a HTTP/ 1.1", b"GET /a HTTPS/1.1", b"GET /a HTP/1.1", b"PRI * HTTP/2.0",
        b"get /a HTTP/1.1", b"Get /a HTTP/1.1", b"BREW /a HTTP/1.1", b"VERSION-CONTROL /a HTTP/1.1", b"M-SEARCH /a HTTP/1.1", b"A_B /a HTTP/1.1",
        b"G!T /a HTTP/1.1", b"1 /a HTTP/1.1", b"GET: /a HTTP/1.1", b"HEAD /a HTTP/1.1", b"POST /a HTTP/1.1", b"DELETE /a HTTP/1.1",
        b"OPTIONS * HTTP/1.1", b"OPTIONS /a HTTP/1.1", b"GET * HTTP/1.1", b"TRACE /a HTTP/1.1", b"CONNECT h:80 HTTP/1.1", b"CONNECT h HTTP/1.1",
        b"CONNECT /a HTTP/1.1", b"GET h:80 HTTP/1.1", b"GET a HTTP/1.1", b"GET ?a HTTP/1.1", b"GET /a?b HTTP/1.1", b"GET /a?b?c HTTP/1.1",
        b"GET /a#b HTTP/1.1", b"GET /a?b#c HTTP/1.1", b"GET //a HTTP/1.1", b"GET /./a HTTP/1.1", b"GET /b/../a HTTP/1.1", b"GET /../a HTTP/1.1",
        b"GET /%61 HTTP/1.1", b"GET /%zz HTTP/1.1", b"GET /a%00 HTTP/1.1", b"GET /a%2f HTTP/1.1", b"GET \\a HTTP/1.1", b"GET /a\\b HTTP/1.1",
        b"GET http://h/a HTTP/1.1", b"GET HTTP://h/a HTTP/1.1", b"GET https://h/a HTTP/1.1", b"GET http://h:80/a HTTP/1.1", b"GET http://other/a HTTP/1.1",
        b"GET http://h HTTP/1.1", b"GET http://h?a HTTP/1.1", b"GET http:///a HTTP/1.1", b"GET http://u@h/a HTTP/1.1", b"GET http://u:p@h/a HTTP/1.1",
        b"GET http://h:x/a HTTP/1.1", b"GET http://:80/a HTTP/1.1", b"GET http://[::1]/a HTTP/1.1", b"GET http://[::1/a HTTP/1.1", b"GET http:/a HTTP/1.1",
        b"GET ftp://h/a HTTP/1.1", b"GET http://h/a HTTP/1.0", b"GET /a\xff HTTP/1.1", b"GET /\xc3\xa4 HTTP/1.1", b"GET /a\x7f HTTP/1.1",
    ):
        yield f"line {text!r}"[:70], request(text)


def line_ends():
    """Empty lines before a request, and ends of lines that are none."""
    for name, before in {"CRLF": b"\r\n", "two CRLF": b"\r\n\r\n", "LF": b"\n", "CR": b"\r", "space": b" ", "NUL": b"\0", "BOM": b"\xef\xbb\xbf"}.items():
        yield f"before: {name}", before + request()
        yield f"between: {name}", request() + before
    yield "ends: LF all", request().replace(b"\r\n", b"\n")
    yield "ends: LF of the line", request().replace(b"\r\n", b"\n", 1)
    yield "ends: LF of a field", b"GET /a HTTP/1.1\r\nHost: h\nX: y\r\n\r\n"
    yield "ends: LF of the head", b"GET /a HTTP/1.1\r\nHost: h\r\n\n"
    yield "ends: LF CR LF", b"GET /a HTTP/1.1\r\nHost: h\n\r\n"
    yield "ends: CR CR LF of a field", b"GET /a HTTP/1.1\r\nHost: h\r\r\n\r\n"
    yield "ends: CR CR LF of the line", b"GET /a HTTP/1.1\r\r\nHost: h\r\n\r\n"
    yield "ends: CR of a field", b"GET /a HTTP/1.1\r\nHost: h\rX: y\r\n\r\n"
    yield "ends: CR all", request().replace(b"\r\n", b"\r")
    yield "ends: LF CR", b"GET /a HTTP/1.1\r\nHost: h\n\r\n\r"
    yield "ends: second head", b"GET /a HTTP/1.1\r\nHost: h\r\n\r\r\n" + SMUGGLED
    yield "fold: space", request(fields=HOST + b"X: y\r\n z\r\n")
    yield "fold: tab", request(fields=HOST + b"X: y\r\n\tz\r\n")
    yield "fold: first", request(fields=b" Host: h\r\n")
    yield "fold: only space", request(fields=HOST + b"X: y\r\n \r\n")
    yield "fold: length", request(b"POST /a HTTP/1.1", HOST + b"Content-Length:\r\n 5\r\n", b"hello")


def bytes_anywhere():
    """Every control character, and some others, at every kind of place."""
    places = {
        "method": b"GE@T /a HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n",
        "target": b"GET /a@ HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n",
        "query": b"GET /a?b@c HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n",
        "version": b"GET /a HTTP/1.1@\r\nHost: h\r\nX: y\r\n\r\n",
        "name": b"GET /a HTTP/1.1\r\nHost: h\r\nX@Y: y\r\n\r\n",
        "name begin": b"GET /a HTTP/1.1\r\nHost: h\r\n@X: y\r\n\r\n",
        "colon": b"GET /a HTTP/1.1\r\nHost: h\r\nX@: y\r\n\r\n",
        "value begin": b"GET /a HTTP/1.1\r\nHost: h\r\nX:@y\r\n\r\n",
        "value": b"GET /a HTTP/1.1\r\nHost: h\r\nX: y@z\r\n\r\n",
        "value end": b"GET /a HTTP/1.1\r\nHost: h\r\nX: y@\r\n\r\n",
        "host": b"GET /a HTTP/1.1\r\nHost: h@i\r\nX: y\r\n\r\n",
        "length": b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0@\r\n\r\n",
        "coding": b"GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:@chunked\r\n\r\n0\r\n\r\n",
    }
    for place, text in places.items():
        for c in (*range(0x20), *b" \"(),/:;<=>?[\\]{}", 0x7F, 0x80, 0xA0, 0xFF):
            if not (place == "method" and c == 0x20) and not (place == "query" and c == 0x20):
                yield f"byte {c:#04x} in {place}", text.replace(b"@", bytes([c]))


def hosts():
    for value in (b"", b"h", b"H", b"h:80", b"h:", b"h:x", b"h:99999", b":80", b"h:80:80", b"[::1]", b"[::1]:80", b"[::1", b"[]", b"::1", b"h/i", b"u@h",
                  b"h h", b"h,i", b"h..i", b".", b"..", b"h.", b"%41", b"%zz", b"a_b", b"http://h", b"h?i", b"h#i", b"*"):
        yield f"host {value!r}", request(fields=b"Host: " + value + b"\r\n")
        yield f"1.0 host {value!r}", request(b"GET /a HTTP/1.0", b"Host: " + value + b"\r\nConnection: keep-alive\r\n")
    yield "host: none", request(fields=b"")
    yield "host: none, 1.0", request(b"GET /a HTTP/1.0", b"")
    yield "host: two", request(fields=HOST * 2)
    yield "host: two others", request(fields=HOST + b"Host: i\r\n")
    yield "host: two, 1.0", request(b"GET /a HTTP/1.0", HOST * 2)
    yield "host: none, absolute", request(b"GET http://h/a HTTP/1.1", b"")
    yield "host: another, absolute", request(b"GET http://h/a HTTP/1.1", b"Host: i\r\n")
    yield "host: bad, absolute", request(b"GET http://h/a HTTP/1.1", b"Host: i/j\r\n")


def framings():
    """Every length with every coding; behind the head is what one of them calls a body, and a request for who reads the other."""
    lengths = (None, b"0", b"5", b"+5", b"-5", b"5 ", b" 5", b"\t5", b"05", b"5,5", b"5, 5", b"0x5", b"5a", b"5.0", b"", b"5 5", b'"5"', b"99999999999999999999999",
               b"18446744073709551621", b"\x0b5", b"5\r\nContent-Length: 5", b"5\r\nContent-Length: 6", b"5\r\ncontent-length: 0")
    codings = (None, b"chunked", b"Chunked", b"CHUNKED", b" chunked ", b"\tchunked", b"\x0bchunked", b"chunked\x0b", b"xchunked", b"chunked x", b"chunkedx", b"chunked;a=b", b"chunked;",
               b'"chunked"', b"identity", b"identity, chunked", b"chunked, identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked",
               b",chunked", b"chunked,", b", ,chunked", b"", b",", b"chunked\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: identity",
               b"identity\r\nTransfer-Encoding: chunked", b"x\r\nTransfer-Encoding: chunked", b"\r\nTransfer-Encoding: chunked")
    pairs = [(length, coding) for length in lengths for coding in codings if length in (None, b"0", b"5") or coding in (None, b"chunked")]
    for length, coding in pairs:
        fields = b"" if length is None else b"Content-Length: " + length + b"\r\n"
        fields += b"" if coding is None else b"Transfer-Encoding: " + coding + b"\r\n"
        for version in (b"1.1", b"1.0"):
            fields += b"Connection: keep-alive\r\n" if version == b"1.0" else b""
            yield f"framing {version.decode()} {length!r} {coding!r}", request(b"GET /a HTTP/" + version, HOST + fields, b"0\r\n\r\n" + SMUGGLED)
    for name in (b"Transfer-Encoding ", b"Transfer-Encoding\t", b" Transfer-Encoding", b"Transfer_Encoding", b"Transfer Encoding", b"TRANSFER-ENCODING", b"X-Transfer-Encoding", b"Transfer-Encodin"):
        yield f"coding's name {name!r}", request(fields=HOST + name + b": chunked\r\n", body=b"0\r\n\r\n" + SMUGGLED)
    for name in (b"Content-Length ", b"Content-Length\t", b" Content-Length", b"Content_Length", b"Content Length", b"CONTENT-LENGTH", b"X-Content-Length", b"Content-Lengt"):
        yield f"length's name {name!r}", request(fields=HOST + name + b": %d\r\n" % len(SMUGGLED), body=SMUGGLED)


def others():
    for fields in (b"X\r\n", b": y\r\n", b"X:\r\n", b"X:y\r\n", b"X::y\r\n", b"X-Y_Z: y\r\n", b"X.Y: z\r\n", b"Expect: 100-continue\r\n", b"Expect: dinner\r\n",
                   b"Connection: close\r\n", b"Connection: x, close\r\n", b"Connection: closed\r\n", b"Connection: keep-alive, close\r\n", b"Upgrade: h2c\r\n", b"Range: bytes=9-\r\n"):
        yield f"field {fields!r}", request(fields=HOST + fields)
        yield f"1.0 field {fields!r}", request(b"GET /a HTTP/1.0", HOST + fields)
    yield "two requests", request() + request(b"GET /b HTTP/1.1")
    yield "two requests with bodies", request(fields=HOST + b"Content-Length: %d\r\n" % len(SMUGGLED), body=SMUGGLED) + request(b"GET /b HTTP/1.1", body=SMUGGLED)
    yield "half a head", request()[:-2] + b"X: "


def bodies():
    """Chunked bodies."""
    for body in (
        b"0\r\n\r\n", b"000\r\n\r\n", b"1\r\nx\r\n0\r\n\r\n", b"01\r\nx\r\n0\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n", b"A\r\n0123456789\r\n0\r\n\r\n", b"1\r\nx\r\n1\r\ny\r\n0\r\n\r\n",
        b"1 \r\nx\r\n0\r\n\r\n", b" 1\r\nx\r\n0\r\n\r\n", b"1\t\r\nx\r\n0\r\n\r\n", b"+1\r\nx\r\n0\r\n\r\n", b"-1\r\nx\r\n0\r\n\r\n", b"0x1\r\nx\r\n0\r\n\r\n", b"1g\r\nx\r\n0\r\n\r\n",
        b"\r\n0\r\n\r\n", b"g\r\n0\r\n\r\n", b";\r\n0\r\n\r\n", b"1\nx\r\n0\r\n\r\n", b"1\r\nx\n0\r\n\r\n", b"1\r\nx\r\n0\n\r\n", b"1\r\nx\r\n0\r\n\n", b"1\rx\r\n0\r\n\r\n", b"1\r\nx\r0\r\n\r\n",
        b"1\r\nxy\r\n0\r\n\r\n", b"1\r\nxy\n0\r\n\r\n", b"1\r\nx\ry0\r\n\r\n", b"1\r\nx\n\n0\r\n\r\n", b"1\ryx\r\n0\r\n\r\n", b"0\r\nT: v\rxU: w\r\n\r\n",
        b"2\r\nx\r\n0\r\n\r\n", b"1\r\nx0\r\n\r\n", b"1\r\nx\r\n\r\n0\r\n\r\n", b"1\r\r\nx\r\n0\r\n\r\n", b"1\r\nx\r\r\n0\r\n\r\n", b"0\r\n\r\r\n",
        b"1;\r\nx\r\n0\r\n\r\n", b"1;a\r\nx\r\n0\r\n\r\n", b"1;a=b\r\nx\r\n0\r\n\r\n", b'1;a="b;c"\r\nx\r\n0\r\n\r\n', b"1 ;a\r\nx\r\n0\r\n\r\n", b"1; a\r\nx\r\n0\r\n\r\n", b"1;a =b\r\nx\r\n0\r\n\r\n",
        b"1;a\nx\r\n0\r\n\r\n", b"1;a\rb\r\nx\r\n0\r\n\r\n", b"1;\nx\r\n0\r\n\r\n", b'1;a="\n"\r\nx\r\n0\r\n\r\n', b'1;a="\r\n"\r\nx\r\n0\r\n\r\n', b'1;a="b\r\nx\r\n0\r\n\r\n', b"1;a\0\r\nx\r\n0\r\n\r\n", b"1;;a\r\nx\r\n0\r\n\r\n",
        b"1;=b\r\nx\r\n0\r\n\r\n", b"1;a=\r\nx\r\n0\r\n\r\n", b"1;a=b c\r\nx\r\n0\r\n\r\n", b"1=a\r\nx\r\n0\r\n\r\n", b"1,a\r\nx\r\n0\r\n\r\n", b"1\0\r\nx\r\n0\r\n\r\n", b"1\x0b\r\nx\r\n0\r\n\r\n",
        b"0;a\r\n\r\n", b"0;a\n\r\n", b"0\r\nT: v\r\n\r\n", b"0\r\nT: v\r\nU: w\r\n\r\n", b"0\r\nT:\r\n\r\n", b"0\r\n T: v\r\n\r\n", b"0\r\nT: v\r\n w\r\n\r\n", b"0\r\nT : v\r\n\r\n", b"0\r\n: v\r\n\r\n",
        b"0\r\nT\r\n\r\n", b"0\r\nT: v\n\r\n", b"0\r\nT: v\rw\r\n\r\n", b"0\r\nT: \0\r\n\r\n", b"0\r\nContent-Length: 99\r\n\r\n", b"0\r\nT: v\r\n\n",
        b"ffffffffffffffff\r\n", b"fffffffffffffffff\r\n", b"10000000000000001\r\nx\r\n0\r\n\r\n", b"00000000000000001\r\nx\r\n0\r\n\r\n", b"7fffffffffffffff\r\n",
        b"1\r\nx\r\n0", b"1\r\nx", b"1\r\n", b"1", b"",
        b"0\r\n\r\n" + SMUGGLED, b"2\r\nx\r\n\r\n0\r\n\r\n" + SMUGGLED, b"0\r\nX" + SMUGGLED, b"25\r\n" + SMUGGLED + b"\r\n0\r\n\r\n",
    ):
        yield f"body {body!r}"[:70], request(fields=HOST + b"Transfer-Encoding: chunked\r\n", body=body)


def unfinished_bodies():
    """Chunked bodies of which nginx takes all that follows for a part, and waits for more."""
    for body in (b"100000000\r\n", b"80000000\r\n", b"1\r\nx\r\n0\r\n"):
        yield f"body {body!r}"[:70], request(fields=HOST + b"Transfer-Encoding: chunked\r\n", body=body)


def reason_for(name, table):
    return next((reason for pattern, reason in table.items() if fnmatch.fnmatchcase(name, pattern)), None)


def run(servers, cases, first=0, half_close=True):
    """Lines about what is not on its list. @first: so many answers may come before the whole request was looked at."""
    worker, nginx = servers
    failures, names = [], set()
    for name, data in cases:
        assert name not in names, name
        names.add(name)
        readings = [reading_of(connect, data + SENTINEL, half_close) for connect in (worker, nginx)]
        relation = compare(*((served[first:], end) for served, end in readings))
        reason = reason_for(name, {"stricter": STRICTER, "looser": LOOSER, "closes sooner": SOONER}.get(relation, {}))
        text = f"{relation}: {name}: worker {readings[0]}, nginx {readings[1]}"
        if relation != "same":
            print(text, "-", reason)
        if relation != "same" and not reason:
            failures.append(text)
    print(len(names), "cases")
    return failures


@pytest.mark.parametrize("group", [lines, line_ends, bytes_anywhere, hosts, framings, others], ids=lambda group: group.__name__)
def test_heads_are_read_as_by_nginx(servers, group):
    """One or the other may refuse a head, but they do not disagree about where it ends and what it asks for."""
    assert not run(servers, group())


def test_chunked_bodies_end_where_nginx_ends_them(servers):
    """What follows a body is a request for both, or for neither; the answer itself need not wait for the body."""
    assert not run(servers, bodies(), first=1, half_close=False)
    assert not run(servers, unfinished_bodies(), first=1)

# SPDX-License-Identifier: MIT
"""The worker as the programs that people have see it: curl, wrk, ab, a browser."""

import contextlib
import gzip
import os
import re
import shutil
import signal
import subprocess
import threading

import pytest
from harness import BUILD_DIR
from worker_harness import DEADLINE, READY, Worker

SITE_MODULE = BUILD_DIR / "tests/integration/modules/site.so"
JSON_MODULE = BUILD_DIR / "packaging/examples/json-api.so"
PAGE_MODULE = BUILD_DIR / "packaging/examples/page.so"
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
BIG = 3 * 1024 * 1024
TEXT = "".join(f"line {i}\n" for i in range(1000)).encode()

needs = {name: pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not installed") for name in ("curl", "wrk", "ab")}
pytestmark = pytest.mark.skipif(not SITE_MODULE.exists(), reason=f"{SITE_MODULE} is not built")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    (root / "index.html").write_text("hello\n")
    (root / "text.txt").write_bytes(TEXT)
    (root / "text.txt.gz").write_bytes(gzip.compress(TEXT))
    (root / "big.bin").write_bytes(os.urandom(BIG))
    return root


@contextlib.contextmanager
def started(*args, **kwargs):
    with Worker(*args, **kwargs) as w:
        yield w.wait_state(READY)


@pytest.fixture(scope="module")
def static(folder):
    with started(folder) as w:
        yield w


@pytest.fixture(scope="module")
def module(folder):
    with started(folder, f"--module={SITE_MODULE}", "--max-body=8M") as w:
        yield w


def run(*argv, data=None, status=0):
    done = subprocess.run([str(a) for a in argv], input=data, capture_output=True, timeout=3 * DEADLINE, check=False)
    assert done.returncode == status, done.stderr.decode()
    return done


def url(server, target):
    return f"http://127.0.0.1:{server.address[1]}{target}"


class Curl:
    """What it got, by what it says of itself; `code`: the status."""

    def __init__(self, server, *options, targets=("/",), data=None, status=0):
        form = "\n<%{http_code} %{http_version} %{num_connects} %{size_download}>"
        urls = [part for target in targets for part in ("-o", "-", url(server, target))]
        done = run("curl", "-sS", "-v", "--path-as-is", "-w", form, *options, *urls, data=data, status=status)
        self.log = done.stderr.decode("latin-1")
        self.bodies, self.codes, self.versions, self.connects = [], [], [], 0
        for body, code, version, connects in re.findall(rb"(.*?)\n<(\d+) ([\d.]+) (\d+) \d+>", done.stdout, re.DOTALL):
            self.bodies.append(body)
            self.codes.append(int(code))
            self.versions.append(version.decode())
            self.connects += int(connects)

    @property
    def one(self):
        assert len(self.codes) == 1
        return self.codes[0], self.bodies[0]


# curl


@needs["curl"]
def test_curl_keeps_the_connection(static):
    """Several files over one connection, the missing one too; with HTTP/1.0 each has its own."""
    got = Curl(static, targets=("/", "/text.txt", "/nothing", "/big.bin", "/"))
    assert got.codes == [200, 200, 404, 200, 200] and got.connects == 1
    assert got.bodies[1] == TEXT and len(got.bodies[3]) == BIG
    old = Curl(static, "--http1.0", targets=("/", "/text.txt"))
    assert old.codes == [200, 200] and old.connects == 2 and old.bodies[1] == TEXT


@needs["curl"]
def test_curl_head_and_conditions(static, folder):
    """-I, a tag that curl has saved, a date that it takes from a file."""
    assert f"Content-Length: {BIG}" in Curl(static, "-I", targets=("/big.bin",)).bodies[0].decode()
    tag, kept = folder.parent / "etag", folder.parent / "kept.txt"
    assert Curl(static, "--etag-save", tag, targets=("/text.txt",)).codes == [200]
    assert Curl(static, "--etag-compare", tag, targets=("/text.txt",)).one == (304, b"")
    shutil.copy2(folder / "text.txt", kept)
    assert Curl(static, "-z", kept, targets=("/text.txt",)).one == (304, b"")


@needs["curl"]
def test_curl_ranges(static, folder, tmp_path):
    """A piece, the end, more than there is, and a download that goes on where it was broken off."""
    assert Curl(static, "-r", "5-9", targets=("/text.txt",)).one == (206, TEXT[5:10])
    assert Curl(static, "-r", "-7", targets=("/text.txt",)).one == (206, TEXT[-7:])
    assert Curl(static, "-r", f"{len(TEXT)}-", targets=("/text.txt",)).codes == [416]
    several = Curl(static, "-r", "0-3,10-13", targets=("/text.txt",))
    assert several.codes == [206] and TEXT[:4] in several.bodies[0] and TEXT[10:14] in several.bodies[0]
    part, whole = tmp_path / "part", (folder / "big.bin").read_bytes()
    part.write_bytes(whole[:1000000])
    run("curl", "-sS", "-C", "-", "-o", part, url(static, "/big.bin"))
    assert part.read_bytes() == whole


@needs["curl"]
def test_curl_compressed(static):
    """What lies there compressed is sent so, and is the same."""
    got = Curl(static, "--compressed", targets=("/text.txt",))
    assert got.one == (200, TEXT) and re.search("content-encoding: gzip", got.log, re.IGNORECASE)


@needs["curl"]
def test_curl_uploads(module, folder):
    """By length, in chunks, by PUT of a file with Expect, which is answered by 100, and more than is taken."""
    assert Curl(module, "-d", "abc", targets=("/sum",)).one == (200, b"3 294\n")
    assert Curl(module, "-H", "Transfer-Encoding: chunked", "-d", "abc", targets=("/sum",)).one == (200, b"3 294\n")
    data = (folder / "big.bin").read_bytes()
    answer = b"%d %d\n" % (len(data), sum(data))
    got = Curl(module, "-T", folder / "big.bin", "-H", "Expect: 100-continue", "--expect100-timeout", "20", targets=("/sum",))
    assert got.one == (200, answer) and "HTTP/1.1 100 Continue" in got.log
    assert Curl(module, "-T", "-", targets=("/sum",), data=data).one == (200, answer)
    much = b"x" * (9 * 1024 * 1024)
    assert Curl(module, "-T", "-", "-H", "Expect:", targets=("/sum",), data=much).codes == [413]
    refused = Curl(module, "--data-binary", "@-", "-H", "Expect: 100-continue", "--expect100-timeout", "20", targets=("/sum",), data=much)
    assert refused.codes == [413] and "100 Continue" not in refused.log


@needs["curl"]
def test_curl_streams_both_ways(module, folder, tmp_path):
    """What is uploaded comes back while it is still being sent, with a trailer; after a short one the connection goes on."""
    data = (folder / "big.bin").read_bytes()
    got = Curl(module, "-T", folder / "big.bin", "-D", tmp_path / "fields", targets=("/echo", "/number"))
    assert got.codes == [200, 200] and got.bodies[0] == data
    assert Curl(module, "-d", "abc", targets=("/echo", "/echo")).connects == 1
    assert b"Echo-Size: %d\r\n" % len(data) in (tmp_path / "fields").read_bytes()
    old = Curl(module, "--http1.0", "--data-binary", "@-", targets=("/echo",), data=data)
    assert old.one == (200, data) and "chunked" not in old.log


@needs["curl"]
def test_curl_reads_events(module):
    """All events of a stream that ends, then only those after the one that the client has."""
    lines = Curl(module, "-N", targets=("/events",)).bodies[0].decode().split("\n")
    assert [line for line in lines if line.startswith("id:")] == ["id: 1", "id: 2", "id: 3"]
    assert lines.count("event: step") == 3 and "data: of 3" in lines
    rest = Curl(module, "-N", "-H", "Last-Event-ID: 2", targets=("/events",)).bodies[0]
    assert rest.count(b"id:") == 1 and b"data: event 3\n" in rest


@needs["curl"]
def test_curl_uses_the_examples(tmp_path):
    """The JSON API adds up, and says what is wrong; the page is what the program prints, with the query as its argument."""
    with started(tmp_path, f"--module={JSON_MODULE}") as w:
        assert Curl(w, "-d", "[1, 2.5]", targets=("/sum",)).one == (200, b'{"sum":3.5,"count":2}')
        assert Curl(w, targets=("/sum",)).one == (200, b'{"sum":3.5,"count":2}')
        assert Curl(w, "-d", "[1,", targets=("/sum",)).codes == [400]
        assert Curl(w, "-X", "DELETE", targets=("/sum", "/other")).codes == [405, 404]
    with started(tmp_path, f"--module={PAGE_MODULE}", environment={"PAGE_COMMAND": 'echo "<p>$1</p>"; seq 100000'}) as w:
        code, body = Curl(w, targets=("/?a=b",)).one
        assert code == 200 and body == b"<p>a=b</p>\n" + b"".join(b"%d\n" % i for i in range(1, 100001))


# Load generators


def wrk(port, *options, target="/", seconds=1):
    text = run("wrk", "-t1", "-c64", f"-d{seconds}s", *options, f"http://127.0.0.1:{port}{target}").stdout.decode()
    assert "Socket errors" not in text and "Non-2xx" not in text, text
    return int(re.search(r"(\d+) requests in", text)[1])


def ab(port, *options, target="/", requests=3000):
    text = run("ab", "-q", "-l", "-c", 32, "-n", requests, *options, f"http://127.0.0.1:{port}{target}").stdout.decode()
    assert re.search(rf"Complete requests:\s+{requests}\n", text) and re.search(r"Failed requests:\s+0\n", text), text
    assert "Non-2xx" not in text and "Write errors" not in text, text


@needs["wrk"]
@pytest.mark.parametrize("options", [(), ("-H", "Connection: close")], ids=["keep", "close"])
def test_wrk(static, module, options):
    """Not one error on kept and on short connections, for files and for what a module says."""
    assert wrk(static.address[1], *options, target="/text.txt") > 100
    assert wrk(module.address[1], *options, target="/number") > 100


@needs["ab"]
def test_ab(static, module):
    """Likewise with HTTP/1.0, which asks for a kept connection or for none, and with a body."""
    for server, target in ((static, "/text.txt"), (module, "/number")):
        ab(server.address[1], target=target)
        ab(server.address[1], "-k", target=target)


@needs["ab"]
def test_ab_posts(module, tmp_path):
    """A body with each request."""
    body = tmp_path / "body"
    body.write_bytes(b"x" * 5000)
    ab(module.address[1], "-k", "-p", body, "-T", "application/octet-stream", target="/sum")


@needs["wrk"]
@pytest.mark.parametrize("options", [(), ("-H", "Connection: close")], ids=["keep", "close"])
def test_wrk_through_a_reload(ready, options):
    """Workers go and come while the load goes on: nobody sees an error."""
    m = ready()
    result, reloads = [], 0
    port = m.socket_list[0][1].getsockname()[1]
    thread = threading.Thread(target=lambda: result.append(wrk(port, *options, seconds=2)))
    thread.start()
    while thread.is_alive():
        m.kill(signal.SIGHUP)
        m.wait_message("RELOADING=1")
        m.wait_ready()
        reloads += 1
    thread.join()
    assert result and result[0] > 100 and reloads > 1


# A browser

PAGE = """<!DOCTYPE html>
<title>site</title>
<link rel=stylesheet href=style.css>
<body>
<img id=image src=image.svg>
<img src=hold>
<p id=report>nothing</p>
<script src=script.js></script>
"""
SCRIPT = """
const found = {};
const image = document.getElementById("image");
const loaded = image.complete ? Promise.resolve() : new Promise((resolve) => image.addEventListener("load", resolve));
const events = new Promise((resolve) => {
        const source = new EventSource("events"), got = [];
        source.addEventListener("step", (event) => {
                got.push(event.lastEventId + ":" + event.data.replace("\\n", "/"));
                if (got.length == 3) {
                        source.close();
                        resolve(got);
                }
        });
});
async function all() {
        await loaded;
        found.image = image.naturalWidth;
        found.style = getComputedStyle(document.body).color;
        found.sum = (await (await fetch("sum", { method: "POST", body: "abc" })).text()).trim();
        const big = "x".repeat(1000000);
        found.echo = (await (await fetch("echo", { method: "POST", body: big })).text()) == big;
        found.missing = (await fetch("nothing")).status;
        found.events = (await events).join(", ");
}
all().catch((error) => { found.error = String(error); }).then(() => {
        document.getElementById("report").textContent = JSON.stringify(found);
        fetch("report", { method: "POST", body: "done" });
});
"""


def test_browser(tmp_path):
    """A page with a style, a script, an image, fetches of both methods and server-sent events: all parts arrive. The page is loaded
    when the last image is, which the module holds until the script is done."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        pytest.skip("there is no Chromium (MUSTER_TEST_BROWSER=1 makes tests/run install it)")
    (tmp_path / "page.html").write_text(PAGE)
    (tmp_path / "style.css").write_text("body { color: rgb(1, 2, 3); }\n")
    (tmp_path / "script.js").write_text(SCRIPT)
    (tmp_path / "image.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="17" height="5"/>')
    with started(tmp_path, f"--module={SITE_MODULE}") as w:
        done = run(browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom",
                   url(w, "/page.html"))
    report = re.search(r'<p id="report">(.*?)</p>', done.stdout.decode())[1]
    assert report == ('{"image":17,"style":"rgb(1, 2, 3)","sum":"3 294","echo":true,"missing":404,'
                      '"events":"1:event 1/of 3, 2:event 2/of 3, 3:event 3/of 3"}')

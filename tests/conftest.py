"""Shared by all tests: nobody's cache is touched, and servers are ours, on loopback."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from courserun import smoke_run


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Give every test an empty cache of its own, and no mirror from the environment."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CXR_CACHE", str(folder))
    monkeypatch.delenv("CXR_MIRROR", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """One smoke run of the whole course: its folder, and what was printed."""
    return smoke_run(tmp_path_factory.mktemp("smoke"))


class LoopbackServer:
    """A web server that can misbehave.

    ``files`` maps paths to their bytes. ``behaviour`` maps a path to a list of functions
    ``f(handler, content)``; each request takes the next of them, and the usual answer follows
    when the list is used up. ``asked`` records (path, Range header) of each request.
    """

    def __init__(self):
        self.files, self.behaviour, self.asked = {}, {}, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.asked.append((self.path, self.headers.get("Range")))
                content = server.files.get(self.path)
                odd = server.behaviour.get(self.path)
                if odd:
                    odd.pop(0)(self, content)
                elif content is None:
                    self.answer(404, b"no such file")
                elif begins := self.headers.get("Range", ""):
                    start = int(begins.removeprefix("bytes=").rstrip("-"))
                    if start >= len(content):
                        return self.answer(416, b"")
                    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                    self.answer(206, content[start:], {"Content-Range": span})
                else:
                    self.answer(200, content)

            def answer(self, status, body, headers=(), length=None):
                self.send_response(status)
                for name, value in dict(headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def loopback(monkeypatch):
    """Run a :class:`LoopbackServer`, and let ``CXR_MIRROR`` name it."""
    server = LoopbackServer()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("CXR_MIRROR", server.address)
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()

"""Shared by all tests: nobody's cache is touched, and servers are ours, on loopback.

``pytest -n 2`` runs two at a time, and takes from here what stays together and what comes first.
"""

import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import settings

from courserun import smoke_run, smoke_run_once

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IS_WORKER:  # one core each; before NumPy is loaded, which reads it once
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


# The same examples in each run, at any pace. `make test-all` names the second profile.
for name, examples in {"few": 50, "many": 500}.items():
    settings.register_profile(
        name, max_examples=examples, derandomize=True, deadline=None, database=None
    )
settings.load_profile("few")


def bundle(nodeid) -> str:
    """Name what one worker runs as a whole: a test file, whose fixtures are then made once.

    The exercises, which take longest, are dealt out lesson by lesson.
    """
    file, _, test = nodeid.partition("::")
    lesson = re.search(r"\[(\d\d_\w+)\]$", test) if "test_exercises" in file else None
    return f"{file} {lesson[1]}" if lesson else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than cores, for ``-n logical``: who waits for a browser or a disk needs none."""
    all_cores = os.cpu_count() or 1
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else all_cores)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Deal out bundles, in the order of `pytest_collection_modifyitems`."""
    from xdist.scheduler import LoadScopeScheduling

    class Bundles(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return bundle(nodeid)

    config.option.loadscopereorder = False
    return Bundles(config, log)


def pytest_collection_modifyitems(items):
    """Let workers begin with what takes long, and one of them with the smoke run.

    The other one does slow tests that don't need it meanwhile. Many short ones at the end let both
    finish at the same time.
    """
    if not IS_WORKER:
        return
    smoke = list(dict.fromkeys(bundle(i.nodeid) for i in items if "smoke" in i.fixturenames))
    slow = {bundle(item.nodeid) for item in items if item.get_closest_marker("slow")}

    def turn(item):
        mine = bundle(item.nodeid)
        return 0 if mine == smoke[0] else 2 if mine in smoke else 1 if mine in slow else 3

    if smoke:
        items.sort(key=turn)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Give every test an empty cache of its own, and no mirror from the environment."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CXR_CACHE", str(folder))
    ours = ("CXR_MIRROR", "CXR_ENGINE", "CXR_PRECISION", "CXR_STEPS", "CXR_HEADS")
    for name in (*ours, "DASK_SCHEDULER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """One smoke run of the whole course: its folder, and what was printed."""
    if IS_WORKER:
        return smoke_run_once(tmp_path_factory.getbasetemp().parent)
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

"""cxrlib.sources.pinned against a server on loopback that misbehaves."""

import contextlib
import errno
import gzip
import multiprocessing
import os
import signal
import socket
import subprocess
import threading
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import requests

from cxrlib import files
from cxrlib.sources import SourceError, pinned
from cxrlib.sources.pinned import Pinned, place, state
from faults import CONTENT, fault, pin, wait_for  # noqa: F401, a fixture of all tests


@pytest.fixture
def quick(monkeypatch):
    """Make retries impatient."""
    monkeypatch.setattr(pinned, "LONGEST_WAIT", 0.01)


def serve(server, path="a.png", content=CONTENT, behaviour=()):
    server.files["/" + path.replace(" ", "%20")] = content
    server.behaviour["/" + path] = list(behaviour)
    return pin(path, content)


def fetch(folder, *wanted):
    return pinned.fetch(wanted, folder, progress=False)


def arrives(folder, file):
    """Fetch one file; make sure that it comes whole, and nothing else is left."""
    assert fetch(folder, file) == ["present"]
    assert place(folder, file.path).read_bytes() == CONTENT
    return not list(folder.rglob("*.part*"))


def is_refused(folder, file, message):
    """Fetch one file in vain; make sure that nothing of it is left."""
    with pytest.raises(SourceError, match=message):
        fetch(folder, file)
    return not [path for path in folder.rglob("*") if path.is_file()]


def test_git_blob_hash_is_the_one_git_computes(tmp_path):
    (tmp_path / "a").write_bytes(CONTENT)
    try:
        said = subprocess.run(["git", "hash-object", "a"], cwd=tmp_path, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs git")
    file = Pinned("a", None, "", said.stdout.decode().strip())
    assert state(tmp_path, file) == "present"
    (tmp_path / "a").write_bytes(CONTENT[:-1] + b"x")
    assert state(tmp_path, file) == "damaged"


def test_fetches_verifies_and_does_not_fetch_twice(loopback, tmp_path):
    wanted = [serve(loopback, f"x/b {n}.png", CONTENT + b"%d" % n) for n in range(20)]
    assert fetch(tmp_path, *wanted) == ["present"] * 20
    assert (tmp_path / "x/b 7.png").read_bytes() == CONTENT + b"7"
    assert not list(tmp_path.rglob("*.part*"))
    assert fetch(tmp_path, *wanted) == ["present"] * 20
    assert len(loopback.asked) == 20


def test_several_files_come_at_a_time(loopback, tmp_path):
    both = threading.Barrier(2)  # opens when two requests are under way at once

    def meet(handler, content):
        both.wait(120)
        handler.answer(200, content)

    wanted = [serve(loopback, f"{n}.png", behaviour=[meet]) for n in range(4)]
    assert pinned.fetch(wanted, tmp_path, workers=2, progress=False) == ["present"] * 4


@pytest.mark.parametrize("status", [404, 410])
def test_missing_at_the_server_is_reported_and_the_others_arrive(loopback, tmp_path, status):
    gone = serve(loopback, "gone.png", behaviour=[lambda h, _: h.answer(status, b"none")])
    assert fetch(tmp_path, gone, serve(loopback)) == ["missing", "present"]
    assert len(loopback.asked) == 2


@pytest.mark.parametrize("damage", [CONTENT[:1000], CONTENT[:-1] + b"x", b"", CONTENT + b"x"])
def test_damaged_file_is_fetched_again(loopback, tmp_path, damage):
    """A file in the cache is cut, changed, empty or too long: fetched again"""
    (tmp_path / "a.png").write_bytes(damage)
    file = serve(loopback)
    assert state(tmp_path, file) == "damaged"
    assert arrives(tmp_path, file)


def cut(handler, content):
    handler.answer(200, content[:200_000], length=len(content))
    handler.close_connection = True


def too_short(handler, content):
    handler.answer(200, content, length=1000)
    handler.close_connection = True


def not_http(handler, _):
    handler.wfile.write(b"\x00\x01SSH-2.0\r\n\r\n")
    handler.close_connection = True


def nothing(handler, _):
    handler.close_connection = True


def without_length(handler, content):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(content[:1000])
    handler.close_connection = True


def page(handler, _):
    handler.answer(200, b"<html>Please log in</html>")


def busy(status):
    return lambda handler, _: handler.answer(status, b"busy", {"Retry-After": "3600"})


@pytest.mark.parametrize(
    "behaviour",
    [cut, too_short, not_http, nothing, without_length, page, busy(429), busy(500), busy(503)],
)
def test_what_may_pass_is_asked_again(loopback, tmp_path, quick, behaviour):
    """The server cuts off, lies about the length, speaks no HTTP, is busy: asked again"""
    assert arrives(tmp_path, serve(loopback, behaviour=[behaviour] * 2))
    assert len(loopback.asked) == 3


@pytest.mark.parametrize("size", [True, False])
@pytest.mark.parametrize(
    "content", [b"<html>", CONTENT[::-1], CONTENT[:1000], CONTENT * 2], ids=len
)
def test_other_content_is_refused(loopback, tmp_path, quick, content, size):
    """A web page or another file comes, of the same length or not: refused"""
    loopback.files["/a.png"] = content
    message = r"a\.png: .* (are not the file|bytes come)"
    assert is_refused(tmp_path, pin("a.png", CONTENT, size), message)
    assert len(loopback.asked) == pinned.ATTEMPTS


def test_a_file_is_told_by_git_s_hash_where_no_other_is_known(loopback, tmp_path, quick):
    loopback.files["/a.png"] = CONTENT
    assert arrives(tmp_path, pin("a.png", CONTENT, size=False, sha256=False))
    loopback.files["/b.png"] = CONTENT[::-1]
    with pytest.raises(SourceError, match="are not the file"):
        fetch(tmp_path, pin("b.png", CONTENT, size=False, sha256=False))
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_server_that_refuses_or_stays_busy(loopback, tmp_path, quick, status):
    """The server refuses (403) or stays busy: said, not taken for a missing file"""
    file = serve(loopback, behaviour=[busy(status)] * 10)
    assert is_refused(tmp_path, file, rf"refuses, is busy or fails \(HTTP {status}\)")
    assert len(loopback.asked) == (1 if status == 403 else pinned.ATTEMPTS)


def test_redirect_without_end(loopback, tmp_path):
    """The server redirects in a circle: refused"""
    around = [lambda h, _: h.answer(302, b"", {"Location": "/a.png"})] * 100
    assert is_refused(tmp_path, serve(loopback, behaviour=around), "HTTP 302")


@pytest.mark.parametrize(
    ("asked", "waited"), [("7", 7), ("3600", pinned.LONGEST_WAIT), ("soon", 0.5), ("", 0.5)]
)
def test_pause_that_the_server_asks_for(loopback, tmp_path, monkeypatch, asked, waited):
    """The server asks for a pause (Retry-After): it gets it, up to a limit"""
    waits = []

    class Impatient(threading.Event):
        def wait(self, seconds):
            waits.append(seconds)

    monkeypatch.setattr(pinned, "threading", SimpleNamespace(Event=Impatient))
    file = serve(loopback, behaviour=[lambda h, _: h.answer(429, b"", {"Retry-After": asked})])
    assert arrives(tmp_path, file)
    assert waits == [waited]


def flood(handler, content):
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    with contextlib.suppress(OSError):
        for _ in range(1000):
            handler.wfile.write(content)


def compressed_flood(handler, _):
    handler.answer(200, gzip.compress(bytes(50_000_000), 1), {"Content-Encoding": "gzip"})
    handler.close_connection = True


@pytest.mark.parametrize("size", [True, False])
@pytest.mark.parametrize("behaviour", [flood, compressed_flood])
def test_server_that_sends_too_much_is_cut_off(
    loopback, tmp_path, monkeypatch, quick, behaviour, size
):
    """The server sends without end, or what unpacks to far more than the file: cut off, refused"""
    monkeypatch.setattr(pinned, "LARGEST", 1_000_000)
    serve(loopback, behaviour=[behaviour] * pinned.ATTEMPTS)
    file = pin("a.png", CONTENT, size)
    assert is_refused(tmp_path, file, f"more than the pinned {512000 if size else 1000000} bytes")


def test_server_that_stalls_or_is_too_slow_is_given_up(loopback, tmp_path, quick, monkeypatch):
    """The server stalls, or sends for too long: given up, asked again"""
    monkeypatch.setattr(pinned, "TIMEOUT", (120, 1))
    over = threading.Event()

    def stall(handler, content):
        handler.answer(200, content[:5000], length=len(content))
        over.wait(120)
        handler.close_connection = True

    assert arrives(tmp_path, serve(loopback, behaviour=[stall]))
    over.set()
    monkeypatch.setattr(pinned, "LONGEST", 0)
    with pytest.raises(SourceError, match="too slow"):
        fetch(tmp_path, serve(loopback, "b.png"))


def test_gives_up_after_many_failures(loopback, tmp_path, quick):
    """All files of a server are wrong: given up after some"""
    loopback.files |= {f"/{n}.png": b"<html>" for n in range(200)}
    wanted = [pin(f"{n}.png", CONTENT) for n in range(200)]
    with pytest.raises(SourceError, match="Try again later"):
        pinned.fetch(wanted, tmp_path, workers=2, progress=False)
    assert len({path for path, _ in loopback.asked}) < 60


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9", r"pip install 'requests\[socks\]'"),
        ("HTTPS_PROXY", "http://", "HTTPS_PROXY"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/firewall.pem", "Set REQUESTS_CA_BUNDLE to a file"),
        ("CURL_CA_BUNDLE", "/nowhere/firewall.pem", "Set CURL_CA_BUNDLE to a file"),
    ],
)
def test_a_setting_that_stops_all_requests_is_named_at_once(
    tmp_path, monkeypatch, setting, value, remedy
):
    """A proxy or a certificate's file that is set and cannot be used"""
    if "socks" in value and find_spec("socks"):
        pytest.skip("the package for SOCKS is installed")
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in pinned.BUNDLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(setting, value)
    monkeypatch.setenv("CXR_MIRROR", "https://127.0.0.1:9")
    monkeypatch.setattr(pinned, "ATTEMPTS", 10**9)  # it is not tried again
    with pytest.raises(OSError, match=remedy) as found:
        fetch(tmp_path, pin("a.png", CONTENT))
    assert type(found.value) is OSError and "Try again later" not in str(found.value)
    assert "/nowhere" not in value or value in str(found.value)


def test_a_certificate_that_is_unknown_here_is_called_so(monkeypatch):
    said = "[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer certificate"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/own.pem")
    told = pinned._setting_at_fault(requests.exceptions.SSLError(said))
    assert "set REQUESTS_CA_BUNDLE" in told and "/etc/own.pem" in told
    assert not pinned._setting_at_fault(requests.ConnectionError("refused"))


def test_no_network_is_one_message_with_what_to_do(tmp_path, monkeypatch, quick):
    """Nothing answers: one message, not one a file"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("CXR_MIRROR", address)
    with pytest.raises(SourceError, match=r"CXR_MIRROR.*phantom"):
        fetch(tmp_path, *[pin(f"{n}.png", CONTENT) for n in range(300)])


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://host", "file:///etc", "http://:/"])
def test_mirror_has_to_be_an_address(tmp_path, monkeypatch, quick, address):
    monkeypatch.setenv("CXR_MIRROR", address)
    assert is_refused(tmp_path, pin("a.png", CONTENT), r"CXR_MIRROR.*(begin with http|phantom)")


@pytest.mark.parametrize("path", ["../a.png", "/etc/a.png", "x/../../a.png", "..\\a.png", "", "."])
def test_path_outside_the_folder_is_refused(loopback, tmp_path, path):
    """The path of a file leads out of the cache: refused"""
    with pytest.raises(SourceError, match="outside"):
        fetch(tmp_path / "cache", pin(path, CONTENT))
    assert not (tmp_path / "a.png").exists()


def test_link_out_of_the_folder_is_refused(loopback, tmp_path):
    """A link in the cache leads out of it: refused"""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/out").symlink_to(tmp_path)
    with pytest.raises(SourceError, match="outside"):
        fetch(tmp_path / "cache", serve(loopback, "out/a.png"))


def test_file_without_a_hash_is_refused():
    with pytest.raises(ValueError, match="no hash"):
        Pinned("a.png", 5)


def test_disk_that_fills_up(loopback, tmp_path, monkeypatch):
    """The disk is full: said, with what to do"""

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = serve(loopback)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match=rf"{tmp_path}/a\.png .*full.*CXR_CACHE"):
            fetch(tmp_path, file)
    assert not list(tmp_path.iterdir())
    assert arrives(tmp_path, file)


def test_killed_process_leaves_no_file_under_its_name(loopback, tmp_path):
    """The process is killed while a file comes: fetched anew, the finished ones kept"""
    halfway, over = threading.Event(), threading.Event()

    def slow(handler, content):
        handler.answer(200, content[:300_000], length=len(content))
        halfway.set()
        over.wait(120)

    wanted = [serve(loopback, "a.png"), serve(loopback, "b.png", behaviour=[slow])]
    process = multiprocessing.get_context("spawn").Process(
        target=pinned.fetch, args=(wanted, tmp_path, 1, False)
    )
    process.start()
    assert halfway.wait(120)
    wait_for(lambda: any(path.stat().st_size for path in tmp_path.glob(".b.*.part.png")))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    over.set()
    assert not (tmp_path / "b.png").exists()
    assert fetch(tmp_path, *wanted) == ["present"] * 2
    assert [path for path, _ in loopback.asked] == ["/a.png", "/b.png", "/b.png"]


def test_two_processes_at_once(loopback, tmp_path):
    """Two processes fetch the same files at once: all are right"""
    wanted = [serve(loopback, f"{n}.png", CONTENT + b"%d" % n) for n in range(30)]
    context = multiprocessing.get_context("spawn")
    arguments = (wanted, tmp_path, 4, False)
    both = [context.Process(target=pinned.fetch, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert {state(tmp_path, file) for file in wanted} == {"present"}

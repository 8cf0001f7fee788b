import contextlib
import errno
import gzip
import hashlib
import multiprocessing
import os
import signal
import socket
import subprocess
import time
import tracemalloc
from email.utils import formatdate
from pathlib import Path

import pytest

from cxrlib import download
from cxrlib.pinned import PathError, Pinned, place, state
from faults import fault  # noqa: F401, a fixture of all tests

CONTENT = bytes(range(256)) * 2000


def pin(path, content, size=True, sha256=True):
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return Pinned(
        path,
        len(content) if size else None,
        hashlib.sha256(content).hexdigest() if sha256 else "",
        blob,
    )


@pytest.fixture
def quick(monkeypatch):
    """Make retries impatient."""
    monkeypatch.setattr(download, "LONGEST_WAIT", 0.01)


def serve(server, path="a/b c.png", content=CONTENT):
    server.files["/" + path.replace(" ", "%20")] = content
    return pin(path, content)


def test_git_blob_hash_is_the_one_git_computes(tmp_path):
    (tmp_path / "a").write_bytes(CONTENT)
    try:
        said = subprocess.run(["git", "hash-object", "a"], cwd=tmp_path, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs git")
    pinned = Pinned("a", None, "", said.stdout.decode().strip())
    assert state(tmp_path, pinned) == "present"
    (tmp_path / "a").write_bytes(CONTENT[:-1] + b"x")
    assert state(tmp_path, pinned) == "damaged"


def test_fetches_verifies_and_does_not_fetch_twice(loopback, tmp_path):
    files = [serve(loopback, f"x/{n}.png", CONTENT + b"%d" % n) for n in range(20)]
    assert download.fetch(files, tmp_path, progress=False) == ["present"] * 20
    assert (tmp_path / "x/7.png").read_bytes() == CONTENT + b"7"
    assert not list(tmp_path.rglob("*.part"))
    asked = len(loopback.asked)
    assert download.fetch(files, tmp_path, progress=False) == ["present"] * 20
    assert len(loopback.asked) == asked == 20


def test_missing_at_the_server_is_reported_and_the_others_arrive(loopback, tmp_path):
    files = [pin("gone.png", b"gone"), serve(loopback)]
    assert download.fetch(files, tmp_path, progress=False) == ["missing", "present"]


@pytest.mark.parametrize("damage", [CONTENT[:1000], CONTENT[:-1] + b"x", b"", CONTENT + b"x"])
def test_damaged_file_is_fetched_again(loopback, tmp_path, damage):
    """A file in the cache is cut, changed, empty or too long: fetched again"""
    pinned = serve(loopback)
    target = place(tmp_path, pinned.path)
    target.parent.mkdir()
    target.write_bytes(damage)
    assert state(tmp_path, pinned) == "damaged"
    assert download.fetch([pinned], tmp_path, progress=False) == ["present"]
    assert target.read_bytes() == CONTENT


def test_resumes_where_it_stopped(loopback, tmp_path):
    """Half of a file is there: only the rest is fetched"""
    pinned = serve(loopback, "a.png")
    (tmp_path / "a.png.part").write_bytes(CONTENT[:1000])
    download.fetch([pinned], tmp_path, progress=False)
    assert loopback.asked == [("/a.png", "bytes=1000-")]
    assert (tmp_path / "a.png").read_bytes() == CONTENT


@pytest.mark.parametrize("size", [True, False])
@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * len(CONTENT), CONTENT + b"x", CONTENT])
def test_wrong_part_is_thrown_away(loopback, tmp_path, quick, part, size):
    """What is there of a file is wrong: thrown away, fetched anew"""
    serve(loopback, "a.png")
    (tmp_path / "a.png.part").write_bytes(part)
    download.fetch([pin("a.png", CONTENT, size)], tmp_path, progress=False)
    assert (tmp_path / "a.png").read_bytes() == CONTENT


def test_server_that_ignores_range(loopback, tmp_path):
    """The server sends the whole file where the rest was asked for"""
    pinned = serve(loopback, "a.png")
    loopback.behaviour["/a.png"] = [lambda handler, content: handler.answer(200, content)]
    (tmp_path / "a.png.part").write_bytes(CONTENT[:1000])
    download.fetch([pinned], tmp_path, progress=False)
    assert (tmp_path / "a.png").read_bytes() == CONTENT
    assert len(loopback.asked) == 1


def cut(handler, content):
    handler.answer(200, content[:200_000], length=len(content))
    handler.close_connection = True


def test_broken_connection_is_resumed(loopback, tmp_path, quick):
    """The server cuts the connection off: the rest is fetched"""
    pinned = serve(loopback, "a.png")
    loopback.behaviour["/a.png"] = [cut]
    download.fetch([pinned], tmp_path, progress=False)
    assert (tmp_path / "a.png").read_bytes() == CONTENT
    start = int(loopback.asked[1][1].removeprefix("bytes=").rstrip("-"))
    assert 200_000 - download.PIECE < start <= 200_000


def test_stalled_server_is_given_up_and_resumed(loopback, tmp_path, quick, monkeypatch):
    """The server stalls: given up, asked again for the rest"""
    monkeypatch.setattr(download, "TIMEOUT", (1, 0.3))
    pinned = serve(loopback, "a.png")

    def stall(handler, content):
        handler.answer(200, content[:5000], length=len(content))
        time.sleep(1)
        handler.close_connection = True

    loopback.behaviour["/a.png"] = [stall]
    download.fetch([pinned], tmp_path, progress=False)
    assert (tmp_path / "a.png").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [429, 503, 500])
def test_busy_server_is_asked_again(loopback, tmp_path, status, quick):
    """The server is busy (429, 500 or 503, with Retry-After): asked again"""
    pinned = serve(loopback, "a.png")
    busy = [lambda h, _: h.answer(status, b"", {"Retry-After": "3600"})]
    loopback.behaviour["/a.png"] = busy * 2
    download.fetch([pinned], tmp_path, progress=False)
    assert len(loopback.asked) == 3


def test_retry_after_is_honoured(loopback, tmp_path):
    """The server asks for a pause (Retry-After): it gets it"""
    pinned = serve(loopback, "a.png")
    loopback.behaviour["/a.png"] = [lambda h, _: h.answer(429, b"", {"Retry-After": "1"})]
    start = time.monotonic()
    download.fetch([pinned], tmp_path, progress=False)
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("7", 7, 7), ("in an hour", 3000, 3700), ("-5", 0, 0)],
)
def test_retry_after_in_seconds_or_as_a_date(header, low, high):
    if header == "in an hour":
        header = formatdate(time.time() + 3600, usegmt=True)
    assert low <= download._seconds(header) <= high


@pytest.mark.parametrize("header", [None, "", "soon", "nan"])
def test_retry_after_that_says_nothing(header):
    assert download._seconds(header) in {None, 0.0}


@pytest.mark.parametrize("size", [True, False])
def test_page_instead_of_file_is_refused(loopback, tmp_path, size, quick):
    """A web page comes in place of the file, with status 200: refused"""
    page = b"<html>Please log in</html>"
    loopback.files["/a.png"] = page
    with pytest.raises(download.DownloadError, match=r"a\.png: the 26 bytes that came are not"):
        download.fetch([pin("a.png", CONTENT, size)], tmp_path, progress=False)
    assert not list(tmp_path.glob("a.png*"))


def test_page_without_length_is_refused_and_forgotten(loopback, tmp_path, quick):
    """A web page of unknown length comes: forgotten, asked again"""

    def page(handler, _):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"<html>")
        handler.close_connection = True

    pinned = serve(loopback, "a.png")
    loopback.behaviour["/a.png"] = [page] * 2
    download.fetch([pinned], tmp_path, progress=False)
    assert (tmp_path / "a.png").read_bytes() == CONTENT


def test_server_that_sends_too_much_is_cut_off(loopback, tmp_path):
    """The server sends without end: cut off, refused"""
    sent = []

    def flood(handler, content):
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        try:
            for _ in range(10_000):
                handler.wfile.write(content)
                sent.append(len(content))
        except OSError:
            pass

    pinned = serve(loopback, "a.png")
    loopback.behaviour["/a.png"] = [flood]
    with pytest.raises(download.DownloadError, match="more than the pinned 512000 bytes"):
        download.fetch([pinned], tmp_path, progress=False)
    assert sum(sent) < 1000 * len(CONTENT)
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("size", [True, False])
@pytest.mark.parametrize("length", [len(CONTENT), 1000, 2 * len(CONTENT)])
def test_another_file_is_refused(loopback, tmp_path, quick, length, size):
    """Another file comes, of the same length or not: refused"""
    loopback.files["/a.png"] = (CONTENT[::-1] * 2)[:length]
    with pytest.raises(download.DownloadError, match=r"a\.png: .* (are not the file|bytes come)"):
        download.fetch([pin("a.png", CONTENT, size)], tmp_path, progress=False)
    assert not (tmp_path / "a.png").exists()


def test_another_part_than_the_one_asked_for(loopback, tmp_path, quick):
    """The server sends another part than the one asked for: thrown away, fetched anew"""

    def elsewhere(handler, content):
        handler.answer(206, content[5000:], {"Content-Range": f"bytes 5000-/{len(content)}"})

    pinned = serve(loopback, "a.png")
    loopback.behaviour["/a.png"] = [elsewhere]
    (tmp_path / "a.png.part").write_bytes(CONTENT[:1000])
    download.fetch([pinned], tmp_path, progress=False)
    assert (tmp_path / "a.png").read_bytes() == CONTENT


@pytest.mark.parametrize("claimed", [0, 1000, len(CONTENT) + 1000])
def test_wrong_length_is_claimed(loopback, tmp_path, quick, claimed):
    """The server claims a wrong length: asked again, or refused"""

    def wrongly(handler, content):
        handler.answer(200, content, length=claimed)
        handler.close_connection = True

    pinned = serve(loopback, "a.png")
    loopback.behaviour["/a.png"] = [wrongly]
    try:
        download.fetch([pinned], tmp_path, progress=False)
    except download.DownloadError as error:
        assert f"the {claimed} bytes that came are not the file" in str(error)
        assert not (tmp_path / "a.png").exists()
        download.fetch([pinned], tmp_path, progress=False)
    assert (tmp_path / "a.png").read_bytes() == CONTENT


def test_server_that_drips_is_given_up(loopback, tmp_path, quick, monkeypatch):
    """The server sends a few bytes now and then, never stalling: given up, what came is kept"""
    monkeypatch.setattr(download, "LONGEST", 0.3)

    def drip(handler, content):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            for start in range(0, len(content), 10):
                handler.wfile.write(content[start : start + 10])
                time.sleep(0.02)

    pinned = serve(loopback, "a.png")
    loopback.behaviour["/a.png"] = [drip]
    start = time.monotonic()
    download.fetch([pinned], tmp_path, progress=False)
    assert time.monotonic() - start < 5
    assert (tmp_path / "a.png").read_bytes() == CONTENT
    assert int(loopback.asked[1][1].removeprefix("bytes=").rstrip("-")) >= 10


@pytest.mark.parametrize("size", [True, False])
def test_compressed_flood_is_cut_off(loopback, tmp_path, monkeypatch, size):
    """A compressed answer that unpacks to far more than the file: cut off, refused"""
    monkeypatch.setattr(download, "LARGEST", 1_000_000)
    bomb = gzip.compress(bytes(300_000_000), 1)

    def flood(handler, _):
        handler.answer(200, bomb, {"Content-Encoding": "gzip"})
        handler.close_connection = True

    serve(loopback, "a.png")
    loopback.behaviour["/a.png"] = [flood]
    tracemalloc.start()
    with pytest.raises(download.DownloadError, match="more than the pinned"):
        download.fetch([pin("a.png", CONTENT, size)], tmp_path, progress=False)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert highest < 50_000_000
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_server_that_stays_busy(loopback, tmp_path, quick, status):
    """The server stays busy, however often it is asked: refused after some attempts"""
    pinned = serve(loopback, "a.png")
    busy = [lambda h, _: h.answer(status, b"busy", {"Retry-After": "1"})]
    loopback.behaviour["/a.png"] = busy * 10
    with pytest.raises(download.DownloadError, match=rf"busy or fails \(HTTP {status}\)"):
        download.fetch([pinned], tmp_path, progress=False)
    assert len(loopback.asked) == download.ATTEMPTS
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("kind", ["not HTTP", "nothing", "no length"])
def test_answer_that_is_none(loopback, tmp_path, quick, kind):
    """What answers does not speak HTTP, says nothing, or ends before the end: asked again"""

    def oddly(handler, content):
        if kind == "not HTTP":
            handler.wfile.write(b"\x00\x01SSH-2.0\r\n\r\n")
        elif kind == "no length":
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(content[:1000])
        handler.close_connection = True

    pinned = serve(loopback, "a.png")
    loopback.behaviour["/a.png"] = [oddly]
    assert download.fetch([pinned], tmp_path, progress=False) == ["present"]
    assert (tmp_path / "a.png").read_bytes() == CONTENT


def test_redirect_without_end(loopback, tmp_path):
    """The server redirects in a circle: refused"""
    loopback.behaviour["/a.png"] = [lambda h, _: h.answer(302, b"", {"Location": "/a.png"})] * 50
    with pytest.raises(download.DownloadError, match="redirected without end"):
        download.fetch([pin("a.png", CONTENT)], tmp_path, progress=False)


def test_refusal_is_not_called_missing(loopback, tmp_path):
    """The server refuses (403): said, not taken for a missing file"""
    loopback.behaviour["/a.png"] = [lambda h, _: h.answer(403, b"")]
    with pytest.raises(download.DownloadError, match="HTTP 403"):
        download.fetch([pin("a.png", CONTENT)], tmp_path, progress=False)


def test_gives_up_after_many_failures(loopback, tmp_path):
    """All files of a server are wrong: given up after some"""
    loopback.files |= {f"/{n}.png": b"<html>" for n in range(200)}
    files = [pin(f"{n}.png", CONTENT) for n in range(200)]
    with pytest.raises(download.DownloadError, match="Try again later"):
        download.fetch(files, tmp_path, workers=2, progress=False)
    assert len(loopback.asked) < 60


def test_no_network_is_one_message_with_what_to_do(tmp_path, monkeypatch, quick):
    """Nothing answers: one message, not one a file"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("CXR_MIRROR", address)
    files = [pin(f"{n}.png", CONTENT) for n in range(300)]
    with pytest.raises(download.UnreachableError, match=r"CXR_MIRROR.*phantom"):
        download.fetch(files, tmp_path, progress=False)


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://host", "file:///etc"])
def test_mirror_has_to_be_an_address(tmp_path, monkeypatch, address):
    monkeypatch.setenv("CXR_MIRROR", address)
    with pytest.raises(download.DownloadError, match="begin with http"):
        download.fetch([pin("a.png", CONTENT)], tmp_path, progress=False)


def test_mirror_that_is_no_address(tmp_path, monkeypatch, quick):
    monkeypatch.setenv("CXR_MIRROR", "http://:/")
    with pytest.raises(download.DownloadError, match="CXR_MIRROR"):
        download.fetch([pin("a.png", CONTENT)], tmp_path, progress=False)


@pytest.mark.parametrize("path", ["../a.png", "/etc/a.png", "x/../../a.png", "..\\a.png", "", "."])
def test_path_outside_the_folder_is_refused(loopback, tmp_path, path):
    """The path of a file leads out of the cache: refused"""
    with pytest.raises(PathError, match="outside"):
        download.fetch([pin(path, CONTENT)], tmp_path / "cache", progress=False)
    assert not (tmp_path / "a.png").exists()


def test_link_out_of_the_folder_is_refused(loopback, tmp_path):
    """A link in the cache leads out of it: refused"""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/out").symlink_to(tmp_path)
    with pytest.raises(PathError, match="outside"):
        download.fetch([serve(loopback, "out/a.png")], tmp_path / "cache", progress=False)


def test_file_without_a_hash_is_refused():
    with pytest.raises(ValueError, match="no hash"):
        Pinned("a.png", 5)


def test_too_little_room_is_said_before_anything_is_fetched(loopback, tmp_path):
    pinned = Pinned("a.png", 10**18, "0" * 64)
    with pytest.raises(
        download.DownloadError, match=rf"{tmp_path}.*take 1000000000000000000 bytes"
    ):
        download.fetch([pinned], tmp_path, progress=False)
    assert not loopback.asked


def test_disk_that_fills_up(loopback, tmp_path, monkeypatch):
    """The disk is full: said, with the bytes needed"""

    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    pinned = serve(loopback, "a.png")
    with monkeypatch.context() as patch:
        patch.setattr(download._Fetcher, "receive", write)
        with pytest.raises(download.DownloadError, match=rf"{tmp_path} is full.*512000.*CXR_CACHE"):
            download.fetch([pinned], tmp_path, progress=False)
    assert not list(tmp_path.glob("a.png*"))
    assert download.fetch([pinned], tmp_path, progress=False) == ["present"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_that_is_really_full(loopback, tmp_path):
    """The disk is full while a file is written: said"""
    (tmp_path / "a.png.part").symlink_to("/dev/full")
    with pytest.raises(download.DownloadError, match="is full"):
        download.fetch([serve(loopback, "a.png")], tmp_path, progress=False)
    assert not (tmp_path / "a.png").exists()


def test_killed_process_leaves_only_what_can_be_resumed(loopback, tmp_path):
    """The process is killed while a file comes: resumed"""

    def slow(handler, content):
        handler.answer(200, content[:300_000], length=len(content))
        time.sleep(20)

    pinned = serve(loopback, "a.png")
    loopback.behaviour["/a.png"] = [slow]
    process = multiprocessing.get_context("spawn").Process(
        target=download.fetch, args=([pinned], tmp_path, 2, False)
    )
    process.start()
    part = tmp_path / "a.png.part"
    for _ in range(200):
        if part.exists() and part.stat().st_size > 100_000:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "a.png").exists()
    assert 0 < part.stat().st_size < len(CONTENT)
    assert download.fetch([pinned], tmp_path, progress=False) == ["present"]
    assert loopback.asked[-1][1].startswith("bytes=")


def test_two_processes_at_once(loopback, tmp_path):
    """Two processes fetch the same files at once: each file is fetched once"""
    files = [serve(loopback, f"{n}.png", CONTENT + b"%d" % n) for n in range(30)]
    context = multiprocessing.get_context("spawn")
    arguments = (files, tmp_path, 4, False)
    both = [context.Process(target=download.fetch, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert {state(tmp_path, pinned) for pinned in files} == {"present"}
    assert len(loopback.asked) == 30

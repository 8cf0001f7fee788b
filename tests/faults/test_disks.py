"""Disks that are full or read-only, and two processes at once on one cache or one folder."""

import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrlib import files, images, results
from cxrlib.images import read_grey
from faults import (  # noqa: F401, a fixture of all tests
    CONTENT,
    Disk,
    at_once,
    decode_films,
    extract_features,
    fault,
    pin,
    start_cxr,
    wait_for,
)

NOTEBOOKS = Path(__file__).parents[1] / "course" / "notebooks"
TOLD = '''
def told(work, *words):
    """Do what cannot work; the message, which has to hold these words."""
    try:
        work()
    except (ValueError, OSError) as error:
        assert type(error) is OSError or type(error).__module__.startswith("cxrlib"), repr(error)
        missing = [word for word in words if word not in str(error)]
        assert not missing, (missing, str(error))
        return str(error)
    raise AssertionError("it went on as if nothing were wrong")

def fill(left):
    """Fill the disk but for so many bytes."""
    import os, shutil
    with (disk / "filler").open("ab") as file:
        file.write(bytes(shutil.disk_usage(disk).free - left))
'''


@pytest.fixture
def disk(tmp_path):
    """Give a small disk of its own to the processes that ``disk.run`` starts."""
    return Disk(tmp_path / "disk")


@pytest.fixture
def films(tmp_path):
    """Write 12 films, as PNG."""
    (tmp_path / "films").mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        film = rng.integers(0, 256, (64, 64), np.uint8)
        cv2.imwrite(str(tmp_path / "films" / f"{number}.png"), film)
    return tmp_path / "films"


def right(ended, last="right"):
    """Make sure that a script came to its end and found all in order."""
    assert ended.returncode == 0 and ended.stdout.rstrip().endswith(last), (
        ended.stdout[-2000:] + ended.stderr[-2000:]
    )


def test_the_small_disk_is_a_small_disk(disk):
    script = "(disk / 'a').write_bytes(bytes(2_000_000))"
    assert "No space left" in disk.run(script, size="1m").stderr
    assert "Read-only" in disk.run(script, read_only=True).stderr
    assert not list(disk.place.iterdir())  # and nothing of it is seen outside


def test_full_disk_while_fetching(disk, loopback):
    """The disk fills up during `cxr data fetch`; it is freed, and fetched again"""
    names = [f"{number}.png" for number in range(12)]
    for name in names:
        loopback.files[f"/{name}"] = CONTENT + name.encode()
    files = [pin(name, loopback.files[f"/{name}"], size=False) for name in names]
    script = f"""{TOLD}
from cxrlib.sources import pinned
from cxrlib.sources.pinned import Pinned
files = {files!r}
told(lambda: pinned.fetch(files, disk, 4, False), str(disk), "full", "CXR_CACHE")
assert set(pinned.states(disk, files)) == {{"present", "missing"}}  # none is damaged
before = pinned.states(disk, files).count("present")
(disk / "filler").unlink()
assert pinned.fetch(files, disk, 4, False) == ["present"] * 12
print(before, "were kept", "right")
"""
    script = script.replace("files = [", "fill(2_600_000)\nfiles = [", 1)
    right(disk.run(script, size="10m"))


def test_full_disk_while_decoding(disk, films):
    """The disk fills up while images are decoded; it is freed, and decoded again"""
    script = f"""{TOLD}
from cxrlib import images
from cxrlib.images import read_grey
films = sorted(Path({str(films)!r}).glob("*.png"))
keys = [film.name for film in films]
nowhere = [disk / film.name for film in films]
images.decode(nowhere, disk, side=300, progress=False, keys=keys)  # makes room, decodes none
fill(100_000)
told(lambda: images.decode(films, disk, 300, 2, False, keys), str(disk), "CXR_CACHE", "MB")
(disk / "filler").unlink()
found = images.decode(films, disk, 300, 2, False, keys)
for film, image in zip(films, found.images):
    assert (image == images.resize(read_grey(film), 300)).all()
assert not found.failures
print("right")
"""
    right(disk.run(script))


def test_full_disk_while_recording(disk, films):
    """The disk is full when results and predictions are written; the old ones stay"""
    script = f"""{TOLD}
import os
os.environ["CXR_RUN"] = str(disk)
sys.path.insert(0, {str(Path(__file__).parents[1] / "support")!r})
from helpers import tiny_cohort
from cxrlib import results
cohort = tiny_cohort(40, 5)
def record(seed):
    found = results.predictions(cohort, [0.5] * 200, ["healthy", "covid"], "clean")
    results.record("01_x", profile="quick", parameters={{"seed": seed}}, cohort=cohort,
                   predictions=found)
record(1)
fill(0)
told(lambda: record(2), "predictions/01_x.csv", "full", "--out")
kept = results.load(disk, "01_x")
assert kept.seed == 1 and len(kept.predictions) == 200
assert not list(disk.rglob("*.part*"))
(disk / "filler").unlink()
record(2)
assert results.load(disk, "01_x").seed == 2
print("right")
"""
    right(disk.run(script))


RUN = """
import subprocess
def run(*words):
    command = [sys.executable, "-m", "cxrlib.cli", "run", "--notebooks", NOTEBOOKS, "--only", "03"]
    ended = subprocess.run([*command, *words], capture_output=True, text=True)
    assert "Traceback" not in ended.stdout + ended.stderr, ended.stderr
    return ended.returncode, ended.stdout + ended.stderr
"""


def test_full_disk_during_a_run(disk):
    """The disk is full during `cxr run`; it is freed, and run again"""
    script = f"""{TOLD}{RUN.replace("NOTEBOOKS", repr(str(NOTEBOOKS)))}
from cxrlib import course, results
fill(5_000)
code, text = run("--out", str(disk / "run"))
assert code == 1 and "disk is full" in text or "No space left" in text, text
assert not list((disk / "run" / "results").glob("[!.]*"))
(disk / "filler").unlink()
code, text = run("--out", str(disk / "run"))
assert code == 0 and "1 done" in text, text
assert results.load(disk / "run", "03_model").predictions is not None
print("right")
"""
    right(disk.run(script))


def test_read_only_run_folder(disk, tmp_path):
    """The folder of `cxr run` is read-only"""
    script = f"""{RUN.replace("NOTEBOOKS", repr(str(NOTEBOOKS)))}
code, text = run("--out", str(disk / "run"))
assert code == 1 and "cannot be written" in text and "--out" in text, text
print("right")
"""
    right(disk.run(script, read_only=True))


FETCH = """
from cxrlib.sources import pinned
from cxrlib.sources.pinned import Pinned
files = FILES
"""


def test_read_only_cache_that_holds_all_serves(disk, loopback, films, tmp_path):
    """A read-only cache that holds all files and decoded images: they are used"""
    loopback.files["/a.png"] = (films / "0.png").read_bytes()
    pinned = [pin("a.png", loopback.files["/a.png"])]
    common = FETCH.replace("FILES", repr(pinned)) + (
        "from cxrlib import images\n"
        "def use():\n"
        "    assert pinned.fetch(files, disk / 'files', progress=False) == ['present']\n"
        "    paths = [disk / 'files' / 'a.png']\n"
        "    return images.decode(paths, disk / 'decoded', progress=False, keys=['a'])\n"
        "found = use()\n"
        "assert found.images.shape == (1, 300, 300) and found.images[0].std() > 10\n"
        "print('right')\n"
    )
    right(disk.run(common, read_only=True, before=common))
    assert len(loopback.asked) == 1


def test_read_only_cache_that_lacks_files_says_so(disk, loopback, films):
    """A read-only cache that lacks files, decoded images or results: one clear message each"""
    loopback.files["/a.png"] = (films / "0.png").read_bytes()
    pinned = [pin("a.png", loopback.files["/a.png"])]
    script = (
        TOLD
        + FETCH.replace("FILES", repr(pinned))
        + f"""
from cxrlib import files as places, images
told(lambda: pinned.fetch(files, disk / "files", progress=False), "cannot be", "CXR_CACHE")
told(lambda: places.write_json(disk / "a.json", 1), "a.json", "cannot be written", "CXR_CACHE")
told(lambda: places.cache_folder("new"), "cannot be made", "CXR_CACHE")
paths = [{str(films / "0.png")!r}]
told(lambda: images.decode(paths, disk / "decoded", progress=False), "CXR_CACHE")
print("right")
"""
    )
    right(disk.run(script, read_only=True, CXR_CACHE=disk.place))
    assert not loopback.asked


def test_two_runs_in_one_folder(tmp_path):
    """Two `cxr run` on one folder at once: the second is refused and says why"""
    words = ["run", "--notebooks", str(NOTEBOOKS), "--only", "05", "--out", str(tmp_path / "run")]
    cache = {"CXR_CACHE": str(tmp_path / "cache")}
    first = start_cxr([*words, "--set", "pause=3"], tmp_path / "1.txt", cache)
    wait_for(lambda: "started" in text(tmp_path / "1.txt"))
    second = start_cxr(words, tmp_path / "2.txt", cache)
    second.join()
    first.join()
    assert (first.exitcode, second.exitcode) == (0, 2), text(tmp_path / "2.txt")
    said = text(tmp_path / "2.txt")
    assert f"process {first.pid}" in said and "--out" in said and "Traceback" not in said


def text(path: Path) -> str:
    """Content of a log that may not be there yet."""
    return path.read_text() if path.exists() else ""


def test_two_runs_on_one_cache(tmp_path):
    """Two `cxr run` on one cache at once, in folders of their own: both are right"""
    words = ["run", "--notebooks", str(NOTEBOOKS), "--only", "03", "--out"]
    cache = {"CXR_CACHE": str(tmp_path / "cache")}
    outs = [tmp_path / name for name in ("a", "b")]
    both = [start_cxr([*words, str(out)], tmp_path / f"{out.name}.txt", cache) for out in outs]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    found = [results.load(out, "03_model") for out in outs]
    assert found[0].predictions.equals(found[1].predictions)
    assert found[0].data == found[1].data


def test_many_threads_write_the_same_file(tmp_path):
    """Eight threads write the same file at once, again and again: it is always a whole one"""
    path, texts = tmp_path / "a.json", [str(number) * 200_000 for number in range(8)]

    def work(text):
        for _ in range(10):
            files.write_json(path, text)
            assert json.loads(path.read_text()) in texts

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, texts))
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_process_left_is_removed_a_day_later(tmp_path):
    old, young = tmp_path / ".a.1234.part.json", tmp_path / ".a.5678.part.json"
    other = tmp_path / ".b.1234.part.json"
    for path in (old, young, other):
        path.write_text("hal")
    yesterday = time.time() - files.ABANDONED - 1
    for path in (old, other):
        os.utime(path, (yesterday, yesterday))
    files.write_json(tmp_path / "a.json", 1)
    assert not old.exists() and young.exists() and other.exists()


def test_an_error_about_another_file_is_not_blamed_on_this_one(tmp_path):
    with pytest.raises(PermissionError, match=r"secret\.txt"), files.whole_file(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "secret.txt"))


def test_two_decodes_of_the_same_imagesat_once(tmp_path, films):
    """Two processes decode the same images into one cache at once: both are right"""
    assert at_once(*[(decode_films, films, tmp_path / "decoded")] * 3) == [0, 0, 0]
    paths = sorted(films.glob("*.png"))
    found = images.decode(paths, tmp_path / "decoded", 300, 2, False)
    for path, image in zip(paths, found.images, strict=True):
        assert (image == images.resize(read_grey(path), 300)).all()
    assert len(list((tmp_path / "decoded").iterdir())) == 1  # no draft is left


@pytest.mark.slow
def test_two_extractions_of_the_sameextract_featuresat_once(tmp_path):
    """Two processes extract the same features into one cache at once: both are right"""
    cache, into = tmp_path / "cache", [tmp_path / "a.npy", tmp_path / "b.npy"]
    assert at_once(*[(extract_features, cache, name) for name in into]) == [0, 0]
    extract_features(cache, tmp_path / "c.npy")  # from what both have left in the cache
    first, second, third = (np.load(name) for name in [*into, tmp_path / "c.npy"])
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first, third, rtol=1e-5, atol=1e-6)
    assert not list(cache.rglob("*.part*"))

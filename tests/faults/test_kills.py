"""SIGKILL, then the same command again: nothing is lost, nothing is wrong."""

import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import cv2
import nbformat
import numpy as np
import pandas as pd
import pytest

from cxrlib import sources
from cxrlib.files import cache_folder, sha256
from cxrlib.images import resize
from faults import fault, kill, start_cxr, wait_for  # noqa: F401, a fixture of all tests

KILLS = 50
IN_A_ROW = 3  # kills before a run may go to its end; else most would hit its last moments
SEED = 20
# What differs from run to run
PASSING = {"created", "ended", "Date", "seconds", "command", "fingerprint"}

FILMS = """
from cxrlib import results, sources
cohort = sources.load("folder", folder=folder, progress=False)
"""
RECORD = """
import os
import numpy as np
from cxrlib.files import whole_file
covid = cohort.images[:].mean(axis=(1, 2)) / 255
found = results.predictions(cohort, covid, ["healthy", "covid"], "clean")
with whole_file(os.environ["CXR_RUN"] + "/models/01_films/weights.bin") as partial:
    partial.write_bytes(np.random.default_rng(seed).bytes(3_000_000))
recorded = results.record("01_films", profile="quick", parameters={"seed": seed}, cohort=cohort,
                          predictions=found, tables={"brightness": found[["image", "p_covid"]]})
"""
READS = """
import json, os
from pathlib import Path
from cxrlib.files import write_json
run = Path(os.environ["CXR_RUN"])
films = json.loads((run / "results" / "01_films.json").read_text())
written = write_json(run / "results" / "02_reads.json", films | {"notebook": "02_reads"})
"""


def write_notebooks(folder, profile, **cells):
    """Write one notebook for each name: a parameters cell, then the code given."""
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles" / "quick.yaml").write_text(json.dumps(profile))
    given = "\n".join(f"{name} = {value!r}" for name, value in profile.items())
    for name, codes in cells.items():
        first = nbformat.v4.new_code_cell(given, id="p", metadata={"tags": ["parameters"]})
        more = [nbformat.v4.new_code_cell(code, id=f"c{n}") for n, code in enumerate(codes)]
        needs = {"needs": sorted(cells)[:1] if name != min(cells) else []}
        notebook = nbformat.v4.new_notebook(cells=[first, *more], metadata={"cxr": needs})
        nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder


@pytest.fixture
def films(tmp_path):
    """Write two folders of small films, one a label; a page of noise each."""
    rng = np.random.default_rng(SEED)
    for label in ("covid", "healthy"):
        (tmp_path / "films" / label).mkdir(parents=True)
        for number in range(20):
            film = rng.integers(0, 256, (200, 180), np.uint8)
            cv2.imwrite(str(tmp_path / "films" / label / f"{number}.png"), film)
    return tmp_path / "films"


class Lane:
    """A run folder and a cache, in which a run is killed, resumed, killed..."""

    def __init__(self, folder: Path, notebooks: Path):
        self.out, self.cache, self.log = folder / "run", folder / "cache", folder / "log.txt"
        self.words = ["run", "--notebooks", str(notebooks), "--out", str(self.out)]
        folder.mkdir()

    def start(self, *more):
        return start_cxr([*self.words, *more], self.log, {"CXR_CACHE": str(self.cache)})

    def finish(self):
        """Run to the end; seconds that it took."""
        start = time.monotonic()
        process = self.start()
        process.join()
        assert process.exitcode == 0, self.log.read_text()[-3000:]
        return time.monotonic() - start

    def restart(self):
        shutil.rmtree(self.out)
        shutil.rmtree(self.cache, ignore_errors=True)


def plain(content):
    """Leave out of JSON what differs from run to run, at any depth."""
    if isinstance(content, dict):
        return {name: plain(value) for name, value in content.items() if name not in PASSING}
    return [plain(value) for value in content] if isinstance(content, list) else content


def read(path: Path):
    """Content of a whole file, made comparable; a half-written one raises an error."""
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        return [(cell.source, cell.get("outputs")) for cell in notebook.cells]
    if path.suffix == ".html":
        text = path.read_text()
        assert text.rstrip().endswith("</html>")
        return "a whole page"
    if path.suffix != ".json":
        return sha256(path)
    content = plain(json.loads(path.read_text()))
    if path.parent.name == "state":
        for name, digest in content.get("files", {}).items():
            assert sha256(path.parents[1] / name) == digest  # it vouches for what is there
        content["files"] = sorted(content.get("files", {}))
    return content


def contents(out: Path) -> dict:
    """All files of a run folder by name; hidden ones, which nobody reads, left out."""
    paths = [path for path in out.rglob("*") if path.is_file() and path.name[0] != "."]
    return {str(path.relative_to(out)): read(path) for path in paths}


def decoded(cache: Path) -> list:
    """Decoded arrays in a cache: rows that are marked as done, and their images."""
    found = []
    for state in sorted((cache / "decoded").glob("*[!.]/state.npy")):
        done = np.load(state)
        if "." not in state.parent.name:  # a draft that was never moved to its place
            found.append((done, np.load(state.parent / "images.npy", mmap_mode="r")))
    return found


def check_halves(lane):
    """Hold what a killed run left against the uninterrupted one: less is there, none wrong."""
    # A state is removed before the files that it vouches for, so read it with care: only the
    # kernel may still be at work, and it writes no states.
    for name, content in contents(lane.out).items():
        assert content == lane.whole[name], name
    there = zip(decoded(lane.cache), lane.arrays, strict=False)
    for (done, images), (all_done, all_images) in there:
        rows = np.flatnonzero(done[:, 0])
        assert (done[rows] == all_done[rows]).all()
        assert (images[rows] == all_images[rows]).all()


def check_whole(lane):
    """Hold a resumed run against the uninterrupted one: they are equal."""
    assert contents(lane.out) == lane.whole
    left = [path.name for path in lane.out.rglob(".*") if path.name != ".lock"]
    assert not left
    there = zip(decoded(lane.cache), lane.arrays, strict=True)
    for (done, images), (all_done, all_images) in there:
        assert (done == all_done).all() and (images == all_images).all()


@pytest.fixture
def lane(tmp_path, films):
    """A lane whose run takes a second or two, and what a run that nobody disturbs leaves."""
    profile = {"profile": "quick", "seed": 3, "folder": str(films)}
    cells = {"01_films": [FILMS, RECORD], "02_reads": [READS]}
    notebooks = write_notebooks(tmp_path / "notebooks", profile, **cells)
    usual, lane = Lane(tmp_path / "usual", notebooks), Lane(tmp_path / "lane", notebooks)
    usual.finish()
    lane.whole, lane.arrays = contents(usual.out), decoded(usual.cache)
    assert len(lane.whole) == 10 and len(lane.arrays) == 1
    return lane


MOMENTS = {  # what is there when it is killed, and whether the kernel is killed too
    "notebooks/.01_films.part.ipynb": False,
    "results/01_films.json": True,
    "state/01_films.json": False,
    "results/02_reads.json": True,
}


def test_runs_killed_at_chosen_moments(lane, record_property):
    """`cxr run` killed while a notebook runs, writes or is done, and run again"""
    record_property("tried", len(MOMENTS))
    for place, family in MOMENTS.items():
        process = lane.start()
        wait_for((lane.out / place).exists)
        assert process.is_alive()
        kill(process, family=family)
        check_halves(lane)
    lane.finish()
    check_whole(lane)


@pytest.mark.sweep
def test_runs_killed_at_random_moments(lane, record_property):
    """`cxr run` killed at a random moment, alone or with its kernel, and run again"""
    lasts, rng, killed, pending = lane.finish(), np.random.default_rng(SEED), 0, 0
    record_property("tried", KILLS)
    lane.restart()
    while killed < KILLS or pending:
        process = lane.start()
        process.join(rng.uniform(0, lasts) if killed < KILLS and pending < IN_A_ROW else None)
        if process.is_alive():
            kill(process, family=rng.random() < 0.5)
            check_halves(lane)
            killed, pending = killed + 1, pending + 1
            continue
        assert process.exitcode == 0, lane.log.read_text()[-3000:]
        check_whole(lane)
        pending = 0
        lane.restart()


ENDLESS = """
import os, time
if slow:
    os.getppid = lambda parent=os.getppid(): parent  # so that ipykernel does not see it die
    (run / "started").write_text(str(os.getpid()))
    while not (run / "state" / "01_late.json").exists():  # until the next run is done
        time.sleep(0.01)
"""
WRITE = """
from cxrlib.files import write_json
written = write_json(run / "results" / "01_late.json", {"slow": slow})
"""


def test_a_kernel_that_outlives_its_run_does_not_write_over_the_next(tmp_path):
    """A kernel that goes on after its run was killed, while the next run begins"""
    import psutil

    place = "import os; from pathlib import Path; run = Path(os.environ['CXR_RUN'])\n"
    cells = {"01_late": [place + ENDLESS + WRITE]}
    profile = {"profile": "quick", "slow": False}
    lane = Lane(tmp_path / "lane", write_notebooks(tmp_path / "notebooks", profile, **cells))
    process = lane.start("--set", "slow=true")
    wait_for(lambda: (lane.out / "started").exists() and (lane.out / "started").read_text())
    kernel = psutil.Process(int((lane.out / "started").read_text()))
    kill(process)
    assert kernel.is_running()
    lane.finish()
    assert "ending a kernel that it left" in lane.log.read_text()
    psutil.wait_procs([kernel], timeout=120)
    assert not kernel.is_running()
    assert json.loads((lane.out / "results" / "01_late.json").read_text()) == {"slow": False}
    assert not (lane.out / ".running.json").exists()


@pytest.fixture
def collection(tmp_path, loopback):
    """Serve a collection of 24 films slowly: bytes by path, and the folder of its manifest."""
    rng = np.random.default_rng(SEED)
    commit, rows, films = "0" * 40, [], {}

    def slowly(handler, content):
        begins = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        handler.send_response(206 if begins else 200)
        handler.send_header("Content-Length", str(len(content) - begins))
        handler.end_headers()
        with suppress(OSError):  # the client is killed
            for start in range(begins, len(content), 9000):
                handler.wfile.write(content[start : start + 9000])
                time.sleep(0.01)

    for number in range(24):
        film = rng.integers(0, 256, (200, 180), np.uint8)
        content = cv2.imencode(".png", film)[1].tobytes()
        path = f"films/{number}.png"
        films[f"who/what/{commit}/{path}"] = content
        address = f"/who/what/{commit}/{quote(path)}"
        loopback.files[address], loopback.behaviour[address] = content, Always(slowly)
        rows.append(
            {
                "image": f"x/{number}",
                "label": ["covid", "healthy"][number % 2],
                "patient": f"p{number}",
                "source": "test",
                "view": "PA",
                "licence": "",
                "cohort": "x",
                "repo": "who/what",
                "commit": commit,
                "path": path,
                "bytes": len(content),
                "git_sha1": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
                "sha256": hashlib.sha256(content).hexdigest() if number % 3 else "",
            }
        )
    (tmp_path / "data").mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "data" / "open.csv", index=False)
    return films, tmp_path / "data"


class Always:
    """A list of behaviours that never ends."""

    def __init__(self, behaviour):
        self.behaviour = behaviour

    def pop(self, _):
        return self.behaviour


def check_fetched(folder, films) -> int:
    """Hold what lies in the cache under its name against the films; how many are there."""
    there = list(folder.rglob("[!.]*.png"))
    assert all(path.read_bytes() == films[path.relative_to(folder).as_posix()] for path in there)
    return len(there)


@pytest.fixture
def fetching(tmp_path, collection, monkeypatch):
    """A function that starts ``cxr data fetch`` of the collection; the cache is the test's own."""
    _, data = collection
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cxrlib.sources.catalogue.shipped", lambda _: data)
    words = ["data", "fetch", "open", "--workers", "4"]
    return lambda: start_cxr(words, tmp_path / "log.txt", dict(os.environ), data)


def check_all_fetched(process, films, tmp_path):
    process.join()
    assert process.exitcode == 0, (tmp_path / "log.txt").read_text()[-2000:]
    assert check_fetched(cache_folder("files"), films) == len(films)
    for image, content in zip(
        sources.load("open", progress=False).images[:], films.values(), strict=True
    ):
        film = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert (image == resize(film, image.shape[0])).all()


def test_a_download_killed_half_way(tmp_path, collection, fetching):
    """`cxr data fetch` killed when some files are there, and run again"""
    films, folder = collection[0], cache_folder("files")
    process = fetching()
    wait_for(lambda: list(folder.rglob("[!.]*.png")) or not process.is_alive())
    kill(process)
    assert 0 < check_fetched(folder, films) < len(films)
    check_all_fetched(fetching(), films, tmp_path)


@pytest.mark.sweep
def test_downloads_killed_at_random_moments(tmp_path, collection, fetching, record_property):
    """`cxr data fetch` killed at a random moment, and run again"""
    films, rng, cache = collection[0], np.random.default_rng(SEED), tmp_path / "cache"
    record_property("tried", KILLS)
    check_all_fetched(fetching(), films, tmp_path)  # which also starts the server of processes
    shutil.rmtree(cache)
    begun = time.monotonic()
    check_all_fetched(fetching(), films, tmp_path)
    lasts = time.monotonic() - begun
    shutil.rmtree(cache)
    for _ in range(KILLS):
        process = fetching()
        process.join(rng.uniform(0, lasts))
        if process.is_alive():
            kill(process)
            check_fetched(cache_folder("files"), films)
            continue
        check_all_fetched(process, films, tmp_path)
        shutil.rmtree(cache)
    check_all_fetched(fetching(), films, tmp_path)


FEATURES = """
import os
import numpy as np
from cxrlib import backbone
from cxrlib.files import whole_file
backbone.start_keras()
images = np.random.default_rng(seed).integers(0, 256, (800, 40, 40), np.uint8)
run = os.environ["CXR_RUN"]
open(run + "/begun", "w").close()
found = backbone.features(images, "MobileNet", 32, "random", progress=False)
with whole_file(run + "/models/01_features/features.npy") as partial:
    np.save(partial, found)
"""


@pytest.mark.sweep
@pytest.mark.slow
def test_features_killed_at_random_moments(tmp_path, record_property):
    """A notebook killed while it computes features with Keras, and run again"""
    tries, rng = 3, np.random.default_rng(SEED)
    profile, cells = {"profile": "quick", "seed": 3}, {"01_features": [FEATURES]}
    lane = Lane(tmp_path / "lane", write_notebooks(tmp_path / "notebooks", profile, **cells))
    features = lane.out / "models" / "01_features" / "features.npy"
    record_property("tried", tries)
    lasts = lane.finish()
    usual = np.load(features)
    lane.restart()
    for _ in range(tries):
        process = lane.start()
        wait_for((lane.out / "begun").exists)
        process.join(rng.uniform(0, lasts / 2))
        if not process.is_alive():  # it had gone on where the others were killed, and was done
            lane.restart()
            continue
        kill(process)
        (lane.out / "begun").unlink()
    lane.finish()
    np.testing.assert_allclose(np.load(features), usual, rtol=1e-5, atol=1e-6)

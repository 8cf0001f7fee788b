"""The course on a GPU: each lesson's seconds, images/s, share of the peak, and what waited.

python benchmarks/gpu.py [--write]       on a machine with a GPU: at most 8 minutes
python benchmarks/gpu.py --full          with the lessons at the paper's sizes: hours
python benchmarks/gpu.py --tiny          anywhere in 3 minutes: tries all of it, measures nothing

First the work is taken apart (features from files, the custom CNN, lesson 5's search of heads),
then `cxr run --profile paper` runs lesson by lesson on phantoms. The table in OUT/gpu.md grows with
each: what a cut leaves can be read, and the same command goes on with the lessons. KERAS_BACKEND
decides on the backend; without it, the first that is installed and sees a GPU. Runs from a checkout
with PYTHONPATH alone; without papermill and ipykernel the lessons are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from parts import PARTS
from rounds import PAGE, ROOT, machine, table, versions, write

BACKENDS = ("tensorflow", "jax", "torch")
PACKAGES = ("tensorflow", "tensorflow-cpu", "jax", "torch", "numpy", "opencv-python-headless")
RUNNERS = ("papermill", "ipykernel", "filelock")  # what `cxr run` takes
MINUTES = 8
ALONE = "08_paper_audit"  # in a try, the lesson that runs as all do otherwise; the shortest
# At the paper's sizes: films of two labels and three copies of each, 33,750 images; and as many
# for stage 1. Without --full, a twentieth of both, and one seed at two settings of lesson 9's knob.
PATIENTS = {True: (6330, 33750), False: (316, 1688)}
TWO_LABELS = {"images_per_patient": [1, 1], "confounding": 0.0}
CURVES = TWO_LABELS | {"patients": 540, "labels": ["healthy", "covid"], "size": 96, "seed": 3000}
HOSPITAL = {"labels": ["healthy", "covid"]}
INSIDE, OUTSIDE = ["digital", "computed", "film"], ["portable", "enhanced"]
KNOB = {"levels": [0.0, 1.0], "seeds": [0], "epochs": 12}
KNOB |= {"patients": 150, "test_patients": 150, "size": 96}
CXR = [sys.executable, "-m", "cxrlib.cli"]
CODE = "from cxrlib import machine; machine.start_keras(); print(machine.accelerator())"


def choose_backend() -> str:
    """Find a backend that sees an accelerator, and set it; gives the kind of accelerator."""
    asked = os.environ.get("KERAS_BACKEND")
    for name in (asked,) if asked else filter(find_spec, BACKENDS):
        surroundings = os.environ | {"KERAS_BACKEND": name, "PYTHONPATH": str(ROOT)}
        told = subprocess.run(
            [sys.executable, "-c", CODE], env=surroundings, capture_output=True, text=True
        )
        if kind := told.stdout.strip():
            os.environ["KERAS_BACKEND"] = name
            return kind
    return ""


def settings(full: bool) -> dict:
    """Parameters beside those of the profile paper: phantoms, as many or a twentieth."""
    films, stage1 = PATIENTS[full]
    labels = {"labels": ["healthy", "pneumonia"], "seed": 1000}
    given = {
        "weights": "auto",
        "source_options": {"patients": films, "confounding": 0.0},
        "stage1_options": TWO_LABELS | labels | {"patients": stage1},
        "inside_options": HOSPITAL | {"patients": 80, "confounding": 0.8, "scanners": INSIDE},
        "outside_options": HOSPITAL | {"patients": 60, "seed": 50, "scanners": OUTSIDE},
        "curve_options": CURVES,
        "curve_sizes": [10, 25, 50, 100, 200, 400],
    }
    for name in ("source", "stage1_source", "inside_source", "outside_source"):
        given[name] = "phantom"
    return given if full else given | {"knob_options": KNOB}


def words(lesson, given: dict, profile: str = "paper") -> list[str]:
    """Options of `cxr run` for a lesson: of the parameters those that it takes."""
    taken = {name: value for name, value in given.items() if name in lesson.defaults}
    pairs = [("--set", f"{name}={json.dumps(value)}") for name, value in taken.items()]
    return ["--profile", profile, "--only", lesson.name, *(word for pair in pairs for word in pair)]


def try_lessons(lessons, out: Path) -> list[list]:
    """Run one lesson as all run that are measured, then the others two at a time; their rows."""
    one = next(lesson for lesson in lessons if lesson.name == ALONE)
    rows = {ALONE: run_lesson(ALONE, words(one, {}, "smoke"), out, 600)}
    code = cxr("run", "--no-report", "--profile", "smoke", "--jobs", "2", "--out", str(out))
    states = {one.name: read_state(one.name, out) for one in lessons if one.name != ALONE}
    # A run that failed though all are done was refused: what is done is an earlier run's
    refused = code and all(told.get("status") == "done" for told in states.values())
    for name, told in states.items():
        done = told.get("status") == "done" and not refused
        seen = f"{told['seconds']:.0f}" if done else f"failed: {told.get('why') or 'see above'}"
        rows[name] = [name, seen, "", "", ""]
    return [rows[lesson.name] for lesson in lessons]


def read_state(name: str, out: Path) -> dict:
    """Read what `cxr run` noted of a lesson; empty where it noted nothing."""
    state = out / "state" / f"{name}.json"
    return json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}


def run_lesson(name: str, options: list[str], out: Path, seconds: float) -> list:
    """Run one lesson; a row: seconds, the shares of time at work, and what was waited for."""
    command = [*CXR, "run", "--no-report", "--out", str(out), *options]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with device_busy() as seen:
        run = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
        try:
            run.wait(seconds)
        except subprocess.TimeoutExpired:
            run.terminate()  # as Ctrl-C: `cxr run` ends its kernel
            run.wait()
            return [name, f"not done in {seconds:.0f} s", "", "", ""]
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    told = read_state(name, out)
    if run.returncode:
        return [name, f"failed: {(told.get('why') or 'see above').splitlines()[0]}", "", "", ""]
    if told["seconds"] > wall:  # an earlier run did it
        return [name, f"{told['seconds']:.0f}", "", "", ""]
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    busy = {"the device": statistics.mean(seen or [0]) / 100}
    busy["the cores"] = worked / wall / os.cpu_count()
    most = max(busy, key=busy.get)
    waited = most if busy[most] > 0.5 else "single threads"
    return [name, f"{told['seconds']:.0f}", *(f"{share:.0%}" for share in busy.values()), waited]


def cxr(*words: str) -> int:
    """Run a command of this checkout; its exit code."""
    return subprocess.call([*CXR, *words], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


@contextmanager
def device_busy():
    """Give a list that holds, after the ``with`` block, what `nvidia-smi` saw: % of the time."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    seen = []
    if not shutil.which(query[0]):
        yield seen
        return
    with tempfile.TemporaryFile("w+") as file:
        process = subprocess.Popen([*query, "-lms", "500"], stdout=file)
        try:
            yield seen
        finally:
            process.terminate()
            process.wait()
            file.seek(0)
            seen += [int(line) for line in file if line.strip().isdigit()]


def measured(given, seconds: float):
    """Yield the rows of parts.py, while there is time."""
    script = str(ROOT / "benchmarks" / "parts.py")
    command = [sys.executable, script, "--rounds", str(given.rounds)]
    command += ["--tiny"] * given.tiny
    surroundings = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings) as child:
        timer = threading.Timer(seconds, child.kill)
        timer.start()
        yield from (json.loads(line) for line in child.stdout if line.startswith('{"work"'))
        timer.cancel()


def cells(row: dict) -> list[str]:
    """Word a part as a row of the table."""
    if "problem" in row:
        return [row["work"], row["problem"].splitlines()[0][:150], *[""] * 8]
    parts = {name: row[name] for name in PARTS if name in row}
    rates = [f"{parts[name]:,.0f}" if parts else "" for name in PARTS]
    slowest = min(parts, key=parts.get, default="")
    kept = f"{row['images/s'] / parts[slowest]:.0%}" if parts else ""
    share = f"{row['images/s'] * row['flop'] / row['peak']:.2%}"
    known = [f"{row['flop'] / 1e9:.3f}", share]
    return [row["work"], row["precision"], f"{row['images/s']:,.0f}", *rates, kept, *known, slowest]


def page(given, kind: str, parts: list[dict], lessons: list[list], notes: list[str]) -> str:
    """Word what is known so far."""
    first = next(iter(parts), {"device": "?", "backend": os.environ.get("KERAS_BACKEND")})
    peaks = {row["precision"]: row["peak"] for row in parts if "peak" in row}
    told = ", ".join(f"{rate / 1e12:.2f} TFLOP/s in {name}" for name, rate in peaks.items())
    head = ["work", "precision", "images/s", *PARTS, "of the slowest", "GFLOP an image"]
    head += ["share of the peak", "waited for"]
    films, stage1 = PATIENTS[given.full]
    sizes = f"phantoms of {films:,} and, for stage 1, {stage1:,} patients, `--profile paper`"
    sizes = "profile `smoke`" if given.tiny else sizes
    columns = ["lesson", "seconds", "device at work", "cores at work", "waited for"]
    return f"""\
`python benchmarks/gpu.py`{" --full" * given.full}{" --tiny" * given.tiny}, on \
{first["device"]} ({kind or "no accelerator"}; {machine()}), {first["backend"]} backend; \
{versions("keras", *PACKAGES)}.

Synthetic films, random weights. *images/s* is the whole way: from JPEG files of 512 x 512 to \
features of 224 x 224; through `training.fit` after its first epoch. Beside it each part alone: \
reading (decoding, preparing, resizing), copying to the device, computing (256 images, or one step \
of 32 at a time, on the device). *Of the slowest* above 100 % says that steps are taken together. \
Operations are counted by the backend; the peak is that of large matrix products in the same run \
and precision: {told or "not measured"}. Heads: an image passes all of them.

{table(head, list(map(cells, parts)))}

Lessons: {sizes}, seed 0; weights ImageNet's where they could be had, else random. *Device at \
work* is what `nvidia-smi` saw (0 % without it), *cores at work* the share of all cores' time.

{table(columns, lessons)}
{"".join(f"{chr(10)}{note}{chr(10)}" for note in notes)}"""


def main() -> int:
    """Run, print, and write; returns 1 where there is no GPU to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each part (5)")
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.name}")
    parser.add_argument("--tiny", action="store_true", help="a try, without a GPU too")
    parser.add_argument("--full", action="store_true", help="lessons at the paper's sizes")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder [runs/gpu]")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    end = time.monotonic() + (1e6 if given.full or given.tiny else 60 * MINUTES)
    kind = choose_backend()
    if not kind and not given.tiny:
        print("No GPU was found, so nothing is measured. Try the command: --tiny")
        return 1
    given.out.mkdir(parents=True, exist_ok=True)
    missing = [name for name in RUNNERS if not find_spec(name)]
    parts, lessons, notes = [], [], []
    if missing:
        notes.append(f"The lessons are left out: {', '.join(missing)} is not installed.")

    def keep() -> str:
        text = page(given, kind, parts, lessons, notes)
        (given.out / "gpu.md").write_text(text, encoding="utf-8")
        return text

    from cxrlib.course import lessons as course

    found = course.find(ROOT / "notebooks") if not missing else []
    with ThreadPoolExecutor(1) as beside:
        trying = beside.submit(try_lessons, found, given.out) if given.tiny and found else None
        for row in measured(given, 0.6 * (end - time.monotonic())):  # or none is left for lessons
            parts.append(row)
            keep()
    lessons += trying.result() if trying else []
    for lesson in () if given.tiny else found:
        how, left = words(lesson, settings(given.full)), max(end - time.monotonic(), 1)
        lessons.append(run_lesson(lesson.name, how, given.out, left))
        keep()
    unwritten = bool(lessons) and cxr("report", str(given.out)) != 0
    if unwritten:
        notes.append("The report could not be written: see above.")
    text = keep()
    if given.tiny:
        seen = "" if kind else "No GPU was found. "
        print(f"{seen}A try of the command, no measurement: nothing is written.\n")
    print(text)
    if given.write and not given.tiny:
        write("gpu", text)
    wrong = [row for row in parts if "problem" in row] + [r for r in lessons if "failed" in r[1]]
    return 1 if wrong or unwritten or not parts else 0


if __name__ == "__main__":
    sys.exit(main())

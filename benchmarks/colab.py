"""Prove the course in Google Colab's versions: its set-up cell, then every notebook.

python benchmarks/colab.py [--python PYTHON3.13] [--only NN ...] [--profile smoke]
                           [--work FOLDER] [--newest [FREEZE]]

Makes an environment of the versions in colab.txt (a part of what Colab has, so that whatever
works here finds its packages there), runs the lessons' real set-up cell in a kernel of it, with
the address of this checkout's newest commit instead of GitHub's, and compares the installed
packages before and after. Then each notebook runs alone from an empty folder with an empty
cache, as in a fresh Colab; papermill drives it from outside. Last, widgets and guesses run their
unit tests there. What is not committed is not tested. Exit code 1 if anything is not as it
should be. With --newest, the same packages in the versions that Colab publishes today (or of a
file in that form).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import kernels_memory
from rounds import ROOT, Peaks

VERSIONS = Path(__file__).with_name("colab.txt")
PUBLISHED = "https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.txt"
SECONDS = 30  # that the set-up cell may take
ADDRESS = re.compile(r"git\+https://github\.com/[\w.-]+/[\w.-]+(@[\w.-]+)?")


def run(*words, **more) -> str:
    """Run a command; returns what it prints, and shows it if the command fails."""
    ended = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **more
    )
    if ended.returncode:
        sys.exit(f"{words[0]} failed:\n{ended.stdout[-3000:]}{ended.stderr[-3000:]}")
    return ended.stdout


def newest(place: str) -> str:
    """Give colab.txt with the versions of a list that Colab has published (address or file)."""
    if place.startswith("https://"):
        import requests

        answer = requests.get(place, timeout=60)
        answer.raise_for_status()
        text = answer.text
    else:
        text = Path(place).read_text(encoding="utf-8")
    there = dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
    there = {_plain(name): version for name, version in there.items()}
    there["tensorflow-cpu"] = there["tensorflow"]
    lines = []
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", VERSIONS.read_text(), re.MULTILINE):
        if _plain(name) in there:
            lines.append(f"{name}=={there[_plain(name)]}")
        elif name != "jedi":  # Colab's list never had it
            print(f"Colab has no {name} any more; the course was tested with {version}.")
    return "\n".join(lines) + "\n"


def _plain(name: str) -> str:
    """Spell a package's name as all spellings of it are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def make_environment(python: str, folder: Path, versions: str, resolve: bool) -> Path:
    """Make an environment of these versions, afresh unless it is there; returns its Python.

    `resolve` lets pip add what they need: newer versions may need packages that are not named.
    """
    made, stamp = folder / "bin" / "python", folder / "colab.txt"
    if stamp.exists() and stamp.read_text() == versions:
        run(made, "-m", "pip", "uninstall", "--yes", "-q", "cxrlib")
        return made
    told = run(python, "--version").strip()
    if "3.13" not in told:
        sys.exit(f"Colab has Python 3.13, this is {told}: name another with --python.")
    run(python, "-m", "venv", "--clear", folder)
    wanted = folder / "wanted.txt"
    wanted.write_text(versions)
    install = [made, "-m", "pip", "install", "-q"]
    run(*install, re.search(r"^pip==.*$", versions, re.MULTILINE)[0])
    run(*install, *([] if resolve else ["--no-deps"]), "-r", wanted)
    stamp.write_text(versions)
    return made


def register(python: Path, folder: Path) -> None:
    """Let the kernel "python3" mean this Python, for all that this process starts."""
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    start = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": start, "display_name": "Colab", "language": "python"}))
    os.environ["JUPYTER_PATH"] = str(folder)
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", PYDEVD_DISABLE_FILE_VALIDATION="1")
    # A kernel that could see this checkout would prove nothing
    for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "CXR_RUN", "KERAS_BACKEND"):
        os.environ.pop(name, None)
    os.environ["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"


def setup_source() -> str:
    """Source of the set-up cell that all lessons share, with the address of this checkout."""
    import nbformat

    sources = {
        cell.source
        for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")
        for cell in nbformat.read(path, as_version=4).cells
        if "setup" in cell.metadata.get("tags", [])
    }
    if len(sources) != 1:
        sys.exit(f"The lessons have {len(sources)} different set-up cells; they should share one.")
    here = run("git", "rev-parse", "HEAD", cwd=ROOT).strip()
    source, count = ADDRESS.subn(f"git+{ROOT.as_uri()}@{here}", *sources)
    if count != 1:
        sys.exit(f"The set-up cell names no address such as {ADDRESS.pattern}:\n{source}")
    return source


def run_setup(source: str, folder: Path) -> float:
    """Run the set-up cell in a fresh kernel, then import cxrlib in it; returns its seconds."""
    import nbformat
    from nbclient import NotebookClient

    cells = [source, "import cxrlib; print(cxrlib.__file__)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    with client.setup_kernel():
        start = time.monotonic()
        client.execute_cell(notebook.cells[0], 0)
        seconds = time.monotonic() - start
        client.execute_cell(notebook.cells[1], 1)
    where = notebook.cells[1].outputs[0]["text"].strip()
    if str(ROOT) == str(Path(where).parents[1]):
        sys.exit(f"The kernel sees the checkout's cxrlib ({where}), not the installed one.")
    return seconds


def packages(python: Path) -> set[str]:
    """All installed packages with their versions."""
    lines = run(python, "-m", "pip", "freeze", "--all").splitlines()
    return {re.sub(r" @ .*", " (from the address)", line) for line in lines}


def run_notebook(path: Path, profile: str) -> tuple[float, float, str]:
    """Run a notebook alone in an empty folder; seconds, greatest memory in MB, its error."""
    import papermill
    import yaml

    values = yaml.safe_load((ROOT / "notebooks" / "profiles" / f"{profile}.yaml").read_text())
    known = papermill.inspect_notebook(str(path))
    values = {name: value for name, value in values.items() if name in known}
    start, error = time.monotonic(), ""
    temporary = tempfile.TemporaryDirectory(prefix="cxr-colab-")
    with temporary as folder, Peaks(kernels_memory, 0.1) as peaks:
        os.environ.update(CXR_CACHE=f"{folder}/cache", CXR_RUN=f"{folder}/run", HOME=folder)
        try:
            papermill.execute_notebook(
                path, f"{folder}/out.ipynb", values, kernel_name="python3", cwd=folder,
                progress_bar=False, execution_timeout=900,
            )  # fmt: skip
        except Exception as failure:  # whatever it is: the other notebooks shall run too
            error = f"{type(failure).__name__}: {str(failure)[-1500:]}"
    return time.monotonic() - start, peaks.peak.get("kernels", 0.0), error


def run_widgets(python: Path, folder: Path) -> str:
    """Run the unit tests of widgets and guesses there (Colab's ipywidgets is an old one)."""
    run(python, "-m", "pip", "install", "-q", "--target", folder, "pytest", "pyyaml")
    names = ("test_widgets.py", "test_guesses.py")
    tests = [path for name in names for path in (ROOT / "tests").rglob(name)]
    beside = {**os.environ, "PYTHONPATH": str(folder)}
    return run(python, "-m", "pytest", "-p", "no:cacheprovider", *tests, cwd=ROOT, env=beside)


def main() -> int:
    """Build, install, compare, run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=shutil.which("python3.13") or sys.executable)
    parser.add_argument("--only", nargs="*", metavar="NN", help="these lessons (default: all)")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--work", type=Path, help="keep the environment here for the next time")
    parser.add_argument("--newest", nargs="?", const=PUBLISHED, metavar="FREEZE")
    options = parser.parse_args()
    versions = newest(options.newest) if options.newest else VERSIONS.read_text()
    with tempfile.TemporaryDirectory(prefix="cxr-colab-") as scratch:
        work = (options.work or Path(scratch)).resolve()
        python = make_environment(
            options.python, work / "environment", versions, bool(options.newest)
        )
        register(python, Path(scratch) / "jupyter")
        return prove(python, Path(scratch), options.profile, options.only)


def prove(python: Path, folder: Path, profile: str, only: list[str] | None) -> int:
    """Run the set-up cell and the notebooks, print what came out; returns the exit code."""
    before = packages(python)
    seconds = run_setup(setup_source(), folder)
    after = packages(python)
    added, lost = sorted(after - before), sorted(before - after)
    alone = not lost and [line.split()[0].split("==")[0] for line in added] == ["cxrlib"]
    print(f"Set-up cell: {seconds:.1f} s (at most {SECONDS}); added {added}; changed {lost}")
    good = alone and seconds <= SECONDS
    print(f"\n{'notebook':30} {'seconds':>8} {'peak, MB':>9}  ok")
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        if only and path.stem.split("_")[0] not in only:
            continue
        seconds, peak, error = run_notebook(path, profile)
        fine = "no" if error else "yes"
        print(f"{path.stem:30} {seconds:8.0f} {peak:9.0f}  {fine}", flush=True)
        if error:
            print(error, file=sys.stderr)
        good = good and not error
    told = run_widgets(python, folder / "pytest")
    print(f"Widgets and guesses, tested there: {told.strip().splitlines()[-1]}")
    print("\nAll is well." if good else "\nNot as it should be: see above.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

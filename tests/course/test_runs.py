"""Runs of tiny notebooks with papermill: finished, broken, killed, resumed."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from cxrlib import results
from cxrlib.course import execute
from cxrlib.course import folder as runfolder
from cxrlib.course import runs as course
from cxrlib.course.lessons import CourseError
from cxrlib.course.progress import Progress, clock
from faults import ROOT, wait_for

NOTEBOOKS = Path(__file__).parent / "notebooks"
NAMES = ["01_first", "03_model", "05_slow", "07_reads"]


@pytest.fixture(scope="module", autouse=True)
def no_outside_kernels(tmp_path_factory):
    """Register a kernel called python3 that is not ours, as a user may have one."""
    folder = tmp_path_factory.mktemp("jupyter") / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["/nonexistent/python", "{connection_file}"], "display_name": "x"}
    (folder / "kernel.json").write_text(json.dumps(spec | {"language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder.parents[1]))
        patch.setenv("PYTHONPATH", str(ROOT))  # kernels run this package, whichever is installed
        yield


def run(out, *settings, **options):
    """Run the tiny notebooks; statuses by name."""
    summary = course.run(settings=settings, out=out, notebooks=NOTEBOOKS, **options)
    return {outcome.name: outcome.status for outcome in summary.outcomes}, summary


def test_a_run_is_finished_once_and_redone_only_where_something_changed(tmp_path, capsys):
    out = tmp_path / "run"
    assert run(out)[0] == dict.fromkeys(NAMES, "done")
    assert (out / "python.txt").read_text() == sys.executable  # not the user's python3 kernel
    assert (out / "read.txt").read_text() == "0"
    assert all((out / "notebooks" / f"{name}.ipynb").stat().st_size for name in NAMES)
    assert "[2/4] 03_model  done in" in capsys.readouterr().out

    assert run(out)[0] == dict.fromkeys(NAMES, "already done")
    again = run(out, "seed=5")[0]
    assert again == dict.fromkeys(NAMES, "done") | {"05_slow": "already done"}
    assert (out / "read.txt").read_text() == "5"  # 07 has no seed, but reads what 03 found

    with (out / "results" / "03_model.json").open("a") as file:
        file.write(" ")
    assert run(out, "seed=5", only=["3"])[0] == {"03_model": "done"}
    assert run(out, "seed=5", only=["1"], force=True)[0] == {"01_first": "done"}


def test_a_failure_is_named_and_does_not_stop_the_others(tmp_path):
    out = tmp_path / "run"
    run(out, only=["03", "07"])
    status, summary = run(out, "broken=true")
    assert status == {
        "01_first": "done",
        "03_model": "failed",
        "05_slow": "done",
        "07_reads": "not run",
    }
    why = summary.failed[0].why
    assert "In [4]" in why and '"A cohort"' in why and "starting: if broken:" in why
    assert "ValueError: the films are lost" in why
    assert summary.failed[1].why == "needs 03_model"
    assert "the films are lost" in (out / "failed" / "03_model.ipynb").read_text()
    # Nothing older may pass for a result of this run.
    assert not list((out / "results").glob("*.json"))
    assert not (out / "notebooks" / "07_reads.ipynb").exists()
    assert runfolder.read_states(out)["03_model"]["failure"]["heading"] == "A cohort"

    mended = run(out)[0]
    assert mended["01_first"] == mended["05_slow"] == "already done"
    assert mended["03_model"] == mended["07_reads"] == "done"
    assert not (out / "failed" / "03_model.ipynb").exists()


def test_a_kernel_that_dies_and_a_cell_that_takes_too_long(tmp_path):
    out = tmp_path / "run"
    assert "The kernel died" in run(out, "crash=true", only=["05"])[1].failed[0].why
    why = run(out, "pause=600", only=["05"], cell_timeout=1)[1].failed[0].why
    assert "longer than 1 s" in why and '"The long part"' in why and "import os" in why
    held = json.loads((out / "failed" / "05_slow.ipynb").read_text("utf-8"))["cells"]
    ran = [cell["metadata"]["papermill"]["status"] for cell in held]
    assert ran.count("completed") >= 2, "what was done before it is kept"


@pytest.mark.parametrize(("pause", "most"), [(60, 3), (0, 99)])
def test_a_notebook_is_not_saved_after_every_cell(tmp_path, monkeypatch, pause, most):
    from papermill import engines

    saved, write = [], engines.write_ipynb
    monkeypatch.setattr(engines, "write_ipynb", lambda *given: saved.append(1) or write(*given))
    monkeypatch.setattr(execute, "SAVED", pause)
    run(tmp_path / "run", only=["01"])
    cells = json.loads((NOTEBOOKS / "01_first.ipynb").read_text("utf-8"))["cells"]
    assert 1 <= len(saved) <= most and (len(saved) > len(cells)) == (pause == 0)


def write_book(folder, name, source, needs=()):
    """Write a notebook of one cell, and an empty profile beside it."""
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "source": source}
    book = {"cells": [cell | {"execution_count": None}], "metadata": {"cxr": {"needs": needs}}}
    (folder / "profiles").mkdir(parents=True, exist_ok=True)
    (folder / "profiles" / "quick.yaml").write_text("{}")
    (folder / f"{name}.ipynb").write_text(json.dumps(book | {"nbformat": 4, "nbformat_minor": 5}))


MEETS = """
import os, time
from pathlib import Path
from types import SimpleNamespace
run = Path(os.environ["CXR_RUN"])
(run / "mine").touch()
while not (run / "other").exists():
    time.sleep(0.1)
"""


def test_several_notebooks_run_at_once_and_those_that_read_others_last(tmp_path, capsys):
    place = tmp_path / "notebooks"
    write_book(place, "01_reads", "", needs=["02_a", "03_b"])
    for name, mine, other in (("02_a", "a", "b"), ("03_b", "b", "a")):  # each waits for the other
        write_book(place, name, MEETS.replace("mine", mine).replace("other", other))
    summary = course.run(out=tmp_path / "run", notebooks=place, jobs=2, cell_timeout=300)
    found = [(outcome.name, outcome.status) for outcome in summary.outcomes]
    assert found == [("01_reads", "done"), ("02_a", "done"), ("03_b", "done")]
    lines = capsys.readouterr().out.splitlines()
    assert lines.index("[1/3] 01_reads  started") > 3 and "[1/3] 01_reads  done" in lines[-1]
    assert runfolder.read_states(tmp_path / "run")["02_a"]["jobs"] == 2


def test_what_others_need_begins_first_and_what_is_short_last():
    def lesson(name, *needs):
        return SimpleNamespace(name=name, needs=needs)

    chosen = [lesson("00"), lesson("01", "03"), lesson("03", "04"), lesson("04"), lesson("09")]
    assert [each.name for each in course._in_turn(chosen)] == ["04", "03", "09", "01", "00"]


def test_an_error_of_the_machine_ends_what_runs_beside_it(tmp_path, monkeypatch):
    """A disk that is full when one of two notebooks is put in its place"""
    write_book(tmp_path, "01_long", "import time; time.sleep(600)")
    write_book(tmp_path, "02_short", "")
    kernels = []

    def full(out, name):
        kernels.extend(json.loads((out / ".running.json").read_text())["kernels"])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runfolder, "outputs", full)
    with pytest.raises(OSError, match="No space"):
        course.run(out=tmp_path / "run", notebooks=tmp_path, jobs=2)
    import psutil

    assert len(kernels) == 2 and not any(psutil.pid_exists(number) for number, _ in kernels)
    assert not runfolder.read_states(tmp_path / "run")  # the long one did not fail
    assert not list((tmp_path / "run").rglob("*01_long*"))


SEES = """
import json, os
from pathlib import Path
from types import SimpleNamespace
seen = {"asserts": __debug__, "plots": os.environ.get("MPLBACKEND"), "told": "greeting" in dir()}
Path(os.environ["CXR_RUN"], "seen.json").write_text(json.dumps(seen))
"""


def test_odd_surroundings_neither_stop_a_kernel_nor_reach_it(tmp_path, monkeypatch):
    """Braces in names, a full home, a long TMPDIR, a shell's settings for Python"""
    place, long = tmp_path / "a {x} {} b", tmp_path / ("long" * 30)
    long.mkdir()
    write_book(place, "01_a", SEES)
    (tmp_path / "greet.py").write_text("greeting = 'from a start-up file'")
    (tmp_path / "home").write_text("no folder, so nothing can be written below it")
    odd = {"HOME": "home", "TMPDIR": long.name, "PYTHONSTARTUP": "greet.py", "IPYTHONDIR": "home"}
    for name, at in odd.items():
        monkeypatch.setenv(name, str(tmp_path / at))
    monkeypatch.setattr("tempfile.tempdir", str(long))
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("MPLBACKEND", "none")
    summary = course.run(out=place / "run{}", notebooks=place)
    assert [(one.status, one.why) for one in summary.outcomes] == [("done", "")]
    seen = json.loads((place / "run{}" / "seen.json").read_text())
    assert seen.pop("plots") != "none" and seen == {"asserts": True, "told": False}
    assert (place / "run{}" / "notebooks" / "01_a.ipynb").exists()


def test_kernels_that_run_at_once_share_the_cores(tmp_path, monkeypatch):
    write_book(
        tmp_path,
        "01_a",
        "import json, os\nfrom pathlib import Path\n"
        "Path(os.environ['CXR_RUN'], 'seen.json').write_text(json.dumps(dict(os.environ)))",
    )
    seen = []
    monkeypatch.setattr("cxrlib.course.runs.cores", lambda: 8)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    for jobs in (1, 3, 20):
        course.run(out=tmp_path / "run", notebooks=tmp_path, jobs=jobs, force=True)
        seen.append(json.loads((tmp_path / "run" / "seen.json").read_text()))
    assert [one.get("OPENBLAS_NUM_THREADS") for one in seen] == [None, "2", "1"]
    assert [one["OMP_NUM_THREADS"] for one in seen] == ["5"] * 3


def test_a_kernel_that_never_starts_says_why_and_ends_the_run(tmp_path, monkeypatch):
    """A package that is broken, so that no kernel starts"""
    (tmp_path / "ipykernel_launcher.py").write_text("raise ImportError('a broken pyzmq')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    with pytest.raises(execute.NoKernelError, match=r"(?s)a broken pyzmq.*pip install") as found:
        run(tmp_path / "run")
    assert len(str(found.value).splitlines()) <= 7
    assert not runfolder.read_states(tmp_path / "run")  # 01 is not called failed, none follows
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert run(tmp_path / "run", only=["01"])[0] == {"01_first": "done"}


def test_a_kernel_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    """A kernel that is never heard of, as where messages within a machine are blocked"""
    (tmp_path / "ipykernel_launcher.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setattr(execute, "LONGEST_START", 1)
    with pytest.raises(execute.NoKernelError, match=r"(?s)in 1 seconds.*gave no answer.*TMPDIR"):
        run(tmp_path / "run")


def start(out, *settings):
    """Start ``cxr run`` in a process group of its own, like a terminal does."""
    command = [sys.executable, "-m", "cxrlib.cli", "run", "--notebooks", str(NOTEBOOKS)]
    command += ["--out", str(out), "--only", "01", "--only", "05", "--set", "pause=600"]
    command += ["--jobs", "2"]
    # Whoever runs the tests in the background ignores Ctrl-C, and would hand that on.
    place = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipe, **place)


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, kind):
    import psutil

    out = tmp_path / "run"
    process = start(out)
    # Papermill writes the slow notebook before it runs the first cell.
    wait_for((out / "notebooks" / ".05_slow.part.ipynb").exists)
    wait_for(
        lambda: "01_first" in runfolder.read_states(out) and psutil.Process(process.pid).children()
    )
    kernels = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, getattr(signal, kind))
    text = process.communicate(timeout=300)[0]
    assert process.returncode == (-9 if kind == "SIGKILL" else 130)
    if kind != "SIGKILL":
        assert "Interrupted" in text and "go on with: cxr run" in text and "Traceback" not in text
    assert not psutil.wait_procs(kernels, timeout=300)[1], "a kernel outlives its run"
    assert list(runfolder.read_states(out)) == ["01_first"]
    assert not (out / "notebooks" / "05_slow.ipynb").exists()

    expected = {"01_first": "already done", "05_slow": "done"}
    assert run(out, only=["01", "05"])[0] == expected


def test_two_runs_in_one_folder_are_refused(tmp_path):
    busy = pytest.raises(CourseError, match=str(os.getpid()))
    with runfolder.locked(tmp_path), busy:
        run(tmp_path)
    with runfolder.locked(tmp_path):  # free again
        pass


def test_a_run_by_hand_finds_the_same(tmp_path, monkeypatch):
    run(tmp_path / "run", only=["03"])
    monkeypatch.setenv("CXR_RUN", str(tmp_path / "hand"))
    monkeypatch.delenv("JUPYTER_PATH")
    command = ["papermill", str(NOTEBOOKS / "03_model.ipynb"), str(tmp_path / "out.ipynb")]
    command += ["-f", str(NOTEBOOKS / "profiles" / "quick.yaml"), "-k", "python3"]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    course_found = results.load(tmp_path / "run", "03_model").predictions
    assert results.load(tmp_path / "hand", "03_model").predictions.equals(course_found)


def test_a_terminal_that_is_gone_ends_no_run():
    stream = io.StringIO()
    stream.write = mock.Mock(side_effect=OSError(errno.EIO, "Input/output error"))
    with Progress("[3/7] 03_custom_cnn", stream):
        pass
    stream.write.assert_called()


def test_progress_rewrites_a_line_on_a_terminal_only():
    shown = {}
    for live in (True, False):
        stream = io.StringIO()
        stream.isatty = lambda live=live: live
        with Progress("[3/7] 03_custom_cnn", stream) as progress:
            progress.move(12, 40, "Stage 1")
        shown[live] = stream.getvalue()
    lines = shown[True].split("\r\033[K")  # each clears the one before
    assert any(re.fullmatch(r"\[3/7\] 03_\w+  \d:\d\d  cell 12/40  Stage 1", one) for one in lines)
    assert lines[-1] == ""
    assert shown[False] == "[3/7] 03_custom_cnn  started\n"
    assert [clock(seconds) for seconds in (0.2, 59.6, 3723)] == ["0:00", "1:00", "62:03"]

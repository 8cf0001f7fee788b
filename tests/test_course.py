"""Runs of tiny notebooks (tests/notebooks) with papermill: finished, broken, killed, resumed."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cxrlib import course, execute, lessons, results, runfolder
from cxrlib.progress import Progress, clock

NOTEBOOKS = Path(__file__).parent / "notebooks"
NAMES = ["01_first", "03_model", "05_slow", "07_reads"]


@pytest.fixture(scope="module", autouse=True)
def no_outside_kernels(tmp_path_factory):
    """Register a kernel called python3 that is not ours, as a user may have one."""
    folder = tmp_path_factory.mktemp("jupyter") / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["/nonexistent/python", "{connection_file}"], "display_name": "x"}
    (folder / "kernel.json").write_text(json.dumps(spec | {"language": "python"}))
    with execute.environment(JUPYTER_PATH=str(folder.parents[1])):
        yield


def run(out, *settings, **options):
    """Run the tiny notebooks; statuses by name."""
    summary = course.run(settings=settings, out=out, notebooks=NOTEBOOKS, **options)
    return {outcome.name: outcome.status for outcome in summary.outcomes}, summary


def states(out):
    return {path.stem: json.loads(path.read_text()) for path in (out / "state").glob("*.json")}


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
    assert states(out)["03_model"]["failure"]["heading"] == "A cohort"

    mended = run(out)[0]
    assert mended["01_first"] == mended["05_slow"] == "already done"
    assert mended["03_model"] == mended["07_reads"] == "done"
    assert not (out / "failed" / "03_model.ipynb").exists()


def test_what_a_caller_needs_later_is_imported_once_while_a_kernel_starts(tmp_path):
    threads = []

    def work():
        threads.append(threading.current_thread())
        raise ImportError("not here")  # whoever needs it will say so

    status = run(tmp_path / "run", only=["01", "03"], meanwhile=work)[0]
    assert status == {"01_first": "done", "03_model": "done"}
    assert len(threads) == 1 and threads[0] is not threading.main_thread()
    run(tmp_path / "run", only=["01"], meanwhile=work)  # already done: there is no while
    assert len(threads) == 1


def test_an_optional_import_of_papermill_is_left_out_and_comes_back(tmp_path, monkeypatch):
    (tmp_path / "rarely_wanted.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with execute.absent("rarely_wanted"), pytest.raises(ImportError):
        importlib.import_module("rarely_wanted")
    there = importlib.import_module("rarely_wanted")
    with execute.absent("rarely_wanted"):  # whoever has it keeps it
        assert importlib.import_module("rarely_wanted") is there
    assert sys.modules.pop("rarely_wanted") is there
    # and papermill is content without the one that it is about
    code = "from cxrlib.execute import absent; import sys\n"
    code += "with absent('rfc3987_syntax'): import papermill\n"
    code += "assert 'jsonschema' in sys.modules and 'rfc3987_syntax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_kernel_that_dies_and_a_cell_that_takes_too_long(tmp_path):
    out = tmp_path / "run"
    assert "The kernel died" in run(out, "crash=true", only=["05"])[1].failed[0].why
    why = run(out, "pause=60", only=["05"], cell_timeout=1)[1].failed[0].why
    assert "longer than 1 s" in why and '"The long part"' in why and "import os" in why


def start(out, *settings):
    """Start ``cxr run`` in a process group of its own, like a terminal does."""
    command = [sys.executable, "-m", "cxrlib.cli", "run", "--notebooks", str(NOTEBOOKS)]
    command += ["--out", str(out), "--only", "01", "--only", "05"]
    for setting in settings:
        command += ["--set", setting]
    place = {"cwd": Path(course.__file__).parents[1], "start_new_session": True}
    pipe = subprocess.PIPE
    # Whoever runs the tests in the background ignores Ctrl-C, and would hand that on.
    place["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, **place)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def kernels_of(process) -> list[int]:
    """Kernels that a process has started and that still run (Linux only)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"JPY_PARENT_PID={process.pid}\0" in (folder / "environ").read_text()
            zombie = ") Z " in (folder / "stat").read_text()
        except OSError:
            continue
        found += [int(folder.name)] * (mine and not zombie)
    return found


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, kind):
    out = tmp_path / "run"
    process = start(out, "pause=60")
    wait_for(lambda: "01_first" in states(out) and kernels_started(out, process))
    os.kill(process.pid, getattr(signal, kind))
    text = process.communicate(timeout=30)[0]
    assert process.returncode == (-9 if kind == "SIGKILL" else 130)
    if kind != "SIGKILL":
        assert "Interrupted" in text and "go on with: cxr run" in text and "Traceback" not in text
    wait_for(lambda: not kernels_of(process), 15)
    assert list(states(out)) == ["01_first"]
    assert not (out / "notebooks" / "05_slow.ipynb").exists()

    expected = {"01_first": "already done", "05_slow": "done"}
    assert run(out, only=["01", "05"])[0] == expected


def kernels_started(out, process):
    """Tell whether the slow notebook is running: papermill has written it once."""
    return (out / "notebooks" / ".05_slow.part.ipynb").exists() and (
        sys.platform != "linux" or kernels_of(process)
    )


def test_two_runs_in_one_folder_are_refused(tmp_path):
    busy = pytest.raises(runfolder.RunIsBusyError, match=str(os.getpid()))
    with runfolder.locked(tmp_path), busy:
        run(tmp_path)
    with runfolder.locked(tmp_path):  # free again
        pass


def test_a_run_by_hand_finds_the_same(tmp_path, monkeypatch):
    run(tmp_path / "run", only=["03"])
    monkeypatch.setenv("CXR_RUN", str(tmp_path / "hand"))
    monkeypatch.setenv("PYTHONPATH", str(Path(course.__file__).parents[1]))
    monkeypatch.delenv("JUPYTER_PATH")
    command = ["papermill", str(NOTEBOOKS / "03_model.ipynb"), str(tmp_path / "out.ipynb")]
    command += ["-f", str(NOTEBOOKS / "profiles" / "quick.yaml"), "-k", "python3"]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    course_found = results.load(tmp_path / "run", "03_model").predictions
    assert results.load(tmp_path / "hand", "03_model").predictions.equals(course_found)


def test_changed_sources_weights_and_backend_change_the_fingerprint(tmp_path, monkeypatch):
    monkeypatch.delenv("CXR_WEIGHTS", raising=False)
    lesson = lessons.read(NOTEBOOKS / "03_model.ipynb")

    def mark(values=None):
        return lessons.fingerprint(lesson, values or {}, lessons.surroundings(), tmp_path)

    first = mark()
    assert mark() == first
    assert mark({"seed": 1}) != first
    (tmp_path / "ResNet50_notop.weights.h5").touch()
    monkeypatch.setenv("CXR_WEIGHTS", str(tmp_path))
    assert mark() != first
    monkeypatch.delenv("CXR_WEIGHTS")
    copy = shutil.copy(NOTEBOOKS / "03_model.ipynb", tmp_path / "03_model.ipynb")
    Path(copy).write_text(Path(copy).read_text().replace("seed = 0", "seed = 7"))
    lesson = lessons.read(Path(copy))
    assert mark() != first


class Terminal:
    """A stream that notes what is written, and says whether it is a terminal."""

    def __init__(self, live):
        self.live, self.text = live, ""

    def isatty(self):
        return self.live

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_rewrites_a_line_on_a_terminal_only():
    shown = {}
    for live in (True, False):
        stream = Terminal(live)
        with Progress("[3/7] 03_custom_cnn", stream) as progress:
            progress.move(12, 40, "Stage 1")
        shown[live] = stream.text
    assert "\r\033[K[3/7] 03_custom_cnn  0:00  cell 12/40  Stage 1" in shown[True]
    assert shown[False] == "[3/7] 03_custom_cnn  started\n"
    assert [clock(seconds) for seconds in (0.2, 59.6, 3723)] == ["0:00", "1:00", "62:03"]

"""Execute one notebook with papermill, showing where it is."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cxrlib.lessons import CourseError, Lesson
from cxrlib.progress import Progress

QUIET_KERNEL = {
    "TF_CPP_MIN_LOG_LEVEL": "3",  # TensorFlow's notes on CPU features
    "TQDM_DISABLE": "1",  # progress bars make a mess of saved outputs
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger's note on frozen modules
}
QUIET_ARGUMENTS = ["--log-level=40"]  # errors, not notes on encryption of local traffic


@dataclass
class Failure:
    """Where a notebook stopped, and why."""

    cell: str  # "In [5]", as Jupyter numbers it
    heading: str
    line: str  # the cell's first line of code
    error: str

    def __str__(self) -> str:
        under = f', section "{self.heading}"' if self.heading else ""
        return f"cell {self.cell}{under}, starting: {self.line}\n{self.error}"

    def as_dict(self) -> dict:
        """Fields by name, for a JSON file."""
        return asdict(self)


class NotebookFailed(Exception):  # noqa: N818 - it is an outcome, told as such
    """A notebook ended with an error; ``failure`` says where and why."""

    def __init__(self, failure: Failure):
        super().__init__(str(failure))
        self.failure = failure


class Tracker:
    """Follows papermill from cell to cell, and remembers the place for an error message."""

    def __init__(self, cells, progress: Progress):
        self.progress = progress
        self.total = sum(_runs(cell) for cell in cells)
        self.number = 0
        self.heading = ""
        self.source = ""

    def start(self, cell) -> None:
        """Take note of the cell that comes next."""
        if cell.cell_type == "markdown":
            titles = [line for line in cell.source.splitlines() if line.startswith("#")]
            self.heading = titles[-1].lstrip("# ").strip() if titles else self.heading
        if _runs(cell):
            self.number += 1
            self.source = cell.source
            self.progress.move(self.number, self.total, self.heading)

    def failure(self, error: str) -> Failure:
        """Name the present place as that of an error."""
        lines = [line for line in self.source.splitlines() if line.strip()]
        code = [line for line in lines if not line.lstrip().startswith("#")]
        first = next(iter(code or lines), "")
        return Failure(f"In [{self.number}]", self.heading, first.strip()[:100], error.strip())


def _runs(cell) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def execute(
    lesson: Lesson,
    output: Path,
    values: dict,
    progress: Progress,
    timeout: int,
    lock: int,
    meanwhile: Callable | None = None,
) -> None:
    """Run a notebook in a fresh kernel of this Python, in the notebook's own folder.

    Parameters
    ----------
    lesson : Lesson
    output : Path
        The executed notebook; with the error in it, if the notebook fails.
    values : dict
        Its parameters.
    progress : Progress
    timeout : int
        Seconds that a single cell may take.
    lock : int
        Number of an open file that the kernel holds open too, for as long as it lives.
    meanwhile : function, optional
        Called without arguments, in a thread, while the kernel starts.

    Raises
    ------
    NotebookFailed
        If a cell raises an error or takes too long, or the kernel dies.
    """
    trackers = []
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as noise:
        try:
            with started_kernel(lesson.path.parent, noise, lock) as kernel:
                if meanwhile:
                    threading.Thread(target=meanwhile).start()
                papermill = _papermill(kernel, timeout, progress, trackers)
                papermill.execute_notebook(
                    lesson.path,
                    output,
                    values,
                    engine_name="cxr",
                    kernel_name="python3",
                    language="python",
                    progress_bar=False,
                    cwd=lesson.path.parent,
                )
        except CourseError:
            raise
        except Exception as error:
            tracker = trackers[0] if trackers else Tracker([], progress)
            told = _explain(error, timeout, noise)
            raise NotebookFailed(tracker.failure(told)) from error


@contextmanager
def started_kernel(folder: Path, noise, lock: int):
    """Start a kernel in a folder; give its manager while it boots, and end it afterwards.

    Papermill would start it too, but only once it has itself been imported, which takes as long.
    """
    try:
        from jupyter_client import AsyncKernelManager
        from jupyter_core.utils import run_sync
    except ImportError as error:
        raise _lacks(error) from error
    with kernel_of_this_python():
        manager = AsyncKernelManager(kernel_name="python3")
        # Below Python, libraries write to the terminal itself; it would tear our line.
        inherited = {} if sys.platform == "win32" else {"pass_fds": (lock,)}
        run_sync(manager.start_kernel)(
            cwd=str(folder),
            stdout=noise,
            stderr=noise,
            extra_arguments=["--HistoryManager.hist_file=:memory:"],
            **inherited,
        )
        try:
            yield manager
        finally:
            if manager.has_kernel:
                run_sync(manager.shutdown_kernel)(now=True)


def _papermill(kernel, timeout: int, progress: Progress, trackers: list):
    """Import papermill, with an engine that runs notebooks in this kernel and tells where it is."""
    try:
        with absent("rfc3987_syntax"):
            import papermill
        from papermill.clientwrap import PapermillNotebookClient
        from papermill.engines import Engine, papermill_engines
    except ImportError as error:
        raise _lacks(error) from error
    logger = logging.getLogger("papermill")
    logger.setLevel(logging.CRITICAL)

    class TrackedEngine(Engine):
        @classmethod
        def execute_managed_notebook(cls, manager, kernel_name, log_output=False, **_):
            tracker = Tracker(manager.nb.cells, progress)
            trackers.append(tracker)
            usual = manager.cell_start

            def start(cell, *args, **more):
                tracker.start(cell)
                return usual(cell, *args, **more)

            manager.cell_start = start
            # It would write the whole notebook twice a cell; papermill writes it at the end.
            manager.save = lambda **_: None
            client = PapermillNotebookClient(
                manager, km=kernel, timeout=timeout, startup_timeout=300, log=logger
            )
            client.execute(cleanup_kc=True)

    papermill_engines.register("cxr", TrackedEngine)
    return papermill


def _lacks(error: ImportError) -> CourseError:
    return CourseError(f"Running notebooks takes {error.name}: pip install 'cxrlib[run]'.")


@contextmanager
def absent(module: str):
    """Let imports within the block go without an optional module of theirs.

    Papermill checks notebooks with jsonschema. Where ``rfc3987_syntax`` is installed, jsonschema
    builds grammars for international web addresses from it when it is imported. That takes 1 to
    2 s, longer than all the rest, and notebooks hold no such addresses.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # as Python says that there is no such module
    try:
        yield
    finally:
        sys.modules.pop(module, None)


def _explain(error: Exception, timeout: int, noise) -> str:
    if hasattr(error, "ename"):
        return f"{error.ename}: {error.evalue}"
    kind = type(error).__name__
    if kind == "DeadKernelError":
        noise.seek(0)
        last = noise.read().decode(errors="replace").strip().splitlines()[-5:]
        advice = "most often memory ran out. Close other programs, or lower sizes."
        return "\n".join([f"The kernel died; {advice}", *last])
    if kind == "CellTimeoutError":
        return f"The cell ran longer than {timeout} s. Allow more with --cell-timeout."
    return f"{kind}: {error}"


@contextmanager
def kernel_of_this_python():
    """Let "python3" mean this Python, whatever kernels the user has registered."""
    from ipykernel.kernelspec import get_kernel_dict

    with tempfile.TemporaryDirectory(prefix="cxr-kernel-") as folder:
        spec = get_kernel_dict(QUIET_ARGUMENTS)
        ours = ["cxrlib.kernel" if word == "ipykernel_launcher" else word for word in spec["argv"]]
        file = Path(folder) / "kernels" / "python3" / "kernel.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(spec | {"argv": ours}), encoding="utf-8")
        paths = [folder, os.environ.get("JUPYTER_PATH")]
        with environment(JUPYTER_PATH=os.pathsep.join(filter(None, paths))):
            yield


@contextmanager
def environment(**values: str):
    """Set environment variables (kernels inherit them), and put the old ones back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

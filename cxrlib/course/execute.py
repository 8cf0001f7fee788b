"""Execute one notebook with papermill, showing where it is."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cxrlib.course.lessons import Lesson
from cxrlib.course.progress import Progress

QUIET_KERNEL = {
    "TF_CPP_MIN_LOG_LEVEL": "3",  # TensorFlow's notes on CPU features
    "TQDM_DISABLE": "1",  # progress bars make a mess of saved outputs
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger's note on frozen modules
}
# What a shell sets for other programs: it takes away asserts, makes warnings errors, runs code
NOT_FOR_KERNELS = ("PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONSTARTUP", "MPLBACKEND")
LONGEST_START = 120  # seconds until a kernel answers
SAVED = 60  # seconds from one saving of a notebook that runs to the next
# Errors, not notes on encryption of local traffic; and no history
QUIET_ARGUMENTS = ["--log-level=40", "--HistoryManager.hist_file=:memory:"]


@dataclass(eq=False)
class NotebookFailed(Exception):  # noqa: N818 - it is an outcome, told as such
    """A notebook ended with an error: where it stopped, and why."""

    cell: str  # "In [5]", as Jupyter numbers it
    heading: str
    line: str  # the cell's first line of code
    error: str

    def __str__(self) -> str:
        under = f', section "{self.heading}"' if self.heading else ""
        return f"cell {self.cell}{under}, starting: {self.line}\n{self.error}"


class NoKernelError(OSError):
    """No kernel starts: a fault of the machine, which the next notebook would meet as well."""


class Tracker:
    """Follows a notebook from cell to cell; an error message says where it was."""

    def __init__(self, lesson: Lesson, given: bool, progress: Progress):
        self.progress = progress
        self.total = sum(kind == "code" and bool(text.strip()) for kind, text in lesson.cells)
        self.total += given  # papermill puts a cell with the parameters after their defaults
        self.number, self.heading, self.source = 0, "", ""
        self.started = False

    def start(self, cell, cell_index: int) -> None:
        """Take note of the cell that comes next; nbclient calls this."""
        self.started = True
        if cell.cell_type == "markdown":
            titles = [line for line in cell.source.splitlines() if line.startswith("#")]
            self.heading = titles[-1].lstrip("# ").strip() if titles else self.heading
        if cell.cell_type == "code" and cell.source.strip():
            self.number += 1
            self.source = cell.source
            self.progress.move(self.number, self.total, self.heading)

    def failure(self, error: str) -> NotebookFailed:
        """Name the present place as that of an error."""
        lines = [line.strip() for line in self.source.splitlines() if line.strip()]
        code = [line for line in lines if not line.startswith("#")]
        first = next(iter(code or lines), "")
        return NotebookFailed(f"In [{self.number}]", self.heading, first[:100], error.strip())


def execute(
    lesson: Lesson,
    output: Path,
    values: dict,
    progress: Progress,
    timeout: int,
    environment: dict[str, str],
    begun: Callable[[int], None],
) -> None:
    """Run a notebook in a fresh kernel of this Python, in the notebook's own folder.

    The executed notebook goes to `output`, with the error in it if it fails: NotebookFailed, if
    a cell raises an error or takes more than `timeout` seconds, or the kernel dies; NoKernelError,
    if none starts. `values` are its parameters, `environment` the kernel's variables beside those
    of this process; `begun` is called with the number of the kernel's process before that is
    given anything to do.
    """
    import psutil
    import zmq

    tracker = Tracker(lesson, bool(values), progress)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as noise:
        try:
            with (
                tempfile.TemporaryDirectory(prefix="cxr-", ignore_cleanup_errors=True) as sockets,
                started_kernel(lesson.path.parent, environment, noise, sockets) as kernel,
            ):
                begun(kernel.provisioner.pid)
                import papermill  # which takes as long as the kernel takes to boot

                logging.getLogger("papermill").setLevel(logging.CRITICAL)
                # Papermill fills in what stands in single braces
                paths = [str(path).replace("{", "{{") for path in (lesson.path, output)]
                papermill.execute_notebook(
                    *(path.replace("}", "}}") for path in paths),
                    values,
                    engine_name=_sparing_engine(),
                    kernel_name="python3",
                    language="python",
                    progress_bar=False,
                    start_timeout=LONGEST_START,
                    execution_timeout=timeout,
                    km=kernel,
                    on_cell_start=tracker.start,
                )
        except Exception as error:
            of_machine = isinstance(error, (RuntimeError, OSError, zmq.ZMQError, psutil.Error))
            if of_machine and not tracker.started:
                raise NoKernelError(_worded(error, noise)) from error
            raise tracker.failure(_explain(error, timeout, noise)) from error


@cache
def _sparing_engine() -> str:
    """Give papermill an engine that saves a notebook once in SAVED seconds and at its end; a name.

    Papermill's own saves it twice a cell, with all outputs so far, which takes time.
    """
    from papermill.engines import NBClientEngine, papermill_engines

    class Sparing(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, *given, **settings):
            save, last = nb_man.save, time.monotonic()

            def save_now_and_then(**_):
                nonlocal last
                if time.monotonic() > last + SAVED:
                    save()
                    last = time.monotonic()

            nb_man.save = save_now_and_then
            try:
                super().execute_managed_notebook(nb_man, *given, **settings)
            finally:
                nb_man.save = save  # for the end, whichever it is

    papermill_engines.register("sparing", Sparing)
    return "sparing"


@contextmanager
def started_kernel(folder: Path, environment: dict[str, str], noise, sockets: str):
    """Start a kernel of this Python in a folder; give its manager, and end it afterwards.

    Below Python, libraries write to the terminal itself, where they would tear our line; the
    file `noise` takes that. They talk over files in the folder `sockets`, where there are such:
    two kernels that start at once could get the same port, and one of them would wait for ever.
    So lies what else they read and write: not at home, with start-up files, or a full disk.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_core.utils import run_sync

    # Without folders to look into, "python3" is this Python, whatever the user has registered.
    specs = KernelSpecManager(kernel_dirs=[])
    short = os.name == "posix" and len(os.fsencode(sockets)) < 90  # a socket's path ends at 104
    how = {"transport": "ipc", "ip": f"{sockets}/kernel"} if short else {}
    how |= {"kernel_spec_manager": specs, "connection_file": f"{sockets}/kernel.json"}
    manager = AsyncKernelManager(kernel_name="python3", **how)
    inherited = {name: text for name, text in os.environ.items() if name not in NOT_FOR_KERNELS}
    run_sync(manager.start_kernel)(
        cwd=str(folder),
        env=inherited | environment | {"IPYTHONDIR": sockets},
        stdout=noise,
        stderr=noise,
        extra_arguments=QUIET_ARGUMENTS,
    )
    try:
        yield manager
    finally:
        if manager.has_kernel:
            run_sync(manager.shutdown_kernel)(now=True)


def _explain(error: Exception, timeout: int, noise) -> str:
    if hasattr(error, "ename"):
        return f"{error.ename}: {error.evalue}"
    kind = type(error).__name__
    if kind == "DeadKernelError":
        advice = "most often memory ran out. Close other programs, or lower sizes."
        return "\n".join([f"The kernel died; {advice}", *_last_lines(noise)])
    if kind == "CellTimeoutError":
        return f"The cell ran longer than {timeout} s. Allow more with --cell-timeout."
    return f"{kind}: {error}"


def _worded(error: Exception, noise) -> str:
    """Say why no kernel starts, in its own last words, and what to do."""
    told = [f"No kernel starts, the process that runs a notebook ({error}).", *_last_lines(noise)]
    if len(told) == 1 or "respond" in str(error):
        told.append(
            "It gave no answer: the machine is very busy, or something keeps its processes from "
            f"talking to each other over sockets in {tempfile.gettempdir()} (TMPDIR)."
        )
    told.append(
        "If a disk is full, free some space, or set TMPDIR to a folder on another. If a module "
        "fails, install it again (pip install --force-reinstall ipykernel), or take away what "
        "stands in its place (PYTHONPATH)."
    )
    return "\n".join(told)


def _last_lines(noise) -> list[str]:
    noise.seek(0)
    return noise.read().decode(errors="replace").strip().splitlines()[-5:]

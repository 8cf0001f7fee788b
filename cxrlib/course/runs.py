"""Run the course: its notebooks one after the other, each only if it has to.

What lies in a run folder, and who may write to it: :mod:`cxrlib.course.folder`.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import click

from cxrlib.course import execute, lessons
from cxrlib.course.folder import (
    DONE,
    forget,
    is_finished,
    locked,
    note_running,
    outputs,
    state_file,
)
from cxrlib.course.progress import Progress, clock
from cxrlib.files import sha256, shipped, whole_file, write_json

SKIPPED, FAILED, NOT_RUN = "already done", "failed", "not run"
CELL_TIMEOUT = {"smoke": 900, "quick": 3600, "paper": 86400}


@dataclass
class Outcome:
    """What became of one notebook."""

    name: str
    status: str
    seconds: float = 0.0
    why: str = ""


@dataclass
class Summary:
    """What became of a run."""

    out: Path
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        """The notebooks without a result: failed or not run."""
        return [outcome for outcome in self.outcomes if outcome.status in (FAILED, NOT_RUN)]


def run(
    profile: str = "quick",
    only=(),
    settings=(),
    out: Path | str | None = None,
    force: bool = False,
    notebooks: Path | str | None = None,
    cell_timeout: int | None = None,
    command: str | None = None,
) -> Summary:
    """Run notebooks, skipping those that an earlier run finished with the same inputs.

    Parameters
    ----------
    profile : str
        Name of a file in ``profiles/`` beside the notebooks.
    only : sequence of str
        Numbers or names of notebooks; all by default.
    settings : sequence of str
        ``name=value``, over the profile's values; the value is YAML.
    out : path, optional
        The run folder; ``runs/<profile>`` by default.
    force : bool
        Run them even if they are finished.
    notebooks : path, optional
        Folder of the notebooks; the course's own by default.
    cell_timeout : int, optional
        Seconds that a single cell may take; by profile 15 minutes, 1 hour or 1 day.
    command : str, optional
        What to note as the command that made the results.

    Returns
    -------
    Summary

    Raises
    ------
    CourseError
        If a notebook, profile, parameter or backend is unknown, or the folder is in use.
    KeyboardInterrupt
        On Ctrl-C, after the kernel is stopped.
    """
    folder = Path(notebooks) if notebooks else shipped("notebooks")
    values = lessons.read_profile(folder, profile)
    everything = lessons.find(folder)
    lessons.check_profile(everything, profile, values)
    chosen = lessons.choose(everything, only)
    given = lessons.parse_settings(settings)
    lessons.check_settings(chosen, values, given)
    around = lessons.surroundings()
    _check_installed()
    out = Path(out or Path("runs") / profile).resolve()
    note = {"profile": profile, "command": command}
    timeout = cell_timeout or CELL_TIMEOUT.get(profile, 3600)
    environment = _environment(out, command)
    summary = Summary(out)
    with locked(out):
        for number, lesson in enumerate(chosen, start=1):
            title = f"[{number}/{len(chosen)}] {lesson.name}"
            turn = Turn(lesson, lessons.parameters(lesson, values, given), out, note)
            missing = [one.name for one in summary.failed if one.name in lesson.needs]
            mark = lessons.fingerprint(lesson, turn.values, around, out)
            if missing:
                outcome = turn.leave_out(missing)
            elif not force and is_finished(out, lesson.name, mark):
                outcome = Outcome(lesson.name, SKIPPED)
            else:
                outcome = turn.take(mark, title, timeout, environment)
            summary.outcomes.append(outcome)
            click.echo(f"{title}  {_tell(outcome)}")
    return summary


def _check_installed() -> None:
    """Complain about what running notebooks takes, beside the package's own needs."""
    for name in ("papermill", "ipykernel", "filelock"):
        if not find_spec(name):
            raise lessons.CourseError(f"Running notebooks takes {name}: pip install 'cxrlib[run]'.")


def _environment(out: Path, command: str | None) -> dict[str, str]:
    """Environment of the kernels; of the quieting values the user's own come first."""
    quiet = {name: os.environ.get(name, text) for name, text in execute.QUIET_KERNEL.items()}
    # Kernels run in the notebooks' folder, where a relative path would mean another place.
    places = {name: os.environ.get(name) for name in ("CXR_CACHE", "CXR_WEIGHTS", "KERAS_HOME")}
    whole = {name: str(Path(p).expanduser().absolute()) for name, p in places.items() if p}
    return quiet | whole | {"CXR_RUN": str(out), "CXR_COMMAND": command or ""}


@dataclass
class Turn:
    """One notebook's turn in a run."""

    lesson: lessons.Lesson
    values: dict
    out: Path
    note: dict  # kept with the notebook's state

    def leave_out(self, missing: list[str]) -> Outcome:
        """Run nothing, and keep nothing older that could pass for a result of this run."""
        forget(self.out, self.lesson.name)
        why = "needs " + ", ".join(missing)
        self._note(status=NOT_RUN, why=why)
        return Outcome(self.lesson.name, NOT_RUN, why=why)

    def take(self, mark: str, title: str, timeout: int, environment: dict) -> Outcome:
        """Run the notebook, and note what became of it."""
        name, note_kernel = self.lesson.name, partial(note_running, self.out)
        forget(self.out, name)
        whole = self.out / "notebooks" / f"{name}.ipynb"
        unfinished = whole.with_name(f".{name}.part.ipynb")
        with Progress(title) as progress:
            there = (timeout, environment, note_kernel)
            try:
                execute.execute(self.lesson, unfinished, self.values, progress, *there)
            except execute.NotebookFailed as failure:
                return self._failed(failure, unfinished, progress.seconds)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
        unfinished.replace(whole)
        files = {path: sha256(self.out / path) for path in outputs(self.out, name)}
        seconds = round(progress.seconds, 1)
        self._note(status=DONE, fingerprint=mark, seconds=seconds, files=files)
        return Outcome(name, DONE, seconds)

    def _failed(self, failure, unfinished: Path, seconds: float) -> Outcome:
        name = self.lesson.name
        as_it_stopped = unfinished.read_bytes() if unfinished.exists() else b""
        forget(self.out, name)  # the unfinished notebook too
        if as_it_stopped:
            with whole_file(self.out / "failed" / f"{name}.ipynb") as kept:
                kept.write_bytes(as_it_stopped)
        self._note(status=FAILED, failure=asdict(failure), seconds=round(seconds, 1))
        return Outcome(name, FAILED, seconds, str(failure))

    def _note(self, **content) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content |= self.note | {"parameters": self.values, "ended": now}
        write_json(state_file(self.out, self.lesson.name), {"notebook": self.lesson.name} | content)


def _tell(outcome: Outcome) -> str:
    if outcome.status == DONE:
        return f"{click.style('done', fg='green')} in {clock(outcome.seconds)}"
    if outcome.status == SKIPPED:
        return "already done, skipped"
    if outcome.status == NOT_RUN:
        return click.style(f"not run, {outcome.why}", fg="yellow")
    return f"{click.style('failed', fg='red')} after {clock(outcome.seconds)}"

"""Run the course: its notebooks one after the other, each only if it has to."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import click

from cxrlib.course import execute, folder, lessons
from cxrlib.course.folder import DONE, forget
from cxrlib.course.progress import Progress, clock
from cxrlib.files import shipped, whole_file, write_json

SKIPPED, FAILED, NOT_RUN = "already done", "failed", "not run"
CELL_TIMEOUT = {"smoke": 900, "quick": 3600, "paper": 86400}  # seconds


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

    Raises
    ------
    CourseError
        If a notebook, profile, parameter or backend is unknown, or the folder is in use.
    OSError
        If no kernel starts, or the disk is full.
    KeyboardInterrupt
        On Ctrl-C, after the kernel is stopped.
    """
    place = Path(notebooks or shipped("notebooks"))
    values = lessons.read_profile(place, profile)
    everything = lessons.find(place)
    lessons.check_profile(everything, profile, values)
    chosen = lessons.choose(everything, only)
    given = lessons.parse_settings(settings)
    lessons.check_settings(chosen, values, given)
    around = lessons.surroundings()
    for name in ("papermill", "ipykernel", "filelock"):
        if not find_spec(name):
            raise lessons.CourseError(f"Running notebooks takes {name}: pip install 'cxrlib[run]'.")
    out = Path(out or Path("runs") / profile).resolve()
    timeout = cell_timeout or CELL_TIMEOUT.get(profile, 3600)
    there = (timeout, _environment(out, command), partial(folder.note_running, out))
    summary = Summary(out)
    with folder.locked(out):
        for number, lesson in enumerate(chosen, start=1):
            title = f"[{number}/{len(chosen)}] {lesson.name}"
            mine = lessons.parameters(lesson, values, given)
            note = {"profile": profile, "command": command, "parameters": mine}
            missing = [one.name for one in summary.failed if one.name in lesson.needs]
            mark = lessons.fingerprint(lesson, mine, around, out)
            if missing:
                outcome = _leave_out(lesson.name, out, note, missing)
            elif not force and folder.is_finished(out, lesson.name, mark):
                outcome = Outcome(lesson.name, SKIPPED)
            else:
                with Progress(title) as progress:
                    outcome = _take(lesson, out, note | {"fingerprint": mark}, progress, there)
            summary.outcomes.append(outcome)
            with suppress(OSError):  # a terminal that is closed ends no run of hours
                click.echo(f"{title}  {_tell(outcome)}")
    return summary


def _environment(out: Path, command: str | None) -> dict[str, str]:
    """Environment of the kernels; of the quieting values the user's own come first."""
    quiet = {name: os.environ.get(name, text) for name, text in execute.QUIET_KERNEL.items()}
    # Kernels run in the notebooks' folder, where a relative path would mean another place.
    places = {name: os.environ.get(name) for name in ("CXR_CACHE", "CXR_WEIGHTS", "KERAS_HOME")}
    whole = {name: str(Path(p).expanduser().absolute()) for name, p in places.items() if p}
    return quiet | whole | {"CXR_RUN": str(out), "CXR_COMMAND": command or ""}


def _leave_out(name: str, out: Path, note: dict, missing: list[str]) -> Outcome:
    """Run nothing, and keep nothing older that could pass for a result of this run."""
    forget(out, name)
    why = "needs " + ", ".join(missing)
    _write_state(out, name, note, status=NOT_RUN, why=why)
    return Outcome(name, NOT_RUN, why=why)


def _take(lesson, out: Path, note: dict, progress: Progress, there: tuple) -> Outcome:
    """Run a notebook, and note what became of it."""
    name = lesson.name
    forget(out, name)
    whole = out / "notebooks" / f"{name}.ipynb"
    unfinished = whole.with_name(f".{name}.part.ipynb")
    try:
        execute.execute(lesson, unfinished, note["parameters"], progress, *there)
    except execute.NotebookFailed as failure:
        as_it_stopped = unfinished.read_bytes() if unfinished.exists() else b""
        forget(out, name)  # the unfinished notebook too
        if as_it_stopped:
            with whole_file(out / "failed" / f"{name}.ipynb") as kept:
                kept.write_bytes(as_it_stopped)
        seconds = round(progress.seconds, 1)
        _write_state(out, name, note, status=FAILED, failure=asdict(failure), seconds=seconds)
        return Outcome(name, FAILED, seconds, str(failure))
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(whole)
    seconds = round(progress.seconds, 1)
    _write_state(out, name, note, status=DONE, seconds=seconds, files=folder.outputs(out, name))
    return Outcome(name, DONE, seconds)


def _write_state(out: Path, name: str, note: dict, **more) -> None:
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder.state_file(out, name), {"notebook": name, **more, **note, "ended": ended})


def _tell(outcome: Outcome) -> str:
    if outcome.status == DONE:
        return f"{click.style('done', fg='green')} in {clock(outcome.seconds)}"
    if outcome.status == SKIPPED:
        return "already done, skipped"
    if outcome.status == NOT_RUN:
        return click.style(f"not run, {outcome.why}", fg="yellow")
    return f"{click.style('failed', fg='red')} after {clock(outcome.seconds)}"

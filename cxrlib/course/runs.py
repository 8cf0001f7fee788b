"""Run the course: its notebooks in order, each only if it has to, several at once if told so."""

from __future__ import annotations

import os
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import click

from cxrlib.course import execute, folder, lessons
from cxrlib.course.folder import DONE, forget
from cxrlib.course.progress import Progress, clock
from cxrlib.files import shipped, whole_file, write_json
from cxrlib.parallel import cores

SKIPPED, FAILED, NOT_RUN = "already done", "failed", "not run"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
CELL_TIMEOUT = {"smoke": 900, "quick": 3600, "paper": 86400}  # seconds


@dataclass
class Outcome:
    """What became of one notebook."""

    name: str
    status: str
    seconds: float = 0.0
    why: str = ""

    @property
    def stands(self) -> bool:
        """Whether there is a result."""
        return self.status not in (FAILED, NOT_RUN)


@dataclass
class Summary:
    """What became of a run."""

    out: Path
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        """The notebooks without a result: failed or not run."""
        return [outcome for outcome in self.outcomes if not outcome.stands]


def run(
    profile: str = "quick",
    only=(),
    settings=(),
    out: Path | str | None = None,
    force: bool = False,
    notebooks: Path | str | None = None,
    cell_timeout: int | None = None,
    command: str | None = None,
    jobs: int = 1,
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
    jobs : int
        How many notebooks may run at once. One that reads others' results comes after them.

    Raises
    ------
    CourseError
        If a notebook, profile, parameter or backend is unknown, or the folder is in use.
    OSError
        If no kernel starts, or the disk is full.
    KeyboardInterrupt
        On Ctrl-C, after the kernels are stopped.
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
    note = {"profile": profile, "command": command, "jobs": jobs}
    outcomes = {}

    def take(lesson, kernels) -> None:
        title = f"[{chosen.index(lesson) + 1}/{len(chosen)}] {lesson.name}"
        mine = lessons.parameters(lesson, values, given)
        missing = [name for name in lesson.needs if name in outcomes and not outcomes[name].stands]
        noted = note | {"parameters": mine}
        mark = lessons.fingerprint(lesson, mine, around, out)
        if missing:
            outcome = _leave_out(lesson.name, out, noted, missing)
        elif not force and folder.is_finished(out, lesson.name, mark):
            outcome = Outcome(lesson.name, SKIPPED)
        else:
            how = (timeout, _environment(out, command, jobs), kernels)
            with Progress(title) as progress:
                outcome = _take(lesson, out, noted | {"fingerprint": mark}, progress, how)
        outcomes[lesson.name] = outcome
        with suppress(OSError):  # a terminal that is closed ends no run of hours
            click.echo(f"{title}  {_tell(outcome)}")

    with folder.locked(out) as kernels:
        _side_by_side(take, chosen, jobs, kernels)
    return Summary(out, [outcomes[lesson.name] for lesson in chosen])


def _side_by_side(take, chosen, jobs: int, kernels) -> None:
    """Call take(lesson, kernels) for all, in threads; the first error ends the others."""
    begun = {}

    def begin(lesson, needed):
        wait(needed)
        take(lesson, kernels)

    order = _in_turn(chosen) if jobs > 1 else chosen
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for lesson in order:
                needed = [begun[name] for name in lesson.needs if name in begun]
                begun[lesson.name] = pool.submit(begin, lesson, needed)
            left = begun.values()
            while left:  # by the second, since on Windows Ctrl-C is not heard while waiting
                ended, left = wait(left, 1, FIRST_EXCEPTION)
                for one in ended:
                    one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            kernels.end()
            raise


def _in_turn(chosen) -> list:
    """Put first what others need; of the rest the last first, so that short ones end the run."""
    needed = {name for lesson in chosen for name in lesson.needs}
    first = [lesson for lesson in chosen if lesson.name in needed]
    rest = [lesson for lesson in reversed(chosen) if lesson.name not in needed]
    return [*sorted(first, key=lambda lesson: len(lesson.needs)), *rest]


def _environment(out: Path, command: str | None, jobs: int) -> dict[str, str]:
    """Environment of the kernels; of what sets their tone and threads the user's own comes first.

    Kernels that run at once share the cores: more threads than cores wait for each other.
    """
    threads = dict.fromkeys(THREADS, str(max(1, cores() // jobs))) if jobs > 1 else {}
    ours = execute.QUIET_KERNEL | threads
    ours = {name: os.environ.get(name, text) for name, text in ours.items()}
    # Kernels run in the notebooks' folder, where a relative path would mean another place.
    places = {name: os.environ.get(name) for name in ("CXR_CACHE", "CXR_WEIGHTS", "KERAS_HOME")}
    whole = {name: str(Path(p).expanduser().absolute()) for name, p in places.items() if p}
    return ours | whole | {"CXR_RUN": str(out), "CXR_COMMAND": command or ""}


def _leave_out(name: str, out: Path, note: dict, missing: list[str]) -> Outcome:
    """Run nothing, and keep nothing older that could pass for a result of this run."""
    forget(out, name)
    why = "needs " + ", ".join(missing)
    _write_state(out, name, note, status=NOT_RUN, why=why)
    return Outcome(name, NOT_RUN, why=why)


def _take(lesson, out: Path, note: dict, progress: Progress, how: tuple) -> Outcome:
    """Run a notebook, and note what became of it."""
    name = lesson.name
    forget(out, name)
    whole = out / "notebooks" / f"{name}.ipynb"
    unfinished = whole.with_name(f".{name}.part.ipynb")
    timeout, environment, kernels = how
    begun = kernels.add
    try:
        execute.execute(
            lesson, unfinished, note["parameters"], progress, timeout, environment, begun
        )
    except execute.NotebookFailed as failure:
        if kernels.ended:  # it did not fail, it was ended
            forget(out, name)
            raise
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

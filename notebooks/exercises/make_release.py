"""Make the students' notebooks (release/) from the masters (source/), with the real nbgrader.

    python make_release.py             write release/
    python make_release.py --check     write nothing; exit 1 and name what has drifted
    python make_release.py --only 03   one lesson, or several: --only 03 05

Each release is what `nbgrader generate_assignment` makes of its master, byte for byte.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MISSING = """\
nbgrader is missing, and it makes the students' notebooks. Install it with
    python -m pip install -e ".[teach]"
in the course's folder. (To solve the exercises nobody needs it.)"""


class ReleaseError(ValueError):
    """A master that nbgrader cannot turn into a release, or one that does not exist."""


def find_masters(source: Path, only=()) -> list[str]:
    """List the lessons that have a master.

    Parameters
    ----------
    source : Path
        The folder with one folder a lesson, NN_subject/NN_subject.ipynb.
    only : sequence of str
        Beginnings of names, such as "03". All lessons by default.

    Raises
    ------
    ReleaseError
        If a name in `only` fits no lesson.
    """
    names = sorted(path.stem for path in source.glob("*/*.ipynb") if path.stem == path.parent.name)
    for wanted in only:
        if not any(name.startswith(wanted) for name in names):
            raise ReleaseError(f"No master begins with {wanted!r}. There are {', '.join(names)}.")
    return [name for name in names if not only or name.startswith(tuple(only))]


def generate(names, course: Path = HERE) -> dict[str, str]:
    """Let nbgrader turn masters into releases, in a temporary course with a fresh gradebook.

    Parameters
    ----------
    names : sequence of str
        Lessons, as :func:`find_masters` gives them.
    course : Path
        The folder that holds nbgrader_config.py and source/.

    Returns
    -------
    dict of str to str
        The text of each lesson's release.

    Raises
    ------
    ReleaseError
        If nbgrader refuses a master; the message holds its log.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder).resolve()
        shutil.copy(course / "nbgrader_config.py", copy)
        for name in names:
            shutil.copytree(course / "source" / name, copy / "source" / name)
        nbgrader = _open(copy)
        return {name: _generate_one(nbgrader, copy, name) for name in names}


def _open(course: Path):
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import PyFileConfigLoader

    # nbgrader calls its helper `alembic` by name, also where the environment is not activated
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    config = PyFileConfigLoader("nbgrader_config.py", path=str(course)).load_config()
    config.CourseDirectory.root = str(course)
    return NbGraderAPI(config=config)


def _generate_one(nbgrader, course: Path, name: str) -> str:
    result = nbgrader.generate_assignment(name)
    if not result["success"]:
        log = result.get("log") or result.get("error")
        raise ReleaseError(f"nbgrader refuses the master {name}:\n{log}")
    text = (course / "release" / name / f"{name}.ipynb").read_text(encoding="utf-8")
    return text.rstrip("\n") + "\n"


def find_drift(releases: dict[str, str], folder: Path) -> list[str]:
    """Name the files in `folder` that differ from the releases, one sentence each."""
    found = []
    for name, text in releases.items():
        path = folder / name / f"{name}.ipynb"
        if not path.exists():
            found.append(f"{path.name} is missing from {folder.name}/")
        elif path.read_text(encoding="utf-8") != text:
            found.append(f"{path.name} in {folder.name}/ differs from its master")
    return found


def find_orphans(masters, folder: Path) -> list[Path]:
    """Releases whose master is gone."""
    return [path for path in sorted(folder.glob("*/*.ipynb")) if path.stem not in masters]


def write(releases: dict[str, str], folder: Path) -> None:
    """Write each release to its own folder."""
    for name, text in releases.items():
        path = folder / name / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def main(arguments=None, course: Path = HERE) -> int:
    """Make the releases, or check them. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Make release/ from source/ with nbgrader.")
    parser.add_argument("--check", action="store_true", help="compare only; 1 if one drifted")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="these lessons only")
    chosen = parser.parse_args(arguments)
    folder = course / "release"
    try:
        masters = find_masters(course / "source")
        releases = generate(find_masters(course / "source", chosen.only), course)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] != "nbgrader":
            raise
        print(MISSING, file=sys.stderr)
        return 2
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 2
    orphans = find_orphans(masters, folder)
    if chosen.check:
        drift = find_drift(releases, folder)
        drift += [f"{path.name} in {folder.name}/ has no master" for path in orphans]
        drift += ["Run: make student"] if drift else []
        print("\n".join(drift) or "The releases are up to date.")
        return 1 if drift else 0
    write(releases, folder)
    for path in orphans:
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    print(f"{len(releases)} of {len(masters)} releases written to {folder.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())

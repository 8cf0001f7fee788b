"""Helpers for tests of the exercises: submissions of all kinds, and the real nbgrader."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import yaml
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parents[2]
EXERCISES = ROOT / "notebooks" / "exercises"
LESSONS = sorted(path.stem for path in (EXERCISES / "source").glob("*/*.ipynb"))
STUB = [
    "# Write your answer here, then delete the next line",
    'raise NotImplementedError("This task is not answered yet.")',
]
QUESTION_STUB = "*Write your answer here.*"


def read(lesson: str, step: str) -> dict:
    """Read the master (step "source") or the release of a lesson."""
    return json.loads((EXERCISES / step / lesson / f"{lesson}.ipynb").read_text(encoding="utf-8"))


def source(cell: dict) -> str:
    return "".join(cell["source"])


def mark(cell: dict) -> dict:
    """What nbgrader knows of a cell; empty for prose and given code."""
    return cell["metadata"].get("nbgrader", {})


def ids(notebook: dict, **wanted) -> list[str]:
    """Cells whose marks are as wanted, such as ids(notebook, grade=True, solution=False)."""
    return [
        cell["id"]
        for cell in notebook["cells"]
        if mark(cell) and all(mark(cell)[key] == value for key, value in wanted.items())
    ]


def points(notebook: dict) -> dict[str, int]:
    """Points of each check and question."""
    return {
        cell["id"]: mark(cell)["points"] for cell in notebook["cells"] if mark(cell).get("grade")
    }


def cut(text: str, what: str) -> tuple[list[str], list[str], list[str], str]:
    """Lines before, inside and after a region, and its indentation."""
    lines = text.split("\n")
    begin, end = (
        next(row for row, line in enumerate(lines) if line.strip() == f"### {side} {what}")
        for side in ("BEGIN", "END")
    )
    indent = re.match(r" *", lines[begin])[0]
    return lines[:begin], lines[begin + 1 : end], lines[end + 1 :], indent


def fill(cell: dict, answer: str | None = None) -> str:
    """Give the text of a master's solution cell without its markers, or with another answer."""
    before, inside, after, indent = cut(source(cell), "SOLUTION")
    if answer is not None:
        inside = [indent + line if line else "" for line in answer.rstrip("\n").split("\n")]
    return "\n".join(before + inside + after)


def answer(lesson: str, wrong: dict[str, str] | None = None) -> dict:
    """Make a submission: the release with the master's answers, but the wrong ones given."""
    wrong, notebook = wrong or {}, read(lesson, "release")
    masters = {cell["id"]: cell for cell in read(lesson, "source")["cells"]}
    for cell in notebook["cells"]:
        if mark(cell).get("solution"):
            cell["source"] = fill(masters[cell["id"]], wrong.get(cell["id"]))
    return notebook


def find(notebook: dict, name: str) -> dict:
    return next(cell for cell in notebook["cells"] if cell["id"] == name)


def find_marked(notebook: dict, name: str) -> dict:
    """Find a cell by nbgrader's name: what went through Colab has no ids."""
    return next(cell for cell in notebook["cells"] if mark(cell).get("grade_id") == name)


def without(notebook: dict, *names: str) -> dict:
    cells = [cell for cell in notebook["cells"] if cell["id"] not in names]
    return notebook | {"cells": cells}


def with_copy_of(notebook: dict, name: str) -> dict:
    """Copy a cell with all its metadata, as Colab does; the copy stands first."""
    twin = copy.deepcopy(find(notebook, name)) | {"id": f"{name}-copy"}
    place = notebook["cells"].index(find(notebook, name))
    cells = [*notebook["cells"][:place], twin, *notebook["cells"][place:]]
    return notebook | {"cells": cells}


def through_colab(notebook: dict) -> dict:
    """Rewrite a notebook as Colab saves it: an old format, ids in the metadata, old outputs."""
    cells = []
    for place, cell in enumerate(copy.deepcopy(notebook["cells"])):
        meta = cell["metadata"] | {"id": cell.pop("id")}
        if cell["cell_type"] == "code":
            meta |= {"colab": {"base_uri": "https://localhost:8080/", "height": 52}}
            meta |= {"outputId": f"1f0e3dad-0000-4000-8000-{place:012d}"}
            trace = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
            cell |= {"execution_count": place + 1, "outputs": [trace]}
        cells.append(cell | {"metadata": meta})
    widget = {"model_module": "@jupyter-widgets/controls", "model_name": "HBoxModel", "state": {}}
    about = {
        "accelerator": "GPU",
        "colab": {"provenance": [], "gpuType": "T4", "toc_visible": True},
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
        "widgets": {"application/vnd.jupyter.widget-state+json": {"1a2b": widget}},
    }
    return {"nbformat": 4, "nbformat_minor": 0, "metadata": about, "cells": cells}


def wrong_answers(lesson: str) -> list[dict]:
    """Read the list of known wrong answers of a lesson."""
    path = Path(__file__).parent / "exercises" / f"{lesson}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def wrong_rounds(lesson: str) -> list[dict[str, dict]]:
    """Deal wrong answers to submissions: the k-th of every task goes to the k-th round."""
    rounds = []
    for wrong in wrong_answers(lesson):
        free = next((one for one in rounds if wrong["task"] not in one), None)
        if free is None:
            rounds.append(free := {})
        free[wrong["task"]] = wrong
    return rounds


class Course:
    """A teacher's folder: masters, settings and submissions, and nbgrader run in it."""

    def __init__(self, folder: Path, lesson: str):
        self.folder, self.lesson = folder, lesson
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXERCISES / "nbgrader_config.py", folder)
        shutil.copytree(EXERCISES / "source" / lesson, folder / "source" / lesson)
        # As in a fresh clone: the release is there, a gradebook is not.
        shutil.copytree(EXERCISES / "release" / lesson, folder / "release" / lesson)

    def path(self, step: str, student: str) -> Path:
        return self.folder / step / student / self.lesson / f"{self.lesson}.ipynb"

    def submit(self, student: str, notebook: dict) -> None:
        path = self.path("submitted", student)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook), encoding="utf-8")

    def type(self, *words: str) -> subprocess.CompletedProcess:
        """Run an nbgrader command as a teacher types it."""
        environment = os.environ | {
            "CXR_CACHE": str(self.folder / "cache"),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            # Two lessons are graded side by side on two cores.
            "OMP_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        command = [sys.executable, "-m", "nbgrader", *words]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=900
        )

    def grades(self) -> dict[str, dict[str, float | None]]:
        """Points by student and check; None where a teacher has to look."""
        from nbgrader.api import Gradebook

        with Gradebook(f"sqlite:///{self.folder / 'gradebook.db'}") as gradebook:
            return {
                submission.student.id: {
                    grade.name: None if grade.needs_manual_grade else grade.score
                    for notebook in submission.notebooks
                    for grade in notebook.grades
                }
                for submission in gradebook.assignment_submissions(self.lesson)
            }

    def graded(self, student: str) -> dict:
        return json.loads(self.path("autograded", student).read_text(encoding="utf-8"))


def errors(cell: dict) -> list[dict]:
    return [one for one in cell.get("outputs", []) if one["output_type"] == "error"]


@dataclass(frozen=True)
class Failure:
    """What a cell raised: the kind of error, its words, and its line in the cell (from 1)."""

    kind: str
    words: str
    line: int | None


def perform(notebook: dict) -> dict[str, Failure]:
    """Execute the code cells of a notebook in order, in this process; the failures by cell id.

    As in a kernel, a cell that fails stops no later one, and names live in a namespace of their
    own. What takes long in a kernel is done once for all notebooks: the imports.
    """
    failures, names = {}, {"__name__": "__main__", "display": lambda *_: None}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        place = f"<{cell['id']}>"
        try:  # IPython's own spelling, such as %pip, becomes plain Python
            code = compile(TransformerManager().transform_cell(source(cell)), place, "exec")
            exec(code, names)
        except (Exception, SystemExit) as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == place]
            line = lines[0] if lines else getattr(error, "lineno", None)
            failures[cell["id"]] = Failure(type(error).__name__, str(error), line)
    return failures

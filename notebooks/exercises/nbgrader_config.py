"""nbgrader's settings, read by every `nbgrader` command that is typed in this folder.

`Repair` makes nbgrader forgive what Colab lets students do: copy and delete cells.
"""

import os

import nbformat
from nbgrader.api import Gradebook
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearOutput,
    OverwriteCells,
    OverwriteKernelspec,
)


class Repair(OverwriteCells):
    """Bring the cells that count back into a submission before it is graded.

    Copies of a cell and cells of another release lose nbgrader's metadata (nbgrader would stop
    and leave all later students ungraded). Deleted checks return behind their task. A notebook
    without any of nbgrader's metadata is refused (nbgrader would give it 0 without a word).
    """

    def preprocess(self, nb, resources):
        """Return the notebook with each graded cell exactly once."""
        where = resources["nbgrader"]
        nb.metadata.pop("widgets", None)  # as Colab saves it, no feedback could be made
        with Gradebook(where["db_url"]) as gradebook:
            notebook = gradebook.find_notebook(where["notebook"], where["assignment"])
            points = {cell.name: cell.max_score for cell in notebook.grade_cells}
            answers = {cell.name for cell in notebook.solution_cells}
            self._forget(nb, {cell.name for cell in notebook.source_cells})
            if not any("nbgrader" in cell.metadata for cell in nb.cells):
                raise ValueError(
                    f"The notebook of {where['student']} has lost nbgrader's metadata, so nothing "
                    f"in it can be graded. Copy its answers into a fresh release of "
                    f"{where['assignment']}, put that in its place, and autograde again."
                )
            place = min(self._places(nb).values())
            for cell in notebook.source_cells:
                found = self._places(nb).get(cell.name)
                if found is None and cell.name in points:
                    self.log.warning("%s deleted %s; put back", where["student"], cell.name)
                    self._insert(nb, place, cell, points[cell.name], cell.name in answers)
                    found = place
                place = place if found is None else found + 1
        return nb, resources

    def _insert(self, nb, place, cell, points, is_answer):
        new = nbformat.from_dict(self.missing_cell_transform(cell, points, is_answer))
        if nb.nbformat_minor >= 5:  # Colab writes an older format, where a cell has no id
            new["id"] = cell.name
        nb.cells.insert(place, new)

    @staticmethod
    def _places(nb):
        named = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in nb.cells]
        return {name: place for place, name in enumerate(named) if name}

    def _forget(self, nb, known):
        """Drop nbgrader's metadata from unknown cells, and from all copies but the last."""
        last = self._places(nb)
        for place, cell in enumerate(nb.cells):
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            if "nbgrader" in cell.metadata and (name not in known or last[name] != place):
                self.log.warning("Cell %s is a copy or unknown; not graded", name)
                del cell.metadata["nbgrader"]


c = get_config()  # noqa: F821 (nbgrader provides it)
c.CourseDirectory.course_id = "cxr"

# Kernels inherit it, and it takes out the checks' asserts; checks graded elsewhere refuse it.
os.environ.pop("PYTHONOPTIMIZE", None)

# What students find in the place of a solution.
c.ClearSolutions.code_stub = {
    "python": "# Write your answer here, then delete the next line\n"
    'raise NotImplementedError("This task is not answered yet.")'
}
c.ClearSolutions.text_stub = "*Write your answer here.*"

# The release folder comes with the course, the gradebook does not: always make both.
c.GenerateAssignment.force = True

# Seconds a cell. An endless loop costs its own task; the others are graded as usual.
c.ExecutePreprocessor.timeout = 60

# A warning is no mistake: without this, one line on stderr makes a check worth 0.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = r"(?s).*"
c.Autograde.sanitize_preprocessors = [
    ClearOutput,
    Repair,
    OverwriteKernelspec,
    OverwriteCells,
    CheckCellMetadata,
]

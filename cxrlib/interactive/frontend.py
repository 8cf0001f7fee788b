"""Tell whether a person sits here: a headless run shows figures, and asks nothing."""

from __future__ import annotations

import os
from importlib.util import find_spec


def is_live() -> bool:
    """Tell whether somebody can see this cell's widgets and move them; ask while the cell runs.

    A front end says with each cell whether the cell may ask back (``allow_stdin`` in Jupyter's
    messages). JupyterLab, the classic notebook, VS Code and Colab say yes, as a person is there
    to answer; nbclient says no, and with it papermill, nbgrader, nbconvert and Sphinx. Voila
    runs cells with nbclient too, then serves them to people, and leaves its name in the kernel's
    environment. In plain Python and in a terminal there are no widgets.
    """
    if find_spec("IPython") is None:
        return False
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return False
    if os.environ.get("SERVER_SOFTWARE", "").startswith("voila/"):
        return True
    request = kernel.get_parent() or {}
    return bool(request.get("content", {}).get("allow_stdin", False))


def is_movable() -> bool:
    """Tell whether to make widgets: somebody is there, and ipywidgets is installed."""
    return is_live() and find_spec("ipywidgets") is not None
